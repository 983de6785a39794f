//! Addresses at which others see this node, as candidates for tests and hole punching.
//!
//! Owns the way from the driver to the other behaviours: identify puts the own port in the place of
//! an observed one, and behind a router that chooses ports nobody would find the hole. Does not own
//! what is observed (`reach`).

use std::{
    collections::VecDeque,
    convert::Infallible,
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm, dummy,
    },
};

/// Candidates on their way; the swarm takes them within the same turn.
const QUEUE_MAX: usize = 32;

/// The behaviour; it speaks with nobody.
#[derive(Debug, Default)]
pub struct Behaviour {
    queue: VecDeque<Multiaddr>,
}

impl Behaviour {
    /// Others see this node here.
    pub fn seen_at(&mut self, addr: Multiaddr) {
        if self.queue.len() < QUEUE_MAX {
            self.queue.push_back(addr);
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        let next = self.queue.pop_front().map(ToSwarm::NewExternalAddrCandidate);
        next.map_or(Poll::Pending, Poll::Ready)
    }
}
