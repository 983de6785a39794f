//! What comes out of the relay.
//!
//! Owns [`RelayOutput`] and its parts. Does not own the frames (see `media::frame`).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::input::{AnswerId, SinkId};
use crate::{
    ids::{FeedKey, NodeId, Stripe, StripeSet},
    media::{
        chunk::Payload,
        frame::{DownFrame, EndReason, UpFrame},
        init::SignedInit,
        repair::{RepairAnswer, RepairWant},
    },
    time::Timestamp,
    units::Bitrate,
};

/// One thing for the driver to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RelayOutput<P> {
    /// Send these to a child, in order, in one write.
    Down {
        /// The feed to the child.
        feed: FeedKey,
        /// At least one frame.
        frames: Vec<DownFrame<P>>,
    },
    /// Send this to a parent.
    Up {
        /// The feed from the parent.
        feed: FeedKey,
        /// The frame.
        frame: UpFrame,
    },
    /// For the overlay: how a feed from a parent fares. At most 20 a second and feed, but at once
    /// on a gap, a silence, its end, a shed or an offence.
    Progress(FeedProgress),
    /// For a local reader.
    Deliver {
        /// Which sink.
        sink: SinkId,
        /// What.
        item: Delivery<P>,
    },
    /// For the overlay: a child PROMOTEs a stripe that it has no live ticket for. The relay sends
    /// nothing until `SetStripes` names it as live; then it starts as the child asked.
    PromoteAsked {
        /// The feed to the child.
        feed: FeedKey,
        /// Which stripe.
        stripe: Stripe,
    },
    /// For the overlay: the stripes that a child still holds tickets for, by its ACKs; at most one
    /// a second and feed.
    ChildAlive {
        /// The feed to the child.
        feed: FeedKey,
        /// Which stripes.
        stripes: StripeSet,
    },
    /// For the overlay: a child has bytes and has acknowledged none of them for a while. Once, until it
    /// does again, which `ChildAlive` says.
    ChildQuiet {
        /// The feed to the child.
        feed: FeedKey,
    },
    /// For the overlay: a child has not drained a byte for 5 s while bytes were waiting. Once.
    Stalled {
        /// The feed to the child.
        feed: FeedKey,
    },
    /// For the overlay: these stripes were taken from a child that is too slow for them; it has
    /// been told.
    Shed {
        /// The feed to the child.
        feed: FeedKey,
        /// Which stripes.
        stripes: StripeSet,
    },
    /// For the overlay: a new estimate of the uplink, while no ceiling is told.
    Uplink {
        /// What it carries.
        rate: Bitrate,
    },
    /// Ask a neighbour. Answered by one [`RelayInput::Repair`](super::RelayInput::Repair) or
    /// [`RelayInput::RepairFailed`](super::RelayInput::RepairFailed).
    RepairWant {
        /// Whom.
        to: NodeId,
        /// What.
        want: RepairWant,
    },
    /// Answer a neighbour.
    RepairAnswer {
        /// Whom.
        to: NodeId,
        /// Which question.
        id: AnswerId,
        /// The answer.
        answer: RepairAnswer<P>,
    },
    /// For the overlay: a child gave a stripe back; it gets nothing more of it.
    Released {
        /// The feed to the child.
        feed: FeedKey,
        /// Which stripe.
        stripe: Stripe,
    },
}

/// What a sink gets. The bytes of the init segment and of all chunks, in this order, are the FLV
/// stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Delivery<P> {
    /// What a player needs before the next chunk; only where a stream starts or after a skip.
    Init(SignedInit),
    /// The next chunk.
    Chunk(P),
    /// These chunks are not delivered. The next one starts a frame (with `Live`, a keyframe).
    Skipped {
        /// First skipped `seq`.
        from_seq: u64,
        /// Last skipped `seq`.
        to_seq: u64,
        /// Why.
        cause: SkipCause,
    },
    /// The source paused.
    Paused,
    /// The source resumed.
    Resumed,
    /// The stream ended; nothing follows unless the source starts a new epoch.
    Ended(EndReason),
    /// The source restarted: `seq` starts over, an init segment and a keyframe follow.
    NewEpoch {
        /// The new epoch.
        epoch: u64,
    },
}

/// Why chunks were skipped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SkipCause {
    /// A chunk was not there when it was due.
    Deadline,
    /// No known ring has it any more.
    Lost,
    /// The reader was too slow.
    SlowReader,
    /// The reader was so slow, or the gap so long, that this node's own ring ran over.
    Overwritten,
    /// The epoch was over before the chunk came.
    EpochOver,
}

impl fmt::Display for SkipCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deadline => "not there when due",
            Self::Lost => "lost by every known forwarder",
            Self::SlowReader => "the reader is too slow",
            Self::Overwritten => "the buffer ran over",
            Self::EpochOver => "the source restarted",
        })
    }
}

/// How a feed from a parent fares. Totals since the feed came up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FeedProgress {
    /// Which feed.
    pub feed: FeedKey,
    /// When the last byte came, while the feed is silent for longer than T_dead.
    pub silent_since: Option<Timestamp>,
    /// When this was true.
    pub at: Timestamp,
    /// Each stripe that is promoted on the feed or of which a chunk came.
    pub stripes: Vec<StripeProgress>,
    /// Chunks that this node had already.
    pub duplicates: u32,
    /// Unlawful frames.
    pub offences: u32,
    /// Stripes that the parent stopped by SHED since the last report.
    pub shed: StripeSet,
}

/// One stripe of a feed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StripeProgress {
    /// Which stripe.
    pub stripe: Stripe,
    /// `stripe_seq` of the newest chunk that came on this feed.
    pub head_stripe_seq: u64,
    /// `stripe_seq` of the newest chunk that the parent sent or says it has.
    pub claimed_stripe_seq: u64,
    /// Bytes of chunks of the stripe that came on this feed.
    pub bytes: u64,
    /// How old, in milliseconds, the newest chunk of the stripe is: time since the source cut it.
    pub age_ms: u32,
    /// GAPs that the parent declared.
    pub gaps: u32,
    /// The parent's distance from the source; 0 = it is the source, 255 = unknown.
    pub depth: u8,
}

/// What the relay waits for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RelayTimeout {
    /// A child is due a KEEP.
    Keep,
    /// A parent is due an ACK.
    Ack,
    /// A parent is about to be silent for too long.
    Silence,
    /// The uplink ceiling lets the next chunk pass.
    Pace,
    /// A sink's missing chunk is due.
    Deadline,
    /// A missing chunk is asked for or given up.
    Gap,
    /// A report to the overlay is due.
    Progress,
    /// A slow child is judged.
    Backlog,
    /// A neighbour may be asked, or answered.
    Repair,
}

/// The queue that outputs wait in.
pub(crate) type Outbox<P> = std::collections::VecDeque<RelayOutput<P>>;

/// Bytes of some frames on the wire.
pub(crate) fn frames_len<P: Payload>(frames: &[DownFrame<P>]) -> usize {
    frames.iter().map(DownFrame::wire_len).sum()
}
