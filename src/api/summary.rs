//! What a stream published here came to, told at its end.
//!
//! Owns the peaks of each running stream. Does not own counting: each look at the node is handed in.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use astral_core::{ids::StreamId, media::audience::Audience};
use serde::Serialize;

/// One look at a stream published here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Look {
    /// Who takes it.
    pub audience: Audience,
    /// Payload bytes cut.
    pub bytes: u64,
    /// Payload bytes sent to children.
    pub forwarded_bytes: u64,
}

/// What a stream came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Summary {
    /// Which stream.
    pub stream: StreamId,
    /// How long it was published.
    pub duration_s: u64,
    /// Most nodes that took it at the same time, as far as they said.
    pub nodes_max: u32,
    /// Of these, most that had a player.
    pub viewers_max: u32,
    /// Most viewers at the same time that were spared chunks within five seconds.
    pub stalled_max: u32,
    /// Payload bytes cut.
    pub bytes: u64,
    /// Payload bytes sent by this node.
    pub forwarded_bytes: u64,
}

impl Summary {
    /// For people.
    #[must_use]
    pub fn in_words(&self) -> String {
        let lasted = humantime::format_duration(Duration::from_secs(self.duration_s));
        let mb = |bytes: u64| bytes / 1_000_000;
        format!(
            "stream {} lasted {lasted}: {} MB, sent {} MB from here; at most {} nodes took it, {} \
             watched, {} of them skipped at the same time",
            self.stream.short(),
            mb(self.bytes),
            mb(self.forwarded_bytes),
            self.nodes_max,
            self.viewers_max,
            self.stalled_max
        )
    }
}

/// The streams published here, as far as they came. As many as the node publishes.
#[derive(Debug, Default)]
pub struct Summaries(BTreeMap<StreamId, (Instant, Summary)>);

impl Summaries {
    /// Takes a look at all streams published now; the summaries of those that are not any more.
    pub fn observe(&mut self, now: Instant, looks: &BTreeMap<StreamId, Look>) -> Vec<Summary> {
        for (&stream, look) in looks {
            let (since, summary) = self.0.entry(stream).or_insert_with(|| {
                let nothing = Summary {
                    stream,
                    duration_s: 0,
                    nodes_max: 0,
                    viewers_max: 0,
                    stalled_max: 0,
                    bytes: 0,
                    forwarded_bytes: 0,
                };
                (now, nothing)
            });
            summary.duration_s = now.duration_since(*since).as_secs();
            summary.nodes_max = summary.nodes_max.max(look.audience.nodes);
            summary.viewers_max = summary.viewers_max.max(look.audience.viewers);
            summary.stalled_max = summary.stalled_max.max(look.audience.stalled);
            summary.bytes = summary.bytes.max(look.bytes);
            summary.forwarded_bytes = summary.forwarded_bytes.max(look.forwarded_bytes);
        }
        let over = self.0.extract_if(.., |stream, _| !looks.contains_key(stream));
        over.map(|(_, (_, summary))| summary).collect()
    }

    /// The summaries of what still runs: the node ends.
    pub fn finish(&mut self) -> Vec<Summary> {
        std::mem::take(&mut self.0).into_values().map(|(_, summary)| summary).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_ended_is_told_once_with_its_peaks() {
        let (mut summaries, start) = (Summaries::default(), Instant::now());
        let stream = StreamId([1; 32]);
        let look = |nodes, bytes| {
            let audience = Audience { nodes, viewers: nodes / 2, ..Audience::default() };
            BTreeMap::from([(stream, Look { audience, bytes, forwarded_bytes: 2 * bytes })])
        };
        assert!(summaries.observe(start, &look(4, 10)).is_empty());
        assert!(summaries.observe(start + Duration::from_secs(9), &look(2, 70)).is_empty());
        let over = summaries.observe(start + Duration::from_secs(10), &BTreeMap::new());
        let [summary] = over.as_slice() else { panic!("{over:?}") };
        assert_eq!((summary.duration_s, summary.bytes, summary.forwarded_bytes), (9, 70, 140));
        assert_eq!((summary.nodes_max, summary.viewers_max), (4, 2));
        assert!(summary.in_words().contains("lasted 9s"), "{}", summary.in_words());
        assert!(summaries.finish().is_empty());
    }
}
