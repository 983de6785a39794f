//! What a run showed: figures, bars, violations; for people and as one JSON object.
//!
//! Owns the measures and their comparison with the scenario's bars. Does not own their collection.

use std::fmt;

use serde::Serialize;

use crate::{
    scenario::Scenario,
    tally::{Missed, Tally},
    world::Violation,
};

/// A viewer counts for continuity when so many chunks were due to it.
const DUE_MIN: u64 = 100;
/// Below this share of its chunks a viewer had no watchable stream.
const POOR: f64 = 0.95;

/// One viewer's end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// Its node.
    pub node: u32,
    /// It was there to the end.
    pub stayed: bool,
    /// It saw a picture.
    pub played: bool,
    /// It was there long enough that it should have.
    pub patient: bool,
    /// It gives at least one copy.
    pub contributes: bool,
    /// It came with a crowd.
    pub in_crowd: bool,
    /// It misbehaved: its figures count for nothing.
    pub misbehaved: bool,
    /// When it wanted to watch, in microseconds.
    pub asked_at: u64,
    /// From then to the first feed that opened, in microseconds.
    pub admitted_us: Option<u64>,
    /// From then to the first picture, in microseconds.
    pub playing_us: Option<u64>,
    /// How long it was there after its admission, in microseconds.
    pub after_admission_us: u64,
    /// Chunks of the time after the first fault: due, and those of them that were there in 3 s.
    pub window: Option<(u64, u64)>,
    /// At each lag: chunks due, and those of them that were there.
    pub continuity: [(u64, u64); 2],
    /// Chunks delivered.
    pub delivered: u64,
    /// Skips.
    pub skips: u64,
    /// Chunks skipped.
    pub skipped: u64,
}

/// What the checks found.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ChecksReport {
    /// The first violations.
    pub violations: Vec<Violation>,
    /// How many there were.
    pub count: u64,
    /// Most hops.
    pub depth_max: u32,
    /// Mean hops.
    pub depth_mean: f64,
    /// Copies that the source sent after the joins.
    pub source_copies: f64,
    /// Slots over wants at the end; 0 where liveness was not judged.
    pub capacity: f64,
    /// Free stripes as the supernodes know them and as they are, at the end.
    pub free: Option<(u64, u64)>,
}

/// Everything that a summary is made of.
#[derive(Debug)]
pub struct Parts<'a> {
    /// The scenario.
    pub scenario: &'a Scenario,
    /// The seed.
    pub seed: u64,
    /// Events handled.
    pub events: u64,
    /// Hash of all outputs.
    pub trace_hash: String,
    /// All viewers.
    pub outcomes: &'a [Outcome],
    /// Counters.
    pub tally: &'a Tally,
    /// Media cut.
    pub cut_bytes: u64,
    /// Media sent by viewers.
    pub viewer_payload: u64,
    /// What the checks found.
    pub checks: ChecksReport,
}

/// One threshold and what was measured.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Bar {
    /// Its name in the scenario.
    pub name: &'static str,
    /// What was measured; `None`: nothing to measure.
    pub value: Option<f64>,
    /// The threshold.
    pub bound: f64,
    /// Whether the value keeps to it.
    pub holds: bool,
}

