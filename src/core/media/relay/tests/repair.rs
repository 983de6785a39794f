//! Repair from neighbours: what no parent brings comes from others, below everything else.

use super::failover::orphaned;
use super::harness::{Camera, Net, at, ms, node, stream_id, to_child};
use crate::{
    ids::StripeSet,
    media::{
        frame::UpFrame,
        relay::{AnswerId, NEIGHBOURS_MAX, Policy, QUESTIONS_MAX, RelayInput, RelayOutput},
        repair::RepairWant,
    },
    units::Bitrate,
};

fn camera(k: u8) -> Camera {
    Camera::new(100, k, Bitrate::from_kbps(800), 25)
}

fn want(stripe: u8, ranges: &[(u64, u64)]) -> RepairWant {
    let (stream, ranges) = (stream_id(), ranges.to_vec());
    RepairWant { stream, epoch: 100, stripe, deadline_ms: 1_000, ranges }
}

/// Every output of these is an answer; how many chunks each has.
fn answers(net: &mut Net, asker: u8, want: RepairWant) -> Vec<usize> {
    let (now, relay) = (net.now, net.relays.get_mut(&node(0)).unwrap());
    relay.handle_input(RelayInput::RepairAsked { from: node(asker), id: AnswerId(7), want }, now);
    let outputs = std::iter::from_fn(|| relay.poll_output());
    outputs
        .filter_map(|output| match output {
            RelayOutput::RepairAnswer { to, id, answer } => {
                assert_eq!((to, id), (node(asker), AnswerId(7)));
                Some(answer.chunks.len())
            }
            _ => None,
        })
        .collect()
}

#[test]
fn a_stripe_without_any_parent_is_kept_alive_by_neighbours() {
    for k in [1, 4] {
        let mut net = Net::new(camera(k), 4);
        net.failover = false;
        for number in 1..=3 {
            net.feed(node(number), &[node(0)], ms(10));
        }
        net.attach(node(4), 1, Policy::KeepAll);
        net.attach(node(4), 2, Policy::Live { lag: ms(3_000) });
        net.feed(node(4), &[node(0)], ms(10));
        net.neighbours(node(4), &[node(1), node(2), node(3)], ms(20));
        net.run_until(at(3_000));
        // Its parent gives it nothing more, of one stripe or of all; nobody else is found.
        net.grant(node(0), node(4), StripeSet(0b0111 >> (4 - k)), StripeSet::EMPTY);
        net.run_until(at(10_000));
        net.shooting = false;
        net.run_until(at(12_000));
        net.assert_identical(node(4), 1);
        assert_eq!(net.stats(node(4)).skips.total(), 0, "three seconds behind, nothing is missed");
        assert!(net.stats(node(4)).neighbour_chunks_in > 100);
    }
}

#[test]
fn five_seconds_frozen_at_parents_near_their_slots_cost_nothing() {
    for k in [4, 8] {
        for joined in [3_000, 3_400, 3_900] {
            // Two forwarders run at their slots: what they send live is 86 % of what they may. Others
            // have a little to spare.
            let mut net = Net::new(camera(k), 9);
            for parent in 1..=4 {
                net.feed(node(parent), &[node(0)], ms(15));
            }
            for (parent, child) in [(1, 5), (2, 6)] {
                let ceiling = Some(Bitrate::from_kbps(2_500));
                net.input(node(parent), RelayInput::Uplink { ceiling });
                net.feed(node(child), &[node(parent)], ms(15));
            }
            for parent in [3, 4, 5, 6] {
                let ceiling = Some(Bitrate::from_kbps(600));
                net.input(node(parent), RelayInput::Uplink { ceiling });
            }
            net.attach(node(7), 1, Policy::KeepAll);
            net.feed_striped(node(7), &[node(1), node(2)], ms(15));
            for (child, parent) in [(8, 1), (9, 2)] {
                net.feed(node(child), &[node(parent)], ms(15));
            }
            let others = [3, 4, 5, 6, 8, 9].map(node);
            net.neighbours(node(7), &others, ms(25));
            net.script_at(at(joined), 1);
            net.script_at(at(joined + 5_000), 2);
            net.run_script(at(joined + 16_000), |net, number| match number {
                1 => net.freeze(node(7)),
                _ => net.thaw(node(7)),
            });
            net.shooting = false;
            net.run_until(at(joined + 26_000));
            let stats = net.stats(node(7));
            assert!(stats.neighbour_chunks_in > 0, "{stats:?}");
            net.assert_identical(node(7), 1);
        }
    }
}

