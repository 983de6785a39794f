//! The parent role: tickets that this node gives.
//!
//! Owns given tickets, their leases, the admission of children and what children are told. Does not
//! own where the bytes come from (see `subscriber`, `publisher`), nor pacing (see the relay).

mod admission;
mod displace;
mod elastic;
mod redirect;
mod standby;

use std::{collections::BTreeMap, time::Duration};

pub use self::elastic::CopyRates;
pub(super) use self::redirect::{Others, bound};
use super::{
    Ask, AskAnswer, Candidate, Contact, EndReason, Event, Output, REVOKE_MAX, RefuseReason, Revoke,
    RevokeReason, StripeAnswer, TicketEnd, TicketId, TicketRequest, TicketResponse, TicketView,
    Verdict,
    capacity::Limits,
    carriage::Carried,
    expiring_map::ExpiringMap,
    local::{Local, Purpose},
};
use crate::{
    ids::{Direction, FeedKey, NodeId, StreamId, Stripe, StripeSet},
    time::{Timestamp, micros},
    units::Bitrate,
};

/// Given tickets and the children that hold them.
#[derive(Debug)]
pub(super) struct Forwarder {
    pub(super) limits: Limits,
    given: ExpiringMap<TicketId, Given>,
    by_seat: BTreeMap<Seat, TicketId>,
    children: BTreeMap<(StreamId, NodeId), Child>,
    /// Slots that are kept for a seat, and until when.
    reserved: BTreeMap<Seat, Timestamp>,
}

/// One stripe of one child: at most one ticket each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Seat {
    stream: StreamId,
    child: NodeId,
    stripe: Stripe,
}

/// A ticket's life: reserved, confirmed by a living feed, ending by revocation; gone at any point.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Reserved,
    Confirmed,
    Ending(RevokeReason),
}

#[derive(Debug)]
struct Given {
    seat: Seat,
    stage: Stage,
    /// A standby's promise holds no slot.
    warm: bool,
    /// When it was given.
    since: Timestamp,
    cost: Bitrate,
    sixteenths: u32,
}

#[derive(Debug)]
struct Child {
    contact: Contact,
    /// Stripes that it could feed beside those it feeds.
    free: u16,
    /// Stripes that it can feed at all.
    slots: u16,
    up: bool,
    /// When it last gave a sign of life.
    heard_at: Timestamp,
    /// It acknowledges nothing of what it is sent.
    quiet: bool,
}

impl Child {
    const fn heard(&mut self, now: Timestamp) {
        (self.heard_at, self.quiet) = (now, false);
    }

    /// It gives no sign of life, for `patience` or though it has something to acknowledge.
    fn seems_dead(&self, patience: Duration, now: Timestamp) -> bool {
        self.up && (self.quiet || now.since(self.heard_at) >= patience)
    }
}

impl Forwarder {
    pub(super) const fn new(limits: Limits) -> Self {
        Self {
            limits,
            given: ExpiringMap::new(),
            by_seat: BTreeMap::new(),
            children: BTreeMap::new(),
            reserved: BTreeMap::new(),
        }
    }

    /// Answers an ASK from local state.
    pub(super) fn on_ask(
        &mut self,
        local: &mut Local,
        from: NodeId,
        ask: &Ask,
        others: &Others<'_>,
    ) -> TicketResponse {
        let Some(carried) = local.carried.get(&ask.stream).cloned() else {
            return TicketResponse::Refused { reason: RefuseReason::NotCarrying, retry_ms: 0 };
        };
        let mut refused = StripeSet::EMPTY;
        let mut stripes = Vec::with_capacity(ask.stripes.len());
        let mut displace = ask.displace;
        for asked in &ask.stripes {
            let seat = Seat { stream: ask.stream, child: from, stripe: asked.stripe };
            let verdict = if asked.warm {
                self.on_ask_warm(local, &carried, seat, ask)
            } else {
                self.on_ask_live(local, &carried, seat, ask, &mut displace, others)
            };
            if matches!(verdict, Verdict::Refuse { .. }) {
                refused.insert(asked.stripe);
                local.counters.refused += 1;
            }
            stripes.push(StripeAnswer { stripe: asked.stripe, verdict });
        }
        if let Some(child) = self.children.get_mut(&(ask.stream, from)) {
            child.contact = ask.contact.clone();
            (child.free, child.slots) = (ask.free, ask.slots);
            child.heard(local.now);
        }
        self.update_feed(local, ask.stream, from);
        let redirect = if refused.is_empty() {
            Vec::new()
        } else {
            let others = others.of(local).to_vec();
            self.redirect(local, &carried, ask.stream, refused, from, others)
        };
        let answer = AskAnswer { rate: carried.rate, k: carried.k(), stripes, redirect };
        TicketResponse::Answer(answer)
    }

