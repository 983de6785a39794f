//! Stream keys, and the way from an encoder to the stream that it fills.
//!
//! Owns which keys are open, who holds one, and the bounded queue behind each. Does not own
//! connections (see `server`) nor publishing (see `edge::ports::Ingest`).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use astral_core::{ids::StreamId, media::flv::Tag};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, sleep_until},
};

use super::session::Refusal;
use crate::edge::{
    local::Secret,
    ports::{Ingest, IngestError},
};

/// Keys open at the same time on one node.
pub const KEYS_MAX: usize = 64;
/// Events that wait between a connection and its stream; a full queue slows the encoder down.
pub const EVENTS_QUEUED_MAX: usize = 256;
/// Media that waits there, in KiB.
pub const QUEUED_KIB_MAX: u32 = 16 * 1024;

/// An encoder that broke off or stopped may come back within this; until then viewers are told so,
/// then the broadcast ends.
pub const RECONNECT_WINDOW: Duration = Duration::from_secs(30);

/// What an encoder does with its key.
#[derive(Clone, PartialEq, Debug)]
pub enum RtmpEvent {
    /// An encoder began; its tags follow.
    Started {
        /// What it calls itself.
        encoder: Option<String>,
    },
    /// The next tag.
    Tag(Tag),
    /// The encoder left.
    Finished {
        /// How.
        cause: FinishCause,
    },
}

/// How an encoder left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FinishCause {
    /// It said so.
    Unpublished,
    /// The connection closed.
    Closed,
    /// Nothing came for too long.
    Idle,
    /// It sent what can't be read.
    Malformed,
}

struct Slot {
    /// Pages may fill this stream too, by its id.
    page: Option<StreamId>,
    events: mpsc::Sender<(RtmpEvent, Option<OwnedSemaphorePermit>)>,
    room: Arc<Semaphore>,
    busy: bool,
}

/// The open stream keys of this node. Clones share them.
#[derive(Clone, Default)]
pub struct IngestKeys(Arc<Mutex<BTreeMap<Secret, Slot>>>);

impl std::fmt::Debug for IngestKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IngestKeys({})", self.table().len())
    }
}

/// Why no key was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// [`KEYS_MAX`] are open.
    #[error("{KEYS_MAX} streams are waiting for encoders: stop one first")]
    Full,
    /// The key is open already.
    #[error("this stream key is in use: take another")]
    Taken,
    /// The system has no randomness to make a key of.
    #[error("the system gives no random bytes for a stream key")]
    NoRandomness,
}

