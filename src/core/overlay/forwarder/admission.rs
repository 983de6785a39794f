//! Whether a child may have a ticket.
//!
//! Owns admission, free slots, and what happens when limits change or stripes are badly spread. Does
//! not own the arithmetic of slots (see `capacity`), nor leases. Classes and preemption slot in
//! here.

use std::time::Duration;

use super::{
    super::{
        Ask, Candidate, CapacityView, DEPTH_NONE, Event, PATH_MAX, RefuseReason, RevokeReason,
        TicketId, Verdict,
        capacity::{Limits, Promised, SIXTEENTHS},
        carriage::Carried,
        local::Local,
        path_hash,
    },
    Child, Forwarder, Given, Room, Seat, Stage, to_child,
};
use crate::{
    ids::{NodeId, StreamId, StripeSet},
    time::micros,
    units::Bitrate,
};

impl Forwarder {
    /// How many more stripes of a stream this node could feed.
    pub(in super::super) fn free_slots(
        &self,
        local: &Local,
        stream: StreamId,
        carried: &Carried,
    ) -> u16 {
        if carried.closing || local.leaving {
            return 0;
        }
        let promised = self.promised(stream);
        let cost = carried.slot_cost(&local.config.tuning);
        self.limits.free_slots(promised, cost, carried.k(), &local.config.tuning)
    }

    /// Limits have changed: what is promised beyond them is revoked, the newest leases first.
    pub(in super::super) fn enforce_limits(&mut self, local: &mut Local) {
        let streams: Vec<_> = local.carried.keys().copied().collect();
        for stream in streams {
            let Some(carried) = local.carried.get(&stream).cloned() else { continue };
            let mut over = Vec::new();
            let mut promised = self.promised(stream);
            let mine: Vec<_> = self
                .given
                .iter()
                .filter(|(_, given)| given.seat.stream == stream)
                .map(|(ticket, given)| (*ticket, given.cost, given.sixteenths))
                .collect();
            for (ticket, rate, sixteenths) in mine {
                if !self.exceeds(local, &carried, promised) {
                    break;
                }
                promised.rate = Bitrate::from_bps(promised.rate.as_bps() - rate.as_bps());
                promised.of_stream -= 1;
                promised.sixteenths -= sixteenths;
                over.push(ticket);
            }
            let grace = local.config.tuning.revoke_grace;
            self.revoke(local, &over, RevokeReason::Shed, grace, &[]);
        }
    }

    pub(in super::super) fn capacity(&self, local: &Local) -> CapacityView {
        CapacityView {
            usable: self.limits.usable(&local.config.tuning),
            assumed: self.limits.uplink.is_none() && self.limits.estimate.is_none(),
            promised: Bitrate::from_bps(
                self.given.iter().map(|(_, given)| given.cost.as_bps()).sum(),
            ),
            max_copies: self.limits.max_copies,
            max_total_copies: self.limits.max_total_copies,
        }
    }

    /// Whether a seat may be granted; one that is held may always be renewed. Who searched in vain
    /// elsewhere (`pleads`) may have more than a fair share of one stripe.
    pub(super) fn admit(
        &self,
        local: &Local,
        carried: &Carried,
        seat: Seat,
        pleads: bool,
    ) -> Result<(), RefuseReason> {
        if local.is_banned(&seat.child) {
            return Err(RefuseReason::Banned);
        }
        if carried.closing || local.leaving {
            return Err(RefuseReason::Leaving);
        }
        if carried.path(seat.stripe).contains(&path_hash(&seat.child)) {
            return Err(RefuseReason::Loop);
        }
        if let Some(ticket) = self.by_seat.get(&seat) {
            return match self.given.get(ticket).map(|given| given.stage) {
                Some(Stage::Ending(_)) => Err(RefuseReason::NoCapacity),
                Some(Stage::Reserved | Stage::Confirmed) | None => Ok(()),
            };
        }
        let stale_after = local.config.tuning.stale_after;
        if !carried.can_serve(seat.stripe, stale_after, local.now) {
            return Err(RefuseReason::NotCarrying);
        }
        if carried.path(seat.stripe).len() >= PATH_MAX {
            return Err(RefuseReason::TooDeep);
        }
        // Both ends asking each other must not both say yes.
        if local.is_asking(seat.child, seat.stream, seat.stripe) {
            return Err(RefuseReason::Loop);
        }
        let free = self.free_slots(local, seat.stream, carried);
        if free == 0 {
            let tuning = &local.config.tuning;
            let unlimited = Limits { max_copies: None, max_total_copies: None, ..self.limits };
            let promised = self.promised(seat.stream);
            let cost = carried.slot_cost(tuning);
            return Err(match unlimited.free_slots(promised, cost, carried.k(), tuning) {
                0 => RefuseReason::NoCapacity,
                _ => RefuseReason::CopyLimit,
            });
        }
        let awaited = self.room.get(&seat.stream).filter(|room| local.now < room.until);
        if awaited.is_some_and(|room| room.seat != seat && free <= 1)
            || self.is_reserved_for_others(carried, seat, free)
            || !pleads && self.has_its_share(carried, seat, free)
            || self.given.len() >= local.config.tuning.tickets_max
        {
            return Err(RefuseReason::NoCapacity);
        }
        Ok(())
    }

