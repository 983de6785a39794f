//! What a lab showed, beside what the simulator said.
//!
//! Owns figures and their table. Does not own how they were measured (see [`super::meter`]).

use std::{collections::BTreeMap, fmt};

use astral_netsim::{
    summary::Summary,
    tally::Histogram,
    world::{Kind, Planned},
};
use serde::Serialize;

use super::{
    hub::Counts,
    meter::{Cuts, Got, Seen},
    process::Said,
    wire::FINER,
};

/// A lab whose own error is above this at the 99.9th percentile shows nothing, in milliseconds.
const ERROR_MS_MAX: f64 = 5.0;
/// Causes of moves that are failures of the old parent, as events name them.
const FAILURES: [&str; 5] = ["closed", "silent", "expired", "withheld", "starved"];

/// One node's life.
#[derive(Clone, Debug, Default)]
pub struct Lived {
    /// When its user wanted to watch.
    pub wanted_at: Option<u64>,
    /// When it was killed or left.
    pub gone_at: Option<u64>,
    /// When it was looked at last.
    pub until: u64,
    /// Moves by their cause.
    pub moves: BTreeMap<String, u64>,
    /// Gaps of moves away from failed parents, in milliseconds.
    pub gaps: Vec<u64>,
    /// Offences that it saw, in words.
    pub offences: Vec<String>,
    /// Hops at the end.
    pub hops: Option<u64>,
    /// Media that it sent and, of a source, cut; in bytes.
    pub sent_media: u64,
    /// See `sent_media`.
    pub bytes: u64,
}

impl Lived {
    /// Takes in what a node told.
    pub fn hear(&mut self, said: &Said) {
        for event in &said.events {
            match event["event"].as_str() {
                Some("parent_changed") if event["old"].is_string() => {
                    let cause = event["cause"].as_str().unwrap_or("?").to_owned();
                    if FAILURES.contains(&cause.as_str()) {
                        self.gaps.extend(event["gap_ms"].as_u64());
                    }
                    *self.moves.entry(cause).or_default() += 1;
                }
                Some("offence") => self.offences.push(event["kind"].to_string()),
                _ => {}
            }
        }
        if let Some(status) = &said.status {
            self.hops = status["streams"][0]["hops"].as_u64();
            self.sent_media = status["sent_media_bytes"].as_u64().unwrap_or(0);
            self.bytes = status["streams"][0]["bytes"].as_u64().unwrap_or(0);
        }
    }
}

/// How exact the lab itself was.
#[derive(Debug)]
pub struct Accuracy {
    /// What became of packets.
    pub counts: Counts,
    /// How late packets were handed over.
    pub late: Histogram,
    /// How late probes were, in microseconds.
    pub probe: Vec<u64>,
}

/// Median, 95th, 99th percentile, and how many.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Spread {
    /// How many were measured.
    pub count: u64,
    /// Median.
    pub p50: Option<f64>,
    /// 95th.
    pub p95: Option<f64>,
    /// 99th.
    pub p99: Option<f64>,
}

impl Spread {
    /// Of any values.
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |p| percentile(&values, p);
        Self { count: values.len() as u64, p50: at(0.5), p95: at(0.95), p99: at(0.99) }
    }
}

fn percentile(sorted: &[f64], p: f64) -> Option<f64> {
    let rank = (sorted.len() as f64 * p).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

/// The measures that both have.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Column {
    /// Share of viewers that saw a picture.
    pub played: f64,
    /// Mean share of tags or chunks that were there after 1.5 s.
    pub continuity_1500: Option<f64>,
    /// After 3 s.
    pub continuity_3000: Option<f64>,
    /// The worst viewer's, after 3 s; the simulator does not tell it.
    pub worst_3000: Option<f64>,
    /// In milliseconds.
    pub delay_ms: Spread,
    /// From the wish to watch, in milliseconds.
    pub first_picture_ms: Spread,
    /// Gaps after a parent failed, in milliseconds.
    pub repair_ms: Spread,
    /// Moves of stripes.
    pub moves: u64,
    /// What players left out.
    pub skipped: u64,
    /// Media sent by the source over media cut.
    pub source_copies: Option<f64>,
    /// Offences seen.
    pub offences: u64,
}

/// One viewer.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Viewer {
    /// Its number.
    pub number: u32,
    /// What it is behind.
    pub nat: String,
    /// Its uplink, in kbit/s.
    pub uplink_kbps: u64,
    /// Share after 1.5 s.
    pub continuity_1500: Option<f64>,
    /// Share after 3 s.
    pub continuity_3000: Option<f64>,
    /// In milliseconds.
    pub delay_ms: Spread,
    /// Hops at the end.
    pub hops: Option<u64>,
    /// Moves by their cause.
    pub moves: BTreeMap<String, u64>,
    /// Tags left out.
    pub skipped: u64,
    /// Tags that the source never cut, or out of order.
    pub foreign: u64,
    /// Offences that it saw.
    pub offences: Vec<String>,
    /// It was killed or left.
    pub is_gone: bool,
}

