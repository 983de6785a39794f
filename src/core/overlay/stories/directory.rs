//! Announcements: listed, changed, ended, forged and replayed.

use std::sync::Arc;

use super::super::{
    Command, Contact, DirRefusal, DirRequest, DirResponse, Event, GossipVerdict, Input, Offence,
    Output, RemovalReason, Request, Response, RoleChoice,
    testnet::{Testnet, UNIX_AT_START, config, draft, node, secs, source_key},
};
use crate::{
    announcement::{Announcement, Scheme, SignedAnnouncement},
    ids::{NodeId, StreamId},
    units::Bitrate,
};

const RATE: Bitrate = Bitrate::from_mbps(1);

/// Two supernodes, three members each may reach.
fn network(seed: u64) -> (Testnet, Vec<NodeId>) {
    let mut net = Testnet::new(seed);
    let mut boss = config();
    boss.role = RoleChoice::Supernode;
    boss.member_capacity = 3;
    let one = net.add(1, boss.clone(), &[]);
    let two = net.add(2, boss, &[one]);
    net.run(secs(3));
    let mut nodes = vec![one, two];
    nodes.extend((3..9).map(|index| net.add(index, config(), &[one])));
    net.run(secs(6));
    (net, nodes)
}

fn sealed(owner: NodeId, epoch: u64, revision: u64, ended: bool) -> Arc<SignedAnnouncement> {
    let contact = Contact::new(owner, vec![]);
    let draft = draft(owner, "garden", RATE, 1, epoch);
    let mut announcement = Announcement::new(draft, contact, revision, UNIX_AT_START + 170);
    announcement.ended = ended;
    let key = *source_key(owner).as_bytes();
    Arc::new(SignedAnnouncement::seal(announcement, |bytes| Scheme::tag(&key, bytes)).unwrap())
}

fn publish(
    net: &mut Testnet,
    from: NodeId,
    to: NodeId,
    a: &Arc<SignedAnnouncement>,
) -> DirResponse {
    let request = DirRequest::Publish { announcement: Arc::clone(a) };
    match net.inject(from, to, Request::Dir(request)) {
        Response::Dir(response) => response,
        Response::Ticket(_) => unreachable!("a directory request"),
    }
}

fn everywhere(net: &Testnet, nodes: &[NodeId], stream: StreamId, listed: bool) -> bool {
    nodes.iter().all(|node| net.lists(*node, stream) == listed)
}

#[test]
fn a_stream_is_on_every_list_within_five_seconds_and_off_again_when_it_ends() {
    let (mut net, nodes) = network(20);
    for publisher in [nodes[7], nodes[2], nodes[0]] {
        let stream = net.publish(publisher, "Zo\u{eb}s garden", RATE, 4);
        let time = net.run_until("listed", secs(5), |n| everywhere(n, &nodes, stream, true));
        println!("listed everywhere in {time:?}");
        net.command(publisher, Command::Unpublish { stream });
        let time = net.run_until("gone", secs(5), |n| everywhere(n, &nodes, stream, false));
        println!("gone everywhere in {time:?}");
    }
    let ended = |e: &Event| matches!(e, Event::StreamRemoved { reason: RemovalReason::Ended, .. });
    assert_eq!(net.events_of(nodes[4]).filter(|e| ended(e)).count(), 3);
}

#[test]
fn a_newcomer_has_the_whole_list_within_five_seconds() {
    let (mut net, nodes) = network(21);
    let streams: Vec<_> =
        (0..60).map(|index| net.publish(nodes[2], &format!("stream {index}"), RATE, 1)).collect();
    net.run(secs(3));
    let late = net.add(30, config(), &[nodes[1]]);
    net.run_until("whole", secs(5), |n| streams.iter().all(|stream| n.lists(late, *stream)));
}

