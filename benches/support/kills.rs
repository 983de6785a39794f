//! A viewer whose parents are killed one after the other: how long nothing comes, and whether all of
//! it comes.
//!
//! Owns the nodes of that drill. Does not own who kills (`fanout`).

use std::{collections::BTreeMap, time::Instant};

use astral::node::{
    Handle, NodeConfig, Playback, PlaybackItem, Policy, RoleChoice, StreamRef, WatchSpec,
};
use astral_core::{ids::StripeSet, media::flv::TagReader};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader, stdin};

use crate::{
    nodes::{LAG, address, config, first, publish, refs, start, watch},
    picture::{Picture, born},
    process::say,
};

/// Copies that the source feeds: one to each forwarder.
const COPIES: u32 = 3;

/// The source, which is also where everybody begins.
pub async fn origin() {
    let handle = start(NodeConfig {
        role: RoleChoice::Supernode,
        max_copies: Some(COPIES),
        ..config("tcp-noise")
    })
    .await;
    let mut publisher = publish(&handle, "bench").await;
    say(&json!({"address": address(&handle), "link": publisher.link().to_string()}));
    let mut picture = Picture::new();
    loop {
        publisher.push_tag(picture.next().await).await.expect("the stream lives");
    }
}

/// A member that feeds others what it does not watch.
pub async fn forwarder(origin: &str, link: &str) {
    let handle = start(member(origin, 2)).await;
    let link = &refs(link)[0];
    handle.seed(link).await.expect("the node runs");
    first(&mut watch(&handle, link).await, &mut TagReader::default()).await;
    say(&json!({"node": handle.node_id().to_string()}));
    let mut lines = BufReader::new(stdin()).lines();
    while let Ok(Some(_)) = lines.next_line().await {}
}

/// A viewer that keeps everything. For each line it says who feeds it, how many stripes have
/// somebody to take over, and since the last line the longest wait for a frame and the frames that
/// never came.
pub async fn keeper(origin: &str, link: &str) {
    let handle = start(member(origin, 0)).await;
    let link = refs(link).remove(0);
    let spec = WatchSpec { policy: Policy::KeepAll, lag: LAG };
    let mut playback = handle.watch(&link, spec).await.expect("watching");
    let mut frames = Frames::default();
    frames.next(&mut playback).await;
    say(&json!({"playing": 1}));
    let mut lines = BufReader::new(stdin()).lines();
    loop {
        tokio::select! {
            () = frames.next(&mut playback) => {}
            asked = lines.next_line() => {
                if !matches!(asked, Ok(Some(_))) {
                    return;
                }
                let (parents, standbys) = fed_by(&handle, &link).await;
                let (wait_ms, lost) = frames.taken();
                say(&json!({
                    "parents": parents, "standbys": standbys, "wait_ms": wait_ms, "lost": lost,
                }));
            }
        }
    }
}

fn member(origin: &str, copies: u32) -> NodeConfig {
    NodeConfig {
        bootstrap: vec![origin.parse().expect("address")],
        role: RoleChoice::Member,
        max_copies: Some(copies),
        ..config("tcp-noise")
    }
}

/// How many stripes come from whom, and how many have a standby.
async fn fed_by(handle: &Handle, link: &StreamRef) -> (BTreeMap<String, usize>, u32) {
    let told = handle.snapshot().await.expect("the node runs").overlay;
    let mut parents = BTreeMap::new();
    let watched = told.watches.iter().find(|watch| watch.stream == link.id());
    for parent in watched.iter().flat_map(|it| &it.stripes).filter_map(|it| it.parent) {
        *parents.entry(parent.to_string()).or_default() += 1;
    }
    let mut standbys = StripeSet::EMPTY;
    for ticket in told.held.iter().filter(|it| it.standby) {
        standbys.insert(ticket.stripe);
    }
    (parents, standbys.len())
}

/// Frames in the order in which they are played.
#[derive(Default)]
struct Frames {
    reader: TagReader,
    last: Option<(Instant, u8)>,
    wait_ms: f64,
    lost: u64,
}

impl Frames {
    /// Takes what comes next.
    async fn next(&mut self, playback: &mut Playback) {
        let item = playback.next().await.expect("the stream goes on");
        let PlaybackItem::Flv(bytes) = item else { return };
        self.reader.push(&bytes);
        while let Some(tag) = self.reader.next() {
            let tag = tag.expect("a lawful tag");
            if born(&tag.body).is_none() {
                continue;
            }
            // A frame is filled with its number.
            let number = tag.body.last().copied().unwrap_or_default();
            if let Some((at, last)) = self.last {
                self.wait_ms = self.wait_ms.max(at.elapsed().as_secs_f64() * 1e3);
                self.lost += u64::from(number.wrapping_sub(last).wrapping_sub(1));
            }
            self.last = Some((Instant::now(), number));
        }
    }

    /// What was since the last time.
    fn taken(&mut self) -> (f64, u64) {
        (std::mem::take(&mut self.wait_ms), std::mem::take(&mut self.lost))
    }
}
