//! One scenario with one field changed over and over: a table that shows what the field is worth.
//!
//! Owns the change by a dotted name and the table. Does not own what is measured.

use std::fmt::Write as _;

use anyhow::{Context, bail};

use crate::{run::each, scenario::Scenario, summary::Summary};

/// Measures of one value, over its seeds.
#[derive(Clone, PartialEq, Debug)]
pub struct Row {
    /// What the field was.
    pub value: String,
    /// One for each seed.
    pub summaries: Vec<Summary>,
}

/// A column: its title and what it shows of one run.
type Column = (&'static str, fn(&Summary) -> Option<f64>);

const COLUMNS: [Column; 12] = [
    ("played", |s| Some(s.played)),
    ("cont 1.5 s", |s| s.continuity_1500),
    ("cont 3 s", |s| s.continuity_3000),
    ("below 95 %", |s| s.below_95),
    ("delay p50", |s| s.delay_ms.p50),
    ("delay p99", |s| s.delay_ms.p99),
    ("first p50", |s| s.first_picture_ms.p50),
    ("first p95", |s| s.first_picture_ms.p95),
    ("repair p99", |s| s.repair_ms.p99),
    ("copies", |s| Some(s.source_copies)),
    ("overhead", |s| Some(s.overhead)),
    ("violations", |s| Some(s.violation_count as f64)),
];

/// The scenario with one field changed: `tuning.lease_ms`, `viewers.count`, `session.mean_s`...
///
/// # Errors
/// When there is no such field, or it cannot have this value.
pub fn with_field(scenario: &Scenario, name: &str, value: &str) -> anyhow::Result<Scenario> {
    let mut table = toml::Table::try_from(scenario)?;
    let mut at = &mut table;
    let mut parts = name.split('.').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            let parsed: toml::Table = toml::from_str(&format!("x = {value}"))
                .or_else(|_| toml::from_str(&format!("x = '{value}'")))
                .with_context(|| format!("{value} is no value"))?;
            let value = parsed.get("x").cloned().context("just written")?;
            at.insert(part.to_owned(), value);
            break;
        }
        let inner = at.entry(part).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        let toml::Value::Table(inner) = inner else { bail!("{part} in {name} has no fields") };
        at = inner;
    }
    let mut changed = Scenario::parse(&toml::to_string(&table)?)
        .with_context(|| format!("with {name} = {value}"))?;
    if let (Some(new), Some(old)) = (&mut changed.session, &scenario.session) {
        new.lengths = old.lengths.clone();
    }
    Ok(changed)
}

/// Runs every value with every seed.
///
/// # Errors
/// As [`with_field`].
pub fn sweep(
    scenario: &Scenario,
    name: &str,
    values: &[String],
    seeds: &[u64],
    threads: usize,
) -> anyhow::Result<Vec<Row>> {
    let mut jobs = Vec::new();
    for value in values {
        let changed = with_field(scenario, name, value)?;
        jobs.extend(seeds.iter().map(|seed| (changed.clone(), *seed)));
    }
    let summaries =
        each(&jobs, threads, |(scenario, seed)| crate::run::run(scenario.clone(), *seed, |_| {}));
    let rows = values.iter().zip(summaries.chunks(seeds.len().max(1)));
    Ok(rows.map(|(value, some)| Row { value: value.clone(), summaries: some.to_vec() }).collect())
}

/// The table in Markdown, each figure the mean over the seeds.
#[must_use]
pub fn table(name: &str, rows: &[Row]) -> String {
    let mut out = format!("| {name} |");
    COLUMNS.iter().for_each(|(title, _)| out.extend([" ", title, " |"]));
    out.push_str("\n|---|");
    COLUMNS.iter().for_each(|_| out.push_str("---|"));
    for row in rows {
        // Writing into a string cannot fail.
        let _ = write!(out, "\n| {} |", row.value);
        for (_, show) in COLUMNS {
            let values: Vec<f64> = row.summaries.iter().filter_map(show).collect();
            let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
            let _ = match (values.is_empty(), mean.abs() < 20.0) {
                (true, _) => write!(out, " - |"),
                (false, true) => write!(out, " {mean:.4} |"),
                (false, false) => write!(out, " {mean:.0} |"),
            };
        }
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Scenario {
        Scenario::parse("name = 'x'\nduration_s = 8\nsettle_s = 0\n[viewers]\ncount = 3\n").unwrap()
    }

    #[test]
    fn a_field_is_changed_by_its_dotted_name() {
        let scenario = with_field(&small(), "tuning.lease_ms", "5000").unwrap();
        assert_eq!(scenario.overlay_tuning().lease.as_secs(), 5);
        assert_eq!(with_field(&small(), "viewers.count", "7").unwrap().viewers.count, 7);
        assert_eq!(
            with_field(&small(), "stream.rate", "1Mbit").unwrap().stream.rate.as_bps(),
            1_000_000
        );
        assert!(with_field(&small(), "tuning.nothing", "5").is_err());
        assert!(with_field(&small(), "name.nothing", "5").is_err());
    }

    #[test]
    fn a_table_has_a_row_for_each_value() {
        let values = ["1".to_owned(), "2".to_owned()];
        let rows = sweep(&small(), "viewers.count", &values, &[1], 2).unwrap();
        let table = table("viewers.count", &rows);
        assert_eq!(table.lines().count(), 4, "{table}");
        assert!(table.contains("| 2 | 1.0000 |"), "{table}");
    }
}
