//! Real players out of a node that only forwards: RTMP and HLS by ffmpeg and GStreamer.

use std::process::Command;

use crate::{
    encoders::{frames, push},
    harness::{Network, SOON, Scratch, assert_identical, wait_until},
};

#[test]
fn rtmp_and_hls_of_a_forwarding_node_play_from_their_first_frame_without_an_error() {
    let scratch = Scratch::new("players");
    let network = Network::found();
    let source = network.publish("players", &scratch.file("cut.flv"), &["--bitrate", "340kbit"]);
    let viewer = network.seed("viewer", &source.link, &[]);
    viewer.wait("playing", SOON, |_| true);
    let media = |kind: &str| viewer.ready["media"][kind].as_str().unwrap().to_owned();
    let (rtmp, hls) = (media("rtmp"), media("hls"));
    // No window into HLS is open yet: the first request opens it, and waits for a segment.
    std::thread::scope(|players| {
        for url in [&rtmp, &hls] {
            players.spawn(move || ffmpeg_decodes(url));
        }
    });
    let probed = Command::new("ffprobe")
        .args(["-v", "error", "-show_entries", "stream=codec_name,width,height", "-of", "csv=p=0"])
        .arg(&hls)
        .output()
        .unwrap();
    let probed = String::from_utf8_lossy(&probed.stdout);
    assert!(probed.contains("h264,320,180") && probed.contains("aac"), "{probed}");
    gstreamer_decodes(&format!("rtmp2src location={rtmp} ! flvdemux"));
}

#[test]
fn an_encoder_that_breaks_off_comes_back_to_the_same_players_and_the_same_recording() {
    let scratch = Scratch::new("reconnect");
    let network = Network::found();
    let (tee, file, folder) =
        (scratch.file("cut.flv"), scratch.file("played.flv"), scratch.file("recordings"));
    let source = network.member(
        "source",
        &[
            "publish",
            "reconnect",
            "--rtmp-in",
            "--tee",
            tee.to_str().unwrap(),
            "--record",
            folder.to_str().unwrap(),
        ],
    );
    let link = source.ready("stream");
    let mut encoder = push(&source.ready("publish_url"), 15 * 60);
    let viewer = network.play("viewer", &link, &file, &[]);
    viewer.wait("playing", SOON, |_| true);
    let url = viewer.ready["media"]["rtmp"].as_str().unwrap().to_owned();
    let player = std::thread::spawn(move || ffmpeg_decodes(&url));
    // Whatever of it the player has by now, it is not all that it plays.
    let before = frames(&file);
    wait_until("something recorded", SOON, || frames(&file) > before + 15);
    encoder.kill().unwrap();
    encoder.wait().unwrap();
    let (after_pause, _) =
        viewer.wait_from(0, "paused", SOON, |paused| paused["reconnecting"] == true);
    let mut encoder = push(&source.ready("publish_url"), 15 * 60);
    viewer.wait_from(after_pause, "resumed", SOON, |_| true);
    player.join().expect("the player was not restarted and heard of nothing");
    encoder.kill().unwrap();
    encoder.wait().unwrap();
    source.signal("TERM");
    viewer.wait("ended", SOON, |_| true);
    assert_identical(&tee, &file);
    source.wait("recorded", SOON, |_| true);
    let recordings: Vec<_> = std::fs::read_dir(&folder).unwrap().collect();
    let [Ok(recording)] = &recordings[..] else { panic!("{recordings:?}") };
    assert!(frames(&recording.path()) >= frames(&file), "one file with all of it");
}

pub fn ffmpeg_decodes(url: &str) {
    let decoded = Command::new("ffmpeg")
        .args(["-v", "error", "-xerror", "-i", url, "-t", "4", "-f", "null", "-"])
        .output()
        .unwrap();
    let complaints = String::from_utf8_lossy(&decoded.stderr);
    assert!(decoded.status.success() && complaints.is_empty(), "{url}: {complaints}");
}

fn gstreamer_decodes(source: &str) {
    let pipeline = format!(
        "{source} ! h264parse ! avdec_h264 ! videoconvert ! fakesink num-buffers=45 sync=false"
    );
    let played = Command::new("gst-launch-1.0")
        .args(["-q"])
        .args(pipeline.split(' '))
        .output()
        .expect("gst-launch is installed by the test command");
    let complaints = String::from_utf8_lossy(&played.stderr);
    assert!(played.status.success(), "{pipeline}: {complaints}");
}
