//! Whether a child may have a ticket.
//!
//! Owns admission, free slots, and what happens when limits change. Does not own the arithmetic of
//! slots (see `capacity`), leases, nor who has to make way for whom (see `displace`).

use super::{
    super::{
        Ask, CapacityView, Event, PATH_MAX, RefuseReason, RevokeReason, TicketId, Verdict,
        capacity::{Limits, Promised, SIXTEENTHS},
        carriage::Carried,
        local::Local,
        path_hash,
    },
    Child, Forwarder, Given, Seat, Stage, to_child,
};
use crate::{
    ids::{NodeId, StreamId, Stripe, StripeSet},
    time::{Timestamp, micros},
    units::Bitrate,
};

impl Forwarder {
    /// How many more stripes of a stream this node could feed to anybody.
    pub(in super::super) fn free_slots(
        &self,
        local: &Local,
        stream: StreamId,
        carried: &Carried,
    ) -> u16 {
        if carried.closing || local.leaving {
            return 0;
        }
        let free = self.unused_slots(local, stream, carried);
        free.saturating_sub(self.reserved_for_others(stream, None, local.now))
    }

    /// How many stripes of a stream this node can feed, those that it feeds among them. A slot that is
    /// used twice while a child moves is one.
    pub(in super::super) fn slots(&self, local: &Local, stream: StreamId) -> u16 {
        let Some(carried) = local.carried.get(&stream).filter(|carried| !carried.closing) else {
            return 0;
        };
        let used = u16::try_from(self.live(stream).count()).unwrap_or(u16::MAX);
        let used = used.saturating_sub(self.moving(stream));
        self.unused_slots(local, stream, carried).saturating_add(used)
    }

    /// Keeps a slot for a child that was told to ask here.
    pub(in super::super) fn reserve(
        &mut self,
        now: Timestamp,
        stream: StreamId,
        child: NodeId,
        stripe: Stripe,
        until: Timestamp,
    ) {
        self.reserved.retain(|_, until| now < *until);
        if self.reserved.len() < RESERVED_MAX {
            self.reserved.insert(Seat { stream, child, stripe }, until);
        }
    }

    fn unused_slots(&self, local: &Local, stream: StreamId, carried: &Carried) -> u16 {
        let promised = self.promised(stream);
        let cost = carried.slot_cost(&local.config.tuning);
        self.limits.free_slots(promised, cost, carried.k(), &local.config.tuning)
    }

    pub(super) fn reserved_for_others(
        &self,
        stream: StreamId,
        but: Option<Seat>,
        now: Timestamp,
    ) -> u16 {
        let others = self
            .reserved
            .iter()
            .filter(|(seat, until)| seat.stream == stream && Some(**seat) != but && now < **until);
        u16::try_from(others.count()).unwrap_or(u16::MAX)
    }

