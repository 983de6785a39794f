//! Looking for parents, and everything else that time brings to a watched stream.
//!
//! Owns rounds of asking: bounded in candidates, parallelism and time, hedged, and repeated with
//! jitter. Does not own who is preferred (see `candidates`), nor standbys (see `standby`).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    super::{
        Ask, AskAnswer, AskStripe, Event, MoveCause, NoCapacityReason, Output, PATH_MAX,
        RefuseReason, RequestId, TicketRequest, Verdict,
        forwarder::Forwarder,
        local::{Local, Purpose},
    },
    Feed, Held, Seat, Stage, Subscriber,
    duplicates::DuplicateWatch,
    seat::Search,
};
use crate::{
    ids::{NodeId, Stripe, StripeSet},
    time::{Timestamp, micros},
};

impl Subscriber {
    /// An ASK was answered.
    pub(in super::super) fn on_answer(
        &mut self,
        local: &mut Local,
        forwarder: &mut Forwarder,
        id: RequestId,
        from: NodeId,
        warm: StripeSet,
        answer: AskAnswer,
    ) {
        self.answered(id, from, local.now);
        let feed = self.feed_key(from);
        let mut unwanted = Vec::new();
        for given in answer.stripes {
            let now = local.now;
            let Some(seat) = self.seats.get_mut(usize::from(given.stripe)) else {
                if let Verdict::Grant { ticket, path, .. } = given.verdict {
                    unwanted.push(Held::new(from, ticket, path, now));
                }
                continue;
            };
            // Promoted meanwhile: then it is about the live ticket.
            let standby = warm.contains(given.stripe) && seat.parent() != Some(from);
            match given.verdict {
                Verdict::Grant { ticket, path, .. } if standby => {
                    self.promised(local, id, given.stripe, (from, ticket, path));
                }
                Verdict::Refuse { .. } if standby => {
                    self.unpromised(local, id, given.stripe, from);
                }
                Verdict::Refuse { .. } if warm.contains(given.stripe) => {}
                Verdict::Grant { ticket, path, displaced, .. } => {
                    let until = now + local.config.tuning.room_kept;
                    let sound = !path.contains(&local.hash) && path.len() < PATH_MAX;
                    let stripe = given.stripe;
                    let keeps = !seat.replacing;
                    let renewed =
                        |live: &&mut Held| live.parent == from && (keeps || live.ticket == ticket);
                    if let Some(live) = seat.live.as_mut().filter(renewed) {
                        // Another ticket: the parent knows the old one no more, and this node
                        // did not hear why. It forgot the promotion with it.
                        if std::mem::replace(&mut live.ticket, ticket) != ticket {
                            local.emit(Output::Promote { feed, stripe });
                        }
                        // The path may have changed meanwhile.
                        if live.path != path {
                            self.path(local, forwarder, from, stripe, path);
                        }
                    } else if sound && self.stage == Stage::Active && seat.wants_parent() {
                        if seat.standby.is(from) {
                            seat.standby.drop(now);
                        }
                        seat.next = Some(Held::new(from, ticket, path, now));
                        if let Some(victim) = displaced {
                            forwarder.reserve(now, self.stream, victim, stripe, until);
                        }
                        self.open_feed(local, from);
                    } else {
                        // Released unless a seat holds it already.
                        unwanted.push(Held::new(from, ticket, path, now));
                    }
                }
                Verdict::Refuse { reason } => {
                    self.on_refusal(local, forwarder, given.stripe, from, reason);
                }
            }
        }
        self.candidates.merge(local, answer.redirect);
        self.release(local, &unwanted);
        self.promote_ready(local, forwarder);
    }