/// The figures of a run. Equal for equal scenario, seed and code.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Summary {
    /// Name of the scenario.
    pub scenario: String,
    /// The seed.
    pub seed: u64,
    /// All bars hold and nothing was violated.
    pub ok: bool,
    /// Hash of all outputs of all nodes, in order.
    pub trace_hash: String,
    /// Events handled.
    pub events: u64,
    /// Simulated seconds.
    pub seconds: f64,
    /// Viewers that wanted to watch.
    pub viewers: u64,
    /// The share of them that saw a picture, but for those who left within five seconds.
    pub played: f64,
    /// Mean share of chunks that were there 1.5 s after they were cut.
    pub continuity_1500: Option<f64>,
    /// The same after 3 s.
    pub continuity_3000: Option<f64>,
    /// The same of those who give at least one copy.
    pub contributors_3000: Option<f64>,
    /// The same of those who did not come with a crowd.
    pub old_3000: Option<f64>,
    /// The same over the 30 s after the first fault, of those who were there all the time.
    pub after_fault_3000: Option<f64>,
    /// Chunks that were missing at 3 s, by cause.
    pub missed: Missed,
    /// Share of viewers below 95 % after 3 s.
    pub below_95: Option<f64>,
    /// Delay of chunks, in milliseconds.
    pub delay_ms: Percentiles,
    /// Time to the first picture, in milliseconds.
    pub first_picture_ms: Percentiles,
    /// Of those who were there for 3 s after their admission, the share that played by then.
    pub admitted_3s: Option<f64>,
    /// Gaps of stripes whose parent failed, in milliseconds.
    pub repair_ms: Percentiles,
    /// Most hops.
    pub depth_max: u32,
    /// Mean hops.
    pub depth_mean: f64,
    /// Copies that the source sent, after the joins.
    pub source_copies: f64,
    /// Slots over wants at the end: below 1.25 nobody is promised anything.
    pub capacity: f64,
    /// Share of media that viewers sent.
    pub viewer_share: f64,
    /// Share of bytes that is no media.
    pub overhead: f64,
    /// The part of it that is requests, responses and gossip.
    pub overhead_messages: f64,
    /// Share of the media that was sent again.
    pub repair_share: f64,
    /// Free stripes as the supernodes know them over those that are, at the end.
    pub directory_free: Option<f64>,
    /// Share of chunks that came twice.
    pub duplicates: f64,
    /// Skips of all players.
    pub skips: u64,
    /// Chunks skipped.
    pub skipped: u64,
    /// Counters of what went on.
    pub counters: Counters,
    /// The thresholds.
    pub bars: Vec<Bar>,
    /// The first violations.
    pub violations: Vec<Violation>,
    /// All violations.
    pub violation_count: u64,
}

/// Percentiles of one measure.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Percentiles {
    /// How many were measured.
    pub count: u64,
    /// Median.
    pub p50: Option<f64>,
    /// 95th.
    pub p95: Option<f64>,
    /// 99th.
    pub p99: Option<f64>,
}

/// What went on, for orientation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Counters {
    /// Messages that found an uplink's buffer full.
    pub buffer_full: u64,
    /// Messages that came late because of loss.
    pub lost: u64,
    /// Requests that ran into the driver's deadline.
    pub timeouts: u64,
    /// Dials that failed.
    pub dials_failed: u64,
    /// Offences that drivers saw.
    pub offences: u64,
    /// Stripes that moved to another parent.
    pub moves: u64,
    /// Searches that found nobody.
    pub no_capacity: u64,
    /// Nodes that made themselves supernodes.
    pub promotions: u64,
    /// Times that a supernode named a node that was long dead.
    pub named_dead: u64,
}

