//! What flows in one stream.
//!
//! Owns its JSON. Does not own the counters.

use astral_core::{
    ids::{NodeId, StreamId, Stripe},
    media::audience::Audience,
    overlay::Snapshot,
    units::Bitrate,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::stream::{StreamRole, watch_of};
use crate::api::{
    history::StreamHistory,
    port::{Flow, NodeState},
};

/// `GET /streams/{id}/stats`. Counters run since this node carries the stream.
#[derive(Clone, PartialEq, Debug, Serialize, ToSchema)]
pub struct StatsDto {
    /// Which stream.
    #[schema(value_type = String)]
    pub id: StreamId,
    /// What this node has to do with it.
    pub role: StreamRole,
    /// Number of stripes.
    pub stripes: u8,
    /// The stream's rate.
    pub bitrate_bps: u64,
    /// The rate of the picture by now, where its encoder is here and follows the uplink.
    pub encoder_bps: Option<u64>,
    /// Payload bytes cut here, or received and verified.
    pub bytes: u64,
    /// Payload bytes sent to children.
    pub forwarded_bytes: u64,
    /// Payload bytes handed to players on this machine.
    pub delivered_bytes: u64,
    /// How far this node is behind the source.
    pub delay_ms: Option<u64>,
    /// Since the last chunk.
    pub idle_ms: Option<u64>,
    /// Every stripe comes in.
    pub playing: bool,
    /// Its source pauses.
    pub paused: bool,
    /// From whom each stripe comes.
    pub parents: Vec<ParentDto>,
    /// Who would step in for a parent.
    pub standbys: Vec<StandbyDto>,
    /// To whom which stripes go.
    pub children: Vec<ChildDto>,
    /// Players on this machine.
    pub readers: usize,
    /// From joining to the first verified chunk.
    pub join_ms: Option<u64>,
    /// From joining to the first bytes for a player here.
    pub first_frame_ms: Option<u64>,
    /// Parents lost and replaced.
    pub failovers: u64,
    /// The latest of them.
    pub last_failover: Option<FailoverDto>,
    /// Chunks missing between others, now.
    pub missing_chunks: u64,
    /// Chunks that players here were spared.
    pub skipped_chunks: u64,
    /// Chunks whose signature was good.
    pub verified_chunks: u64,
    /// Unlawful frames and chunks of parents.
    pub rejected_chunks: u64,
    /// Chunks of this stream that came although they were here already: the price of repair.
    pub duplicate_chunks: u64,
    /// Who watches, as far as it is known.
    pub audience: AudienceDto,
}

/// From whom one stripe comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct ParentDto {
    /// Which stripe.
    pub stripe: Stripe,
    /// From whom; null while one is looked for.
    #[schema(value_type = Option<String>)]
    pub node: Option<NodeId>,
    /// Hops from the source.
    pub hops: Option<u8>,
}

/// A standby parent of one stripe.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct StandbyDto {
    /// Which stripe.
    pub stripe: Stripe,
    /// Who.
    #[schema(value_type = String)]
    pub node: NodeId,
}

/// One child.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct ChildDto {
    /// Who.
    #[schema(value_type = String)]
    pub node: NodeId,
    /// Which stripes it gets.
    pub stripes: Vec<Stripe>,
}

/// A parent that was lost and replaced.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct FailoverDto {
    /// Which stripe.
    pub stripe: Stripe,
    /// Why, in one word.
    pub cause: String,
    /// The parent that was lost.
    #[schema(value_type = Option<String>)]
    pub old: Option<NodeId>,
    /// Between the last chunk of the old and the first of the new parent, when known.
    pub gap_ms: Option<u64>,
    /// How long ago.
    pub ago_s: u64,
}

/// Who watches a stream, as far as this node knows. All of it is what nodes say of themselves, five
/// seconds older with each hop, and no proof.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct AudienceDto {
    /// Nodes that watch or seed it.
    pub viewers: u32,
    /// What the number covers.
    pub scope: AudienceScope,
    /// Counted up the tree: this node, unless it publishes the stream, and all below it.
    pub below: BelowDto,
}

/// Nodes that take a stream by way of this one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, ToSchema)]
pub struct BelowDto {
    /// All of them.
    pub nodes: u32,
    /// Of these, those with a player.
    pub watching: u32,
    /// Of these, those whose players were spared chunks in the last seconds.
    pub stalled: u32,
    /// Half of the nodes are at most this far behind the source; rounded up, null beyond 8 s.
    pub delay_p50_ms: Option<u32>,
    /// The same of nineteen in twenty.
    pub delay_p95_ms: Option<u32>,
}

