//! Supernodes among themselves and with their members: backups, moving nearer, stepping down.

use super::super::{
    DemotionReason, DirRefusal, DirRequest, DirResponse, Event, OverlayConfig, Register,
    RegistrationView, Request, Response, Role, RoleChoice,
    testnet::{Health, Testnet, config, ms, node, secs},
};
use crate::{ids::NodeId, units::Bitrate};

fn boss(capacity: usize) -> OverlayConfig {
    OverlayConfig { role: RoleChoice::Supernode, member_capacity: capacity, ..config() }
}

fn member() -> OverlayConfig {
    OverlayConfig { role: RoleChoice::Member, ..config() }
}

/// Supernode and backup of a member.
fn homes(net: &Testnet, node: NodeId) -> (Option<NodeId>, Option<NodeId>) {
    match net.snapshot(node).registration {
        RegistrationView::Registered { supernode, backup } => (Some(supernode), backup),
        RegistrationView::Searching
        | RegistrationView::Guest { .. }
        | RegistrationView::Supernode => (None, None),
    }
}

fn count(net: &Testnet, of: NodeId, is_it: impl Fn(&Event) -> bool) -> usize {
    net.events_of(of).filter(|event| is_it(event)).count()
}

#[test]
fn a_member_keeps_a_backup_that_costs_no_place_and_goes_there_at_once() {
    for (seed, health, limit) in [(1, Health::Dead, secs(2)), (2, Health::Frozen, secs(11))] {
        let mut net = Testnet::new(seed);
        let one = net.add(1, boss(100), &[]);
        let two = net.add(2, boss(3), &[one]);
        net.run(secs(3));
        let members: Vec<NodeId> = (10..13)
            .map(|index| {
                net.set_latency(node(index), one, ms(1));
                net.add(index, member(), &[one, two])
            })
            .collect();
        net.run_until("both homes", secs(8), |net| {
            members.iter().all(|member| homes(net, *member) == (Some(one), Some(two)))
        });
        assert!(net.snapshot(two).members.is_empty(), "a backup takes no place");
        // Many renewals later it is still the backup.
        net.run(secs(100));
        assert!(members.iter().all(|member| homes(&net, *member) == (Some(one), Some(two))));
        net.set_health(one, health);
        let time = net.run_until("moving", limit, |net| {
            members.iter().all(|member| homes(net, *member).0 == Some(two))
        });
        println!("{health:?}: all three at the backup after {time:?}");
        let lookups = count(&net, members[0], |e| matches!(e, Event::RegistrationLost { .. }));
        assert_eq!(lookups, 1);
    }
}

#[test]
fn a_backup_without_room_does_not_keep_its_charges_from_finding_a_place() {
    let mut net = Testnet::new(3);
    let one = net.add(1, boss(3), &[]);
    let two = net.add(2, boss(1), &[one]);
    let three = net.add(3, boss(2), &[one]);
    net.run(secs(3));
    let members: Vec<NodeId> = (10..13)
        .map(|index| {
            net.set_latency(node(index), one, ms(1));
            net.set_latency(node(index), three, ms(20));
            net.add(index, member(), &[one, two, three])
        })
        .collect();
    net.run_until("joining", secs(8), |net| {
        members.iter().all(|member| homes(net, *member) == (Some(one), Some(two)))
            || net.snapshot(one).members.len() == 3
    });
    net.run(secs(3));
    net.kill(one);
    let time = net.run_until("places", secs(15), |net| {
        members.iter().all(|member| homes(net, *member).0.is_some_and(|home| home != one))
    });
    println!("three members have their places after {time:?}");
    assert_eq!(net.snapshot(two).members.len(), 1, "capacity is exact");
    assert_eq!(net.snapshot(three).members.len(), 2);
}

