//! One stripe of a watched stream: from whom it comes, and who comes next.
//!
//! Owns the states of a seat. Does not own messages: the subscriber sends them.

use std::collections::BTreeSet;

use super::super::{MoveCause, RequestId, TicketId};
use crate::{ids::NodeId, time::Timestamp};

/// A stripe's place at a parent.
///
/// `live` delivers (or should). `next` is granted and waits for its feed. `soft` is the silent old
/// parent, kept for a moment after its successor was promoted. A seat searches while it has no
/// `next` and either no `live` one or one that is to be replaced.
#[derive(Debug)]
pub(in super::super) struct Seat {
    pub(super) live: Option<Held>,
    pub(super) next: Option<Held>,
    pub(super) soft: Option<(Held, Timestamp)>,
    pub(super) replacing: bool,
    /// The live parent stops at this moment.
    pub(super) live_until: Option<Timestamp>,
    /// Why the seat moves, or last moved.
    pub(super) cause: MoveCause,
    /// The last parent that delivered, and when it last did.
    pub(super) last: Option<(NodeId, Timestamp)>,
    pub(super) search: Option<Search>,
    pub(super) retry_at: Timestamp,
    /// Rounds searched in vain.
    pub(super) rounds: u32,
    /// A full carrier that the next round asks first, and asks to make room.
    pub(super) plead: Option<NodeId>,
}

/// A ticket held.
#[derive(Clone, Debug)]
pub(in super::super) struct Held {
    pub(super) parent: NodeId,
    pub(super) ticket: TicketId,
    /// Down to and with the parent.
    pub(super) path: Vec<u64>,
    /// It brought something since it was promoted.
    pub(super) delivered: bool,
    /// Payload bytes of its feed, so far.
    pub(super) bytes: u64,
}

/// One round of asking.
#[derive(Debug)]
pub(in super::super) struct Search {
    pub(super) deadline: Timestamp,
    pub(super) visited: BTreeSet<NodeId>,
    pub(super) in_flight: BTreeSet<RequestId>,
    pub(super) last_ask_at: Timestamp,
    /// When to look again.
    pub(super) next_at: Timestamp,
    pub(super) asks: usize,
    /// Carriers without a free slot.
    pub(super) full: Vec<NodeId>,
    pub(super) unreachable: u32,
    pub(super) refused: u32,
}

impl Seat {
    pub(super) const fn new(now: Timestamp) -> Self {
        Self {
            live: None,
            next: None,
            soft: None,
            replacing: false,
            live_until: None,
            cause: MoveCause::Joined,
            last: None,
            search: None,
            retry_at: now,
            rounds: 0,
            plead: None,
        }
    }

    pub(super) const fn wants_parent(&self) -> bool {
        self.next.is_none() && (self.live.is_none() || self.replacing)
    }

    /// The live parent.
    pub(in super::super) fn parent(&self) -> Option<NodeId> {
        self.live.as_ref().map(|held| held.parent)
    }

    /// Tickets held, whatever for.
    pub(in super::super) fn held(&self) -> impl Iterator<Item = &Held> {
        let soft = self.soft.as_ref().map(|(held, _)| held);
        self.live.iter().chain(&self.next).chain(soft)
    }

    pub(super) fn uses(&self, node: NodeId) -> bool {
        self.held().any(|held| held.parent == node)
    }

    /// The live parent is no more: search at once.
    pub(super) fn orphan(&mut self, cause: MoveCause, now: Timestamp) -> Option<Held> {
        self.replacing = false;
        self.live_until = None;
        self.move_because(cause, now);
        self.live.take()
    }

    /// The live parent is to be replaced, while it still may deliver.
    pub(super) fn replace(&mut self, cause: MoveCause, now: Timestamp) {
        self.replacing = true;
        self.move_because(cause, now);
    }

    /// The live parent is well again.
    pub(super) fn keep(&mut self) -> Option<Held> {
        self.replacing = false;
        self.live_until = None;
        self.search = None;
        self.next.take()
    }

    fn move_because(&mut self, cause: MoveCause, now: Timestamp) {
        self.cause = cause;
        self.retry_at = now;
        self.rounds = 0;
        self.plead = None;
        self.search = None;
    }
}

impl Held {
    /// Hops from the source; `None` while the path is broken somewhere above.
    pub(in super::super) fn depth(&self) -> Option<u8> {
        let hops = u8::try_from(self.path.len()).unwrap_or(u8::MAX);
        (hops > 0).then_some(hops)
    }

    pub(in super::super) const fn ticket(&self) -> (NodeId, TicketId) {
        (self.parent, self.ticket)
    }
}
