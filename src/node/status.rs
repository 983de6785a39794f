//! Everything about a node at one moment, for the API and the status line.
//!
//! Owns the snapshot's shape. Does not own what it shows.

use std::{collections::BTreeMap, sync::PoisonError, time::Duration};

use astral_core::{
    announcement::Rendition,
    ids::{NodeId, StreamId, StripeSet},
    media::relay::RelaySnapshot,
    overlay,
    units::Bitrate,
};
use serde::Serialize;

use super::{
    handle::Inner, media::MediaReport, meters::StreamStats, reach::ReachView, run::DriverReport,
    traffic::TrafficView,
};

/// A node at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct NodeSnapshot {
    /// Its id.
    pub node: NodeId,
    /// Its id as libp2p writes it.
    pub peer_id: String,
    /// Time since it started.
    pub uptime: Duration,
    /// What the overlay knows.
    pub overlay: overlay::Snapshot,
    /// What the relay knows.
    pub relay: RelaySnapshot,
    /// Streams that go through here.
    pub streams: BTreeMap<StreamId, StreamStatus>,
    /// The lower rendition of a stream that players here get.
    pub lower: BTreeMap<StreamId, Rendition>,
    /// Connected peers.
    pub links: Vec<LinkView>,
    /// Bytes per node.
    pub traffic: BTreeMap<NodeId, TrafficView>,
    /// Everything written to feeds and requests, in bytes.
    pub sent_bytes: u64,
    /// Of these, chunks.
    pub sent_media_bytes: u64,
    /// Everything read, in bytes.
    pub received_bytes: u64,
    /// Events of the driver.
    pub driver: DriverCounters,
    /// Whether others can dial this node.
    pub reach: ReachView,
}

/// What this node does with a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamRole {
    /// Publishes it.
    Source,
    /// Watches it.
    Viewer,
    /// Forwards it without watching.
    Seeder,
}

/// One stream that goes through here.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct StreamStatus {
    /// What this node does with it.
    pub role: StreamRole,
    /// What was counted.
    #[serde(flatten)]
    pub stats: StreamStats,
    /// Payload bytes cut here at the source, received and verified elsewhere.
    pub bytes: u64,
    /// Who gets which stripes from here.
    pub children: BTreeMap<NodeId, StripeSet>,
    /// What a local player said last.
    pub player: Option<PlayerStats>,
    /// The rate of the picture by now, where its encoder is here and follows the uplink.
    pub encoder_bps: Option<Bitrate>,
    /// Of which stream it is a rendition.
    pub rendition_of: Option<StreamId>,
}

/// What a local player says about itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct PlayerStats {
    /// Frames shown.
    pub frames: u64,
    /// Buffers of sound played.
    pub audio_buffers: u64,
}

/// One connected peer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct LinkView {
    /// Its id; `None` = a key of another kind, never used for streams.
    pub node: Option<NodeId>,
    /// Its id as libp2p writes it.
    pub peer_id: String,
    /// Address of its first connection.
    pub remote: String,
    /// Whether this node dialled.
    pub dialled: bool,
    /// Last round-trip time.
    pub rtt: Option<Duration>,
    /// Feeds that run.
    pub feeds: u32,
    /// Whether it is a supernode, as its protocols say.
    pub supernode: bool,
    /// What it calls itself.
    pub agent: String,
    /// Whether it is connected through relays alone.
    pub relayed: bool,
}

/// What the driver counted since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct DriverCounters {
    /// Gossip that did not parse or verify.
    pub forged_gossip: u64,
    /// Requests that were too large or malformed.
    pub malformed_requests: u64,
    /// Feeds dropped because the other side misbehaved.
    pub feeds_dropped: u64,
    /// Inbound feeds refused because there were too many.
    pub feeds_refused: u64,
    /// Things left out because a queue was full.
    pub overflows: u64,
    /// Idle connections closed.
    pub idle_closed: u64,
    /// Connections relayed for others.
    pub circuits_served: u64,
    /// Of these, refused by the limits.
    pub circuits_refused: u64,
    /// Bytes sent to relayed connections, both directions together.
    pub circuit_bytes: u64,
}

/// Puts the parts together.
pub(super) fn assemble(inner: &Inner, driver: DriverReport, media: MediaReport) -> NodeSnapshot {
    let total = inner.traffic.total();
    let players = inner.players.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut streams = BTreeMap::new();
    for (stream, stats) in media.streams {
        let watch = driver.overlay.watches.iter().find(|watch| watch.stream == stream);
        let role = match watch {
            None => StreamRole::Source,
            Some(watch) => match watch.kind {
                overlay::Interest::Play => StreamRole::Viewer,
                overlay::Interest::Seed => StreamRole::Seeder,
            },
        };
        let mut children: BTreeMap<NodeId, StripeSet> = BTreeMap::new();
        let fed = |ticket: &&overlay::TicketView| ticket.stream == stream && !ticket.standby;
        for ticket in driver.overlay.given.iter().filter(fed) {
            children.entry(ticket.node).or_default().insert(ticket.stripe);
        }
        let bytes = match role {
            StreamRole::Source => stats.cut_bytes,
            StreamRole::Viewer | StreamRole::Seeder => stats.received_bytes,
        };
        let player = players.get(&stream).copied();
        let encoder_bps = inner.wishes.get(stream).and_then(|wishes| wishes.encoder);
        let rendition_of = driver.overlay.rendition_of.get(&stream).copied();
        let status =
            StreamStatus { role, stats, bytes, children, player, encoder_bps, rendition_of };
        streams.insert(stream, status);
    }
    NodeSnapshot {
        node: inner.node,
        peer_id: inner.peer.to_string(),
        uptime: inner.clock.now().since(astral_core::time::Timestamp::ZERO),
        overlay: driver.overlay,
        relay: media.relay,
        streams,
        lower: inner.lower.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        links: driver.links,
        traffic: inner.traffic.nodes(),
        sent_bytes: total.media_out + total.control_out,
        sent_media_bytes: total.media_out,
        received_bytes: total.media_in + total.control_in,
        driver: driver.counters,
        reach: driver.reach,
    }
}
