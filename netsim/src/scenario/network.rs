//! Links, services and what the engine may round.
//!
//! Owns the fields, their defaults and units. Does not own the models (see [`crate::uplink`],
//! [`crate::geography`], `world::services`).

use anyhow::ensure;
use serde::{Deserialize, Serialize};

use crate::geography::REGIONS_MAX;

/// How links behave.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// Regions that nodes are spread over, 1 to 10.
    pub regions: u8,
    /// Nodes are spread as people are (see [`crate::geography`]); otherwise evenly.
    pub by_population: bool,
    /// Mean one-way delay of a home's access, in milliseconds (lognormal).
    pub access_ms: f64,
    /// Most additional delay of a message, in milliseconds (uniform).
    pub jitter_ms: f64,
    /// Mean share of packets lost; lost ones come later.
    pub loss: f64,
    /// Mean length of a bad moment in which every other packet is lost, in milliseconds.
    pub loss_burst_ms: u64,
    /// Drop-tail buffer before an access link in either direction, in milliseconds of its rate.
    pub buffer_ms: u64,
    /// Round trips until a new connection carries data.
    pub setup_rtts: f64,
    /// Uplinks are told to the nodes (`--uplink`); otherwise measured by them.
    pub uplink_told: bool,
    /// Chance that two nodes behind cone NATs connect; each pair has one answer. 0.7 was measured
    /// for DCUtR in the wild; 0 while the node does not punch holes.
    pub hole_punch: f64,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            regions: 3,
            by_population: false,
            access_ms: 8.0,
            jitter_ms: 2.0,
            loss: 0.0,
            loss_burst_ms: 20,
            buffer_ms: 200,
            setup_rtts: 3.0,
            uplink_told: true,
            hole_punch: 0.0,
        }
    }
}

impl Network {
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let regions = usize::from(self.regions);
        ensure!((1..=REGIONS_MAX).contains(&regions), "network.regions is 1 to {REGIONS_MAX}");
        ensure!((0.0..=0.2).contains(&self.loss), "network.loss is 0 to 0.2");
        ensure!(self.loss_burst_ms > 0, "network.loss_burst_ms is above 0");
        ensure!(self.access_ms > 0.0, "network.access_ms is above 0");
        ensure!((0.0..=1.0).contains(&self.hole_punch), "network.hole_punch is 0 to 1");
        Ok(())
    }
}

/// The services that the node's driver gets from libp2p.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Services {
    /// Round trips that a Kademlia lookup takes.
    pub lookup_hops: u32,
    /// Share of lookups that find only half.
    pub lookup_loss: f64,
    /// A dead supernode is still found for this long.
    pub stale_s: f64,
    /// Share of gossip messages that miss a supernode.
    pub gossip_loss: f64,
    /// Most time that gossip takes beside the way itself, in milliseconds.
    pub gossip_ms: f64,
}

impl Default for Services {
    fn default() -> Self {
        Self {
            lookup_hops: 3,
            lookup_loss: 0.02,
            stale_s: 30.0,
            gossip_loss: 0.01,
            gossip_ms: 400.0,
        }
    }
}

/// What the engine may round.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Engine {
    /// Timers of nodes fire at multiples of this, in milliseconds, as on a host whose timers have
    /// that slack; what falls together is done together. 0: to the microsecond.
    pub timer_ms: u64,
    /// What stands for media.
    pub fidelity: Fidelity,
}

/// What stands for media; the overlay is the production one in any case.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fidelity {
    /// Every chunk, in the production relay.
    #[default]
    Chunks,
    /// When which stripe flows, and how old: see [`crate::intervals`].
    Intervals,
}

impl Default for Engine {
    fn default() -> Self {
        Self { timer_ms: 1, fidelity: Fidelity::Chunks }
    }
}
