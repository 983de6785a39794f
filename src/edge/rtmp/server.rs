//! The RTMP port: accepting, limits, counters.
//!
//! Owns how many connections there are and which makes way. Does not own the life of one (see
//! `connection`), the protocol (see `session`) nor the keys (see `ingest`).
//!
//! A connection is *half-open* until it publishes or plays. Half-open ones are many and cheap
//! ([`HALF_OPEN_BYTES_MAX`] each); when there are too many, the oldest makes way, so that nobody
//! keeps an encoder out by opening connections and saying nothing.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::TcpListener,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{AbortHandle, JoinSet},
};
use tracing::warn;

use super::{
    chunk::UNPROVEN_PARTIAL_BYTES_MAX,
    connection::{Connection, Context, READ_BYTES_HALF_OPEN},
    ingest::IngestKeys,
    tls::Certificate,
};
use crate::edge::interest::{Interests, READERS_MAX};

/// Most that a half-open connection holds of what it was sent: unfinished messages, one read, and
/// the handshake.
pub const HALF_OPEN_BYTES_MAX: usize =
    UNPROVEN_PARTIAL_BYTES_MAX + READ_BYTES_HALF_OPEN + 4 * 1_536;
/// Pause after an accept that failed for want of resources.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Limits on connections. All of them end only the connection concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RtmpLimits {
    /// Connections that publish or play at the same time; more are refused. Default:
    /// as many as may read, and 64 encoders.
    pub connections_max: usize,
    /// Connections that do neither yet; the oldest makes way for a new one. Default 128, which is
    /// 18 MiB at most.
    pub half_open_max: usize,
    /// From the connection to the request to publish or play. Default 5 s.
    pub setup_max: Duration,
    /// From the request to play to the first media; then the player is told to come back. Default
    /// 10 s: joining takes a second or two when somebody can serve.
    pub first_media_max: Duration,
    /// Without any byte while publishing. Default 30 s: encoders pause when their input does.
    pub idle_max: Duration,
    /// For the peer to take any byte of a write. Default 10 s: a player that stops reading has
    /// been moved to a newer keyframe long before.
    pub write_max: Duration,
    /// For a refused peer to read why before the connection closes. Default 1 s.
    pub goodbye_max: Duration,
}

impl Default for RtmpLimits {
    fn default() -> Self {
        Self {
            connections_max: READERS_MAX + 64,
            half_open_max: 128,
            setup_max: Duration::from_secs(5),
            first_media_max: Duration::from_secs(10),
            idle_max: Duration::from_secs(30),
            write_max: Duration::from_secs(10),
            goodbye_max: Duration::from_secs(1),
        }
    }
}

/// What happened on the RTMP port since the start.
#[derive(Debug, Default)]
pub struct RtmpCounters {
    accepted: AtomicU64,
    displaced: AtomicU64,
    pub(super) over_limit: AtomicU64,
    pub(super) published: AtomicU64,
    pub(super) played: AtomicU64,
    pub(super) not_played: AtomicU64,
    pub(super) wrong_key: AtomicU64,
    pub(super) busy_key: AtomicU64,
    pub(super) malformed: AtomicU64,
    pub(super) timed_out: AtomicU64,
    pub(super) ignored: AtomicU64,
}

/// A copy of the counters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RtmpCounts {
    /// Connections taken.
    pub accepted: u64,
    /// Half-open connections that made way for new ones.
    pub displaced: u64,
    /// Encoders and players refused because there were too many.
    pub over_limit: u64,
    /// Encoders that published.
    pub published: u64,
    /// Players that played.
    pub played: u64,
    /// Players refused: no such stream, or nothing came from it.
    pub not_played: u64,
    /// Encoders refused for a wrong key.
    pub wrong_key: u64,
    /// Encoders refused because another one publishes.
    pub busy_key: u64,
    /// Connections that sent what can't be read.
    pub malformed: u64,
    /// Connections ended by a deadline.
    pub timed_out: u64,
    /// Messages read over.
    pub ignored: u64,
}

