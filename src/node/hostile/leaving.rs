//! Leaving when everybody else is dead.

use std::time::Duration;

use astral_core::overlay::{DirRequest, DirResponse, TicketResponse};
use tokio::time::{Instant, timeout};

use super::{
    Hostile,
    feeds::{Follower, forward},
    until,
};
use crate::node::{
    Event,
    testing::{Encoder, Recorder, TestNode, Transport},
};

/// Three times the promise.
const LIMIT: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_ends_and_leaves_though_supernode_and_child_are_frozen() {
    let peer = Hostile::start(81).await;
    peer.pose_as_supernode();
    peer.on_dir(|_, request| {
        Some(match request {
            DirRequest::Register(_) => {
                let (expires_in_ms, others) = (15_000, Vec::new());
                DirResponse::Accepted {
                    expires_in_ms,
                    others,
                    in_sync: true,
                    load: None,
                    heirs: vec![],
                    audiences: vec![],
                }
            }
            _ => DirResponse::Done,
        })
    });
    peer.on_ticket(|_, _| Some(TicketResponse::Done));
    let addrs = peer.addrs.clone();
    let mut source = TestNode::start(Transport::Tcp, &[], |config| config.bootstrap = addrs).await;
    let home = source
        .event(|event| match event {
            Event::Registered { supernode } => Some(*supernode),
            _ => None,
        })
        .await;
    assert_eq!(home, peer.node);
    let encoder = Encoder::start(&source, "garden", 4, 1_000).await;
    source.event(|event| matches!(event, Event::Live { .. }).then_some(())).await;
    let follower = Follower::start(&peer, &source, encoder.stream, 4).await;
    follower.has_chunks(20).await;
    peer.freeze();
    let begun = Instant::now();
    let left = async {
        drop(encoder.end().await);
        let ended = begun.elapsed();
        source.handle.leave().await;
        assert!(source.running.join().await.is_ok());
        println!("ended after {ended:?}, left after {:?}", begun.elapsed());
    };
    assert!(timeout(LIMIT, left).await.is_ok(), "still there after {LIMIT:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_leaves_though_its_parent_is_frozen_and_its_supernode_dead() {
    let mut source =
        TestNode::start(Transport::Tcp, &[], |config| config.max_copies = Some(1)).await;
    source.event(|event| matches!(event, Event::Promoted { .. }).then_some(())).await;
    let encoder = Encoder::start(&source, "garden", 1, 300).await;
    source.event(|event| matches!(event, Event::Live { .. }).then_some(())).await;
    let peer = Hostile::start(82).await;
    peer.meet(&source).await;
    let follower = Follower::start(&peer, &source, encoder.stream, 1).await;
    follower.has_chunks(5).await;
    let mut viewer = TestNode::start(Transport::Tcp, &[&source], |_| {}).await;
    let honest =
        Box::new(|chunk: &astral_core::media::chunk::WireChunk| vec![chunk.frame().clone()]);
    let (up, down) = (source.handle.node_id(), viewer.handle.node_id());
    let served = forward(&peer, up, down, &follower.got, honest);
    viewer.listed(encoder.stream).await;
    let seen = Recorder::start(viewer.watch(encoder.stream).await);
    seen.has(20_000).await;
    until("the frozen one is the parent", async || {
        let told = viewer.handle.snapshot().await.unwrap().overlay;
        told.watches[0].stripes[0].parent == Some(peer.node)
    })
    .await;
    peer.freeze();
    source.kill().await;
    let begun = Instant::now();
    let left = async {
        viewer.handle.leave().await;
        assert!(viewer.running.join().await.is_ok());
        println!("left after {:?}", begun.elapsed());
    };
    assert!(timeout(LIMIT, left).await.is_ok(), "still there after {LIMIT:?}");
    assert!(seen.finish().await.ended, "the reader was told");
    drop(served);
}
