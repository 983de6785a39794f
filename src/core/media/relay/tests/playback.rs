//! Sinks: where they start, what they skip, and that they are told.

use super::harness::{Camera, Net, at, from_parent, ms, node, stream_id};
use crate::{
    media::{
        chunk::ChunkFlags,
        frame::EndReason,
        relay::{Delivery, Policy, RelayInput, SinkId, SkipCause},
    },
    units::Bitrate,
};

const LIVE: Policy = Policy::Live { lag: ms_const(1_500) };

const fn ms_const(ms: u64) -> std::time::Duration {
    std::time::Duration::from_millis(ms)
}

fn camera(k: u8) -> Camera {
    Camera::new(100, k, Bitrate::from_kbps(800), 25)
}

fn items(net: &Net, who: u8, sink: u64) -> Vec<Delivery<super::harness::Sim>> {
    let items = net.delivered.get(&(node(who), sink)).cloned().unwrap_or_default();
    items.into_iter().map(|(_, item)| item).collect()
}

#[test]
fn a_sink_at_a_running_stream_starts_at_the_newest_keyframe_with_its_init() {
    for policy in [LIVE, Policy::KeepAll] {
        let mut net = Net::new(camera(4), 1);
        net.feed(node(1), &[node(0)], ms(10));
        net.run_until(at(5_500));
        net.attach(node(1), 9, policy);
        let first = net.got(node(1), 9)[0].header;
        assert!(first.flags.contains(ChunkFlags::KEYFRAME));
        assert_eq!(first.time_ms, 5_000);
        net.run_until(at(8_000));
        net.shooting = false;
        net.run_until(at(9_000));
        net.assert_identical(node(1), 9);
    }
}

#[test]
fn the_source_itself_can_be_watched() {
    let mut net = Net::new(camera(4), 0);
    net.attach(node(0), 1, Policy::KeepAll);
    net.attach(node(0), 2, LIVE);
    net.run_until(at(4_000));
    assert_eq!(net.assert_identical(node(0), 1), net.camera.cut.len());
    assert_eq!(net.assert_identical(node(0), 2), net.camera.cut.len());
}

#[test]
fn stripes_that_start_at_different_keyframes_make_one_whole_start() {
    for late in (100..2_500).step_by(230) {
        let mut net = Net::new(camera(4), 3);
        net.feed(node(1), &[node(0)], ms(5));
        net.feed(node(2), &[node(0)], ms(5));
        net.run_until(at(3_000));
        net.attach(node(3), 1, Policy::KeepAll);
        for parent in [1, 2] {
            net.connect(node(parent), node(3), ms(10));
            net.grant(node(parent), node(3), net.all(), crate::ids::StripeSet::EMPTY);
        }
        net.promote(node(3), node(1), 0);
        net.promote(node(3), node(2), 1);
        net.run_until(at(3_000 + late));
        net.promote(node(3), node(2), 2);
        net.promote(node(3), node(1), 3);
        net.run_until(at(8_000));
        net.shooting = false;
        net.run_until(at(9_000));
        net.assert_identical(node(3), 1);
    }
}

#[test]
fn a_missing_chunk_costs_a_live_reader_one_counted_skip_to_a_keyframe() {
    let mut net = Net::new(camera(4), 1);
    net.attach(node(1), 1, LIVE);
    net.attach(node(1), 2, Policy::KeepAll);
    net.feed(node(1), &[node(0)], ms(10));
    net.run_until(at(3_100));
    // One stripe stops for longer than the lag.
    net.grant(node(0), node(1), crate::ids::StripeSet(0b0111), crate::ids::StripeSet(0b1000));
    net.run_until(at(6_000));
    net.grant(node(0), node(1), net.all(), crate::ids::StripeSet::EMPTY);
    net.promote(node(1), node(0), 3);
    net.run_until(at(9_000));
    net.shooting = false;
    net.run_until(at(10_000));
    net.assert_identical(node(1), 2);
    let items = items(&net, 1, 1);
    let skips: Vec<_> = items
        .iter()
        .enumerate()
        .filter_map(|(at, item)| match item {
            Delivery::Skipped { from_seq, to_seq, cause } => Some((at, *from_seq, *to_seq, *cause)),
            _ => None,
        })
        .collect();
    let [(place, from, to, SkipCause::Deadline)] = skips[..] else { panic!("{skips:?}") };
    let Delivery::Chunk(before) = &items[place - 1] else { panic!() };
    let Delivery::Chunk(after) = &items[place + 1] else { panic!("no init is injected") };
    assert_eq!((before.header.seq + 1, to + 1), (from, after.header.seq));
    assert!(after.header.flags.contains(ChunkFlags::KEYFRAME));
    assert_eq!(net.stats(node(1)).skips.deadline, to - from + 1);
}

