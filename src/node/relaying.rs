//! Getting through NATs: relays, punched holes, tests of the own addresses, the router.
//!
//! Owns the limits of relaying for others, where this node reserves a place, and what the events of
//! all these protocols mean. Does not own the evidence (`reach`), the connections (`paths`), nor
//! any decision about streams.

use std::{collections::BTreeMap, num::NonZeroU32, time::Duration};

use astral_core::overlay::{Input, RegistrationView};
use libp2p::{
    Multiaddr, PeerId, autonat,
    core::{ConnectedPoint, transport::ListenerId},
    dcutr,
    multiaddr::Protocol,
    relay,
    swarm::{
        ConnectionId, ExpiredListenAddr, FromSwarm, NetworkBehaviour,
        dial_opts::{DialOpts, PeerCondition},
    },
    upnp,
};
use tokio::time::Instant;

use super::{
    config::NodeConfig,
    dial::is_relayed,
    identity::{self, is_private},
    paths::Change,
    reach::{self, ReachView, Upnp, Verdict},
    run::Driver,
    serving, toll,
};

/// A circuit lives at most so long; its ends make another one, and lose nothing by that.
const CIRCUIT_MAX: Duration = Duration::from_secs(300);
/// Members that hold a place here.
const RESERVATIONS_MAX: usize = 256;
/// Places of one member: it may be in the middle of a change of networks.
const RESERVATIONS_PER_PEER_MAX: usize = 2;
/// A place is kept for so long and renewed before.
const RESERVATION: Duration = Duration::from_secs(3_600);
/// Circuits that one node has here: a viewer with several parents behind NATs.
const CIRCUITS_PER_PEER_MAX: usize = 6;
/// Relays at which a node behind a NAT holds a place: one may die.
const RESERVED_AT: usize = 2;
/// After a refusal a relay is left alone for so long.
const ASK_AGAIN: Duration = Duration::from_secs(20);
/// An address is new for so long: with nothing older left, the network has changed.
const NEW_FOR: Duration = Duration::from_secs(10);

/// The relay that this node is for others; silent until it can be dialled.
pub fn server(me: PeerId, config: &NodeConfig) -> serving::Behaviour {
    let share = config.uplink.map(|uplink| toll::share(uplink).as_bps());
    let rate = config.relay_rate.as_bps().min(share.unwrap_or(u64::MAX)).max(1);
    let mut settings = relay::Config {
        max_reservations: RESERVATIONS_MAX,
        max_reservations_per_peer: RESERVATIONS_PER_PEER_MAX,
        reservation_duration: RESERVATION,
        reservation_rate_limiters: Vec::new(),
        // However many there are, together they keep to their share of the uplink (`toll`); most of
        // them only bring two nodes together and carry next to nothing.
        max_circuits: usize::try_from(config.relay_circuits).unwrap_or(usize::MAX),
        max_circuits_per_peer: CIRCUITS_PER_PEER_MAX,
        max_circuit_duration: CIRCUIT_MAX,
        max_circuit_bytes: rate / 8 * CIRCUIT_MAX.as_secs(),
        circuit_src_rate_limiters: Vec::new(),
    };
    // Bursts are as large as the first number, the second is what fills them up again by one.
    let limit = |n| NonZeroU32::new(n).expect("above zero");
    settings = settings
        .reservation_rate_per_peer(limit(16), Duration::from_secs(5))
        .reservation_rate_per_ip(limit(128), Duration::from_secs(1))
        .circuit_src_per_peer(limit(32), Duration::from_secs(5))
        .circuit_src_per_ip(limit(128), Duration::from_secs(1));
    let mut behaviour = serving::Behaviour::new(relay::Behaviour::new(me, settings));
    behaviour.set_serving(false);
    behaviour
}

/// The places of this node at relays.
#[derive(Debug, Default)]
pub struct Places {
    held: BTreeMap<PeerId, ListenerId>,
    refused: BTreeMap<PeerId, Instant>,
}

impl Places {
    /// A listener closed; whether it was one of these.
    pub fn closed(&mut self, listener: ListenerId, now: Instant) -> bool {
        let relay = self.held.iter().find(|(_, id)| **id == listener).map(|(relay, _)| *relay);
        let Some(relay) = relay else { return false };
        self.held.remove(&relay);
        self.refused.retain(|_, until| *until > now);
        // As many as there are connections, at most.
        self.refused.insert(relay, now + ASK_AGAIN);
        true
    }
}

impl Driver {
    /// A connection is up.
    pub(super) fn connected(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        endpoint: &ConnectedPoint,
    ) {
        let remote = endpoint.get_remote_address().clone();
        let dialled = endpoint.is_dialer();
        if dialled {
            self.dialer.ended(&peer);
            self.strangers.contacted(&remote);
        } else if let ConnectedPoint::Listener { local_addr, send_back_addr } = endpoint
            && !endpoint.is_relayed()
        {
            let punched = self.paths.has_relayed(&peer);
            let stranger = !punched && self.strangers.is_stranger(send_back_addr);
            self.reach.dialled_in(local_addr, send_back_addr, stranger);
            self.reach_changed();
        }
        self.dialer.connected(&peer);
        let now = Instant::now();
        let punches = self.swarm.behaviour().punch.is_enabled();
        match self.paths.up(peer, connection, endpoint, punches, now) {
            Change::Up => self.link_up(peer, remote, dialled),
            Change::Direct => {
                if let Some(link) = self.links.get_mut(&peer) {
                    link.remote = remote;
                    link.dialled = dialled;
                }
            }
            Change::Bridge | Change::Same => {}
        }
    }

