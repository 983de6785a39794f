//! Starting, joining, limits, leaving: what a node does in its life, with and without others.

use std::{fs, time::Duration};

use serde_json::json;

use crate::{
    encoders::push,
    harness::{
        Network, Node, SOON, Scratch, assert_identical, http, status_of, stream_is_whole,
        wait_until,
    },
};

#[test]
fn a_node_alone_founds_a_network_and_says_how_others_join() {
    let node = Node::start("first", &["run"]);
    node.wait("status", SOON, |s| s["role"] == "supernode");
    assert!(node.addr().contains("/p2p/"), "{}", node.addr());
    let (status, _) = http(&node.ready("api"), "GET", "/healthz", None, None);
    assert_eq!(status, 200);
}

#[test]
fn run_publish_and_play_with_nothing_but_bootstrap_work_on_one_host() {
    let scratch = Scratch::new("three");
    let home = scratch.file("home");
    fs::create_dir_all(&home).unwrap();
    let start = |name: &str, args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_astral"));
        command.args(args).arg("--json").env("HOME", &home).env_remove("XDG_DATA_HOME");
        let mut node = Node::from_command(name, command);
        node.ready = node.wait("ready", SOON, |_| true);
        node
    };
    let first = start("run", &["run"]);
    let addr = first.addr();
    let test = ["publish", "garden", "--test", "--size", "320x180", "--bootstrap", &addr];
    let source = start("publish", &test);
    let link = source.ready("stream");
    let viewer = start("play", &["play", &link, "--sink", "fake", "--bootstrap", &addr]);
    viewer.wait("first_frame", SOON, |_| true);
}

#[test]
fn a_data_directory_in_use_is_refused_with_the_flag_to_add() {
    let scratch = Scratch::new("inuse");
    let folder = scratch.file("data");
    let folder = folder.to_str().unwrap();
    let first = Node::start("first", &["run", "--data-dir", folder]);
    let mut second = Node::spawn("second", &["run", "--data-dir", folder]);
    assert_eq!(second.wait_exit(SOON).code(), Some(1));
    assert!(second.stderr().contains("--data-dir"), "{}", second.stderr());
    let id = first.id();
    drop(first);
    let again = Node::start("again", &["run", "--data-dir", folder]);
    assert_eq!(again.id(), id, "the identity is kept");
}

#[test]
fn a_node_leaves_within_its_promise_even_when_every_peer_is_dead() {
    let scratch = Scratch::new("leave");
    for signal in ["INT", "TERM"] {
        let mut network = Network::found();
        let tee = scratch.file(signal);
        let source = network.publish("leave", &tee, &["--bitrate", "340kbit"]);
        let mut viewer = network.seed("viewer", &source.link, &[]);
        viewer.wait("status", SOON, stream_is_whole);
        source.node.signal("STOP");
        network.supernode.signal("STOP");
        let asked = std::time::Instant::now();
        viewer.signal(signal);
        let status = viewer.wait_exit(SOON);
        println!("SIG{signal}: left in {:?}", asked.elapsed());
        assert_eq!(status.code(), Some(0), "{}", viewer.stderr());
        assert!(asked.elapsed() < Duration::from_secs(15), "three times the promise");
        network.supernode.kill();
    }
}

#[test]
fn a_stopping_viewer_hands_its_children_over() {
    let scratch = Scratch::new("handover");
    let (tee, file) = (scratch.file("cut.flv"), scratch.file("played.flv"));
    let network = Network::found();
    let source = network.publish("handover", &tee, &["--bitrate", "340kbit", "--max-copies", "1"]);
    let middle = network.seed("middle", &source.link, &["--max-copies", "1"]);
    middle.wait("status", SOON, stream_is_whole);
    let viewer = network.play("viewer", &source.link, &file, &["--max-copies", "0"]);
    viewer.wait("status", SOON, |s| stream_is_whole(s) && s["streams"][0]["hops"] == 2);
    let from = viewer.mark();
    middle.signal("TERM");
    let source_id = source.node.id();
    viewer.wait_from(from, "status", SOON, |s| {
        s["streams"][0]["parents"].as_array().is_some_and(|p| p.iter().all(|p| *p == *source_id))
    });
    source.node.signal("TERM");
    viewer.wait("ended", SOON, |_| true);
    assert!(viewer.all("skipped").is_empty());
    assert_identical(&tee, &file);
}

