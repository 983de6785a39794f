//! Slots that those who were sent to a node lately will probably take.
//!
//! Owns that count. Does not own what members say of themselves, nor who is named to whom.
//!
//! A node tells its supernode of its free slots after they are taken. Until then the directory would
//! name the same few to everybody who asks, and most questions of a joiner would be refused.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    ids::{NodeId, StreamId},
    time::Timestamp,
};

use super::super::{CANDIDATES_MAX, Candidate, expiring_map::ExpiringMap};

/// Most askers whose slots are counted as spoken for.
pub(super) const SPOKEN_FOR_MAX: usize = 4_096;

/// Slots by stream and node, until the node says itself what it has left.
#[derive(Debug)]
pub(super) struct SpokenFor {
    /// By stream and asker: who was named, and how many slots the asker will take there. At most
    /// [`SPOKEN_FOR_MAX`] times [`CANDIDATES_MAX`].
    told: ExpiringMap<(StreamId, NodeId), Vec<(NodeId, u16)>>,
    /// The same by stream and who was named.
    slots: BTreeMap<(StreamId, NodeId), u16>,
}

impl SpokenFor {
    pub(super) const fn new() -> Self {
        Self { told: ExpiringMap::new(), slots: BTreeMap::new() }
    }

    /// What is left of a node's free slots when those who were sent there have come.
    pub(super) fn left_of(&self, stream: StreamId, node: &NodeId, free: u16) -> u16 {
        free.saturating_sub(self.slots.get(&(stream, *node)).copied().unwrap_or(0))
    }

    /// Somebody who lacks parents for so many stripes was told of these, and will take slots there
    /// long before whoever gives them says so; those named first are the likeliest. What it was told
    /// before counts no more: nobody needs a slot twice.
    pub(super) fn told_of(
        &mut self,
        (stream, asker): (StreamId, NodeId),
        lacks: usize,
        named: &[Candidate],
        (now, lifetime): (Timestamp, Duration),
    ) {
        self.asks_again(stream, asker);
        let with_slots: Vec<NodeId> = named
            .iter()
            .filter(|named| named.free > 0 && !named.source)
            .map(|named| named.contact.node)
            .take(CANDIDATES_MAX)
            .collect();
        let among = with_slots.len();
        if among == 0 || lacks == 0 || self.told.len() >= SPOKEN_FOR_MAX {
            return;
        }
        let share = |at: usize| lacks / among + usize::from(at < lacks % among);
        let shares = with_slots.into_iter().enumerate();
        let told: Vec<_> = shares
            .map(|(at, node)| (node, u16::try_from(share(at)).unwrap_or(u16::MAX)))
            .filter(|(_, slots)| *slots > 0)
            .collect();
        for (node, slots) in &told {
            let sum = self.slots.entry((stream, *node)).or_default();
            *sum = sum.saturating_add(*slots);
        }
        self.told.insert((stream, asker), told, now + lifetime);
    }

    /// It asks once more: what it was told of before, it did not get.
    pub(super) fn asks_again(&mut self, stream: StreamId, asker: NodeId) {
        if let Some(told) = self.told.remove(&(stream, asker)) {
            self.take_back(stream, &told);
        }
    }

    /// What a node has to give has changed: whoever was sent there has come, or somebody else.
    pub(super) fn settled(&mut self, stream: StreamId, node: NodeId) {
        if self.slots.remove(&(stream, node)).is_some() {
            self.told.values_mut().for_each(|told| told.retain(|(named, _)| *named != node));
        }
    }

    /// Forgets what is older than its lifetime.
    pub(super) fn expire(&mut self, now: Timestamp) {
        while let Some(((stream, _), told)) = self.told.pop_due(now) {
            self.take_back(stream, &told);
        }
    }

    fn take_back(&mut self, stream: StreamId, told: &[(NodeId, u16)]) {
        for (node, slots) in told {
            let Some(sum) = self.slots.get_mut(&(stream, *node)) else { continue };
            *sum = sum.saturating_sub(*slots);
            if *sum == 0 {
                self.slots.remove(&(stream, *node));
            }
        }
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
        let asker = |index: u32| (STREAM, candidate(100 + index, 0).contact.node);
        spoken.told_of(asker(0), 8, &named, (now, secs(2)));
        assert_eq!(left(&spoken), [5, 0, 0, 9]);
        spoken.settled(STREAM, named[0].contact.node);
        assert_eq!(left(&spoken), [9, 0, 0, 9]);
        // Whoever lacks nothing takes nothing.
        spoken.told_of(asker(1), 0, &named, (now, secs(2)));
        assert_eq!(left(&spoken), [9, 0, 0, 9]);
        // What is settled is not given back once more.
        spoken.told_of(asker(2), 2, &named, (now + secs(1), secs(2)));
        assert_eq!(left(&spoken), [8, 0, 0, 9]);
        spoken.expire(now + secs(2) + ms(1));
        assert_eq!(left(&spoken), [8, 2, 0, 9]);
        spoken.expire(now + secs(3) + ms(1));
        assert_eq!(left(&spoken), [9, 3, 0, 9]);
        assert!(spoken.slots.is_empty(), "nothing is kept of what is over");
    }

    #[test]
    fn who_asks_again_and_again_speaks_for_no_more_slots_than_it_lacks() {
        let (now, mut spoken) = (Timestamp::default(), SpokenFor::new());
        let named = [candidate(1, 3), candidate(2, 3)].to_vec();
        let asker = (STREAM, candidate(100, 0).contact.node);
        for _ in 0..9 {
            spoken.told_of(asker, 1, &named, (now, secs(2)));
        }
        let left =
            |spoken: &SpokenFor, at: usize| spoken.left_of(STREAM, &named[at].contact.node, 3);
        assert_eq!((left(&spoken, 0), left(&spoken, 1)), (2, 3), "one stripe, one slot");
        spoken.asks_again(STREAM, asker.1);
        assert_eq!(
            (left(&spoken, 0), left(&spoken, 1)),
            (3, 3),
            "its own word is not held against it"
        );
    }

    #[test]
    fn askers_beyond_the_bound_are_not_counted() {
        let (now, mut spoken) = (Timestamp::default(), SpokenFor::new());
        let most = u32::try_from(SPOKEN_FOR_MAX).unwrap();
        for index in 0..most + 2 {
            let asker = (STREAM, candidate(100_000 + index, 0).contact.node);
            spoken.told_of(asker, 1, &[candidate(index, 5)], (now, secs(2)));
        }
        let left = |index| spoken.left_of(STREAM, &candidate(index, 5).contact.node, 5);
        assert_eq!((left(0), left(most - 1), left(most)), (4, 4, 5));
    }
}
