//! The connections that are up and which of them still serve anybody.
//!
//! Owns the connection manager: what is known of each connected peer, when it was last of use, and
//! which idle ones are closed. Gossip and Kademlia streams keep a connection open for ever by
//! themselves, so that nothing else would ever close one. Does not own the swarm.

use std::{collections::BTreeMap, time::Duration};

use astral_core::ids::NodeId;
use libp2p::{Multiaddr, PeerId};
use tokio::time::Instant;

/// A connection that nobody used for so long is closed, except among supernodes.
const IDLE: Duration = Duration::from_secs(120);
/// Above so many connections, idle ones are closed earlier ...
const CROWDED: usize = 96;
/// ... namely after this.
const IDLE_CROWDED: Duration = Duration::from_secs(20);
/// Pings in a row that may fail before the connection counts as dead.
const PING_FAILURES_MAX: u8 = 2;

/// What is known of one connected peer.
#[derive(Clone, Debug)]
pub struct Link {
    /// Its id in the core; `None` = not an Ed25519 key, never enters the core.
    pub node: Option<NodeId>,
    /// The address of its first connection.
    pub remote: Multiaddr,
    /// Whether we dialled it.
    pub dialled: bool,
    /// Round-trip time as last measured.
    pub rtt: Option<Duration>,
    /// Feeds that run or are being greeted.
    pub feeds: u32,
    /// Whether it serves our Kademlia: a supernode.
    pub serves_kad: bool,
    /// What it calls itself.
    pub agent: String,
    /// Where it relays for others, if it does.
    pub relay_at: Option<Multiaddr>,
    /// Places and circuits that it has at this node's relay.
    kept: u32,
    used: Instant,
    ping_failures: u8,
}

/// All connected peers.
#[derive(Debug, Default)]
pub struct Links {
    links: BTreeMap<PeerId, Link>,
}

impl Links {
    /// The first connection to a peer is up.
    pub fn up(&mut self, peer: PeerId, node: Option<NodeId>, remote: Multiaddr, dialled: bool) {
        let now = Instant::now();
        let link = Link {
            node,
            remote,
            dialled,
            rtt: None,
            feeds: 0,
            serves_kad: false,
            agent: String::new(),
            relay_at: None,
            kept: 0,
            used: now,
            ping_failures: 0,
        };
        self.links.insert(peer, link);
    }

    /// The last connection to a peer is down.
    pub fn down(&mut self, peer: &PeerId) -> Option<Link> {
        self.links.remove(peer)
    }

    /// What is known of a peer.
    #[must_use]
    pub fn get(&self, peer: &PeerId) -> Option<&Link> {
        self.links.get(peer)
    }

    /// The same, to change.
    pub fn get_mut(&mut self, peer: &PeerId) -> Option<&mut Link> {
        self.links.get_mut(peer)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&PeerId, &Link)> {
        self.links.iter()
    }

    /// Whether no peer is connected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// A message or feed was of use to somebody.
    pub fn touch(&mut self, peer: &PeerId) {
        if let Some(link) = self.links.get_mut(peer) {
            link.used = Instant::now();
        }
    }

    /// The peer has one place or circuit more, or less, at this node's relay.
    pub fn keep(&mut self, peer: &PeerId, change: i32) {
        if let Some(link) = self.links.get_mut(peer) {
            link.kept = link.kept.saturating_add_signed(change);
            link.used = Instant::now();
        }
    }

    /// A ping came back.
    pub fn pong(&mut self, peer: &PeerId, rtt: Duration) {
        if let Some(link) = self.links.get_mut(peer) {
            link.ping_failures = 0;
            link.rtt = Some(rtt);
        }
    }

    /// A ping did not come back; true when the connection counts as dead.
    pub fn ping_failed(&mut self, peer: &PeerId) -> bool {
        self.links.get_mut(peer).is_some_and(|link| {
            link.ping_failures += 1;
            link.ping_failures >= PING_FAILURES_MAX
        })
    }

    /// How many feeds each node has at the moment.
    pub fn count_feeds(&mut self, counts: &BTreeMap<NodeId, u32>) {
        for link in self.links.values_mut() {
            link.feeds = link.node.and_then(|node| counts.get(&node).copied()).unwrap_or(0);
        }
    }

    /// Peers whose connections serve nobody any more. `among_supernodes`: this node is one, and
    /// keeps its links to others of them for gossip.
    #[must_use]
    pub fn idle(&self, now: Instant, among_supernodes: bool) -> Vec<PeerId> {
        let patience = if self.links.len() > CROWDED { IDLE_CROWDED } else { IDLE };
        self.links
            .iter()
            .filter(|(_, link)| link.feeds == 0 && link.kept == 0)
            .filter(|(_, link)| !(among_supernodes && link.serves_kad))
            .filter(|(_, link)| now.saturating_duration_since(link.used) > patience)
            .map(|(peer, _)| *peer)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::identity;

    fn peer(n: u8) -> PeerId {
        identity::keypair([n; 32]).unwrap().public().to_peer_id()
    }

    #[tokio::test]
    async fn idle_connections_go_but_feeds_and_supernodes_stay() {
        let mut links = Links::default();
        for n in 1..=3 {
            links.up(peer(n), None, Multiaddr::empty(), true);
        }
        links.get_mut(&peer(1)).unwrap().feeds = 1;
        links.get_mut(&peer(2)).unwrap().serves_kad = true;
        let now = Instant::now();
        assert!(links.idle(now, true).is_empty());
        let late = now + IDLE + Duration::from_secs(1);
        assert_eq!(links.idle(late, true), [peer(3)]);
        assert_eq!(links.idle(late, false).len(), 2);
    }

    #[tokio::test]
    async fn two_lost_pings_in_a_row_are_a_dead_connection() {
        let mut links = Links::default();
        links.up(peer(1), None, Multiaddr::empty(), true);
        assert!(!links.ping_failed(&peer(1)));
        links.pong(&peer(1), Duration::from_millis(1));
        assert!(!links.ping_failed(&peer(1)));
        assert!(links.ping_failed(&peer(1)));
    }
}
