//! The network as this node sees it: nodes, streams, and who feeds whom.
//!
//! Owns the graph's JSON and which edges follow from a snapshot. The view is partial: what this node
//! takes part in, and what its directory says. Does not own drawing.

use std::collections::BTreeMap;

use astral_core::{
    ids::{NodeId, StreamId, Stripe},
    overlay::{RegistrationView, Snapshot},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    stats::standbys,
    stream::{StreamDto, StreamRole},
};
use crate::api::port::NodeState;

/// `GET /graph`.
#[derive(Clone, PartialEq, Debug, Serialize, ToSchema)]
pub struct GraphDto {
    /// This node.
    #[schema(value_type = String)]
    pub me: NodeId,
    /// Known nodes, this one among them.
    pub nodes: Vec<GraphNodeDto>,
    /// Known streams.
    pub streams: Vec<GraphStreamDto>,
    /// Who stands to whom.
    pub edges: Vec<EdgeDto>,
}

/// What a node is to this one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GraphNodeKind {
    /// This node.
    #[serde(rename = "self")]
    Me,
    /// A supernode.
    Supernode,
    /// Any other.
    Node,
}

/// One node of the graph.
#[derive(Clone, PartialEq, Debug, Serialize, ToSchema)]
pub struct GraphNodeDto {
    /// Its id.
    #[schema(value_type = String)]
    pub id: NodeId,
    /// What it is to this one.
    pub kind: GraphNodeKind,
    /// A connection is up; true for this node.
    pub connected: bool,
    /// Last round trip.
    pub rtt_ms: Option<f64>,
}

/// One stream of the graph.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct GraphStreamDto {
    /// Its id.
    #[schema(value_type = String)]
    pub id: StreamId,
    /// Its name.
    pub name: Option<String>,
    /// A line for people.
    pub title: String,
    /// The publishing node.
    #[schema(value_type = Option<String>)]
    pub node: Option<NodeId>,
    /// What this node has to do with it.
    pub role: StreamRole,
}

/// What an edge means.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EdgeKind {
    /// From a node to the stream that it publishes.
    Source,
    /// From a parent to a child: the stripe comes this way.
    Live,
    /// From a parent to a child: a ticket without media, for the case that the parent fails.
    Standby,
    /// From a member to its supernode.
    Registration,
}

impl EdgeKind {
    const fn word(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Live => "live",
            Self::Standby => "standby",
            Self::Registration => "registration",
        }
    }
}

/// One edge of the graph.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct EdgeDto {
    /// Its name, made of what it joins.
    pub id: String,
    /// What it means.
    pub kind: EdgeKind,
    /// Which stream, for media and sources.
    #[schema(value_type = Option<String>)]
    pub stream: Option<StreamId>,
    /// Which stripe, for media.
    pub stripe: Option<Stripe>,
    /// A node's id.
    pub from: String,
    /// A node's id; a stream's for `source`.
    pub to: String,
}

impl EdgeDto {
    fn media(
        kind: EdgeKind,
        stream: StreamId,
        stripe: Stripe,
        parent: NodeId,
        child: NodeId,
    ) -> Self {
        let id = format!("{}:{stream}:{stripe}:{parent}:{child}", kind.word());
        let (from, to) = (parent.to_string(), child.to_string());
        Self { id, kind, stream: Some(stream), stripe: Some(stripe), from, to }
    }

    fn plain(kind: EdgeKind, stream: Option<StreamId>, from: String, to: String) -> Self {
        Self { id: format!("{}:{from}:{to}", kind.word()), kind, stream, stripe: None, from, to }
    }

