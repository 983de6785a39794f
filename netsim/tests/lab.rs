//! The lab with real processes: a short one, and one that is killed.
//!
//! Both need root, `/dev/net/tun` and the `astral` program beside `netsim`, and say so where
//! something is missing.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a failing test panics")]

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// A node leaves politely within five seconds; a machine may be slow.
const GONE_WITHIN: Duration = Duration::from_secs(30);
const SMALL: [&str; 12] = [
    "lab",
    "lab20",
    "--set",
    "viewers.count=3",
    "--set",
    "supernodes.count=1",
    "--set",
    "duration_s=14",
    "--set",
    "settle_s=12",
    "--set",
    "join.over_s=1",
];

/// Whether there can be a lab here; prints the reason where not.
fn is_possible() -> bool {
    let netsim = Path::new(env!("CARGO_BIN_EXE_netsim"));
    let mut reason = None;
    if !netsim.with_file_name("astral").exists() {
        reason = Some("there is no astral beside netsim: cargo build --bin astral");
    }
    let uid = Command::new("id").arg("-u").output().unwrap().stdout;
    if uid.trim_ascii() != b"0" {
        reason = Some("network namespaces need root");
    }
    if fs::File::options().read(true).write(true).open("/dev/net/tun").is_err() {
        reason = Some("there is no /dev/net/tun to be used");
    }
    let tools = ["unshare", "nsenter", "setpriv", "chrt", "ip"];
    if tools.iter().any(|tool| Command::new(tool).arg("-V").output().is_err()) {
        reason = Some("util-linux or iproute2 is missing");
    }
    if Command::new("unshare").args(["--net", "true"]).status().is_ok_and(|s| !s.success()) {
        reason = Some("no network namespaces here");
    }
    if let Some(reason) = reason {
        println!("SKIPPED: {reason}");
    }
    reason.is_none()
}

/// Everything that a process has started, directly or not.
fn descendants(of: u32) -> Vec<u32> {
    let mut all = vec![of];
    let mut processes: Vec<(u32, u32)> = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let parent =
            stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
        processes.extend(parent.map(|parent| (pid, parent)));
    }
    let mut at = 0;
    while let Some(parent) = all.get(at).copied() {
        all.extend(processes.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    all.split_off(1)
}

#[test]
fn real_nodes_play_in_a_small_lab_what_the_source_cut() {
    if !is_possible() {
        return;
    }
    let output =
        Command::new(env!("CARGO_BIN_EXE_netsim")).args(SMALL).arg("--json").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect(&said);
    println!("{report:#}");
    assert!(report["lab"]["played"].as_f64().unwrap() > 0.0, "{report:#}");
    // On a machine that starves them nodes may leave something out; they alter nothing.
    let viewers = report["viewers"].as_array().unwrap();
    assert_eq!(viewers.len(), 3);
    assert!(viewers.iter().all(|viewer| viewer["foreign"] == 0), "{report:#}");
    assert!(report["packets"].as_u64().unwrap() > 1_000);
}

#[test]
fn a_lab_that_is_killed_leaves_nothing_behind() {
    if !is_possible() {
        return;
    }
    let mut lab = Command::new(env!("CARGO_BIN_EXE_netsim"))
        .args(SMALL)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(lab.stderr.take().unwrap()).lines();
    assert!(said.next().unwrap().unwrap().contains("namespaces"));
    // A node is there when its namespaces are, and some more.
    let deadline = Instant::now() + GONE_WITHIN;
    let is_node = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "astral")
    };
    let all = loop {
        let all = descendants(lab.id());
        if all.iter().any(is_node) {
            break all;
        }
        assert!(Instant::now() < deadline, "no node within {GONE_WITHIN:?}");
        std::thread::park_timeout(Duration::from_millis(20));
    };
    assert!(all.len() >= 8, "namespaces for seven and a node: {all:?}");
    lab.kill().unwrap();
    lab.wait().unwrap();
    let deadline = Instant::now() + GONE_WITHIN;
    let lives = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
    };
    while let Some(left) = all.iter().find(|pid| lives(pid)) {
        assert!(Instant::now() < deadline, "process {left} is left over");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    // Its folder of pipes is what the next lab would remove.
    let folder = std::env::temp_dir().join(format!("astral-lab-{}", lab.id()));
    assert!(folder.exists());
    fs::remove_dir_all(folder).unwrap();
}
