//! How much of an upload limit circuits take, as the overlay is told it.
//!
//! Owns the measurement: the busiest of the last seconds, in steps, so that slots are not taken and
//! given back with each burst. Does not own what the overlay does with it.

use std::{collections::VecDeque, time::Duration};

use astral_core::units::Bitrate;
use tokio::time::Instant;

use super::{Toll, UPLINK_PARTS};

/// What is measured at a time.
const WINDOW: Duration = Duration::from_secs(1);
/// So many windows count: a stream's pictures come in groups of a few seconds.
const WINDOWS: usize = 5;
/// Steps in which it is told, in parts of the limit. Less than half a step is nothing: circuits that
/// only bring two nodes together carry a few kilobytes.
const STEPS: u64 = 32;

/// The measurement.
#[derive(Debug)]
pub struct Taken {
    toll: Toll,
    at: Instant,
    bytes: u64,
    rates: VecDeque<u64>,
    told: Bitrate,
}

impl Taken {
    /// From now on.
    #[must_use]
    pub fn new(toll: Toll, now: Instant) -> Self {
        let bytes = toll.bytes();
        Self { toll, at: now, bytes, rates: VecDeque::new(), told: Bitrate::ZERO }
    }

    /// Bytes written to circuits since the node started.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.toll.bytes()
    }

    /// What circuits take, if that is news.
    pub fn look(&mut self, now: Instant) -> Option<Bitrate> {
        let elapsed = now.saturating_duration_since(self.at);
        if elapsed < WINDOW {
            return None;
        }
        let bytes = self.toll.bytes();
        let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
        let rate = (bytes - self.bytes).saturating_mul(8_000) / millis;
        (self.at, self.bytes) = (now, bytes);
        self.rates.push_back(rate);
        if self.rates.len() > WINDOWS {
            self.rates.pop_front();
        }
        let taken = self.in_steps(self.rates.iter().copied().max().unwrap_or(0));
        (taken != self.told).then(|| {
            self.told = taken;
            taken
        })
    }

    fn in_steps(&self, rate: u64) -> Bitrate {
        // Without a limit nobody gives anything up for circuits.
        let Some(share) = self.toll.ceiling() else { return Bitrate::ZERO };
        let step = (share.as_bps() * UPLINK_PARTS / STEPS).max(1);
        let steps = if rate < step / 2 { 0 } else { rate.div_ceil(step) };
        Bitrate::from_bps(steps.saturating_mul(step).min(share.as_bps()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::clock::Clock;

    #[test]
    fn a_relayed_stream_is_told_once_and_given_up_when_it_is_over() {
        let toll = Toll::new(Clock::start());
        toll.set_uplink(Some(Bitrate::from_kbps(3_200)));
        let start = Instant::now();
        let mut taken = Taken::new(toll.clone(), start);
        let mut told = Vec::new();
        for second in 1..=20_u32 {
            let now = start + WINDOW * second;
            // Every second of the first ten 40 or 50 kB, then what holes are punched with.
            let bytes = if second > 10 { 2_000 } else { 40_000 + 10_000 * (second as usize % 2) };
            toll.pay(bytes);
            told.extend(taken.look(now).map(|rate| (second, rate.as_bps())));
        }
        assert_eq!(told, [(1, 400_000), (15, 0)]);
    }

    #[test]
    fn it_is_never_more_than_their_share_and_nothing_without_a_limit() {
        let toll = Toll::new(Clock::start());
        let start = Instant::now();
        let mut taken = Taken::new(toll.clone(), start);
        toll.pay(10_000_000);
        assert_eq!(taken.look(start + WINDOW), None);
        toll.set_uplink(Some(Bitrate::from_kbps(800)));
        assert_eq!(taken.look(start + 2 * WINDOW), Some(Bitrate::from_kbps(200)));
    }
}
