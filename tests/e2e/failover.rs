//! Forwarders that die: by SIGKILL over TCP and over QUIC, and silently by SIGSTOP. Whatever
//! happens to them, what a viewer keeps is what the source cut.

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::harness::{
    Network, Node, SOON, Scratch, Source, assert_identical, status_of, stream_is_whole,
};

/// How often each kind of death strikes.
const ROUNDS: usize = 10;

#[test]
fn ten_forwarders_killed_over_tcp_cost_no_byte() {
    strike("tcp", "/ip4/127.0.0.1/tcp/0", "KILL");
}

#[test]
fn ten_forwarders_killed_with_quic_only_listeners_cost_no_byte() {
    strike("quic", "/ip4/127.0.0.1/udp/0/quic-v1", "KILL");
}

#[test]
fn ten_forwarders_frozen_by_sigstop_cost_no_byte() {
    strike("stop", "/ip4/127.0.0.1/tcp/0", "STOP");
}

/// Keeps a viewer behind three forwarders, and takes one of its parents away, again and again.
fn strike(name: &str, listen: &str, signal: &str) {
    let scratch = Scratch::new(name);
    let (tee, file) = (scratch.file("cut.flv"), scratch.file("played.flv"));
    let network = Network::found_on(listen);
    // Two copies at the source: the first forwarders take them, and the viewer comes below.
    let limits = ["--bitrate", "340kbit", "--stripes", "2", "--max-copies", "2"];
    let source = network.publish(name, &tee, &limits);
    let mut forwarders: Vec<Node> = (0..3).map(|i| forwarder(&network, &source, i)).collect();
    let viewer = network.play("viewer", &source.link, &file, &["--max-copies", "0"]);
    viewer.wait("playing", SOON, |_| true);
    let player = WebPlayer::open(&viewer);
    let mut moment = Moments::new(name);
    let mut hits = 0;
    for round in 0..ROUNDS {
        let from = viewer.mark();
        viewer.wait_from(from, "status", SOON, stream_is_whole);
        moment.wait();
        let parents = parents_of(&viewer);
        let hit = forwarders.iter().position(|f| parents.contains(&f.id()));
        hits += usize::from(hit.is_some());
        let mut victim = forwarders.remove(hit.unwrap_or(0));
        let from = viewer.mark();
        victim.signal(signal);
        let dead = victim.id();
        viewer.wait_from(from, "status", SOON, |status| {
            stream_is_whole(status) && !parents_in(status).contains(&dead)
        });
        victim.kill();
        forwarders.push(forwarder(&network, &source, 3 + round));
    }
    let from = viewer.mark();
    let before = status_of(&viewer)["streams"][0]["bytes"].as_u64();
    viewer.wait_from(from, "status", SOON, |s| {
        s["streams"][0]["bytes"].as_u64() > before.map(|b| b + 50_000)
    });
    source.node.signal("TERM");
    viewer.wait("ended", SOON, |_| true);
    let identity = assert_identical(&tee, &file);
    assert_eq!(viewer.all("skipped"), Vec::<Value>::new());
    assert_eq!(identity.behind, 0);
    player.played_to_the_end();
    assert!(hits >= ROUNDS / 2, "only {hits} victims of {ROUNDS} fed the viewer");
    print_gaps(name, &viewer, hits);
}

/// A player of somebody else's at the viewer's HTTP-FLV, which is never told of any of this.
struct WebPlayer(Child);

impl WebPlayer {
    fn open(viewer: &Node) -> Self {
        let url = viewer.ready["media"]["http_flv"].as_str().unwrap();
        let player = Command::new("ffmpeg")
            .args(["-v", "error", "-xerror", "-i", url, "-f", "null", "-"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("ffmpeg is installed by the test command");
        Self(player)
    }

    /// It stayed connected until the stream was over, and decoded all that came.
    fn played_to_the_end(self) {
        let player = self.0.wait_with_output().unwrap();
        let complaints = String::from_utf8_lossy(&player.stderr);
        // A source that is short of time stamps two frames alike, and ffmpeg's muxer, not its decoder,
        // says so; that nothing is altered on the way is judged by the viewer's file.
        let stamped_alike = ["non monotonically increasing dts", "Last message repeated"];
        let broken = complaints
            .lines()
            .filter(|line| !line.trim().is_empty())
            .any(|line| !stamped_alike.iter().any(|known| line.contains(known)));
        assert!(player.status.success() && !broken, "{complaints}");
    }
}

fn forwarder(network: &Network, source: &Source, number: usize) -> Node {
    let name = format!("forwarder {number}");
    let node = network.seed(&name, &source.link, &["--max-copies", "2"]);
    node.wait("status", SOON, stream_is_whole);
    node
}

fn parents_of(viewer: &Node) -> Vec<String> {
    parents_in(&status_of(viewer))
}

pub fn parents_in(status: &Value) -> Vec<String> {
    let parents = status["streams"][0]["parents"].as_array().into_iter().flatten();
    parents.filter_map(|p| p.as_str().map(str::to_owned)).collect()
}

fn print_gaps(name: &str, viewer: &Node, hits: usize) {
    let mut gaps: Vec<u64> = viewer
        .all("parent_changed")
        .iter()
        .filter(|e| e["cause"] == "closed" || e["cause"] == "silent")
        .filter_map(|e| e["gap_ms"].as_u64())
        .collect();
    gaps.sort_unstable();
    println!("{name}: {hits} hits, gaps between parents in ms: {gaps:?}");
}

/// Moments to strike at: spread over a second, the same for the same name.
pub struct Moments(u64);

impl Moments {
    pub fn new(name: &str) -> Self {
        Self(
            name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| {
                (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
            }),
        )
    }

    /// Lets a part of a second pass, another each time.
    pub fn wait(&mut self) {
        let until = Instant::now() + Duration::from_millis(self.draw() % 1_000);
        while Instant::now() < until {
            std::thread::park_timeout(until.saturating_duration_since(Instant::now()));
        }
    }

    /// A number to choose by.
    pub fn pick(&mut self) -> usize {
        usize::try_from(self.draw()).unwrap()
    }

    fn draw(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }
}
