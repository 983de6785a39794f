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

fn public_node(host: &Host) -> (Node, String) {
    let node = host.node(&["run", "--role", "supernode", "--listen", LISTEN, "--no-upnp"]);
    let listen = node.ready["listen"].as_array().unwrap().clone();
    let addrs = listen.iter().filter_map(|addr| addr.as_str());
    let addr = addrs.clone().find(|addr| addr.starts_with("/ip4/198.") && addr.contains("/tcp/"));
    let addr = addr.unwrap_or_else(|| panic!("no public address in {listen:?}")).to_owned();
    (node, addr)
}

fn publish(home: &Host, bootstrap: &str, tee: &Path) -> (Node, String) {
    let tee = tee.to_str().unwrap();
    let node = home.node(&[
        "publish",
        "garden",
        "--test",
        "--size",
        "320x180",
        "--fps",
        "15",
        "--bitrate",
        "340kbit",
        "--tee",
        tee,
        "--bootstrap",
        bootstrap,
        "--listen",
        LISTEN,
        "--no-upnp",
    ]);
    let link = node.ready("stream");
    // Behind a NAT it is found through a relay.
    node.wait("status", SOON, |status| status["reach"] == "private");
    (node, link)
}

fn watch(home: &Host, bootstrap: &str, link: &str, file: &Path) -> Node {
    let sink = format!("file:{}", file.to_str().unwrap());
    let viewer = home.node(&[
        "play",
        link,
        "--sink",
        &sink,
        "--bootstrap",
        bootstrap,
        "--listen",
        LISTEN,
        "--no-upnp",
    ]);
    viewer.wait("playing", 2 * SOON, |_| true);
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
    let (source, link) = publish(&one, &addr, &tee);
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
    source.signal("TERM");
    viewer.wait("ended", SOON, |_| true);
    assert_eq!(assert_identical(&tee, &file).behind, 0);
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
    let (source, link) = publish(&one, &addr, &tee);
    let viewer = watch(&two, &addr, &link, &file);
    more_bytes(&viewer, 100_000);
    let status = status_of(&viewer);
    assert_eq!((&status["punched"], &status["circuits"]), (&0.into(), &1.into()), "{status}");
    source.signal("TERM");
    viewer.wait("ended", SOON, |_| true);
    assert_eq!(assert_identical(&tee, &file).behind, 0);
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
            let tee_text = tee.to_str().unwrap();
            let source = one.node(&[
                "publish",
                "garden",
                "--test",
                "--size",
                "320x180",
                "--fps",
                "15",
                "--bitrate",
                "340kbit",
                "--tee",
                tee_text,
                "--bootstrap",
                &addr,
                "--listen",
                LISTEN,
                "--no-upnp",
                "--role",
                "member",
            ]);
            // Where nothing is between there is nothing to wait for.
            if source_nat != Nat::Public {
                source.wait("status", SOON, |status| status["reach"] != "unknown");
            }
            let link = source.ready("stream");
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
            source.signal("TERM");
            viewer.wait("ended", SOON, |_| true);
            assert_eq!(assert_identical(&tee, &file).behind, 0);
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
        let _second = other.node(&[
            "run",
            "--role",
            "supernode",
            "--listen",
            LISTEN,
            "--no-upnp",
            "--bootstrap",
            &addr,
        ]);
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
    let (source, link) = publish(&one, &addr, &tee);
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
    source.signal("TERM");
    viewer.wait("ended", SOON, |_| true);
    assert_eq!(assert_identical(&tee, &file).behind, 0);
}