#[test]
fn a_live_reader_without_credit_goes_on_at_a_newer_keyframe() {
    let mut net = Net::new(camera(4), 1);
    net.attach_with(node(1), 1, LIVE, 20_000);
    net.attach(node(1), 2, LIVE);
    net.feed(node(1), &[node(0)], ms(10));
    net.run_until(at(6_000));
    let before = net.got(node(1), 1).len();
    net.input(node(1), RelayInput::Credit { sink: SinkId(1), bytes: 10_000_000 });
    net.run_until(at(7_000));
    let items = items(&net, 1, 1);
    let Delivery::Skipped { cause, .. } = items[before + 1] else {
        panic!("{:?}", items[before + 1])
    };
    assert_eq!(cause, SkipCause::SlowReader);
    let Delivery::Chunk(next) = &items[before + 2] else { panic!() };
    assert!(next.header.flags.contains(ChunkFlags::KEYFRAME));
    assert!(next.header.time_ms >= 4_000, "not a second more than needed: {}", next.header.time_ms);
    net.shooting = false;
    net.run_until(at(8_000));
    net.assert_identical(node(1), 2);
}

#[test]
fn a_keep_all_reader_without_credit_loses_nothing_that_the_ring_can_hold() {
    let mut net = Net::new(camera(4), 1);
    net.attach_with(node(1), 1, Policy::KeepAll, 1_000);
    net.feed(node(1), &[node(0)], ms(10));
    net.run_until(at(30_000));
    assert!(net.got(node(1), 1).len() < 40);
    net.input(node(1), RelayInput::Credit { sink: SinkId(1), bytes: 100_000_000 });
    net.shooting = false;
    net.run_until(at(31_000));
    net.assert_identical(node(1), 1);
}

#[test]
fn changed_headers_flow_in_band_and_a_late_reader_gets_the_new_ones() {
    let mut net = Net::new(camera(4), 1);
    net.attach(node(1), 1, Policy::KeepAll);
    net.feed(node(1), &[node(0)], ms(10));
    net.run_until(at(3_010));
    let chunk = net.camera.change_headers();
    net.local(chunk);
    net.run_until(at(3_060));
    net.send_init();
    net.run_until(at(5_500));
    net.attach(node(1), 2, Policy::KeepAll);
    net.shooting = false;
    net.run_until(at(6_500));
    net.assert_identical(node(1), 1);
    let Delivery::Init(init) = &items(&net, 1, 2)[0] else { panic!() };
    assert_eq!(init.init.version, 2);
}

#[test]
fn a_skip_across_a_header_change_delivers_the_new_init_first() {
    let mut net = Net::new(camera(1), 1);
    net.attach_with(node(1), 1, LIVE, 15_000);
    net.feed(node(1), &[node(0)], ms(10));
    net.run_until(at(3_010));
    let chunk = net.camera.change_headers();
    net.local(chunk);
    net.send_init();
    net.run_until(at(9_000));
    net.input(node(1), RelayInput::Credit { sink: SinkId(1), bytes: 10_000_000 });
    let items = items(&net, 1, 1);
    let place = items.iter().position(|item| matches!(item, Delivery::Skipped { .. })).unwrap();
    let Delivery::Init(init) = &items[place + 1] else { panic!("{:?}", items[place + 1]) };
    assert_eq!(init.init.version, 2);
    let Delivery::Chunk(chunk) = &items[place + 2] else { panic!() };
    assert_eq!(chunk.header.init_version, 2);
}

