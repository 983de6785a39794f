//! Tickets: chains, fan-out, capacity, refusals, third parties.

use super::super::{
    Ask, AskStripe, Change, Command, Event, Interest, Offence, OverlayConfig, RefuseReason,
    Request, Response, RoleChoice, TicketEnd, TicketId, TicketRequest, TicketResponse, Verdict,
    testnet::{Health, Testnet, config, ms, node, secs},
};
use crate::{
    ids::{NodeId, StreamId},
    units::Bitrate,
};

fn copies(max_copies: u32) -> OverlayConfig {
    OverlayConfig { max_copies: Some(max_copies), ..config() }
}

fn uplink(rate: Bitrate) -> OverlayConfig {
    OverlayConfig { uplink: Some(rate), ..config() }
}

/// A supernode that takes no part, a source of `k` stripes, and `viewers` that watch.
fn audience(
    seed: u64,
    source: OverlayConfig,
    viewer: &OverlayConfig,
    viewers: u16,
    rate: Bitrate,
    k: u8,
) -> (Testnet, StreamId, NodeId, Vec<NodeId>) {
    let mut net = Testnet::new(seed);
    let mut boss = copies(0);
    boss.role = RoleChoice::Supernode;
    let boss = net.add(1, boss, &[]);
    let source = net.add(2, source, &[boss]);
    net.run(secs(3));
    let stream = net.publish(source, "garden", rate, k);
    net.run(secs(1));
    let viewers: Vec<_> = (10..10 + viewers)
        .map(|index| {
            let viewer = net.add(index, viewer.clone(), &[boss]);
            net.watch(viewer, stream);
            viewer
        })
        .collect();
    (net, stream, source, viewers)
}

fn all_play(net: &Testnet, viewers: &[NodeId], stream: StreamId) -> bool {
    viewers.iter().all(|viewer| net.plays(*viewer, stream))
}

fn ask(
    net: &mut Testnet,
    from: NodeId,
    to: NodeId,
    stream: StreamId,
    stripe: u8,
) -> TicketResponse {
    let ask = Ask {
        stream,
        stripes: vec![AskStripe::live(stripe)],
        contact: net.contact(from),
        free: 0,
        attempt: 0,
        slots: 0,
        displace: 0,
    };
    match net.inject(from, to, Request::Ticket(TicketRequest::Ask(ask))) {
        Response::Ticket(response) => response,
        Response::Dir(_) => unreachable!("a ticket request"),
    }
}

fn granted(response: &TicketResponse) -> Option<TicketId> {
    match response {
        TicketResponse::Answer(answer) => match answer.stripes[0].verdict {
            Verdict::Grant { ticket, .. } => Some(ticket),
            Verdict::Refuse { .. } => None,
        },
        TicketResponse::Done | TicketResponse::Refused { .. } => None,
    }
}

#[test]
fn a_chain_of_single_copies_forms_by_redirects() {
    let (mut net, stream, source, viewers) =
        audience(30, copies(1), &copies(1), 3, Bitrate::from_mbps(1), 4);
    net.run_until("playing", secs(10), |n| all_play(n, &viewers, stream));
    assert_eq!(net.sends(source, stream), 4);
    let mut depths: Vec<_> = viewers.iter().map(|viewer| net.depth(*viewer, stream)).collect();
    depths.sort_unstable();
    assert!(!net.has_cycle(stream, 4));
    for viewer in &viewers {
        assert!(net.sends(*viewer, stream) <= 4);
    }
    println!("depths {depths:?}");
}

#[test]
fn twenty_viewers_with_two_copies_each_stay_within_depth_six() {
    for seed in 31..36 {
        let (mut net, stream, source, viewers) =
            audience(seed, copies(2), &copies(2), 20, Bitrate::from_kbps(400), 1);
        let time = net.run_until("playing", secs(20), |n| all_play(n, &viewers, stream));
        let depth = viewers.iter().map(|viewer| net.depth(*viewer, stream)).max().unwrap();
        println!("seed {seed}: all play after {time:?}, depth {depth}");
        assert!(depth <= 6);
        net.run(secs(30));
        assert!(all_play(&net, &viewers, stream), "it stays so");
        assert!(net.sends(source, stream) <= 2);
        for viewer in &viewers {
            assert!(net.sends(*viewer, stream) <= 2);
        }
    }
}

