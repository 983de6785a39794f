//! Thresholds of a scenario.
//!
//! Owns their names. Does not own the comparison (see [`crate::summary`]).

use serde::{Deserialize, Serialize};

/// Thresholds; one that is not given is not judged.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bars {
    /// Least mean continuity at lag 1.5 s.
    pub continuity_1500: Option<f64>,
    /// Least mean continuity at lag 3 s.
    pub continuity_3000: Option<f64>,
    /// Least mean continuity at lag 3 s of those who gave at least one copy.
    pub contributors_3000: Option<f64>,
    /// Least mean continuity at lag 3 s of those who were there before a crowd came.
    pub old_3000: Option<f64>,
    /// Most viewers below 95 % at lag 3 s, as a share.
    pub below_95: Option<f64>,
    /// Least continuity at lag 3 s over the 30 s after the first fault.
    pub after_fault_3000: Option<f64>,
    /// Most median delay of a chunk, in milliseconds.
    pub delay_p50_ms: Option<f64>,
    /// The same at the 99th percentile.
    pub delay_p99_ms: Option<f64>,
    /// Most median time from the wish to watch to the first picture, in milliseconds.
    pub first_picture_p50_ms: Option<f64>,
    /// The same at the 95th percentile.
    pub first_picture_p95_ms: Option<f64>,
    /// Least share of viewers that play within 3 s of their admission: of the first feed that opens.
    pub admitted_3s: Option<f64>,
    /// Most median gap of a stripe whose parent failed, in milliseconds.
    pub repair_p50_ms: Option<f64>,
    /// The same at the 99th percentile.
    pub repair_p99_ms: Option<f64>,
    /// Most hops between the source and a viewer.
    pub depth_max: Option<f64>,
    /// Most copies that the source sends, on average.
    pub source_copies: Option<f64>,
    /// Least share of media that viewers send.
    pub viewer_share: Option<f64>,
    /// Most bytes that are no media, as a share.
    pub overhead: Option<f64>,
    /// Most skips of all players.
    pub skips: Option<f64>,
    /// Least share of viewers that ever played.
    pub played: Option<f64>,
    /// Most times that supernodes named a node that was dead for 25 s.
    pub named_dead: Option<f64>,
    /// Most violations; 0 where it is not given.
    pub violations: Option<f64>,
}
