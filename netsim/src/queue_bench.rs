//! What the event queue costs, beside a binary heap over the same events.
//!
//! Owns the hold model: so many events wait, each that is taken is replaced by one in the near
//! future. Does not own the queue.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    time::{Duration, Instant},
};

use crate::{
    queue::Queue,
    random::{Dice, Purpose, mix},
};

/// One measurement.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Measured {
    /// Events that wait.
    pub waiting: usize,
    /// Operations (a pop and a push) a second of the queue.
    pub queue: f64,
    /// The same of a binary heap.
    pub heap: f64,
}

/// Measures with so many events that wait and so many operations.
///
/// # Panics
/// When the two disagree about the order: then the queue is wrong.
#[must_use]
pub fn measure(waiting: usize, operations: u64) -> Measured {
    let dice = Dice::new(1);
    let mut queue = Queue::new();
    let mut heap = BinaryHeap::new();
    for i in 0..waiting as u64 {
        let at = delay(dice, i);
        queue.push(at, i);
        heap.push(Reverse((at, i)));
    }
    let (queue_order, queue_took) = timed(|| {
        let mut order = 0;
        for i in 0..operations {
            let Some((at, name)) = queue.pop() else { break };
            order = mix(order ^ at ^ name << 32);
            queue.push(at + delay(dice, waiting as u64 + i), waiting as u64 + i);
        }
        order
    });
    let (heap_order, heap_took) = timed(|| {
        let mut order = 0;
        for i in 0..operations {
            let Some(Reverse((at, name))) = heap.pop() else { break };
            order = mix(order ^ at ^ name << 32);
            let next = waiting as u64 + i;
            heap.push(Reverse((at + delay(dice, next), next)));
        }
        order
    });
    assert_eq!(queue_order, heap_order, "the queue keeps the order of a heap");
    let rate = |took: Duration| operations as f64 / took.as_secs_f64().max(1e-9);
    Measured { waiting, queue: rate(queue_took), heap: rate(heap_took) }
}

/// Most events are messages, some leave an uplink, a few are timers.
fn delay(dice: Dice, i: u64) -> u64 {
    match dice.below(20, Purpose::Jitter, 0, i) {
        0..=13 => 1_000 + dice.below(199_000, Purpose::Jitter, 1, i),
        14..=18 => dice.below(20_000, Purpose::Jitter, 2, i),
        _ => 200_000 + dice.below(4_800_000, Purpose::Jitter, 3, i),
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    (work(), start.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_and_heap_agree_on_the_order() {
        let measured = measure(20_000, 60_000);
        assert!(measured.queue > 0.0 && measured.heap > 0.0);
    }
}
