//! When a parent is lost, and what then: rules R1 (closed) and R2 (silent); and when one is to be
//! replaced though it speaks, as the rules of `rules` say.
//!
//! Owns the judgement of feeds. Does not own the search for a successor (see `search`), nor who
//! stands by (see `standby`).

use super::{
    super::{
        ComplaintKind, EndReason, Event, FeedDownReason, FeedReport, MoveCause, Offence, Output,
        PATH_MAX, forwarder::Forwarder, local::Local,
    },
    Held, Seat, Stage, Subscriber,
    duplicates::DuplicateWatch,
    rules::Conduct,
};
use crate::{
    ids::{NodeId, Stripe, StripeSet},
    time::micros,
};

impl Subscriber {
    /// A feed is open: what waited for it is promoted.
    pub(in super::super) fn feed_up(
        &mut self,
        local: &mut Local,
        forwarder: &mut Forwarder,
        parent: NodeId,
    ) {
        let now = local.now;
        let Some(feed) = self.feeds.get_mut(&parent) else {
            // Nobody waits for it any more.
            local.emit(Output::CloseFeed { feed: self.feed_key(parent), reason: EndReason::Left });
            return;
        };
        feed.up = true;
        feed.since = now;
        feed.reask_at = now + local.config.tuning.reask_every;
        feed.duplicates = DuplicateWatch::new(now);
        self.promote_ready(local, forwarder);
    }

    /// A feed is gone (rule R1), or could not be opened.
    pub(in super::super) fn feed_down(
        &mut self,
        local: &mut Local,
        forwarder: &mut Forwarder,
        parent: NodeId,
        reason: FeedDownReason,
    ) {
        let known = self.feeds.remove(&parent).is_some();
        let cause = match reason {
            FeedDownReason::Closed => MoveCause::Closed,
            FeedDownReason::Refused | FeedDownReason::OpenFailed => MoveCause::Unopened,
            FeedDownReason::Offence(offence) => {
                local.offence(parent, offence);
                self.complain_of(local, parent, ComplaintKind::BadData);
                MoveCause::Offence
            }
        };
        if known {
            self.lose(local, forwarder, parent, cause);
        }
    }

    /// A parent said that the feed ends.
    pub(in super::super) fn feed_ended(
        &mut self,
        local: &mut Local,
        forwarder: &mut Forwarder,
        parent: NodeId,
        reason: EndReason,
    ) {
        let cause = match reason {
            EndReason::Left => MoveCause::Leaving,
            EndReason::Revoked => MoveCause::Revoked,
            // The word of a parent ends nothing: the end is signed, as a chunk and as a tombstone.
            EndReason::Ended | EndReason::SourceLost => MoveCause::Closed,
        };
        if self.feeds.remove(&parent).is_some() {
            local.emit(Output::CloseFeed { feed: self.feed_key(parent), reason: EndReason::Left });
            self.lose(local, forwarder, parent, cause);
            self.join.due_at = local.now;
        }
    }

    /// A parent stopped stripes because this node drains too slowly.
    pub(in super::super) fn shed(
        &mut self,
        local: &mut Local,
        forwarder: &mut Forwarder,
        parent: NodeId,
        stripe: Stripe,
    ) {
        let from_parent = |seat: &&mut Seat| seat.parent() == Some(parent);
        let seat = self.seats.get_mut(usize::from(stripe)).filter(from_parent);
        let lost = seat.and_then(|seat| seat.orphan(MoveCause::Shed, local.now));
        if let Some(held) = lost {
            self.release(local, &[held]);
            self.no_path(local, forwarder, stripe);
        }
    }

    /// A parent told the path of a stripe.
    pub(in super::super) fn path(
        &mut self,
        local: &mut Local,
        forwarder: &mut Forwarder,
        parent: NodeId,
        stripe: Stripe,
        path: Vec<u64>,
    ) {
        let from_parent = |held: &&mut Held| held.parent == parent;
        let Some(seat) = self.seats.get_mut(usize::from(stripe)) else { return };
        if let Some(held) = seat.standby.held.as_mut().filter(from_parent) {
            held.path.clone_from(&path);
            self.judge_standby(local, stripe);
        }
        let Some(seat) = self.seats.get_mut(usize::from(stripe)) else { return };
        if let Some(held) = seat.next.as_mut().filter(from_parent) {
            held.path.clone_from(&path);
        }
        let Some(held) = seat.live.as_mut().filter(from_parent) else { return };
        if path.contains(&local.hash) || path.len() > PATH_MAX {
            let lost = seat.orphan(MoveCause::Loop, local.now);
            self.release(local, lost.as_slice());
            self.no_path(local, forwarder, stripe);
        } else if held.path != path {
            held.path.clone_from(&path);
            if !(seat.replacing && seat.cause == MoveCause::Silent) {
                self.set_path(local, forwarder, stripe, path);
            }
        }
    }

