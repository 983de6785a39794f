//! The full matrix of players and OBS, for `make test-long`. A program that is not installed is named
//! with what its absence leaves untested.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use serde_json::json;

use crate::{
    encoders::{frames, gstreamer_push, push},
    harness::{Network, SOON, Scratch, Source, assert_identical, wait_until},
};

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
fn mpv_ffplay_vlc_and_gstreamer_play_flv_rtmp_and_hls_with_frames_advancing_and_no_error() {
    let scratch = Scratch::new("long");
    let network = Network::found();
    let source = network.publish("long", &scratch.file("cut.flv"), &["--bitrate", "340kbit"]);
    let (_viewer, urls) = urls(&network, &source);
    for url in &urls {
        mpv(url);
        ffplay(url);
        vlc(url, &scratch.file("vlc.ts"));
        gstreamer(url);
    }
}

#[test]
#[ignore = "twenty seconds an encoder: make test-long"]
fn ffmpeg_and_gstreamer_publish_for_twenty_seconds_and_another_node_plays_the_same_bytes() {
    let scratch = Scratch::new("pushers");
    let network = Network::found();
    for (name, push) in [("ffmpeg", push as fn(&str, u32) -> Child), ("rtmp2sink", gstreamer_push)]
    {
        let (tee, file) = (scratch.file("cut.flv"), scratch.file("played.flv"));
        let tee_arg = tee.to_str().unwrap();
        let source = network.member(name, &["publish", name, "--rtmp-in", "--tee", tee_arg]);
        let viewer = network.play("viewer", &source.ready("stream"), &file, &[]);
        let mut encoder = push(&source.ready("publish_url"), 20 * 15);
        assert!(encoder.wait().unwrap().success(), "{name} pushed to its end");
        wait_until("all pictures cut", SOON, || frames(&tee) == 20 * 15);
        source.signal("TERM");
        viewer.wait("ended", SOON, |_| true);
        let played = frames(&file);
        println!("{name}: {played} pictures played");
        assert_identical(&tee, &file);
        assert!(played > 10 * 15, "{name}: {played} pictures");
    }
}

/// Settings of OBS for one custom service, without its first-run questions.
fn obs_settings(home: &Path, server: &str, key: &str) {
    let root = home.join(".config/obs-studio");
    let write = |path: &str, text: String| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let global = "[General]\nFirstRun=true\nLastVersion=486539266\nEnableAutoUpdates=false\n\
        [Basic]\nProfile=Untitled\nProfileDir=Untitled\nSceneCollection=Untitled\n\
        SceneCollectionFile=Untitled\n";
    write("global.ini", global.into());
    let profile = "[General]\nName=Untitled\n[Video]\nBaseCX=640\nBaseCY=360\nOutputCX=640\n\
        OutputCY=360\nFPSCommon=30\n[Output]\nMode=Simple\n[SimpleOutput]\nVBitrate=800\n\
        StreamEncoder=x264\n";
    write("basic/profiles/Untitled/basic.ini", profile.into());
    let service = json!({
        "type": "rtmp_custom",
        "settings": {"server": server, "key": key, "use_auth": false},
    });
    write("basic/profiles/Untitled/service.json", service.to_string());
    let scenes = json!({
        "name": "Untitled",
        "current_scene": "Scene",
        "current_program_scene": "Scene",
        "scene_order": [{"name": "Scene"}],
        "sources": [
            {"id": "color_source_v3", "name": "Colour",
             "settings": {"color": 4_286_611_584_u32, "width": 640, "height": 360}},
            {"id": "scene", "name": "Scene",
             "settings": {"id_counter": 1, "items": [{"id": 1, "name": "Colour", "visible": true}]}},
        ],
    });
    write("basic/scenes/Untitled.json", scenes.to_string());
}

