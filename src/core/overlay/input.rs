//! Everything that can happen to the overlay.
//!
//! Owns the input vocabulary. Every input is serialisable, so that a journal of them replays. Does
//! not own where they come from: the node's driver or the simulator.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Addr, Contact, Request, Response, TicketId};
use crate::{
    announcement::{AnnouncementDraft, SignedAnnouncement},
    ids::{FeedKey, NodeId, StreamId, Stripe, StripeSet},
    time::Timestamp,
    units::Bitrate,
};

/// Names a request that this node sent; never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(pub u64);

/// Names a request that this node received; chosen by the driver, never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InboundId(pub u64);

/// Names a lookup; never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LookupId(pub u64);

/// Exactly one thing that happened.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Input {
    /// The user wants something.
    Command(Command),
    /// A first connection to this node is up and its identity is proven.
    LinkUp {
        /// Who, and the addresses known for it.
        contact: Contact,
        /// The address is loopback or private: diversity rules are void.
        private: bool,
    },
    /// The last connection to this node is gone.
    LinkDown {
        /// Who.
        node: NodeId,
    },
    /// A dial that the overlay asked for failed.
    DialFailed {
        /// Who.
        node: NodeId,
    },
    /// A fresh measurement of the round trip.
    Rtt {
        /// To whom.
        node: NodeId,
        /// How long.
        rtt: Duration,
    },
    /// The listen addresses or the reachability changed.
    ListenAddrs {
        /// Where others may dial, best first.
        addrs: Vec<Addr>,
        /// Others can dial this node, as far as is known.
        reachable: bool,
    },
    /// The answer to `Output::SignContact`.
    SignedContact {
        /// The contact with its proof.
        contact: Contact,
    },
    /// A node asks something; the answer is `Output::Respond`, within the same drain.
    Request {
        /// Which request.
        id: InboundId,
        /// The authenticated asker.
        from: NodeId,
        /// What it asks.
        body: Request,
    },
    /// A request of this node was answered or failed.
    Response {
        /// Which request.
        id: RequestId,
        /// The answer.
        result: Result<Response, RequestFailure>,
    },
    /// The answer to `Output::Lookup`.
    LookupDone {
        /// Which lookup.
        id: LookupId,
        /// What was found, nearest first.
        found: Vec<Contact>,
    },
    /// A node was heard of (mdns, identify) that may be dialled.
    Discovered {
        /// Who and where.
        contact: Contact,
    },
    /// An announcement by gossip, its signature already verified; answered by a `GossipVerdict`.
    Gossip {
        /// Names the message for the verdict.
        id: u64,
        /// The neighbour it came from.
        from: NodeId,
        /// What it says.
        announcement: Arc<SignedAnnouncement>,
    },
    /// A neighbour passed on gossip that does not parse or verify.
    ForgedGossip {
        /// Who.
        from: NodeId,
    },
    /// A node misbehaved beside its feeds and requests, or on a feed that has ended: as a neighbour
    /// that sends forged chunks for repair.
    Misbehaved {
        /// Who.
        node: NodeId,
        /// What it did.
        kind: Offence,
    },
    /// The answer to `Output::Sign`.
    Signed {
        /// The sealed announcement.
        announcement: Arc<SignedAnnouncement>,
    },
    /// A feed is open: hello and ack passed.
    FeedUp {
        /// Which feed.
        feed: FeedKey,
    },
    /// A feed ended, or could not be opened.
    FeedDown {
        /// Which feed.
        feed: FeedKey,
        /// How.
        reason: FeedDownReason,
    },
    /// Progress of a feed from a parent.
    Progress(FeedReport),
    /// A parent told the path of a stripe, itself last.
    Path {
        /// From which parent.
        feed: FeedKey,
        /// Which stripe.
        stripe: Stripe,
        /// Source first.
        path: Vec<u64>,
    },
    /// A parent said that a feed ends.
    Ended {
        /// Which feed.
        feed: FeedKey,
        /// Why, in the parent's words.
        reason: EndReason,
    },
    /// A parent stopped these stripes because this node drains too slowly.
    Shed {
        /// Which feed (from the parent).
        feed: FeedKey,
        /// Which stripes.
        stripes: StripeSet,
    },
    /// The stream's signed end chunk has arrived.
    StreamEnded {
        /// Which stream.
        stream: StreamId,
    },
    /// The source paused or resumed, as its signed chunks say.
    Paused {
        /// Which stream.
        stream: StreamId,
        /// Paused or not.
        paused: bool,
    },
    /// A child promoted a stripe that `SetStripes` did not allow.
    PromoteAsked {
        /// Which feed (to the child).
        feed: FeedKey,
        /// Which stripe.
        stripe: Stripe,
    },
    /// A child acknowledged bytes: its tickets for these stripes live on.
    ChildAlive {
        /// Which feed (to the child).
        feed: FeedKey,
        /// Which stripes.
        stripes: StripeSet,
    },
    /// A child has bytes and acknowledges none: perhaps it is dead.
    ChildQuiet {
        /// Which feed (to the child).
        feed: FeedKey,
    },
    /// A child never drains: it is to be disconnected.
    ChildStalled {
        /// Which feed (to the child).
        feed: FeedKey,
    },
    /// A slow child lost these stripes.
    ChildShed {
        /// Which feed (to the child).
        feed: FeedKey,
        /// Which stripes.
        stripes: StripeSet,
    },
    /// A child gave a stripe back over its feed.
    Released {
        /// Which feed (to the child).
        feed: FeedKey,
        /// Which stripe.
        stripe: Stripe,
    },
    /// A new estimate of the uplink; an explicit `--uplink` overrides it.
    UplinkEstimate(Bitrate),
    /// What circuits through this node take of an explicit uplink from now on.
    Relayed(Bitrate),
    /// A verified certificate says what the stream is made of.
    Rate {
        /// Which stream.
        stream: StreamId,
        /// Bit rate of the whole stream.
        rate: Bitrate,
        /// Number of stripes.
        k: u8,
    },
}

