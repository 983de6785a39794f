//! Captures that really run: the test picture, files, users' descriptions, missing devices.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{Tag, folder, has, next, read_until, small, tags};
use astral_pipelines::{
    Capture, CaptureError, CaptureEvent, CaptureSource, CaptureSpec, Encoder, Mic, RenditionSpec,
};

#[tokio::test]
async fn the_test_picture_is_flv_with_headers_and_keyframes_at_the_asked_interval() {
    let (capture, mut events) = Capture::start(&small(CaptureSource::Test)).unwrap();
    println!("{} in: {}", capture.encoder_name(), capture.description());
    let keyframes = |flv: &[u8]| {
        tags(flv).into_iter().filter(Tag::is_keyframe).map(|tag| tag.time_ms).collect::<Vec<_>>()
    };
    let (flv, event) =
        read_until(&mut events, |flv| flv.len() > 100 && keyframes(flv).len() >= 5).await;
    assert_eq!(event, None);
    let all = tags(&flv);
    assert!(all.iter().any(Tag::is_avc_header));
    assert!(all.iter().any(Tag::is_aac_header));
    let times = keyframes(&flv);
    for pair in times.windows(2) {
        let gap = pair[1] - pair[0];
        assert!((450..=550).contains(&gap), "keyframes at {times:?}");
    }
    let sound: Vec<_> = all
        .iter()
        .filter(|tag| tag.kind == 8 && !tag.is_aac_header())
        .map(|tag| tag.time_ms)
        .collect();
    assert!(
        sound.windows(2).all(|pair| (21..=22).contains(&(pair[1] - pair[0]))),
        "sound at {sound:?}"
    );
}

/// Whether a stream's metadata say this number.
fn has_number(flv: &[u8], name: &str, value: f64) -> bool {
    let script = tags(flv).into_iter().find(|tag| tag.kind == 18).expect("metadata");
    let mut wanted = name.as_bytes().to_vec();
    wanted.push(0);
    wanted.extend(value.to_be_bytes());
    script.body.windows(wanted.len()).any(|window| window == wanted)
}

#[tokio::test]
async fn a_rendition_is_an_flv_stream_of_its_own_with_a_smaller_picture_and_the_same_sound() {
    let renditions = [(160, 90), (80, 46)].map(|(width, height)| RenditionSpec {
        width,
        height,
        video_bitrate_kbps: 60,
    });
    let spec = CaptureSpec { renditions: renditions.to_vec(), ..small(CaptureSource::Test) };
    let (_capture, mut events) = Capture::start(&spec).unwrap();
    let mut streams = [Vec::new(), Vec::new(), Vec::new()];
    let enough = |flv: &Vec<u8>| {
        flv.len() > 100 && tags(flv).iter().filter(|tag| tag.is_keyframe()).count() >= 3
    };
    while !streams.iter().all(enough) {
        match next(&mut events).await {
            Some(CaptureEvent::Bytes(bytes)) => streams[0].extend_from_slice(&bytes),
            Some(CaptureEvent::Rendition { number, begins, bytes }) => {
                assert_eq!(begins, streams[number + 1].is_empty());
                streams[number + 1].extend_from_slice(&bytes);
            }
            other => panic!("{other:?}"),
        }
    }
    for (flv, height) in streams.iter().zip([180.0, 90.0, 46.0]) {
        assert!(has_number(flv, "height", height), "{height}");
        let all = tags(flv);
        assert!(all.iter().any(Tag::is_avc_header) && all.iter().any(Tag::is_aac_header));
    }
}

#[tokio::test]
async fn a_description_without_a_place_for_renditions_is_refused_with_the_reason() {
    let own = folder("renditions").join("own.launch");
    std::fs::write(&own, "videotestsrc is-live=true ! {encoder} ! fakesink name=out").unwrap();
    let rendition = RenditionSpec { width: 160, height: 90, video_bitrate_kbps: 60 };
    let spec = CaptureSpec { renditions: vec![rendition], ..small(CaptureSource::Launch(own)) };
    let error = Capture::start(&spec).unwrap_err();
    assert!(error.to_string().contains("{renditions}"), "{error}");
}

