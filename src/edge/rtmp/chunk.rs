//! Reads RTMP chunks and puts messages together again.
//!
//! Owns the receiving half of the chunk protocol and its limits. Does not own what messages mean.
//! Our own reader and not `rml_rtmp`'s, whose reader holds one unfinished message for the whole
//! connection (so interleaved chunk streams mix), has no limit on a message, and underflows when a
//! header shrinks a message that has begun.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use std::collections::BTreeMap;

use bytes::{Buf, Bytes, BytesMut};

/// Largest message: the largest media tag ([`astral_core::media::flv::TAG_BYTES_MAX`]).
pub const MESSAGE_BYTES_MAX: usize = astral_core::media::flv::TAG_BYTES_MAX;
/// Bytes of unfinished messages on one connection, all chunk streams together.
pub const PARTIAL_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;
/// Largest message before a connection has shown what it is for: a command (see
/// [`session`](super::session)).
pub const UNPROVEN_MESSAGE_BYTES_MAX: usize = 64 * 1_024;
/// Bytes of unfinished messages until then.
pub const UNPROVEN_PARTIAL_BYTES_MAX: usize = 2 * UNPROVEN_MESSAGE_BYTES_MAX;
/// Chunk streams on one connection. Encoders use three to eight.
pub const CHUNK_STREAMS_MAX: usize = 32;

/// Chunk size before the peer sets another; from the RTMP specification, section 5.4.1.
const CHUNK_BYTES_INITIAL: usize = 128;
/// In the three-byte field: four more bytes hold the time.
const EXTENDED: u32 = 0xff_ffff;

/// One whole message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// Message type id.
    pub kind: u8,
    /// Message stream id.
    pub stream: u32,
    /// Milliseconds; wraps.
    pub timestamp: u32,
    /// The message's bytes.
    pub body: Bytes,
}

/// Why a connection's chunks can't be read on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChunkError {
    /// More than [`MESSAGE_BYTES_MAX`], or [`UNPROVEN_MESSAGE_BYTES_MAX`], announced.
    #[error("a message of {bytes} bytes is larger than {max}")]
    MessageTooLong {
        /// What the header says.
        bytes: usize,
        /// What is taken.
        max: usize,
    },
    /// More than [`PARTIAL_BYTES_MAX`], or [`UNPROVEN_PARTIAL_BYTES_MAX`], waiting.
    #[error("more than {max} bytes of unfinished messages")]
    TooMuchUnfinished {
        /// What is kept.
        max: usize,
    },
    /// More than [`CHUNK_STREAMS_MAX`].
    #[error("more than {CHUNK_STREAMS_MAX} chunk streams")]
    TooManyChunkStreams,
    /// A shortened header with nothing to take the rest from.
    #[error("a shortened header on chunk stream {id}, which has no full one")]
    NoHeader {
        /// Chunk stream id.
        id: u32,
    },
    /// A message begins inside another one.
    #[error("a message begins inside another on chunk stream {id}")]
    Interrupted {
        /// Chunk stream id.
        id: u32,
    },
    /// Outside 1 to 2^31 - 1.
    #[error("chunk size {bytes} is impossible")]
    ChunkSize {
        /// What the peer asked for.
        bytes: u32,
    },
}

#[derive(Debug, Default)]
struct Channel {
    kind: u8,
    stream: u32,
    length: usize,
    timestamp: u32,
    /// Added to the time of a message whose header leaves the time out.
    delta: u32,
    /// The extended field of the last full header, when it had one.
    extended: Option<u32>,
    partial: BytesMut,
    begun: bool,
}

/// Puts messages together from bytes, bounded by the limits above.
#[derive(Debug)]
pub struct ChunkReader {
    buffer: BytesMut,
    channels: BTreeMap<u32, Channel>,
    chunk_bytes: usize,
    /// Chunk stream and bytes that the chunk being read still has.
    current: Option<(u32, usize)>,
    partial_bytes: usize,
    message_max: usize,
    partial_max: usize,
}

struct Header {
    format: u8,
    id: u32,
    len: usize,
    field: u32,
    length: usize,
    kind: u8,
    stream: u32,
}

impl Default for ChunkReader {
    fn default() -> Self {
        Self {
            buffer: BytesMut::new(),
            channels: BTreeMap::new(),
            chunk_bytes: CHUNK_BYTES_INITIAL,
            current: None,
            partial_bytes: 0,
            message_max: UNPROVEN_MESSAGE_BYTES_MAX,
            partial_max: UNPROVEN_PARTIAL_BYTES_MAX,
        }
    }
}

