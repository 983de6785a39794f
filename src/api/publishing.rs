//! Streams published through the local servers: by an encoder, or by a source the program offers.
//!
//! Owns which there are, the task that fills each, and their end. Does not own the streams
//! themselves nor the RTMP port.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use astral_core::ids::StreamId;
use futures::future::BoxFuture;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::port::{Encoded, Published};
use crate::{
    edge::rtmp::{FinishCause, IngestFeed, IngestKeys, KeyError, RtmpEvent},
    node::{NodeError, Tasks},
};

/// The source that every node offers: an encoder of the user's.
pub(super) const FROM_ENCODER: &str = "rtmp";
/// The other one: the web page, by `edge::page_in`.
pub(super) const FROM_PAGE: &str = "browser";
/// Streams published through the API at the same time; each captures and encodes.
pub const OWN_MAX: usize = 32;
/// Until an ended stream has told everybody.
const END_MAX: Duration = Duration::from_secs(5);
/// The task that fills one stream from its encoder.
const INGEST: &str = "rtmp-ingest";
/// The task that fills one stream from another source.
const SOURCE: &str = "source";

/// What is to be captured; what is absent is the source's choice.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wanted {
    /// The camera.
    pub device: Option<String>,
    /// The microphone, `default` or `none`.
    pub mic: Option<String>,
    /// Picture width in pixels.
    pub width: Option<u16>,
    /// Picture height in pixels.
    pub height: Option<u16>,
    /// Frames a second.
    pub fps: Option<u8>,
    /// Video bit rate, in bits per second.
    pub bitrate_bps: Option<u32>,
    /// The encoder follows the uplink.
    pub adaptive: bool,
    /// Heights of lower renditions, in pixels.
    pub renditions: Vec<u16>,
}

impl Wanted {
    /// Whether it asks for what only an encoder of this node's can do.
    pub(super) const fn needs_encoder(&self) -> bool {
        self.adaptive || !self.renditions.is_empty()
    }
}

/// A source that is open.
pub struct Opened {
    /// Fills the stream.
    pub filler: Filler,
    /// What it makes.
    pub encoded: Encoded,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Opened({:?})", self.encoded)
    }
}

/// Fills a stream until the token is cancelled or the source is over, then ends the stream.
pub type Filler = Box<
    dyn FnOnce(Box<dyn Published>, CancellationToken) -> BoxFuture<'static, ()> + Send + 'static,
>;

/// Fills streams with media from somewhere else than an encoder, such as the test picture. The
/// program that has such a source offers it; the API knows it by name only.
pub trait Source: Send + Sync + 'static {
    /// Opens the source, before anything is published: a camera that is missing announces nothing.
    ///
    /// # Errors
    /// Why it can't be opened, in words for the user.
    fn open(&self, wanted: Wanted) -> BoxFuture<'_, Result<Opened, String>>;
}

/// Who brings media from outside this program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outside {
    /// A program, by its key.
    Encoder,
    /// The web page, by the stream's id; a program may as well.
    Page,
}

/// A stream published here, for lists.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Own {
    pub(super) id: StreamId,
    pub(super) link: String,
    pub(super) name: String,
    pub(super) publish_url: Option<String>,
    /// Who brings its media, when it comes from outside.
    pub(super) outside: Option<Outside>,
}

struct Entry {
    own: Own,
    stop: CancellationToken,
    ended: CancellationToken,
}

/// A stream that an encoder fills.
#[derive(Debug)]
pub struct Ingest {
    /// Where the encoder brings it, key included.
    pub url: String,
    ended: oneshot::Receiver<()>,
}

impl Ingest {
    /// Resolves once the stream was ended: by the API, by the end of the node, or because its task
    /// panicked.
    ///
    /// # Errors
    /// [`NodeError::TaskEnded`]: it panicked; the log says with what.
    pub async fn ended(self) -> Result<(), NodeError> {
        self.ended.await.map_err(|_| NodeError::TaskEnded { task: INGEST })
    }
}

/// The table of one node. Clones share it.
#[derive(Clone)]
pub(super) struct Publishing {
    keys: IngestKeys,
    tasks: Tasks,
    rtmp_url: String,
    table: Arc<Mutex<BTreeMap<StreamId, Entry>>>,
    sources: Arc<Mutex<BTreeMap<String, Arc<dyn Source>>>>,
}

impl Publishing {
    pub(super) fn new(keys: IngestKeys, tasks: Tasks, rtmp_url: String) -> Self {
        Self { keys, tasks, rtmp_url, table: Arc::default(), sources: Arc::default() }
    }

    /// The open keys, for the other ways in.
    pub(super) fn keys(&self) -> IngestKeys {
        self.keys.clone()
    }

    pub(super) fn rtmp_url(&self) -> &str {
        &self.rtmp_url
    }

    /// Offers `source` under `name` from here on.
    pub(super) fn offer(&self, name: &str, source: Arc<dyn Source>) {
        self.sources().insert(name.to_owned(), source);
    }

