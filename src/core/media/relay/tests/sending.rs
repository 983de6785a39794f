//! The scheduler: the ceiling, live before repair, slow children, windows.

use std::time::Duration;

use super::harness::{Camera, Net, at, from_parent, ms, node, to_child};
use crate::{
    ids::{NodeId, StripeSet},
    media::{
        frame::{DownFrame, Start, UpFrame},
        relay::{Policy, RelayInput, RelayOutput},
    },
    units::Bitrate,
};

fn camera(k: u8) -> Camera {
    Camera::new(100, k, Bitrate::from_kbps(800), 25)
}

/// Most bytes that left a node in any second, from `since` on.
fn busiest_second(net: &Net, who: NodeId) -> u64 {
    let sent = &net.sent[&who];
    let mut first = 0;
    let mut sum = 0;
    let mut most = 0;
    for (last, (at, _, bytes)) in sent.iter().enumerate() {
        sum += *bytes as u64;
        while at.since(sent[first].0) >= Duration::from_secs(1) {
            sum -= sent[first].2 as u64;
            first += 1;
        }
        most = most.max(sum);
        assert!(first <= last);
    }
    most
}

#[test]
fn no_second_sees_more_than_the_ceiling_repair_included() {
    let ceiling = Bitrate::from_kbps(2_000);
    let mut net = Net::new(camera(4), 3);
    net.input(node(0), RelayInput::Uplink { ceiling: Some(ceiling) });
    for child in [1, 2] {
        net.attach(node(child), 1, Policy::KeepAll);
        net.feed(node(child), &[node(0)], ms(10));
    }
    // A third that comes late and asks for all there is.
    net.script_at(at(6_000), 1);
    net.script_at(at(7_000), 2);
    net.run_script(at(12_000), |net, number| match number {
        1 => {
            net.connect(node(0), node(3), ms(10));
            net.grant(node(0), node(3), StripeSet::EMPTY, net.all());
        }
        _ => {
            for stripe in 0..4 {
                let frame = UpFrame::Want { stripe, ranges: vec![(0, 4_000)] };
                net.input(node(0), RelayInput::UpFrame { feed: to_child(node(3)), frame });
            }
        }
    });
    net.shooting = false;
    net.run_until(at(14_000));
    let most = busiest_second(&net, node(0));
    assert!(most <= ceiling.bytes_in(Duration::from_secs(1)), "{most} bytes in a second");
    assert!(net.stats(node(0)).repair_bytes_out > 100_000);
    net.assert_identical(node(1), 1);
    net.assert_identical(node(2), 1);
}

#[test]
fn repair_never_delays_what_is_live() {
    // One child's live stripes and another's repair compete for an uplink just above one copy.
    let mut slowest = [Duration::ZERO; 2];
    for repair in [0, 1] {
        let mut net = Net::new(camera(1), 2);
        net.input(node(0), RelayInput::Uplink { ceiling: Some(Bitrate::from_kbps(1_200)) });
        net.feed(node(1), &[node(0)], ms(10));
        net.connect(node(0), node(2), ms(10));
        net.grant(node(0), node(2), StripeSet::EMPTY, net.all());
        net.script_at(at(4_000), 1);
        net.run_script(at(9_000), |net, _| {
            if repair == 1 {
                let frame = UpFrame::Want { stripe: 0, ranges: vec![(0, 4_000)] };
                net.input(node(0), RelayInput::UpFrame { feed: to_child(node(2)), frame });
            }
        });
        let cut_at = |seq: u64| at(net.camera.cut[seq as usize].header.time_ms);
        slowest[repair] = net
            .frames
            .iter()
            .filter(|(when, _, to, _)| *to == node(1) && *when > at(4_000))
            .filter_map(|(when, _, _, frame)| match frame {
                DownFrame::Chunk(chunk) => Some(when.since(cut_at(chunk.header.seq))),
                _ => None,
            })
            .max()
            .unwrap();
        let repaired = net
            .frames
            .iter()
            .any(|(_, _, to, frame)| *to == node(2) && matches!(frame, DownFrame::Chunk(_)));
        assert_eq!(repair == 1, repaired);
    }
    // A chunk of repair that is on the wire already is the most that a live one waits for.
    assert!(slowest[1] <= slowest[0] + ms(100), "{slowest:?}");
}

/// The longest that a live chunk for node 1 waited at the source.
fn longest_wait(net: &Net, from: u64, to: u64) -> Duration {
    let sent = net
        .frames
        .iter()
        .filter(|(when, _, child, _)| *child == node(1) && *when >= at(from) && *when < at(to));
    sent.filter_map(|(when, _, _, frame)| match frame {
        DownFrame::Chunk(chunk) => Some(when.since(at(chunk.header.time_ms))),
        _ => None,
    })
    .max()
    .unwrap()
}

