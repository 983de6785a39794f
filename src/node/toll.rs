//! What this node relays for others, under its upload limit.
//!
//! Owns a layer around every connection that finds the streams by which circuits run through this
//! node, counts what is written to them, and lets no more of it pass than their share of the limit:
//! libp2p's relay copies as fast as the sockets take it. The media task gives up what was counted here
//! (see `Media`), so that all that leaves the node stays below the one limit. Does not own who gets a
//! circuit nor for how long (`relaying`), nor the places in the tree that relaying costs (the overlay).

use std::{
    io::{self, IoSlice, IoSliceMut},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use astral_core::{media::pacer::Pacer, units::Bitrate};
use libp2p::{
    StreamProtocol,
    core::{
        muxing::{StreamMuxer, StreamMuxerEvent},
        upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo},
    },
    futures::{AsyncRead, AsyncWrite, FutureExt, TryFutureExt, future::BoxFuture},
    relay::{HOP_PROTOCOL_NAME, STOP_PROTOCOL_NAME},
};
use tokio::time::{Sleep, sleep_until};

use super::clock::Clock;

pub mod taken;

/// Under an upload limit relaying gets at most this share of it, one in so many parts.
pub const UPLINK_PARTS: u64 = 4;
/// Bytes of circuits that pass at once; each that waits its turn sends no more.
const PIECE: usize = 4 * 1024;
/// Names of protocols that are longer than this are none of those looked for.
const NAME_MAX: usize = 127;

/// The share of an upload limit that circuits may use.
#[must_use]
pub const fn share(uplink: Bitrate) -> Bitrate {
    Bitrate::from_bps(uplink.as_bps() / UPLINK_PARTS)
}

/// What all circuits of a node share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Toll(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    clock: Clock,
    pacer: Mutex<Pacer>,
    bytes: AtomicU64,
}

impl Toll {
    /// Nothing relayed yet, and no limit.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let pacer = Mutex::new(Pacer::new(clock.now()));
        Self(Arc::new(Shared { clock, pacer, bytes: AtomicU64::new(0) }))
    }

    /// The node's upload limit, or none, from now on.
    pub fn set_uplink(&self, uplink: Option<Bitrate>) {
        self.pacer().set_ceiling(uplink.map(share), self.0.clock.now());
    }

    /// What circuits may use; `None` = all they want.
    #[must_use]
    pub fn ceiling(&self) -> Option<Bitrate> {
        self.pacer().ceiling()
    }

    /// Bytes written to circuits since the node started, in both directions.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Yields a connection whose circuits pay here.
    pub const fn at<M>(self, connection: M) -> Tolled<M> {
        Tolled { connection, toll: self }
    }

    fn pacer(&self) -> MutexGuard<'_, Pacer> {
        self.0.pacer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When `bytes` may pass; `None` = now.
    fn wait(&self, bytes: usize) -> Option<tokio::time::Instant> {
        let now = self.0.clock.now();
        let mut pacer = self.pacer();
        (!pacer.allows(bytes, now)).then(|| self.0.clock.instant(pacer.ready_at(bytes)))
    }

    fn pay(&self, bytes: usize) {
        self.pacer().spend(bytes, self.0.clock.now());
        self.0.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// A multiplexer upgrade whose output is [`Tolled`].
#[derive(Clone, Debug)]
pub struct Tolling<U>(pub U, pub Toll);

impl<U: UpgradeInfo> UpgradeInfo for Tolling<U> {
    type Info = U::Info;
    type InfoIter = U::InfoIter;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.protocol_info()
    }
}

impl<C, U> InboundConnectionUpgrade<C> for Tolling<U>
where
    U: InboundConnectionUpgrade<C, Future: Send + 'static>,
{
    type Output = Tolled<U::Output>;
    type Error = U::Error;
    type Future = BoxFuture<'static, Result<Self::Output, Self::Error>>;

    fn upgrade_inbound(self, socket: C, info: Self::Info) -> Self::Future {
        let toll = self.1;
        self.0.upgrade_inbound(socket, info).map_ok(|muxer| toll.at(muxer)).boxed()
    }
}

