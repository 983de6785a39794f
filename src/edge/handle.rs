//! The ports of the edges, on a real node.
//!
//! Owns nothing but translation: [`Handle`] as [`Streams`], [`Playback`] as [`MediaSource`],
//! [`Publisher`] as [`Ingest`]. The only file of the edges that knows the node's types.

use std::time::Duration;

use astral_core::{ids::StreamId, media::flv::Tag};
use futures::future::BoxFuture;

use super::ports::{Ingest, IngestError, Keep, MediaItem, MediaSource, OpenError, Streams};
use crate::node::{Handle, Playback, PlaybackItem, Publisher, PushError, WatchError, WatchSpec};

/// How far behind live a reader may fall before it skips: the `normal` lag.
const READER_LAG: Duration = Duration::from_millis(1_500);

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

impl Streams for Handle {
    fn open(
        &self,
        id: StreamId,
        keep: Keep,
    ) -> BoxFuture<'_, Result<Box<dyn MediaSource>, OpenError>> {
        let spec = match keep {
            Keep::Live => WatchSpec::live(READER_LAG),
            Keep::All => WatchSpec::keep_all(READER_LAG),
        };
        Box::pin(async move {
            let playback = self.watch(&id.into(), spec).await.map_err(|error| match error {
                WatchError::TooMany { .. } | WatchError::Gone(_) => {
                    OpenError::Node { message: error.to_string() }
                }
            })?;
            Ok(Box::new(playback) as Box<dyn MediaSource>)
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
