//! Whether other nodes can dial this one, and at which addresses.
//!
//! Owns the evidence (listen addresses, what others observe, tests by AutoNAT, UPnP, strangers that
//! dialled in, reservations with relays) and the verdict per transport drawn from it. Does not own
//! the swarm, nor when reservations are made (`relaying`).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use astral_core::overlay::{ADDRS_MAX, Addr};
use libp2p::{Multiaddr, multiaddr::Protocol};
use serde::Serialize;

use super::{
    dial::{is_dialable, is_relayed},
    identity::{self, is_loopback, is_private},
    translate,
};

/// Observers that are remembered per transport; the class of a NAT needs two.
const OBSERVERS_MAX: usize = 16;
/// Addresses that tests, the router or the settings say are ours.
const EXTERNAL_MAX: usize = 8;
/// Hosts remembered as contacted; beyond these nobody counts as a stranger.
const CONTACTED_MAX: usize = 2_048;
/// Addresses at relays.
const CIRCUITS_MAX: usize = 4;
/// Of these, those that others are told: more only lengthen every list of candidates.
const CIRCUITS_TOLD_MAX: usize = 2;

/// Whether others can dial this node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nobody outside the local network has said anything yet.
    #[default]
    Unknown,
    /// Strangers can.
    Public,
    /// A NAT or a firewall is between: only through a relay, a punched hole, or when this node
    /// dials.
    Private,
}

/// How the NAT before this node maps its ports, as those see it who were dialled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NatKind {
    /// Fewer than two observers so far.
    #[default]
    Unknown,
    /// Others see this node's own address.
    None,
    /// One mapping for everybody: holes can be punched.
    Cone,
    /// A mapping for each destination: only towards nodes that anybody can dial, or through relays.
    Symmetric,
}

/// One way of being dialled.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// TCP over IPv4.
    Tcp4,
    /// QUIC over IPv4.
    Quic4,
    /// TCP over IPv6.
    Tcp6,
    /// QUIC over IPv6.
    Quic6,
}

impl Transport {
    /// In words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp4 => "TCP over IPv4",
            Self::Quic4 => "QUIC over IPv4",
            Self::Tcp6 => "TCP over IPv6",
            Self::Quic6 => "QUIC over IPv6",
        }
    }
}

/// What the router said to UPnP.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Upnp {
    /// Not asked.
    #[default]
    Off,
    /// Asked, no answer yet.
    Searching,
    /// It forwards a port.
    Mapped,
    /// There is none that answers.
    NoGateway,
    /// It is itself behind another NAT.
    NotRoutable,
}

/// Everything known about this node's reachability, for the API and `doctor`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct ReachView {
    /// All transports together.
    pub verdict: Verdict,
    /// Each transport that this node listens on.
    pub transports: BTreeMap<Transport, Verdict>,
    /// What kind of NAT is before it.
    pub nat: NatKind,
    /// Addresses outside the local network at which it was found or is forwarded to.
    pub external: Vec<String>,
    /// Addresses at relays, through which everybody reaches it.
    pub relayed: Vec<String>,
    /// What the router said.
    pub upnp: Upnp,
    /// Whether this node relays for others at the moment.
    pub serves_relay: bool,
    /// Connections through holes punched since the start.
    pub punched: u64,
    /// Attempts at that which failed.
    pub punch_failures: u64,
    /// Connections that run through a relay at the moment.
    pub circuits: usize,
}

/// The evidence.
#[derive(Debug, Default)]
pub struct Reach {
    listen: Vec<Multiaddr>,
    /// Given by the settings: a forwarded port.
    configured: Vec<Multiaddr>,
    /// Forwarded by the router.
    mapped: Vec<Multiaddr>,
    /// Where a test came through: perhaps only because this node had dialled the tester before.
    tested: Vec<Multiaddr>,
    failed: BTreeSet<Transport>,
    /// Transports on which a stranger dialled in, with certainty.
    proven: BTreeSet<Transport>,
    /// Somebody on the local network dialled in.
    was_dialled: bool,
    observed: BTreeMap<(Transport, IpAddr), Multiaddr>,
    circuits: Vec<Multiaddr>,
    upnp: Upnp,
}

