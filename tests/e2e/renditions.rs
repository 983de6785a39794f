//! A stream in two renditions: whose full stream does not come in time gets the smaller picture.

use std::{
    fs::File,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::JoinHandle,
};

use serde_json::{Value, json};

use crate::{
    encoders::frames,
    harness::{Network, Node, SOON, Scratch, size, wait_until},
};

/// Reads a node's HTTP-FLV into a file until the stream ends, as a player does: one that is told to come
/// back does.
fn watch(node: &Node, id: &str, into: &Path) -> JoinHandle<()> {
    let (api, path) = (node.ready("api"), format!("/live/{id}.flv"));
    let into: PathBuf = into.to_owned();
    std::thread::spawn(move || {
        let host = api.trim_start_matches("http://").trim_end_matches('/').to_owned();
        loop {
            let mut socket = TcpStream::connect(&host).unwrap();
            // The body of 1.0 ends with its connection and has no chunks.
            write!(socket, "GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n").unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") {
                socket.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            if head.contains(" 200 ") {
                std::io::copy(&mut socket, &mut File::create(&into).unwrap()).unwrap();
                return;
            }
            assert!(head.contains(" 503 "), "{head}");
        }
    })
}

fn set_uplink(source: &Node, uplink: &str) {
    let wish = json!({"uplink": uplink});
    let (status, answer) = source.api("PATCH", "/api/v1/settings", Some(&wish));
    assert_eq!(status, 200, "{answer}");
}

fn streams(node: &Node) -> Vec<Value> {
    let (_, list) = node.api("GET", "/api/v1/streams", None);
    list["streams"].as_array().cloned().unwrap_or_default()
}

/// Programs that play a stream over other ways than HTTP-FLV, none of which is started twice.
struct Players {
    rtmp: Child,
    rtmp_file: PathBuf,
    hls: Child,
    hls_log: PathBuf,
}

impl Players {
    fn start(node: &Node, id: &str, scratch: &Scratch) -> Self {
        let (rtmp_file, hls_log) = (scratch.file("rtmp.flv"), scratch.file("hls.log"));
        let rtmp_url = format!("{}/{id}", node.ready("rtmp"));
        let hls_url = format!("{}/live/{id}/index.m3u8", node.ready("api").trim_end_matches('/'));
        let ffmpeg = |before: &[&str], url: &str, log: Stdio| {
            let mut player = Command::new("ffmpeg");
            player.args(["-nostdin", "-nostats", "-v"]).args(before).args(["-i", url]);
            player.stdout(Stdio::null()).stderr(log);
            player
        };
        let rtmp = ffmpeg(&["error"], &rtmp_url, Stdio::null())
            .args(["-c", "copy"])
            .arg(&rtmp_file)
            .spawn()
            .unwrap();
        let log = File::create(&hls_log).unwrap();
        // Says the size of each picture that it decoded.
        let hls = ffmpeg(&["info"], &hls_url, log.into())
            .args(["-vf", "showinfo", "-an", "-fps_mode", "passthrough", "-f", "null", "-"])
            .spawn()
            .unwrap();
        Self { rtmp, rtmp_file, hls, hls_log }
    }

    /// How many pictures of a width and height the one that plays HLS has decoded.
    fn hls_pictures(&self, size: &str) -> usize {
        let log = std::fs::read(&self.hls_log).unwrap();
        String::from_utf8_lossy(&log).matches(&format!(" s:{size} ")).count()
    }
}

impl Drop for Players {
    fn drop(&mut self) {
        for player in [&mut self.rtmp, &mut self.hls] {
            let _ = player.kill();
            let _ = player.wait();
        }
    }
}

/// The heights of the pictures in a file, in their order, each once in a row; and what ffmpeg complains
/// of while it decodes all of it.
fn decoded(flv: &Path) -> (Vec<String>, String) {
    let shown = Command::new("ffprobe")
        .args(["-v", "error", "-select_streams", "v:0", "-show_entries", "frame=height"])
        .args(["-of", "csv=p=0"])
        .arg(flv)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    let mut heights: Vec<String> = text
        .lines()
        .map(|line| line.trim().trim_end_matches(',').to_owned())
        .filter(|line| !line.is_empty())
        .collect();
    heights.dedup();
    let decoded = Command::new("ffmpeg")
        .args(["-v", "error", "-xerror", "-i"])
        .arg(flv)
        // A picture that a slow encoder left out is not made up for.
        .args(["-enc_time_base", "-1", "-fps_mode", "passthrough", "-f", "null", "-"])
        .output()
        .unwrap();
    let complaints = [shown.stderr, decoded.stderr].concat();
    let complaints = String::from_utf8_lossy(&complaints).into_owned();
    // A multiplexer that is late gives two pictures one time, which `times_go_on` judges.
    let other = |line: &&str| !line.contains("non monotonically") && !line.contains("repeated");
    (heights, complaints.lines().filter(other).collect())
}

