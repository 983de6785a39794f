//! The settings that change while the node runs.
//!
//! Owns their JSON and what a patch means. Does not own the limits.

use astral_core::units::Bitrate;
use serde::{Deserialize, Deserializer, Serialize, de};
use utoipa::ToSchema;

use crate::api::port::Limits;

/// Highest uplink that can be set.
const UPLINK_MAX: Bitrate = Bitrate::from_bps(i64::MAX.unsigned_abs());

/// Most copies that can be set.
const COPIES_MAX: u32 = i32::MAX.unsigned_abs();

/// `GET /settings`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct SettingsDto {
    /// Counts the changes since the node started; also the `ETag`.
    pub revision: u64,
    /// Upload ceiling; null is measured.
    pub uplink_bps: Option<u64>,
    /// Copies of one stream forwarded at most; null is no limit but the uplink.
    pub max_copies: Option<u32>,
    /// Copies of all streams together.
    pub max_total_copies: Option<u32>,
}

/// `PATCH /settings`: what is absent stays, null lifts the limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SettingsPatch {
    /// Upload ceiling: a number of bits per second, or text such as `20Mbit`.
    #[serde(deserialize_with = "uplink")]
    #[schema(value_type = Option<UplinkInput>)]
    pub uplink: Option<Option<Bitrate>>,
    /// Copies of one stream.
    #[serde(deserialize_with = "copies")]
    #[schema(value_type = Option<u32>)]
    pub max_copies: Option<Option<u32>>,
    /// Copies of all streams.
    #[serde(deserialize_with = "copies")]
    #[schema(value_type = Option<u32>)]
    pub max_total_copies: Option<Option<u32>>,
}

/// Tells an absent field from null.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// The same for a rate, which must fit into the `int64` that the document promises.
fn uplink<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<Bitrate>>, D::Error> {
    let rate: Option<Option<Bitrate>> = present(deserializer)?;
    match rate {
        Some(Some(rate)) if rate > UPLINK_MAX => Err(de::Error::custom("no line carries so much")),
        rate => Ok(rate),
    }
}

/// The same for a number of copies, which must fit into the document's `int32`.
fn copies<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<u32>>, D::Error> {
    let copies: Option<Option<u32>> = present(deserializer)?;
    match copies {
        Some(Some(copies)) if copies > COPIES_MAX => {
            Err(de::Error::custom("no node gives so many copies; null is no limit"))
        }
        copies => Ok(copies),
    }
}

impl SettingsPatch {
    /// The limits after this change.
    #[must_use]
    pub fn apply(self, limits: Limits) -> Limits {
        Limits {
            uplink: self.uplink.unwrap_or(limits.uplink),
            max_copies: self.max_copies.unwrap_or(limits.max_copies),
            max_total_copies: self.max_total_copies.unwrap_or(limits.max_total_copies),
        }
    }
}

impl SettingsDto {
    /// The limits after `revision` changes.
    #[must_use]
    pub fn new(limits: Limits, revision: u64) -> Self {
        Self {
            revision,
            uplink_bps: limits.uplink.map(Bitrate::as_bps),
            max_copies: limits.max_copies,
            max_total_copies: limits.max_total_copies,
        }
    }
}

/// A rate as it may be written.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes the two forms in the OpenAPI document")]
enum UplinkInput {
    /// Bits per second.
    Bps(u64),
    /// A number with its unit, such as `20Mbit`.
    Text(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_tells_absent_from_null() {
        let limits = Limits {
            uplink: Some(Bitrate::from_mbps(5)),
            max_copies: Some(3),
            max_total_copies: Some(9),
        };
        let patch = |json: &str| serde_json::from_str::<SettingsPatch>(json);
        assert_eq!(patch("{}").unwrap().apply(limits), limits);
        let lifted = patch(r#"{"uplink": null, "max_copies": 0}"#).unwrap().apply(limits);
        let wanted = Limits { uplink: None, max_copies: Some(0), max_total_copies: Some(9) };
        assert_eq!(lifted, wanted);
        let text = patch(r#"{"uplink": "750kbit"}"#).unwrap().apply(limits);
        assert_eq!(text.uplink, Some(Bitrate::from_kbps(750)));
        assert!(patch(r#"{"upload": 1}"#).is_err());
        assert!(patch(r#"{"max_copies": -1}"#).is_err());
        assert!(patch(r#"{"max_total_copies": 2147483647}"#).is_ok());
        assert!(patch(r#"{"max_total_copies": 2147483648}"#).is_err());
        assert!(patch(r#"{"max_copies": 2147483648}"#).is_err());
        assert!(patch(r#"{"uplink": 9223372036854775807}"#).is_ok());
        assert!(patch(r#"{"uplink": 9223372036854775808}"#).is_err());
    }
}
