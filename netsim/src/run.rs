//! Runs: one, several, side by side.
//!
//! Owns how runs are spread over threads: one run is one thread, always, each free thread takes the
//! next, and the results come in the order of what was asked. Does not own printing.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use crate::{
    scenario::Scenario,
    summary::Summary,
    world::{Progress, Run, World},
};

/// Runs one scenario with one seed; `progress` hears of every simulated second.
#[must_use]
pub fn run(scenario: Scenario, seed: u64, progress: impl FnMut(&Progress)) -> Summary {
    run_whole(scenario, seed, progress).summary
}

/// The same, with every viewer, second and histogram.
#[must_use]
pub fn run_whole(scenario: Scenario, seed: u64, progress: impl FnMut(&Progress)) -> Run {
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
    let jobs: Vec<u64> = seeds.to_vec();
    each(&jobs, threads, |seed| {
        let summary = run(scenario_of(*seed), *seed, |_| {});
        done(&summary);
        summary
    })
}

/// Does `work` for each job on so many threads; the results come in the order of the jobs.
#[must_use]
pub fn each<J: Sync, R: Send>(jobs: &[J], threads: usize, work: impl Fn(&J) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<(usize, R)>> = Mutex::new(Vec::with_capacity(jobs.len()));
    thread::scope(|scope| {
        for _ in 0..threads.clamp(1, jobs.len().max(1)) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(job) = jobs.get(at) else { return };
                    let result = work(job);
                    results.lock().unwrap_or_else(PoisonError::into_inner).push((at, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}
