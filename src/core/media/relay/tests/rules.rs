//! Feeds: KEEP, ACK, silence, progress, offences, duplicates, bounds.

use super::harness::{Camera, Net, at, from_parent, ms, node, stream_id, to_child};
use crate::{
    ids::StripeSet,
    media::{
        frame::{DownFrame, Start, UpFrame},
        relay::{
            DownFrameMeta, FeedOffence, FeedProgress, Policy, Relay, RelayConfig, RelayInput,
            RelayOutput, SEQ_AHEAD_MAX, SINKS_MAX, SinkId, StreamRole,
        },
    },
    time::Timestamp,
    units::Bitrate,
};

fn camera(k: u8) -> Camera {
    Camera::new(100, k, Bitrate::from_kbps(800), 25)
}

#[test]
fn a_quiet_feed_is_kept_alive_and_a_busy_one_tells_age_and_depth_each_second() {
    let mut net = Net::new(camera(1), 2);
    net.feed(node(1), &[node(0)], ms(10));
    net.feed(node(2), &[node(1)], ms(10));
    net.run_until(at(4_000));
    net.shooting = false;
    net.run_until(at(8_000));
    let mut keeps = Vec::new();
    for (when, from, _, frame) in &net.frames {
        if let DownFrame::Keep { stripes, .. } = frame
            && *from == node(1)
        {
            keeps.push((*when, stripes.clone()));
        }
    }
    let busy = keeps.iter().filter(|(when, _)| *when < at(4_000)).count();
    assert!((4..=10).contains(&busy), "{busy} KEEPs in 4 s of video");
    let quiet: Vec<_> = keeps.iter().filter(|(when, _)| *when > at(4_300)).collect();
    for pair in quiet.windows(2) {
        assert!(pair[1].0.since(pair[0].0) <= ms(151));
    }
    let last = &keeps.last().unwrap().1[0];
    assert_eq!(last.depth, 1);
    assert!((3_800..4_200).contains(&last.age_ms), "{}", last.age_ms);
    assert!(net.progress.iter().all(|(_, _, progress)| progress.silent_since.is_none()));
}

#[test]
fn a_standby_that_falls_silent_is_reported_though_nothing_is_asked_of_it() {
    let mut net = Net::new(camera(1), 1);
    net.feed(node(1), &[node(0)], ms(10));
    net.run_until(at(1_000));
    let feed = from_parent(node(9));
    net.input(node(1), RelayInput::FeedUp { feed, rtt: None });
    net.run_until(at(3_000));
    let silent = net.progress.iter().filter(|(_, _, p)| p.silent_since.is_some());
    let silent: Vec<_> = silent.map(|(when, _, p)| (*when, p.feed.peer)).collect();
    assert!(matches!(silent[..], [(when, peer)] if peer == node(9) && when <= at(2_700)));
}

#[test]
fn acks_follow_the_bytes_and_renew_the_lease_once_a_second() {
    let mut net = Net::new(camera(4), 1);
    net.feed(node(1), &[node(0)], ms(10));
    net.run_until(at(10_000));
    let alive = net
        .other
        .iter()
        .filter(|(_, _, output)| matches!(output, RelayOutput::ChildAlive { stripes, .. } if *stripes == net.all()))
        .count();
    assert!((8..=10).contains(&alive), "{alive}");
    let child = &net.relays[&node(0)].snapshot().streams[0].children[0];
    assert!(child.sent_bytes - child.acked_bytes < 64 * 1_024);
    assert_eq!(net.stats(node(0)).false_acks, 0);
}

#[test]
fn an_ack_of_more_than_was_sent_is_counted_and_changes_nothing() {
    let mut net = Net::new(camera(1), 1);
    net.feed(node(1), &[node(0)], ms(10));
    net.run_until(at(1_000));
    let frame = UpFrame::Ack { bytes: u64::MAX, alive: StripeSet::EMPTY };
    net.input(node(0), RelayInput::UpFrame { feed: to_child(node(1)), frame });
    assert_eq!(net.stats(node(0)).false_acks, 1);
    net.run_until(at(2_000));
    assert!(net.stats(node(1)).chunks_in > 20);
}

#[test]
fn progress_comes_at_most_twenty_times_a_second_but_a_gap_is_told_at_once() {
    let mut net = Net::new(camera(1), 1);
    net.feed(node(1), &[node(0)], ms(10));
    net.run_until(at(5_000));
    let mut times: Vec<Timestamp> = Vec::new();
    for (when, who, _) in &net.progress {
        assert_eq!(*who, node(1));
        times.push(*when);
    }
    assert!(times.windows(2).all(|pair| pair[1].since(pair[0]) >= ms(50)));
    assert!(times.len() > 50);
    let seen = &net.progress.last().unwrap().2.stripes[0];
    assert_eq!((seen.stripe, seen.depth, seen.gaps), (0, 0, 0));
    assert!(seen.bytes > 300_000 && seen.head_stripe_seq > 100, "{seen:?}");
    let frame = DownFrameMeta::Gap { stripe: 0, from: 5, to: 6 };
    let before = net.progress.len();
    net.input(node(1), RelayInput::Frame { feed: from_parent(node(0)), frame });
    assert_eq!(net.progress.len(), before + 1);
    assert_eq!(net.progress[before].2.stripes[0].gaps, 1);
}

