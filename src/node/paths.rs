//! The connections with each peer, direct ones and those through relays.
//!
//! Owns which of them count: a relayed connection is held back while a hole is being punched, and
//! closed soon after a direct one is there. Does not own the swarm, nor what a peer is used for.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use libp2p::{Multiaddr, PeerId, core::ConnectedPoint, multiaddr::Protocol, swarm::ConnectionId};
use tokio::time::Instant;

/// A hole is punched within a few round trips or not at all; then the relay carries what there is.
const PUNCH_MAX: Duration = Duration::from_secs(4);
/// The other side's direct connection may be up a little later than ours.
const CLOSE_RELAYED_AFTER: Duration = Duration::from_secs(2);
/// For so long a pair that found no hole does not wait for one again.
const HOPELESS_FOR: Duration = Duration::from_secs(600);
/// Pairs that are remembered as such.
const HOPELESS_MAX: usize = 256;

/// What a new connection means for its peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// The peer is there.
    Up,
    /// It is, but a direct connection may follow: not yet worth telling.
    Bridge,
    /// It was there through a relay; now directly.
    Direct,
    /// One more of the same kind.
    Same,
}

/// All connections.
#[derive(Debug, Default)]
pub struct Paths {
    peers: BTreeMap<PeerId, Peer>,
    hopeless: VecDeque<(PeerId, Instant)>,
    punched: u64,
    punch_failures: u64,
}

#[derive(Debug, Default)]
struct Peer {
    direct: BTreeSet<ConnectionId>,
    relayed: BTreeMap<ConnectionId, Option<PeerId>>,
    bridge: Option<Bridge>,
    close_relayed_at: Option<Instant>,
    told: bool,
}

/// A relayed connection that is held back.
#[derive(Clone, Debug)]
pub struct Bridge {
    /// Its address.
    pub remote: Multiaddr,
    /// Whether this node dialled.
    pub dialled: bool,
    until: Instant,
}

impl Paths {
    /// A connection is up. `punches`: a hole will be tried.
    pub fn up(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        endpoint: &ConnectedPoint,
        punches: bool,
        now: Instant,
    ) -> Change {
        let is_hopeless = self.is_hopeless(&peer, now);
        let entry = self.peers.entry(peer).or_default();
        if endpoint.is_relayed() {
            let (remote, dialled) = (endpoint.get_remote_address(), endpoint.is_dialer());
            entry.relayed.insert(connection, relay_of(endpoint));
            if entry.told || entry.bridge.is_some() {
                return Change::Same;
            }
            if punches && !is_hopeless {
                let remote = remote.clone();
                entry.bridge = Some(Bridge { remote, dialled, until: now + PUNCH_MAX });
                return Change::Bridge;
            }
            entry.told = true;
            return Change::Up;
        }
        entry.direct.insert(connection);
        entry.bridge = None;
        if !entry.relayed.is_empty() && entry.direct.len() == 1 {
            self.punched += 1;
            entry.close_relayed_at = Some(now + CLOSE_RELAYED_AFTER);
            self.hopeless.retain(|(known, _)| *known != peer);
        }
        match (entry.told, entry.direct.len()) {
            (false, _) => {
                entry.told = true;
                Change::Up
            }
            (true, 1) => Change::Direct,
            (true, _) => Change::Same,
        }
    }

    /// A connection is gone; whether the peer still has one that was told of or may be.
    pub fn down(&mut self, peer: &PeerId, connection: ConnectionId) -> bool {
        let Some(entry) = self.peers.get_mut(peer) else { return false };
        entry.direct.remove(&connection);
        entry.relayed.remove(&connection);
        let left = !(entry.direct.is_empty() && entry.relayed.is_empty());
        if !left {
            self.peers.remove(peer);
        }
        left
    }

    /// Whether a peer is connected but held back.
    #[must_use]
    pub fn is_bridging(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_some_and(|entry| entry.bridge.is_some())
    }

    /// Whether a peer is connected through relays alone.
    #[must_use]
    pub fn is_relayed(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_some_and(|e| e.direct.is_empty() && !e.relayed.is_empty())
    }

    /// Whether any connection with this peer runs through a relay.
    #[must_use]
    pub fn has_relayed(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_some_and(|entry| !entry.relayed.is_empty())
    }

    /// No hole was found: the relayed connection counts from now on.
    pub fn punch_failed(&mut self, peer: PeerId, now: Instant) -> Option<Bridge> {
        self.punch_failures += 1;
        self.hopeless.retain(|(known, at)| *known != peer && now - *at < HOPELESS_FOR);
        if self.hopeless.len() >= HOPELESS_MAX {
            self.hopeless.pop_front();
        }
        self.hopeless.push_back((peer, now));
        let entry = self.peers.get_mut(&peer)?;
        let bridge = entry.bridge.take()?;
        entry.told = true;
        Some(bridge)
    }

    /// Peers whose holes are overdue.
    #[must_use]
    pub fn overdue(&self, now: Instant) -> Vec<PeerId> {
        let is_late = |entry: &Peer| entry.bridge.as_ref().is_some_and(|b| b.until <= now);
        self.peers.iter().filter(|(_, entry)| is_late(entry)).map(|(peer, _)| *peer).collect()
    }