#[test]
fn a_joiner_on_a_full_uplink_does_not_delay_those_who_watch() {
    // Two copies of 800 kbit/s and a little; the second child is there all the time, or joins 1.9 s
    // after a keyframe.
    let [settled, joining] = [300, 5_900].map(|joins| {
        let mut net = Net::new(Camera::new(100, 4, Bitrate::from_kbps(800), 50), 2);
        net.input(node(0), RelayInput::Uplink { ceiling: Some(Bitrate::from_kbps(2_000)) });
        net.feed(node(1), &[node(0)], ms(10));
        net.attach(node(2), 1, Policy::KeepAll);
        net.script_at(at(joins), 1);
        net.run_script(at(20_000), |net, _| net.feed(node(2), &[node(0)], ms(10)));
        net.shooting = false;
        net.run_until(at(22_000));
        net.assert_identical(node(2), 1);
        assert!(net.got(node(2), 1)[0].header.time_ms + 2_000 > joins);
        assert!(net.stats(node(2)).duplicates <= 3, "what is on its way is not asked for again");
        longest_wait(&net, 5_900, 12_000)
    });
    assert!(joining <= settled + ms(100), "{joining:?}, without a joiner {settled:?}");
}

#[test]
fn a_joiner_begins_where_the_picture_is_soonest() {
    // Keyframes are two seconds apart. What lies between the last one and now takes a full uplink
    // longer than the way to the next one, or not; an idle uplink has sent it at once.
    for (kbps, joins, begins) in
        [(100_000, 5_900, 4_000), (2_000, 5_900, 6_000), (2_000, 4_200, 4_000)]
    {
        let mut net = Net::new(Camera::new(100, 4, Bitrate::from_kbps(800), 50), 2);
        net.input(node(0), RelayInput::Uplink { ceiling: Some(Bitrate::from_kbps(kbps)) });
        net.feed(node(1), &[node(0)], ms(10));
        net.attach(node(2), 1, Policy::KeepAll);
        net.script_at(at(joins), 1);
        net.run_script(at(12_000), |net, _| net.feed(node(2), &[node(0)], ms(10)));
        net.shooting = false;
        net.run_until(at(15_000));
        net.assert_identical(node(2), 1);
        let first = net.got(node(2), 1)[0].header.time_ms;
        assert_eq!(first, begins, "{kbps} kbit/s, joins at {joins} ms");
    }
}

#[test]
fn a_slow_child_sheds_stripes_from_the_highest_and_the_others_see_nothing() {
    let mut net = Net::new(camera(4), 3);
    for child in [1, 2, 3] {
        net.attach(node(child), 1, Policy::KeepAll);
        net.feed(node(child), &[node(0)], ms(10));
    }
    // Room for two stripes of four, from the third second on.
    net.script_at(at(3_000), 1);
    net.run_script(at(15_000), |net, _| {
        net.throttle(node(0), node(3), Bitrate::from_kbps(500));
    });
    net.shooting = false;
    net.run_until(at(17_000));
    let sheds: Vec<StripeSet> = net
        .other
        .iter()
        .filter_map(|(_, who, output)| match output {
            RelayOutput::Shed { feed, stripes } => {
                assert_eq!((*who, feed.peer), (node(0), node(3)));
                Some(*stripes)
            }
            _ => None,
        })
        .collect();
    assert!(sheds.len() >= 2, "{sheds:?}");
    assert_eq!(sheds[0], StripeSet(0b1000));
    assert_eq!(sheds[1], StripeSet(0b0100));
    assert!(net.progress.iter().any(|(_, who, p)| *who == node(3) && p.shed == sheds[0]));
    assert!(
        !net.other.iter().any(|(_, _, output)| matches!(output, RelayOutput::Stalled { .. })),
        "it drains what it can"
    );
    net.assert_identical(node(1), 1);
    net.assert_identical(node(2), 1);
    assert_eq!(net.stats(node(1)).skips.total(), 0);
}

#[test]
fn a_child_that_never_drains_is_stalled_within_six_seconds_and_costs_no_memory() {
    let mut net = Net::new(camera(4), 2);
    for child in [1, 2] {
        net.attach(node(child), 1, Policy::KeepAll);
        net.feed(node(child), &[node(0)], ms(10));
    }
    net.script_at(at(2_000), 1);
    net.run_script(at(12_000), |net, _| net.freeze(node(2)));
    let stalled: Vec<_> = net
        .other
        .iter()
        .filter(|(_, _, output)| matches!(output, RelayOutput::Stalled { .. }))
        .collect();
    assert_eq!(stalled.len(), 1, "told once");
    let quiet = net.other.iter().filter_map(|(when, who, output)| match output {
        RelayOutput::ChildQuiet { feed } => Some((*when, *who, feed.peer)),
        _ => None,
    });
    let quiet: Vec<_> = quiet.collect();
    assert!(
        matches!(quiet[..], [(when, who, peer)] if (who, peer) == (node(0), node(2)) && when <= at(3_200)),
        "{quiet:?}"
    );
    assert!(stalled[0].0 <= at(8_000), "{:?}", stalled[0].0);
    let unacked: usize = net
        .frames
        .iter()
        .filter(|(when, _, to, _)| *to == node(2) && *when > at(2_000))
        .map(|(_, _, _, frame)| frame.wire_len())
        .sum();
    assert!(unacked < 80 * 1_024, "{unacked} bytes were queued for it");
    net.shooting = false;
    net.run_until(at(13_000));
    net.assert_identical(node(1), 1);
}

