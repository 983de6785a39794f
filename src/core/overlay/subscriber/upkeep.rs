//! Everything that time brings to a watched stream beside the search itself.
//!
//! Owns deadlines of tickets and feeds, renewals, and the judgement whether the source is lost.
//! Does not own searching (see `search`), nor failure rules (see `failover`).

use std::time::Duration;

use super::{
    super::{
        ComplaintKind, EndReason, Event, MoveCause, Output, forwarder::Forwarder, local::Local,
    },
    Stage, Subscriber,
    rules::Verdict,
};
use crate::{
    ids::{NodeId, Stripe, StripeSet},
    time::Timestamp,
};

impl Subscriber {
    /// Does whatever is due: called after every input that concerns this stream and on time.
    pub(in super::super) fn drive(&mut self, local: &mut Local, forwarder: &mut Forwarder) {
        if let Stage::Closing { until, reason } = self.stage {
            let alone = reason == EndReason::Left && !forwarder.has_children(self.stream);
            if until <= local.now || alone {
                let stream = self.stream;
                forwarder.drop_stream(local, stream, reason);
                self.finish(local, reason);
            }
        }
        if self.stage == Stage::Done {
            return;
        }
        self.expire(local, forwarder);
        if self.stage == Stage::Active {
            self.judge_source(local);
            self.call_standbys(local, forwarder);
            self.search(local, forwarder);
            self.seek_standbys(local, forwarder);
        }
        self.renew(local, forwarder);
        self.close_unused_feeds(local);
    }

    /// When [`Self::drive`] has something to do.
    pub(in super::super) fn next_deadline(&self, local: &Local) -> Timestamp {
        let tuning = &local.config.tuning;
        let mut at = Timestamp::NEVER;
        match self.stage {
            Stage::Done => return at,
            Stage::Closing { until, .. } => at = at.min(until),
            Stage::Active => {
                if !self.join.in_flight {
                    at = at.min(self.join.due_at);
                }
                if let Some(since) = self.lost_since {
                    at = at.min(self.lost_from(since) + tuning.source_wait);
                } else if let Some(since) = self.quiet_since() {
                    at = at.min(since + tuning.source_lost_after);
                }
                for seat in self.seats.iter().filter(|seat| seat.wants_parent()) {
                    at = at.min(match &seat.search {
                        Some(search) => search.next_at,
                        None => seat.retry_at.max(self.search_from(local)),
                    });
                }
            }
        }
        if self.stage == Stage::Active {
            at = at.min(self.standbys_due(local));
        }
        for seat in &self.seats {
            at = at.min(seat.live_until.unwrap_or(Timestamp::NEVER));
            at = at.min(seat.undelivered_at(tuning.deliver_timeout).unwrap_or(Timestamp::NEVER));
            at = at.min(seat.soft.as_ref().map_or(Timestamp::NEVER, |(_, until)| *until));
        }
        for feed in self.feeds.values() {
            at = at.min(if feed.up { feed.reask_at } else { feed.since + tuning.open_timeout });
        }
        at
    }

    /// Deadlines of tickets and feeds.
    fn expire(&mut self, local: &mut Local, forwarder: &mut Forwarder) {
        let now = local.now;
        let tuning = &local.config.tuning;
        let (open_timeout, lifetime) = (tuning.open_timeout, tuning.candidate_lifetime);
        self.candidates.expire(lifetime, now);
        let unopened: Vec<NodeId> = self
            .feeds
            .iter()
            .filter(|(_, feed)| !feed.up && feed.since + open_timeout <= now)
            .map(|(parent, _)| *parent)
            .collect();
        for parent in unopened {
            self.feeds.remove(&parent);
            local.emit(Output::CloseFeed { feed: self.feed_key(parent), reason: EndReason::Left });
            self.complain_of(local, parent, ComplaintKind::Unopened);
            self.lose(local, forwarder, parent, MoveCause::Unopened);
        }
        let mut released = Vec::new();
        let mut stopped = Vec::new();
        for (stripe, seat) in (0..).zip(&mut self.seats) {
            let over = seat.soft.take_if(|(_, until)| *until <= now);
            released.extend(over.map(|(held, _)| held));
            if seat.live_until.is_some_and(|until| until <= now) {
                let cause = seat.cause;
                let search = seat.search.take();
                let (retry_at, rounds) = (seat.retry_at, seat.rounds);
                released.extend(seat.orphan(cause, now));
                // The search for the successor goes on where it was.
                (seat.search, seat.retry_at, seat.rounds) = (search, retry_at, rounds);
                stopped.push(stripe);
            }
        }
        self.release(local, &released);
        for stripe in stopped {
            self.no_path(local, forwarder, stripe);
        }
        self.expire_undelivered(local, forwarder);
    }

