//! How often others may ask.
//!
//! Owns token buckets per node and lane. Does not own what happens to a request over the limit.

use std::time::Duration;

use super::expiring_map::ExpiringMap;
use crate::{ids::NodeId, time::Timestamp};

/// What a bucket is for: each has its own limit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Lane {
    Ticket,
    Dir,
    /// Whole lists and comparisons, which come in rows.
    List,
    /// Between supernodes.
    Peer,
    Guest,
    GuestList,
}

/// Token buckets: a node may save up two seconds' worth.
#[derive(Debug, Default)]
pub(super) struct RateLimit {
    /// Until they are full again: forgetting one then changes nothing.
    buckets: ExpiringMap<(NodeId, Lane), Bucket>,
}

#[derive(Debug)]
struct Bucket {
    /// Millionths of a request.
    tokens: u64,
    at: Timestamp,
    refused: u32,
}

/// Whether a request passes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Admission {
    Pass,
    /// Over the limit.
    Refuse,
    /// Over the limit for the hundredth time without a pause.
    Flood,
}

impl RateLimit {
    /// Takes one token of `node`, who may make `per_second` requests.
    pub(super) fn take(
        &mut self,
        node: NodeId,
        lane: Lane,
        per_second: u32,
        now: Timestamp,
    ) -> Admission {
        let rate = u64::from(per_second.max(1));
        let full = rate * 2 * ONE;
        let key = (node, lane);
        while self.buckets.pop_due(now).is_some() {}
        if self.buckets.contains(&key) {
            self.buckets.set_deadline(&key, now + FULL_AFTER);
        } else if self.buckets.len() >= BUCKETS_MAX {
            return Admission::Refuse;
        } else {
            let bucket = Bucket { tokens: full, at: now, refused: 0 };
            self.buckets.insert(key, bucket, now + FULL_AFTER);
        }
        let Some(bucket) = self.buckets.get_mut(&key) else { return Admission::Refuse };
        let gained = crate::time::micros(now.since(bucket.at)).saturating_mul(rate);
        bucket.tokens = bucket.tokens.saturating_add(gained).min(full);
        bucket.at = now;
        if bucket.tokens >= ONE {
            bucket.tokens -= ONE;
            bucket.refused = 0;
            return Admission::Pass;
        }
        bucket.refused += 1;
        if bucket.refused.is_multiple_of(FLOOD) { Admission::Flood } else { Admission::Refuse }
    }
}

const ONE: u64 = 1_000_000;
/// A node that was silent for so long has a full bucket.
const FULL_AFTER: Duration = Duration::from_secs(2);
/// Most nodes counted at the same time.
const BUCKETS_MAX: usize = 4_096;
/// Refusals in a row that are a strike.
const FLOOD: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_over_its_limit_is_refused_until_time_passes() {
        let mut limit = RateLimit::default();
        let node = NodeId([1; 32]);
        let mut now = Timestamp::ZERO;
        let passed =
            (0..100).filter(|_| limit.take(node, Lane::Ticket, 20, now) == Admission::Pass).count();
        assert_eq!(passed, 40);
        now = Timestamp::from_millis(500);
        let passed =
            (0..100).filter(|_| limit.take(node, Lane::Ticket, 20, now) == Admission::Pass).count();
        assert_eq!(passed, 10);
        assert_eq!(limit.take(NodeId([2; 32]), Lane::Ticket, 20, now), Admission::Pass);
    }
}
