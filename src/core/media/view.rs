//! What a local reader can see of a stream.
//!
//! Owns the questions that reassembly asks of the ring. Does not own a reader's place in it (see
//! `media::sink`).

use std::{collections::BTreeMap, time::Duration};

use super::{
    chunk::{ChunkFlags, Payload},
    init::SignedInit,
    relay::{Anchor, MissCause},
    ring::Ring,
    stripe::Incoming,
};
use crate::time::Timestamp;

/// What a sink reads from.
pub(crate) struct View<'a, P> {
    pub(crate) ring: &'a Ring<P>,
    pub(crate) inits: &'a BTreeMap<u16, SignedInit>,
    /// From where on every stripe is complete; `None` while one is not.
    pub(crate) base: Option<u64>,
    /// Every chunk below is held, or will never come.
    pub(crate) settled: u64,
    /// The stripes of the stream.
    pub(crate) stripes: &'a [Incoming],
    pub(crate) anchor: &'a Anchor,
    pub(crate) paused: bool,
    /// A missing chunk that nobody gives up is skipped after this.
    pub(crate) give_up: Duration,
}

impl<P: Payload> View<'_, P> {
    /// When a held chunk is due at a reader `lag` behind the source.
    pub(crate) fn due(&self, seq: u64, lag: Duration) -> Timestamp {
        let time_ms = self.ring.get(seq).map(|held| held.chunk.header().time_ms);
        time_ms.map_or(Timestamp::NEVER, |time_ms| self.anchor.due(time_ms, lag))
    }

    /// Why a chunk is not here. Its stripe is one of those that have not passed it; the worst off of
    /// them is to blame.
    pub(crate) fn blame(&self, seq: u64) -> MissCause {
        let mut waiting = self.stripes.iter().filter(|stripe| stripe.passed() <= seq).peekable();
        if waiting.peek().is_none() {
            return MissCause::Gone;
        }
        let waiting: Vec<&Incoming> = waiting.collect();
        if waiting.iter().any(|stripe| stripe.parent.is_none()) {
            MissCause::Orphan
        } else if waiting.iter().any(|stripe| !stripe.gaps().is_empty()) {
            MissCause::LateRepair
        } else {
            MissCause::Upstream
        }
    }

    /// Whether the init segment that a held chunk names is here.
    pub(crate) fn has_init(&self, seq: u64) -> bool {
        let held = self.ring.get(seq);
        held.is_some_and(|held| self.inits.contains_key(&held.chunk.header().init_version))
    }

    /// Whether a frame starts at `seq` and all of it is here.
    pub(crate) fn is_whole(&self, seq: u64) -> bool {
        self.ring.get(seq).is_some_and(|held| {
            let header = held.chunk.header();
            let mut rest = seq + 1..seq + u64::from(header.fragments);
            header.fragment == 0 && rest.all(|seq| self.ring.get(seq).is_some())
        })
    }

    /// Where a reader that wants everything goes on behind a loss: the first chunk from `seq` on
    /// that starts a frame or that may still come.
    pub(crate) fn next_frame(&self, seq: u64) -> u64 {
        let end = self.ring.end().unwrap_or(0);
        let mut seq = seq.max(self.ring.floor());
        while seq < end {
            match self.ring.get(seq) {
                Some(held) if held.chunk.header().fragment == 0 => break,
                None if seq >= self.settled => break,
                Some(_) | None => seq += 1,
            }
        }
        seq
    }

    /// The first keyframe from `base` on; `None` while an earlier one may still come.
    pub(crate) fn first_keyframe(&self, base: u64) -> Option<u64> {
        let mut at = base.max(self.ring.floor());
        let end = self.ring.end()?;
        while at < end {
            match self.ring.get(at) {
                Some(held) if held.chunk.header().flags.contains(ChunkFlags::KEYFRAME) => {
                    return Some(at);
                }
                None if at >= self.settled => return None,
                Some(_) | None => {}
            }
            at += 1;
        }
        None
    }
}
