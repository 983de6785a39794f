//! One write for all frames that a connection has to send.
//!
//! Owns a layer between Noise and Yamux that puts a flush off until the connection has nothing more
//! to write. Yamux cuts what it sends at 16 KiB and flushes each piece: without this layer a picture
//! of 17 KB costs two sealed messages and two system calls. There is no timer: Yamux writes all
//! frames that wait before it reads, and reading is what flushes here. Does not own bytes: Noise
//! keeps them, at most 64 KiB.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use libp2p::{
    PeerId,
    core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo},
    futures::{AsyncRead, AsyncWrite, FutureExt, TryFutureExt, future::BoxFuture},
};

/// A security upgrade whose output is [`Coalesced`].
#[derive(Clone, Debug)]
pub struct Coalescing<U>(pub U);

/// A connection whose flushes wait for the next read.
#[derive(Debug)]
pub struct Coalesced<T> {
    io: T,
    /// Something was written since the last flush that got through.
    is_dirty: bool,
}

impl<T> Coalesced<T> {
    const fn new(io: T) -> Self {
        Self { io, is_dirty: false }
    }
}

impl<T: AsyncWrite + Unpin> Coalesced<T> {
    fn flush_now(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_dirty {
            std::task::ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.is_dirty = false;
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Coalesced<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        // A socket that takes no more wakes this task when it does; that is no reason not to read.
        if let Poll::Ready(Err(error)) = self.flush_now(cx) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Coalesced<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.is_dirty = true;
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.flush_now(cx))?;
        Pin::new(&mut self.io).poll_close(cx)
    }
}

impl<U: UpgradeInfo> UpgradeInfo for Coalescing<U> {
    type Info = U::Info;
    type InfoIter = U::InfoIter;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.protocol_info()
    }
}

impl<C, U, T> InboundConnectionUpgrade<C> for Coalescing<U>
where
    U: InboundConnectionUpgrade<C, Output = (PeerId, T), Future: Send + 'static>,
{
    type Output = (PeerId, Coalesced<T>);
    type Error = U::Error;
    type Future = BoxFuture<'static, Result<Self::Output, Self::Error>>;

    fn upgrade_inbound(self, socket: C, info: Self::Info) -> Self::Future {
        let upgraded = self.0.upgrade_inbound(socket, info);
        upgraded.map_ok(|(peer, io)| (peer, Coalesced::new(io))).boxed()
    }
}

impl<C, U, T> OutboundConnectionUpgrade<C> for Coalescing<U>
where
    U: OutboundConnectionUpgrade<C, Output = (PeerId, T), Future: Send + 'static>,
{
    type Output = (PeerId, Coalesced<T>);
    type Error = U::Error;
    type Future = BoxFuture<'static, Result<Self::Output, Self::Error>>;

    fn upgrade_outbound(self, socket: C, info: Self::Info) -> Self::Future {
        let upgraded = self.0.upgrade_outbound(socket, info);
        upgraded.map_ok(|(peer, io)| (peer, Coalesced::new(io))).boxed()
    }
}

#[cfg(test)]
mod tests {
    use libp2p::futures::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Counts the flushes that get through; reads give nothing yet.
    #[derive(Default)]
    struct Counting {
        written: usize,
        flushes: usize,
        closed: bool,
    }

    impl AsyncRead for Counting {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Counting {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.written += buf.len();
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.flushes += 1;
            Poll::Ready(Ok(()))
        }

        fn poll_close(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.closed = true;
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn frames_that_wait_leave_together_when_the_connection_reads() {
        let mut io = Coalesced::new(Counting::default());
        for _ in 0..3 {
            io.write_all(&[7; 100]).await.unwrap();
            io.flush().await.unwrap();
        }
        assert_eq!((io.io.written, io.io.flushes), (300, 0));
        assert!(io.read(&mut [0; 8]).now_or_never().is_none());
        assert!(io.read(&mut [0; 8]).now_or_never().is_none());
        assert_eq!(io.io.flushes, 1, "once, and not again without need");
    }

    #[tokio::test]
    async fn nothing_stays_behind_when_the_connection_closes() {
        let mut io = Coalesced::new(Counting::default());
        io.write_all(&[7; 100]).await.unwrap();
        io.close().await.unwrap();
        assert_eq!((io.io.flushes, io.io.closed), (1, true));
    }
}
