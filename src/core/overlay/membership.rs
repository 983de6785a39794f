//! The nodes this one knows.
//!
//! Owns contacts, links, round trips and suspicion. Does not own registration, misdeeds or streams.
//! A node that cannot be reached is suspected and tried again later, ever more rarely; it is
//! forgotten only after a long silence.

use std::{collections::BTreeMap, time::Duration};

use super::{
    Contact, NodeView, OverlayConfig,
    dht::{Position, node_position},
};
use crate::{announcement::Scheme, ids::NodeId, time::Timestamp};

/// How a contact was learnt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Learnt {
    /// From the node itself over an authenticated connection.
    FirstHand,
    /// From somebody else.
    Hearsay,
}

/// Known nodes, at most `nodes_max`.
#[derive(Debug)]
pub(super) struct Membership {
    me: NodeId,
    nodes: BTreeMap<NodeId, Known>,
    nodes_max: usize,
    scheme: Scheme,
    suspect_min: Duration,
    suspect_max: Duration,
    forget_after: Duration,
    dropped: u64,
}

/// One known node.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) contact: Contact,
    pub(super) linked: bool,
    pub(super) private: bool,
    pub(super) supernode: bool,
    pub(super) rtt: Option<Duration>,
    /// Its place in the distributed hash table.
    pub(super) position: Position,
    failures: u32,
    retry_at: Timestamp,
    heard_at: Timestamp,
}

impl Membership {
    pub(super) fn new(me: NodeId, config: &OverlayConfig) -> Self {
        let tuning = &config.tuning;
        Self {
            me,
            nodes: BTreeMap::new(),
            nodes_max: tuning.nodes_max,
            scheme: config.scheme,
            suspect_min: tuning.suspect_min,
            suspect_max: tuning.suspect_max,
            forget_after: tuning.forget_after,
            dropped: 0,
        }
    }

    /// Takes in a contact. A newer record that its node signed replaces an older one; hearsay
    /// never replaces what is known; nothing about this node itself is taken in.
    pub(super) fn learn(&mut self, contact: &Contact, learnt: Learnt, now: Timestamp) {
        if contact.node == self.me || !contact.is_bounded() {
            return;
        }
        let scheme = self.scheme;
        let Some(known) = self.nodes.get_mut(&contact.node) else {
            let mut contact = contact.clone();
            if contact.proof.is_some() && !contact.verify(scheme) {
                contact.proof = None;
                contact.seq = 0;
            }
            self.make_room(now);
            self.nodes.insert(contact.node, Known::new(contact, now));
            return;
        };
        if learnt == Learnt::FirstHand {
            known.heard_at = now;
        }
        let newer = contact.seq > known.contact.seq
            && (learnt == Learnt::FirstHand || contact.verify(scheme));
        let fills = known.contact.proof.is_none()
            && !contact.addrs.is_empty()
            && (known.contact.addrs.is_empty() || learnt == Learnt::FirstHand)
            && contact.seq >= known.contact.seq;
        if newer || fills {
            known.contact = contact.clone();
            if known.contact.proof.is_some() && !known.contact.verify(scheme) {
                known.contact.proof = None;
            }
            // A new address deserves a try at once.
            known.retry_at = now;
        }
    }

    /// A connection is up.
    pub(super) fn link_up(&mut self, contact: &Contact, private: bool, now: Timestamp) {
        self.learn(contact, Learnt::FirstHand, now);
        if let Some(known) = self.nodes.get_mut(&contact.node) {
            known.linked = true;
            known.private = private;
            known.answered(now);
        }
    }

    /// The last connection is gone.
    pub(super) fn link_down(&mut self, node: NodeId) {
        if let Some(known) = self.nodes.get_mut(&node) {
            known.linked = false;
        }
    }

    pub(super) fn measured(&mut self, node: NodeId, rtt: Duration, now: Timestamp) {
        if let Some(known) = self.nodes.get_mut(&node) {
            known.rtt = Some(rtt);
            known.answered(now);
        }
    }

    /// It answered something.
    pub(super) fn answered(&mut self, node: NodeId, now: Timestamp) {
        if let Some(known) = self.nodes.get_mut(&node) {
            known.answered(now);
        }
    }

