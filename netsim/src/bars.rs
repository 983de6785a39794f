//! The table of bars: every scenario of a folder, measured beside its thresholds.
//!
//! Owns loading, scaling and the table. Does not own the thresholds: they are the scenarios'.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;

use crate::{run::each, scenario::Scenario, summary::Summary};

/// Loads scenarios and folders of them, in the order of their names.
///
/// # Errors
/// When one cannot be read or makes no sense.
pub fn load(paths: &[PathBuf]) -> anyhow::Result<Vec<Scenario>> {
    let mut files: Vec<PathBuf> = Vec::new();
    for path in paths {
        if path.is_dir() {
            let entries = fs::read_dir(path).with_context(|| format!("{}", path.display()))?;
            let found: Result<Vec<PathBuf>, _> =
                entries.map(|entry| entry.map(|entry| entry.path())).collect();
            files.extend(found?.into_iter().filter(|p| p.extension().is_some_and(|e| e == "toml")));
        } else {
            files.push(path.clone());
        }
    }
    files.sort();
    files.iter().map(|path: &PathBuf| Scenario::load(Path::new(path))).collect()
}

/// The scenario with another number of viewers; its crowds change in the same proportion.
#[must_use]
pub fn scaled(scenario: &Scenario, nodes: u32) -> Scenario {
    let mut scaled = scenario.clone();
    let audience = f64::from(scenario.audience().max(1));
    let share = f64::from(nodes) / audience;
    let part = |count: u32| ((f64::from(count) * share).round() as u32).max(1);
    scaled.viewers.count = part(scenario.viewers.count);
    scaled.crowds.iter_mut().for_each(|crowd| crowd.count = part(crowd.count));
    scaled
}

/// Runs them all.
#[must_use]
pub fn run(
    scenarios: &[Scenario],
    nodes: Option<u32>,
    seed: u64,
    threads: usize,
    done: impl Fn(&Summary) + Sync,
) -> Vec<Summary> {
    each(scenarios, threads, |scenario| {
        let scenario = nodes.map_or_else(|| scenario.clone(), |nodes| scaled(scenario, nodes));
        let summary = crate::run::run(scenario, seed, |_| {});
        done(&summary);
        summary
    })
}

/// The table in Markdown: a line for each bar, and below what was missed and violated, and why.
#[must_use]
pub fn table(summaries: &[Summary]) -> String {
    let mut out = String::from("| scenario | viewers | measure | measured | bar | |\n");
    out.push_str("|---|---|---|---|---|---|\n");
    for summary in summaries {
        for bar in &summary.bars {
            let value = bar.value.map_or("-".to_owned(), |value| format!("{value}"));
            let mark = if bar.holds { "holds" } else { "**missed**" };
            // Writing into a string cannot fail.
            let _ = writeln!(
                out,
                "| {} | {} | {} | {value} | {} | {mark} |",
                summary.scenario, summary.viewers, bar.name, bar.bound
            );
        }
    }
    for summary in summaries.iter().filter(|summary| !summary.ok) {
        let missed = summary.missed;
        let _ = writeln!(
            out,
            "\n{}: {} % played; chunks missing at 3 s: {} orphan, {} late, {} upstream; \
             {} violations",
            summary.scenario,
            (summary.played * 1e3).round() / 10.0,
            missed.orphan,
            missed.late,
            missed.upstream,
            summary.violation_count
        );
        for violation in summary.violations.iter().take(3) {
            let _ = writeln!(out, "  at {} ms: {}", violation.at_ms, violation.what);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_of_the_table_is_sound_and_has_bars() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/bars");
        let scenarios = load(&[folder]).unwrap();
        assert!(scenarios.len() >= 12, "{}", scenarios.len());
        for scenario in &scenarios {
            assert_ne!(scenario.bars, crate::scenario::Bars::default(), "{}", scenario.name);
            let small = scaled(scenario, 100);
            assert!((90..=110).contains(&small.audience()), "{}", scenario.name);
        }
    }

    #[test]
    fn the_table_shows_each_bar() {
        let text = "name = 'x'\nduration_s = 8\nsettle_s = 0\n[viewers]\ncount = 2\n[bars]\n\
                    played = 1.0\ndelay_p50_ms = 0.0\n";
        let summaries = run(&[Scenario::parse(text).unwrap()], None, 1, 1, |_| {});
        let table = table(&summaries);
        assert!(table.contains("| x | 2 | played | 1 | 1 | holds |"), "{table}");
        assert!(table.contains("**missed**") && table.contains("x: 100 % played"), "{table}");
    }
}
