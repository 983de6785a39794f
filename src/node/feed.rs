//! Feeds: the streams between parents and children, from the libp2p behaviour to the tasks that read
//! and write them.
//!
//! Owns what the tasks of a feed say to the media task and hear from it. Does not own who feeds whom
//! (the overlay) nor what is sent when (the relay).

use astral_core::ids::Direction;
use astral_core::{
    ids::{FeedKey, Stripe},
    media::{
        cert::SignedCert,
        chunk::WireChunk,
        frame::{DownFrame, EndReason, FrameError, FrameSide, UpFrame},
        init::SignedInit,
    },
};

pub mod behaviour;
pub mod buffers;
pub mod drained;
pub mod handler;
pub mod handshake;
pub mod reader;
pub mod writer;

/// What the tasks of one feed tell the media task. Everything that was signed has been verified.
#[derive(Debug)]
pub struct FeedEvent {
    /// The feed.
    pub feed: FeedKey,
    /// Which life of it: a feed that is opened again has another.
    pub generation: u64,
    /// What happened.
    pub what: FeedNews,
}

/// What happened on a feed.
#[derive(Debug)]
pub enum FeedNews {
    /// A certificate of the stream's source.
    Cert(SignedCert),
    /// An init segment of a certified epoch.
    Init(SignedInit),
    /// A chunk of a certified epoch.
    Chunk(WireChunk),
    /// A chunk of an epoch that is over; its bytes count for the acknowledgement alone.
    Discarded {
        /// Bytes of its frame.
        bytes: usize,
    },
    /// Any other frame of the parent.
    Down(DownFrame<WireChunk>),
    /// A frame of the child.
    Up(UpFrame),
    /// The feed is over: the last word of this generation.
    Closed {
        /// What the other side did, when it was dropped for that.
        fault: Option<Fault>,
    },
}

/// What the media task hands to the writer of a feed.
#[derive(Debug)]
pub enum ToWriter {
    /// Frames for a child.
    Down(Vec<DownFrame<WireChunk>>),
    /// A frame for the parent.
    Up(UpFrame),
    /// Say why, and close.
    Close(EndReason),
}

/// What a remote did for which its feed is dropped at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// Bytes that are no lawful frame.
    #[error("no lawful frame: {0}")]
    Frame(#[from] FrameError),
    /// A certificate that the source did not sign, or of another stream.
    #[error("a certificate that the source did not sign")]
    Cert,
    /// A certificate that is out of date.
    #[error("a certificate that has expired")]
    Expired,
    /// An init segment that the epoch's key did not sign.
    #[error("an init segment that the source did not sign")]
    Init,
    /// A chunk that the epoch's key did not sign.
    #[error("a chunk that the source did not sign")]
    Chunk,
    /// A chunk or init segment of an epoch without a certificate.
    #[error("a chunk without a certificate")]
    NoCert,
    /// A stripe that the epoch does not have.
    #[error("stripe {0} of a stream that has fewer")]
    Stripe(Stripe),
}

/// Which frames come in on a feed.
#[must_use]
pub const fn side(direction: Direction) -> FrameSide {
    match direction {
        Direction::FromParent => FrameSide::Down,
        Direction::ToChild => FrameSide::Up,
    }
}
