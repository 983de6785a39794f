//! Who watches, when they come, how long they stay.
//!
//! Owns the fields, their defaults and units. Does not own the draws (see `world::cast`).

use std::{path::PathBuf, sync::Arc};

use anyhow::ensure;
use serde::{Deserialize, Serialize};

/// The viewers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Viewers {
    /// How many are there at once, when all have joined.
    pub count: u32,
    /// What their players do.
    #[serde(default)]
    pub policy: PolicyChoice,
    /// Lag of `live` players, in milliseconds.
    #[serde(default = "default_lag")]
    pub lag_ms: u64,
    /// Kinds of viewers; shares need not add up to 1.
    #[serde(default, rename = "class")]
    pub classes: Vec<Class>,
    /// Classes are not drawn for each viewer but dealt: each gets just its share of `count`, in the
    /// order in which they are listed, and whoever comes for one that is gone is of that one's class.
    /// So the slots that there are do not change with the seed.
    #[serde(default)]
    pub dealt: bool,
}

const fn default_lag() -> u64 {
    1_500
}

/// What a player does about missing chunks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyChoice {
    /// Waits.
    #[default]
    KeepAll,
    /// Skips at its lag.
    Live,
}

/// A kind of viewer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Class {
    /// Weight among the classes.
    pub share: f64,
    /// Uplink in copies of the stream.
    pub copies: f64,
    /// Downlink in copies of the stream; none: never the bottleneck.
    pub down_copies: Option<f64>,
    /// `--max-copies`.
    pub max_copies: Option<u32>,
    /// Who can dial it.
    pub nat: Nat,
    /// Mean one-way delay of its access in milliseconds; none: the network's.
    pub access_ms: Option<f64>,
}

impl Default for Class {
    fn default() -> Self {
        Self {
            share: 1.0,
            copies: 2.0,
            down_copies: None,
            max_copies: None,
            nat: Nat::Public,
            access_ms: None,
        }
    }
}

/// What stands between a home and those who would dial it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Nat {
    /// Nothing.
    #[default]
    Public,
    /// One mapping for all destinations, and everybody may use it. The simulator takes it for a cone.
    FullCone,
    /// One mapping, open to hosts that something was sent to. The simulator takes it for a cone.
    Restricted,
    /// One mapping, open to the ports of hosts that something was sent to: hole punching may work
    /// between two of them.
    Cone,
    /// A mapping for each destination: only public nodes hear from it.
    Symmetric,
}

impl Nat {
    /// Whether a hole can be punched through it towards another like it.
    #[must_use]
    pub const fn is_cone(self) -> bool {
        match self {
            Self::FullCone | Self::Restricted | Self::Cone => true,
            Self::Public | Self::Symmetric => false,
        }
    }
}

/// The join curve.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Join {
    /// Its shape.
    pub law: JoinLaw,
    /// First join.
    pub from_s: f64,
    /// Time from the first to about the last.
    pub over_s: f64,
    /// A viewer's node runs for so long before its user wants to watch; 0 shows cold starts.
    pub warm_s: f64,
}

impl Default for Join {
    fn default() -> Self {
        Self { law: JoinLaw::Ramp, from_s: 4.0, over_s: 4.0, warm_s: 2.0 }
    }
}

/// Shapes of join curves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JoinLaw {
    /// Evenly.
    Ramp,
    /// Exponential gaps with the same mean.
    Poisson,
    /// Most at the beginning: arrivals fall off exponentially, `over_s` is five time constants.
    Flash,
    /// The rate rises from nothing to twice its mean and falls again, as over a day.
    Diurnal,
}

/// A crowd that comes on top of the others.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Crowd {
    /// How many.
    pub count: u32,
    /// When the first comes.
    pub at_s: f64,
    /// Until about the last.
    pub over_s: f64,
    /// The shape of its curve.
    #[serde(default = "default_law")]
    pub law: JoinLaw,
}

const fn default_law() -> JoinLaw {
    JoinLaw::Ramp
}

/// How long viewers stay and how they go.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// Law of the length.
    pub law: SessionLaw,
    /// Mean length; of a trace, what its mean is scaled to, or 0: as it is.
    pub mean_s: f64,
    /// Shape of the lognormal law.
    #[serde(default = "default_sigma")]
    pub sigma: f64,
    /// Shape of the Weibull law: below 1, most sessions are short.
    #[serde(default = "default_shape")]
    pub shape: f64,
    /// The lengths of the trace law: a file with one number of seconds a line, beside the scenario.
    #[serde(default)]
    pub trace: Option<PathBuf>,
    /// Its content.
    #[serde(skip)]
    pub lengths: Arc<[f64]>,
    /// Share that goes without a word.
    #[serde(default = "default_abrupt")]
    pub abrupt: f64,
    /// Share of those whose whole host goes, so that nothing closes.
    #[serde(default)]
    pub silent: f64,
    /// Each that goes is replaced by a newcomer.
    #[serde(default = "default_replace")]
    pub replace: bool,
    /// The programme is over at this second: viewers leave, nobody comes any more.
    #[serde(default)]
    pub programme_end_s: Option<f64>,
    /// Share of the viewers that leave then.
    #[serde(default = "default_exodus")]
    pub exodus: f64,
    /// How long that takes.
    #[serde(default = "default_exodus_over")]
    pub exodus_over_s: f64,
}

const fn default_sigma() -> f64 {
    1.0
}

const fn default_shape() -> f64 {
    0.6
}

const fn default_abrupt() -> f64 {
    1.0
}

const fn default_replace() -> bool {
    true
}

const fn default_exodus() -> f64 {
    0.9
}

const fn default_exodus_over() -> f64 {
    5.0
}

/// Laws of session lengths.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionLaw {
    /// Memoryless.
    Exponential,
    /// Most short, some very long, as measured in live streaming.
    Lognormal,
    /// As measured in file sharing.
    Weibull,
    /// Drawn from the lengths of a file.
    Trace,
}

impl Session {
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let trace = self.law == SessionLaw::Trace;
        ensure!(self.mean_s >= 1.0 || trace, "session.mean_s is at least 1");
        ensure!(self.shape > 0.05 && self.sigma >= 0.0, "session.shape and sigma are positive");
        ensure!(trace == self.trace.is_some(), "session.trace goes with the law 'trace'");
        ensure!((0.0..=1.0).contains(&self.exodus), "session.exodus is 0 to 1");
        Ok(())
    }
}

/// Reads the lengths of a trace: the last number of each line, so that any CSV with the length at the
/// end will do; lines without one are headers.
///
/// # Errors
/// When there is no positive length at all.
pub fn parse_lengths(text: &str) -> anyhow::Result<Arc<[f64]>> {
    let last = |line: &str| line.rsplit([',', ';', '\t']).next()?.trim().parse::<f64>().ok();
    let lengths: Vec<f64> =
        text.lines().filter_map(last).filter(|s| s.is_finite() && *s > 0.0).collect();
    ensure!(!lengths.is_empty(), "the trace has no line that ends in a number of seconds");
    Ok(lengths.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_the_last_column_without_its_header() {
        let lengths = parse_lengths("id,seconds\na,12.5\nb,300\n\n").unwrap();
        assert_eq!(&*lengths, [12.5, 300.0]);
        assert!(parse_lengths("id,seconds\n").is_err());
    }
}
