//! What remotes have done wrong.
//!
//! Owns strikes, their decay and bans. Does not own who is preferred as a parent (see
//! `candidates`).

use std::{collections::BTreeMap, time::Duration};

use super::Offence;
use crate::{ids::NodeId, time::Timestamp};

/// Strikes and bans per node.
#[derive(Debug)]
pub(super) struct Scores {
    records: BTreeMap<NodeId, Record>,
    strikes_max: u32,
    decay: Duration,
    ban: Duration,
}

#[derive(Debug)]
struct Record {
    strikes: u32,
    last: Timestamp,
    banned_until: Timestamp,
}

impl Scores {
    pub(super) const fn new(strikes_max: u32, decay: Duration, ban: Duration) -> Self {
        Self { records: BTreeMap::new(), strikes_max, decay, ban }
    }

    /// Notes an offence; returns whether the node is banned by it.
    pub(super) fn strike(&mut self, node: NodeId, offence: Offence, now: Timestamp) -> bool {
        if self.records.len() >= RECORDS_MAX && !self.records.contains_key(&node) {
            let (decay, ban) = (self.decay, self.ban);
            self.records.retain(|_, r| now.since(r.last) < decay.max(ban));
            if self.records.len() >= RECORDS_MAX {
                self.records.pop_first();
            }
        }
        let fresh = Record { strikes: 0, last: now, banned_until: Timestamp::ZERO };
        let record = self.records.entry(node).or_insert(fresh);
        let decayed = now.since(record.last).as_micros() / self.decay.as_micros().max(1);
        record.strikes = record.strikes.saturating_sub(u32::try_from(decayed).unwrap_or(u32::MAX));
        record.strikes += match offence {
            // Cannot happen to an honest node: every hop verifies before it forwards.
            Offence::BadSignature => self.strikes_max,
            Offence::Malformed
            | Offence::Forged
            | Offence::Replayed
            | Offence::Duplicates
            | Offence::Flood
            | Offence::NotParty
            | Offence::BrokenPromise => 1,
        };
        record.last = now;
        if record.strikes >= self.strikes_max {
            record.banned_until = now + self.ban;
        }
        now < record.banned_until
    }

    pub(super) fn is_banned(&self, node: &NodeId, now: Timestamp) -> bool {
        self.records.get(node).is_some_and(|record| now < record.banned_until)
    }

    /// Strikes that have not decayed.
    pub(super) fn strikes(&self, node: &NodeId) -> u32 {
        self.records.get(node).map_or(0, |record| record.strikes)
    }

    pub(super) fn forget(&mut self, node: &NodeId) {
        self.records.remove(node);
    }
}

/// Most nodes remembered for their misdeeds.
const RECORDS_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    fn scores() -> Scores {
        Scores::new(3, Duration::from_secs(300), Duration::from_secs(600))
    }

    #[test]
    fn a_bad_signature_bans_at_once_and_the_ban_ends() {
        let mut scores = scores();
        let node = NodeId([1; 32]);
        assert!(scores.strike(node, Offence::BadSignature, Timestamp::ZERO));
        assert!(scores.is_banned(&node, Timestamp::from_millis(599_000)));
        assert!(!scores.is_banned(&node, Timestamp::from_millis(601_000)));
    }

    #[test]
    fn three_small_strikes_ban_but_not_when_they_decay() {
        let mut scores = scores();
        let node = NodeId([1; 32]);
        for second in [0, 301, 602, 903] {
            let now = Timestamp::from_millis(second * 1_000);
            assert!(!scores.strike(node, Offence::Forged, now), "{second}");
        }
        let now = Timestamp::from_millis(910_000);
        assert!(!scores.strike(node, Offence::NotParty, now));
        assert!(scores.strike(node, Offence::Flood, now));
    }
}
