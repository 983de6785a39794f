//! How long a stripe stood still when its parent changed.
//!
//! Owns the arrival times from which `parent_changed.gap_ms` is filled: only the driver sees single
//! chunks. Does not own the decision to move a stripe.

use std::collections::BTreeMap;

use astral_core::{
    ids::{NodeId, StreamId, Stripe},
    overlay::Event,
    time::Timestamp,
};
use std::time::Duration;

/// Arrivals remembered: parents of 16 stripes of many streams.
const ARRIVALS_MAX: usize = 8_192;
/// Moves that wait for their first chunk.
const WAITING_MAX: usize = 1_024;
/// A move without any chunk is told without a gap after this.
const WAIT: Duration = Duration::from_secs(5);

type Place = (StreamId, Stripe, NodeId);

/// When chunks came from whom.
#[derive(Debug, Default)]
pub struct Moves {
    last: BTreeMap<Place, Timestamp>,
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    place: Place,
    old_last: Option<Timestamp>,
    since: Timestamp,
    event: Event,
}

impl Moves {
    /// A chunk came; gives the events that waited for it.
    pub fn arrived(
        &mut self,
        stream: StreamId,
        stripe: Stripe,
        from: NodeId,
        now: Timestamp,
    ) -> Vec<Event> {
        let place = (stream, stripe, from);
        if self.last.len() >= ARRIVALS_MAX && !self.last.contains_key(&place) {
            self.last.retain(|_, at| now.since(*at) < WAIT);
        }
        if self.last.len() < ARRIVALS_MAX {
            self.last.insert(place, now);
        }
        if self.waiting.is_empty() {
            return Vec::new();
        }
        let (done, rest) =
            std::mem::take(&mut self.waiting).into_iter().partition(|w| w.place == place);
        self.waiting = rest;
        let done: Vec<Waiting> = done;
        done.into_iter().map(|w| w.fill(Some(now))).collect()
    }

    /// The overlay moved a stripe: the event back at once, or later by [`Self::arrived`] or
    /// [`Self::late`].
    pub fn moved(&mut self, event: Event, now: Timestamp) -> Option<Event> {
        let Event::ParentChanged { stream, stripe, old: Some(old), new, gap_ms: None, .. } = event
        else {
            return Some(event);
        };
        let old_last = self.last.get(&(stream, stripe, old)).copied();
        let place = (stream, stripe, new);
        let waiting = Waiting { place, old_last, since: now, event };
        // A stripe that already flows from the new parent made no pause worth the name.
        let flowing = self.last.get(&place).copied().filter(|at| Some(*at) > old_last);
        if flowing.is_some() || self.waiting.len() >= WAITING_MAX {
            return Some(waiting.fill(flowing));
        }
        self.waiting.push(waiting);
        None
    }

    /// The events that waited in vain.
    pub fn late(&mut self, now: Timestamp) -> Vec<Event> {
        let (late, rest) =
            std::mem::take(&mut self.waiting).into_iter().partition(|w| now.since(w.since) >= WAIT);
        self.waiting = rest;
        let late: Vec<Waiting> = late;
        late.into_iter().map(|w| w.event).collect()
    }

    /// A stream is not carried any more.
    pub fn forget(&mut self, stream: StreamId) {
        self.last.retain(|place, _| place.0 != stream);
    }
}

impl Waiting {
    fn fill(self, first: Option<Timestamp>) -> Event {
        let mut event = self.event;
        if let (Event::ParentChanged { gap_ms, .. }, Some(first), Some(last)) =
            (&mut event, first, self.old_last)
        {
            *gap_ms = u64::try_from(first.since(last).as_millis()).ok();
        }
        event
    }
}

#[cfg(test)]
mod tests {
    use astral_core::overlay::MoveCause;

    use super::*;

    const STREAM: StreamId = StreamId([1; 32]);
    const OLD: NodeId = NodeId([2; 32]);
    const NEW: NodeId = NodeId([3; 32]);

    fn moved() -> Event {
        Event::ParentChanged {
            stream: STREAM,
            stripe: 0,
            old: Some(OLD),
            new: NEW,
            cause: MoveCause::Closed,
            gap_ms: None,
        }
    }

    fn gap(event: &Event) -> Option<u64> {
        match event {
            Event::ParentChanged { gap_ms, .. } => *gap_ms,
            _ => None,
        }
    }

    #[test]
    fn the_gap_is_from_the_last_old_to_the_first_new_chunk() {
        let mut moves = Moves::default();
        assert!(moves.arrived(STREAM, 0, OLD, Timestamp::from_millis(100)).is_empty());
        assert_eq!(moves.moved(moved(), Timestamp::from_millis(150)), None);
        assert!(moves.arrived(STREAM, 1, NEW, Timestamp::from_millis(160)).is_empty());
        let told = moves.arrived(STREAM, 0, NEW, Timestamp::from_millis(180));
        assert_eq!(told.iter().map(gap).collect::<Vec<_>>(), [Some(80)]);
    }

    #[test]
    fn a_move_without_chunks_is_told_without_a_gap() {
        let mut moves = Moves::default();
        assert_eq!(moves.moved(moved(), Timestamp::ZERO), None);
        assert!(moves.late(Timestamp::from_millis(4_000)).is_empty());
        assert_eq!(moves.late(Timestamp::from_millis(5_000)), [moved()]);
    }
}
