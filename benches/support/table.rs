//! What a benchmark found: printed line by line, kept as JSON, and drawn.

use std::{collections::BTreeMap, fs, path::PathBuf};

use astral_netsim::plot::{Line, Picture};
use serde_json::{Value, json};

use crate::process::load;

/// Rows of one run, in `target/bench/NAME.json` and `NAME.svg`.
pub struct Table {
    name: &'static str,
    rows: Vec<Value>,
}

impl Table {
    /// Begins a table and prints its head.
    pub fn new(name: &'static str, about: &str) -> Self {
        println!("{about}; load {}", load());
        println!(
            "{:<16} {:>4} {:>10} {:>10} {:>9} {:>9}",
            "server", "N", "s/Gbit", "Mbit/s", "p50 ms", "p99 ms"
        );
        Self { name, rows: Vec::new() }
    }

    /// Prints a row and keeps it, with the load of the machine at this moment.
    pub fn row(&mut self, mut row: Value) {
        let number = |field: &str| match row[field].as_f64() {
            Some(number) if number >= 100.0 => format!("{number:.0}"),
            Some(number) => format!("{number:.3}"),
            None => "-".to_owned(),
        };
        println!(
            "{:<16} {:>4} {:>10} {:>10} {:>9} {:>9}",
            row["server"].as_str().unwrap_or_default(),
            row["n"],
            number("s_per_gbit"),
            number("mbps"),
            number("p50_ms"),
            number("p99_ms"),
        );
        row["load"] = json!(load());
        self.rows.push(row);
    }

    /// Says that something can't be measured here.
    pub fn missing(&self, server: &str, n: usize, why: &str) {
        println!("{server:<16} {n:>4} {why}");
    }

    /// Writes what was kept, and what else was measured.
    pub fn write(mut self, also: Vec<Value>) {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("../bench");
        fs::create_dir_all(&folder).expect("a folder below target");
        let folder = folder.canonicalize().expect("the folder that was just made");
        let picture = folder.join(self.name).with_extension("svg");
        self.picture().draw(&picture).expect("a picture below target");
        self.rows.extend(also);
        let file = folder.join(self.name).with_extension("json");
        let text = serde_json::to_string_pretty(&self.rows).expect("plain values");
        fs::write(&file, text).expect("a file below target");
        println!("{}\n{}", file.display(), picture.display());
    }

    fn picture(&self) -> Picture {
        let mut lines: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
        for row in &self.rows {
            let point = (row["n"].as_f64(), row["s_per_gbit"].as_f64());
            if let (Some(n), Some(cost), Some(server)) = (point.0, point.1, row["server"].as_str())
            {
                lines.entry(server).or_default().push((n, cost));
            }
        }
        let points = || lines.values().flatten();
        let widest = points().map(|(n, _)| *n).fold(1.0, f64::max);
        // One receiver pays for everything that is not per receiver; it would hide the rest.
        let dearest = points().filter(|(n, _)| *n > 1.0).map(|(_, cost)| *cost).fold(0.5, f64::max);
        Picture {
            title: format!("{}: CPU of the server per delivered gigabit", self.name),
            x: "receivers".to_owned(),
            y: "seconds per Gbit".to_owned(),
            x_range: 0.0..widest * 1.05,
            y_range: 0.0..dearest * 1.2,
            lines: lines
                .iter()
                .map(|(label, points)| {
                    let (label, points) = ((*label).to_owned(), points.clone());
                    Line { label, points, measured: true }
                })
                .collect(),
        }
    }
}
