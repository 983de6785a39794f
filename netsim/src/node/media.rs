//! What moves media at a node: the production relay, or the intervals that stand for it.
//!
//! Owns the choice. Does not own either.

use astral_core::{
    media::relay::{Relay, RelayInput, RelayOutput},
    time::Timestamp,
};

use crate::{intervals::Intervals, payload::SimChunk, tally::CutLog};

/// See the module.
#[derive(Debug)]
pub enum Media {
    /// Chunk by chunk.
    Chunks(Box<Relay<SimChunk>>),
    /// By what changes.
    Intervals(Box<Intervals>),
}

impl Media {
    pub(super) fn handle_input(
        &mut self,
        input: RelayInput<SimChunk>,
        now: Timestamp,
        cuts: &CutLog,
    ) {
        match self {
            Self::Chunks(relay) => relay.handle_input(input, now),
            Self::Intervals(intervals) => intervals.handle_input(input, now, cuts),
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Timestamp, cuts: &CutLog) {
        match self {
            Self::Chunks(relay) => relay.handle_timeout(now),
            Self::Intervals(intervals) => intervals.handle_timeout(now, cuts),
        }
    }

    pub(super) fn poll_output(&mut self) -> Option<RelayOutput<SimChunk>> {
        match self {
            Self::Chunks(relay) => relay.poll_output(),
            Self::Intervals(intervals) => intervals.poll_output(),
        }
    }

    pub(super) fn poll_timeout(&self) -> Timestamp {
        match self {
            Self::Chunks(relay) => relay.poll_timeout().map_or(Timestamp::NEVER, |(at, _)| at),
            Self::Intervals(intervals) => intervals.poll_timeout(),
        }
    }

    /// The relay, where chunks are moved.
    #[must_use]
    pub const fn relay(&self) -> Option<&Relay<SimChunk>> {
        match self {
            Self::Chunks(relay) => Some(relay),
            Self::Intervals(_) => None,
        }
    }

    pub(super) const fn intervals(&mut self) -> Option<&mut Intervals> {
        match self {
            Self::Chunks(_) => None,
            Self::Intervals(intervals) => Some(intervals),
        }
    }
}