    /// It could not be reached, or did not answer: suspected, and left alone for a while. What was
    /// measured of it no longer counts.
    pub(super) fn failed(&mut self, node: NodeId, now: Timestamp) {
        let (min, max) = (self.suspect_min, self.suspect_max);
        if let Some(known) = self.nodes.get_mut(&node) {
            let pause = min.saturating_mul(1 << known.failures.min(16)).min(max);
            known.failures = known.failures.saturating_add(1);
            known.retry_at = now + pause;
            known.rtt = None;
        }
    }

    pub(super) fn set_supernode(&mut self, node: NodeId, supernode: bool) {
        if let Some(known) = self.nodes.get_mut(&node) {
            known.supernode = supernode;
        }
    }

    /// Drops a node altogether.
    pub(super) fn forget(&mut self, node: &NodeId) {
        self.nodes.remove(node);
    }

    pub(super) fn known(&self, node: &NodeId) -> Option<&Known> {
        self.nodes.get(node)
    }

    pub(super) fn contact(&self, node: &NodeId) -> Option<&Contact> {
        self.nodes.get(node).map(|known| &known.contact)
    }

    pub(super) fn is_linked(&self, node: &NodeId) -> bool {
        self.nodes.get(node).is_some_and(|known| known.linked)
    }

    pub(super) fn any_linked(&self) -> bool {
        self.linked().next().is_some()
    }

    /// Nodes with a connection to this one.
    pub(super) fn linked(&self) -> impl Iterator<Item = &Known> {
        self.nodes.values().filter(|known| known.linked)
    }

    /// Whether an unreachable node is still being left alone.
    pub(super) fn is_suspect(&self, node: &NodeId, now: Timestamp) -> bool {
        self.nodes.get(node).is_some_and(|known| known.is_suspect(now))
    }

    /// Known supernodes that are not suspected.
    pub(super) fn supernodes(&self, now: Timestamp) -> impl Iterator<Item = &Known> {
        self.nodes.values().filter(move |known| known.supernode && !known.is_suspect(now))
    }

    /// How many entries were dropped because the table was full.
    pub(super) const fn dropped(&self) -> u64 {
        self.dropped
    }

    pub(super) fn views(&self, banned: impl Fn(&NodeId) -> bool) -> Vec<NodeView> {
        let view = |(node, known): (&NodeId, &Known)| NodeView {
            node: *node,
            addrs: known.contact.addrs.clone(),
            seq: known.contact.seq,
            proof: known.contact.proof,
            supernode: known.supernode,
            linked: known.linked,
            rtt: known.rtt,
            failures: known.failures,
            banned: banned(node),
        };
        self.nodes.iter().map(view).collect()
    }

    fn make_room(&mut self, now: Timestamp) {
        if self.nodes.len() < self.nodes_max {
            return;
        }
        let forget_after = self.forget_after;
        self.nodes.retain(|_, known| known.linked || now.since(known.heard_at) < forget_after);
        if self.nodes.len() < self.nodes_max {
            return;
        }
        // Several at once: who hears of more nodes than it keeps would look through all of them for
        // each.
        let several = (self.nodes_max / DROPPED_SHARE).max(1);
        let unlinked = self.nodes.iter().filter(|(_, known)| !known.linked);
        let mut weakest: Vec<_> = unlinked
            .map(|(node, known)| (known.failures, now.since(known.heard_at), *node))
            .collect();
        weakest.sort_unstable_by(|a, b| b.cmp(a));
        weakest.truncate(several);
        let first = || self.nodes.keys().next().map(|node| (0, Duration::ZERO, *node));
        weakest.extend(if weakest.is_empty() { first() } else { None });
        for (_, _, node) in weakest {
            self.nodes.remove(&node);
            self.dropped += 1;
        }
    }
}

/// Of the most nodes that are known, one in so many goes when there is no room.
const DROPPED_SHARE: usize = 64;

impl Known {
    /// It could not be reached, and is not to be tried again yet.
    pub(super) fn is_suspect(&self, now: Timestamp) -> bool {
        self.failures > 0 && now < self.retry_at
    }

    fn new(contact: Contact, now: Timestamp) -> Self {
        Self {
            position: node_position(&contact.node),
            contact,
            linked: false,
            private: false,
            supernode: false,
            rtt: None,
            failures: 0,
            retry_at: now,
            heard_at: now,
        }
    }