impl IngestKeys {
    /// Opens a new random key of 32 hexadecimal digits.
    ///
    /// # Errors
    /// [`KeyError`] when there are too many.
    pub fn open(&self) -> Result<IngestFeed, KeyError> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|_| KeyError::NoRandomness)?;
        self.open_as(data_encoding::HEXLOWER.encode(&bytes))
    }

    /// Opens `key`.
    ///
    /// # Errors
    /// [`KeyError`] when there are too many or this one is open.
    pub fn open_as(&self, key: String) -> Result<IngestFeed, KeyError> {
        let (events, queue) = mpsc::channel(EVENTS_QUEUED_MAX);
        let room = Arc::new(Semaphore::new(QUEUED_KIB_MAX as usize));
        let mut table = self.table();
        if table.len() >= KEYS_MAX {
            return Err(KeyError::Full);
        }
        let secret = Secret::new(&key);
        if table.contains_key(&secret) {
            return Err(KeyError::Taken);
        }
        table.insert(secret.clone(), Slot { page: None, events, room, busy: false });
        let window = RECONNECT_WINDOW;
        Ok(IngestFeed { key, secret, keys: self.clone(), queue, window })
    }

    /// Takes `key` for one encoder.
    pub(super) fn claim(&self, key: &str) -> Result<Claim, Refusal> {
        self.claim_secret(Secret::new(key))
    }

    /// Takes the key of the stream `id` for a page, if pages may fill it.
    pub(in crate::edge) fn claim_page(&self, id: StreamId) -> Result<Claim, Refusal> {
        let secret = {
            let table = self.table();
            table.iter().find(|(_, slot)| slot.page == Some(id)).map(|(secret, _)| secret.clone())
        };
        self.claim_secret(secret.ok_or(Refusal::UnknownKey)?)
    }

    fn claim_secret(&self, secret: Secret) -> Result<Claim, Refusal> {
        let mut table = self.table();
        let slot = table.get_mut(&secret).ok_or(Refusal::UnknownKey)?;
        if slot.busy {
            return Err(Refusal::Busy);
        }
        slot.busy = true;
        let (events, room) = (slot.events.clone(), slot.room.clone());
        Ok(Claim { secret, keys: self.clone(), events, room })
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<Secret, Slot>> {
        // Nothing between lock and unlock can panic half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One encoder's hold on a key; dropping it frees the key.
pub(in crate::edge) struct Claim {
    secret: Secret,
    keys: IngestKeys,
    events: mpsc::Sender<(RtmpEvent, Option<OwnedSemaphorePermit>)>,
    room: Arc<Semaphore>,
}

impl Claim {
    /// Hands an event on, waiting for room; false when the stream was stopped.
    pub(in crate::edge) async fn send(&self, event: RtmpEvent) -> bool {
        let permit = if let RtmpEvent::Tag(tag) = &event {
            let kib = u32::try_from(tag.body.len() / 1_024 + 1).unwrap_or(QUEUED_KIB_MAX);
            let room = self.room.clone();
            tokio::select! {
                permit = room.acquire_many_owned(kib.min(QUEUED_KIB_MAX)) => permit.ok(),
                () = self.events.closed() => return false,
            }
        } else {
            None
        };
        self.events.send((event, permit)).await.is_ok()
    }

    /// Completes when the stream was stopped.
    pub(in crate::edge) async fn stopped(&self) {
        self.events.closed().await;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(slot) = self.keys.table().get_mut(&self.secret)
            && slot.events.same_channel(&self.events)
        {
            slot.busy = false;
        }
    }
}

/// The stream's end of an open key; dropping it closes the key and its encoder's connection.
#[derive(Debug)]
pub struct IngestFeed {
    key: String,
    secret: Secret,
    keys: IngestKeys,
    queue: mpsc::Receiver<(RtmpEvent, Option<OwnedSemaphorePermit>)>,
    window: Duration,
}

impl IngestFeed {
    /// Lets a page fill the stream as well, by the stream's `id` and this node's token (see
    /// `edge::page_in`).
    pub fn admit_page(&self, id: StreamId) {
        if let Some(slot) = self.keys.table().get_mut(&self.secret) {
            slot.page = Some(id);
        }
    }

    /// Another time for encoders to come back than [`RECONNECT_WINDOW`].
    pub const fn set_window(&mut self, window: Duration) {
        self.window = window;
    }

    /// The key, to be given to the encoder.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The next event. Waits for ever: the feed ends by being dropped. Cancel safe.
    pub async fn next(&mut self) -> RtmpEvent {
        match self.queue.recv().await {
            Some((event, _room)) => event,
            // The table holds a sender as long as this feed lives.
            None => std::future::pending().await,
        }
    }

    /// Fills `ingest` from this key until it takes no more. `on_session` hears of encoders that
    /// come and leave. An encoder that breaks off is awaited as "reconnecting" for a while
    /// ([`RECONNECT_WINDOW`]), one that said goodbye as paused (encoders do so to change a setting);
    /// then the broadcast ends, and the next encoder begins another. Not cancel safe: a tag may be
    /// lost.
    ///
    /// # Errors
    /// [`IngestError`] of the stream.
    pub async fn fill(
        &mut self,
        ingest: &mut dyn Ingest,
        mut on_session: impl FnMut(&RtmpEvent) + Send,
    ) -> Result<(), IngestError> {
        let mut sessions = 0_u64;
        let mut given_up_at = None;
        loop {
            let event = tokio::select! {
                event = self.next() => event,
                () = until(given_up_at) => {
                    given_up_at = None;
                    ingest.rest().await?;
                    continue;
                }
            };
            if !matches!(event, RtmpEvent::Tag(_)) {
                on_session(&event);
            }
            match event {
                RtmpEvent::Started { .. } => {
                    given_up_at = None;
                    if sessions > 0 {
                        ingest.restart();
                        ingest.idle(false).await?;
                    }
                    sessions += 1;
                }
                RtmpEvent::Tag(tag) => ingest.push(tag).await?,
                RtmpEvent::Finished { cause: FinishCause::Unpublished } => {
                    given_up_at = Some(Instant::now() + self.window);
                    ingest.idle(true).await?;
                }
                RtmpEvent::Finished {
                    cause: FinishCause::Closed | FinishCause::Idle | FinishCause::Malformed,
                } => {
                    given_up_at = Some(Instant::now() + self.window);
                    ingest.reconnecting().await?;
                }
            }
        }
    }
}

/// Until then, or for ever.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl Drop for IngestFeed {
    fn drop(&mut self) {
        self.keys.table().remove(&self.secret);
    }
}

#[cfg(test)]
mod tests {
    use futures::future::BoxFuture;

    use super::*;

    #[tokio::test]
    async fn a_key_has_one_encoder_at_a_time_and_dies_with_its_stream() {
        let keys = IngestKeys::default();
        let mut feed = keys.open().unwrap();
        assert_eq!(feed.key().len(), 32);
        assert!(matches!(keys.claim("guess"), Err(Refusal::UnknownKey)));
        let claim = keys.claim(feed.key()).ok().unwrap();
        assert!(matches!(keys.claim(feed.key()), Err(Refusal::Busy)));
        assert!(claim.send(RtmpEvent::Started { encoder: None }).await);
        assert_eq!(feed.next().await, RtmpEvent::Started { encoder: None });
        drop(claim);
        let claim = keys.claim(feed.key()).ok().unwrap();
        let key = feed.key().to_owned();
        drop(feed);
        claim.stopped().await;
        assert!(!claim.send(RtmpEvent::Finished { cause: FinishCause::Closed }).await);
        assert!(matches!(keys.claim(&key), Err(Refusal::UnknownKey)));
    }

    /// Notes what is asked of a stream.
    struct Notes(mpsc::Sender<&'static str>);

    impl Notes {
        fn note(&self, what: &'static str) -> BoxFuture<'_, Result<(), IngestError>> {
            self.0.try_send(what).unwrap();
            Box::pin(async { Ok(()) })
        }
    }

    impl Ingest for Notes {
        fn push<'a>(&'a mut self, _tag: Tag) -> BoxFuture<'a, Result<(), IngestError>> {
            self.note("tag")
        }

        fn restart(&mut self) {
            self.0.try_send("restart").unwrap();
        }

        fn idle<'a>(&'a mut self, idle: bool) -> BoxFuture<'a, Result<(), IngestError>> {
            self.note(if idle { "idle" } else { "back" })
        }

        fn rest<'a>(&'a mut self) -> BoxFuture<'a, Result<(), IngestError>> {
            self.note("rest")
        }

        fn reconnecting<'a>(&'a mut self) -> BoxFuture<'a, Result<(), IngestError>> {
            self.note("reconnecting")
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_encoder_that_breaks_off_or_stops_is_awaited_for_a_while_and_then_it_is_over() {
        let keys = IngestKeys::default();
        let mut feed = keys.open().unwrap();
        let claim = keys.claim(feed.key()).ok().unwrap();
        let (notes, mut heard) = mpsc::channel(64);
        let mut notes = Notes(notes);
        let filling = feed.fill(&mut notes, |_| {});
        let script = async {
            let mut next = async |wanted| assert_eq!(heard.recv().await, Some(wanted));
            let say = async |event| assert!(claim.send(event).await);
            say(RtmpEvent::Started { encoder: None }).await;
            say(RtmpEvent::Finished { cause: FinishCause::Closed }).await;
            next("reconnecting").await;
            say(RtmpEvent::Started { encoder: None }).await;
            next("restart").await;
            next("back").await;
            // The window of the first break is over without effect.
            tokio::time::sleep(2 * RECONNECT_WINDOW).await;
            say(RtmpEvent::Finished { cause: FinishCause::Malformed }).await;
            next("reconnecting").await;
            let broken_at = Instant::now();
            next("rest").await;
            assert_eq!(broken_at.elapsed().as_secs(), RECONNECT_WINDOW.as_secs());
            say(RtmpEvent::Started { encoder: None }).await;
            next("restart").await;
            next("back").await;
            say(RtmpEvent::Finished { cause: FinishCause::Unpublished }).await;
            next("idle").await;
            // One that stopped may have done so to change a setting; then it is over.
            next("rest").await;
        };
        tokio::select! {
            ended = filling => panic!("{ended:?}"),
            () = script => {}
        }
    }

    #[test]
    fn keys_are_bounded_and_not_shared() {
        let keys = IngestKeys::default();
        let feeds: Vec<_> = (0..KEYS_MAX).map(|_| keys.open().unwrap()).collect();
        assert_eq!(keys.open().unwrap_err(), KeyError::Full);
        drop(feeds);
        let _one = keys.open_as("garden".into()).unwrap();
        assert_eq!(keys.open_as("garden".into()).unwrap_err(), KeyError::Taken);
    }
}
