//! What went over the wire, per node and class.
//!
//! Owns the counters that the API shows. Bytes are counted where they are handed to, or taken from,
//! a stream of the connection: frames with their headers, without what Noise, Yamux, QUIC and IP
//! add. Does not own pacing, which is the relay's.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use astral_core::ids::NodeId;
use serde::Serialize;

/// Nodes with counters of their own; traffic of further ones counts in the totals only.
const NODES_MAX: usize = 4_096;

/// What kind of bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Chunks on feeds.
    Media,
    /// Everything else: keepalives, acknowledgements, tickets, directory.
    Control,
}

/// Counters of one node, or of all.
#[derive(Debug, Default)]
pub struct Counters {
    media_in: AtomicU64,
    media_out: AtomicU64,
    control_in: AtomicU64,
    control_out: AtomicU64,
}

impl Counters {
    fn add_in(&self, class: Class, bytes: u64) {
        let counter = match class {
            Class::Media => &self.media_in,
            Class::Control => &self.control_in,
        };
        counter.fetch_add(bytes, Ordering::Relaxed);
    }

    fn add_out(&self, class: Class, bytes: u64) {
        let counter = match class {
            Class::Media => &self.media_out,
            Class::Control => &self.control_out,
        };
        counter.fetch_add(bytes, Ordering::Relaxed);
    }

    fn view(&self) -> TrafficView {
        TrafficView {
            media_in: self.media_in.load(Ordering::Relaxed),
            media_out: self.media_out.load(Ordering::Relaxed),
            control_in: self.control_in.load(Ordering::Relaxed),
            control_out: self.control_out.load(Ordering::Relaxed),
        }
    }
}

/// Bytes since the node started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct TrafficView {
    /// Received on feeds in chunks.
    pub media_in: u64,
    /// Sent on feeds in chunks, first sends and repairs.
    pub media_out: u64,
    /// Received besides chunks.
    pub control_in: u64,
    /// Sent besides chunks.
    pub control_out: u64,
}

/// All counters of a node.
#[derive(Debug, Default)]
pub struct Traffic {
    total: Counters,
    nodes: Mutex<BTreeMap<NodeId, Arc<Counters>>>,
}

impl Traffic {
    /// The meter of one node, for the tasks that serve it.
    #[must_use]
    pub fn meter(self: &Arc<Self>, node: NodeId) -> Meter {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let known = nodes.get(&node).cloned();
        let counters = known.unwrap_or_else(|| {
            let counters = Arc::new(Counters::default());
            if nodes.len() < NODES_MAX {
                nodes.insert(node, Arc::clone(&counters));
            }
            counters
        });
        Meter { node: counters, all: Arc::clone(self) }
    }

    /// Totals of all nodes.
    #[must_use]
    pub fn total(&self) -> TrafficView {
        self.total.view()
    }

    /// Per node.
    #[must_use]
    pub fn nodes(&self) -> BTreeMap<NodeId, TrafficView> {
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.iter().map(|(node, counters)| (*node, counters.view())).collect()
    }
}

/// Counts for one node and for all at once.
#[derive(Clone, Debug)]
pub struct Meter {
    node: Arc<Counters>,
    all: Arc<Traffic>,
}

impl Meter {
    /// `bytes` came from the node.
    pub fn received(&self, class: Class, bytes: usize) {
        let bytes = bytes as u64;
        self.node.add_in(class, bytes);
        self.all.total.add_in(class, bytes);
    }

    /// `bytes` went to the node.
    pub fn sent(&self, class: Class, bytes: usize) {
        let bytes = bytes as u64;
        self.node.add_out(class, bytes);
        self.all.total.add_out(class, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_count_for_their_node_and_for_all() {
        let traffic = Arc::new(Traffic::default());
        let (one, two) = (NodeId([1; 32]), NodeId([2; 32]));
        traffic.meter(one).sent(Class::Media, 100);
        traffic.meter(one).sent(Class::Media, 10);
        traffic.meter(two).received(Class::Control, 7);
        assert_eq!(traffic.nodes()[&one].media_out, 110);
        assert_eq!(
            traffic.total(),
            TrafficView { media_out: 110, control_in: 7, ..Default::default() }
        );
    }
}