    /// A connection is gone.
    pub(super) fn disconnected(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        cause: Option<&libp2p::swarm::ConnectionError>,
    ) {
        if self.paths.down(&peer, connection) {
            return;
        }
        if self.links.get(&peer).is_some() {
            self.link_down(&peer, cause);
        } else if !self.dialer.is_under_way(&peer) {
            self.unreachable(&peer);
        }
    }

    /// A node reached through a relay says where it listens: if anybody can dial it, this node does,
    /// which needs no hole.
    pub(super) fn dial_back(&mut self, peer: PeerId, addrs: &[Multiaddr]) {
        if !self.paths.is_relayed(&peer) || self.dialer.is_under_way(&peer) {
            return;
        }
        let open: Vec<Multiaddr> =
            addrs.iter().filter(|addr| !is_private(addr) && !is_relayed(addr)).cloned().collect();
        if !open.is_empty() {
            let condition = PeerCondition::Always;
            // From the listening port it would meet the hole being punched: one connection for two.
            let dial = DialOpts::peer_id(peer).condition(condition).addresses(open);
            self.dial(dial.allocate_new_port().build());
        }
    }

    /// What is known of this node's reachability changed: everybody who is told learns of it.
    pub(super) fn reach_changed(&mut self) {
        let wanted = self.reach.external();
        let known: Vec<Multiaddr> =
            self.swarm.external_addresses().filter(|addr| !is_relayed(addr)).cloned().collect();
        for addr in known.iter().filter(|addr| !wanted.contains(addr)) {
            self.swarm.remove_external_address(addr);
        }
        for addr in wanted.into_iter().filter(|addr| !known.contains(addr)) {
            self.swarm.add_external_address(addr);
        }
        let serves = self.reach.verdict() == Verdict::Public;
        if let Some(relay) = self.swarm.behaviour_mut().relay.as_mut() {
            relay.set_serving(serves);
        }
        let (addrs, reachable) = (self.reach.told(), self.reach.is_dialable());
        if self.told.as_ref() != Some(&(addrs.clone(), reachable)) {
            self.told = Some((addrs.clone(), reachable));
            self.input(Input::ListenAddrs { addrs, reachable });
        }
    }

    /// Holes that are overdue, relayed connections that are replaced, places at relays.
    pub(super) fn tend_paths(&mut self, now: Instant) {
        for peer in self.paths.overdue(now) {
            self.bridge_counts(peer, now);
        }
        for connection in self.paths.take_replaced(now) {
            self.swarm.close_connection(connection);
        }
        if let Some(taken) = self.taken.look(now) {
            self.input(Input::Relayed(taken));
        }
        for relay in self.paths.relays().into_iter().chain(self.places.held.keys().copied()) {
            self.links.touch(&relay);
        }
        if self.relay_choice.uses() && self.reach.wants_relay() {
            self.reserve(now);
        }
    }

    fn bridge_counts(&mut self, peer: PeerId, now: Instant) {
        if let Some(bridge) = self.paths.punch_failed(peer, now) {
            tracing::debug!(%peer, "no hole: the relay carries");
            self.link_up(peer, bridge.remote, bridge.dialled);
        }
    }

    /// Asks for places at relays: the own supernode first, then whoever relays, nearest first.
    fn reserve(&mut self, now: Instant) {
        if self.places.held.len() >= RESERVED_AT {
            return;
        }
        let home = match self.overlay.snapshot().registration {
            RegistrationView::Registered { supernode, .. } => Some(supernode),
            RegistrationView::Guest { supernode } => supernode,
            RegistrationView::Searching | RegistrationView::Supernode => None,
        };
        let mut relays: Vec<_> = self
            .links
            .iter()
            .filter(|(peer, link)| {
                link.relay_at.is_some()
                    && !self.places.held.contains_key(peer)
                    && self.places.refused.get(peer).is_none_or(|until| *until <= now)
            })
            .map(|(peer, link)| (link.node != home, link.rtt, *peer, link.relay_at.clone()))
            .collect();
        relays.sort_by_key(|(elsewhere, rtt, peer, _)| (*elsewhere, *rtt, *peer));
        for (_, _, relay, at) in relays.into_iter().take(RESERVED_AT - self.places.held.len()) {
            let Some(at) = at else { continue };
            let addr = at.with(Protocol::P2p(relay)).with(Protocol::P2pCircuit);
            match self.swarm.listen_on(addr) {
                Ok(listener) => {
                    self.places.held.insert(relay, listener);
                }
                Err(error) => {
                    tracing::debug!(%relay, %error, "no place at this relay");
                    self.places.refused.insert(relay, now + ASK_AGAIN);
                }
            }
        }
    }

