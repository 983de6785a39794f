//! The greeting at the begin of a feed: HELLO and its answer.
//!
//! Owns the exchange on both sides, bounded in time and bytes: a negotiated stream alone proves
//! nothing, since an overloaded node may drop it unseen. Does not own the decision to accept.

use std::{io, time::Duration};

use astral_core::media::frame::{
    FrameError, FrameReader, FrameSide, Hello, HelloAck, RawFrame, RefuseReason,
};
use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use super::side;

/// The whole greeting takes at most this.
pub const GREETING_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a greeting came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum GreetingError {
    /// Too slow.
    #[error("no greeting in time")]
    Timeout,
    /// The stream broke.
    #[error("the stream broke: {0}")]
    Io(#[from] io::Error),
    /// Not the frame that belongs here.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The other side refused.
    #[error("refused: {0:?}")]
    Refused(RefuseReason),
}

/// Greets on a stream that we opened; gives the reader, which may hold the first frames already.
///
/// # Errors
/// [`GreetingError`]; the stream is to be dropped.
pub async fn greet<S>(stream: &mut S, hello: Hello) -> Result<FrameReader, GreetingError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let exchange = async {
        let mut bytes = BytesMut::with_capacity(64);
        hello.encode(&mut bytes);
        stream.write_all(&bytes).await?;
        stream.flush().await?;
        let mut frames = FrameReader::new(side(hello.opener));
        match HelloAck::decode(&first_frame(stream, &mut frames).await?)? {
            HelloAck::Accepted => Ok(frames),
            HelloAck::Refused(reason) => Err(GreetingError::Refused(reason)),
        }
    };
    timeout(GREETING_TIMEOUT, exchange).await.map_err(|_| GreetingError::Timeout)?
}

/// Reads the greeting on a stream that the other side opened. The answer is for the caller, see
/// [`answer`].
///
/// # Errors
/// [`GreetingError`]; the stream is to be dropped.
pub async fn be_greeted<S>(stream: &mut S) -> Result<Hello, GreetingError>
where
    S: AsyncRead + Unpin,
{
    // A greeting may come from either side and is alone until it is answered.
    let mut frames = FrameReader::new(FrameSide::Up);
    let greeting = timeout(GREETING_TIMEOUT, first_frame(stream, &mut frames)).await;
    let frame = greeting.map_err(|_| GreetingError::Timeout)??;
    if frames.is_within_frame() {
        return Err(FrameError::Field { name: "bytes before the answer" }.into());
    }
    Ok(Hello::decode(&frame)?)
}

/// Answers a greeting.
///
/// # Errors
/// [`GreetingError::Io`] or [`GreetingError::Timeout`].
pub async fn answer<S>(stream: &mut S, ack: HelloAck) -> Result<(), GreetingError>
where
    S: AsyncWrite + Unpin,
{
    let mut bytes = BytesMut::with_capacity(8);
    ack.encode(&mut bytes);
    let write = async {
        stream.write_all(&bytes).await?;
        stream.flush().await
    };
    timeout(GREETING_TIMEOUT, write).await.map_err(|_| GreetingError::Timeout)??;
    Ok(())
}

async fn first_frame<S>(stream: &mut S, frames: &mut FrameReader) -> Result<RawFrame, GreetingError>
where
    S: AsyncRead + Unpin,
{
    loop {
        if let Some(frame) = frames.next() {
            return Ok(frame?);
        }
        if stream.read_buf(frames.buffer_mut()).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}

#[cfg(test)]
mod tests {
    use astral_core::ids::{Direction, StreamId};

    use super::*;

    const HELLO: Hello = Hello { stream: StreamId([4; 32]), opener: Direction::FromParent };

    #[tokio::test]
    async fn both_sides_agree_on_the_stream_and_the_roles() {
        let (mut one, mut two) = tokio::io::duplex(1024);
        let accept = async {
            let hello = be_greeted(&mut two).await.unwrap();
            answer(&mut two, HelloAck::Accepted).await.unwrap();
            hello
        };
        let (greeted, hello) = tokio::join!(greet(&mut one, HELLO), accept);
        assert!(greeted.is_ok());
        assert_eq!(hello, HELLO);
    }

    #[tokio::test]
    async fn a_refusal_is_told_with_its_reason() {
        let (mut one, mut two) = tokio::io::duplex(1024);
        let accept = async {
            be_greeted(&mut two).await.unwrap();
            answer(&mut two, HelloAck::Refused(RefuseReason::Busy)).await.unwrap();
        };
        let (greeted, ()) = tokio::join!(greet(&mut one, HELLO), accept);
        assert!(matches!(greeted, Err(GreetingError::Refused(RefuseReason::Busy))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_costs_one_deadline() {
        let (mut one, _two) = tokio::io::duplex(1024);
        assert!(matches!(greet(&mut one, HELLO).await, Err(GreetingError::Timeout)));
        assert!(matches!(be_greeted(&mut one).await, Err(GreetingError::Timeout)));
    }

    #[tokio::test]
    async fn garbage_is_refused_before_its_end() {
        let (mut one, mut two) = tokio::io::duplex(1024);
        one.write_all(&[0x13, 0xff, 0xff, 0xff]).await.unwrap();
        assert!(matches!(be_greeted(&mut two).await, Err(GreetingError::Frame(_))));
    }
}
