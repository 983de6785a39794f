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

/// How a picture is coded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PictureCoding {
    /// H.264, with an `avcC`.
    H264,
    /// H.265, with an `hvcC`.
    Hevc,
    /// AV1, with an `av1C`.
    Av1,
    /// VP9, whose `vpcC` no decoder needs.
    Vp9,
}

impl PictureCoding {
    /// Parser and decoder.
    const fn decoder(self) -> &'static str {
        match self {
            Self::H264 => "h264parse ! avdec_h264 max-threads=1",
            Self::Hevc => "h265parse ! avdec_h265 max-threads=1",
            Self::Av1 => "av1parse ! av1dec",
            Self::Vp9 => "vp9dec",
        }
    }

    fn caps(self, config: Bytes) -> gst::Caps {
        let framed = |kind: &str, format: &str, alignment: &str| {
            gst::Caps::builder(kind)
                .field("stream-format", format)
                .field("alignment", alignment)
                .field("codec_data", gst::Buffer::from_slice(config))
                .build()
        };
        match self {
            Self::H264 => framed("video/x-h264", "avc", "au"),
            Self::Hevc => framed("video/x-h265", "hvc1", "au"),
            Self::Av1 => framed("video/x-av1", "obu-stream", "tu"),
            Self::Vp9 => gst::Caps::new_empty_simple("video/x-vp9"),
        }
    }
}

/// A JPEG of 320 x 180 pixels from a decoder configuration and a keyframe, as MP4 and FLV have them; bars
/// where the picture has another shape. `None` when an element is missing or the picture can't be
/// decoded. Blocks, as a rule some tens of milliseconds.
#[must_use]
pub fn jpeg(coding: PictureCoding, config: Bytes, keyframe: Bytes) -> Option<Bytes> {
    crate::init().ok()?;
    let description: Vec<&str> =
        DESCRIPTION.lines().filter(|line| !line.starts_with('#')).collect();
    let description = description.join(" ").replace("{decoder}", coding.decoder());
    let pipeline = gst::parse::launch(&description)
        .inspect_err(|error| tracing::debug!(%error, "no small pictures can be made"))
        .ok()?
        .downcast::<gst::Pipeline>()
        .ok()?;
    let made = run(&pipeline, &coding.caps(config), keyframe);
    // NULL always succeeds for these elements, and frees them.
    let _ = pipeline.set_state(gst::State::Null);
    made
}

fn run(pipeline: &gst::Pipeline, caps: &gst::Caps, keyframe: Bytes) -> Option<Bytes> {
    let source = pipeline.by_name("in")?.downcast::<gst_app::AppSrc>().ok()?;
    let sink = pipeline.by_name("out")?.downcast::<gst_app::AppSink>().ok()?;
    source.set_caps(Some(caps));
    pipeline.set_state(gst::State::Playing).ok()?;
    source.push_buffer(gst::Buffer::from_slice(keyframe)).ok()?;
    source.end_of_stream().ok()?;
    let sample = sink.try_pull_sample(MAKE_MAX)?;
    let picture = sample.buffer_owned()?.into_mapped_buffer_readable().ok()?;
    Some(Bytes::copy_from_slice(&picture))
}
