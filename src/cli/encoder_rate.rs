//! The rate of an encoder of ours, which follows what its stream can carry.
//!
//! Owns when the encoder is told. Does not own what the rate should be (`node`) nor how an encoder takes it
//! (`astral_pipelines`).

use astral_core::units::Bitrate;
use astral_pipelines::Capture;

/// What the encoder was told last.
#[derive(Debug)]
pub struct EncoderRate(Option<Bitrate>);

impl EncoderRate {
    /// Of an encoder that was opened with `rate`; `None` when it keeps its own.
    pub const fn new(rate: Option<Bitrate>) -> Self {
        Self(rate)
    }

    /// Tells the encoder of `capture`, when what is `wanted` of it changed.
    pub fn follow(&mut self, wanted: Option<Bitrate>, capture: &Capture) {
        if self.0 == wanted {
            return;
        }
        let Some(rate) = wanted else { return };
        self.0 = wanted;
        if !capture.set_video_bitrate(kbps(rate)) {
            tracing::warn!("the encoder does not take {rate}: its rate stays");
        }
    }
}

/// As encoders take a rate: in kbit/s, 1 at least.
pub fn kbps(rate: Bitrate) -> u32 {
    u32::try_from(rate.as_bps() / 1_000).unwrap_or(u32::MAX).max(1)
}