#[test]
fn one_name_of_two_publishers_is_two_streams() {
    let (mut net, nodes) = network(22);
    let one = net.publish(nodes[3], "garden", RATE, 1);
    let two = net.publish(nodes[4], "garden", RATE, 1);
    assert_ne!(one, two);
    net.run_until("both", secs(5), |n| {
        everywhere(n, &nodes, one, true) && everywhere(n, &nodes, two, true)
    });
}

#[test]
fn a_crashed_source_leaves_the_lists_when_its_announcement_expires() {
    let (mut net, nodes) = network(23);
    let stream = net.publish(nodes[5], "garden", RATE, 1);
    // It is repeated for as long as the source lives.
    net.run(secs(400));
    assert!(everywhere(&net, &nodes, stream, true));
    net.kill(nodes[5]);
    let alive: Vec<_> = nodes.iter().copied().filter(|node| *node != nodes[5]).collect();
    let time = net.run_until("expiry", secs(215), |n| everywhere(n, &alive, stream, false));
    println!("gone {time:?} after the crash");
}

#[test]
fn a_tombstone_outlives_every_older_announcement() {
    let (mut net, nodes) = network(24);
    let owner = node(99);
    let boss = nodes[0];
    let live = sealed(owner, 7, 1, false);
    let stream = live.stream();
    assert_eq!(publish(&mut net, nodes[3], boss, &live), DirResponse::Done);
    net.run(secs(7));
    assert!(everywhere(&net, &nodes, stream, true));
    let tombstone = sealed(owner, 7, 2, true);
    assert_eq!(publish(&mut net, nodes[3], boss, &tombstone), DirResponse::Done);
    net.run(secs(7));
    assert!(everywhere(&net, &nodes, stream, false));
    let replayed = publish(&mut net, nodes[4], boss, &live);
    assert_eq!(replayed, DirResponse::Refused { reason: DirRefusal::Stale, retry_ms: 0 });
    net.run(secs(7));
    assert!(everywhere(&net, &nodes, stream, false));
    // The owner may begin anew.
    let again = sealed(owner, 8, 1, false);
    assert_eq!(publish(&mut net, nodes[3], boss, &again), DirResponse::Done);
    net.run(secs(7));
    assert!(everywhere(&net, &nodes, stream, true));
    assert!(!net.events.iter().any(|(_, _, e)| matches!(e, Event::Offence { .. })));
}

#[test]
fn a_forged_announcement_is_dropped_and_its_sender_pays() {
    let (mut net, nodes) = network(25);
    let boss = nodes[0];
    let owner = node(99);
    let contact = Contact::new(owner, vec![]);
    let announcement =
        Announcement::new(draft(owner, "garden", RATE, 1, 7), contact, 1, UNIX_AT_START + 100);
    let other = *source_key(node(98)).as_bytes();
    let forged = SignedAnnouncement::seal(announcement, |bytes| Scheme::tag(&other, bytes));
    let forged = Arc::new(forged.unwrap());
    let answer = publish(&mut net, nodes[3], boss, &forged);
    assert_eq!(answer, DirResponse::Refused { reason: DirRefusal::Forged, retry_ms: 0 });
    let offence = Event::Offence { node: nodes[3], kind: Offence::Forged, banned: false };
    assert!(net.events_of(boss).any(|event| *event == offence));
    net.run(secs(3));
    assert!(everywhere(&net, &nodes, forged.stream(), false));
    // A forged tombstone for a stream that lives changes nothing.
    let live = net.publish(nodes[4], "mine", RATE, 1);
    net.run(secs(3));
    let mut tombstone = Announcement::new(
        draft(nodes[4], "mine", RATE, 1, 9),
        Contact::new(nodes[4], vec![]),
        9,
        UNIX_AT_START + 100,
    );
    tombstone.ended = true;
    let forged = SignedAnnouncement::seal(tombstone, |bytes| Scheme::tag(&other, bytes)).unwrap();
    publish(&mut net, nodes[3], boss, &Arc::new(forged));
    net.run(secs(3));
    assert!(everywhere(&net, &nodes, live, true));
    // The third strike bans.
    for _ in 0..2 {
        net.input(boss, Input::ForgedGossip { from: nodes[3] });
    }
    assert!(net.snapshot(boss).nodes.iter().any(|view| view.node == nodes[3] && view.banned));
}

