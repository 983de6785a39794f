//! A capture played into the fake sink: frames are really decoded, and counted.

use crate::common::{Tag, next, read_until, small, tags};
use astral_pipelines::{
    Capture, CaptureEvent, CaptureSource, Mic, PlayError, PlaySink, PlaySpec, PlayStats, Player,
    PlayerEvent,
};
use bytes::Bytes;

const FAKE: PlaySpec =
    PlaySpec { sink: PlaySink::Fake, lag: std::time::Duration::ZERO, audio: true };

/// An FLV stream of about `pictures` pictures and its end.
async fn recorded(pictures: usize) -> Vec<u8> {
    let (capture, mut events) = Capture::start(&small(CaptureSource::Test)).unwrap();
    let enough = |flv: &[u8]| {
        flv.len() > 100 && tags(flv).iter().filter(|tag| tag.is_picture()).count() >= pictures
    };
    let (mut flv, _) = read_until(&mut events, enough).await;
    capture.stop();
    let (rest, last) = read_until(&mut events, |_| false).await;
    assert_eq!(last, Some(CaptureEvent::Ended));
    flv.extend_from_slice(&rest);
    flv
}

async fn play(flv: &[u8], spec: &PlaySpec) -> (Vec<PlayerEvent>, PlayStats) {
    let (player, mut input, mut events) = Player::start(spec).unwrap();
    for piece in flv.chunks(1000) {
        input.push(Bytes::copy_from_slice(piece)).await.unwrap();
    }
    input.end();
    let mut seen = Vec::new();
    while let Some(event) = next(&mut events).await {
        seen.push(event);
    }
    (seen, player.stats())
}

#[tokio::test]
async fn every_frame_of_a_capture_is_decoded_and_counted() {
    let flv = recorded(45).await;
    let all = tags(&flv);
    let (events, stats) = play(&flv, &FAKE).await;
    let resized = PlayerEvent::Resized { width: 320, height: 180 };
    assert_eq!(events, [resized, PlayerEvent::FirstFrame, PlayerEvent::Ended]);
    assert_eq!(stats.frames_rendered, all.iter().filter(|tag| tag.is_picture()).count() as u64);
    let sound = all.iter().filter(|tag| tag.kind == 8 && !tag.is_aac_header()).count() as u64;
    assert!(stats.audio_buffers + 3 >= sound, "{} of {sound}", stats.audio_buffers);
    assert_eq!((stats.width, stats.height), (320, 180));
}

#[tokio::test]
async fn a_live_capture_plays_while_it_runs() {
    let (_capture, mut captured) = Capture::start(&small(CaptureSource::Test)).unwrap();
    let (player, mut input, mut events) = Player::start(&FAKE).unwrap();
    let feed = async {
        while player.stats().frames_rendered < 30 {
            let Some(CaptureEvent::Bytes(bytes)) = next(&mut captured).await else {
                panic!("the capture ended")
            };
            input.push(bytes).await.unwrap();
        }
    };
    tokio::time::timeout(crate::common::DEADLINE, feed).await.unwrap();
    assert_eq!(next(&mut events).await, Some(PlayerEvent::Resized { width: 320, height: 180 }));
    assert_eq!(next(&mut events).await, Some(PlayerEvent::FirstFrame));
}

#[tokio::test]
async fn a_stream_without_sound_plays_and_ends() {
    let source = crate::common::folder("play_silent").join("silent.launch");
    std::fs::write(
        &source,
        "videotestsrc is-live=true num-buffers=20 ! video/x-raw,width=320,height=180,framerate=30/1 ! {encoder} \
         ! h264parse ! flvmux streamable=true ! appsink name=out",
    )
    .unwrap();
    let (_capture, mut events) = Capture::start(&small(CaptureSource::Launch(source))).unwrap();
    let (flv, _) = read_until(&mut events, |_| false).await;
    let (events, stats) = play(&flv, &FAKE).await;
    assert_eq!(events.last(), Some(&PlayerEvent::Ended));
    assert_eq!((stats.frames_rendered, stats.audio_buffers), (20, 0));
}

#[tokio::test]
async fn sound_is_left_out_when_it_is_not_wanted() {
    let flv = recorded(10).await;
    let (events, stats) = play(&flv, &PlaySpec { audio: false, ..FAKE }).await;
    assert_eq!(events.last(), Some(&PlayerEvent::Ended));
    assert!(stats.frames_rendered >= 10);
    assert_eq!(stats.audio_buffers, 0);
}