impl<C, U> OutboundConnectionUpgrade<C> for Tolling<U>
where
    U: OutboundConnectionUpgrade<C, Future: Send + 'static>,
{
    type Output = Tolled<U::Output>;
    type Error = U::Error;
    type Future = BoxFuture<'static, Result<Self::Output, Self::Error>>;

    fn upgrade_outbound(self, socket: C, info: Self::Info) -> Self::Future {
        let toll = self.1;
        self.0.upgrade_outbound(socket, info).map_ok(|muxer| toll.at(muxer)).boxed()
    }
}

/// A connection whose circuits pay.
#[derive(Debug)]
pub struct Tolled<M> {
    connection: M,
    toll: Toll,
}

impl<M: StreamMuxer<Substream: Unpin> + Unpin> StreamMuxer for Tolled<M> {
    type Substream = Lane<M::Substream>;
    type Error = M::Error;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        let stream = ready!(Pin::new(&mut self.connection).poll_inbound(cx))?;
        // Whoever wants a circuit opens the stream that it will be.
        Poll::Ready(Ok(Lane::new(stream, HOP_PROTOCOL_NAME, self.toll.clone())))
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        let stream = ready!(Pin::new(&mut self.connection).poll_outbound(cx))?;
        // And this node, as its relay, the one to the other end.
        Poll::Ready(Ok(Lane::new(stream, STOP_PROTOCOL_NAME, self.toll.clone())))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Pin::new(&mut self.connection).poll_close(cx)
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<StreamMuxerEvent, Self::Error>> {
        Pin::new(&mut self.connection).poll(cx)
    }
}

/// One stream of a connection.
#[derive(Debug)]
pub struct Lane<S> {
    stream: S,
    kind: Kind,
}

/// What a stream carries.
#[derive(Debug)]
enum Kind {
    /// Its protocol is not agreed on yet.
    Unknown { said: Said, toll: Toll },
    /// Somebody's circuit.
    Circuit { toll: Toll, wait: Option<Pin<Box<Sleep>>> },
    /// Anything else: passes untouched.
    Own,
}

/// What this node wrote while the protocol was agreed on. Both ends name it: the one that opens by
/// proposing, the other by agreeing.
#[derive(Debug)]
struct Said {
    wanted: StreamProtocol,
    message: Vec<u8>,
}

impl Said {
    /// More was written: whether the protocol is the one that is looked for, once that is known.
    fn more(&mut self, bytes: &[u8]) -> Option<bool> {
        for byte in bytes {
            self.message.push(*byte);
            let Some((length, text)) = self.message.split_first() else { continue };
            let length = usize::from(*length);
            if length > NAME_MAX {
                return Some(false);
            }
            if text.len() < length {
                continue;
            }
            match text.strip_suffix(b"\n") {
                // The greeting, and a refusal of what the other side proposed.
                Some(b"/multistream/1.0.0" | b"na") => self.message.clear(),
                name => return Some(name == Some(self.wanted.as_ref().as_bytes())),
            }
        }
        None
    }
}

impl<S> Lane<S> {
    const fn new(stream: S, wanted: StreamProtocol, toll: Toll) -> Self {
        let said = Said { wanted, message: Vec::new() };
        Self { stream, kind: Kind::Unknown { said, toll } }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lane<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }

    fn poll_read_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read_vectored(cx, bufs)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Lane<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        match &mut this.kind {
            Kind::Own => Pin::new(&mut this.stream).poll_write(cx, buf),
            Kind::Unknown { said, toll } => {
                let written = ready!(Pin::new(&mut this.stream).poll_write(cx, buf))?;
                let bytes = buf.get(..written).unwrap_or(buf);
                match said.more(bytes) {
                    Some(true) => {
                        this.kind = Kind::Circuit { toll: toll.clone(), wait: None };
                    }
                    Some(false) => this.kind = Kind::Own,
                    None => {}
                }
                Poll::Ready(Ok(written))
            }
            Kind::Circuit { toll, wait } => {
                let piece = buf.get(..PIECE).unwrap_or(buf);
                while let Some(at) = toll.wait(piece.len()) {
                    let sleep = wait.get_or_insert_with(|| Box::pin(sleep_until(at)));
                    ready!(sleep.as_mut().poll(cx));
                    // Another circuit may have been first.
                    *wait = None;
                }
                let written = ready!(Pin::new(&mut this.stream).poll_write(cx, piece))?;
                toll.pay(written);
                Poll::Ready(Ok(written))
            }
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if matches!(self.kind, Kind::Own) {
            return Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        }
        let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| &**buf);
        self.poll_write(cx, first)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

#[cfg(test)]
mod tests;
