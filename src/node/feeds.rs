//! Which feeds exist, from the wish to open one to its end.
//!
//! Owns the table of feeds as the overlay task sees it, and the generations that tell two lives of
//! one feed apart. Does not own the feeds' tasks (the media task's) nor the greeting.

use std::collections::BTreeMap;

use astral_core::ids::{FeedKey, NodeId};

use super::feed::handler::OpenId;

/// Feeds at once, both ways, those being greeted included.
pub const FEEDS_MAX: usize = 1_024;
/// Inbound streams that have not greeted yet.
pub const GREETINGS_MAX: usize = 128;
/// Of these, of one node: whoever opens streams and says nothing must not keep others out.
pub const GREETINGS_PER_NODE_MAX: usize = 16;

/// The table.
#[derive(Debug, Default)]
pub struct Feeds {
    feeds: BTreeMap<FeedKey, Entry>,
    next: u64,
    /// Inbound streams that have not greeted yet, per node.
    greetings: BTreeMap<NodeId, usize>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    generation: u64,
    up: bool,
}

impl Feeds {
    /// A new life of a feed begins; `None` when there are too many feeds.
    pub fn begin(&mut self, feed: FeedKey) -> Option<u64> {
        if self.feeds.len() >= FEEDS_MAX && !self.feeds.contains_key(&feed) {
            return None;
        }
        self.next += 1;
        self.feeds.insert(feed, Entry { generation: self.next, up: false });
        Some(self.next)
    }

    /// A node opened a stream and is to greet; false when too many wait for that.
    pub fn greeting_begins(&mut self, node: NodeId) -> bool {
        let all: usize = self.greetings.values().sum();
        let its = self.greetings.get(&node).copied().unwrap_or(0);
        if all >= GREETINGS_MAX || its >= GREETINGS_PER_NODE_MAX {
            return false;
        }
        self.greetings.insert(node, its + 1);
        true
    }

    /// It greeted, or did not.
    pub fn greeting_ends(&mut self, node: NodeId) {
        if let Some(its) = self.greetings.get_mut(&node) {
            *its -= 1;
            if *its == 0 {
                self.greetings.remove(&node);
            }
        }
    }

    /// The feed that a stream was opened for.
    #[must_use]
    pub fn of(&self, id: OpenId) -> Option<FeedKey> {
        self.feeds.iter().find(|(_, entry)| entry.generation == id.0).map(|(feed, _)| *feed)
    }

    /// This life of the feed was greeted; false when it is not wanted any more.
    pub fn up(&mut self, feed: &FeedKey, generation: u64) -> bool {
        match self.feeds.get_mut(feed) {
            Some(entry) if entry.generation == generation => {
                entry.up = true;
                true
            }
            _ => false,
        }
    }

    /// This life of the feed is over; false when another has begun, or it was closed here.
    pub fn down(&mut self, feed: &FeedKey, generation: u64) -> bool {
        let known = self.feeds.get(feed).is_some_and(|entry| entry.generation == generation);
        if known {
            self.feeds.remove(feed);
        }
        known
    }

    /// The overlay wants it no longer; whether it was up.
    pub fn close(&mut self, feed: &FeedKey) -> bool {
        self.feeds.remove(feed).is_some_and(|entry| entry.up)
    }

    /// The feeds with one node.
    #[must_use]
    pub fn with(&self, node: NodeId) -> Vec<FeedKey> {
        self.feeds.keys().filter(|feed| feed.peer == node).copied().collect()
    }

    /// How many feeds each node has.
    #[must_use]
    pub fn per_node(&self) -> BTreeMap<NodeId, u32> {
        let mut counts = BTreeMap::new();
        for feed in self.feeds.keys() {
            *counts.entry(feed.peer).or_default() += 1;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use astral_core::ids::{Direction, StreamId};

    use super::*;

    #[test]
    fn an_older_life_of_a_feed_changes_nothing() {
        let feed = FeedKey {
            stream: StreamId([1; 32]),
            peer: NodeId([2; 32]),
            direction: Direction::ToChild,
        };
        let mut feeds = Feeds::default();
        let first = feeds.begin(feed).unwrap();
        assert!(feeds.up(&feed, first));
        let second = feeds.begin(feed).unwrap();
        assert_eq!(feeds.of(OpenId(second)), Some(feed));
        assert!(!feeds.down(&feed, first));
        assert!(!feeds.up(&feed, first));
        assert!(feeds.up(&feed, second));
        assert!(feeds.close(&feed));
        assert!(!feeds.down(&feed, second));
    }
    #[test]
    fn who_greets_never_keeps_no_place_from_others() {
        let mut feeds = Feeds::default();
        for node in 0..8 {
            for _ in 0..GREETINGS_PER_NODE_MAX {
                assert!(feeds.greeting_begins(NodeId([node; 32])));
            }
            assert!(!feeds.greeting_begins(NodeId([node; 32])));
        }
        assert!(!feeds.greeting_begins(NodeId([9; 32])), "all places are taken");
        feeds.greeting_ends(NodeId([0; 32]));
        assert!(feeds.greeting_begins(NodeId([9; 32])));
    }
}
