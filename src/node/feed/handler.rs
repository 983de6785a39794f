//! One connection's share of the feed protocol: opens outbound streams one by one, accepts inbound
//! ones up to a limit.
//!
//! Owns the negotiation of `/astral/feed/1`. Does not own what flows on a stream: that is handed
//! out whole.

use std::{
    collections::VecDeque,
    convert::Infallible,
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use libp2p::{
    Stream, StreamProtocol,
    core::upgrade::ReadyUpgrade,
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, StreamUpgradeError, SubstreamProtocol,
        handler::{
            ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
        },
    },
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The feed protocol's name; a change of its bytes is a new name.
pub const FEED_PROTOCOL: StreamProtocol = StreamProtocol::new("/astral/feed/1");

/// Inbound feeds that live at once on one connection; further ones are dropped at once.
const INBOUND_PER_CONNECTION_MAX: usize = 64;

/// One attempt to open a feed, named by whoever asked for it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct OpenId(pub u64);

/// A negotiated inbound stream; its place in the limit is free again when this is dropped.
pub struct InboundStream {
    /// The raw stream, nothing read yet.
    pub stream: Stream,
    /// Keeps the place.
    pub permit: OwnedSemaphorePermit,
}

impl fmt::Debug for InboundStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InboundStream")
    }
}

/// Why a feed could not be opened on a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OpenError {
    /// The other node does not speak the protocol.
    #[error("the node does not speak {FEED_PROTOCOL}")]
    Unsupported,
    /// It did not answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The connection failed or closed.
    #[error("the connection closed")]
    Closed,
}

/// What the handler tells the behaviour.
#[derive(Debug)]
pub enum ToBehaviour {
    /// The other side opened a stream.
    Inbound(InboundStream),
    /// Our stream is open.
    Opened(OpenId, Stream),
    /// Our stream could not be opened.
    Failed(OpenId, OpenError),
}

/// Handler of one connection.
pub struct Handler {
    to_open: VecDeque<OpenId>,
    events: VecDeque<ToBehaviour>,
    places: Arc<Semaphore>,
}

impl Default for Handler {
    fn default() -> Self {
        Self {
            to_open: VecDeque::new(),
            events: VecDeque::new(),
            places: Arc::new(Semaphore::new(INBOUND_PER_CONNECTION_MAX)),
        }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = OpenId;
    type ToBehaviour = ToBehaviour;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = OpenId;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(FEED_PROTOCOL), ())
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, OpenId, ToBehaviour>> {
        if let Some(event) = self.events.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(event));
        }
        if let Some(id) = self.to_open.pop_front() {
            let protocol = SubstreamProtocol::new(ReadyUpgrade::new(FEED_PROTOCOL), id);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, id: OpenId) {
        self.to_open.push_back(id);
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, (), OpenId>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: stream,
                ..
            }) => match Arc::clone(&self.places).try_acquire_owned() {
                Ok(permit) => {
                    self.events.push_back(ToBehaviour::Inbound(InboundStream { stream, permit }));
                }
                Err(_) => tracing::debug!("too many inbound feeds on one connection"),
            },
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: stream,
                info: id,
            }) => self.events.push_back(ToBehaviour::Opened(id, stream)),
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info: id, error }) => {
                self.events.push_back(ToBehaviour::Failed(id, open_error(&error)));
            }
            // Everything else is the swarm's or other behaviours' business.
            _ => {}
        }
    }
}

fn open_error(error: &StreamUpgradeError<Infallible>) -> OpenError {
    match error {
        StreamUpgradeError::NegotiationFailed => OpenError::Unsupported,
        StreamUpgradeError::Timeout => OpenError::Timeout,
        StreamUpgradeError::Io(_) | StreamUpgradeError::Apply(_) => OpenError::Closed,
    }
}