/// What the user wants.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Command {
    /// Publish a stream, or change what is announced of one that is published. The overlay
    /// repeats the announcement before it expires.
    Publish {
        /// What to announce. `rate` and `k` in it count.
        announcement: Box<AnnouncementDraft>,
    },
    /// End a published stream: a tombstone goes out.
    Unpublish {
        /// Which stream.
        stream: StreamId,
    },
    /// Watch or seed a stream; repeated, it changes lag and interest.
    Watch {
        /// Which stream.
        stream: StreamId,
        /// The player's lag: how long a failover may take.
        lag: Duration,
        /// Play or only forward.
        kind: Interest,
    },
    /// Stop watching or seeding; children are handed over.
    Unwatch {
        /// Which stream.
        stream: StreamId,
    },
    /// End one ticket, given or held.
    RevokeTicket {
        /// Which ticket.
        ticket: TicketId,
    },
    /// Forget a node and everything agreed with it.
    ForgetNode {
        /// Who.
        node: NodeId,
    },
    /// Change the limits.
    SetLimits {
        /// Explicit uplink; lifted, it is measured again.
        uplink: Change<Bitrate>,
        /// Most copies of one stream; lifted, as many as the uplink carries.
        max_copies: Change<u32>,
        /// Most copies of all streams together; lifted, as many as the uplink carries.
        max_total_copies: Change<u32>,
    },
    /// More nodes to begin with.
    AddBootstrap {
        /// Who and where.
        contacts: Vec<Contact>,
    },
    /// Leave politely; ends with `Output::Left`.
    Leave,
}

/// What to do about one limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change<T> {
    /// It stays as it is.
    #[default]
    Keep,
    /// There is none any more.
    Lift,
    /// This is the limit from here on.
    Set(T),
}

impl<T> Change<T> {
    /// The limit after the change.
    pub fn apply(self, before: Option<T>) -> Option<T> {
        match self {
            Self::Keep => before,
            Self::Lift => None,
            Self::Set(limit) => Some(limit),
        }
    }
}

impl<T> From<Option<T>> for Change<T> {
    /// `None` is no limit.
    fn from(limit: Option<T>) -> Self {
        limit.map_or(Self::Lift, Self::Set)
    }
}

/// Why a node wants a stream.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interest {
    /// Somebody watches here.
    Play,
    /// Only forwards.
    Seed,
}

/// Why a request has no answer. What the other side did about it is unknown.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestFailure {
    /// No answer in time.
    Timeout,
    /// No connection could be made, or it broke.
    Unreachable,
    /// The other side does not speak this protocol, or the message was too large.
    Refused,
}

/// How a feed ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeedDownReason {
    /// The libp2p stream or its connection closed.
    Closed,
    /// The other side refused the hello.
    Refused,
    /// The stream could not be opened.
    OpenFailed,
    /// The driver dropped it because the other side misbehaved.
    Offence(Offence),
}

/// Why a feed or a stream ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The source ended the stream.
    Ended,
    /// The source is gone and did not come back.
    SourceLost,
    /// The node at the other end leaves or stops watching.
    Left,
    /// The ticket was revoked or ran out.
    Revoked,
}

/// A remote misdeed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Offence {
    /// A chunk, certificate or init whose signature does not verify.
    BadSignature,
    /// A frame or message that does not parse.
    Malformed,
    /// An announcement or contact that its owner did not sign.
    Forged,
    /// An announcement that was superseded long ago.
    Replayed,
    /// More than 5 % duplicates for ten seconds.
    Duplicates,
    /// More requests than the limit, again and again.
    Flood,
    /// Tried to change a ticket of others.
    NotParty,
    /// Promised a stripe and did not open or serve the feed.
    BrokenPromise,
}

/// Progress of one feed from a parent: at most 20 a second, at once on a gap, silence or offence.
/// Counters are totals since the feed came up.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FeedReport {
    /// Which feed.
    pub feed: FeedKey,
    /// Since when nothing at all has arrived, when that is longer than the silence limit.
    pub silent_since: Option<Timestamp>,
    /// When this was seen.
    pub at: Timestamp,
    /// The live stripes of the feed, in ascending order.
    pub stripes: Vec<StripeProgress>,
    /// Chunks that were there already.
    pub duplicates: u32,
    /// Bad chunks and frames.
    pub offences: u32,
}

/// Progress of one stripe of a feed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StripeProgress {
    /// Which stripe.
    pub stripe: Stripe,
    /// Newest stripe-sequence number that arrived.
    pub head_stripe_seq: u64,
    /// Newest stripe-sequence number that the parent sent or says it has.
    pub claimed_stripe_seq: u64,
    /// Payload bytes.
    pub bytes: u64,
    /// Age of the newest chunk that is here, whoever brought it.
    pub age_ms: u32,
    /// Runs of chunks that are missing.
    pub gaps: u32,
    /// The parent's depth as it says.
    pub depth: u8,
}
