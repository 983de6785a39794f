//! Slots that those who were sent to a node lately will probably take.
//!
//! Owns that count. Does not own what members say of themselves, nor who is named to whom.
//!
//! A node tells its supernode of its free slots after they are taken. Until then the directory would
//! name the same few to everybody who asks, and most questions of a joiner would be refused.

use std::time::Duration;

use crate::{
    ids::{NodeId, StreamId},
    time::Timestamp,
};

use super::super::{Candidate, expiring_map::ExpiringMap};

/// Most nodes whose slots are counted as spoken for.
pub(super) const SPOKEN_FOR_MAX: usize = 4_096;

/// Slots by stream and node, until the node says itself what it has left.
#[derive(Debug)]
pub(super) struct SpokenFor(ExpiringMap<(StreamId, NodeId), u16>);

impl SpokenFor {
    pub(super) fn new() -> Self {
        Self(ExpiringMap::new())
    }

    /// What is left of a node's free slots when those who were sent there have come.
    pub(super) fn left_of(&self, stream: StreamId, node: &NodeId, free: u16) -> u16 {
        free.saturating_sub(self.0.get(&(stream, *node)).copied().unwrap_or(0))
    }

    /// Somebody who lacks parents for so many stripes was told of these, and will take slots there
    /// long before whoever gives them says so.
    pub(super) fn told_of(
        &mut self,
        stream: StreamId,
        lacks: usize,
        named: &[Candidate],
        (now, lifetime): (Timestamp, Duration),
    ) {
        let with_slots = || named.iter().filter(|named| named.free > 0 && !named.source);
        let each = lacks.div_ceil(with_slots().count().max(1));
        let each = u16::try_from(each).unwrap_or(u16::MAX);
        for node in with_slots().map(|named| named.contact.node).filter(|_| each > 0) {
            let key = (stream, node);
            if let Some(slots) = self.0.get_mut(&key) {
                *slots = slots.saturating_add(each);
            } else if self.0.len() < SPOKEN_FOR_MAX {
                self.0.insert(key, each, now + lifetime);
            }
        }
    }

    /// What a node has to give has changed: whoever was sent there has come, or somebody else.
    pub(super) fn settled(&mut self, stream: StreamId, node: NodeId) {
        self.0.remove(&(stream, node));
    }

    /// Forgets what is older than its lifetime.
    pub(super) fn expire(&mut self, now: Timestamp) {
        while self.0.pop_due(now).is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::super::{
            Contact,
            testnet::{ms, node, secs},
        },
        *,
    };

    const STREAM: StreamId = StreamId([7; 32]);

    fn candidate(index: u32, free: u16) -> Candidate {
        let mut id = node(0);
        id.0[..4].copy_from_slice(&index.to_be_bytes());
        Candidate { contact: Contact::new(id, Vec::new()), depths: vec![1], free, source: false }
    }

    #[test]
    fn who_was_named_has_fewer_slots_for_the_next_one_until_it_says_itself_what_is_left() {
        let (now, mut spoken) = (Timestamp::default(), SpokenFor::new());
        let [one, two, full] = [candidate(1, 9), candidate(2, 3), candidate(3, 0)];
        let source = Candidate { source: true, ..candidate(4, 9) };
        let named = [one, two, full, source].to_vec();
        let left = |spoken: &SpokenFor| {
            let left = |c: &Candidate| spoken.left_of(STREAM, &c.contact.node, c.free);
            named.iter().map(left).collect::<Vec<u16>>()
        };
        // Eight stripes, two who may give them: four each. The source decides for itself.
        spoken.told_of(STREAM, 8, &named, (now, secs(2)));
        assert_eq!(left(&spoken), [5, 0, 0, 9]);
        spoken.settled(STREAM, named[0].contact.node);
        assert_eq!(left(&spoken), [9, 0, 0, 9]);
        // Whoever lacks nothing takes nothing.
        spoken.told_of(STREAM, 0, &named, (now, secs(2)));
        assert_eq!(left(&spoken), [9, 0, 0, 9]);
        spoken.expire(now + secs(2) + ms(1));
        assert_eq!(left(&spoken), [9, 3, 0, 9]);
    }

    #[test]
    fn nodes_beyond_the_bound_are_not_counted() {
        let (now, mut spoken) = (Timestamp::default(), SpokenFor::new());
        let most = u32::try_from(SPOKEN_FOR_MAX).unwrap();
        for index in 0..most + 2 {
            spoken.told_of(STREAM, 1, &[candidate(index, 5)], (now, secs(2)));
        }
        let left = |index| spoken.left_of(STREAM, &candidate(index, 5).contact.node, 5);
        assert_eq!((left(0), left(most - 1), left(most)), (4, 4, 5));
    }
}
