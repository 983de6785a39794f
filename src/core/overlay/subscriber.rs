//! The child role: one watched or seeded stream.
//!
//! Owns the seats of its stripes, the feeds from parents, and when the stream plays, is lost or has
//! ended. Does not own tickets given to children (see `forwarder`), nor bytes.

mod duplicates;
mod failover;
mod rules;
mod search;
mod seat;
mod standby;
mod upkeep;

use std::{collections::BTreeMap, time::Duration};

use self::seat::{Held, Seat};
use super::{
    Candidate, EndReason, Event, Interest, MoveCause, Output, Revoke, RevokeReason, StripeView,
    TicketId, TicketRequest, TicketView, WatchView,
    candidates::Candidates,
    carriage::Carried,
    forwarder::Forwarder,
    local::{Local, Purpose},
};
use crate::{
    announcement::Announcement,
    ids::{Direction, FeedKey, NodeId, StreamId, Stripe},
    time::Timestamp,
    units::Bitrate,
};

/// One watched or seeded stream.
#[derive(Debug)]
pub(super) struct Subscriber {
    stream: StreamId,
    kind: Interest,
    lag: Duration,
    made_of: Option<MadeOf>,
    seats: Vec<Seat>,
    feeds: BTreeMap<NodeId, Feed>,
    candidates: Candidates,
    join: Join,
    stage: Stage,
    started_at: Timestamp,
    /// When anything new last arrived on any stripe.
    progress_at: Timestamp,
    paused: bool,
    lost_since: Option<Timestamp>,
    /// When the source last answered.
    source_heard_at: Timestamp,
    /// It played at some time.
    has_played: bool,
    /// `Event::Playing` was said and nothing to the contrary since.
    said_playing: bool,
    said_ended: bool,
    /// Something that the directory should know has changed.
    news: bool,
}

/// What the announcement, or the certificate, says of the stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct MadeOf {
    rate: Bitrate,
    k: u8,
    epoch: u64,
}

/// A feed from a parent.
#[derive(Debug)]
struct Feed {
    up: bool,
    /// Nothing at all has come for too long, not even a keepalive.
    silent: bool,
    /// When a chunk of any stripe last came on it.
    brought_at: Timestamp,
    since: Timestamp,
    reask_at: Timestamp,
    duplicates: duplicates::DuplicateWatch,
}

/// Asking the directory for candidates.
#[derive(Debug)]
struct Join {
    in_flight: bool,
    answered: bool,
    unknown: bool,
    due_at: Timestamp,
}

/// Watching, or about to stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Active,
    Closing { until: Timestamp, reason: EndReason },
    Done,
}

impl Subscriber {
    pub(super) fn new(local: &mut Local, stream: StreamId, kind: Interest, lag: Duration) -> Self {
        let now = local.now;
        local.emit(Output::OpenStream { stream });
        Self {
            stream,
            kind,
            lag,
            made_of: None,
            seats: Vec::new(),
            feeds: BTreeMap::new(),
            candidates: Candidates::default(),
            join: Join { in_flight: false, answered: false, unknown: false, due_at: now },
            stage: Stage::Active,
            started_at: now,
            progress_at: now,
            paused: false,
            lost_since: None,
            source_heard_at: now,
            has_played: false,
            said_playing: false,
            said_ended: false,
            news: false,
        }
    }

    /// The user asked again: for another lag or interest, or while it was about to stop.
    pub(super) fn watch_again(&mut self, local: &mut Local, kind: Interest, lag: Duration) {
        self.kind = kind;
        self.lag = lag;
        if self.stage != Stage::Active {
            self.stage = Stage::Active;
            self.said_ended = false;
            self.join.due_at = local.now;
        }
        if let Some(carried) = local.carried.get_mut(&self.stream) {
            carried.seeding = kind == Interest::Seed;
            carried.closing = false;
        }
    }