#[tokio::test]
async fn a_new_picture_size_is_told_and_every_frame_is_decoded() {
    let small_picture = recorded(15).await;
    let mut spec = small(CaptureSource::Test);
    (spec.width, spec.height) = (640, 360);
    let (capture, mut events) = Capture::start(&spec).unwrap();
    let enough = |flv: &[u8]| {
        flv.len() > 100 && tags(flv).iter().filter(|tag| tag.is_picture()).count() >= 15
    };
    let (large_picture, _) = read_until(&mut events, enough).await;
    drop(capture);

    // The second stream follows the first without an FLV header of its own, its clock going on.
    let first_ms = tags(&small_picture).iter().map(|tag| tag.time_ms).max().unwrap() + 33;
    let mut flv = small_picture.clone();
    for tag in tags(&large_picture) {
        flv.extend_from_slice(&encode(&Tag { time_ms: tag.time_ms + first_ms, ..tag }));
    }
    let pictures = tags(&flv).iter().filter(|tag| tag.is_picture()).count() as u64;
    let (events, stats) = play(&flv, &FAKE).await;
    assert!(events.contains(&PlayerEvent::Resized { width: 640, height: 360 }), "{events:?}");
    assert_eq!(events.last(), Some(&PlayerEvent::Ended));
    assert_eq!(stats.frames_rendered, pictures);
}

fn encode(tag: &Tag) -> Vec<u8> {
    let size = u32::try_from(tag.body.len()).unwrap();
    let mut bytes = vec![tag.kind];
    bytes.extend_from_slice(&size.to_be_bytes()[1..]);
    bytes.extend_from_slice(&tag.time_ms.to_be_bytes()[1..]);
    bytes.push(tag.time_ms.to_be_bytes()[0]);
    bytes.extend_from_slice(&[0, 0, 0]);
    bytes.extend_from_slice(&tag.body);
    bytes.extend_from_slice(&(size + 11).to_be_bytes());
    bytes
}

#[tokio::test]
async fn bytes_that_are_not_flv_are_refused_however_they_are_cut() {
    let (_player, mut input, _events) = Player::start(&FAKE).unwrap();
    input.push(Bytes::from_static(b"F")).await.unwrap();
    let error = input.push(Bytes::from_static(b"AST forward")).await.unwrap_err();
    assert!(matches!(error, PlayError::NotFlv), "{error}");
}

#[tokio::test]
async fn many_times_the_bound_of_waiting_bytes_pass_through_the_input() {
    // A stream of script tags only: nothing is ever shown, everything is read.
    let script = encode(&Tag { kind: 18, time_ms: 0, body: vec![0; 1_000_000] });
    let (_player, mut input, _events) = Player::start(&FAKE).unwrap();
    input.push(Bytes::from_static(b"FLV\x01\x05\0\0\0\x09\0\0\0\0")).await.unwrap();
    let push_all = async {
        for _ in 0..20 {
            input.push(Bytes::from(script.clone())).await.unwrap();
        }
    };
    tokio::time::timeout(crate::common::DEADLINE, push_all).await.unwrap();
}

#[tokio::test]
async fn a_dropped_player_refuses_input_and_ends_its_events() {
    let (player, mut input, mut events) = Player::start(&FAKE).unwrap();
    tokio::task::spawn_blocking(move || drop(player)).await.unwrap();
    assert!(matches!(input.push(Bytes::from_static(b"FLV")).await, Err(PlayError::Closed)));
    assert_eq!(next(&mut events).await, None);
}

#[tokio::test]
async fn a_screen_is_refused_where_there_is_none() {
    let set =
        |name| std::env::var_os(name).is_some_and(|value: std::ffi::OsString| !value.is_empty());
    if set("DISPLAY") || set("WAYLAND_DISPLAY") {
        println!("skipped: there is a display here");
        return;
    }
    let error = Capture::start(&small(CaptureSource::Screen { mic: Mic::None })).unwrap_err();
    assert!(error.to_string().starts_with("a screen"), "{error}");
    let window = PlaySpec { sink: PlaySink::Window, ..FAKE };
    assert!(matches!(Player::start(&window).unwrap_err(), PlayError::NoDisplay { .. }));
}