    fn on_ask_live(
        &mut self,
        local: &mut Local,
        carried: &Carried,
        seat: Seat,
        ask: &Ask,
        displace: &mut u8,
        others: &Others<'_>,
    ) -> Verdict {
        let mut admitted = self.admit(local, carried, seat, ask.attempt > 0);
        if is_full(admitted) && self.reclaim(local, seat) {
            admitted = self.admit(local, carried, seat, ask.attempt > 0);
        }
        match admitted {
            Ok(()) => self.grant(local, carried, seat, ask, None),
            Err(reason) => {
                if is_full(admitted) {
                    let may = *displace > 0;
                    let wanting = displace::Wanting { seat, ask, reason };
                    let others = others.of(local);
                    if let Some(victim) =
                        may.then(|| self.displace(local, carried, &wanting, others)).flatten()
                    {
                        *displace -= 1;
                        return self.grant(local, carried, seat, ask, Some(victim));
                    }
                    if ask.attempt > 0 {
                        self.make_room(local, carried, seat, others);
                    }
                }
                Verdict::Refuse { reason }
            }
        }
    }

    /// A child gives tickets back. Only the child of a ticket may; returns whether it was.
    pub(super) fn on_release(
        &mut self,
        local: &mut Local,
        from: NodeId,
        tickets: &[TicketId],
    ) -> bool {
        let mut honest = true;
        for ticket in tickets {
            match self.given.get(ticket).map(|given| given.seat.child == from) {
                Some(true) => self.end(local, *ticket, TicketEnd::Released),
                Some(false) => honest = false,
                // Over already: a repeated or late release.
                None => {}
            }
        }
        honest
    }

    /// A child gave a stripe back over its feed.
    pub(super) fn on_released(&mut self, local: &mut Local, feed: FeedKey, stripe: Stripe) {
        if let Some(ticket) = self.ticket_of(feed.stream, feed.peer, stripe) {
            self.end(local, ticket, TicketEnd::Released);
        }
    }

    pub(super) fn feed_up(&mut self, local: &mut Local, feed: FeedKey) {
        let key = (feed.stream, feed.peer);
        let stripes = self.stripes_of(feed.stream, feed.peer);
        let Some(child) = self.children.get_mut(&key).filter(|_| !stripes.is_empty()) else {
            // No ticket: nothing to serve.
            local.emit(Output::CloseFeed { feed, reason: EndReason::Revoked });
            return;
        };
        child.up = true;
        child.heard(local.now);
        let reservation = local.now + local.config.tuning.reservation;
        for stripe in stripes.iter() {
            if let Some(ticket) = self.ticket_of(feed.stream, feed.peer, stripe)
                && self.given.get(&ticket).is_some_and(|given| given.stage == Stage::Reserved)
            {
                self.given.set_deadline(&ticket, reservation);
            }
        }
        self.update_feed(local, feed.stream, feed.peer);
        for stripe in stripes.iter() {
            self.send_path(local, feed, stripe);
        }
    }

    /// The feed of a child is gone: its leases end with it.
    pub(super) fn feed_down(&mut self, local: &mut Local, feed: FeedKey) {
        let was_up = self.children.get(&(feed.stream, feed.peer)).is_some_and(|child| child.up);
        if was_up {
            self.drop_child(local, feed.stream, feed.peer, TicketEnd::Closed, None);
        }
    }

