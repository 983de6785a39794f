//! Complaints of children about their parents.
//!
//! Owns how complaints are weighed, how they fade, and who is left out of answers for a while. Does
//! not own evidence: a bad chunk convicts its sender at the child itself.
//!
//! A complaint counts only from a member, and only against a node that says it carries that stripe:
//! one that starves itself is no liar. Each complainer counts once for each accused, and less the
//! more nodes it accuses: whoever finds fault with everybody is probably the one at fault, as when
//! its own link is bad. What was complained about fades; never is more than a tenth left out.

use std::{collections::BTreeMap, time::Duration};

use crate::{ids::NodeId, time::Timestamp};

/// Complaints and their consequences, as one supernode knows them.
#[derive(Debug, Default)]
pub(in super::super) struct Complaints {
    accused: BTreeMap<NodeId, Accused>,
}

#[derive(Debug)]
struct Accused {
    /// When each complained last.
    by: BTreeMap<NodeId, Timestamp>,
    delisted_until: Timestamp,
    /// Only what was said after this counts: the rest was dealt with.
    counts_from: Timestamp,
    /// How often it was delisted: each time lasts twice as long.
    times: u32,
}

/// How complaints count.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Law {
    /// A complaint weighs half after this, and nothing after five times as long.
    pub(in super::super) half_life: Duration,
    /// The first delisting.
    pub(in super::super) delist: Duration,
    /// Full complaints that delist.
    pub(in super::super) enough: u32,
}

/// What became of a complaint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) enum Heard {
    /// It was noted.
    Noted,
    /// It was the last straw.
    Delisted,
    /// Too soon after the last one of the same complainer, or no room.
    Ignored,
}

impl Complaints {
    /// Notes a complaint. `listed` says how many nodes carry anything here: of those a tenth, and
    /// at least one, may be left out at a time.
    pub(in super::super) fn hear(
        &mut self,
        law: Law,
        from: NodeId,
        accused: NodeId,
        listed: usize,
        now: Timestamp,
    ) -> Heard {
        let memory = law.half_life.saturating_mul(MEMORY);
        self.forget(memory, now);
        let own: usize = self.accused.values().filter(|known| known.by.contains_key(&from)).count();
        let known = self.accused.get(&accused);
        let early = known
            .and_then(|known| known.by.get(&from))
            .is_some_and(|at| now.since(*at) < law.half_life / 2);
        let full = known.is_none() && self.accused.len() >= ACCUSED_MAX
            || known.is_some_and(|known| known.by.len() >= COMPLAINERS_MAX)
            || own >= ACCUSED_BY_ONE_MAX;
        if early || full || from == accused {
            return Heard::Ignored;
        }
        let never = Timestamp::ZERO;
        let fresh =
            Accused { by: BTreeMap::new(), delisted_until: never, counts_from: never, times: 0 };
        self.accused.entry(accused).or_insert(fresh).by.insert(from, now);
        let out = self.accused.values().filter(|known| now < known.delisted_until).count();
        if self.weight(law, &accused, now) < law.enough * FULL || out >= (listed / 10).max(1) {
            return Heard::Noted;
        }
        let Some(known) = self.accused.get_mut(&accused) else { return Heard::Noted };
        if now < known.delisted_until {
            return Heard::Noted;
        }
        known.delisted_until = now + law.delist.saturating_mul(1 << known.times.min(DOUBLINGS_MAX));
        known.times += 1;
        known.counts_from = now;
        Heard::Delisted
    }

    /// Whether a node is left out of answers.
    pub(in super::super) fn is_delisted(&self, node: &NodeId, now: Timestamp) -> bool {
        self.accused.get(node).is_some_and(|known| now < known.delisted_until)
    }

    /// Sum of the complaints about a node, in hundredths of a full one.
    fn weight(&self, law: Law, accused: &NodeId, now: Timestamp) -> u32 {
        let Some(known) = self.accused.get(accused) else { return 0 };
        let weigh = |(from, at): (&NodeId, &Timestamp)| {
            let accuses = self.accused.values().filter(|other| other.by.contains_key(from)).count();
            // Whoever is accused as well is heard with half an ear.
            let doubtful = self.accused.get(from).is_some_and(|other| !other.by.is_empty());
            let halves = now.since(*at).as_micros() / law.half_life.as_micros().max(1);
            let halves = u32::try_from(halves).unwrap_or(u32::MAX).min(8) + u32::from(doubtful);
            (FULL >> halves) / u32::try_from(accuses.max(1)).unwrap_or(u32::MAX)
        };
        let counts = |at: &Timestamp| known.times == 0 || *at > known.counts_from;
        known.by.iter().filter(|(_, at)| counts(at)).map(weigh).sum()
    }

