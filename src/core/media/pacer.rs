//! A hard ceiling on bytes: a token bucket over the machines' time.
//!
//! Owns how many bytes may leave and when the next may. Does not own whose they are (see `scheduler`
//! for feeds; the node paces what it relays for others by another one).

use std::time::Duration;

use crate::{
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
pub struct Pacer {
    ceiling: Option<Bitrate>,
    tokens: i64,
    at: Timestamp,
}

impl Pacer {
    /// Without a ceiling.
    #[must_use]
    pub const fn new(now: Timestamp) -> Self {
        Self { ceiling: None, tokens: 0, at: now }
    }

    /// Sets or lifts the ceiling, at once.
    pub fn set_ceiling(&mut self, ceiling: Option<Bitrate>, now: Timestamp) {
        self.refill(now);
        self.ceiling = ceiling;
        self.tokens = self.tokens.min(self.depth());
    }

    /// The ceiling; `None` = everything passes.
    #[must_use]
    pub const fn ceiling(&self) -> Option<Bitrate> {
        self.ceiling
    }

    /// Whether `bytes` may leave.
    pub fn allows(&mut self, bytes: usize, now: Timestamp) -> bool {
        if self.ceiling.is_none() {
            return true;
        }
        self.refill(now);
        self.tokens >= self.needed(bytes) && self.depth() > 0
    }

    /// `bytes` left, whether allowed (chunks) or not asked for (control).
    pub fn spend(&mut self, bytes: usize, now: Timestamp) {
        if self.ceiling.is_some() {
            self.refill(now);
            self.tokens = self.tokens.saturating_sub(scaled(bytes));
        }
    }

    /// When `bytes` may leave, if nothing else does before.
    #[must_use]
    pub fn ready_at(&self, bytes: usize) -> Timestamp {
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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

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
