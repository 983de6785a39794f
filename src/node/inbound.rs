//! What the swarm says, in the overlay's words.
//!
//! Owns the meaning of every swarm event. Does not own any decision: what an event leads to is the
//! overlay's business.

use std::time::Duration;

use astral_core::{
    ids::NodeId,
    overlay::{ADDRS_MAX, Addr, Contact, DirRequest, Input, Request, Response, Role},
};
use libp2p::{
    Multiaddr, PeerId, gossipsub, identify, kad, mdns, ping, relay, request_response,
    request_response::Message,
    swarm::{ConnectionError, DialError, SwarmEvent},
};
use tokio::time::Instant;

use super::{
    behaviour::{BehaviourEvent, KAD_PROTOCOL},
    codec::Asked,
    dial::{is_dialable, is_relayed},
    feed::behaviour as feed,
    gossip::Received,
    identity::{self, is_loopback, is_private},
    requests::{self, Channel, Protocol},
    run::Driver,
    translate,
};

impl Driver {
    /// One event of the swarm.
    pub(super) fn on_swarm(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.connected(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, cause, .. } => {
                self.disconnected(peer_id, connection_id, cause.as_ref());
            }
            SwarmEvent::OutgoingConnectionError { peer_id, error, .. } => {
                self.dial_failed(peer_id, &error);
            }
            SwarmEvent::NewListenAddr { address, .. } if !self.listen.contains(&address) => {
                self.since.insert(address.clone(), Instant::now());
                self.listen.push(address);
                self.listening_changed();
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.since.remove(&address);
                self.listen.retain(|known| *known != address);
                self.listening_changed();
                self.listened_at(&address, Instant::now());
            }
            SwarmEvent::ListenerClosed { listener_id, addresses, reason } => {
                if self.place_lost(listener_id) {
                    tracing::debug!(?addresses, ?reason, "a place at a relay is gone");
                } else {
                    tracing::error!(?addresses, ?reason, "a listener closed");
                }
                self.listen.retain(|known| !addresses.contains(known));
                self.listening_changed();
            }
            SwarmEvent::IncomingConnectionError { error, .. } => {
                tracing::debug!(%error, "inbound connection failed");
            }
            // Progress that nobody needs to know of.
            _ => {}
        }
    }

    fn on_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Identify(event) => self.on_identify(event),
            BehaviourEvent::Ping(event) => self.on_ping(event),
            BehaviourEvent::Kad(event) => self.on_kad(event),
            BehaviourEvent::Gossip(event) => self.on_gossip(event),
            BehaviourEvent::Ticket(event) => {
                self.on_request(
                    Protocol::Ticket,
                    event,
                    Request::Ticket,
                    Response::Ticket,
                    Channel::Ticket,
                );
            }
            BehaviourEvent::Dir(event) => {
                self.on_request(Protocol::Dir, event, Request::Dir, Response::Dir, Channel::Dir);
            }
            BehaviourEvent::Repair(event) => self.on_repair(event),
            BehaviourEvent::Picture(event) => self.on_picture(event),
            BehaviourEvent::Feed(event) => self.on_feed(event),
            BehaviourEvent::Mdns(event) => self.on_mdns(event),
            BehaviourEvent::Upnp(event) => self.on_upnp(event),
            BehaviourEvent::Autonat(event) => self.on_autonat(event),
            BehaviourEvent::Relay(event) => self.on_relay(event),
            BehaviourEvent::Punch(event) => self.on_punch(event),
            // Told of by listen addresses and connections as well.
            BehaviourEvent::Circuits(_) | BehaviourEvent::Tester(_) => {}
            BehaviourEvent::Candidates(never) => match never {},
        }
    }

    pub(super) fn link_up(&mut self, peer: PeerId, remote: Multiaddr, dialled: bool) {
        let node = identity::node_id(&peer);
        let private = is_private(&remote);
        let is_known = dialled && !is_relayed(&remote);
        let known = if is_known { translate::addr(&identity::split_peer(&remote).0) } else { None };
        self.links.up(peer, node, remote, dialled);
        if let Some(node) = node {
            let contact = Contact::new(node, known.into_iter().collect());
            self.input(Input::LinkUp { contact, private });
        }
        for (id, body) in self.requests.take_waiting(&peer) {
            self.send_request(&peer, id, body);
        }
    }

    pub(super) fn link_down(&mut self, peer: &PeerId, cause: Option<&ConnectionError>) {
        let Some(link) = self.links.down(peer) else { return };
        tracing::debug!(%peer, ?cause, "connection closed");
        if let Some(node) = link.node {
            self.input(Input::LinkDown { node });
        }
    }

    fn dial_failed(&mut self, peer: Option<PeerId>, error: &DialError) {
        if let Some(addr) = self.dialer.unanswered(peer.as_ref(), error) {
            tracing::warn!(
                "{addr} (--bootstrap) does not answer: {error}. It is tried again; a node that finds \
                 nobody founds a network of its own, until somebody finds it"
            );
        }
        let Some(peer) = peer else { return };
        let more_under_way = self.dialer.ended(&peer);
        if let Some(dial) = self.dialer.failed(&peer, Instant::now()) {
            self.dial(dial);
            return;
        }
        if more_under_way || self.swarm.is_connected(&peer) {
            return;
        }
        tracing::debug!(%peer, %error, "dial failed");
        self.unreachable(&peer);
    }

    fn on_identify(&mut self, event: identify::Event) {
        let identify::Event::Received { peer_id: peer, info, .. } = event else { return };
        let serves_kad = info.protocols.contains(&KAD_PROTOCOL);
        // A peer names all its listeners. On another machine its loopback leads to this node itself.
        let is_local = self.links.get(&peer).is_none_or(|link| is_loopback(&link.remote));
        let addrs: Vec<Multiaddr> = info
            .listen_addrs
            .iter()
            .map(|addr| identity::split_peer(addr).0)
            .filter(|addr| is_dialable(addr) && (is_local || !is_loopback(addr)))
            .take(ADDRS_MAX)
            .collect();
        // Only those who serve our Kademlia get into the table: clients would only lengthen lookups.
        if serves_kad && self.only.is_none() {
            for addr in addrs.iter().filter(|addr| !is_relayed(addr)) {
                self.swarm.behaviour_mut().kad.add_address(&peer, addr.clone());
            }
        } else {
            self.swarm.behaviour_mut().kad.remove_peer(&peer);
        }
        if let Some(link) = self.links.get_mut(&peer) {
            link.serves_kad = serves_kad;
            link.agent = info.agent_version.chars().take(64).collect();
            let relays = info.protocols.contains(&relay::HOP_PROTOCOL_NAME);
            let own = Some(&link.remote).filter(|_| link.dialled);
            link.relay_at = own
                .into_iter()
                .chain(&addrs)
                .find(|addr| relays && !is_relayed(addr) && !is_loopback(addr))
                .map(|addr| identity::split_peer(addr).0);
        }
        self.seen_at(&peer, &info.observed_addr);
        self.dial_back(peer, &addrs);
        if let Some(node) = identity::node_id(&peer) {
            let addrs = addrs.iter().filter_map(translate::addr).collect();
            self.input(Input::Discovered { contact: Contact::new(node, addrs) });
        }
    }

    /// A peer says at which address it sees this node.
    fn seen_at(&mut self, peer: &PeerId, observed: &Multiaddr) {
        let Some(link) = self.links.get(peer).filter(|link| link.dialled) else { return };
        self.reach.observed(&link.remote, observed);
        if !is_private(observed) && !is_relayed(observed) {
            let candidates = &mut self.swarm.behaviour_mut().candidates;
            candidates.seen_at(identity::split_peer(observed).0);
        }
        self.reach_changed();
    }

    fn on_ping(&mut self, event: ping::Event) {
        let ping::Event { peer, result, .. } = event;
        match result {
            Ok(rtt) => {
                self.links.pong(&peer, rtt);
                if let Some(node) = identity::node_id(&peer) {
                    self.input(Input::Rtt { node, rtt });
                    self.feeds_rtt(node, rtt);
                }
            }
            Err(ping::Failure::Unsupported) => {}
            Err(failure) => {
                if self.links.ping_failed(&peer) {
                    tracing::debug!(%peer, %failure, "no answer to pings: connection closed");
                    // It may have closed by itself.
                    let _ = self.swarm.disconnect_peer_id(peer);
                }
            }
        }
    }

    fn feeds_rtt(&mut self, node: NodeId, rtt: Duration) {
        for feed in self.feeds.with(node) {
            self.relay(astral_core::media::relay::RelayInput::Rtt { feed, rtt });
        }
    }

    fn on_kad(&mut self, event: kad::Event) {
        let kad::Event::OutboundQueryProgressed { id, result, step, .. } = event else { return };
        let kad::QueryResult::GetClosestPeers(result) = result else { return };
        if !step.last {
            return;
        }
        let Some(lookup) = self.lookups.remove(&id) else { return };
        let peers = match result {
            Ok(found) => found.peers,
            Err(kad::GetClosestPeersError::Timeout { peers, .. }) => peers,
        };
        let found = peers
            .into_iter()
            .filter_map(|info| {
                let node = identity::node_id(&info.peer_id)?;
                let addrs = info.addrs.iter().map(|addr| identity::split_peer(addr).0);
                let addrs: Vec<Addr> =
                    addrs.filter(is_dialable).filter_map(|addr| translate::addr(&addr)).collect();
                Some(Contact::new(node, addrs))
            })
            .collect();
        self.input(Input::LookupDone { id: lookup, found });
    }

    fn on_gossip(&mut self, event: gossipsub::Event) {
        let gossipsub::Event::Message { propagation_source, message_id, message } = event else {
            return;
        };
        self.links.touch(&propagation_source);
        match self.gossip.receive(&message_id, propagation_source, &message) {
            Received::Sound(input) => self.input(*input),
            Received::Forged(node) => {
                self.counters.forged_gossip += 1;
                tracing::warn!(peer = %propagation_source, "forged announcement");
                let gossip = &mut self.swarm.behaviour_mut().gossip;
                self.gossip.reject(gossip, &message_id, propagation_source);
                if let Some(from) = node {
                    self.input(Input::ForgedGossip { from });
                }
            }
        }
    }

    fn on_request<Q, A>(
        &mut self,
        protocol: Protocol,
        event: request_response::Event<Asked<Q>, A>,
        request: fn(Q) -> Request,
        response: fn(A) -> Response,
        channel: fn(request_response::ResponseChannel<A>) -> Channel,
    ) {
        use request_response::Event;
        match event {
            Event::Message {
                peer,
                message: Message::Request { request: body, channel: back, .. },
                ..
            } => {
                self.links.touch(&peer);
                let body = match body {
                    Asked::Sound(body) => body,
                    Asked::Malformed(error) => {
                        self.counters.malformed_requests += 1;
                        tracing::warn!(%peer, %error, "malformed request: peer dropped");
                        // It may have gone by itself.
                        let _ = self.swarm.disconnect_peer_id(peer);
                        return;
                    }
                };
                // Dropping the channel refuses: who has no Ed25519 key is nobody to the core.
                let Some(from) = identity::node_id(&peer) else { return };
                let id = self.requests.came(channel(back));
                let body = request(body);
                if let Request::Dir(DirRequest::Join { stream }) = &body {
                    self.carry_for(from, *stream);
                }
                self.input(Input::Request { id, from, body });
                // Whatever was not answered within the drain is refused.
                drop(self.requests.channel(id));
            }
            Event::Message {
                peer,
                message: Message::Response { request_id, response: body },
                ..
            } => {
                self.links.touch(&peer);
                if let Some(id) = self.requests.done(protocol, request_id) {
                    self.input(Input::Response { id, result: Ok(response(body)) });
                }
            }
            Event::OutboundFailure { request_id, error, .. } => {
                if let Some(id) = self.requests.done(protocol, request_id) {
                    let failure = requests::failure(&error);
                    self.input(Input::Response { id, result: Err(failure) });
                }
            }
            // An answer that did not get through is a lost answer to the asker.
            Event::InboundFailure { .. } | Event::ResponseSent { .. } => {}
        }
    }

    fn on_feed(&mut self, event: feed::Event) {
        match event {
            feed::Event::Inbound { peer, stream } => self.feed_came(&peer, stream),
            feed::Event::Opened { id, stream } => self.feed_opened(id, stream),
            feed::Event::Failed { id, error } => self.feed_failed(id, error),
        }
    }

    fn on_mdns(&mut self, event: mdns::Event) {
        let mdns::Event::Discovered(found) = event else { return };
        for (peer, addr) in found {
            let Some(node) = identity::node_id(&peer) else { continue };
            let addr = identity::split_peer(&addr).0;
            if is_dialable(&addr) {
                let addrs = translate::addr(&addr).into_iter().collect();
                self.input(Input::Discovered { contact: Contact::new(node, addrs) });
            }
        }
    }

    /// Everything that waited for a dial to this peer fails.
    pub(super) fn unreachable(&mut self, peer: &PeerId) {
        for (id, _) in self.requests.take_waiting(peer) {
            let result = Err(astral_core::overlay::RequestFailure::Unreachable);
            self.pending.push_back(Input::Response { id, result });
        }
        if let Some(node) = identity::node_id(peer) {
            self.pending.push_back(Input::DialFailed { node });
        }
    }

    /// Whether this node is a supernode at the moment.
    #[must_use]
    pub(super) fn is_supernode(&self) -> bool {
        self.role == Role::Supernode
    }
}
