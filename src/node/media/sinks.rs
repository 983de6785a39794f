//! The media task's local readers.
//!
//! Owns their queues, which never hold the task up. Does not own what is delivered when (the
//! relay's).

use astral_core::{
    ids::StreamId,
    media::{
        chunk::{ChunkFlags, Payload as _, WireChunk},
        frame::EndReason,
        relay::{Delivery, RelayInput, SinkId},
    },
    overlay::{Event, Input},
};
use tokio::sync::mpsc;

use super::Media;
use crate::node::{meters::Pause, playback::Item};

/// Streams whose reason to end is remembered.
const OVER_MAX: usize = 256;

impl Media {
    /// Something for all readers of a stream.
    pub(super) fn notice(&mut self, stream: StreamId, item: &Item) {
        if let Item::Over(reason) = item {
            // Readers hear of it when they have everything that is left.
            if self.over.len() >= OVER_MAX {
                self.over.pop_first();
            }
            self.over.insert(stream, *reason);
            return;
        }
        let sinks = self.sinks.iter().filter(|(_, sink)| sink.stream == stream);
        let sinks: Vec<SinkId> = sinks.map(|(id, _)| *id).collect();
        for sink in sinks {
            self.hand_over(sink, item.clone());
        }
    }

    /// Tells the overlay of streams that ended, once their readers have all.
    pub(super) fn tell_ends(&mut self) {
        let sinks = &self.sinks;
        let relay = &self.relay;
        // Children may be further behind than this node's own readers.
        let awaited =
            |stream| sinks.values().any(|sink| sink.stream == stream) || !relay.is_served(stream);
        for stream in self.marks.ended(self.clock.now(), awaited) {
            self.report(Input::StreamEnded { stream });
        }
    }

    /// The stream published here pauses or goes on, whether or not anybody here reads it.
    pub(super) fn source_paused(&mut self, stream: StreamId, pause: Option<Pause>) {
        if !self.meters.pause(stream, pause) {
            return;
        }
        self.tell(match pause {
            Some(Pause { reconnecting }) => Event::Paused { stream, reconnecting },
            None => Event::Resumed { stream },
        });
    }

    /// One item of the relay for one reader.
    pub(super) fn deliver(&mut self, sink: SinkId, item: Delivery<WireChunk>) {
        let Some(stream) = self.sinks.get(&sink).map(|known| known.stream) else { return };
        match &item {
            Delivery::Chunk(chunk) => {
                self.meters.delivered(stream, chunk, self.clock.now());
                let flags = chunk.header().flags;
                let reconnecting = flags.contains(ChunkFlags::RECONNECTING);
                if flags.contains(ChunkFlags::PAUSE)
                    && self.meters.pause(stream, Some(Pause { reconnecting }))
                {
                    self.tell(Event::Paused { stream, reconnecting });
                }
            }
            Delivery::Skipped { from_seq, to_seq, cause } => self.tell(Event::Skipped {
                stream,
                from: *from_seq,
                to: *to_seq,
                cause: cause.to_string(),
            }),
            // Said by a parent before the chunk came that says more.
            Delivery::Paused if !self.meters.is_paused(stream) => {
                let reconnecting = false;
                self.meters.pause(stream, Some(Pause { reconnecting }));
                self.tell(Event::Paused { stream, reconnecting });
            }
            Delivery::Resumed if self.meters.pause(stream, None) => {
                self.tell(Event::Resumed { stream });
            }
            _ => {}
        }
        let item = match item {
            Delivery::Ended(reason) => {
                // That this node leaves the stream is the last step, not the reason.
                let reason = match reason {
                    EndReason::Left => self.over.get(&stream).copied().unwrap_or(reason),
                    EndReason::Ended | EndReason::SourceLost | EndReason::Revoked => reason,
                };
                self.hand_over(sink, Item::Media(Delivery::Ended(reason)));
                self.sinks.remove(&sink);
                self.input(RelayInput::Detach { sink });
                self.tell_ends();
                return;
            }
            item => item,
        };
        self.hand_over(sink, Item::Media(item));
    }

    fn hand_over(&mut self, sink: SinkId, item: Item) {
        let Some(known) = self.sinks.get(&sink) else { return };
        if let Err(error) = known.to.try_send(item) {
            if matches!(error, mpsc::error::TrySendError::Full(_)) {
                tracing::warn!(stream = %known.stream.short(), "a reader fell out: its queue is full");
            }
            self.sinks.remove(&sink);
            self.input(RelayInput::Detach { sink });
        }
    }
}
