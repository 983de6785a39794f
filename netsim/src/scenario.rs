//! A scenario: everything about a run that is not the seed, as TOML.
//!
//! Owns the fields, their defaults, units and sanity. Does not own what a field causes (see
//! [`crate::world`]). Every time is in seconds of simulated time since the run began; unknown keys
//! are errors.

mod fault;
mod swarm;

use std::{path::Path, time::Duration};

use anyhow::{Context, ensure};
use astral_core::{media::cert::is_stripe_count, units::Bitrate};
use serde::{Deserialize, Serialize};

pub use fault::{Fault, FaultKind, Pick, Who};

/// Nodes beside viewers that a scenario may have at most; keeps indices in `u32` with room.
const NODES_MAX: u32 = 4_000_000;

/// One run, but for its seed.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its name, as in its file's.
    pub name: String,
    /// What it shows, for people.
    #[serde(default)]
    pub about: String,
    /// Joins, sessions and faults happen within this.
    pub duration_s: f64,
    /// Then faults stop; after this long every viewer must have everything.
    #[serde(default = "default_settle")]
    pub settle_s: f64,
    /// What is published.
    #[serde(default)]
    pub stream: Stream,
    /// Who publishes.
    #[serde(default)]
    pub source: Source,
    /// The directory.
    #[serde(default)]
    pub supernodes: Supernodes,
    /// Who watches.
    pub viewers: Viewers,
    /// When viewers come.
    #[serde(default)]
    pub join: Join,
    /// When they go; none: they stay.
    #[serde(default)]
    pub session: Option<Session>,
    /// Links.
    #[serde(default)]
    pub network: Network,
    /// Modelled services.
    #[serde(default)]
    pub services: Services,
    /// Constants of the protocol that a sweep changes.
    #[serde(default)]
    pub tuning: TuningChoice,
    /// What goes wrong.
    #[serde(default, rename = "fault")]
    pub faults: Vec<Fault>,
    /// Thresholds.
    #[serde(default)]
    pub bars: Bars,
}

const fn default_settle() -> f64 {
    20.0
}

/// The published stream.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Stream {
    /// Whole rate, sound included.
    pub rate: Bitrate,
    /// Number of stripes: 1, 2, 4, 8 or 16.
    pub stripes: u8,
    /// Frames a second.
    pub fps: u32,
    /// Seconds between keyframes.
    pub keyframe_s: f64,
    /// A keyframe is so many times as large as another frame.
    pub keyframe_ratio: f64,
    /// Rate of the sound.
    pub audio: Bitrate,
}

impl Default for Stream {
    fn default() -> Self {
        Self {
            rate: Bitrate::from_mbps(3),
            stripes: 8,
            fps: 30,
            keyframe_s: 2.0,
            keyframe_ratio: 8.0,
            audio: Bitrate::from_kbps(128),
        }
    }
}

/// The publishing node.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Source {
    /// Uplink in copies of the stream.
    pub copies: f64,
    /// `--max-copies`.
    pub max_copies: Option<u32>,
}

impl Default for Source {
    fn default() -> Self {
        Self { copies: 10.0, max_copies: None }
    }
}

/// The supernodes that are there from the start.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Supernodes {
    /// How many; none given: one for 80 viewers. With 0 the source founds the network.
    pub count: Option<u32>,
    /// Places for members at each.
    pub capacity: usize,
}

impl Default for Supernodes {
    fn default() -> Self {
        Self { count: None, capacity: 100 }
    }
}

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
    /// Others can dial it.
    pub reachable: bool,
}

impl Default for Class {
    fn default() -> Self {
        Self { share: 1.0, copies: 2.0, down_copies: None, max_copies: None, reachable: true }
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
}

/// How long viewers stay and how they go.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// Law of the length.
    pub law: SessionLaw,
    /// Mean length.
    pub mean_s: f64,
    /// Shape of the lognormal law.
    #[serde(default = "default_sigma")]
    pub sigma: f64,
    /// Share that goes without a word.
    #[serde(default = "default_abrupt")]
    pub abrupt: f64,
    /// Share of those whose whole host goes, so that nothing closes.
    #[serde(default)]
    pub silent: f64,
    /// Each that goes is replaced by a newcomer.
    #[serde(default = "default_replace")]
    pub replace: bool,
}

const fn default_sigma() -> f64 {
    1.0
}

const fn default_abrupt() -> f64 {
    1.0
}

const fn default_replace() -> bool {
    true
}

/// Laws of session lengths.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionLaw {
    /// Memoryless.
    Exponential,
    /// Most short, some very long, as measured in live streaming.
    Lognormal,
}

/// Constants of the protocol that differ from the core's defaults in this run.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TuningChoice {
    /// Share of the usable uplink that becomes slots, in percent.
    pub slot_share_percent: Option<u64>,
}

