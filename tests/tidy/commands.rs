//! What the Makefile runs is there: the scripts, lists and targets it names.

use std::{fs, path::Path};

use super::sources::root;

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_whitespace() || "\"'();:$@|&".contains(c)).filter(|w| !w.is_empty())
}

#[test]
fn every_script_and_list_that_the_makefile_names_is_there() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let named = words(&makefile).filter(|w| w.contains('/') && !w.starts_with(['.', '/']));
    let files = named
        .filter(|w| Path::new(w).extension().is_some_and(|e| e == "sh" || e == "txt"))
        .collect::<Vec<_>>();
    assert!(files.len() >= 5, "{files:?}");
    let absent: Vec<_> = files.into_iter().filter(|f| !root().join(f).is_file()).collect();
    assert!(absent.is_empty(), "the Makefile names {absent:?}");
}

#[test]
fn every_cargo_target_that_the_makefile_names_is_there() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let metadata = super::dependencies::metadata();
    let targets: Vec<(&str, &str)> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|package| package["targets"].as_array().unwrap())
        .map(|target| (target["kind"][0].as_str().unwrap(), target["name"].as_str().unwrap()))
        .collect();
    let all: Vec<&str> = words(&makefile).collect();
    let mut named = 0;
    for pair in all.windows(2) {
        let Some(kind @ ("bench" | "test" | "bin")) = pair[0].strip_prefix("--") else { continue };
        assert!(targets.contains(&(kind, pair[1])), "no {kind} `{}`", pair[1]);
        named += 1;
    }
    assert!(named >= 4, "only {named} named");
}
