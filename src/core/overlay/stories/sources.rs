//! A source that is lost, returns, or ends its stream, as its viewers live through it.

use super::super::{
    Command, EndReason, Event, OverlayConfig, RoleChoice,
    testnet::{Health, Testnet, config, draft, node, secs},
};
use crate::{
    announcement::Rendition,
    ids::{NodeId, StreamId},
    units::Bitrate,
};

const RATE: Bitrate = Bitrate::from_mbps(1);

/// A chain: everybody feeds one.
fn chain(seed: u64) -> (Testnet, StreamId, NodeId, Vec<NodeId>) {
    let mut net = Testnet::new(seed);
    let one = OverlayConfig { max_copies: Some(1), role: RoleChoice::Member, ..config() };
    let boss = OverlayConfig { role: RoleChoice::Supernode, max_copies: Some(0), ..config() };
    let boss = net.add(1, boss, &[]);
    net.run(secs(1));
    let source = net.add(2, one.clone(), &[boss]);
    net.run(secs(3));
    let stream = net.publish(source, "garden", RATE, 1);
    let viewers: Vec<_> = (10..14)
        .map(|index| {
            let viewer = net.add(index, one.clone(), &[boss]);
            net.run(secs(2));
            net.watch(viewer, stream);
            net.run_until("playing", secs(10), |net| net.plays(viewer, stream));
            viewer
        })
        .collect();
    net.run(secs(5));
    (net, stream, source, viewers)
}

#[test]
fn while_the_source_is_lost_viewers_say_so_keep_their_tickets_and_play_on_when_it_returns() {
    let (mut net, stream, source, viewers) = chain(500);
    let held = |net: &Testnet| {
        let below = viewers.iter().filter(|v| net.parents(**v, stream) != [Some(source)]);
        let live = below.flat_map(|v| net.snapshot(*v).held).filter(|view| !view.standby);
        live.map(|view| view.ticket).collect::<Vec<_>>()
    };
    let before = held(&net);
    assert_eq!(before.len(), 3, "a chain of four has one child of the source");
    net.set_health(source, Health::Frozen);
    let lost = Event::SourceLost { stream };
    net.run_until("told", secs(8), |net| {
        viewers.iter().all(|v| net.events_of(*v).any(|event| *event == lost))
    });
    net.run(secs(16));
    assert_eq!(held(&net).len(), 3);
    assert!(held(&net).iter().all(|ticket| before.contains(ticket)), "the same tickets");
    // The same node, the same key: its encoder begins a new epoch.
    net.set_health(source, Health::Alive);
    net.publish_epoch(source, source, "garden", RATE, 1, 2);
    let back = Event::SourceBack { stream };
    let time = net.run_until("back", secs(10), |net| {
        viewers.iter().all(|v| net.events_of(*v).any(|event| *event == back))
    });
    println!("back at all four after {time:?}");
    net.run_until("playing", secs(5), |n| viewers.iter().all(|v| n.plays(*v, stream)));
    let is_end = |event: &Event| matches!(event, Event::Ended { .. });
    assert!(!viewers.iter().any(|v| net.events_of(*v).any(is_end)), "nobody had to do a thing");
}

#[test]
fn a_source_that_ends_its_stream_while_viewers_cannot_hear_it_is_ended_by_the_directory() {
    let (mut net, stream, source, viewers) = chain(501);
    // The end mark in the stream reaches nobody: testnet's feeds carry none.
    net.command(source, Command::Unpublish { stream });
    let ended = Event::Ended { stream, reason: EndReason::Ended };
    let time = net.run_until("told", secs(8), |net| {
        viewers.iter().all(|v| net.events_of(*v).any(|event| *event == ended))
    });
    println!("told by the directory after {time:?}");
    let late = net.add(30, OverlayConfig { role: RoleChoice::Member, ..config() }, &[node(1)]);
    net.run(secs(3));
    net.watch(late, stream);
    net.run_until("told", secs(8), |net| net.events_of(late).any(|event| *event == ended));
}

#[test]
fn a_rendition_is_known_with_its_stream_and_listed_nowhere() {
    let mut net = Testnet::new(510);
    let boss = OverlayConfig { role: RoleChoice::Supernode, ..config() };
    let boss = net.add(1, boss, &[]);
    let source = net.add(2, config(), &[boss]);
    let viewer = net.add(3, config(), &[boss]);
    net.run(secs(3));
    let mut whole = draft(source, "garden", RATE, 4, 1);
    let mut small = draft(source, "garden#480p", Bitrate::from_kbps(400), 1, 1);
    small.rendition_of = Some(whole.stream());
    let one = |stream| Rendition { stream, height: 480, rate: Bitrate::from_kbps(400) };
    let other = draft(boss, "garden#240p", RATE, 1, 1);
    // The last is somebody else's, and no rendition of this stream.
    whole.renditions = vec![one(small.stream()), one(other.stream())];
    let (stream, rendition) = (whole.stream(), small.stream());
    net.command(boss, Command::Publish { announcement: Box::new(other) });
    for announcement in [whole, small].map(Box::new) {
        net.command(source, Command::Publish { announcement });
    }
    net.run_until("the list", secs(10), |net| net.lists(viewer, stream));
    net.run_until("the rendition", secs(10), |net| !net.renditions(viewer, stream).is_empty());
    net.run(secs(2));
    assert_eq!(net.renditions(viewer, stream), [one(rendition)]);
    assert!(!net.lists(viewer, rendition));
    let named = |event: &&Event| {
        matches!(event, Event::StreamListed { stream, .. } | Event::StreamRemoved { stream, .. }
            if *stream == rendition)
    };
    net.command(source, Command::Unpublish { stream: rendition });
    net.run_until("its end", secs(10), |net| net.renditions(viewer, stream).is_empty());
    assert_eq!(net.events_of(viewer).filter(named).count(), 0, "nobody hears of it by itself");
}
