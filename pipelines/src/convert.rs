//! Opus in, AAC out: sound that a browser coded, for players that know AAC alone.
//!
//! Owns one small pipeline. Doesn't own envelopes: packets and frames come and go bare. Decoding and
//! coding take about half a millisecond a packet.

use std::sync::Arc;

use bytes::Bytes;
use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app as gst_app;
use tokio::sync::mpsc;

use crate::error::InitError;
use crate::outlet::{Outlet, Shutter};

const DESCRIPTION: &str = include_str!("../convert/opus-aac.launch");
/// Frames that wait for the receiver; then the pipeline waits.
const SOUNDS_QUEUED_MAX: usize = 64;

/// What comes out of an [`OpusToAac`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sound {
    /// The AudioSpecificConfig, before the first frame and when it changes.
    Config(Bytes),
    /// An AAC frame of 1,024 samples at 48,000 a second.
    Frame {
        /// Its time on the clock of the packets, in milliseconds.
        at_ms: u64,
        /// The frame.
        data: Bytes,
    },
}

/// The converter didn't start.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// GStreamer itself can't start.
    #[error(transparent)]
    Init(#[from] InitError),
    /// An element is missing or can't run.
    #[error(
        "what a browser coded can't be converted: {message}; `astral doctor` says what GStreamer lacks"
    )]
    Start {
        /// GStreamer's words.
        message: String,
    },
}

/// A running converter. Dropping it ends it.
#[derive(Debug)]
pub struct OpusToAac {
    pipeline: gst::Pipeline,
    source: gst_app::AppSrc,
    shutter: Shutter,
}

impl OpusToAac {
    /// Starts a converter of packets with `channels` (1 or 2). Blocks while plugins load.
    ///
    /// # Errors
    /// [`ConvertError`].
    pub fn start(channels: u8) -> Result<(Self, mpsc::Receiver<Sound>), ConvertError> {
        let (pipeline, source, sink) = parts(DESCRIPTION)?;
        let caps = gst::Caps::builder("audio/x-opus")
            .field("rate", 48_000)
            .field("channels", i32::from(channels.clamp(1, 2)))
            .field("channel-mapping-family", 0)
            .build();
        source.set_caps(Some(&caps));
        let (outlet, shutter, sounds) = Outlet::new(SOUNDS_QUEUED_MAX);
        let outlet = Arc::new(outlet);
        let mut config = None;
        let callbacks = gst_app::AppSinkCallbacks::builder()
            .new_sample(move |sink| {
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                for sound in sounds_of(&sample, &mut config) {
                    outlet.send(sound).map_err(|_| gst::FlowError::Eos)?;
                }
                Ok(gst::FlowSuccess::Ok)
            })
            .build();
        sink.set_callbacks(callbacks);
        let converter = Self { pipeline, source, shutter };
        let started = converter.pipeline.set_state(gst::State::Playing);
        started.map_err(|error| ConvertError::Start { message: error.to_string() })?;
        Ok((converter, sounds))
    }

    /// Takes the next packet with its time. False when the converter failed or is a mebibyte behind:
    /// the packet is left out.
    #[must_use]
    pub fn push(&self, at_ms: u64, packet: Bytes) -> bool {
        if self.source.current_level_bytes() >= self.source.max_bytes() {
            return false;
        }
        let mut buffer = gst::Buffer::from_slice(packet);
        if let Some(buffer) = buffer.get_mut() {
            buffer.set_pts(gst::ClockTime::from_mseconds(at_ms));
        }
        self.source.push_buffer(buffer).is_ok()
    }
}

impl Drop for OpusToAac {
    fn drop(&mut self) {
        // Frees a streaming thread that waits for room; it would hold the pipeline up.
        self.shutter.shut();
        if self.pipeline.set_state(gst::State::Null).is_err() {
            tracing::debug!("a sound converter did not stop in order");
        }
    }
}

/// The pipeline of a shipped description, in state NULL, with its two ends.
pub(crate) fn parts(
    description: &str,
) -> Result<(gst::Pipeline, gst_app::AppSrc, gst_app::AppSink), ConvertError> {
    crate::init()?;
    let failed = |message: String| ConvertError::Start { message };
    let lines: Vec<&str> = description.lines().filter(|line| !line.starts_with('#')).collect();
    let element = gst::parse::launch(&lines.join(" "));
    let element = element.map_err(|error| failed(error.to_string()))?;
    let pipeline = element
        .downcast::<gst::Pipeline>()
        .map_err(|_| failed("its description is no pipeline".to_owned()))?;
    let source = pipeline.by_name("in").and_then(|e| e.downcast::<gst_app::AppSrc>().ok());
    let sink = pipeline.by_name("out").and_then(|e| e.downcast::<gst_app::AppSink>().ok());
    let (Some(source), Some(sink)) = (source, sink) else {
        return Err(failed("its description has no `in` or no `out`".to_owned()));
    };
    Ok((pipeline, source, sink))
}

/// What a sample is: its frame, and before it a configuration that is new.
fn sounds_of(sample: &gst::Sample, config: &mut Option<Bytes>) -> Vec<Sound> {
    let mut sounds = Vec::new();
    let told = sample.caps().and_then(|caps| {
        let data = caps.structure(0)?.get::<gst::Buffer>("codec_data").ok()?;
        let data = data.map_readable().ok()?;
        Some(Bytes::copy_from_slice(&data))
    });
    if told.is_some() && *config != told {
        sounds.extend(told.clone().map(Sound::Config));
        *config = told;
    }
    let frame = sample.buffer().and_then(|buffer| {
        let at_ms = buffer.pts()?.mseconds();
        let data = buffer.map_readable().ok()?;
        Some(Sound::Frame { at_ms, data: Bytes::copy_from_slice(&data) })
    });
    sounds.extend(frame);
    sounds
}