    /// Whether the stripe has twice its even share of this node's slots: the rest is for other
    /// stripes, so that none runs short while slots are left.
    fn has_its_share(&self, carried: &Carried, seat: Seat, free: u16) -> bool {
        let of_stream = self.by_seat.keys().filter(|held| held.stream == seat.stream);
        let (mut all, mut same) = (usize::from(free), 0);
        for held in of_stream {
            all += 1;
            same += usize::from(held.stripe == seat.stripe);
        }
        same >= 2 * all.div_ceil(usize::from(carried.k().max(1)))
    }

    /// Frees a slot for a child that searched in vain, at most one at a time and stream: the ticket
    /// of one child ends, before the bytes stop, and the slot is kept for `wanting`.
    ///
    /// A child that can feed nobody goes below an asker that can (push-down): on a stripe whose
    /// few slots are taken by leaves, slots elsewhere are worth nothing. Else a child moves to
    /// others that could feed it as well as this node.
    pub(super) fn make_room(
        &mut self,
        local: &mut Local,
        carried: &Carried,
        wanting: Seat,
        ask: &Ask,
        others: &[Candidate],
    ) {
        let now = local.now;
        let stale_after = local.config.tuning.stale_after;
        let stream = wanting.stream;
        let busy = self.room.get(&stream).is_some_and(|room| now < room.until);
        if busy || carried.closing || !carried.can_serve(wanting.stripe, stale_after, now) {
            return;
        }
        let moved = self
            .leaf_below(carried, wanting, ask, others)
            .or_else(|| self.child_elsewhere(carried, wanting, others));
        let Some((ticket, elsewhere)) = moved else { return };
        self.room.insert(stream, Room { seat: wanting, until: now + ROOM_KEPT });
        let grace = local.config.tuning.revoke_grace;
        self.revoke(local, &[ticket], RevokeReason::Rebalance, grace, &elsewhere);
    }

