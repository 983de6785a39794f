//! What is counted over all nodes of a run.
//!
//! Owns the counters, the histogram and the log of when the source cut what. Does not own one
//! viewer's view (see [`crate::player`]) nor thresholds (see [`crate::summary`]).

use std::collections::BTreeMap;

use astral_core::ids::Stripe;
use serde::Serialize;

/// Widest delay that is told apart, in milliseconds; longer ones count as this.
const DELAY_MS_MAX: usize = 30_000;

/// When the source cut each chunk, in microseconds of simulated time, by `seq`.
#[derive(Clone, Debug, Default)]
pub struct CutLog {
    at: Vec<u64>,
    stripes: Vec<Stripe>,
    /// The same, of each stripe.
    of_stripe: BTreeMap<Stripe, Vec<u64>>,
    keyframes: Vec<u64>,
}

impl CutLog {
    /// The next chunk was cut now, for this stripe.
    pub fn cut(&mut self, now: u64, stripe: Stripe) {
        self.at.push(now);
        self.stripes.push(stripe);
        self.of_stripe.entry(stripe).or_default().push(now);
    }

    /// A keyframe begins with what is cut next.
    pub fn keyframe(&mut self, now: u64) {
        self.keyframes.push(now);
    }

    /// When the newest keyframe was cut that was there at this moment; 0 before the first.
    #[must_use]
    pub fn keyframe_before(&self, moment: u64) -> u64 {
        let end = self.keyframes.partition_point(|at| *at <= moment);
        end.checked_sub(1).and_then(|at| self.keyframes.get(at)).copied().unwrap_or(0)
    }

    /// When the chunks of a stripe that were cut after one moment and until another were.
    #[must_use]
    pub fn between(&self, stripe: Stripe, from: u64, to: u64) -> &[u64] {
        let all = self.of_stripe.get(&stripe).map_or(&[][..], Vec::as_slice);
        let first = all.partition_point(|at| *at <= from);
        let end = all.partition_point(|at| *at <= to);
        &all[first.min(end)..end]
    }

    /// The stripe of a chunk; 0 of one that was not cut yet.
    #[must_use]
    pub fn stripe(&self, seq: u64) -> Stripe {
        let at = usize::try_from(seq).ok();
        at.and_then(|at| self.stripes.get(at)).copied().unwrap_or_default()
    }

    /// When a chunk was cut.
    #[must_use]
    pub fn at(&self, seq: u64) -> Option<u64> {
        self.at.get(usize::try_from(seq).ok()?).copied()
    }

    /// One past the last chunk that was cut at or before this moment.
    #[must_use]
    pub fn end_before(&self, moment: u64) -> u64 {
        self.at.partition_point(|at| *at <= moment) as u64
    }

    /// Chunks so far.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.at.len() as u64
    }

    /// Whether nothing was cut yet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.at.is_empty()
    }
}

/// A histogram with a bucket for each millisecond.
#[derive(Clone, Debug)]
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
}

impl Histogram {
    /// Counts one value, in microseconds.
    pub fn add(&mut self, us: u64) {
        self.add_many(us, 1);
    }

    /// Counts a value that occurred so many times, in microseconds.
    pub fn add_many(&mut self, us: u64, count: u64) {
        let at = usize::try_from(us / 1_000).unwrap_or(DELAY_MS_MAX).min(DELAY_MS_MAX);
        self.buckets[at] += count;
        self.count += count;
    }

    /// The value that the share `p` of all are not above, in milliseconds; `None` of nothing.
    #[must_use]
    pub fn percentile(&self, p: f64) -> Option<f64> {
        let rank = ((self.count as f64 * p).ceil() as u64).max(1);
        let mut seen = 0;
        for (ms, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Some(ms as f64);
            }
        }
        None
    }

    /// Shares of all that are not above each of some values in milliseconds, in steps of `step`.
    #[must_use]
    pub fn cumulative(&self, step: usize, most: usize) -> Vec<(f64, f64)> {
        let mut seen = 0;
        let mut points = Vec::new();
        for (ms, count) in self.buckets.iter().enumerate().take(most + 1) {
            seen += count;
            if ms % step.max(1) == 0 {
                points.push((ms as f64, seen as f64 / self.count.max(1) as f64));
            }
        }
        points
    }

    /// Values counted.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: vec![0; DELAY_MS_MAX + 1], count: 0 }
    }
}

/// Bytes by what they are for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Bytes {
    /// Media in chunks.
    pub payload: u64,
    /// Headers and signatures of chunks.
    pub chunk_overhead: u64,
    /// Other frames of feeds.
    pub feed_control: u64,
    /// Tickets and directory.
    pub messages: u64,
    /// Of the chunks, those that were sent again: counted above as well.
    pub repair: u64,
}

impl Bytes {
    /// All of them.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.payload + self.chunk_overhead + self.feed_control + self.messages
    }

    /// The share that is no media.
    #[must_use]
    pub fn overhead(&self) -> f64 {
        let total = self.total();
        if total == 0 { 0.0 } else { (total - self.payload) as f64 / total as f64 }
    }

    /// Adds another count.
    pub const fn add(&mut self, other: Self) {
        self.payload += other.payload;
        self.chunk_overhead += other.chunk_overhead;
        self.feed_control += other.feed_control;
        self.messages += other.messages;
        self.repair += other.repair;
    }
}

/// Chunks that were not there 3 s after their cut, by what was the matter then.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Missed {
    /// Their stripe had no parent at some time since the cut.
    pub orphan: u64,
    /// They came, but late.
    pub late: u64,
    /// Their stripe had a parent, which did not have them either or did not send them.
    pub upstream: u64,
}

/// Counters of a whole run.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// From the source to a viewer, of chunks that came after it had begun to play.
    pub delay: Histogram,
    /// From the wish to watch to the first picture.
    pub first_picture: Histogram,
    /// Between the last chunk of a stripe before its parent failed and the next.
    pub repair: Histogram,
    /// Chunks that were missing when due.
    pub missed: Missed,
    /// Chunks that arrived where they were already.
    pub duplicates: u64,
    /// Chunks that arrived.
    pub arrivals: u64,
    /// Messages that found the uplink's buffer full.
    pub drops: u64,
    /// Messages delayed by loss.
    pub lost: u64,
    /// Bytes sent by all nodes.
    pub bytes: Bytes,
    /// Bytes of those that the source sent.
    pub source_bytes: Bytes,
    /// Requests that ran into the driver's deadline.
    pub timeouts: u64,
    /// Dials that failed.
    pub dials_failed: u64,
    /// Offences that drivers saw.
    pub offences: u64,
    /// Times that a stripe moved to another parent, for any reason.
    pub moves: u64,
    /// Times that a search found nobody.
    pub no_capacity: u64,
    /// Times that a supernode named a node that was long dead.
    pub named_dead: u64,
    /// Nodes that made themselves supernodes.
    pub promotions: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_counted() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile(0.5), None);
        (1..=100).for_each(|ms| histogram.add(ms * 1_000));
        assert_eq!(histogram.percentile(0.5), Some(50.0));
        assert_eq!(histogram.percentile(0.99), Some(99.0));
        assert_eq!(histogram.percentile(1.0), Some(100.0));
    }

    #[test]
    fn the_log_finds_what_was_cut_by_a_moment() {
        let mut log = CutLog::default();
        [10, 20, 20, 30].into_iter().for_each(|at| log.cut(at, 0));
        assert_eq!((log.end_before(9), log.end_before(20), log.end_before(99)), (0, 3, 4));
        assert_eq!((log.at(3), log.at(4)), (Some(30), None));
    }
}
