//! Children that take what is not theirs, or never read.

use std::time::Duration;

use astral_core::{
    ids::{Direction, StreamId, StripeSet},
    media::frame::{DownFrame, EndReason, FrameReader, Hello, UpFrame},
    overlay::{RefuseReason, Revoke, RevokeReason, TicketId, TicketRequest, TicketResponse},
};
use bytes::BytesMut;
use libp2p::Stream;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, interval, timeout},
};
use tokio_util::compat::Compat;

use super::{
    Hostile,
    feeds::{Follower, Got, ask, promote_all},
    source_and_viewer, until,
};
use crate::node::{
    Event,
    feed::handshake::greet,
    testing::{PATIENCE, TestNode, assert_identical},
};

async fn tickets_of(parent: &TestNode, child: &TestNode) -> Vec<TicketId> {
    let given = parent.handle.snapshot().await.unwrap().overlay.given;
    let of_child = given.iter().filter(|ticket| ticket.node == child.handle.node_id());
    of_child.map(|ticket| ticket.ticket).collect()
}

fn hello(stream: StreamId, opener: Direction) -> Hello {
    Hello { stream, opener }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_but_its_child_releases_a_ticket_and_nobody_but_its_parent_revokes_it() {
    let (mut source, encoder, viewer, seen) = source_and_viewer(1, 300).await;
    let tickets = tickets_of(&source, &viewer).await;
    assert_eq!(tickets.len(), 1);
    let peer = Hostile::start(61).await;
    peer.meet(&source).await;
    peer.meet(&viewer).await;

    let release = TicketRequest::Release { tickets: tickets.clone() };
    let answer = peer.ticket(&source, release).await.unwrap();
    assert_eq!(answer, TicketResponse::Refused { reason: RefuseReason::NotParty, retry_ms: 0 });
    let bad = peer.node;
    let kind = source
        .event(|event| match event {
            Event::Offence { node, kind, .. } if *node == bad => Some(*kind),
            _ => None,
        })
        .await;
    assert_eq!(kind, astral_core::overlay::Offence::NotParty);

    let revoke = Revoke {
        stream: encoder.stream,
        tickets: tickets.clone(),
        reason: RevokeReason::Revoked,
        grace_ms: 0,
        candidates: Vec::new(),
    };
    drop(peer.ticket(&viewer, TicketRequest::Revoke(revoke)).await);
    let so_far = seen.size();
    seen.has(so_far + 40_000).await;
    assert_eq!(tickets_of(&source, &viewer).await, tickets, "the same ticket as before");
    let told = viewer.handle.snapshot().await.unwrap().overlay;
    assert_eq!(told.watches[0].stripes[0].parent, Some(source.handle.node_id()));
    let tee = encoder.end().await;
    assert_identical(&seen.finish().await, &tee);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_without_a_ticket_brings_no_media_and_changes_nothing() {
    let (source, encoder, viewer, seen) = source_and_viewer(1, 300).await;
    let tickets = tickets_of(&source, &viewer).await;
    let peer = Hostile::start(62).await;
    peer.meet(&source).await;
    peer.meet(&viewer).await;

    // As a child without a ticket, which also gives back what it does not hold.
    let mut feed = peer.open(&source).await.unwrap();
    let outcome = greet(&mut feed, hello(encoder.stream, Direction::FromParent)).await;
    if let Ok(mut frames) = outcome {
        let mut bytes = promote_all(1);
        UpFrame::Want { stripe: 0, ranges: vec![(0, 10)] }.encode(&mut bytes);
        UpFrame::Release { stripe: 0, reason: 0 }.encode(&mut bytes);
        // The node may have closed it already.
        drop(feed.write_all(&bytes).await);
        let got = read_all(&mut feed, &mut frames).await;
        assert!(got.chunks.is_empty(), "{} chunks", got.chunks.len());
        assert_eq!(got.end, Some(EndReason::Revoked));
    }
    // As a parent that nobody asked.
    let mut feed = peer.open(&viewer).await.unwrap();
    if let Ok(mut frames) = greet(&mut feed, hello(encoder.stream, Direction::ToChild)).await {
        let mut ends = BytesMut::new();
        DownFrame::End { reason: EndReason::Ended }.encode(&mut ends);
        drop(feed.write_all(&ends).await);
        drop(feed.flush().await);
        let end = async { while matches!(feed.read_buf(frames.buffer_mut()).await, Ok(1..)) {} };
        assert!(timeout(PATIENCE, end).await.is_ok(), "still open");
    }
    let so_far = seen.size();
    seen.has(so_far + 20_000).await;
    assert_eq!(tickets_of(&source, &viewer).await, tickets);
    let told = source.handle.snapshot().await.unwrap();
    assert_eq!(told.overlay.given.len(), 1);
    let tee = encoder.end().await;
    assert_identical(&seen.finish().await, &tee);
}

async fn read_all(feed: &mut Compat<Stream>, frames: &mut FrameReader) -> Got {
    let mut got = Got::default();
    let all = async {
        loop {
            while let Some(frame) = frames.next() {
                match DownFrame::decode(&frame.unwrap()).unwrap() {
                    DownFrame::Chunk(chunk) => got.chunks.push(chunk),
                    DownFrame::Shed { stripes } => got.shed.0 |= stripes.0,
                    DownFrame::End { reason } => got.end = Some(reason),
                    _ => {}
                }
            }
            if !matches!(feed.read_buf(frames.buffer_mut()).await, Ok(1..)) {
                return;
            }
        }
    };
    assert!(timeout(PATIENCE, all).await.is_ok(), "still open");
    got
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_stops_reading_is_told_and_disconnected_and_the_others_see_nothing() {
    const K: u8 = 4;
    let (source, encoder, viewer, seen) = source_and_viewer(K, 2_000).await;
    let peer = Hostile::start(63).await;
    peer.meet(&source).await;
    let tickets = ask(&peer, &source, encoder.stream, K).await;
    assert_eq!(tickets.len(), usize::from(K));
    let mut feed = peer.open(&source).await.unwrap();
    let mut frames = greet(&mut feed, hello(encoder.stream, Direction::FromParent)).await.unwrap();
    feed.write_all(&promote_all(K)).await.unwrap();
    feed.flush().await.unwrap();
    // Reads a little, so that its tickets are confirmed, and then never again.
    let mut read = 0;
    while read < 50_000 {
        read += feed.read_buf(frames.buffer_mut()).await.unwrap();
    }
    let mut ack = BytesMut::new();
    UpFrame::Ack { bytes: 1_000, alive: StripeSet::first(K) }.encode(&mut ack);
    feed.write_all(&ack).await.unwrap();
    feed.flush().await.unwrap();

    let stopped = Instant::now();
    let mut most = 0;
    let mut look = interval(Duration::from_millis(50));
    loop {
        look.tick().await;
        let told = source.handle.snapshot().await.unwrap();
        let mut fed = told.relay.streams.iter().flat_map(|stream| &stream.children);
        let child = fed.rfind(|child| child.feed.peer == peer.node);
        let Some(child) = child else { break };
        most = most.max(child.sent_bytes - child.acked_bytes);
        assert!(stopped.elapsed() < PATIENCE, "never disconnected: {child:?}");
    }
    println!("disconnected after {:?}, {most} bytes unacknowledged at most", stopped.elapsed());
    assert!(most < 256 << 10, "{most} bytes unacknowledged");
    let told = source.handle.snapshot().await.unwrap();
    assert!(told.overlay.given.iter().all(|ticket| ticket.node != peer.node));
    // It was told, as it finds out when it reads again.
    let got = read_all(&mut feed, &mut frames).await;
    assert!(!got.shed.is_empty(), "no stripe was shed");
    assert_eq!(got.end, Some(EndReason::Revoked));

    let tee = encoder.end().await;
    assert_identical(&seen.finish().await, &tee);
    let viewer = viewer.handle.snapshot().await.unwrap().relay.stats;
    assert_eq!((viewer.gaps_in, viewer.wants_out), (0, 0), "the other child missed nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_acknowledges_without_reading_does_not_outlive_its_ticket() {
    let (source, encoder, _viewer, seen) = source_and_viewer(1, 2_000).await;
    let peer = Hostile::start(64).await;
    peer.meet(&source).await;
    let tickets = ask(&peer, &source, encoder.stream, 1).await;
    let mut feed = peer.open(&source).await.unwrap();
    greet(&mut feed, hello(encoder.stream, Direction::FromParent)).await.unwrap();
    feed.write_all(&promote_all(1)).await.unwrap();
    feed.flush().await.unwrap();
    let sent = async || {
        let told = source.handle.snapshot().await.unwrap();
        let fed = told.relay.streams.iter().flat_map(|stream| &stream.children);
        fed.filter(|child| child.feed.peer == peer.node).map(|child| child.sent_bytes).next_back()
    };
    // Until the transport takes no more, and then the ticket ends.
    let begun = Instant::now();
    let mut look = interval(Duration::from_millis(50));
    while let Some(bytes) = sent().await.filter(|bytes| *bytes < 700_000) {
        assert!(begun.elapsed() < PATIENCE, "{bytes}");
        let mut ack = BytesMut::new();
        UpFrame::Ack { bytes, alive: StripeSet::first(1) }.encode(&mut ack);
        feed.write_all(&ack).await.unwrap();
        feed.flush().await.unwrap();
        look.tick().await;
    }
    source.handle.revoke(tickets[0]).await.unwrap();
    until("the child is gone", async || sent().await.is_none()).await;
    // The other end of the stream is gone as well, though it was never read: writing fails.
    let fails = async {
        let mut again = interval(Duration::from_millis(50));
        let ack = [0x22, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0];
        while feed.write_all(&ack).await.is_ok() && feed.flush().await.is_ok() {
            again.tick().await;
        }
    };
    assert!(timeout(PATIENCE, fails).await.is_ok(), "its stream is kept for ever");
    let tee = encoder.end().await;
    assert_identical(&seen.finish().await, &tee);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bytes_of_a_revoked_ticket_stop_within_a_second() {
    let (source, encoder, _viewer, seen) = source_and_viewer(4, 1_000).await;
    let peer = Hostile::start(65).await;
    peer.meet(&source).await;
    let follower = Follower::start(&peer, &source, encoder.stream, 4).await;
    follower.has_chunks(20).await;
    let revoked = Instant::now();
    for ticket in &follower.tickets {
        source.handle.revoke(*ticket).await.unwrap();
    }
    let (got, flowing) = (&follower.got, Duration::from_millis(400));
    until("silence", async || {
        let got = got.lock().unwrap();
        got.closed || got.last_chunk.is_some_and(|at| at.elapsed() > flowing)
    })
    .await;
    let last = got.lock().unwrap().last_chunk.unwrap().saturating_duration_since(revoked);
    println!("the last chunk came {last:?} after the revocation");
    // Three times the promise.
    assert!(last < Duration::from_secs(3), "{last:?}");
    until("no ticket is left", async || {
        let given = source.handle.snapshot().await.unwrap().overlay.given;
        given.iter().all(|ticket| ticket.node != peer.node)
    })
    .await;
    until("the feed ends", async || got.lock().unwrap().closed).await;
    assert_eq!(got.lock().unwrap().end, Some(EndReason::Revoked));
    let tee = encoder.end().await;
    assert_identical(&seen.finish().await, &tee);
}