#[test]
fn a_stream_plays_on_and_is_found_while_its_supernode_dies() {
    let mut net = Testnet::new(4);
    let one = net.add(1, boss(100), &[]);
    let two = net.add(2, boss(100), &[one]);
    net.run(secs(3));
    for index in 10..14 {
        net.set_latency(node(index), one, ms(1));
    }
    let source = net.add(10, member(), &[one, two]);
    let viewers: Vec<_> = (11..14).map(|index| net.add(index, member(), &[one, two])).collect();
    net.run(secs(5));
    let stream = net.publish(source, "garden", Bitrate::from_mbps(1), 2);
    net.run(secs(1));
    for viewer in &viewers[..2] {
        net.watch(*viewer, stream);
    }
    net.run_until("playing", secs(5), |n| viewers[..2].iter().all(|v| n.plays(*v, stream)));
    // The backup has been told by now who carries it.
    net.run(secs(35));
    let before = net.events.len();
    net.kill(one);
    net.run(secs(3));
    let moved = |e: &Event| matches!(e, Event::ParentChanged { .. } | Event::NoCapacity { .. });
    assert!(!net.events[before..].iter().any(|(_, _, e)| moved(e)), "pictures go on");
    net.watch(viewers[2], stream);
    net.run_until("playing", secs(2), |net| net.plays(viewers[2], stream));
}

#[test]
fn a_backup_does_not_name_a_charge_that_fell_silent() {
    let mut net = Testnet::new(41);
    let one = net.add(1, boss(100), &[]);
    let two = net.add(2, boss(100), &[one]);
    net.run(secs(3));
    for index in 10..13 {
        net.set_latency(node(index), one, ms(1));
    }
    let source = net.add(10, member(), &[one, two]);
    let viewers: Vec<_> = (11..13).map(|index| net.add(index, member(), &[one, two])).collect();
    net.run(secs(5));
    let stream = net.publish(source, "garden", Bitrate::from_mbps(1), 1);
    net.run(secs(1));
    viewers.iter().for_each(|viewer| net.watch(*viewer, stream));
    net.run(secs(40));
    assert!(viewers.iter().all(|viewer| homes(&net, *viewer) == (Some(one), Some(two))));
    let names = |net: &mut Testnet, who: NodeId| match net.inject(
        source,
        two,
        Request::Dir(DirRequest::Carriers { stream }),
    ) {
        Response::Dir(DirResponse::Candidates { candidates, .. }) => {
            candidates.iter().any(|candidate| candidate.contact.node == who)
        }
        other => panic!("{other:?}"),
    };
    assert!(viewers.iter().all(|viewer| names(&mut net, *viewer)), "the backup knows its charges");
    net.set_health(viewers[0], Health::Frozen);
    net.run(secs(20));
    assert!(!names(&mut net, viewers[0]), "it has not renewed when it should have");
    assert!(names(&mut net, viewers[1]));
}

#[test]
fn a_member_moves_to_a_clearly_nearer_supernode_after_two_looks_and_not_for_less() {
    let mut net = Testnet::new(5);
    let far = net.add(1, boss(100), &[]);
    let near = net.add(2, boss(100), &[far]);
    net.run(secs(3));
    let member_at = node(10);
    net.set_latency(member_at, far, ms(50));
    net.set_latency(member_at, near, ms(40));
    net.add(10, member(), &[far]);
    net.run_until("joining", secs(5), |net| homes(net, member_at).0.is_some());
    let home = homes(&net, member_at).0.unwrap();
    let other = if home == far { near } else { far };
    let rtt = |net: &mut Testnet, node, rtt| {
        net.input(member_at, super::super::Input::Rtt { node, rtt: ms(rtt) });
    };
    // 20 ms nearer is not worth it.
    for _ in 0..10 {
        rtt(&mut net, home, 100);
        rtt(&mut net, other, 80);
        net.run(secs(15));
    }
    assert_eq!(homes(&net, member_at).0, Some(home));
    // A single measurement is not believed.
    rtt(&mut net, other, 10);
    net.run(secs(31));
    rtt(&mut net, other, 90);
    net.run(secs(60));
    assert_eq!(homes(&net, member_at).0, Some(home));
    // Twice it is.
    rtt(&mut net, other, 10);
    let time = net.run_until("moving", secs(65), |net| homes(net, member_at).0 == Some(other));
    println!("moved after {time:?}");
    assert_eq!(count(&net, member_at, |e| matches!(e, Event::RegistrationLost { .. })), 0);
    net.run_until("the old place is free", secs(2), |n| n.snapshot(home).members.is_empty());
    net.run_until("a new backup", secs(5), |n| homes(n, member_at).1 == Some(home));
    net.run(secs(300));
    assert_eq!(homes(&net, member_at).0, Some(other), "it does not move back");
}

