//! A scenario: everything about a run that is not the seed, as TOML.
//!
//! Owns the fields of what is published and by whom, loading and sanity; viewers, links, faults and
//! thresholds have files of their own. Does not own what a field causes (see [`crate::world`]).
//! Every time is in seconds of simulated time since the run began; unknown keys are errors.

mod bars;
mod fault;
mod network;
mod swarm;
mod tuning;
mod viewers;

use std::{path::Path, time::Duration};

use anyhow::{Context, ensure};
use astral_core::{
    media::{cert::is_stripe_count, relay::RelayConfig},
    overlay::Tuning,
    units::Bitrate,
};
use serde::{Deserialize, Serialize};

pub use bars::Bars;
pub use fault::{Fault, FaultKind, Pick, Who};
pub use network::{Engine, Fidelity, Network, Services};
pub use tuning::Changes;
pub use viewers::{
    Class, Crowd, Join, JoinLaw, Nat, PolicyChoice, Session, SessionLaw, Viewers, parse_lengths,
};

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
    /// Who comes on top of them.
    #[serde(default, rename = "crowd", skip_serializing_if = "Vec::is_empty")]
    pub crowds: Vec<Crowd>,
    /// When they go; none: they stay.
    #[serde(default)]
    pub session: Option<Session>,
    /// Links.
    #[serde(default)]
    pub network: Network,
    /// Modelled services.
    #[serde(default)]
    pub services: Services,
    /// How exact the engine is.
    #[serde(default)]
    pub engine: Engine,
    /// Constants of the overlay that differ from its defaults, by name.
    #[serde(default, skip_serializing_if = "Changes::is_empty")]
    pub tuning: Changes,
    /// The same of the relay.
    #[serde(default, skip_serializing_if = "Changes::is_empty")]
    pub relay: Changes,
    /// What goes wrong.
    #[serde(default, rename = "fault", skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
    /// Viewers that never come, by their number: what a shrinker took out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent: Vec<u32>,
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

impl Scenario {
    /// Reads a scenario file, and the trace that it names.
    ///
    /// # Errors
    /// When one cannot be read, is no scenario, or makes no sense.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let read = |path: &Path| {
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
        };
        let mut scenario =
            Self::parse(&read(path)?).with_context(|| format!("in {}", path.display()))?;
        if let Some(session) = &mut scenario.session
            && let Some(trace) = &session.trace
        {
            let beside = path.parent().unwrap_or(Path::new("")).join(trace);
            session.lengths = parse_lengths(&read(&beside)?)?;
        }
        Ok(scenario)
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

    /// The overlay's constants in this scenario.
    #[must_use]
    pub fn overlay_tuning(&self) -> Tuning {
        tuning::changed(&self.tuning).expect("checked when the scenario was read")
    }

    /// The relay's constants in this scenario.
    #[must_use]
    pub fn relay_config(&self) -> RelayConfig {
        tuning::changed(&self.relay).expect("checked when the scenario was read")
    }

    /// How many supernodes there are from the start.
    #[must_use]
    pub fn supernode_count(&self) -> u32 {
        self.supernodes.count.unwrap_or_else(|| self.audience().div_ceil(80))
    }

    /// Viewers that are there at once when everybody has come.
    #[must_use]
    pub fn audience(&self) -> u32 {
        self.viewers.count + self.crowds.iter().map(|crowd| crowd.count).sum::<u32>()
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
        ensure!(self.audience() <= NODES_MAX, "viewers.count is at most {NODES_MAX}");
        ensure!((1.0..=86_400.0).contains(&self.duration_s), "duration_s is 1 to 86400");
        ensure!((0.0..=3_600.0).contains(&self.settle_s), "settle_s is 0 to 3600");
        for class in &self.viewers.classes {
            ensure!(
                class.share >= 0.0 && class.copies >= 0.0,
                "shares and copies are not negative"
            );
        }
        self.network.check()?;
        self.session.iter().try_for_each(Session::check)?;
        tuning::changed::<Tuning>(&self.tuning).context("in [tuning]")?;
        tuning::changed::<RelayConfig>(&self.relay).context("in [relay]")?;
        self.faults.iter().try_for_each(Fault::check)?;
        let coarse = self.engine.fidelity == Fidelity::Intervals;
        let needs_chunks = self.faults.iter().find(|fault| fault.kind.needs_chunks());
        if let Some(fault) = needs_chunks.filter(|_| coarse) {
            anyhow::bail!("a fault of kind {:?} needs engine.fidelity = \"chunks\"", fault.kind);
        }
        Ok(())
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
            if path.is_dir() {
                continue;
            }
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
