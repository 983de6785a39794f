//! Streams made up by tests of the edges.
//!
//! Owns a scripted [`Streams`]. Exists in tests only.

use std::sync::Mutex;

use astral_core::ids::StreamId;
use futures::future::BoxFuture;
use tokio::sync::mpsc;

use super::ports::{Keep, MediaItem, MediaSource, OpenError, Streams};

/// Hands out the items that a test puts in, to the newest reader.
#[derive(Default)]
pub(crate) struct FakeStreams {
    unknown: bool,
    greeting: Option<MediaItem>,
    opened: Mutex<Vec<(StreamId, Keep)>>,
    stopped: Mutex<Vec<StreamId>>,
    newest: Mutex<Option<mpsc::Sender<MediaItem>>>,
}

impl FakeStreams {
    /// One that knows no stream.
    pub(crate) fn unknown() -> Self {
        Self { unknown: true, ..Self::default() }
    }

    /// One whose streams begin with `item`.
    pub(crate) fn greeting(item: MediaItem) -> Self {
        Self { greeting: Some(item), ..Self::default() }
    }

    pub(crate) fn opened(&self) -> Vec<(StreamId, Keep)> {
        self.opened.lock().unwrap().clone()
    }

    pub(crate) fn stopped(&self) -> Vec<StreamId> {
        self.stopped.lock().unwrap().clone()
    }

    /// The way to the newest reader; dropping it ends the stream.
    pub(crate) fn newest(&self) -> mpsc::Sender<MediaItem> {
        self.newest.lock().unwrap().take().unwrap()
    }
}

struct FakeSource(mpsc::Receiver<MediaItem>);

impl MediaSource for FakeSource {
    fn next(&mut self) -> BoxFuture<'_, Option<MediaItem>> {
        Box::pin(self.0.recv())
    }
}

impl Streams for FakeStreams {
    fn open(
        &self,
        id: StreamId,
        keep: Keep,
    ) -> BoxFuture<'_, Result<Box<dyn MediaSource>, OpenError>> {
        Box::pin(async move {
            if self.unknown {
                return Err(OpenError::Unknown { id });
            }
            self.opened.lock().unwrap().push((id, keep));
            let (sender, receiver) = mpsc::channel(4);
            if let Some(item) = &self.greeting {
                sender.try_send(item.clone()).unwrap();
            }
            *self.newest.lock().unwrap() = Some(sender);
            Ok(Box::new(FakeSource(receiver)) as Box<dyn MediaSource>)
        })
    }

    fn stop(&self, id: StreamId) -> BoxFuture<'_, ()> {
        Box::pin(async move { self.stopped.lock().unwrap().push(id) })
    }
}
