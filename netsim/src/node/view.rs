//! What checkers see of a node without asking its machines.
//!
//! Owns the live parents and the promised stripes as the outputs told them. Does not own checks.

use std::collections::BTreeMap;

use astral_core::{
    ids::{FeedKey, NodeId, STRIPES_MAX, Stripe, StripeSet},
    overlay::Role,
};

use crate::tally::Bytes;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct NodeView {
    parents: [Option<NodeId>; STRIPES_MAX as usize],
    /// Stripes that each child may have now.
    pub children: BTreeMap<FeedKey, StripeSet>,
    /// What was sent since the start.
    pub sent: Bytes,
    /// The role taken last.
    pub role: Option<Role>,
    /// Most stripes promised at once since the last check.
    pub live_max: u32,
    /// Longest path that was told to a child.
    path_max: usize,
    /// What the supernode was told last: stripes that this node could feed beside those it feeds.
    pub told_free: Option<u16>,
}

impl NodeView {
    /// The parent that a stripe was promoted at last, while its feed lives.
    #[must_use]
    pub fn parent(&self, stripe: Stripe) -> Option<NodeId> {
        self.parents.get(usize::from(stripe)).copied().flatten()
    }

    /// Stripes promised to children, all together.
    #[must_use]
    pub fn live_stripes(&self) -> u32 {
        self.children.values().map(|live| live.len()).sum()
    }

    /// Nodes of the longest path that was told to a child.
    #[must_use]
    pub const fn path_max(&self) -> usize {
        self.path_max
    }

    pub(super) fn path_told(&mut self, nodes: usize) {
        self.path_max = self.path_max.max(nodes);
    }

    pub(super) fn promoted(&mut self, stripe: Stripe, parent: NodeId) {
        if let Some(place) = self.parents.get_mut(usize::from(stripe)) {
            *place = Some(parent);
        }
    }

    pub(super) fn parent_gone(&mut self, parent: NodeId) {
        for place in &mut self.parents {
            if *place == Some(parent) {
                *place = None;
            }
        }
    }

    pub(super) fn granted(&mut self, feed: FeedKey, live: StripeSet) {
        if live.is_empty() {
            self.children.remove(&feed);
        } else {
            self.children.insert(feed, live);
        }
        self.live_max = self.live_max.max(self.live_stripes());
    }
}