    /// The last connection to a node is gone.
    pub(super) fn link_down(&mut self, local: &mut Local, node: NodeId) {
        for stream in self.streams_of(node) {
            self.drop_child(local, stream, node, TicketEnd::Closed, None);
        }
    }

    /// A node is forgotten or banned: nothing more for it.
    pub(super) fn expel(&mut self, local: &mut Local, node: NodeId) {
        for stream in self.streams_of(node) {
            let close = Some(EndReason::Revoked);
            self.drop_child(local, stream, node, TicketEnd::Revoked, close);
        }
    }

    /// A child acknowledged bytes of these stripes.
    pub(super) fn child_alive(&mut self, local: &mut Local, feed: FeedKey, stripes: StripeSet) {
        if let Some(child) = self.children.get_mut(&(feed.stream, feed.peer)) {
            child.heard(local.now);
        }
        for stripe in stripes.iter() {
            if let Some(ticket) = self.ticket_of(feed.stream, feed.peer, stripe) {
                self.renew(local, ticket, true);
            }
        }
    }

    /// A child acknowledges nothing: its slots are for whoever asks.
    pub(super) fn child_quiet(&mut self, feed: FeedKey) {
        if let Some(child) = self.children.get_mut(&(feed.stream, feed.peer)) {
            child.quiet = true;
        }
    }

    /// A slow child lost these stripes at the relay already: it is told where else to ask.
    pub(super) fn child_shed(&mut self, local: &mut Local, feed: FeedKey, stripes: StripeSet) {
        let tickets: Vec<_> = stripes
            .iter()
            .filter_map(|stripe| self.ticket_of(feed.stream, feed.peer, stripe))
            .collect();
        self.revoke(local, &tickets, RevokeReason::Shed, Duration::ZERO, &[]);
    }

    /// A child that never drains is disconnected.
    pub(super) fn child_stalled(&mut self, local: &mut Local, feed: FeedKey) {
        let close = Some(EndReason::Revoked);
        self.drop_child(local, feed.stream, feed.peer, TicketEnd::Shed, close);
    }

    /// Ends tickets from this side: their children are told, and the bytes stop after the grace.
    pub(super) fn revoke(
        &mut self,
        local: &mut Local,
        tickets: &[TicketId],
        reason: RevokeReason,
        grace: Duration,
        extra: &[Candidate],
    ) {
        let mut by_child: BTreeMap<(StreamId, NodeId), Vec<TicketId>> = BTreeMap::new();
        for ticket in tickets {
            let Some(given) = self.given.get_mut(ticket) else { continue };
            given.stage = Stage::Ending(reason);
            by_child.entry((given.seat.stream, given.seat.child)).or_default().push(*ticket);
            self.given.set_deadline(ticket, local.now + grace);
        }
        for ((stream, child), tickets) in by_child {
            let mut candidates = extra.to_vec();
            if let Some(carried) = local.carried.get(&stream).cloned() {
                let stripes = StripeSet::first(carried.k());
                let given = self.redirect(local, &carried, stream, stripes, child, Vec::new());
                candidates.extend(given);
            }
            candidates.retain(|candidate| candidate.contact.node != child);
            bound(&mut candidates);
            let grace_ms = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
            for tickets in tickets.chunks(REVOKE_MAX) {
                let tickets = tickets.to_vec();
                let candidates = candidates.clone();
                let revoke = Revoke { stream, tickets, reason, grace_ms, candidates };
                local.ask_ticket(child, TicketRequest::Revoke(revoke), Purpose::Revoke);
            }
        }
    }

    /// Ends one ticket because the user says so; false when it is none of ours.
    pub(super) fn revoke_by_user(&mut self, local: &mut Local, ticket: TicketId) -> bool {
        let known = self.given.contains(&ticket);
        let grace = local.config.tuning.revoke_grace;
        self.revoke(local, &[ticket], RevokeReason::Revoked, grace, &[]);
        known
    }

    /// Tells all children of a stream to look elsewhere; returns whether there are any.
    pub(super) fn hand_over(
        &mut self,
        local: &mut Local,
        stream: StreamId,
        grace: Duration,
        candidates: &[Candidate],
    ) -> bool {
        let tickets: Vec<_> = self
            .given
            .iter()
            .filter(|(_, given)| given.seat.stream == stream)
            .map(|(ticket, _)| *ticket)
            .collect();
        self.revoke(local, &tickets, RevokeReason::Leaving, grace, candidates);
        !tickets.is_empty()
    }

