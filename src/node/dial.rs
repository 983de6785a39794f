//! How nodes are dialled: TCP with a head start before QUIC, relays last, bootstrap addresses with
//! back-off.
//!
//! Owns which addresses are tried when. Does not own the decision to dial a node (the overlay's),
//! nor the swarm that dials.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use libp2p::{
    Multiaddr, PeerId,
    multiaddr::Protocol,
    swarm::{
        DialError,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use tokio::time::Instant;

use super::identity;

/// What TCP gets before QUIC is tried as well: fan-out over TCP with Noise is cheaper, QUIC gets
/// through where TCP does not.
const TCP_HEAD_START: Duration = Duration::from_millis(400);
/// Dials with further stages that are remembered at once.
const STAGED_MAX: usize = 256;
/// Addresses tried per node.
const ADDRS_MAX: usize = 8;
/// Bootstrap addresses taken from the settings.
const BOOTSTRAP_MAX: usize = 64;
/// First and longest pause between two attempts at a bootstrap address.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Dials under way and bootstrap addresses.
#[derive(Debug, Default)]
pub struct Dialer {
    staged: BTreeMap<PeerId, Staged>,
    under_way: BTreeMap<PeerId, u32>,
    bootstrap: Vec<Bootstrap>,
}

/// What is tried next, each of them after the same head start.
#[derive(Debug)]
struct Staged {
    rest: VecDeque<Vec<Multiaddr>>,
    at: Instant,
}

#[derive(Debug)]
struct Bootstrap {
    addr: Multiaddr,
    peer: Option<PeerId>,
    due: Instant,
    pause: Duration,
    /// Somebody was told that it does not answer.
    told: bool,
}

impl Dialer {
    /// A dialer for these bootstrap addresses, all due at once.
    #[must_use]
    pub fn new(bootstrap: &[Multiaddr], now: Instant) -> Self {
        let bootstrap = bootstrap
            .iter()
            .take(BOOTSTRAP_MAX)
            .map(|whole| {
                let (addr, peer) = identity::split_peer(whole);
                Bootstrap { addr, peer, due: now, pause: BACKOFF.0, told: false }
            })
            .collect();
        Self { staged: BTreeMap::new(), under_way: BTreeMap::new(), bootstrap }
    }

    /// What to dial first to reach `peer`; the rest follows by [`Self::due`] or [`Self::failed`].
    pub fn dial(&mut self, peer: PeerId, addrs: Vec<Multiaddr>, now: Instant) -> Option<DialOpts> {
        let (relayed, direct): (Vec<_>, Vec<_>) =
            addrs.into_iter().take(ADDRS_MAX).partition(is_relayed);
        let (quic, tcp): (Vec<_>, Vec<_>) = direct.into_iter().partition(identity::is_quic);
        let mut stages: VecDeque<_> =
            [tcp, quic, relayed].into_iter().filter(|addrs| !addrs.is_empty()).collect();
        let first = stages.pop_front()?;
        if !stages.is_empty() && self.staged.len() < STAGED_MAX {
            let staged = Staged { rest: stages, at: now + TCP_HEAD_START };
            self.staged.entry(peer).or_insert(staged);
        }
        Some(opts(peer, first, PeerCondition::DisconnectedAndNotDialing))
    }

    /// The swarm began a dial.
    pub fn started(&mut self, peer: PeerId) {
        *self.under_way.entry(peer).or_default() += 1;
    }

    /// A dial ended, well or not; whether another one to the same peer is under way.
    pub fn ended(&mut self, peer: &PeerId) -> bool {
        let left = self.under_way.get(peer).map_or(0, |dials| dials.saturating_sub(1));
        if left == 0 {
            self.under_way.remove(peer);
        } else {
            self.under_way.insert(*peer, left);
        }
        left > 0
    }

    /// Whether a dial to this peer is under way.
    #[must_use]
    pub fn is_under_way(&self, peer: &PeerId) -> bool {
        self.under_way.contains_key(peer)
    }

    /// The connection is there: nothing more to try.
    pub fn connected(&mut self, peer: &PeerId) {
        self.staged.remove(peer);
        for bootstrap in &mut self.bootstrap {
            if bootstrap.peer.as_ref() == Some(peer) {
                bootstrap.pause = BACKOFF.0;
            }
        }
    }

    /// A dial failed: the next stage now, if there is one.
    pub fn failed(&mut self, peer: &PeerId, now: Instant) -> Option<DialOpts> {
        let staged = self.staged.get_mut(peer)?;
        let next = staged.rest.pop_front();
        staged.at = now + TCP_HEAD_START;
        if staged.rest.is_empty() {
            self.staged.remove(peer);
        }
        Some(opts(*peer, next?, PeerCondition::Disconnected))
    }

    /// The bootstrap address of a dial that failed, the first time that it does.
    pub fn unanswered(&mut self, peer: Option<&PeerId>, error: &DialError) -> Option<Multiaddr> {
        let tried = |addr: &Multiaddr| match error {
            DialError::Transport(tried) => tried.iter().any(|(at, _)| at.starts_with(addr)),
            _ => false,
        };
        let bootstrap = self.bootstrap.iter_mut().find(|bootstrap| match &bootstrap.peer {
            Some(wanted) => peer == Some(wanted),
            None => tried(&bootstrap.addr),
        })?;
        (!std::mem::replace(&mut bootstrap.told, true)).then(|| bootstrap.addr.clone())
    }

    /// The network is another one now: bootstrap addresses are worth a try at once.
    pub fn try_again(&mut self, now: Instant) {
        for bootstrap in &mut self.bootstrap {
            bootstrap.due = now;
            bootstrap.pause = BACKOFF.0;
        }
    }

    /// Everything that is due: further stages and, while `isolated`, bootstrap addresses.
    pub fn due(&mut self, now: Instant, isolated: bool) -> Vec<DialOpts> {
        let late: Vec<PeerId> =
            self.staged.iter().filter(|(_, s)| s.at <= now).map(|(peer, _)| *peer).collect();
        let mut dials: Vec<DialOpts> =
            late.into_iter().filter_map(|peer| self.failed(&peer, now)).collect();
        if isolated {
            for bootstrap in self.bootstrap.iter_mut().filter(|b| b.due <= now) {
                bootstrap.due = now + bootstrap.pause;
                bootstrap.pause = (bootstrap.pause * 2).min(BACKOFF.1);
                dials.push(match bootstrap.peer {
                    Some(peer) => opts(
                        peer,
                        vec![bootstrap.addr.clone()],
                        PeerCondition::DisconnectedAndNotDialing,
                    ),
                    None => DialOpts::unknown_peer_id().address(bootstrap.addr.clone()).build(),
                });
            }
        }
        dials
    }
}

fn opts(peer: PeerId, addrs: Vec<Multiaddr>, condition: PeerCondition) -> DialOpts {
    DialOpts::peer_id(peer).condition(condition).addresses(addrs).build()
}

/// Whether an address is one that this node can dial: an IP or a name, TCP or QUIC-v1, at the end
/// perhaps through a relay there.
#[must_use]
pub fn is_dialable(addr: &Multiaddr) -> bool {
    use Protocol::{Dns, Dns4, Dns6, Ip4, Ip6, P2p, P2pCircuit, QuicV1, Tcp, Udp};
    let parts: Vec<Protocol<'_>> = addr.iter().collect();
    let host = matches!(parts.first(), Some(Ip4(_) | Ip6(_) | Dns(_) | Dns4(_) | Dns6(_)));
    host && matches!(
        &parts[1..],
        [Tcp(_)]
            | [Udp(_), QuicV1]
            | [Tcp(_), P2p(_), P2pCircuit]
            | [Udp(_), QuicV1, P2p(_), P2pCircuit]
    )
}

/// Whether an address leads through a relay.
#[must_use]
pub fn is_relayed(addr: &Multiaddr) -> bool {
    addr.iter().any(|part| matches!(part, Protocol::P2pCircuit))
}

#[cfg(test)]
mod tests {
    use libp2p::TransportError;

    use super::*;

    fn peer(n: u8) -> PeerId {
        identity::keypair([n; 32]).unwrap().public().to_peer_id()
    }

    fn addr(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn quic_is_tried_when_tcp_fails_or_is_late() {
        let now = Instant::now();
        let mut dialer = Dialer::default();
        let both = vec![addr("/ip4/1.2.3.4/udp/1/quic-v1"), addr("/ip4/1.2.3.4/tcp/1")];
        assert!(dialer.dial(peer(1), both.clone(), now).is_some());
        assert_eq!(dialer.due(now, false).len(), 0);
        assert_eq!(dialer.due(now + TCP_HEAD_START, false).len(), 1);
        assert!(dialer.dial(peer(1), both, now).is_some());
        assert!(dialer.failed(&peer(1), now).is_some());
        assert!(dialer.failed(&peer(1), now).is_none());
    }

    #[tokio::test]
    async fn a_relay_is_tried_after_every_direct_address() {
        let now = Instant::now();
        let mut dialer = Dialer::default();
        let relayed = format!("/ip4/1.2.3.4/tcp/1/p2p/{}/p2p-circuit", peer(9));
        let all = ["/ip4/10.0.0.1/udp/1/quic-v1", &relayed, "/ip4/10.0.0.1/tcp/1"].map(addr);
        assert!(dialer.dial(peer(1), all.to_vec(), now).is_some());
        let dialled = |dials: Vec<DialOpts>| format!("{dials:?}");
        assert!(dialled(dialer.due(now + TCP_HEAD_START, false)).contains("quic-v1"));
        assert_eq!(dialer.due(now + TCP_HEAD_START, false).len(), 0);
        assert!(dialled(dialer.due(now + 2 * TCP_HEAD_START, false)).contains("p2p-circuit"));
        assert_eq!(dialer.due(now + 3 * TCP_HEAD_START, false).len(), 0);
    }

    #[tokio::test]
    async fn bootstrap_is_dialled_with_pauses_and_only_while_alone() {
        let now = Instant::now();
        let mut dialer = Dialer::new(&[addr("/ip4/1.2.3.4/tcp/1")], now);
        assert_eq!(dialer.due(now, true).len(), 1);
        assert_eq!(dialer.due(now, true).len(), 0);
        let mut at = now;
        let mut dials = 0;
        for _ in 0..600 {
            at += Duration::from_secs(1);
            dials += dialer.due(at, true).len();
        }
        assert!((10..20).contains(&dials), "{dials} dials in ten minutes");
        assert_eq!(dialer.due(at + Duration::from_secs(600), false).len(), 0);
    }

    #[tokio::test]
    async fn a_bootstrap_address_that_does_not_answer_is_told_once() {
        let (known, stranger) = (addr("/ip4/1.2.3.4/tcp/1"), addr("/ip4/1.2.3.5/tcp/1"));
        let named = addr(&format!("{stranger}/p2p/{}", peer(1)));
        let mut dialer = Dialer::new(&[known.clone(), named], Instant::now());
        let refused = |addr: &Multiaddr| {
            let reason = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
            DialError::Transport(vec![(addr.clone(), TransportError::Other(reason))])
        };
        assert_eq!(dialer.unanswered(None, &refused(&addr("/ip4/9.9.9.9/tcp/1"))), None);
        assert_eq!(dialer.unanswered(Some(&peer(2)), &refused(&stranger)), None);
        assert_eq!(dialer.unanswered(None, &refused(&known)), Some(known.clone()));
        assert_eq!(dialer.unanswered(None, &refused(&known)), None, "once");
        assert_eq!(dialer.unanswered(Some(&peer(1)), &refused(&stranger)), Some(stranger.clone()));
    }

    #[test]
    fn only_ip_or_name_over_tcp_or_quic_is_dialled() {
        assert!(is_dialable(&addr("/dns4/example.org/tcp/1")));
        assert!(is_dialable(&addr("/ip6/::1/udp/1/quic-v1")));
        let relay = peer(1);
        assert!(is_dialable(&addr(&format!("/ip4/1.2.3.4/tcp/1/p2p/{relay}/p2p-circuit"))));
        assert!(!is_dialable(&addr(&format!("/p2p/{relay}/p2p-circuit"))));
        assert!(!is_dialable(&addr("/ip4/1.2.3.4/udp/1")));
        assert!(!is_dialable(&addr("/memory/1")));
        assert!(!is_dialable(&Multiaddr::empty()));
    }
}
