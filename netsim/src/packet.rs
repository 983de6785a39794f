//! What travels between two simulated nodes.
//!
//! Owns the packets and their lengths. A feed's frames are the production frames with a modelled
//! payload; requests and responses are the production messages and pay their production encoding.

use astral_core::{
    ids::{StreamId, Stripe},
    media::{
        frame::{DownFrame, RefuseReason, UpFrame},
        repair::{RepairAnswer, RepairWant},
    },
    overlay::{Request, Response, Wire},
};

use crate::{intervals::Flow, payload::SimChunk, uplink::Urgency};

/// Bytes of HELLO on the wire, protocol negotiation included.
const HELLO_BYTES: usize = 37 + 48;
/// Bytes of its answer.
const HELLO_ACK_BYTES: usize = 5 + 48;
/// Bytes that a request-response stream takes beside the message: negotiation and length.
const REQUEST_BYTES: usize = 64;

/// Names one life of one feed; both ends know it, as they know their libp2p stream.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct FeedLife(pub u64);

/// One message from one node to another.
#[derive(Clone, PartialEq, Debug)]
pub enum Packet {
    /// The child opens a feed.
    Hello {
        /// For this stream.
        stream: StreamId,
        /// Its name from now on.
        life: FeedLife,
    },
    /// The parent's answer.
    HelloAck {
        /// Which stream.
        stream: StreamId,
        /// Which feed.
        life: FeedLife,
        /// Why not, if not.
        refused: Option<RefuseReason>,
    },
    /// Frames from parent to child.
    Down {
        /// Which stream.
        stream: StreamId,
        /// Which feed.
        life: FeedLife,
        /// In order.
        frames: Vec<DownFrame<SimChunk>>,
        /// All of it is media that is sent again.
        repair: bool,
    },
    /// Where media are intervals: how a stripe flows. What it stands for is charged elsewhere.
    Flow {
        /// Which stream.
        stream: StreamId,
        /// Which feed.
        life: FeedLife,
        /// Which stripe.
        stripe: Stripe,
        /// How.
        flow: Flow,
    },
    /// A frame from child to parent.
    Up {
        /// Which stream.
        stream: StreamId,
        /// Which feed.
        life: FeedLife,
        /// The frame.
        frame: UpFrame,
    },
    /// The sender closed its end of the feed.
    FeedClosed {
        /// Which stream.
        stream: StreamId,
        /// Which feed.
        life: FeedLife,
        /// The sender was the parent.
        by_parent: bool,
    },
    /// A request.
    Request {
        /// Names it at the sender.
        id: u64,
        /// The message.
        body: Request,
    },
    /// A neighbour asks for chunks.
    RepairWant {
        /// What.
        want: RepairWant,
    },
    /// Its answer.
    RepairAnswer {
        /// Of which stream.
        stream: StreamId,
        /// The answer.
        answer: RepairAnswer<SimChunk>,
    },
    /// Its answer.
    Response {
        /// Names the request at the receiver.
        id: u64,
        /// The message.
        body: Response,
    },
}

impl Packet {
    /// Bytes on the wire. `None`: a message that the production encoding refuses.
    #[must_use]
    pub fn wire_len(&self) -> Option<usize> {
        Some(match self {
            Self::Flow { .. } => 0,
            Self::Hello { .. } => HELLO_BYTES,
            Self::HelloAck { .. } => HELLO_ACK_BYTES,
            Self::Down { frames, .. } => frames.iter().map(DownFrame::wire_len).sum(),
            Self::Up { frame, .. } => frame.wire_len(),
            Self::FeedClosed { .. } => 12,
            Self::RepairWant { want } => want.wire_len() + REQUEST_BYTES,
            Self::RepairAnswer { answer, .. } => answer.wire_len() + REQUEST_BYTES,
            Self::Request { body: Request::Ticket(body), .. } => message_len(body)?,
            Self::Request { body: Request::Dir(body), .. } => message_len(body)?,
            Self::Response { body: Response::Ticket(body), .. } => message_len(body)?,
            Self::Response { body: Response::Dir(body), .. } => message_len(body)?,
        })
    }

    /// Whether it belongs to a feed, whose packets keep their order.
    #[must_use]
    pub const fn is_feed(&self) -> bool {
        match self {
            Self::Hello { .. }
            | Self::HelloAck { .. }
            | Self::Down { .. }
            | Self::Up { .. }
            | Self::Flow { .. }
            | Self::FeedClosed { .. } => true,
            Self::Request { .. }
            | Self::Response { .. }
            | Self::RepairWant { .. }
            | Self::RepairAnswer { .. } => false,
        }
    }

    /// When it leaves a busy uplink.
    #[must_use]
    pub const fn urgency(&self) -> Urgency {
        match self {
            Self::Down { repair: false, .. } => Urgency::Live,
            Self::Down { repair: true, .. } | Self::RepairAnswer { .. } => Urgency::Repair,
            Self::Hello { .. }
            | Self::HelloAck { .. }
            | Self::Up { .. }
            | Self::Flow { .. }
            | Self::FeedClosed { .. }
            | Self::RepairWant { .. }
            | Self::Request { .. }
            | Self::Response { .. } => Urgency::Control,
        }
    }
}

fn message_len(message: &impl Wire) -> Option<usize> {
    message.to_wire().ok().map(|bytes| bytes.len() + REQUEST_BYTES)
}