    /// Relayed connections that a direct one has replaced.
    pub fn take_replaced(&mut self, now: Instant) -> Vec<ConnectionId> {
        let mut connections = Vec::new();
        for entry in self.peers.values_mut() {
            if entry.close_relayed_at.is_some_and(|at| at <= now) {
                entry.close_relayed_at = None;
                if !entry.direct.is_empty() {
                    connections.extend(entry.relayed.keys());
                }
            }
        }
        connections
    }

    /// Relays that connections run through.
    #[must_use]
    pub fn relays(&self) -> BTreeSet<PeerId> {
        self.peers.values().flat_map(|entry| entry.relayed.values().flatten().copied()).collect()
    }

    /// Peers that are reached through a relay at the moment.
    #[must_use]
    pub fn circuits(&self) -> usize {
        self.peers.values().filter(|e| e.direct.is_empty() && !e.relayed.is_empty()).count()
    }

    /// Holes punched, and attempts that failed.
    #[must_use]
    pub const fn punches(&self) -> (u64, u64) {
        (self.punched, self.punch_failures)
    }

    fn is_hopeless(&self, peer: &PeerId, now: Instant) -> bool {
        self.hopeless.iter().any(|(known, at)| known == peer && now - *at < HOPELESS_FOR)
    }
}

/// The relay that a connection runs through: of one that came in, our own address names it.
fn relay_of(endpoint: &ConnectedPoint) -> Option<PeerId> {
    let circuit = match endpoint {
        ConnectedPoint::Dialer { address, .. } => address,
        ConnectedPoint::Listener { local_addr, .. } => local_addr,
    };
    let before = circuit.iter().take_while(|part| !matches!(part, Protocol::P2pCircuit));
    before.filter_map(|part| if let Protocol::P2p(peer) = part { Some(peer) } else { None }).last()
}

#[cfg(test)]
mod tests {
    use libp2p::core::{Endpoint, transport::PortUse};

    use super::*;
    use crate::node::identity;

    fn peer(n: u8) -> PeerId {
        identity::keypair([n; 32]).unwrap().public().to_peer_id()
    }

    fn direct() -> ConnectedPoint {
        let (role_override, port_use) = (Endpoint::Dialer, PortUse::Reuse);
        let address = "/ip4/203.0.113.9/tcp/4001".parse().unwrap();
        ConnectedPoint::Dialer { address, role_override, port_use }
    }

    /// As it comes in: the other side has no address.
    fn relayed() -> ConnectedPoint {
        let local = format!("/ip4/198.51.100.1/tcp/1/p2p/{}/p2p-circuit", peer(9));
        let send_back_addr = format!("/p2p/{}", peer(1)).parse().unwrap();
        ConnectedPoint::Listener { local_addr: local.parse().unwrap(), send_back_addr }
    }

    fn id(n: usize) -> ConnectionId {
        ConnectionId::new_unchecked(n)
    }

    #[tokio::test]
    async fn a_relayed_connection_is_held_back_until_the_hole_is_there() {
        let (mut paths, now) = (Paths::default(), Instant::now());
        assert_eq!(paths.up(peer(1), id(1), &relayed(), true, now), Change::Bridge);
        assert!(paths.is_bridging(&peer(1)) && paths.overdue(now).is_empty());
        assert_eq!(paths.relays().into_iter().collect::<Vec<_>>(), [peer(9)]);
        assert_eq!(paths.up(peer(1), id(2), &direct(), true, now), Change::Up);
        assert!(!paths.is_bridging(&peer(1)) && !paths.is_relayed(&peer(1)));
        assert!(paths.take_replaced(now).is_empty(), "the other side may be later");
        assert_eq!(paths.take_replaced(now + CLOSE_RELAYED_AFTER), [id(1)]);
        assert!(paths.down(&peer(1), id(1)));
        assert!(!paths.down(&peer(1), id(2)));
        assert_eq!(paths.punches(), (1, 0));
    }

    #[tokio::test]
    async fn without_a_hole_the_relay_carries_and_the_pair_does_not_wait_again() {
        let (mut paths, now) = (Paths::default(), Instant::now());
        paths.up(peer(1), id(1), &relayed(), true, now);
        assert_eq!(paths.overdue(now + PUNCH_MAX), [peer(1)]);
        assert!(paths.punch_failed(peer(1), now).is_some());
        assert!(paths.is_relayed(&peer(1)));
        paths.down(&peer(1), id(1));
        assert_eq!(paths.up(peer(1), id(2), &relayed(), true, now), Change::Up);
        // A direct connection that comes late is still better.
        assert_eq!(paths.up(peer(1), id(3), &direct(), true, now), Change::Direct);
        let later = now + HOPELESS_FOR;
        assert_eq!(paths.up(peer(2), id(4), &relayed(), true, later), Change::Bridge);
    }

    #[tokio::test]
    async fn pairs_without_a_hole_are_remembered_within_a_bound() {
        let (mut paths, now) = (Paths::default(), Instant::now());
        for n in 0..=255 {
            paths.punch_failed(peer(n), now);
            paths.punch_failed(peer(n), now);
        }
        paths.punch_failed(PeerId::random(), now);
        assert_eq!(paths.hopeless.len(), HOPELESS_MAX);
    }
}
