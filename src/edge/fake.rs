//! Streams made up by tests of the edges.
//!
//! Owns a scripted [`Streams`], and a local server of it. Exists in tests only.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use astral_core::ids::StreamId;
use axum::Router;
use futures::future::BoxFuture;
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};

use super::{
    interest::Interests,
    local::Gate,
    ports::{Keep, MediaItem, MediaSource, OpenError, Streams},
};

/// One protocol's routes over made-up streams, on a real socket; ends with this value.
pub(crate) struct FakeServer {
    pub(crate) addr: SocketAddr,
    pub(crate) streams: Arc<FakeStreams>,
    pub(crate) interests: Interests,
    _tasks: JoinSet<()>,
}

impl FakeServer {
    /// The token that its gate knows.
    pub(crate) const TOKEN: &str = "s3cret";

    /// Serves what `router` makes of the streams.
    pub(crate) async fn start(
        streams: FakeStreams,
        router: impl FnOnce(Interests, Gate) -> Router,
    ) -> Self {
        let streams = Arc::new(streams);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let interests = Interests::new(streams.clone());
        let app = router(interests.clone(), Gate::new(addr, Self::TOKEN));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { addr, streams, interests, _tasks: tasks }
    }
}

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
