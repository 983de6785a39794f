//! Parents that die, and what their children lose: nothing.

use super::harness::{Camera, Net, at, cert, from_parent, init, ms, node, stream_id, to_child};
use crate::{
    ids::StripeSet,
    media::relay::{Policy, RelayInput},
    units::Bitrate,
};

fn camera(k: u8) -> Camera {
    Camera::new(100, k, Bitrate::from_kbps(800), 25)
}

#[test]
fn a_chain_of_four_hands_on_exactly_what_the_source_cut() {
    for k in [1, 2, 4, 8, 16] {
        let mut net = Net::new(camera(k), 4);
        net.attach(node(4), 1, Policy::KeepAll);
        for hop in 1..=4 {
            net.feed(node(hop), &[node(hop - 1)], ms(15));
        }
        net.run_until(at(10_000));
        net.shooting = false;
        net.run_until(at(12_000));
        let got = net.assert_identical(node(4), 1);
        assert!(got == net.camera.cut.len(), "from the very first keyframe on, k {k}");
        for hop in 1..=4 {
            assert_eq!(net.stats(node(hop)).duplicates, 0);
            assert_eq!(net.stats(node(hop)).offences, 0);
        }
    }
}

#[test]
fn killing_a_parent_at_any_moment_costs_no_chunk() {
    for k in [1, 4, 8] {
        for moment in (0..2_200).step_by(37) {
            let mut net = Net::new(camera(k), 3);
            net.feed(node(1), &[node(0)], ms(10));
            net.feed(node(2), &[node(0)], ms(25));
            net.attach(node(3), 1, Policy::KeepAll);
            net.feed_striped(node(3), &[node(1), node(2)], ms(20));
            net.script_at(at(moment), 1);
            net.run_script(at(6_000), |net, _| net.kill(node(1), ms(20)));
            net.shooting = false;
            net.run_until(at(8_000));
            net.assert_identical(node(3), 1);
        }
    }
}

#[test]
fn a_new_parent_sends_only_what_the_dead_one_did_not() {
    for k in [1, 4, 8] {
        let mut net = Net::new(camera(k), 3);
        net.feed(node(1), &[node(0)], ms(10));
        net.feed(node(2), &[node(0)], ms(25));
        net.attach(node(3), 1, Policy::KeepAll);
        net.feed(node(3), &[node(1), node(2)], ms(20));
        // Most of a second after a keyframe.
        net.script_at(at(3_900), 1);
        net.run_script(at(6_000), |net, _| net.kill(node(1), ms(20)));
        net.shooting = false;
        net.run_until(at(8_000));
        net.assert_identical(node(3), 1);
        assert_eq!(net.stats(node(3)).duplicates, 0, "k {k}");
    }
}

#[test]
fn who_was_there_before_the_stream_gets_its_first_chunk_however_late_the_headers_come() {
    let mut net = Net::new(camera(4), 1);
    // A node that publishes nothing yet; the child asks it for whatever comes.
    net.shooting = false;
    net.add(node(0));
    net.attach(node(1), 1, Policy::KeepAll);
    net.feed(node(1), &[node(0)], ms(10));
    net.run_until(at(200));
    let (stream, cert) = (stream_id(), cert(100, 4, net.camera.rate));
    net.input(node(0), RelayInput::Epoch { stream, cert, feed: None });
    net.resume_shooting();
    // A joiner would begin in the middle: half a second of media, and no keyframe that can be shown.
    net.run_until(at(1_000));
    assert!(!net.camera.cut.is_empty());
    net.input(node(0), RelayInput::Init { stream, init: init(100, 1, 0) });
    net.run_until(at(3_000));
    net.shooting = false;
    net.run_until(at(5_000));
    assert_eq!(net.assert_identical(node(1), 1), net.camera.cut.len());
}

#[test]
fn a_silent_parent_is_replaced_and_nothing_is_lost() {
    for k in [1, 4, 8] {
        for moment in (300..1_400).step_by(111) {
            let mut net = Net::new(camera(k), 3);
            net.feed(node(1), &[node(0)], ms(10));
            net.feed(node(2), &[node(0)], ms(10));
            net.attach(node(3), 1, Policy::KeepAll);
            net.feed(node(3), &[node(1), node(2)], ms(10));
            net.script_at(at(moment), 1);
            net.run_script(at(5_000), |net, _| net.freeze(node(1)));
            let silence = net
                .progress
                .iter()
                .find(|(_, who, progress)| *who == node(3) && progress.silent_since.is_some())
                .expect("the silence is reported");
            let waited = silence.0.since(silence.2.silent_since.unwrap());
            assert!((ms(300)..=ms(610)).contains(&waited), "after {waited:?}");
            net.shooting = false;
            net.run_until(at(7_000));
            net.assert_identical(node(3), 1);
        }
    }
}