impl From<Audience> for BelowDto {
    fn from(audience: Audience) -> Self {
        Self {
            nodes: audience.nodes,
            watching: audience.viewers,
            stalled: audience.stalled,
            delay_p50_ms: audience.delay_ms(50),
            delay_p95_ms: audience.delay_ms(95),
        }
    }
}

/// What an audience covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AudienceScope {
    /// Everybody: this node publishes the stream, and each node tells its parent.
    Network,
    /// Those that this node's directory has on its list; others have their own.
    Directory,
    /// This node's own children.
    Children,
}

/// Who would step in for a parent: tickets held from nodes that are not the stripe's parent.
pub(super) fn standbys(id: StreamId, overlay: &Snapshot) -> impl Iterator<Item = StandbyDto> {
    let watch = watch_of(id, overlay);
    let held = overlay.held.iter().filter(move |ticket| ticket.stream == id);
    let idle = held.filter(move |ticket| {
        let stripes = watch.into_iter().flat_map(|watch| &watch.stripes);
        let mut parents = stripes.filter(|stripe| stripe.stripe == ticket.stripe);
        parents.all(|stripe| stripe.parent != Some(ticket.node))
    });
    idle.map(|ticket| StandbyDto { stripe: ticket.stripe, node: ticket.node })
}

impl StatsDto {
    /// What flows in `id`, to which this node has `role`.
    #[must_use]
    pub fn new(
        id: StreamId,
        role: StreamRole,
        state: &NodeState,
        readers: usize,
        history: Option<&StreamHistory>,
    ) -> Self {
        let overlay = &state.overlay;
        let empty = Flow::default();
        let flow = state.flows.get(&id).unwrap_or(&empty);
        let watch = watch_of(id, overlay);
        let parents = watch.into_iter().flat_map(|watch| &watch.stripes).map(|view| ParentDto {
            stripe: view.stripe,
            node: view.parent,
            hops: view.depth,
        });
        let children: Vec<ChildDto> = flow
            .children
            .iter()
            .map(|(node, stripes)| ChildDto { node: *node, stripes: stripes.iter().collect() })
            .collect();
        let relay = state.relay.streams.iter().find(|stream| stream.stream == id);
        let parents_seen = || relay.into_iter().flat_map(|relay| &relay.parents);
        let listed = overlay.streams.iter().find(|view| view.stream == id).map(|view| view.viewers);
        let own = u32::try_from(children.len()).unwrap_or(u32::MAX);
        let below: BelowDto = relay.map(|relay| relay.audience).unwrap_or_default().into();
        let (viewers, scope) = match listed.filter(|listed| *listed >= own) {
            _ if role == StreamRole::Publishing => (below.nodes, AudienceScope::Network),
            Some(viewers) => (viewers, AudienceScope::Directory),
            None => (own, AudienceScope::Children),
        };
        let audience = AudienceDto { viewers, scope, below };
        Self {
            id,
            role,
            stripes: flow.k,
            bitrate_bps: flow.rate.as_bps(),
            encoder_bps: flow.own.as_ref().and_then(|own| own.encoder).map(Bitrate::as_bps),
            bytes: flow.bytes,
            forwarded_bytes: flow.forwarded_bytes,
            delivered_bytes: flow.delivered_bytes,
            delay_ms: flow.delay.map(millis),
            idle_ms: flow.idle.map(millis),
            playing: watch.is_some_and(|watch| watch.playing),
            paused: flow.paused,
            parents: parents.collect(),
            standbys: standbys(id, overlay).collect(),
            children,
            readers,
            join_ms: flow.join.map(millis),
            first_frame_ms: flow.first_frame.map(millis),
            failovers: history.map_or(0, StreamHistory::failovers),
            last_failover: history.and_then(StreamHistory::last_failover),
            missing_chunks: relay.map_or(0, |relay| relay.missing),
            skipped_chunks: relay
                .map_or(0, |relay| relay.sinks.iter().map(|sink| sink.skips.total()).sum()),
            verified_chunks: flow.chunks,
            rejected_chunks: parents_seen().map(|parent| u64::from(parent.offences)).sum(),
            duplicate_chunks: parents_seen().map(|parent| u64::from(parent.duplicates)).sum(),
            audience,
        }
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