    /// The source offered under `name`.
    pub(super) fn source(&self, name: &str) -> Option<Arc<dyn Source>> {
        self.sources().get(name).cloned()
    }

    /// What `POST /streams` takes as `source`: an encoder always, and the offered sources.
    pub(super) fn offered(&self) -> Vec<String> {
        let sources = self.sources();
        [FROM_ENCODER, FROM_PAGE]
            .into_iter()
            .chain(sources.keys().map(String::as_str))
            .map(str::to_owned)
            .collect()
    }

    /// Opens a key for `stream` and fills it from whatever encoder comes with it. Without a key the
    /// stream is ended.
    pub(super) fn take_encoder(
        &self,
        name: &str,
        mut stream: Box<dyn Published>,
        outside: Outside,
        window: Duration,
    ) -> Result<Ingest, KeyError> {
        let id = stream.id();
        let mut feed = match self.keys.open() {
            Ok(feed) => feed,
            Err(error) => {
                self.spawn(INGEST, id, stream.end());
                return Err(error);
            }
        };
        feed.set_window(window);
        match outside {
            Outside::Encoder => {}
            Outside::Page => feed.admit_page(id),
        }
        let url = format!("{}/{}", self.rtmp_url, feed.key());
        let stop = self.enter(name, &*stream, Some((url.clone(), outside)));
        let (stopping, tasks) = (self.tasks.child_token(), self.tasks.clone());
        let (tell, ended) = oneshot::channel();
        let task = async move {
            tokio::select! {
                () = fill(id, &mut feed, &mut *stream, &tasks) => {}
                () = stop.cancelled() => {}
                () = stopping.cancelled() => {}
            }
            // The encoder goes first, so that it sees the stream stopped and not the node gone.
            drop(feed);
            stream.end().await;
            // Not everybody waits for it.
            let _ = tell.send(());
        };
        self.spawn(INGEST, id, task);
        Ok(Ingest { url, ended })
    }

    /// Fills `stream` from an opened source.
    pub(super) fn take_source(&self, name: &str, stream: Box<dyn Published>, filler: Filler) {
        let id = stream.id();
        let stop = self.enter(name, &*stream, None);
        let tasks = self.tasks.clone();
        self.spawn(SOURCE, id, async move {
            tasks.panic_point(SOURCE);
            filler(stream, stop).await;
        });
    }

    /// Whether another stream may be published through the API.
    pub(super) fn has_room(&self) -> bool {
        self.table().len() < OWN_MAX
    }

    /// Ends a stream published here and waits until everybody was told; false when there is none.
    pub(super) async fn end(&self, id: StreamId) -> bool {
        let Some(ended) = self.table().get(&id).map(|entry| {
            entry.stop.cancel();
            entry.ended.clone()
        }) else {
            return false;
        };
        // The stream is gone from here either way; a slow goodbye goes on in the background.
        let _ = tokio::time::timeout(END_MAX, ended.cancelled()).await;
        true
    }

    /// The streams published here, in the order of their ids.
    pub(super) fn list(&self) -> Vec<Own> {
        self.table().values().map(|entry| entry.own.clone()).collect()
    }

    fn enter(
        &self,
        name: &str,
        stream: &dyn Published,
        outside: Option<(String, Outside)>,
    ) -> CancellationToken {
        let (publish_url, outside) = outside.unzip();
        let (id, link) = (stream.id(), stream.link());
        let own = Own { id, link, name: name.to_owned(), publish_url, outside };
        let stop = self.tasks.child_token();
        let entry = Entry { own, stop: stop.clone(), ended: CancellationToken::new() };
        self.table().insert(stream.id(), entry);
        stop
    }

    fn spawn(
        &self,
        task: &'static str,
        id: StreamId,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let table = self.clone();
        self.tasks.spawn(task, work, move |_panicked| async move {
            let entry = table.table().remove(&id);
            if let Some(entry) = entry {
                entry.ended.cancel();
            }
        });
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<StreamId, Entry>> {
        // Nothing between lock and unlock can panic half-way through a change.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sources(&self) -> MutexGuard<'_, BTreeMap<String, Arc<dyn Source>>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn fill(id: StreamId, feed: &mut IngestFeed, stream: &mut dyn Published, tasks: &Tasks) {
    let stream_id = id.short();
    let filled = feed.fill(stream, |event| match event {
        RtmpEvent::Started { encoder } => {
            tasks.panic_point(INGEST);
            tracing::info!(stream = stream_id, ?encoder, "an encoder brings the stream");
        }
        RtmpEvent::Finished { cause: FinishCause::Unpublished } => {
            tracing::info!(
                stream = stream_id,
                "the encoder has finished; the stream pauses, then ends"
            );
        }
        RtmpEvent::Finished { cause } => {
            tracing::warn!(
                stream = stream_id,
                ?cause,
                "the encoder is gone; the stream waits, then ends"
            );
        }
        RtmpEvent::Tag(_) => {}
    });
    if let Err(error) = filled.await {
        tracing::warn!(stream = id.short(), %error, "the stream ends");
    }
}
