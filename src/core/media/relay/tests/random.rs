//! Random schedules: whatever happens to parents and links, a sink gets every chunk exactly once and
//! in order, as long as some ring has it.

use proptest::prelude::*;

use super::harness::{Camera, Dice, Net, at, ms, node};
use crate::{
    media::relay::{Delivery, Policy, RelayInput},
    units::Bitrate,
};

/// A layered network under kills, freezes, moves of single stripes and changes of the ceiling; node
/// 9 watches. The source is always there as the last resort, so nothing may be lost.
fn schedule(seed: u64) -> Net {
    let mut dice = Dice(seed);
    let k = [1, 2, 4, 8, 16][dice.roll(5) as usize];
    let mut net = Net::new(Camera::new(100, k, Bitrate::from_kbps(800), 10 + dice.roll(60)), 9);
    net.grant_all = true;
    for parent in 1..=4 {
        let delay = ms(1 + dice.roll(80));
        net.feed(node(parent), &[node(0)], delay);
    }
    for parent in 5..=7 {
        let delay = ms(1 + dice.roll(80));
        let first = 1 + dice.roll(4) as u8;
        net.feed(node(parent), &[node(first), node(0)], delay);
    }
    net.run_until(at(dice.roll(3_000)));
    net.attach(node(9), 1, Policy::KeepAll);
    net.attach(node(9), 2, Policy::Live { lag: ms(1_500) });
    let mut parents: Vec<_> = (1..=7).map(node).collect();
    parents.push(node(0));
    net.feed_striped(node(9), &parents, ms(1 + dice.roll(60)));
    let start = net.now.as_millis();
    for number in 0..12 {
        net.script_at(at(start + dice.roll(9_000)), number);
    }
    let mut gone = Vec::new();
    net.run_script(at(start + 10_000), |net, _| {
        let victim = 1 + dice.roll(7) as u8;
        match dice.roll(6) {
            0 if gone.len() < 5 && !gone.contains(&victim) => {
                gone.push(victim);
                net.kill(node(victim), ms(1 + dice.roll(100)));
            }
            1 if gone.len() < 5 && !gone.contains(&victim) => {
                gone.push(victim);
                net.freeze(node(victim));
            }
            2 => net.thaw(node(victim)),
            3 => {
                let ceiling = Some(Bitrate::from_kbps(1_500 + dice.roll(4_000)));
                net.input(node(victim), RelayInput::Uplink { ceiling });
            }
            _ => {
                // Move a stripe to a live parent, as an optimisation would.
                let stripe = dice.roll(u64::from(k)) as u8;
                let target = if gone.contains(&victim) { 0 } else { victim };
                let turn = net.standbys.get_mut(&(node(9), stripe)).unwrap();
                if !turn.contains(&node(target)) {
                    return;
                }
                turn.retain(|parent| *parent != node(target));
                turn.push_front(node(target));
                net.promote(node(9), node(target), stripe);
            }
        }
    });
    net.shooting = false;
    net.run_until(at(start + 22_000));
    net
}

fn check(seed: u64) {
    let net = schedule(seed);
    net.assert_identical(node(9), 1);
    // The live reader may skip, but never repeats, tears or passes over anything in silence.
    let mut next = None;
    for (_, item) in &net.delivered[&(node(9), 2)] {
        match item {
            Delivery::Chunk(chunk) => {
                assert!(next.is_none_or(|next| next == chunk.header.seq), "seed {seed}");
                next = Some(chunk.header.seq + 1);
            }
            Delivery::Skipped { from_seq, to_seq, .. } => {
                assert_eq!(next, Some(*from_seq), "seed {seed}");
                next = Some(to_seq + 1);
            }
            _ => {}
        }
    }
    for number in 0..=9 {
        if let Some(relay) = net.relays.get(&node(number)) {
            assert_eq!(relay.stats().offences, 0, "seed {seed}");
        }
    }
}

/// How many schedules: a quick run's share, or what `PROPTEST_CASES` says.
fn config() -> ProptestConfig {
    let asked = ProptestConfig::default();
    let cases = if asked.cases == 256 { 40 } else { asked.cases };
    ProptestConfig { cases, failure_persistence: None, ..asked }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_sink_gets_every_chunk_once_in_order_under_any_schedule(seed in any::<u64>()) {
        check(seed);
    }
}

/// Seeds that found something.
#[test]
fn schedules_that_once_lost_a_chunk_lose_none() {
    for seed in [12_654_116_744_725_282_423, 14_928_654_756_497_157_841, 11_607_792_214_372_675_008]
    {
        check(seed);
    }
}