#[test]
fn one_node_publishes_seeds_and_watches_different_streams_at_once() {
    let scratch = Scratch::new("allinone");
    let network = Network::found();
    let one = network.publish("one", &scratch.file("1.flv"), &["--bitrate", "200kbit"]);
    let two = network.publish("two", &scratch.file("2.flv"), &["--bitrate", "200kbit"]);
    let node = network.member("everything", &["run"]);
    let (one_id, two_id) = (one.node.ready("stream_id"), two.node.ready("stream_id"));
    let listed = |id: &str| {
        let (_, list) = node.api("GET", "/api/v1/streams", None);
        list["streams"].as_array().is_some_and(|all| all.iter().any(|s| s["id"] == id))
    };
    wait_until("both streams listed", SOON, || listed(&one_id) && listed(&two_id));
    assert!(node.api("POST", &format!("/api/v1/streams/{one_id}/seed"), None).0 < 300);
    assert!(node.api("POST", &format!("/api/v1/streams/{two_id}/watch"), None).0 < 300);
    let third = json!({"name": "third", "source": "rtmp"});
    let (status, third) = node.api("POST", "/api/v1/streams", Some(&third));
    assert!(status < 300, "{third}");
    assert!(third["publish_url"].as_str().is_some_and(|url| url.starts_with("rtmp://127.0.0.1")));
    node.wait("status", SOON, |s| {
        let streams = s["streams"].as_array().into_iter().flatten();
        let whole = |s: &&serde_json::Value| {
            s["parents"]
                .as_array()
                .is_some_and(|p| p.iter().all(|p| p.is_string()) && !p.is_empty())
        };
        streams.filter(whole).count() == 2
    });
    assert!(node.api("DELETE", &format!("/api/v1/streams/{one_id}/seed"), None).0 < 300);
    let from = node.mark();
    node.wait_from(from, "status", SOON, |s| {
        s["streams"].as_array().is_some_and(|all| all.iter().all(|s| s["id"] != *one_id))
    });
}

#[test]
fn a_revoked_ticket_stops_its_bytes_and_the_child_finds_another_parent() {
    let scratch = Scratch::new("revoke");
    let network = Network::found();
    let source = network.publish("revoke", &scratch.file("c.flv"), &["--bitrate", "340kbit"]);
    let viewer = network.seed("viewer", &source.link, &[]);
    viewer.wait("status", SOON, stream_is_whole);
    let (_, tickets) = source.node.api("GET", "/api/v1/tickets", None);
    let ticket = tickets["tickets"][0]["id"]
        .as_str()
        .map_or_else(|| tickets["tickets"][0]["id"].to_string(), str::to_owned);
    let (status, answer) = source.node.api("DELETE", &format!("/api/v1/tickets/{ticket}"), None);
    assert!(status < 300, "{answer}");
    viewer.wait("parent_changed", SOON, |e| e["cause"] == "revoked");
    let viewers_token = fs::read_to_string(viewer.ready("token_file")).unwrap();
    let foreign = http(
        &source.node.ready("api"),
        "DELETE",
        &format!("/api/v1/tickets/{ticket}"),
        Some(viewers_token.trim()),
        None,
    );
    assert_eq!(foreign.0, 401, "another node's token opens nothing");
}

