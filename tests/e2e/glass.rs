//! From glass to glass: a picture with a clock in it goes through an encoder, two forwarders and a player, and
//! is read where a person would see it.
//!
//! Owns the clock in the picture and its reading. Prints figures and asserts none of them: `make glass` is for a
//! quiet machine. What is measured begins when a frame is written to the encoder's pipeline and ends when it is
//! read from the decoder, or from the screen.

use std::{
    fs::OpenOptions,
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::harness::{Network, Node, SOON, Scratch, stream_is_whole};

const WIDTH: usize = 640;
const HEIGHT: usize = 360;
const FPS: u32 = 30;
/// The clock: milliseconds as so many black or white columns, and behind them the same inverted.
const BITS: usize = 20;
const COLUMN: usize = WIDTH / (2 * BITS);
/// How long is measured, after a beginning that is not.
const MEASURED: Duration = Duration::from_secs(20);
const SETTLED: Duration = Duration::from_secs(5);

#[test]
#[ignore = "figures: make glass"]
fn from_glass_to_glass_over_two_forwarders() {
    let scratch = Scratch::new("glass");
    let (fifo, launch) = (scratch.file("camera"), scratch.file("glass.launch"));
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let description = format!(
        "filesrc location={} blocksize={} ! rawvideoparse format=i420 width={WIDTH} height={HEIGHT} \
         framerate={FPS}/1 ! {{encoder}} ! h264parse ! flvmux name=mux streamable=true \
         latency=40000000 ! appsink name=out sync=false",
        fifo.display(),
        WIDTH * HEIGHT * 3 / 2,
    );
    std::fs::write(&launch, description).unwrap();
    let clock = Instant::now();
    let over = Arc::new(AtomicBool::new(false));
    let camera = {
        let over = Arc::clone(&over);
        std::thread::spawn(move || film(&fifo, clock, &over))
    };
    let network = Network::found();
    let file = launch.to_str().unwrap();
    let one = ["--max-copies", "1"];
    let all = [&["publish", "glass", "--pipeline", file, "--bitrate", "1Mbit"], &one[..]].concat();
    let source = network.member("source", &all);
    let link = source.ready("stream");
    let forwarders: Vec<Node> = ["first", "second"]
        .map(|name| {
            let node = network.seed(name, &link, &one);
            node.wait("status", SOON, stream_is_whole);
            node
        })
        .into();
    let display = Display::start();
    let (screen, addr) = (format!("DISPLAY={}", display.name), network.supernode.addr());
    let wrapper = ["env".to_owned(), screen];
    let args = ["play", &link, "--lag", "low", "--sink", "window", "--bootstrap", &addr];
    // It forwards nothing, so that no forwarder has to make way for it.
    let args = [&args[..], &["--role", "member", "--max-copies", "0"]].concat();
    let viewer = Node::spawn_under("viewer", &wrapper, &args);
    let ready = viewer.wait("ready", SOON, |_| true);
    viewer.wait("first_frame", SOON, |_| true);
    viewer.wait("status", SOON, |status| status["streams"][0]["hops"] == 3);
    let url = ready["media"]["http_flv"].as_str().unwrap();
    let gray = format!("video/x-raw,format=GRAY8,width={WIDTH},height={HEIGHT}");
    let out = "filesink location=/dev/stdout buffer-mode=unbuffered sync=false";
    let decoder = format!(
        "souphttpsrc location={url} is-live=true ! flvdemux ! h264parse ! avdec_h264 max-threads=1 \
         ! videoconvert ! {gray} ! {out}"
    );
    let grabber = format!(
        "ximagesrc use-damage=false show-pointer=false ! video/x-raw,framerate=60/1 ! videoconvert \
         ! {gray} ! {out}"
    );
    let own = Eye::open(&decoder, &[], clock);
    let seen = Eye::open(&grabber, &[("DISPLAY", &display.name)], clock);
    println!("load {}", std::fs::read_to_string("/proc/loadavg").unwrap().trim());
    // Side by side: a pipe that nobody reads fills up.
    let seen = std::thread::spawn(move || seen.latencies());
    say("the pipeline's own share, to the decoded picture", own.latencies());
    say("to the screen, lag low (0.5 s)", seen.join().unwrap());
    over.store(true, Ordering::Relaxed);
    drop((viewer, forwarders, source));
    // The writer ends with the pipeline's reader.
    let _ = camera.join();
}

fn say(what: &str, mut latencies: Vec<u64>) {
    latencies.sort_unstable();
    assert!(latencies.len() > 100, "{what}: {} pictures", latencies.len());
    let at = |percent: usize| latencies[latencies.len() * percent / 100];
    println!("{what}: p50 {} ms, p95 {} ms ({} pictures)", at(50), at(95), latencies.len());
}

/// Writes pictures of the clock, each when it is due.
fn film(fifo: &Path, clock: Instant, over: &AtomicBool) {
    // Opens when the pipeline does.
    let mut pipe = OpenOptions::new().write(true).open(fifo).unwrap();
    let mut picture = vec![128_u8; WIDTH * HEIGHT * 3 / 2];
    let (began, mut n) = (Instant::now(), 0);
    while !over.load(Ordering::Relaxed) {
        let due = began + Duration::from_secs(1) * n / FPS;
        n += 1;
        while let Some(left) = due.checked_duration_since(Instant::now()).filter(|l| !l.is_zero()) {
            std::thread::park_timeout(left);
        }
        let now = u64::try_from(clock.elapsed().as_millis()).unwrap();
        for (at, luma) in picture[..WIDTH * HEIGHT].iter_mut().enumerate() {
            let column = at % WIDTH / COLUMN;
            let bit = now >> (column % BITS) & 1 == u64::from(column < BITS);
            *luma = if bit { 235 } else { 16 };
        }
        if pipe.write_all(&picture).is_err() {
            return;
        }
    }
}

/// Reads the clock of a picture; nothing where a column and its inverse do not agree.
fn time_in(luma: &[u8]) -> Option<u64> {
    let bright = |column: usize| {
        let x = column * COLUMN + COLUMN / 2;
        luma[HEIGHT / 2 * WIDTH + x] > 128
    };
    (0..BITS).try_fold(0, |time, bit| {
        let is_set = bright(bit);
        (is_set != bright(BITS + bit)).then_some(time | u64::from(is_set) << bit)
    })
}

/// A program that writes the pictures it sees.
struct Eye {
    program: Child,
    clock: Instant,
}

impl Eye {
    fn open(pipeline: &str, env: &[(&str, &str)], clock: Instant) -> Self {
        let program = Command::new("gst-launch-1.0")
            .arg("-q")
            .args(pipeline.split_whitespace())
            .envs(env.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self { program, clock }
    }

    /// How late each picture is when it is seen first, in milliseconds.
    fn latencies(mut self) -> Vec<u64> {
        let mut pictures = self.program.stdout.take().unwrap();
        let (mut picture, mut newest) = (vec![0; WIDTH * HEIGHT], 0);
        let (began, mut latencies) = (Instant::now(), Vec::new());
        while began.elapsed() < SETTLED + MEASURED {
            pictures.read_exact(&mut picture).unwrap();
            let now = u64::try_from(self.clock.elapsed().as_millis()).unwrap();
            let Some(born) = time_in(&picture).filter(|born| *born > newest) else { continue };
            newest = born;
            if began.elapsed() > SETTLED {
                latencies.push(now.saturating_sub(born));
            }
        }
        latencies
    }
}

impl Drop for Eye {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

/// A screen as large as the picture.
struct Display {
    server: Child,
    name: String,
}

impl Display {
    fn start() -> Self {
        let mut server = Command::new("Xvfb")
            .args([
                "-displayfd",
                "1",
                "-screen",
                "0",
                &format!("{WIDTH}x{HEIGHT}x24"),
                "-nolisten",
                "tcp",
            ])
            .args(["-noreset"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("Xvfb is installed by the test command");
        let mut number = String::new();
        // It writes the number once it takes connections.
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
