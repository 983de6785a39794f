//! What nodes say to each other: tickets and the directory.
//!
//! Owns the fields of `/astral/ticket/1` and `/astral/dir/1` and their bounds. Does not own their
//! encoding (see `wire`), nor what anybody does about a message.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Contact;
use crate::{
    announcement::SignedAnnouncement,
    ids::{NodeId, STRIPES_MAX, StreamId, Stripe, StripeSet},
    units::Bitrate,
};

/// Most candidates of one answer.
pub const CANDIDATES_MAX: usize = 16;
/// Most contacts of one answer.
pub const CONTACTS_MAX: usize = 16;
/// Most streams of one STATUS.
pub const STATUS_STREAMS_MAX: usize = 64;
/// Most streams of one summary.
pub const SUMMARY_STREAMS_MAX: usize = 4;
/// Shards of a directory, by the first bits of the streams' ids.
pub const SHARDS: usize = 64;
/// Most revisions of one answer.
pub const HEADS_MAX: usize = 160;
/// Most streams fetched by one request.
pub const FETCH_MAX: usize = 64;
/// Most announcements of one page or push.
pub const PAGE_MAX: usize = 64;

/// Streams whose viewers one answer to a member counts, those with the most of them: 2.4 KB a
/// renewal, which is 400 kbit/s of a supernode with 100 members.
pub const AUDIENCES_MAX: usize = 64;
/// Longest path of a stripe, in nodes; deeper is refused.
pub const PATH_MAX: usize = 24;
/// Most tickets of one REVOKE.
pub const REVOKE_MAX: usize = STRIPES_MAX as usize;
/// In [`Candidate::depths`]: this stripe is not carried.
pub const DEPTH_NONE: u8 = u8::MAX;

/// Names one ticket at the parent that issued it; drawn at random.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TicketId(pub u64);

/// A request of either protocol.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Request {
    /// Over `/astral/ticket/1`.
    Ticket(TicketRequest),
    /// Over `/astral/dir/1`.
    Dir(DirRequest),
}

/// A response of either protocol.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Response {
    /// Over `/astral/ticket/1`.
    Ticket(TicketResponse),
    /// Over `/astral/dir/1`.
    Dir(DirResponse),
}

/// What a child or a parent asks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TicketRequest {
    /// Child to parent: feed me these stripes. For a stripe already granted it renews the lease.
    Ask(Ask),
    /// Child to parent: I need these no longer.
    Release {
        /// At most [`REVOKE_MAX`].
        tickets: Vec<TicketId>,
    },
    /// Parent to child: these end after the grace; look at the candidates.
    Revoke(Revoke),
}

/// Asks one parent for stripes of one stream. The child is always the authenticated requester.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ask {
    /// Which stream.
    pub stream: StreamId,
    /// Which stripes, at most [`STRIPES_MAX`].
    pub stripes: Vec<AskStripe>,
    /// Where the child itself is found, for redirecting others to it.
    pub contact: Contact,
    /// How many more stripes of this stream the child could feed to others.
    pub free: u16,
    /// How many rounds the child has searched in vain, when it pleads with this parent to make
    /// room; else 0.
    pub attempt: u8,
    /// How many stripes of this stream the child may feed at all: what it contributes.
    #[serde(default)]
    pub slots: u16,
    /// For so many of `stripes` the parent may give the child the place of another that
    /// contributes less: the child keeps a slot for each of those displaced.
    #[serde(default)]
    pub displace: u8,
}

/// One stripe of an [`Ask`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AskStripe {
    /// Which stripe.
    pub stripe: Stripe,
    /// Newest stripe-sequence number the child has.
    pub head: Option<u64>,
    /// As a standby: a promise that holds no slot, to be promoted when the live parent fails.
    #[serde(default)]
    pub warm: bool,
}

impl AskStripe {
    /// Asks for a live ticket.
    #[must_use]
    pub const fn live(stripe: Stripe) -> Self {
        Self { stripe, head: None, warm: false }
    }
}

/// Ends tickets from the parent's side.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Revoke {
    /// Which stream.
    pub stream: StreamId,
    /// Which of its tickets, at most [`REVOKE_MAX`].
    pub tickets: Vec<TicketId>,
    /// Why.
    pub reason: RevokeReason,
    /// The bytes stop this many milliseconds after it was sent.
    pub grace_ms: u32,
    /// Who may serve instead.
    pub candidates: Vec<Candidate>,
}

/// Why a parent ends a ticket.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevokeReason {
    /// The parent's user revoked it.
    Revoked,
    /// The parent stops watching, or leaves.
    Leaving,
    /// The parent has less uplink than it promised, or the child drains too slowly.
    Shed,
    /// Somebody who contributes more takes the place, or the slot is needed for a stripe that
    /// nobody carries yet.
    Rebalance,
}

/// What a parent answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TicketResponse {
    /// To an ASK: a verdict for every stripe asked.
    Answer(AskAnswer),
    /// To a RELEASE or REVOKE: noted.
    Done,
    /// The whole request is refused.
    Refused {
        /// Why.
        reason: RefuseReason,
        /// When to ask again at the earliest, in milliseconds; 0: never mind.
        retry_ms: u32,
    },
}

