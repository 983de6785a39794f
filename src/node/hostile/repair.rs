//! Repair between real nodes: what a neighbour gets, and what becomes of one that forges.

use std::sync::{Arc, Mutex};

use astral_core::{
    ids::StreamId,
    media::{
        chunk::{CHUNK_OVERHEAD, Payload, WireChunk},
        repair::{HaveEntry, RepairAnswer, RepairHave, RepairWant},
    },
    overlay::Offence,
};
use bytes::BytesMut;

use super::{Hostile, feeds::Follower, until};
use crate::node::{
    Event,
    testing::{Encoder, Recorder, TestNode, Transport},
};

fn want(stream: StreamId, epoch: u64, ranges: Vec<(u64, u64)>) -> RepairWant {
    RepairWant { stream, epoch, stripe: 0, deadline_ms: 1_000, ranges }
}

async fn a_neighbour_gets_what_it_asks_for(transport: Transport, seed: u8) {
    let mut source = TestNode::start(transport, &[], |_| {}).await;
    source.event(|event| matches!(event, Event::Promoted { .. }).then_some(())).await;
    let encoder = Encoder::start(&source, "garden", 1, 300).await;
    source.event(|event| matches!(event, Event::Live { .. }).then_some(())).await;
    let peer = Hostile::start(seed).await;
    peer.meet(&source).await;
    let follower = Follower::start(&peer, &source, encoder.stream, 1).await;
    follower.has_chunks(20).await;
    let (cert, sent) = {
        let got = follower.got.lock().unwrap();
        (got.cert.clone().unwrap(), got.chunks.clone())
    };
    let key = cert.verify(&encoder.stream).unwrap();
    let (first, last) = (sent[3].header().stripe_seq, sent[8].header().stripe_seq);
    let epoch = cert.cert.epoch;
    let asked = want(encoder.stream, epoch, vec![(first, last), (1 << 40, 1 << 41)]);
    let answer = peer.repair(&source, Ok(asked)).await.unwrap().unwrap();
    assert_eq!(answer.have.epoch, epoch);
    assert!(answer.have.stripes[0].end > last);
    assert!(!answer.chunks.is_empty() && answer.chunks.len() <= 6);
    for (chunk, expected) in answer.chunks.iter().zip(&sent[3..]) {
        chunk.verify(&encoder.stream, &key).unwrap();
        assert_eq!(chunk, expected);
    }
    // A stream that nobody here knows.
    let other = want(StreamId([9; 32]), 1, vec![(0, 5)]);
    let answer = peer.repair(&source, Ok(other)).await.unwrap().unwrap();
    assert_eq!(answer, RepairAnswer { have: RepairHave::default(), chunks: Vec::new() });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_neighbour_gets_what_it_asks_for_over_tcp() {
    a_neighbour_gets_what_it_asks_for(Transport::Tcp, 91).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_neighbour_gets_what_it_asks_for_over_quic() {
    a_neighbour_gets_what_it_asks_for(Transport::Quic, 92).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_that_breaks_the_layout_costs_the_connection() {
    let source = TestNode::start(Transport::Tcp, &[], |_| {}).await;
    let peer = Hostile::start(93).await;
    peer.meet(&source).await;
    // No range at all: no lawful question.
    let empty = want(StreamId([9; 32]), 1, Vec::new());
    assert!(peer.repair(&source, Ok(empty)).await.is_err());
    peer.connected_to(&source, false).await;
}

/// Turns one bit of a chunk's media.
fn forged(chunk: &WireChunk) -> WireChunk {
    let mut bytes = BytesMut::from(&chunk.frame()[..]);
    bytes[CHUNK_OVERHEAD] ^= 1;
    WireChunk::parse(bytes.freeze()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_neighbour_that_forges_is_found_out_and_nothing_of_it_is_played() {
    let mut source = TestNode::start(Transport::Tcp, &[], |config| {
        config.max_copies = Some(2);
    })
    .await;
    source.event(|event| matches!(event, Event::Promoted { .. }).then_some(())).await;
    let encoder = Encoder::start(&source, "garden", 1, 300).await;
    source.event(|event| matches!(event, Event::Live { .. }).then_some(())).await;
    let stream = encoder.stream;
    let mut viewer = TestNode::start(Transport::Tcp, &[&source], |_| {}).await;
    viewer.listed(stream).await;
    let seen = Recorder::start(viewer.watch(stream).await);
    viewer.event(|event| matches!(event, Event::Playing { .. }).then_some(())).await;
    // A child of the viewer: that is a neighbour, and the only one.
    let peer = Hostile::start(94).await;
    peer.meet(&viewer).await;
    let follower = Follower::start(&peer, &viewer, stream, 1).await;
    follower.has_chunks(5).await;
    let got = Arc::clone(&follower.got);
    let asked = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&asked);
    peer.on_repair(move |want| {
        *counted.lock().unwrap() += 1;
        let got = got.lock().unwrap();
        let chunks = vec![forged(got.chunks.last()?)];
        let entry = HaveEntry { stripe: 0, floor: 0, end: want.ranges[0].1 + 1 };
        Some(RepairAnswer { have: RepairHave { epoch: want.epoch, stripes: vec![entry] }, chunks })
    });
    // The viewer's stream stands still; it looks for more where it can.
    source.kill().await;
    let bad = peer.node;
    let kind = viewer
        .event(|event| match event {
            Event::Offence { node, kind, .. } if *node == bad => Some(*kind),
            _ => None,
        })
        .await;
    assert_eq!(kind, Offence::BadSignature);
    assert!(*asked.lock().unwrap() > 0);
    until("nothing forged counts as received", async || {
        let stats = viewer.handle.snapshot().await.unwrap().relay.stats;
        stats.neighbour_wants_out > 0 && stats.neighbour_chunks_in == 0
    })
    .await;
    drop(seen);
    drop(encoder);
}
