//! Encoders' connections: sockets, deadlines, limits.
//!
//! Owns accepting and the life of each connection. Does not own the protocol (see `session`) nor
//! the keys (see `ingest`).

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tracing::{debug, info, warn};

use super::{
    ingest::{Claim, FinishCause, IngestKeys, RtmpEvent},
    session::{Refusal, Session, Step},
};

/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;
/// Pause after an accept that failed for want of resources.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Limits on connections. All of them end only the connection concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RtmpLimits {
    /// Connections at the same time; more are closed at once. Default 64.
    pub connections_max: usize,
    /// From the connection to the publish request. Default 5 s.
    pub setup_max: Duration,
    /// Without any byte while publishing. Default 30 s: encoders pause when their input does.
    pub idle_max: Duration,
    /// For one write to be taken by the peer. Default 5 s.
    pub write_max: Duration,
    /// For a refused peer to read why before the connection closes. Default 1 s.
    pub goodbye_max: Duration,
}

impl Default for RtmpLimits {
    fn default() -> Self {
        Self {
            connections_max: 64,
            setup_max: Duration::from_secs(5),
            idle_max: Duration::from_secs(30),
            write_max: Duration::from_secs(5),
            goodbye_max: Duration::from_secs(1),
        }
    }
}

/// What happened on the RTMP port since the start.
#[derive(Debug, Default)]
pub struct RtmpCounters {
    accepted: AtomicU64,
    over_limit: AtomicU64,
    published: AtomicU64,
    wrong_key: AtomicU64,
    busy_key: AtomicU64,
    malformed: AtomicU64,
    timed_out: AtomicU64,
    ignored: AtomicU64,
}

/// A copy of the counters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RtmpCounts {
    /// Connections taken.
    pub accepted: u64,
    /// Connections closed at once because there were too many.
    pub over_limit: u64,
    /// Encoders that published.
    pub published: u64,
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
            over_limit: read(&self.over_limit),
            published: read(&self.published),
            wrong_key: read(&self.wrong_key),
            busy_key: read(&self.busy_key),
            malformed: read(&self.malformed),
            timed_out: read(&self.timed_out),
            ignored: read(&self.ignored),
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The RTMP port of a node.
#[derive(Debug)]
pub struct RtmpServer {
    listener: TcpListener,
    keys: IngestKeys,
    limits: RtmpLimits,
    counters: Arc<RtmpCounters>,
}

impl RtmpServer {
    /// A server on `listener` for the keys in `keys`. Nothing happens until [`Self::run`].
    #[must_use]
    pub fn new(listener: TcpListener, keys: IngestKeys, limits: RtmpLimits) -> Self {
        Self { listener, keys, limits, counters: Arc::default() }
    }

    /// The counters, which outlive the server.
    #[must_use]
    pub fn counters(&self) -> Arc<RtmpCounters> {
        self.counters.clone()
    }

    /// Serves for ever; dropping the future closes every connection.
    pub async fn run(self) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((socket, peer)) if connections.len() < self.limits.connections_max => {
                        count(&self.counters.accepted);
                        let keys = self.keys.clone();
                        let (limits, counters) = (self.limits, self.counters.clone());
                        connections.spawn(async move {
                            Connection::new(socket, peer, limits, counters).run(&keys).await;
                        });
                    }
                    Ok((_, peer)) => {
                        count(&self.counters.over_limit);
                        warn!(%peer, "RTMP connection closed: too many");
                    }
                    Err(error) => {
                        warn!(%error, "RTMP accept failed");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(ended) = connections.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "an RTMP connection failed");
                    }
                }
            }
        }
    }
}

/// Why a connection's loop came to its end.
enum End {
    /// Said goodbye; let the peer read it.
    Goodbye(&'static str),
    Closed,
    Timeout,
    Malformed(super::session::SessionError),
}

struct Connection {
    socket: TcpStream,
    peer: SocketAddr,
    limits: RtmpLimits,
    counters: Arc<RtmpCounters>,
    session: Session,
    claim: Option<Claim>,
}

impl Connection {
    fn new(
        socket: TcpStream,
        peer: SocketAddr,
        limits: RtmpLimits,
        counters: Arc<RtmpCounters>,
    ) -> Self {
        Self { socket, peer, limits, counters, session: Session::default(), claim: None }
    }

