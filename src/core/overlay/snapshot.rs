//! A read-only picture of the overlay for the API, the status line and the checkers of tests.
//!
//! Owns the view types. Does not own what they show.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use super::{Addr, Contact, Interest, Role, TicketId};
use crate::{
    announcement::{Rendition, Resolution, Signature},
    ids::{NodeId, SourceKey, StreamId, Stripe},
    units::Bitrate,
};

/// Everything at one moment.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Snapshot {
    /// This node and where it is found.
    pub me: Contact,
    /// Others can dial this node.
    pub reachable: bool,
    /// Its role.
    pub role: Role,
    /// Its registration.
    pub registration: RegistrationView,
    /// Members registered here, in the order of their ids.
    pub members: Vec<NodeId>,
    /// Known nodes.
    pub nodes: Vec<NodeView>,
    /// Live streams of the directory.
    pub streams: Vec<StreamView>,
    /// Those beside them that are renditions, and of which stream.
    pub rendition_of: BTreeMap<StreamId, StreamId>,
    /// Streams watched or seeded here.
    pub watches: Vec<WatchView>,
    /// Streams published here.
    pub publishing: Vec<StreamId>,
    /// Tickets that this node gave.
    pub given: Vec<TicketView>,
    /// Tickets that this node holds.
    pub held: Vec<TicketView>,
    /// Uplink.
    pub capacity: CapacityView,
    /// Counters.
    pub counters: Counters,
}

/// Where a node stands with supernodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum RegistrationView {
    /// Looking for a supernode.
    Searching,
    /// Member of one.
    Registered {
        /// Which.
        supernode: NodeId,
        /// Which one stands by in case that one is lost.
        backup: Option<NodeId>,
    },
    /// Served at a reduced rate.
    Guest {
        /// By whom.
        supernode: Option<NodeId>,
    },
    /// Is one itself.
    Supernode,
}

/// One known node.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct NodeView {
    /// Who.
    pub node: NodeId,
    /// Where.
    pub addrs: Vec<Addr>,
    /// The number of its record; see [`Contact::seq`].
    pub seq: u64,
    /// Its own signature over node, number and addresses, verified; `None` for hearsay.
    pub proof: Option<Signature>,
    /// Known to be a supernode.
    pub supernode: bool,
    /// A connection is up.
    pub linked: bool,
    /// Last measured round trip.
    pub rtt: Option<Duration>,
    /// Failed attempts in a row.
    pub failures: u32,
    /// Refused for misbehaving.
    pub banned: bool,
}

/// One stream of the directory.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct StreamView {
    /// Its id.
    pub stream: StreamId,
    /// Its owner's key.
    pub source: SourceKey,
    /// Its name.
    pub name: String,
    /// The publishing node.
    pub node: NodeId,
    /// A line for people.
    pub title: String,
    /// A paragraph for people.
    pub description: String,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// Codec names.
    pub codecs: Vec<String>,
    /// Picture size.
    pub resolution: Option<Resolution>,
    /// Bit rate.
    pub rate: Bitrate,
    /// Number of stripes.
    pub k: u8,
    /// Epoch of the source.
    pub epoch: u64,
    /// Revision within it.
    pub revision: u64,
    /// Published here.
    pub mine: bool,
    /// Viewers and seeders that this node's supernode knows of, or this node if it is one.
    pub viewers: u32,
    /// There is a small picture of it.
    pub thumbnail: bool,
    /// Lower renditions that it announces, the best first.
    pub renditions: Vec<Rendition>,
}

/// One stream that is watched or seeded.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct WatchView {
    /// Which stream.
    pub stream: StreamId,
    /// Play or seed.
    pub kind: Interest,
    /// Every stripe comes in.
    pub playing: bool,
    /// Its stripes, in order.
    pub stripes: Vec<StripeView>,
    /// Candidates known.
    pub candidates: u32,
}

/// One stripe of a watched stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct StripeView {
    /// Which.
    pub stripe: Stripe,
    /// From whom it comes.
    pub parent: Option<NodeId>,
    /// Hops from the source.
    pub depth: Option<u8>,
}

/// One ticket.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct TicketView {
    /// Its name at the parent.
    pub ticket: TicketId,
    /// Which stream.
    pub stream: StreamId,
    /// Which stripe.
    pub stripe: Stripe,
    /// The node at the other end.
    pub node: NodeId,
    /// The feed is up and the ticket taken up.
    pub confirmed: bool,
    /// A promise to take over when the live parent fails; it holds no slot.
    pub standby: bool,
    /// Lapses in this many milliseconds unless renewed.
    pub expires_in_ms: u64,
}

/// Uplink and what is promised of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct CapacityView {
    /// What may be used.
    pub usable: Bitrate,
    /// Nothing told, nothing measured: the default.
    pub assumed: bool,
    /// Sum of the tickets given.
    pub promised: Bitrate,
    /// The setting.
    pub max_copies: Option<u32>,
    /// The setting.
    pub max_total_copies: Option<u32>,
}

/// What was counted since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Counters {
    /// Requests sent.
    pub requests_sent: u64,
    /// Requests answered.
    pub requests_answered: u64,
    /// Requests of this node that failed.
    pub requests_failed: u64,
    /// Requests refused because the asker asks too often.
    pub rate_limited: u64,
    /// Tickets given.
    pub granted: u64,
    /// Stripes refused.
    pub refused: u64,
    /// Parents lost and replaced.
    pub failovers: u64,
    /// Announcements dropped: forged.
    pub forged: u64,
    /// Announcements ignored: old.
    pub stale: u64,
    /// Entries dropped because a table was full.
    pub overflows: u64,
    /// Offences seen.
    pub offences: u64,
    /// Complaints about parents that were noted here, and those that were not worth it.
    pub complaints: u64,
    /// Nodes left out of answers because of complaints.
    pub delisted: u64,
}