#[tokio::test]
async fn stop_ends_the_stream_with_a_whole_tag_and_then_the_channel() {
    let (capture, mut events) = Capture::start(&small(CaptureSource::Test)).unwrap();
    let (mut flv, _) = read_until(&mut events, |flv| flv.len() > 5_000).await;
    capture.stop();
    let (rest, last) = read_until(&mut events, |_| false).await;
    flv.extend_from_slice(&rest);
    assert_eq!(last, Some(CaptureEvent::Ended));
    assert_eq!(next(&mut events).await, None);
    let length: usize = 13 + tags(&flv).iter().map(|tag| tag.body.len() + 15).sum::<usize>();
    assert_eq!(flv.len(), length, "the stream is cut within a tag");
}

#[tokio::test]
async fn a_capture_that_nobody_reads_stops_at_once_when_dropped() {
    let (capture, events) = Capture::start(&small(CaptureSource::Test)).unwrap();
    // 256 events of a 30 fps stream with sound fill the channel within 4 s.
    let full = async {
        while events.capacity() > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(crate::common::DEADLINE, full).await.unwrap();
    let dropped = tokio::task::spawn_blocking(move || drop(capture));
    tokio::time::timeout(std::time::Duration::from_secs(3), dropped).await.unwrap().unwrap();
}

#[tokio::test]
async fn each_software_encoder_gives_keyframes_at_the_asked_interval() {
    for (encoder, name) in [(Encoder::X264, "x264enc"), (Encoder::OpenH264, "openh264enc")] {
        let mut spec = small(CaptureSource::Test);
        spec.encoder = encoder;
        let (capture, mut events) = Capture::start(&spec).unwrap();
        assert_eq!(capture.encoder_name(), name);
        let pictures =
            |flv: &[u8]| tags(flv).into_iter().filter(Tag::is_picture).collect::<Vec<_>>();
        let (flv, event) =
            read_until(&mut events, |flv| flv.len() > 100 && pictures(flv).len() >= 32).await;
        assert_eq!(event, None);
        let keyframes: Vec<_> = pictures(&flv)
            .iter()
            .enumerate()
            .filter(|(_, tag)| tag.is_keyframe())
            .map(|(at, _)| at)
            .collect();
        assert_eq!(keyframes, [0, 15, 30], "{name}");
    }
}

#[tokio::test]
async fn a_missing_camera_is_told_with_the_cameras_there_are() {
    let there_are: Vec<_> = astral_pipelines::devices()
        .unwrap()
        .into_iter()
        .filter(|device| device.kind == astral_pipelines::DeviceKind::Camera)
        .map(|device| format!("{} ({})", device.id, device.name))
        .collect();
    let camera = CaptureSource::Camera { device: Some("/dev/video99".to_owned()), mic: Mic::None };
    let error = Capture::start(&small(camera)).unwrap_err();
    println!("{error}");
    let CaptureError::DeviceNotFound { wanted, mut available } = error else {
        panic!("another error")
    };
    available.sort();
    assert_eq!((wanted.as_str(), available), ("the camera /dev/video99", there_are));
}

#[tokio::test]
async fn a_device_file_that_is_no_camera_is_refused_in_the_systems_words() {
    let camera = CaptureSource::Camera { device: Some("/dev/null".to_owned()), mic: Mic::None };
    let error = Capture::start(&small(camera)).unwrap_err();
    println!("{error}");
    assert!(matches!(error, CaptureError::State { .. }), "{error}");
}

#[tokio::test]
async fn a_named_microphone_that_is_not_there_is_refused() {
    // The camera comes first, so borrow a device file that exists.
    let camera = CaptureSource::Camera {
        device: Some("/dev/null".to_owned()),
        mic: Mic::Device("no such mic".to_owned()),
    };
    let error = Capture::start(&small(camera)).unwrap_err();
    assert!(error.to_string().starts_with("the microphone no such mic wasn't found; "), "{error}");
}

fn launch_file(test: &str, text: &str) -> CaptureSource {
    let path = folder(test).join("own.launch");
    std::fs::write(&path, text).unwrap();
    CaptureSource::Launch(path)
}

#[tokio::test]
async fn a_users_description_without_appsink_is_refused() {
    let source = launch_file("no_appsink", "videotestsrc is-live=true ! fakesink");
    let error = Capture::start(&small(source)).unwrap_err();
    let CaptureError::Description { path, message } = error else {
        panic!("another error: {error}")
    };
    assert!(path.ends_with("own.launch"));
    assert!(message.contains("appsink name=out"), "{message}");
}

#[tokio::test]
async fn a_users_description_with_a_missing_element_names_it() {
    let source = launch_file("no_element", "videotestsrc ! nosuchenc ! flvmux ! appsink name=out");
    let error = Capture::start(&small(source)).unwrap_err();
    let CaptureError::MissingElement { element, .. } = error else {
        panic!("another error: {error}")
    };
    assert_eq!(element, "nosuchenc");
}

#[tokio::test]
async fn a_users_description_that_delivers_something_else_fails_in_words() {
    let source = launch_file("no_flv", "videotestsrc is-live=true ! jpegenc ! appsink name=out");
    let (_capture, mut events) = Capture::start(&small(source)).unwrap();
    let (flv, last) = read_until(&mut events, |_| false).await;
    assert!(flv.is_empty());
    let Some(CaptureEvent::Failed(message)) = last else { panic!("{last:?}") };
    assert!(message.contains("doesn't deliver FLV"), "{message}");
}

#[tokio::test]
async fn a_users_description_may_use_the_placeholders() {
    let source = launch_file(
        "placeholders",
        "# my own\nvideotestsrc is-live=true num-buffers=20 ! video/x-raw,width={width},height={height},framerate={fps}/1\n\
         ! {encoder} ! h264parse ! flvmux streamable=true ! appsink name=out",
    );
    let (capture, mut events) = Capture::start(&small(source)).unwrap();
    assert!(capture.description().contains("width=320,height=180,framerate=30/1"));
    let (flv, last) = read_until(&mut events, |_| false).await;
    assert_eq!(last, Some(CaptureEvent::Ended));
    assert_eq!(tags(&flv).iter().filter(|tag| tag.is_picture()).count(), 20);
}

/// Makes a two-second file with ffmpeg; `None`, with a reason printed, when there is no ffmpeg.
fn make_file(test: &str, name: &str, codecs: &[&str]) -> Option<PathBuf> {
    if !has("ffmpeg") {
        println!("skipped: ffmpeg is not installed");
        return None;
    }
    let path = folder(test).join(name);
    let made = Command::new("ffmpeg")
        .args([
            "-loglevel",
            "error",
            "-y",
            "-f",
            "lavfi",
            "-i",
            "testsrc=size=320x180:rate=30:duration=1.5",
        ])
        .args(["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000:duration=1.5"])
        .args(codecs)
        .arg(&path)
        .status()
        .unwrap();
    assert!(made.success(), "ffmpeg made no {name}");
    Some(path)
}

const H264_AAC: &[&str] = &[
    "-c:v",
    "libx264",
    "-preset",
    "ultrafast",
    "-pix_fmt",
    "yuv420p",
    "-bf",
    "2",
    "-g",
    "15",
    "-c:a",
    "aac",
];

/// Every picture of the file, as ffmpeg reads it, each with its length in front as in MP4 and FLV.
fn h264_of(path: &Path) -> Vec<Vec<u8>> {
    let flv = path.with_extension("reference.flv");
    let copied = Command::new("ffmpeg")
        .args(["-loglevel", "error", "-y", "-i"])
        .arg(path)
        .args(["-an", "-c:v", "copy"])
        .arg(&flv)
        .status()
        .unwrap();
    assert!(copied.success());
    tags(&std::fs::read(flv).unwrap())
        .iter()
        .filter(|tag| tag.is_picture())
        .map(|tag| tag.h264().to_vec())
        .collect()
}

#[tokio::test]
async fn a_file_loops_and_its_h264_passes_untouched() {
    for name in ["film.mp4", "film.mkv", "film.flv"] {
        let Some(path) = make_file(&format!("loop_{name}"), name, H264_AAC) else { return };
        let reference = h264_of(&path);
        let (capture, mut events) = Capture::start(&small(CaptureSource::File(path))).unwrap();
        assert_eq!(capture.encoder_name(), "none");
        for _ in 0..2 {
            let (flv, event) = read_until(&mut events, |_| false).await;
            assert_eq!(event, Some(CaptureEvent::Restarted), "{name}");
            let all = tags(&flv);
            assert!(all.iter().any(Tag::is_avc_header), "{name}");
            assert!(all.iter().any(Tag::is_aac_header), "{name}");
            let sent: Vec<_> =
                all.iter().filter(|tag| tag.is_picture()).map(|tag| tag.h264().to_vec()).collect();
            assert_eq!(sent.len(), reference.len(), "{name}");
            assert!(sent == reference, "{name}: the H.264 was changed");
        }
        capture.stop();
        assert_eq!(read_until(&mut events, |_| false).await.1, Some(CaptureEvent::Ended));
    }
}

#[tokio::test]
async fn a_file_is_paced_in_real_time() {
    let Some(path) = make_file("pace", "film.mp4", H264_AAC) else { return };
    let (_capture, mut events) = Capture::start(&small(CaptureSource::File(path))).unwrap();
    let (_, _) = read_until(&mut events, |flv| !flv.is_empty()).await;
    let began = tokio::time::Instant::now();
    let (_, event) = read_until(&mut events, |_| false).await;
    assert_eq!(event, Some(CaptureEvent::Restarted));
    let took = began.elapsed().as_millis();
    assert!((1_200..4_500).contains(&took), "1.5 s of film took {took} ms");
}

#[tokio::test]
async fn a_file_in_other_codecs_is_encoded() {
    let codecs = ["-c:v", "mpeg4", "-c:a", "libmp3lame"];
    let Some(path) = make_file("transcode", "film.mkv", &codecs) else { return };
    let (capture, mut events) = Capture::start(&small(CaptureSource::File(path))).unwrap();
    assert_ne!(capture.encoder_name(), "none");
    let (flv, event) = read_until(&mut events, |_| false).await;
    assert_eq!(event, Some(CaptureEvent::Restarted));
    let all = tags(&flv);
    assert!(all.iter().any(Tag::is_aac_header));
    let pictures = all.iter().filter(|tag| tag.is_picture()).count();
    assert!((40..=50).contains(&pictures), "{pictures} pictures of 45");
}

#[tokio::test]
async fn a_file_without_sound_is_sent_without_sound() {
    let codecs = ["-an", "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"];
    let Some(path) = make_file("silent", "film.mp4", &codecs) else { return };
    let (_capture, mut events) = Capture::start(&small(CaptureSource::File(path))).unwrap();
    let (flv, event) = read_until(&mut events, |_| false).await;
    assert_eq!(event, Some(CaptureEvent::Restarted));
    assert!(tags(&flv).iter().all(|tag| tag.kind != 8));
}

#[tokio::test]
async fn a_file_without_pictures_is_refused() {
    let Some(path) = make_file("radio", "sound.mp4", &["-vn", "-c:a", "aac"]) else { return };
    let error = Capture::start(&small(CaptureSource::File(path))).unwrap_err();
    assert!(error.to_string().contains("no video track"), "{error}");
}