#[test]
fn what_is_due_for_one_child_at_once_comes_in_one_batch() {
    let mut net = Net::new(camera(4), 1);
    net.feed(node(1), &[node(0)], ms(10));
    net.run_until(at(990));
    let chunks = net.camera.shoot();
    let count = chunks.len();
    assert!(count > 3);
    let now = net.now;
    let relay = net.relays.get_mut(&node(0)).unwrap();
    for chunk in chunks {
        let stream = super::harness::stream_id();
        relay.handle_input(RelayInput::LocalChunk { stream, chunk }, now);
    }
    let outputs: Vec<_> = std::iter::from_fn(|| relay.poll_output()).collect();
    let [RelayOutput::Down { frames, .. }] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!(frames.len(), count);
}

#[test]
fn a_stripe_that_is_not_granted_is_asked_about_and_not_sent() {
    let mut net = Net::new(camera(4), 1);
    net.connect(node(0), node(1), ms(10));
    net.grant(node(0), node(1), StripeSet(0b0001), StripeSet(0b0010));
    for stripe in 0..3 {
        net.promote(node(1), node(0), stripe);
    }
    net.run_until(at(2_000));
    let asked: Vec<u8> = net
        .other
        .iter()
        .filter_map(|(_, _, output)| match output {
            RelayOutput::PromoteAsked { stripe, .. } => Some(*stripe),
            _ => None,
        })
        .collect();
    assert_eq!(asked, [1, 2]);
    let stripes_sent = |net: &Net| {
        let mut set = StripeSet::EMPTY;
        for (_, _, _, frame) in &net.frames {
            match frame {
                DownFrame::Chunk(chunk) => set.insert(chunk.header.stripe),
                DownFrame::Start { stripe, .. } => set.insert(*stripe),
                _ => {}
            }
        }
        set
    };
    assert_eq!(stripes_sent(&net), StripeSet(0b0001));
    net.grant(node(0), node(1), StripeSet(0b0011), StripeSet::EMPTY);
    net.run_until(at(3_000));
    assert_eq!(stripes_sent(&net), StripeSet(0b0011), "granted later, it starts as asked before");
}

#[test]
fn a_revoked_stripe_stops_at_once_and_is_not_repaired_either() {
    let mut net = Net::new(camera(4), 1);
    net.feed(node(1), &[node(0)], ms(10));
    net.run_until(at(2_000));
    net.grant(node(0), node(1), StripeSet(0b0111), StripeSet::EMPTY);
    let from = net.frames.len();
    let frame = UpFrame::Want { stripe: 3, ranges: vec![(0, 20)] };
    net.input(node(0), RelayInput::UpFrame { feed: to_child(node(1)), frame });
    net.run_until(at(4_000));
    let after = &net.frames[from..];
    assert!(after.iter().all(|(_, _, _, frame)| {
        !matches!(frame, DownFrame::Chunk(chunk) if chunk.header.stripe == 3)
    }));
    assert!(after.iter().any(|(_, _, _, frame)| {
        matches!(frame, DownFrame::Gap { stripe: 3, from: 0, to: 20 })
    }));
}

#[test]
fn a_released_stripe_stops_and_the_overlay_hears_of_it() {
    let mut net = Net::new(camera(4), 1);
    net.feed(node(1), &[node(0)], ms(10));
    net.run_until(at(2_000));
    net.input(node(1), RelayInput::Release { feed: from_parent(node(0)), stripe: 2 });
    net.run_until(at(2_100));
    let from = net.frames.len();
    net.run_until(at(4_000));
    assert!(net.frames[from..].iter().all(|(_, _, _, frame)| {
        !matches!(frame, DownFrame::Chunk(chunk) if chunk.header.stripe == 2)
    }));
    let released = RelayOutput::Released { feed: to_child(node(1)), stripe: 2 };
    assert!(net.other.iter().any(|(_, _, output)| *output == released));
}

