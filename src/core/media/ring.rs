//! The ring: the newest verified chunks of one stream's epoch, framed for the wire.
//!
//! Owns which chunks are held, their index by stripe and by keyframe, and when they are dropped.
//! Does not own who reads them: children and sinks are cursors elsewhere.
//!
//! **Every held chunk can be found by `seq` and by (`stripe`, `stripe_seq`); below `floor` nothing
//! is held or accepted.**

use std::{collections::VecDeque, time::Duration};

use super::{
    chunk::{ChunkFlags, Payload},
    relay::{RING_BYTES_MAX, RING_CHUNKS_MAX},
};
use crate::{
    ids::{STRIPES_MAX, Stripe},
    time::Timestamp,
};

/// A place in a stripe's index whose chunk is not held.
const MISSING: u64 = u64::MAX;

/// A chunk and when it came.
#[derive(Clone, Debug)]
pub(crate) struct Held<P> {
    pub(crate) chunk: P,
    pub(crate) at: Timestamp,
}

/// What became of a chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Insert {
    /// It is held; it was not before.
    New,
    /// It was held already.
    Duplicate,
    /// It is below the floor.
    TooOld,
    /// Its place in the stripe is another chunk's.
    Contradiction,
}

/// Where a stripe can be read from: the first `stripe_seq`, and a `seq` that no chunk from there on
/// is below.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct StripePoint {
    pub(crate) stripe_seq: u64,
    pub(crate) seq: u64,
}

#[derive(Clone, Debug, Default)]
struct StripeIndex {
    base: u64,
    seqs: VecDeque<u64>,
    floor: StripePoint,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Ring<P> {
    floor: u64,
    base: u64,
    slots: VecDeque<Option<Held<P>>>,
    stripes: Vec<StripeIndex>,
    keyframes: VecDeque<u64>,
    chunks: usize,
    bytes: usize,
    newest_ms: u64,
    evicted: u64,
    overrun: u64,
}

impl<P: Payload> Ring<P> {
    pub(crate) fn new() -> Self {
        Self {
            floor: 0,
            base: 0,
            slots: VecDeque::new(),
            stripes: vec![StripeIndex::default(); usize::from(STRIPES_MAX)],
            keyframes: VecDeque::new(),
            chunks: 0,
            bytes: 0,
            newest_ms: 0,
            evicted: 0,
            overrun: 0,
        }
    }

    /// Takes a chunk in, whose numbers and stripe the caller found plausible.
    pub(crate) fn insert(&mut self, chunk: P, now: Timestamp) -> Insert {
        let header = *chunk.header();
        if header.seq < self.floor {
            return Insert::TooOld;
        }
        if self.get(header.seq).is_some() {
            return Insert::Duplicate;
        }
        match self.index_place(header.stripe, header.stripe_seq) {
            Ok(()) => {}
            Err(refused) => return refused,
        }
        let Some(place) = self.make_place(header.seq) else { return Insert::TooOld };
        // Making room may have dropped this very place, if the source numbers against its order.
        let index = &mut self.stripes[usize::from(header.stripe)];
        let at = header.stripe_seq.checked_sub(index.base).and_then(|at| usize::try_from(at).ok());
        let Some(entry) = at.and_then(|at| index.seqs.get_mut(at)) else {
            return Insert::Contradiction;
        };
        *entry = header.seq;
        self.bytes += chunk.wire_len();
        self.chunks += 1;
        self.newest_ms = self.newest_ms.max(header.time_ms);
        self.slots[place] = Some(Held { chunk, at: now });
        if header.flags.contains(ChunkFlags::KEYFRAME) {
            let at = self.keyframes.partition_point(|&seq| seq < header.seq);
            self.keyframes.insert(at, header.seq);
        }
        Insert::New
    }

    /// Drops what is older than `window` and below `pin`, but keeps the newest keyframe and all
    /// behind it; and, whatever is pinned, what exceeds the byte limit.
    pub(crate) fn evict(&mut self, window: Duration, pin: u64) {
        let window_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
        let keep_from = pin.min(self.keyframes.back().copied().unwrap_or(u64::MAX));
        loop {
            let Some(skip) = self.slots.iter().position(Option::is_some) else { return };
            let seq = self.base + skip as u64;
            let time_ms = self.slots[skip].as_ref().map_or(0, |held| held.chunk.header().time_ms);
            let full = self.bytes > RING_BYTES_MAX;
            let old = self.newest_ms.saturating_sub(time_ms) > window_ms && seq < keep_from;
            if !full && !old {
                return;
            }
            if full && !old {
                self.overrun += 1;
            }
            self.drop_below(seq + 1);
        }
    }

    pub(crate) fn get(&self, seq: u64) -> Option<&Held<P>> {
        let place = usize::try_from(seq.checked_sub(self.base)?).ok()?;
        self.slots.get(place)?.as_ref()
    }

    /// The `seq` of a stripe's chunk, if it is held.
    pub(crate) fn seq_of(&self, stripe: Stripe, stripe_seq: u64) -> Option<u64> {
        let index = &self.stripes[usize::from(stripe)];
        let place = usize::try_from(stripe_seq.checked_sub(index.base)?).ok()?;
        index.seqs.get(place).copied().filter(|&seq| seq != MISSING)
    }

    /// Below this nothing is held or accepted.
    pub(crate) const fn floor(&self) -> u64 {
        self.floor
    }

    /// From where on chunks of a stripe may be held: all below were dropped.
    pub(crate) fn stripe_floor(&self, stripe: Stripe) -> StripePoint {
        self.stripes[usize::from(stripe)].floor
    }

