//! HEVC, AV1, VP9 and Opus over Enhanced RTMP, byte for byte to another node.
//!
//! Debian's ffmpeg encodes these and predates Enhanced RTMP, so the client is our own: it takes the
//! frames out of ffmpeg's MP4 and puts them into Enhanced RTMP's tags.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    path::Path,
    process::Command,
};

use rml_rtmp::{
    handshake::{Handshake, HandshakeProcessResult, PeerType},
    sessions::{
        ClientSession, ClientSessionConfig, ClientSessionEvent, ClientSessionResult,
        PublishRequestType,
    },
    time::RtmpTimestamp,
};

use crate::harness::{Network, SOON, Scratch, assert_identical, size, wait_until};

/// Pictures a second, and from one keyframe to the next.
const FPS: u32 = 15;
const GOP: u32 = 15;
/// Seconds of media: two are measured before the stream begins.
const SECONDS: u32 = 6;

/// A codec of the picture: its FourCC, its configuration's box in MP4, how ffmpeg is asked for it.
struct Codec {
    fourcc: &'static [u8; 4],
    config: &'static [u8; 4],
    /// Bytes of that box which RTMP leaves out.
    config_prefix: usize,
    /// Packet type of a frame: 1 carries a composition time with NAL codecs, 3 leaves it out.
    packet: u8,
    encoder: &'static [&'static str],
}

const CODECS: [Codec; 3] = [
    Codec {
        fourcc: b"hvc1",
        config: b"hvcC",
        config_prefix: 0,
        packet: 3,
        encoder: &[
            "libx265",
            "-tag:v",
            "hvc1",
            "-preset",
            "ultrafast",
            "-x265-params",
            "bframes=0:scenecut=0:open-gop=0:keyint=15:min-keyint=15:log-level=error",
        ],
    },
    Codec {
        fourcc: b"av01",
        config: b"av1C",
        config_prefix: 0,
        packet: 1,
        encoder: &["libaom-av1", "-cpu-used", "8", "-usage", "realtime", "-lag-in-frames", "0"],
    },
    Codec {
        fourcc: b"vp09",
        config: b"vpcC",
        config_prefix: 4,
        packet: 1,
        encoder: &["libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-lag-in-frames", "0"],
    },
];

#[test]
fn hevc_av1_vp9_and_opus_reach_another_node_byte_for_byte() {
    let network = Network::found();
    let scratch = Scratch::new("enhanced");
    let opus = scratch.file("sound.mp4");
    ffmpeg(&["-f", "lavfi", "-i", "sine"], &["-c:a", "libopus", "-b:a", "48k"], &opus);
    let sound = Track::read(&opus, b"dOps", 0);
    for codec in &CODECS {
        let name = String::from_utf8_lossy(codec.fourcc).into_owned();
        let mp4 = scratch.file(&format!("{name}.mp4"));
        let input = ["-f", "lavfi", "-i", &format!("testsrc=size=192x108:rate={FPS}")];
        let gop = GOP.to_string();
        let encoder = [&["-c:v"], codec.encoder, &["-g", &gop, "-pix_fmt", "yuv420p"]].concat();
        ffmpeg(&input, &encoder, &mp4);
        let picture = Track::read(&mp4, codec.config, codec.config_prefix);
        assert_eq!(picture.frames.len() as u32, FPS * SECONDS, "{name}");

        let (tee, file) = (scratch.file("cut.flv"), scratch.file("played.flv"));
        let tee_arg = tee.to_str().unwrap();
        let source = network.member(&name, &["publish", &name, "--rtmp-in", "--tee", tee_arg]);
        let viewer = network.play("viewer", &source.ready("stream"), &file, &[]);
        let mut encoder = Encoder::connect(&source.ready("publish_url"));
        let tags = tags(codec, &picture, &sound);
        let (first, second) = tags.split_at(tags.len() / 2);
        first.iter().for_each(|tag| encoder.send(tag));
        viewer.wait("playing", SOON, |_| true);
        second.iter().for_each(|tag| encoder.send(tag));
        // The last sound waits for the next picture, or for the end.
        encoder.socket.shutdown(Shutdown::Write).unwrap();
        let all = tags.iter().map(|tag| tag.body.len() + 15).sum::<usize>() + 13;
        wait_until("all tags cut", SOON, || size(&tee) == all as u64);
        source.signal("TERM");
        viewer.wait("ended", SOON, |_| true);
        assert_eq!(assert_identical(&tee, &file).behind, 0, "{name}");
        // What was sent is what was cut: every body is in the file, untouched and in order.
        let cut = std::fs::read(&tee).unwrap();
        let mut at = 0;
        for tag in tags.iter().filter(|tag| tag.kind == 9) {
            let found = cut[at..].windows(tag.body.len()).position(|window| window == tag.body);
            at += found.unwrap_or_else(|| panic!("{name}: a body at {} ms changed", tag.time));
        }
    }
}