#[test]
fn eight_households_below_one_copy_share_four_stripes() {
    for seed in 40..50 {
        let source = uplink(Bitrate::from_mbps(6));
        let viewer = uplink(Bitrate::from_kbps(750));
        let (mut net, stream, source, viewers) =
            audience(seed, source, &viewer, 8, Bitrate::from_mbps(1), 4);
        let time = net.run_until("playing", secs(60), |n| all_play(n, &viewers, stream));
        println!(
            "seed {seed}: all play after {time:?}, source sends {}",
            net.sends(source, stream)
        );
        net.run(secs(20));
        assert!(all_play(&net, &viewers, stream), "seed {seed}: it stays so");
        assert!(!net.has_cycle(stream, 4));
        assert!(net.sends(source, stream) <= 20);
        let by_viewers: u32 = viewers.iter().map(|viewer| net.sends(*viewer, stream)).sum();
        assert!(by_viewers * 3 >= 32, "viewers send {by_viewers} of 32 stripe feeds");
        assert!(viewers.iter().all(|viewer| net.sends(*viewer, stream) <= 2));
    }
}

#[test]
fn slots_in_the_wrong_stripes_are_moved_to_the_stripe_that_runs_short() {
    for seed in 63..65 {
        let house = uplink(Bitrate::from_kbps(1_410));
        let (mut net, stream, _, viewers) =
            audience(seed, house.clone(), &house, 60, Bitrate::from_mbps(1), 8);
        let play = |net: &Testnet| viewers.iter().filter(|v| net.plays(**v, stream)).count();
        let mut half = None;
        let time = net.run_until("playing", secs(60), |net| {
            if play(net) >= 30 && half.is_none() {
                half = Some(net.now);
            }
            play(net) == 60
        });
        let slots = net.snapshot(viewers[0]).capacity;
        println!("seed {seed}: half at {half:?}, all after {time:?}; {slots:?}");
        net.run(secs(20));
        assert!(play(&net) >= 58, "seed {seed}: it stays so");
        assert!(!net.has_cycle(stream, 8));
    }
}

#[test]
fn a_leaf_makes_way_for_a_forwarder_and_is_fed_by_it() {
    for seed in 0..5 {
        let one = copies(1);
        let (mut net, stream, source, viewers) =
            audience(seed, one, &copies(0), 1, Bitrate::from_mbps(1), 2);
        net.run_until("the leaf plays", secs(10), |net| all_play(net, &viewers, stream));
        let boss = node(1);
        let forwarders: Vec<_> = (20..23)
            .map(|index| {
                let forwarder = net.add(index, copies(2), &[boss]);
                net.watch(forwarder, stream);
                forwarder
            })
            .collect();
        let whole =
            |net: &Testnet| all_play(net, &viewers, stream) && all_play(net, &forwarders, stream);
        let time = net.run_until("nobody starves behind the leaf", secs(30), whole);
        println!("seed {seed}: all play after {time:?}");
        // Whoever was moved last gets bytes from both for a moment.
        net.run(secs(3));
        let given = net.snapshot(source).given;
        let fed = given.iter().all(|ticket| ticket.standby || ticket.node != viewers[0]);
        assert!(fed, "seed {seed}: the leaf still takes a slot of the source");
    }
}