#[test]
fn replayed_and_reordered_chunks_are_taken_once() {
    let mut net = Net::new(camera(4), 2);
    net.attach(node(1), 1, Policy::KeepAll);
    net.feed(node(1), &[node(0)], ms(10));
    net.feed(node(2), &[node(1)], ms(10));
    net.attach(node(2), 1, Policy::KeepAll);
    net.run_until(at(3_000));
    let feed = from_parent(node(0));
    let replay: Vec<_> = net.got(node(1), 1).into_iter().rev().collect();
    let (count, before) = (replay.len() as u64, net.frames.len());
    for chunk in replay {
        net.input(node(1), RelayInput::Chunk { feed, chunk });
    }
    assert_eq!(net.stats(node(1)).duplicates, count);
    assert!(net.frames[before..].iter().all(|(_, _, _, f)| !matches!(f, DownFrame::Chunk(_))));
    net.shooting = false;
    net.run_until(at(4_000));
    net.assert_identical(node(1), 1);
    net.assert_identical(node(2), 1);
    let duplicates = net.progress.iter().rev().find(|(_, who, _)| *who == node(1)).unwrap();
    assert_eq!(u64::from(duplicates.2.duplicates), count);
}

#[test]
fn what_somebody_else_brought_first_is_sent_twice_only_when_the_same_parent_repeats_it() {
    let mut net = Net::new(camera(4), 2);
    net.attach(node(1), 1, Policy::KeepAll);
    net.feed(node(1), &[node(0)], ms(10));
    net.run_until(at(3_000));
    // Another feed, that of a parent that this node had before, brings what was already there.
    let late: Vec<_> = net.got(node(1), 1).into_iter().rev().take(20).collect();
    let other = from_parent(node(2));
    net.input(node(1), RelayInput::FeedUp { feed: other, rtt: None });
    let blamed = |net: &Net| {
        let of_it = |(_, who, seen): &&(_, _, FeedProgress)| *who == node(1) && seen.feed == other;
        net.progress.iter().rev().find(of_it).map_or(0, |(_, _, seen)| seen.duplicates)
    };
    for chunk in &late {
        net.input(node(1), RelayInput::Chunk { feed: other, chunk: chunk.clone() });
    }
    net.run_until(at(4_000));
    assert_eq!(blamed(&net), 0, "newest first, and all of it known: it could not know");
    for chunk in late {
        net.input(node(1), RelayInput::Chunk { feed: other, chunk });
    }
    net.run_until(at(5_000));
    assert_eq!(blamed(&net), 20);
}

#[test]
fn chunks_with_impossible_numbers_are_offences_and_never_kept() {
    let mut net = Net::new(camera(4), 1);
    net.feed(node(1), &[node(0)], ms(10));
    net.run_until(at(2_000));
    let feed = from_parent(node(0));
    let good = net.camera.cut[10].clone();
    let held = net.relays[&node(1)].snapshot().streams[0].ring_chunks;
    let mut offences = 0;
    for change in 0..5 {
        let mut chunk = good.clone();
        chunk.header.seq = 1_000;
        chunk.header.stripe_seq = 1_000;
        match change {
            0 => chunk.header.stripe = 4,
            1 => chunk.header.seq = 1_000 + SEQ_AHEAD_MAX,
            2 => chunk.header.stripe_seq = 1_000 + SEQ_AHEAD_MAX,
            3 => chunk.header.seq = u64::MAX,
            _ => chunk.header.stripe_seq = good.header.stripe_seq,
        }
        net.input(node(1), RelayInput::Chunk { feed, chunk });
        offences += 1;
        assert_eq!(net.stats(node(1)).offences, offences, "change {change}");
    }
    let kind = FeedOffence::Signature;
    net.input(node(1), RelayInput::Offence { feed, kind });
    assert_eq!(net.progress.last().unwrap().2.offences, 6);
    assert_eq!(net.relays[&node(1)].snapshot().streams[0].ring_chunks, held);
}

#[test]
fn chunks_of_another_epoch_are_counted_and_dropped() {
    let mut net = Net::new(camera(1), 1);
    net.feed(node(1), &[node(0)], ms(10));
    net.run_until(at(1_000));
    let mut chunk = net.camera.cut[0].clone();
    chunk.header.epoch = 99;
    net.input(node(1), RelayInput::Chunk { feed: from_parent(node(0)), chunk });
    assert_eq!(net.stats(node(1)).other_epoch, 1);
    assert_eq!(net.stats(node(1)).offences, 0);
}

