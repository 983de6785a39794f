//! The life of one RTMP connection: socket, deadlines, and who it turns out to be.
//!
//! Owns reading, writing and the end. Does not own the protocol (see `session`), how many there are
//! (see `server`), nor the streams behind.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
};

use astral_core::{ids::StreamId, media::flv::Tag};
use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep_until, timeout},
};
use tracing::{debug, info, warn};

use super::{
    ingest::{Claim, FinishCause, IngestKeys, RtmpEvent},
    server::{Places, RtmpCounters, RtmpLimits, count},
    session::{Refusal, Session, SessionError, Step},
    viewer::Viewer,
};
use crate::edge::interest::Interests;

/// Bytes read at once before it is known what a connection is for.
pub(super) const READ_BYTES_HALF_OPEN: usize = 4 * 1_024;
/// Bytes read at once from an encoder.
const READ_BYTES: usize = 64 * 1_024;

/// What a connection shares with the port.
pub(super) struct Context {
    pub(super) number: u64,
    pub(super) peer: SocketAddr,
    pub(super) keys: IngestKeys,
    pub(super) players: Option<Interests>,
    pub(super) limits: RtmpLimits,
    pub(super) counters: Arc<RtmpCounters>,
    pub(super) places: Places,
}

/// Why a connection's loop came to its end.
enum End {
    /// Said goodbye; let the peer read it.
    Goodbye(&'static str),
    Closed,
    Timeout,
    Malformed(SessionError),
}

/// Who is at the other end.
enum Role {
    /// Not known yet, or not any more.
    Unknown,
    Encoder(Claim),
    /// A player that waits for the first media.
    Waiting(Box<Viewer>),
    Player(Box<Viewer>),
}

/// What woke a connection up.
enum Wake {
    Read(std::io::Result<usize>),
    Deadline,
    /// The stream that the encoder fills was stopped.
    Stopped,
    /// For the player; `None` at the end of the stream.
    Tags(Option<Vec<Tag>>),
}

/// `S` is a TCP connection, or TLS on one.
pub(super) struct Connection<S> {
    socket: S,
    context: Context,
    session: Session,
    role: Role,
    deadline: Instant,
    place: Option<OwnedSemaphorePermit>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(super) fn new(socket: S, context: Context) -> Self {
        let deadline = Instant::now() + context.limits.setup_max;
        let session = Session::default();
        Self { socket, context, session, role: Role::Unknown, deadline, place: None }
    }

    /// Runs to the connection's end; its number.
    pub(super) async fn run(mut self) -> u64 {
        let (peer, number) = (self.context.peer, self.context.number);
        let end = self.serve().await;
        let counters = &self.context.counters;
        let cause = match &end {
            End::Goodbye(reason) => {
                debug!(%peer, reason, "RTMP connection closed");
                FinishCause::Unpublished
            }
            End::Closed => FinishCause::Closed,
            End::Timeout => {
                count(&counters.timed_out);
                info!(%peer, "RTMP connection closed: nothing came, or went, in time");
                FinishCause::Idle
            }
            End::Malformed(error) => {
                count(&counters.malformed);
                info!(%peer, %error, "RTMP connection closed");
                FinishCause::Malformed
            }
        };
        counters.ignored.fetch_add(self.session.ignored(), Ordering::Relaxed);
        self.finish(cause).await;
        if matches!(end, End::Goodbye(_)) {
            self.say_goodbye().await;
        }
        number
    }

    async fn serve(&mut self) -> End {
        let mut buffer = BytesMut::new();
        loop {
            if let Some(end) = self.advance().await {
                return end;
            }
            buffer.clear();
            buffer.reserve(match self.role {
                Role::Encoder(_) => READ_BYTES,
                Role::Unknown | Role::Waiting(_) | Role::Player(_) => READ_BYTES_HALF_OPEN,
            });
            match self.wake(&mut buffer).await {
                Wake::Read(Ok(0) | Err(_)) => return End::Closed,
                Wake::Read(Ok(_)) => {
                    if matches!(self.role, Role::Encoder(_)) {
                        self.deadline = Instant::now() + self.context.limits.idle_max;
                    }
                    self.session.receive(&buffer);
                }
                Wake::Deadline => {
                    if !matches!(self.role, Role::Waiting(_)) {
                        return End::Timeout;
                    }
                    self.refuse_player("nothing comes from this stream");
                }
                Wake::Stopped => self.session.stop(),
                Wake::Tags(tags) => {
                    if let Some(end) = self.play(tags).await {
                        return end;
                    }
                }
            }
        }
    }

    /// Waits for whatever comes first.
    async fn wake(&mut self, buffer: &mut BytesMut) -> Wake {
        let (deadline, role) = (self.deadline, &mut self.role);
        let has_deadline = !matches!(role, Role::Player(_));
        let other = async {
            match role {
                Role::Unknown => std::future::pending().await,
                Role::Encoder(claim) => {
                    claim.stopped().await;
                    Wake::Stopped
                }
                Role::Waiting(viewer) | Role::Player(viewer) => Wake::Tags(viewer.next().await),
            }
        };
        tokio::select! {
            read = self.socket.read_buf(buffer) => Wake::Read(read),
            () = sleep_until(deadline), if has_deadline => Wake::Deadline,
            wake = other => wake,
        }
    }

