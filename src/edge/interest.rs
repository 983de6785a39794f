//! Who on this node reads which stream, and when to stop one that nobody reads.
//!
//! Owns the ledger of local readers and pins, and the delay before a stream without any is stopped.
//! Does not own streams: [`Streams`] opens and stops them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use astral_core::ids::StreamId;
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::sync::{Notify, OnceCell};
use tokio_util::sync::CancellationToken;

use super::{
    ports::{Keep, MediaSource, OpenError, Streams},
    share::Share,
};

/// How long a stream stays joined after its last reader left: a player that reconnects, or a page
/// that is reloaded, starts at once.
pub const LINGER: Duration = Duration::from_secs(30);
/// Local readers at the same time, all streams together. Live readers of one stream share one
/// reading, so that each costs its socket and its place.
pub const READERS_MAX: usize = 1_024;

#[derive(Default)]
struct Entry {
    readers: usize,
    pins: usize,
    /// Counts the moments at which the last reader or pin left, so that only the latest one ends
    /// it.
    idle_since: u64,
    /// The reading that live readers share; none before the first, and another after its end.
    shared: Arc<OnceCell<Share>>,
    /// Somebody wants the stream joined without reading it.
    kept: Option<Share>,
}

impl Entry {
    fn is_unread(&self) -> bool {
        self.readers == 0 && self.kept.is_none()
    }

    fn is_idle(&self) -> bool {
        self.is_unread() && self.pins == 0
    }
}

#[derive(Default)]
struct Ledger {
    entries: BTreeMap<StreamId, Entry>,
    newly_idle: Vec<(StreamId, u64)>,
    idle_moments: u64,
}

impl Ledger {
    fn release(&mut self, id: StreamId, release: impl FnOnce(&mut Entry)) {
        self.idle_moments += 1;
        if let Some(entry) = self.entries.get_mut(&id) {
            release(entry);
            if entry.is_unread() {
                entry.idle_since = self.idle_moments;
                self.newly_idle.push((id, self.idle_moments));
            }
        }
    }
}

/// The ledger of one node. Clones share it.
#[derive(Clone)]
pub struct Interests {
    streams: Arc<dyn Streams>,
    ledger: Arc<Mutex<Ledger>>,
    idle: Arc<Notify>,
    closed: CancellationToken,
    linger: Duration,
}

impl std::fmt::Debug for Interests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Interests({} streams)", self.lock().entries.len())
    }
}