/// How links behave.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// Regions that nodes are spread over, 1 to 6.
    pub regions: u8,
    /// Mean one-way delay of a home's access, in milliseconds (lognormal).
    pub access_ms: f64,
    /// Most additional delay of a message, in milliseconds (uniform).
    pub jitter_ms: f64,
    /// Mean share of packets lost; lost ones come later.
    pub loss: f64,
    /// Length of a bad moment in which every other packet is lost, in milliseconds.
    pub loss_burst_ms: u64,
    /// Drop-tail buffer before an uplink, in milliseconds of its rate.
    pub buffer_ms: u64,
    /// Round trips until a new connection carries data.
    pub setup_rtts: f64,
    /// Uplinks are told to the nodes (`--uplink`); otherwise measured by them.
    pub uplink_told: bool,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            regions: 3,
            access_ms: 8.0,
            jitter_ms: 2.0,
            loss: 0.0,
            loss_burst_ms: 20,
            buffer_ms: 200,
            setup_rtts: 3.0,
            uplink_told: true,
        }
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

/// Thresholds; one that is not given is not judged.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bars {
    /// Least mean continuity at lag 1.5 s.
    pub continuity_1500: Option<f64>,
    /// Least mean continuity at lag 3 s.
    pub continuity_3000: Option<f64>,
    /// Most viewers below 95 % at lag 3 s, as a share.
    pub below_95: Option<f64>,
    /// Most median delay of a chunk, in milliseconds.
    pub delay_p50_ms: Option<f64>,
    /// The same at the 99th percentile.
    pub delay_p99_ms: Option<f64>,
    /// Most median time from the wish to watch to the first picture, in milliseconds.
    pub first_picture_p50_ms: Option<f64>,
    /// The same at the 95th percentile.
    pub first_picture_p95_ms: Option<f64>,
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
}

impl Scenario {
    /// Reads a scenario file.
    ///
    /// # Errors
    /// When it cannot be read, is no scenario, or makes no sense.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the scenario {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("in {}", path.display()))
    }

    /// Reads a scenario.
    ///
    /// # Errors
    /// When the text is no scenario or makes no sense.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let scenario: Self = toml::from_str(text)?;
        scenario.check()?;
        Ok(scenario)
    }

    /// How many supernodes there are from the start.
    #[must_use]
    pub fn supernode_count(&self) -> u32 {
        self.supernodes.count.unwrap_or_else(|| self.viewers.count.div_ceil(80))
    }

    /// Bits per second of so many copies.
    #[must_use]
    pub fn copies(&self, copies: f64) -> Bitrate {
        // Rates of the model are far below 2^53.
        Bitrate::from_bps((self.stream.rate.as_bps() as f64 * copies) as u64)
    }

    /// Says what makes no sense.
    ///
    /// # Errors
    /// Names the field and its bounds.
    pub fn check(&self) -> anyhow::Result<()> {
        ensure!(is_stripe_count(self.stream.stripes), "stream.stripes is 1, 2, 4, 8 or 16");
        ensure!(self.stream.rate.as_bps() >= 50_000, "stream.rate is at least 50kbit");
        ensure!(self.stream.audio < self.stream.rate, "stream.audio is below stream.rate");
        ensure!((1..=120).contains(&self.stream.fps), "stream.fps is 1 to 120");
        ensure!(self.stream.keyframe_s > 0.1, "stream.keyframe_s is above 0.1");
        ensure!(self.viewers.count <= NODES_MAX, "viewers.count is at most {NODES_MAX}");
        ensure!((1.0..=86_400.0).contains(&self.duration_s), "duration_s is 1 to 86400");
        ensure!((0.0..=3_600.0).contains(&self.settle_s), "settle_s is 0 to 3600");
        ensure!((1..=6).contains(&self.network.regions), "network.regions is 1 to 6");
        ensure!((0.0..=0.2).contains(&self.network.loss), "network.loss is 0 to 0.2");
        ensure!(self.network.loss_burst_ms > 0, "network.loss_burst_ms is above 0");
        ensure!(self.network.access_ms > 0.0, "network.access_ms is above 0");
        if let Some(session) = &self.session {
            ensure!(session.mean_s >= 1.0, "session.mean_s is at least 1");
        }
        for class in &self.viewers.classes {
            ensure!(
                class.share >= 0.0 && class.copies >= 0.0,
                "shares and copies are not negative"
            );
        }
        self.faults.iter().try_for_each(Fault::check)
    }
}

/// Seconds of a scenario as microseconds of simulated time; negative is 0.
#[must_use]
pub fn seconds(s: f64) -> u64 {
    // Saturating by definition of `as`; a scenario lasts at most days.
    (s * 1e6) as u64
}

/// Seconds of a scenario as a duration.
#[must_use]
pub fn duration(s: f64) -> Duration {
    Duration::from_micros(seconds(s))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_that_ships_is_sound() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let mut count = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let scenario = Scenario::load(&path).unwrap();
            assert_eq!(Some(scenario.name.as_str()), path.file_stem().and_then(|s| s.to_str()));
            count += 1;
        }
        assert!(count >= 4);
    }

    #[test]
    fn a_misspelt_key_and_an_impossible_value_are_refused() {
        let sound = "name = 'x'\nduration_s = 5\n[viewers]\ncount = 3\n";
        assert!(Scenario::parse(sound).is_ok());
        assert!(Scenario::parse(&format!("{sound}cuont = 3\n")).is_err());
        let odd = format!("{sound}[stream]\nstripes = 3\n");
        assert!(Scenario::parse(&odd).unwrap_err().to_string().contains("stripes"));
    }
}
