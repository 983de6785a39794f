//! The ports of the edges, on a real node.
//!
//! Owns nothing but translation: [`Handle`] as [`Streams`], [`Playback`] as [`MediaSource`],
//! [`Publisher`] as [`Ingest`]. The only file of the edges that knows the node's types.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use astral_core::{announcement::Rendition, ids::StreamId, media::flv::Tag};
use futures::future::BoxFuture;

use super::{
    ports::{Ingest, IngestError, Keep, MediaItem, MediaSource, OpenError, Streams},
    switch::{Ladder, Switching},
};
use crate::node::{Handle, Playback, PlaybackItem, Publisher, PushError, WatchError, WatchSpec};

/// How far behind live a reader may fall before it skips: the `normal` lag.
const READER_LAG: Duration = Duration::from_millis(1_500);
/// How often it is asked which renditions a stream has.
const LADDER_EVERY: Duration = Duration::from_secs(2);

impl MediaSource for Playback {
    fn next(&mut self) -> BoxFuture<'_, Option<MediaItem>> {
        Box::pin(async move { Self::next(self).await.map(MediaItem::from) })
    }
}

impl From<PlaybackItem> for MediaItem {
    fn from(item: PlaybackItem) -> Self {
        match item {
            PlaybackItem::Flv(bytes) => Self::Flv(bytes),
            PlaybackItem::NewEpoch => Self::NewEpoch,
            PlaybackItem::Skipped { from_seq, to_seq, cause } => {
                Self::Skipped { from_seq, to_seq, cause: word(&cause) }
            }
            PlaybackItem::Paused => Self::Paused,
            PlaybackItem::Resumed => Self::Resumed,
            PlaybackItem::SourceLost => Self::SourceLost,
            PlaybackItem::SourceBack => Self::SourceBack,
            PlaybackItem::Ended(reason) => Self::Ended { reason: word(&reason) },
        }
    }
}

/// The one word that an enum of words has in JSON.
fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        Ok(_) | Err(_) => "unknown".to_owned(),
    }
}

async fn watch(
    handle: &Handle,
    id: StreamId,
    spec: WatchSpec,
) -> Result<Box<dyn MediaSource>, OpenError> {
    let playback = handle.watch(&id.into(), spec).await.map_err(|error| match error {
        WatchError::TooMany { .. } | WatchError::Gone(_) => {
            OpenError::Node { message: error.to_string() }
        }
    })?;
    Ok(Box::new(playback))
}

/// Watches a stream live, so far behind its source, in the rendition whose lag can be held.
///
/// # Errors
/// [`OpenError`] when nothing can be read.
pub async fn watch_fitting(
    handle: &Handle,
    id: StreamId,
    lag: Duration,
) -> Result<Box<dyn MediaSource>, OpenError> {
    let first = watch(handle, id, WatchSpec::live(lag)).await?;
    if handle.publish_state(id).is_some() {
        return Ok(first); // It is cut here: nothing comes late.
    }
    let ladder = NodeLadder {
        handle: handle.clone(),
        id,
        lag,
        lower: Vec::new(),
        asked_at: None,
        open: BTreeMap::new(),
    };
    Ok(Box::new(Switching::new(ladder, first)))
}

/// The renditions of a stream that a node knows.
struct NodeLadder {
    handle: Handle,
    id: StreamId,
    lag: Duration,
    lower: Vec<Rendition>,
    asked_at: Option<Instant>,
    /// What was opened under each number: the announcement may change meanwhile.
    open: BTreeMap<usize, StreamId>,
}

impl NodeLadder {
    fn lower_one(&self, rendition: usize) -> Option<Rendition> {
        self.lower.get(rendition.checked_sub(1)?).copied()
    }
}

impl Ladder for NodeLadder {
    fn lower(&mut self) -> BoxFuture<'_, usize> {
        Box::pin(async move {
            if self.asked_at.is_none_or(|at| at.elapsed() >= LADDER_EVERY) {
                if let Ok(lower) = self.handle.renditions(self.id).await {
                    self.lower = lower;
                }
                self.asked_at = Some(Instant::now());
            }
            self.lower.len()
        })
    }

    fn open(&mut self, rendition: usize) -> BoxFuture<'_, Result<Box<dyn MediaSource>, OpenError>> {
        let stream = match rendition {
            0 => Some(self.id),
            lower => self.lower_one(lower).map(|lower| lower.stream),
        };
        Box::pin(async move {
            let stream = stream.ok_or(OpenError::Unknown { id: self.id })?;
            let source = watch(&self.handle, stream, WatchSpec::live(self.lag)).await?;
            self.open.insert(rendition, stream);
            Ok(source)
        })
    }

    fn leave(&mut self, rendition: usize) {
        let stream = match rendition {
            0 => Some(self.id),
            lower => self.open.remove(&lower),
        };
        let (Some(stream), Ok(runtime)) = (stream, tokio::runtime::Handle::try_current()) else {
            return;
        };
        let handle = self.handle.clone();
        runtime.spawn(async move {
            // A node that is gone has left it.
            let _ = handle.stop_if_unused(stream).await;
        });
    }

    fn plays(&mut self, rendition: usize) {
        self.handle.note_rendition(self.id, self.lower_one(rendition));
    }
}

impl Drop for NodeLadder {
    fn drop(&mut self) {
        self.handle.note_rendition(self.id, None);
    }
}

impl Streams for Handle {
    fn open(
        &self,
        id: StreamId,
        keep: Keep,
    ) -> BoxFuture<'_, Result<Box<dyn MediaSource>, OpenError>> {
        Box::pin(async move {
            match keep {
                Keep::Live => watch_fitting(self, id, READER_LAG).await,
                Keep::All => watch(self, id, WatchSpec::keep_all(READER_LAG)).await,
            }
        })
    }

    fn stop(&self, id: StreamId) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            // A node that is gone has stopped it.
            let _ = self.stop_if_unused(id).await;
        })
    }
}

impl Ingest for Publisher {
    fn push<'a>(&'a mut self, tag: Tag) -> BoxFuture<'a, Result<(), IngestError>> {
        Box::pin(async move { self.push_tag(tag).await.map_err(IngestError::from) })
    }

    fn restart(&mut self) {
        Self::restart(self);
    }

    fn idle<'a>(&'a mut self, idle: bool) -> BoxFuture<'a, Result<(), IngestError>> {
        Box::pin(async move { self.pause(idle).await.map_err(IngestError::from) })
    }

    fn rest<'a>(&'a mut self) -> BoxFuture<'a, Result<(), IngestError>> {
        Box::pin(async move { Self::rest(self).await.map_err(IngestError::from) })
    }

    fn reconnecting<'a>(&'a mut self) -> BoxFuture<'a, Result<(), IngestError>> {
        Box::pin(async move { Self::reconnecting(self).await.map_err(IngestError::from) })
    }
}

impl From<PushError> for IngestError {
    fn from(error: PushError) -> Self {
        Self { message: error.to_string() }
    }
}