    /// The edges that follow from a state, each once, in the order of their ids.
    #[must_use]
    pub fn all(state: &NodeState) -> Vec<Self> {
        let overlay = &state.overlay;
        let me = overlay.me.node;
        let mut edges = BTreeMap::new();
        let mut add = |edge: Self| {
            edges.insert(edge.id.clone(), edge);
        };
        for view in &overlay.streams {
            let (node, stream) = (view.node.to_string(), view.stream.to_string());
            add(Self::plain(EdgeKind::Source, Some(view.stream), node, stream));
        }
        for watch in &overlay.watches {
            for stripe in &watch.stripes {
                if let Some(parent) = stripe.parent {
                    let live = EdgeKind::Live;
                    add(Self::media(live, watch.stream, stripe.stripe, parent, me));
                }
            }
            for standby in standbys(watch.stream, overlay) {
                let kind = EdgeKind::Standby;
                add(Self::media(kind, watch.stream, standby.stripe, standby.node, me));
            }
        }
        for ticket in &overlay.given {
            let kind = if flows(state, ticket.stream, ticket.node, ticket.stripe) {
                EdgeKind::Live
            } else {
                EdgeKind::Standby
            };
            add(Self::media(kind, ticket.stream, ticket.stripe, me, ticket.node));
        }
        let registration = |member: NodeId, supernode: NodeId| {
            Self::plain(EdgeKind::Registration, None, member.to_string(), supernode.to_string())
        };
        for member in &overlay.members {
            add(registration(*member, me));
        }
        match overlay.registration {
            RegistrationView::Registered { supernode, .. }
            | RegistrationView::Guest { supernode: Some(supernode) } => {
                add(registration(me, supernode));
            }
            RegistrationView::Searching
            | RegistrationView::Guest { supernode: None }
            | RegistrationView::Supernode => {}
        }
        edges.into_values().collect()
    }
}

/// Whether this node sends that stripe to that child at the moment.
fn flows(state: &NodeState, stream: StreamId, child: NodeId, stripe: Stripe) -> bool {
    let relay = state.relay.streams.iter().find(|relay| relay.stream == stream);
    let mut children = relay.into_iter().flat_map(|relay| &relay.children);
    children.any(|feed| feed.feed.peer == child && feed.flowing.contains(stripe))
}

impl GraphDto {
    /// The graph of a state; of one stream alone when `only` names it.
    #[must_use]
    pub fn new(state: &NodeState, streams: Vec<StreamDto>, only: Option<StreamId>) -> Self {
        let mut edges = EdgeDto::all(state);
        let mut streams = streams;
        let mut nodes = nodes(&state.overlay);
        if let Some(only) = only {
            streams.retain(|stream| stream.id == only);
            edges.retain(|edge| edge.stream == Some(only));
            let me = state.overlay.me.node;
            nodes.retain(|id, _| {
                let text = id.to_string();
                *id == me || edges.iter().any(|edge| edge.from == text || edge.to == text)
            });
        }
        let streams = streams.into_iter().map(|stream| GraphStreamDto {
            id: stream.id,
            name: stream.name,
            title: stream.title,
            node: stream.node,
            role: stream.role,
        });
        Self {
            me: state.overlay.me.node,
            nodes: nodes.into_values().collect(),
            streams: streams.collect(),
            edges,
        }
    }
}

/// Every node that an edge can name.
fn nodes(overlay: &Snapshot) -> BTreeMap<NodeId, GraphNodeDto> {
    let unknown =
        |id: NodeId| GraphNodeDto { id, kind: GraphNodeKind::Node, connected: false, rtt_ms: None };
    let mut nodes: BTreeMap<NodeId, GraphNodeDto> = overlay
        .nodes
        .iter()
        .map(|view| {
            let kind = if view.supernode { GraphNodeKind::Supernode } else { GraphNodeKind::Node };
            let rtt_ms = view.rtt.map(|rtt| rtt.as_secs_f64() * 1_000.0);
            (view.node, GraphNodeDto { id: view.node, kind, connected: view.linked, rtt_ms })
        })
        .collect();
    let sources = overlay.streams.iter().map(|view| view.node);
    let parents = overlay.watches.iter().flat_map(|watch| &watch.stripes).filter_map(|s| s.parent);
    let tickets = overlay.given.iter().chain(&overlay.held).map(|ticket| ticket.node);
    for id in sources.chain(parents).chain(tickets).chain(overlay.members.iter().copied()) {
        nodes.entry(id).or_insert_with(|| unknown(id));
    }
    let supernode = match overlay.registration {
        RegistrationView::Registered { supernode, .. }
        | RegistrationView::Guest { supernode: Some(supernode) } => Some(supernode),
        RegistrationView::Searching
        | RegistrationView::Guest { supernode: None }
        | RegistrationView::Supernode => None,
    };
    if let Some(id) = supernode {
        nodes.entry(id).or_insert_with(|| unknown(id)).kind = GraphNodeKind::Supernode;
    }
    let me = overlay.me.node;
    let kind = GraphNodeKind::Me;
    nodes.insert(me, GraphNodeDto { id: me, kind, connected: true, rtt_ms: None });
    nodes
}
