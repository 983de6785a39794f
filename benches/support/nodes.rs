//! Astral's own nodes in the processes of a benchmark: a relay under test, sources, a chain, and
//! viewers that join one after the other.

use std::time::{Duration, Instant};

use astral::node::{
    Handle, Node, NodeConfig, Playback, PlaybackItem, Policy, PublishSpec, Publisher, RoleChoice,
    StreamRef, WatchSpec,
};
use astral_core::{ids::StreamName, media::flv::TagReader, units::Bitrate};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, BufReader, stdin},
    sync::mpsc,
};

use crate::{
    counter::{News, count, shares},
    picture::{Picture, RATE, born, sequence_header},
    process::say,
};

/// What a viewer may be behind.
pub const LAG: Duration = Duration::from_millis(1_500);

/// A supernode that forwards the streams whose links it reads as a line.
pub async fn relay(transport: &str) {
    let handle = start(NodeConfig { role: RoleChoice::Supernode, ..config(transport) }).await;
    say(&json!({"address": address(&handle)}));
    let mut lines = BufReader::new(stdin()).lines();
    let links = lines.next_line().await.expect("stdin").expect("a line of links");
    let links = refs(&links);
    for link in &links {
        handle.seed(link).await.expect("the node runs");
        first(&mut watch(&handle, link).await, &mut TagReader::default()).await;
    }
    say(&json!({"carries": links.len()}));
    // Until the driver ends it.
    while let Ok(Some(_)) = lines.next_line().await {}
}

/// A node that feeds one copy of each of its streams.
pub async fn source(transport: &str, relay: &str, streams: usize) {
    let handle = start(NodeConfig {
        bootstrap: vec![relay.parse().expect("address")],
        role: RoleChoice::Member,
        max_copies: Some(1),
        ..config(transport)
    })
    .await;
    let mut publishers = Vec::new();
    for number in 0..streams {
        publishers.push(publish(&handle, &format!("bench {number}")).await);
    }
    let links: Vec<_> = publishers.iter().map(|it| it.link().to_string()).collect();
    say(&json!({"links": links.join(" ")}));
    let mut picture = Picture::new();
    loop {
        let tag = picture.next().await;
        for publisher in &mut publishers {
            publisher.push_tag(tag.clone()).await.expect("the stream lives");
        }
    }
}

/// A source and `hops` nodes of which each feeds one other, all in this process.
pub async fn chain(hops: usize) {
    let origin = start(NodeConfig {
        role: RoleChoice::Supernode,
        max_copies: Some(1),
        ..config("tcp-noise")
    })
    .await;
    let mut publisher = publish(&origin, "bench").await;
    let link = StreamRef::from(publisher.link().clone());
    tokio::spawn(async move {
        let mut picture = Picture::new();
        loop {
            publisher.push_tag(picture.next().await).await.expect("the stream lives");
        }
    });
    let mut nodes = Vec::new();
    let mut last = None;
    for _ in 0..hops {
        let node = start(NodeConfig {
            max_copies: Some(1),
            ..viewer_config("tcp-noise", &address(&origin))
        })
        .await;
        let (mut playback, mut reader) = (watch(&node, &link).await, TagReader::default());
        // Whoever comes next finds the slots before it taken.
        first(&mut playback, &mut reader).await;
        nodes.push(node);
        if let Some((before, reader)) = last.replace((playback, reader)) {
            let (report, mut unread) = mpsc::channel(4_096);
            tokio::spawn(view(before, reader, report));
            tokio::spawn(async move { while unread.recv().await.is_some() {} });
        }
    }
    let (report, reports) = mpsc::channel(4_096);
    let (playback, reader) = last.expect("a hop");
    tokio::spawn(view(playback, reader, report));
    count(1, reports).await;
}

