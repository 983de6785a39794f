//! One feed to a child: what it may have, how far it is, what it still owes us in ACKs.
//!
//! Owns the child's cursors, wants and send window. Does not own the chunks: **a child costs no
//! memory that grows with how slow it is.**

use std::{collections::BTreeMap, time::Duration};

use super::{
    config::{RANGES_MAX, RelayConfig, WANTED_MAX, WINDOW_MIN},
    parent::Rtt,
};
use crate::{
    ids::{FeedKey, STRIPES_MAX, Stripe, StripeSet},
    media::{
        audience::Audience,
        chunk::Payload,
        frame::{DownFrame, Start},
        ranges::RangeSet,
        ring::Ring,
        scheduler::Class,
    },
    time::Timestamp,
    units::Bitrate,
};

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Child<P> {
    pub(crate) feed: FeedKey,
    /// When the feed came up; `None` = not yet.
    pub(crate) up_at: Option<Timestamp>,
    pub(crate) live: StripeSet,
    pub(crate) warm: StripeSet,
    /// Taken away and not given back by the child: it gets no repair of these either.
    pub(crate) revoked: StripeSet,
    pub(crate) cursors: Vec<Option<Cursor>>,
    /// PROMOTEs that cannot start yet: no ticket, or nothing to start with.
    pub(crate) asks: BTreeMap<Stripe, Ask>,
    pub(crate) wants: BTreeMap<Stripe, RangeSet>,
    /// Stripes that may have a chunk to send.
    pub(crate) ready: StripeSet,
    /// Stripes that it had when the epoch changed, and has not begun anew.
    pub(crate) reads_on: StripeSet,
    /// It resumes after a failure: its repair goes before that of others, until it has all.
    pub(crate) is_resuming: bool,
    pub(crate) control: Vec<DownFrame<P>>,
    pub(crate) rtt: Rtt,
    pub(crate) sent_bytes: u64,
    pub(crate) acked_bytes: u64,
    /// Bytes of all frames handed to the driver, and what it says it handed on.
    pub(crate) handed_bytes: u64,
    pub(crate) drained_bytes: u64,
    /// Bytes of chunks among them.
    pub(crate) drained_chunk_bytes: u64,
    /// The highest ACK, which may run ahead of what the driver said.
    pub(crate) claimed_bytes: u64,
    /// Its window kept chunks back since that was last looked at.
    pub(crate) held_up: bool,
    /// When the unacknowledged bytes last became fewer, or first some.
    pub(crate) drained_at: Timestamp,
    /// When it was last told of as stalled; it is told of once.
    pub(crate) stalled_at: Option<Timestamp>,
    /// It was told of as quiet.
    pub(crate) quiet: bool,
    pub(crate) shed_at: Option<Timestamp>,
    pub(crate) sent_at: Timestamp,
    pub(crate) kept_at: Timestamp,
    pub(crate) alive_at: Option<Timestamp>,
    /// Its newest report of who is there and below, and when it came.
    pub(crate) audience: Option<(Audience, Timestamp)>,
    queued: u8,
}

/// How far a child is in a stripe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Cursor {
    /// Next `stripe_seq` to send.
    pub(crate) next: u64,
    /// Since when it has been flowing.
    pub(crate) since: Timestamp,
}

/// What a PROMOTE asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Ask {
    pub(crate) start: Start,
    pub(crate) missing: Vec<(u64, u64)>,
    /// When the overlay was last asked about it.
    pub(crate) asked_at: Timestamp,
}

impl<P> Child<P> {
    pub(crate) fn new(feed: FeedKey, now: Timestamp) -> Self {
        Self {
            feed,
            up_at: None,
            live: StripeSet::EMPTY,
            warm: StripeSet::EMPTY,
            revoked: StripeSet::EMPTY,
            reads_on: StripeSet::EMPTY,
            cursors: vec![None; usize::from(STRIPES_MAX)],
            asks: BTreeMap::new(),
            wants: BTreeMap::new(),
            ready: StripeSet::EMPTY,
            is_resuming: false,
            control: Vec::new(),
            rtt: Rtt::default(),
            sent_bytes: 0,
            acked_bytes: 0,
            handed_bytes: 0,
            drained_bytes: 0,
            drained_chunk_bytes: 0,
            claimed_bytes: 0,
            held_up: false,
            drained_at: now,
            stalled_at: None,
            quiet: false,
            shed_at: None,
            sent_at: now,
            kept_at: now,
            alive_at: None,
            audience: None,
            queued: 0,
        }
    }

    /// Stripes that are being sent.
    pub(crate) fn flowing(&self) -> StripeSet {
        let mut set = StripeSet::EMPTY;
        (0..STRIPES_MAX)
            .zip(&self.cursors)
            .filter(|(_, cursor)| cursor.is_some())
            .for_each(|(stripe, _)| set.insert(stripe));
        set
    }

