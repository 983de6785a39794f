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

#[test]
fn clocks_that_begin_late_or_cross_24_bits_and_gstreamers_sink_make_one_clock_without_a_jump() {
    let scratch = Scratch::new("clocks");
    let tee = scratch.file("cut.flv");
    let network = Network::found();
    let source = rtmp_source(&network, "clocks", &tee);
    let url = source.ready("publish_url");
    let each = 45;
    let mut all = 0;
    // Twenty thousand seconds; 0xFFFFFF ms after 1.2 s; and what GStreamer makes of it.
    for offset in [Some("20000"), Some("16776"), None] {
        let mut encoder = match offset {
            Some(offset) => push_with(&url, each, &["-output_ts_offset", offset]),
            None => gstreamer_push(&url, each),
        };
        assert!(encoder.wait().unwrap().success(), "{offset:?}");
        all += each;
        wait_until("all frames cut", SOON, || picture_times(&tee).len() == all as usize);
    }
    let times = picture_times(&tee);
    assert!(times[0] < 100 && times.windows(2).all(|pair| pair[0] < pair[1]), "{times:?}");
    // Within an encoder's turn nothing jumps; between two, a pause is as long as it was at most.
    let jumps = times.windows(2).filter(|pair| pair[1] - pair[0] > 200).count();
    assert!(jumps <= 2, "{times:?}");
}

#[test]
fn an_encoder_publishes_inside_tls_where_there_is_a_certificate() {
    let scratch = Scratch::new("rtmps");
    let (tee, chain, key) =
        (scratch.file("cut.flv"), scratch.file("cert.pem"), scratch.file("key.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&chain)
        .stderr(Stdio::null())
        .status()
        .expect("openssl is installed by the test command");
    assert!(made.success());
    let network = Network::found();
    let (chain, key) = (chain.to_str().unwrap(), key.to_str().unwrap());
    let tls = ["--rtmps", "127.0.0.1:0", "--rtmps-cert", chain, "--rtmps-key", key];
    let all = ["publish", "rtmps", "--rtmp-in", "--tee", tee.to_str().unwrap()];
    let source = network.member("source", &[&all[..], &tls].concat());
    let plain = source.ready("publish_url");
    let (_, stream_key) = plain.rsplit_once('/').unwrap();
    let server = source.ready("rtmps");
    assert!(server.starts_with("rtmps://"), "{server}");
    let mut encoder = push(&format!("{server}/{stream_key}"), 45);
    assert!(encoder.wait().unwrap().success(), "ffmpeg pushed to its end");
    wait_until("all frames cut", SOON, || frames(&tee) == 45);
}

fn rtmp_source(network: &Network, name: &str, tee: &Path) -> Node {
    network.member(name, &["publish", name, "--rtmp-in", "--tee", tee.to_str().unwrap()])
}

/// ffmpeg pushing its test picture and a tone in real time.
pub fn push(url: &str, frames: u32) -> Child {
    push_with(url, frames, &[])
}

/// As [`push`], with more arguments for the output.
fn push_with(url: &str, frames: u32, more: &[&str]) -> Child {
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
        .args(["-b:v", "300k", "-pix_fmt", "yuv420p", "-c:a", "aac"])
        .args(more)
        .args(["-f", "flv", url])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("ffmpeg is installed by the test command")
}

/// GStreamer pushing its test picture and a tone in real time.
pub fn gstreamer_push(url: &str, frames: u32) -> Child {
    let pipeline = format!(
        "videotestsrc is-live=true num-buffers={frames} ! video/x-raw,width=320,height=180,\
         framerate=15/1 ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max={GOP} \
         ! h264parse ! queue ! mux. audiotestsrc is-live=true num-buffers={} \
         samplesperbuffer=1024 ! audio/x-raw,rate=48000 ! voaacenc ! aacparse ! queue ! mux. \
         flvmux name=mux streamable=true latency=40000000 ! rtmp2sink location={url}",
        frames * 48_000 / 15 / 1_024
    );
    Command::new("gst-launch-1.0")
        .args(["-q"])
        .args(pipeline.split(' ').filter(|word| !word.is_empty()))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("gst-launch is installed by the test command")
}

/// Times of an FLV file's pictures, in milliseconds.
fn picture_times(flv: &Path) -> Vec<u32> {
    let bytes = std::fs::read(flv).unwrap();
    let (mut at, mut times) = (13, Vec::new());
    while let Some([kind, a, b, c, t2, t1, t0, t3, _, _, _, _, packet]) =
        bytes.get(at..at + 13).and_then(|head| <[u8; 13]>::try_from(head).ok())
    {
        if kind == 9 && packet == 1 {
            times.push(u32::from_be_bytes([t3, t2, t1, t0]));
        }
        at += 11 + u32::from_be_bytes([0, a, b, c]) as usize + 4;
    }
    times
}

/// How many video frames of an FLV file decode.
pub fn frames(flv: &Path) -> u32 {
    let count = Command::new("ffprobe")
        .args(["-v", "error", "-count_frames", "-select_streams", "v:0"])
        .args(["-show_entries", "stream=nb_read_frames", "-of", "csv=p=0"])
        .arg(flv)
        .output()
        .unwrap();
    // A transport stream is counted once more under its programme.
    let count = String::from_utf8_lossy(&count.stdout).into_owned();
    let first = count.lines().find(|line| !line.is_empty()).unwrap_or_default();
    first.trim().trim_end_matches(',').parse().unwrap_or(0)
}