/// A lab's result.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// Name of the scenario.
    pub scenario: String,
    /// The seed.
    pub seed: u64,
    /// Everybody played, nothing was altered or left out, and the lab was exact enough.
    pub ok: bool,
    /// The lab.
    pub lab: Column,
    /// The simulator.
    pub netsim: Column,
    /// Each viewer.
    pub viewers: Vec<Viewer>,
    /// Packets given to their receivers.
    pub packets: u64,
    /// Share of packets lost by the model.
    pub loss: f64,
    /// Packets that found a full buffer.
    pub full: u64,
    /// How late the hub handed packets over, in milliseconds: median, 99th, 99.9th.
    pub hub_late_ms: [Option<f64>; 3],
    /// The same of probes from one end to the other.
    pub probe_late_ms: [Option<f64>; 3],
    /// Packets that were dropped because more were under way than the hub keeps.
    pub overflow: u64,
}

impl Report {
    /// Puts together what was measured.
    #[must_use]
    pub fn new(
        plan: &[Planned],
        lived: &[Lived],
        seen: &[Seen],
        accuracy: Accuracy,
        predicted: &Summary,
    ) -> Self {
        let source = seen.first().cloned().unwrap_or_default();
        let cuts = Cuts::new(&source);
        let people = plan.iter().zip(lived).filter(|(planned, _)| planned.kind != Kind::Supernode);
        let mut all = Vec::new();
        for ((planned, lived), seen) in people.zip(seen) {
            if let Kind::Viewer(number) = planned.kind {
                all.push((number, planned, lived, cuts.compare(seen, lived.until)));
            }
        }
        let viewers: Vec<Viewer> = all.iter().map(viewer).collect();
        let Accuracy { counts, late, probe } = accuracy;
        let probe = {
            let mut ms: Vec<f64> = probe.into_iter().map(|us| us as f64 / 1e3).collect();
            ms.sort_by(f64::total_cmp);
            [0.5, 0.99, 0.999].map(|p| percentile(&ms, p))
        };
        let hub =
            [0.5, 0.99, 0.999].map(|p| late.percentile(p).map(|bucket| bucket / FINER as f64));
        let lab = column(&all, lived.first());
        let sent = counts.delivered + counts.lost;
        Self {
            scenario: predicted.scenario.clone(),
            seed: predicted.seed,
            ok: lab.played >= 1.0
                && lab.skipped == 0
                && lab.offences == 0
                && viewers.iter().all(|viewer| viewer.foreign == 0)
                && hub[2].is_some_and(|ms| ms <= ERROR_MS_MAX),
            lab,
            netsim: prediction(predicted),
            viewers,
            packets: counts.delivered,
            loss: counts.lost as f64 / sent.max(1) as f64,
            full: counts.full,
            hub_late_ms: hub,
            probe_late_ms: probe,
            overflow: counts.overflow,
        }
    }
}

/// A viewer: its number, what it is, what it told, what came out of it.
type One<'a> = (u32, &'a Planned, &'a Lived, Got);

