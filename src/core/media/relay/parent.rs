//! One feed from a parent, as the child sees it.
//!
//! Owns what was agreed with the parent, what it said and how it fares. Does not own the stripes
//! (see `media::stripe`), nor which parent is chosen (the overlay's).

use std::{collections::BTreeMap, time::Duration};

use super::{
    config::{RANGES_MAX, RelayConfig},
    output::{FeedProgress, StripeProgress},
};
use crate::{
    ids::{FeedKey, STRIPES_MAX, Stripe, StripeSet},
    media::ranges::RangeSet,
    time::Timestamp,
};

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Parent {
    pub(crate) feed: FeedKey,
    /// When the feed came up; `None` = not yet.
    pub(crate) up_at: Option<Timestamp>,
    /// The epoch of the last CERT on this feed.
    pub(crate) epoch: Option<u64>,
    /// Stripes that come from here.
    pub(crate) promoted: StripeSet,
    /// Of these, the ones whose PROMOTE is still to be sent.
    pub(crate) unsent: StripeSet,
    /// Tickets held here, if the overlay said so.
    pub(crate) tickets: Option<StripeSet>,
    pub(crate) rtt: Rtt,
    /// The parent says that the source paused.
    pub(crate) says_paused: bool,
    /// Bytes of CHUNK frames read.
    pub(crate) read_bytes: u64,
    pub(crate) duplicates: u32,
    pub(crate) offences: u32,
    pub(crate) shed: StripeSet,
    pub(crate) stripes: Vec<FromStripe>,
    denied: BTreeMap<Stripe, RangeSet>,
    /// What it brought of each stripe since it was asked for the stripe.
    brought: BTreeMap<Stripe, RangeSet>,
    /// What it was asked for one by one since then, perhaps more than once.
    wanted: BTreeMap<Stripe, RangeSet>,
    acked_bytes: u64,
    acked_at: Timestamp,
    /// When the parent was last heard.
    heard_at: Timestamp,
    /// Since when an answer can be there at the earliest.
    expected_at: Timestamp,
    silent_since: Option<Timestamp>,
    report: Report,
    reported_at: Option<Timestamp>,
}

/// One stripe on this feed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FromStripe {
    pub(crate) head: Option<u64>,
    pub(crate) bytes: u64,
    pub(crate) gaps: u32,
    pub(crate) depth: u8,
    /// The newest that the parent says it has.
    pub(crate) claimed: Option<u64>,
}

/// Whether the overlay is to be told something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Report {
    /// Nothing changed.
    None,
    /// When the interval allows.
    Soon,
    /// At once.
    Now,
}

impl Parent {
    pub(crate) fn new(feed: FeedKey, now: Timestamp) -> Self {
        let stripe = FromStripe { head: None, bytes: 0, gaps: 0, depth: u8::MAX, claimed: None };
        Self {
            feed,
            up_at: None,
            epoch: None,
            promoted: StripeSet::EMPTY,
            unsent: StripeSet::EMPTY,
            tickets: None,
            rtt: Rtt::default(),
            says_paused: false,
            read_bytes: 0,
            duplicates: 0,
            offences: 0,
            shed: StripeSet::EMPTY,
            stripes: vec![stripe; usize::from(STRIPES_MAX)],
            denied: BTreeMap::new(),
            brought: BTreeMap::new(),
            wanted: BTreeMap::new(),
            acked_bytes: 0,
            acked_at: now,
            heard_at: now,
            expected_at: now,
            silent_since: None,
            report: Report::None,
            reported_at: None,
        }
    }

    /// The epoch changed: all stripe numbers start over.
    pub(crate) fn restart(&mut self) {
        self.denied.clear();
        self.brought.clear();
        self.wanted.clear();
        for stripe in &mut self.stripes {
            (stripe.head, stripe.claimed) = (None, None);
        }
    }

    /// Notes a chunk that the parent brought; whether it brought the same one before, unasked.
    pub(crate) fn brings_again(&mut self, stripe: Stripe, number: u64) -> bool {
        let brought = self.brought.entry(stripe).or_insert_with(|| RangeSet::new(RANGES_MAX));
        if brought.contains(number) {
            return self.wanted.get(&stripe).is_none_or(|wanted| !wanted.contains(number));
        }
        note(brought, number, number);
        false
    }

    /// The parent is asked for what is missing of a stripe, as it was perhaps before.
    pub(crate) fn is_asked(&mut self, stripe: Stripe, ranges: &[(u64, u64)]) {
        let wanted = self.wanted.entry(stripe).or_insert_with(|| RangeSet::new(RANGES_MAX));
        for (from, to) in ranges {
            note(wanted, *from, *to);
        }
    }

    /// The parent is asked for a stripe anew, and may bring again what it brought before.
    pub(crate) fn is_promoted(&mut self, stripe: Stripe) {
        self.brought.remove(&stripe);
        self.wanted.remove(&stripe);
    }

    /// Bytes came.
    pub(crate) fn heard(&mut self, now: Timestamp) {
        self.heard_at = now;
        if self.silent_since.take().is_some() {
            self.report = Report::Now;
        }
    }

    /// The parent was asked for something: silence counts from when it can have answered.
    pub(crate) fn expect(&mut self, now: Timestamp) {
        // A parent that was silent gets another chance, and is reported again if it wastes it.
        self.silent_since = None;
        self.expected_at = now + self.rtt.mean().unwrap_or_default();
    }

    pub(crate) fn report_soon(&mut self) {
        if self.report == Report::None {
            self.report = Report::Soon;
        }
    }

    pub(crate) const fn report_now(&mut self) {
        self.report = Report::Now;
    }

