//! What the API asks of a node.
//!
//! Owns the trait that stands between handlers and the node, so that they are tested against a
//! fake, and the plain values it speaks. Does not own reading streams (see `edge::ports`) nor JSON.

use std::{collections::BTreeMap, time::Duration};

use astral_core::{
    announcement::Rendition,
    ids::{NodeId, StreamId, StreamName, StripeSet},
    media::relay::RelaySnapshot,
    overlay::{Snapshot, TicketId},
    units::Bitrate,
};
use bytes::Bytes;
use futures::{future::BoxFuture, stream::BoxStream};

use crate::{
    edge::ports::{Ingest, IngestError},
    node::{Adaptive, Lower, ReachView},
};

/// A node at one moment.
#[derive(Clone, PartialEq, Debug)]
pub struct NodeState {
    /// The overlay's picture.
    pub overlay: Snapshot,
    /// Since the node started.
    pub uptime: Duration,
    /// Bytes sent on feeds.
    pub sent_bytes: u64,
    /// Of which chunks.
    pub sent_media_bytes: u64,
    /// Bytes received on feeds.
    pub received_bytes: u64,
    /// What flows, per stream published, watched or seeded here.
    pub flows: BTreeMap<StreamId, Flow>,
    /// The lower rendition of a stream that players here get.
    pub lower: BTreeMap<StreamId, Rendition>,
    /// The limits that hold.
    pub limits: Limits,
    /// The relay's picture.
    pub relay: RelaySnapshot,
    /// How others reach the node.
    pub reach: ReachView,
    /// What the node's driver counted since the start, by name.
    pub driver: Vec<(&'static str, u64)>,
}

/// What flows in one stream.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Flow {
    /// Number of stripes.
    pub k: u8,
    /// The stream's rate.
    pub rate: Bitrate,
    /// Payload bytes cut here, or received and verified.
    pub bytes: u64,
    /// Payload bytes sent to children.
    pub forwarded_bytes: u64,
    /// Payload bytes handed to readers on this machine.
    pub delivered_bytes: u64,
    /// Chunks received and verified.
    pub chunks: u64,
    /// Since the last chunk.
    pub idle: Option<Duration>,
    /// The source paused.
    pub paused: bool,
    /// It is published by this node.
    pub own: Option<OwnFlow>,
    /// From joining to the first verified chunk.
    pub join: Option<Duration>,
    /// From joining to the first bytes for a reader here.
    pub first_frame: Option<Duration>,
    /// Age of the newest chunk: how far behind the source this node is.
    pub delay: Option<Duration>,
    /// Which stripes go to which child.
    pub children: BTreeMap<NodeId, StripeSet>,
}

/// What only the publishing node knows of a stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnFlow {
    /// Its name.
    pub name: String,
    /// Not announced yet: this machine alone sees it.
    pub preview: bool,
    /// The rate of its picture by now, where the encoder follows the uplink.
    pub encoder: Option<Bitrate>,
}

/// What is changed while the node runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// Upload ceiling; `None` is measured.
    pub uplink: Option<Bitrate>,
    /// Copies of one stream forwarded at most.
    pub max_copies: Option<u32>,
    /// Copies of all streams together.
    pub max_total_copies: Option<u32>,
}

/// A stream to be published.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PublishRequest {
    /// Its name under this node's source key.
    pub name: StreamName,
    /// A line for people.
    pub title: String,
    /// A paragraph for people.
    pub description: String,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// Number of stripes; `None` is chosen by rate.
    pub stripes: Option<u8>,
    /// Not announced before [`NodePort::go_live`].
    pub preview: bool,
    /// What its encoder makes, where that is known.
    pub encoded: Encoded,
}

/// What is known of a stream that is encoded here, before it begins.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Encoded {
    /// Picture and sound together; `None` = measured.
    pub rate: Option<Bitrate>,
    /// The encoder follows the uplink, see [`Published::picture_rate`].
    pub adaptive: Option<Adaptive>,
    /// Lower renditions, the best first, see [`Published::push_lower`].
    pub lower: Vec<Lower>,
}

/// What lists show of a stream.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Texts {
    /// A line for people.
    pub title: String,
    /// A paragraph for people.
    pub description: String,
    /// Words to find it by.
    pub tags: Vec<String>,
}

/// A stream being published.
pub trait Published: Ingest {
    /// Its id.
    fn id(&self) -> StreamId;

    /// Its link, for others to watch.
    fn link(&self) -> String;

