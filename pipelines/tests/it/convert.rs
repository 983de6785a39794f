//! What browsers code, made by other programs: Opus to AAC, recordings to FLV.

use std::process::Command;

use astral_pipelines::{Container, OpusToAac, PictureCoding, Sound, ToFlv};
use bytes::Bytes;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

use crate::common::{DEADLINE, Tag, folder, tags};

/// One second of a tone in packets of 20 ms.
fn packets() -> Vec<Bytes> {
    astral_pipelines::init().unwrap();
    let tone = "audiotestsrc num-buffers=50 samplesperbuffer=960 ! audio/x-raw,rate=48000,channels=1 \
                ! opusenc ! appsink name=out sync=false";
    let pipeline = gst::parse::launch(tone).unwrap().downcast::<gst::Pipeline>().unwrap();
    let sink = pipeline.by_name("out").unwrap().downcast::<gst_app::AppSink>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let packets = std::iter::from_fn(|| sink.pull_sample().ok())
        .map(|sample| Bytes::copy_from_slice(&sample.buffer().unwrap().map_readable().unwrap()));
    let packets = packets.collect();
    pipeline.set_state(gst::State::Null).unwrap();
    packets
}

#[tokio::test]
async fn a_second_of_opus_becomes_a_second_of_aac_on_the_same_clock() {
    let (converter, mut sounds) = OpusToAac::start(1).unwrap();
    for (n, packet) in (0..).zip(packets()) {
        assert!(converter.push(5_000 + n * 20, packet));
    }
    let next = tokio::time::timeout(DEADLINE, sounds.recv()).await.unwrap().unwrap();
    // AAC-LC, 48,000 samples a second, two channels.
    assert_eq!(next, Sound::Config(Bytes::from_static(&[0x11, 0x90])));
    let mut times = Vec::new();
    while times.len() < 44 {
        let next = tokio::time::timeout(DEADLINE, sounds.recv()).await.unwrap().unwrap();
        let Sound::Frame { at_ms, data } = next else { panic!("{next:?}") };
        assert!(!data.is_empty());
        times.push(at_ms);
    }
    assert!((4_900..5_100).contains(&times[0]), "{times:?}");
    assert!(times.windows(2).all(|pair| (20..=23).contains(&(pair[1] - pair[0]))), "{times:?}");
}

#[tokio::test]
async fn a_converter_whose_sound_nobody_takes_ends_when_it_is_dropped() {
    let (converter, sounds) = OpusToAac::start(2).unwrap();
    for _ in 0..10 {
        for (n, packet) in (0..).zip(packets()) {
            let _ = converter.push(n * 20, packet);
        }
    }
    drop(converter);
    drop(sounds);
}

