//! Who takes over when a supernode is lost that knew few others.
//!
//! Owns the order among those whom the supernode named, and when this node's turn is. Does not own
//! the search (see `search`): heirs are asked there like supernodes, and the one whose turn it was has
//! become one. Without this the members of a network's only supernode would know nobody, and each
//! would found a network of its own.

use std::time::Duration;

use super::super::{
    Contact,
    local::Local,
    membership::{Known, Learnt},
};
use crate::ids::NodeId;

/// What the supernode said last.
#[derive(Debug, Default)]
pub(super) struct Heirs {
    nodes: Vec<NodeId>,
}

impl Heirs {
    /// The supernode names its heirs, the first one first.
    pub(super) fn learn(&mut self, local: &mut Local, heirs: &[Contact]) {
        for contact in heirs {
            local.nodes.learn(contact, Learnt::Hearsay, local.now);
        }
        self.nodes = heirs.iter().map(|contact| contact.node).collect();
    }

    pub(super) fn nodes(&self) -> &[NodeId] {
        &self.nodes
    }

    /// How long others come before this node: those named before it, or all who are named.
    pub(super) fn turn(&self, local: &mut Local) -> Duration {
        let Some(last) = self.nodes.len().checked_sub(1) else { return Duration::ZERO };
        let before = self.nodes.iter().position(|node| *node == local.me.node);
        let turns = |turns: usize| TURN.saturating_mul(u32::try_from(turns).unwrap_or(u32::MAX));
        // Of those who are not named nobody knows the others: at least they are not all at once.
        before.map_or_else(|| turns(last + 2) + local.jitter(TURN), turns)
    }

    /// Heirs that may have taken over by now. (Those known as supernodes are found without.)
    pub(super) fn hopes<'a>(&'a self, local: &'a Local) -> impl Iterator<Item = &'a Known> {
        let known = self.nodes.iter().filter_map(|node| local.nodes.known(node));
        known.filter(|known| {
            !known.supernode && !local.nodes.is_suspect(&known.contact.node, local.now)
        })
    }
}

/// What each heir has to itself: a search of the others with its pauses, and some round trips.
const TURN: Duration = Duration::from_secs(2);