    /// A listener is gone; true when it was a place at a relay.
    pub(super) fn place_lost(&mut self, listener: ListenerId) -> bool {
        self.places.closed(listener, Instant::now())
    }

    /// A listen address is gone: with all that was older of its kind, so is the network, and every
    /// connection through it is dead without knowing.
    pub(super) fn listened_at(&mut self, gone: &Multiaddr, now: Instant) {
        let Some(ip) = reach::ip(gone).filter(|_| !is_relayed(gone)) else { return };
        let is_like = |addr: &Multiaddr| {
            reach::ip(addr).is_some_and(|other| other.is_ipv4() == ip.is_ipv4())
                && !identity::is_loopback(addr)
                && !is_relayed(addr)
        };
        let old_left = self.listen.iter().any(|addr| {
            is_like(addr) && self.since.get(addr).is_some_and(|since| now - *since > NEW_FOR)
        });
        if old_left || !is_like(gone) {
            return;
        }
        tracing::info!(address = %gone, "this machine's address is gone: connections begin anew");
        let dead: Vec<PeerId> = self
            .links
            .iter()
            .filter(|(_, link)| is_like(&link.remote) || is_relayed(&link.remote))
            .map(|(peer, _)| *peer)
            .collect();
        for peer in dead {
            // It may have gone by itself.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        self.dialer.try_again(now);
    }

    pub(super) fn on_relay(&mut self, event: relay::Event) {
        use relay::Event::{CircuitClosed, CircuitReqAccepted, CircuitReqDenied};
        match event {
            relay::Event::ReservationReqAccepted { src_peer_id: peer, .. } => {
                self.links.keep(&peer, 1);
            }
            relay::Event::ReservationClosed { src_peer_id: peer }
            | relay::Event::ReservationTimedOut { src_peer_id: peer } => self.links.keep(&peer, -1),
            CircuitReqAccepted { src_peer_id, dst_peer_id } => {
                self.links.keep(&src_peer_id, 1);
                self.links.keep(&dst_peer_id, 1);
                self.counters.circuits_served += 1;
            }
            CircuitClosed { src_peer_id, dst_peer_id, error } => {
                tracing::debug!(%src_peer_id, %dst_peer_id, ?error, "circuit closed");
                self.links.keep(&src_peer_id, -1);
                self.links.keep(&dst_peer_id, -1);
            }
            CircuitReqDenied { src_peer_id, status, .. } => {
                self.counters.circuits_refused += 1;
                tracing::debug!(%src_peer_id, ?status, "circuit refused");
            }
            // What the library logs itself.
            _ => {}
        }
    }

    pub(super) fn on_punch(&mut self, event: dcutr::Event) {
        if let Err(error) = event.result {
            tracing::debug!(peer = %event.remote_peer_id, %error, "no hole punched");
            self.bridge_counts(event.remote_peer_id, Instant::now());
        }
    }

    pub(super) fn on_autonat(&mut self, event: autonat::v2::client::Event) {
        tracing::debug!(address = %event.tested_addr, ok = event.result.is_ok(), "address tested");
        self.reach.tested(&event.tested_addr, event.result.is_ok());
        self.reach_changed();
    }

    pub(super) fn on_upnp(&mut self, event: upnp::Event) {
        match event {
            upnp::Event::NewExternalAddr { external_addr, .. } => {
                tracing::info!(address = %external_addr, "the router forwards a port");
                self.reach.mapped(external_addr);
            }
            upnp::Event::ExpiredExternalAddr { external_addr, .. } => {
                self.reach.unmapped(&external_addr);
            }
            upnp::Event::GatewayNotFound => self.reach.no_gateway(Upnp::NoGateway),
            upnp::Event::NonRoutableGateway => self.reach.no_gateway(Upnp::NotRoutable),
        }
        self.reach_changed();
    }

    /// Tells the router that this node listens no more; false when it forwards nothing.
    pub(super) fn give_ports_back(&mut self) -> bool {
        let Some(upnp) = self.swarm.behaviour_mut().upnp.as_mut() else { return false };
        if self.reach.view().upnp != Upnp::Mapped {
            return false;
        }
        for addr in &self.listen {
            // It looks at the address alone; the listeners close with their connections.
            let listener_id = ListenerId::next();
            upnp.on_swarm_event(FromSwarm::ExpiredListenAddr(ExpiredListenAddr {
                listener_id,
                addr,
            }));
        }
        true
    }

    /// For the API.
    pub(super) fn reach_view(&self) -> ReachView {
        let (punched, punch_failures) = self.paths.punches();
        let serves = self.swarm.behaviour().relay.is_enabled();
        ReachView {
            serves_relay: serves && self.reach.verdict() == Verdict::Public,
            punched,
            punch_failures,
            circuits: self.paths.circuits(),
            ..self.reach.view()
        }
    }
}
