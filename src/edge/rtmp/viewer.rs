//! What one RTMP player reads: a stream as tags.
//!
//! Owns the way from a reader's bytes to whole tags on the player's clock. Does not own the
//! connection nor when to give up.

use astral_core::{
    ids::StreamId,
    media::flv::{FlvLimits, Tag, TagReader},
};

use crate::edge::{
    interest::{Interests, ReadError, Reader},
    ports::{Keep, MediaItem, MediaSource},
    splice::{Clock, Splicer},
};

/// One player's stream.
#[derive(Debug)]
pub(super) struct Viewer {
    reader: Reader,
    splicer: Splicer,
    tags: TagReader,
}

impl Viewer {
    /// Joins `id`, or reads it when it is here already.
    pub(super) async fn open(interests: &Interests, id: StreamId) -> Result<Self, ReadError> {
        let reader = interests.read(id, Keep::Live).await?;
        let tags = TagReader::new(FlvLimits::default());
        Ok(Self { reader, splicer: Splicer::new(Clock::Zero), tags })
    }

    /// The next tags, at least one; `None` at the end of the stream. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Vec<Tag>> {
        loop {
            let item = self.reader.next().await?;
            if matches!(item, MediaItem::Ended { .. }) {
                return None;
            }
            self.tags.push(&self.splicer.take(&item));
            let mut tags = Vec::new();
            while let Some(tag) = self.tags.next() {
                // The splicer lets whole FLV through and nothing else.
                tags.push(tag.ok()?);
            }
            if !tags.is_empty() {
                return Some(tags);
            }
        }
    }
}
