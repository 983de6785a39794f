//! What goes into the relay.
//!
//! Owns [`RelayInput`] and the small values it is made of. Does not own what an input causes: the
//! recipe is on [`Relay`](super::Relay).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    ids::{FeedKey, NodeId, StreamId, Stripe, StripeSet},
    media::{
        cert::SignedCert,
        frame::{DownFrame, KeepEntry, UpFrame},
        init::SignedInit,
        repair::{RepairHave, RepairWant},
    },
    units::Bitrate,
};

/// One fact or wish for the relay. Everything that came from another node was verified by the
/// driver: certificates, init segments and chunks whose signature is wrong never get here.
#[derive(Clone, Debug)]
pub enum RelayInput<P> {
    /// This node takes part in a stream. Everything else about an unknown stream is counted and
    /// dropped. Opening twice changes nothing.
    Open {
        /// Which stream.
        stream: StreamId,
        /// Whether the chunks are cut here.
        role: StreamRole,
    },
    /// This node leaves a stream: its ring, feeds and sinks go; each sink gets
    /// [`Delivery::Ended`](super::Delivery::Ended) with
    /// [`EndReason::Left`](crate::media::frame::EndReason::Left), if it had no end before.
    Close {
        /// Which stream.
        stream: StreamId,
    },
    /// A certificate. The highest epoch wins: a higher one restarts ring and cursors, an older one
    /// changes nothing. **Every** CERT frame that a driver reads is handed over, in order with the
    /// other frames of its feed, also when it is known already: it says which epoch the parent's
    /// START, KEEP and GAP speak of from there on.
    Epoch {
        /// Which stream.
        stream: StreamId,
        /// The certificate.
        cert: SignedCert,
        /// The feed that it came on; `None` at the source itself.
        feed: Option<FeedKey>,
    },
    /// An init segment of the current epoch.
    Init {
        /// Which stream.
        stream: StreamId,
        /// The segment.
        init: SignedInit,
    },
    /// The source's next chunk, in `seq` order.
    LocalChunk {
        /// Which stream.
        stream: StreamId,
        /// The chunk.
        chunk: P,
    },
    /// A chunk that a parent sent.
    Chunk {
        /// The feed it came on.
        feed: FeedKey,
        /// The chunk.
        chunk: P,
    },
    /// A CHUNK frame that the driver read and does not hand over, for example because its epoch is
    /// over. It still counts for ACK.
    Discarded {
        /// The feed it came on.
        feed: FeedKey,
        /// The frame's length in bytes.
        bytes: usize,
    },
    /// Another frame of a parent.
    Frame {
        /// The feed it came on.
        feed: FeedKey,
        /// The frame.
        frame: DownFrameMeta,
    },
    /// A frame of a child.
    UpFrame {
        /// The feed it came on.
        feed: FeedKey,
        /// The frame.
        frame: UpFrame,
    },
    /// The driver saw something unlawful on a feed. It is counted and reported; nothing else.
    Offence {
        /// The feed it came on.
        feed: FeedKey,
        /// What it was.
        kind: FeedOffence,
    },
    /// A feed is open in both directions.
    FeedUp {
        /// Which feed.
        feed: FeedKey,
        /// Round trip time of the connection, if known.
        rtt: Option<Duration>,
    },
    /// A feed is gone. Its place, and what was agreed on it, is forgotten.
    FeedDown {
        /// Which feed.
        feed: FeedKey,
    },
    /// A new measurement of a feed's round trip time.
    Rtt {
        /// Which feed.
        feed: FeedKey,
        /// The round trip time.
        rtt: Duration,
    },
    /// To a child: the stripes that it may PROMOTE and get (`live`), and those for which it must
    /// ask the overlay first (`warm`). A stripe in neither stops at once. From a parent: the
    /// tickets that this node holds there, which its ACKs keep alive; without this input those are
    /// the stripes promoted on the feed.
    SetStripes {
        /// Which feed.
        feed: FeedKey,
        /// Stripes with a live ticket.
        live: StripeSet,
        /// Stripes with a warm ticket.
        warm: StripeSet,
    },
    /// Make this parent the one that a stripe comes from. The relay resumes at the next missing
    /// chunk. The stripe's former parent is forgotten; what it still sends is accepted.
    Promote {
        /// The feed from the parent; PROMOTE is sent when the feed is up.
        feed: FeedKey,
        /// Which stripe.
        stripe: Stripe,
    },
    /// Tell a parent that this stripe isn't wanted from it any more.
    Release {
        /// The feed from the parent.
        feed: FeedKey,
        /// Which stripe.
        stripe: Stripe,
    },
    /// Ask this feed for what is missing in a stripe.
    Want {
        /// The feed from the parent.
        feed: FeedKey,
        /// Which stripe.
        stripe: Stripe,
    },
    /// Deliver a stream to a local reader.
    Attach {
        /// Which stream.
        stream: StreamId,
        /// A number that the caller makes up, unique among sinks.
        sink: SinkId,
        /// When chunks are skipped.
        policy: Policy,
        /// Bytes of chunks that may be delivered before more credit comes. One frame is never
        /// torn: the last one may go beyond.
        credit: usize,
    },
    /// Stop delivering.
    Detach {
        /// Which sink.
        sink: SinkId,
    },
    /// The reader took so many bytes.
    Credit {
        /// Which sink.
        sink: SinkId,
        /// Bytes to add.
        bytes: usize,
    },
    /// The driver handed so many bytes of a feed to its transport. A child's ACKs count up to what
    /// was handed on, if the driver ever says so.
    Drained {
        /// Which feed.
        feed: FeedKey,
        /// Bytes of all frames.
        bytes: usize,
        /// Of these, bytes of CHUNK frames.
        chunk_bytes: usize,
    },
    /// Tell a child who stands between the source and this node in a stripe.
    Path {
        /// The feed to the child.
        feed: FeedKey,
        /// Which stripe.
        stripe: Stripe,
        /// Source first, at most [`PATH_LEN_MAX`](crate::media::frame::PATH_LEN_MAX).
        path: Vec<u64>,
    },
    /// The driver sent so many bytes that the relay didn't ask for, such as a feed's last words:
    /// they count against the ceiling.
    Spent {
        /// Bytes.
        bytes: usize,
    },
    /// A hard ceiling over all feeds of all streams, or none.
    Uplink {
        /// The ceiling.
        ceiling: Option<Bitrate>,
    },
    /// The nodes that carry a stream beside the parents and can be asked now, best first. Replaces
    /// those told before; at most [`NEIGHBOURS_MAX`](super::NEIGHBOURS_MAX) count.
    Neighbours {
        /// Which stream.
        stream: StreamId,
        /// Connected nodes.
        nodes: Vec<NodeId>,
    },
    /// A neighbour asks. Answered by one
    /// [`RelayOutput::RepairAnswer`](super::RelayOutput::RepairAnswer), at the latest when what it
    /// asks for is worth nothing any more.
    RepairAsked {
        /// Who.
        from: NodeId,
        /// Names the question; made up by the driver.
        id: AnswerId,
        /// What.
        want: RepairWant,
    },
    /// A neighbour's answer, whose chunks were verified.
    Repair {
        /// Which stream.
        stream: StreamId,
        /// Who.
        from: NodeId,
        /// What its ring spans.
        have: RepairHave,
        /// Chunks, of which some may be here already.
        chunks: Vec<P>,
    },
    /// A neighbour did not answer, or not as it should.
    RepairFailed {
        /// Which stream.
        stream: StreamId,
        /// Who.
        from: NodeId,
    },
    /// The local source paused or resumed.
    Paused {
        /// Which stream.
        stream: StreamId,
        /// Whether it is paused from here on.
        paused: bool,
    },
}

