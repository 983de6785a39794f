//! GStreamer for Astral: media goes in or comes out as the bytes of an FLV stream.
//!
//! Owns every line that links GStreamer: capture ([`Capture`]), play ([`Player`]), the devices there
//! are ([`devices`]) and the pipeline descriptions beside `src/`. Knows nothing of networks, chunks or
//! streams, and never parses more of FLV than its first three bytes.
//!
//! Nothing here needs an async runtime: each [`Capture`] and each [`Player`] is watched by one thread of
//! its own, and what they report travels over bounded [`tokio::sync::mpsc`] channels. `start` and
//! [`devices`] load plugins and open hardware: they block for up to some seconds, so call them where
//! blocking is allowed.

mod bus;
mod capture;
mod convert;
mod description;
mod device;
mod encoder;
mod error;
mod inventory;
mod microphone;
mod mode;
mod outlet;
mod packages;
mod picture;
mod play;
mod remux;
mod shelf;

use std::sync::OnceLock;

use gst::prelude::*;
use gstreamer as gst;

pub use capture::{AUDIO_KBPS, Capture, CaptureEvent, CaptureSource, CaptureSpec, RenditionSpec};
pub use convert::{ConvertError, OpusToAac, Sound};
pub use device::{Device, DeviceKind, devices};
pub use encoder::Encoder;
pub use error::{CaptureError, InitError, PlayError};
pub use inventory::{Missing, Purpose, inventory};
pub use microphone::Mic;
pub use picture::{PictureCoding, jpeg};
pub use play::{KEYS, PlaySink, PlaySpec, PlayStats, Player, PlayerEvent, PlayerInput};
pub use remux::{Container, ToFlv};

/// Starts GStreamer once for the process; later calls return the first one's result.
///
/// Every entry point of this crate calls it, so a caller needs it only to fail early.
///
/// # Errors
/// When GStreamer itself can't start, with its own words.
pub fn init() -> Result<(), InitError> {
    static STARTED: OnceLock<Result<(), InitError>> = OnceLock::new();
    STARTED.get_or_init(start_gstreamer).clone()
}

fn start_gstreamer() -> Result<(), InitError> {
    gst::init().map_err(|error| InitError { message: error.to_string() })?;
    // autovideosink tries DirectFB where there is no display, and DirectFB brings the process down.
    if let Some(feature) = gst::Registry::get().lookup_feature("dfbvideosink") {
        feature.set_rank(gst::Rank::NONE);
    }
    Ok(())
}
