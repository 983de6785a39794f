//! Memory for what feeds write, lent to one write at a time.
//!
//! Owns the buffers that no write uses just now. A node writes to few of its children at the same
//! moment, but each of them had a burst when it joined: a buffer of its own would stay as large as
//! that (measured: 256 KB a child). Does not own what is in them.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::BytesMut;

/// Spare buffers that are kept; writes beyond so many at the same time allocate.
const SPARE_MAX: usize = 8;
/// A buffer that a burst made larger than this is not kept.
const CAPACITY_MAX: usize = 256 * 1_024;

/// Buffers of all feeds of a node.
#[derive(Clone, Debug, Default)]
pub struct Buffers(Arc<Mutex<Vec<BytesMut>>>);

impl Buffers {
    /// An empty buffer.
    #[must_use]
    pub fn take(&self) -> BytesMut {
        self.spare(Vec::pop).unwrap_or_default()
    }

    /// Gives a buffer back; what is in it is gone.
    pub fn give(&self, mut buffer: BytesMut) {
        if buffer.capacity() > CAPACITY_MAX {
            return;
        }
        buffer.clear();
        self.spare(|spare| {
            if spare.len() < SPARE_MAX {
                spare.push(buffer);
            }
        });
    }

    fn spare<T>(&self, with: impl FnOnce(&mut Vec<BytesMut>) -> T) -> T {
        // Nothing in here can be half done.
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_taken_again_empty() {
        let buffers = Buffers::default();
        let mut buffer = buffers.take();
        buffer.extend_from_slice(&[7; 1_000]);
        let at = buffer.as_ptr();
        buffers.give(buffer);
        let again = buffers.take();
        assert_eq!((again.as_ptr(), again.len()), (at, 0));
    }

    #[test]
    fn no_more_is_kept_than_a_few_of_moderate_size() {
        let buffers = Buffers::default();
        buffers.give(BytesMut::with_capacity(CAPACITY_MAX + 1));
        assert_eq!(buffers.spare(|spare| spare.len()), 0);
        for _ in 0..=SPARE_MAX {
            buffers.give(BytesMut::with_capacity(CAPACITY_MAX));
        }
        assert_eq!(buffers.spare(|spare| spare.len()), SPARE_MAX);
    }
}