fn share(there: u64, due: u64) -> Option<f64> {
    (due > 0).then(|| there as f64 / due as f64)
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

fn ms(values: &[u64]) -> Vec<f64> {
    values.iter().map(|us| *us as f64 / 1e3).collect()
}

fn viewer((number, planned, lived, got): &One<'_>) -> Viewer {
    Viewer {
        number: *number,
        nat: format!("{:?}", planned.nat).to_lowercase(),
        uplink_kbps: planned.uplink.as_bps() / 1_000,
        continuity_1500: share(got.on_time[0], got.due),
        continuity_3000: share(got.on_time[1], got.due),
        delay_ms: Spread::of(ms(&got.delays)),
        hops: lived.hops,
        moves: lived.moves.clone(),
        skipped: got.skipped,
        foreign: got.foreign,
        offences: lived.offences.clone(),
        is_gone: lived.gone_at.is_some(),
    }
}

fn column(all: &[One<'_>], source: Option<&Lived>) -> Column {
    let wanted: Vec<&One<'_>> = all.iter().filter(|one| one.2.wanted_at.is_some()).collect();
    let played = wanted.iter().filter(|one| one.3.first_at.is_some()).count();
    let at = |lag: usize| -> Vec<f64> {
        wanted.iter().filter_map(|one| share(one.3.on_time[lag], one.3.due)).collect()
    };
    let first = |one: &&One<'_>| one.3.first_at.zip(one.2.wanted_at).map(|(at, from)| at - from);
    let first: Vec<u64> = wanted.iter().filter_map(first).collect();
    let delays: Vec<u64> = wanted.iter().flat_map(|one| one.3.delays.iter().copied()).collect();
    let gaps = wanted.iter().flat_map(|one| one.2.gaps.iter().map(|ms| *ms as f64)).collect();
    let high = at(1);
    Column {
        played: played as f64 / wanted.len().max(1) as f64,
        continuity_1500: mean(&at(0)),
        continuity_3000: mean(&high),
        worst_3000: high.iter().copied().min_by(f64::total_cmp),
        delay_ms: Spread::of(ms(&delays)),
        first_picture_ms: Spread::of(ms(&first)),
        repair_ms: Spread::of(gaps),
        moves: wanted.iter().flat_map(|one| one.2.moves.values()).sum(),
        skipped: wanted.iter().map(|one| one.3.skipped).sum(),
        source_copies: source.and_then(|source| share(source.sent_media, source.bytes)),
        offences: wanted.iter().map(|one| one.2.offences.len() as u64).sum(),
    }
}

fn prediction(summary: &Summary) -> Column {
    let spread = |p: astral_netsim::summary::Percentiles| Spread {
        count: p.count,
        p50: p.p50,
        p95: p.p95,
        p99: p.p99,
    };
    Column {
        played: summary.played,
        continuity_1500: summary.continuity_1500,
        continuity_3000: summary.continuity_3000,
        worst_3000: None,
        delay_ms: spread(summary.delay_ms),
        first_picture_ms: spread(summary.first_picture_ms),
        repair_ms: spread(summary.repair_ms),
        moves: summary.counters.moves,
        skipped: summary.skipped,
        source_copies: Some(summary.source_copies),
        offences: summary.counters.offences,
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.ok { "ok" } else { "FAILED" };
        let (name, seed) = (&self.scenario, self.seed);
        writeln!(f, "{name} seed {seed}, {} viewers: {verdict}", self.viewers.len())?;
        writeln!(f, "  {:<24}{:>24}{:>24}", "", "lab", "netsim run")?;
        let mut row = |name: &str, of: &dyn Fn(&Column) -> String| {
            writeln!(f, "  {name:<24}{:>24}{:>24}", of(&self.lab), of(&self.netsim))
        };
        let part = |value: Option<f64>| value.map_or("-".to_owned(), |part| format!("{part:.5}"));
        let spread = |spread: Spread| {
            let one = |ms: Option<f64>| ms.map_or("-".to_owned(), |ms| format!("{ms:.0}"));
            format!("{} / {} / {}", one(spread.p50), one(spread.p95), one(spread.p99))
        };
        row("played", &|of| format!("{:.1} %", of.played * 100.0))?;
        row("continuity 1.5 s", &|of| part(of.continuity_1500))?;
        row("continuity 3 s", &|of| part(of.continuity_3000))?;
        row("  worst viewer", &|of| part(of.worst_3000))?;
        row("delay ms 50/95/99", &|of| spread(of.delay_ms))?;
        row("first picture ms", &|of| spread(of.first_picture_ms))?;
        row("failovers", &|of| of.repair_ms.count.to_string())?;
        row("  gap ms 50/95/99", &|of| spread(of.repair_ms))?;
        row("moves", &|of| of.moves.to_string())?;
        row("skipped", &|of| of.skipped.to_string())?;
        row("source copies", &|of| of.source_copies.map_or("-".into(), |c| format!("{c:.2}")))?;
        row("offences", &|of| of.offences.to_string())?;
        writeln!(f, "  viewer nat         kbit/s  hops  at 1.5 s  at 3 s  delay p50 p99  moves")?;
        for viewer in &self.viewers {
            let ms = |ms: Option<f64>| ms.map_or("-".to_owned(), |ms| format!("{ms:.0}"));
            let share = |share: Option<f64>| share.map_or("-".to_owned(), |s| format!("{s:.4}"));
            write!(
                f,
                "  {:>6} {:<11} {:>6}  {:>4}  {:>8}  {:>6}  {:>9} {:>4} ",
                viewer.number,
                viewer.nat,
                viewer.uplink_kbps,
                viewer.hops.map_or("-".to_owned(), |hops| hops.to_string()),
                share(viewer.continuity_1500),
                share(viewer.continuity_3000),
                ms(viewer.delay_ms.p50),
                ms(viewer.delay_ms.p99),
            )?;
            for (cause, count) in &viewer.moves {
                write!(f, " {cause} {count}")?;
            }
            if viewer.skipped + viewer.foreign > 0 {
                write!(f, "  skipped {} foreign {}", viewer.skipped, viewer.foreign)?;
            }
            if !viewer.offences.is_empty() {
                write!(f, "  offences {:?}", viewer.offences)?;
            }
            writeln!(f, "{}", if viewer.is_gone { "  gone" } else { "" })?;
        }
        let late = |late: [Option<f64>; 3]| {
            late.map(|ms| ms.map_or("-".to_owned(), |ms| format!("{ms:.2}"))).join(" / ")
        };
        writeln!(
            f,
            "  the lab: {} packets, {:.2} % lost, {} before full buffers, {} too many",
            self.packets,
            self.loss * 100.0,
            self.full,
            self.overflow
        )?;
        writeln!(f, "  handed over late by {} ms (p50/p99/p99.9)", late(self.hub_late_ms))?;
        writeln!(f, "  probes of 50 ms late by {} ms", late(self.probe_late_ms))?;
        if self.hub_late_ms[2].is_none_or(|ms| ms > ERROR_MS_MAX) {
            writeln!(f, "  the machine was too busy: this lab shows little")?;
        }
        Ok(())
    }
}