    /// Takes the next piece of an FLV byte stream, waiting for room. Not cancel safe.
    ///
    /// # Errors
    /// [`IngestError`] when the stream takes no more.
    fn push_flv<'a>(&'a mut self, flv: Bytes) -> BoxFuture<'a, Result<(), IngestError>>;

    /// The same for a lower rendition, by its number in [`Encoded::lower`], which `begins` anew.
    ///
    /// # Errors
    /// [`IngestError`] when the stream takes no more.
    fn push_lower<'a>(
        &'a mut self,
        number: usize,
        begins: bool,
        flv: Bytes,
    ) -> BoxFuture<'a, Result<(), IngestError>>;

    /// The rate at which its picture should be encoded by now; `None` when the encoder keeps its own. It
    /// changes with [`Self::push_flv`].
    fn picture_rate(&self) -> Option<Bitrate>;

    /// Ends it for everybody.
    fn end(self: Box<Self>) -> BoxFuture<'static, ()>;
}

/// What the API needs of a node. Every call returns within the node's own deadlines.
pub trait NodePort: Send + Sync + 'static {
    /// libp2p's text form of the node's id.
    fn peer_id(&self) -> String;

    /// Where other nodes reach it.
    fn listen_addrs(&self) -> Vec<String>;

    /// The node at this moment.
    ///
    /// # Errors
    /// [`PortError::Gone`].
    fn state(&self) -> BoxFuture<'_, Result<NodeState, PortError>>;

    /// Begins to publish.
    ///
    /// # Errors
    /// [`PortError`] when the name or another field is not usable or in use.
    fn publish(
        &self,
        request: PublishRequest,
    ) -> BoxFuture<'_, Result<Box<dyn Published>, PortError>>;

    /// The small picture of a stream, a JPEG; `None` when it has none or nobody gives it.
    ///
    /// # Errors
    /// [`PortError::Gone`].
    fn picture(&self, id: StreamId) -> BoxFuture<'_, Result<Option<Bytes>, PortError>>;

    /// Forwards a stream without playing it.
    ///
    /// # Errors
    /// [`PortError::Gone`].
    fn seed(&self, id: StreamId) -> BoxFuture<'_, Result<(), PortError>>;

    /// Ends [`Self::seed`]; whoever plays the stream here keeps it.
    ///
    /// # Errors
    /// [`PortError::Gone`].
    fn unseed(&self, id: StreamId) -> BoxFuture<'_, Result<(), PortError>>;

    /// Pauses a stream published here, or lets it go on.
    ///
    /// # Errors
    /// [`PortError::Unknown`] when it is not published here.
    fn pause(&self, id: StreamId, paused: bool) -> BoxFuture<'_, Result<(), PortError>>;

    /// Announces a stream that was published as a preview. Harmless for others.
    ///
    /// # Errors
    /// [`PortError::Unknown`] when it is not published here.
    fn go_live(&self, id: StreamId) -> BoxFuture<'_, Result<(), PortError>>;

    /// Says something else about a stream published here.
    ///
    /// # Errors
    /// [`PortError::Unknown`] when it is not published here, [`PortError::Invalid`] for texts that
    /// are too long.
    fn edit(&self, id: StreamId, texts: Texts) -> BoxFuture<'_, Result<(), PortError>>;

    /// Ends a stream published here, whoever fills it.
    ///
    /// # Errors
    /// [`PortError::Unknown`] when it is not published here.
    fn end(&self, id: StreamId) -> BoxFuture<'_, Result<(), PortError>>;

    /// Ends a ticket that this node gave.
    ///
    /// # Errors
    /// [`PortError::Unknown`] when there is none.
    fn revoke(&self, ticket: TicketId) -> BoxFuture<'_, Result<(), PortError>>;

    /// Closes the connection to a node and forgets its addresses.
    ///
    /// # Errors
    /// [`PortError::Gone`].
    fn forget(&self, node: NodeId) -> BoxFuture<'_, Result<(), PortError>>;

    /// The limits that hold.
    ///
    /// # Errors
    /// [`PortError::Gone`].
    fn limits(&self) -> BoxFuture<'_, Result<Limits, PortError>>;

    /// Changes the limits.
    ///
    /// # Errors
    /// [`PortError::Invalid`] for a limit that can't be changed while running.
    fn set_limits(&self, limits: Limits) -> BoxFuture<'_, Result<(), PortError>>;

    /// Events from here on, as JSON objects with an `event` field. A reader that falls behind gets
    /// an `events_missed` in their place.
    fn events(&self) -> BoxStream<'static, serde_json::Value>;
}

/// Why a node refused a request.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PortError {
    /// The node is stopping.
    #[error("the node is stopping")]
    Gone,
    /// There is no such thing.
    #[error("{what} is not known here")]
    Unknown {
        /// What was asked for.
        what: String,
    },
    /// It is there already.
    #[error("{message}")]
    Conflict {
        /// What stands in the way.
        message: String,
    },
    /// A value that can't be.
    #[error("{message}")]
    Invalid {
        /// Which and why.
        message: String,
    },
    /// The node could not do it.
    #[error("{message}")]
    Failed {
        /// What happened.
        message: String,
    },
}
