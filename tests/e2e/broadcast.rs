//! A broadcast from its preview to its end: what viewers see of a pause, an edit, an encoder that stays away.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    encoders::{frames, push},
    harness::{
        Network, Node, SOON, Scratch, assert_identical, http, size, stream_is_whole, wait_until,
    },
};

/// Within this viewers hear of a pause: two seconds are promised.
const PAUSE_MAX: Duration = Duration::from_secs(6);

fn change(node: &Node, wish: &Value) -> Value {
    let path = format!("/api/v1/streams/{}", node.ready("stream_id"));
    let (status, answer) = node.api("PATCH", &path, Some(wish));
    assert_eq!(status, 200, "{answer}");
    answer
}

/// What a node's list says of a stream; null when it is not there.
fn listed(node: &Node, id: &str) -> Value {
    let (_, list) = node.api("GET", "/api/v1/streams", None);
    let all = list["streams"].as_array().cloned().unwrap_or_default();
    all.into_iter().find(|stream| stream["id"] == *id).unwrap_or_default()
}

#[test]
fn a_pause_is_seen_at_once_nobody_reconnects_and_nothing_is_lost_around_it() {
    let scratch = Scratch::new("pause");
    let (tee, file) = (scratch.file("cut.flv"), scratch.file("played.flv"));
    let network = Network::found();
    let source = network.publish("pause", &tee, &["--bitrate", "340kbit"]);
    let viewer = network.play("viewer", &source.link, &file, &[]);
    viewer.wait("status", SOON, stream_is_whole);
    let (parents, from) = (viewer.all("parent_changed").len(), viewer.mark());
    let asked = Instant::now();
    assert_eq!(change(&source.node, &json!({"paused": true}))["paused"], true);
    let (after, _) =
        viewer.wait_from(from, "paused", SOON, |paused| paused["reconnecting"] == false);
    println!("paused at the viewer after {:?}", asked.elapsed());
    assert!(asked.elapsed() < PAUSE_MAX);
    let (at_source, _) = source.node.wait_from(0, "paused", SOON, |_| true);
    source
        .node
        .wait_from(at_source, "status", SOON, |status| status["streams"][0]["paused"] == true);
    let held = size(&tee);
    change(&source.node, &json!({"title": "After the break"}));
    let id = source.node.ready("stream_id");
    wait_until("the new title", SOON, || {
        listed(&network.supernode, &id)["title"] == "After the break"
    });
    change(&source.node, &json!({"paused": false}));
    viewer.wait_from(after, "resumed", SOON, |_| true);
    let (at_source, _) = source.node.wait_from(at_source, "resumed", SOON, |_| true);
    source
        .node
        .wait_from(at_source, "status", SOON, |status| status["streams"][0]["paused"] == false);
    wait_until("more was played", SOON, || size(&file) > held + 50_000);
    assert_eq!(viewer.all("parent_changed").len(), parents, "nobody reconnects");
    assert!(viewer.all("skipped").is_empty());
    source.node.signal("TERM");
    viewer.wait("ended", SOON, |_| true);
    assert_identical(&tee, &file);
}

#[test]
fn a_preview_is_seen_on_its_own_machine_alone_until_it_goes_live() {
    let scratch = Scratch::new("preview");
    let network = Network::found();
    let (tee, file) = (scratch.file("cut.flv"), scratch.file("played.flv"));
    let tee_arg = tee.to_str().unwrap();
    let args = ["publish", "preview", "--rtmp-in", "--preview", "--tee", tee_arg];
    let source = network.member("source", &args);
    let _encoder = Encoder(push(&source.ready("publish_url"), 15 * 120));
    let url = source.ready["media"]["http_flv"].as_str().unwrap().to_owned();
    crate::players::ffmpeg_decodes(&url);
    let (id, link) = (source.ready("stream_id"), source.ready("stream"));
    let own = listed(&source, &id);
    assert_eq!((&own["preview"], &own["announced"]), (&json!(true), &json!(false)), "{own}");
    assert_eq!(listed(&network.supernode, &id), Value::Null);
    assert!(source.all("live").is_empty());
    let (_, tickets) = source.api("GET", "/api/v1/tickets", None);
    assert_eq!(tickets["tickets"], json!([]), "nobody was granted anything");
    assert_eq!(change(&source, &json!({"preview": false}))["preview"], false);
    source.wait("live", SOON, |_| true);
    let viewer = network.play("viewer", &link, &file, &[]);
    viewer.wait("playing", SOON, |_| true);
    wait_until("enough was played", SOON, || frames(&file) > 15);
    source.signal("TERM");
    viewer.wait("ended", SOON, |_| true);
    assert_identical(&tee, &file);
}

#[test]
fn an_encoder_that_stays_away_ends_the_broadcast_and_the_next_begins_another_under_the_same_link() {
    let scratch = Scratch::new("broadcasts");
    let network = Network::found();
    let folder = scratch.file("recordings");
    let folder_arg = folder.to_str().unwrap();
    let args = ["publish", "again", "--rtmp-in", "--reconnect", "1s", "--record", folder_arg];
    let source = network.member("source", &args);
    let (url, link) = (source.ready("publish_url"), source.ready("stream"));
    let (mut mark, mut recordings) = (0, 0);
    for broadcast in 1..=2_usize {
        let file = scratch.file(&format!("played-{broadcast}.flv"));
        let encoder = Encoder(push(&url, 15 * 120));
        (mark, _) = source.wait_from(mark, "live", SOON, |_| true);
        let viewer = network.play("viewer", &link, &file, &[]);
        viewer.wait("playing", SOON, |_| true);
        wait_until("something was played", SOON, || frames(&file) > 15);
        drop(encoder);
        viewer.wait("paused", SOON, |paused| paused["reconnecting"] == true);
        source.wait_from(mark, "paused", SOON, |paused| paused["reconnecting"] == true);
        let ended = viewer.wait("ended", SOON, |_| true);
        assert_eq!(ended["reason"], "ended", "{ended}");
        recordings = source.wait_from(recordings, "recorded", SOON, |_| true).0;
    }
    let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let recorded: Vec<u32> = files.map(|path| frames(&path)).collect();
    assert!(recorded.len() == 2 && recorded.iter().all(|n| *n > 15), "{recorded:?}");
}

#[test]
fn a_streams_small_picture_is_announced_and_comes_from_any_node() {
    let scratch = Scratch::new("picture");
    let network = Network::found();
    let source = network.publish("picture", &scratch.file("cut.flv"), &["--bitrate", "340kbit"]);
    let watcher = network.member("watcher", &["run"]);
    let id = source.node.ready("stream_id");
    for node in [&watcher, &network.supernode, &source.node] {
        let mut path = String::new();
        wait_until("a picture is announced", SOON, || {
            path = listed(node, &id)["thumbnail"].as_str().unwrap_or_default().to_owned();
            !path.is_empty()
        });
        let (status, picture) = http(&node.ready("api"), "GET", &path, None, None);
        assert!(status == 200 && picture.contains("JFIF"), "{status}: {}", picture.len());
    }
}

/// Ends with its test.
struct Encoder(std::process::Child);

impl Drop for Encoder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
