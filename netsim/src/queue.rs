//! The event queue: exact (time, sequence) order at a cost that hardly grows with what waits.
//!
//! A wheel of buckets of 1.024 ms holds the next 8.4 seconds, a small heap sorts the bucket that is
//! being emptied, an ordered overflow holds what is further away. Nearly all events of a network are
//! less than a second away, so that most pushes are an append and most pops sort a few dozen
//! entries, where one heap over all of them would miss the cache at every level.
//!
//! Owns the order. Does not own what an event means.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

/// Microseconds of one bucket, as a power of two.
const BUCKET_BITS: u32 = 10;
/// Buckets of the wheel, as a power of two.
const WHEEL_BITS: u32 = 13;
const WHEEL: usize = 1 << WHEEL_BITS;

/// Orders an entry; the handle names its payload.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Key {
    at: u64,
    seq: u64,
    handle: u32,
}

/// Events by time, in microseconds; among equals, by the order of their pushes.
#[derive(Debug)]
pub struct Queue<T> {
    now: u64,
    seq: u64,
    /// Bucket number that `near` holds; all before are empty.
    bucket: u64,
    near: BinaryHeap<Reverse<Key>>,
    wheel: Vec<Vec<Key>>,
    in_wheel: usize,
    far: BTreeMap<(u64, u64), u32>,
    slab: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Queue<T> {
    /// An empty queue at time 0.
    #[must_use]
    pub fn new() -> Self {
        Self {
            now: 0,
            seq: 0,
            bucket: 0,
            near: BinaryHeap::new(),
            wheel: std::iter::repeat_with(Vec::new).take(WHEEL).collect(),
            in_wheel: 0,
            far: BTreeMap::new(),
            slab: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Adds an event. One that would lie in the past happens now.
    pub fn push(&mut self, at: u64, event: T) {
        let handle = self.store(event);
        let key = Key { at: at.max(self.now), seq: self.seq, handle };
        self.seq += 1;
        let bucket = key.at >> BUCKET_BITS;
        if bucket <= self.bucket {
            self.near.push(Reverse(key));
        } else if bucket - self.bucket < WHEEL as u64 {
            self.wheel[place(bucket)].push(key);
            self.in_wheel += 1;
        } else {
            self.far.insert((key.at, key.seq), key.handle);
        }
    }

    /// The next event with its time. Time never goes back.
    pub fn pop(&mut self) -> Option<(u64, T)> {
        while self.near.is_empty() {
            self.turn()?;
        }
        let Reverse(key) = self.near.pop()?;
        assert!(key.at >= self.now, "time went back");
        self.now = key.at;
        let event = self.slab[key.handle as usize].take().expect("each handle is used once");
        self.free.push(key.handle);
        Some((key.at, event))
    }

    /// Time of the last event that was taken.
    #[must_use]
    pub const fn now(&self) -> u64 {
        self.now
    }

    /// Events that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.near.len() + self.in_wheel + self.far.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn store(&mut self, event: T) -> u32 {
        if let Some(handle) = self.free.pop() {
            self.slab[handle as usize] = Some(event);
            return handle;
        }
        self.slab.push(Some(event));
        u32::try_from(self.slab.len() - 1).expect("fewer than 2^32 events wait")
    }

    /// Goes on to the next bucket that holds something.
    fn turn(&mut self) -> Option<()> {
        if self.in_wheel == 0 {
            let (&(at, _), _) = self.far.first_key_value()?;
            self.bucket = at >> BUCKET_BITS;
        } else {
            self.bucket += 1;
        }
        self.draw_near();
        Some(())
    }

    /// Moves what belongs to the current bucket into the heap, and what the wheel now reaches into
    /// the wheel.
    fn draw_near(&mut self) {
        let reach = (self.bucket + WHEEL as u64) << BUCKET_BITS;
        while let Some(entry) = self.far.first_entry() {
            let &(at, seq) = entry.key();
            if at >= reach {
                break;
            }
            let key = Key { at, seq, handle: entry.remove() };
            if at >> BUCKET_BITS == self.bucket {
                self.near.push(Reverse(key));
            } else {
                self.wheel[place(at >> BUCKET_BITS)].push(key);
                self.in_wheel += 1;
            }
        }
        let mut due = std::mem::take(&mut self.wheel[place(self.bucket)]);
        self.in_wheel -= due.len();
        self.near.extend(due.drain(..).map(Reverse));
        // The allocation goes back, so that a turning wheel does not allocate.
        self.wheel[place(self.bucket)] = due;
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self::new()
    }
}

const fn place(bucket: u64) -> usize {
    (bucket & (WHEEL as u64 - 1)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Dice, Purpose};

    /// The same as one heap over everything: the order that the queue promises.
    #[derive(Default)]
    struct Reference {
        heap: BinaryHeap<Reverse<(u64, u64)>>,
        seq: u64,
        now: u64,
    }

    impl Reference {
        fn push(&mut self, at: u64) -> u64 {
            self.heap.push(Reverse((at.max(self.now), self.seq)));
            self.seq += 1;
            self.seq - 1
        }

        fn pop(&mut self) -> Option<(u64, u64)> {
            let Reverse((at, seq)) = self.heap.pop()?;
            self.now = at;
            Some((at, seq))
        }
    }

    fn delay(dice: Dice, i: u64) -> u64 {
        match dice.below(10, Purpose::Jitter, 0, i) {
            0 => 0,
            1..=6 => dice.below(200_000, Purpose::Jitter, 1, i),
            7 => dice.below(20_000, Purpose::Jitter, 2, i),
            8 => dice.below(5_000_000, Purpose::Jitter, 3, i),
            _ => dice.below(100_000_000, Purpose::Jitter, 4, i),
        }
    }

    #[test]
    fn events_come_in_the_order_of_time_then_of_pushes() {
        for seed in 0..5 {
            let dice = Dice::new(seed);
            let (mut queue, mut reference) = (Queue::new(), Reference::default());
            let mut drawn = 0;
            for round in 0..30_000 {
                let pushes = if round < 3_000 { 2 } else { dice.below(3, Purpose::Join, 0, round) };
                for _ in 0..pushes {
                    let at = queue.now() + delay(dice, drawn);
                    drawn += 1;
                    let seq = reference.push(at);
                    queue.push(at, seq);
                }
                assert_eq!(queue.pop(), reference.pop(), "seed {seed} round {round}");
                assert_eq!(queue.len(), reference.heap.len());
            }
            while let Some(expected) = reference.pop() {
                assert_eq!(queue.pop(), Some(expected));
            }
            assert!(queue.is_empty());
        }
    }

    #[test]
    fn an_event_in_the_past_happens_now_behind_what_is_due_now() {
        let mut queue = Queue::new();
        queue.push(1_000_000, 'a');
        queue.push(1_000_000, 'b');
        assert_eq!(queue.pop(), Some((1_000_000, 'a')));
        queue.push(5, 'c');
        assert_eq!(queue.pop(), Some((1_000_000, 'b')));
        assert_eq!(queue.pop(), Some((1_000_000, 'c')));
        assert_eq!(queue.pop(), None);
    }
}
