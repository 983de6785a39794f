//! One stripe of a watched stream: from whom it comes, and who comes next.
//!
//! Owns the states of a seat. Does not own messages: the subscriber sends them.

use std::{collections::BTreeSet, time::Duration};

use super::{
    super::{MoveCause, RequestId, TicketId},
    rules::Conduct,
};
use crate::{ids::NodeId, time::Timestamp};

/// A stripe's place at a parent.
///
/// `live` delivers (or should). `next` is granted and waits for its feed. `soft` is the silent old
/// parent, kept for a moment after its successor was promoted. `standby` has promised to take over.
/// A seat searches while it has no `next` and either no `live` one or one that is to be replaced.
#[derive(Debug)]
pub(in super::super) struct Seat {
    pub(super) live: Option<Held>,
    pub(super) next: Option<Held>,
    pub(super) soft: Option<(Held, Timestamp)>,
    pub(super) standby: Standby,
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
    /// Whom the next round asks first: a full carrier, to make room, or who took the place.
    pub(super) plead: Option<NodeId>,
}

/// The standby of a stripe, or the search for one: one candidate after the other, without haste.
#[derive(Debug)]
pub(in super::super) struct Standby {
    pub(super) held: Option<Held>,
    /// The ASK that is under way.
    pub(super) asked: Option<RequestId>,
    /// When to look for one next.
    pub(super) due_at: Timestamp,
    /// Those that were asked since one was last found.
    pub(super) visited: BTreeSet<NodeId>,
}

/// A ticket held.
#[derive(Clone, Debug)]
pub(in super::super) struct Held {
    pub(super) parent: NodeId,
    pub(super) ticket: TicketId,
    /// Down to and with the parent.
    pub(super) path: Vec<u64>,
    /// When it was granted or promoted last.
    pub(super) since: Timestamp,
    /// It brought something since it was promoted.
    pub(super) delivered: bool,
    /// Payload bytes of its feed, so far.
    pub(super) bytes: u64,
    /// What it says against what it does.
    pub(super) conduct: Conduct,
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
            standby: Standby::new(now),
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

    /// Whether a parent is to be found.
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
        self.live.iter().chain(&self.next).chain(soft).chain(&self.standby.held)
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

    /// When a promoted parent that has brought nothing is given up.
    pub(super) fn undelivered_at(&self, timeout: Duration) -> Option<Timestamp> {
        self.live.as_ref().filter(|live| !live.delivered).map(|live| live.since + timeout)
    }

    fn move_because(&mut self, cause: MoveCause, now: Timestamp) {
        self.cause = cause;
        self.retry_at = now;
        self.rounds = 0;
        self.plead = None;
        self.search = None;
    }
}

impl Standby {
    const fn new(now: Timestamp) -> Self {
        Self { held: None, asked: None, due_at: now, visited: BTreeSet::new() }
    }

    /// Whether `parent` is the standby.
    pub(super) fn is(&self, parent: NodeId) -> bool {
        self.held.as_ref().is_some_and(|held| held.parent == parent)
    }

    /// It is none any more: another is looked for.
    pub(super) fn drop(&mut self, now: Timestamp) -> Option<Held> {
        self.due_at = self.due_at.min(now);
        self.held.take()
    }
}

impl Held {
    pub(super) const fn new(
        parent: NodeId,
        ticket: TicketId,
        path: Vec<u64>,
        now: Timestamp,
    ) -> Self {
        let conduct = Conduct::new(now);
        Self { parent, ticket, path, since: now, delivered: false, bytes: 0, conduct }
    }

    /// Hops from the source; `None` while the path is broken somewhere above.
    pub(in super::super) fn depth(&self) -> Option<u8> {
        let hops = u8::try_from(self.path.len()).unwrap_or(u8::MAX);
        (hops > 0).then_some(hops)
    }

    pub(in super::super) const fn ticket(&self) -> (NodeId, TicketId) {
        (self.parent, self.ticket)
    }
}
