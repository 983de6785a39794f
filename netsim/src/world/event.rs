//! Everything that happens at a moment.
//!
//! Owns the vocabulary of the queue. Kept small: what is large is boxed.

use std::sync::Arc;

use astral_core::{
    announcement::SignedAnnouncement,
    ids::{FeedKey, NodeId},
    overlay::{LookupId, LookupKey, RequestId},
};

use super::net::{Lane, LinkLife};
use crate::packet::{FeedLife, Packet};

/// One event.
#[derive(Debug)]
pub(super) enum Event {
    /// A node's process starts.
    Start(u32),
    /// Its user wants to watch.
    Watch(u32),
    /// Its session is over.
    Depart(u32),
    /// The source begins.
    Publish,
    /// The source's next frame.
    Frame,
    /// A node asked to be woken.
    Wake(u32),
    /// A message reaches the receiver's access link.
    Arrive(Box<Message>),
    /// A message has passed the receiver's access link.
    Deliver(Box<Message>),
    /// What waits before a full uplink is tried again.
    Drain { from: u32, to: u32, lane: Lane },
    /// A dial has taken its time.
    DialDone { from: u32, to: u32 },
    /// A dial has failed.
    DialFailed { node: u32, peer: NodeId },
    /// Identify and the first ping are through.
    Identified { node: u32, peer: u32, life: LinkLife },
    /// A node notices that a connection is closed.
    LinkDown { node: u32, peer: u32, life: LinkLife, last: bool },
    /// Pings on a connection have failed, if they still do.
    LinkTimeout { a: u32, b: u32, life: LinkLife },
    /// The driver's deadline of a request.
    RequestTimeout { node: u32, id: RequestId },
    /// The driver's deadline of a greeting.
    GreetingTimeout { node: u32, feed: Box<FeedKey>, life: FeedLife },
    /// Kademlia answers.
    LookupDone { node: u32, id: LookupId, key: LookupKey },
    /// Gossip arrives.
    Gossip { to: u32, from: u32, announcement: Arc<SignedAnnouncement> },
    /// The scenario's fault of this number.
    Fault(usize),
    /// A frozen node goes on.
    Thaw(u32),
    /// A partition ends.
    Heal(usize),
    /// The rate of a throttled uplink is whole again.
    Unthrottle(u32),
    /// The programme is over.
    ProgrammeEnd,
    /// Where media are intervals: nothing comes from a peer any more, and no connection says so.
    Hush { node: u32, peer: u32 },
    /// A second has passed.
    Second,
}

/// A message on its way.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) from: u32,
    pub(super) to: u32,
    pub(super) life: LinkLife,
    pub(super) bytes: usize,
    pub(super) packet: Packet,
}

impl Event {
    /// The node whose process must run for this to happen to it.
    pub(super) const fn target(&self) -> Option<u32> {
        match self {
            Self::Watch(node)
            | Self::Wake(node)
            | Self::DialDone { from: node, .. }
            | Self::DialFailed { node, .. }
            | Self::Identified { node, .. }
            | Self::LinkDown { node, .. }
            | Self::RequestTimeout { node, .. }
            | Self::GreetingTimeout { node, .. }
            | Self::LookupDone { node, .. }
            | Self::Hush { node, .. }
            | Self::Gossip { to: node, .. } => Some(*node),
            Self::Deliver(message) => Some(message.to),
            Self::Publish | Self::Frame => Some(0),
            Self::Arrive(_)
            | Self::Start(_)
            | Self::Depart(_)
            | Self::Drain { .. }
            | Self::LinkTimeout { .. }
            | Self::Fault(_)
            | Self::Thaw(_)
            | Self::Heal(_)
            | Self::Unthrottle(_)
            | Self::ProgrammeEnd
            | Self::Second => None,
        }
    }
}