    pub(crate) const fn unacked(&self) -> u64 {
        self.sent_bytes - self.acked_bytes
    }

    /// When it will be quiet, or stalled, unless it acknowledges something.
    pub(crate) fn doubtful_at(&self, config: &RelayConfig) -> Timestamp {
        if self.unacked() == 0 || self.stalled_at.is_some() {
            return Timestamp::NEVER;
        }
        self.drained_at + if self.quiet { config.stall_after } else { config.quiet_after }
    }

    /// Bytes that wait in the driver; 0 if the driver never says what it handed on.
    pub(crate) const fn queued_bytes(&self) -> u64 {
        if self.drained_bytes == 0 {
            return 0;
        }
        self.handed_bytes.saturating_sub(self.drained_bytes)
    }

    /// Takes an ACK, or the driver's word, into account; by how much fewer bytes are
    /// unacknowledged now.
    ///
    /// A child cannot have read what still waits in the driver: one that says so would let any amount
    /// pile up there. What it claims counts once it was handed on.
    pub(crate) fn settle_acks(&mut self, now: Timestamp) -> u64 {
        let read = match self.drained_bytes {
            0 => self.claimed_bytes,
            _ => self.claimed_bytes.min(self.drained_chunk_bytes),
        };
        let acked = read.saturating_sub(self.acked_bytes);
        if acked == 0 {
            return 0;
        }
        self.acked_bytes = read;
        self.drained_at = now;
        self.stalled_at = None;
        if std::mem::take(&mut self.quiet) {
            // That it lives is news.
            self.alive_at = None;
        }
        acked
    }

    /// Bytes that may be unacknowledged: 250 ms of what it is granted, more on a long path, whose
    /// ACKs take their time.
    pub(crate) fn window(&self, rate: Bitrate, k: u8) -> u64 {
        let rtt = self.rtt.mean().unwrap_or_default();
        let time = (rtt * 3 / 2 + Duration::from_millis(150))
            .clamp(Duration::from_millis(250), Duration::from_secs(2));
        let granted = rate.bytes_in(time) * u64::from(self.live.len()) / u64::from(k.max(1));
        granted.max(WINDOW_MIN as u64)
    }

    /// Whether nothing of what it was granted is still to come.
    pub(crate) fn has_all<P2: Payload>(&self, ring: &Ring<P2>) -> bool {
        let flowing = (0..STRIPES_MAX).zip(&self.cursors);
        let mut flowing = flowing.filter_map(|(stripe, cursor)| Some((stripe, (*cursor)?)));
        self.unacked() == 0
            && self.wants.is_empty()
            && self.asks.is_empty()
            && flowing.all(|(stripe, at)| ring.stripe_end(stripe).is_none_or(|end| at.next >= end))
    }

    /// The stripe flows no more; what it wanted of it is forgotten too.
    pub(crate) fn stop(&mut self, stripe: Stripe) {
        if let Some(cursor) = self.cursors.get_mut(usize::from(stripe)) {
            *cursor = None;
        }
        self.ready.remove(stripe);
        self.asks.remove(&stripe);
        self.wants.remove(&stripe);
    }

    /// Remembers that the child is to get these once they can be had; how many ranges did not fit.
    pub(crate) fn want(&mut self, stripe: Stripe, from: u64, to: u64) -> u64 {
        let wants = self.wants.entry(stripe).or_insert_with(|| RangeSet::new(RANGES_MAX));
        let room = WANTED_MAX.saturating_sub(wants.count());
        if room == 0 {
            return 1;
        }
        let last = to.min(from.saturating_add(room - 1));
        u64::from(!wants.insert(from, last)) + u64::from(last < to)
    }

    /// Whether a chunk that just came is for this child, and how.
    pub(crate) fn notice(&mut self, stripe: Stripe, stripe_seq: u64) -> Option<Class> {
        match self.cursors[usize::from(stripe)] {
            Some(cursor) if stripe_seq >= cursor.next => {
                self.ready.insert(stripe);
                Some(Class::Live)
            }
            Some(_) | None => self
                .wants
                .get(&stripe)
                .is_some_and(|wants| wants.contains(stripe_seq))
                .then_some(Class::Repair),
        }
    }

    /// Marks the child as queued in a class; false when it was already.
    pub(crate) const fn enter(&mut self, class: Class) -> bool {
        let fresh = self.queued & bit(class) == 0;
        self.queued |= bit(class);
        fresh
    }

    /// The child's turn in a class came.
    pub(crate) const fn leave(&mut self, class: Class) {
        self.queued &= !bit(class);
    }
}

const fn bit(class: Class) -> u8 {
    match class {
        Class::Control => 1,
        Class::Live => 2,
        Class::Repair => 4,
    }
}