impl Summary {
    /// Judges a run.
    #[must_use]
    pub fn new(parts: Parts<'_>) -> Self {
        let Parts { scenario, seed, events, trace_hash, outcomes, tally, checks, .. } = parts;
        let honest: Vec<Outcome> =
            outcomes.iter().filter(|outcome| !outcome.misbehaved).copied().collect();
        let outcomes = honest.as_slice();
        let of = |which: &dyn Fn(&Outcome) -> bool| {
            let some: Vec<Outcome> = outcomes.iter().filter(|one| which(one)).copied().collect();
            mean(&continuity(&some, 1))
        };
        let viewers = outcomes.len() as u64;
        let judged: Vec<_> = outcomes.iter().filter(|one| one.played || one.patient).collect();
        let played = judged.iter().filter(|outcome| outcome.played).count() as f64;
        let played = if judged.is_empty() { 1.0 } else { played / judged.len() as f64 };
        let low = continuity(outcomes, 0);
        let high = continuity(outcomes, 1);
        let percentiles = |of: &crate::tally::Histogram| Percentiles {
            count: of.count(),
            p50: of.percentile(0.5),
            p95: of.percentile(0.95),
            p99: of.percentile(0.99),
        };
        let mut summary = Self {
            scenario: scenario.name.clone(),
            seed,
            ok: checks.count as f64 <= scenario.bars.violations.unwrap_or(0.0),
            trace_hash,
            events,
            seconds: scenario.duration_s + scenario.settle_s,
            viewers,
            played: round(played),
            continuity_1500: mean(&low),
            continuity_3000: mean(&high),
            contributors_3000: of(&|one| one.contributes),
            old_3000: of(&|one| !one.in_crowd),
            after_fault_3000: after_fault(outcomes),
            missed: tally.missed,
            below_95: (!high.is_empty()).then(|| {
                high.iter().filter(|share| **share < POOR).count() as f64 / high.len() as f64
            }),
            delay_ms: percentiles(&tally.delay),
            first_picture_ms: percentiles(&tally.first_picture),
            admitted_3s: admitted(outcomes),
            repair_ms: percentiles(&tally.repair),
            depth_max: checks.depth_max,
            depth_mean: round(checks.depth_mean),
            source_copies: round(checks.source_copies),
            capacity: round(checks.capacity),
            viewer_share: round(parts.viewer_payload as f64 / tally.bytes.payload.max(1) as f64),
            overhead: round(tally.bytes.overhead()),
            overhead_messages: round(
                tally.bytes.messages as f64 / tally.bytes.total().max(1) as f64,
            ),
            repair_share: round(tally.bytes.repair as f64 / tally.bytes.payload.max(1) as f64),
            directory_free: checks
                .free
                .map(|(known, real)| round(known as f64 / real.max(1) as f64)),
            duplicates: round(tally.duplicates as f64 / tally.arrivals.max(1) as f64),
            skips: outcomes.iter().map(|outcome| outcome.skips).sum(),
            skipped: outcomes.iter().map(|outcome| outcome.skipped).sum(),
            counters: Counters {
                buffer_full: tally.drops,
                lost: tally.lost,
                timeouts: tally.timeouts,
                dials_failed: tally.dials_failed,
                offences: tally.offences,
                moves: tally.moves,
                no_capacity: tally.no_capacity,
                promotions: tally.promotions,
                named_dead: tally.named_dead,
            },
            bars: Vec::new(),
            violations: checks.violations,
            violation_count: checks.count,
        };
        summary.bars = summary.judge(scenario);
        summary.ok &= summary.bars.iter().all(|bar| bar.holds);
        summary
    }