impl RtmpCounters {
    /// The counters at this moment.
    #[must_use]
    pub fn snapshot(&self) -> RtmpCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RtmpCounts {
            accepted: read(&self.accepted),
            displaced: read(&self.displaced),
            over_limit: read(&self.over_limit),
            published: read(&self.published),
            played: read(&self.played),
            not_played: read(&self.not_played),
            wrong_key: read(&self.wrong_key),
            busy_key: read(&self.busy_key),
            malformed: read(&self.malformed),
            timed_out: read(&self.timed_out),
            ignored: read(&self.ignored),
        }
    }
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Takes a place for a connection that has shown what it is for.
#[derive(Clone, Debug)]
pub(super) struct Places {
    proven: Arc<Semaphore>,
    half_open: Arc<Mutex<BTreeMap<u64, AbortHandle>>>,
}

impl Places {
    fn new(limits: &RtmpLimits) -> Self {
        Self { proven: Arc::new(Semaphore::new(limits.connections_max)), half_open: Arc::default() }
    }

    /// Connection `number` publishes or plays: nobody else's coming ends it any more. `None` when
    /// too many do.
    pub(super) fn prove(&self, number: u64) -> Option<OwnedSemaphorePermit> {
        let permit = self.proven.clone().try_acquire_owned().ok()?;
        self.forget(number);
        Some(permit)
    }

    pub(super) fn forget(&self, number: u64) {
        self.half_open().remove(&number);
    }

    /// Notes a new connection; the oldest half-open one that makes way for it, if there are `max`.
    fn enter(&self, number: u64, handle: AbortHandle, max: usize) -> Option<AbortHandle> {
        let mut half_open = self.half_open();
        // A connection may be over before it is noted here.
        if !handle.is_finished() {
            half_open.insert(number, handle);
        }
        if half_open.len() > max { half_open.pop_first().map(|(_, oldest)| oldest) } else { None }
    }

    fn half_open(&self) -> MutexGuard<'_, BTreeMap<u64, AbortHandle>> {
        // Nothing between lock and unlock can panic half-way through a change.
        self.half_open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The RTMP port of a node.
#[derive(Debug)]
pub struct RtmpServer {
    listener: TcpListener,
    keys: IngestKeys,
    players: Option<Interests>,
    limits: RtmpLimits,
    counters: Arc<RtmpCounters>,
    certificate: Option<Certificate>,
}

impl RtmpServer {
    /// A server on `listener` for the keys in `keys`, which plays nothing. Nothing happens until
    /// [`Self::run`].
    #[must_use]
    pub fn new(listener: TcpListener, keys: IngestKeys, limits: RtmpLimits) -> Self {
        Self { listener, keys, players: None, limits, counters: Arc::default(), certificate: None }
    }

    /// Serves players as well, with the streams behind `interests`.
    #[must_use]
    pub fn playing(self, interests: Interests) -> Self {
        Self { players: Some(interests), ..self }
    }

    /// Speaks TLS alone, with this certificate.
    #[must_use]
    pub fn secured(self, certificate: Certificate) -> Self {
        Self { certificate: Some(certificate), ..self }
    }

    /// The counters, which outlive the server.
    #[must_use]
    pub fn counters(&self) -> Arc<RtmpCounters> {
        self.counters.clone()
    }

    /// Serves for ever; dropping the future closes every connection.
    pub async fn run(self) {
        let mut connections = JoinSet::new();
        let places = Places::new(&self.limits);
        let mut number = 0;
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((socket, peer)) => {
                        number += 1;
                        let context = Context {
                            number,
                            peer,
                            keys: self.keys.clone(),
                            players: self.players.clone(),
                            limits: self.limits,
                            counters: self.counters.clone(),
                            places: places.clone(),
                        };
                        count(&self.counters.accepted);
                        // Replies are small and waited for.
                        let _ = socket.set_nodelay(true);
                        let task = match &self.certificate {
                            Some(it) => connections.spawn(it.clone().serve(socket, context)),
                            None => connections.spawn(Connection::new(socket, context).run()),
                        };
                        if let Some(oldest) = places.enter(number, task, self.limits.half_open_max) {
                            count(&self.counters.displaced);
                            oldest.abort();
                        }
                    }
                    Err(error) => {
                        warn!(%error, "RTMP accept failed");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(ended) = connections.join_next() => match ended {
                    Ok(number) => places.forget(number),
                    Err(error) if error.is_cancelled() => {}
                    Err(error) => tracing::error!(%error, "an RTMP connection failed"),
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
