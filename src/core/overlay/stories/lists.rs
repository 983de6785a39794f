//! How directories become equal, and what that costs.

use std::sync::Arc;

use super::super::{
    Contact, Input, OverlayConfig, RegistrationView, RoleChoice,
    testnet::{Testnet, UNIX_AT_START, config, draft, ms, node, secs, source_key},
};
use crate::{
    announcement::{Announcement, Scheme, SignedAnnouncement},
    ids::NodeId,
    units::Bitrate,
};

fn boss(places: usize) -> OverlayConfig {
    OverlayConfig { role: RoleChoice::Supernode, member_capacity: places, ..config() }
}

fn sealed(number: u32) -> Arc<SignedAnnouncement> {
    let owner = node(60_000);
    let draft = draft(owner, &format!("stream {number}"), Bitrate::from_mbps(1), 1, 7);
    let contact = Contact::new(owner, vec![]);
    let announcement = Announcement::new(draft, contact, 1, UNIX_AT_START + 3_000);
    let key = *source_key(owner).as_bytes();
    Arc::new(SignedAnnouncement::seal(announcement, |bytes| Scheme::tag(&key, bytes)).unwrap())
}

/// A supernode hears of streams in a way that it passes on to no neighbour.
fn hear(net: &mut Testnet, at: NodeId, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let announcement = sealed(number);
        net.input(at, Input::Gossip { id: 0, from: node(59_999), announcement });
    }
}

fn length(net: &Testnet, of: NodeId) -> usize {
    net.snapshot(of).streams.len()
}

fn asked(net: &Testnet, kind: &str) -> u64 {
    net.asked_for.get(kind).copied().unwrap_or(0)
}

#[test]
fn a_difference_of_one_stream_costs_one_comparison_and_one_fetch_however_long_the_list() {
    let mut net = Testnet::new(300);
    let one = net.add(1, boss(10), &[]);
    let two = net.add(2, boss(10), &[one]);
    net.run(secs(4));
    for at in [one, two] {
        hear(&mut net, at, 0..500);
    }
    net.run(secs(10));
    let before = ["list", "compare", "fetch"].map(|kind| asked(&net, kind));
    hear(&mut net, one, 500..501);
    let time = net.run_until("equal", secs(5), |net| length(net, two) == 501);
    net.run(secs(10));
    let after = ["list", "compare", "fetch"].map(|kind| asked(&net, kind));
    let cost: Vec<_> = after.iter().zip(before).map(|(after, before)| after - before).collect();
    println!("one of 501 after {time:?}: {cost:?} lists, comparisons, fetches");
    assert!(cost[0] == 0 && cost[1] <= 2 && cost[2] == 1, "{cost:?}");
}

#[test]
fn many_differences_on_both_sides_are_evened_out() {
    let mut net = Testnet::new(301);
    let one = net.add(1, boss(10), &[]);
    let two = net.add(2, boss(10), &[one]);
    net.run(secs(4));
    hear(&mut net, one, 0..400);
    hear(&mut net, two, 200..600);
    net.run_until("equal", secs(8), |net| length(net, one) == 600 && length(net, two) == 600);
}

#[test]
fn a_newcomer_far_away_has_a_long_list_within_five_seconds() {
    let mut net = Testnet::new(302);
    let one = net.add(1, boss(10), &[]);
    net.run(secs(1));
    hear(&mut net, one, 0..1_500);
    net.set_latency(node(9), one, ms(60));
    let late = net.add(9, OverlayConfig { role: RoleChoice::Member, ..config() }, &[one]);
    let time = net.run_until("whole", secs(5), |net| length(net, late) == 1_500);
    println!("1,500 streams over a round trip of 120 ms: {time:?}, {} pages", asked(&net, "list"));
}

#[test]
fn a_guest_gets_its_list_slowly_and_still_asks_other_things() {
    let mut net = Testnet::new(303);
    let one = net.add(1, boss(0), &[]);
    net.run(secs(1));
    hear(&mut net, one, 0..300);
    let guest = net.add(9, OverlayConfig { role: RoleChoice::Member, ..config() }, &[one]);
    net.run_until("guest", secs(5), |net| {
        net.snapshot(guest).registration == RegistrationView::Guest { supernode: Some(one) }
    });
    let stream = net.publish(one, "garden", Bitrate::from_mbps(1), 1);
    net.watch(guest, stream);
    net.run_until("playing", secs(3), |net| net.plays(guest, stream));
    let time = net.run_until("whole", secs(30), |net| length(net, guest) == 301);
    println!("a guest has 301 streams after {time:?} more");
}
