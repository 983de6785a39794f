//! What the edges ask of a node: a stream to read, a place to put one.
//!
//! Owns the traits and values that stand between local protocols and the node, so that every edge
//! is tested against a fake. Does not own an implementation for real nodes (see `edge::node`), nor
//! any protocol.

use astral_core::{ids::StreamId, media::flv::Tag};
use bytes::Bytes;
use futures::future::BoxFuture;

/// One thing that a stream being watched hands over, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MediaItem {
    /// The next piece of an FLV byte stream: an init segment (beginning with an FLV header) or a
    /// chunk's payload. The first item with bytes is always an init segment.
    Flv(Bytes),
    /// Chunks `from_seq` to `to_seq` were left out; what follows starts at a keyframe.
    Skipped {
        /// First chunk left out.
        from_seq: u64,
        /// Last chunk left out.
        to_seq: u64,
        /// Why, in one word.
        cause: String,
    },
    /// This reader was too slow: so many items were left out for it alone; what follows starts at a
    /// keyframe.
    Behind {
        /// Items left out.
        items: u64,
    },
    /// The source started anew: the next bytes are a new init segment, and media time restarts.
    NewEpoch,
    /// The source pauses.
    Paused,
    /// The source goes on.
    Resumed,
    /// Nothing comes from the source; the stream may come back.
    SourceLost,
    /// Media flows again after [`MediaItem::SourceLost`].
    SourceBack,
    /// The stream is over; nothing follows.
    Ended {
        /// Why, in one word.
        reason: String,
    },
}

/// A stream being watched. Pulling is what gives it room to send on.
pub trait MediaSource: Send + 'static {
    /// The next item; `None` after the end. Cancel safe: no item is lost when the future is
    /// dropped.
    fn next(&mut self) -> BoxFuture<'_, Option<MediaItem>>;
}

/// How a reader wants to be treated when it, or the network, falls behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keep {
    /// Stay live: skip to a newer keyframe.
    Live,
    /// Keep every chunk that any known ring still has.
    All,
}

/// Opens and stops streams, whether published here or elsewhere.
pub trait Streams: Send + Sync + 'static {
    /// Starts reading `id`, joining it when this node does not have it yet.
    ///
    /// # Errors
    /// [`OpenError`] when nothing can be read.
    fn open(
        &self,
        id: StreamId,
        keep: Keep,
    ) -> BoxFuture<'_, Result<Box<dyn MediaSource>, OpenError>>;

    /// Nobody on this node wants to read `id` any more.
    fn stop(&self, id: StreamId) -> BoxFuture<'_, ()>;
}

/// Why a stream can't be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// No node announces it.
    #[error("no stream {id} is known; it may have ended, or its announcement has not come yet")]
    Unknown {
        /// What was asked for.
        id: StreamId,
    },
    /// It exists, and nobody can serve it at the moment.
    #[error("no capacity for this stream: {reason}; try again in {retry_ms} ms")]
    NoCapacity {
        /// Why, in words.
        reason: String,
        /// When another try makes sense.
        retry_ms: u64,
    },
    /// The node is shutting down or failed.
    #[error("the node can't open a stream: {message}")]
    Node {
        /// What happened.
        message: String,
    },
}

/// A stream being published, as an ingest protocol fills it.
pub trait Ingest: Send + 'static {
    /// Takes the next tag, waiting for room. Not cancel safe.
    ///
    /// # Errors
    /// [`IngestError`] when the stream takes no more.
    fn push<'a>(&'a mut self, tag: Tag) -> BoxFuture<'a, Result<(), IngestError>>;

    /// A new encoder session begins with the next tag: clocks restart.
    fn restart(&mut self);

    /// The encoder left (`true`) or came back (`false`); the stream stays.
    fn idle<'a>(&'a mut self, idle: bool) -> BoxFuture<'a, Result<(), IngestError>>;

    /// The encoder is gone for good, as far as anybody can wait: the broadcast ends for everybody.
    /// The next tag begins another one under the same name.
    fn rest<'a>(&'a mut self) -> BoxFuture<'a, Result<(), IngestError>>;

    /// The encoder broke off and may be back in a moment.
    fn reconnecting<'a>(&'a mut self) -> BoxFuture<'a, Result<(), IngestError>> {
        self.idle(true)
    }
}

/// The published stream takes nothing more.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the stream takes no more media: {message}")]
pub struct IngestError {
    /// What happened.
    pub message: String,
}
