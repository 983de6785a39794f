//! A source whose encoder follows the uplink.

use super::super::{
    Change, Command, OverlayConfig,
    testnet::{Testnet, config, draft, secs},
};
use crate::{
    ids::{NodeId, StreamId},
    units::Bitrate,
};

const RATE: Bitrate = Bitrate::from_mbps(1);
const FLOOR: Bitrate = Bitrate::from_kbps(250);

/// A source of four stripes with room for two copies, and one viewer that gets them all.
fn served(floor: Option<Bitrate>) -> (Testnet, StreamId, NodeId, NodeId) {
    let mut net = Testnet::new(91);
    let uplink = Some(Bitrate::from_mbps(4));
    let source = net.add(1, OverlayConfig { uplink, ..config() }, &[]);
    let viewer = net.add(2, OverlayConfig { max_copies: Some(0), ..config() }, &[source]);
    net.run(secs(2));
    let stream = net.publish(source, "garden", RATE, 4);
    announce(&mut net, source, RATE, floor);
    net.watch(viewer, stream);
    net.run_until("playing", secs(20), |net| net.plays(viewer, stream));
    (net, stream, source, viewer)
}

fn announce(net: &mut Testnet, source: NodeId, rate: Bitrate, floor: Option<Bitrate>) {
    let mut announcement = draft(source, "garden", rate, 4, 1);
    announcement.floor = floor;
    let announcement = Box::new(announcement);
    net.command(source, Command::Publish { announcement });
}

fn shrink(net: &mut Testnet, node: NodeId, kbps: u64) {
    let uplink = Change::Set(Bitrate::from_kbps(kbps));
    let (max_copies, max_total_copies) = (Change::Keep, Change::Keep);
    net.command(node, Command::SetLimits { uplink, max_copies, max_total_copies });
}

#[test]
fn who_is_served_keeps_its_slots_while_the_encoder_follows_a_smaller_uplink() {
    let (mut net, stream, source, viewer) = served(Some(FLOOR));
    let before = net.copy_rates(source, stream).unwrap();
    assert!(before.one > RATE && before.all == before.one, "{before:?}");
    shrink(&mut net, source, 800);
    net.run(secs(5));
    assert_eq!(net.sends(source, stream), 4, "nobody is sent away");
    let fits = net.copy_rates(source, stream).unwrap();
    assert!(fits.one > FLOOR && fits.one < Bitrate::from_kbps(720), "{fits:?}");
    announce(&mut net, source, fits.one, Some(FLOOR));
    net.run(secs(20));
    assert!(net.plays(viewer, stream) && net.sends(source, stream) == 4);
    let capacity = net.snapshot(source).capacity;
    assert!(capacity.promised <= capacity.usable.percent(90), "{capacity:?}");
}

#[test]
fn a_stream_that_cant_follow_loses_slots_to_a_smaller_uplink() {
    let (mut net, stream, source, _) = served(None);
    shrink(&mut net, source, 800);
    net.run_until("fewer slots", secs(10), |net| net.sends(source, stream) < 4);
}

#[test]
fn where_not_even_the_lowest_rate_fits_slots_are_lost_all_the_same() {
    let (mut net, stream, source, _) = served(Some(FLOOR));
    shrink(&mut net, source, 150);
    net.run_until("fewer slots", secs(10), |net| net.sends(source, stream) < 4);
}
