//! The node's send scheduler: whose turn it is, and whether the uplink lets a chunk pass.
//!
//! Owns the [`Pacer`] (a token bucket) and [`Turns`] (round robin, live strictly before repair).
//! Does not own what a child is sent in its turn (see the relay).

use std::{collections::VecDeque, time::Duration};

use crate::{
    ids::{NodeId, StreamId},
    time::{Timestamp, micros},
    units::Bitrate,
};

/// Tokens are millionths of a byte, so that a slow rate loses nothing to rounding.
const SCALE: i64 = 1_000_000;

/// Hard ceiling on what leaves the node.
///
/// It fills at 95 % of the ceiling and holds at most the other 5 % of a second: **in any window of
/// one second at most the ceiling passes** (and one chunk, where a chunk is larger than 5 % of a
/// second).
#[derive(Clone, Debug)]
pub(crate) struct Pacer {
    ceiling: Option<Bitrate>,
    tokens: i64,
    at: Timestamp,
}

impl Pacer {
    pub(crate) const fn new(now: Timestamp) -> Self {
        Self { ceiling: None, tokens: 0, at: now }
    }

    /// Sets or lifts the ceiling, at once.
    pub(crate) fn set_ceiling(&mut self, ceiling: Option<Bitrate>, now: Timestamp) {
        self.refill(now);
        self.ceiling = ceiling;
        self.tokens = self.tokens.min(self.depth());
    }

    pub(crate) const fn ceiling(&self) -> Option<Bitrate> {
        self.ceiling
    }

    /// Whether `bytes` may leave.
    pub(crate) fn allows(&mut self, bytes: usize, now: Timestamp) -> bool {
        if self.ceiling.is_none() {
            return true;
        }
        self.refill(now);
        self.tokens >= self.needed(bytes) && self.depth() > 0
    }

    /// `bytes` left, whether allowed (chunks) or not asked for (control).
    pub(crate) fn spend(&mut self, bytes: usize, now: Timestamp) {
        if self.ceiling.is_some() {
            self.refill(now);
            self.tokens = self.tokens.saturating_sub(scaled(bytes));
        }
    }

    /// When `bytes` may leave, if nothing else does before.
    pub(crate) fn ready_at(&self, bytes: usize) -> Timestamp {
        let rate = self.rate();
        if self.ceiling.is_none() {
            return self.at;
        }
        if rate == 0 {
            return Timestamp::NEVER;
        }
        let short = self.needed(bytes).saturating_sub(self.tokens).max(0);
        // Tokens per microsecond are the rate in bytes per second.
        let wait = u64::try_from(short / rate).unwrap_or(0).saturating_add(1);
        self.at + Duration::from_micros(wait)
    }

    /// A chunk larger than the bucket passes when the bucket is full, and leaves a debt.
    fn needed(&self, bytes: usize) -> i64 {
        scaled(bytes).min(self.depth())
    }

    fn depth(&self) -> i64 {
        let bps = self.ceiling.map_or(0, Bitrate::as_bps);
        i64::try_from(bps / 8 / 20).unwrap_or(i64::MAX / SCALE).saturating_mul(SCALE)
    }

    /// Bytes a second that it fills with.
    fn rate(&self) -> i64 {
        let bps = self.ceiling.map_or(0, Bitrate::as_bps);
        i64::try_from(bps / 8 / 20 * 19).unwrap_or(i64::MAX / SCALE)
    }

    fn refill(&mut self, now: Timestamp) {
        let elapsed = i64::try_from(micros(now.since(self.at))).unwrap_or(i64::MAX);
        let more = elapsed.saturating_mul(self.rate());
        self.tokens = self.tokens.saturating_add(more).min(self.depth());
        self.at = self.at.max(now);
    }
}

fn scaled(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX / SCALE).saturating_mul(SCALE)
}

/// A child in the turns: its stream and its place there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Turn {
    pub(crate) stream: StreamId,
    pub(crate) child: NodeId,
}

/// Which of a child's queues.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Class {
    /// START, GAP, SHED, KEEP, CERT, INIT: never held back.
    Control,
    /// Chunks of live stripes.
    Live,
    /// Chunks that were asked for; **only when nothing live can be sent**.
    Repair,
}

/// Children that have something to send, in turn. A child is in each class at most once; the flag
/// for that is the child's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Turns {
    control: VecDeque<Turn>,
    live: VecDeque<Turn>,
    repair: VecDeque<Turn>,
}

impl Turns {
    pub(crate) fn push(&mut self, turn: Turn, class: Class) {
        self.class(class).push_back(turn);
    }

    /// Back to the front: its turn was cut short by the pacer.
    pub(crate) fn push_front(&mut self, turn: Turn, class: Class) {
        self.class(class).push_front(turn);
    }

    pub(crate) fn pop(&mut self, class: Class) -> Option<Turn> {
        self.class(class).pop_front()
    }

    fn class(&mut self, class: Class) -> &mut VecDeque<Turn> {
        match class {
            Class::Control => &mut self.control,
            Class::Live => &mut self.live,
            Class::Repair => &mut self.repair,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_window_of_a_second_stays_below_the_ceiling() {
        for ceiling in [Bitrate::from_kbps(750), Bitrate::from_mbps(6), Bitrate::from_mbps(100)] {
            let mut pacer = Pacer::new(Timestamp::ZERO);
            pacer.set_ceiling(Some(ceiling), Timestamp::ZERO);
            let (mut now, mut sent) = (Timestamp::ZERO, VecDeque::new());
            let mut window = 0;
            let mut total = 0;
            while now < Timestamp::from_millis(5_000) {
                let bytes = 3_300;
                while pacer.allows(bytes, now) {
                    pacer.spend(bytes, now);
                    sent.push_back((now, bytes as u64));
                    window += bytes as u64;
                    total += bytes as u64;
                }
                while sent.front().is_some_and(|(at, _)| now.since(*at) >= Duration::from_secs(1)) {
                    window -= sent.pop_front().unwrap().1;
                }
                assert!(window <= ceiling.bytes_in(Duration::from_secs(1)), "{ceiling}: {window}");
                now = now.max(pacer.ready_at(bytes)) + Duration::from_micros(50);
            }
            assert!(total >= ceiling.bytes_in(Duration::from_secs(5)) * 90 / 100, "{ceiling}");
        }
    }

    #[test]
    fn a_ceiling_of_zero_lets_nothing_pass_and_no_ceiling_everything() {
        let mut pacer = Pacer::new(Timestamp::ZERO);
        assert!(pacer.allows(1 << 30, Timestamp::ZERO));
        pacer.set_ceiling(Some(Bitrate::ZERO), Timestamp::ZERO);
        assert!(!pacer.allows(1, Timestamp::from_millis(60_000)));
        assert_eq!(pacer.ready_at(1), Timestamp::NEVER);
    }
}
