//! A real window: what it shows, when it is closed, and the screen it is on as a capture source.
//!
//! Needs Xvfb. Each test starts a display of its own and runs itself again in a child process inside it,
//! because a process can't safely change its own DISPLAY.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::common::{Tag, has, next, small, tags};
use astral_pipelines::{
    Capture, CaptureEvent, CaptureSource, CaptureSpec, DeviceKind, Mic, PlaySink, PlaySpec, Player,
    PlayerEvent, PlayerInput,
};
use bytes::Bytes;
use tokio::sync::mpsc;
use x11rb::connection::Connection;
use x11rb::protocol::xproto::{
    ClientMessageData, ClientMessageEvent, ConnectionExt, EventMask, ImageFormat, MapState, Window,
};
use x11rb::rust_connection::RustConnection;

/// Set in the child process to the test it is to run.
const INSIDE: &str = "ASTRAL_PIPELINES_INSIDE_XVFB";

struct Display {
    server: Child,
    name: String,
}

impl Display {
    fn start() -> Self {
        let mut server = Command::new("Xvfb")
            .args(["-displayfd", "1", "-screen", "0", "800x600x24", "-nolisten", "tcp", "-noreset"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut number = String::new();
        // Xvfb writes the number once it takes connections.
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut number).unwrap();
        Self { server, name: format!(":{}", number.trim()) }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// True in the child process; in the parent runs the child and checks that it passed.
pub fn inside_a_display(module: &str, test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    if !has("Xvfb") {
        println!("skipped: Xvfb is not installed");
        return false;
    }
    let display = Display::start();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("{module}::{test}"), "--nocapture"])
        .env(INSIDE, test)
        .env("DISPLAY", &display.name)
        .env_remove("WAYLAND_DISPLAY")
        .status()
        .unwrap();
    assert!(child.success(), "{test} failed inside {}", display.name);
    false
}

pub struct Playing {
    pub player: Player,
    pub events: mpsc::Receiver<PlayerEvent>,
    /// Feeds the player until it takes no more.
    feeding: tokio::task::JoinHandle<PlayerInput>,
    _capture: Capture,
}

/// A live capture played in a window, its first frame shown.
pub async fn playing_window(spec: &CaptureSpec) -> Playing {
    let (capture, mut captured) = Capture::start(spec).unwrap();
    let play = PlaySpec { sink: PlaySink::Auto, ..PlaySpec::default() };
    let (player, mut input, mut events) = Player::start(&play).unwrap();
    let feeding = tokio::spawn(async move {
        while let Some(CaptureEvent::Bytes(bytes)) = captured.recv().await {
            if input.push(bytes).await.is_err() {
                break;
            }
        }
        input
    });
    loop {
        match next(&mut events).await {
            Some(PlayerEvent::FirstFrame) => break,
            Some(PlayerEvent::Warning(warning)) => println!("warning: {warning}"),
            Some(PlayerEvent::Resized { width, height }) => assert_eq!((width, height), (320, 180)),
            other => panic!("{other:?}"),
        }
    }
    Playing { player, events, feeding, _capture: capture }
}

pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let polled = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(
        tokio::time::timeout(crate::common::DEADLINE, polled).await.is_ok(),
        "waited for {what}"
    );
}

