//! A parent that sends too much twice.
//!
//! Owns the judgement. Does not own what follows from it (see `failover`), nor the counting (the
//! relay's).

use std::time::Duration;

use crate::time::Timestamp;

/// Watches for a parent that sends too much twice: more than 5 % for ten seconds.
#[derive(Debug)]
pub(super) struct DuplicateWatch {
    since: Timestamp,
    duplicates: u32,
    heads: u64,
    settled: bool,
}

impl DuplicateWatch {
    pub(super) const fn new(now: Timestamp) -> Self {
        Self { since: now, duplicates: 0, heads: 0, settled: false }
    }

    /// Judges at the end of each window. The first window of a feed is never judged: a move makes
    /// duplicates by itself.
    pub(super) fn is_excessive(&mut self, duplicates: u32, heads: u64, now: Timestamp) -> bool {
        if now.since(self.since) < WINDOW {
            return false;
        }
        let more = u64::from(duplicates.saturating_sub(self.duplicates));
        let chunks = heads.saturating_sub(self.heads);
        let excessive = self.settled && more > DUPLICATES_MIN && more * 20 > chunks;
        *self = Self { since: now, duplicates, heads, settled: true };
        excessive
    }
}

const WINDOW: Duration = Duration::from_secs(10);
/// Fewer duplicates in a window mean nothing.
const DUPLICATES_MIN: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_five_percent_duplicates_for_ten_seconds_are_excessive() {
        let at = |second: u64| Timestamp::from_millis(second * 1_000);
        let mut watch = DuplicateWatch::new(at(0));
        assert!(!watch.is_excessive(400, 400, at(10)), "the first window is never judged");
        assert!(!watch.is_excessive(419, 800, at(20)), "19 of 400 are below five percent");
        assert!(!watch.is_excessive(430, 900, at(25)), "the window is not over");
        assert!(watch.is_excessive(441, 1_200, at(30)), "22 of 400 are above");
    }
}
