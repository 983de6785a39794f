//! An ordered map whose entries have deadlines.
//!
//! Owns the two orders, by key and by deadline. Does not own what an expiry means: the owner pops
//! what is due.

use std::collections::{BTreeMap, BTreeSet, btree_map};

use crate::time::Timestamp;

/// A map of `K` to `V` in which every entry has a deadline.
#[derive(Debug)]
pub(super) struct ExpiringMap<K, V> {
    entries: BTreeMap<K, (V, Timestamp)>,
    deadlines: BTreeSet<(Timestamp, K)>,
}

impl<K: Ord + Copy, V> Default for ExpiringMap<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Ord + Copy, V> ExpiringMap<K, V> {
    pub(super) const fn new() -> Self {
        Self { entries: BTreeMap::new(), deadlines: BTreeSet::new() }
    }

    /// Inserts or replaces; returns the value replaced.
    pub(super) fn insert(&mut self, key: K, value: V, at: Timestamp) -> Option<V> {
        let old = self.remove(&key);
        self.entries.insert(key, (value, at));
        self.deadlines.insert((at, key));
        old
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let (value, at) = self.entries.remove(key)?;
        self.deadlines.remove(&(at, *key));
        Some(value)
    }

    /// Moves an entry's deadline; nothing happens when there is no such entry.
    pub(super) fn set_deadline(&mut self, key: &K, at: Timestamp) {
        if let Some((_, old)) = self.entries.get_mut(key) {
            self.deadlines.remove(&(*old, *key));
            *old = at;
            self.deadlines.insert((at, *key));
        }
    }

    /// Takes one entry whose deadline is not after `now`, the earliest first.
    pub(super) fn pop_due(&mut self, now: Timestamp) -> Option<(K, V)> {
        let (_, key) = self.deadlines.first().copied().filter(|(at, _)| *at <= now)?;
        self.remove(&key).map(|value| (key, value))
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|(value, _)| value)
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key).map(|(value, _)| value)
    }

    pub(super) fn deadline(&self, key: &K) -> Option<Timestamp> {
        self.entries.get(key).map(|(_, at)| *at)
    }

    pub(super) fn contains(&self, key: &K) -> bool {
        self.entries.contains_key(key)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, (value, _))| (key, value))
    }

    pub(super) fn keys(&self) -> btree_map::Keys<'_, K, (V, Timestamp)> {
        self.entries.keys()
    }

    /// Entries from the first key that is greater than `after`, or from the beginning.
    pub(super) fn iter_after(&self, after: Option<K>) -> impl Iterator<Item = (&K, &V)> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.entries
            .range((after.map_or(Unbounded, Excluded), Unbounded))
            .map(|(key, (value, _))| (key, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_due_in_the_order_of_their_deadlines() {
        let at = Timestamp::from_millis;
        let mut map = ExpiringMap::new();
        map.insert(1, "late", at(30));
        map.insert(2, "early", at(10));
        map.insert(3, "moved", at(5));
        map.set_deadline(&3, at(20));
        assert_eq!(map.next(), Some(at(10)));
        assert_eq!(map.pop_due(at(9)), None);
        assert_eq!(map.pop_due(at(25)), Some((2, "early")));
        assert_eq!(map.pop_due(at(25)), Some((3, "moved")));
        assert_eq!(map.pop_due(at(25)), None);
        assert_eq!(map.insert(1, "replaced", at(40)), Some("late"));
        assert_eq!((map.len(), map.next()), (1, Some(at(40))));
    }
}
