//! Where nodes and streams stand in the distributed hash table.
//!
//! Owns the positions, by the rule that the table itself has, and with them who coordinates a
//! stream. Does not own lookups: the driver runs them.

use sha2::{Digest, Sha256};

use super::local::Local;
use crate::ids::{NodeId, StreamId};

/// A place on the ring: nearness is the exclusive or of two.
pub(super) type Position = [u8; 32];

/// How many supernodes coordinate a stream.
pub const COORDINATORS: usize = 8;

/// What comes before an Ed25519 key in a peer's name: identity multihash, 36 bytes, key type 1.
const PEER_PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// How far a node is from a stream, as the distributed hash table counts.
#[must_use]
pub fn distance(stream: &StreamId, node: &NodeId) -> [u8; 32] {
    between(&stream_position(stream), &node_position(node))
}

pub(super) fn node_position(node: &NodeId) -> Position {
    Sha256::new().chain_update(PEER_PREFIX).chain_update(node.as_bytes()).finalize().into()
}

fn stream_position(stream: &StreamId) -> Position {
    Sha256::digest(stream.as_bytes()).into()
}

fn between(one: &Position, other: &Position) -> Position {
    let mut distance = *one;
    distance.iter_mut().zip(other).for_each(|(byte, other)| *byte ^= other);
    distance
}

/// The supernodes closest to a stream, as far as this node knows: itself among them when it is.
pub(super) fn coordinators(local: &Local, stream: &StreamId) -> Vec<NodeId> {
    let at = stream_position(stream);
    let mut ranked: Vec<_> = local
        .nodes
        .placed_supernodes(local.now)
        .filter(|(known, _)| !local.is_banned(&known.contact.node))
        .map(|(known, position)| (between(&at, position), known.contact.node))
        .chain([(between(&at, &local.position), local.me.node)])
        .collect();
    ranked.sort_unstable();
    ranked.truncate(COORDINATORS);
    ranked.into_iter().map(|(_, node)| node).collect()
}
