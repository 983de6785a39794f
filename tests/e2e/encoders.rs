//! Real encoders in, real players out: ffmpeg over RTMP, ffprobe and GStreamer over HTTP-FLV.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::harness::{Network, Node, SOON, Scratch, assert_identical, size, wait_until};

/// Frames the encoder sends: ten seconds of 15 a second.
const FRAMES: u32 = 150;
/// Frames from one keyframe to the next.
const GOP: u32 = 30;

#[test]
fn ffmpeg_publishes_and_every_frame_arrives_in_order_at_another_node() {
    let scratch = Scratch::new("ffmpeg");
    let (tee, file) = (scratch.file("cut.flv"), scratch.file("played.flv"));
    let network = Network::found();
    let source = rtmp_source(&network, "encoder", &tee);
    let viewer = network.play("viewer", &source.ready("stream"), &file, &[]);
    let mut encoder = push(&source.ready("publish_url"), FRAMES);
    viewer.wait("playing", SOON, |_| true);
    assert!(encoder.wait().unwrap().success(), "ffmpeg pushed to its end");
    wait_until("all frames cut", SOON, || frames(&tee) == FRAMES);
    let cut = size(&tee);
    source.signal("TERM");
    viewer.wait("ended", SOON, |_| true);
    let identity = assert_identical(&tee, &file);
    assert_eq!(identity.behind, 0, "of {cut}");
    // A viewer begins at the keyframe that is newest when it finds the stream.
    let missed = FRAMES - frames(&file);
    assert!(
        missed.is_multiple_of(GOP) && missed <= 2 * GOP,
        "{missed} frames before the first one played"
    );
}

#[test]
fn a_late_joiner_decodes_from_its_first_frame_over_http_flv_without_an_error() {
    let scratch = Scratch::new("late");
    let network = Network::found();
    let source = network.publish("late", &scratch.file("cut.flv"), &["--bitrate", "340kbit"]);
    let viewer = network.seed("viewer", &source.link, &[]);
    viewer.wait("playing", SOON, |_| true);
    let url = viewer.ready["media"]["http_flv"].as_str().unwrap().to_owned();
    let decoded = Command::new("ffmpeg")
        .args(["-v", "error", "-xerror", "-i", &url, "-t", "4", "-f", "null", "-"])
        .output()
        .unwrap();
    let complaints = String::from_utf8_lossy(&decoded.stderr);
    assert!(decoded.status.success() && complaints.is_empty(), "{complaints}");
    let pipeline = format!(
        "souphttpsrc location={url} num-buffers=60 ! flvdemux name=d d.video ! queue ! h264parse ! \
         avdec_h264 ! fakesink d.audio ! queue ! fakesink"
    );
    let gst =
        Command::new("gst-launch-1.0").args(["-q"]).args(pipeline.split(' ')).output().unwrap();
    assert!(gst.status.success(), "{}", String::from_utf8_lossy(&gst.stderr));
}

#[test]
fn a_wrong_key_and_a_second_encoder_are_refused() {
    let scratch = Scratch::new("keys");
    let network = Network::found();
    let source = rtmp_source(&network, "keys", &scratch.file("cut.flv"));
    let url = source.ready("publish_url");
    let (base, _) = url.rsplit_once('/').unwrap();
    let mut wrong = push(&format!("{base}/not-the-key"), FRAMES);
    assert!(!wrong.wait().unwrap().success(), "a wrong key publishes nothing");
    let mut first = push(&url, FRAMES);
    source.wait("live", SOON, |_| true);
    let mut second = push(&url, FRAMES);
    assert!(!second.wait().unwrap().success(), "a second encoder is refused");
    assert!(first.wait().unwrap().success(), "the first goes on undisturbed");
}

#[test]
fn a_played_stream_really_decodes() {
    let scratch = Scratch::new("decode");
    let network = Network::found();
    let source = network.publish("decode", &scratch.file("cut.flv"), &["--bitrate", "340kbit"]);
    let args = ["play", source.link.as_str(), "--sink", "fake"];
    let viewer = network.member("viewer", &args);
    viewer.wait("first_frame", SOON, |_| true);
    viewer.wait("status", SOON, |s| s["player"]["frames"].as_u64() > Some(30));
}

fn rtmp_source(network: &Network, name: &str, tee: &Path) -> Node {
    network.member(name, &["publish", name, "--rtmp-in", "--tee", tee.to_str().unwrap()])
}

/// ffmpeg pushing its test picture and a tone in real time.
pub fn push(url: &str, frames: u32) -> Child {
    let seconds = format!("{}", f64::from(frames) / 15.0);
    Command::new("ffmpeg")
        .args(["-v", "error", "-re", "-f", "lavfi", "-i", "testsrc=size=320x180:rate=15"])
        .args(["-f", "lavfi", "-i", "sine=frequency=440", "-t", &seconds])
        .args([
            "-c:v",
            "libx264",
            "-preset",
            "ultrafast",
            "-tune",
            "zerolatency",
            "-g",
            &GOP.to_string(),
        ])
        .args(["-b:v", "300k", "-pix_fmt", "yuv420p", "-c:a", "aac", "-f", "flv", url])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("ffmpeg is installed by the test command")
}

/// How many video frames of an FLV file decode.
pub fn frames(flv: &Path) -> u32 {
    let count = Command::new("ffprobe")
        .args(["-v", "error", "-count_frames", "-select_streams", "v:0"])
        .args(["-show_entries", "stream=nb_read_frames", "-of", "csv=p=0"])
        .arg(flv)
        .output()
        .unwrap();
    String::from_utf8_lossy(&count.stdout).trim().trim_end_matches(',').parse().unwrap_or(0)
}