/// The frames from a parent that reach the relay as [`RelayInput::Frame`]. CHUNK, CERT and INIT
/// have inputs of their own; PATH and END go to the overlay.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DownFrameMeta {
    /// [`DownFrame::Start`].
    Start {
        /// Which stripe.
        stripe: Stripe,
        /// First chunk that follows, counted in the stripe.
        from_stripe_seq: u64,
        /// No later chunk of this stripe has a lower `seq`.
        from_seq: u64,
    },
    /// [`DownFrame::Keep`].
    Keep {
        /// What the parent has.
        stripes: Vec<KeepEntry>,
        /// The source paused.
        paused: bool,
    },
    /// [`DownFrame::Gap`].
    Gap {
        /// Which stripe.
        stripe: Stripe,
        /// First `stripe_seq` that the parent cannot give.
        from: u64,
        /// Last one.
        to: u64,
    },
    /// [`DownFrame::Shed`].
    Shed {
        /// The stripes that the parent stops.
        stripes: StripeSet,
    },
}

impl DownFrameMeta {
    /// The relay's part of a frame; gives back a frame that isn't for [`RelayInput::Frame`].
    ///
    /// # Errors
    /// The frame itself, for whom it is.
    #[expect(clippy::result_large_err, reason = "not an error: the frame goes on to its reader")]
    pub fn from_frame<P>(frame: DownFrame<P>) -> Result<Self, DownFrame<P>> {
        Ok(match frame {
            DownFrame::Start { stripe, from_stripe_seq, from_seq } => {
                Self::Start { stripe, from_stripe_seq, from_seq }
            }
            DownFrame::Keep { stripes, paused } => Self::Keep { stripes, paused },
            DownFrame::Gap { stripe, from, to } => Self::Gap { stripe, from, to },
            DownFrame::Shed { stripes } => Self::Shed { stripes },
            DownFrame::Cert(_)
            | DownFrame::Init(_)
            | DownFrame::Chunk(_)
            | DownFrame::Path { .. }
            | DownFrame::End { .. } => return Err(frame),
        })
    }
}

/// What this node is to a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamRole {
    /// The chunks are cut here.
    Source,
    /// The chunks come from parents.
    Member,
}

/// Names a neighbour's question.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct AnswerId(pub u64);

/// A local reader of a stream.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct SinkId(pub u64);

/// When a sink skips.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// A chunk that is missing `lag` after the source cut it is skipped, to a keyframe.
    Live {
        /// How far behind the source the reader may be.
        lag: Duration,
    },
    /// Every chunk, in order, once; only what has left every known ring is skipped.
    KeepAll,
}

/// What was unlawful about a frame.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeedOffence {
    /// A certificate, init segment or chunk that the source did not sign.
    Signature,
    /// A frame that breaks the layout or a bound.
    Frame,
    /// A stripe that the stream doesn't have.
    Stripe,
    /// A number absurdly far from what was seen.
    Range,
    /// A chunk that contradicts another signed chunk.
    Contradiction,
}