impl ChunkReader {
    /// The peer publishes: from here on it may send media.
    pub const fn expect_media(&mut self) {
        self.message_max = MESSAGE_BYTES_MAX;
        self.partial_max = PARTIAL_BYTES_MAX;
    }

    /// Takes bytes as they came. Drain with [`Self::next`] before the next push: what is not
    /// drained stays in memory.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message, or `None` until more bytes come.
    ///
    /// # Errors
    /// [`ChunkError`]: the connection can't be read on.
    #[expect(clippy::should_implement_trait, reason = "an iterator can't go on after None")]
    pub fn next(&mut self) -> Result<Option<Message>, ChunkError> {
        loop {
            if let Some((id, left)) = self.current {
                let Some(done) = self.read_payload(id, left)? else { return Ok(None) };
                if let Some(message) = done {
                    return Ok(Some(message));
                }
            }
            if !self.read_header()? {
                return Ok(None);
            }
        }
    }

    /// The peer's chunks are from here on up to `bytes` long.
    ///
    /// # Errors
    /// [`ChunkError::ChunkSize`] for a size that the protocol does not have.
    pub fn set_chunk_bytes(&mut self, bytes: u32) -> Result<(), ChunkError> {
        if bytes == 0 || bytes > 0x7fff_ffff {
            return Err(ChunkError::ChunkSize { bytes });
        }
        self.chunk_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        Ok(())
    }

    /// The peer gives up the unfinished message of chunk stream `id`.
    pub fn abort(&mut self, id: u32) {
        if let Some(channel) = self.channels.get_mut(&id) {
            self.partial_bytes = self.partial_bytes.saturating_sub(channel.partial.len());
            channel.partial = BytesMut::new();
            channel.begun = false;
        }
    }

    /// Bytes held: what waits to be read and what waits to become a message.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.buffer.len().saturating_add(self.partial_bytes)
    }

    /// Moves payload to its message. `None`: more bytes are needed; `Some(None)`: the chunk is
    /// complete, the message is not.
    fn read_payload(
        &mut self,
        id: u32,
        left: usize,
    ) -> Result<Option<Option<Message>>, ChunkError> {
        let taken = left.min(self.buffer.len());
        let Some(channel) = self.channels.get_mut(&id) else {
            return Err(ChunkError::NoHeader { id });
        };
        self.partial_bytes = self.partial_bytes.saturating_add(taken);
        if self.partial_bytes > self.partial_max {
            return Err(ChunkError::TooMuchUnfinished { max: self.partial_max });
        }
        channel.partial.extend_from_slice(&self.buffer.split_to(taken));
        let left = left.saturating_sub(taken);
        if left > 0 {
            self.current = Some((id, left));
            return Ok(None);
        }
        self.current = None;
        if channel.partial.len() < channel.length {
            return Ok(Some(None));
        }
        let body = std::mem::take(&mut channel.partial).freeze();
        self.partial_bytes = self.partial_bytes.saturating_sub(body.len());
        channel.begun = false;
        let Channel { kind, stream, timestamp, .. } = *channel;
        Ok(Some(Some(Message { kind, stream, timestamp, body })))
    }

    /// Reads one chunk header; false until it is there whole.
    fn read_header(&mut self) -> Result<bool, ChunkError> {
        let Some(header) = parse(&self.buffer) else { return Ok(false) };
        let Header { format, id, mut len, field, length, kind, stream } = header;
        if !self.channels.contains_key(&id) {
            if format != 0 {
                return Err(ChunkError::NoHeader { id });
            }
            if self.channels.len() >= CHUNK_STREAMS_MAX {
                return Err(ChunkError::TooManyChunkStreams);
            }
        }
        let channel = self.channels.entry(id).or_default();
        if channel.begun && format != 3 {
            return Err(ChunkError::Interrupted { id });
        }
        let after = self.buffer.get(len..).unwrap_or_default().first_chunk::<4>();
        let after = after.map(|bytes| u32::from_be_bytes(*bytes));
        let expects_extended =
            if format == 3 { channel.extended.is_some() } else { field == EXTENDED };
        if expects_extended {
            let Some(value) = after else { return Ok(false) };
            // Some encoders leave the field out after the first chunk of a message: it is there
            // when it repeats the value of the full header.
            if format != 3 || channel.extended == Some(value) {
                len = len.saturating_add(4);
            }
        }
        let time = if expects_extended { after.unwrap_or(field) } else { field };
        if format < 2 {
            if length > self.message_max {
                let max = self.message_max;
                return Err(ChunkError::MessageTooLong { bytes: length, max });
            }
            channel.length = length;
            channel.kind = kind;
        }
        if format < 3 {
            channel.delta = time;
            channel.extended = expects_extended.then_some(time);
        }
        if format == 0 {
            channel.stream = stream;
            channel.timestamp = time;
        } else if !channel.begun {
            channel.timestamp = channel.timestamp.wrapping_add(channel.delta);
        }
        channel.begun = true;
        let left = channel.length.saturating_sub(channel.partial.len());
        self.current = Some((id, left.min(self.chunk_bytes)));
        self.buffer.advance(len);
        Ok(true)
    }
}