    /// Carries out what the session says; some end when the connection is over.
    async fn advance(&mut self) -> Option<End> {
        loop {
            let step = match self.session.next() {
                Ok(step) => step?,
                Err(error) => return Some(End::Malformed(error)),
            };
            match step {
                Step::Send(bytes) => {
                    if let Some(end) = self.send(&bytes).await {
                        return Some(end);
                    }
                }
                Step::PublishAsked { key, encoder } => self.decide(&key, encoder).await,
                Step::Tag(tag) => {
                    let taken = match &self.role {
                        Role::Encoder(claim) => claim.send(RtmpEvent::Tag(tag)).await,
                        Role::Unknown | Role::Waiting(_) | Role::Player(_) => true,
                    };
                    if !taken {
                        self.session.stop();
                    }
                }
                Step::Unpublished => self.finish(FinishCause::Unpublished).await,
                Step::PlayAsked { name } => self.open(&name).await,
                Step::PlayStopped => self.become_unknown(),
                Step::Close { reason } => return Some(End::Goodbye(reason)),
            }
        }
    }

    /// Writes; a peer that takes nothing for too long ends the connection.
    async fn send(&mut self, mut bytes: &[u8]) -> Option<End> {
        while !bytes.is_empty() {
            let written = timeout(self.context.limits.write_max, self.socket.write(bytes)).await;
            match written {
                Ok(Ok(0) | Err(_)) => return Some(End::Closed),
                Ok(Ok(taken)) => bytes = bytes.get(taken..).unwrap_or_default(),
                Err(_) => return Some(End::Timeout),
            }
        }
        // TLS keeps what the socket did not take.
        match timeout(self.context.limits.write_max, self.socket.flush()).await {
            Ok(Ok(())) => None,
            Ok(Err(_)) => Some(End::Closed),
            Err(_) => Some(End::Timeout),
        }
    }

    async fn decide(&mut self, key: &str, encoder: Option<String>) {
        let (peer, counters) = (self.context.peer, &self.context.counters);
        let claim = self.context.keys.claim(key).and_then(|claim| {
            let place = self.context.places.prove(self.context.number);
            place.map(|place| (claim, place)).ok_or(Refusal::TooMany)
        });
        match claim {
            Ok((claim, place)) => {
                count(&counters.published);
                info!(%peer, encoder = encoder.as_deref().unwrap_or("?"), "encoder publishes");
                self.session.accept();
                claim.send(RtmpEvent::Started { encoder }).await;
                self.role = Role::Encoder(claim);
                self.place = Some(place);
                self.deadline = Instant::now() + self.context.limits.idle_max;
            }
            Err(refusal) => {
                count(match refusal {
                    Refusal::UnknownKey => &counters.wrong_key,
                    Refusal::Busy => &counters.busy_key,
                    Refusal::TooMany => &counters.over_limit,
                });
                warn!(%peer, ?refusal, "encoder refused");
                self.session.refuse(refusal);
            }
        }
    }

    /// Opens the stream that a player asks for. It is answered when the first media is there.
    async fn open(&mut self, name: &str) {
        let Some(interests) = &self.context.players else {
            return self.refuse_player("this port takes streams and plays none");
        };
        let Ok(id) = name.parse::<StreamId>() else {
            return self.refuse_player("a stream is named by the 64 digits of its id");
        };
        let Some(place) = self.context.places.prove(self.context.number) else {
            count(&self.context.counters.over_limit);
            return self.refuse_player("too many players and encoders");
        };
        match Viewer::open(interests, id).await {
            Ok(viewer) => {
                self.role = Role::Waiting(Box::new(viewer));
                self.place = Some(place);
                self.deadline = Instant::now() + self.context.limits.first_media_max;
            }
            Err(error) => self.refuse_player(&error.to_string()),
        }
    }

    fn refuse_player(&mut self, reason: &str) {
        count(&self.context.counters.not_played);
        info!(peer = %self.context.peer, reason, "player refused");
        self.session.refuse_player(reason);
        self.role = Role::Unknown;
    }

    /// Sends a player its tags.
    async fn play(&mut self, tags: Option<Vec<Tag>>) -> Option<End> {
        self.role = match std::mem::replace(&mut self.role, Role::Unknown) {
            Role::Waiting(viewer) if tags.is_some() => {
                count(&self.context.counters.played);
                info!(peer = %self.context.peer, "player plays");
                self.session.accept_player();
                Role::Player(viewer)
            }
            role => role,
        };
        if let Some(end) = self.advance().await {
            return Some(end);
        }
        let Some(tags) = tags else {
            if matches!(self.role, Role::Waiting(_)) {
                self.refuse_player("the stream is over");
            } else {
                self.session.end_play();
            }
            return None;
        };
        for tag in tags {
            let bytes = self.session.media(&tag);
            if let Some(end) = self.send(&bytes).await {
                return Some(end);
            }
        }
        None
    }

    /// Time to ask for something again, or to read that it is finished and leave.
    fn become_unknown(&mut self) {
        self.role = Role::Unknown;
        self.place = None;
        self.deadline = Instant::now() + self.context.limits.setup_max;
    }

    async fn finish(&mut self, cause: FinishCause) {
        if let Role::Encoder(claim) = std::mem::replace(&mut self.role, Role::Unknown) {
            info!(peer = %self.context.peer, ?cause, "encoder left");
            claim.send(RtmpEvent::Finished { cause }).await;
            self.become_unknown();
        }
    }

    /// Closes our side and reads on for a moment: closing with unread bytes would reset the
    /// connection and take the reason for a refusal away from the peer.
    async fn say_goodbye(mut self) {
        let _ = self.socket.shutdown().await;
        let mut rest = [0; 4_096];
        let drain = async { while matches!(self.socket.read(&mut rest).await, Ok(1..)) {} };
        let _ = timeout(self.context.limits.goodbye_max, drain).await;
    }
}
