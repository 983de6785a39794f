//! When media was cut, in local time.
//!
//! Owns the estimate that lag and age are measured with. Does not own a clock: only durations
//! travel, as the age in a KEEP.

use std::time::Duration;

use crate::time::{Timestamp, micros};

/// A KEEP that says something this different from the estimate replaces it: the media clock jumped.
const JUMP_US: i64 = 1_000_000;
/// The best arrival may grow worse by this share of the time that passes, so that it follows a
/// path that became longer, and clocks that drift.
const ARRIVAL_RISE: i64 = 20;

/// Local time, in microseconds, at which the source cut media time zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Anchor {
    /// From the ages in KEEPs, smoothed.
    cut: Option<i64>,
    /// From the chunk that came soonest after its media time: the anchor plus the best delay.
    arrival: Option<(i64, Timestamp)>,
    /// The chunk at which the media clock last jumped: those before it say nothing any more.
    since_seq: u64,
}

impl Anchor {
    /// The media clock jumped at the chunk `seq`, whatever time passed at the source.
    pub(crate) fn restart_at(&mut self, seq: u64) {
        if seq > self.since_seq {
            *self = Self { since_seq: seq, ..Self::default() };
        }
    }

    /// The chunk `seq` came.
    pub(crate) fn observe_arrival(&mut self, seq: u64, time_ms: u64, now: Timestamp) {
        if seq < self.since_seq {
            return;
        }
        let seen = signed(now) - media(time_ms);
        let best = self.arrival.map_or(seen, |(best, at)| {
            let elapsed = i64::try_from(micros(now.since(at))).unwrap_or(i64::MAX);
            seen.min(best.saturating_add(elapsed / ARRIVAL_RISE))
        });
        self.arrival = Some((best, now));
    }

    /// A parent says that the chunk `seq` was cut `age` ago.
    pub(crate) fn observe_age(&mut self, seq: u64, time_ms: u64, age: Duration, now: Timestamp) {
        if seq < self.since_seq {
            return;
        }
        let age = i64::try_from(micros(age)).unwrap_or(i64::MAX);
        let seen = signed(now).saturating_sub(age).saturating_sub(media(time_ms));
        self.cut = Some(match self.cut {
            Some(cut) if (seen.saturating_sub(cut)).saturating_abs() <= JUMP_US => {
                cut + (seen - cut) / 8
            }
            Some(_) | None => seen,
        });
    }

    /// How long ago media of this time was cut.
    pub(crate) fn age(&self, time_ms: u64, now: Timestamp) -> Duration {
        let Some(cut) = self.cut.or(self.arrival.map(|(best, _)| best)) else {
            return Duration::ZERO;
        };
        let age = signed(now).saturating_sub(cut).saturating_sub(media(time_ms));
        Duration::from_micros(u64::try_from(age).unwrap_or(0))
    }

    /// When media of this time is due at a reader `lag` behind the source. On a path whose delay
    /// leaves less than half the lag, half the lag is granted on top of the delay: a path that is
    /// always late must still play.
    pub(crate) fn due(&self, time_ms: u64, lag: Duration) -> Timestamp {
        let lag = i64::try_from(micros(lag)).unwrap_or(i64::MAX / 4);
        let due = match (self.cut, self.arrival) {
            (Some(cut), Some((best, _))) => {
                cut.saturating_add(lag).max(best.saturating_add(lag / 2))
            }
            (Some(base), None) | (None, Some((base, _))) => base.saturating_add(lag),
            (None, None) => return Timestamp::NEVER,
        };
        Timestamp::from_micros(u64::try_from(due.saturating_add(media(time_ms))).unwrap_or(0))
    }
}

fn signed(at: Timestamp) -> i64 {
    i64::try_from(at.as_micros()).unwrap_or(i64::MAX / 2)
}

/// Media time in microseconds; hostile values saturate far below overflow.
fn media(time_ms: u64) -> i64 {
    i64::try_from(time_ms.min(1 << 50)).unwrap_or(0) * 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_and_due_follow_the_age_that_a_parent_states() {
        let mut anchor = Anchor::default();
        assert_eq!(anchor.due(0, Duration::from_secs(1)), Timestamp::NEVER);
        anchor.observe_arrival(0, 10_000, Timestamp::from_millis(500));
        anchor.observe_age(0, 10_000, Duration::from_millis(200), Timestamp::from_millis(500));
        assert_eq!(anchor.age(10_000, Timestamp::from_millis(600)), Duration::from_millis(300));
        let due = anchor.due(10_100, Duration::from_millis(1_500));
        assert_eq!(due, Timestamp::from_millis(500 - 200 + 100 + 1_500));
    }

    #[test]
    fn a_path_longer_than_the_lag_still_leaves_time() {
        let mut anchor = Anchor::default();
        anchor.observe_arrival(0, 0, Timestamp::from_millis(2_000));
        anchor.observe_age(0, 0, Duration::from_millis(2_000), Timestamp::from_millis(2_000));
        assert!(anchor.due(0, Duration::from_millis(500)) >= Timestamp::from_millis(2_250));
    }
    #[test]
    fn after_a_jump_of_the_media_clock_only_later_chunks_count() {
        let mut anchor = Anchor::default();
        anchor.observe_age(5, 1_000, Duration::ZERO, Timestamp::from_millis(1_000));
        // A minute passed at the source, forty milliseconds on the media clock.
        anchor.restart_at(6);
        anchor.observe_arrival(6, 1_040, Timestamp::from_millis(61_000));
        anchor.observe_age(5, 1_000, Duration::from_secs(60), Timestamp::from_millis(61_000));
        assert_eq!(anchor.age(1_040, Timestamp::from_millis(61_010)), Duration::from_millis(10));
    }
}
