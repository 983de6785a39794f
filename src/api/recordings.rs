//! Recordings that were started through the API.
//!
//! Owns which there are, the folder they go to, and the task of each. Does not own files (see
//! `edge::record`) nor the stream: a recording is one of its local readers.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use astral_core::ids::StreamId;
use futures::future::BoxFuture;
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

use super::dto::{RecordFormatDto, RecordingDto};
use crate::{
    edge::{
        ports::{MediaItem, MediaSource},
        record::{RecordSpec, Recorded, record},
    },
    node::{Tasks, caught},
};

/// Recordings at the same time; each writes to the disk.
pub const RECORDINGS_MAX: usize = 16;
/// From the request to stop to the last byte on the disk.
const FINISH_MAX: Duration = Duration::from_secs(10);
/// The task of one recording.
const RECORDING: &str = "recording";

/// What a recording came to, or why it broke off.
pub(super) type Outcome = Result<Recorded, String>;

#[derive(Clone)]
struct Entry {
    format: RecordFormatDto,
    bytes: Arc<AtomicU64>,
    stop: CancellationToken,
    outcome: watch::Receiver<Option<Outcome>>,
}

/// The recordings of one node. Clones share them.
#[derive(Clone)]
pub(super) struct Recordings {
    tasks: Tasks,
    folder: Arc<OnceLock<PathBuf>>,
    table: Arc<Mutex<BTreeMap<StreamId, Entry>>>,
    /// Held while one is started, so that a stream is recorded once.
    pub(super) starting: Arc<tokio::sync::Mutex<()>>,
}

impl Recordings {
    pub(super) fn new(tasks: Tasks) -> Self {
        let (folder, table, starting) = Default::default();
        Self { tasks, folder, table, starting }
    }

    /// Lets recordings be made, in `folder`; the first one stays.
    pub(super) fn allow(&self, folder: PathBuf) {
        // A second folder is the same program's.
        let _ = self.folder.set(folder);
    }

    /// Where recordings go; `None` when this node makes none.
    pub(super) fn folder(&self) -> Option<PathBuf> {
        self.folder.get().cloned()
    }

    /// The recording of `id` that runs.
    pub(super) fn of(&self, id: StreamId) -> Option<RecordingDto> {
        self.table().get(&id).map(|entry| RecordingDto {
            format: entry.format,
            bytes: entry.bytes.load(Ordering::Relaxed),
        })
    }

    /// Whether another one may be started.
    pub(super) fn has_room(&self) -> bool {
        self.table().len() < RECORDINGS_MAX
    }

    /// Records `source` as `spec` says until it ends, [`Self::stop`] or the end of the node, then
    /// calls `tell`. The caller holds `starting`.
    pub(super) fn start(
        &self,
        id: StreamId,
        source: Box<dyn MediaSource>,
        format: RecordFormatDto,
        spec: RecordSpec,
        tell: impl FnOnce(&Outcome) + Send + 'static,
    ) {
        let (told, outcome) = watch::channel(None);
        let (bytes, stop) = (Arc::<AtomicU64>::default(), self.tasks.child_token());
        let entry = Entry { format, bytes: bytes.clone(), stop: stop.clone(), outcome };
        self.table().insert(id, entry);
        let (table, tasks) = (self.clone(), self.tasks.clone());
        let work = async move {
            let recording = record(Counted { source, bytes, stop, tasks }, id, spec);
            let done = match caught(recording).await {
                Ok(done) => done.map_err(|error| error.to_string()),
                Err(message) => Err(format!("its task panicked: {message}")),
            };
            table.table().remove(&id);
            match &done {
                Ok(made) => tracing::info!(stream = id.short(), bytes = made.bytes, "recorded"),
                Err(error) => tracing::warn!(stream = id.short(), error, "a recording broke off"),
            }
            tell(&done);
            told.send_replace(Some(done));
        };
        self.tasks.spawn(RECORDING, work, |_panicked| async {});
    }

    /// Ends the recording of `id` and waits for its last byte; `None` when there is none.
    pub(super) async fn stop(&self, id: StreamId) -> Option<Outcome> {
        let mut entry = self.table().get(&id).cloned()?;
        entry.stop.cancel();
        let slow = || Err("the disk is slow; the recording ends by itself".to_owned());
        let done = timeout(FINISH_MAX, entry.outcome.wait_for(Option::is_some)).await;
        let done = match done {
            Ok(Ok(done)) => done.clone(),
            Ok(Err(_)) => Some(Err("the recording failed; the node's log says more".to_owned())),
            Err(_) => None,
        };
        Some(done.unwrap_or_else(slow))
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<StreamId, Entry>> {
        // Nothing between lock and unlock can panic half-way through a change.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A source that is counted, and over once `stop` says so.
struct Counted {
    source: Box<dyn MediaSource>,
    bytes: Arc<AtomicU64>,
    stop: CancellationToken,
    tasks: Tasks,
}

impl MediaSource for Counted {
    fn next(&mut self) -> BoxFuture<'_, Option<MediaItem>> {
        Box::pin(async move {
            self.tasks.panic_point(RECORDING);
            let item = tokio::select! {
                item = self.source.next() => item,
                () = self.stop.cancelled() => None,
            };
            if let Some(MediaItem::Flv(bytes)) = &item {
                self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
            item
        })
    }
}
