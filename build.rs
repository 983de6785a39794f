//! Puts the commit into optimised builds, so that a report says what it is about, and the built web
//! app. Development builds have neither: each commit would build them anew, and they read the app
//! when asked for it.

use std::{env, path::Path, process::Command};

fn main() {
    // Set where the history is not at hand, as in a container.
    println!("cargo:rerun-if-env-changed=COMMIT");
    println!("cargo:rerun-if-changed=build.rs");
    let is_release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    if is_release {
        watch_app();
    }
    let commit = env::var("COMMIT").ok().or_else(|| from_git().filter(|_| is_release));
    let version = env!("CARGO_PKG_VERSION");
    let version = match commit.filter(|commit| !commit.is_empty()) {
        Some(commit) => format!("{version} ({commit})"),
        None => version.to_owned(),
    };
    // No ASTRAL_ name: cargo hands this to the tests, and the program refuses settings it does not know.
    println!("cargo:rustc-env=LONG_VERSION={version}");
}

/// The program is built anew when the app is. Without Node there is no app, and the folder is empty.
fn watch_app() {
    println!("cargo:rerun-if-changed=web/dist");
    if let Err(error) = std::fs::create_dir_all("web/dist") {
        println!("cargo:warning=web/dist can't be made: {error}");
    }
}

fn from_git() -> Option<String> {
    let log = Path::new(".git/logs/HEAD");
    if log.exists() {
        println!("cargo:rerun-if-changed={}", log.display());
    }
    let args = ["rev-parse", "--short=9", "HEAD"];
    let output = Command::new("git").args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
