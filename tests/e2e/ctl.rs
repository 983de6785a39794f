//! `astral ctl`, verb by verb, as a script uses it: exit codes, JSON that parses, tables for people.

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::harness::{Network, Node, SOON, Scratch, stream_is_whole};

/// Runs `astral ctl ARGS` for that node and waits for its end.
fn ctl(node: &Node, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_astral"));
    command.args(["ctl", "--token-file", &node.ready("token_file")]).args(args);
    command.output().unwrap()
}

/// What a verb prints for people.
fn words(node: &Node, args: &[&str]) -> String {
    let output = ctl(node, args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// What it prints for scripts.
fn json_of(node: &Node, args: &[&str]) -> Value {
    let mut all = args.to_vec();
    all.push("--json");
    let text = words(node, &all);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"))
}

/// How a verb that can't work ends.
fn refusal(node: &Node, args: &[&str]) -> (Option<i32>, String) {
    let output = ctl(node, args);
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn every_verb_of_ctl_does_what_it_says_from_watching_to_shutdown() {
    let scratch = Scratch::new("ctl");
    let network = Network::found();
    let source = network.publish("garden", &scratch.file("c.flv"), &["--bitrate", "200kbit"]);
    source.node.wait("live", SOON, |_| true);
    let films = scratch.file("films");
    let mut node = network.member("node", &["run", "--recordings", films.to_str().unwrap()]);
    node.wait("stream_listed", SOON, |_| true);

    let status = json_of(&node, &["status"]);
    assert_eq!(status["role"], "member");
    assert!(words(&node, &["status"]).contains("registered with"));
    let nodes = json_of(&node, &["nodes"]);
    assert!(nodes.as_array().unwrap().iter().any(|n| n["id"] == json!(network.supernode.id())));
    assert!(words(&node, &["nodes"]).contains("supernode"));

    let streams = json_of(&node, &["streams", "garden"]);
    let id = streams[0]["id"].as_str().unwrap().to_owned();
    assert!(words(&node, &["streams"]).contains("garden"));
    assert_eq!(words(&node, &["streams", "no-such-words"]).trim(), "no stream is known");

    watching(&node, &source.node, &id);
    recording(&node);
    settings(&node);
    publishing(&node, &id);
    looking_around(&node, &network.supernode);

    assert!(words(&node, &["web"]).contains("/#code="));
    assert_eq!(words(&node, &["shutdown"]).trim(), "leaving");
    assert_eq!(node.wait_exit(SOON).code(), Some(0));
    let (code, stderr) = refusal(&node, &["status"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("no node runs"), "{stderr}");
}

fn watching(node: &Node, source: &Node, id: &str) {
    let urls = json_of(node, &["watch", "garden"]);
    assert!(urls["http_flv"].as_str().unwrap().ends_with(&format!("/live/{id}.flv")));
    node.wait("status", SOON, stream_is_whole);
    let shown = json_of(node, &["stream", "show", &id[..8]]);
    assert_eq!(shown["role"], "watching");
    assert_eq!(shown["stats"]["playing"], true);
    assert!(words(node, &["stream", "show", "garden"]).contains("parents"));
    let held = json_of(node, &["tickets"]);
    assert_eq!(held[0]["end"], "held");
    let given = json_of(source, &["tickets"]);
    let ticket = given.as_array().unwrap().iter().find(|t| t["end"] == "given").unwrap();
    let mark = source.mark();
    let revoked = json_of(source, &["ticket", "revoke", ticket["id"].as_str().unwrap()]);
    assert_eq!(revoked["done"], "revoked");
    source.wait_from(mark, "ticket_ended", SOON, |event| event["reason"] == "revoked");
    let (code, stderr) = refusal(source, &["ticket", "revoke", "7"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("gave no ticket"), "{stderr}");
    let events = words(node, &["events", "--count", "0"]);
    assert_eq!(events, "");
    assert_eq!(json_of(node, &["seed", "garden"])["id"], json!(id));
    assert_eq!(json_of(node, &["seed", "garden", "--stop"])["done"], "left");
    assert!(words(node, &["url", "garden"]).contains("astral:"));
    assert_eq!(json_of(node, &["watch", "garden", "--stop"])["done"], "left");
    let (code, stderr) = refusal(node, &["watch", "lake"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("nothing here is called lake"), "{stderr}");
}

fn settings(node: &Node) {
    assert_eq!(json_of(node, &["settings"])["max_copies"], Value::Null);
    let changed = json_of(node, &["settings", "--max-copies", "2", "--uplink", "5Mbit"]);
    assert_eq!((&changed["max_copies"], &changed["uplink_bps"]), (&json!(2), &json!(5_000_000)));
    let lifted = json_of(node, &["settings", "--max-copies", "none"]);
    assert_eq!(lifted["max_copies"], Value::Null);
    assert!(words(node, &["settings"]).contains("5000 kbit/s"));
    assert_eq!(refusal(node, &["settings", "--max-copies", "many"]).0, Some(2));
}

fn recording(node: &Node) {
    json_of(node, &["watch", "garden"]);
    let begun = json_of(node, &["stream", "record", "garden", "--format", "mp4"]);
    assert_eq!(begun["format"], "mp4");
    assert!(words(node, &["stream", "record", "garden"]).contains("recording to"));
    let made = json_of(node, &["stream", "record", "garden", "--stop"]);
    assert!(made["files"].is_array() && made["bytes"].is_u64(), "{made}");
    let (code, stderr) = refusal(node, &["stream", "record", "garden", "--stop"]);
    assert_eq!((code, stderr.contains("not recorded")), (Some(1), true), "{stderr}");
    assert_eq!(refusal(node, &["stream", "record", "garden", "--format", "avi"]).0, Some(2));
    json_of(node, &["watch", "garden", "--stop"]);
}

fn publishing(node: &Node, foreign: &str) {
    let made = json_of(node, &["stream", "create", "pond", "--title", "A pond", "--tag", "water"]);
    assert!(made["publish_url"].as_str().unwrap().starts_with("rtmp://"));
    let (code, stderr) = refusal(node, &["stream", "create", "pond"]);
    assert_eq!((code, stderr.contains("pond")), (Some(1), true), "{stderr}");
    assert_eq!(json_of(node, &["stream", "stop", "pond"])["done"], "ended");

    let picture = ["stream", "create", "test card", "--source", "test", "--stripes", "2"];
    assert_eq!(json_of(node, &picture)["publish_url"], Value::Null);
    node.wait("live", SOON, |_| true);
    let edit = ["stream", "edit", "test card", "--title", "A test card", "--tag", "colours"];
    let edited = json_of(node, &edit);
    assert_eq!((&edited["title"], &edited["tags"]), (&json!("A test card"), &json!(["colours"])));
    assert_eq!(refusal(node, &["stream", "edit", "test card"]).0, Some(2), "nothing to change");
    assert_eq!(json_of(node, &["stream", "pause", "test card"])["paused"], true);
    assert_eq!(json_of(node, &["stream", "resume", "test card"])["paused"], false);
    assert!(words(node, &["streams", "colours"]).contains("A test card"));
    assert_eq!(json_of(node, &["stream", "stop", "test card"])["done"], "ended");
    for verb in ["pause", "resume", "stop"] {
        let (code, stderr) = refusal(node, &["stream", verb, foreign]);
        assert_eq!((code, stderr.contains("publisher")), (Some(1), true), "{verb}: {stderr}");
    }
}

fn looking_around(node: &Node, supernode: &Node) {
    let report = json_of(node, &["doctor"]);
    assert_eq!(report["ok"], true, "{report:#}");
    assert!(words(node, &["doctor"]).contains("supernodes in reach"));
    let log = json_of(node, &["logs", "--lines", "5"]);
    assert!(log["lines"].as_array().is_some_and(|lines| lines.len() <= 5), "{log}");
    assert!(json_of(node, &["devices"]).is_array());
    let graph = json_of(node, &["graph"]);
    let registered = graph["edges"].as_array().unwrap().iter();
    assert!(registered.clone().any(|edge| edge["to"] == json!(supernode.id())), "{graph:#}");
    assert!(words(node, &["graph"]).contains("registration"));
    let forgotten = json_of(node, &["node", "forget", &supernode.id()[..8]]);
    assert_eq!(forgotten["done"], "forgotten");
    assert_eq!(refusal(node, &["node", "forget", "abcdefgh"]).0, Some(1));
}

#[test]
fn a_node_under_the_users_data_folder_is_found_without_a_word() {
    let scratch = Scratch::new("found");
    let home = scratch.file("home");
    std::fs::create_dir_all(&home).unwrap();
    let astral = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_astral"));
        command.args(args).env("HOME", &home).env_remove("XDG_DATA_HOME");
        command
    };
    let none = astral(&["ctl", "status"]).output().unwrap();
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&none.stderr).contains("astral run"));
    let start = |name: &str, args: &[&str]| {
        let mut node = Node::from_command(name, astral(args));
        node.ready = node.wait("ready", SOON, |_| true);
        node
    };
    let alone = [
        "--json",
        "--mdns",
        "false",
        "--api",
        "127.0.0.1:0",
        "--rtmp",
        "127.0.0.1:0",
        "--listen",
        "/ip4/127.0.0.1/tcp/0",
    ];
    let run = [&["run"][..], &alone].concat();
    let first = start("first", &run);
    let found = astral(&["ctl", "status", "--json"]).output().unwrap();
    let status: Value = serde_json::from_slice(&found.stdout).unwrap();
    assert_eq!(status["peer_id"], json!(first.ready("peer_id")));
    let _second = start("second", &run);
    let several = astral(&["ctl", "status"]).output().unwrap();
    assert_eq!(several.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&several.stderr).into_owned();
    assert!(stderr.contains("say which one") && stderr.contains("--data-dir"), "{stderr}");
}

#[test]
fn the_doctor_says_of_each_thing_how_it_is_and_its_exit_code_tells() {
    let network = Network::found();
    let addr = network.supernode.addr();
    let doctor = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_astral"));
        let common = ["doctor", "--ephemeral", "--mdns", "false", "--api", "127.0.0.1:0"];
        command.args(common).args(["--rtmp", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/tcp/0"]);
        command.args(args).output().unwrap()
    };
    let well = doctor(&["--json", "--bootstrap", &addr]);
    let report: Value = serde_json::from_slice(&well.stdout).unwrap();
    assert_eq!((well.status.code(), &report["ok"]), (Some(0), &json!(true)), "{report:#}");
    let checks = report["checks"].as_array().unwrap();
    let found = checks.iter().find(|check| check["name"] == "supernodes in reach").unwrap();
    assert!(found["message"].as_str().unwrap().contains(&network.supernode.id()[..8]), "{found}");
    let dead = "/ip4/127.0.0.1/tcp/9/p2p/12D3KooWBmwkafWE2fqfzS96VoTZgpGp6aJsF4N2yEvoqUh1n3cQ";
    let unwell = doctor(&["--bootstrap", dead]);
    let told = String::from_utf8_lossy(&unwell.stdout);
    assert_eq!(unwell.status.code(), Some(1), "{told}");
    assert!(told.contains("BAD   supernodes in reach") && told.contains("-> "), "{told}");
}

#[test]
fn shells_get_completions() {
    for shell in ["bash", "zsh", "fish"] {
        let output = Command::new(env!("CARGO_BIN_EXE_astral"))
            .args(["completions", shell])
            .output()
            .unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("ctl") && text.contains("forget"), "{shell}");
    }
}
