//! A run as files: what a spreadsheet or a plot reads.
//!
//! Owns the columns of `nodes.csv` and `series.csv`. Does not own the figures.

use std::{fs, io, path::Path};

use crate::{
    summary::Outcome,
    world::{Run, Second},
};

/// Writes `summary.json`, `nodes.csv` (one viewer a line), `series.csv` (one second a line) and
/// `delay.csv` (the distribution of delays) into a folder, which is made.
///
/// # Errors
/// When a file cannot be written.
pub fn write(run: &Run, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join("summary.json"), serde_json::to_string_pretty(&run.summary)? + "\n")?;
    fs::write(folder.join("nodes.csv"), nodes(&run.outcomes))?;
    fs::write(folder.join("series.csv"), series(&run.series))?;
    fs::write(folder.join("delay.csv"), delays(run))
}

fn nodes(outcomes: &[Outcome]) -> String {
    let mut out = String::from(
        "node,stayed,played,contributes,in_crowd,misbehaved,asked_s,admitted_ms,playing_ms,\
         due_1500,there_1500,due_3000,there_3000,delivered,skips,skipped\n",
    );
    let ms = |us: Option<u64>| us.map_or(String::new(), |us| (us / 1_000).to_string());
    let mut sorted: Vec<&Outcome> = outcomes.iter().collect();
    sorted.sort_by_key(|outcome| outcome.node);
    for one in sorted {
        let [(due_low, low), (due_high, high)] = one.continuity;
        out += &format!(
            "{},{},{},{},{},{},{:.3},{},{},{due_low},{low},{due_high},{high},{},{},{}\n",
            one.node,
            one.stayed,
            one.played,
            one.contributes,
            one.in_crowd,
            one.misbehaved,
            one.asked_at as f64 / 1e6,
            ms(one.admitted_us),
            ms(one.playing_us),
            one.delivered,
            one.skips,
            one.skipped
        );
    }
    out
}

fn series(seconds: &[Second]) -> String {
    let mut out = String::from(
        "at_s,viewers,asked,admitted,playing,orphans,source_copies,payload,repair,bytes,events\n",
    );
    for one in seconds {
        out += &format!(
            "{},{},{},{},{},{},{:.4},{},{},{},{}\n",
            one.at_s,
            one.viewers,
            one.asked,
            one.admitted,
            one.playing,
            one.orphans,
            one.source_copies,
            one.payload,
            one.repair,
            one.bytes,
            one.events
        );
    }
    out
}

fn delays(run: &Run) -> String {
    let mut out = String::from("ms,share\n");
    for (ms, share) in run.tally.delay.cumulative(10, 5_000) {
        out += &format!("{ms},{share:.6}\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{run::run_whole, scenario::Scenario};

    #[test]
    fn every_viewer_and_every_second_has_a_line() {
        let text = "name = 'x'\nduration_s = 8\nsettle_s = 0\n[viewers]\ncount = 3\n";
        let run = run_whole(Scenario::parse(text).unwrap(), 1, |_| {});
        assert_eq!(nodes(&run.outcomes).lines().count(), 1 + 3);
        assert_eq!(series(&run.series).lines().count(), 1 + 8);
        let columns = |text: &str| -> Vec<usize> {
            text.lines().map(|line| line.split(',').count()).collect()
        };
        assert!(columns(&nodes(&run.outcomes)).iter().all(|n| *n == 16));
        assert!(columns(&series(&run.series)).iter().all(|n| *n == 11));
    }
}