fn ffmpeg(input: &[&str], encoder: &[&str], to: &Path) {
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-y"])
        .args(input)
        .args(["-t", &SECONDS.to_string()])
        .args(encoder)
        .args(["-movflags", "empty_moov+default_base_moof+frag_every_frame", "-strict", "-2"])
        .arg(to)
        .output()
        .expect("ffmpeg is installed by the test command");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaints}");
}

/// One track of an MP4 file that has a fragment for each frame.
struct Track {
    config: Vec<u8>,
    frames: Vec<Vec<u8>>,
}

impl Track {
    fn read(path: &Path, config: &[u8; 4], prefix: usize) -> Self {
        let file = std::fs::read(path).unwrap();
        let at = file.windows(4).position(|window| window == config).expect("a configuration");
        let length =
            |at: usize| u32::from_be_bytes(*file[at..].first_chunk::<4>().unwrap()) as usize;
        let config = file[at + 4 + prefix..at - 4 + length(at - 4)].to_vec();
        let (mut at, mut frames) = (0, Vec::new());
        while at + 8 <= file.len() {
            if &file[at + 4..at + 8] == b"mdat" {
                frames.push(file[at + 8..at + length(at)].to_vec());
            }
            at += length(at);
        }
        Self { config, frames }
    }
}

struct Tag {
    kind: u8,
    time: u32,
    body: Vec<u8>,
}

/// Enhanced RTMP's tags of both tracks, by time.
fn tags(codec: &Codec, picture: &Track, sound: &Track) -> Vec<Tag> {
    let video = |key: bool, packet: u8, data: &[u8]| {
        let first = 0x80 | if key { 0x10 } else { 0x20 } | packet;
        [&[first], &codec.fourcc[..], data].concat()
    };
    // MP4 keeps the OpusHead of Ogg and RTMP in its own byte order.
    let [_, channels, s1, s0, r3, r2, r1, r0, g1, g0, family, ..] = sound.config[..] else {
        panic!("{:?}", sound.config)
    };
    let head = [1, channels, s0, s1, r0, r1, r2, r3, g0, g1, family];
    let mut tags = vec![
        Tag { kind: 9, time: 0, body: video(true, 0, &picture.config) },
        Tag { kind: 8, time: 0, body: [b"\x90OpusOpusHead", &head[..]].concat() },
    ];
    let mut media: Vec<Tag> = Vec::new();
    for (n, frame) in (0..).zip(&picture.frames) {
        let body = video(n % GOP == 0, codec.packet, frame);
        media.push(Tag { kind: 9, time: n * 1_000 / FPS, body });
    }
    for (n, frame) in (0..).zip(&sound.frames) {
        media.push(Tag { kind: 8, time: n * 20, body: [b"\x91Opus", &frame[..]].concat() });
    }
    media.sort_by_key(|tag| tag.time);
    tags.extend(media);
    tags
}

/// An encoder of ours.
struct Encoder {
    socket: TcpStream,
    session: ClientSession,
}

impl Encoder {
    fn connect(url: &str) -> Self {
        let rest = url.strip_prefix("rtmp://").unwrap();
        let (host, key) = rest.split_once("/astral/").unwrap();
        let mut socket = TcpStream::connect(host).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        let mut shake = Handshake::new(PeerType::Client);
        socket.write_all(&shake.generate_outbound_p0_and_p1().unwrap()).unwrap();
        loop {
            let mut bytes = [0; 4_096];
            let n = socket.read(&mut bytes).unwrap();
            if let HandshakeProcessResult::Completed { response_bytes, .. } =
                shake.process_bytes(&bytes[..n]).unwrap()
            {
                socket.write_all(&response_bytes).unwrap();
                break;
            }
        }
        let (session, _) = ClientSession::new(ClientSessionConfig::new()).unwrap();
        let mut encoder = Self { socket, session };
        let ask = encoder.session.request_connection("astral".into()).unwrap();
        encoder.say(ask);
        encoder.hear(&ClientSessionEvent::ConnectionRequestAccepted);
        let ask = encoder.session.request_publishing(key.into(), PublishRequestType::Live).unwrap();
        encoder.say(ask);
        encoder.hear(&ClientSessionEvent::PublishRequestAccepted);
        encoder
    }

    fn send(&mut self, tag: &Tag) {
        let (body, time) = (tag.body.clone().into(), RtmpTimestamp::new(tag.time));
        let said = if tag.kind == 9 {
            self.session.publish_video_data(body, time, false)
        } else {
            self.session.publish_audio_data(body, time, false)
        };
        self.say(said.unwrap());
    }

    fn say(&mut self, result: ClientSessionResult) {
        if let ClientSessionResult::OutboundResponse(packet) = result {
            self.socket.write_all(&packet.bytes).unwrap();
        }
    }

    fn hear(&mut self, wanted: &ClientSessionEvent) {
        let mut heard = false;
        while !heard {
            let mut bytes = [0; 4_096];
            let n = self.socket.read(&mut bytes).unwrap();
            assert!(n > 0, "closed instead of {wanted:?}");
            for result in self.session.handle_input(&bytes[..n]).unwrap() {
                match result {
                    ClientSessionResult::RaisedEvent(event) => heard |= event == *wanted,
                    said => self.say(said),
                }
            }
        }
    }
}
