//! Supernodes and the list of streams: who is a member where, and what everybody hears.

use serde_json::Value;

use crate::harness::{Network, Node, SOON, Scratch, status_of, stream_is_whole, wait_until};

#[test]
fn streams_are_listed_everywhere_soon_and_leave_every_list_when_they_stop() {
    let scratch = Scratch::new("listed");
    let network = Network::found();
    let second = network.member("second supernode", &["run", "--role", "supernode"]);
    let far = Node::start("far", &["run", "--role", "member", "--bootstrap", &second.addr()]);
    far.wait("status", SOON, |s| s["supernode"].is_string());
    let name = "Gr\u{fc}\u{df}e aus K\u{f6}ln \u{1f3a5}";
    let one = network.publish(name, &scratch.file("1.flv"), &["--bitrate", "200kbit"]);
    let two = network.publish(name, &scratch.file("2.flv"), &["--bitrate", "200kbit"]);
    let (one_id, two_id) = (one.node.ready("stream_id"), two.node.ready("stream_id"));
    assert_ne!(one_id, two_id, "one name by two publishers is two streams");
    for node in [&network.supernode, &second, &far, &two.node] {
        wait_until("both streams are listed", SOON, || {
            let listed = names_of(node);
            listed.get(&one_id).is_some_and(|n| n == name) && listed.contains_key(&two_id)
        });
    }
    one.node.signal("TERM");
    for node in [&network.supernode, &second, &far, &two.node] {
        wait_until("the stopped stream is gone", SOON, || !names_of(node).contains_key(&one_id));
        assert!(names_of(node).contains_key(&two_id));
    }
}

#[test]
fn a_member_that_watches_nothing_lists_how_many_watch_as_its_supernode_counts() {
    let scratch = Scratch::new("counted");
    let network = Network::found();
    let idle = network.member("idle", &["run", "--role", "member"]);
    let source = network.publish("counted", &scratch.file("cut.flv"), &["--bitrate", "200kbit"]);
    let stream = source.node.ready("stream_id");
    let lists = |count: u64| {
        wait_until("the viewers are counted", 2 * SOON, || {
            let (_, list) = idle.api("GET", "/api/v1/streams", None);
            let known = list["streams"].as_array().into_iter().flatten();
            known.into_iter().any(|known| known["id"] == *stream && known["viewers"] == count)
        });
    };
    lists(0);
    let viewer = network.member("viewer", &["play", &source.link, "--sink", "fake"]);
    viewer.wait("status", SOON, stream_is_whole);
    lists(1);
    viewer.signal("TERM");
    lists(0);
}

#[test]
fn a_full_supernode_sends_the_next_member_elsewhere_and_renews_the_old_ones() {
    let args = ["run", "--role", "supernode", "--members-max", "2"];
    let small = Node::start("small", &args);
    let addr = small.addr();
    let member = |name: &str| Node::start(name, &["run", "--role", "member", "--bootstrap", &addr]);
    let early = [member("first"), member("second")];
    for node in &early {
        node.wait("status", SOON, |s| s["supernode"] == *small.id());
    }
    small.wait("status", SOON, |s| s["members"] == 2);
    let other = Node::start("other", &["run", "--role", "supernode", "--bootstrap", &addr]);
    let late = [member("third"), member("fourth")];
    for node in &late {
        node.wait("status", SOON, |s| s["supernode"] == *other.id());
    }
    // Three renewals later the same members are still there, and no others.
    let from = small.mark();
    let uptime = status_of(&small)["uptime_ms"].as_u64().unwrap();
    let over = |s: &Value| s["uptime_ms"].as_u64() > Some(uptime + 16_000);
    small.wait_from(from, "status", SOON + SOON, over);
    let since: Vec<Value> = small.all("status").into_iter().filter(over).collect();
    assert!(since.iter().all(|status| status["members"] == 2), "{since:?}");
    for node in &early {
        assert_eq!(status_of(node)["supernode"], *small.id());
    }
    for node in &late {
        assert_eq!(status_of(node)["supernode"], *other.id());
    }
}