/// The header at the beginning of `bytes` without its extended field, when it is there whole.
fn parse(bytes: &[u8]) -> Option<Header> {
    let first = *bytes.first()?;
    let (id, basic) = match first & 0x3f {
        0 => (u32::from(*bytes.get(1)?).saturating_add(64), 2_usize),
        1 => {
            let id = u16::from_le_bytes([*bytes.get(1)?, *bytes.get(2)?]);
            (u32::from(id).saturating_add(64), 3)
        }
        id => (u32::from(id), 1),
    };
    let format = first >> 6;
    let size: usize = match format {
        0 => 11,
        1 => 7,
        2 => 3,
        _ => 0,
    };
    let len = basic.saturating_add(size);
    let fields = bytes.get(basic..len)?;
    let u24 = |at: usize| {
        let end = at.saturating_add(3);
        let Some([a, b, c]) = fields.get(at..end) else { return 0 };
        u32::from_be_bytes([0, *a, *b, *c])
    };
    let stream = fields.get(7..11).and_then(|b| b.first_chunk::<4>());
    Some(Header {
        format,
        id,
        len,
        field: u24(0),
        length: usize::try_from(u24(3)).unwrap_or(usize::MAX),
        kind: fields.get(6).copied().unwrap_or_default(),
        stream: stream.map_or(0, |bytes| u32::from_le_bytes(*bytes)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(id: u8, time: u32, kind: u8, length: usize) -> Vec<u8> {
        let mut bytes = vec![id];
        bytes.extend_from_slice(&time.min(EXTENDED).to_be_bytes()[1..]);
        bytes.extend_from_slice(&u32::try_from(length).unwrap().to_be_bytes()[1..]);
        bytes.extend_from_slice(&[kind, 1, 0, 0, 0]);
        if time >= EXTENDED {
            bytes.extend_from_slice(&time.to_be_bytes());
        }
        bytes
    }

    fn drain(reader: &mut ChunkReader) -> Vec<Message> {
        std::iter::from_fn(|| reader.next().unwrap()).collect()
    }

    #[test]
    fn messages_of_two_chunk_streams_may_interleave() {
        let mut reader = ChunkReader::default();
        reader.push(&full(4, 10, 9, 200));
        reader.push(&[b'v'; 128]);
        reader.push(&full(5, 11, 8, 3));
        reader.push(b"aaa");
        reader.push(&[0xc4]);
        reader.push(&[b'v'; 72]);
        let messages = drain(&mut reader);
        assert_eq!(messages.len(), 2);
        assert_eq!(
            (messages[0].kind, messages[0].timestamp, &messages[0].body[..]),
            (8, 11, &b"aaa"[..])
        );
        assert_eq!((messages[1].kind, messages[1].timestamp), (9, 10));
        assert_eq!(&messages[1].body[..], &[b'v'; 200][..]);
        assert_eq!(reader.held_bytes(), 0);
    }

    #[test]
    fn one_byte_at_a_time_gives_the_same_messages() {
        let mut bytes = full(4, 0x0123_4567, 9, 300);
        let value = 0x0123_4567_u32.to_be_bytes();
        bytes.extend([b'x'; 128]);
        for part in [128, 44] {
            bytes.push(0xc4);
            bytes.extend(value);
            bytes.extend(vec![b'x'; part]);
        }
        bytes.extend([0x84, 0, 0, 20]);
        bytes.extend([b'y'; 128]);
        bytes.push(0xc4);
        bytes.extend([b'y'; 128]);
        bytes.push(0xc4);
        bytes.extend([b'y'; 44]);
        let mut whole = ChunkReader::default();
        whole.push(&bytes);
        let whole = drain(&mut whole);
        let mut reader = ChunkReader::default();
        let mut single = Vec::new();
        for byte in bytes {
            reader.push(&[byte]);
            single.extend(drain(&mut reader));
        }
        assert_eq!(single, whole);
        assert_eq!(single[0].timestamp, 0x0123_4567);
        assert_eq!(single[1].timestamp, 0x0123_4567 + 20);
        assert_eq!(&single[0].body[..], &[b'x'; 300][..]);
    }

    #[test]
    fn an_extended_time_left_out_of_later_chunks_is_not_eaten_from_the_payload() {
        let mut reader = ChunkReader::default();
        reader.push(&full(4, 0x0100_0000, 9, 130));
        reader.push(&[b'x'; 128]);
        reader.push(&[0xc4, b'x', b'x']);
        reader.push(&full(4, 0x0100_0001, 9, 0));
        let messages = drain(&mut reader);
        assert_eq!(messages.len(), 2);
        assert_eq!(&messages[0].body[..], &[b'x'; 130][..]);
    }

    #[test]
    fn time_wraps_and_deltas_repeat() {
        let mut reader = ChunkReader::default();
        reader.push(&full(4, 0xffff_fff0, 8, 1));
        reader.push(b"a");
        reader.push(&[0x84, 0, 0, 0x20, b'b', 0xc4, b'c']);
        let times: Vec<u32> = drain(&mut reader).iter().map(|m| m.timestamp).collect();
        assert_eq!(times, [0xffff_fff0, 0x10, 0x30]);
    }

    #[test]
    fn absurd_headers_are_errors_and_take_no_memory() {
        let error = |bytes: &[u8]| {
            let mut reader = ChunkReader::default();
            reader.push(bytes);
            let error = loop {
                match reader.next() {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("no error"),
                    Err(error) => break error,
                }
            };
            assert!(reader.held_bytes() <= bytes.len());
            error
        };
        assert_eq!(error(&[0xc4]), ChunkError::NoHeader { id: 4 });
        let bytes = 0xff_ffff;
        let max = UNPROVEN_MESSAGE_BYTES_MAX;
        assert_eq!(error(&full(4, 0, 9, bytes)), ChunkError::MessageTooLong { bytes, max });
        let mut inside = full(4, 0, 9, 500);
        inside.extend([0; 128]);
        inside.extend(full(4, 0, 9, 5));
        assert_eq!(error(&inside), ChunkError::Interrupted { id: 4 });
        let many: Vec<u8> = (3..60).flat_map(|id| full(id, 0, 9, 0)).collect();
        assert_eq!(error(&many), ChunkError::TooManyChunkStreams);
        let mut reader = ChunkReader::default();
        assert_eq!(reader.set_chunk_bytes(0), Err(ChunkError::ChunkSize { bytes: 0 }));
        assert!(reader.set_chunk_bytes(u32::MAX).is_err());
        assert_eq!(reader.set_chunk_bytes(0x7fff_ffff), Ok(()));
    }

    #[test]
    fn unfinished_messages_are_bounded_together() {
        for (media, length, max) in [
            (true, MESSAGE_BYTES_MAX, PARTIAL_BYTES_MAX),
            (false, UNPROVEN_MESSAGE_BYTES_MAX, UNPROVEN_PARTIAL_BYTES_MAX),
        ] {
            let mut reader = ChunkReader::default();
            if media {
                reader.expect_media();
            }
            // Each chunk ends one byte before its message does, by a chunk size just below it.
            reader.set_chunk_bytes(u32::try_from(length - 1).unwrap()).unwrap();
            let mut outcome = Ok(None);
            for id in 3..7 {
                reader.push(&full(id, 0, 9, length));
                reader.push(&vec![0; length - 1]);
                outcome = reader.next();
            }
            assert_eq!(outcome, Err(ChunkError::TooMuchUnfinished { max }));
        }
    }

    #[test]
    fn an_aborted_message_is_forgotten() {
        let mut reader = ChunkReader::default();
        reader.push(&full(4, 0, 9, 200));
        reader.push(&[0; 128]);
        assert_eq!(reader.next(), Ok(None));
        reader.abort(4);
        reader.push(&full(4, 5, 9, 1));
        reader.push(b"z");
        assert_eq!(drain(&mut reader)[0].body, "z");
        assert_eq!(reader.held_bytes(), 0);
    }
}
