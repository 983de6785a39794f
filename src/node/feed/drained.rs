//! What a feed's writer handed to the transport and the relay was not told of yet.
//!
//! Owns two counters between the writer and the media task. They are looked at when they matter (an
//! ACK came, time passed): a message for each write would wake the media task once for each child
//! and picture. Does not own traffic statistics (`traffic`).

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Shared by one feed's writer, who adds, and the media task, who takes.
#[derive(Clone, Debug, Default)]
pub struct Drained(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    chunks: AtomicU64,
    other: AtomicU64,
}

impl Drained {
    /// Bytes of whole frames were handed to the transport: of chunks, and of all others.
    pub fn add(&self, chunks: usize, other: usize) {
        self.0.chunks.fetch_add(chunks as u64, Ordering::Relaxed);
        self.0.other.fetch_add(other as u64, Ordering::Relaxed);
    }

    /// Takes what was added since the last time: bytes of all frames, and of chunks among them.
    /// `None` = nothing.
    pub fn take(&self) -> Option<(usize, usize)> {
        let take = |counter: &AtomicU64| {
            usize::try_from(counter.swap(0, Ordering::Relaxed)).unwrap_or(usize::MAX)
        };
        let (chunks, other) = (take(&self.0.chunks), take(&self.0.other));
        let all = chunks.saturating_add(other);
        (all > 0).then_some((all, chunks))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_taken_once() {
        let writer = Drained::default();
        let media = writer.clone();
        writer.add(1_000, 20);
        writer.add(500, 0);
        assert_eq!(media.take(), Some((1_520, 1_500)));
        assert_eq!(media.take(), None);
    }
}
