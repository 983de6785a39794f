//! One client's place in the ring.
//!
//! Owns what a client is told next. Does not own its socket, nor any queue: what it has not been told
//! is in the ring that all share, or in the next snapshot.

use std::sync::Arc;

use axum::extract::ws::Utf8Bytes;
use tokio::sync::watch;

use super::{Changes, Snapshot};

/// Bytes of frames handed out at once: what one client may hold in the memory of the node.
pub const BATCH_BYTES: usize = 64 * 1024;

/// What a client is told next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Told {
    /// Frames with the next numbers.
    Frames(Vec<Utf8Bytes>),
    /// Everything anew: it is new, it asked, or the ring has forgotten what it missed.
    Snapshot(Arc<Snapshot>),
    /// It fell behind again before it had caught up since the latest snapshot: it reads too slowly
    /// to follow at all.
    TooSlow,
}

/// A client that follows the changes.
#[derive(Debug)]
pub struct Follower {
    changes: Changes,
    latest: watch::Receiver<u64>,
    /// The latest number it was told.
    at: u64,
    wants_snapshot: bool,
    caught_up: bool,
}

impl Follower {
    pub(super) fn new(changes: Changes, latest: watch::Receiver<u64>, at: Option<u64>) -> Self {
        let wants_snapshot = at.is_none();
        Self { changes, latest, at: at.unwrap_or(0), wants_snapshot, caught_up: true }
    }

    /// The latest number it was told.
    #[must_use]
    pub const fn seq(&self) -> u64 {
        self.at
    }

    /// It wants everything anew.
    pub const fn resync(&mut self) {
        self.wants_snapshot = true;
    }

    /// What it is told next; waits while there is nothing new. May be dropped at any time: nothing is
    /// lost by it.
    pub async fn next(&mut self) -> Told {
        loop {
            if self.wants_snapshot {
                let snapshot = self.changes.snapshot(self.at).await;
                self.wants_snapshot = false;
                self.at = snapshot.seq;
                return Told::Snapshot(snapshot);
            }
            // Seen before the ring is read, so that what comes after is waited for no longer.
            self.latest.mark_unchanged();
            match self.changes.after(self.at) {
                Some(frames) if frames.is_empty() => {
                    self.caught_up = true;
                    self.latest.changed().await.expect("the sender is in `changes`");
                }
                Some(frames) => {
                    // A batch is far shorter than 2^32 frames.
                    self.at += u64::try_from(frames.len()).unwrap_or(0);
                    return Told::Frames(frames);
                }
                None if self.caught_up => {
                    self.caught_up = false;
                    self.wants_snapshot = true;
                }
                None => return Told::TooSlow,
            }
        }
    }
}