    const fn answered(&mut self, now: Timestamp) {
        self.failures = 0;
        self.retry_at = now;
        self.heard_at = now;
    }

    /// How near it is; what was never measured, or does not answer, comes last.
    pub(super) fn rank(&self) -> (bool, Duration, NodeId) {
        (self.rtt.is_none(), self.rtt.unwrap_or(Duration::MAX), self.contact.node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overlay::Addr;

    fn membership(nodes_max: usize) -> Membership {
        let mut config = OverlayConfig { scheme: Scheme::Tag, ..OverlayConfig::default() };
        config.tuning.nodes_max = nodes_max;
        Membership::new(NodeId([0; 32]), &config)
    }

    fn signed(node: u8, addr: &str, seq: u64) -> Contact {
        let mut contact = Contact::new(NodeId([node; 32]), vec![Addr::new(addr).unwrap()]);
        contact.seq = seq;
        contact.proof = Some(Scheme::tag(contact.node.as_bytes(), &contact.signing_input()));
        contact
    }

    fn addr(members: &Membership, node: u8) -> &str {
        members.contact(&NodeId([node; 32])).unwrap().addrs[0].as_str()
    }

    #[test]
    fn a_newer_signed_record_replaces_an_older_one_and_nothing_else_does() {
        let mut members = membership(10);
        let now = Timestamp::ZERO;
        members.learn(&signed(1, "old", 5), Learnt::Hearsay, now);
        members.learn(&signed(1, "older", 4), Learnt::Hearsay, now);
        assert_eq!(addr(&members, 1), "old");
        let mut forged = signed(1, "forged", 9);
        forged.addrs = vec![Addr::new("elsewhere").unwrap()];
        members.learn(&forged, Learnt::Hearsay, now);
        assert_eq!(addr(&members, 1), "old");
        members.learn(&Contact::new(NodeId([1; 32]), forged.addrs), Learnt::Hearsay, now);
        assert_eq!(addr(&members, 1), "old");
        members.learn(&signed(1, "new", 6), Learnt::Hearsay, now);
        assert_eq!(addr(&members, 1), "new");
    }

    #[test]
    fn an_unreachable_node_is_suspected_ever_longer_and_not_forgotten() {
        let mut members = membership(10);
        let node = NodeId([1; 32]);
        members.learn(&signed(1, "here", 1), Learnt::Hearsay, Timestamp::ZERO);
        members.failed(node, Timestamp::ZERO);
        assert!(members.is_suspect(&node, Timestamp::from_millis(999)));
        assert!(!members.is_suspect(&node, Timestamp::from_millis(1_000)));
        members.failed(node, Timestamp::from_millis(1_000));
        assert!(members.is_suspect(&node, Timestamp::from_millis(2_999)));
        assert!(members.known(&node).is_some());
        members.link_up(&signed(1, "here", 1), true, Timestamp::from_millis(1_500));
        assert!(!members.is_suspect(&node, Timestamp::from_millis(1_500)));
    }

    #[test]
    fn the_table_is_bounded_and_linked_nodes_stay() {
        let mut members = membership(3);
        members.link_up(&signed(1, "a", 1), true, Timestamp::ZERO);
        for node in 2..50 {
            members.learn(&signed(node, "b", 1), Learnt::Hearsay, Timestamp::from_millis(1));
        }
        assert_eq!(members.views(|_| false).len(), 3);
        assert!(members.is_linked(&NodeId([1; 32])));
        assert_eq!(members.dropped(), 46);
    }

    #[test]
    fn an_unmeasured_node_ranks_behind_every_measured_one() {
        let mut members = membership(10);
        members.learn(&signed(1, "a", 1), Learnt::Hearsay, Timestamp::ZERO);
        members.learn(&signed(2, "b", 1), Learnt::Hearsay, Timestamp::ZERO);
        members.measured(NodeId([2; 32]), Duration::from_secs(9), Timestamp::ZERO);
        let one = members.known(&NodeId([1; 32])).unwrap().rank();
        let two = members.known(&NodeId([2; 32])).unwrap().rank();
        assert!(two < one);
    }
}
