//! The task that writes one feed: everything that is queued goes out in one write.
//!
//! Owns the coalescing (a write per small frame costs four times the CPU per bit, measured) and the
//! bytes counted as sent. Does not own what is sent when: the relay keeps the queue short.

use std::{io, time::Duration};

use astral_core::{
    ids::{Direction, FeedKey},
    media::frame::{DownFrame, EndReason},
};
use bytes::BytesMut;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::mpsc,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{ToWriter, buffers::Buffers, drained::Drained};
use crate::node::{
    tasks::{self, Tasks},
    traffic::{Class, Meter},
};

/// Batches that wait for a writer; the relay's window of unacknowledged bytes ends long before.
pub const WRITER_QUEUE_MAX: usize = 1_024;
/// Batches taken into one write.
const BATCHES_PER_WRITE: usize = 64;
/// The last words of a feed take at most this: leaving must not wait for a dead peer.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Everything that the task needs.
#[derive(Debug)]
pub struct Writer<W> {
    /// The feed.
    pub feed: FeedKey,
    /// The writable half of the stream.
    pub stream: W,
    /// What is to be written.
    pub queue: mpsc::Receiver<ToWriter>,
    /// Memory for one write.
    pub buffers: Buffers,
    /// What was handed to the transport.
    pub drained: Drained,
    /// Ends the task at once.
    pub stop: CancellationToken,
    /// Counts bytes.
    pub meter: Meter,
    /// For the test hook.
    pub tasks: Tasks,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    /// Writes until the feed ends.
    pub async fn run(mut self) {
        let mut batches = Vec::with_capacity(BATCHES_PER_WRITE);
        loop {
            self.tasks.panic_point(tasks::FEED_WRITER);
            let taken = tokio::select! {
                taken = self.queue.recv_many(&mut batches, BATCHES_PER_WRITE) => taken,
                () = self.stop.cancelled() => return,
            };
            let mut bytes = self.buffers.take();
            let mut sizes = Sizes::default();
            let mut close = taken == 0;
            for batch in batches.drain(..) {
                close |= encode(self.feed.direction, batch, &mut bytes, &mut sizes);
            }
            if close {
                // Nobody waits for these bytes; a peer that does not take them is not waited for.
                let last = async {
                    self.write(&bytes).await?;
                    self.stream.shutdown().await
                };
                if !matches!(timeout(CLOSE_TIMEOUT, last).await, Ok(Ok(()))) {
                    tracing::debug!(feed = ?self.feed, "closed without the last words");
                }
                return;
            }
            let stop = self.stop.clone();
            let written = tokio::select! {
                written = self.write(&bytes) => written,
                () = stop.cancelled() => return,
            };
            if written.is_err() {
                return;
            }
            self.meter.sent(Class::Media, sizes.media);
            self.meter.sent(Class::Control, sizes.control);
            self.drained.add(sizes.media, sizes.control);
            self.buffers.give(bytes);
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Sizes {
    media: usize,
    control: usize,
}

/// Appends a batch; true when the feed is to be closed after it.
fn encode(direction: Direction, batch: ToWriter, out: &mut BytesMut, sizes: &mut Sizes) -> bool {
    match batch {
        ToWriter::Down(frames) => {
            for frame in frames {
                let before = out.len();
                frame.encode(out);
                match frame {
                    DownFrame::Chunk(_) => sizes.media += out.len() - before,
                    _ => sizes.control += out.len() - before,
                }
            }
            false
        }
        ToWriter::Up(frame) => {
            let before = out.len();
            frame.encode(out);
            sizes.control += out.len() - before;
            false
        }
        ToWriter::Close(reason) => {
            if direction == Direction::ToChild {
                end_frame(reason).encode(out);
            }
            true
        }
    }
}

const fn end_frame(reason: EndReason) -> DownFrame<astral_core::media::chunk::WireChunk> {
    DownFrame::End { reason }
}