    /// Limits have changed: what is promised beyond them is revoked, the newest leases first.
    pub(in super::super) fn enforce_limits(&mut self, local: &mut Local) {
        let streams: Vec<_> = local.carried.keys().copied().collect();
        for stream in streams {
            let Some(carried) = local.carried.get(&stream).cloned() else { continue };
            let mut over = Vec::new();
            let mut promised = self.promised(stream);
            // Those that move anyway use their slots twice for a moment.
            for (_, given) in self.live(stream) {
                if given.stage == Stage::Ending(RevokeReason::Rebalance) {
                    let rate = promised.rate.as_bps() - given.cost.as_bps();
                    promised.rate = Bitrate::from_bps(rate);
                    promised.of_stream -= 1;
                    promised.sixteenths -= given.sixteenths;
                }
            }
            let elastic = self.elastic(&carried, stream);
            let at_floor = carried.slot_cost_at_floor(&local.config.tuning);
            let cost = |ticket: &TicketId, given: &Given| {
                if elastic.contains(ticket) { given.cost.min(at_floor) } else { given.cost }
            };
            let mut mine = Vec::new();
            for (ticket, given) in self.live(stream) {
                if given.stage != Stage::Ending(RevokeReason::Rebalance) {
                    let cost = cost(&ticket, given);
                    let spared = given.cost.as_bps() - cost.as_bps();
                    promised.rate = Bitrate::from_bps(promised.rate.as_bps() - spared);
                    mine.push((ticket, cost, given.sixteenths));
                }
            }
            mine.sort_by_key(|(ticket, ..)| elastic.contains(ticket));
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
                self.given
                    .iter()
                    .filter(|(_, given)| !given.warm)
                    .map(|(_, given)| given.cost.as_bps())
                    .sum(),
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
        let held = self.by_seat.get(&seat).and_then(|ticket| self.given.get(ticket));
        match held.map(|given| (given.stage, given.warm)) {
            Some((Stage::Ending(_), _)) => return Err(RefuseReason::NoCapacity),
            Some((Stage::Reserved | Stage::Confirmed, false)) => return Ok(()),
            // A promise is no slot yet.
            Some((Stage::Reserved | Stage::Confirmed, true)) | None => {}
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
        let tuning = &local.config.tuning;
        let unused = self.unused_slots(local, seat.stream, carried);
        if unused == 0 {
            let unlimited = Limits { max_copies: None, max_total_copies: None, ..self.limits };
            let promised = self.promised(seat.stream);
            let cost = carried.slot_cost(tuning);
            return Err(match unlimited.free_slots(promised, cost, carried.k(), tuning) {
                0 => RefuseReason::NoCapacity,
                _ => RefuseReason::CopyLimit,
            });
        }
        let kept = self.reserved_for_others(seat.stream, Some(seat), local.now);
        let free = unused.saturating_sub(kept);
        if free == 0
            || self.is_reserved_for_others(carried, seat, free)
            || (carried.source || !pleads) && self.has_its_share(carried, seat, free)
            || self.given.len() >= tuning.tickets_max
        {
            return Err(RefuseReason::NoCapacity);
        }
        Ok(())
    }

    /// Whether the stripe has its even share of the source's slots, or twice that of another
    /// node's: the rest is for other stripes, so that none runs short while slots are left.
    fn has_its_share(&self, carried: &Carried, seat: Seat, free: u16) -> bool {
        let (mut all, mut same) = (usize::from(free), 0);
        for (_, held) in self.live(seat.stream) {
            all += 1;
            same += usize::from(held.seat.stripe == seat.stripe);
        }
        let shares = if carried.source { 1 } else { 2 };
        same >= shares * all.div_ceil(usize::from(carried.k().max(1)))
    }

    /// The source keeps a slot for every stripe that nobody has from it yet: without one copy
    /// outside, the slots of all viewers together could not spread that stripe.
    fn is_reserved_for_others(&self, carried: &Carried, seat: Seat, free: u16) -> bool {
        if !carried.source {
            return false;
        }
        let mut unserved = StripeSet::first(carried.k());
        for (_, held) in self.live(seat.stream) {
            unserved.remove(held.seat.stripe);
        }
        !unserved.contains(seat.stripe) && u32::from(free) <= unserved.len()
    }

    pub(super) fn grant(
        &mut self,
        local: &mut Local,
        carried: &Carried,
        seat: Seat,
        ask: &Ask,
        displaced: Option<NodeId>,
    ) -> Verdict {
        let path = carried.path(seat.stripe).to_vec();
        let known = self.by_seat.get(&seat).copied();
        let ticket = match known {
            Some(ticket) if self.given.get(&ticket).is_some_and(|given| given.warm) => {
                self.make_live(local, ticket);
                ticket
            }
            Some(ticket) => {
                self.renew(local, ticket, false);
                ticket
            }
            None => {
                let ticket = self.issue(local, carried, seat, ask, false);
                local.counters.granted += 1;
                let Seat { stream, stripe, child } = seat;
                local.event(Event::TicketGiven { ticket, stream, stripe, child });
                ticket
            }
        };
        self.reserved.remove(&seat);
        let left = self.given.deadline(&ticket).map_or(0, |at| micros(at.since(local.now)) / 1_000);
        let expires_in_ms = u32::try_from(left).unwrap_or(u32::MAX);
        Verdict::Grant { ticket, expires_in_ms, path, displaced }
    }

    /// A new ticket.
    pub(super) fn issue(
        &mut self,
        local: &mut Local,
        carried: &Carried,
        seat: Seat,
        ask: &Ask,
        warm: bool,
    ) -> TicketId {
        let ticket = TicketId(local.random());
        let sixteenths = SIXTEENTHS / u32::from(carried.k().max(1));
        let cost = carried.slot_cost(&local.config.tuning);
        let since = local.now;
        let given = Given { seat, stage: Stage::Reserved, warm, since, cost, sixteenths };
        let tuning = &local.config.tuning;
        let lasts = if warm { tuning.lease } else { tuning.reservation };
        self.given.insert(ticket, given, local.now + lasts);
        self.by_seat.insert(seat, ticket);
        let contact = ask.contact.clone();
        let (free, slots, heard_at) = (ask.free, ask.slots, local.now);
        let fresh = Child { contact, free, slots, up: false, heard_at, quiet: false };
        let child = self.children.entry((seat.stream, seat.child)).or_insert(fresh);
        if child.up {
            self.send_path(local, to_child(seat.stream, seat.child), seat.stripe);
        }
        ticket
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
        for (_, given) in self.given.iter().filter(|(_, given)| !given.warm) {
            promised.rate = Bitrate::from_bps(promised.rate.as_bps() + given.cost.as_bps());
            promised.sixteenths += given.sixteenths;
            promised.of_stream += u32::from(given.seat.stream == stream);
        }
        promised
    }
}

/// Most slots that are kept for somebody at the same time.
const RESERVED_MAX: usize = 256;
