//! Matroska, WebM and MP4 in, FLV out: what a browser without WebCodecs records.
//!
//! Owns one small pipeline. H.264 passes as it is, VP8 is coded anew, sound becomes AAC. Doesn't own what
//! the bytes come over. The containers are read by GStreamer's demuxers alone, and end here: from FLV on,
//! everything is checked as what encoders send.

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
const MP4: &str = include_str!("../convert/mp4-flv.launch");
/// Pieces of FLV that wait for the receiver; then the pipeline waits.
const PIECES_QUEUED_MAX: usize = 256;

/// What a browser records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// H.264 and Opus in Matroska: Chromium.
    Matroska,
    /// VP8 and Opus in WebM: Firefox.
    Webm,
    /// H.264 and AAC or Opus in fragmented MP4: Safari. A fragment takes about a second.
    Mp4,
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
            Container::Mp4 => MP4,
        })?;
        leave_out_what_is_absent(&pipeline);
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
        // Where a demuxer fails, the source goes on taking bytes: the bus alone says it.
        let failure =
            self.pipeline.bus().and_then(|bus| bus.pop_filtered(&[gst::MessageType::Error]));
        if let Some(gst::MessageView::Error(failure)) = failure.as_ref().map(|one| one.view()) {
            tracing::debug!(error = %failure.error(), "a recording can't be converted");
            return false;
        }
        if self.source.current_level_bytes() >= self.source.max_bytes() {
            return false;
        }
        self.source.push_buffer(gst::Buffer::from_slice(bytes)).is_ok()
    }
}

/// Once the demuxer knows its tracks, the muxer waits for those alone: a recording may have no sound.
fn leave_out_what_is_absent(pipeline: &gst::Pipeline) {
    let (Some(demuxer), Some(muxer)) = (pipeline.by_name("d"), pipeline.by_name("mux")) else {
        return;
    };
    let branches = [("video", "picture"), ("audio", "sound")];
    let branches = branches.map(|(kind, last)| (kind, pipeline.by_name(last)));
    demuxer.connect_no_more_pads(move |demuxer| {
        for (kind, last) in &branches {
            let is_there = demuxer.src_pads().iter().any(|pad| pad.name().starts_with(kind));
            let from = last.as_ref().and_then(|last| last.static_pad("src"));
            let Some((from, to)) = from.and_then(|from| from.peer().map(|to| (from, to))) else {
                continue;
            };
            if !is_there && from.unlink(&to).is_ok() {
                muxer.release_request_pad(&to);
            }
        }
    });
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
