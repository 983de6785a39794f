//! An encoder that follows its uplink: lower when a copy doesn't fit, up again, and no byte lost.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{
    Network, Node, SOON, Scratch, assert_identical, size, stream_is_whole, wait_until,
};

/// What the encoder may use at most.
const CEILING: u64 = 600_000;

/// Less than the stream takes at its ceiling.
const UPLINK: u64 = 500_000;

/// Changes the source's uplink as `astral ctl settings` does.
fn set_uplink(source: &Node, uplink: &str) {
    let wish = json!({"uplink": uplink});
    let (status, answer) = source.api("PATCH", "/api/v1/settings", Some(&wish));
    assert_eq!(status, 200, "{answer}");
}

/// Bit/s over the newest `seconds` of media in a file that grows; `None` until there are so many
/// behind `from`.
fn rate_of_newest(flv: &Path, from: u64, seconds: u32) -> Option<u64> {
    let bytes = std::fs::read(flv).unwrap();
    let mut rest = bytes.get(13..)?;
    let mut tags = Vec::new();
    let mut at = 13;
    while let Some(header) = rest.get(..11) {
        let len = u32::from_be_bytes([0, header[1], header[2], header[3]]) as usize;
        let Some(next) = rest.get(11 + len + 4..) else { break };
        let time = u32::from_be_bytes([header[7], header[4], header[5], header[6]]);
        if at >= from {
            tags.push((time, len as u64));
        }
        at += (11 + len + 4) as u64;
        rest = next;
    }
    let newest = tags.last()?.0;
    let begin = newest.checked_sub(seconds * 1_000)?;
    if tags.first()?.0 > begin {
        return None;
    }
    let bytes: u64 = tags.iter().filter(|(time, _)| *time > begin).map(|(_, len)| len).sum();
    Some(bytes * 8 / u64::from(seconds))
}

fn rate_listed(node: &Node, id: &str) -> u64 {
    let (_, list) = node.api("GET", "/api/v1/streams", None);
    let all = list["streams"].as_array().cloned().unwrap_or_default();
    let found = all.iter().find(|stream| stream["id"] == *id);
    found.and_then(|stream| stream["bitrate_bps"].as_u64()).unwrap_or_default()
}

#[test]
fn an_encoder_follows_its_uplink_down_and_up_again_and_nothing_is_lost() {
    let scratch = Scratch::new("adaptive");
    let (tee, file) = (scratch.file("cut.flv"), scratch.file("played.flv"));
    let network = Network::found();
    let args = ["--bitrate", "600kbit", "--adaptive", "--uplink", "20Mbit"];
    let source = network.publish("adaptive", &tee, &args);
    let viewer = network.play("viewer", &source.link, &file, &["--max-copies", "0"]);
    viewer.wait("status", SOON, stream_is_whole);
    let id = source.node.ready("stream_id");
    let mut full = 0;
    wait_until("three seconds at the ceiling", SOON, || {
        full = rate_of_newest(&tee, 0, 3).unwrap_or_default();
        full > UPLINK
    });
    assert!(source.node.all("encoder_rate").is_empty(), "a large uplink changes nothing");

    set_uplink(&source.node, &UPLINK.to_string());
    let is_lower = |event: &Value| event["bps"].as_u64().unwrap() < CEILING / 2;
    let (after, lower) = source.node.wait_from(0, "encoder_rate", SOON, is_lower);
    let (target, floor) = (lower["bps"].as_u64().unwrap(), lower["floor_bps"].as_u64().unwrap());
    assert!(target >= floor && lower["ceiling_bps"] == CEILING, "{lower}");
    source.node.wait("status", SOON, |status| status["streams"][0]["encoder_bps"] == target);
    wait_until("the lower rate is announced", SOON, || {
        (1..CEILING).contains(&rate_listed(&network.supernode, &id))
    });
    let (_, metrics) = source.node.api("GET", "/metrics", None);
    let told = metrics.as_str().unwrap_or_default().lines();
    let mut told = told.filter(|line| line.starts_with("astral_stream_encoder_bits_per_second"));
    assert!(told.next().is_some_and(|line| line.ends_with(&format!(" {target}.0"))));
    let mut low = 0;
    let changed_at = size(&tee);
    wait_until("three seconds at the lower rate", SOON, || {
        low = rate_of_newest(&tee, changed_at, 3).unwrap_or_default();
        low > 0
    });
    println!("encoder at {target}: measured {full} bit/s before, {low} after, sound included");
    assert!(low < UPLINK, "what is cut fits the uplink");

    set_uplink(&source.node, "20Mbit");
    let is_back = |event: &Value| event["bps"] == CEILING;
    source.node.wait_from(after, "encoder_rate", SOON * 2, is_back);
    let changed_at = size(&tee);
    let mut back = 0;
    wait_until("three seconds at the ceiling again", SOON, || {
        back = rate_of_newest(&tee, changed_at, 3).unwrap_or_default();
        back > UPLINK
    });
    println!("back at the ceiling: measured {back} bit/s");
    wait_until("the viewer has it", SOON, || size(&file) >= changed_at);
    assert!(viewer.all("skipped").is_empty());
    source.node.signal("TERM");
    viewer.wait("ended", SOON, |_| true);
    assert_eq!(assert_identical(&tee, &file).behind, 0);
}

#[test]
fn what_cant_follow_is_refused_with_the_reason() {
    let scratch = Scratch::new("adaptive-own");
    let own = scratch.file("own.launch");
    std::fs::write(
        &own,
        "videotestsrc is-live=true ! x264enc ! h264parse ! flvmux streamable=true ! appsink name=out",
    )
    .unwrap();
    let args = ["publish", "own", "--pipeline", own.to_str().unwrap(), "--adaptive"];
    let mut node = Node::spawn("own", &args);
    assert_eq!(node.wait_exit(SOON).code(), Some(2));
    // What it said last may still be on its way when it has ended.
    wait_until("the reason", SOON, || node.stderr().contains("{encoder}"));
}
