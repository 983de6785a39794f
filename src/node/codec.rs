//! Tickets and directory messages on a request-response stream.
//!
//! Owns the framing: one message, then the end of the stream, at most [`MESSAGE_BYTES_MAX`] bytes
//! read. Does not own the messages' encoding (`astral_core::overlay::Wire`).

use std::{fmt, io, marker::PhantomData};

use astral_core::overlay::{MESSAGE_BYTES_MAX, Wire, WireError};
use libp2p::{
    StreamProtocol,
    futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    request_response,
};

/// A request as it was read. libp2p tells nobody of a request that could not be read; whoever sends
/// such is to be dropped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Asked<Q> {
    /// A message.
    Sound(Q),
    /// Bytes that are none.
    Malformed(WireError),
}

/// Codec of a protocol with requests `Q` and answers `A`.
pub struct MessageCodec<Q, A>(PhantomData<fn() -> (Q, A)>);

impl<Q, A> Default for MessageCodec<Q, A> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<Q, A> Clone for MessageCodec<Q, A> {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl<Q, A> fmt::Debug for MessageCodec<Q, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MessageCodec")
    }
}

impl<Q, A> request_response::Codec for MessageCodec<Q, A>
where
    Q: Wire + Send + Sync + 'static,
    A: Wire + Send + Sync + 'static,
{
    type Protocol = StreamProtocol;
    type Request = Asked<Q>;
    type Response = A;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Asked<Q>>
    where
        T: AsyncRead + Unpin + Send,
    {
        Ok(read(io).await?.map_or_else(Asked::Malformed, Asked::Sound))
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<A>
    where
        T: AsyncRead + Unpin + Send,
    {
        read(io).await?.map_err(invalid)
    }

    async fn write_request<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        body: Asked<Q>,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        match body {
            Asked::Sound(body) => write(io, &body).await,
            Asked::Malformed(error) => Err(invalid(error)),
        }
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, body: A) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write(io, &body).await
    }
}

async fn read<M, T>(io: &mut T) -> io::Result<Result<M, WireError>>
where
    M: Wire,
    T: AsyncRead + Unpin + Send,
{
    let mut bytes = Vec::with_capacity(1_024);
    // One byte more than allowed tells "too large" from "just fits".
    let limit = MESSAGE_BYTES_MAX as u64 + 1;
    io.take(limit).read_to_end(&mut bytes).await?;
    if bytes.is_empty() {
        // Who was to write has gone: over QUIC that looks like an end. It is no bad message.
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(M::from_wire(&bytes))
}

async fn write<M: Wire, T: AsyncWrite + Unpin + Send>(io: &mut T, message: &M) -> io::Result<()> {
    let bytes = message.to_wire().map_err(invalid)?;
    io.write_all(&bytes).await
}

fn invalid(error: WireError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use astral_core::overlay::{DirRequest, TicketRequest};
    use libp2p::futures::io::Cursor;

    use super::*;

    #[tokio::test]
    async fn a_message_survives_the_stream() {
        let message = DirRequest::List { after: None };
        let mut bytes = Cursor::new(Vec::new());
        write(&mut bytes, &message).await.unwrap();
        bytes.set_position(0);
        assert_eq!(read::<DirRequest, _>(&mut bytes).await.unwrap(), Ok(message));
    }

    #[tokio::test]
    async fn sixteen_mebibytes_are_refused_after_sixteen_kibibytes() {
        let mut bytes = Cursor::new(vec![0x82; 16 << 20]);
        let refused = read::<TicketRequest, _>(&mut bytes).await.unwrap();
        assert_eq!(refused, Err(WireError::TooLarge));
        assert_eq!(bytes.position(), MESSAGE_BYTES_MAX as u64 + 1);
    }
}