#[test]
fn a_full_node_refuses_with_alternatives() {
    let (mut net, stream, source, viewers) =
        audience(51, copies(1), &copies(1), 1, Bitrate::from_mbps(1), 1);
    net.run_until("playing", secs(10), |n| all_play(n, &viewers, stream));
    let late = net.add(60, config(), &[source]);
    net.run(secs(1));
    match ask(&mut net, late, source, stream, 0) {
        TicketResponse::Answer(answer) => {
            let reason = RefuseReason::CopyLimit;
            assert_eq!(answer.stripes[0].verdict, Verdict::Refuse { reason });
            assert_eq!(answer.redirect[0].contact.node, viewers[0]);
            assert_eq!(answer.redirect[0].depths, [1]);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn without_any_slot_the_viewer_is_told_and_joins_when_one_is_free() {
    let (mut net, stream, source, viewers) =
        audience(52, copies(0), &copies(0), 1, Bitrate::from_mbps(1), 1);
    let told = |e: &Event| matches!(e, Event::NoCapacity { retry_ms, .. } if *retry_ms > 0);
    net.run_until("told", secs(5), |n| n.events_of(viewers[0]).any(told));
    let max_copies = Change::Set(1);
    let (uplink, max_total_copies) = (Change::Keep, Change::Keep);
    let limits = Command::SetLimits { uplink, max_copies, max_total_copies };
    net.command(source, limits);
    net.run_until("playing", secs(5), |n| all_play(n, &viewers, stream));
}

#[test]
fn a_full_forwarder_still_watches_another_stream() {
    let (mut net, one, source, viewers) =
        audience(53, copies(1), &copies(1), 2, Bitrate::from_mbps(1), 2);
    net.run_until("playing", secs(10), |n| all_play(n, &viewers, one));
    let two = net.publish(source, "yard", Bitrate::from_mbps(1), 2);
    net.run(secs(2));
    let forwarder = viewers.iter().find(|viewer| net.sends(**viewer, one) == 2).copied().unwrap();
    net.watch(forwarder, two);
    net.run_until("playing", secs(5), |n| n.plays(forwarder, two));
    assert!(net.plays(forwarder, one));
    assert_eq!(net.sends(forwarder, one), 2);
}

#[test]
fn the_total_of_copies_counts_over_all_streams() {
    let source = OverlayConfig { max_total_copies: Some(1), ..config() };
    let (mut net, one, source, viewers) =
        audience(54, source, &copies(0), 2, Bitrate::from_mbps(1), 2);
    let two = net.publish(source, "yard", Bitrate::from_mbps(1), 4);
    for viewer in &viewers {
        net.watch(*viewer, two);
    }
    net.run(secs(20));
    let sixteenths = net.sends(source, one) * 8 + net.sends(source, two) * 4;
    assert!(sixteenths <= 16, "{sixteenths} sixteenths of one copy");
    assert!(sixteenths >= 12);
}

#[test]
fn two_nodes_that_ask_each_other_at_the_same_moment_both_get_an_answer() {
    let (mut net, stream, _, viewers) =
        audience(55, copies(2), &copies(2), 2, Bitrate::from_mbps(1), 1);
    net.run_until("playing", secs(10), |n| all_play(n, &viewers, stream));
    // Both ask within the same instant; nobody waits for anybody.
    let one = ask(&mut net, viewers[0], viewers[1], stream, 0);
    let two = ask(&mut net, viewers[1], viewers[0], stream, 0);
    assert!(matches!(one, TicketResponse::Answer(_)));
    assert!(matches!(two, TicketResponse::Answer(_)));
    net.run(secs(15));
    assert!(all_play(&net, &viewers, stream));
    assert!(!net.has_cycle(stream, 1));
}

#[test]
fn a_peer_that_accepts_and_never_answers_costs_one_deadline() {
    let (mut net, stream, source, viewers) =
        audience(56, copies(2), &copies(2), 2, Bitrate::from_mbps(1), 1);
    net.run_until("playing", secs(10), |n| all_play(n, &viewers, stream));
    let hole = viewers[0];
    net.set_health(hole, Health::Frozen);
    let late = net.add(61, config(), &[source]);
    net.set_latency(late, hole, ms(1));
    net.run(secs(2));
    net.watch(late, stream);
    let time = net.run_until("playing", secs(4), |n| n.plays(late, stream));
    println!("playing after {time:?}");
}

#[test]
fn nobody_but_parent_and_child_can_change_a_ticket() {
    let (mut net, stream, source, viewers) =
        audience(57, copies(2), &copies(2), 1, Bitrate::from_mbps(1), 1);
    net.run_until("playing", secs(10), |n| all_play(n, &viewers, stream));
    let ticket = net.snapshot(source).given[0].ticket;
    let thief = node(66);
    let release = TicketRequest::Release { tickets: vec![ticket] };
    let answer = net.inject(thief, source, Request::Ticket(release));
    let refused = TicketResponse::Refused { reason: RefuseReason::NotParty, retry_ms: 0 };
    assert_eq!(answer, Response::Ticket(refused));
    let offence = Event::Offence { node: thief, kind: Offence::NotParty, banned: false };
    assert!(net.events_of(source).any(|event| *event == offence));
    // Neither can it ask in another's name, nor revoke.
    let in_anothers_name = Ask {
        stream,
        stripes: vec![AskStripe::live(0)],
        contact: net.contact(viewers[0]),
        free: 0,
        attempt: 0,
        slots: 0,
        displace: 0,
    };
    let answer = net.inject(thief, source, Request::Ticket(TicketRequest::Ask(in_anothers_name)));
    assert!(matches!(answer, Response::Ticket(TicketResponse::Refused { .. })));
    let revoke = super::super::Revoke {
        stream,
        tickets: vec![ticket],
        reason: super::super::RevokeReason::Revoked,
        grace_ms: 0,
        candidates: vec![],
    };
    net.inject(thief, viewers[0], Request::Ticket(TicketRequest::Revoke(revoke)));
    net.run(secs(5));
    assert_eq!(net.snapshot(source).given[0].ticket, ticket);
    assert!(all_play(&net, &viewers, stream));
}

#[test]
fn a_grant_that_is_never_taken_up_lapses_in_seconds_and_a_repeated_ask_is_the_same_ticket() {
    let (mut net, stream, source, viewers) =
        audience(58, copies(2), &copies(2), 1, Bitrate::from_mbps(1), 1);
    net.run_until("playing", secs(10), |n| all_play(n, &viewers, stream));
    let idler = node(66);
    let first = granted(&ask(&mut net, idler, source, stream, 0)).unwrap();
    net.run(secs(1));
    assert_eq!(granted(&ask(&mut net, idler, source, stream, 0)), Some(first));
    assert_eq!(net.snapshot(source).given.len(), 2);
    let held = net.snapshot(source).given.iter().any(|view| view.ticket == first);
    assert!(held);
    net.run(ms(2_100));
    assert_eq!(net.snapshot(source).given.len(), 1, "asking again does not hold a slot");
    let lapsed = |e: &Event| {
        matches!(e, Event::TicketEnded { ticket, reason: TicketEnd::Unconfirmed, .. }
            if *ticket == first)
    };
    assert!(net.events_of(source).any(lapsed));
}

#[test]
fn no_slot_leaks_when_answers_are_lost() {
    let (mut net, stream, source, viewers) =
        audience(59, copies(3), &copies(2), 10, Bitrate::from_mbps(1), 2);
    net.lose_answers = 300;
    net.run(secs(60));
    net.lose_answers = 0;
    net.run_until("playing", secs(30), |n| all_play(n, &viewers, stream));
    net.run(secs(15));
    let nodes = viewers.iter().chain([&source]);
    let held = |node: &NodeId| {
        let given = net.snapshot(*node).given;
        given.iter().filter(|ticket| !ticket.standby).count()
    };
    let given: usize = nodes.map(held).sum();
    assert_eq!(given, viewers.len() * 2, "every ticket has a child that uses it");
}

#[test]
fn a_revoked_ticket_stops_within_a_second_and_the_child_looks_elsewhere() {
    let (mut net, stream, source, viewers) =
        audience(60, copies(2), &copies(2), 3, Bitrate::from_mbps(1), 1);
    net.run_until("playing", secs(10), |n| all_play(n, &viewers, stream));
    let view = net.snapshot(source).given[0];
    net.command(source, Command::RevokeTicket { ticket: view.ticket });
    net.run(secs(1));
    let given = net.snapshot(source).given;
    assert!(given.iter().all(|other| other.ticket != view.ticket));
    net.run_until("playing again", secs(5), |n| n.plays(view.node, stream));
}

#[test]
fn a_lower_limit_takes_effect_while_running() {
    let (mut net, stream, source, viewers) =
        audience(61, copies(4), &copies(4), 4, Bitrate::from_mbps(1), 2);
    net.run_until("playing", secs(10), |n| all_play(n, &viewers, stream));
    let uplink = Change::Set(Bitrate::from_kbps(1_200));
    let (max_copies, max_total_copies) = (Change::Keep, Change::Keep);
    let limits = Command::SetLimits { uplink, max_copies, max_total_copies };
    net.command(source, limits);
    net.run(secs(2));
    assert!(net.sends(source, stream) <= 2);
    net.run_until("playing again", secs(10), |n| all_play(n, &viewers, stream));
}

#[test]
fn a_limit_that_is_lifted_is_none_any_more_and_the_others_stay() {
    let mut limited = copies(0);
    limited.max_total_copies = Some(7);
    limited.uplink = Some(Bitrate::from_mbps(3));
    let (mut net, stream, source, viewers) =
        audience(63, limited, &copies(0), 2, Bitrate::from_mbps(1), 1);
    net.run(secs(3));
    assert!(!all_play(&net, &viewers, stream));
    let (uplink, max_copies, max_total_copies) = (Change::Keep, Change::Lift, Change::Keep);
    net.command(source, Command::SetLimits { uplink, max_copies, max_total_copies });
    net.run_until("playing", secs(10), |n| all_play(n, &viewers, stream));
    let capacity = net.snapshot(source).capacity;
    assert_eq!((capacity.max_copies, capacity.max_total_copies), (None, Some(7)));
    assert_eq!((capacity.usable, capacity.assumed), (Bitrate::from_mbps(3), false));
    let (uplink, max_copies, max_total_copies) = (Change::Lift, Change::Keep, Change::Lift);
    net.command(source, Command::SetLimits { uplink, max_copies, max_total_copies });
    let capacity = net.snapshot(source).capacity;
    assert_eq!((capacity.max_total_copies, capacity.assumed), (None, true));
}

#[test]
fn one_request_storm_of_one_node_is_limited() {
    let (mut net, stream, source, _) =
        audience(62, copies(2), &copies(2), 1, Bitrate::from_mbps(1), 1);
    net.run(secs(1));
    let stormer = node(66);
    let answers: Vec<_> = (0..200).map(|_| ask(&mut net, stormer, source, stream, 0)).collect();
    let limited = |answer: &&TicketResponse| {
        matches!(answer, TicketResponse::Refused { reason: RefuseReason::RateLimited, .. })
    };
    assert_eq!(answers.iter().filter(limited).count(), 160);
    let flood = |e: &Event| matches!(e, Event::Offence { kind: Offence::Flood, .. });
    assert_eq!(net.events_of(source).filter(|e| flood(e)).count(), 1);
}

#[test]
fn a_seeder_forwards_without_playing_is_shown_as_such_and_stops_on_command() {
    let (mut net, stream, source, _) =
        audience(64, copies(1), &copies(0), 0, Bitrate::from_mbps(1), 2);
    let boss = node(1);
    let seeder = net.add(70, copies(4), &[boss]);
    let lag = ms(1_500);
    net.command(seeder, Command::Watch { stream, lag, kind: Interest::Seed });
    net.run_until("seeding", secs(5), |net| net.plays(seeder, stream));
    let viewer = net.add(71, copies(0), &[boss]);
    net.watch(viewer, stream);
    net.run_until("playing", secs(8), |net| net.plays(viewer, stream));
    assert_eq!(net.sends(seeder, stream), 2);
    assert_eq!(net.snapshot(seeder).watches[0].kind, Interest::Seed);
    net.command(seeder, Command::Unwatch { stream });
    net.run_until("handed over", secs(5), |net| {
        net.parents(viewer, stream) == [Some(source), Some(source)]
    });
    assert!(net.snapshot(seeder).watches.is_empty());
}
