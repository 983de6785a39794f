//! Whole runs: determinism, the smoke scenario, a swarm.

use astral_netsim::{
    random::{Dice, Purpose, mix},
    run::{run, run_all},
    scenario::{Fault, Fidelity, Scenario},
    summary::Summary,
};

fn shipped(name: &str) -> Scenario {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    Scenario::load(&folder.join(name).with_extension("toml")).expect("the scenario ships")
}

#[test]
fn the_smoke_scenario_holds_its_bars() {
    for seed in 1..=4 {
        let summary = run(shipped("smoke"), seed, |_| {});
        assert!(summary.ok, "{summary}");
    }
}

#[test]
fn readers_that_keep_everything_lose_nothing_in_the_kill_drill() {
    // With a ring of 8 s both lose chunks.
    for seed in [4, 5] {
        let summary = run(shipped("drill"), seed, |_| {});
        assert!(summary.ok && summary.skipped == 0, "{summary}");
    }
}

#[test]
fn the_same_seed_is_the_same_run_and_another_is_not() {
    let mut smoke = shipped("smoke");
    smoke.network.loss = 0.002;
    let first = run(smoke.clone(), 7, |_| {});
    assert_eq!(run(smoke.clone(), 7, |_| {}), first);
    assert_ne!(run(smoke, 8, |_| {}).trace_hash, first.trace_hash);
}

/// The only thing that a profile, a compiler or a machine could change is arithmetic on fractions: this
/// number must come out of every build.
#[test]
fn draws_are_the_same_in_every_build() {
    let dice = Dice::new(7);
    let digest = (0..20_000).fold(0, |digest, i| {
        let draw = (Purpose::Session, i, 0);
        let drawn = [
            dice.lognormal(300.0, 1.4, draw),
            dice.weibull(300.0, 0.6, draw),
            dice.exponential(Purpose::Join, i, 0),
            dice.normal(Purpose::Place, i, 0),
        ];
        drawn.iter().fold(digest, |digest, value| mix(digest ^ value.to_bits()))
    });
    assert_eq!(digest, 12_923_738_141_646_672_331);
}

#[test]
fn a_run_does_not_depend_on_what_runs_beside_it() {
    let seeds = [3, 4, 5, 6];
    let side_by_side = run_all(&seeds, 2, |_| shipped("chain"), |_| {});
    let alone: Vec<Summary> =
        seeds.iter().map(|seed| run(shipped("chain"), *seed, |_| {})).collect();
    assert_eq!(side_by_side, alone);
}

#[test]
fn twenty_seeds_of_the_swarm_violate_nothing() {
    let seeds: Vec<u64> = (1..=20).collect();
    let summaries = run_all(&seeds, 2, Scenario::drawn, |_| {});
    let failed: Vec<String> =
        summaries.iter().filter(|summary| !summary.ok).map(ToString::to_string).collect();
    assert!(failed.is_empty(), "replay with `netsim replay swarm@SEED`:\n{}", failed.join("\n"));
}

/// The same scenario, chunk by chunk and as intervals.
fn at_both(name: &str, viewers: u32, seed: u64) -> (Summary, Summary) {
    let mut exact = shipped(name);
    exact.viewers.count = viewers;
    let mut coarse = exact.clone();
    coarse.engine.fidelity = Fidelity::Intervals;
    (run(exact, seed, |_| {}), run(coarse, seed, |_| {}))
}

#[test]
fn intervals_show_what_chunks_show() {
    let (exact, coarse) = at_both("wide", 40, 1);
    let apart = |a: Option<f64>, b: Option<f64>| (a.unwrap_or(0.0) - b.unwrap_or(9.0)).abs();
    let both = || format!("{exact}\n{coarse}");
    assert_eq!(coarse.violation_count, 0, "{coarse}");
    assert!(apart(exact.continuity_3000, coarse.continuity_3000) <= 0.003, "{}", both());
    let delay = coarse.delay_ms.p50.unwrap_or(0.0) / exact.delay_ms.p50.unwrap_or(1.0);
    assert!((0.8..1.25).contains(&delay), "{}", both());
    let copies = coarse.source_copies / exact.source_copies;
    assert!((0.85..1.15).contains(&copies), "{}", both());
    assert!(coarse.events * 5 < exact.events, "{}", both());
}

#[test]
fn intervals_are_the_same_run_twice_and_refuse_what_they_cannot_see() {
    let mut wide = shipped("wide");
    (wide.viewers.count, wide.engine.fidelity) = (30, Fidelity::Intervals);
    wide.duration_s = 25.0;
    wide.faults = vec![fault("vanish")];
    let first = run(wide.clone(), 3, |_| {});
    assert!((first.played - 1.0).abs() < 1e-9, "{first}");
    assert_eq!(run(wide.clone(), 3, |_| {}), first);
    wide.faults = vec![fault("withhold")];
    assert!(wide.check().unwrap_err().to_string().contains("chunks"));
}

fn fault(kind: &str) -> Fault {
    toml::from_str(&format!("at_s = 22\nkind = '{kind}'\nwho = {{ pick = 'parents', count = 1 }}"))
        .expect("a fault")
}
