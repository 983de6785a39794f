//! The appsink at the end of a capture pipeline: FLV pieces into the event channel.
//!
//! Doesn't own the FLV stream: looks at its first three bytes only, so that a description that delivers
//! something else is told at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app as gst_app;

use super::CaptureEvent;
use crate::outlet::Outlet;

/// What every FLV byte stream begins with.
const FLV_MAGIC: &[u8] = b"FLV";

/// The name of the appsink that every capture description must have.
pub(crate) const OUT: &str = "out";

/// Why a pipeline has no end to take bytes from.
pub(crate) const NO_OUT: &str = "it has no element `appsink name=out`; let it end in: flvmux streamable=true ! appsink name=out";

/// What the first bytes of a pipeline are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Begin {
    /// The capture's first.
    First,
    /// A new byte stream, which is told before them: [`CaptureEvent::Restarted`].
    Anew,
}

/// Counts what one pipeline delivered.
#[derive(Debug, Default)]
pub(crate) struct Delivered {
    bytes: AtomicU64,
}

impl Delivered {
    /// True when the pipeline delivered nothing so far.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) == 0
    }
}

/// Sends what the appsink `out` of `pipeline` gets to `outlet`; `None` when there is no such appsink.
pub(crate) fn connect(
    pipeline: &gst::Pipeline,
    outlet: &Arc<Outlet<CaptureEvent>>,
    begin: Begin,
) -> Option<Arc<Delivered>> {
    let sink = pipeline.by_name(OUT)?.downcast::<gst_app::AppSink>().ok()?;
    let delivered = Arc::new(Delivered::default());
    connect_renditions(pipeline, outlet);
    let (outlet, counter) = (Arc::clone(outlet), Arc::clone(&delivered));
    let callbacks = gst_app::AppSinkCallbacks::builder()
        .new_sample(move |sink| deliver(sink, &outlet, &counter, begin))
        .build();
    sink.set_callbacks(callbacks);
    Some(delivered)
}

/// Sends what the appsinks of lower renditions get, as many as there are.
fn connect_renditions(pipeline: &gst::Pipeline, outlet: &Arc<Outlet<CaptureEvent>>) {
    for number in 0.. {
        let named = pipeline.by_name(&format!("{OUT}{}", number + 1));
        let sink = named.and_then(|sink| sink.downcast::<gst_app::AppSink>().ok());
        let Some(sink) = sink else { return };
        let (outlet, mut begins) = (Arc::clone(outlet), true);
        let callbacks = gst_app::AppSinkCallbacks::builder()
            .new_sample(move |sink| {
                let Some(bytes) = piece(sink)? else { return Ok(gst::FlowSuccess::Ok) };
                let begins = std::mem::take(&mut begins);
                let event = CaptureEvent::Rendition { number, begins, bytes };
                outlet.send(event).map_err(|_| gst::FlowError::Eos)?;
                Ok(gst::FlowSuccess::Ok)
            })
            .build();
        sink.set_callbacks(callbacks);
    }
}

/// The next piece that `sink` got; `None` for an empty one.
fn piece(sink: &gst_app::AppSink) -> Result<Option<Bytes>, gst::FlowError> {
    let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
    let Some(buffer) = sample.buffer_owned() else { return Ok(None) };
    let Ok(piece) = buffer.into_mapped_buffer_readable() else {
        gst::element_error!(sink, gst::ResourceError::Read, ["a buffer can't be read"]);
        return Err(gst::FlowError::Error);
    };
    Ok((!piece.is_empty()).then(|| Bytes::from_owner(piece)))
}

fn deliver(
    sink: &gst_app::AppSink,
    outlet: &Outlet<CaptureEvent>,
    delivered: &Delivered,
    begin: Begin,
) -> Result<gst::FlowSuccess, gst::FlowError> {
    let Some(piece) = piece(sink)? else { return Ok(gst::FlowSuccess::Ok) };
    if delivered.is_empty() && !piece.starts_with(FLV_MAGIC) {
        gst::element_error!(
            sink,
            gst::StreamError::Format,
            [
                "the pipeline doesn't deliver FLV; put `flvmux streamable=true` in front of `appsink name=out`"
            ]
        );
        return Err(gst::FlowError::Error);
    }
    if delivered.is_empty() && begin == Begin::Anew {
        outlet.send(CaptureEvent::Restarted).map_err(|_| gst::FlowError::Eos)?;
    }
    delivered.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
    outlet.send(CaptureEvent::Bytes(piece)).map_err(|_| gst::FlowError::Eos)?;
    Ok(gst::FlowSuccess::Ok)
}