    /// One past the highest `stripe_seq` that was ever held; `None` before the first.
    pub(crate) fn stripe_end(&self, stripe: Stripe) -> Option<u64> {
        let index = &self.stripes[usize::from(stripe)];
        let end = index.base + index.seqs.len() as u64;
        (end > 0).then_some(end)
    }

    /// The newest held chunk of a stripe: (`stripe_seq`, chunk).
    pub(crate) fn stripe_head(&self, stripe: Stripe) -> Option<(u64, &Held<P>)> {
        let end = self.stripe_end(stripe)?;
        let seq = self.seq_of(stripe, end - 1)?;
        Some((end - 1, self.get(seq)?))
    }

    /// The highest held `stripe_seq` below `end` with its `seq`, and below `seq_end` by `seq`.
    pub(crate) fn last_held(&self, stripe: Stripe, end: u64, seq_end: u64) -> Option<StripePoint> {
        let index = &self.stripes[usize::from(stripe)];
        let upto = usize::try_from(end.checked_sub(index.base)?).ok()?.min(index.seqs.len());
        let place = index.seqs.range(..upto).rposition(|&seq| seq != MISSING && seq < seq_end)?;
        Some(StripePoint { stripe_seq: index.base + place as u64, seq: index.seqs[place] })
    }

    /// One past the highest `seq` ever held; `None` before the first chunk.
    pub(crate) fn end(&self) -> Option<u64> {
        let end = self.base + self.slots.len() as u64;
        (end > 0).then_some(end)
    }

    /// The first held chunk from `seq` on.
    pub(crate) fn next_held(&self, seq: u64) -> Option<u64> {
        let from = seq.max(self.base);
        let skip = usize::try_from(from - self.base).ok()?;
        if skip >= self.slots.len() {
            return None;
        }
        self.slots.range(skip..).position(Option::is_some).map(|at| from + at as u64)
    }

    /// Held keyframes, oldest first.
    pub(crate) const fn keyframes(&self) -> &VecDeque<u64> {
        &self.keyframes
    }

    /// The lowest init version that a held chunk names.
    pub(crate) fn oldest_init(&self) -> Option<u16> {
        let seq = self.next_held(self.base)?;
        self.get(seq).map(|held| held.chunk.header().init_version)
    }

    /// The highest media time of all chunks ever held.
    pub(crate) const fn newest_ms(&self) -> u64 {
        self.newest_ms
    }

    pub(crate) const fn chunks(&self) -> usize {
        self.chunks
    }

    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) const fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Chunks that were dropped for the byte limit while they were needed.
    pub(crate) const fn overrun(&self) -> u64 {
        self.overrun
    }

    /// Makes sure that a stripe's index has a free place for `stripe_seq`.
    fn index_place(&mut self, stripe: Stripe, stripe_seq: u64) -> Result<(), Insert> {
        let index = &mut self.stripes[usize::from(stripe)];
        if stripe_seq < index.floor.stripe_seq {
            return Err(Insert::TooOld);
        }
        if index.seqs.is_empty() {
            index.base = stripe_seq;
        }
        if stripe_seq < index.base {
            let more = index.base - stripe_seq;
            if more + index.seqs.len() as u64 > RING_CHUNKS_MAX as u64 {
                return Err(Insert::TooOld);
            }
            for _ in 0..more {
                index.seqs.push_front(MISSING);
            }
            index.base = stripe_seq;
        }
        let place = stripe_seq - index.base;
        if place >= 2 * RING_CHUNKS_MAX as u64 {
            // Only a source that lies about its numbers gets here; the stripe starts over.
            index.seqs.clear();
            index.base = stripe_seq;
            index.floor.stripe_seq = stripe_seq;
        }
        let place = usize::try_from(stripe_seq - index.base).expect("bounded above");
        while index.seqs.len() <= place {
            index.seqs.push_back(MISSING);
        }
        if index.seqs[place] == MISSING { Ok(()) } else { Err(Insert::Contradiction) }
    }

    /// The slot of `seq`, which is not below the floor; `None` if it is too far below the others.
    fn make_place(&mut self, seq: u64) -> Option<usize> {
        if self.slots.is_empty() {
            self.base = seq;
        }
        if seq < self.base {
            let more = self.base - seq;
            if more + self.slots.len() as u64 > RING_CHUNKS_MAX as u64 {
                return None;
            }
            for _ in 0..more {
                self.slots.push_front(None);
            }
            self.base = seq;
        }
        if seq - self.base >= RING_CHUNKS_MAX as u64 {
            self.overrun += 1;
            self.drop_below(seq - RING_CHUNKS_MAX as u64 + 1);
            if self.slots.is_empty() {
                self.base = seq;
            }
        }
        let place = usize::try_from(seq - self.base).ok()?;
        while self.slots.len() <= place {
            self.slots.push_back(None);
        }
        Some(place)
    }

    fn drop_below(&mut self, seq: u64) {
        self.floor = self.floor.max(seq);
        while self.base < seq {
            let Some(slot) = self.slots.pop_front() else { break };
            let gone = self.base;
            self.base += 1;
            let Some(held) = slot else { continue };
            let header = *held.chunk.header();
            self.bytes -= held.chunk.wire_len();
            self.chunks -= 1;
            self.evicted += 1;
            if self.keyframes.front() == Some(&gone) {
                self.keyframes.pop_front();
            }
            let index = &mut self.stripes[usize::from(header.stripe)];
            while index.base <= header.stripe_seq && index.seqs.pop_front().is_some() {
                index.base += 1;
            }
            index.floor = StripePoint { stripe_seq: header.stripe_seq + 1, seq: gone + 1 };
        }
    }
}