#[test]
fn a_frozen_parent_that_wakes_up_brings_duplicates_that_are_counted_and_dropped() {
    let mut net = Net::new(camera(4), 3);
    net.feed(node(1), &[node(0)], ms(10));
    net.feed(node(2), &[node(0)], ms(10));
    net.attach(node(3), 1, Policy::KeepAll);
    net.feed(node(3), &[node(1), node(2)], ms(10));
    net.script_at(at(2_000), 1);
    net.script_at(at(4_000), 2);
    net.run_script(at(6_000), |net, number| match number {
        1 => net.freeze(node(1)),
        _ => net.thaw(node(1)),
    });
    net.shooting = false;
    net.run_until(at(8_000));
    net.assert_identical(node(3), 1);
    assert!(net.stats(node(3)).duplicates > 0);
    assert_eq!(net.stats(node(3)).offences, 0);
    let blamed = net.progress.iter().any(|(_, who, seen)| *who == node(3) && seen.duplicates > 0);
    assert!(!blamed, "neither sent anything twice");
}

#[test]
fn the_middle_of_a_chain_dies_and_the_tail_stays_whole() {
    for moment in (500..3_000).step_by(173) {
        let mut net = Net::new(camera(4), 4);
        net.feed(node(1), &[node(0)], ms(10));
        net.feed(node(2), &[node(1), node(0)], ms(10));
        net.feed(node(3), &[node(2)], ms(10));
        net.attach(node(3), 1, Policy::KeepAll);
        net.feed(node(4), &[node(3)], ms(10));
        net.attach(node(4), 1, Policy::KeepAll);
        net.script_at(at(moment), 1);
        net.run_script(at(6_000), |net, _| net.kill(node(1), ms(10)));
        net.shooting = false;
        net.run_until(at(8_000));
        net.assert_identical(node(3), 1);
        net.assert_identical(node(4), 1);
    }
}

#[test]
fn six_seconds_without_any_parent_are_made_good() {
    for k in [1, 8] {
        let mut net = Net::new(camera(k), 3);
        net.feed(node(1), &[node(0)], ms(10));
        net.attach(node(2), 1, Policy::KeepAll);
        net.feed(node(2), &[node(1)], ms(10));
        net.script_at(at(3_000), 1);
        net.script_at(at(9_000), 2);
        net.run_script(at(14_000), |net, number| match number {
            1 => net.kill(node(1), ms(10)),
            _ => net.feed(node(2), &[node(0)], ms(10)),
        });
        net.shooting = false;
        net.run_until(at(16_000));
        net.assert_identical(node(2), 1);
    }
}

#[test]
fn a_new_parent_that_is_behind_is_waited_for() {
    let mut net = Net::new(camera(4), 3);
    net.feed(node(1), &[node(0)], ms(5));
    // The standby gets everything 800 ms later than the first parent.
    net.feed(node(2), &[node(0)], ms(800));
    net.attach(node(3), 1, Policy::KeepAll);
    net.feed(node(3), &[node(1), node(2)], ms(5));
    net.script_at(at(5_000), 1);
    net.run_script(at(8_000), |net, _| net.kill(node(1), ms(5)));
    net.shooting = false;
    net.run_until(at(11_000));
    net.assert_identical(node(3), 1);
}

/// The only parent of node 3 dies after four seconds; two seconds later `others` turn up.
pub(super) fn orphaned(others: impl Fn(&mut Net)) -> Net {
    let mut net = Net::new(camera(4), 3);
    net.feed(node(1), &[node(0)], ms(10));
    net.feed(node(3), &[node(1)], ms(10));
    net.attach(node(3), 1, Policy::KeepAll);
    net.script_at(at(4_000), 1);
    net.script_at(at(6_000), 2);
    net.run_script(at(9_000), |net, number| match number {
        1 => net.kill(node(1), ms(10)),
        _ => others(net),
    });
    net.shooting = false;
    net.run_until(at(12_000));
    net
}

#[test]
fn a_parent_that_joined_later_denies_what_it_lacks_and_another_feed_repairs_it() {
    let net = orphaned(|net| {
        // A parent that has just joined, and the source as a feed without any promoted stripe.
        net.feed(node(2), &[node(0)], ms(10));
        net.connect(node(0), node(3), ms(10));
        net.grant(node(0), node(3), StripeSet::EMPTY, net.all());
        net.feed(node(3), &[node(2)], ms(10));
    });
    assert!(net.stats(node(3)).gaps_in > 0, "the new parent said what it lacks");
    assert!(net.stats(node(0)).repair_chunks_out > 0, "the source repaired it");
    net.assert_identical(node(3), 1);
}

