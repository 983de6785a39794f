//! Complaints of children, from the child to the answers that leave its parent out.

use super::super::{
    Complaint, ComplaintKind, DEPTH_NONE, DirRefusal, DirRequest, DirResponse, FeedDownReason,
    Input, Offence, OverlayConfig, Request, Response, RoleChoice, StreamStatus,
    testnet::{Testnet, config, ms, node, secs},
};
use crate::{
    ids::{Direction, FeedKey, NodeId, StreamId},
    units::Bitrate,
};

fn scene(seed: u64, members: u16) -> (Testnet, NodeId, StreamId, Vec<NodeId>) {
    let mut net = Testnet::new(seed);
    let boss = OverlayConfig { role: RoleChoice::Supernode, max_copies: Some(0), ..config() };
    let boss = net.add(1, boss, &[]);
    net.run(secs(1));
    let member = OverlayConfig { role: RoleChoice::Member, ..config() };
    let members: Vec<_> =
        (10..10 + members).map(|index| net.add(index, member.clone(), &[boss])).collect();
    net.run(secs(5));
    let stream = net.publish(members[0], "garden", Bitrate::from_mbps(1), 2);
    net.run(secs(1));
    for viewer in &members[1..] {
        net.watch(*viewer, stream);
    }
    net.run(secs(12));
    (net, boss, stream, members)
}

fn complain(net: &mut Testnet, from: NodeId, at: NodeId, complaint: Complaint) -> DirResponse {
    match net.inject(from, at, Request::Dir(DirRequest::Complain(complaint))) {
        Response::Dir(response) => response,
        Response::Ticket(_) => unreachable!("a directory request"),
    }
}

fn is_named(net: &mut Testnet, at: NodeId, stream: StreamId, who: NodeId) -> bool {
    // A stranger is a guest: it asks twice a second.
    net.run(ms(600));
    match net.inject(node(99), at, Request::Dir(DirRequest::Join { stream })) {
        Response::Dir(DirResponse::Candidates { candidates, .. }) => {
            candidates.iter().any(|candidate| candidate.contact.node == who)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_parent_of_whom_three_children_complain_is_left_out_for_two_minutes() {
    let (mut net, boss, stream, members) = scene(400, 6);
    let accused = members[5];
    assert!(is_named(&mut net, boss, stream, accused));
    let complaint = Complaint { stream, stripe: 0, accused, kind: ComplaintKind::Withheld };
    for from in &members[1..4] {
        assert!(is_named(&mut net, boss, stream, accused));
        assert_eq!(complain(&mut net, *from, boss, complaint), DirResponse::Done);
    }
    assert!(!is_named(&mut net, boss, stream, accused));
    assert_eq!(net.snapshot(boss).counters.delisted, 1);
    net.run(secs(121));
    assert!(is_named(&mut net, boss, stream, accused), "it has another chance");
}

#[test]
fn an_honest_parent_that_starves_is_not_delisted_and_strangers_are_not_heard() {
    let (mut net, boss, stream, members) = scene(401, 6);
    let accused = members[5];
    let complaint = Complaint { stream, stripe: 0, accused, kind: ComplaintKind::Withheld };
    for stranger in 70..80 {
        let refused = DirResponse::Refused { reason: DirRefusal::NotMember, retry_ms: 0 };
        assert_eq!(complain(&mut net, node(stranger), boss, complaint), refused);
    }
    // It says itself that it has no more than its children.
    let depths = vec![DEPTH_NONE, 1];
    let starved = vec![StreamStatus { stream, depths, free: 3, seeding: false }];
    net.inject(accused, boss, Request::Dir(DirRequest::Status { streams: starved }));
    for from in &members[1..5] {
        complain(&mut net, *from, boss, complaint);
    }
    let counters = net.snapshot(boss).counters;
    assert_eq!((counters.complaints, counters.delisted), (4, 0));
    assert!(is_named(&mut net, boss, stream, accused));
}

#[test]
fn a_child_complains_by_itself_of_a_parent_that_brings_forged_chunks() {
    let (mut net, boss, stream, members) = scene(402, 4);
    let child = members[1];
    let parent = net.parents(child, stream)[0].unwrap();
    let feed = FeedKey { stream, peer: parent, direction: Direction::FromParent };
    let reason = FeedDownReason::Offence(Offence::BadSignature);
    net.input(child, Input::FeedDown { feed, reason });
    net.run(secs(1));
    assert_eq!(net.snapshot(boss).counters.complaints, 1);
    assert_eq!(net.asked_for["complain"], 1);
}
