//! The pictures of the README and the runs behind them.
//!
//! Owns which runs make which picture. Does not own drawing (see [`crate::plot`]).

use std::path::Path;

use crate::{
    plot::{Line, Picture, bare_continuity, crowd, tree_delay_ms},
    run::{each, run_whole},
    scenario::{Class, Crowd, Scenario, Session, SessionLaw},
    tally::Histogram,
    world::Run,
};

/// Gap of a stripe without standby, in seconds: noticing, a lookup, two round trips.
const BARE_GAP_S: f64 = 1.1;
/// A joiner passes chunks on after this, in seconds: a lookup, a ticket, a feed, a chunk.
const JOIN_STEP_S: f64 = 1.0;

/// How large the runs of a gallery are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scale {
    /// Viewers of the largest run.
    pub nodes: u32,
    /// Runs side by side.
    pub threads: usize,
    /// The seed of all of them.
    pub seed: u64,
}

/// Runs everything and draws every picture into a folder, which is made. `said` hears of each file.
///
/// # Errors
/// When a file cannot be written.
pub fn draw(folder: &Path, scale: Scale, mut said: impl FnMut(&str)) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    let base = base();
    let sizes = [scale.nodes / 8, scale.nodes / 4, scale.nodes / 2, scale.nodes];
    let sessions = [60.0, 120.0, 300.0, 900.0];
    let mut jobs: Vec<Scenario> = sizes.iter().map(|n| sized(&base, (*n).max(4))).collect();
    jobs.extend(sessions.iter().map(|mean| {
        let mut scenario = sized(&base, (scale.nodes / 4).max(4));
        scenario.session = Some(session(*mean));
        scenario
    }));
    jobs.push(flash(&base, scale.nodes));
    let runs =
        each(&jobs, scale.threads, |scenario| run_whole(scenario.clone(), scale.seed, |_| {}));
    let (by_size, rest) = runs.split_at(sizes.len());
    let (by_session, flash) = rest.split_at(sessions.len());
    let n: Vec<f64> = sizes.iter().map(|n| f64::from((*n).max(4))).collect();
    let largest = by_size.last();
    let pictures = [
        ("continuity_nodes.svg", continuity_by_size(&n, by_size)),
        ("continuity_churn.svg", continuity_by_session(&sessions, by_session)),
        ("delay.svg", delay(largest, n.last().copied().unwrap_or(1.0))),
        ("flash_crowd.svg", flash_crowd(flash.first(), f64::from(scale.nodes))),
        ("recovery.svg", recovery(by_session)),
        ("source_copies.svg", source_copies(&n, by_size)),
    ];
    for (name, picture) in pictures {
        picture.draw(&folder.join(name))?;
        said(name);
    }
    Ok(())
}

/// The mix of uplinks that the bars are about.
fn base() -> Scenario {
    let text = include_str!("../scenarios/bars/mix.toml");
    let mut scenario = Scenario::parse(text).expect("the scenario ships and is tested");
    scenario.settle_s = 0.0;
    scenario.duration_s = 40.0;
    scenario
}

fn sized(base: &Scenario, nodes: u32) -> Scenario {
    let mut scenario = base.clone();
    scenario.viewers.count = nodes;
    scenario
}

fn session(mean_s: f64) -> Session {
    let mut session = base().session.expect("the mix has sessions");
    (session.law, session.mean_s) = (SessionLaw::Lognormal, mean_s);
    session
}

fn flash(base: &Scenario, nodes: u32) -> Scenario {
    let mut scenario = sized(base, (nodes / 20).max(2));
    scenario.session = None;
    scenario.crowds =
        vec![Crowd { count: nodes, at_s: 16.0, over_s: 1.0, law: crate::scenario::JoinLaw::Ramp }];
    scenario
}

fn line(label: impl Into<String>, points: Vec<(f64, f64)>, measured: bool) -> Line {
    Line { label: label.into(), points, measured }
}

fn level(label: &str, y: f64, x: (f64, f64)) -> Line {
    line(label, vec![(x.0, y), (x.1, y)], false)
}

fn continuity_by_size(n: &[f64], runs: &[Run]) -> Picture {
    let most = n.last().copied().unwrap_or(1.0);
    let at = |which: fn(&Run) -> Option<f64>| {
        n.iter().zip(runs).filter_map(|(n, run)| Some((*n, which(run)?))).collect::<Vec<_>>()
    };
    let bare = n
        .iter()
        .zip(runs)
        .map(|(n, run)| (*n, bare_continuity(run.summary.depth_mean, BARE_GAP_S, 300.0)));
    Picture {
        title: "Continuity against the number of viewers (mean session 300 s)".into(),
        x: "viewers".into(),
        y: "chunks in time / chunks due".into(),
        x_range: 0.0..most * 1.05,
        y_range: 0.5..1.005,
        lines: vec![
            line("at lag 3 s", at(|run| run.summary.continuity_3000), true),
            line("at lag 1.5 s", at(|run| run.summary.continuity_1500), true),
            line("formula without standby and repair", bare.collect(), false),
            level("bar at 3 s", 0.9992, (0.0, most)),
        ],
    }
}

