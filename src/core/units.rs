//! Bit rates and data sizes, so that bits and bytes are never mixed up.
//!
//! Owns the unit newtypes and their text forms (`20Mbit`, `150KB/s`). Does not own durations: those
//! are `std::time::Duration`.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A rate in bits per second.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Bitrate(u64);

impl Bitrate {
    /// No bits at all.
    pub const ZERO: Self = Self(0);

    /// `bps` bits per second.
    #[must_use]
    pub const fn from_bps(bps: u64) -> Self {
        Self(bps)
    }

    /// `kbps` thousand bits per second.
    #[must_use]
    pub const fn from_kbps(kbps: u64) -> Self {
        Self(kbps.saturating_mul(1_000))
    }

    /// `mbps` million bits per second.
    #[must_use]
    pub const fn from_mbps(mbps: u64) -> Self {
        Self(mbps.saturating_mul(1_000_000))
    }

    /// Bits per second.
    #[must_use]
    pub const fn as_bps(self) -> u64 {
        self.0
    }

    /// Whole bytes that pass in `time`.
    #[must_use]
    pub fn bytes_in(self, time: Duration) -> u64 {
        let bits = u128::from(self.0) * time.as_micros() / 1_000_000;
        u64::try_from(bits / 8).unwrap_or(u64::MAX)
    }

    /// How long `bytes` take at this rate; [`Duration::MAX`] at rate zero.
    #[must_use]
    pub fn time_for(self, bytes: u64) -> Duration {
        if self.0 == 0 {
            return Duration::MAX;
        }
        let us = u128::from(bytes) * 8 * 1_000_000 / u128::from(self.0);
        Duration::from_micros(u64::try_from(us).unwrap_or(u64::MAX))
    }

    /// This rate scaled by `percent` hundredths.
    #[must_use]
    pub const fn percent(self, percent: u64) -> Self {
        Self(self.0 / 100 * percent + self.0 % 100 * percent / 100)
    }
}

impl fmt::Display for Bitrate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, unit) = match self.0 {
            0..1_000 => return write!(f, "{} bit/s", self.0),
            1_000..1_000_000 => (1_000, "kbit/s"),
            _ => (1_000_000, "Mbit/s"),
        };
        let tenths = self.0 * 10 / whole;
        match tenths % 10 {
            0 => write!(f, "{} {unit}", tenths / 10),
            rest => write!(f, "{}.{rest} {unit}", tenths / 10),
        }
    }
}

impl fmt::Debug for Bitrate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Bitrate {
    type Err = BitrateError;

    /// Reads `20Mbit`, `750kbit/s`, `1.5M`, `150KB/s`, `800000`: decimal prefixes, bits unless the
    /// unit has a capital `B` (bytes).
    fn from_str(text: &str) -> Result<Self, BitrateError> {
        let wrong = || BitrateError { text: text.chars().take(40).collect() };
        let trimmed = text.trim();
        let split =
            trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(split);
        let unit = unit.trim().trim_end_matches("/s").trim_end_matches("ps");
        let (scale, rest) = match unit.chars().next() {
            Some('k' | 'K') => (1_000, &unit[1..]),
            Some('m' | 'M') => (1_000_000, &unit[1..]),
            Some('g' | 'G') => (1_000_000_000, &unit[1..]),
            _ => (1, unit),
        };
        let bits_each = match rest {
            "" | "b" | "bit" | "bits" => 1,
            "B" | "byte" | "bytes" => 8,
            _ => return Err(wrong()),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| wrong())? };
        if number.is_empty() || number == "." || fraction.len() > 9 {
            return Err(wrong());
        }
        let unit_bps: u64 = scale * bits_each;
        let part: u64 =
            if fraction.is_empty() { 0 } else { fraction.parse().map_err(|_| wrong())? };
        let divisor = 10_u64.pow(u32::try_from(fraction.len()).map_err(|_| wrong())?);
        let part_bps = u128::from(part) * u128::from(unit_bps) / u128::from(divisor);
        let part_bps = u64::try_from(part_bps).map_err(|_| wrong())?;
        whole
            .checked_mul(unit_bps)
            .and_then(|w| w.checked_add(part_bps))
            .map(Self)
            .ok_or_else(wrong)
    }
}

impl Serialize for Bitrate {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for Bitrate {
    /// A number of bits per second, or a text such as `20Mbit`.
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Either;
        impl de::Visitor<'_> for Either {
            type Value = Bitrate;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bits per second, as a number or as text such as \"20Mbit\"")
            }

            fn visit_u64<E: de::Error>(self, bps: u64) -> Result<Bitrate, E> {
                Ok(Bitrate(bps))
            }

            fn visit_i64<E: de::Error>(self, bps: i64) -> Result<Bitrate, E> {
                u64::try_from(bps).map(Bitrate).map_err(|_| E::custom("a rate is not negative"))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Bitrate, E> {
                text.parse().map_err(E::custom)
            }
        }
        if d.is_human_readable() { d.deserialize_any(Either) } else { d.deserialize_u64(Either) }
    }
}

/// A text that is no bit rate.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("'{text}' is no bit rate: write for example 20Mbit, 750kbit or 150KB/s")]
pub struct BitrateError {
    text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_people_write_them() {
        for (text, bps) in [
            ("20Mbit", 20_000_000),
            ("750kbit/s", 750_000),
            ("1.5M", 1_500_000),
            ("150KB/s", 1_200_000),
            ("800000", 800_000),
            ("6Mbps", 6_000_000),
        ] {
            assert_eq!(text.parse::<Bitrate>().unwrap().as_bps(), bps, "{text}");
        }
        for text in ["", "fast", "-1Mbit", "1.2.3M", "20Mfoo", "99999999999999999999M"] {
            assert!(text.parse::<Bitrate>().is_err(), "{text}");
        }
    }

    #[test]
    fn bytes_and_time_invert_each_other() {
        let rate = Bitrate::from_mbps(4);
        assert_eq!(rate.bytes_in(Duration::from_secs(1)), 500_000);
        assert_eq!(rate.time_for(500_000), Duration::from_secs(1));
        assert_eq!(Bitrate::ZERO.time_for(1), Duration::MAX);
    }

    #[test]
    fn a_rate_prints_with_its_unit() {
        assert_eq!(Bitrate::from_bps(2_540_000).to_string(), "2.5 Mbit/s");
        assert_eq!(Bitrate::from_kbps(750).to_string(), "750 kbit/s");
    }
}