#[test]
fn a_nearer_supernode_without_room_is_left_alone_for_a_while() {
    let mut net = Testnet::new(6);
    let far = net.add(1, boss(100), &[]);
    let near = net.add(2, boss(0), &[far]);
    net.run(secs(3));
    let member_at = node(10);
    net.set_latency(member_at, far, ms(80));
    net.set_latency(member_at, near, ms(1));
    net.add(10, member(), &[far, near]);
    net.run_until("joining", secs(5), |net| homes(net, member_at).0 == Some(far));
    let before = net.snapshot(near).counters.requests_answered;
    net.run(secs(200));
    assert_eq!(homes(&net, member_at).0, Some(far));
    let asked = net.snapshot(near).counters.requests_answered - before;
    println!("{asked} requests in 200 s");
    // It meets the other supernode every three seconds both ways, and is asked as a backup.
    assert!(asked < 200, "{asked}");
}

/// Two supernodes by choice, members at each.
fn two_by_choice(
    seed: u64,
    at_two: u16,
    places_of_two: usize,
) -> (Testnet, NodeId, NodeId, Vec<NodeId>) {
    let mut net = Testnet::new(seed);
    let at_one = 20;
    let full = OverlayConfig { member_capacity: usize::from(at_one), ..config() };
    let one = net.add(1, full, &[]);
    net.run_until("founding", secs(5), |net| net.role(one) == Role::Supernode);
    let mut members: Vec<_> = (10..10 + at_one).map(|i| net.add(i, member(), &[one])).collect();
    net.run_until("joining", secs(8), |net| {
        members.iter().all(|member| homes(net, *member).0 == Some(one))
    });
    let two = OverlayConfig { member_capacity: places_of_two, ..config() };
    let two = net.add(2, two, &[one]);
    net.run_until("stepping up", secs(8), |net| net.role(two) == Role::Supernode);
    members.extend((40..40 + at_two).map(|i| net.add(i, member(), &[one, two])));
    net.run_until("joining", secs(15), |net| {
        members.iter().all(|member| homes(net, *member).0.is_some())
    });
    (net, one, two, members)
}

#[test]
fn a_supernode_that_is_not_needed_steps_down_after_its_members_have_gone() {
    // One has 20 places and members; two came when one was full, and has two.
    let (mut net, one, two, members) = two_by_choice(7, 2, 100);
    net.run(secs(250));
    assert_eq!(net.role(two), Role::Supernode, "one has no room for its members");
    for member in &members[..14] {
        net.kill(*member);
    }
    net.run(secs(60));
    assert_eq!(net.role(two), Role::Supernode, "not at once");
    let demoted = Event::Demoted { reason: DemotionReason::NotNeeded };
    net.run_until("stepping down", secs(100), |n| n.events_of(two).any(|e| *e == demoted));
    net.run_until("a member", secs(10), |n| homes(n, two).0 == Some(one));
    assert_eq!(net.role(two), Role::Member);
    let handed_over = &members[20..];
    assert!(handed_over.iter().all(|member| homes(&net, *member).0 == Some(one)));
    net.run(secs(400));
    assert_eq!(net.role(one), Role::Supernode, "the last one stays");
    assert_eq!(count(&net, two, |e| matches!(e, Event::Promoted { .. })), 1, "and that was that");
}

#[test]
fn a_supernode_that_lost_its_reachability_or_uplink_steps_down_and_a_brief_loss_is_no_loss() {
    for (seed, reason) in [(8, DemotionReason::Unreachable), (9, DemotionReason::Uplink)] {
        let (mut net, one, two, members) = two_by_choice(seed, 2, 20);
        for member in &members[..14] {
            net.kill(*member);
        }
        net.run(secs(20));
        let impair = |net: &mut Testnet, lost: bool| match reason {
            DemotionReason::Unreachable => {
                let addrs = net.contact(two).addrs;
                let reachable = !lost;
                net.input(two, super::super::Input::ListenAddrs { addrs, reachable });
            }
            DemotionReason::Uplink | DemotionReason::NotNeeded => {
                let rate = Bitrate::from_kbps(if lost { 300 } else { 50_000 });
                let (max_copies, max_total_copies) = Default::default();
                let uplink = super::super::Change::Set(rate);
                let limits =
                    super::super::Command::SetLimits { uplink, max_copies, max_total_copies };
                net.command(two, limits);
            }
        };
        impair(&mut net, true);
        net.run(secs(60));
        impair(&mut net, false);
        net.run(secs(130));
        assert_eq!(net.role(two), Role::Supernode, "a brief loss is no loss");
        impair(&mut net, true);
        let demoted = Event::Demoted { reason };
        net.run_until("stepping down", secs(160), |n| n.events_of(two).any(|e| *e == demoted));
        net.run_until("a member", secs(10), |n| homes(n, two).0 == Some(one));
        assert!(members[20..].iter().all(|member| homes(&net, *member).0 == Some(one)));
    }
    // A configured supernode never steps down, nor does the only one.
    let mut net = Testnet::new(10);
    let only = net.add(1, config(), &[]);
    let configured = net.add(2, boss(10), &[]);
    net.run(secs(10));
    for node in [only, configured] {
        net.unreachable(node);
    }
    net.run(secs(400));
    assert_eq!((net.role(only), net.role(configured)), (Role::Supernode, Role::Supernode));
}