const H264: [&str; 8] =
    ["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "15"];
const OPUS: [&str; 4] = ["-c:a", "libopus", "-ar", "48000"];

/// Three seconds of ffmpeg's test picture and a tone, as a browser records them.
fn recording(name: &str, coding: &[&[&str]]) -> Bytes {
    let file = folder(name).join(name);
    let made = Command::new("ffmpeg")
        .args(["-v", "error", "-y", "-f", "lavfi", "-i", "testsrc=size=160x90:rate=15"])
        .args(["-f", "lavfi", "-i", "sine", "-t", "3", "-pix_fmt", "yuv420p"])
        .args(coding.concat())
        .arg(&file)
        .status()
        .expect("ffmpeg is installed by the test command");
    assert!(made.success());
    std::fs::read(&file).unwrap().into()
}

#[tokio::test]
async fn recordings_of_browsers_become_flv_with_picture_and_sound() {
    let vp8 = ["-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-g", "15"];
    let fragments = ["-movflags", "+frag_keyframe+empty_moov+default_base_moof"];
    for (container, bytes) in [
        (Container::Matroska, recording("h264.mkv", &[&H264, &OPUS])),
        (Container::Webm, recording("vp8.webm", &[&vp8, &OPUS])),
        (Container::Mp4, recording("aac.mp4", &[&H264, &fragments, &["-c:a", "aac"]])),
        (Container::Mp4, recording("opus.mp4", &[&H264, &fragments, &OPUS])),
    ] {
        let (converter, mut pieces) = ToFlv::start(container).unwrap();
        for piece in bytes.chunks(4_096) {
            assert!(converter.push(Bytes::copy_from_slice(piece)));
        }
        let mut flv = Vec::new();
        // All but the last pictures: a live converter never knows that there are no more.
        while flv.is_empty() || tags(&flv).iter().filter(|tag| tag.is_picture()).count() < 30 {
            let piece = tokio::time::timeout(DEADLINE, pieces.recv()).await;
            flv.extend(piece.expect("more FLV in time").expect("the converter goes on"));
        }
        let tags = tags(&flv);
        assert!(tags.iter().any(Tag::is_avc_header) && tags.iter().any(Tag::is_aac_header));
        let sounds = tags.iter().filter(|tag| tag.kind == 8).count();
        assert!(sounds > 40, "{container:?}: {sounds} tags of sound");
    }
}

#[tokio::test]
async fn a_recording_without_sound_becomes_flv_without_sound() {
    let (converter, mut pieces) = ToFlv::start(Container::Matroska).unwrap();
    assert!(converter.push(recording("silent.mkv", &[&H264, &["-an"]])));
    let mut flv = Vec::new();
    while flv.is_empty() || tags(&flv).iter().filter(|tag| tag.is_picture()).count() < 30 {
        let piece = tokio::time::timeout(DEADLINE, pieces.recv()).await;
        flv.extend(piece.expect("more FLV in time").expect("the converter goes on"));
    }
    assert!(tags(&flv).iter().all(|tag| tag.kind != 8));
}

#[tokio::test]
async fn what_is_no_recording_fails_soon_and_not_when_the_queue_is_full() {
    for container in [Container::Matroska, Container::Webm, Container::Mp4] {
        let (converter, _pieces) = ToFlv::start(container).unwrap();
        let deadline = std::time::Instant::now() + DEADLINE;
        let mut pushed = 0;
        while converter.push(Bytes::from(vec![0xa7; 1_024])) {
            assert!(std::time::Instant::now() < deadline, "{container:?}: {pushed} KB taken");
            pushed += 1;
            tokio::task::yield_now().await;
        }
        assert!(pushed < 8_000, "{container:?}: {pushed} KB taken");
    }
}

#[tokio::test]
async fn a_keyframe_becomes_a_small_jpeg() {
    let mkv = recording("picture.mkv", &[&H264, &OPUS]);
    let (converter, mut pieces) = ToFlv::start(Container::Matroska).unwrap();
    assert!(converter.push(mkv));
    let mut flv = Vec::new();
    while flv.is_empty() || !tags(&flv).iter().any(Tag::is_keyframe) {
        let piece = tokio::time::timeout(DEADLINE, pieces.recv()).await;
        flv.extend(piece.expect("more FLV in time").expect("the converter goes on"));
    }
    let tags = tags(&flv);
    let body = |is: fn(&Tag) -> bool| tags.iter().find(|tag| is(tag)).unwrap().body[5..].to_vec();
    let (config, keyframe) = (body(Tag::is_avc_header), body(Tag::is_keyframe));
    let jpeg = move |config: &[u8]| {
        let (config, keyframe) = (Bytes::copy_from_slice(config), keyframe.clone().into());
        astral_pipelines::jpeg(PictureCoding::H264, config, keyframe)
    };
    let picture = jpeg(&config).unwrap();
    assert!(picture.starts_with(b"\xff\xd8\xff") && picture.len() < 24 * 1_024);
    assert_eq!(jpeg(b"no configuration"), None);
}

/// The decoder configuration and the first frame of a file that ffmpeg encodes, as MP4 has them.
fn coded(encoder: &str, file: &str) -> (Bytes, Bytes) {
    let path = folder("coded").join(file);
    let made = Command::new("ffmpeg")
        .args(["-v", "error", "-y", "-f", "lavfi", "-i", "testsrc=size=192x108:rate=5"])
        .args(["-frames:v", "3", "-c:v", encoder, "-pix_fmt", "yuv420p"])
        .args(if encoder == "libx265" {
            &["-tag:v", "hvc1", "-x265-params", "log-level=0"][..]
        } else {
            &[]
        })
        .arg(&path)
        .status()
        .unwrap();
    assert!(made.success(), "{encoder}");
    let read =
        format!("filesrc location={} ! qtdemux ! appsink name=out sync=false", path.display());
    let pipeline = gst::parse::launch(&read).unwrap().downcast::<gst::Pipeline>().unwrap();
    let out = pipeline.by_name("out").unwrap().downcast::<gst_app::AppSink>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let sample = out.pull_sample().unwrap();
    pipeline.set_state(gst::State::Null).unwrap();
    let bytes = |buffer: &gst::BufferRef| Bytes::copy_from_slice(&buffer.map_readable().unwrap());
    let config = sample.caps().unwrap().structure(0).unwrap().get::<gst::Buffer>("codec_data");
    (config.map(|config| bytes(&config)).unwrap_or_default(), bytes(sample.buffer().unwrap()))
}

#[test]
fn keyframes_of_hevc_av1_and_vp9_become_small_jpegs_too() {
    if !crate::common::has("ffmpeg") {
        println!("skipped: ffmpeg is not installed");
        return;
    }
    astral_pipelines::init().unwrap();
    for (coding, encoder, file) in [
        (PictureCoding::Hevc, "libx265", "hevc.mp4"),
        (PictureCoding::Av1, "libaom-av1", "av1.mp4"),
        (PictureCoding::Vp9, "libvpx-vp9", "vp9.mp4"),
    ] {
        let (config, keyframe) = coded(encoder, file);
        let picture = astral_pipelines::jpeg(coding, config, keyframe);
        let picture = picture.unwrap_or_else(|| panic!("{coding:?}: no picture"));
        // Bars and a test pattern do not fit into what a single colour takes.
        assert!(picture.starts_with(b"\xff\xd8\xff") && picture.len() > 2 * 1_024, "{coding:?}");
        assert!(picture.len() < 24 * 1_024, "{coding:?}");
    }
}
