//! Two homes behind routers and one public node: through holes, through the relay, and on when the
//! public node is gone.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    harness::{Node, SOON, Scratch, assert_identical, status_of, stream_is_whole},
    namespaces::{Host, Internet, Nat},
};

/// A pair that takes longer to play than this is not connected.
const PAIR_MAX: Duration = Duration::from_secs(60);

/// For so long a link is dead: within what the ring holds.
const DROP: Duration = Duration::from_secs(2);
const LISTEN: &str = "/ip4/0.0.0.0/tcp/4001,/ip4/0.0.0.0/udp/4001/quic-v1";

fn supernode(host: &Host, more: &[&str]) -> Node {
    host.node(&[&["run", "--role", "supernode"][..], &COMMON, more].concat())
}

fn public_node(host: &Host) -> (Node, String) {
    let node = supernode(host, &[]);
    let listen = node.ready["listen"].as_array().unwrap().clone();
    let addrs = listen.iter().filter_map(|addr| addr.as_str());
    let addr = addrs.clone().find(|addr| addr.starts_with("/ip4/198.") && addr.contains("/tcp/"));
    let addr = addr.unwrap_or_else(|| panic!("no public address in {listen:?}")).to_owned();
    (node, addr)
}

/// What every node here is started with.
const COMMON: [&str; 3] = ["--listen", LISTEN, "--no-upnp"];
/// The small test picture.
const PICTURE: [&str; 9] =
    ["publish", "garden", "--test", "--size", "320x180", "--fps", "15", "--bitrate", "340kbit"];

/// Publishes the small test picture and writes what is cut to `tee`.
fn publish(home: &Host, bootstrap: &str, tee: &Path, more: &[&str]) -> (Node, String) {
    let kept = ["--tee", tee.to_str().unwrap(), "--bootstrap", bootstrap];
    let node = home.node(&[&PICTURE[..], &COMMON, &kept, more].concat());
    let link = node.ready("stream");
    (node, link)
}

/// Plays into a file and waits for the first picture.
fn play(home: &Host, bootstrap: &str, link: &str, file: &Path, more: &[&str]) -> Node {
    let sink = format!("file:{}", file.to_str().unwrap());
    let args = ["play", link, "--sink", &sink, "--bootstrap", bootstrap];
    let viewer = home.node(&[&args[..], more].concat());
    viewer.wait("playing", 2 * SOON, |_| true);
    viewer
}

/// The same until every stripe has a parent.
fn watch(home: &Host, bootstrap: &str, link: &str, file: &Path) -> Node {
    let viewer = play(home, bootstrap, link, file, &COMMON);
    viewer.wait("status", SOON, stream_is_whole);
    viewer
}

fn more_bytes(viewer: &Node, bytes: u64) {
    let before = status_of(viewer)["streams"][0]["bytes"].as_u64().unwrap_or(0);
    let from = viewer.mark();
    viewer.wait_from(from, "status", SOON, |status| {
        status["streams"][0]["bytes"].as_u64() > Some(before + bytes)
    });
}

/// Ends the stream: the viewer has every byte.
fn whole(mut source: Node, viewer: &Node, tee: &Path, file: &Path) {
    source.signal("TERM");
    viewer.wait("ended", SOON, |_| true);
    // What was cut is written out at its end.
    source.wait_exit(SOON);
    assert_eq!(assert_identical(tee, file).behind, 0);
}

/// A source that ends waits for those behind it three seconds and no longer.
fn caught_up(viewer: &Node) {
    let from = viewer.mark();
    viewer.wait_from(from, "status", SOON, |status| {
        stream_is_whole(status) && status["streams"][0]["delay_ms"].as_u64() < Some(1_000)
    });
}

