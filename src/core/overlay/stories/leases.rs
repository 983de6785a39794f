//! What a child does with the tickets it holds when answers come late, or tell of other tickets.

use super::super::{
    Event, Input, OverlayConfig, Request, RoleChoice, TicketEnd, TicketId, TicketRequest,
    TicketView,
    testnet::{Health, Testnet, config, ms, secs},
};
use crate::{
    ids::{Direction, FeedKey, NodeId, StreamId, StripeSet},
    units::Bitrate,
};

const STRIPES: u8 = 2;

/// A source and a viewer that does not watch yet; the supernode takes no part.
fn pair(seed: u64) -> (Testnet, StreamId, NodeId, NodeId) {
    let mut net = Testnet::new(seed);
    let mut boss = OverlayConfig { max_copies: Some(0), ..config() };
    boss.role = RoleChoice::Supernode;
    let boss = net.add(1, boss, &[]);
    let source = net.add(2, config(), &[boss]);
    net.run(secs(3));
    let stream = net.publish(source, "garden", Bitrate::from_mbps(1), STRIPES);
    net.run(secs(1));
    let viewer = net.add(10, config(), &[boss]);
    net.run(secs(3));
    (net, stream, source, viewer)
}

fn released(net: &Testnet, source: NodeId) -> usize {
    let is_it =
        |event: &&Event| matches!(event, Event::TicketEnded { reason: TicketEnd::Released, .. });
    net.events_of(source).filter(is_it).count()
}

fn tickets(views: &[TicketView]) -> Vec<TicketId> {
    let mut tickets: Vec<_> = views.iter().map(|view| view.ticket).collect();
    tickets.sort_unstable();
    tickets
}

#[test]
fn a_late_answer_to_an_older_ask_does_not_give_back_the_ticket_in_use() {
    for seed in 0..5 {
        let (mut net, stream, source, viewer) = pair(seed);
        // The first answer takes longer than anybody waits for it; the second, at once.
        let late = ms(2_500);
        net.set_latency_one_way(source, viewer, late);
        net.watch(viewer, stream);
        net.run_until("granted", secs(3), |net| !net.snapshot(source).given.is_empty());
        net.set_latency_one_way(source, viewer, ms(5));
        let time = net.run_until("playing", secs(3), |net| net.plays(viewer, stream));
        assert!(time < late, "seed {seed}: the second answer came before the first");
        let in_use = tickets(&net.snapshot(source).given);
        assert_eq!(in_use.len(), usize::from(STRIPES));
        net.run(late + secs(1));
        assert_eq!(released(&net, source), 0, "seed {seed}");
        assert_eq!(tickets(&net.snapshot(source).given), in_use, "seed {seed}");
        assert_eq!(net.sends(source, stream), u32::from(STRIPES), "seed {seed}");
    }
}

/// A source with one slot, the child that has it, and one that came too late.
fn full(seed: u64) -> (Testnet, StreamId, NodeId, NodeId, NodeId) {
    let mut net = Testnet::new(seed);
    let source = net.add(1, OverlayConfig { max_copies: Some(1), ..config() }, &[]);
    net.run(secs(3));
    let stream = net.publish(source, "garden", Bitrate::from_mbps(1), 1);
    let none = OverlayConfig { max_copies: Some(0), ..config() };
    let [child, late] = [10, 11].map(|index| net.add(index, none.clone(), &[source]));
    net.run(secs(2));
    net.watch(child, stream);
    net.run_until("playing", secs(5), |net| net.plays(child, stream));
    (net, stream, source, child, late)
}

#[test]
fn the_slot_of_a_child_that_acknowledges_nothing_goes_to_whoever_asks() {
    let (mut net, stream, source, dead, late) = full(402);
    net.set_health(dead, Health::Frozen);
    let feed = FeedKey { stream, peer: dead, direction: Direction::ToChild };
    net.input(source, Input::ChildQuiet { feed });
    net.watch(late, stream);
    net.run_until("playing", secs(1), |net| net.plays(late, stream));
}

#[test]
fn a_child_that_acknowledges_again_keeps_its_slot() {
    let (mut net, stream, source, child, late) = full(403);
    let feed = FeedKey { stream, peer: child, direction: Direction::ToChild };
    net.input(source, Input::ChildQuiet { feed });
    net.input(source, Input::ChildAlive { feed, stripes: StripeSet::first(1) });
    net.watch(late, stream);
    net.run(secs(3));
    assert!(net.plays(child, stream) && !net.plays(late, stream));
}

#[test]
fn a_child_whose_ticket_is_over_unknown_to_it_takes_the_one_its_parent_gives_instead() {
    let (mut net, stream, source, viewer) = pair(7);
    net.watch(viewer, stream);
    net.run_until("playing", secs(3), |net| net.plays(viewer, stream));
    let lost = net.snapshot(source).given[0].ticket;
    let release = TicketRequest::Release { tickets: vec![lost] };
    net.inject(viewer, source, Request::Ticket(release));
    assert_eq!(net.sends(source, stream), u32::from(STRIPES) - 1, "the stripe starves");
    net.run(secs(4));
    assert_eq!(net.sends(source, stream), u32::from(STRIPES), "the renewal brought it back");
    net.run(secs(10));
    let given = tickets(&net.snapshot(source).given);
    assert_eq!(given, tickets(&net.snapshot(viewer).held), "both know the same tickets");
    assert!(!given.contains(&lost));
    assert_eq!(net.sends(source, stream), u32::from(STRIPES));
    assert_eq!(released(&net, source), 1, "nothing was given back but that one");
}
