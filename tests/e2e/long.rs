//! The full matrix of players and OBS, for `make test-long`. A program that is not installed is named
//! with what its absence leaves untested.

use std::{
    path::Path,
    process::{Command, Output},
};

use crate::harness::{Network, SOON, Scratch, Source};

/// Seconds that each player plays.
const SECONDS: &str = "10";

/// A forwarding node and its URLs.
fn urls(network: &Network, source: &Source) -> (crate::harness::Node, Vec<String>) {
    let viewer = network.seed("viewer", &source.link, &[]);
    viewer.wait("playing", SOON, |_| true);
    let urls = ["http_flv", "rtmp", "hls"];
    let urls = urls.map(|kind| viewer.ready["media"][kind].as_str().unwrap().to_owned());
    (viewer, urls.into())
}

/// What a program did, or `None` with the reason on stderr when it is not there.
fn run(program: &str, args: &[&str], env: &[(&str, &str)]) -> Option<Output> {
    match Command::new(program).args(args).envs(env.iter().copied()).output() {
        Ok(output) => Some(output),
        Err(error) => {
            eprintln!(
                "NOT TESTED with {program}: {error} (tests/debian-long.txt names its package)"
            );
            None
        }
    }
}

fn text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

#[test]
#[ignore = "ten seconds a player and protocol: make test-long"]
fn mpv_ffplay_and_vlc_play_flv_rtmp_and_hls_with_frames_advancing_and_no_error() {
    let scratch = Scratch::new("long");
    let network = Network::found();
    let source = network.publish("long", &scratch.file("cut.flv"), &["--bitrate", "340kbit"]);
    let (_viewer, urls) = urls(&network, &source);
    for url in &urls {
        mpv(url);
        ffplay(url);
        vlc(url, &scratch.file("vlc.ts"));
    }
}

fn mpv(url: &str) {
    let length = format!("--length={SECONDS}");
    let args = ["--no-config", "--vo=null", "--ao=null", "--msg-level=all=error", &length, url];
    // It ends by itself only when the clock has moved by the length.
    if let Some(output) = run("mpv", &args, &[]) {
        assert!(output.status.success(), "mpv {url}: {}", text(&output));
        assert!(!text(&output).to_lowercase().contains("error"), "mpv {url}: {}", text(&output));
    }
}

fn ffplay(url: &str) {
    let args = ["-v", "error", "-nodisp", "-autoexit", "-t", SECONDS, "-i", url];
    let env = [("SDL_VIDEODRIVER", "dummy"), ("SDL_AUDIODRIVER", "dummy")];
    if let Some(output) = run("ffplay", &args, &env) {
        assert!(output.status.success() && text(&output).is_empty(), "{url}: {}", text(&output));
    }
}

/// VLC refuses to run as root, and writes what it demultiplexed, whose frames are counted.
fn vlc(url: &str, to: &Path) {
    let file = to.display().to_string();
    let _ = std::fs::remove_file(to);
    let folder = to.parent().unwrap();
    let all = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(folder, all).unwrap();
    let sout = format!("#std{{access=file,mux=ts,dst={file}}}");
    let run_time = format!("--run-time={SECONDS}");
    let home = format!("HOME={}", folder.display());
    let args = [
        "-u",
        "nobody",
        "--",
        "env",
        &home,
        "cvlc",
        "-I",
        "dummy",
        "--sout",
        &sout,
        &run_time,
        url,
        "vlc://quit",
    ];
    let Some(output) = run("runuser", &args, &[]) else { return };
    if text(&output).contains("No such file") {
        eprintln!("NOT TESTED with VLC: {}", text(&output));
        return;
    }
    let frames = crate::encoders::frames(to);
    assert!(frames >= 90, "VLC {url}: {frames} frames in {SECONDS} s\n{}", text(&output));
}