    /// The directory knows something newer.
    pub(super) fn announced(&mut self, local: &mut Local, announcement: &Announcement) {
        if announcement.ended {
            if self.made_of.is_none_or(|made_of| announcement.epoch >= made_of.epoch) {
                // Chunks may still be on their way: their end mark closes the stream sooner.
                self.close(local, END_GRACE, EndReason::Ended);
            }
            return;
        }
        self.join.unknown = false;
        let Announcement { rate, k, epoch, .. } = *announcement;
        let newer = self.made_of.is_some_and(|made_of| epoch > made_of.epoch);
        self.candidates.set_source(local, &announcement.node, k);
        self.set_made_of(local, MadeOf { rate, k, epoch });
        if newer {
            // The source restarted: it may be back elsewhere.
            local.carried.entry(self.stream).and_modify(Carried::restart);
            let now = local.now;
            self.seats.iter_mut().filter(|seat| seat.live.is_none()).for_each(|seat| {
                seat.retry_at = now;
                seat.search = None;
            });
            if matches!(self.stage, Stage::Closing { reason: EndReason::Ended, .. }) {
                self.watch_again(local, self.kind, self.lag);
            }
        }
    }

    /// A verified certificate says what the stream is made of.
    pub(super) fn certified(&mut self, local: &mut Local, rate: Bitrate, k: u8) {
        let epoch = self.made_of.map_or(0, |made_of| made_of.epoch);
        self.set_made_of(local, MadeOf { rate, k, epoch });
    }

    /// The directory's candidates, or `None` when it did not answer.
    pub(super) fn joined(&mut self, local: &mut Local, answer: Option<(bool, Vec<Candidate>)>) {
        self.join.in_flight = false;
        if let Some((known, candidates)) = answer {
            self.join.answered = true;
            self.join.unknown = !known && self.made_of.is_none();
            self.candidates.merge(local, candidates);
            for node in self.candidates.unlinked(local, WARM_LINKS) {
                local.dial(node);
            }
        }
    }

    /// The directory has answered, and still no parent delivers: a second one may know more.
    pub(super) fn doubts_directory(&self) -> bool {
        self.join.answered && !self.is_fed()
    }

    /// Whether the directory is to be asked now; marks it as asked.
    pub(super) fn take_join(&mut self, local: &Local) -> bool {
        let due =
            self.stage == Stage::Active && !self.join.in_flight && self.join.due_at <= local.now;
        if due {
            self.join.in_flight = true;
            let tuning = &local.config.tuning;
            let pause =
                if self.made_of.is_none() { tuning.retry_max } else { tuning.refresh_every };
            self.join.due_at = local.now + pause;
        }
        due
    }

    /// A parent ends tickets.
    pub(super) fn revoked(
        &mut self,
        local: &mut Local,
        forwarder: &mut Forwarder,
        from: NodeId,
        revoke: Revoke,
    ) {
        let now = local.now;
        let names = |held: &Held| held.parent == from && revoke.tickets.contains(&held.ticket);
        if !self.seats.iter().flat_map(Seat::held).any(names) {
            // Not a parent's word, or about what is over already.
            return;
        }
        let grace = Duration::from_millis(u64::from(revoke.grace_ms.min(GRACE_MS_MAX)));
        let patience = local.config.tuning.displace_patience;
        let instead = revoke.candidates.first().map(|candidate| candidate.contact.node);
        let (cause, wait) = match revoke.reason {
            RevokeReason::Revoked => (MoveCause::Revoked, Duration::ZERO),
            RevokeReason::Rebalance if grace >= 2 * patience => {
                (MoveCause::Displaced, local.jitter(patience))
            }
            RevokeReason::Rebalance => (MoveCause::Displaced, Duration::ZERO),
            RevokeReason::Leaving => (MoveCause::Leaving, Duration::ZERO),
            RevokeReason::Shed => (MoveCause::Shed, Duration::ZERO),
        };
        let mut broken = Vec::new();
        for (stripe, seat) in (0..).zip(&mut self.seats) {
            if seat.live.as_ref().is_some_and(|held| names(held) && !held.delivered) {
                // A promise that could not be kept: why the seat moves stays as it was.
                broken.push(stripe);
            } else if seat.live.as_ref().is_some_and(names) {
                seat.replace(cause, now);
                seat.live_until = Some(now + grace);
                seat.retry_at = now + wait;
                seat.plead = instead.filter(|_| cause == MoveCause::Displaced);
            }
            if seat.next.as_ref().is_some_and(names) {
                seat.next = None;
                seat.retry_at = now;
            }
            seat.soft.take_if(|(held, _)| names(held));
            if seat.standby.held.as_ref().is_some_and(names) {
                seat.standby.drop(now);
            }
        }
        for stripe in broken {
            self.go_back(local, forwarder, stripe);
        }
        self.candidates.merge(local, revoke.candidates);
        if cause == MoveCause::Leaving {
            self.candidates.remove(&from);
        }
    }

