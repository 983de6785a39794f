//! Finding supernodes, registering, founding, being a guest.

use super::super::{
    Command, Event, PromotionReason, RegistrationView, Role, RoleChoice,
    testnet::{Health, Testnet, config, ms, secs},
};
use crate::ids::NodeId;

fn supernode(net: &mut Testnet, index: u16, capacity: usize, bootstrap: &[NodeId]) -> NodeId {
    let mut config = config();
    config.role = RoleChoice::Supernode;
    config.member_capacity = capacity;
    net.add(index, config, bootstrap)
}

fn registered_at(net: &Testnet, node: NodeId) -> Option<NodeId> {
    match net.snapshot(node).registration {
        RegistrationView::Registered { supernode, .. } => Some(supernode),
        RegistrationView::Searching
        | RegistrationView::Guest { .. }
        | RegistrationView::Supernode => None,
    }
}

/// Supernodes at 10, 20 and 30 ms; `full` of them have no room.
fn three_supernodes(net: &mut Testnet, full: &[u16]) -> [NodeId; 3] {
    let boot = supernode(net, 1, usize::from(!full.contains(&1)), &[]);
    let two = supernode(net, 2, usize::from(!full.contains(&2)), &[boot]);
    let three = supernode(net, 3, usize::from(!full.contains(&3)), &[boot]);
    [boot, two, three]
}

#[test]
fn the_first_node_founds_a_network_within_five_seconds() {
    let mut net = Testnet::new(1);
    let first = net.add(1, config(), &[]);
    let time = net.run_until("founding", secs(5), |net| net.role(first) == Role::Supernode);
    assert!(time < secs(3), "{time:?}");
    let founder = Event::Promoted { reason: PromotionReason::Founder };
    assert!(net.events_of(first).any(|event| *event == founder));
}

#[test]
fn a_node_with_bootstrap_joins_the_founder_and_does_not_found_its_own() {
    let mut net = Testnet::new(2);
    let first = net.add(1, config(), &[]);
    let second = net.add(2, config(), &[first]);
    net.run_until("joining", secs(5), |net| registered_at(net, second) == Some(first));
    assert_eq!(net.role(second), Role::Member);
}

#[test]
fn a_dead_bootstrap_address_only_costs_time() {
    let mut net = Testnet::new(3);
    let dead = net.add(1, config(), &[]);
    net.kill(dead);
    let second = net.add(2, config(), &[dead]);
    net.run_until("founding", secs(10), |net| net.role(second) == Role::Supernode);
}

#[test]
fn the_nearest_supernode_that_accepts_is_taken_whoever_refuses() {
    for full in [&[][..], &[1], &[2], &[3], &[1, 2], &[2, 3], &[1, 3]] {
        let mut net = Testnet::new(4);
        let supernodes = three_supernodes(&mut net, full);
        net.run(secs(2));
        let member = super::super::testnet::node(9);
        for (at, one_way) in supernodes.into_iter().zip([5, 10, 15]) {
            net.set_latency(member, at, ms(one_way));
        }
        net.add(9, config(), &[supernodes[1]]);
        net.run_until("registration", secs(5), |net| registered_at(net, member).is_some());
        let nearest = (1..=3).find(|at| !full.contains(at)).unwrap();
        let expected = supernodes[usize::from(nearest) - 1];
        assert_eq!(registered_at(&net, member), Some(expected), "full: {full:?}");
        for other in supernodes.into_iter().filter(|other| *other != expected) {
            assert!(net.snapshot(other).members.is_empty(), "asked beyond the first acceptance");
        }
    }
}

#[test]
fn a_silent_supernode_is_asked_last() {
    let mut net = Testnet::new(5);
    let supernodes = three_supernodes(&mut net, &[]);
    net.run(secs(2));
    net.set_health(supernodes[0], Health::Frozen);
    let member = super::super::testnet::node(9);
    net.set_latency(member, supernodes[0], ms(1));
    net.add(9, config(), &[supernodes[1]]);
    let time = net.run_until("joining", secs(5), |net| registered_at(net, member).is_some());
    assert!(time < secs(2), "the silent one was not waited for: {time:?}");
    assert_ne!(registered_at(&net, member), Some(supernodes[0]));
}