#[test]
fn a_gap_waits_for_the_next_parent_that_has_it() {
    let mut net = Net::new(camera(1), 3);
    net.feed(node(1), &[node(0)], ms(10));
    net.feed(node(3), &[node(1)], ms(10));
    net.attach(node(3), 1, Policy::KeepAll);
    for (when, number) in [(4_000, 1), (5_000, 2), (8_500, 3)] {
        net.script_at(at(when), number);
    }
    net.run_script(at(12_000), |net, number| match number {
        1 => net.kill(node(1), ms(10)),
        2 => {
            net.feed(node(2), &[node(0)], ms(10));
            net.feed(node(3), &[node(2)], ms(10));
        }
        _ => net.feed(node(3), &[node(0)], ms(10)),
    });
    net.shooting = false;
    net.run_until(at(14_000));
    net.assert_identical(node(3), 1);
}

#[test]
fn what_every_ring_has_lost_is_skipped_once_and_named() {
    let mut net = Net::new(camera(1), 2);
    net.feed(node(1), &[node(0)], ms(10));
    net.attach(node(1), 1, Policy::KeepAll);
    net.script_at(at(3_000), 1);
    net.script_at(at(33_000), 2);
    net.script_at(at(49_000), 3);
    net.run_script(at(51_000), |net, number| match number {
        3 => net.shooting = false,
        1 => {
            net.input(node(1), RelayInput::FeedDown { feed: from_parent(node(0)) });
            net.input(node(0), RelayInput::FeedDown { feed: to_child(node(1)) });
        }
        _ => net.feed(node(1), &[node(0)], ms(10)),
    });
    let skips = net.stats(node(1)).skips;
    assert!(skips.lost > 0 && skips.total() == skips.lost, "{skips:?}");
    let missed = net.stats(node(1)).missed;
    assert_eq!((missed.gone, missed.total()), (skips.lost, skips.lost), "the cause is told");
    let got = net.got(node(1), 1);
    assert_eq!(got.len() as u64 + skips.lost + got[0].header.seq, net.camera.cut.len() as u64);
    assert!(got.windows(2).all(|pair| pair[0].header.seq < pair[1].header.seq));
}

#[test]
fn a_parent_still_in_the_old_epoch_is_understood_and_nothing_of_the_new_one_is_lost() {
    for k in [1, 4] {
        for lag in [50, 300, 700] {
            let mut net = Net::new(camera(k), 3);
            net.feed(node(1), &[node(0)], ms(5));
            // The standby hears of everything later, of the restart too.
            net.feed(node(2), &[node(0)], ms(lag));
            net.attach(node(3), 1, Policy::KeepAll);
            net.feed(node(3), &[node(1), node(2)], ms(5));
            net.run_until(at(4_000));
            net.shooting = false;
            net.run_until(at(5_000 + lag));
            let old = net.got(node(3), 1).len();
            net.camera = Camera::new(101, k, Bitrate::from_kbps(800), 25);
            net.announce();
            net.resume_shooting();
            net.run_until(at(5_060 + lag));
            net.kill(node(1), ms(5));
            net.run_until(at(10_000 + lag));
            net.shooting = false;
            net.run_until(at(12_000 + lag * 2));
            let got = net.got(node(3), 1).split_off(old);
            assert!(
                got == net.camera.cut,
                "k {k}, {lag} ms behind: {} of {}",
                got.len(),
                net.camera.cut.len()
            );
            assert_eq!(net.stats(node(3)).given_up, 0);
        }
    }
}

#[test]
fn what_a_stripe_without_a_parent_misses_can_be_pulled_from_any_feed() {
    let mut net = Net::new(camera(4), 2);
    net.feed(node(1), &[node(0)], ms(10));
    net.attach(node(2), 1, Policy::KeepAll);
    net.failover = false;
    net.feed(node(2), &[node(0)], ms(10));
    net.connect(node(1), node(2), ms(10));
    net.grant(node(1), node(2), StripeSet::EMPTY, net.all());
    net.run_until(at(3_000));
    net.grant(node(0), node(2), StripeSet(0b0111), StripeSet::EMPTY);
    for pull in 0..20 {
        net.run_until(at(4_000 + pull * 250));
        net.input(node(2), RelayInput::Want { feed: from_parent(node(1)), stripe: 3 });
    }
    net.shooting = false;
    net.run_until(at(10_000));
    net.input(node(2), RelayInput::Want { feed: from_parent(node(1)), stripe: 3 });
    net.run_until(at(11_000));
    net.assert_identical(node(2), 1);
    assert!(net.stats(node(1)).repair_chunks_out > 50);
}
