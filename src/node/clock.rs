//! The one place where real time becomes the machines' time.
//!
//! Owns the conversion between the runtime's monotonic clock, unix time and [`Timestamp`]. Does not
//! own timers: the tasks arm their own.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use astral_core::time::Timestamp;
use tokio::time::Instant;

/// A node's clock: cheap to copy, the same for every task of the node.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    unix_at_start: u64,
}

impl Clock {
    /// A clock that starts now.
    #[must_use]
    pub fn start() -> Self {
        Self { started: Instant::now(), unix_at_start: unix_now() }
    }

    /// Time since the node started.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let us = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        Timestamp::from_micros(us)
    }

    /// Unix seconds at the moment the node started.
    #[must_use]
    pub const fn unix_at_start(&self) -> u64 {
        self.unix_at_start
    }

    /// Unix seconds now, by the monotonic clock: a jump of the system's clock is not seen.
    #[must_use]
    pub fn unix(&self) -> u64 {
        self.unix_at_start.saturating_add(self.started.elapsed().as_secs())
    }

    /// The runtime's instant of `at`, for a timer; far away when `at` is "never".
    #[must_use]
    pub fn instant(&self, at: Timestamp) -> Instant {
        /// A timer that is armed for longer than this is armed again anyway.
        const FAR: Duration = Duration::from_secs(3_600);
        let after = at.since(Timestamp::ZERO);
        let limit = self.started.elapsed().saturating_add(FAR);
        self.started + after.min(limit)
    }
}

/// Unix seconds by the system's clock; zero before 1970.
#[must_use]
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_timer_for_never_is_far_but_finite() {
        let clock = Clock::start();
        assert!(clock.instant(Timestamp::NEVER) > Instant::now() + Duration::from_secs(3_000));
        let soon = clock.now() + Duration::from_millis(5);
        assert!(clock.instant(soon) < Instant::now() + Duration::from_millis(6));
    }
}