    /// An ASK was refused whole.
    pub(in super::super) fn on_refused(
        &mut self,
        local: &mut Local,
        forwarder: &mut Forwarder,
        id: RequestId,
        from: NodeId,
        (stripes, warm): (&[Stripe], StripeSet),
        reason: RefuseReason,
    ) {
        self.answered(id, from, local.now);
        for stripe in stripes {
            if warm.contains(*stripe) {
                self.unpromised(local, id, *stripe, from);
            } else {
                self.on_refusal(local, forwarder, *stripe, from, reason);
            }
        }
    }

    /// An ASK got no answer.
    pub(in super::super) fn on_silence(&mut self, local: &mut Local, id: RequestId, from: NodeId) {
        self.candidates.broke(from);
        for stripe in 0..self.k() {
            // A standby that does not answer is none.
            self.unpromised(local, id, stripe, from);
            let seat = &mut self.seats[usize::from(stripe)];
            if let Some(search) = &mut seat.search
                && search.in_flight.remove(&id)
            {
                search.unreachable += 1;
            }
        }
    }

    fn on_refusal(
        &mut self,
        local: &mut Local,
        forwarder: &mut Forwarder,
        stripe: Stripe,
        from: NodeId,
        reason: RefuseReason,
    ) {
        let Some(seat) = self.seats.get_mut(usize::from(stripe)) else { return };
        if seat.parent() == Some(from) {
            // A renewal. Asked too often, or leaving: the ticket still stands for a while.
            let stands = match reason {
                RefuseReason::RateLimited | RefuseReason::Leaving => true,
                RefuseReason::NoCapacity
                | RefuseReason::CopyLimit
                | RefuseReason::NotCarrying
                | RefuseReason::Loop
                | RefuseReason::TooDeep
                | RefuseReason::Banned
                | RefuseReason::NotParty
                | RefuseReason::Malformed => seat.replacing,
            };
            if !stands {
                seat.orphan(MoveCause::Expired, local.now);
                self.no_path(local, forwarder, stripe);
            }
            return;
        }
        if let Some(search) = &mut seat.search {
            match reason {
                RefuseReason::NoCapacity | RefuseReason::CopyLimit => search.full.push(from),
                RefuseReason::NotCarrying
                | RefuseReason::Loop
                | RefuseReason::TooDeep
                | RefuseReason::Banned
                | RefuseReason::RateLimited
                | RefuseReason::Leaving
                | RefuseReason::NotParty
                | RefuseReason::Malformed => search.refused += 1,
            }
        }
        self.candidates.refused(from, reason, local.now);
    }

    fn answered(&mut self, id: RequestId, from: NodeId, now: Timestamp) {
        if self.candidates.is_source(&from) {
            self.source_heard_at = now;
        }
        for search in self.seats.iter_mut().filter_map(|seat| seat.search.as_mut()) {
            search.in_flight.remove(&id);
        }
    }

    /// Searching starts when the directory has answered, or is late.
    pub(super) fn search_from(&self, local: &Local) -> Timestamp {
        if self.join.answered || self.seats.iter().any(|seat| seat.last.is_some()) {
            return local.now;
        }
        self.started_at + JOIN_PATIENCE
    }

    pub(super) fn search(&mut self, local: &mut Local, forwarder: &Forwarder) {
        let now = local.now;
        if self.made_of.is_none() {
            self.report_unknown(local);
            return;
        }
        if now < self.search_from(local) {
            return;
        }
        let deadline = now + local.config.tuning.round_deadline;
        for seat in &mut self.seats {
            if !seat.wants_parent() {
                seat.search = None;
            } else if seat.search.is_none() && seat.retry_at <= now {
                let visited = BTreeSet::from_iter(seat.parent());
                seat.search = Some(Search::new(visited, deadline, now));
            }
        }
        let plan = self.plan(local, forwarder);
        for (node, stripes) in plan {
            self.ask(local, forwarder, node, &stripes, StripeSet::EMPTY, false);
        }
        self.end_rounds(local);
    }

