//! The relay server, told of no connection that it can't speak on.
//!
//! Owns one rule around libp2p's behaviour: a change of its status is not said to connections that
//! are relayed themselves. They have no handler for it, and libp2p 0.22 says it to them all the same:
//! the connection's task panics, and the swarm takes the peer for connected ever after, while nothing
//! that is asked of it is answered. Does not own limits nor status (see `relaying`).

use std::{
    collections::BTreeSet,
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    relay,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandler,
        THandlerInEvent, THandlerOutEvent, ToSwarm,
    },
};

use super::dial::is_relayed;

/// libp2p's relay server with that rule.
pub struct Behaviour {
    inner: relay::Behaviour,
    /// Connections through other relays. Bounded by the swarm's connections.
    relayed: BTreeSet<ConnectionId>,
}

impl std::fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Behaviour").field("relayed", &self.relayed).finish_non_exhaustive()
    }
}

impl Behaviour {
    /// Around a relay server.
    pub const fn new(inner: relay::Behaviour) -> Self {
        Self { inner, relayed: BTreeSet::new() }
    }

    /// Whether this node serves as a relay from now on.
    pub fn set_serving(&mut self, serves: bool) {
        let status = if serves { relay::Status::Enable } else { relay::Status::Disable };
        self.inner.set_status(Some(status));
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = <relay::Behaviour as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = relay::Event;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.inner.handle_pending_inbound_connection(connection, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if is_relayed(local) {
            self.relayed.insert(connection);
        }
        self.inner.handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.inner.handle_pending_outbound_connection(connection, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        addr: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if is_relayed(addr) {
            self.relayed.insert(connection);
        }
        self.inner.handle_established_outbound_connection(connection, peer, addr, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        let gone = match &event {
            FromSwarm::ConnectionClosed(closed) => Some(closed.connection_id),
            // Another behaviour refused it.
            FromSwarm::DialFailure(failed) => Some(failed.connection_id),
            FromSwarm::ListenFailure(failed) => Some(failed.connection_id),
            _ => None,
        };
        self.relayed.retain(|connection| gone.as_ref() != Some(connection));
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.inner.on_connection_handler_event(peer, connection, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<relay::Event, THandlerInEvent<Self>>> {
        loop {
            let next = self.inner.poll(cx);
            if let Poll::Ready(ToSwarm::NotifyHandler {
                handler: NotifyHandler::One(connection),
                ..
            }) = &next
                && self.relayed.contains(connection)
            {
                continue;
            }
            return next;
        }
    }
}

#[cfg(test)]
mod tests {
    use libp2p::{core::ConnectedPoint, swarm::behaviour::ConnectionEstablished};

    use super::*;

    /// What a change of the status says to a connection to that address.
    fn told(addr: &str) -> usize {
        let (me, peer) = (PeerId::random(), PeerId::random());
        let mut server = Behaviour::new(relay::Behaviour::new(me, relay::Config::default()));
        let (connection, addr) = (ConnectionId::new_unchecked(1), addr.parse().unwrap());
        let (role, port) = (Endpoint::Dialer, PortUse::New);
        drop(server.handle_established_outbound_connection(connection, peer, &addr, role, port));
        let endpoint =
            ConnectedPoint::Dialer { address: addr, role_override: role, port_use: port };
        server.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
            peer_id: peer,
            connection_id: connection,
            endpoint: &endpoint,
            failed_addresses: &[],
            other_established: 0,
        }));
        server.set_serving(true);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut told = 0;
        while let Poll::Ready(event) = server.poll(&mut cx) {
            told += usize::from(matches!(event, ToSwarm::NotifyHandler { .. }));
        }
        told
    }

    #[test]
    fn a_relayed_connection_is_not_told_of_a_change_that_it_cannot_take() {
        let relay = PeerId::random();
        assert_eq!(told("/ip4/198.51.100.1/tcp/4001"), 1);
        assert_eq!(told(&format!("/ip4/198.51.100.1/tcp/4001/p2p/{relay}/p2p-circuit")), 0);
    }
}