    /// What a feed has brought; or that it is silent (rule R2).
    pub(in super::super) fn progress(
        &mut self,
        local: &mut Local,
        forwarder: &mut Forwarder,
        report: &FeedReport,
    ) {
        let parent = report.feed.peer;
        let Some(feed) = self.feeds.get_mut(&parent) else { return };
        feed.silent = report.silent_since.is_some();
        let heads = report.stripes.iter().map(|stripe| stripe.head_stripe_seq).sum();
        if feed.duplicates.is_excessive(report.duplicates, heads, local.now) {
            local.offence(parent, Offence::Duplicates);
            let now = local.now;
            let fed_by_it = |seat: &&mut Seat| seat.parent() == Some(parent) && !seat.replacing;
            for seat in self.seats.iter_mut().filter(fed_by_it) {
                seat.replace(MoveCause::Offence, now);
            }
        }
        if report.silent_since.is_some() {
            self.silent(local, forwarder, parent);
        } else {
            self.speaks(local, forwarder, parent);
        }
        let mut doubtful = Vec::new();
        for progress in &report.stripes {
            let stripe = progress.stripe;
            if self.resumes(parent, stripe, progress.bytes) {
                self.resume(local, forwarder, stripe);
            }
            let Some(seat) = self.seats.get_mut(usize::from(stripe)) else { continue };
            let Some(held) = seat.live.as_mut().filter(|held| held.parent == parent) else {
                continue;
            };
            let brought = progress.bytes > held.bytes;
            held.conduct.note(progress.claimed_stripe_seq, brought, local.now);
            if !brought {
                doubtful.push(progress);
                continue;
            }
            if let Some(feed) = self.feeds.get_mut(&parent) {
                feed.brought_at = local.now;
            }
            held.bytes = progress.bytes;
            self.progress_at = local.now;
            if let Some(carried) = local.carried.get_mut(&self.stream) {
                carried.advanced(stripe, progress.head_stripe_seq, local.now);
            }
            if held.delivered {
                seat.last = Some((parent, local.now));
            } else {
                held.delivered = true;
                self.first_bytes(local, forwarder, stripe);
            }
        }
        for progress in doubtful {
            self.judge_conduct(local, parent, progress);
        }
        self.say_playing(local);
    }

    /// Moves granted tickets whose feed is up into the live place.
    pub(super) fn promote_ready(&mut self, local: &mut Local, forwarder: &mut Forwarder) {
        for stripe in 0..self.k() {
            let seat = &mut self.seats[usize::from(stripe)];
            let up = |held: &Held| self.feeds.get(&held.parent).is_some_and(|feed| feed.up);
            let Some(next) = seat.next.take_if(|held| up(held)) else { continue };
            let feed = self.feed_key(next.parent);
            let seat = &mut self.seats[usize::from(stripe)];
            local.emit(Output::Promote { feed, stripe });
            let path = next.path.clone();
            let conduct = Conduct::new(local.now);
            let next = Held { since: local.now, conduct, ..next };
            let mut released = Vec::new();
            if let Some(old) = seat.live.replace(next) {
                let until = local.now + local.config.tuning.soft_keep;
                released.extend(seat.soft.replace((old, until)).map(|(held, _)| held));
            }
            seat.replacing = false;
            seat.live_until = None;
            seat.search = None;
            seat.rounds = 0;
            seat.plead = None;
            self.release(local, &released);
            self.set_path(local, forwarder, stripe, path);
        }
    }

    /// Tells the supernode of a parent, for the first stripe that hangs on it.
    pub(super) fn complain_of(&self, local: &mut Local, parent: NodeId, kind: ComplaintKind) {
        let hangs = |(_, seat): &(Stripe, &Seat)| seat.uses(parent);
        if let Some((stripe, _)) = (0..).zip(&self.seats).find(hangs) {
            local.complain(parent, self.stream, stripe, kind);
        }
    }