#[test]
fn capacity_is_exact_and_a_renewing_member_is_never_refused() {
    let mut net = Testnet::new(6);
    let boss = supernode(&mut net, 1, 3, &[]);
    let mut member_only = config();
    member_only.role = RoleChoice::Member;
    let members: Vec<_> = (2..=4).map(|i| net.add(i, member_only.clone(), &[boss])).collect();
    net.run_until("joining", secs(5), |net| net.snapshot(boss).members.len() == 3);
    let late = net.add(5, member_only, &[boss]);
    net.run_until("guest", secs(5), |net| {
        net.snapshot(late).registration == RegistrationView::Guest { supernode: Some(boss) }
    });
    assert!(net.events_of(late).any(|e| *e == Event::Guest { supernode: Some(boss) }));
    // Many renewals later nobody was pushed out.
    net.run(secs(60));
    assert_eq!(net.snapshot(boss).members, members);
    assert!(net.events.iter().all(|(_, _, e)| !matches!(e, Event::RegistrationLost { .. })));
    net.kill(members[0]);
    net.run_until("the place is free", secs(25), |net| registered_at(net, late) == Some(boss));
    assert_eq!(net.snapshot(boss).members.len(), 3);
}

#[test]
fn members_of_a_killed_supernode_are_elsewhere_within_fifteen_seconds() {
    for health in [Health::Dead, Health::Frozen] {
        let mut net = Testnet::new(7);
        let one = supernode(&mut net, 1, 100, &[]);
        let two = supernode(&mut net, 2, 100, &[one]);
        net.run(secs(3));
        let members: Vec<_> = (10..15).map(|index| net.add(index, config(), &[one, two])).collect();
        net.run_until("joining", secs(5), |net| {
            members.iter().all(|member| registered_at(net, *member).is_some())
        });
        net.run(secs(2));
        let victim = registered_at(&net, members[0]).unwrap();
        let rest = if victim == one { two } else { one };
        net.set_health(victim, health);
        let time = net.run_until("moving", secs(15), |net| {
            members.iter().all(|member| registered_at(net, *member) == Some(rest))
        });
        println!("{health:?}: all moved in {time:?}");
    }
}

#[test]
fn when_all_are_full_a_node_promotes_itself_and_is_found_by_a_newcomer() {
    let mut net = Testnet::new(8);
    let boss = supernode(&mut net, 1, 1, &[]);
    let first = net.add(2, config(), &[boss]);
    net.run_until("joining", secs(5), |net| registered_at(net, first) == Some(boss));
    let second = net.add(3, config(), &[boss]);
    net.run_until("promotion", secs(5), |net| net.role(second) == Role::Supernode);
    let full = Event::Promoted { reason: PromotionReason::AllFull };
    assert!(net.events_of(second).any(|event| *event == full));
    let third = net.add(4, config(), &[boss]);
    net.run_until("found", secs(10), |net| registered_at(net, third) == Some(second));
}

#[test]
fn a_node_that_cannot_be_dialled_stays_a_guest_and_still_lists_streams() {
    let mut net = Testnet::new(9);
    let boss = supernode(&mut net, 1, 0, &[]);
    let guest = net.add(2, config(), &[boss]);
    net.unreachable(guest);
    let stream = net.publish(boss, "garden", crate::units::Bitrate::from_mbps(1), 1);
    net.run_until("listing", secs(10), |net| net.lists(guest, stream));
    assert_eq!(net.role(guest), Role::Member);
}

#[test]
fn the_bootstrap_node_dies_and_a_newcomer_joins_through_another() {
    let mut net = Testnet::new(10);
    let boot = net.add(1, config(), &[]);
    let other = supernode(&mut net, 2, 100, &[boot]);
    let member = net.add(3, config(), &[boot]);
    net.run(secs(5));
    net.kill(boot);
    net.run(secs(15));
    let newcomer = net.add(4, config(), &[boot, member]);
    net.run_until("joining", secs(10), |net| registered_at(net, newcomer) == Some(other));
}

#[test]
fn a_supernode_that_leaves_dismisses_its_members_at_once() {
    let mut net = Testnet::new(11);
    let one = supernode(&mut net, 1, 100, &[]);
    let two = supernode(&mut net, 2, 100, &[one]);
    net.run(secs(3));
    let member = super::super::testnet::node(5);
    net.set_latency(member, one, ms(1));
    net.add(5, config(), &[one]);
    net.run_until("joining", secs(5), |net| registered_at(net, member) == Some(one));
    net.command(one, Command::Leave);
    net.run_until("moving", secs(4), |net| registered_at(net, member) == Some(two));
}