#[test]
fn a_panic_in_any_long_lived_task_ends_the_node_with_a_clear_error() {
    for task in ["overlay", "media", "api", "rtmp", "interests", "history", "observer"] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_astral"));
        command
            .args(["run", "--json", "--ephemeral", "--mdns", "false", "--api", "127.0.0.1:0"])
            .args(["--rtmp", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/tcp/0"])
            .env("ASTRAL_TEST_PANIC", task);
        let mut node = Node::from_command(task, command);
        let status = node.wait_exit(SOON);
        assert_eq!(status.code(), Some(1), "{task}: {}", node.stderr());
        assert!(node.stderr().contains(task), "{task}: {}", node.stderr());
    }
}

#[test]
fn a_panic_in_what_brings_or_shows_a_stream_ends_its_command_with_a_clear_error() {
    let scratch = Scratch::new("panics");
    let network = Network::found();
    let addr = network.supernode.addr();
    let ends = |task: &str, args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_astral"));
        command
            .args(args)
            .args(["--json", "--ephemeral", "--mdns", "false", "--bootstrap", &addr])
            .args(["--api", "127.0.0.1:0", "--rtmp", "127.0.0.1:0"])
            .args(["--listen", "/ip4/127.0.0.1/tcp/0"])
            .env("ASTRAL_TEST_PANIC", task);
        let mut node = Node::from_command(task, command);
        node.ready = node.wait("ready", SOON, |_| true);
        // ffmpeg ends with its encoder's end, whatever comes of it.
        let encoder = (task == "rtmp-ingest").then(|| push(&node.ready("publish_url"), 30));
        let status = node.wait_exit(SOON);
        assert_eq!(status.code(), Some(1), "{task}: {}", node.stderr());
        assert!(node.stderr().contains(task), "{task}: {}", node.stderr());
        if let Some(mut encoder) = encoder {
            encoder.wait().unwrap();
        }
    };
    ends("source", &["publish", "own", "--test", "--size", "320x180"]);
    ends("rtmp-ingest", &["publish", "own", "--rtmp-in"]);
    let source = network.publish("good", &scratch.file("c.flv"), &["--bitrate", "340kbit"]);
    let file = format!("file:{}", scratch.file("sink.flv").display());
    ends("sink", &["play", &source.link, "--sink", &file]);
    ends("player", &["play", &source.link, "--sink", "fake"]);
}

#[test]
fn a_panic_in_a_recording_costs_nothing_else() {
    let scratch = Scratch::new("panicrec");
    let (tee, file, folder) =
        (scratch.file("c.flv"), scratch.file("played.flv"), scratch.file("recordings"));
    let network = Network::found();
    let source = network.publish("good", &tee, &["--bitrate", "340kbit"]);
    let folder = folder.to_str().unwrap();
    let sink = format!("file:{}", file.display());
    let addr = network.supernode.addr();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_astral"));
    command
        .args(["play", &source.link, "--sink", &sink, "--record", folder])
        .args(["--json", "--ephemeral", "--mdns", "false", "--bootstrap", &addr])
        .args(["--api", "127.0.0.1:0", "--rtmp", "127.0.0.1:0"])
        .args(["--listen", "/ip4/127.0.0.1/tcp/0"])
        .env("ASTRAL_TEST_PANIC", "recording");
    let viewer = Node::from_command("viewer", command);
    let told = viewer.wait("recording_failed", SOON, |_| true);
    assert!(told["message"].as_str().unwrap().contains("panic"), "{told}");
    viewer.wait("status", SOON, |s| s["streams"][0]["bytes"].as_u64() > Some(60_000));
    source.node.signal("TERM");
    viewer.wait("ended", SOON, |_| true);
    assert_identical(&tee, &file);
}

#[test]
fn a_viewer_without_capacity_is_told_the_reason_and_served_when_there_is_some() {
    let scratch = Scratch::new("nocap");
    let network = Network::found();
    let limits = ["--bitrate", "340kbit", "--max-copies", "0"];
    let source = network.publish("nocap", &scratch.file("c.flv"), &limits);
    let viewer = network.seed("viewer", &source.link, &[]);
    let told = viewer.wait("no_capacity", SOON, |_| true);
    assert!(told["reason"] == "all_full" && told["retry_ms"].is_u64(), "{told}");
    let (status, answer) =
        source.node.api("PATCH", "/api/v1/settings", Some(&json!({"max_copies": null})));
    assert!(status < 300, "{answer}");
    viewer.wait("status", SOON, stream_is_whole);
    assert!(status_of(&viewer)["streams"][0]["role"] == "seeder");
}
