//! Bad input: a clear error, or a dropped peer, and nothing else breaks.

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::Command,
    time::Duration,
};

use crate::harness::{Network, Node, SOON, Scratch, stream_is_whole};

fn astral(args: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_astral"))
        .args(args)
        .env_remove("DISPLAY")
        .env_remove("WAYLAND_DISPLAY")
        .output()
        .unwrap();
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn mistakes_on_the_command_line_say_what_to_do() {
    let long = "x".repeat(10_000);
    let alone = ["--ephemeral", "--listen", "/ip4/127.0.0.1/tcp/0", "--mdns", "false"];
    for (args, code, says) in [
        (vec!["run", "--uplink", "fast"], 2, "20Mbit"),
        (vec!["run", "--no-such-flag"], 2, "--help"),
        (vec!["run", "--config", "/nonexistent.toml"], 2, "check the path"),
        (vec!["run", "--bootstrap", "nowhere"], 2, "multiaddr"),
        (vec!["run", "--listen", "127.0.0.1:1"], 2, "multiaddr"),
        (vec!["publish", long.as_str(), "--test"], 2, "128"),
        (vec!["play", "not-a-link"], 2, "astral:"),
        (vec!["publish", "cam", "--camera", "/dev/video99", "--mic", "none"], 1, "plug one in"),
        (vec!["publish", "film", "--file", "/nonexistent.mp4"], 1, "/nonexistent.mp4"),
        (vec!["publish", "lab", "--pipeline", "/nonexistent.launch"], 1, "/nonexistent.launch"),
    ] {
        let mut all = args.clone();
        if code == 1 {
            all.extend(alone);
        }
        let (got, stderr) = astral(&all);
        assert_eq!(got, code, "{:?}: {stderr}", &args[..2]);
        assert!(stderr.contains(says), "{:?} says no '{says}': {stderr}", &args[..2]);
        assert!(!stderr.contains("panicked"), "{stderr}");
    }
}

#[test]
fn an_unknown_key_in_the_settings_file_is_named() {
    let scratch = Scratch::new("config");
    let path = scratch.file("astral.toml");
    std::fs::write(&path, "uplink = \"1Mbit\"\nupload = 3\n").unwrap();
    let (code, stderr) = astral(&["run", "--config", path.to_str().unwrap()]);
    assert_eq!(code, 2);
    assert!(stderr.contains("upload"), "{stderr}");
}

#[test]
fn garbage_on_every_local_port_costs_only_its_connection() {
    let scratch = Scratch::new("garbage");
    let network = Network::found();
    let source = network.publish("garbage", &scratch.file("c.flv"), &["--bitrate", "200kbit"]);
    let viewer = network.seed("viewer", &source.link, &[]);
    viewer.wait("status", SOON, stream_is_whole);
    let node = &source.node;
    let tcp = node.addr();
    let p2p = format!("127.0.0.1:{}", tcp.split('/').nth(4).unwrap());
    let strip =
        |url: String| url.split("://").nth(1).unwrap().split('/').next().unwrap().to_owned();
    for target in [p2p, strip(node.ready("api")), strip(node.ready("rtmp"))] {
        for seed in 0..20_u8 {
            let mut stream = TcpStream::connect(&target).unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            let noise: Vec<u8> = (0..4_000_u32)
                .map(|i| (i.wrapping_mul(2_654_435_761) >> (seed % 24)) as u8)
                .collect();
            // A server that hangs up in the middle of garbage does right.
            let _ = stream.write_all(&noise);
            let _ = stream.read(&mut [0; 512]);
        }
    }
    let from = viewer.mark();
    let bytes = |s: &serde_json::Value| s["streams"][0]["bytes"].as_u64();
    let before = bytes(&crate::harness::status_of(&viewer));
    viewer.wait_from(from, "status", SOON, |s| bytes(s) > before.map(|b| b + 30_000));
    assert!(!node.stderr().contains("panicked"), "{}", node.stderr());
}

#[test]
fn a_silent_peer_costs_one_deadline_and_blocks_nothing_else() {
    let scratch = Scratch::new("blackhole");
    let network = Network::found();
    let hole = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = hole.local_addr().unwrap().port();
    let dead = format!(
        "/ip4/127.0.0.1/tcp/{port}/p2p/12D3KooWBmwkafWE2fqfzS96VoTZgpGp6aJsF4N2yEvoqUh1n3cQ"
    );
    let source = network.publish("hole", &scratch.file("c.flv"), &["--bitrate", "200kbit"]);
    let addr = network.supernode.addr();
    let args =
        ["seed", &source.link, "--bootstrap", &dead, "--bootstrap", &addr, "--role", "member"];
    let viewer = Node::start("viewer", &args);
    viewer.wait("status", SOON, stream_is_whole);
}
