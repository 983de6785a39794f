//! Matroska and WebM in, FLV out: what a browser without WebCodecs records.
//!
//! Owns one small pipeline. H.264 passes as it is, VP8 is coded anew, Opus becomes AAC. Doesn't own what
//! the bytes come over.

use std::sync::Arc;

use bytes::Bytes;
use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app as gst_app;
use tokio::sync::mpsc;

use crate::convert::{ConvertError, parts};
use crate::outlet::{Outlet, Shutter};

const MATROSKA: &str = include_str!("../convert/matroska-flv.launch");
const WEBM: &str = include_str!("../convert/webm-flv.launch");
/// Pieces of FLV that wait for the receiver; then the pipeline waits.
const PIECES_QUEUED_MAX: usize = 256;

/// What a browser records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// H.264 and Opus in Matroska: Chromium.
    Matroska,
    /// VP8 and Opus in WebM: Firefox.
    Webm,
}

/// A running converter. Dropping it ends it.
#[derive(Debug)]
pub struct ToFlv {
    pipeline: gst::Pipeline,
    source: gst_app::AppSrc,
    shutter: Shutter,
}

impl ToFlv {
    /// Starts a converter; the receiver gets one FLV byte stream, cut anywhere. Blocks while plugins
    /// load.
    ///
    /// # Errors
    /// [`ConvertError`].
    pub fn start(container: Container) -> Result<(Self, mpsc::Receiver<Bytes>), ConvertError> {
        let (pipeline, source, sink) = parts(match container {
            Container::Matroska => MATROSKA,
            Container::Webm => WEBM,
        })?;
        let (outlet, shutter, pieces) = Outlet::new(PIECES_QUEUED_MAX);
        let outlet = Arc::new(outlet);
        let callbacks = gst_app::AppSinkCallbacks::builder()
            .new_sample(move |sink| {
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                let buffer = sample.buffer_owned().ok_or(gst::FlowError::Error)?;
                let piece = buffer.into_mapped_buffer_readable();
                let piece = piece.map_err(|_| gst::FlowError::Error)?;
                outlet.send(Bytes::from_owner(piece)).map_err(|_| gst::FlowError::Eos)?;
                Ok(gst::FlowSuccess::Ok)
            })
            .build();
        sink.set_callbacks(callbacks);
        let converter = Self { pipeline, source, shutter };
        converter
            .pipeline
            .set_state(gst::State::Playing)
            .map_err(|error| ConvertError::Start { message: error.to_string() })?;
        Ok((converter, pieces))
    }

    /// Takes the next bytes, cut anywhere. False when the converter failed or is 8 MiB behind: nothing
    /// more makes sense then.
    #[must_use]
    pub fn push(&self, bytes: Bytes) -> bool {
        if self.source.current_level_bytes() >= self.source.max_bytes() {
            return false;
        }
        self.source.push_buffer(gst::Buffer::from_slice(bytes)).is_ok()
    }
}

impl Drop for ToFlv {
    fn drop(&mut self) {
        // GStreamer's thread may wait for room in the channel.
        self.shutter.shut();
        if self.pipeline.set_state(gst::State::Null).is_err() {
            tracing::warn!("a converter didn't stop cleanly");
        }
    }
}
