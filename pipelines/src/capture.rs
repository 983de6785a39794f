//! Capture: a camera, a screen, a file, a test picture or a user's own pipeline as an FLV byte stream.
//!
//! Owns the public types and the life of a capture. How a pipeline is put together is `capture/plan.rs`,
//! what happens while it runs is `capture/watch.rs`.

mod file;
mod plan;
mod spec;
mod tap;
mod watch;

use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::error::CaptureError;
use crate::outlet::{Outlet, Shutter};

pub use spec::{AUDIO_KBPS, CaptureSource, CaptureSpec, RenditionSpec};

/// How many events wait for a slow receiver: about three seconds of 30 pictures and 47 pieces of sound.
/// When they are full the pipeline waits, and raw pictures are dropped in front of the encoder.
const EVENTS_MAX: usize = 256;

/// What a capture delivers, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaptureEvent {
    /// The next piece of the FLV byte stream; the first begins with `FLV`.
    Bytes(Bytes),
    /// The same of a lower rendition.
    Rendition {
        /// Which one, as the spec lists them; the first is 0.
        number: usize,
        /// A new FLV byte stream begins with these bytes, timestamps at zero.
        begins: bool,
        /// The bytes.
        bytes: Bytes,
    },
    /// A new FLV byte stream begins with the next [`CaptureEvent::Bytes`], timestamps at zero: the file
    /// began anew, the device is back, or the capture goes on without its microphone.
    Restarted,
    /// Something is wrong and the capture goes on. Dropped when the channel is full.
    Warning(String),
    /// The camera, screen or microphone is gone. It is looked for until it is back, which
    /// [`CaptureEvent::Restarted`] says, or the capture is stopped.
    DeviceLost {
        /// Which one, and GStreamer's words.
        message: String,
    },
    /// The capture can't go on; the last event.
    Failed(String),
    /// The capture came to its end: [`Capture::stop`], or a description that ends by itself; the last event.
    Ended,
}

/// A running capture. Dropping it stops the pipeline at once, which may cut the last tag off.
#[derive(Debug)]
pub struct Capture {
    control: Arc<watch::Control>,
    shutter: Shutter,
    thread: Option<JoinHandle<()>>,
    encoder_name: String,
    has_rate: bool,
    description: String,
}

impl Capture {
    /// Starts to capture. Blocks while plugins load, the encoder is tried out and devices open: usually
    /// well under a second, at most some seconds.
    ///
    /// The receiver ends after [`CaptureEvent::Failed`] or [`CaptureEvent::Ended`]; dropping it ends the
    /// capture. Read it without long pauses: when it is full, pictures are dropped before they are encoded.
    ///
    /// # Errors
    /// When a value is out of range, an element or device is missing, a description or file is wrong, or
    /// the pipeline refuses to start.
    pub fn start(spec: &CaptureSpec) -> Result<(Self, mpsc::Receiver<CaptureEvent>), CaptureError> {
        crate::init()?;
        spec.check()?;
        let plan = plan::Plan::make(spec)?;
        let (outlet, shutter, events) = Outlet::new(EVENTS_MAX);
        let (encoder_name, has_rate) = (plan.encoder_name.clone(), plan.rate.is_some());
        let watch = watch::Watch::start(plan, outlet)?;
        let description = watch.description().to_owned();
        let control = watch.control();
        let thread = std::thread::Builder::new()
            .name("astral-capture".to_owned())
            .spawn(move || watch.run())
            .map_err(|error| CaptureError::State { message: format!("no thread: {error}") })?;
        Ok((
            Self { control, shutter, thread: Some(thread), encoder_name, has_rate, description },
            events,
        ))
    }

    /// Ends the stream after what was captured so far; [`CaptureEvent::Ended`] follows within two seconds
    /// as long as the receiver is read. Returns at once.
    pub fn stop(&self) {
        self.control.request(watch::Phase::Stopping);
    }

    /// The factory name of the video encoder, such as `x264enc`; `none` when the file's own H.264 is sent,
    /// and `own` when the user's description brings its encoder.
    pub fn encoder_name(&self) -> &str {
        &self.encoder_name
    }

    /// Whether there is an encoder of ours, whose rate [`Self::set_video_bitrate`] changes.
    pub const fn can_change_bitrate(&self) -> bool {
        self.has_rate
    }

    /// Changes the rate of the picture, in kbit/s, while it runs; the encoder follows within some
    /// pictures. False when the encoder does not take it.
    pub fn set_video_bitrate(&self, kbps: u32) -> bool {
        self.control.set_rate(kbps)
    }

    /// The pipeline as it was started, in the syntax of `gst-launch-1.0`. Devices are set on its named
    /// elements afterwards and don't show.
    pub fn description(&self) -> &str {
        &self.description
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.shutter.shut();
        self.control.request(watch::Phase::Aborting);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that watched a capture panicked");
        }
    }
}