    /// Everything that hung on a parent is lost.
    pub(super) fn lose(
        &mut self,
        local: &mut Local,
        forwarder: &mut Forwarder,
        parent: NodeId,
        cause: MoveCause,
    ) {
        let mut orphaned = Vec::new();
        let mut released = Vec::new();
        let is_it = |held: &mut Held| held.parent == parent;
        for (stripe, seat) in (0..).zip(&mut self.seats) {
            seat.soft.take_if(|(held, _)| held.parent == parent);
            if seat.standby.is(parent) {
                released.extend(seat.standby.drop(local.now));
            }
            if let Some(next) = seat.next.take_if(is_it) {
                released.push(next);
                seat.retry_at = local.now;
                seat.search = None;
            }
            if seat.parent() == Some(parent) {
                released.extend(seat.orphan(cause, local.now));
                orphaned.push(stripe);
            }
        }
        match cause {
            MoveCause::Unopened | MoveCause::Closed | MoveCause::Silent => {
                self.candidates.lost(parent, local.now);
            }
            MoveCause::Offence => self.candidates.broke(parent),
            MoveCause::Leaving => self.candidates.remove(&parent),
            MoveCause::Joined
            | MoveCause::Revoked
            | MoveCause::Displaced
            | MoveCause::Shed
            | MoveCause::Loop
            | MoveCause::Expired
            | MoveCause::Starved
            | MoveCause::Withheld
            | MoveCause::Slow
            | MoveCause::Improved => {}
        }
        // A closed connection ends the lease by itself; a feed that never came up does not.
        if cause != MoveCause::Closed {
            self.release(local, &released);
        }
        for stripe in orphaned {
            self.no_path(local, forwarder, stripe);
        }
    }

    /// Feeds that no seat needs any more.
    pub(super) fn close_unused_feeds(&mut self, local: &mut Local) {
        let seats = &self.seats;
        let unused: Vec<NodeId> = self
            .feeds
            .keys()
            .filter(|parent| !seats.iter().any(|seat| seat.uses(**parent)))
            .copied()
            .collect();
        for parent in unused {
            self.feeds.remove(&parent);
            local.emit(Output::CloseFeed { feed: self.feed_key(parent), reason: EndReason::Left });
        }
    }

    pub(super) fn no_path(&self, local: &mut Local, forwarder: &mut Forwarder, stripe: Stripe) {
        self.set_path(local, forwarder, stripe, Vec::new());
    }

    pub(super) fn k(&self) -> u8 {
        u8::try_from(self.seats.len()).expect("at most STRIPES_MAX seats")
    }

    /// The parent fell silent: a successor is sought while its ticket is kept.
    fn silent(&mut self, local: &mut Local, forwarder: &mut Forwarder, parent: NodeId) {
        // Whoever is silent for a lease renews nothing: its ticket is over.
        let until = local.now + local.config.tuning.lease;
        for stripe in 0..self.k() {
            let seat = &mut self.seats[usize::from(stripe)];
            if seat.parent() == Some(parent) && !seat.replacing {
                seat.replace(MoveCause::Silent, local.now);
                seat.live_until = Some(until);
                self.candidates.lost(parent, local.now);
                self.no_path(local, forwarder, stripe);
            }
        }
    }

    /// The parent speaks: if it was only suspected of silence, it stays.
    fn speaks(&mut self, local: &mut Local, forwarder: &mut Forwarder, parent: NodeId) {
        let feed = self.feed_key(parent);
        for stripe in 0..self.k() {
            let seat = &mut self.seats[usize::from(stripe)];
            let suspected = seat.replacing && seat.cause == MoveCause::Silent;
            if seat.parent() != Some(parent) || !suspected {
                continue;
            }
            let released = seat.keep();
            // It was perhaps given up for a standby whose promise came to nothing.
            local.emit(Output::Promote { feed, stripe });
            let path = seat.live.as_ref().map_or_else(Vec::new, |held| held.path.clone());
            self.release(local, released.as_slice());
            self.set_path(local, forwarder, stripe, path);
        }
    }

    /// The silent old parent brought something before its successor did.
    fn resumes(&self, parent: NodeId, stripe: Stripe, bytes: u64) -> bool {
        self.seats.get(usize::from(stripe)).is_some_and(|seat| {
            seat.cause == MoveCause::Silent
                && seat.live.as_ref().is_some_and(|held| !held.delivered)
                && seat
                    .soft
                    .as_ref()
                    .is_some_and(|(held, _)| held.parent == parent && bytes > held.bytes)
        })
    }