/// The one window on the display: there is no window manager.
pub fn window_of(display: &RustConnection) -> Option<Window> {
    let root = display.setup().roots[0].root;
    let children = display.query_tree(root).unwrap().reply().unwrap().children;
    children.into_iter().find(|child| {
        let attributes = display.get_window_attributes(*child).unwrap().reply();
        attributes.is_ok_and(|attributes| attributes.map_state == MapState::VIEWABLE)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_shows_the_picture_and_closing_it_is_told() {
    if !inside_a_display("window", "a_window_shows_the_picture_and_closing_it_is_told") {
        return;
    }
    let mut playing = playing_window(&small(CaptureSource::Test)).await;
    let player = &playing.player;
    until("30 frames on the screen", || player.stats().frames_rendered >= 30).await;
    // Once it is live, a window shows every frame in real time: 60 frames are two seconds.
    let began = tokio::time::Instant::now();
    until("60 frames more", || player.stats().frames_rendered >= 90).await;
    let took = began.elapsed();
    println!("60 frames on the screen in {took:?}; {:?}", player.stats());
    assert!(took < Duration::from_secs(6), "60 frames took {took:?}");

    let (display, _) = x11rb::connect(None).unwrap();
    let window = window_of(&display).expect("a window on the display");
    let size = display.get_geometry(window).unwrap().reply().unwrap();
    let picture = display
        .get_image(ImageFormat::Z_PIXMAP, window, 0, 0, size.width, size.height, u32::MAX)
        .unwrap()
        .reply()
        .unwrap();
    let bright =
        picture.data.chunks(4).filter(|pixel| pixel[..3].iter().any(|part| *part > 64)).count();
    assert!(bright * 2 > picture.data.len() / 4, "the window is dark");

    close(&display, window);
    let closed = loop {
        match next(&mut playing.events).await {
            Some(PlayerEvent::Warning(warning)) => println!("warning: {warning}"),
            other => break other,
        }
    };
    assert_eq!(closed, Some(PlayerEvent::Closed));
    assert_eq!(next(&mut playing.events).await, None);
    let mut input =
        tokio::time::timeout(crate::common::DEADLINE, playing.feeding).await.unwrap().unwrap();
    assert!(input.push(Bytes::from_static(b"x")).await.is_err());
    assert!(playing.player.stats().frames_rendered >= 30, "the count outlives the window");
}

/// As a window manager does when the user clicks the window's close button.
fn close(display: &RustConnection, window: Window) {
    let atom = |name: &[u8]| display.intern_atom(false, name).unwrap().reply().unwrap().atom;
    let data = ClientMessageData::from([atom(b"WM_DELETE_WINDOW"), 0, 0, 0, 0]);
    let message = ClientMessageEvent::new(32, window, atom(b"WM_PROTOCOLS"), data);
    display.send_event(false, window, EventMask::NO_EVENT, message).unwrap();
    display.flush().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_joined_with_a_burst_of_the_past_is_shown_at_its_live_edge() {
    if !inside_a_display(
        "window",
        "a_stream_joined_with_a_burst_of_the_past_is_shown_at_its_live_edge",
    ) {
        return;
    }
    let (_capture, mut captured) = Capture::start(&small(CaptureSource::Test)).unwrap();
    let play = PlaySpec { sink: PlaySink::Window, ..PlaySpec::default() };
    let (player, mut input, _events) = Player::start(&play).unwrap();
    // Three seconds of the past, which reach the player all at once.
    let (past, _) = crate::common::read_until(&mut captured, |flv| {
        flv.len() > 100 && tags(flv).iter().filter(|tag| tag.is_picture()).count() >= 90
    })
    .await;
    input.push(Bytes::from(past)).await.unwrap();
    let mut sent = 90;
    // The next two seconds come live; a player that showed the past first would show none of them.
    while sent < 150 {
        let Some(CaptureEvent::Bytes(bytes)) = next(&mut captured).await else {
            panic!("the capture ended")
        };
        sent += u64::from(bytes[0] == 9);
        input.push(bytes).await.unwrap();
    }
    let shown = player.stats().frames_rendered;
    println!("{shown} of {sent} frames shown: the past is left out");
    assert!((30..=110).contains(&shown), "{shown} frames shown");
    input.end();
    let mut events = _events;
    // Played live, the stream is over within its slack; played from its past, three seconds later.
    let ended = tokio::time::timeout(Duration::from_millis(1500), async {
        while let Some(event) = events.recv().await {
            if event == PlayerEvent::Ended {
                return true;
            }
        }
        false
    });
    assert_eq!(ended.await, Ok(true), "the player is late by its burst");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_follows_a_change_of_the_picture_size() {
    if !inside_a_display("window", "a_window_follows_a_change_of_the_picture_size") {
        return;
    }
    let path = crate::common::folder("resize").join("resize.launch");
    let launch = "videotestsrc is-live=true pattern=smpte ! capsfilter name=size caps=video/x-raw,width=320,height=180,framerate=30/1 \
         ! {encoder} ! h264parse ! flvmux streamable=true ! appsink name=out";
    std::fs::write(&path, launch).unwrap();
    let mut playing = playing_window(&small(CaptureSource::Launch(path.clone()))).await;
    let player = &playing.player;
    until("10 frames", || player.stats().frames_rendered >= 10).await;

    // A second stream in another size, appended as a new picture size within the same FLV stream.
    drop(playing._capture);
    let mut input = playing.feeding.await.unwrap();
    std::fs::write(&path, launch.replace("width=320,height=180", "width=640,height=360")).unwrap();
    let (_second, mut captured) = Capture::start(&small(CaptureSource::Launch(path))).unwrap();
    let mut flv = Vec::new();
    let mut passed = 13;
    let before = player.stats().frames_rendered;
    while player.stats().frames_rendered < before + 30 {
        let Some(CaptureEvent::Bytes(bytes)) = next(&mut captured).await else {
            panic!("the capture ended")
        };
        flv.extend_from_slice(&bytes);
        // Whole tags, without the FLV header of the second stream.
        let whole: usize = 13 + tags(&flv).iter().map(|tag| tag.body.len() + 15).sum::<usize>();
        if whole > passed {
            input.push(Bytes::copy_from_slice(&flv[passed..whole])).await.unwrap();
            passed = whole;
        }
    }
    assert_eq!((player.stats().width, player.stats().height), (640, 360));
    let mut resized = Vec::new();
    while let Ok(event) = playing.events.try_recv() {
        resized.push(event);
    }
    assert!(resized.contains(&PlayerEvent::Resized { width: 640, height: 360 }), "{resized:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_screen_of_an_x11_session_is_listed_and_captured() {
    if !inside_a_display("window", "the_screen_of_an_x11_session_is_listed_and_captured") {
        return;
    }
    let screens: Vec<_> = astral_pipelines::devices()
        .unwrap()
        .into_iter()
        .filter(|device| device.kind == DeviceKind::Screen)
        .collect();
    println!("{screens:?}");
    assert_eq!(screens.len(), 1);
    assert_eq!(screens[0].id, std::env::var("DISPLAY").unwrap());

    let (_capture, mut events) =
        Capture::start(&small(CaptureSource::Screen { mic: Mic::None })).unwrap();
    let pictures = |flv: &[u8]| {
        flv.len() > 100 && tags(flv).iter().filter(|tag| tag.is_picture()).count() >= 10
    };
    let (flv, event) = crate::common::read_until(&mut events, pictures).await;
    assert_eq!(event, None);
    assert!(tags(&flv).iter().any(Tag::is_keyframe));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_screen_without_any_microphone_is_captured_with_a_warning() {
    if !inside_a_display("window", "a_screen_without_any_microphone_is_captured_with_a_warning") {
        return;
    }
    if astral_pipelines::devices()
        .unwrap()
        .iter()
        .any(|device| device.kind == DeviceKind::Microphone)
    {
        println!("skipped: there is a microphone here");
        return;
    }
    let (_capture, mut events) =
        Capture::start(&small(CaptureSource::Screen { mic: Mic::Default })).unwrap();
    let warning = "no microphone found: the stream carries video only".to_owned();
    assert_eq!(next(&mut events).await, Some(CaptureEvent::Warning(warning)));
    assert!(matches!(next(&mut events).await, Some(CaptureEvent::Bytes(_))));
}