    /// The ticket of a leaf on the wanted stripe, with the asker as its first alternative.
    fn leaf_below(
        &self,
        carried: &Carried,
        wanting: Seat,
        ask: &Ask,
        others: &[Candidate],
    ) -> Option<(TicketId, Vec<Candidate>)> {
        if ask.free == 0 {
            return None;
        }
        let stream = wanting.stream;
        let leaf = |seat: &Seat| {
            let child = self.children.get(&(stream, seat.child));
            seat.stripe == wanting.stripe && child.is_some_and(|child| child.up && child.free == 0)
        };
        let mut leaves =
            self.by_seat.iter().filter(|(seat, _)| seat.stream == stream && leaf(seat));
        let (seat, ticket) = leaves.find(|(_, ticket)| {
            self.given.get(ticket).is_some_and(|given| given.stage == Stage::Confirmed)
        })?;
        let depth = u8::try_from(carried.path(wanting.stripe).len()).unwrap_or(DEPTH_NONE);
        let depths = (0..carried.k())
            .map(|stripe| if stripe == wanting.stripe { depth } else { DEPTH_NONE })
            .collect();
        let (contact, free) = (ask.contact.clone(), ask.free);
        let mut elsewhere = vec![Candidate { contact, depths, free, source: false }];
        let could = |candidate: &&Candidate| {
            candidate.contact.node != seat.child
                && candidate.contact.node != wanting.child
                && candidate.free > 0
                && candidate.stripes().contains(seat.stripe)
        };
        elsewhere.extend(others.iter().filter(could).take(MOVE_CHOICES - 1).cloned());
        Some((*ticket, elsewhere))
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
        for (seat, ticket) in self.by_seat.iter().filter(|(seat, _)| seat.stream == stream) {
            let settled = |given: &Given| given.stage == Stage::Confirmed;
            if seat.stripe == wanting.stripe || !self.given.get(ticket).is_some_and(settled) {
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
                best = Some((score, *ticket, elsewhere));
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
            let stripes = self.stripes_of(stream, *node);
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

    /// The source keeps a slot for every stripe that nobody has from it yet: without one copy
    /// outside, the slots of all viewers together could not spread that stripe.
    fn is_reserved_for_others(&self, carried: &Carried, seat: Seat, free: u16) -> bool {
        if !carried.source {
            return false;
        }
        let mut unserved = StripeSet::first(carried.k());
        for held in self.by_seat.keys().filter(|held| held.stream == seat.stream) {
            unserved.remove(held.stripe);
        }
        !unserved.contains(seat.stripe) && u32::from(free) <= unserved.len()
    }

    pub(super) fn grant(
        &mut self,
        local: &mut Local,
        carried: &Carried,
        seat: Seat,
        ask: &Ask,
    ) -> Verdict {
        let path = carried.path(seat.stripe).to_vec();
        let ticket = if let Some(ticket) = self.by_seat.get(&seat).copied() {
            self.renew(local, ticket, false);
            ticket
        } else {
            let ticket = TicketId(local.random());
            let sixteenths = SIXTEENTHS / u32::from(carried.k().max(1));
            let cost = carried.slot_cost(&local.config.tuning);
            let given = Given { seat, stage: Stage::Reserved, cost, sixteenths };
            self.given.insert(ticket, given, local.now + local.config.tuning.reservation);
            self.by_seat.insert(seat, ticket);
            self.room.retain(|_, room| room.seat != seat);
            let contact = ask.contact.clone();
            let fresh = Child { contact, free: ask.free, up: false };
            self.children.entry((seat.stream, seat.child)).or_insert(fresh);
            local.counters.granted += 1;
            let Seat { stream, stripe, child } = seat;
            local.event(Event::TicketGiven { ticket, stream, stripe, child });
            if self.children.get(&(seat.stream, seat.child)).is_some_and(|child| child.up) {
                self.send_path(local, to_child(seat.stream, seat.child), seat.stripe);
            }
            ticket
        };
        let left = self.given.deadline(&ticket).map_or(0, |at| micros(at.since(local.now)) / 1_000);
        let expires_in_ms = u32::try_from(left).unwrap_or(u32::MAX);
        Verdict::Grant { ticket, expires_in_ms, path }
    }

    fn exceeds(&self, local: &Local, carried: &Carried, promised: Promised) -> bool {
        let tuning = &local.config.tuning;
        let budget = self.limits.usable(tuning).percent(tuning.slot_share_percent);
        let k = u32::from(carried.k());
        let over = |limit: Option<u32>, used: u32, scale: u32| {
            limit.is_some_and(|copies| used > copies.saturating_mul(scale))
        };
        promised.rate > budget
            || over(self.limits.max_copies, promised.of_stream, k)
            || over(self.limits.max_total_copies, promised.sixteenths, SIXTEENTHS)
    }

    fn promised(&self, stream: StreamId) -> Promised {
        let mut promised = Promised::default();
        for (_, given) in self.given.iter() {
            promised.rate = Bitrate::from_bps(promised.rate.as_bps() + given.cost.as_bps());
            promised.sixteenths += given.sixteenths;
            promised.of_stream += u32::from(given.seat.stream == stream);
        }
        promised
    }
}

/// A freed slot is kept this long for the child that lacked it: a move and a retry.
const ROOM_KEPT: Duration = Duration::from_secs(3);
/// Alternatives that a moved child is told.
const MOVE_CHOICES: usize = 4;