#[test]
fn two_homes_meet_through_a_hole_that_outlives_the_public_node() {
    let Some(mut internet) = Internet::new() else { return };
    let scratch = Scratch::new("homes");
    let (tee, file) = (scratch.file("cut.flv"), scratch.file("played.flv"));
    let street = internet.public("public", 1);
    let (one, two) = (
        internet.home("source", 11, Nat::PortRestricted),
        internet.home("viewer", 12, Nat::PortRestricted),
    );
    let (mut public, addr) = public_node(&street);
    let (source, link) = publish(&one, &addr, &tee, &[]);
    let viewer = watch(&two, &addr, &link, &file);
    more_bytes(&viewer, 50_000);
    let through_a_hole = |status: &serde_json::Value| {
        status["punched"].as_u64() >= Some(1) && status["circuits"] == 0
    };
    let status = viewer.wait("status", SOON, through_a_hole);
    assert_eq!(status["reach"], "private", "{status}");
    more_bytes(&viewer, 50_000);
    public.kill();
    more_bytes(&viewer, 250_000);
    whole(source, &viewer, &tee, &file);
}

#[test]
fn homes_between_which_no_hole_can_be_are_carried_by_the_relay() {
    let Some(mut internet) = Internet::new() else { return };
    let scratch = Scratch::new("relayed-homes");
    let (tee, file) = (scratch.file("cut.flv"), scratch.file("played.flv"));
    let street = internet.public("public", 1);
    let (one, two) =
        (internet.home("source", 11, Nat::Symmetric), internet.home("viewer", 12, Nat::Symmetric));
    let (_public, addr) = public_node(&street);
    let (source, link) = publish(&one, &addr, &tee, &[]);
    let viewer = watch(&two, &addr, &link, &file);
    more_bytes(&viewer, 100_000);
    let status = status_of(&viewer);
    assert_eq!((&status["punched"], &status["circuits"]), (&0.into(), &1.into()), "{status}");
    whole(source, &viewer, &tee, &file);
}

#[test]
fn a_machine_that_changes_its_address_plays_on_without_a_byte_lost() {
    let Some(mut internet) = Internet::new() else { return };
    let scratch = Scratch::new("roaming");
    let (tee, file) = (scratch.file("cut.flv"), scratch.file("played.flv"));
    let street = internet.public("public", 1);
    let one = internet.public("source", 2);
    let two = internet.home("viewer", 12, Nat::PortRestricted);
    let (_public, addr) = public_node(&street);
    let (source, link) = publish(&one, &addr, &tee, &[]);
    let viewer = watch(&two, &addr, &link, &file);
    more_bytes(&viewer, 50_000);
    let moved = Instant::now();
    two.run(
        "ip addr del 192.168.1.2/24 dev eth0\nip addr add 192.168.1.77/24 dev eth0\n\
         ip route add default via 192.168.1.1",
    );
    more_bytes(&viewer, 100_000);
    println!("100 kB more {:.1?} after the move", moved.elapsed());
    caught_up(&viewer);
    whole(source, &viewer, &tee, &file);
}

#[test]
fn nodes_meet_over_ipv6_alone() {
    let Some(internet) = Internet::new() else { return };
    let scratch = Scratch::new("six");
    let file = scratch.file("played.flv");
    let (one, two) = (internet.public("source", 2), internet.public("viewer", 3));
    let six = "/ip6/::/tcp/4001,/ip6/::/udp/4001/quic-v1";
    let here = ["--listen", six, "--no-upnp"];
    let source = one.node(&[&PICTURE[..], &here].concat());
    let listen = source.ready["listen"].as_array().unwrap();
    let mut addrs = listen.iter().filter_map(|addr| addr.as_str());
    let addr = addrs.find(|addr| addr.starts_with("/ip6/2001:db8::2/tcp")).unwrap();
    let viewer = play(&two, addr, &source.ready("stream"), &file, &here);
    more_bytes(&viewer, 50_000);
}

