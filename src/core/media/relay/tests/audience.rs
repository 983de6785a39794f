//! Who takes a stream is counted once, wherever its stripes come from.

use super::harness::{Camera, Net, at, ms, node, to_child};
use crate::{
    media::{
        audience::{AUDIENCE_MAX, Audience},
        frame::UpFrame,
        relay::{Policy, RelayInput},
    },
    units::Bitrate,
};

fn below(net: &Net, who: u8) -> Audience {
    net.relays[&node(who)].snapshot().streams[0].audience
}

fn tree() -> Net {
    let mut net = Net::new(Camera::new(100, 4, Bitrate::from_kbps(800), 25), 5);
    net.feed(node(1), &[node(0)], ms(20));
    net.feed(node(2), &[node(0)], ms(20));
    // Three whose stripes come from two parents.
    for child in [3, 4, 5] {
        net.feed_striped(node(child), &[node(1), node(2)], ms(150));
    }
    for viewer in [1, 3, 4] {
        net.attach(node(viewer), 1, Policy::KeepAll);
    }
    net
}

#[test]
fn everybody_is_counted_once_though_stripes_come_from_several_parents() {
    let mut net = tree();
    net.run_until(at(16_000));
    let all = below(&net, 0);
    assert_eq!((all.nodes, all.viewers, all.stalled), (5, 3, 0), "{all:?}");
    assert_eq!((all.delay_ms(40), all.delay_ms(95)), (Some(100), Some(250)), "{all:?}");
    let halves = [1, 2].map(|parent| below(&net, parent).nodes);
    assert_eq!(halves.iter().sum::<u32>(), 5, "each is below one of them: {halves:?}");
}

#[test]
fn who_left_is_no_audience_and_who_boasts_counts_as_much_as_is_lawful() {
    let mut net = tree();
    net.run_until(at(16_000));
    net.kill(node(5), ms(20));
    net.run_until(at(30_000));
    assert_eq!(below(&net, 0).nodes, 4);
    let boast = Audience { nodes: AUDIENCE_MAX, viewers: AUDIENCE_MAX, ..Audience::default() };
    let frame = UpFrame::Audience(boast);
    net.input(node(0), RelayInput::UpFrame { feed: to_child(node(1)), frame });
    let all = below(&net, 0);
    assert!(all.is_lawful() && all.nodes <= AUDIENCE_MAX, "{all:?}");
}
