//! Bytes that are no messages, and greetings that never come.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use astral_core::{
    ids::{Direction, StreamId, StreamName},
    media::{cert::SourceSigner, frame::Hello},
    overlay::{DirRequest, TicketId, TicketRequest, Wire},
};
use bytes::BytesMut;
use libp2p::identity::{Keypair, ecdsa, secp256k1};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout},
};

use super::{
    Hostile,
    feeds::{ask, promote_all},
    raw::{Dropped, RawPeer},
    source_and_viewer, until,
};
use crate::node::{
    Event,
    feed::handshake::greet,
    identity,
    testing::{Encoder, PATIENCE, Recorder, TestNode, Transport, assert_identical},
};

const TICKETS: &str = "/astral/ticket/1";
const DIRECTORY: &str = "/astral/dir/1";

async fn founder() -> TestNode {
    let mut node = TestNode::start(Transport::Tcp, &[], |_| {}).await;
    node.event(|event| matches!(event, Event::Promoted { .. }).then_some(())).await;
    node
}

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4_096
}

/// A new RSA key, which libp2p reads but does not make.
fn rsa_key() -> Keypair {
    let openssl = |args: &[&str], input: &[u8]| {
        let mut child = Command::new("openssl")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl is installed by the test command");
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap().stdout
    };
    let key = openssl(&["genpkey", "-algorithm", "RSA", "-outform", "DER"], b"");
    let mut key =
        openssl(&["pkcs8", "-topk8", "-nocrypt", "-inform", "DER", "-outform", "DER"], &key);
    Keypair::rsa_from_pkcs8(&mut key).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_with_keys_of_other_kinds_are_spoken_with_though_they_are_no_nodes() {
    let node = founder().await;
    for key in [
        rsa_key(),
        Keypair::from(secp256k1::Keypair::generate()),
        Keypair::from(ecdsa::Keypair::generate()),
    ] {
        let kind = key.key_type();
        let peer = key.public().to_peer_id();
        assert_eq!(identity::node_id(&peer), None, "{kind:?}");
        RawPeer::meet_as(key, DIRECTORY, &node).await.is_answered().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_no_messages_cost_the_connection_and_nothing_else() {
    let (source, encoder, _viewer, seen) = source_and_viewer(1, 300).await;

    let release = TicketRequest::Release { tickets: vec![TicketId(1); 16] }.to_wire().unwrap();
    let list = DirRequest::List { after: None }.to_wire().unwrap();
    let cases: [(&'static str, Vec<u8>); 7] = [
        (TICKETS, vec![0x82; 16 << 20]),
        (TICKETS, release[..release.len() - 1].to_vec()),
        (TICKETS, [&release[..], b"x"].concat()),
        (TICKETS, TicketRequest::Release { tickets: vec![TicketId(1); 17] }.to_wire().unwrap()),
        // An array of 2^63 elements.
        (TICKETS, vec![0xa1, 0x67, b'r', 0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        (DIRECTORY, vec![0; 16 << 20]),
        (DIRECTORY, list[..list.len() - 1].to_vec()),
    ];
    let before = resident();
    for (at, (protocol, bytes)) in (0..).zip(&cases) {
        let mut peer = RawPeer::meet(100 + at, protocol, &source).await;
        let answer = peer.say(&source, bytes.clone()).await;
        assert_eq!(answer, Err(Dropped), "case {at}");
    }
    let grown = resident().saturating_sub(before);
    // The sender is in this process, too: its own copies are the larger part.
    assert!(grown < 128 << 20, "{grown} bytes");
    let counted = source.handle.snapshot().await.unwrap().driver.malformed_requests;
    assert_eq!(counted, cases.len() as u64);
    let tee = encoder.end().await;
    assert_identical(&seen.finish().await, &tee);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_a_feed_costs_that_feed_and_no_other() {
    let (source, encoder, _viewer, seen) = source_and_viewer(1, 300).await;
    let peer = Hostile::start(31).await;
    peer.meet(&source).await;

    // In the place of a greeting: dropped before any answer.
    let mut oversized = vec![0x01, 0xff, 0xff, 0xff];
    oversized.extend([0; 64]);
    let down_frame = vec![0x13, 0, 0, 4, 1, 2, 3, 4];
    for garbage in [vec![0xff; 4_096], oversized.clone(), down_frame, vec![0; 64]] {
        let mut feed = peer.open(&source).await.unwrap();
        feed.write_all(&garbage).await.unwrap();
        feed.flush().await.unwrap();
        assert_no_more(&mut feed, 0).await;
    }
    // A stream that nobody knows: refused.
    let unknown = SourceSigner::from_seed(&[9; 32]).key();
    let unknown = StreamId::derive(&unknown, &StreamName::new("unknown").unwrap());
    let mut feed = peer.open(&source).await.unwrap();
    assert!(
        greet(&mut feed, Hello { stream: unknown, opener: Direction::FromParent }).await.is_err()
    );

    // After the greeting, with a ticket: the feed and its tickets end, and it is an offence.
    let upward = [vec![0x20, 0xff, 0xff, 0xff], vec![0x7f, 0, 0, 1, 0], vec![0x20, 0, 0, 1, 0]];
    for (seed, garbage) in (32..).zip(upward) {
        // A peer of its own each: the third offence of one would ban it.
        let peer = Hostile::start(seed).await;
        peer.meet(&source).await;
        let counted = async || {
            let told = source.handle.snapshot().await.unwrap();
            (told.driver.feeds_dropped, told.overlay.counters.offences)
        };
        let before = counted().await;
        assert_eq!(ask(&peer, &source, encoder.stream, 1).await.len(), 1);
        let mut feed = peer.open(&source).await.unwrap();
        let hello = Hello { stream: encoder.stream, opener: Direction::FromParent };
        greet(&mut feed, hello).await.unwrap();
        feed.write_all(&promote_all(1)).await.unwrap();
        feed.flush().await.unwrap();
        feed.write_all(&garbage).await.unwrap();
        feed.flush().await.unwrap();
        assert_no_more(&mut feed, 1 << 20).await;
        until("it is an offence", async || {
            let now = counted().await;
            now.0 > before.0 && now.1 > before.1
        })
        .await;
        until("tickets end with the feed", async || {
            let given = source.handle.snapshot().await.unwrap().overlay.given;
            given.iter().all(|ticket| ticket.node != peer.node)
        })
        .await;
    }
    let tee = encoder.end().await;
    assert_identical(&seen.finish().await, &tee);
}

/// The stream ends, after at most so many bytes.
async fn assert_no_more(feed: &mut (impl AsyncReadExt + Unpin), at_most: usize) {
    let mut bytes = BytesMut::new();
    let ends = async { while matches!(feed.read_buf(&mut bytes).await, Ok(1..)) {} };
    assert!(timeout(PATIENCE, ends).await.is_ok(), "still open");
    assert!(bytes.len() <= at_most, "{} bytes came", bytes.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn greetings_that_never_come_keep_nobody_else_out() {
    let source = founder().await;
    let encoder = Encoder::start(&source, "garden", 1, 300).await;
    let crowd = [Hostile::start(41).await, Hostile::start(42).await, Hostile::start(43).await];
    let mut mute = Vec::new();
    for peer in &crowd {
        peer.meet(&source).await;
        for _ in 0..64 {
            mute.push(peer.open(&source).await.unwrap());
        }
    }
    let begun = Instant::now();
    let mut viewer = TestNode::start(Transport::Tcp, &[&source], |_| {}).await;
    viewer.listed(encoder.stream).await;
    let seen = Recorder::start(viewer.watch(encoder.stream).await);
    seen.has(1).await;
    let refused = source.handle.snapshot().await.unwrap().driver.feeds_refused;
    println!(
        "played after {:?} beside {} mute streams, {refused} refused",
        begun.elapsed(),
        mute.len()
    );
    assert!(refused > 0, "mute streams are bounded");
    // None of them outlives the deadline of a greeting.
    for feed in &mut mute {
        let mut byte = [0];
        let end = timeout(PATIENCE, feed.read(&mut byte)).await.expect("closed in time");
        assert!(matches!(end, Ok(0) | Err(_)));
    }
    assert!(viewer.handle.snapshot().await.is_ok());
    let tee = encoder.end().await;
    assert_identical(&seen.finish().await, &tee);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_that_is_greeted_anew_and_dropped_leaves_no_bytes_without_a_ticket() {
    let mut source = founder().await;
    let encoder = Encoder::start(&source, "garden", 1, 300).await;
    source.event(|event| matches!(event, Event::Live { .. }).then_some(())).await;
    let peer = Hostile::start(51).await;
    peer.meet(&source).await;
    let hello = Hello { stream: encoder.stream, opener: Direction::FromParent };
    let mut begun = BytesMut::new();
    hello.encode(&mut begun);
    for _ in 0..5 {
        let follower = super::feeds::Follower::start(&peer, &source, encoder.stream, 1).await;
        follower.has_chunks(1).await;
        for _ in 0..8 {
            let mut feed = peer.open(&source).await.unwrap();
            feed.write_all(&begun).await.unwrap();
            feed.flush().await.unwrap();
            drop(feed);
        }
        // Either the ticket lives, or its bytes end.
        until("a ticket, or no bytes", async || {
            let told = source.handle.snapshot().await.unwrap();
            let ticket = told.overlay.given.iter().any(|ticket| ticket.node == peer.node);
            let fed = told.relay.streams.iter().flat_map(|stream| &stream.children);
            let fed = fed.filter(|child| child.feed.peer == peer.node).count() > 0;
            ticket || !fed
        })
        .await;
        drop(follower);
        until("nothing is left", async || {
            let told = source.handle.snapshot().await.unwrap();
            let fed = told.relay.streams.iter().flat_map(|stream| &stream.children);
            fed.filter(|child| child.feed.peer == peer.node).count() == 0
                && told.overlay.given.iter().all(|ticket| ticket.node != peer.node)
        })
        .await;
    }
    drop(encoder.end().await);
}