impl Reach {
    /// Nothing is known yet but what the settings say.
    #[must_use]
    pub fn new(configured: &[Multiaddr], upnp: bool) -> Self {
        let configured = configured.iter().take(EXTERNAL_MAX);
        Self {
            configured: configured.map(|addr| identity::split_peer(addr).0).collect(),
            upnp: if upnp { Upnp::Searching } else { Upnp::Off },
            ..Self::default()
        }
    }

    /// The listeners' addresses changed; with the network itself (another address than before) all
    /// that was learnt about it goes.
    pub fn listening(&mut self, listen: &[Multiaddr]) {
        let (circuits, direct): (Vec<_>, Vec<_>) = listen.iter().cloned().partition(is_relayed);
        self.circuits = circuits.into_iter().take(CIRCUITS_MAX).collect();
        let gone = self.listen.iter().any(|old| !is_loopback(old) && !direct.contains(old));
        self.listen = direct;
        if gone {
            self.tested.clear();
            self.failed.clear();
            self.proven.clear();
            self.observed.clear();
            self.was_dialled = false;
        }
    }

    /// The node at `observer`, which we dialled, sees us at `at`.
    pub fn observed(&mut self, observer: &Multiaddr, at: &Multiaddr) {
        let (Some(by), Some(transport)) = (ip(observer), transport(at)) else { return };
        if is_private(observer) || is_private(at) || is_relayed(observer) || is_relayed(at) {
            return;
        }
        let is_known = self.observed.contains_key(&(transport, by));
        if is_known || self.observed.len() < OBSERVERS_MAX {
            self.observed.insert((transport, by), identity::split_peer(at).0);
        }
    }

    /// Somebody dialled in from `remote`; `stranger`: an address that nothing was ever sent to, so
    /// that no NAT or firewall can have taken it for an answer.
    pub fn dialled_in(&mut self, local: &Multiaddr, remote: &Multiaddr, stranger: bool) {
        if is_private(remote) {
            self.was_dialled = true;
        } else if stranger && let Some(transport) = transport(local) {
            self.proven.insert(transport);
        }
    }

    /// A node that we asked dialled this address of ours, or could not.
    pub fn tested(&mut self, addr: &Multiaddr, came_through: bool) {
        let addr = identity::split_peer(addr).0;
        let Some(transport) = transport(&addr) else { return };
        if is_private(&addr) || is_relayed(&addr) {
            return;
        }
        if came_through {
            self.failed.remove(&transport);
            keep(&mut self.tested, addr);
        } else {
            self.tested.retain(|known| *known != addr);
            self.failed.insert(transport);
        }
    }

    /// The router forwards a port.
    pub fn mapped(&mut self, addr: Multiaddr) {
        self.upnp = Upnp::Mapped;
        keep(&mut self.mapped, addr);
    }

    /// The router does not any more.
    pub fn unmapped(&mut self, addr: &Multiaddr) {
        self.mapped.retain(|known| known != addr);
        if self.mapped.is_empty() {
            self.upnp = Upnp::Searching;
        }
    }

    /// There is no router to ask, or it is of no use.
    pub fn no_gateway(&mut self, why: Upnp) {
        self.upnp = why;
    }

    /// Whether others see this node at an address that is not its own.
    #[must_use]
    pub fn is_behind_nat(&self) -> bool {
        self.observed.values().any(|at| !self.is_own(at))
    }

    /// Whether the node should hold a place at a relay: something is between it and others that
    /// was not told to let them through.
    #[must_use]
    pub fn wants_relay(&self) -> bool {
        let forwarded = !self.configured.is_empty() || !self.mapped.is_empty();
        self.verdict() == Verdict::Private || self.is_behind_nat() && !forwarded
    }