#[test]
fn the_ring_keeps_twenty_seconds_and_the_newest_keyframe() {
    let mut net = Net::new(Camera::new(100, 4, Bitrate::from_kbps(800), 25), 0);
    net.run_until(at(40_000));
    let ring = &net.relays[&node(0)].snapshot().streams[0];
    assert!((1_950_000..2_300_000).contains(&ring.ring_bytes), "{}", ring.ring_bytes);
    let mut net = Net::new(Camera::new(100, 4, Bitrate::from_kbps(800), 750), 0);
    net.run_until(at(55_000));
    net.attach(node(0), 1, Policy::KeepAll);
    let first = net.got(node(0), 1)[0].header;
    assert_eq!(first.time_ms, 30_000, "25 s old, and the only one to start at");
}

#[test]
fn inputs_for_what_is_not_there_are_counted_and_bounded() {
    let mut relay: Relay<super::harness::Sim> = Relay::new(RelayConfig::default(), at(0));
    relay.handle_input(RelayInput::FeedDown { feed: from_parent(node(1)) }, at(0));
    relay.handle_input(RelayInput::Credit { sink: SinkId(1), bytes: 1 }, at(0));
    assert_eq!(relay.stats().unknown, 2);
    let stream = stream_id();
    relay.handle_input(RelayInput::Open { stream, role: StreamRole::Member }, at(0));
    for sink in 0..=SINKS_MAX as u64 {
        let (sink, policy) = (SinkId(sink), Policy::KeepAll);
        relay.handle_input(RelayInput::Attach { stream, sink, policy, credit: 1 }, at(0));
    }
    assert_eq!(relay.stats().refused, 1);
    relay.handle_input(
        RelayInput::Attach { stream, sink: SinkId(0), policy: Policy::KeepAll, credit: 1 },
        at(0),
    );
    assert_eq!(relay.stats().refused, 2, "a sink's number is used once");
    let feed = to_child(node(2));
    relay.handle_input(RelayInput::FeedUp { feed, rtt: None }, at(0));
    relay.handle_input(RelayInput::FeedDown { feed }, at(0));
    let live = StripeSet::first(1);
    relay.handle_input(RelayInput::SetStripes { feed, live, warm: StripeSet::EMPTY }, at(0));
    assert_eq!(relay.stats().unknown, 3);
    assert!(relay.snapshot().streams[0].children.is_empty(), "a child that has gone stays gone");
    assert_eq!(relay.poll_timeout(), None);
}

#[test]
fn hostile_wants_and_promotes_are_bounded() {
    let mut net = Net::new(camera(1), 1);
    net.feed(node(1), &[node(0)], ms(10));
    net.run_until(at(2_000));
    let feed = to_child(node(1));
    for turn in 0..2_000_u64 {
        let ranges = (0..8).map(|at| (turn * 1_000 + at * 100, turn * 1_000 + at * 100)).collect();
        net.input(
            node(0),
            RelayInput::UpFrame { feed, frame: UpFrame::Want { stripe: 0, ranges } },
        );
    }
    let ranges = vec![(0, u64::MAX), (7, 3)];
    net.input(node(0), RelayInput::UpFrame { feed, frame: UpFrame::Want { stripe: 0, ranges } });
    let start = Start::From(u64::MAX);
    let frame = UpFrame::Promote { stripe: 0, start, missing: Vec::new() };
    net.input(node(0), RelayInput::UpFrame { feed, frame });
    let frame = UpFrame::Promote { stripe: 77, start: Start::Live, missing: vec![(5, 1)] };
    net.input(node(0), RelayInput::UpFrame { feed, frame });
    let snapshot = net.relays[&node(0)].snapshot();
    assert!(snapshot.streams[0].children[0].wanted <= 4_096);
    assert!(snapshot.stats.ranges_dropped > 0);
    assert_eq!(snapshot.stats.offences, 2);
    net.run_until(at(4_000));
}

#[test]
fn nothing_happens_without_input_on_an_idle_relay_and_time_may_stand_still() {
    let mut net = Net::new(camera(4), 1);
    net.shooting = false;
    net.feed(node(1), &[node(0)], ms(10));
    net.run_until(at(60_000));
    assert!(net.timeouts < 60 * 40, "{} timeouts in a minute", net.timeouts);
    let relay = net.relays.get_mut(&node(1)).unwrap();
    relay.handle_timeout(at(1));
}

#[test]
fn equal_inputs_give_equal_outputs() {
    let run = || {
        let mut net = Net::new(camera(8), 3);
        net.input(node(0), RelayInput::Uplink { ceiling: Some(Bitrate::from_mbps(2)) });
        net.feed(node(1), &[node(0)], ms(10));
        net.feed(node(2), &[node(0)], ms(30));
        net.attach(node(3), 1, Policy::KeepAll);
        net.feed_striped(node(3), &[node(1), node(2)], ms(20));
        net.script_at(at(2_000), 1);
        net.run_script(at(5_000), |net, _| net.kill(node(1), ms(20)));
        (net.frames, net.delivered, net.progress)
    };
    assert!(run() == run());
}
