//! The feed protocol as a libp2p behaviour: opens a stream to a node over the connection that suits
//! media best, hands inbound ones over.
//!
//! Owns the choice of the connection and what became of each attempt: every [`Behaviour::open`] is
//! answered by exactly one event. Does not own frames, greeting or the tasks that serve a feed.

use std::{
    collections::{BTreeMap, VecDeque},
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId, Stream,
    core::{ConnectedPoint, Endpoint, transport::PortUse},
    swarm::{
        ConnectionClosed, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour,
        NotifyHandler, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
    },
};

use super::handler::{Handler, InboundStream, OpenError, OpenId, ToBehaviour};
use crate::node::identity;

/// What became of a stream.
#[derive(Debug)]
pub enum Event {
    /// A node opened a stream to us.
    Inbound {
        /// The node.
        peer: PeerId,
        /// The stream with its place in the limit.
        stream: InboundStream,
    },
    /// Our attempt succeeded.
    Opened {
        /// The attempt.
        id: OpenId,
        /// The stream.
        stream: Stream,
    },
    /// Our attempt failed.
    Failed {
        /// The attempt.
        id: OpenId,
        /// Why.
        error: OpenError,
    },
}

/// How well a connection suits media; lower is better.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Suit {
    /// TCP: cheaper per bit, one syscall per 16 KiB.
    Tcp,
    /// QUIC: where TCP does not get through.
    Quic,
    /// Through a relay, which is shared and limited.
    Relayed,
}

/// The behaviour.
#[derive(Debug, Default)]
pub struct Behaviour {
    connections: BTreeMap<PeerId, BTreeMap<ConnectionId, Suit>>,
    pending: BTreeMap<OpenId, ConnectionId>,
    queue: VecDeque<ToSwarm<Event, OpenId>>,
}

impl Behaviour {
    /// Opens a stream to `peer` on its best connection. Exactly one [`Event::Opened`] or
    /// [`Event::Failed`] of this id follows.
    pub fn open(&mut self, peer: PeerId, id: OpenId) {
        let best = self
            .connections
            .get(&peer)
            .and_then(|all| all.iter().min_by_key(|(connection, suit)| (**suit, **connection)));
        match best {
            Some((&connection, _)) => {
                self.pending.insert(id, connection);
                let handler = NotifyHandler::One(connection);
                self.queue.push_back(ToSwarm::NotifyHandler { peer_id: peer, handler, event: id });
            }
            None => self.fail(id, OpenError::Closed),
        }
    }

    fn fail(&mut self, id: OpenId, error: OpenError) {
        self.queue.push_back(ToSwarm::GenerateEvent(Event::Failed { id, error }));
    }

    fn connected(&mut self, peer: PeerId, connection: ConnectionId, endpoint: &ConnectedPoint) {
        let suit = if endpoint.is_relayed() {
            Suit::Relayed
        } else if identity::is_quic(endpoint.get_remote_address()) {
            Suit::Quic
        } else {
            Suit::Tcp
        };
        self.connections.entry(peer).or_default().insert(connection, suit);
    }

    fn disconnected(&mut self, peer: PeerId, connection: ConnectionId) {
        if let Some(all) = self.connections.get_mut(&peer) {
            all.remove(&connection);
            if all.is_empty() {
                self.connections.remove(&peer);
            }
        }
        let lost: Vec<OpenId> =
            self.pending.iter().filter(|(_, on)| **on == connection).map(|(id, _)| *id).collect();
        for id in lost {
            self.pending.remove(&id);
            self.fail(id, OpenError::Closed);
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        // Another behaviour may still deny the connection: it counts from `FromSwarm` on.
        Ok(Handler::default())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::default())
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(up) => {
                self.connected(up.peer_id, up.connection_id, up.endpoint);
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, .. }) => {
                self.disconnected(peer_id, connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        let event = match event {
            ToBehaviour::Inbound(stream) => Event::Inbound { peer, stream },
            ToBehaviour::Opened(id, stream) => {
                self.pending.remove(&id);
                Event::Opened { id, stream }
            }
            ToBehaviour::Failed(id, error) => {
                self.pending.remove(&id);
                Event::Failed { id, error }
            }
        };
        self.queue.push_back(ToSwarm::GenerateEvent(event));
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        self.queue.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}