    /// Everything together.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let verdicts = self.transports();
        if verdicts.values().any(|verdict| *verdict == Verdict::Public) {
            Verdict::Public
        } else if verdicts.values().any(|verdict| *verdict == Verdict::Private) {
            Verdict::Private
        } else {
            Verdict::Unknown
        }
    }

    /// Whether others than those behind the same router can be promised a way in: what a supernode
    /// needs. In a network that nobody outside has looked at, everybody can.
    #[must_use]
    pub fn is_dialable(&self) -> bool {
        match self.verdict() {
            Verdict::Public => true,
            Verdict::Unknown => !self.listen.is_empty(),
            Verdict::Private => false,
        }
    }

    /// What others are told, best first.
    #[must_use]
    pub fn told(&self) -> Vec<Addr> {
        let behind_nat = self.is_behind_nat();
        let mut addrs: Vec<&Multiaddr> = Vec::new();
        let external = self.configured.iter().chain(&self.mapped).chain(&self.tested);
        let mut own: Vec<&Multiaddr> =
            self.listen.iter().filter(|addr| is_dialable(addr) && !is_link_local(addr)).collect();
        own.sort_by_key(|addr| (is_loopback(addr), is_private(addr)));
        let (global, local): (Vec<_>, Vec<_>) = own.into_iter().partition(|addr| !is_private(addr));
        let circuits = self.circuits.iter().take(CIRCUITS_TOLD_MAX);
        for addr in global.into_iter().chain(external) {
            if !addrs.contains(&addr) {
                addrs.push(addr);
            }
        }
        // Beside a relay, half the room is enough for what may not lead anywhere.
        addrs.truncate(ADDRS_MAX / 2);
        addrs.extend(circuits);
        // Without any of these a node behind a NAT can't be reached by those it does not know: it
        // names no address, so that nobody is sent to it. Its own network finds it by mDNS.
        if !addrs.is_empty() || !behind_nat {
            // Loopback is told only by those who have nothing that leads further.
            let outward = !addrs.is_empty() || behind_nat;
            addrs.extend(local.into_iter().filter(|addr| !outward || !is_loopback(addr)));
        }
        let mut seen = BTreeSet::new();
        addrs
            .into_iter()
            .map(|addr| identity::split_peer(addr).0)
            .filter(|addr| seen.insert(addr.to_string()))
            .take(ADDRS_MAX)
            .filter_map(|addr| translate::addr(&addr))
            .collect()
    }

    /// The addresses for `add_external_address`: a relay names them to those that reserve with it.
    #[must_use]
    pub fn external(&self) -> Vec<Multiaddr> {
        let own = self.listen.iter().filter(|addr| !is_private(addr) && is_dialable(addr));
        let own = own.filter(|addr| {
            transport(addr).is_some_and(|transport| self.verdict_of(transport) == Verdict::Public)
        });
        let known = self.configured.iter().chain(&self.mapped).chain(&self.tested).chain(own);
        let mut all: Vec<Multiaddr> = Vec::new();
        for addr in known {
            keep(&mut all, addr.clone());
        }
        all
    }

    /// For the API; counters are the caller's.
    #[must_use]
    pub fn view(&self) -> ReachView {
        ReachView {
            verdict: self.verdict(),
            transports: self.transports(),
            nat: self.nat(),
            external: self.external().iter().map(ToString::to_string).collect(),
            relayed: self.circuits.iter().map(ToString::to_string).collect(),
            upnp: self.upnp,
            ..ReachView::default()
        }
    }

    fn transports(&self) -> BTreeMap<Transport, Verdict> {
        let outward = self.listen.iter().filter(|addr| !is_loopback(addr) && !is_link_local(addr));
        outward.filter_map(transport).map(|t| (t, self.verdict_of(t))).collect()
    }

    fn verdict_of(&self, of: Transport) -> Verdict {
        let is_of = |addr: &Multiaddr| transport(addr) == Some(of);
        let forwarded = self.configured.iter().chain(&self.mapped).any(is_of);
        // A test proves it only where no NAT can have let it in as an answer.
        let open = self.tested.iter().any(|addr| is_of(addr) && self.is_own(addr));
        if self.proven.contains(&of) || forwarded || open {
            return Verdict::Public;
        }
        let behind_nat = self.observed.values().any(|at| is_of(at) && !self.is_own(at));
        if behind_nat || self.failed.contains(&of) {
            return Verdict::Private;
        }
        Verdict::Unknown
    }

    fn nat(&self) -> NatKind {
        let mut kind = NatKind::Unknown;
        for ((of, by), at) in &self.observed {
            if self.is_own(at) {
                kind = NatKind::None;
                continue;
            }
            let others = self.observed.iter().filter(|((t, o), _)| t == of && o != by);
            for (_, other) in others {
                if other != at {
                    return NatKind::Symmetric;
                }
                kind = NatKind::Cone;
            }
        }
        kind
    }

    fn is_own(&self, addr: &Multiaddr) -> bool {
        self.listen.iter().any(|own| ip(own) == ip(addr))
    }
}