    pub(crate) const fn is_silent(&self) -> bool {
        self.silent_since.is_some()
    }

    /// The stripes that ACKs keep alive.
    pub(crate) fn alive(&self) -> StripeSet {
        self.tickets.unwrap_or(self.promoted)
    }

    /// The parent cannot give these. False when it denied too much to remember.
    pub(crate) fn deny(&mut self, stripe: Stripe, from: u64, to: u64) -> bool {
        self.denied.entry(stripe).or_insert_with(|| RangeSet::new(RANGES_MAX)).insert(from, to)
    }

    pub(crate) fn denies(&self, stripe: Stripe, from: u64, to: u64) -> bool {
        self.denied.get(&stripe).is_some_and(|denied| denied.covers(from, to))
    }

    /// The parent starts the stripe again: what it denied before doesn't count.
    pub(crate) fn forgive(&mut self, stripe: Stripe) {
        self.denied.remove(&stripe);
    }

    /// The bytes to acknowledge, if it is time to.
    pub(crate) fn ack_due(
        &mut self,
        bytes_max: u64,
        config: &RelayConfig,
        now: Timestamp,
    ) -> Option<u64> {
        let unacked = self.read_bytes - self.acked_bytes;
        let waited = now.since(self.acked_at);
        let due = unacked >= bytes_max
            || (unacked > 0 && waited >= config.ack_interval)
            || waited >= config.ack_idle;
        if self.up_at.is_none() || !due {
            return None;
        }
        self.acked_bytes = self.read_bytes;
        self.acked_at = now;
        Some(self.read_bytes)
    }

    /// When the next ACK is due.
    pub(crate) fn ack_at(&self, config: &RelayConfig) -> Timestamp {
        if self.up_at.is_none() {
            return Timestamp::NEVER;
        }
        let pending = self.read_bytes > self.acked_bytes;
        self.acked_at + if pending { config.ack_interval } else { config.ack_idle }
    }

    /// Judges silence; the deadline of the next judgement.
    pub(crate) fn judge_silence(&mut self, config: &RelayConfig, now: Timestamp) -> Timestamp {
        if self.up_at.is_none() || self.silent_since.is_some() {
            return Timestamp::NEVER;
        }
        // One that only stands by says each second that it lives.
        let speaks_each =
            if self.promoted.is_empty() { config.keep_interval } else { Duration::ZERO };
        let since = self.heard_at.max(self.expected_at);
        let dead_at = since + speaks_each + self.rtt.dead_after(config);
        if now < dead_at {
            return dead_at;
        }
        self.silent_since = Some(self.heard_at);
        self.report = Report::Now;
        Timestamp::NEVER
    }

    /// Whether a report goes out now; else when.
    pub(crate) fn report_due(&mut self, config: &RelayConfig, now: Timestamp) -> ReportDue {
        let next_at = self.reported_at.map_or(now, |at| at + config.progress_interval);
        match self.report {
            Report::None => return ReportDue::At(Timestamp::NEVER),
            Report::Soon if now < next_at => return ReportDue::At(next_at),
            Report::Soon | Report::Now => {}
        }
        self.report = Report::None;
        self.reported_at = Some(now);
        ReportDue::Now
    }

    /// The report, with the age of each stripe's newest chunk filled in by `age_ms`.
    pub(crate) fn progress(
        &mut self,
        age_ms: impl Fn(Stripe) -> u32,
        now: Timestamp,
    ) -> FeedProgress {
        let stripes = (0..STRIPES_MAX)
            .zip(&self.stripes)
            .filter(|(stripe, seen)| self.promoted.contains(*stripe) || seen.head.is_some())
            .map(|(stripe, seen)| StripeProgress {
                stripe,
                head_stripe_seq: seen.head.unwrap_or(0),
                claimed_stripe_seq: seen.claimed.max(seen.head).unwrap_or(0),
                bytes: seen.bytes,
                age_ms: age_ms(stripe),
                gaps: seen.gaps,
                depth: seen.depth,
            })
            .collect();
        FeedProgress {
            feed: self.feed,
            silent_since: self.silent_since,
            at: now,
            stripes,
            duplicates: self.duplicates,
            offences: self.offences,
            shed: std::mem::take(&mut self.shed),
        }
    }
}

/// When a report goes out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ReportDue {
    Now,
    At(Timestamp),
}

/// Round trip time, smoothed as in RFC 6298.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Rtt {
    smoothed: Option<(Duration, Duration)>,
}

impl Rtt {
    pub(crate) fn observe(&mut self, rtt: Duration) {
        let rtt = rtt.min(Duration::from_secs(10));
        self.smoothed = Some(match self.smoothed {
            None => (rtt, rtt / 2),
            Some((mean, var)) => ((mean * 7 + rtt) / 8, (var * 3 + mean.abs_diff(rtt)) / 4),
        });
    }

    pub(crate) fn mean(&self) -> Option<Duration> {
        self.smoothed.map(|(mean, _)| mean)
    }

    /// T_dead: silence beyond a lost tail packet and its retransmission.
    pub(crate) fn dead_after(&self, config: &RelayConfig) -> Duration {
        let (mean, var) = self.smoothed.unwrap_or_default();
        (mean * 2 + var * 4 + Duration::from_millis(100)).clamp(config.dead_min, config.dead_max)
    }
}

/// Adds numbers to a set. One with too many holes begins anew: what was before is forgotten.
fn note(set: &mut RangeSet, from: u64, to: u64) {
    if !set.insert(from, to) {
        *set = RangeSet::new(RANGES_MAX);
        set.insert(from, to);
    }
}
