//! Why this node carries a stream: published, watched by local readers, seeded.
//!
//! Owns that bookkeeping and when it means that a stream is not wanted any more. Does not own what
//! is done about it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use astral_core::{ids::StreamId, media::relay::SinkId, overlay::Interest};

/// Local readers of all streams together.
pub const READERS_MAX: usize = 256;

/// All streams that somebody on this node wants.
#[derive(Debug, Default)]
pub struct Streams {
    streams: BTreeMap<StreamId, Wanted>,
    closing: BTreeSet<StreamId>,
}

#[derive(Debug, Default)]
struct Wanted {
    published: bool,
    announced: bool,
    seeded: bool,
    readers: BTreeSet<SinkId>,
    lag: Duration,
}

/// What a change means for the overlay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// Nothing.
    None,
    /// Watch it, or change how.
    Watch {
        /// The lag.
        lag: Duration,
        /// Why.
        kind: Interest,
    },
    /// Stop watching.
    Unwatch,
}

impl Streams {
    /// A stream is to be published here; false when it is already.
    pub fn publish(&mut self, stream: StreamId) -> bool {
        let wanted = self.streams.entry(stream).or_default();
        !std::mem::replace(&mut wanted.published, true)
    }

    /// The published stream was announced.
    pub fn announced(&mut self, stream: StreamId) {
        if let Some(wanted) = self.streams.get_mut(&stream) {
            wanted.announced = true;
        }
    }

    /// Publishing is over; whether it had been announced.
    pub fn unpublish(&mut self, stream: StreamId) -> bool {
        self.streams.remove(&stream).is_some_and(|wanted| wanted.announced)
    }

    /// A local reader comes; `None` when there are too many.
    pub fn read(&mut self, stream: StreamId, sink: SinkId, lag: Duration) -> Option<Change> {
        let readers: usize = self.streams.values().map(|wanted| wanted.readers.len()).sum();
        if readers >= READERS_MAX {
            return None;
        }
        let wanted = self.streams.entry(stream).or_default();
        wanted.readers.insert(sink);
        wanted.lag = lag;
        if wanted.published {
            return Some(Change::None);
        }
        Some(Change::Watch { lag, kind: Interest::Play })
    }

    /// A local reader left. The stream is still watched: see [`Self::stop_if_unused`].
    pub fn reader_gone(&mut self, stream: StreamId, sink: SinkId) -> Change {
        let Some(wanted) = self.streams.get_mut(&stream) else { return Change::None };
        let was_there = wanted.readers.remove(&sink);
        if was_there && wanted.readers.is_empty() && wanted.seeded && !wanted.published {
            return Change::Watch { lag: wanted.lag, kind: Interest::Seed };
        }
        Change::None
    }

    /// Forward it whether or not somebody reads it.
    pub fn seed(&mut self, stream: StreamId) -> Change {
        let wanted = self.streams.entry(stream).or_default();
        wanted.seeded = true;
        if wanted.published || !wanted.readers.is_empty() {
            return Change::None;
        }
        Change::Watch { lag: wanted.lag, kind: Interest::Seed }
    }

    /// No longer forward it for its own sake; local readers keep it.
    pub fn unseed(&mut self, stream: StreamId) -> Change {
        if let Some(wanted) = self.streams.get_mut(&stream) {
            wanted.seeded = false;
        }
        self.stop_if_unused(stream)
    }

    /// Stop it, whoever reads or seeds it.
    pub fn stop(&mut self, stream: StreamId) -> Change {
        if self.streams.get(&stream).is_none_or(|wanted| wanted.published) {
            return Change::None;
        }
        self.streams.remove(&stream);
        Change::Unwatch
    }

    /// Stop it when nobody reads, seeds or publishes it.
    pub fn stop_if_unused(&mut self, stream: StreamId) -> Change {
        match self.streams.get(&stream) {
            Some(wanted) if wanted.readers.is_empty() && !wanted.seeded => self.stop(stream),
            _ => Change::None,
        }
    }

    /// The overlay gave it up.
    pub fn ended(&mut self, stream: StreamId) {
        if self.streams.get(&stream).is_some_and(|wanted| !wanted.published) {
            self.streams.remove(&stream);
        }
    }

    /// The streams that others feed to this node.
    pub fn carried(&self) -> impl Iterator<Item = StreamId> {
        self.streams.iter().filter(|(_, wanted)| !wanted.published).map(|(stream, _)| *stream)
    }

    /// Whether feeds of this stream have any business here.
    #[must_use]
    pub fn is_carried(&self, stream: StreamId) -> bool {
        self.streams.contains_key(&stream)
    }

    /// Whether it is published here.
    #[must_use]
    pub fn is_published(&self, stream: StreamId) -> bool {
        self.streams.get(&stream).is_some_and(|wanted| wanted.published)
    }

    /// The overlay does not carry it any more; the relay forgets it at the end of this drain.
    pub fn close(&mut self, stream: StreamId) {
        self.closing.insert(stream);
    }

    /// The overlay carries it after all; whether it was about to close.
    pub fn open(&mut self, stream: StreamId) -> bool {
        self.closing.remove(&stream)
    }

    /// Streams to close now.
    pub fn take_closing(&mut self) -> BTreeSet<StreamId> {
        std::mem::take(&mut self.closing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: StreamId = StreamId([1; 32]);
    const LAG: Duration = Duration::from_millis(1_500);

    #[test]
    fn a_stream_outlives_its_readers_until_nobody_wants_it() {
        let mut streams = Streams::default();
        let play = Change::Watch { lag: LAG, kind: Interest::Play };
        assert_eq!(streams.read(STREAM, SinkId(1), LAG), Some(play));
        assert_eq!(streams.seed(STREAM), Change::None);
        let seed = Change::Watch { lag: LAG, kind: Interest::Seed };
        assert_eq!(streams.reader_gone(STREAM, SinkId(1)), seed);
        assert_eq!(streams.stop_if_unused(STREAM), Change::None);
        assert_eq!(streams.unseed(STREAM), Change::Unwatch);
        assert!(!streams.is_carried(STREAM));
    }

    #[test]
    fn a_published_stream_is_read_here_without_the_overlay() {
        let mut streams = Streams::default();
        assert!(streams.publish(STREAM));
        assert!(!streams.publish(STREAM));
        assert_eq!(streams.read(STREAM, SinkId(1), LAG), Some(Change::None));
        assert_eq!(streams.stop(STREAM), Change::None);
        assert!(!streams.unpublish(STREAM));
    }

    #[test]
    fn readers_are_bounded() {
        let mut streams = Streams::default();
        for n in 0..READERS_MAX as u64 {
            assert!(streams.read(STREAM, SinkId(n), LAG).is_some());
        }
        assert_eq!(streams.read(STREAM, SinkId(u64::MAX), LAG), None);
    }
}
