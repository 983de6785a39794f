//! A stream being watched, as a local reader pulls it.
//!
//! Owns the reader's queue and its credit: pulling is what makes room for more. Does not own what is
//! skipped when (the relay's policy for this reader).

use std::time::Duration;

use astral_core::{
    ids::StreamId,
    media::{
        chunk::WireChunk,
        frame::EndReason,
        relay::{Delivery, Policy, RelayInput, SinkId, SkipCause},
    },
};
use bytes::Bytes;
use tokio::sync::mpsc;

use super::{
    handle::{NodeCommand, Shared},
    media::MediaCommand,
};

/// Bytes of chunks that may wait for a reader: two seconds of 8 Mbit/s.
pub const SINK_CREDIT: usize = 2 * 1_024 * 1_024;
/// Items that may wait for a reader, whatever their size; credit ends long before.
pub const SINK_QUEUE_MAX: usize = 16_384;
/// Bytes after which credit is given back.
const CREDIT_STEP: usize = 64 * 1_024;

/// How a stream is to be watched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WatchSpec {
    /// When chunks are skipped.
    pub policy: Policy,
    /// The player's lag, which says how long a failover may take.
    pub lag: Duration,
}

impl WatchSpec {
    /// Live, this far behind the source.
    #[must_use]
    pub const fn live(lag: Duration) -> Self {
        Self { policy: Policy::Live { lag }, lag }
    }

    /// Every chunk, in order: files and recordings.
    #[must_use]
    pub const fn keep_all(lag: Duration) -> Self {
        Self { policy: Policy::KeepAll, lag }
    }
}

/// What waits for a reader.
#[derive(Clone, Debug)]
pub enum Item {
    /// From the relay.
    Media(Delivery<WireChunk>),
    /// The overlay says that nothing comes from the source.
    SourceLost,
    /// The source is back.
    SourceBack,
    /// The overlay gave the stream up, or this node stopped it.
    Over(EndReason),
}

/// What a reader gets, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PlaybackItem {
    /// The next piece of an FLV byte stream: an init segment, which begins with an FLV header, or
    /// a chunk's payload. An init segment comes first, and again after [`Self::NewEpoch`] or a
    /// skip onto changed headers.
    Flv(Bytes),
    /// The source started anew: media time restarts, an init segment follows.
    NewEpoch,
    /// Chunks were left out.
    Skipped {
        /// First chunk left out.
        from_seq: u64,
        /// Last chunk left out.
        to_seq: u64,
        /// Why.
        cause: SkipCause,
    },
    /// The source paused.
    Paused,
    /// The source goes on.
    Resumed,
    /// Nothing comes from the source; it may come back.
    SourceLost,
    /// Media flows again after [`Self::SourceLost`].
    SourceBack,
    /// The stream is over; nothing follows.
    Ended(EndReason),
}

/// A stream being watched. Dropping it stops watching, when nobody else on this node does.
#[derive(Debug)]
pub struct Playback {
    /// The stream.
    pub id: StreamId,
    sink: SinkId,
    items: mpsc::Receiver<Item>,
    taken: usize,
    over: bool,
    shared: Shared,
}

impl Playback {
    pub(super) const fn new(
        id: StreamId,
        sink: SinkId,
        items: mpsc::Receiver<Item>,
        shared: Shared,
    ) -> Self {
        Self { id, sink, items, taken: 0, over: false, shared }
    }

    /// The next item; `None` after the end. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<PlaybackItem> {
        if self.over {
            return None;
        }
        loop {
            self.give_credit(CREDIT_STEP);
            let item = match self.items.try_recv() {
                Ok(item) => item,
                Err(mpsc::error::TryRecvError::Disconnected) => {
                    self.over = true;
                    return None;
                }
                Err(mpsc::error::TryRecvError::Empty) => {
                    // A reader that waits has taken everything: all of it is room.
                    self.give_all_credit().await;
                    match self.items.recv().await {
                        Some(item) => item,
                        None => {
                            self.over = true;
                            return None;
                        }
                    }
                }
            };
            if let Some(item) = self.convert(item) {
                return Some(item);
            }
        }
    }

    fn convert(&mut self, item: Item) -> Option<PlaybackItem> {
        Some(match item {
            Item::Media(Delivery::Init(init)) => PlaybackItem::Flv(init.init.payload),
            Item::Media(Delivery::Chunk(chunk)) => {
                self.taken += chunk.frame().len();
                let payload = chunk.payload();
                if payload.is_empty() {
                    return None;
                }
                PlaybackItem::Flv(payload)
            }
            Item::Media(Delivery::Skipped { from_seq, to_seq, cause }) => {
                PlaybackItem::Skipped { from_seq, to_seq, cause }
            }
            Item::Media(Delivery::Paused) => PlaybackItem::Paused,
            Item::Media(Delivery::Resumed) => PlaybackItem::Resumed,
            Item::Media(Delivery::NewEpoch { .. }) => PlaybackItem::NewEpoch,
            Item::Media(Delivery::Ended(reason)) | Item::Over(reason) => {
                self.over = true;
                PlaybackItem::Ended(reason)
            }
            Item::SourceLost => PlaybackItem::SourceLost,
            Item::SourceBack => PlaybackItem::SourceBack,
        })
    }

    fn give_credit(&mut self, step: usize) {
        if self.taken < step {
            return;
        }
        let input = RelayInput::Credit { sink: self.sink, bytes: self.taken };
        // When the media task is that busy, the credit goes along with the next item.
        if self.shared.media.try_send(MediaCommand::Relay(input)).is_ok() {
            self.taken = 0;
        }
    }

    async fn give_all_credit(&mut self) {
        if self.taken > 0 {
            let input = RelayInput::Credit { sink: self.sink, bytes: self.taken };
            // A node that is gone closes the queue of items as well.
            let _ = self.shared.media.send(MediaCommand::Relay(input)).await;
            self.taken = 0;
        }
    }
}

impl Drop for Playback {
    fn drop(&mut self) {
        let gone = NodeCommand::ReaderGone { stream: self.id, sink: self.sink };
        if self.shared.commands.try_send(gone).is_err() {
            // The node is busy or gone: told when there is room.
            let (commands, stream, sink) = (self.shared.commands.clone(), self.id, self.sink);
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(async move {
                    // A node that is gone needs no telling.
                    let _ = commands.send(NodeCommand::ReaderGone { stream, sink }).await;
                });
            }
        }
    }
}
