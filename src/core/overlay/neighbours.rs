//! Whom to ask for chunks beside the parents.
//!
//! Owns the choice of neighbours of a stream: connected nodes that carry it. Does not own what they
//! are asked for (the relay's), nor connections: nobody is dialled for repair alone.

use std::{collections::BTreeSet, time::Duration};

use super::Overlay;
use crate::ids::{NodeId, StreamId};

impl Overlay {
    /// The connected nodes that carry a stream as far as is known, children first, then the nearest;
    /// at most `count`. Parents are among them while their feeds are not up. Changes nothing.
    #[must_use]
    pub fn neighbours(&self, stream: StreamId, count: usize) -> Vec<NodeId> {
        let local = &self.local;
        let children: BTreeSet<NodeId> = self.forwarder.children_of(stream).collect();
        let candidates = self.watches.get(&stream).map(|watch| watch.candidates(local));
        let all: BTreeSet<NodeId> =
            candidates.into_iter().flatten().chain(children.iter().copied()).collect();
        let mut ranked: Vec<(bool, Duration, NodeId)> = all
            .into_iter()
            .filter(|node| local.nodes.is_linked(node) && !local.is_banned(node))
            .map(|node| {
                let rtt = local.nodes.known(&node).map_or(Duration::MAX, |known| known.rank().1);
                (!children.contains(&node), rtt, node)
            })
            .collect();
        ranked.sort();
        ranked.truncate(count);
        ranked.into_iter().map(|(.., node)| node).collect()
    }
}