/// Why a reader gets nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// [`READERS_MAX`] read already.
    #[error("{READERS_MAX} players read from this node already")]
    TooMany,
    /// The stream can't be read.
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl Interests {
    /// An empty ledger over `streams`. [`Self::run`] must be driven for anything to be stopped.
    #[must_use]
    pub fn new(streams: Arc<dyn Streams>) -> Self {
        Self::with_linger(streams, LINGER)
    }

    /// As [`Self::new`] with another delay.
    #[must_use]
    pub fn with_linger(streams: Arc<dyn Streams>, linger: Duration) -> Self {
        let closed = CancellationToken::new();
        Self { streams, ledger: Arc::default(), idle: Arc::default(), closed, linger }
    }

    /// Opens `id` for one reader, joining the stream when needed. Dropping the reader leaves.
    ///
    /// # Errors
    /// [`ReadError`] when there is nothing to read.
    pub async fn read(&self, id: StreamId, keep: Keep) -> Result<Reader, ReadError> {
        let stay = self.stay(id)?;
        let source: Box<dyn MediaSource> = match keep {
            Keep::Live => Box::new(self.share(id).await?.join()),
            // Whoever wants every chunk is waited for, as nobody else may be.
            Keep::All => self.streams.open(id, keep).await?,
        };
        Ok(Reader { source, closed: self.closed.clone(), _stay: stay })
    }

    /// As [`Self::read`] live, beginning with what was read for others in the last seconds, if anything
    /// was: for who must have some of it before anything can be shown.
    ///
    /// # Errors
    /// [`ReadError`] when there is nothing to read.
    pub async fn read_past(&self, id: StreamId) -> Result<Reader, ReadError> {
        let stay = self.stay(id)?;
        let source = Box::new(self.share(id).await?.join_past());
        Ok(Reader { source, closed: self.closed.clone(), _stay: stay })
    }

    /// Counts one more reader of `id`.
    fn stay(&self, id: StreamId) -> Result<Stay, ReadError> {
        let mut ledger = self.lock();
        let readers: usize = ledger.entries.values().map(|entry| entry.readers).sum();
        if readers >= READERS_MAX {
            return Err(ReadError::TooMany);
        }
        ledger.entries.entry(id).or_default().readers += 1;
        Ok(Stay { interests: self.clone(), id, kind: StayKind::Reader })
    }

    /// The reading of `id` that live readers share, begun when there is none.
    async fn share(&self, id: StreamId) -> Result<Share, OpenError> {
        let shared = {
            let mut ledger = self.lock();
            let entry = ledger.entries.entry(id).or_default();
            if entry.shared.get().is_some_and(Share::is_over) {
                entry.shared = Arc::default();
            }
            Arc::clone(&entry.shared)
        };
        let open = async || Ok(Share::start(self.streams.open(id, Keep::Live).await?));
        shared.get_or_try_init(open).await.cloned()
    }

    /// Keeps `id` joined without reading, until [`Self::unwatch`].
    ///
    /// # Errors
    /// [`OpenError`] when it can't be joined.
    pub async fn watch(&self, id: StreamId) -> Result<(), OpenError> {
        if self.is_watched(id) {
            return Ok(());
        }
        let share = self.share(id).await?;
        self.lock().entries.entry(id).or_default().kept = Some(share);
        Ok(())
    }

    /// Ends [`Self::watch`]; the stream is stopped at once when nobody else needs it. False when it
    /// was not watched.
    pub async fn unwatch(&self, id: StreamId) -> bool {
        let kept = self.lock().entries.get_mut(&id).and_then(|entry| entry.kept.take());
        if kept.is_none() {
            return false;
        }
        drop(kept); // Before the stop: it holds the reading.
        self.stop_if_idle(id).await;
        true
    }

    /// Stops `id` at once when nobody here needs it, without waiting for [`LINGER`].
    pub async fn stop_if_idle(&self, id: StreamId) {
        let is_idle = {
            let mut ledger = self.lock();
            let is_idle = ledger.entries.get(&id).is_none_or(Entry::is_idle);
            if is_idle {
                ledger.entries.remove(&id);
            }
            is_idle
        };
        if is_idle {
            self.streams.stop(id).await;
        }
    }

    /// Ends every reader, now and to come: the node is stopping.
    pub fn close(&self) {
        self.closed.cancel();
    }

    /// Whether [`Self::watch`] holds `id`.
    #[must_use]
    pub fn is_watched(&self, id: StreamId) -> bool {
        self.lock().entries.get(&id).is_some_and(|entry| entry.kept.is_some())
    }

    /// Local readers of `id`.
    #[must_use]
    pub fn readers(&self, id: StreamId) -> usize {
        self.lock().entries.get(&id).map_or(0, |entry| entry.readers)
    }

    /// Says that something besides readers needs `id`: a publisher, a seeder, a player window.
    /// While the pin lives, readers that leave never stop the stream.
    #[must_use]
    pub fn pin(&self, id: StreamId) -> Pin {
        self.lock().entries.entry(id).or_default().pins += 1;
        Pin { _stay: Stay { interests: self.clone(), id, kind: StayKind::Pin } }
    }

    /// Stops streams whose last reader left [`LINGER`] ago. Runs for ever.
    pub async fn run(&self) {
        let mut lingering: FuturesUnordered<BoxFuture<'static, (StreamId, u64)>> =
            FuturesUnordered::new();
        loop {
            for (id, moment) in std::mem::take(&mut self.lock().newly_idle) {
                let linger = self.linger;
                lingering.push(Box::pin(async move {
                    tokio::time::sleep(linger).await;
                    (id, moment)
                }));
            }
            tokio::select! {
                () = self.idle.notified() => {}
                Some((id, moment)) = lingering.next() => self.end(id, moment).await,
            }
        }
    }

    async fn end(&self, id: StreamId, moment: u64) {
        let is_over = {
            let mut ledger = self.lock();
            let entry = ledger.entries.get_mut(&id).filter(|entry| entry.idle_since == moment);
            let is_over = entry.as_ref().is_some_and(|entry| entry.is_idle());
            if is_over {
                ledger.entries.remove(&id);
            } else if let Some(entry) = entry.filter(|entry| entry.is_unread()) {
                entry.shared = Arc::default();
            }
            is_over
        };
        if is_over {
            tracing::debug!(stream = %id.short(), "no local reader came back");
            self.streams.stop(id).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        // Nothing between lock and unlock can panic half-way through a change.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Copy)]
enum StayKind {
    Reader,
    Pin,
}

struct Stay {
    interests: Interests,
    id: StreamId,
    kind: StayKind,
}

impl Drop for Stay {
    fn drop(&mut self) {
        let kind = self.kind;
        self.interests.lock().release(self.id, |entry| match kind {
            StayKind::Reader => entry.readers -= 1,
            StayKind::Pin => entry.pins -= 1,
        });
        self.interests.idle.notify_one();
    }
}

/// One local reader of a stream.
pub struct Reader {
    source: Box<dyn MediaSource>,
    closed: CancellationToken,
    // Fields drop in order: the source goes before its place in the ledger.
    _stay: Stay,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reader")
    }
}

impl MediaSource for Reader {
    fn next(&mut self) -> BoxFuture<'_, Option<super::ports::MediaItem>> {
        Box::pin(async move {
            tokio::select! {
                item = self.source.next() => item,
                () = self.closed.cancelled() => None,
            }
        })
    }
}

/// A need for a stream that is not a reader; see [`Interests::pin`].
pub struct Pin {
    _stay: Stay,
}

impl std::fmt::Debug for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pin")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::fake::FakeStreams;

    const ID: StreamId = StreamId([7; 32]);

    fn interests(streams: &Arc<FakeStreams>) -> Interests {
        let interests = Interests::new(streams.clone());
        let run = interests.clone();
        tokio::spawn(async move { run.run().await });
        interests
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_reader_leaving_stops_the_stream_half_a_minute_later() {
        let streams = Arc::new(FakeStreams::default());
        let interests = interests(&streams);
        let one = interests.read(ID, Keep::Live).await.unwrap();
        let two = interests.read(ID, Keep::Live).await.unwrap();
        drop(one);
        tokio::time::sleep(2 * LINGER).await;
        assert!(streams.stopped().is_empty());
        drop(two);
        tokio::time::sleep(LINGER / 2).await;
        assert!(streams.stopped().is_empty());
        tokio::time::sleep(LINGER).await;
        assert_eq!(streams.stopped(), [ID]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_comes_back_keeps_the_stream() {
        let streams = Arc::new(FakeStreams::default());
        let interests = interests(&streams);
        drop(interests.read(ID, Keep::Live).await.unwrap());
        tokio::time::sleep(LINGER / 2).await;
        let again = interests.read(ID, Keep::Live).await.unwrap();
        tokio::time::sleep(LINGER * 2).await;
        assert!(streams.stopped().is_empty());
        drop(again);
        tokio::time::sleep(LINGER + LINGER / 2).await;
        assert_eq!(streams.stopped(), [ID]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_something_else_needs_is_never_stopped_by_readers() {
        let streams = Arc::new(FakeStreams::default());
        let interests = interests(&streams);
        let pin = interests.pin(ID);
        drop(interests.read(ID, Keep::Live).await.unwrap());
        tokio::time::sleep(LINGER * 2).await;
        assert!(streams.stopped().is_empty());
        drop(pin);
        tokio::time::sleep(LINGER * 2).await;
        assert_eq!(streams.stopped(), [ID]);
    }

    #[tokio::test(start_paused = true)]
    async fn unwatch_stops_at_once_unless_a_reader_is_left() {
        let streams = Arc::new(FakeStreams::default());
        let interests = interests(&streams);
        interests.watch(ID).await.unwrap();
        let reader = interests.read(ID, Keep::Live).await.unwrap();
        assert!(interests.unwatch(ID).await);
        assert!(streams.stopped().is_empty());
        drop(reader);
        interests.watch(ID).await.unwrap();
        assert!(interests.unwatch(ID).await);
        assert_eq!(streams.stopped(), [ID]);
        assert!(!interests.unwatch(ID).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_fails_to_open_leaves_no_trace() {
        let streams = Arc::new(FakeStreams::unknown());
        let interests = interests(&streams);
        let error = interests.read(ID, Keep::Live).await.unwrap_err();
        assert_eq!(error, ReadError::Open(OpenError::Unknown { id: ID }));
        assert_eq!(interests.readers(ID), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn readers_are_bounded() {
        let streams = Arc::new(FakeStreams::default());
        let interests = interests(&streams);
        let mut readers = Vec::new();
        for _ in 0..READERS_MAX {
            readers.push(interests.read(ID, Keep::Live).await.unwrap());
        }
        assert_eq!(interests.read(ID, Keep::Live).await.unwrap_err(), ReadError::TooMany);
    }
}
