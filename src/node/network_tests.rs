//! Whole nodes of one process over loopback sockets.

use std::time::Duration;

use super::{
    Event, NodeError,
    testing::{Encoder, Recorder, TestNode, Transport, assert_identical},
};

fn playing(event: &Event) -> Option<()> {
    matches!(event, Event::Playing { .. }).then_some(())
}

async fn a_chain_carries_every_byte(transport: Transport) {
    let mut source = TestNode::start(transport, &[], |config| config.max_copies = Some(1)).await;
    source.event(|event| matches!(event, Event::Promoted { .. }).then_some(())).await;
    let mut middle =
        TestNode::start(transport, &[&source], |config| config.max_copies = Some(1)).await;
    let mut viewer = TestNode::start(transport, &[&source], |_| {}).await;
    let encoder = Encoder::start(&source, "garden", 4, 1_000).await;
    middle.listed(encoder.stream).await;
    viewer.listed(encoder.stream).await;
    let near = Recorder::start(middle.watch(encoder.stream).await);
    middle.event(playing).await;
    let far = Recorder::start(viewer.watch(encoder.stream).await);
    viewer.event(playing).await;
    far.has(200_000).await;
    let sent = source.handle.snapshot().await.unwrap();
    assert_eq!(sent.streams[&encoder.stream].children.len(), 1, "one copy leaves the source");
    let tee = encoder.end().await;
    for recording in [near.finish().await, far.finish().await] {
        assert_identical(&recording, &tee);
        assert!(recording.ended);
    }
    for node in [&viewer, &middle, &source] {
        node.handle.leave().await;
    }
    assert!(source.running.join().await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_over_tcp_carries_every_byte() {
    a_chain_carries_every_byte(Transport::Tcp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_over_quic_carries_every_byte() {
    a_chain_carries_every_byte(Transport::Quic).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_journal_of_a_node_replays_to_the_same_outputs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("viewer.journal");
    let mut source = TestNode::start(Transport::Tcp, &[], |_| {}).await;
    source.event(|event| matches!(event, Event::Promoted { .. }).then_some(())).await;
    let encoder = Encoder::start(&source, "garden", 4, 1_000).await;
    let journal = path.clone();
    let mut viewer =
        TestNode::start(Transport::Tcp, &[&source], |config| config.journal = Some(journal)).await;
    viewer.listed(encoder.stream).await;
    let recorder = Recorder::start(viewer.watch(encoder.stream).await);
    viewer.event(playing).await;
    recorder.has(100_000).await;
    viewer.handle.leave().await;
    viewer.running.join().await.unwrap();
    let replayed = astral_core::overlay::journal::replay(&std::fs::read(&path).unwrap()).unwrap();
    assert!(replayed.whole && replayed.steps > 20 && replayed.outputs > 10, "{replayed:?}");
    encoder.end().await;
    source.handle.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_listed_everywhere_within_five_seconds() {
    let mut source = TestNode::start(Transport::Tcp, &[], |_| {}).await;
    source.event(|event| matches!(event, Event::Promoted { .. }).then_some(())).await;
    let mut others = Vec::new();
    for _ in 0..3 {
        let mut node = TestNode::start(Transport::Tcp, &[&source], |_| {}).await;
        node.event(|event| matches!(event, Event::Registered { .. }).then_some(())).await;
        others.push(node);
    }
    // Three times the promise: the machine may be busy.
    let limit = Duration::from_secs(15);
    let encoder = Encoder::start(&others[0], "garden", 1, 300).await;
    others[0].event(|event| matches!(event, Event::Live { .. }).then_some(())).await;
    for node in &mut others {
        tokio::time::timeout(limit, node.listed(encoder.stream)).await.unwrap();
    }
    let stream = encoder.stream;
    encoder.end().await;
    for node in &mut others {
        node.event_within(limit, |event| {
            matches!(event, Event::StreamRemoved { stream: removed, .. } if *removed == stream)
                .then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_forwarder_costs_no_byte() {
    let mut source =
        TestNode::start(Transport::Tcp, &[], |config| config.max_copies = Some(2)).await;
    source.event(|event| matches!(event, Event::Promoted { .. }).then_some(())).await;
    let encoder = Encoder::start(&source, "garden", 4, 1_000).await;
    let mut forwarders = Vec::new();
    for _ in 0..2 {
        let mut node = TestNode::start(Transport::Tcp, &[&source], |config| {
            config.max_copies = Some(2);
        })
        .await;
        node.listed(encoder.stream).await;
        let recorder = Recorder::start(node.watch(encoder.stream).await);
        node.event(playing).await;
        forwarders.push((node, recorder));
    }
    let mut viewer = TestNode::start(Transport::Tcp, &[&source], |_| {}).await;
    viewer.listed(encoder.stream).await;
    let recorder = Recorder::start(viewer.watch(encoder.stream).await);
    viewer.event(playing).await;
    recorder.has(200_000).await;
    let parents: Vec<_> = viewer.handle.snapshot().await.unwrap().overlay.watches[0]
        .stripes
        .iter()
        .filter_map(|stripe| stripe.parent)
        .collect();
    let at = forwarders.iter().position(|(node, _)| parents.contains(&node.handle.node_id()));
    let (victim, lost) = forwarders.remove(at.expect("somebody forwards to the viewer"));
    victim.kill().await;
    drop(lost);
    let gap = viewer
        .event(|event| match event {
            Event::ParentChanged { old: Some(_), gap_ms, .. } => Some(*gap_ms),
            _ => None,
        })
        .await;
    println!("gap {gap:?} ms");
    let so_far = 600_000;
    recorder.has(so_far).await;
    let tee = encoder.end().await;
    let recording = recorder.finish().await;
    assert_identical(&recording, &tee);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_a_vital_task_ends_the_node_with_its_name() {
    for task in ["overlay", "media"] {
        let mut node = TestNode::start(Transport::Tcp, &[], |config| {
            config.panic_in = Some(task.to_owned());
        })
        .await;
        let ended = tokio::time::timeout(Duration::from_secs(10), node.running.join()).await;
        match ended.expect("it ends at once") {
            Err(NodeError::TaskPanicked { task: named, .. }) => assert_eq!(named, task),
            other => panic!("{other:?}"),
        }
        // Nobody waits for a dead node.
        assert!(node.handle.snapshot().await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_a_feed_task_costs_that_feed_and_no_byte() {
    for task in ["feed-reader", "feed-writer", "feed-handshake"] {
        let mut source = TestNode::start(Transport::Tcp, &[], |_| {}).await;
        source.event(|event| matches!(event, Event::Promoted { .. }).then_some(())).await;
        let encoder = Encoder::start(&source, "garden", 1, 300).await;
        let mut viewer = TestNode::start(Transport::Tcp, &[&source], |config| {
            config.panic_in = Some(task.to_owned());
        })
        .await;
        viewer.listed(encoder.stream).await;
        let recorder = Recorder::start(viewer.watch(encoder.stream).await);
        recorder.has(50_000).await;
        let tee = encoder.end().await;
        assert_identical(&recorder.finish().await, &tee);
    }
}