#[test]
fn what_every_parent_denied_comes_from_a_neighbour() {
    let net = orphaned(|net| {
        // A parent that has just joined, and somebody who was there all the time.
        net.feed(node(2), &[node(0)], ms(10));
        net.feed(node(3), &[node(2)], ms(10));
        net.neighbours(node(3), &[node(0)], ms(10));
    });
    let stats = net.stats(node(3));
    assert!(stats.gaps_in > 0 && stats.neighbour_chunks_in > 10, "{stats:?}");
    net.assert_identical(node(3), 1);
}

#[test]
fn no_chunk_is_asked_of_two_and_none_that_is_coming_anyway() {
    let mut net = Net::new(camera(4), 4);
    for number in 1..=4 {
        net.feed(node(number), &[node(0)], ms(10));
    }
    net.neighbours(node(4), &[node(1), node(2), node(3)], ms(10));
    net.run_until(at(8_000));
    let stats = net.stats(node(4));
    assert_eq!(stats.neighbour_chunks_in + stats.neighbour_duplicates, 0, "{stats:?}");
    net.failover = false;
    net.grant(node(0), node(4), StripeSet::EMPTY, StripeSet::EMPTY);
    net.run_until(at(14_000));
    let stats = net.stats(node(4));
    assert!(stats.neighbour_chunks_in > 100, "{stats:?}");
    assert!(stats.neighbour_duplicates * 20 <= stats.neighbour_chunks_in, "{stats:?}");
}

#[test]
fn a_neighbour_is_served_below_children_and_at_half_the_rate_of_the_stream() {
    let mut net = Net::new(camera(1), 2);
    net.feed(node(1), &[node(0)], ms(10));
    net.run_until(at(4_000));
    let asked = want(0, &[(0, 4_000)]);
    assert!(answers(&mut net, 2, asked.clone())[0] > 0, "no ceiling, nobody waits");
    let before = net.stats(node(0)).neighbour_bytes_out;
    for turn in 0..400 {
        net.run_until(at(4_000 + turn * 10));
        answers(&mut net, 2, asked.clone());
    }
    let bytes = net.stats(node(0)).neighbour_bytes_out - before;
    let half = Bitrate::from_kbps(400).bytes_in(ms(4_000));
    assert!((half * 8 / 10..=half * 11 / 10).contains(&bytes), "{bytes} of {half}");
    // A child that takes more than the uplink has: nobody else gets anything.
    net.run_until(at(12_000));
    net.input(node(0), RelayInput::Uplink { ceiling: Some(Bitrate::from_kbps(400)) });
    net.run_until(at(12_500));
    let before = net.stats(node(0));
    assert!(answers(&mut net, 2, asked).is_empty());
    net.run_until(at(14_000));
    let after = net.stats(node(0));
    assert_eq!(after.neighbour_bytes_out, before.neighbour_bytes_out);
    assert!(after.neighbour_wants_refused > before.neighbour_wants_refused, "it was told so");
}

#[test]
fn a_question_that_nobody_can_answer_is_answered_with_what_is_here() {
    let mut net = Net::new(camera(4), 2);
    net.run_until(at(1_000));
    assert_eq!(answers(&mut net, 1, want(0, &[(1 << 40, 1 << 41)])), [0]);
    assert_eq!(answers(&mut net, 1, want(9, &[(0, 5)])), [0], "a stripe that isn't there");
    let other = RepairWant { epoch: 99, ..want(0, &[(0, 5)]) };
    assert_eq!(answers(&mut net, 1, other), [0]);
    let other = RepairWant { stream: crate::ids::StreamId([9; 32]), ..want(0, &[(0, 5)]) };
    assert_eq!(answers(&mut net, 1, other), [0]);
    assert_eq!(answers(&mut net, 1, want(0, &[(0, u64::MAX)])), [0]);
    assert!(answers(&mut net, 1, want(0, &[(0, 5)]))[0] > 0);
}

