//! Promises: tickets that hold no slot until their child's parent fails.
//!
//! Owns how many are promised, and what becomes of one when it is promoted. Does not own slots (see
//! `admission`).

use std::time::Duration;

use super::{
    super::{
        Ask, Event, PATH_MAX, RefuseReason, RevokeReason, TicketEnd, TicketId, Verdict,
        carriage::Carried, local::Local, path_hash,
    },
    Forwarder, Seat, Stage, is_full,
};
use crate::{
    ids::{FeedKey, StreamId, Stripe},
    time::micros,
};

impl Forwarder {
    /// Answers an ASK for a standby.
    pub(super) fn on_ask_warm(
        &mut self,
        local: &mut Local,
        carried: &Carried,
        seat: Seat,
        ask: &Ask,
    ) -> Verdict {
        let ticket = match self.by_seat.get(&seat).copied() {
            Some(ticket) => {
                match self.given.get(&ticket).map(|given| (given.stage, given.warm)) {
                    Some((Stage::Reserved, true)) => self.renew(local, ticket, false),
                    // Who was displaced has a new parent now.
                    Some((Stage::Ending(RevokeReason::Rebalance), false)) => {
                        self.make_warm(local, ticket);
                    }
                    Some((Stage::Reserved | Stage::Confirmed | Stage::Ending(_), _)) | None => {}
                }
                ticket
            }
            None => match self.may_promise(local, carried, seat) {
                Ok(()) => self.issue(local, carried, seat, ask, true),
                Err(reason) => return Verdict::Refuse { reason },
            },
        };
        let path = carried.path(seat.stripe).to_vec();
        let left = self.given.deadline(&ticket).map_or(0, |at| micros(at.since(local.now)) / 1_000);
        let expires_in_ms = u32::try_from(left).unwrap_or(u32::MAX);
        Verdict::Grant { ticket, expires_in_ms, path, displaced: None }
    }

    /// A child promoted a stripe that it was only promised, or not allowed at all.
    pub(in super::super) fn promote_asked(
        &mut self,
        local: &mut Local,
        feed: FeedKey,
        stripe: Stripe,
    ) {
        let FeedKey { stream, peer: child, .. } = feed;
        let seat = Seat { stream, child, stripe };
        let promised = self.by_seat.get(&seat).copied();
        let promised = promised.filter(|ticket| self.given.get(ticket).is_some_and(|g| g.warm));
        let carried = local.carried.get(&stream).cloned();
        if let (Some(ticket), Some(carried)) = (promised, carried) {
            self.keep_promise(local, &carried, seat, ticket);
        }
        self.update_feed(local, stream, child);
    }

    /// A promised slot is needed now: a free one, or that of a dead child. Else the promise is broken,
    /// at once and aloud.
    fn keep_promise(&mut self, local: &mut Local, carried: &Carried, seat: Seat, ticket: TicketId) {
        let mut admitted = self.admit(local, carried, seat, true);
        if is_full(admitted) && self.reclaim(local, seat) {
            admitted = self.admit(local, carried, seat, true);
        }
        if admitted.is_ok() {
            self.make_live(local, ticket);
            return;
        }
        self.revoke(local, &[ticket], RevokeReason::Shed, Duration::ZERO, &[]);
        self.end(local, ticket, TicketEnd::Shed);
    }

    /// A promise becomes a ticket that holds a slot.
    pub(super) fn make_live(&mut self, local: &mut Local, ticket: TicketId) {
        let Some(given) = self.given.get_mut(&ticket) else { return };
        (given.warm, given.stage, given.since) = (false, Stage::Reserved, local.now);
        let Seat { stream, stripe, child } = given.seat;
        self.given.set_deadline(&ticket, local.now + local.config.tuning.reservation);
        local.counters.granted += 1;
        local.event(Event::TicketGiven { ticket, stream, stripe, child });
    }

    /// A ticket that is about to end becomes a promise: its slot is free, and the child may still
    /// ask for what it has not got yet.
    fn make_warm(&mut self, local: &mut Local, ticket: TicketId) {
        let Some(given) = self.given.get_mut(&ticket) else { return };
        (given.warm, given.stage, given.since) = (true, Stage::Reserved, local.now);
        let Seat { stream, stripe, child } = given.seat;
        self.given.set_deadline(&ticket, local.now + local.config.tuning.lease);
        let reason = TicketEnd::Revoked;
        local.event(Event::TicketEnded { ticket, stream, stripe, child, reason });
    }

    fn may_promise(
        &self,
        local: &Local,
        carried: &Carried,
        seat: Seat,
    ) -> Result<(), RefuseReason> {
        let tuning = &local.config.tuning;
        if local.is_banned(&seat.child) {
            return Err(RefuseReason::Banned);
        }
        if carried.closing || local.leaving {
            return Err(RefuseReason::Leaving);
        }
        let path = carried.path(seat.stripe);
        if path.contains(&path_hash(&seat.child)) {
            return Err(RefuseReason::Loop);
        }
        if !carried.can_serve(seat.stripe, tuning.stale_after, local.now) {
            return Err(RefuseReason::NotCarrying);
        }
        if path.len() >= PATH_MAX {
            return Err(RefuseReason::TooDeep);
        }
        let free = u32::from(self.free_slots(local, seat.stream, carried));
        let used = u32::try_from(self.live(seat.stream).count()).unwrap_or(u32::MAX);
        let most = free.saturating_mul(tuning.promises_per_free_slot).saturating_add(used);
        if self.promises(seat.stream) >= most || self.given.len() >= tuning.tickets_max {
            return Err(RefuseReason::NoCapacity);
        }
        Ok(())
    }

    fn promises(&self, stream: StreamId) -> u32 {
        let promises = self.given.iter().filter(|(_, g)| g.warm && g.seat.stream == stream);
        u32::try_from(promises.count()).unwrap_or(u32::MAX)
    }
}