    fn forget(&mut self, memory: Duration, now: Timestamp) {
        for known in self.accused.values_mut() {
            known.by.retain(|_, at| now.since(*at) < memory);
        }
        // A good while after the last delisting it begins anew.
        let rest = memory.saturating_mul(4);
        self.accused.retain(|_, known| {
            !known.by.is_empty() || known.times > 0 && now < known.delisted_until + rest
        });
    }
}

/// A full complaint.
const FULL: u32 = 100;
/// Half-lives after which a complaint is forgotten.
const MEMORY: u32 = 5;
/// The longest delisting is this many times doubled.
const DOUBLINGS_MAX: u32 = 5;
/// Most nodes accused, by how many each, and how many one accuses: more is noise.
const ACCUSED_MAX: usize = 1_024;
const COMPLAINERS_MAX: usize = 64;
const ACCUSED_BY_ONE_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const LAW: Law =
        Law { half_life: Duration::from_secs(60), delist: Duration::from_secs(120), enough: 3 };

    fn node(number: u16) -> NodeId {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&number.to_be_bytes());
        NodeId(id)
    }

    fn at(second: u64) -> Timestamp {
        Timestamp::from_millis(second * 1_000)
    }

    fn hear(complaints: &mut Complaints, from: u16, accused: u16, second: u64) -> Heard {
        complaints.hear(LAW, node(from), node(accused), 40, at(second))
    }

    #[test]
    fn three_who_complain_of_one_delist_it_and_each_time_lasts_twice_as_long() {
        let mut complaints = Complaints::default();
        assert_eq!(hear(&mut complaints, 1, 9, 0), Heard::Noted);
        assert_eq!(hear(&mut complaints, 2, 9, 1), Heard::Noted);
        assert_eq!(hear(&mut complaints, 3, 9, 2), Heard::Delisted);
        assert!(complaints.is_delisted(&node(9), at(121)));
        assert!(!complaints.is_delisted(&node(9), at(122)));
        for from in 4..7 {
            hear(&mut complaints, from, 9, 200);
        }
        assert!(complaints.is_delisted(&node(9), at(439)));
        assert!(!complaints.is_delisted(&node(9), at(440)));
    }

    #[test]
    fn one_complainer_counts_once_and_its_complaints_fade() {
        let mut complaints = Complaints::default();
        for second in 0..300 {
            assert_ne!(hear(&mut complaints, 1, 9, second), Heard::Delisted);
        }
        // Two of three are old by the time of the third.
        let mut complaints = Complaints::default();
        hear(&mut complaints, 1, 9, 0);
        hear(&mut complaints, 2, 9, 0);
        assert_eq!(hear(&mut complaints, 3, 9, 61), Heard::Noted);
        assert_eq!(hear(&mut complaints, 4, 9, 62), Heard::Delisted);
    }

    #[test]
    fn whoever_finds_fault_with_everybody_counts_for_little() {
        let mut complaints = Complaints::default();
        for accused in 100..108 {
            for from in 1..4 {
                let heard = hear(&mut complaints, from, accused, u64::from(accused - 100));
                // Only the first, before it was known how they are.
                assert_eq!(heard == Heard::Delisted, (accused, from) == (100, 3));
            }
        }
        let heard = (0..30).map(|accused| hear(&mut complaints, 1, 200 + accused, 20));
        assert_eq!(heard.filter(|heard| *heard == Heard::Ignored).count(), 30 - (16 - 8));
    }

    #[test]
    fn the_accused_who_accuse_back_are_heard_with_half_an_ear() {
        let mut complaints = Complaints::default();
        for accused in 1..4 {
            hear(&mut complaints, 50, accused, 0);
        }
        for from in 1..4 {
            assert_eq!(hear(&mut complaints, from, 9, 1), Heard::Noted);
        }
    }

    #[test]
    fn never_is_more_than_a_tenth_left_out() {
        let mut complaints = Complaints::default();
        // Each accused has complainers of its own.
        for accused in 0..20_u16 {
            for from in 0..3 {
                hear(&mut complaints, 1_000 + accused * 3 + from, accused, 5);
            }
        }
        let out = (0..20).filter(|number| complaints.is_delisted(&node(*number), at(6))).count();
        assert_eq!(out, 4, "a tenth of forty");
    }

    #[test]
    fn everything_is_bounded() {
        let mut complaints = Complaints::default();
        for from in 0..200 {
            hear(&mut complaints, from, 9, 0);
        }
        for accused in 0..3_000 {
            hear(&mut complaints, 20_000 + accused, 1_000 + accused, 0);
        }
        assert!(complaints.accused.len() <= ACCUSED_MAX);
        assert!(complaints.accused.values().all(|known| known.by.len() <= COMPLAINERS_MAX));
        hear(&mut complaints, 1, 2, 10_000);
        assert_eq!(complaints.accused.len(), 1, "old complaints are forgotten");
    }
}