    /// This node carries a stream no longer.
    pub(super) fn drop_stream(&mut self, local: &mut Local, stream: StreamId, reason: EndReason) {
        let children: Vec<_> =
            self.children.keys().filter(|(of, _)| *of == stream).map(|(_, child)| *child).collect();
        for child in children {
            self.drop_child(local, stream, child, TicketEnd::Leaving, Some(reason));
        }
    }

    /// The path of a stripe changed, or is broken (then it is empty): its children are told.
    pub(super) fn path_changed(&self, local: &mut Local, stream: StreamId, stripe: Stripe) {
        let feeds: Vec<_> = self
            .children
            .iter()
            .filter(|((of, child), state)| {
                *of == stream && state.up && self.ticket_of(stream, *child, stripe).is_some()
            })
            .map(|((_, child), _)| to_child(stream, *child))
            .collect();
        for feed in feeds {
            self.send_path(local, feed, stripe);
        }
    }

    pub(super) fn handle_timeout(&mut self, local: &mut Local) {
        while let Some((ticket, given)) = self.given.pop_due(local.now) {
            let reason = match given.stage {
                Stage::Reserved => TicketEnd::Unconfirmed,
                Stage::Confirmed => TicketEnd::Expired,
                Stage::Ending(RevokeReason::Shed) => TicketEnd::Shed,
                Stage::Ending(RevokeReason::Leaving) => TicketEnd::Leaving,
                Stage::Ending(RevokeReason::Revoked | RevokeReason::Rebalance) => {
                    TicketEnd::Revoked
                }
            };
            self.ended(local, ticket, &given, reason);
            let Seat { stream, child, .. } = given.seat;
            if self.stripes_of(stream, child).is_empty() {
                self.drop_child(local, stream, child, reason, Some(EndReason::Revoked));
            }
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.given.next()
    }

    /// Whether `node` is a child in this stripe; one that has a mere promise is not.
    pub(super) fn feeds(&self, stream: StreamId, node: NodeId, stripe: Stripe) -> bool {
        let ticket = self.ticket_of(stream, node, stripe);
        ticket.and_then(|ticket| self.given.get(&ticket)).is_some_and(|given| !given.warm)
    }

    pub(super) fn has_children(&self, stream: StreamId) -> bool {
        self.given.iter().any(|(_, given)| given.seat.stream == stream && !given.warm)
    }

    pub(super) fn views(&self, now: Timestamp) -> Vec<TicketView> {
        let view = |(ticket, given): (&TicketId, &Given)| TicketView {
            ticket: *ticket,
            stream: given.seat.stream,
            stripe: given.seat.stripe,
            node: given.seat.child,
            confirmed: given.stage != Stage::Reserved,
            standby: given.warm,
            expires_in_ms: self
                .given
                .deadline(ticket)
                .map_or(0, |at| micros(at.since(now)) / 1_000),
        };
        self.given.iter().map(view).collect()
    }

    /// Extends a lease. A reservation becomes a ticket only by bytes that the child acknowledges.
    fn renew(&mut self, local: &Local, ticket: TicketId, taken_up: bool) {
        let Some(given) = self.given.get_mut(&ticket) else { return };
        match given.stage {
            Stage::Reserved if taken_up && !given.warm => given.stage = Stage::Confirmed,
            Stage::Reserved if given.warm => {}
            Stage::Confirmed => {}
            Stage::Reserved | Stage::Ending(_) => return,
        }
        self.given.set_deadline(&ticket, local.now + local.config.tuning.lease);
    }

    fn end(&mut self, local: &mut Local, ticket: TicketId, reason: TicketEnd) {
        if let Some(given) = self.given.remove(&ticket) {
            self.ended(local, ticket, &given, reason);
        }
    }

    fn ended(&mut self, local: &mut Local, ticket: TicketId, given: &Given, reason: TicketEnd) {
        let Seat { stream, stripe, child } = given.seat;
        self.by_seat.remove(&given.seat);
        if !given.warm {
            local.event(Event::TicketEnded { ticket, stream, stripe, child, reason });
        }
        self.update_feed(local, stream, child);
        if self.children.get(&(stream, child)).is_some_and(|child| !child.up)
            && self.stripes_of(stream, child).is_empty()
        {
            self.children.remove(&(stream, child));
        }
    }

    fn drop_child(
        &mut self,
        local: &mut Local,
        stream: StreamId,
        child: NodeId,
        reason: TicketEnd,
        close: Option<EndReason>,
    ) {
        let was_up = self.children.remove(&(stream, child)).is_some_and(|child| child.up);
        for stripe in self.stripes_of(stream, child).iter() {
            if let Some(ticket) = self.ticket_of(stream, child, stripe) {
                self.end(local, ticket, reason);
            }
        }
        if let Some(reason) = close.filter(|_| was_up) {
            local.emit(Output::CloseFeed { feed: to_child(stream, child), reason });
        }
    }

    fn update_feed(&self, local: &mut Local, stream: StreamId, child: NodeId) {
        if self.children.get(&(stream, child)).is_some_and(|child| child.up) {
            let (live, warm) = self.stripes_by_class(stream, child);
            local.emit(Output::SetStripes { feed: to_child(stream, child), live, warm });
        }
    }

    fn send_path(&self, local: &mut Local, feed: FeedKey, stripe: Stripe) {
        let path = local.carried.get(&feed.stream).map(|carried| carried.path(stripe).to_vec());
        if let Some(path) = path {
            local.emit(Output::SendPath { feed, stripe, path });
        }
    }

    fn ticket_of(&self, stream: StreamId, child: NodeId, stripe: Stripe) -> Option<TicketId> {
        self.by_seat.get(&Seat { stream, child, stripe }).copied()
    }

    fn stripes_of(&self, stream: StreamId, child: NodeId) -> StripeSet {
        let mut set = StripeSet::EMPTY;
        self.seats_of(stream, child).for_each(|(seat, _)| set.insert(seat.stripe));
        set
    }

    fn seats_of(
        &self,
        stream: StreamId,
        child: NodeId,
    ) -> impl Iterator<Item = (&Seat, &TicketId)> {
        let first = Seat { stream, child, stripe: 0 };
        let last = Seat { stream, child, stripe: Stripe::MAX };
        self.by_seat.range(first..=last)
    }

    /// The children of a stream.
    pub(super) fn children_of(&self, stream: StreamId) -> impl Iterator<Item = NodeId> {
        self.children.keys().filter(move |(of, _)| *of == stream).map(|(_, child)| *child)
    }

    /// The stripes that a child has, and those promised to it.
    fn stripes_by_class(&self, stream: StreamId, child: NodeId) -> (StripeSet, StripeSet) {
        let (mut live, mut warm) = (StripeSet::EMPTY, StripeSet::EMPTY);
        for (seat, ticket) in self.seats_of(stream, child) {
            let is_live = self.given.get(ticket).is_some_and(|given| !given.warm);
            if is_live { &mut live } else { &mut warm }.insert(seat.stripe);
        }
        (live, warm)
    }

    /// Tickets of a stream that hold slots.
    fn live(&self, stream: StreamId) -> impl Iterator<Item = (TicketId, &Given)> {
        let of_stream = move |given: &Given| given.seat.stream == stream && !given.warm;
        self.given.iter().filter(move |(_, given)| of_stream(given)).map(|(id, given)| (*id, given))
    }

    fn streams_of(&self, node: NodeId) -> Vec<StreamId> {
        self.children.keys().filter(|(_, child)| *child == node).map(|(of, _)| *of).collect()
    }
}

/// Whether a seat was refused for want of a slot.
const fn is_full(verdict: Result<(), RefuseReason>) -> bool {
    matches!(verdict, Err(RefuseReason::NoCapacity | RefuseReason::CopyLimit))
}

fn to_child(stream: StreamId, peer: NodeId) -> FeedKey {
    FeedKey { stream, peer, direction: Direction::ToChild }
}
