//! Runs: one, several, side by side.
//!
//! Owns how seeds are spread over threads: one run is one thread, always, and the results come in
//! the order of the seeds. Does not own printing.

use std::thread;

use crate::{
    scenario::Scenario,
    summary::Summary,
    world::{Progress, World},
};

/// Runs one scenario with one seed; `progress` hears of every simulated second.
#[must_use]
pub fn run(scenario: Scenario, seed: u64, progress: impl FnMut(&Progress)) -> Summary {
    World::new(scenario, seed).run(progress)
}

/// Runs the scenario that `scenario_of` makes for each seed, on so many threads.
#[must_use]
pub fn run_all(
    seeds: &[u64],
    threads: usize,
    scenario_of: impl Fn(u64) -> Scenario + Sync,
    done: impl Fn(&Summary) + Sync,
) -> Vec<Summary> {
    let share = seeds.len().div_ceil(threads.max(1)).max(1);
    thread::scope(|scope| {
        let (scenario_of, done) = (&scenario_of, &done);
        let handles: Vec<_> = seeds
            .chunks(share)
            .map(|seeds| {
                scope.spawn(move || {
                    let one = |seed: &u64| {
                        let summary = run(scenario_of(*seed), *seed, |_| {});
                        done(&summary);
                        summary
                    };
                    seeds.iter().map(one).collect::<Vec<_>>()
                })
            })
            .collect();
        handles
            .into_iter()
            .flat_map(|handle| handle.join().expect("a run panics only on a bug of the simulator"))
            .collect()
    })
}