fn continuity_by_session(sessions: &[f64], runs: &[Run]) -> Picture {
    let most = sessions.last().copied().unwrap_or(1.0);
    let measured = sessions.iter().zip(runs);
    let measured = measured.filter_map(|(s, run)| Some((*s, run.summary.continuity_3000?)));
    let depth = runs.iter().map(|run| run.summary.depth_mean).fold(0.0, f64::max);
    let bare = (2..=90).map(|i| f64::from(i) * 10.0);
    let bare = bare.map(|s| (s, bare_continuity(depth, BARE_GAP_S, s))).collect();
    Picture {
        title: "Continuity at lag 3 s against churn, every departure abrupt".into(),
        x: "mean session in seconds".into(),
        y: "chunks in time / chunks due".into(),
        x_range: 0.0..most * 1.05,
        y_range: 0.5..1.005,
        lines: vec![
            line("measured", measured.collect(), true),
            line("formula without standby and repair", bare, false),
            level("bar at 300 s", 0.9992, (0.0, most)),
        ],
    }
}

fn delay(run: Option<&Run>, nodes: f64) -> Picture {
    let points = run.map_or(Vec::new(), |run| cdf(&run.tally.delay, 3_000));
    let scenario = base();
    let rate = scenario.stream.rate.as_bps() as f64;
    let copies = mean_copies(&scenario.viewers.classes);
    let fan_out = f64::from(scenario.stream.stripes) * copies;
    let chunk =
        astral_core::media::cutter::target_bytes(scenario.stream.rate, scenario.stream.stripes);
    let formula = tree_delay_ms(nodes, fan_out, 60.0, chunk as f64, rate * copies);
    Picture {
        title: format!("Delay from the source to playing viewers, {nodes} viewers"),
        x: "milliseconds".into(),
        y: "share of chunks".into(),
        x_range: 0.0..3_000.0,
        y_range: 0.0..1.0,
        lines: vec![
            line("measured", points, true),
            line("formula, mean of a full tree", vec![(formula, 0.0), (formula, 1.0)], false),
            line("bar of the median", vec![(500.0, 0.0), (500.0, 0.5)], false),
            line("bar of 99 %", vec![(1_300.0, 0.0), (1_300.0, 0.99)], false),
        ],
    }
}

fn flash_crowd(run: Option<&Run>, nodes: f64) -> Picture {
    let from = 16.0;
    let series = run.map_or(&[][..], |run| &run.series);
    let playing = series.iter().map(|row| (row.at_s as f64 - from, row.playing as f64));
    let asked = series.iter().map(|row| (row.at_s as f64 - from, row.asked as f64));
    let shown = |points: Vec<(f64, f64)>| -> Vec<(f64, f64)> {
        points.into_iter().filter(|(t, _)| *t >= -2.0).collect()
    };
    let scenario = base();
    let old = (nodes / 20.0).max(2.0);
    let spare = scenario.source.copies + old * (mean_copies(&scenario.viewers.classes) - 1.0);
    let copies = mean_copies(&scenario.viewers.classes) * 0.9;
    let formula = (0..=48).map(|half| f64::from(half) / 2.0);
    let formula = formula
        .map(|t| (t, (old + crowd(t, spare.max(1.0), copies, JOIN_STEP_S)).min(old + nodes)))
        .collect();
    Picture {
        title: format!("{nodes} viewers come at once onto {old}"),
        x: "seconds after the first of them".into(),
        y: "viewers".into(),
        x_range: -2.0..24.0,
        y_range: 0.0..(nodes + old) * 1.1,
        lines: vec![
            line("playing", shown(playing.collect()), true),
            line("want to watch", shown(asked.collect()), true),
            line("formula of growth by spare uplinks", formula, false),
        ],
    }
}

fn recovery(runs: &[Run]) -> Picture {
    let points = runs.get(1).map_or(Vec::new(), |run| cdf(&run.tally.repair, 3_000));
    Picture {
        title: "Gap of a stripe whose parent died (mean session 120 s)".into(),
        x: "milliseconds from the last chunk of the old parent to the first of the new".into(),
        y: "share of failures".into(),
        x_range: 0.0..3_000.0,
        y_range: 0.0..1.0,
        lines: vec![
            line("measured", points, true),
            line("bar of the median", vec![(600.0, 0.0), (600.0, 0.5)], false),
            line("bar of 99 %", vec![(1_200.0, 0.0), (1_200.0, 0.99)], false),
        ],
    }
}

fn source_copies(n: &[f64], runs: &[Run]) -> Picture {
    let most = n.last().copied().unwrap_or(1.0);
    let measured = n.iter().zip(runs).map(|(n, run)| (*n, run.summary.source_copies)).collect();
    Picture {
        title: "Copies that the source sends".into(),
        x: "viewers".into(),
        y: "copies".into(),
        x_range: 0.0..most * 1.05,
        y_range: 0.0..16.0,
        lines: vec![
            line("measured", measured, true),
            level("bar", 10.0, (0.0, most)),
            line("without the overlay: one for each viewer", vec![(0.0, 0.0), (16.0, 16.0)], false),
        ],
    }
}

fn cdf(histogram: &Histogram, most: usize) -> Vec<(f64, f64)> {
    histogram.cumulative(10, most)
}

fn mean_copies(classes: &[Class]) -> f64 {
    let total: f64 = classes.iter().map(|class| class.share).sum();
    classes.iter().map(|class| class.share * class.copies).sum::<f64>() / total.max(1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_gallery_has_every_picture() {
        let folder = std::env::temp_dir().join(format!("astral-gallery-{}", std::process::id()));
        let mut names = Vec::new();
        let scale = Scale { nodes: 8, threads: 2, seed: 1 };
        draw(&folder, scale, |name| names.push(name.to_owned())).unwrap();
        assert_eq!(names.len(), 6);
        for name in names {
            assert!(std::fs::metadata(folder.join(name)).unwrap().len() > 1_000);
        }
        std::fs::remove_dir_all(folder).unwrap();
    }
}
