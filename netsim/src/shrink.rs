//! The smallest scenario that still fails the same way.
//!
//! Owns delta debugging over what happens from outside (faults, then viewers), and the plainer things
//! tried after it: a shorter run, nobody who leaves, no loss. Because every draw is a function of what
//! it is for, taking something out leaves the rest as it was. Does not own what a failure is.

use crate::{run::run, scenario::Scenario, summary::Summary};

/// How a run failed: the first violation without its numbers, or else the first missed bar.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure(String);

impl Failure {
    /// The failure of a run, if it failed.
    #[must_use]
    pub fn of(summary: &Summary) -> Option<Self> {
        if let Some(violation) = summary.violations.first() {
            let plain = |word: &&str| !word.contains(|c: char| c.is_ascii_digit());
            let words: Vec<&str> = violation.what.split_whitespace().filter(plain).collect();
            return Some(Self(words.join(" ")));
        }
        let missed = summary.bars.iter().find(|bar| !bar.holds)?;
        Some(Self(format!("bar {}", missed.name)))
    }

    /// In words, without numbers.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A shrunk scenario.
#[derive(Clone, PartialEq, Debug)]
pub struct Shrunk {
    /// What is left.
    pub scenario: Scenario,
    /// How it fails.
    pub failure: Failure,
    /// Runs that it took.
    pub runs: u32,
}

/// Shrinks a scenario that fails with this seed, with so many runs at most; `None` when it does not
/// fail.
#[must_use]
pub fn shrink(
    scenario: Scenario,
    seed: u64,
    runs_max: u32,
    mut tried: impl FnMut(&Scenario, bool),
) -> Option<Shrunk> {
    let first = run(scenario.clone(), seed, |_| {});
    let failure = Failure::of(&first)?;
    let mut runs = 1;
    let mut best = scenario;
    let mut fails = |scenario: &Scenario| {
        if runs >= runs_max || scenario.check().is_err() {
            return false;
        }
        runs += 1;
        let same = Failure::of(&run(scenario.clone(), seed, |_| {})).as_ref() == Some(&failure);
        tried(scenario, same);
        same
    };
    if let Some(violation) = first.violations.first() {
        let at_s = violation.at_ms as f64 / 1e3;
        let shorter =
            Scenario { duration_s: (at_s + 1.0).max(1.0).floor(), settle_s: 0.0, ..best.clone() };
        keep_if(&mut best, shorter, &mut fails);
    }
    let faults = best.faults.clone();
    best.faults = ddmin(&faults, |some| fails(&Scenario { faults: some.to_vec(), ..best.clone() }));
    for simpler in SIMPLER {
        let other = simpler(&best);
        keep_if(&mut best, other, &mut fails);
    }
    let viewers: Vec<u32> = (0..best.audience()).collect();
    let there = ddmin(&viewers, |some| fails(&without(&best, &viewers, some)));
    best = without(&best, &viewers, &there);
    Some(Shrunk { scenario: best, failure, runs })
}

/// The smallest part of `items` that still fails, as far as taking out halves, quarters and so on
/// finds it.
pub fn ddmin<T: Clone>(items: &[T], mut fails: impl FnMut(&[T]) -> bool) -> Vec<T> {
    let mut items = items.to_vec();
    let mut parts = 2;
    while items.len() >= 2 {
        let size = items.len().div_ceil(parts);
        let smaller = (0..items.len()).step_by(size).find_map(|from| {
            let to = (from + size).min(items.len());
            let rest: Vec<T> = items[..from].iter().chain(&items[to..]).cloned().collect();
            fails(&rest).then_some(rest)
        });
        match smaller {
            Some(rest) => {
                items = rest;
                parts = parts.saturating_sub(1).max(2);
            }
            None if size == 1 => break,
            None => parts = (parts * 2).min(items.len()),
        }
    }
    if items.len() == 1 && fails(&[]) { Vec::new() } else { items }
}

fn keep_if(best: &mut Scenario, other: Scenario, fails: &mut impl FnMut(&Scenario) -> bool) {
    if other != *best && fails(&other) {
        *best = other;
    }
}

type Simplify = fn(&Scenario) -> Scenario;

/// Things that are tried one after the other, each on what is left by then.
const SIMPLER: [Simplify; 5] = [
    |from| Scenario { session: None, ..from.clone() },
    |from| {
        let mut to = from.clone();
        to.network.loss = 0.0;
        to
    },
    |from| {
        let mut to = from.clone();
        to.network.jitter_ms = 0.0;
        to
    },
    |from| {
        let mut to = from.clone();
        to.network.regions = 1;
        to
    },
    |from| {
        let mut to = from.clone();
        to.supernodes.count = Some(from.supernode_count().min(1));
        to
    },
];

fn without(best: &Scenario, all: &[u32], there: &[u32]) -> Scenario {
    let absent = all.iter().filter(|viewer| !there.contains(viewer)).copied().collect();
    Scenario { absent, ..best.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ddmin_finds_the_few_that_matter() {
        let items: Vec<u32> = (0..64).collect();
        let mut runs = 0;
        let left = ddmin(&items, |some| {
            runs += 1;
            some.contains(&7) && some.contains(&40)
        });
        assert_eq!(left, [7, 40]);
        assert!(runs < 100, "{runs}");
        assert!(ddmin(&items, |_| true).is_empty());
    }

    #[test]
    fn a_scenario_shrinks_to_the_fault_that_breaks_it() {
        let text = "
name = 'too_much'
duration_s = 14
settle_s = 0
[stream]
rate = '400kbit'
stripes = 1
audio = '48kbit'
[supernodes]
count = 1
[viewers]
count = 6
[[fault]]
at_s = 10
kind = 'unwatch'
who = { viewers = [5] }
[[fault]]
at_s = 11
kind = 'pollute'
who = { share = 1.0, pick = 'parents' }
[[fault]]
at_s = 11.5
kind = 'freeze'
for_s = 0.2
who = { viewers = [4] }
[bars]
delay_p50_ms = 0.0
";
        let scenario = Scenario::parse(text).unwrap();
        let shrunk = shrink(scenario, 1, 60, |_, _| {}).unwrap();
        assert_eq!(shrunk.failure.as_str(), "bar delay_p50_ms");
        assert!(shrunk.scenario.faults.is_empty(), "{:?}", shrunk.scenario.faults);
        assert!(shrunk.scenario.absent.len() >= 5, "one viewer is enough, or none");
        let text = toml::to_string(&shrunk.scenario).unwrap();
        assert_eq!(Scenario::parse(&text).unwrap(), shrunk.scenario);
    }
}
