//! Finding who carries a stream: coordinators, mixed answers, supernodes that lie.

use super::super::{
    COORDINATORS, Candidate, DirRequest, DirResponse, Event, OverlayConfig, Request, Response,
    RoleChoice, distance,
    testnet::{Health, Testnet, config, ms, node, secs},
};
use crate::{
    ids::{NodeId, StreamId},
    units::Bitrate,
};

const RATE: Bitrate = Bitrate::from_mbps(1);

/// Supernodes that hear of streams only through coordinators: no gossip, hardly a neighbour.
fn mesh(seed: u64, count: u16) -> (Testnet, Vec<NodeId>) {
    let mut net = Testnet::new(seed);
    net.no_gossip = true;
    let mut boss = OverlayConfig { role: RoleChoice::Supernode, ..config() };
    boss.tuning.neighbours_max = 1;
    boss.tuning.meet_every = secs(60);
    boss.tuning.member_lease = secs(300);
    boss.max_copies = Some(0);
    let first = net.add(1, boss.clone(), &[]);
    let mut supernodes = vec![first];
    supernodes.extend((2..=count).map(|index| net.add(index, boss.clone(), &[first])));
    // Everybody knows everybody.
    net.run(secs(40));
    (net, supernodes)
}

/// A member of this very supernode.
fn member_of(net: &mut Testnet, index: u16, supernode: NodeId) -> NodeId {
    net.set_latency(node(index), supernode, ms(1));
    let member = OverlayConfig { role: RoleChoice::Member, ..config() };
    let member = net.add(index, member, &[supernode]);
    net.run_until("registration", secs(5), |net| net.snapshot(supernode).members.contains(&member));
    member
}

fn nearest(stream: StreamId, supernodes: &[NodeId]) -> Vec<NodeId> {
    let mut ranked = supernodes.to_vec();
    ranked.sort_by_key(|node| distance(&stream, node));
    ranked
}

fn asked(net: &Testnet, kinds: &[&str]) -> u64 {
    kinds.iter().map(|kind| net.asked_for.get(kind).copied().unwrap_or(0)).sum()
}

fn candidates(net: &mut Testnet, asker: NodeId, at: NodeId, stream: StreamId) -> Vec<Candidate> {
    match net.inject(asker, at, Request::Dir(DirRequest::Join { stream })) {
        Response::Dir(DirResponse::Candidates { candidates, .. }) => candidates,
        other => panic!("{other:?}"),
    }
}

const LOOKUP: [&str; 4] = ["join", "carriers", "offer", "lookup"];

#[test]
fn on_a_mesh_of_ten_supernodes_a_lookup_costs_few_messages_and_ends_by_its_deadline() {
    let (mut net, supernodes) = mesh(200, 10);
    let source = member_of(&mut net, 20, supernodes[0]);
    let stream = net.publish(source, "garden", RATE, 2);
    net.run(secs(1));
    let far = *nearest(stream, &supernodes).last().unwrap();
    let far = if far == supernodes[0] { nearest(stream, &supernodes)[8] } else { far };
    assert!(!net.lists(far, stream), "it has not heard of the stream");
    let viewer = member_of(&mut net, 21, far);
    let before = asked(&net, &LOOKUP);
    net.watch(viewer, stream);
    let time = net.run_until("playing", secs(3), |net| net.plays(viewer, stream));
    let messages = 2 * (asked(&net, &LOOKUP) - before);
    println!("one lookup among ten supernodes: {messages} messages, playing after {time:?}");
    assert!(messages <= 12, "{messages}");
    assert!(time < secs(1), "{time:?}");
}

#[test]
fn a_lookup_among_the_dead_is_bounded_and_ends_too() {
    let (mut net, supernodes) = mesh(201, 10);
    let stream = StreamId([7; 32]);
    let near = nearest(stream, &supernodes);
    let (coordinators, rest) = near.split_at(COORDINATORS);
    let viewer = member_of(&mut net, 21, rest[0]);
    net.run(secs(10));
    for coordinator in coordinators {
        net.set_health(*coordinator, Health::Frozen);
    }
    let before = asked(&net, &["carriers"]);
    net.inject(viewer, rest[0], Request::Dir(DirRequest::Join { stream }));
    net.run(secs(8));
    let asked = asked(&net, &["carriers"]) - before;
    println!("{asked} coordinators asked in vain");
    assert!((2..=4).contains(&asked), "{asked}");
    assert_eq!(super::super::testnet::questions(&net, rest[0]), 0, "the question has ended");
}

#[test]
fn a_viewer_watches_by_link_alone_whichever_supernode_the_source_uses() {
    let (mut net, supernodes) = mesh(202, 10);
    let viewers: Vec<NodeId> =
        (0..10).map(|at| member_of(&mut net, 20 + at, supernodes[usize::from(at)])).collect();
    for at in [0, 3, 7, 9] {
        let source = viewers[at];
        let stream = net.publish(source, "garden", RATE, 2);
        net.run(ms(500));
        let audience: Vec<_> = viewers.iter().copied().filter(|v| *v != source).collect();
        for viewer in &audience {
            net.watch(*viewer, stream);
        }
        let time = net.run_until("playing", secs(5), |net| {
            audience.iter().all(|viewer| net.plays(*viewer, stream))
        });
        println!("source at supernode {at}: nine viewers at nine others play after {time:?}");
    }
}

