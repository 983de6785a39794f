//! Chains, stripes and fan-out: who sends how much, and whether the bytes stay the same.

use std::time::Duration;

use crate::harness::{Network, Node, SOON, Scratch, assert_identical, status_of, stream_is_whole};

#[test]
fn a_chain_of_three_plays_what_the_source_cut_and_the_source_sends_one_copy() {
    let scratch = Scratch::new("chain");
    let tee = scratch.file("cut.flv");
    let network = Network::found();
    let source = network.publish("chain", &tee, &["--bitrate", "400kbit", "--max-copies", "1"]);
    let mut nodes = Vec::new();
    for name in ["A", "B", "C"] {
        let file = scratch.file(&format!("{name}.flv"));
        let node = network.play(name, &source.link, &file, &["--max-copies", "1"]);
        node.wait("playing", SOON, |_| true);
        // The next one comes when this one is whole, so that it finds only this one's slots.
        node.wait("status", SOON, stream_is_whole);
        nodes.push((node, file));
    }
    let (last, last_file) = &nodes[2];
    last.wait("status", SOON, |status| status["streams"][0]["hops"] == 3);
    let from = last.mark();
    last.wait_from(from, "status", SOON, |s| s["streams"][0]["bytes"].as_u64() > Some(400_000));
    source.node.signal("TERM");
    last.wait("ended", SOON, |_| true);
    let identity = assert_identical(&tee, last_file);
    assert_eq!(identity.behind, 0, "C has all up to the end");
    let sent = status_of(&source.node)["sent_media_bytes"].as_u64().unwrap();
    let cut = crate::harness::size(&tee);
    assert!(sent < cut * 115 / 100, "the source sent {sent} bytes for {cut} cut");
}

#[test]
fn viewers_who_cannot_forward_a_whole_copy_forward_stripes() {
    let scratch = Scratch::new("stripes");
    let tee = scratch.file("cut.flv");
    let network = Network::found();
    let source = network.publish(
        "stripes",
        &tee,
        &["--bitrate", "870kbit", "--stripes", "4", "--uplink", "6Mbit"],
    );
    let viewers: Vec<(Node, _)> = (0..8)
        .map(|i| {
            let file = scratch.file(&format!("v{i}.flv"));
            let name = format!("v{i}");
            (network.play(&name, &source.link, &file, &["--uplink", "750kbit"]), file)
        })
        .collect();
    for (viewer, _) in &viewers {
        viewer.wait("status", 2 * SOON, stream_is_whole);
    }
    let (mut from_viewers, mut all) = (0, 0);
    for (viewer, _) in &viewers {
        let status = status_of(viewer);
        for parent in status["streams"][0]["parents"].as_array().unwrap() {
            all += 1;
            from_viewers += u32::from(parent.as_str() != Some(&source.node.id()));
        }
    }
    println!("{from_viewers} of {all} stripe feeds come from viewers");
    assert!(from_viewers * 3 >= all, "{from_viewers} of {all}");
    for (viewer, _) in &viewers {
        let from = viewer.mark();
        viewer
            .wait_from(from, "status", SOON, |s| s["streams"][0]["bytes"].as_u64() > Some(600_000));
    }
    source.node.signal("TERM");
    for (viewer, file) in &viewers {
        viewer.wait("ended", SOON, |_| true);
        let identity = assert_identical(&tee, file);
        assert_eq!(identity.behind, 0);
    }
}

#[test]
fn twenty_viewers_play_and_nobody_sends_more_than_two_copies() {
    let scratch = Scratch::new("fanout");
    let tee = scratch.file("cut.flv");
    let network = Network::found();
    let source = network.publish("fanout", &tee, &["--bitrate", "340kbit", "--max-copies", "2"]);
    let viewers: Vec<Node> = (0..20)
        .map(|i| {
            let name = format!("v{i}");
            network.seed(&name, &source.link, &["--max-copies", "2"])
        })
        .collect();
    for viewer in &viewers {
        viewer.wait("status", Duration::from_secs(90), stream_is_whole);
    }
    let before = status_of(&source.node);
    let from = source.node.mark();
    let (_, after) = source.node.wait_from(from, "status", SOON, |s| {
        s["uptime_ms"].as_u64() > before["uptime_ms"].as_u64().map(|ms| ms + 5_000)
    });
    let difference = |field: &str| after[field].as_u64().unwrap() - before[field].as_u64().unwrap();
    let sent = difference("sent_bytes");
    let cut = after["streams"][0]["bytes"].as_u64().unwrap()
        - before["streams"][0]["bytes"].as_u64().unwrap();
    println!("the source cut {cut} bytes and sent {sent} at the socket");
    assert!(sent <= 2 * cut * 110 / 100, "{sent} sent for {cut} cut");
    for viewer in viewers.iter().chain([&source.node]) {
        let status = status_of(viewer);
        let stream = &status["streams"][0];
        let stripes = stream["k"].as_u64().unwrap();
        let given: usize = stream["children"]
            .as_array()
            .unwrap()
            .iter()
            .map(|child| child["stripes"].as_array().unwrap().len())
            .sum();
        assert!(given as u64 <= 2 * stripes, "{given} stripe slots given, k = {stripes}");
        let hops = stream["hops"].as_u64().unwrap_or(0);
        assert!(hops <= 6, "a stripe {hops} hops deep");
    }
}
