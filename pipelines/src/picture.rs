//! A small JPEG of one coded picture: what lists show of a stream.
//!
//! Owns a pipeline of one picture's life. Doesn't own when one is made.

use bytes::Bytes;
use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app as gst_app;

const DESCRIPTION: &str = include_str!("../picture/jpeg.launch");
/// Decoding one picture takes some milliseconds; a machine that needs longer shows none.
const MAKE_MAX: gst::ClockTime = gst::ClockTime::from_seconds(5);

/// A JPEG of 320 x 180 pixels from a decoder configuration (`avcC`) and a keyframe of H.264, as MP4 and
/// FLV have them; bars where the picture has another shape. `None` when an element is missing or the
/// picture can't be decoded. Blocks, as a rule some tens of milliseconds.
#[must_use]
pub fn jpeg(config: Bytes, keyframe: Bytes) -> Option<Bytes> {
    crate::init().ok()?;
    let description: Vec<&str> =
        DESCRIPTION.lines().filter(|line| !line.starts_with('#')).collect();
    let pipeline = gst::parse::launch(&description.join(" "))
        .inspect_err(|error| tracing::debug!(%error, "no small pictures can be made"))
        .ok()?
        .downcast::<gst::Pipeline>()
        .ok()?;
    let made = run(&pipeline, config, keyframe);
    // NULL always succeeds for these elements, and frees them.
    let _ = pipeline.set_state(gst::State::Null);
    made
}

fn run(pipeline: &gst::Pipeline, config: Bytes, keyframe: Bytes) -> Option<Bytes> {
    let source = pipeline.by_name("in")?.downcast::<gst_app::AppSrc>().ok()?;
    let sink = pipeline.by_name("out")?.downcast::<gst_app::AppSink>().ok()?;
    let caps = gst::Caps::builder("video/x-h264")
        .field("stream-format", "avc")
        .field("alignment", "au")
        .field("codec_data", gst::Buffer::from_slice(config))
        .build();
    source.set_caps(Some(&caps));
    pipeline.set_state(gst::State::Playing).ok()?;
    source.push_buffer(gst::Buffer::from_slice(keyframe)).ok()?;
    source.end_of_stream().ok()?;
    let sample = sink.try_pull_sample(MAKE_MAX)?;
    let picture = sample.buffer_owned()?.into_mapped_buffer_readable().ok()?;
    Some(Bytes::copy_from_slice(&picture))
}
