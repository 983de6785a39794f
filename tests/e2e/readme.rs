//! The README, run: every `astral` command in it starts and does what it says, or, where this
//! machine has no camera or screen, says clearly what is missing.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use crate::harness::{Network, Node, SOON, Scratch, wait_until};

/// Commands whose hardware a test machine may lack, with what they then say.
const HARDWARE: [(&str, &str); 3] = [
    ("astral publish garden --camera --mic default", "camera"),
    ("astral publish garden --camera /dev/video2 --mic none", "camera"),
    ("astral publish desk --screen", "display"),
];

#[test]
fn every_astral_command_of_the_readme_runs() {
    let scratch = Scratch::new("readme");
    film(&scratch.file("film.mp4"));
    let pipeline = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/capture/test.launch");
    fs::copy(pipeline, scratch.file("mine.launch")).unwrap();
    let network = Network::found();
    let source = network.publish("garden", &scratch.file("cut.flv"), &["--bitrate", "340kbit"]);
    let commands = commands();
    assert!(commands.len() >= 14, "{commands:#?}");
    for command in commands {
        let mut words: Vec<String> = command.split_whitespace().skip(1).map(String::from).collect();
        for word in &mut words {
            if word.starts_with("astral:") {
                word.clone_from(&source.link);
            } else if word.starts_with("/ip4/192.0.2.7/") {
                *word = network.supernode.addr();
            } else if let Some(name) = word.strip_prefix("file:") {
                *word = format!("file:{}", scratch.file(name).display());
            } else if word == "127.0.0.1:8080" {
                // Whatever else runs here may have that port.
                "127.0.0.1:0".clone_into(word);
            } else if word == "fd:1" {
                // The events need stdout here; the bytes go to stderr instead.
                "fd:2".clone_into(word);
            } else if scratch.file(word).exists() {
                *word = scratch.file(word).display().to_string();
            }
        }
        try_out(&network, &command, &words);
    }
}

fn try_out(network: &Network, command: &str, words: &[String]) {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    if ["devices", "demo", "completions"].contains(&words[0]) {
        return run_to_end(&words);
    }
    if words[0] == "ctl" {
        return control(network, command, &words);
    }
    if words[0] == "doctor" {
        // Ports that a test machine has taken are a warning, which is fine.
        let mut args = words.clone();
        args.extend(["--ephemeral", "--mdns", "false"]);
        return run_to_end(&args);
    }
    let addr = network.supernode.addr();
    let mut args = words.clone();
    if !args.contains(&"--bootstrap") {
        args.extend(["--bootstrap", addr.as_str()]);
    }
    if let Some((_, missing)) = HARDWARE.iter().find(|(name, _)| *name == command) {
        let mut node = Node::spawn(command, &args);
        if node.ended_within(SOON / 3) {
            assert_eq!(node.wait_exit(SOON).code(), Some(1), "{command}");
            let stderr = node.stderr();
            assert!(stderr.to_lowercase().contains(missing), "{command}: {stderr}");
        }
        return;
    }
    let mut node = Node::start(command, &args);
    match words[0] {
        "play" | "seed" => drop(node.wait("playing", SOON, |_| true)),
        "publish" if !words.contains(&"--rtmp-in") => drop(node.wait("live", SOON, |_| true)),
        // From its first status on a node hears signals.
        _ => drop(node.wait("status", SOON, |_| true)),
    }
    node.signal("TERM");
    assert_eq!(node.wait_exit(SOON).code(), Some(0), "{command}: {}", node.stderr());
}

/// A verb of `ctl`, at a node that knows the stream `garden`.
fn control(network: &Network, command: &str, words: &[&str]) {
    let scratch = Scratch::new("kept");
    let recordings = scratch.file("recordings").display().to_string();
    let mut node = network.member(command, &["run", "--recordings", &recordings]);
    node.wait("stream_listed", SOON, |_| true);
    let token_file = node.ready("token_file");
    let mut args = words.to_vec();
    args.extend(["--token-file", &token_file]);
    // Five events take a while on a quiet network; that they come is enough.
    if let Some(count) = args.iter().position(|arg| *arg == "--count") {
        args[count + 1] = "0";
    }
    run_to_end(&args);
    node.signal("TERM");
    assert_eq!(node.wait_exit(SOON).code(), Some(0), "{command}: {}", node.stderr());
}

fn run_to_end(words: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_astral"));
    command.args(words);
    if words[0] == "demo" {
        command.args(["--duration", "5s"]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_demo_kills_a_forwarder_and_loses_nothing() {
    let output = Command::new(env!("CARGO_BIN_EXE_astral"))
        .args(["demo", "--kill", "--duration", "20s", "--sink", "fake"])
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    println!("{out}");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(out.contains("kill -9 forwarder") && out.contains("lost: 0 of"), "{out}");
}

#[test]
fn the_demo_leaves_nothing_behind_when_it_is_killed() {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_astral"))
        .args(["demo", "--sink", "fake"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let pid = demo.id();
    wait_until("the demo has children", SOON, || children(pid).len() >= 3);
    let nodes = children(pid);
    demo.kill().unwrap();
    demo.wait().unwrap();
    wait_until("no node is left", SOON, || {
        nodes.iter().all(|pid| !Path::new(&format!("/proc/{pid}/exe")).exists() || zombie(*pid))
    });
}

/// Processes started by `pid`.
fn children(pid: u32) -> Vec<u32> {
    let lists = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = lists.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| list.split(' ').filter_map(|p| p.parse().ok()).collect::<Vec<_>>())
        .collect()
}

fn zombie(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z"))
}

/// Every distinct `astral ...` command in the README's code and tables.
fn commands() -> BTreeSet<String> {
    let readme =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let mut found = BTreeSet::new();
    for line in readme.lines() {
        let code = if line.starts_with("astral ") {
            vec![line]
        } else {
            line.split('`').skip(1).step_by(2).filter(|c| c.starts_with("astral ")).collect()
        };
        for command in code {
            let command = command.split(" #").next().unwrap_or_default();
            let command = command.split(" | ").next().unwrap_or_default().trim();
            found.insert(command.to_owned());
        }
    }
    found
}

fn film(path: &Path) {
    let status = Command::new("ffmpeg")
        .args(["-v", "error", "-y", "-f", "lavfi", "-i", "testsrc=size=320x180:rate=15:duration=3"])
        .args(["-f", "lavfi", "-i", "sine=duration=3", "-c:v", "libx264", "-pix_fmt", "yuv420p"])
        .args(["-g", "15", "-c:a", "aac"])
        .arg(path)
        .status()
        .unwrap();
    assert!(status.success());
}
