//! Walks the tree's Rust files for the other checks.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// One Rust source file of the tree.
pub struct Source {
    /// Path below the root, with `/`.
    pub path: String,
    /// Whole text.
    pub text: String,
}

impl Source {
    /// The code before the first test module, without comment lines.
    pub fn code(&self) -> String {
        let code = self.text.split("\n#[cfg(test)]").next().unwrap_or_default();
        code.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
    }
}

/// Root of the workspace.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below `folder`, in path order.
pub fn below(folder: &str) -> Vec<Source> {
    let mut found = Vec::new();
    walk(&root().join(folder), &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn walk(folder: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(Source {
                path: path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/"),
                text: fs::read_to_string(&path).unwrap(),
            });
        }
    }
}

fn everything() -> Vec<Source> {
    ["src", "pipelines", "netsim", "tests", "benches"].into_iter().flat_map(below).collect()
}

#[test]
fn every_file_opens_by_saying_what_it_owns() {
    let silent: Vec<_> =
        everything().into_iter().filter(|s| !s.text.starts_with("//!")).map(|s| s.path).collect();
    assert!(silent.is_empty(), "files that do not open with //!: {silent:#?}");
}

#[test]
fn no_file_outgrows_a_reader() {
    const LINES_MAX: usize = 900;
    let long: Vec<_> = everything()
        .into_iter()
        .filter(|s| !s.path.contains("tests/") && !s.path.ends_with("tests.rs"))
        .map(|s| (s.code().lines().count(), s.path))
        .filter(|(lines, _)| *lines > LINES_MAX)
        .collect();
    assert!(long.is_empty(), "more than {LINES_MAX} lines of code: {long:#?}");
}

#[test]
fn nothing_is_left_unfinished_in_the_code() {
    let marks = [
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
    ];
    let left: Vec<_> = everything()
        .into_iter()
        .filter(|s| !s.path.starts_with("tests/tidy/"))
        .filter(|s| marks.iter().any(|mark| s.text.contains(mark)))
        .map(|s| s.path)
        .collect();
    assert!(left.is_empty(), "unfinished marks in {left:#?}");
}

#[test]
fn modules_are_files_beside_their_folder() {
    let old: Vec<_> = everything()
        .into_iter()
        .map(|s| s.path)
        .filter(|p| p.ends_with("/mod.rs") && !p.starts_with("tests/"))
        .collect();
    assert!(old.is_empty(), "write foo.rs beside foo/, not foo/mod.rs: {old:#?}");
}
