//! The latest frames, for all followers at once.
//!
//! Owns which frames are kept and their numbers, which are consecutive. Does not own what is in them,
//! nor where each follower stands: a follower is a number.

use std::collections::VecDeque;

use axum::extract::ws::Utf8Bytes;

/// Frames kept. At 10,000 events a second, the storm that this is made for, three seconds' worth.
pub const RING_FRAMES_MAX: usize = 32_768;
/// Bytes of frames kept.
pub const RING_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Consecutive frames, the oldest of which go first.
#[derive(Debug)]
pub(super) struct Ring {
    frames: VecDeque<Utf8Bytes>,
    bytes: usize,
    /// The number of the latest frame; 0 before the first.
    seq: u64,
}

impl Ring {
    pub(super) const fn new() -> Self {
        Self { frames: VecDeque::new(), bytes: 0, seq: 0 }
    }

    /// The number of the latest frame.
    pub(super) const fn seq(&self) -> u64 {
        self.seq
    }

    /// Bytes of all frames kept.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keeps the frame with the next number, and forgets the oldest ones that no longer fit.
    pub(super) fn push(&mut self, frame: Utf8Bytes) {
        self.seq += 1;
        self.bytes += frame.len();
        self.frames.push_back(frame);
        while self.frames.len() > RING_FRAMES_MAX || self.bytes > RING_BYTES_MAX {
            let Some(oldest) = self.frames.pop_front() else { break };
            self.bytes -= oldest.len();
        }
    }

    /// Takes the next number for what is not told in frames: everybody is behind now.
    pub(super) fn skip(&mut self) {
        self.seq += 1;
        self.bytes = 0;
        self.frames.clear();
    }

    /// Whether every frame after number `after` is still kept, and `after` was told.
    pub(super) fn reaches_back_to(&self, after: u64) -> bool {
        // Far fewer frames than 2^32 are kept.
        let kept = u64::try_from(self.frames.len()).unwrap_or(u64::MAX);
        after <= self.seq && after >= self.seq - kept
    }

    /// The frames after number `after`, oldest first, up to the one that makes `bytes_max` full;
    /// `None` when some of them are forgotten, or were never told.
    pub(super) fn after(&self, after: u64, bytes_max: usize) -> Option<Vec<Utf8Bytes>> {
        if !self.reaches_back_to(after) {
            return None;
        }
        let missed = usize::try_from(self.seq - after).unwrap_or(usize::MAX);
        let mut bytes = 0;
        let due = self.frames.range(self.frames.len() - missed..).take_while(|frame| {
            let fits = bytes < bytes_max;
            bytes += frame.len();
            fits
        });
        Some(due.cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(lengths: &[usize]) -> Ring {
        let mut ring = Ring::new();
        lengths.iter().for_each(|length| ring.push("x".repeat(*length).into()));
        ring
    }

    fn lengths(frames: Option<Vec<Utf8Bytes>>) -> Option<Vec<usize>> {
        frames.map(|frames| frames.iter().map(|frame| frame.len()).collect())
    }

    #[test]
    fn a_follower_gets_what_came_after_its_number() {
        let ring = ring(&[1, 2, 3]);
        assert_eq!(lengths(ring.after(0, usize::MAX)), Some(vec![1, 2, 3]));
        assert_eq!(lengths(ring.after(2, usize::MAX)), Some(vec![3]));
        assert_eq!(lengths(ring.after(3, usize::MAX)), Some(vec![]));
        assert_eq!(ring.after(4, usize::MAX), None, "never told");
    }

    #[test]
    fn a_batch_ends_with_the_frame_that_fills_it() {
        let ring = ring(&[10, 10, 10, 10]);
        assert_eq!(lengths(ring.after(0, 11)), Some(vec![10, 10]));
        assert_eq!(lengths(ring.after(0, 1)), Some(vec![10]), "one frame is always told");
    }

    #[test]
    fn the_oldest_frames_go_when_there_are_too_many_or_too_large_ones() {
        let many = ring(&vec![1; RING_FRAMES_MAX + 10]);
        assert_eq!((many.frames.len(), many.bytes()), (RING_FRAMES_MAX, RING_FRAMES_MAX));
        assert!(!many.reaches_back_to(9) && many.reaches_back_to(10));
        let large = ring(&[RING_BYTES_MAX / 4 + 1; 9]);
        assert_eq!((large.frames.len(), large.seq()), (3, 9));
        assert!(large.bytes() <= RING_BYTES_MAX);
    }

    #[test]
    fn what_is_skipped_puts_everybody_behind() {
        let mut ring = ring(&[1, 1]);
        ring.skip();
        assert_eq!((ring.seq(), ring.bytes()), (3, 0));
        assert_eq!(ring.after(2, 1), None);
        assert_eq!(ring.after(3, 1), Some(vec![]));
        ring.push("x".into());
        assert_eq!(lengths(ring.after(3, 1)), Some(vec![1]));
    }
}
