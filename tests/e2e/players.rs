//! Real players out of a node that only forwards: RTMP and HLS by ffmpeg and GStreamer.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use crate::{
    encoders::{frames, push},
    harness::{Network, SOON, Scratch, assert_identical, wait_until},
};

/// How long the encoder stays away.
const AWAY: Duration = Duration::from_secs(10);
/// Three times what is promised from the encoder's return to the next picture.
const BACK_MAX: Duration = Duration::from_secs(9);

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
    let flv = viewer.ready["media"]["http_flv"].as_str().unwrap().to_owned();
    let players = [("RTMP", Showing::start(&url)), ("HTTP-FLV", Showing::start(&flv))];
    wait_until("players show pictures", SOON, || players.iter().all(|(_, p)| p.pictures() > 15));
    encoder.kill().unwrap();
    encoder.wait().unwrap();
    let (after_pause, _) =
        viewer.wait_from(0, "paused", SOON, |paused| paused["reconnecting"] == true);
    let left = Instant::now();
    wait_until("the encoder was away", 3 * AWAY, || left.elapsed() > AWAY);
    let shown: Vec<usize> = players.iter().map(|(_, player)| player.pictures()).collect();
    let returned = Instant::now();
    let mut encoder = push(&source.ready("publish_url"), 15 * 60);
    for ((kind, player), shown) in players.iter().zip(shown) {
        wait_until("the picture is back", SOON, || player.pictures() > shown);
        let took = player.shown_at(shown + 1).saturating_duration_since(returned);
        println!("{kind}: a picture {took:?} after the encoder was started again");
        assert!(took < BACK_MAX, "{kind}: {took:?}");
    }
    viewer.wait_from(after_pause, "resumed", SOON, |_| true);
    wait_until("players go on", SOON, || players.iter().all(|(_, p)| p.pictures() > 60));
    for (kind, player) in players {
        assert_eq!(player.complaints(), "", "{kind}: not restarted, and heard of nothing");
    }
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

/// A player that shows pictures until it is dropped, and when it showed each.
struct Showing {
    player: Child,
    shown: Arc<Mutex<Vec<Instant>>>,
}

impl Showing {
    fn start(url: &str) -> Self {
        let mut player = Command::new("ffmpeg")
            .args(["-v", "error", "-xerror", "-i", url, "-an", "-vsync", "passthrough"])
            .args(["-f", "framecrc", "-flush_packets", "1", "-"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("ffmpeg is installed by the test command");
        let lines = BufReader::new(player.stdout.take().unwrap()).lines();
        let shown = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&shown);
        std::thread::spawn(move || {
            let pictures = lines.map_while(Result::ok).filter(|line| !line.starts_with('#'));
            for _ in pictures {
                to.lock().unwrap().push(Instant::now());
            }
        });
        Self { player, shown }
    }

    fn pictures(&self) -> usize {
        self.shown.lock().unwrap().len()
    }

    /// When picture number `n` was shown; the first has 1.
    fn shown_at(&self, n: usize) -> Instant {
        self.shown.lock().unwrap()[n - 1]
    }

    /// Ends the player; what it complained of until then.
    fn complaints(mut self) -> String {
        assert_eq!(self.player.try_wait().unwrap(), None, "the player has ended by itself");
        self.player.kill().unwrap();
        let mut said = String::new();
        let _ = std::io::Read::read_to_string(&mut self.player.stderr.take().unwrap(), &mut said);
        said
    }
}

impl Drop for Showing {
    fn drop(&mut self) {
        let _ = self.player.kill();
        let _ = self.player.wait();
    }
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
