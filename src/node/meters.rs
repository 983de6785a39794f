//! What went through this node, per stream.
//!
//! Owns the counters behind the status line and the API's statistics. Does not own per-node
//! traffic (`traffic`) nor the relay's own view.

use std::collections::BTreeMap;

use astral_core::{
    ids::StreamId,
    media::{
        cert::EpochCert,
        chunk::{Payload, WireChunk},
        frame::DownFrame,
        relay::RelaySnapshot,
    },
    time::Timestamp,
    units::Bitrate,
};
use serde::Serialize;

/// Streams that are counted; the relay carries fewer.
const STREAMS_MAX: usize = 512;

/// A source's pause.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pause {
    /// Its encoder broke off and may be back in a moment.
    pub reconnecting: bool,
}

/// Counters of one stream since this node carries it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct StreamStats {
    /// Its name, once a certificate told it.
    pub name: Option<String>,
    /// Number of stripes, once known.
    pub k: Option<u8>,
    /// Nominal rate, once known.
    pub rate: Option<Bitrate>,
    /// Epoch, once known.
    pub epoch: Option<u64>,
    /// Payload bytes cut here.
    pub cut_bytes: u64,
    /// Chunks cut here.
    pub cut_chunks: u64,
    /// Payload bytes received and verified, duplicates included.
    pub received_bytes: u64,
    /// Chunks received and verified, duplicates included.
    pub received_chunks: u64,
    /// Payload bytes handed to local readers, all readers together.
    pub delivered_bytes: u64,
    /// Payload bytes handed to children.
    pub forwarded_bytes: u64,
    /// Age of the newest chunk, in milliseconds: how far this node is behind the source.
    pub delay_ms: Option<u64>,
    /// When the last chunk came or was cut, in milliseconds ago.
    pub idle_ms: Option<u64>,
    /// The source paused.
    pub paused: bool,
    /// From the moment this node joined to the first verified chunk, in milliseconds.
    pub join_ms: Option<u64>,
    /// From the moment this node joined to the first bytes for a local reader, in milliseconds.
    pub first_frame_ms: Option<u64>,
    /// It did because its encoder broke off, and waits for it to be back in a moment.
    pub reconnecting: bool,
    #[serde(skip)]
    last: Option<Timestamp>,
}

/// Counters of all streams.
#[derive(Debug, Default)]
pub struct StreamMeters {
    streams: BTreeMap<StreamId, StreamStats>,
    /// When this node joined; a stream has counters only once something was heard of it.
    joined: BTreeMap<StreamId, Timestamp>,
}

impl StreamMeters {
    fn of(&mut self, stream: StreamId) -> Option<&mut StreamStats> {
        if self.streams.len() >= STREAMS_MAX && !self.streams.contains_key(&stream) {
            return None;
        }
        Some(self.streams.entry(stream).or_default())
    }

    /// This node began to carry the stream.
    pub fn joined(&mut self, stream: StreamId, now: Timestamp) {
        if self.joined.len() < STREAMS_MAX {
            self.joined.entry(stream).or_insert(now);
        }
    }

    /// Milliseconds since this node joined.
    fn since_joined(&self, stream: StreamId, now: Timestamp) -> Option<u64> {
        let waited = now.since(*self.joined.get(&stream)?).as_millis();
        u64::try_from(waited).ok()
    }

    /// A verified certificate.
    pub fn certified(&mut self, stream: StreamId, cert: &EpochCert) {
        if let Some(stats) = self.of(stream)
            && stats.epoch.is_none_or(|epoch| epoch <= cert.epoch)
        {
            stats.name = Some(cert.name.to_string());
            stats.k = Some(cert.k);
            stats.rate = Some(cert.rate);
            stats.epoch = Some(cert.epoch);
        }
    }

    /// A chunk was cut here.
    pub fn cut(&mut self, stream: StreamId, chunk: &WireChunk, now: Timestamp) {
        if let Some(stats) = self.of(stream) {
            stats.cut_bytes += u64::from(chunk.header().payload_len);
            stats.cut_chunks += 1;
            stats.last = Some(now);
        }
    }

    /// A verified chunk came.
    pub fn received(&mut self, stream: StreamId, chunk: &WireChunk, now: Timestamp) {
        let waited = self.since_joined(stream, now);
        if let Some(stats) = self.of(stream) {
            stats.join_ms = stats.join_ms.or(waited);
            stats.received_bytes += u64::from(chunk.header().payload_len);
            stats.received_chunks += 1;
            stats.last = Some(now);
        }
    }

    /// A chunk went to a local reader.
    pub fn delivered(&mut self, stream: StreamId, chunk: &WireChunk, now: Timestamp) {
        let waited = self.since_joined(stream, now);
        if let Some(stats) = self.of(stream) {
            stats.first_frame_ms = stats.first_frame_ms.or(waited);
            stats.delivered_bytes += u64::from(chunk.header().payload_len);
        }
    }

    /// Frames went to a child.
    pub fn sent(&mut self, stream: StreamId, frames: &[DownFrame<WireChunk>]) {
        let bytes = frames.iter().map(|frame| match frame {
            DownFrame::Chunk(chunk) => u64::from(chunk.header().payload_len),
            _ => 0,
        });
        let bytes: u64 = bytes.sum();
        if bytes > 0
            && let Some(stats) = self.of(stream)
        {
            stats.forwarded_bytes += bytes;
        }
    }

    /// The source paused or went on (`None`); whether that is news.
    pub fn pause(&mut self, stream: StreamId, pause: Option<Pause>) -> bool {
        let Some(stats) = self.of(stream) else { return false };
        let before = (stats.paused, stats.reconnecting);
        stats.paused = pause.is_some();
        stats.reconnecting = pause.is_some_and(|pause| pause.reconnecting);
        before != (stats.paused, stats.reconnecting)
    }

    /// Whether the source paused, as far as is known here.
    #[must_use]
    pub fn is_paused(&self, stream: StreamId) -> bool {
        self.streams.get(&stream).is_some_and(|stats| stats.paused)
    }

    /// The stream is not carried any more.
    pub fn forget(&mut self, stream: StreamId) {
        self.streams.remove(&stream);
        self.joined.remove(&stream);
    }

    /// All counters, with what the relay says of ages.
    #[must_use]
    pub fn view(&self, now: Timestamp, relay: &RelaySnapshot) -> BTreeMap<StreamId, StreamStats> {
        let mut view = self.streams.clone();
        for (stream, stats) in &mut view {
            let known = relay.streams.iter().find(|known| known.stream == *stream);
            stats.delay_ms = known.filter(|k| k.head_seq.is_some()).map(|known| known.age_ms);
            let idle = stats.last.map(|last| now.since(last).as_millis());
            stats.idle_ms = idle.and_then(|ms| u64::try_from(ms).ok());
        }
        view
    }
}