/// Joins one after the other: a node starts and watches at once, leaves the stream and watches again.
pub async fn joins(relay: &str, link: &str, joins: usize) {
    let link = refs(link).remove(0);
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    for _ in 0..joins {
        let begun = Instant::now();
        let node = start(viewer_config("tcp-noise", relay)).await;
        cold.push(first_picture(&node, &link, begun).await);
        node.stop(link.id()).await.expect("the node runs");
        // The tickets of the first time are given back meanwhile.
        tokio::time::sleep(Duration::from_millis(300)).await;
        warm.push(first_picture(&node, &link, Instant::now()).await);
        node.leave().await;
    }
    let ([cold_p50, cold_p99], [warm_p50, warm_p99]) = (shares(&mut cold), shares(&mut warm));
    say(&json!({
        "joins": joins, "from_start_p50_ms": cold_p50, "from_start_p99_ms": cold_p99,
        "running_p50_ms": warm_p50, "running_p99_ms": warm_p99,
    }));
}

async fn first_picture(node: &Handle, link: &StreamRef, since: Instant) -> u32 {
    let mut playback = watch(node, link).await;
    first(&mut playback, &mut TagReader::default()).await;
    since.elapsed().as_micros() as u32
}

pub fn config(transport: &str) -> NodeConfig {
    let listen = match transport {
        "quic" => "/ip4/127.0.0.1/udp/0/quic-v1",
        _ => "/ip4/127.0.0.1/tcp/0",
    };
    NodeConfig {
        listen: vec![listen.parse().expect("address")],
        uplink: Some(Bitrate::from_mbps(10_000)),
        mdns: false,
        ..NodeConfig::default()
    }
}

fn viewer_config(transport: &str, relay: &str) -> NodeConfig {
    NodeConfig {
        bootstrap: vec![relay.parse().expect("address")],
        role: RoleChoice::Member,
        max_copies: Some(0),
        ..config(transport)
    }
}

pub async fn start(config: NodeConfig) -> Handle {
    let (handle, mut running) = Node::start(config).await.expect("a node");
    // It lives as long as this process.
    tokio::spawn(async move { running.join().await });
    handle
}

pub fn address(handle: &Handle) -> String {
    handle.listen_addrs()[0].to_string()
}

pub fn refs(links: &str) -> Vec<StreamRef> {
    links.split_whitespace().map(|link| link.parse().expect("a link")).collect()
}

pub async fn publish(handle: &Handle, name: &str) -> Publisher {
    let spec = PublishSpec {
        name: StreamName::new(name).expect("name"),
        title: String::new(),
        description: String::new(),
        tags: Vec::new(),
        k: Some(8),
        rate: Some(RATE),
        preview: false,
        adaptive: None,
        renditions: Vec::new(),
        rendition_of: None,
    };
    let mut publisher = handle.publish(spec).await.expect("publishing");
    publisher.push_tag(sequence_header()).await.expect("the stream lives");
    publisher
}

pub async fn watch(handle: &Handle, link: &StreamRef) -> Playback {
    let spec = WatchSpec { policy: Policy::Live { lag: LAG }, lag: LAG };
    handle.watch(link, spec).await.expect("watching")
}

/// Reads up to the first frame that was born, and returns when.
pub async fn first(playback: &mut Playback, reader: &mut TagReader) -> Option<u64> {
    while let Some(item) = playback.next().await {
        if let PlaybackItem::Flv(bytes) = item {
            reader.push(&bytes);
            if let Some(born) = newest(reader) {
                return Some(born);
            }
        }
    }
    None
}

async fn view(mut playback: Playback, mut reader: TagReader, report: mpsc::Sender<News>) {
    let mut playing = false;
    while let Some(item) = playback.next().await {
        let PlaybackItem::Flv(bytes) = item else { continue };
        if !std::mem::replace(&mut playing, true) && report.send(News::Playing).await.is_err() {
            return;
        }
        reader.push(&bytes);
        if report.send(News::Bytes(bytes.len(), newest(&mut reader))).await.is_err() {
            return;
        }
    }
}

/// When the newest frame that is whole was born.
pub fn newest(reader: &mut TagReader) -> Option<u64> {
    let mut newest = None;
    while let Some(Ok(tag)) = reader.next() {
        newest = born(&tag.body).or(newest);
    }
    newest
}
