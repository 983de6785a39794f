//! Faults: what goes wrong, when, and with whom.
//!
//! Owns their description. Does not own their execution (see `world::faults`).

use anyhow::ensure;
use serde::{Deserialize, Serialize};

/// One fault.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Fault {
    /// When it happens first.
    pub at_s: f64,
    /// Repeated after this time until the run's duration is over; 0: once.
    #[serde(default)]
    pub every_s: f64,
    /// What it is.
    #[serde(flatten)]
    pub kind: FaultKind,
    /// Whom it hits.
    #[serde(default)]
    pub who: Who,
}

/// Kinds of faults.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FaultKind {
    /// `kill -9`: connections close at once.
    Kill,
    /// The whole host goes: nothing closes, nothing answers.
    Vanish,
    /// `kill -STOP`, then `-CONT`: connections stay, nothing happens meanwhile.
    Freeze {
        /// How long.
        for_s: f64,
    },
    /// The chosen nodes and all others do not hear each other; what is sent comes late.
    Partition {
        /// How long.
        for_s: f64,
        /// Only what the chosen send is held up.
        #[serde(default)]
        one_way: bool,
        /// It comes and goes: so long each; 0: it stands.
        #[serde(default)]
        flap_s: f64,
    },
    /// Leaves politely.
    Leave,
    /// Stops watching, stays a node.
    Unwatch,
    /// Takes back all tickets that it gave.
    Revoke,
    /// Claims to feed and sends no media.
    Withhold,
    /// Turns a bit in every chunk that it forwards.
    Pollute,
    /// Sends media so much later than it could.
    Delay {
        /// In milliseconds.
        ms: u64,
    },
    /// Drops a share of the chunks that it forwards.
    Drop {
        /// In percent.
        percent: u64,
    },
    /// Says that it has so many times its uplink.
    LieCapacity {
        /// How many times.
        factor: u64,
    },
    /// Says that it hangs on the source itself.
    LieDepth,
    /// Many nodes of one attacker in one address block: they withhold, and name each other only.
    Sybil,
    /// A supernode that names nobody but misbehaving nodes, or nobody.
    BadDirectory,
    /// The uplink falls to this share of what it was, in percent; the node is not told.
    Throttle {
        /// Percent of the class's rate.
        percent: u64,
        /// How long; 0: for good.
        #[serde(default)]
        for_s: f64,
    },
}

/// Whom a fault hits.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Who {
    /// Among whom is chosen.
    pub pick: Pick,
    /// A share of those, rounded up.
    pub share: Option<f64>,
    /// Or so many.
    pub count: Option<u32>,
    /// Or exactly these viewers, by their number from 0.
    pub viewers: Vec<u32>,
    /// Only those in this region, by its number from 0.
    pub region: Option<usize>,
}

/// Among whom a fault chooses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pick {
    /// All viewers that are there.
    #[default]
    Viewers,
    /// Viewers that feed somebody.
    Parents,
    /// Supernodes, but the source.
    Supernodes,
}

impl FaultKind {
    /// Whether it shows only where every chunk is moved.
    #[must_use]
    pub const fn needs_chunks(&self) -> bool {
        match self {
            Self::Withhold
            | Self::Pollute
            | Self::Delay { .. }
            | Self::Drop { .. }
            | Self::LieCapacity { .. }
            | Self::LieDepth
            | Self::Sybil
            | Self::Freeze { .. }
            | Self::Partition { .. }
            | Self::Throttle { .. } => true,
            Self::Kill
            | Self::Vanish
            | Self::Leave
            | Self::Unwatch
            | Self::Revoke
            | Self::BadDirectory => false,
        }
    }

    /// Whether it makes nodes misbehave.
    #[must_use]
    pub const fn is_misdeed(&self) -> bool {
        match self {
            Self::Withhold
            | Self::Pollute
            | Self::Delay { .. }
            | Self::Drop { .. }
            | Self::LieCapacity { .. }
            | Self::LieDepth
            | Self::Sybil
            | Self::BadDirectory => true,
            Self::Kill
            | Self::Vanish
            | Self::Freeze { .. }
            | Self::Partition { .. }
            | Self::Leave
            | Self::Unwatch
            | Self::Revoke
            | Self::Throttle { .. } => false,
        }
    }
}

impl Fault {
    pub(super) fn check(&self) -> anyhow::Result<()> {
        ensure!(self.at_s >= 0.0 && self.every_s >= 0.0, "times of faults are not negative");
        if let Some(share) = self.who.share {
            ensure!((0.0..=1.0).contains(&share), "who.share is 0 to 1");
        }
        if let FaultKind::Drop { percent } = self.kind {
            ensure!(percent <= 100, "drop.percent is at most 100");
        }
        if let FaultKind::LieCapacity { factor } = self.kind {
            ensure!((1..=1_000).contains(&factor), "lie_capacity.factor is 1 to 1000");
        }
        let ways = usize::from(self.who.share.is_some())
            + usize::from(self.who.count.is_some())
            + usize::from(!self.who.viewers.is_empty());
        ensure!(ways == 1, "who needs exactly one of share, count, viewers");
        Ok(())
    }
}
