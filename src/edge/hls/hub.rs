//! Which streams are cut for HLS at the moment, and until when.
//!
//! Owns one task a stream, started by the first request and ended when nobody asked for
//! [`IDLE_MAX`]. Does not own routes nor the window itself.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use astral_core::{
    ids::StreamId,
    media::flv::{FlvLimits, TagReader},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

use super::window::Window;
use crate::edge::{
    fmp4::Fragmenter,
    interest::{Interests, ReadError, Reader},
    ports::{MediaItem, MediaSource},
    splice::{Clock, Splicer},
};

/// Streams cut at the same time; each holds a window of at most
/// [`WINDOW_BYTES_MAX`](super::window::WINDOW_BYTES_MAX).
pub const STREAMS_MAX: usize = 16;
/// A stream for which nobody asked this long is cut no more: several reloads of any player.
pub const IDLE_MAX: Duration = Duration::from_secs(30);

/// One stream being cut.
#[derive(Debug)]
pub(super) struct Cutting {
    window: Mutex<Window>,
    /// Counts the changes of the window.
    changes: watch::Sender<u64>,
    asked: Mutex<Instant>,
}

impl Cutting {
    fn new() -> Self {
        Self {
            window: Mutex::default(),
            changes: watch::Sender::new(0),
            asked: Mutex::new(Instant::now()),
        }
    }

    /// Reads the window.
    pub(super) fn with<T>(&self, read: impl FnOnce(&Window) -> T) -> T {
        read(&lock(&self.window))
    }

    /// Waits until the window answers, at most `within`. Somebody asks, so the stream goes on.
    pub(super) async fn until<T>(
        &self,
        within: Duration,
        mut answer: impl FnMut(&Window) -> Option<T>,
    ) -> Option<T> {
        let mut changes = self.changes.subscribe();
        let wait = async {
            loop {
                *lock(&self.asked) = Instant::now();
                changes.mark_unchanged();
                if let Some(answer) = self.with(&mut answer) {
                    return Some(answer);
                }
                // The sender lives as long as `self`.
                changes.changed().await.ok()?;
            }
        };
        timeout(within, wait).await.ok().flatten()
    }

    fn change(&self, change: impl FnOnce(&mut Window)) {
        change(&mut lock(&self.window));
        self.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    fn idle_at(&self) -> Instant {
        *lock(&self.asked) + IDLE_MAX
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing between lock and unlock can panic half-way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a stream can't be cut.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum HubError {
    #[error("{STREAMS_MAX} streams are cut for HLS already: close a player, or use HTTP-FLV")]
    TooMany,
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// All streams being cut. Clones share it.
#[derive(Clone, Debug)]
pub struct Hub {
    interests: Interests,
    table: Arc<Mutex<BTreeMap<StreamId, Arc<Cutting>>>>,
}

impl Hub {
    /// None yet, over `interests`.
    #[must_use]
    pub fn new(interests: Interests) -> Self {
        Self { interests, table: Arc::default() }
    }

    /// Streams being cut.
    #[must_use]
    pub fn len(&self) -> usize {
        lock(&self.table).len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The stream if it is being cut.
    pub(super) fn get(&self, id: StreamId) -> Option<Arc<Cutting>> {
        lock(&self.table).get(&id).cloned()
    }

    /// The stream, which is cut from here on.
    pub(super) async fn open(&self, id: StreamId) -> Result<Arc<Cutting>, HubError> {
        if let Some(cutting) = self.get(id) {
            return Ok(cutting);
        }
        if self.len() >= STREAMS_MAX {
            return Err(HubError::TooMany);
        }
        let reader = self.interests.read_past(id).await?;
        let cutting = {
            let mut table = lock(&self.table);
            // Another request may have been faster; its reader is as good as ours.
            if let Some(cutting) = table.get(&id) {
                return Ok(cutting.clone());
            }
            let cutting = Arc::new(Cutting::new());
            table.insert(id, cutting.clone());
            cutting
        };
        let (hub, work) = (self.clone(), cutting.clone());
        tokio::spawn(async move {
            let leave = Leave { hub, id };
            cut(reader, &work).await;
            drop(leave);
        });
        Ok(cutting)
    }
}

/// Takes a stream out of the table however its task ends.
struct Leave {
    hub: Hub,
    id: StreamId,
}

impl Drop for Leave {
    fn drop(&mut self) {
        lock(&self.hub.table).remove(&self.id);
    }
}

/// Cuts until the stream is over and its last playlist had time to be read, or nobody asks.
async fn cut(mut reader: Reader, cutting: &Cutting) {
    let mut splicer = Splicer::new(Clock::Zero);
    let mut tags = TagReader::new(FlvLimits::default());
    let mut fragmenter = Fragmenter::default();
    loop {
        let item = tokio::select! {
            item = reader.next() => item,
            () = sleep_until(cutting.idle_at()) => {
                if Instant::now() >= cutting.idle_at() {
                    return;
                }
                continue;
            }
        };
        match item {
            Some(MediaItem::Ended { .. }) | None => break,
            Some(item) => tags.push(&splicer.take(&item)),
        }
        let mut made = Vec::new();
        // The splicer lets whole FLV through and nothing else.
        while let Some(Ok(tag)) = tags.next() {
            made.extend(fragmenter.push(&tag));
        }
        if !made.is_empty() {
            cutting.change(|window| made.into_iter().for_each(|output| window.push(output)));
        }
    }
    drop(reader);
    cutting.change(|window| {
        fragmenter.finish().into_iter().for_each(|output| window.push(output));
        window.end();
    });
    while Instant::now() < cutting.idle_at() {
        sleep_until(cutting.idle_at()).await;
    }
}