    fn judge(&self, scenario: &Scenario) -> Vec<Bar> {
        let bars = &scenario.bars;
        let least = [
            ("continuity_1500", bars.continuity_1500, self.continuity_1500),
            ("continuity_3000", bars.continuity_3000, self.continuity_3000),
            ("contributors_3000", bars.contributors_3000, self.contributors_3000),
            ("old_3000", bars.old_3000, self.old_3000),
            ("after_fault_3000", bars.after_fault_3000, self.after_fault_3000),
            ("admitted_3s", bars.admitted_3s, self.admitted_3s),
            ("viewer_share", bars.viewer_share, Some(self.viewer_share)),
            ("played", bars.played, Some(self.played)),
        ];
        let most = [
            ("below_95", bars.below_95, self.below_95),
            ("delay_p50_ms", bars.delay_p50_ms, self.delay_ms.p50),
            ("delay_p99_ms", bars.delay_p99_ms, self.delay_ms.p99),
            ("first_picture_p50_ms", bars.first_picture_p50_ms, self.first_picture_ms.p50),
            ("first_picture_p95_ms", bars.first_picture_p95_ms, self.first_picture_ms.p95),
            ("repair_p50_ms", bars.repair_p50_ms, self.repair_ms.p50),
            ("repair_p99_ms", bars.repair_p99_ms, self.repair_ms.p99),
            ("depth_max", bars.depth_max, Some(f64::from(self.depth_max))),
            ("source_copies", bars.source_copies, Some(self.source_copies)),
            ("overhead", bars.overhead, Some(self.overhead)),
            ("skips", bars.skips, Some(self.skips as f64)),
            ("named_dead", bars.named_dead, Some(self.counters.named_dead as f64)),
            ("violations", bars.violations, Some(self.violation_count as f64)),
        ];
        let bar = |(name, bound, value): (&'static str, Option<f64>, Option<f64>), least: bool| {
            let bound = bound?;
            let holds =
                value.is_some_and(|value| if least { value >= bound } else { value <= bound });
            Some(Bar { name, value, bound, holds })
        };
        let least = least.into_iter().filter_map(|triple| bar(triple, true));
        least.chain(most.into_iter().filter_map(|triple| bar(triple, false))).collect()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.ok { "ok" } else { "FAILED" };
        writeln!(f, "{} seed {}: {verdict}", self.scenario, self.seed)?;
        writeln!(f, "  trace {} over {} events", self.trace_hash, self.events)?;
        let share =
            |share: Option<f64>| share.map_or("-".to_owned(), |share| format!("{share:.5}"));
        let ms = |p: &Percentiles| {
            let one = |ms: Option<f64>| ms.map_or("-".to_owned(), |ms| format!("{ms:.0}"));
            format!("p50 {} p95 {} p99 {} ({})", one(p.p50), one(p.p95), one(p.p99), p.count)
        };
        writeln!(f, "  viewers        {} ({:.1} % played)", self.viewers, self.played * 100.0)?;
        writeln!(
            f,
            "  continuity     {} at 1.5 s, {} at 3 s, below 95 %: {}",
            share(self.continuity_1500),
            share(self.continuity_3000),
            share(self.below_95)
        )?;
        writeln!(f, "  delay ms       {}", ms(&self.delay_ms))?;
        writeln!(f, "  first picture  {}", ms(&self.first_picture_ms))?;
        writeln!(f, "  repair ms      {}", ms(&self.repair_ms))?;
        writeln!(f, "  depth          mean {:.2} max {}", self.depth_mean, self.depth_max)?;
        writeln!(
            f,
            "  media          capacity {:.2}, source {:.2} copies, viewers send {:.1} %, twice {:.2} %",
            self.capacity,
            self.source_copies,
            self.viewer_share * 100.0,
            self.duplicates * 100.0
        )?;
        writeln!(
            f,
            "  overhead       {:.2} % (messages {:.2} %)",
            self.overhead * 100.0,
            self.overhead_messages * 100.0
        )?;
        let Missed { orphan, late, upstream } = self.missed;
        writeln!(f, "  missed at 3 s  orphan {orphan}, late {late}, upstream {upstream}")?;
        writeln!(f, "  skips          {} ({} chunks)", self.skips, self.skipped)?;
        writeln!(f, "  counters       {:?}", self.counters)?;
        for bar in &self.bars {
            let mark = if bar.holds { "holds" } else { "MISSED" };
            let value = bar.value.map_or("-".to_owned(), |value| format!("{value}"));
            writeln!(f, "  bar {mark:6} {} = {value} (bound {})", bar.name, bar.bound)?;
        }
        for violation in &self.violations {
            let at = violation.at_ms as f64 / 1e3;
            let node = violation.node.map_or(String::new(), |node| format!(" node {node}"));
            writeln!(f, "  VIOLATION at {at:.3} s{node}: {}", violation.what)?;
        }
        let more = self.violation_count - self.violations.len() as u64;
        if more > 0 {
            writeln!(f, "  and {more} more violations")?;
        }
        Ok(())
    }
}

fn continuity(outcomes: &[Outcome], lag: usize) -> Vec<f64> {
    outcomes
        .iter()
        .map(|outcome| outcome.continuity[lag])
        .filter(|(due, _)| *due >= DUE_MIN)
        .map(|(due, there)| there as f64 / due as f64)
        .collect()
}

/// Over all viewers that were there for the whole time after the first fault.
fn after_fault(outcomes: &[Outcome]) -> Option<f64> {
    let shares: Vec<f64> = outcomes
        .iter()
        .filter_map(|outcome| outcome.window)
        .filter(|(due, _)| *due > 0)
        .map(|(due, there)| there as f64 / due as f64)
        .collect();
    mean(&shares)
}

/// The share that played within this time of its admission.
fn admitted(outcomes: &[Outcome]) -> Option<f64> {
    const SOON_US: u64 = 3_000_000;
    let stayed: Vec<&Outcome> =
        outcomes.iter().filter(|one| one.after_admission_us >= SOON_US).collect();
    let soon = |one: &&&Outcome| {
        let played = one.playing_us.zip(one.admitted_us);
        played.is_some_and(|(played, admitted)| played.saturating_sub(admitted) <= SOON_US)
    };
    let share = stayed.iter().filter(soon).count() as f64 / stayed.len().max(1) as f64;
    (!stayed.is_empty()).then(|| round(share))
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| round(values.iter().sum::<f64>() / values.len() as f64))
}

/// Six digits are more than any figure here means.
fn round(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}
