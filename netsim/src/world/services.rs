//! Kademlia and gossip as models: delay, loss, staleness.
//!
//! Owns who is found and who hears. A lookup finds the supernodes closest to its key, the dead ones
//! among them for a while; gossip reaches every supernode by itself but for a few.

use std::{sync::Arc, time::Duration};

use astral_core::{
    announcement::SignedAnnouncement,
    overlay::{LookupId, LookupKey, Role, distance},
    time::micros,
};

use super::{World, cast::State, event::Event};
use crate::{
    random::{Purpose, mix},
    scenario::seconds,
};

/// Closest nodes that a lookup gives, as in Kademlia.
const CLOSEST: usize = 20;
/// One hop of a lookup takes between these.
const HOP: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(180));

impl World {
    /// A node asks Kademlia; the answer comes after some hops.
    pub(super) fn look_up(&mut self, node: u32, id: LookupId, key: LookupKey) {
        let entity = u64::from(node);
        let hops = u64::from(self.scenario.services.lookup_hops);
        let hop = |n| self.dice.between(HOP, (Purpose::Lookup, entity, id.0 * 64 + n));
        let takes: Duration = (0..hops.min(32)).map(hop).sum();
        self.queue.push(self.now() + micros(takes), Event::LookupDone { node, id, key });
    }

    /// Kademlia answers: nothing to a node without any connection.
    pub(super) fn lookup_done(&mut self, node: u32, id: LookupId, key: LookupKey) {
        // Nodes reckon themselves who coordinates a stream, so its distances must be the real ones.
        let distance_of = |index: u32| match key {
            LookupKey::Supernodes => mix(self.nodes[index as usize].hash) ^ mix(0),
            LookupKey::Stream(stream) => {
                let distance = distance(&stream, &self.nodes[index as usize].contact.node);
                u64::from_be_bytes(*distance.first_chunk().expect("32 bytes have a first eight"))
            }
        };
        let isolated = self.nodes[node as usize].neighbours.is_empty();
        let (now, stale) = (self.now(), seconds(self.scenario.services.stale_s));
        let mut near: Vec<(u64, u32)> = self
            .servers
            .iter()
            .filter(|(index, died)| {
                !isolated && **index != node && died.is_none_or(|at| now - at < stale)
            })
            .map(|(index, _)| (distance_of(*index), *index))
            .collect();
        near.sort_unstable();
        near.truncate(CLOSEST);
        let loss = self.scenario.services.lookup_loss;
        if self.dice.chance(loss, Purpose::Lookup, u64::from(node), id.0 * 64 + 63) {
            near.truncate(near.len() / 2);
        }
        let found = near.into_iter().map(|(_, index)| self.contact(index)).collect();
        self.with_node(node, |node, cx| {
            let done = astral_core::overlay::Input::LookupDone { id, found };
            node.overlay_input(done, cx);
        });
    }

    /// A node serves Kademlia and gossip from now on, or no longer.
    pub(super) fn set_role(&mut self, node: u32, role: Role) {
        match role {
            Role::Supernode => {
                self.servers.insert(node, None);
            }
            Role::Member => {
                self.servers.remove(&node);
            }
        }
    }

    /// An announcement goes to all supernodes.
    pub(super) fn gossip(&mut self, from: u32, announcement: &Arc<SignedAnnouncement>) {
        let now = self.now();
        self.nodes[from as usize].messages += 1;
        let number = self.nodes[from as usize].messages;
        let loss = self.scenario.services.gossip_loss;
        let most = Duration::from_micros((self.scenario.services.gossip_ms * 1e3) as u64);
        let servers: Vec<u32> = self.servers.keys().copied().filter(|to| *to != from).collect();
        for to in servers {
            let entity = u64::from(from) << 32 | u64::from(to);
            let is_up = self.nodes[to as usize].state == State::Up;
            let lost = self.dice.chance(loss, Purpose::Gossip, entity, number * 2);
            if lost || !is_up || self.is_blocked(from, to) {
                continue;
            }
            let draw = (Purpose::Gossip, entity, number * 2 + 1);
            let takes = self.one_way(from, to) + self.dice.between((Duration::ZERO, most), draw);
            self.tally.bytes.messages += announcement.wire_len() as u64;
            let announcement = Arc::clone(announcement);
            self.queue.push(now + micros(takes), Event::Gossip { to, from, announcement });
        }
    }
}
