//! One stripe as it comes in: where it started, what is missing, whose turn it is.
//!
//! Owns the frontier of a stripe and its gaps. Does not own the chunks (see `media::ring`), nor who
//! is asked for a gap (see the relay).
//!
//! **Every `stripe_seq` from `start` up to `end` is held, in a gap, or given up. Every chunk of the
//! stripe with a `seq` below `passed` is held or given up.**

use super::{
    chunk::Payload,
    relay::HOLES_MAX,
    ring::{Ring, StripePoint},
};
use crate::{
    ids::{NodeId, Stripe},
    time::Timestamp,
};

/// Chunks that are missing before others that came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Gap {
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// When it was first seen.
    pub(crate) since: Timestamp,
    /// When a chunk of it last came: whoever owes it is at it.
    pub(crate) filled_at: Timestamp,
    /// When somebody was last asked for it.
    pub(crate) asked_at: Option<Timestamp>,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Incoming {
    stripe: Stripe,
    /// The parent that the stripe is promoted at.
    pub(crate) parent: Option<NodeId>,
    /// From where on the stripe is complete here; `None` before a parent's START.
    pub(crate) start: Option<StripePoint>,
    /// Hops between the source and the parent.
    pub(crate) depth: Option<u8>,
    end: u64,
    gaps: Vec<Gap>,
    passed: u64,
}

impl Incoming {
    pub(crate) const fn new(stripe: Stripe) -> Self {
        Self { stripe, parent: None, start: None, depth: None, end: 0, gaps: Vec::new(), passed: 0 }
    }

    /// Forgets the epoch, not the parent.
    pub(crate) fn restart(&mut self) {
        let (stripe, parent) = (self.stripe, self.parent);
        *self = Self { parent, ..Self::new(stripe) };
    }

    /// The stripe is complete from `start` on. What was held already counts.
    pub(crate) fn begin<P: Payload>(&mut self, start: StripePoint, ring: &Ring<P>, now: Timestamp) {
        if self.start.is_some_and(|old| old.stripe_seq <= start.stripe_seq) {
            return;
        }
        self.start = Some(start);
        self.gaps.clear();
        let end = ring.stripe_end(self.stripe).unwrap_or(0).max(start.stripe_seq);
        let mut at = start.stripe_seq;
        while at < end && self.gaps.len() < HOLES_MAX {
            let from = at;
            while at < end && ring.seq_of(self.stripe, at).is_none() {
                at += 1;
            }
            if at > from {
                self.gaps.push(Gap {
                    from,
                    to: at - 1,
                    since: now,
                    filled_at: now,
                    asked_at: None,
                });
            }
            while at < end && ring.seq_of(self.stripe, at).is_some() {
                at += 1;
            }
        }
        self.end = end;
        self.passed = start.seq;
        self.pass(ring);
    }

    /// A chunk came in. Gives back how many chunks had to be given up for the bound on gaps.
    pub(crate) fn take<P: Payload>(
        &mut self,
        stripe_seq: u64,
        seq: u64,
        ring: &Ring<P>,
        now: Timestamp,
    ) -> Taken {
        if self.start.is_none_or(|start| stripe_seq < start.stripe_seq) {
            return Taken::default();
        }
        if stripe_seq == self.end {
            self.end += 1;
            if self.gaps.is_empty() {
                self.passed = self.passed.max(seq + 1);
            }
            return Taken::default();
        }
        if stripe_seq > self.end {
            let (from, to) = (self.end, stripe_seq - 1);
            let gap = Gap { from, to, since: now, filled_at: now, asked_at: None };
            self.gaps.push(gap);
            self.end = stripe_seq + 1;
            let given_up = if self.gaps.len() > HOLES_MAX {
                let gap = self.gaps.remove(0);
                self.pass(ring);
                gap.to - gap.from + 1
            } else {
                0
            };
            return Taken { new_gap: true, given_up };
        }
        if self.fill(stripe_seq, Some(now)) {
            self.pass(ring);
        }
        Taken::default()
    }

    /// Takes one number out of the gaps: it came, or it will never be accepted.
    pub(crate) fn resolve<P: Payload>(&mut self, stripe_seq: u64, ring: &Ring<P>) {
        if self.fill(stripe_seq, None) {
            self.pass(ring);
        }
    }

    /// Gives up the gaps that `judge` says so of; true when there was one. Gaps that the ring has
    /// left behind go too.
    pub(crate) fn give_up<P: Payload>(
        &mut self,
        ring: &Ring<P>,
        mut judge: impl FnMut(&Gap) -> bool,
    ) -> u64 {
        let floor = ring.stripe_floor(self.stripe).stripe_seq;
        let mut given_up = 0;
        self.gaps.retain(|gap| {
            let gone = gap.to < floor || judge(gap);
            if gone {
                given_up += gap.to - gap.from + 1;
            }
            !gone
        });
        if given_up > 0 {
            self.pass(ring);
        }
        given_up
    }

    /// What is missing, oldest first.
    pub(crate) fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    pub(crate) fn gaps_mut(&mut self) -> &mut [Gap] {
        &mut self.gaps
    }

    /// One past the highest `stripe_seq` that was ever held since the start.
    pub(crate) const fn end(&self) -> u64 {
        self.end
    }

    /// See the module's invariant.
    pub(crate) const fn passed(&self) -> u64 {
        self.passed
    }

    /// Whether a number may still come: it is ahead, or in a gap.
    pub(crate) fn is_awaited(&self, stripe_seq: u64) -> bool {
        self.start.is_none()
            || stripe_seq >= self.end
            || self.gaps.iter().any(|gap| gap.from <= stripe_seq && stripe_seq <= gap.to)
    }

    fn fill(&mut self, stripe_seq: u64, came_at: Option<Timestamp>) -> bool {
        let at = self.gaps.partition_point(|gap| gap.to < stripe_seq);
        let Some(gap) = self.gaps.get(at).copied().filter(|gap| gap.from <= stripe_seq) else {
            return false;
        };
        let gap = Gap { filled_at: came_at.unwrap_or(gap.filled_at), ..gap };
        self.gaps[at] = gap;
        match (gap.from == stripe_seq, gap.to == stripe_seq) {
            (true, true) => {
                self.gaps.remove(at);
            }
            (true, false) => self.gaps[at].from += 1,
            (false, true) => self.gaps[at].to -= 1,
            (false, false) => {
                self.gaps[at].to = stripe_seq - 1;
                self.gaps.insert(at + 1, Gap { from: stripe_seq + 1, ..gap });
            }
        }
        true
    }

    /// Moves `passed` up to the first gap.
    fn pass<P: Payload>(&mut self, ring: &Ring<P>) {
        let next = self.gaps.first().map_or(self.end, |gap| gap.from);
        if let Some(last) = ring.last_held(self.stripe, next, u64::MAX) {
            self.passed = self.passed.max(last.seq + 1);
        }
    }
}

/// What a chunk did to its stripe.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Taken {
    /// It left a gap behind.
    pub(crate) new_gap: bool,
    /// Chunks given up because there were too many gaps.
    pub(crate) given_up: u64,
}
