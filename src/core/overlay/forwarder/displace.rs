//! Who makes way for whom.
//!
//! Owns contribution classes, the push-down of those who contribute less, the moves that spread
//! stripes, and the slots of children that are dead. Does not own admission (see `admission`), nor
//! how the one who has to move finds its new parent (see `subscriber`).
//!
//! Where slots are scarce, a leaf near the source costs everybody below: the tree grows deep, and on
//! a stripe whose few slots are taken by leaves the slots elsewhere are worth nothing. So a child
//! that contributes more takes the place of one that contributes less and feeds it instead. Both get
//! bytes until the one displaced has found its new parent or the grace is over: a tenth of the
//! uplink is no slot and carries that.

use super::{
    super::{
        Ask, Candidate, DEPTH_NONE, RefuseReason, RevokeReason, TicketEnd, TicketId,
        carriage::Carried, local::Local,
    },
    Child, Forwarder, Given, Seat, Stage,
};
use crate::ids::{NodeId, StreamId};

/// A seat that was refused for want of a slot.
pub(super) struct Wanting<'a> {
    pub(super) seat: Seat,
    pub(super) ask: &'a Ask,
    pub(super) reason: RefuseReason,
}

/// What a node contributes, from nothing (0) upwards.
pub(super) fn class(slots: u16, k: u8) -> u8 {
    let copies = u32::from(slots) * 2 / u32::from(k.max(1));
    match (slots, copies) {
        (0, _) => 0,
        // Less than it takes.
        (_, 0..2) => 1,
        (_, 2..4) => 2,
        (_, 4..16) => 3,
        (_, 16..) => 4,
    }
}

impl Forwarder {
    /// Frees the place of a child that contributes less than the asker; returns whose it was.
    pub(super) fn displace(
        &mut self,
        local: &mut Local,
        carried: &Carried,
        wanting: &Wanting<'_>,
        others: &[Candidate],
    ) -> Option<NodeId> {
        let Wanting { seat, reason, .. } = *wanting;
        // Its own ticket here is about to end.
        let ending = self.by_seat.get(&seat).and_then(|ticket| self.given.get(ticket));
        if ending.is_some_and(|given| !given.warm)
            || self.moving(seat.stream) > self.slots(local, seat.stream) / MOVING_SHARE
        {
            return None;
        }
        let (ticket, victim) = self.least_contributor(local, carried, wanting)?;
        let mut elsewhere = vec![newcomer(carried, wanting)];
        let could = |candidate: &&Candidate| {
            candidate.contact.node != victim
                && candidate.contact.node != seat.child
                && candidate.free > 0
                && candidate.stripes().contains(seat.stripe)
        };
        elsewhere.extend(others.iter().filter(could).take(MOVE_CHOICES - 1).cloned());
        // What the user allows is never exceeded: then the old bytes stop before the new begin.
        let grace = match reason {
            RefuseReason::CopyLimit => std::time::Duration::ZERO,
            _ => local.config.tuning.displace_grace,
        };
        self.revoke(local, &[ticket], RevokeReason::Rebalance, grace, &elsewhere);
        if grace.is_zero() {
            self.end(local, ticket, TicketEnd::Revoked);
        }
        Some(victim)
    }

    /// The settled child of the wanted stripe that contributes least, if it is less than the asker
    /// does.
    fn least_contributor(
        &self,
        local: &Local,
        carried: &Carried,
        wanting: &Wanting<'_>,
    ) -> Option<(TicketId, NodeId)> {
        let Seat { stream, child: asker, stripe } = wanting.seat;
        let mine = class(wanting.ask.slots, carried.k());
        self.live(stream)
            .filter(|(_, given)| given.seat.stripe == stripe && given.seat.child != asker)
            .filter(|(_, given)| {
                let age = local.now.since(given.since);
                given.stage == Stage::Confirmed && age >= local.config.tuning.settle_time
            })
            .filter_map(|(ticket, given)| {
                let child = self.children.get(&(stream, given.seat.child)).filter(|c| c.up)?;
                let theirs = class(child.slots, carried.k());
                (theirs < mine).then_some((theirs, child.slots, ticket, given.seat.child))
            })
            .min()
            .map(|(.., ticket, victim)| (ticket, victim))
    }

    /// Children that were told to move and have not.
    pub(super) fn moving(&self, stream: StreamId) -> u16 {
        let moving = |given: &Given| given.stage == Stage::Ending(RevokeReason::Rebalance);
        let moving = self.live(stream).filter(|(_, given)| moving(given)).count();
        u16::try_from(moving).unwrap_or(u16::MAX)
    }

    /// Ends the ticket of a child that gives no sign of life: somebody else asks for the slot.
    /// Returns whether one was freed.
    pub(super) fn reclaim(&mut self, local: &mut Local, wanting: Seat) -> bool {
        let patience = local.config.tuning.child_silence;
        let dead = |child: &Child| child.seems_dead(patience, local.now);
        let held = self.live(wanting.stream).find(|(_, given)| {
            let child = self.children.get(&(wanting.stream, given.seat.child));
            given.seat.child != wanting.child && child.is_some_and(dead)
        });
        let Some((ticket, _)) = held else { return false };
        self.revoke(local, &[ticket], RevokeReason::Shed, std::time::Duration::ZERO, &[]);
        self.end(local, ticket, TicketEnd::Expired);
        true
    }