    /// The new parent broke its promise: back to the old one if it is still there, and on with the
    /// search.
    pub(super) fn go_back(&mut self, local: &mut Local, forwarder: &mut Forwarder, stripe: Stripe) {
        let now = local.now;
        let seat = &mut self.seats[usize::from(stripe)];
        let cause = seat.cause;
        if seat.soft.is_none() {
            let gone = seat.orphan(cause, now);
            self.release(local, gone.as_slice());
            self.no_path(local, forwarder, stripe);
            return;
        }
        if cause == MoveCause::Silent {
            // Not asked again: it is still silent, and is taken back when it speaks.
            let old = seat.soft.take().map(|(held, _)| held);
            let broken = std::mem::replace(&mut seat.live, old);
            seat.replace(cause, now);
            seat.live_until = Some(now + local.config.tuning.lease);
            self.release(local, broken.as_slice());
            self.no_path(local, forwarder, stripe);
        } else {
            self.resume(local, forwarder, stripe);
            self.seats[usize::from(stripe)].replace(cause, now);
        }
    }

    /// Goes back to the old parent, which is kept for a moment after its successor was promoted.
    pub(super) fn resume(&mut self, local: &mut Local, forwarder: &mut Forwarder, stripe: Stripe) {
        let seat = &mut self.seats[usize::from(stripe)];
        let Some((old, _)) = seat.soft.take() else { return };
        let old = Held { since: local.now, conduct: Conduct::new(local.now), ..old };
        let (parent, path) = (old.parent, old.path.clone());
        let successor = seat.live.replace(old);
        local.emit(Output::Promote { feed: self.feed_key(parent), stripe });
        self.release(local, successor.as_slice());
        self.set_path(local, forwarder, stripe, path);
    }

    /// A new parent delivers: the move is complete and the old parent is let go.
    fn first_bytes(&mut self, local: &mut Local, forwarder: &Forwarder, stripe: Stripe) {
        let stream = self.stream;
        let seat = &mut self.seats[usize::from(stripe)];
        let Some(new) = seat.parent() else { return };
        let mut released = seat.soft.take().map(|(held, _)| held);
        let mut stands_by = None;
        if seat.cause == MoveCause::Displaced
            && let Some(old) = released.take()
        {
            // The new parent hangs on the old one, so the old one has a slot when it fails. And
            // what was on its way as repair, the new parent may not have at all.
            stands_by = Some(old.parent);
            released = seat.standby.held.replace(old);
        }
        let old = seat.last.replace((new, local.now));
        let gap_ms = old.map(|(_, at)| micros(local.now.since(at)) / 1_000);
        let (old, cause) = (old.map(|(node, _)| node), seat.cause);
        if cause != MoveCause::Joined {
            local.counters.failovers += 1;
        }
        local.event(Event::ParentChanged { stream, stripe, old, new, cause, gap_ms });
        self.candidates.served(new);
        self.news = true;
        self.release(local, released.as_slice());
        if let Some(old) = stands_by {
            let mut warm = StripeSet::EMPTY;
            warm.insert(stripe);
            self.ask(local, forwarder, old, &[stripe], warm, true);
        }
    }

    fn say_playing(&mut self, local: &mut Local) {
        if self.lost_since.is_some() && self.progress_at == local.now {
            self.lost_since = None;
            local.event(Event::SourceBack { stream: self.stream });
        }
        if self.said_playing || self.stage != Stage::Active || !self.is_fed() {
            return;
        }
        self.said_playing = true;
        self.has_played = true;
        let depths = self.seats.iter().filter_map(|seat| seat.live.as_ref()?.depth());
        let hops = depths.max().unwrap_or(0);
        local.event(Event::Playing { stream: self.stream, k: self.k(), hops });
    }

    fn set_path(
        &self,
        local: &mut Local,
        forwarder: &mut Forwarder,
        stripe: Stripe,
        mut path: Vec<u64>,
    ) {
        if !path.is_empty() {
            path.push(local.hash);
        }
        let Some(carried) = local.carried.get_mut(&self.stream) else { return };
        if carried.path(stripe) != path {
            carried.set_path(stripe, path);
            forwarder.path_changed(local, self.stream, stripe);
        }
    }
}