#[test]
#[ignore = "half a minute of OBS: make test-long"]
fn obs_publishes_and_its_pictures_reach_another_node() {
    let scratch = Scratch::new("obs");
    let network = Network::found();
    let source = network.member("source", &["publish", "obs", "--rtmp-in"]);
    let url = source.ready("publish_url");
    let (server, key) = url.rsplit_once('/').unwrap();
    let home = scratch.file("home");
    obs_settings(&home, server, key);
    // It looks up the host of its updates, which it may not find.
    let obs = Command::new("xvfb-run")
        .args(["-a", "-s", "-screen 0 1280x800x24", "obs", "--startstreaming", "--multi"])
        .args(["--minimize-to-tray"])
        .env("HOME", &home)
        .env("LIBGL_ALWAYS_SOFTWARE", "1")
        .env("XDG_RUNTIME_DIR", &home)
        .env_remove("XDG_CONFIG_HOME")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn();
    let has_obs = Command::new("obs").arg("--version").output().is_ok();
    let mut obs = match obs {
        Ok(obs) if has_obs => obs,
        _ => return eprintln!("NOT TESTED with OBS: xvfb-run or obs is not there"),
    };
    let file = scratch.file("played.flv");
    let viewer = network.play("viewer", &source.ready("stream"), &file, &[]);
    viewer.wait("playing", 4 * SOON, |_| true);
    // Ten seconds of 30 pictures each; a machine without a graphics card makes fewer.
    wait_until("OBS was played", 4 * SOON, || frames(&file) >= 150);
    // The whole group: xvfb-run has the display and OBS below it.
    let group = format!("-{}", obs.id());
    Command::new("kill").args(["-TERM", "--", &group]).status().unwrap();
    obs.wait().unwrap();
    viewer.wait("paused", SOON, |_| true);
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

/// ffplay never ends by itself on a live URL: `timeout` says by 124 that it still played.
fn ffplay(url: &str) {
    let args = [SECONDS, "ffplay", "-v", "error", "-nodisp", "-i", url];
    let env = [("SDL_VIDEODRIVER", "dummy"), ("SDL_AUDIODRIVER", "dummy")];
    let Some(output) = run("timeout", &args, &env) else { return };
    if output.status.code() == Some(127) {
        eprintln!("NOT TESTED with ffplay: it is not there");
        return;
    }
    let played = output.status.code() == Some(124) && text(&output).is_empty();
    assert!(played, "{url}: {:?} {}", output.status, text(&output));
}

/// A pipeline of GStreamer's own demuxers that tells each picture that it shows at its time.
fn gstreamer(url: &str) {
    let show = "videoconvert ! fakesink silent=false sync=true";
    let flv = "flvdemux name=d d.audio ! queue ! fakesink d.video ! queue ! decodebin";
    let pipeline = if url.starts_with("rtmp:") {
        format!("rtmp2src location={url} ! {flv} ! {show}")
    } else if url.ends_with(".flv") {
        format!("souphttpsrc is-live=true location={url} ! {flv} ! {show}")
    } else {
        format!("uridecodebin3 uri={url} ! {show}")
    };
    let args = [&["-s", "INT", SECONDS, "gst-launch-1.0", "-v"][..], &words(&pipeline)].concat();
    let Some(output) = run("timeout", &args, &[]) else { return };
    let said = text(&output);
    let pictures = said.matches("chain  ").count();
    println!("GStreamer {url}: {pictures} pictures");
    assert!(pictures >= 90, "GStreamer {url}: {pictures} pictures in {SECONDS} s");
    assert!(!said.contains("ERROR"), "GStreamer {url}");
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

/// VLC refuses to run as root, and writes what it demultiplexed, whose frames are counted.
fn vlc(url: &str, to: &Path) {
    let file = to.display().to_string();
    let _ = fs::remove_file(to);
    let folder = to.parent().unwrap();
    let all = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(folder, all).unwrap();
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
    let frames = frames(to);
    assert!(frames >= 90, "VLC {url}: {frames} frames in {SECONDS} s\n{}", text(&output));
}