#[test]
fn in_privacy_mode_only_the_supernode_ever_sees_the_viewer() {
    let Some(internet) = Internet::new() else { return };
    let scratch = Scratch::new("privacy");
    let (tee, file) = (scratch.file("cut.flv"), scratch.file("played.flv"));
    let (data, open_file) = (scratch.file("other"), scratch.file("open.flv"));
    let street = internet.public("public", 1);
    let (one, other) = (internet.public("source", 2), internet.public("other viewer", 3));
    let hidden = internet.public("hidden viewer", 4);
    // Counts whatever this machine exchanges with anybody but the supernode.
    hidden.run(
        "nft -f - <<END\ntable ip watch {\nset known { type ipv4_addr; flags interval; \
         elements = { 198.51.100.1, 127.0.0.0/8 }; }\n\
         chain out { type filter hook output priority 0; ip daddr != @known counter; }\n\
         chain in { type filter hook input priority 0; ip saddr != @known counter; }\n}\nEND",
    );
    let (_public, addr) = public_node(&street);
    let (source, link) = publish(&one, &addr, &tee, &[]);
    let data = data.to_str().unwrap();
    let open = [&COMMON[..], &["--data-dir", data]].concat();
    let _neighbour = play(&other, &addr, &link, &open_file, &open);
    let viewer = play(&hidden, &addr, &link, &file, &["--privacy"]);
    more_bytes(&viewer, 200_000);
    let counted = hidden.run("nft list table ip watch");
    assert_eq!(counted.matches("packets 0 bytes 0").count(), 2, "{counted}");
    let ctl = format!("{} ctl --data-dir {data} --json nodes", env!("CARGO_BIN_EXE_astral"));
    let known = other.run(&ctl);
    assert!(known.contains("198.51.100.2") && !known.contains("198.51.100.4"), "{known}");
    whole(source, &viewer, &tee, &file);
}

/// A relay's own stream and the one that it relays, together, at the socket.
#[test]
#[ignore = "half a minute; make nat-matrix"]
fn a_relay_keeps_to_its_uplink_with_all_that_it_sends() {
    const UPLINK: u64 = 1_600_000;
    let Some(mut internet) = Internet::new() else { return };
    let scratch = Scratch::new("relay-uplink");
    let (tee, file) = (scratch.file("cut.flv"), scratch.file("played.flv"));
    let street = internet.public("public", 1);
    let (one, two) =
        (internet.home("source", 11, Nat::Symmetric), internet.home("viewer", 12, Nat::Symmetric));
    let uplink = format!("{}kbit", UPLINK / 1_000);
    let own = ["--role", "supernode", "--stripes", "4", "--uplink", &uplink];
    let relay = street.node(&[&PICTURE[..], &COMMON, &own].concat());
    let listen = relay.ready["listen"].as_array().unwrap();
    let mut addrs = listen.iter().filter_map(|addr| addr.as_str());
    let addr = addrs.find(|addr| addr.starts_with("/ip4/198.") && addr.contains("/tcp/")).unwrap();
    // More viewers than the relay can serve, none of whom forwards.
    let crowd: Vec<Node> = (2..6)
        .map(|number| {
            let host = internet.public("one of many", number);
            let link = relay.ready("stream");
            let seed = ["seed", &link, "--bootstrap", addr, "--max-copies", "0"];
            host.node(&[&seed[..], &COMMON].concat())
        })
        .collect();
    relay.wait("status", SOON, |status| status["promised_bps"].as_u64() > Some(UPLINK / 2));
    let before = status_of(&relay);
    assert_eq!(before["usable_bps"], UPLINK, "{before}");
    let (source, link) = publish(&one, addr, &tee, &[]);
    let viewer = watch(&two, addr, &link, &file);
    assert_eq!(status_of(&viewer)["circuits"], 1);
    let fewer = |status: &serde_json::Value| status["usable_bps"].as_u64() < Some(UPLINK);
    let (from, first) = relay.wait_from(relay.mark(), "status", SOON, fewer);
    let (_, last) = relay.wait_from(from, "status", SOON, |status| {
        status["uptime_ms"].as_u64() > first["uptime_ms"].as_u64().map(|ms| ms + 10_000)
    });
    let more = |field: &str| last[field].as_u64().unwrap() - first[field].as_u64().unwrap();
    let (own, relayed, ms) = (more("sent_bytes"), more("relayed_bytes"), more("uptime_ms"));
    println!("{own} bytes of its own and {relayed} relayed in {ms} ms, at {UPLINK} bit/s");
    assert!(relayed > 10_000);
    assert!((own + relayed) * 8_000 <= UPLINK * ms, "{own} + {relayed} in {ms} ms");
    more_bytes(&viewer, 50_000);
    drop((crowd, source));
}

