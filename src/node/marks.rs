//! What single chunks say about their stream: paused, resumed, ended.
//!
//! Owns when the overlay hears of it, which sees no chunks. Does not own what readers hear (the
//! relay's, in order with the media).

use std::{collections::BTreeMap, time::Duration};

use astral_core::{
    ids::StreamId,
    media::chunk::{ChunkFlags, ChunkHeader},
    time::Timestamp,
};

/// Streams remembered; the relay carries fewer.
const STREAMS_MAX: usize = 512;
/// Readers that still wait for chunks before the end keep the stream open at most so long.
const END_PATIENCE: Duration = Duration::from_secs(10);
/// A parent's word that the source is paused counts when nothing came for so long.
const QUIET: Duration = Duration::from_millis(500);

/// All streams.
#[derive(Debug, Default)]
pub struct Marks {
    streams: BTreeMap<StreamId, Mark>,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    epoch: u64,
    /// `seq` behind which a chunk means that the source went on.
    paused_at: Option<u64>,
    last_chunk: Timestamp,
    end_seen: Option<Timestamp>,
    end_told: bool,
}

impl Marks {
    fn of(&mut self, stream: StreamId, epoch: u64, now: Timestamp) -> Option<&mut Mark> {
        if self.streams.len() >= STREAMS_MAX && !self.streams.contains_key(&stream) {
            return None;
        }
        let fresh =
            Mark { epoch, paused_at: None, last_chunk: now, end_seen: None, end_told: false };
        let mark = self.streams.entry(stream).or_insert(fresh);
        if mark.epoch < epoch {
            // The source restarted; whether it was paused does not matter any more.
            *mark = Mark { paused_at: mark.paused_at.map(|_| 0), ..fresh };
        }
        Some(mark)
    }

    /// A verified chunk came; whether the source paused (true) or went on (false), when that is
    /// news.
    pub fn chunk(
        &mut self,
        stream: StreamId,
        header: &ChunkHeader,
        now: Timestamp,
    ) -> Option<bool> {
        let mark = self.of(stream, header.epoch, now)?;
        if header.epoch < mark.epoch {
            return None;
        }
        mark.last_chunk = now;
        if header.flags.contains(ChunkFlags::END) {
            mark.end_seen.get_or_insert(now);
        }
        if header.flags.contains(ChunkFlags::PAUSE) {
            let is_news = mark.paused_at.is_none();
            mark.paused_at = Some(mark.paused_at.unwrap_or(0).max(header.seq));
            return is_news.then_some(true);
        }
        if mark.paused_at.is_some_and(|at| header.seq > at) {
            mark.paused_at = None;
            return Some(false);
        }
        None
    }

    /// A parent says that the source is paused; whether that is news.
    pub fn keep(&mut self, stream: StreamId, now: Timestamp) -> bool {
        match self.streams.get_mut(&stream) {
            Some(mark) if mark.paused_at.is_none() && now.since(mark.last_chunk) >= QUIET => {
                mark.paused_at = Some(0);
                true
            }
            Some(_) => false,
            None => self.of(stream, 0, now).is_some_and(|mark| mark.paused_at.replace(0).is_none()),
        }
    }

    /// Streams whose end chunk has come and for which nobody here waits any more; each once.
    pub fn ended(&mut self, now: Timestamp, awaited: impl Fn(StreamId) -> bool) -> Vec<StreamId> {
        let mut ended = Vec::new();
        for (stream, mark) in &mut self.streams {
            let Some(seen) = mark.end_seen.filter(|_| !mark.end_told) else { continue };
            if now.since(seen) >= END_PATIENCE || !awaited(*stream) {
                mark.end_told = true;
                ended.push(*stream);
            }
        }
        ended
    }

    /// The stream is not carried any more.
    pub fn forget(&mut self, stream: StreamId) {
        self.streams.remove(&stream);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: StreamId = StreamId([1; 32]);

    fn header(seq: u64, flags: ChunkFlags) -> ChunkHeader {
        ChunkHeader {
            epoch: 7,
            seq,
            stripe: 0,
            stripe_seq: seq,
            time_ms: seq * 40,
            flags,
            fragment: 0,
            fragments: 1,
            init_version: 1,
            key_id: 0,
            payload_len: 0,
        }
    }

    #[test]
    fn a_late_chunk_from_before_the_pause_does_not_end_it() {
        let mut marks = Marks::default();
        let now = Timestamp::ZERO;
        assert_eq!(marks.chunk(STREAM, &header(1, ChunkFlags::NONE), now), None);
        assert_eq!(marks.chunk(STREAM, &header(3, ChunkFlags::PAUSE), now), Some(true));
        assert_eq!(marks.chunk(STREAM, &header(2, ChunkFlags::NONE), now), None);
        assert_eq!(marks.chunk(STREAM, &header(4, ChunkFlags::NONE), now), Some(false));
    }

    #[test]
    fn who_joins_a_paused_stream_hears_it_from_the_parent() {
        let mut marks = Marks::default();
        assert!(marks.keep(STREAM, Timestamp::ZERO));
        assert!(!marks.keep(STREAM, Timestamp::ZERO));
        let resumed = marks.chunk(STREAM, &header(9, ChunkFlags::NONE), Timestamp::ZERO);
        assert_eq!(resumed, Some(false));
    }

    #[test]
    fn the_end_is_told_once_and_not_before_the_readers_have_all() {
        let mut marks = Marks::default();
        let now = Timestamp::ZERO;
        assert_eq!(marks.chunk(STREAM, &header(5, ChunkFlags::END), now), None);
        assert!(marks.ended(now, |_| true).is_empty());
        assert_eq!(marks.ended(now, |_| false), [STREAM]);
        assert!(marks.ended(now, |_| false).is_empty());
    }
}