/// Hosts that this node has sent something to: what comes from them may be let in as an answer.
#[derive(Debug, Default)]
pub struct Strangers {
    contacted: BTreeSet<IpAddr>,
}

impl Strangers {
    /// Something was sent there.
    pub fn contacted(&mut self, addr: &Multiaddr) {
        if let Some(ip) = ip(addr).filter(|_| self.contacted.len() < CONTACTED_MAX) {
            self.contacted.insert(ip);
        }
    }

    /// Whether nothing ever was, with certainty.
    #[must_use]
    pub fn is_stranger(&self, addr: &Multiaddr) -> bool {
        self.contacted.len() < CONTACTED_MAX
            && ip(addr).is_some_and(|ip| !self.contacted.contains(&ip))
    }
}

/// The address' host.
#[must_use]
pub fn ip(addr: &Multiaddr) -> Option<IpAddr> {
    match addr.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    }
}

/// What a direct address is dialled with; `None` for names and relays.
#[must_use]
pub fn transport(addr: &Multiaddr) -> Option<Transport> {
    let ip = ip(addr)?;
    match (ip.is_ipv4(), identity::is_quic(addr)) {
        _ if is_relayed(addr) => None,
        (true, false) => Some(Transport::Tcp4),
        (true, true) => Some(Transport::Quic4),
        (false, false) => Some(Transport::Tcp6),
        (false, true) => Some(Transport::Quic6),
    }
}

/// An address that means something only on one wire.
pub fn is_link_local(addr: &Multiaddr) -> bool {
    match ip(addr) {
        Some(IpAddr::V4(ip)) => ip.is_link_local(),
        Some(IpAddr::V6(ip)) => ip.is_unicast_link_local(),
        None => false,
    }
}