/// Answer to an [`Ask`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AskAnswer {
    /// Bit rate of the whole stream as the parent knows it.
    pub rate: Bitrate,
    /// Number of stripes as the parent knows it.
    pub k: u8,
    /// One entry for each stripe asked, in that order.
    pub stripes: Vec<StripeAnswer>,
    /// Others to ask for what was refused, best first, at most [`CANDIDATES_MAX`].
    pub redirect: Vec<Candidate>,
}

/// The verdict on one stripe.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StripeAnswer {
    /// Which stripe.
    pub stripe: Stripe,
    /// Granted or not.
    pub verdict: Verdict,
}

/// Granted or not.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// A lease.
    Grant {
        /// Its name at this parent.
        ticket: TicketId,
        /// Lapses after this many milliseconds unless renewed.
        expires_in_ms: u32,
        /// Path of the stripe down to and with the parent, source first: its length is the
        /// child's depth.
        path: Vec<u64>,
        /// Who had this place and was told to ask the new child instead.
        #[serde(default)]
        displaced: Option<NodeId>,
    },
    /// No.
    Refuse {
        /// Why.
        reason: RefuseReason,
    },
}

/// Why a parent refuses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefuseReason {
    /// No slot is free: look at the redirect.
    NoCapacity,
    /// A setting of its user forbids more copies.
    CopyLimit,
    /// It does not carry this stream or stripe, or carries it without a living parent.
    NotCarrying,
    /// The child feeds the parent, directly or not.
    Loop,
    /// The tree would grow too deep.
    TooDeep,
    /// The asker has misbehaved.
    Banned,
    /// The asker asks too often.
    RateLimited,
    /// It is going away.
    Leaving,
    /// Neither parent nor child of the ticket named.
    NotParty,
    /// The request makes no sense.
    Malformed,
}

/// A node that may serve stripes of a stream.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Candidate {
    /// Who and where.
    pub contact: Contact,
    /// Depth of each stripe there ([`DEPTH_NONE`]: not carried), at most [`STRIPES_MAX`] entries.
    pub depths: Vec<u8>,
    /// How many more stripes it could feed.
    pub free: u16,
    /// It is the stream's source.
    pub source: bool,
}

impl Candidate {
    /// The stripes it carries.
    #[must_use]
    pub fn stripes(&self) -> StripeSet {
        let mut set = StripeSet::EMPTY;
        for (stripe, _) in (0..STRIPES_MAX).zip(&self.depths).filter(|(_, d)| **d != DEPTH_NONE) {
            set.insert(stripe);
        }
        set
    }
}

/// What a node is to the network.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Keeps a directory for members.
    Supernode,
    /// Registers with a supernode.
    Member,
}

/// What a node asks a supernode, supernodes ask each other, and a supernode pushes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DirRequest {
    /// Register, renew, or (between supernodes) meet.
    Register(Register),
    /// The member leaves.
    Unregister,
    /// What the member carries.
    Status {
        /// At most [`STATUS_STREAMS_MAX`].
        streams: Vec<StreamStatus>,
    },
    /// Who may serve this stream?
    Join {
        /// Which stream.
        stream: StreamId,
    },
    /// What is known of this stream?
    Find {
        /// Which stream.
        stream: StreamId,
    },
    /// A page of the directory, ordered by stream.
    List {
        /// Continue behind this one.
        after: Option<StreamId>,
    },
    /// What differs between the asker's directory and this one?
    Compare {
        /// Digest of each of the asker's [`SHARDS`] shards.
        shards: Vec<u64>,
        /// Continue behind this one.
        after: Option<StreamId>,
    },
    /// The announcements of these streams.
    Fetch {
        /// In ascending order, at most [`FETCH_MAX`].
        streams: Vec<StreamId>,
    },
    /// Supernode to a coordinator of a stream: who carries it? Answered from what is known there.
    Carriers {
        /// Which stream.
        stream: StreamId,
    },
    /// Supernode to a coordinator, or one coordinator to another: who carries what.
    Summary {
        /// At most [`SUMMARY_STREAMS_MAX`].
        streams: Vec<StreamSummary>,
    },
    /// Supernode to a member that asked who may serve a stream: more has been found out.
    Offer {
        /// Which stream.
        stream: StreamId,
        /// The newest announcement, when known.
        announcement: Option<Arc<SignedAnnouncement>>,
        /// Best first, at most [`CANDIDATES_MAX`].
        candidates: Vec<Candidate>,
    },
    /// Member to supernode: this parent does not do as it says.
    Complain(Complaint),
    /// Member to supernode: announce this (or its end).
    Publish {
        /// What to announce.
        announcement: Arc<SignedAnnouncement>,
    },
    /// Supernode to member or neighbour: this is new.
    Push {
        /// At most [`PAGE_MAX`].
        announcements: Vec<Arc<SignedAnnouncement>>,
    },
}

