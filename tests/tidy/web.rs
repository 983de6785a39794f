//! The page's side of the tree: its dependencies' licences and origin, and that it loads nothing from
//! elsewhere.

use std::{fs, path::Path};

use serde_json::Value;

use crate::{dependencies::acceptable, sources::root};

/// Packages of the lock file, the page itself left out.
fn packages() -> Vec<(String, Value)> {
    let lock = fs::read_to_string(root().join("web/package-lock.json")).unwrap();
    let lock: Value = serde_json::from_str(&lock).unwrap();
    let packages = lock["packages"].as_object().unwrap();
    packages
        .iter()
        .filter(|(path, _)| !path.is_empty())
        .map(|(p, v)| (p.clone(), v.clone()))
        .collect()
}

#[test]
fn every_dependency_of_the_page_has_a_licence_we_can_take() {
    let packages = packages();
    assert!(packages.len() > 10, "the lock file was read");
    let bad: Vec<String> = packages
        .iter()
        .filter(|(_, package)| !acceptable(package["license"].as_str().unwrap_or("none")))
        .map(|(path, package)| format!("{path}: {}", package["license"]))
        .collect();
    assert!(bad.is_empty(), "{bad:#?}");
}

#[test]
fn every_dependency_of_the_page_is_pinned_by_its_checksum() {
    let loose: Vec<String> = packages()
        .into_iter()
        .filter(|(_, package)| {
            !package["integrity"].as_str().is_some_and(|i| i.starts_with("sha512-"))
        })
        .map(|(path, _)| path)
        .collect();
    assert!(loose.is_empty(), "{loose:#?}");
}

#[test]
fn the_page_carries_few_dependencies() {
    const SHIPPED_MAX: usize = 20;
    let shipped = packages()
        .into_iter()
        .filter(|(_, package)| package["dev"] != true && package["devOptional"] != true)
        .count();
    assert!(shipped <= SHIPPED_MAX, "{shipped} packages are shipped to browsers");
}

#[test]
fn every_file_of_the_page_says_what_it_owns_and_loads_nothing_from_elsewhere() {
    let mut wrong = Vec::new();
    walk(&root().join("web/src"), &mut |path, text| {
        if !(text.starts_with("// ") || text.starts_with("/* ")) {
            wrong.push(format!("{}: no opening comment", path.display()));
        }
        for mark in ["https://", "eval(", "innerHTML", "dangerouslySetInnerHTML"] {
            if text.contains(mark) {
                wrong.push(format!("{}: {mark}", path.display()));
            }
        }
    });
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn walk(folder: &Path, look: &mut impl FnMut(&Path, &str)) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, look);
        } else {
            look(&path, &fs::read_to_string(&path).unwrap());
        }
    }
}
