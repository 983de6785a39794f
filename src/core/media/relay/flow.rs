//! The media of one stream's epoch at this node: what every feed and sink reads from.
//!
//! Owns ring, stripes, init versions and the local time of the source's clock. Does not own feeds or
//! sinks (see `stream`).

use std::{collections::BTreeMap, time::Duration};

use super::{
    anchor::Anchor,
    config::{INITS_MAX, RelayConfig, SEQ_AHEAD_MAX, SEQ_MAX},
    input::{FeedOffence, StreamRole},
};
use crate::{
    ids::{STRIPES_MAX, Stripe},
    media::{
        cert::{EpochCert, SignedCert},
        chunk::{ChunkFlags, ChunkHeader, Payload},
        init::SignedInit,
        ring::{Insert, Ring, StripePoint},
        stripe::{Incoming, Taken},
        view::View,
    },
    time::Timestamp,
    units::Bitrate,
};

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Flow<P> {
    pub(crate) role: StreamRole,
    pub(crate) cert: Option<SignedCert>,
    /// Another epoch was here before this one.
    pub(crate) restarted: bool,
    pub(crate) inits: BTreeMap<u16, SignedInit>,
    pub(crate) ring: Ring<P>,
    pub(crate) stripes: Vec<Incoming>,
    pub(crate) anchor: Anchor,
    pub(crate) paused: bool,
    /// The last chunk, once it came.
    pub(crate) end_seq: Option<u64>,
}

/// What became of a chunk, for the one who brought it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Arrival {
    New(Taken),
    Duplicate,
    OtherEpoch,
    Offence(FeedOffence),
}

impl<P: Payload> Flow<P> {
    pub(crate) fn new(role: StreamRole) -> Self {
        Self {
            role,
            cert: None,
            restarted: false,
            inits: BTreeMap::new(),
            ring: Ring::new(),
            stripes: (0..STRIPES_MAX).map(Incoming::new).collect(),
            anchor: Anchor::default(),
            paused: false,
            end_seq: None,
        }
    }

    /// Starts over under a new certificate; who the parents are stays.
    pub(crate) fn restart(&mut self, cert: SignedCert, now: Timestamp) {
        self.restarted = self.cert.is_some();
        self.cert = Some(cert);
        self.ring = Ring::new();
        self.inits.clear();
        self.anchor = Anchor::default();
        self.paused = false;
        self.end_seq = None;
        for stripe in &mut self.stripes {
            stripe.restart();
            if self.role == StreamRole::Source {
                stripe.begin(StripePoint::default(), &self.ring, now);
            }
        }
    }

    /// Takes a verified chunk in.
    pub(crate) fn take(&mut self, chunk: P, now: Timestamp) -> Arrival {
        let header = *chunk.header();
        if let Some(refused) = self.refuses(&header) {
            return refused;
        }
        let stripe = &mut self.stripes[usize::from(header.stripe)];
        match self.ring.insert(chunk, now) {
            Insert::New => {}
            Insert::Duplicate => return Arrival::Duplicate,
            Insert::TooOld => {
                // It can't be held any more, so nobody may wait for it.
                stripe.resolve(header.stripe_seq, &self.ring);
                return Arrival::Duplicate;
            }
            Insert::Contradiction => return Arrival::Offence(FeedOffence::Contradiction),
        }
        if header.flags.contains(ChunkFlags::END) {
            self.end_seq = Some(header.seq);
        }
        if header.flags.contains(ChunkFlags::DISCONTINUITY) {
            self.anchor.restart_at(header.seq);
        }
        self.anchor.observe_arrival(header.seq, header.time_ms, now);
        Arrival::New(stripe.take(header.stripe_seq, header.seq, &self.ring, now))
    }

    /// Remembers an init segment of this epoch; false if it is known or too old.
    pub(crate) fn learn_init(&mut self, init: &SignedInit) -> bool {
        let version = init.init.version;
        if self.inits.contains_key(&version) {
            return false;
        }
        if self.inits.len() >= INITS_MAX {
            let Some(oldest) = self.inits.keys().next().copied() else { return false };
            if version < oldest {
                return false;
            }
            self.inits.remove(&oldest);
        }
        self.inits.insert(version, init.clone());
        true
    }

    /// Drops what nobody needs: chunks older than `window` and below `pin`, and init versions that
    /// no held chunk names, beside the newest.
    pub(crate) fn evict(&mut self, window: Duration, pin: u64) {
        let before = self.ring.floor();
        self.ring.evict(window, pin);
        if self.ring.floor() != before
            && self.inits.len() > 1
            && let Some(oldest) = self.ring.oldest_init()
        {
            let newest = self.inits.keys().next_back().copied();
            self.inits.retain(|version, _| *version >= oldest || Some(*version) == newest);
        }
    }