/// A registration, its renewal, or a meeting of two supernodes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Register {
    /// The asker's own record.
    pub contact: Contact,
    /// A supernode only introduces itself and takes no place.
    pub role: Role,
    /// Digest of the asker's directory, to find out whether it lacks something.
    pub digest: u64,
    /// A member keeps this supernode as its backup: it takes no place.
    #[serde(default, skip_serializing_if = "is_false")]
    pub standby: bool,
    /// How many members a supernode that introduces itself has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<Load>,
}

/// How busy a supernode is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Load {
    /// Its members.
    pub members: u16,
    /// Places it has left.
    pub places: u16,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// What one member carries of one stream.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StreamStatus {
    /// Which stream.
    pub stream: StreamId,
    /// Depth of each stripe ([`DEPTH_NONE`]: not carried), at most [`STRIPES_MAX`] entries.
    pub depths: Vec<u8>,
    /// How many more stripes it could feed.
    pub free: u16,
    /// It forwards without playing.
    pub seeding: bool,
}

impl StreamStatus {
    /// Whether whoever says it publishes the stream: all others are below somebody.
    #[must_use]
    pub fn is_source(&self) -> bool {
        self.depths.contains(&0)
    }
}

/// A child's complaint about a parent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Complaint {
    /// Which stream.
    pub stream: StreamId,
    /// Which stripe.
    pub stripe: Stripe,
    /// The parent.
    pub accused: NodeId,
    /// What it did.
    pub kind: ComplaintKind,
}

/// What a parent did.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ComplaintKind {
    /// It granted a stripe and never opened its feed.
    Unopened,
    /// It says that it has the stripe and passes nothing on.
    Withheld,
    /// What it passed on was not the source's.
    BadData,
}

/// Who carries a stream, as one supernode knows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StreamSummary {
    /// Which stream.
    pub stream: StreamId,
    /// Viewers and seeders there.
    pub viewers: u32,
    /// The best of them, at most [`CANDIDATES_MAX`].
    pub candidates: Vec<Candidate>,
    /// A coordinator tells what others told it: not to be told on.
    pub relayed: bool,
}

/// Which statement about a stream is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Head {
    /// Which stream.
    pub stream: StreamId,
    /// Epoch of the newest announcement.
    pub epoch: u64,
    /// Revision within it.
    pub revision: u64,
}

/// What a supernode answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DirResponse {
    /// Registered or renewed, or met.
    Accepted {
        /// Lapses after this many milliseconds unless renewed.
        expires_in_ms: u32,
        /// Other supernodes, at most [`CONTACTS_MAX`].
        others: Vec<Contact>,
        /// The asker's directory equals the answerer's.
        in_sync: bool,
        /// How busy the answerer is; told to other supernodes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        load: Option<Load>,
        /// Members of the answerer that take over if it is lost, the first one first; the asker may be
        /// among them. Told to members by a supernode that knows few others, so that the network does
        /// not fall apart with it. At most [`CONTACTS_MAX`].
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        heirs: Vec<Contact>,
        /// Streams that somebody watches and how many take them, as far as the answerer knows; told
        /// to members, for their users' lists. At most [`AUDIENCES_MAX`], the largest first.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        audiences: Vec<(StreamId, u32)>,
    },
    /// No place; `others` may have one.
    Full {
        /// Other supernodes, at most [`CONTACTS_MAX`].
        others: Vec<Contact>,
    },
    /// Noted.
    Done,
    /// Answer to JOIN and CARRIERS.
    Candidates {
        /// The newest announcement, when known.
        announcement: Option<Arc<SignedAnnouncement>>,
        /// Best first, at most [`CANDIDATES_MAX`]; the source among them when known.
        candidates: Vec<Candidate>,
    },
    /// Answer to FIND.
    Found {
        /// `None`: unknown here.
        announcement: Option<Arc<SignedAnnouncement>>,
    },
    /// Answer to COMPARE: the streams of the shards that differ.
    Heads {
        /// Ordered by stream, at most [`HEADS_MAX`].
        heads: Vec<Head>,
        /// Where the next answer begins; `None` when this was the last.
        next: Option<StreamId>,
    },
    /// Answer to LIST and FETCH.
    Page {
        /// At most [`PAGE_MAX`].
        announcements: Vec<Arc<SignedAnnouncement>>,
        /// Where the next page begins; `None` when this was the last.
        next: Option<StreamId>,
    },
    /// Answer to REGISTER from a node that is no supernode: those it knows.
    Elsewhere {
        /// Its own supernode first, at most [`CONTACTS_MAX`].
        others: Vec<Contact>,
    },
    /// Not done.
    Refused {
        /// Why.
        reason: DirRefusal,
        /// When to ask again at the earliest, in milliseconds; 0: never mind.
        retry_ms: u32,
    },
}

/// Why a directory request is refused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DirRefusal {
    /// This node is no supernode.
    NotSupernode,
    /// The asker asks too often; guests sooner than members.
    RateLimited,
    /// The asker is not registered here.
    NotMember,
    /// The signature is not the stream owner's.
    Forged,
    /// Something newer is known.
    Stale,
    /// The directory is full.
    Full,
    /// The asker has misbehaved.
    Banned,
    /// It is going away.
    Leaving,
}