#[test]
fn members_of_a_killed_supernode_find_another_and_their_pictures_go_on() {
    let scratch = Scratch::new("orphans");
    let (tee, file) = (scratch.file("cut.flv"), scratch.file("played.flv"));
    let mut network = Network::found();
    let second = network.member("second supernode", &["run", "--role", "supernode"]);
    let source = network.publish("orphans", &tee, &["--bitrate", "200kbit"]);
    let viewer = network.play("viewer", &source.link, &file, &[]);
    viewer.wait("status", SOON, stream_is_whole);
    network.supernode.kill();
    for node in [&source.node, &viewer] {
        let from = node.mark();
        let id = second.id();
        node.wait_from(from, "status", 2 * SOON, |s| s["supernode"] == *id);
    }
    // The bootstrap node is dead; a newcomer still joins through another.
    let newcomer = Node::start(
        "newcomer",
        &["seed", &source.link, "--bootstrap", &second.addr(), "--role", "member"],
    );
    newcomer.wait("status", SOON, stream_is_whole);
    source.node.signal("TERM");
    viewer.wait("ended", SOON, |_| true);
    assert!(viewer.all("skipped").is_empty());
    crate::harness::assert_identical(&tee, &file);
}

#[test]
fn without_any_supernode_left_a_node_promotes_itself_and_a_newcomer_finds_it() {
    let mut network = Network::found();
    let addr = network.supernode.addr();
    let left = Node::start("left", &["run", "--bootstrap", &addr]);
    left.wait("status", SOON, |s| s["supernode"].is_string());
    network.supernode.kill();
    left.wait("status", 2 * SOON, |s| s["role"] == "supernode");
    let newcomer =
        Node::start("newcomer", &["run", "--role", "member", "--bootstrap", &left.addr()]);
    let id = left.id();
    newcomer.wait("status", SOON, |s| s["supernode"] == *id);
}

#[test]
fn a_network_outlives_its_only_supernode_as_one() {
    let mut network = Network::found();
    let addr = network.supernode.addr();
    let names = ["one", "two", "three", "four"];
    let rest = names.map(|name| Node::start(name, &["run", "--bootstrap", &addr]));
    for node in &rest {
        node.wait("status", SOON, |s| s["supernode"].is_string());
    }
    // Everybody renews once, and hears of all that came.
    rest[3].wait("status", SOON, |s| s["uptime_ms"].as_u64() > Some(8_000));
    network.supernode.kill();
    let old = network.supernode.id();
    wait_until("one of them is everybody's supernode", 2 * SOON, || {
        let states: Vec<Value> = rest.iter().map(status_of).collect();
        let heirs = rest.iter().zip(&states).filter(|(_, state)| state["role"] == "supernode");
        let heirs: Vec<String> = heirs.map(|(node, _)| node.id()).collect();
        let [heir] = &heirs[..] else { return false };
        let follows = |state: &&Value| state["supernode"] == **heir && **heir != *old;
        states.iter().filter(follows).count() == rest.len() - 1
    });
    let args = ["publish", "garden", "--test", "--bootstrap", &rest[2].addr()];
    let source = Node::start("source", &args);
    let stream = source.ready("stream_id");
    for node in &rest {
        wait_until("a new stream is listed", SOON, || names_of(node).contains_key(&stream));
    }
}

#[test]
fn a_dead_bootstrap_address_only_costs_time() {
    let network = Network::found();
    let dead = "/ip4/127.0.0.1/tcp/9/p2p/12D3KooWBmwkafWE2fqfzS96VoTZgpGp6aJsF4N2yEvoqUh1n3cQ";
    let addr = network.supernode.addr();
    let args = ["run", "--role", "member", "--bootstrap", dead, "--bootstrap", &addr];
    let node = Node::start("patient", &args);
    let id = network.supernode.id();
    node.wait("status", SOON, |s| s["supernode"] == *id);
}

fn names_of(node: &Node) -> std::collections::BTreeMap<String, String> {
    let (_, list) = node.api("GET", "/api/v1/streams", None);
    let streams = list["streams"].as_array().cloned().unwrap_or_default();
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    streams.iter().map(|s| (text(&s["id"]), text(&s["name"]))).collect()
}
