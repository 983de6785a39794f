//! Everything the overlay wants done.
//!
//! Owns the output vocabulary. Outputs are in order: a driver that carries them out one after the
//! other is right. Does not own how they are done.

use std::sync::Arc;

use serde::Serialize;

use super::{Contact, EndReason, Event, InboundId, LookupId, Request, RequestId, Response, Role};
use crate::{
    announcement::{Announcement, SignedAnnouncement},
    ids::{FeedKey, NodeId, StreamId, Stripe, StripeSet},
};

/// One effect.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub enum Output {
    /// Connect; answered by `LinkUp` or `DialFailed`. Harmless when connected or dialling.
    Dial {
        /// To whom.
        contact: Contact,
    },
    /// Nothing is wanted of this node any more: its connection may be closed.
    Disconnect {
        /// From whom.
        node: NodeId,
    },
    /// Ask; answered by one `Response`. A `Dial` comes before it when no link is up: the driver
    /// holds the request until the dial ends.
    Request {
        /// Names it.
        id: RequestId,
        /// Whom.
        to: NodeId,
        /// What.
        body: Request,
    },
    /// Answer a request.
    Respond {
        /// Which.
        id: InboundId,
        /// How.
        body: Response,
    },
    /// Look something up in the distributed hash table; answered by one `LookupDone`.
    Lookup {
        /// Names it.
        id: LookupId,
        /// What.
        key: LookupKey,
    },
    /// Be a supernode (Kademlia server, member of the gossip) or not.
    SetRole(Role),
    /// Seal with the source's key; answered by `Signed`.
    Sign {
        /// What to seal.
        draft: Box<Announcement>,
    },
    /// Seal with the node's key; answered by `SignedContact`.
    SignContact {
        /// What to seal.
        contact: Contact,
    },
    /// Publish among supernodes.
    Gossip {
        /// What.
        announcement: Arc<SignedAnnouncement>,
    },
    /// Whether a gossip message may be passed on.
    GossipVerdict {
        /// Which message.
        id: u64,
        /// Whether.
        verdict: GossipVerdict,
    },
    /// Open a feed to a parent; answered by `FeedUp` or `FeedDown`.
    OpenFeed {
        /// Which feed (from the parent).
        feed: FeedKey,
    },
    /// Close a feed, telling the other end why. No `FeedDown` needs to follow.
    CloseFeed {
        /// Which feed.
        feed: FeedKey,
        /// Why.
        reason: EndReason,
    },
    /// Which stripes a child may have.
    SetStripes {
        /// Which feed (to the child).
        feed: FeedKey,
        /// May be promoted and sent.
        live: StripeSet,
        /// Ticketed as standby only.
        warm: StripeSet,
    },
    /// Tell a child the path of a stripe, this node last.
    SendPath {
        /// Which feed (to the child).
        feed: FeedKey,
        /// Which stripe.
        stripe: Stripe,
        /// Source first.
        path: Vec<u64>,
    },
    /// Make this parent the live one of a stripe.
    Promote {
        /// Which feed (from the parent).
        feed: FeedKey,
        /// Which stripe.
        stripe: Stripe,
    },
    /// Ask this feed for what is missing.
    Want {
        /// Which feed.
        feed: FeedKey,
        /// Which stripe.
        stripe: Stripe,
    },
    /// Prepare to carry a stream; comes before its first feed.
    OpenStream {
        /// Which stream.
        stream: StreamId,
    },
    /// The stream is not carried any more; its feeds are closed already.
    CloseStream {
        /// Which stream.
        stream: StreamId,
    },
    /// Something that users and scripts want to know.
    Event(Event),
    /// Leaving is done: the driver may stop.
    Left,
}

/// What to look up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub enum LookupKey {
    /// The supernodes closest to the rendezvous key.
    Supernodes,
    /// Who carries this stream.
    Stream(StreamId),
}

/// Whether a gossip message may be passed on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub enum GossipVerdict {
    /// New and sound: pass it on.
    Accept,
    /// Sound but old: do not pass it on, nobody is to blame.
    Ignore,
    /// Bad: the sender is to blame.
    Reject,
}