    /// The user ends a held ticket; false when it is none of this stream's.
    pub(super) fn release_by_user(&mut self, local: &mut Local, ticket: TicketId) -> bool {
        let now = local.now;
        let mut parent = None;
        for seat in &mut self.seats {
            if seat.live.as_ref().is_some_and(|held| held.ticket == ticket) {
                parent = seat.parent();
                seat.replace(MoveCause::Revoked, now);
                seat.live_until = Some(now + local.config.tuning.revoke_grace);
            }
        }
        parent.is_some()
    }

    /// The stream's signed end has arrived.
    pub(super) fn stream_ended(&mut self, local: &mut Local) {
        self.say_ended(local, EndReason::Ended);
        self.close(local, local.config.tuning.handover_grace, EndReason::Ended);
    }

    pub(super) fn set_paused(&mut self, now: Timestamp, paused: bool) {
        self.paused = paused;
        self.progress_at = now;
    }

    /// The user stops watching: children get time to move, then everything is closed.
    pub(super) fn unwatch(&mut self, local: &mut Local, forwarder: &mut Forwarder) {
        let mut candidates: Vec<_> = self
            .feeds
            .keys()
            .filter_map(|parent| self.candidates.candidate(local, parent))
            .collect();
        candidates.extend(self.candidates.to_share(local, SHARED_CANDIDATES));
        let grace = local.config.tuning.handover_grace;
        let needed = forwarder.hand_over(local, self.stream, grace, &candidates);
        self.said_ended = true;
        self.close(local, if needed { grace } else { Duration::ZERO }, EndReason::Left);
    }

    /// Nodes that may carry the stream and are connected.
    pub(super) fn candidates(&self, local: &Local) -> Vec<NodeId> {
        self.candidates.nodes().filter(|node| local.nodes.is_linked(node)).collect()
    }

    /// Whether the supernode should hear of something; asked once.
    pub(super) const fn take_news(&mut self) -> bool {
        std::mem::replace(&mut self.news, false)
    }