#[test]
fn questions_are_bounded_one_for_each_neighbour() {
    let mut net = Net::new(camera(1), 1);
    net.feed(node(1), &[node(0)], ms(10));
    net.run_until(at(2_000));
    net.input(node(0), RelayInput::Uplink { ceiling: Some(Bitrate::ZERO) });
    net.run_until(at(2_200));
    for asker in 0..100 {
        let refused = answers(&mut net, 100 + asker, want(0, &[(0, 50)])).len();
        assert_eq!(refused, usize::from(usize::from(asker) >= QUESTIONS_MAX));
    }
    assert_eq!(answers(&mut net, 100, want(0, &[(0, 50)])).len(), 1, "it has asked already");
    let many: Vec<_> = (0..99).map(node).collect();
    net.input(node(1), RelayInput::Neighbours { stream: stream_id(), nodes: many });
    net.run_until(at(8_000));
    assert!(net.stats(node(1)).neighbour_wants_out <= 40 * NEIGHBOURS_MAX as u64);
}

#[test]
fn what_came_from_elsewhere_is_not_repaired_again() {
    let mut net = Net::new(camera(1), 1);
    net.connect(node(0), node(1), ms(10));
    net.grant(node(0), node(1), StripeSet::EMPTY, net.all());
    net.run_until(at(3_000));
    net.input(node(0), RelayInput::Uplink { ceiling: Some(Bitrate::from_kbps(8)) });
    let feed = to_child(node(1));
    let frame = UpFrame::Want { stripe: 0, ranges: vec![(10, 49)] };
    net.input(node(0), RelayInput::UpFrame { feed, frame });
    let wanted = |net: &Net| net.relays[&node(0)].snapshot().streams[0].children[0].wanted;
    let before = wanted(&net);
    let frame = UpFrame::Cancel { stripe: 0, ranges: vec![(20, 29), (0, 5)] };
    net.input(node(0), RelayInput::UpFrame { feed, frame });
    assert_eq!(wanted(&net), before - 10);
    let all = UpFrame::Cancel { stripe: 0, ranges: vec![(0, u64::MAX)] };
    net.input(node(0), RelayInput::UpFrame { feed, frame: all });
    assert_eq!(wanted(&net), 0);
}

#[test]
fn nobody_is_served_before_the_children_have_the_end() {
    let mut net = Net::new(camera(4), 2);
    net.attach(node(2), 1, Policy::KeepAll);
    net.feed(node(1), &[node(0)], ms(10));
    net.feed(node(2), &[node(1)], ms(10));
    net.run_until(at(3_000));
    // The last hop is slow: its reader is behind when the stream ends.
    net.throttle(node(1), node(2), Bitrate::from_kbps(500));
    net.run_until(at(4_000));
    net.shooting = false;
    let stream = stream_id();
    assert!(!net.relays[&node(1)].is_served(stream), "it has not ended");
    let end = net.camera.end();
    net.local(end);
    net.run_until(at(4_100));
    assert!(!net.relays[&node(1)].is_served(stream), "a child waits");
    net.run_until(at(9_000));
    assert!(net.relays[&node(1)].is_served(stream));
    net.assert_identical(node(2), 1);
}

#[test]
fn a_stream_that_pauses_or_ends_while_it_lives_on_neighbours_lets_the_node_sleep() {
    for ends in [false, true] {
        let mut net = Net::new(camera(4), 3);
        net.failover = false;
        for number in 1..=3 {
            net.feed(node(number), &[node(0)], ms(10));
        }
        net.neighbours(node(3), &[node(1), node(2)], ms(10));
        net.run_until(at(3_000));
        net.grant(node(0), node(3), StripeSet::EMPTY, StripeSet::EMPTY);
        net.run_until(at(5_000));
        assert!(net.stats(node(3)).neighbour_chunks_in > 10);
        net.shooting = false;
        if ends {
            let end = net.camera.end();
            net.local(end);
        } else {
            net.input(node(3), RelayInput::Paused { stream: stream_id(), paused: true });
        }
        net.run_until(at(8_000));
        let before = net.timeouts;
        net.run_until(at(9_000));
        assert!(net.timeouts - before < 400, "{} in a second", net.timeouts - before);
    }
}