/// Every kind of router with every other: how they meet, and after which time the viewer plays.
#[test]
#[ignore = "minutes; make nat-matrix"]
fn every_kind_of_router_reaches_every_other() {
    let mut rows = Vec::new();
    for source_nat in Nat::ALL {
        for viewer_nat in Nat::ALL {
            let Some(mut internet) = Internet::new() else { return };
            let scratch = Scratch::new("matrix");
            let (tee, file) = (scratch.file("cut.flv"), scratch.file("played.flv"));
            let street = internet.public("public", 1);
            let one = internet.home("source", 11, source_nat);
            let two = internet.home("viewer", 12, viewer_nat);
            let (_public, addr) = public_node(&street);
            let (source, link) = publish(&one, &addr, &tee, &["--role", "member"]);
            // Where nothing is between there is nothing to wait for.
            if source_nat != Nat::Public {
                source.wait("status", SOON, |status| status["reach"] != "unknown");
            }
            let began = Instant::now();
            let viewer = watch(&two, &addr, &link, &file);
            let took = began.elapsed();
            assert!(took < PAIR_MAX, "{source_nat:?} -> {viewer_nat:?}: {took:?}");
            more_bytes(&viewer, 60_000);
            let status = status_of(&viewer);
            let way = match (&status["punched"], &status["circuits"]) {
                (_, circuits) if circuits != 0 => "relayed",
                (punched, _) if punched != 0 => "punched or dialled back",
                _ => "direct",
            };
            whole(source, &viewer, &tee, &file);
            rows.push(way);
            println!("{source_nat:?} -> {viewer_nat:?}: {way}, plays after {took:.1?}");
        }
    }
    for way in ["direct", "punched or dialled back", "relayed"] {
        let share = rows.iter().filter(|row| **row == way).count();
        println!("{way}: {share} of {}", rows.len());
    }
}

/// What `doctor` says behind each kind of router.
#[test]
#[ignore = "minutes; make nat-matrix"]
fn doctor_tells_each_kind_of_router() {
    for nat in Nat::ALL {
        let Some(mut internet) = Internet::new() else { return };
        let (street, other) = (internet.public("public", 1), internet.public("other", 2));
        let home = internet.home("home", 11, nat);
        let (_public, addr) = public_node(&street);
        let _second = supernode(&other, &["--bootstrap", &addr]);
        let enter = home.enter();
        let output = Command::new(&enter[0])
            .args(&enter[1..])
            .arg(env!("CARGO_BIN_EXE_astral"))
            .args(["doctor", "--json", "--ephemeral", "--mdns", "false", "--listen", LISTEN])
            .args(["--no-upnp", "--bootstrap", &addr])
            .output()
            .unwrap();
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let checks = report["checks"].as_array().unwrap();
        let check = checks.iter().find(|check| check["name"] == "reachability").unwrap();
        let said = check["message"].as_str().unwrap();
        println!("{nat:?}: {said}");
        let expected = match nat {
            Nat::Public => "can dial",
            Nat::FullCone | Nat::Restricted | Nat::PortRestricted => "(NAT)",
            Nat::Symmetric => "symmetric",
        };
        assert!(said.contains(expected), "{nat:?}: {said}");
    }
}

/// The link of a viewer goes dead without a reset, ten times: nothing is lost.
#[test]
#[ignore = "minutes; make nat-matrix"]
fn a_link_that_dies_silently_ten_times_loses_nothing() {
    let Some(mut internet) = Internet::new() else { return };
    let scratch = Scratch::new("drops");
    let (tee, file) = (scratch.file("cut.flv"), scratch.file("played.flv"));
    let street = internet.public("public", 1);
    let one = internet.home("source", 11, Nat::PortRestricted);
    let two = internet.home("viewer", 12, Nat::PortRestricted);
    let (_public, addr) = public_node(&street);
    let (source, link) = publish(&one, &addr, &tee, &[]);
    let viewer = watch(&two, &addr, &link, &file);
    more_bytes(&viewer, 50_000);
    let mut gaps = Vec::new();
    for _ in 0..10 {
        internet.set_link(12, false);
        let cut = Instant::now();
        std::thread::park_timeout(DROP);
        internet.set_link(12, true);
        more_bytes(&viewer, 100_000);
        gaps.push(cut.elapsed());
    }
    println!("dead for {DROP:?}; 100 kB later after {gaps:.1?}");
    caught_up(&viewer);
    whole(source, &viewer, &tee, &file);
}