/// A supernode, all members that it ever had, and a stream of each of the first two.
fn family(net: &mut Testnet, size: u16) -> (NodeId, Vec<NodeId>) {
    let boss = net.add(1, config(), &[]);
    net.run_until("founding", secs(5), |net| net.role(boss) == Role::Supernode);
    let members: Vec<_> = (2..2 + size).map(|index| net.add(index, config(), &[boss])).collect();
    net.run_until("joining", secs(10), |net| {
        members.iter().all(|member| registered_at(net, *member) == Some(boss))
    });
    // Each has renewed once, and knows the heirs of all.
    net.run(secs(6));
    (boss, members)
}

fn is_whole(net: &Testnet, nodes: &[NodeId]) -> bool {
    let supernodes: Vec<_> =
        nodes.iter().filter(|node| net.role(**node) == Role::Supernode).collect();
    let [one] = supernodes[..] else { return false };
    nodes.iter().all(|node| node == one || registered_at(net, *node) == Some(*one))
}

#[test]
fn a_network_outlives_its_only_supernode_as_one() {
    for (seed, size) in [(20, 2), (21, 10), (22, 40)] {
        for end in [Health::Dead, Health::Frozen] {
            let mut net = Testnet::new(seed);
            let (boss, members) = family(&mut net, size);
            net.set_health(boss, end);
            let time = net.run_until("one network", secs(25), |net| is_whole(net, &members));
            println!("{size} members, {end:?}: one network again after {time:?}");
            let [first, last] = [members[0], *members.last().unwrap()];
            let stream = net.publish(last, "garden", crate::units::Bitrate::from_mbps(1), 1);
            net.run_until("listing", secs(5), |net| {
                members.iter().all(|member| net.lists(*member, stream))
            });
            net.run(secs(30));
            assert!(is_whole(&net, &members), "and it stays one");
            let newcomer = net.add(99, config(), &[first]);
            net.run_until("a newcomer", secs(10), |net| registered_at(net, newcomer).is_some());
        }
    }
}

#[test]
fn a_supernode_that_leaves_a_network_alone_is_followed_by_one_of_its_members() {
    let mut net = Testnet::new(23);
    let (boss, members) = family(&mut net, 10);
    net.command(boss, Command::Leave);
    net.run_until("one network", secs(6), |net| is_whole(net, &members));
}

#[test]
fn heirs_that_are_lost_as_well_or_may_not_are_passed_over() {
    let mut net = Testnet::new(24);
    let boss = net.add(1, config(), &[]);
    net.run(secs(3));
    let members: Vec<_> = (2..12)
        .map(|index| {
            // The second heir never becomes a supernode.
            let role = if index == 3 { RoleChoice::Member } else { RoleChoice::Auto };
            let member = net.add(index, super::super::OverlayConfig { role, ..config() }, &[boss]);
            net.run(secs(1));
            member
        })
        .collect();
    net.run(secs(6));
    net.kill(boss);
    net.kill(members[0]);
    let rest = &members[1..];
    let time = net.run_until("one network", secs(30), |net| is_whole(net, rest));
    println!("one network again after {time:?}");
    assert_eq!(net.role(members[2]), Role::Supernode);
}

#[test]
fn any_node_of_a_network_leads_to_it() {
    let mut net = Testnet::new(25);
    let (boss, members) = family(&mut net, 3);
    // Nobody else than this member is known to it, and the table of supernodes has no entry there.
    net.no_lookups = true;
    let newcomer = net.add(50, config(), &[members[1]]);
    net.run_until("joining", secs(5), |net| registered_at(net, newcomer) == Some(boss));
}

#[test]
fn two_networks_that_meet_become_one() {
    let mut net = Testnet::new(26);
    let (_, one) = family(&mut net, 2);
    net.no_lookups = true;
    let other = net.add(60, config(), &[]);
    net.run_until("founding", secs(5), |net| net.role(other) == Role::Supernode);
    let contact = net.contact(one[0]);
    net.input(other, super::super::Input::Discovered { contact });
    let stream = net.publish(other, "garden", crate::units::Bitrate::from_mbps(1), 1);
    net.run_until("listing", secs(20), |net| one.iter().all(|member| net.lists(*member, stream)));
}
