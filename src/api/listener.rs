//! A TCP listener with a bound on open connections, and an end for those that take nothing.
//!
//! Owns the bounds. Does not own what is served.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::serve::Listener;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep},
};

/// HTTP connections at the same time; further ones wait in the system's queue. Two hundred players are
/// promised, of which one of HLS keeps up to four open, and a page some ten.
pub const CONNECTIONS_MAX: usize = 1_024;

/// A peer that takes no byte this long loses its connection: a player that stopped reading has long
/// been moved to a newer keyframe, and only holds a place.
pub const STALL_MAX: Duration = Duration::from_secs(20);

/// What may wait in the kernel for one connection before it is sent. A player that is slow is behind by
/// this and what it has not read yet, not by megabytes: it is the node that skips for it.
const UNSENT_BYTES_MAX: u32 = 256 * 1_024;

/// A stranger's connection over which nothing goes either way for this long is closed: it would only
/// keep others out.
pub const IDLE_MAX: Duration = Duration::from_secs(60);

/// Accepts while fewer than [`CONNECTIONS_MAX`] connections are open.
pub(super) struct BoundedListener {
    listener: TcpListener,
    room: Arc<Semaphore>,
    idle_max: Option<Duration>,
}

impl BoundedListener {
    pub(super) fn new(listener: TcpListener) -> Self {
        Self { listener, room: Arc::new(Semaphore::new(CONNECTIONS_MAX)), idle_max: None }
    }

    /// As [`Self::new`], for strangers: [`IDLE_MAX`] holds.
    pub(super) fn public(listener: TcpListener) -> Self {
        Self { idle_max: Some(IDLE_MAX), ..Self::new(listener) }
    }
}

impl Listener for BoundedListener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let permit = self.room.clone().acquire_owned().await.ok();
        // The library's own accept retries after errors of single connections.
        let (socket, addr) = Listener::accept(&mut self.listener).await;
        // Media goes out frame by frame: waiting to fill a packet would only delay it.
        let _ = socket.set_nodelay(true);
        bound_unsent(&socket);
        let idle = self.idle_max.map(|max| (max, Box::pin(sleep(max))));
        (Connection { socket, stalled: None, idle, _permit: permit }, addr)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

#[cfg(target_os = "linux")]
fn bound_unsent(socket: &TcpStream) {
    // Where the kernel doesn't know it, its own bound holds.
    let _ = socket2::SockRef::from(socket).set_tcp_notsent_lowat(UNSENT_BYTES_MAX);
}

#[cfg(not(target_os = "linux"))]
fn bound_unsent(_: &TcpStream) {}

/// A connection that counts as long as it lives.
pub(super) struct Connection {
    socket: TcpStream,
    /// Runs while the peer takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Runs while nothing goes either way, and how long it may.
    idle: Option<(Duration, Pin<Box<Sleep>>)>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Connection {
    /// Something went through.
    fn stir(&mut self) {
        if let Some((max, idle)) = &mut self.idle {
            idle.as_mut().reset(Instant::now() + *max);
        }
    }

    /// Passes the outcome of a write on, unless the peer has taken nothing for too long.
    fn watch<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            self.stir();
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(STALL_MAX)));
        ready!(stalled.as_mut().poll(cx));
        // Otherwise the kernel would go on offering what nobody takes, and keep it for minutes.
        let _ = socket2::SockRef::from(&self.socket).set_linger(Some(Duration::ZERO));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes nothing")))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.socket).poll_read(cx, buffer);
        if read.is_ready() {
            self.stir();
        } else if let Some((_, idle)) = &mut self.idle {
            ready!(idle.as_mut().poll(cx));
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "nothing is said")));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.watch(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, bytes);
        self.watch(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        time::timeout,
    };

    use super::*;

    #[tokio::test]
    async fn a_peer_that_takes_nothing_loses_its_connection_and_a_slow_one_does_not() {
        let mut listener = BoundedListener::new(TcpListener::bind("127.0.0.1:0").await.unwrap());
        let _peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut connection, _) = listener.accept().await;
        // Real sockets fill in real time; only the wait for the stall is skipped.
        let full = async { while connection.write(&[0; 65_536]).await.is_ok() {} };
        assert!(timeout(Duration::from_secs(2), full).await.is_err(), "the socket is full");
        tokio::time::pause();
        let error = connection.write(&[0; 65_536]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_stranger_who_says_nothing_loses_the_connection_and_the_owners_programs_do_not() {
        let bound = async || TcpListener::bind("127.0.0.1:0").await.unwrap();
        for (mut listener, loses) in [
            (BoundedListener::public(bound().await), true),
            (BoundedListener::new(bound().await), false),
        ] {
            let _peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (mut connection, _) = listener.accept().await;
            tokio::time::pause();
            let read = timeout(2 * IDLE_MAX, connection.read(&mut [0; 8])).await;
            tokio::time::resume();
            assert_eq!(read.is_ok_and(|read| read.is_err()), loses);
        }
    }
}