    /// Frees a slot for a child that searched in vain and has nothing to offer, at most one at a
    /// time and stream: a child on another stripe moves to others that could feed it as well, and
    /// the slot is kept for `wanting`.
    pub(super) fn make_room(
        &mut self,
        local: &mut Local,
        carried: &Carried,
        wanting: Seat,
        others: &[Candidate],
    ) {
        let now = local.now;
        let stale_after = local.config.tuning.stale_after;
        let stream = wanting.stream;
        let busy =
            self.moving(stream) > 0 || self.reserved_for_others(stream, Some(wanting), now) > 0;
        if busy || carried.closing || !carried.can_serve(wanting.stripe, stale_after, now) {
            return;
        }
        let Some((ticket, elsewhere)) = self.child_elsewhere(carried, wanting, others) else {
            return;
        };
        let tuning = &local.config.tuning;
        let (grace, until) = (tuning.displace_grace, now + tuning.room_kept);
        self.reserve(now, stream, wanting.child, wanting.stripe, until);
        self.revoke(local, &[ticket], RevokeReason::Rebalance, grace, &elsewhere);
    }

    /// The ticket of a child on another stripe that others with free slots could feed as well,
    /// while all carriers of the wanted stripe are full: stripes are badly spread.
    fn child_elsewhere(
        &self,
        carried: &Carried,
        wanting: Seat,
        others: &[Candidate],
    ) -> Option<(TicketId, Vec<Candidate>)> {
        let stream = wanting.stream;
        let children = self.children_with_room(carried, stream);
        let mut best: Option<(usize, TicketId, Vec<Candidate>)> = None;
        for (ticket, given) in self.live(stream) {
            let seat = given.seat;
            if seat.stripe == wanting.stripe || given.stage != Stage::Confirmed {
                continue;
            }
            let could = |candidate: &&Candidate| {
                candidate.contact.node != seat.child
                    && candidate.free > 0
                    && candidate.stripes().contains(seat.stripe)
            };
            // Own children first: they are surely not below the one that moves.
            let elsewhere: Vec<_> =
                children.iter().chain(others).filter(could).take(MOVE_CHOICES).cloned().collect();
            let sure = children.iter().filter(could).count() * MOVE_CHOICES;
            let score = sure + elsewhere.len();
            if score > best.as_ref().map_or(0, |(most, ..)| *most) {
                best = Some((score, ticket, elsewhere));
            }
        }
        best.map(|(_, ticket, elsewhere)| (ticket, elsewhere))
    }

    /// Own children that could feed others, with the stripes that they have from here.
    fn children_with_room(&self, carried: &Carried, stream: StreamId) -> Vec<Candidate> {
        let with_room = |((of, _), child): &(&(StreamId, NodeId), &Child)| {
            *of == stream && child.up && child.free > 0
        };
        let candidate = |((_, node), child): (&(StreamId, NodeId), &Child)| {
            let (stripes, _) = self.stripes_by_class(stream, *node);
            let depth = |stripe| match stripes.contains(stripe) {
                true => u8::try_from(carried.path(stripe).len()).unwrap_or(DEPTH_NONE),
                false => DEPTH_NONE,
            };
            let depths = (0..carried.k()).map(depth).collect();
            let (contact, free) = (child.contact.clone(), child.free);
            Candidate { contact, depths, free, source: false }
        };
        self.children.iter().filter(with_room).map(candidate).collect()
    }
}

/// The asker as an alternative for the one whose place it takes.
fn newcomer(carried: &Carried, wanting: &Wanting<'_>) -> Candidate {
    let Wanting { seat, ask, .. } = *wanting;
    let depth = u8::try_from(carried.path(seat.stripe).len()).unwrap_or(DEPTH_NONE);
    let depths = (0..carried.k())
        .map(|stripe| if stripe == seat.stripe { depth } else { DEPTH_NONE })
        .collect();
    Candidate { contact: ask.contact.clone(), depths, free: ask.free.max(1), source: false }
}

/// One in so many slots may be used twice while a child moves: no more than the tenth of the uplink
/// that is kept for such things.
const MOVING_SHARE: u16 = 16;
/// Alternatives that a moved child is told.
const MOVE_CHOICES: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_feeds_more_is_of_a_higher_class() {
        let classes: Vec<u8> = [0, 1, 7, 8, 15, 16, 63, 64].map(|slots| class(slots, 8)).into();
        assert_eq!(classes, [0, 1, 1, 2, 2, 3, 3, 4]);
        assert_eq!(class(1, 1), 2, "one slot is a copy of a stream of one stripe");
        assert_eq!(class(3, 0), 3, "a stream without stripes does not divide by zero");
    }
}