    pub(crate) fn epoch(&self) -> Option<u64> {
        self.cert().map(|cert| cert.epoch)
    }

    /// Number of stripes; 0 before the first certificate.
    pub(crate) fn k(&self) -> u8 {
        self.cert().map_or(0, |cert| cert.k.min(STRIPES_MAX))
    }

    pub(crate) fn rate(&self) -> Bitrate {
        self.cert().map_or(Bitrate::ZERO, |cert| cert.rate)
    }

    /// From where on every stripe is complete; `None` while one has not started.
    pub(crate) fn base(&self) -> Option<u64> {
        let used = self.stripes.get(..usize::from(self.k())).filter(|used| !used.is_empty())?;
        used.iter()
            .map(|stripe| stripe.start.map(|start| start.seq))
            .try_fold(0, |base, start| start.map(|start| start.max(base)))
    }

    /// Where a stripe can be read from here, once it started.
    pub(crate) fn first_point(&self, stripe: Stripe) -> Option<StripePoint> {
        let start = self.stripes[usize::from(stripe)].start?;
        Some(start.max(self.ring.stripe_floor(stripe)))
    }

    /// The newest keyframe from `seq` on that a player could start at.
    pub(crate) fn newest_keyframe(&self, seq: u64) -> Option<u64> {
        let known = |at: &u64| {
            let version = self.ring.get(*at).map(|held| held.chunk.header().init_version);
            *at >= seq && version.is_some_and(|version| self.inits.contains_key(&version))
        };
        self.ring.keyframes().iter().rev().copied().find(known)
    }

    /// Media time until the next keyframe, if they go on as before.
    pub(crate) fn next_keyframe_in(&self) -> Duration {
        let time_of = |seq: &u64| self.ring.get(*seq).map(|held| held.chunk.header().time_ms);
        let mut times = self.ring.keyframes().iter().rev().filter_map(time_of);
        let Some(last) = times.next() else { return KEYFRAMES_APART };
        let apart = times
            .next()
            .map_or(KEYFRAMES_APART, |before| Duration::from_millis(last.saturating_sub(before)));
        let since = Duration::from_millis(self.ring.newest_ms().saturating_sub(last));
        apart.saturating_sub(since)
    }

    /// Age of a stripe's newest chunk in milliseconds.
    pub(crate) fn head_age_ms(&self, stripe: Stripe, now: Timestamp) -> u32 {
        let age = match (self.role, self.ring.stripe_head(stripe)) {
            (_, None) => Duration::ZERO,
            (StreamRole::Source, Some((_, held))) => now.since(held.at),
            (StreamRole::Member, Some((_, held))) => {
                self.anchor.age(held.chunk.header().time_ms, now)
            }
        };
        u32::try_from(age.as_millis()).unwrap_or(u32::MAX)
    }

    /// This node's own distance from the source in a stripe; 255 = unknown.
    pub(crate) fn depth(&self, stripe: Stripe) -> u8 {
        match self.role {
            StreamRole::Source => 0,
            StreamRole::Member => {
                let parent = self.stripes[usize::from(stripe)].depth;
                parent.map_or(u8::MAX, |depth| depth.saturating_add(1))
            }
        }
    }

    /// What a sink reads from.
    pub(crate) fn view(&self, config: &RelayConfig) -> View<'_, P> {
        let stripes = self.stripes.get(..usize::from(self.k())).unwrap_or_default();
        View {
            ring: &self.ring,
            inits: &self.inits,
            base: self.base(),
            settled: stripes.iter().map(Incoming::passed).min().unwrap_or(0),
            stripes,
            anchor: &self.anchor,
            paused: self.paused,
            give_up: config.gap_give_up,
        }
    }

    /// Why a chunk isn't taken, judged by its header alone.
    fn refuses(&self, header: &ChunkHeader) -> Option<Arrival> {
        if self.epoch() != Some(header.epoch) {
            return Some(Arrival::OtherEpoch);
        }
        if header.stripe >= self.k() {
            return Some(Arrival::Offence(FeedOffence::Stripe));
        }
        let far = |number: u64, end: Option<u64>| {
            number >= SEQ_MAX || end.is_some_and(|end| number > end + SEQ_AHEAD_MAX)
        };
        let stripe_end = self.ring.stripe_end(header.stripe);
        if far(header.seq, self.ring.end()) || far(header.stripe_seq, stripe_end) {
            return Some(Arrival::Offence(FeedOffence::Range));
        }
        None
    }

    fn cert(&self) -> Option<&EpochCert> {
        self.cert.as_ref().map(|signed| &signed.cert)
    }
}

/// Between two keyframes while only one was seen: what encoders for live streams are told to do.
const KEYFRAMES_APART: Duration = Duration::from_secs(2);