#[test]
fn an_init_that_comes_after_its_chunks_holds_them_back() {
    let mut net = Net::new(camera(1), 1);
    net.add(node(9));
    net.attach(node(9), 1, Policy::KeepAll);
    net.connect(node(0), node(9), ms(5));
    let feed = from_parent(node(0));
    net.promote(node(9), node(0), 0);
    let cert = super::harness::cert(100, 1, Bitrate::from_kbps(800));
    net.input(node(9), RelayInput::Epoch { stream: stream_id(), cert, feed: Some(feed) });
    let frame =
        crate::media::relay::DownFrameMeta::Start { stripe: 0, from_stripe_seq: 0, from_seq: 0 };
    net.input(node(9), RelayInput::Frame { feed, frame });
    for chunk in net.camera.clone().shoot() {
        net.input(node(9), RelayInput::Chunk { feed, chunk });
    }
    assert!(items(&net, 9, 1).is_empty());
    let init = super::harness::init(100, 1, 0);
    net.input(node(9), RelayInput::Init { stream: stream_id(), init });
    assert!(matches!(items(&net, 9, 1)[..], [Delivery::Init(_), Delivery::Chunk(_), ..]));
}

#[test]
fn a_restarted_source_is_followed_into_its_new_epoch() {
    for k in [1, 4] {
        for pause in [0, 3_000] {
            let mut net = Net::new(camera(k), 3);
            net.feed(node(1), &[node(0)], ms(10));
            net.feed(node(2), &[node(1)], ms(10));
            net.attach(node(2), 1, Policy::KeepAll);
            net.attach(node(2), 2, LIVE);
            net.run_until(at(4_000));
            net.shooting = false;
            net.run_until(at(4_500 + pause));
            let old = net.camera.cut.len();
            assert_eq!(net.got(node(2), 1).len(), old);
            net.camera = Camera::new(101, k, Bitrate::from_kbps(800), 25);
            net.announce();
            net.resume_shooting();
            net.run_until(at(9_000 + pause));
            net.shooting = false;
            net.run_until(at(10_000 + pause));
            for sink in [1, 2] {
                let all = items(&net, 2, sink);
                let place = all
                    .iter()
                    .position(|item| *item == Delivery::NewEpoch { epoch: 101 })
                    .expect("the new epoch is announced");
                assert!(matches!(all[place + 1], Delivery::Init(_)));
                let got = net.got(node(2), sink).split_off(old);
                assert!(got == net.camera.cut, "k {k}, sink {sink}: all of the new epoch");
            }
        }
    }
}

#[test]
fn the_end_of_a_stream_is_delivered_after_its_last_chunk() {
    let mut net = Net::new(camera(4), 1);
    net.attach(node(1), 1, Policy::KeepAll);
    net.feed(node(1), &[node(0)], ms(10));
    net.run_until(at(2_000));
    net.shooting = false;
    let chunk = net.camera.end();
    net.local(chunk);
    net.run_until(at(3_000));
    net.assert_identical(node(1), 1);
    assert_eq!(items(&net, 1, 1).last(), Some(&Delivery::Ended(EndReason::Ended)));
    net.input(node(1), RelayInput::Close { stream: stream_id() });
    let ends = items(&net, 1, 1).iter().filter(|item| matches!(item, Delivery::Ended(_))).count();
    assert_eq!(ends, 1, "it ends once");
}

#[test]
fn a_pause_reaches_every_reader_and_nobody_calls_the_parent_silent() {
    let mut net = Net::new(camera(4), 2);
    net.feed(node(1), &[node(0)], ms(10));
    net.feed(node(2), &[node(1)], ms(10));
    net.attach(node(2), 1, LIVE);
    net.run_until(at(3_000));
    net.shooting = false;
    net.input(node(0), RelayInput::Paused { stream: stream_id(), paused: true });
    net.run_until(at(10_000));
    net.input(node(0), RelayInput::Paused { stream: stream_id(), paused: false });
    net.resume_shooting();
    net.run_until(at(14_000));
    net.shooting = false;
    net.run_until(at(15_000));
    let items = items(&net, 2, 1);
    let marks: Vec<_> = items
        .iter()
        .filter(|item| !matches!(item, Delivery::Chunk(_) | Delivery::Init(_)))
        .collect();
    assert_eq!(marks, [&Delivery::Paused, &Delivery::Resumed]);
    assert!(net.progress.iter().all(|(_, _, progress)| progress.silent_since.is_none()));
    assert!(net.got(node(2), 1) == net.camera.cut);
}

#[test]
fn frames_are_never_torn_by_credit_or_by_a_loss() {
    let mut net = Net::new(camera(1), 1);
    net.attach_with(node(1), 1, Policy::KeepAll, 5_000);
    net.feed(node(1), &[node(0)], ms(10));
    net.run_until(at(500));
    let got = net.got(node(1), 1);
    let last = got.last().unwrap().header;
    assert_eq!(last.fragment + 1, last.fragments);
}