#[test]
fn an_answer_mixes_own_members_others_carriers_and_the_source() {
    let (mut net, supernodes) = mesh(203, 4);
    let source = member_of(&mut net, 20, supernodes[0]);
    let stream = net.publish(source, "garden", RATE, 2);
    let mut at = vec![Vec::new(); 4];
    for index in 0..12_u16 {
        let home = usize::from(index % 4);
        let viewer = member_of(&mut net, 30 + index, supernodes[home]);
        net.watch(viewer, stream);
        at[home].push(viewer);
    }
    net.run(secs(20));
    for (home, supernode) in supernodes.iter().enumerate() {
        let list = candidates(&mut net, node(99), *supernode, stream);
        let nodes: Vec<_> = list.iter().map(|candidate| candidate.contact.node).collect();
        assert_eq!(nodes[0], source);
        assert!(list[0].source && list[1..].iter().all(|candidate| !candidate.source));
        let own = nodes.iter().filter(|node| at[home].contains(node)).count();
        let others = nodes.len() - 1 - own;
        println!("supernode {home}: {own} own members, {others} of others");
        assert!(own >= 2 && others >= 2, "{nodes:?}");
        for stripe in 0..2 {
            let carriers = list[1..].iter().filter(|c| c.stripes().contains(stripe)).count();
            assert!((3..=6).contains(&carriers), "stripe {stripe}: {carriers}");
        }
    }
    // Everybody knows how many watch, as far as it coordinates.
    let view = net.snapshot(supernodes[1]).streams.into_iter().find(|v| v.stream == stream);
    assert!(view.unwrap().viewers >= 12);
}

#[test]
fn carriers_that_are_gone_are_named_no_longer() {
    let (mut net, supernodes) = mesh(204, 3);
    let source = member_of(&mut net, 20, supernodes[0]);
    let stream = net.publish(source, "garden", RATE, 1);
    let viewer = member_of(&mut net, 30, supernodes[1]);
    net.watch(viewer, stream);
    net.run(secs(15));
    let named = |net: &mut Testnet| {
        let list = candidates(net, node(99), supernodes[2], stream);
        list.iter().any(|candidate| candidate.contact.node == viewer)
    };
    assert!(named(&mut net));
    net.kill(supernodes[1]);
    net.kill(viewer);
    net.run(secs(60));
    assert!(!named(&mut net), "what a summary told lapses");
}

#[test]
fn a_lying_supernode_is_survived_by_asking_a_second_one() {
    let mut net = Testnet::new(205);
    let boss = OverlayConfig { role: RoleChoice::Supernode, ..config() };
    let liar = net.add(1, boss.clone(), &[]);
    let honest = net.add(2, boss, &[liar]);
    net.run(secs(3));
    let source = member_of(&mut net, 20, honest);
    let viewer = member_of(&mut net, 21, liar);
    net.liars.insert(liar);
    net.run(secs(5));
    let stream = net.publish(source, "garden", RATE, 2);
    net.run(secs(2));
    net.watch(viewer, stream);
    let time = net.run_until("playing", secs(4), |net| net.plays(viewer, stream));
    println!("against a liar: playing after {time:?}");
    net.run(secs(20));
    assert!(net.plays(viewer, stream));
    assert!(!net.events_of(viewer).any(|event| matches!(event, Event::Ended { .. })));
}

#[test]
fn summaries_of_strangers_are_bounded_in_number_and_rate() {
    let (mut net, supernodes) = mesh(206, 2);
    let contact = net.contact(supernodes[1]);
    let summary = |stream: u16| {
        let candidate =
            Candidate { contact: contact.clone(), depths: vec![1], free: 1, source: true };
        let mut id = [0; 32];
        id[..2].copy_from_slice(&stream.to_be_bytes());
        let (stream, viewers) = (StreamId(id), u32::MAX);
        super::super::StreamSummary { stream, viewers, candidates: vec![candidate], relayed: false }
    };
    let send = |net: &mut Testnet, from: u16, stream: u16| {
        let streams = vec![summary(stream)];
        net.inject(node(from), supernodes[0], Request::Dir(DirRequest::Summary { streams }))
    };
    let refused = (0..100)
        .filter(|stream| send(&mut net, 50, *stream) != Response::Dir(DirResponse::Done))
        .count();
    assert_eq!(refused, 60);
    for from in 100..200 {
        send(&mut net, from, 7);
    }
    let overflows = net.snapshot(supernodes[0]).counters.overflows;
    assert_eq!(overflows, 68 + 1, "32 tell of one stream; the first stranger was one of them");
    let list = candidates(&mut net, node(99), supernodes[0], summary(7).stream);
    assert_eq!(list.len(), 1);
    assert!(!list[0].source, "only the announcement says who the source is");
}
