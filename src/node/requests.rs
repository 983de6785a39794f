//! Requests on their way out, from the overlay's id to libp2p's and back.
//!
//! Owns requests that wait for a dial and the pairing of answers. Does not own deadlines of the
//! protocol (the overlay's) nor the messages.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use astral_core::overlay::{DirResponse, TicketResponse};
use astral_core::overlay::{InboundId, Request, RequestFailure, RequestId};
use libp2p::{
    PeerId,
    request_response::{OutboundFailure, OutboundRequestId, ResponseChannel},
};
use tokio::time::Instant;

/// Requests that wait for dials, all together.
const WAITING_MAX: usize = 512;
/// A request waits at most so long for a dial.
const WAIT: Duration = Duration::from_secs(8);

/// Which protocol a request travels on: both count their ids from zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Protocol {
    /// `/astral/ticket/1`.
    Ticket,
    /// `/astral/dir/1`.
    Dir,
}

/// Where an answer goes.
#[derive(Debug)]
pub enum Channel {
    /// On `/astral/ticket/1`.
    Ticket(ResponseChannel<TicketResponse>),
    /// On `/astral/dir/1`.
    Dir(ResponseChannel<DirResponse>),
}

/// All requests of a node, both ways.
#[derive(Debug, Default)]
pub struct Requests {
    sent: BTreeMap<(Protocol, OutboundRequestId), RequestId>,
    waiting: VecDeque<Waiting>,
    channels: BTreeMap<InboundId, Channel>,
    next_inbound: u64,
}

#[derive(Debug)]
struct Waiting {
    peer: PeerId,
    id: RequestId,
    body: Request,
    until: Instant,
}

impl Requests {
    /// A request waits for a dial; false when too many do.
    pub fn wait(&mut self, peer: PeerId, id: RequestId, body: Request) -> bool {
        if self.waiting.len() >= WAITING_MAX {
            return false;
        }
        self.waiting.push_back(Waiting { peer, id, body, until: Instant::now() + WAIT });
        true
    }

    /// The requests that waited for this peer.
    pub fn take_waiting(&mut self, peer: &PeerId) -> Vec<(RequestId, Request)> {
        let (ready, rest) =
            std::mem::take(&mut self.waiting).into_iter().partition(|w| w.peer == *peer);
        self.waiting = rest;
        let ready: VecDeque<Waiting> = ready;
        ready.into_iter().map(|waiting| (waiting.id, waiting.body)).collect()
    }

    /// The requests that waited too long.
    pub fn expire(&mut self, now: Instant) -> Vec<(RequestId, RequestFailure)> {
        let (late, rest) =
            std::mem::take(&mut self.waiting).into_iter().partition(|w| w.until <= now);
        self.waiting = rest;
        let late: VecDeque<Waiting> = late;
        late.into_iter().map(|waiting| (waiting.id, RequestFailure::Unreachable)).collect()
    }

    /// A request went out.
    pub fn sent(&mut self, protocol: Protocol, wire: OutboundRequestId, id: RequestId) {
        self.sent.insert((protocol, wire), id);
    }

    /// A request was answered or failed; which one it was.
    pub fn done(&mut self, protocol: Protocol, wire: OutboundRequestId) -> Option<RequestId> {
        self.sent.remove(&(protocol, wire))
    }

    /// A request came in.
    pub fn came(&mut self, channel: Channel) -> InboundId {
        self.next_inbound += 1;
        let id = InboundId(self.next_inbound);
        self.channels.insert(id, channel);
        id
    }

    /// Where the answer to `id` goes.
    pub fn channel(&mut self, id: InboundId) -> Option<Channel> {
        self.channels.remove(&id)
    }
}

/// The overlay's word for why a request failed.
#[must_use]
pub const fn failure(error: &OutboundFailure) -> RequestFailure {
    match error {
        OutboundFailure::Timeout => RequestFailure::Timeout,
        OutboundFailure::DialFailure | OutboundFailure::ConnectionClosed => {
            RequestFailure::Unreachable
        }
        OutboundFailure::UnsupportedProtocols | OutboundFailure::Io(_) => RequestFailure::Refused,
    }
}

#[cfg(test)]
mod tests {
    use astral_core::overlay::DirRequest;

    use super::*;
    use crate::node::identity;

    #[tokio::test]
    async fn requests_wait_for_their_dial_but_not_for_ever() {
        let peer = |n| identity::keypair([n; 32]).unwrap().public().to_peer_id();
        let mut requests = Requests::default();
        let body = || Request::Dir(DirRequest::Unregister);
        assert!(requests.wait(peer(1), RequestId(1), body()));
        assert!(requests.wait(peer(2), RequestId(2), body()));
        let ready = requests.take_waiting(&peer(1));
        assert_eq!(ready.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [RequestId(1)]);
        assert!(requests.expire(Instant::now()).is_empty());
        let late = requests.expire(Instant::now() + WAIT);
        assert_eq!(late, [(RequestId(2), RequestFailure::Unreachable)]);
        for n in 0..WAITING_MAX as u64 {
            assert!(requests.wait(peer(1), RequestId(n), body()));
        }
        assert!(!requests.wait(peer(1), RequestId(9_999), body()));
    }
}