    /// A parent that was promoted and brings nothing has broken its promise.
    fn expire_undelivered(&mut self, local: &mut Local, forwarder: &mut Forwarder) {
        let now = local.now;
        let timeout = local.config.tuning.deliver_timeout;
        for stripe in 0..self.k() {
            let seat = &mut self.seats[usize::from(stripe)];
            if seat.undelivered_at(timeout).is_none_or(|at| now < at) {
                continue;
            }
            let judge = (local.config.tuning.withheld_after, Duration::MAX);
            if let Some(held) = &seat.live {
                let (parent, conduct) = (held.parent, held.conduct);
                self.candidates.broke(parent);
                if conduct.judge(judge, Duration::MAX, now) == Verdict::Withholds {
                    self.blame(local, parent, stripe);
                }
            }
            self.go_back(local, forwarder, stripe);
        }
    }

    /// Whether the source still speaks. A viewer without any parent whom the source still answers
    /// lacks capacity, not a source.
    fn judge_source(&mut self, local: &mut Local) {
        let quiet = self
            .quiet_since()
            .is_some_and(|since| local.now.since(since) >= local.config.tuning.source_lost_after);
        if self.lost_since.is_none() && quiet {
            self.lost_since = Some(local.now);
            self.join.due_at = self.join.due_at.min(local.now);
            local.event(Event::SourceLost { stream: self.stream });
        }
        let wait = local.config.tuning.source_wait;
        if self.lost_since.is_some_and(|since| local.now.since(self.lost_from(since)) >= wait) {
            self.close(local, Duration::ZERO, EndReason::SourceLost);
        }
    }

    /// Since when nothing was heard from the source, by any way; `None` when nothing is expected.
    fn quiet_since(&self) -> Option<Timestamp> {
        (self.has_played && !self.paused).then(|| self.lost_from(self.progress_at))
    }

    fn lost_from(&self, since: Timestamp) -> Timestamp {
        let orphan = self.seats.iter().all(|seat| seat.live.is_none());
        if orphan { since.max(self.source_heard_at) } else { since }
    }

    /// Leases are renewed by asking again: it also repairs a path or a renewal that got lost.
    fn renew(&mut self, local: &mut Local, forwarder: &Forwarder) {
        let now = local.now;
        let every = local.config.tuning.reask_every;
        let due: Vec<NodeId> = self
            .feeds
            .iter()
            .filter(|(_, feed)| feed.up && feed.reask_at <= now)
            .map(|(parent, _)| *parent)
            .collect();
        for parent in due {
            let mut stripes: Vec<Stripe> = Vec::new();
            let mut warm = StripeSet::EMPTY;
            for (stripe, seat) in (0..).zip(&self.seats) {
                if seat.parent() == Some(parent) {
                    stripes.push(stripe);
                } else if seat.standby.is(parent) {
                    stripes.push(stripe);
                    warm.insert(stripe);
                }
            }
            if let Some(feed) = self.feeds.get_mut(&parent) {
                feed.reask_at = now + every;
            }
            if !stripes.is_empty() && self.stage == Stage::Active {
                self.ask(local, forwarder, parent, &stripes, warm, true);
            }
        }
    }
}