    /// Whom to ask now, for which stripes.
    fn plan(&mut self, local: &Local, forwarder: &Forwarder) -> BTreeMap<NodeId, Vec<Stripe>> {
        // Called after every input, and nearly always there is nothing to seek.
        if self.seats.iter().all(|seat| seat.search.is_none()) {
            return BTreeMap::new();
        }
        let now = local.now;
        let tuning = &local.config.tuning;
        // Who has slots to give may get the place of somebody who has none.
        let gives = forwarder.slots(local, self.stream) > 0;
        let mut taken: BTreeMap<NodeId, u32> = BTreeMap::new();
        for held in self.seats.iter().flat_map(Seat::held) {
            *taken.entry(held.parent).or_default() += 1;
        }
        let mut plan: BTreeMap<NodeId, Vec<Stripe>> = BTreeMap::new();
        let mut asked: BTreeMap<NodeId, u32> = BTreeMap::new();
        for (stripe, seat) in (0..).zip(&mut self.seats) {
            let joining = seat.cause == MoveCause::Joined;
            let Some(search) = &mut seat.search else { continue };
            let hedge = if joining { tuning.hedge } else { tuning.hedge_failover };
            let idle = search.in_flight.is_empty();
            let hedged = search.in_flight.len() < tuning.asks_parallel_max
                && search.last_ask_at + hedge <= now;
            if now >= search.deadline || search.asks >= tuning.asks_per_round_max {
                search.next_at = search.deadline.max(now);
                continue;
            }
            if !idle && !hedged {
                search.next_at = search.last_ask_at + hedge;
                continue;
            }
            let first = seat.plead.filter(|_| search.asks == 0);
            let best = first.or_else(|| {
                loop {
                    let of_all = (&taken, &asked);
                    let best = self.candidates.best(local, stripe, &search.visited, of_all, gives);
                    // Own children cannot be parents.
                    match best {
                        Some(node) if forwarder.feeds(self.stream, node, stripe) => {
                            search.visited.insert(node);
                        }
                        best => break best,
                    }
                }
            });
            let Some(node) = best else {
                search.next_at = search.deadline;
                continue;
            };
            search.visited.insert(node);
            search.asks += 1;
            search.last_ask_at = now;
            search.next_at = now + hedge;
            *taken.entry(node).or_default() += 1;
            *asked.entry(node).or_default() += 1;
            plan.entry(node).or_default().push(stripe);
        }
        plan
    }

    /// Asks one node for stripes; for those in `warm` to stand by only.
    pub(super) fn ask(
        &mut self,
        local: &mut Local,
        forwarder: &Forwarder,
        node: NodeId,
        stripes: &[Stripe],
        warm: StripeSet,
        renewal: bool,
    ) -> RequestId {
        let stream = self.stream;
        let carried = local.carried.get(&stream);
        let free = carried.map_or(0, |carried| forwarder.free_slots(local, stream, carried));
        let sought = || stripes.iter().filter(|stripe| !renewal && !warm.contains(**stripe));
        let pleads = |stripe: &&Stripe| self.seats[usize::from(**stripe)].plead == Some(node);
        let rounds = |stripe: &Stripe| self.seats[usize::from(*stripe)].rounds;
        let attempt = sought().filter(pleads).map(rounds).max().unwrap_or(0);
        // One place taken for each slot to give; two who are asked at once must not both move
        // somebody.
        let alone = |stripe: &&Stripe| {
            let search = self.seats[usize::from(**stripe)].search.as_ref();
            search.is_none_or(|search| search.in_flight.is_empty())
        };
        let places = u16::try_from(sought().filter(alone).count()).unwrap_or(u16::MAX);
        let displace = places.min(free.saturating_sub(local.displacing(stream)));
        let displace = u8::try_from(displace).unwrap_or(u8::MAX);
        let entry = |stripe: &Stripe| AskStripe {
            stripe: *stripe,
            head: None,
            warm: warm.contains(*stripe),
        };
        let ask = Ask {
            stream,
            stripes: stripes.iter().map(entry).collect(),
            contact: local.me.clone(),
            free,
            attempt: u8::try_from(attempt).unwrap_or(u8::MAX),
            slots: forwarder.slots(local, stream),
            displace,
        };
        let purpose = Purpose::Ask { stream, stripes: stripes.to_vec(), warm, renewal, displace };
        let id = local.ask_ticket(node, TicketRequest::Ask(ask), purpose);
        for stripe in stripes.iter().filter(|stripe| !renewal && !warm.contains(**stripe)) {
            if let Some(search) = &mut self.seats[usize::from(*stripe)].search {
                search.in_flight.insert(id);
            }
        }
        id
    }