    /// Whether it is over and may be dropped.
    pub(super) fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }

    /// Own candidates, to redirect others to.
    pub(super) fn share(&self, local: &Local) -> Vec<Candidate> {
        self.candidates.to_share(local, SHARED_CANDIDATES)
    }

    pub(super) fn view(&self) -> WatchView {
        let stripe = |(stripe, seat): (Stripe, &Seat)| StripeView {
            stripe,
            parent: seat.parent(),
            depth: seat.live.as_ref().and_then(Held::depth),
        };
        WatchView {
            stream: self.stream,
            kind: self.kind,
            playing: self.is_fed(),
            stripes: (0..).zip(&self.seats).map(stripe).collect(),
            candidates: u32::try_from(self.candidates.len()).unwrap_or(u32::MAX),
        }
    }

    pub(super) fn held(&self) -> impl Iterator<Item = TicketView> {
        let stream = self.stream;
        (0..).zip(&self.seats).flat_map(move |(stripe, seat)| {
            seat.held().map(move |held| {
                let (node, ticket) = held.ticket();
                let (confirmed, standby) = (held.delivered, seat.standby.is(node));
                TicketView { ticket, stream, stripe, node, confirmed, standby, expires_in_ms: 0 }
            })
        })
    }

    /// Whether a seat holds this ticket, whatever for.
    pub(super) fn holds(&self, parent: NodeId, ticket: TicketId) -> bool {
        self.seats.iter().flat_map(Seat::held).any(|held| held.ticket() == (parent, ticket))
    }

    /// Gives up everything at once: used when the node leaves.
    pub(super) fn abandon(&mut self, local: &mut Local) {
        self.finish(local, EndReason::Left);
    }

    /// Every stripe has a parent that delivers.
    fn is_fed(&self) -> bool {
        !self.seats.is_empty()
            && self.seats.iter().all(|seat| seat.live.as_ref().is_some_and(|held| held.delivered))
    }

    fn set_made_of(&mut self, local: &mut Local, made_of: MadeOf) {
        if self.made_of == Some(made_of) {
            return;
        }
        self.made_of = Some(made_of);
        let seeding = self.kind == Interest::Seed;
        let carried = local
            .carried
            .entry(self.stream)
            .or_insert_with(|| Carried::member(made_of.rate, made_of.k, seeding));
        carried.rate = made_of.rate;
        carried.set_k(made_of.k);
        let k = usize::from(made_of.k);
        let now = local.now;
        let gone: Vec<Held> = if self.seats.len() > k {
            let gone = self.seats.split_off(k);
            gone.into_iter().flat_map(|seat| seat.held().cloned().collect::<Vec<_>>()).collect()
        } else {
            Vec::new()
        };
        self.release(local, &gone);
        self.seats.resize_with(k, || Seat::new(now));
    }

    fn close(&mut self, local: &mut Local, grace: Duration, reason: EndReason) {
        let until = local.now + grace;
        let sooner = match self.stage {
            Stage::Active => true,
            Stage::Closing { until: old, .. } => until < old,
            Stage::Done => false,
        };
        if sooner {
            self.stage = Stage::Closing { until, reason };
            if let Some(carried) = local.carried.get_mut(&self.stream) {
                carried.closing = true;
            }
        }
    }

    fn say_ended(&mut self, local: &mut Local, reason: EndReason) {
        if !self.said_ended {
            self.said_ended = true;
            local.event(Event::Ended { stream: self.stream, reason });
        }
    }

    /// Releases every ticket and closes every feed from parents. Children's feeds are the
    /// forwarder's, who is told by the caller.
    fn finish(&mut self, local: &mut Local, reason: EndReason) {
        self.say_ended(local, reason);
        let seats = std::mem::take(&mut self.seats);
        let held: Vec<Held> = seats.iter().flat_map(|seat| seat.held().cloned()).collect();
        self.release(local, &held);
        for parent in std::mem::take(&mut self.feeds).into_keys() {
            local.emit(Output::CloseFeed { feed: self.feed_key(parent), reason: EndReason::Left });
        }
        local.carried.remove(&self.stream);
        local.emit(Output::CloseStream { stream: self.stream });
        self.stage = Stage::Done;
    }

    /// Gives tickets back to their parents, except those that a seat (still) holds: a parent that
    /// is asked again grants the same ticket again.
    fn release(&self, local: &mut Local, held: &[Held]) {
        let mut by_parent: BTreeMap<NodeId, Vec<TicketId>> = BTreeMap::new();
        for (parent, ticket) in held.iter().map(Held::ticket) {
            if !self.holds(parent, ticket) {
                by_parent.entry(parent).or_default().push(ticket);
            }
        }
        for (parent, tickets) in by_parent {
            local.ask_ticket(parent, TicketRequest::Release { tickets }, Purpose::Release);
        }
    }

    const fn feed_key(&self, peer: NodeId) -> FeedKey {
        FeedKey { stream: self.stream, peer, direction: Direction::FromParent }
    }
}

/// After a tombstone the last chunks may take this long: a reader that keeps everything may be
/// seconds behind. The relay says when nobody waits for them any more.
const END_GRACE: Duration = Duration::from_secs(6);
/// No grace that a parent names counts for more.
const GRACE_MS_MAX: u32 = 5_000;
/// Connections kept ready to nodes that are no parents.
const WARM_LINKS: usize = 2;
/// Own candidates that are told to children and refused askers.
const SHARED_CANDIDATES: usize = 8;
