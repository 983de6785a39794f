//! The picture that `publish` encodes, as flags and settings files write it.
//!
//! Owns its three settings, their bounds and defaults. Does not own the encoder's own checks.

use std::str::FromStr;

use astral_core::units::Bitrate;
use clap::Args;
use serde::{Deserialize, Deserializer, de::Error};

/// Longest side, in pixels; encoders refuse more.
const SIDE_MAX: u32 = 8_192;
/// Shortest side, in pixels.
const SIDE_MIN: u32 = 16;
/// Most pictures a second.
const FPS_MAX: u32 = 240;
/// Least and most of the picture's rate, in bit/s: what the encoders take.
const BPS_MIN: u64 = 16_000;
const BPS_MAX: u64 = 200_000_000;

/// What is asked for; what is not is as the defaults say.
#[derive(Args, Clone, Copy, PartialEq, Eq, Debug, Default)]
#[command(next_help_heading = "Picture")]
pub struct Picture {
    /// Picture size [default: 1280x720]
    #[arg(long, value_name = "WxH")]
    pub size: Option<Size>,
    /// Pictures a second [default: 30]
    #[arg(long, value_name = "N")]
    pub fps: Option<Fps>,
    /// Bits a second of the picture [default: 2500kbit]
    #[arg(long, value_name = "RATE")]
    pub bitrate: Option<PictureRate>,
}

impl Picture {
    /// With what `other` says where this says nothing.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            size: self.size.or(other.size),
            fps: self.fps.or(other.fps),
            bitrate: self.bitrate.or(other.bitrate),
        }
    }

    /// Width and height, in pixels.
    #[must_use]
    pub fn size(self) -> (u32, u32) {
        self.size.map_or((1_280, 720), |Size { width, height }| (width, height))
    }

    /// Pictures a second.
    #[must_use]
    pub fn fps(self) -> u32 {
        self.fps.map_or(30, |fps| fps.0)
    }

    /// Rate of the picture.
    #[must_use]
    pub fn bitrate(self) -> Bitrate {
        self.bitrate.map_or(Bitrate::from_kbps(2_500), |rate| rate.0)
    }
}

/// A picture's size: two even numbers of pixels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size {
    width: u32,
    height: u32,
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let side = |side: &str| {
            let number: u32 = side.parse().ok()?;
            let fits = (SIDE_MIN..=SIDE_MAX).contains(&number) && number.is_multiple_of(2);
            fits.then_some(number)
        };
        text.split_once('x')
            .and_then(|(width, height)| Some(Self { width: side(width)?, height: side(height)? }))
            .ok_or_else(|| {
                format!("write it as 1280x720: two even numbers from {SIDE_MIN} to {SIDE_MAX}")
            })
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

/// Pictures a second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fps(u32);

impl Fps {
    fn new(number: u32) -> Result<Self, String> {
        let fits = (1..=FPS_MAX).contains(&number);
        fits.then_some(Self(number)).ok_or_else(|| format!("a number from 1 to {FPS_MAX}"))
    }
}

impl FromStr for Fps {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::new(text.parse().unwrap_or(0))
    }
}

impl<'de> Deserialize<'de> for Fps {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::new(u32::deserialize(d)?).map_err(D::Error::custom)
    }
}

/// Rate of a picture, within what encoders take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PictureRate(Bitrate);

impl FromStr for PictureRate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rate: Bitrate = text.parse().map_err(|e| format!("{e}"))?;
        let fits = (BPS_MIN..=BPS_MAX).contains(&rate.as_bps());
        fits.then_some(Self(rate)).ok_or_else(|| "a rate from 16kbit to 200Mbit".to_owned())
    }
}

impl<'de> Deserialize<'de> for PictureRate {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_two_even_numbers() {
        let size = "1280x720".parse().ok();
        assert_eq!(Picture { size, ..Picture::default() }.size(), (1_280, 720));
        for wrong in ["1280", "0x0", "13x7", "1280x", "99999x2"] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_rate_that_no_encoder_takes_is_refused_with_the_rates_that_they_take() {
        for wrong in ["0", "1", "15kbit", "300Mbit"] {
            let said = wrong.parse::<PictureRate>().unwrap_err();
            assert!(said.contains("16kbit"), "{wrong}: {said}");
        }
        assert!(
            "16kbit".parse::<PictureRate>().is_ok() && "200Mbit".parse::<PictureRate>().is_ok()
        );
        assert!("0".parse::<Fps>().is_err() && "241".parse::<Fps>().is_err());
    }
}