#[test]
fn a_ceiling_that_changes_holds_from_then_on() {
    let mut net = Net::new(camera(4), 2);
    for child in [1, 2] {
        net.feed(node(child), &[node(0)], ms(10));
    }
    net.run_until(at(4_000));
    let ceiling = Bitrate::from_kbps(400);
    net.input(node(0), RelayInput::Uplink { ceiling: Some(ceiling) });
    net.sent.clear();
    net.run_until(at(10_000));
    let most = busiest_second(&net, node(0));
    assert!(most <= ceiling.bytes_in(Duration::from_secs(1)), "{most} bytes in a second");
}

#[test]
fn a_child_that_asks_without_reading_gets_no_answers_beyond_a_bound() {
    let mut net = Net::new(camera(1), 1);
    net.feed(node(1), &[node(0)], ms(10));
    net.run_until(at(1_000));
    let feed = to_child(node(1));
    net.input(node(0), RelayInput::Drained { feed, bytes: 1, chunk_bytes: 0 });
    let before = net.frames.len();
    for _ in 0..40_000 {
        let ranges = (0..8).map(|at| (at * 2 + 1_000_000, at * 2 + 1_000_000)).collect();
        let frame = UpFrame::Promote { stripe: 0, start: Start::From(3), missing: ranges };
        net.input(node(0), RelayInput::UpFrame { feed, frame });
    }
    let bytes: usize = net.frames[before..].iter().map(|(_, _, _, frame)| frame.wire_len()).sum();
    assert!(bytes < 1_300_000, "{bytes}");
    assert!(net.stats(node(0)).refused > 0);
}

#[test]
fn a_child_that_insists_on_a_stripe_is_passed_on_twice_a_second() {
    let mut net = Net::new(camera(4), 1);
    net.connect(node(0), node(1), ms(10));
    for turn in 0..100 {
        net.run_until(at(turn * 10));
        let frame = UpFrame::Promote { stripe: 2, start: Start::Live, missing: Vec::new() };
        net.input(node(0), RelayInput::UpFrame { feed: to_child(node(1)), frame });
    }
    let asked = |output: &RelayOutput<_>| matches!(output, RelayOutput::PromoteAsked { .. });
    assert_eq!(net.other.iter().filter(|(_, _, output)| asked(output)).count(), 2);
}

#[test]
fn an_ack_counts_no_further_than_what_was_handed_on() {
    let mut net = Net::new(camera(1), 1);
    net.feed(node(1), &[node(0)], ms(10));
    net.run_until(at(1_000));
    net.freeze(node(1));
    let feed = to_child(node(1));
    let acked = |net: &Net| net.relays[&node(0)].snapshot().streams[0].children[0].acked_bytes;
    let before = acked(&net);
    net.input(node(0), RelayInput::Drained { feed, bytes: 1, chunk_bytes: 0 });
    net.run_until(at(1_500));
    let sent = net.relays[&node(0)].snapshot().streams[0].children[0].sent_bytes;
    assert!(sent > before);
    // It claims to have read what still waits in the driver.
    let frame = UpFrame::Ack { bytes: sent, alive: StripeSet::EMPTY };
    net.input(node(0), RelayInput::UpFrame { feed, frame });
    assert_eq!(acked(&net), before);
    let chunk_bytes = sent as usize;
    net.input(node(0), RelayInput::Drained { feed, bytes: chunk_bytes, chunk_bytes });
    assert_eq!(acked(&net), sent, "the claim counts once the bytes were handed on");
    assert_eq!(net.stats(node(0)).false_acks, 0);
}

#[test]
fn a_path_and_what_the_driver_sends_by_itself_count_against_the_ceiling() {
    let mut net = Net::new(camera(1), 1);
    let ceiling = Bitrate::from_kbps(400);
    net.shooting = false;
    net.input(node(0), RelayInput::Uplink { ceiling: Some(ceiling) });
    net.connect(node(0), node(1), ms(10));
    net.grant(node(0), node(1), net.all(), StripeSet::EMPTY);
    net.run_until(at(1_000));
    let feed = to_child(node(1));
    let before = net.frames.len();
    net.input(node(0), RelayInput::Path { feed, stripe: 0, path: vec![1, 2] });
    assert!(net.frames[before..].iter().any(|(_, _, to, frame)| {
        *to == node(1) && *frame == DownFrame::Path { stripe: 0, path: vec![1, 2] }
    }));
    // The bucket is empty after these, so that a chunk waits.
    net.input(node(0), RelayInput::Spent { bytes: 5_000 });
    net.promote(node(1), node(0), 0);
    net.resume_shooting();
    let before = net.frames.len();
    net.run_until(at(1_030));
    let chunk = |(_, _, _, frame): &(_, _, _, DownFrame<_>)| matches!(frame, DownFrame::Chunk(_));
    assert!(!net.frames[before..].iter().any(chunk), "nothing is left to spend");
    net.run_until(at(2_000));
    assert!(net.frames[before..].iter().any(chunk));
}