#[test]
fn without_an_uplink_for_it_a_node_stays_a_guest_until_a_better_one_steps_up() {
    let mut net = Testnet::new(11);
    let full = net.add(1, boss(0), &[]);
    net.run(secs(1));
    let weak = OverlayConfig { uplink: Some(Bitrate::from_kbps(800)), ..config() };
    let weak = net.add(2, weak, &[full]);
    net.run(secs(20));
    assert_eq!(net.snapshot(weak).registration, RegistrationView::Guest { supernode: Some(full) });
    assert_eq!(count(&net, weak, |e| matches!(e, Event::Guest { .. })), 1, "told once");
    let strong = net.add(3, config(), &[full]);
    net.run_until("stepping up", secs(8), |net| net.role(strong) == Role::Supernode);
    net.run_until("a place", secs(12), |net| homes(net, weak).0 == Some(strong));
}

#[test]
fn a_guest_watches_and_publishes_at_its_own_rate() {
    let mut net = Testnet::new(12);
    let full = net.add(1, boss(1), &[]);
    let first = net.add(2, member(), &[full]);
    net.run_until("joining", secs(5), |net| homes(net, first).0 == Some(full));
    let guest = net.add(3, member(), &[full]);
    let other = net.publish(first, "garden", Bitrate::from_mbps(1), 2);
    net.run_until("guest", secs(5), |net| {
        net.snapshot(guest).registration == RegistrationView::Guest { supernode: Some(full) }
    });
    net.watch(guest, other);
    net.run_until("playing", secs(5), |net| net.plays(guest, other));
    let own = net.publish(guest, "kitchen", Bitrate::from_mbps(1), 2);
    net.run_until("listed", secs(5), |net| net.lists(first, own) && net.lists(full, own));
    net.watch(first, own);
    net.run_until("playing", secs(5), |net| net.plays(first, own));
    net.run(secs(60));
    assert!(net.plays(guest, other) && net.plays(first, own));
    let flood = |e: &Event| matches!(e, Event::Offence { .. });
    assert!(!net.events.iter().any(|(_, _, e)| flood(e)), "an honest guest offends nobody");
}

#[test]
fn backups_are_bounded_and_a_stranger_reports_nothing() {
    let mut net = Testnet::new(13);
    let one = net.add(1, boss(4), &[]);
    net.run(secs(1));
    let standby = |net: &mut Testnet, index: u16| {
        let contact = super::super::Contact::new(node(index), vec![]);
        let role = Role::Member;
        let register = Register { contact, role, digest: 0, standby: true, load: None };
        net.inject(node(index), one, Request::Dir(DirRequest::Register(register)))
    };
    let is_accepted =
        |answer: &Response| matches!(answer, Response::Dir(DirResponse::Accepted { .. }));
    let accepted = (50..70).map(|index| standby(&mut net, index)).filter(is_accepted).count();
    assert_eq!(accepted, 4);
    assert!(is_accepted(&standby(&mut net, 50)), "a renewal is never refused");
    assert!(net.snapshot(one).members.is_empty());
    let status = || Request::Dir(DirRequest::Status { streams: vec![] });
    assert_eq!(net.inject(node(50), one, status()), Response::Dir(DirResponse::Done));
    let refused = DirResponse::Refused { reason: DirRefusal::NotMember, retry_ms: 0 };
    assert_eq!(net.inject(node(69), one, status()), Response::Dir(refused));
}
