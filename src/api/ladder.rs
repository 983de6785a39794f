//! A stream and its lower renditions as the API publishes them: one [`Published`].
//!
//! Owns nothing but translation to [`Ladder`], which keeps them together.

use astral_core::{ids::StreamId, media::flv::Tag, units::Bitrate};
use bytes::Bytes;
use futures::future::BoxFuture;

use super::port::Published;
use crate::{
    edge::ports::{Ingest, IngestError},
    node::{Ladder, Publisher},
};

impl Published for Ladder {
    fn id(&self) -> StreamId {
        self.whole.id()
    }

    fn link(&self) -> String {
        self.whole.link().to_string()
    }

    fn push_flv<'a>(&'a mut self, flv: Bytes) -> BoxFuture<'a, Result<(), IngestError>> {
        Box::pin(async move { self.whole.push(flv).await.map_err(IngestError::from) })
    }

    fn push_lower<'a>(
        &'a mut self,
        number: usize,
        begins: bool,
        flv: Bytes,
    ) -> BoxFuture<'a, Result<(), IngestError>> {
        Box::pin(async move {
            Self::push_lower(self, number, begins, flv).await.map_err(IngestError::from)
        })
    }

    fn picture_rate(&self) -> Option<Bitrate> {
        self.whole.picture_rate()
    }

    fn end(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(Self::end(*self))
    }
}

impl Ingest for Ladder {
    fn push<'a>(&'a mut self, tag: Tag) -> BoxFuture<'a, Result<(), IngestError>> {
        Ingest::push(&mut self.whole, tag)
    }

    fn restart(&mut self) {
        Publisher::restart(&mut self.whole);
    }

    fn idle<'a>(&'a mut self, idle: bool) -> BoxFuture<'a, Result<(), IngestError>> {
        Box::pin(async move { self.pause(idle).await.map_err(IngestError::from) })
    }

    fn rest<'a>(&'a mut self) -> BoxFuture<'a, Result<(), IngestError>> {
        Ingest::rest(&mut self.whole)
    }

    fn reconnecting<'a>(&'a mut self) -> BoxFuture<'a, Result<(), IngestError>> {
        Ingest::reconnecting(&mut self.whole)
    }
}
