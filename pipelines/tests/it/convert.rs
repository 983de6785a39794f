//! Opus to AAC, with packets that GStreamer's own encoder made.

use astral_pipelines::{OpusToAac, Sound};
use bytes::Bytes;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

use crate::common::DEADLINE;

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