    /// Rounds that found nobody end; the next begins after a pause.
    fn end_rounds(&mut self, local: &mut Local) {
        let now = local.now;
        let (retry_min, retry_max) = (local.config.tuning.retry_min, local.config.tuning.retry_max);
        let mut worst: Option<(NoCapacityReason, Duration)> = None;
        for seat in &mut self.seats {
            let Some(search) = &seat.search else { continue };
            let waiting = !search.in_flight.is_empty() || search.next_at < search.deadline;
            let joining = self.join.in_flight && !self.join.answered;
            if now < search.deadline && (waiting || joining) {
                continue;
            }
            let reason = search.reason();
            let full = search.full.len();
            let lot = usize::try_from(local.random() % full.max(1) as u64).unwrap_or(0);
            seat.plead = search.full.get(lot).copied();
            let pause = retry_min.saturating_mul(1 << seat.rounds.min(8));
            let pause = local.jitter(pause.min(retry_max));
            seat.search = None;
            seat.rounds = seat.rounds.saturating_add(1);
            seat.retry_at = now + pause;
            if seat.live.is_none() && worst.is_none_or(|(_, longest)| pause > longest) {
                worst = Some((reason, pause));
            }
        }
        let Some((reason, pause)) = worst else { return };
        self.join.due_at = self.join.due_at.min(now + pause / 2);
        if self.lost_since.is_none() {
            self.said_playing = false;
            let retry_ms = micros(pause) / 1_000;
            local.event(Event::NoCapacity { stream: self.stream, reason, retry_ms });
        }
    }

    fn report_unknown(&mut self, local: &mut Local) {
        if std::mem::take(&mut self.join.unknown) {
            let retry_ms = micros(self.join.due_at.since(local.now)) / 1_000;
            let reason = NoCapacityReason::UnknownStream;
            local.event(Event::NoCapacity { stream: self.stream, reason, retry_ms });
        }
    }

    pub(super) fn open_feed(&mut self, local: &mut Local, parent: NodeId) {
        if self.feeds.contains_key(&parent) {
            return;
        }
        let now = local.now;
        let duplicates = DuplicateWatch::new(now);
        let (since, brought_at, reask_at) = (now, now, now);
        let feed = Feed { up: false, silent: false, brought_at, since, reask_at, duplicates };
        self.feeds.insert(parent, feed);
        local.emit(Output::OpenFeed { feed: self.feed_key(parent) });
    }
}

impl Search {
    const fn new(visited: BTreeSet<NodeId>, deadline: Timestamp, now: Timestamp) -> Self {
        Self {
            deadline,
            visited,
            in_flight: BTreeSet::new(),
            last_ask_at: now,
            next_at: now,
            asks: 0,
            full: Vec::new(),
            unreachable: 0,
            refused: 0,
        }
    }

    const fn reason(&self) -> NoCapacityReason {
        if self.asks == 0 {
            NoCapacityReason::NoCandidates
        } else if !self.full.is_empty() {
            NoCapacityReason::AllFull
        } else if self.refused > 0 {
            NoCapacityReason::Refused
        } else {
            NoCapacityReason::Unreachable
        }
    }
}

/// How long the directory's first answer is waited for.
const JOIN_PATIENCE: Duration = Duration::from_millis(300);