    async fn run(mut self, keys: &IngestKeys) {
        let peer = self.peer;
        // Replies are small and waited for.
        let _ = self.socket.set_nodelay(true);
        let end = self.serve(keys).await;
        let cause = match &end {
            End::Goodbye(reason) => {
                debug!(%peer, reason, "RTMP connection closed");
                FinishCause::Unpublished
            }
            End::Closed => FinishCause::Closed,
            End::Timeout => {
                count(&self.counters.timed_out);
                info!(%peer, "RTMP connection closed: nothing came in time");
                FinishCause::Idle
            }
            End::Malformed(error) => {
                count(&self.counters.malformed);
                info!(%peer, %error, "RTMP connection closed");
                FinishCause::Malformed
            }
        };
        self.counters.ignored.fetch_add(self.session.ignored(), Ordering::Relaxed);
        self.finish(cause).await;
        if matches!(end, End::Goodbye(_)) {
            self.say_goodbye().await;
        }
    }

    async fn serve(&mut self, keys: &IngestKeys) -> End {
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        let mut setup = std::pin::pin!(tokio::time::sleep(self.limits.setup_max));
        let mut was_publishing = false;
        loop {
            if let Some(end) = self.advance(keys).await {
                return end;
            }
            buffer.clear();
            buffer.reserve(READ_BYTES);
            let publishing = self.session.is_publishing();
            if was_publishing && !publishing {
                // Time to publish again, or to read that the stream is finished and leave.
                setup.set(tokio::time::sleep(self.limits.setup_max));
            }
            was_publishing = publishing;
            let stopped = async {
                match &self.claim {
                    Some(claim) => claim.stopped().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                read = timeout(self.limits.idle_max, self.socket.read_buf(&mut buffer)) => match read {
                    Ok(Ok(0) | Err(_)) => return End::Closed,
                    Ok(Ok(_)) => self.session.receive(&buffer),
                    Err(_) => return End::Timeout,
                },
                () = &mut setup, if !publishing => return End::Timeout,
                () = stopped => self.session.stop(),
            }
        }
    }

    /// Carries out what the session says; some end when the connection is over.
    async fn advance(&mut self, keys: &IngestKeys) -> Option<End> {
        loop {
            let step = match self.session.next() {
                Ok(step) => step?,
                Err(error) => return Some(End::Malformed(error)),
            };
            match step {
                Step::Send(bytes) => {
                    match timeout(self.limits.write_max, self.socket.write_all(&bytes)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(_)) => return Some(End::Closed),
                        Err(_) => return Some(End::Timeout),
                    }
                }
                Step::PublishAsked { key, encoder } => self.decide(keys, &key, encoder).await,
                Step::Tag(tag) => {
                    let taken = match &self.claim {
                        Some(claim) => claim.send(RtmpEvent::Tag(tag)).await,
                        None => true,
                    };
                    if !taken {
                        self.session.stop();
                    }
                }
                Step::Unpublished => self.finish(FinishCause::Unpublished).await,
                Step::Close { reason } => return Some(End::Goodbye(reason)),
            }
        }
    }

    async fn decide(&mut self, keys: &IngestKeys, key: &str, encoder: Option<String>) {
        let peer = self.peer;
        match keys.claim(key) {
            Ok(claim) => {
                count(&self.counters.published);
                info!(%peer, encoder = encoder.as_deref().unwrap_or("?"), "encoder publishes");
                self.session.accept();
                claim.send(RtmpEvent::Started { encoder }).await;
                self.claim = Some(claim);
            }
            Err(refusal) => {
                count(match refusal {
                    Refusal::UnknownKey => &self.counters.wrong_key,
                    Refusal::Busy => &self.counters.busy_key,
                });
                warn!(%peer, ?refusal, "encoder refused");
                self.session.refuse(refusal);
            }
        }
    }

    async fn finish(&mut self, cause: FinishCause) {
        if let Some(claim) = self.claim.take() {
            info!(peer = %self.peer, ?cause, "encoder left");
            claim.send(RtmpEvent::Finished { cause }).await;
        }
    }

    /// Closes our side and reads on for a moment: closing with unread bytes would reset the
    /// connection and take the reason for a refusal away from the peer.
    async fn say_goodbye(mut self) {
        let _ = self.socket.shutdown().await;
        let mut rest = [0; 4_096];
        let drain = async { while matches!(self.socket.read(&mut rest).await, Ok(1..)) {} };
        let _ = timeout(self.limits.goodbye_max, drain).await;
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
