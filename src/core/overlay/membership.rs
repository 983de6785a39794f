//! The nodes this one knows.
//!
//! Owns contacts, links, round trips and suspicion. Does not own registration, misdeeds or streams.
//! A node that cannot be reached is suspected and tried again later, ever more rarely; it is
//! forgotten only where there is no room, before others.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

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
    /// Those without a connection, the first to be forgotten first.
    idle: BTreeSet<Weakness>,
    /// Those with one.
    linked: BTreeSet<NodeId>,
    /// Those that keep a directory, and where they stand in the hash table.
    supernodes: BTreeMap<NodeId, Position>,
    nodes_max: usize,
    scheme: Scheme,
    suspect_min: Duration,
    suspect_max: Duration,
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
            idle: BTreeSet::new(),
            linked: BTreeSet::new(),
            supernodes: BTreeMap::new(),
            nodes_max: tuning.nodes_max,
            scheme: config.scheme,
            suspect_min: tuning.suspect_min,
            suspect_max: tuning.suspect_max,
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
        if !self.nodes.contains_key(&contact.node) {
            let mut contact = contact.clone();
            if contact.proof.is_some() && !contact.verify(scheme) {
                contact.proof = None;
                contact.seq = 0;
            }
            self.make_room();
            let known = Known::new(contact, now);
            self.idle.insert(known.weakness());
            self.nodes.insert(known.contact.node, known);
            return;
        }
        if learnt == Learnt::FirstHand {
            self.change(&contact.node, |known| known.heard_at = now);
        }
        let Some(known) = self.nodes.get_mut(&contact.node) else { return };
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
        self.change(&contact.node, |known| {
            known.linked = true;
            known.private = private;
            known.answered(now);
        });
    }

    /// The last connection is gone.
    pub(super) fn link_down(&mut self, node: NodeId) {
        self.change(&node, |known| known.linked = false);
    }

    pub(super) fn measured(&mut self, node: NodeId, rtt: Duration, now: Timestamp) {
        self.change(&node, |known| {
            known.rtt = Some(rtt);
            known.answered(now);
        });
    }

    /// It answered something.
    pub(super) fn answered(&mut self, node: NodeId, now: Timestamp) {
        self.change(&node, |known| known.answered(now));
    }

    /// It could not be reached, or did not answer: suspected, and left alone for a while. What was
    /// measured of it no longer counts.
    pub(super) fn failed(&mut self, node: NodeId, now: Timestamp) {
        let (min, max) = (self.suspect_min, self.suspect_max);
        self.change(&node, |known| {
            let pause = min.saturating_mul(1 << known.failures.min(16)).min(max);
            known.failures = known.failures.saturating_add(1);
            known.retry_at = now + pause;
            known.rtt = None;
        });
    }

    pub(super) fn set_supernode(&mut self, node: NodeId, supernode: bool) {
        let Some(known) = self.nodes.get_mut(&node) else { return };
        known.supernode = supernode;
        if supernode {
            self.supernodes.entry(node).or_insert_with(|| node_position(&node));
        } else {
            self.supernodes.remove(&node);
        }
    }

    /// Drops a node altogether.
    pub(super) fn forget(&mut self, node: &NodeId) {
        if let Some(known) = self.nodes.remove(node) {
            self.idle.remove(&known.weakness());
            self.linked.remove(node);
            self.supernodes.remove(node);
        }
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
        !self.linked.is_empty()
    }

    /// Nodes with a connection to this one.
    pub(super) fn linked(&self) -> impl Iterator<Item = &Known> {
        self.linked.iter().filter_map(|node| self.nodes.get(node))
    }

    /// Whether an unreachable node is still being left alone.
    pub(super) fn is_suspect(&self, node: &NodeId, now: Timestamp) -> bool {
        self.nodes.get(node).is_some_and(|known| known.is_suspect(now))
    }

    /// Known supernodes that are not suspected.
    pub(super) fn supernodes(&self, now: Timestamp) -> impl Iterator<Item = &Known> {
        self.placed_supernodes(now).map(|(known, _)| known)
    }

    /// The same, with where they stand in the hash table.
    pub(super) fn placed_supernodes(
        &self,
        now: Timestamp,
    ) -> impl Iterator<Item = (&Known, &Position)> {
        let placed = self.supernodes.iter();
        placed
            .filter_map(|(node, position)| Some((self.nodes.get(node)?, position)))
            .filter(move |(known, _)| !known.is_suspect(now))
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

    /// Changes what is known of a node, and its place in the orders with it.
    fn change(&mut self, node: &NodeId, act: impl FnOnce(&mut Known)) {
        let Some(known) = self.nodes.get_mut(node) else { return };
        let (was_linked, before) = (known.linked, known.weakness());
        act(known);
        let after = known.weakness();
        match (was_linked, known.linked) {
            (true, true) => {}
            (true, false) => {
                self.linked.remove(node);
                self.idle.insert(after);
            }
            (false, true) => {
                self.idle.remove(&before);
                self.linked.insert(*node);
            }
            (false, false) => {
                if before != after {
                    self.idle.remove(&before);
                    self.idle.insert(after);
                }
            }
        }
    }

    /// Forgets the weakest, one for each that is learnt while the table is full: among the nodes
    /// without a connection, or, where all have one, the first of all.
    fn make_room(&mut self) {
        while self.nodes.len() >= self.nodes_max {
            let weakest = self.idle.first().map(|(.., Reverse(node))| *node);
            let Some(node) = weakest.or_else(|| self.nodes.keys().next().copied()) else { return };
            self.forget(&node);
            self.dropped += 1;
        }
    }
}

/// Who is forgotten first: whom nobody reaches, then who was not heard of for longest.
type Weakness = (Reverse<u32>, Timestamp, Reverse<NodeId>);

impl Known {
    /// It could not be reached, and is not to be tried again yet.
    pub(super) fn is_suspect(&self, now: Timestamp) -> bool {
        self.failures > 0 && now < self.retry_at
    }

    const fn weakness(&self) -> Weakness {
        (Reverse(self.failures), self.heard_at, Reverse(self.contact.node))
    }

    fn new(contact: Contact, now: Timestamp) -> Self {
        Self {
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