/// Whether the times of a file's tags never go back, sound and picture each.
fn times_go_on(flv: &Path) -> bool {
    let bytes = std::fs::read(flv).unwrap();
    let (mut rest, mut last) = (&bytes[13..], [0; 32]);
    while let Some(header) = rest.get(..11) {
        let len = u32::from_be_bytes([0, header[1], header[2], header[3]]) as usize;
        let time = u32::from_be_bytes([header[7], header[4], header[5], header[6]]);
        let kind = usize::from(header[0] & 0x1f);
        if time < last[kind] {
            return false;
        }
        last[kind] = time;
        rest = rest.get(11 + len + 4..).unwrap_or_default();
    }
    true
}

#[test]
fn who_cant_hold_the_full_stream_gets_the_smaller_picture() {
    let scratch = Scratch::new("renditions");
    let (file, small) = (scratch.file("played.flv"), scratch.file("small.flv"));
    let network = Network::found();
    let args = [
        "publish",
        "ladder",
        "--test",
        "--size",
        "640x360",
        "--fps",
        "15",
        "--bitrate",
        "1Mbit",
        "--rendition",
        "240p",
        "--uplink",
        "20Mbit",
    ];
    let source = network.member("source", &args);
    let (id, link) = (source.ready("stream_id"), source.ready("stream"));
    let viewer = network.member("viewer", &["run", "--max-copies", "0"]);
    wait_until("the stream and its rendition are known", SOON, || {
        let all = streams(&viewer);
        all.len() == 1 && all[0]["id"] == *id && all[0]["renditions"][0]["height"] == 240
    });
    assert_eq!(streams(&source).len(), 1, "a rendition is not listed on its own");
    let sink = format!("file:{}", small.display());
    let mut other =
        network.member("other", &["play", &link, "--rendition", "240p", "--sink", &sink]);
    wait_until("the small one is there for who asks for it", SOON * 2, || frames(&small) > 15);
    other.signal("TERM");
    other.wait_exit(SOON);
    assert_eq!(decoded(&small).0, ["240"]);

    let reader = watch(&viewer, &id, &file);
    wait_until("the stream plays", SOON, || size(&file) > 300_000);
    let players = Players::start(&viewer, &id, &scratch);
    wait_until("it plays over RTMP", SOON, || size(&players.rtmp_file) > 100_000);
    wait_until("it plays over HLS", SOON, || {
        players.hls_pictures("640x360") + players.hls_pictures("426x240") > 15
    });
    // Room for two of its four stripes, and for all of the small one.
    set_uplink(&source, "800kbit");
    let shown = || streams(&viewer).pop().unwrap_or_default();
    wait_until("the small picture is chosen", SOON * 2, || shown()["rendition"] == 240);
    let stream = shown();
    assert_eq!(stream["role"], json!("watching"), "{stream}");
    let held = size(&file);
    wait_until("the small picture plays", SOON, || size(&file) > held + 150_000);
    wait_until("it plays over HLS", SOON * 2, || players.hls_pictures("426x240") > 30);
    let told = viewer.all("rendition");
    assert!(told.iter().any(|event| event["stream"] == *id && event["height"] == 240), "{told:?}");
    let log = std::fs::read_to_string(&players.hls_log).unwrap();
    assert!(!log.to_lowercase().contains("error"), "{log}");
    source.signal("TERM");
    wait_until("the end of the stream ends the answer", SOON * 2, || reader.is_finished());
    reader.join().unwrap();
    let mut players = players;
    wait_until("it ends RTMP", SOON * 2, || players.rtmp.try_wait().unwrap().is_some());
    for played in [&file, &players.rtmp_file] {
        let (heights, complaints) = decoded(played);
        println!("heights in a row: {heights:?}");
        assert_eq!(complaints, "", "{}", played.display());
        // A machine that is too slow for the full stream begins with the small one.
        assert!(heights.contains(&"240".to_owned()), "{heights:?}");
        assert!(times_go_on(played));
    }
}
