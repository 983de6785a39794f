//! A bounded set of numbers, kept as runs.
//!
//! Owns [`RangeSet`]. Does not own what the numbers mean.

use std::collections::BTreeMap;

/// Numbers as disjoint, non-adjacent inclusive runs, at most `runs_max` of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RangeSet {
    runs: BTreeMap<u64, u64>,
    runs_max: usize,
}

impl RangeSet {
    pub(crate) const fn new(runs_max: usize) -> Self {
        Self { runs: BTreeMap::new(), runs_max }
    }

    /// Adds `from..=to`. False when that would take one run too many; nothing changes then.
    pub(crate) fn insert(&mut self, from: u64, to: u64) -> bool {
        debug_assert!(from <= to, "a run has a first and a last number");
        let (mut low, mut high) = (from, to);
        // A run that starts at or before the new one and reaches it is merged, and so is every
        // run that starts within it or right behind it.
        let mut merged = Vec::new();
        if let Some((&start, &end)) = self.runs.range(..=from).next_back()
            && end.saturating_add(1) >= from
        {
            merged.push(start);
            low = start;
            high = high.max(end);
        }
        for (&start, &end) in self.runs.range(from..=to.saturating_add(1)) {
            merged.push(start);
            high = high.max(end);
        }
        if merged.is_empty() && self.runs.len() >= self.runs_max {
            return false;
        }
        for start in merged {
            self.runs.remove(&start);
        }
        self.runs.insert(low, high);
        true
    }

    /// Takes `number` out; whether it was in. Splitting a run may exceed the bound by one run for
    /// each removal, so the last run is dropped then.
    pub(crate) fn remove(&mut self, number: u64) -> bool {
        let Some((&start, &end)) = self.runs.range(..=number).next_back() else { return false };
        if end < number {
            return false;
        }
        self.runs.remove(&start);
        if start < number {
            self.runs.insert(start, number - 1);
        }
        if number < end {
            self.runs.insert(number + 1, end);
        }
        if self.runs.len() > self.runs_max {
            self.runs.pop_last();
        }
        true
    }

    /// Takes `from..=to` out. Like [`remove`](Self::remove), it may drop the last run.
    pub(crate) fn remove_run(&mut self, from: u64, to: u64) {
        let first = self.runs.range(..from).next_back().map_or(from, |(&start, _)| start);
        let touched: Vec<(u64, u64)> = self
            .runs
            .range(first..=to)
            .filter(|(_, end)| **end >= from)
            .map(|(&start, &end)| (start, end))
            .collect();
        for (start, end) in touched {
            self.runs.remove(&start);
            if start < from {
                self.runs.insert(start, from - 1);
            }
            if end > to {
                self.runs.insert(to + 1, end);
            }
        }
        if self.runs.len() > self.runs_max {
            self.runs.pop_last();
        }
    }

    pub(crate) fn contains(&self, number: u64) -> bool {
        self.runs.range(..=number).next_back().is_some_and(|(_, &end)| number <= end)
    }

    /// Whether all of `from..=to` is in.
    pub(crate) fn covers(&self, from: u64, to: u64) -> bool {
        self.runs.range(..=from).next_back().is_some_and(|(_, &end)| to <= end)
    }

    /// The lowest number that is not below `number`.
    pub(crate) fn next_from(&self, number: u64) -> Option<u64> {
        if self.contains(number) {
            return Some(number);
        }
        self.runs.range(number..).next().map(|(&start, _)| start)
    }

    /// The end of the run that `number` is in.
    pub(crate) fn run_end(&self, number: u64) -> Option<u64> {
        self.runs.range(..=number).next_back().map(|(_, &end)| end).filter(|&end| number <= end)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// How many numbers are in.
    pub(crate) fn count(&self) -> u64 {
        self.runs.iter().fold(0, |sum: u64, (from, to)| sum.saturating_add(to - from + 1))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.runs.iter().map(|(&from, &to)| (from, to))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn runs_merge_when_they_touch_and_split_when_one_is_taken_out() {
        let mut set = RangeSet::new(8);
        assert!(set.insert(5, 7) && set.insert(10, 12) && set.insert(8, 9));
        assert_eq!(set.iter().collect::<Vec<_>>(), [(5, 12)]);
        assert!(set.remove(8));
        assert!(!set.remove(8));
        assert_eq!(set.iter().collect::<Vec<_>>(), [(5, 7), (9, 12)]);
        assert_eq!((set.next_from(8), set.run_end(9), set.count()), (Some(9), Some(12), 7));
        assert!(set.covers(9, 12) && !set.covers(7, 9));
    }

    #[test]
    fn a_full_set_refuses_another_run_and_stays_whole() {
        let mut set = RangeSet::new(2);
        assert!(set.insert(1, 1) && set.insert(3, 3));
        assert!(!set.insert(9, 9));
        assert!(set.insert(2, 2));
        assert_eq!(set.iter().collect::<Vec<_>>(), [(1, 3)]);
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_plain_set(steps in prop::collection::vec((any::<bool>(), 0u64..40, 0u64..6), 0..60)) {
            let mut set = RangeSet::new(64);
            let mut model = BTreeSet::new();
            for (add, from, len) in steps {
                if add {
                    set.insert(from, from + len);
                    model.extend(from..=from + len);
                } else if len > 2 {
                    set.remove_run(from, from + len);
                    model.retain(|number| !(from..=from + len).contains(number));
                } else {
                    prop_assert_eq!(set.remove(from), model.remove(&from));
                }
                for number in 0..50 {
                    prop_assert_eq!(set.contains(number), model.contains(&number));
                    prop_assert_eq!(set.next_from(number), model.range(number..).next().copied());
                }
                prop_assert_eq!(set.count(), model.len() as u64);
            }
        }
    }
}