#[test]
fn new_gossip_is_passed_on_old_gossip_is_not_and_a_replay_costs_its_sender() {
    let mut boss = config();
    boss.role = RoleChoice::Supernode;
    let mut overlay =
        super::super::Overlay::new(node(1), boss, [7; 32], crate::time::Timestamp::ZERO);
    let mut gossip = |announcement: Arc<SignedAnnouncement>, second: u64| {
        let input = Input::Gossip { id: 5, from: node(2), announcement };
        overlay.handle_input(input, crate::time::Timestamp::from_millis(second * 1_000));
        let outputs: Vec<_> = std::iter::from_fn(|| overlay.poll_output()).collect();
        let verdict = outputs.iter().find_map(|output| match output {
            Output::GossipVerdict { id: 5, verdict } => Some(*verdict),
            _ => None,
        });
        let blamed = outputs.iter().any(|output| {
            matches!(output, Output::Event(Event::Offence { kind: Offence::Replayed, .. }))
        });
        (verdict.unwrap(), blamed)
    };
    let owner = node(99);
    assert_eq!(gossip(sealed(owner, 7, 2, false), 1), (GossipVerdict::Accept, false));
    assert_eq!(gossip(sealed(owner, 7, 2, false), 2), (GossipVerdict::Ignore, false));
    // They may have crossed on their way; half a minute later that explains nothing.
    assert_eq!(gossip(sealed(owner, 7, 1, true), 3), (GossipVerdict::Ignore, false));
    assert_eq!(gossip(sealed(owner, 6, 9, false), 40), (GossipVerdict::Reject, true));
    assert_eq!(gossip(sealed(owner, 7, 2, false), 41), (GossipVerdict::Ignore, false));
    assert_eq!(gossip(sealed(owner, 7, 3, true), 42), (GossipVerdict::Accept, false));
}

#[test]
fn a_guest_that_asks_too_often_is_refused_and_told_when_to_return() {
    let (mut net, nodes) = network(26);
    let stranger = node(77);
    let find = Request::Dir(DirRequest::Find { stream: StreamId([1; 32]) });
    let answers: Vec<_> = (0..20).map(|_| net.inject(stranger, nodes[0], find.clone())).collect();
    let refusal = DirResponse::Refused { reason: DirRefusal::RateLimited, retry_ms: 1_000 };
    let refused = answers.iter().filter(|answer| **answer == Response::Dir(refusal.clone()));
    assert_eq!(refused.count(), 16);
    assert_eq!(net.snapshot(nodes[0]).counters.rate_limited, 16);
}

#[test]
fn supernodes_count_viewers_wherever_they_are_registered_and_not_the_source() {
    let (mut net, nodes) = network(27);
    let (source, viewers) = (nodes[2], &nodes[3..6]);
    let stream = net.publish(source, "garden", RATE, 2);
    net.run(secs(3));
    let counted = |net: &Testnet, node: NodeId| {
        let known = net.snapshot(node).streams;
        known.iter().find(|known| known.stream == stream).map(|known| known.viewers)
    };
    assert_eq!(counted(&net, nodes[0]), Some(0));
    for viewer in viewers {
        net.watch(*viewer, stream);
    }
    net.run_until("playing", secs(10), |net| viewers.iter().all(|v| net.plays(*v, stream)));
    net.run_until("counted", secs(30), |net| {
        nodes[..2].iter().all(|boss| counted(net, *boss) == Some(3))
    });
    // Members hear it with their renewals, the source and somebody who takes nothing among them.
    net.run_until("told", secs(30), |net| nodes.iter().all(|n| counted(net, *n) == Some(3)));
    for viewer in viewers {
        net.command(*viewer, Command::Unwatch { stream });
    }
    net.run_until("taken back", secs(60), |net| nodes.iter().all(|n| counted(net, *n) == Some(0)));
}
