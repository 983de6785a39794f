//! Where dependencies come from, under which licences, and what the simulator may link.

use std::{collections::BTreeSet, process::Command};

use serde_json::Value;

use crate::sources::root;

/// SPDX ids that go with MIT OR Apache-2.0; `.deny.toml` has the same list.
const LICENCES: &[&str] = &[
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BlueOak-1.0.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "OpenSSL",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

pub fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Whether one of the alternatives of an SPDX expression consists of accepted licences only.
pub fn acceptable(expression: &str) -> bool {
    let flat = expression.replace(['(', ')'], "").replace('/', " OR ");
    flat.split(" OR ")
        .any(|choice| choice.split(" AND ").all(|licence| LICENCES.contains(&licence.trim())))
}

#[test]
fn every_dependency_has_a_licence_we_can_take() {
    let metadata = metadata();
    let bad: Vec<String> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|p| !acceptable(p["license"].as_str().unwrap_or("none")))
        .map(|p| format!("{} {}: {}", p["name"], p["version"], p["license"]))
        .collect();
    assert!(bad.is_empty(), "{bad:#?}");
}

#[test]
fn every_dependency_comes_from_the_registry_by_its_checksum() {
    let metadata = metadata();
    let foreign: Vec<&Value> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|p| p["source"].as_str().is_some_and(|s| !s.starts_with("registry+")))
        .map(|p| &p["name"])
        .collect();
    assert!(foreign.is_empty(), "not from the registry: {foreign:?}");
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let unchecked = lock
        .split("[[package]]")
        .filter(|p| p.contains("source = ") && !p.contains("checksum = "))
        .count();
    assert_eq!(unchecked, 0);
}

#[test]
fn the_simulator_links_the_core_and_no_network() {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "-p", "astral-netsim", "-e", "normal", "--prefix", "none"])
        .current_dir(root())
        .output()
        .unwrap();
    let tree = String::from_utf8(output.stdout).unwrap();
    let names: BTreeSet<&str> = tree.lines().filter_map(|l| l.split(' ').next()).collect();
    assert!(names.contains("astral-core"));
    for banned in ["tokio", "libp2p", "gstreamer", "axum"] {
        assert!(!names.contains(banned), "netsim links {banned}");
    }
}

#[test]
fn licence_expressions_are_read_as_choices() {
    assert!(acceptable("MIT OR GPL-3.0"));
    assert!(acceptable("(MIT OR Apache-2.0) AND Unicode-3.0"));
    assert!(!acceptable("MIT AND GPL-3.0"));
    assert!(!acceptable("none"));
}
