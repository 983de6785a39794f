//! Each rule of the network, shown by a run of the production machines that would fail without it.
//!
//! Owns small scenarios. Their figures are asserted at about three times what is measured, so that
//! a failure means a broken rule and not a slow one.

use astral_netsim::{run::run, scenario::Scenario, summary::Summary};

/// A roomy network: what a rule does, not what capacity does.
const ROOMY: &str = "
duration_s = 24
settle_s = 20
[stream]
rate = '1Mbit'
stripes = 4
[source]
copies = 4.0
[supernodes]
count = 2
";

fn scenario(name: &str, rest: &str) -> Scenario {
    Scenario::parse(&format!("name = '{name}'\n{ROOMY}\n{rest}")).expect("the scenario is sound")
}

/// Runs it; nothing may be violated, whatever it shows.
fn lawful(scenario: Scenario, seed: u64) -> Summary {
    let summary = run(scenario, seed, |_| {});
    assert_eq!(summary.violation_count, 0, "{summary}");
    assert!((summary.played - 1.0).abs() < 1e-9, "{summary}");
    summary
}

const TWELVE: &str = "
[viewers]
count = 12
[[viewers.class]]
copies = 5.0
";

#[test]
fn r1_the_children_of_a_killed_node_lose_nothing() {
    let fault = "[[fault]]\nat_s = 14\nkind = 'kill'\nwho = { pick = 'parents', count = 1 }";
    for seed in 1..=5 {
        let summary = lawful(scenario("r1", &format!("{TWELVE}\n{fault}")), seed);
        assert_eq!(summary.skips, 0, "{summary}");
        assert!(summary.repair_ms.p99.is_none_or(|ms| ms < 1_500.0), "{summary}");
    }
}

#[test]
fn r2_the_children_of_a_node_that_falls_silent_lose_nothing() {
    for kind in ["'vanish'", "'freeze'\nfor_s = 2"] {
        let fault =
            format!("[[fault]]\nat_s = 14\nkind = {kind}\nwho = {{ pick = 'parents', count = 1 }}");
        for seed in 1..=3 {
            let summary = lawful(scenario("r2", &format!("{TWELVE}\n{fault}")), seed);
            assert_eq!(summary.skips, 0, "{kind} {summary}");
            assert!(summary.repair_ms.p99.is_none_or(|ms| ms < 3_000.0), "{kind} {summary}");
        }
    }
}

#[test]
fn a_node_that_leaves_or_stops_watching_hands_its_children_over() {
    for kind in ["leave", "unwatch"] {
        let fault = format!(
            "[[fault]]\nat_s = 14\nkind = '{kind}'\nwho = {{ pick = 'parents', count = 2 }}"
        );
        let summary = lawful(scenario(kind, &format!("{TWELVE}\n{fault}")), 1);
        assert_eq!(summary.skips, 0, "{kind} {summary}");
        assert!(summary.continuity_3000.is_some_and(|share| share > 0.999), "{kind} {summary}");
    }
}

#[test]
fn children_whose_tickets_are_revoked_find_others() {
    let fault = "[[fault]]\nat_s = 14\nkind = 'revoke'\nwho = { pick = 'parents', count = 2 }";
    let summary = lawful(scenario("revoke", &format!("{TWELVE}\n{fault}")), 1);
    assert_eq!(summary.skips, 0, "{summary}");
    assert!(summary.counters.moves > 0, "{summary}");
}

#[test]
fn a_chain_costs_the_source_one_copy() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/chain.toml");
    let summary = lawful(Scenario::load(&path).unwrap(), 1);
    assert!(summary.ok, "{summary}");
    assert_eq!(summary.depth_max, 3, "{summary}");
}

#[test]
fn eight_viewers_that_cannot_forward_a_whole_copy_share_one_stream() {
    let tight = "
name = 'tight'
duration_s = 30
settle_s = 20
[stream]
rate = '1Mbit'
stripes = 4
[source]
copies = 6.0
[viewers]
count = 8
[[viewers.class]]
copies = 0.75
";
    for seed in 1..=3 {
        let summary = lawful(Scenario::parse(tight).unwrap(), seed);
        assert!(summary.viewer_share > 0.3, "{summary}");
    }
}

#[test]
fn twenty_viewers_with_two_copies_each_hang_at_most_six_deep() {
    let fan_out = "
name = 'fan_out'
duration_s = 30
settle_s = 20
[stream]
rate = '400kbit'
stripes = 2
audio = '48kbit'
[source]
copies = 20.0
max_copies = 2
[viewers]
count = 20
[[viewers.class]]
copies = 20.0
max_copies = 2
[bars]
depth_max = 6
source_copies = 2.2
";
    for seed in 1..=3 {
        let summary = lawful(Scenario::parse(fan_out).unwrap(), seed);
        assert!(summary.ok, "{summary}");
    }
}

#[test]
fn a_polluter_is_dropped_and_nothing_of_it_is_played() {
    let fault = "[[fault]]\nat_s = 12\nkind = 'pollute'\nwho = { pick = 'parents', count = 1 }";
    let summary = lawful(scenario("pollute", &format!("{TWELVE}\n{fault}")), 1);
    assert!(summary.counters.offences > 0, "{summary}");
    assert_eq!(summary.skips, 0, "{summary}");
}

#[test]
fn a_network_outlives_its_supernodes() {
    let fault = "[[fault]]\nat_s = 12\nkind = 'kill'\nwho = { pick = 'supernodes', count = 1 }";
    let summary = lawful(scenario("supernode", &format!("{TWELVE}\n{fault}")), 1);
    assert_eq!(summary.skips, 0, "{summary}");
}