fn keep(list: &mut Vec<Multiaddr>, addr: Multiaddr) {
    if list.len() < EXTERNAL_MAX && !list.contains(&addr) {
        list.push(addr);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    fn told(reach: &Reach) -> Vec<String> {
        reach.told().iter().map(|addr| addr.as_str().to_owned()).collect()
    }

    const RELAY: &str = "/ip4/198.51.100.1/tcp/4001/p2p/\
                         12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN/p2p-circuit";

    fn home() -> Reach {
        let mut reach = Reach::new(&[], false);
        reach.listening(&["/ip4/192.168.1.2/tcp/4001", "/ip4/127.0.0.1/tcp/4001"].map(addr));
        reach
    }

    #[test]
    fn others_are_told_public_addresses_first_and_loopback_only_without_any() {
        let mut reach = Reach::new(&[], false);
        reach.listening(
            &[
                "/ip4/127.0.0.1/tcp/1",
                "/ip4/192.168.1.2/tcp/1",
                "/ip4/8.8.8.8/tcp/1",
                "/ip4/8.8.8.8/udp/1/quic-v1",
                "/ip6/fe80::1/tcp/1",
            ]
            .map(addr),
        );
        assert_eq!(
            told(&reach),
            ["/ip4/8.8.8.8/tcp/1", "/ip4/8.8.8.8/udp/1/quic-v1", "/ip4/192.168.1.2/tcp/1"]
        );
        assert_eq!(told(&home()), ["/ip4/192.168.1.2/tcp/4001", "/ip4/127.0.0.1/tcp/4001"]);
    }

    #[test]
    fn a_network_that_nobody_outside_has_seen_works_as_it_is() {
        let mut reach = home();
        // Neighbours see private addresses: they say nothing about the world.
        reach.observed(&addr("/ip4/192.168.1.3/tcp/4001"), &addr("/ip4/192.168.1.2/tcp/4001"));
        assert_eq!(reach.verdict(), Verdict::Unknown);
        assert!(reach.is_dialable());
        assert_eq!(told(&reach).len(), 2);
    }

    #[test]
    fn behind_a_nat_a_node_is_told_by_its_relay_or_not_at_all() {
        let mut reach = home();
        reach.observed(&addr("/ip4/198.51.100.1/tcp/4001"), &addr("/ip4/203.0.113.9/tcp/4001"));
        assert_eq!(reach.verdict(), Verdict::Private);
        assert!(!reach.is_dialable() && reach.wants_relay());
        assert!(told(&reach).is_empty(), "{:?}", told(&reach));
        reach.listening(&[addr("/ip4/192.168.1.2/tcp/4001"), addr(RELAY)]);
        assert_eq!(told(&reach), [RELAY.to_owned(), "/ip4/192.168.1.2/tcp/4001".to_owned()]);
    }

    #[test]
    fn two_observers_tell_one_mapping_from_one_for_each() {
        let mut reach = home();
        let seen = addr("/ip4/203.0.113.9/tcp/4001");
        reach.observed(&addr("/ip4/198.51.100.1/tcp/4001"), &seen);
        assert_eq!(reach.view().nat, NatKind::Unknown);
        reach.observed(&addr("/ip4/198.51.100.2/tcp/4001"), &seen);
        assert_eq!(reach.view().nat, NatKind::Cone);
        reach.observed(&addr("/ip4/198.51.100.3/tcp/1"), &addr("/ip4/203.0.113.9/tcp/61002"));
        assert_eq!(reach.view().nat, NatKind::Symmetric);
    }

    #[test]
    fn a_test_by_a_known_node_is_told_but_only_a_stranger_proves_it() {
        let mut reach = home();
        let outside = addr("/ip4/203.0.113.9/tcp/4001");
        reach.observed(&addr("/ip4/198.51.100.1/tcp/4001"), &outside);
        reach.tested(&outside, true);
        assert_eq!(reach.verdict(), Verdict::Private);
        assert_eq!(told(&reach)[0], "/ip4/203.0.113.9/tcp/4001");
        let (local, remote) =
            (addr("/ip4/192.168.1.2/tcp/4001"), addr("/ip4/198.51.100.77/tcp/5555"));
        reach.dialled_in(&local, &remote, false);
        assert_eq!(reach.verdict(), Verdict::Private);
        reach.dialled_in(&local, &remote, true);
        assert_eq!(reach.verdict(), Verdict::Public);
        assert_eq!(reach.external(), [outside]);
    }

    #[test]
    fn a_public_address_behind_a_firewall_is_found_out_by_tests() {
        let mut reach = Reach::new(&[], false);
        let own = addr("/ip4/8.8.8.8/tcp/4001");
        reach.listening(std::slice::from_ref(&own));
        assert!(reach.is_dialable());
        reach.tested(&own, false);
        assert_eq!(reach.verdict(), Verdict::Private);
        reach.tested(&own, true);
        assert_eq!(reach.verdict(), Verdict::Public);
    }

    #[test]
    fn in_another_network_nothing_learnt_before_counts() {
        let mut reach = home();
        reach.observed(&addr("/ip4/198.51.100.1/tcp/4001"), &addr("/ip4/203.0.113.9/tcp/4001"));
        reach.listening(&[addr("/ip4/10.0.0.7/tcp/4001")]);
        assert_eq!(reach.verdict(), Verdict::Unknown);
        assert_eq!(told(&reach), ["/ip4/10.0.0.7/tcp/4001"]);
    }

    #[test]
    fn what_others_say_is_bounded() {
        let mut reach = home();
        for n in 0..=255_u8 {
            let at = addr(&format!("/ip4/203.0.113.{n}/tcp/4001"));
            reach.observed(&addr(&format!("/ip4/198.51.100.{n}/tcp/1")), &at);
            reach.tested(&at, true);
            reach.mapped(at);
        }
        assert_eq!(reach.observed.len(), OBSERVERS_MAX);
        assert_eq!((reach.tested.len(), reach.mapped.len()), (EXTERNAL_MAX, EXTERNAL_MAX));
        assert!(reach.told().len() <= ADDRS_MAX);
    }
}
