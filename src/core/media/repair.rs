//! Messages of `/astral/repair/1`: chunks from a node that is not the parent.
//!
//! Owns their layouts, bounds and bytes. Does not own who is asked for what (see the relay), nor
//! signatures: what is decoded has the right form and nothing more.
//!
//! ```text
//! everything big endian; one question and one answer on a stream of its own
//! question = 0x30 WANT, body length u24: stream id (32), epoch u64, stripe u8, deadline_ms u32,
//!            count u8 (1..=8), {from u64, to u64}...
//! answer   = 0x31 HAVE, body length u24: epoch u64, count u8 (<= 16),
//!            {stripe u8, floor u64, end u64}...
//!            then CHUNK frames as on a feed, at most 64 KiB of them
//! ```
//!
//! A later version may append fields to WANT and HAVE: bytes after the known ones are skipped.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    byte_reader::ByteReader,
    chunk::{ChunkError, Payload, WireChunk},
    frame::{FRAME_HEADER_LEN, FRAME_UP_BODY_MAX, WANT_RANGES_MAX},
};
use crate::ids::{STRIPES_MAX, StreamId, Stripe};

/// Most bytes of chunks in an answer.
pub const ANSWER_CHUNK_BYTES_MAX: usize = 64 * 1_024;
/// Most bytes of a WANT.
pub const WANT_BYTES_MAX: usize = FRAME_HEADER_LEN + FRAME_UP_BODY_MAX;
/// Most bytes of an answer.
pub const ANSWER_BYTES_MAX: usize = WANT_BYTES_MAX + ANSWER_CHUNK_BYTES_MAX;

const WANT: u8 = 0x30;
const HAVE: u8 = 0x31;

/// A question: send these, if you have them and in time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RepairWant {
    /// Of which stream.
    pub stream: StreamId,
    /// Of which epoch.
    pub epoch: u64,
    /// Of which stripe.
    pub stripe: Stripe,
    /// After so many milliseconds the answer is worth nothing.
    pub deadline_ms: u32,
    /// Inclusive ranges of `stripe_seq`, at least one, at most [`WANT_RANGES_MAX`].
    pub ranges: Vec<(u64, u64)>,
}

/// What a node's ring spans.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RepairHave {
    /// The epoch that it is in; 0 = it does not carry the stream.
    pub epoch: u64,
    /// Each stripe that it has begun.
    pub stripes: Vec<HaveEntry>,
}

/// One stripe in a [`RepairHave`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HaveEntry {
    /// Which stripe.
    pub stripe: Stripe,
    /// It has nothing below this `stripe_seq`.
    pub floor: u64,
    /// One past the newest `stripe_seq` that it has.
    pub end: u64,
}

/// The answer to a [`RepairWant`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RepairAnswer<P> {
    /// What its ring spans.
    pub have: RepairHave,
    /// Of what was wanted, what it has and its uplink had room for, in the order of the question.
    pub chunks: Vec<P>,
}

/// What is wrong with a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RepairError {
    /// It ends within a field.
    #[error("the message is cut off")]
    Truncated,
    /// Another type byte than expected.
    #[error("no message of this protocol: type {code:#04x}")]
    Kind {
        /// The type byte.
        code: u8,
    },
    /// Longer than the protocol allows.
    #[error("the message is too long")]
    TooLong,
    /// A stripe, count or range out of bounds.
    #[error("a field is out of bounds: {name}")]
    Field {
        /// Which.
        name: &'static str,
    },
    /// A chunk that is none.
    #[error("no chunk: {0}")]
    Chunk(#[from] ChunkError),
}

impl RepairWant {
    /// The message's bytes. Ranges beyond the bound are cut off.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut body = BytesMut::with_capacity(256);
        body.put_slice(self.stream.as_bytes());
        body.put_u64(self.epoch);
        body.put_u8(self.stripe);
        body.put_u32(self.deadline_ms);
        let ranges = self.ranges.iter().take(WANT_RANGES_MAX);
        body.put_u8(u8::try_from(ranges.len()).unwrap_or(0));
        for (from, to) in ranges {
            body.put_u64(*from);
            body.put_u64(*to);
        }
        framed(WANT, &body)
    }

    /// Bytes of the message on the wire.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        let ranges = self.ranges.len().min(WANT_RANGES_MAX);
        ranges.saturating_mul(16).saturating_add(FRAME_HEADER_LEN + 46)
    }

    /// Reads a question.
    ///
    /// # Errors
    /// [`RepairError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, RepairError> {
        let (mut body, rest) = unframe(WANT, bytes)?;
        if !rest.is_empty() {
            return Err(RepairError::TooLong);
        }
        let stream = StreamId(body.array().ok_or(RepairError::Truncated)?);
        let epoch = body.u64().ok_or(RepairError::Truncated)?;
        let stripe = read_stripe(&mut body)?;
        let deadline_ms = body.u32().ok_or(RepairError::Truncated)?;
        let count = usize::from(body.u8().ok_or(RepairError::Truncated)?);
        if count == 0 || count > WANT_RANGES_MAX {
            return Err(RepairError::Field { name: "count" });
        }
        let mut ranges = Vec::with_capacity(count);
        for _ in 0..count {
            let from = body.u64().ok_or(RepairError::Truncated)?;
            let to = body.u64().ok_or(RepairError::Truncated)?;
            if from > to {
                return Err(RepairError::Field { name: "range" });
            }
            ranges.push((from, to));
        }
        Ok(Self { stream, epoch, stripe, deadline_ms, ranges })
    }
}

impl<P: Payload> RepairAnswer<P> {
    /// Bytes of the message on the wire.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        let entries = self.have.stripes.len().saturating_mul(17);
        let head = entries.saturating_add(FRAME_HEADER_LEN + 9);
        self.chunks.iter().map(Payload::wire_len).fold(head, usize::saturating_add)
    }
}

impl RepairAnswer<WireChunk> {
    /// The message's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut body = BytesMut::with_capacity(300);
        body.put_u64(self.have.epoch);
        let entries = self.have.stripes.iter().take(usize::from(STRIPES_MAX));
        body.put_u8(u8::try_from(entries.len()).unwrap_or(0));
        for entry in entries {
            body.put_u8(entry.stripe);
            body.put_u64(entry.floor);
            body.put_u64(entry.end);
        }
        let mut out = BytesMut::with_capacity(self.wire_len());
        out.put_slice(&framed(HAVE, &body));
        for chunk in &self.chunks {
            out.put_slice(chunk.frame());
        }
        out.freeze()
    }

    /// Reads an answer; chunks share its bytes. Signatures are not checked.
    ///
    /// # Errors
    /// [`RepairError`].
    pub fn decode(bytes: &Bytes) -> Result<Self, RepairError> {
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err(RepairError::TooLong);
        }
        let (mut body, rest) = unframe(HAVE, bytes)?;
        let epoch = body.u64().ok_or(RepairError::Truncated)?;
        let count = body.u8().ok_or(RepairError::Truncated)?;
        if count > STRIPES_MAX {
            return Err(RepairError::Field { name: "count" });
        }
        let mut stripes = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            let stripe = read_stripe(&mut body)?;
            let floor = body.u64().ok_or(RepairError::Truncated)?;
            let end = body.u64().ok_or(RepairError::Truncated)?;
            if floor > end {
                return Err(RepairError::Field { name: "floor" });
            }
            stripes.push(HaveEntry { stripe, floor, end });
        }
        if rest.len() > ANSWER_CHUNK_BYTES_MAX {
            return Err(RepairError::TooLong);
        }
        let mut chunks = Vec::new();
        let mut reader = ByteReader::new(rest);
        while !reader.rest().is_empty() {
            let mut head = reader;
            let (_, len) = head.u8().zip(head.u24()).ok_or(RepairError::Truncated)?;
            let len = usize::try_from(len).unwrap_or(usize::MAX).saturating_add(FRAME_HEADER_LEN);
            let frame = reader.take(len).ok_or(RepairError::Truncated)?;
            chunks.push(WireChunk::parse(bytes.slice_ref(frame))?);
        }
        Ok(Self { have: RepairHave { epoch, stripes }, chunks })
    }
}

fn framed(kind: u8, body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(body.len().saturating_add(FRAME_HEADER_LEN));
    out.put_u8(kind);
    out.put_uint(u64::try_from(body.len()).unwrap_or(0), 3);
    out.put_slice(body);
    out.freeze()
}

/// A frame's body, and what follows the frame.
fn unframe(kind: u8, bytes: &[u8]) -> Result<(ByteReader<'_>, &[u8]), RepairError> {
    let mut reader = ByteReader::new(bytes);
    let code = reader.u8().ok_or(RepairError::Truncated)?;
    if code != kind {
        return Err(RepairError::Kind { code });
    }
    let len = usize::try_from(reader.u24().ok_or(RepairError::Truncated)?).unwrap_or(usize::MAX);
    if len > FRAME_UP_BODY_MAX {
        return Err(RepairError::TooLong);
    }
    let body = reader.take(len).ok_or(RepairError::Truncated)?;
    Ok((ByteReader::new(body), reader.rest()))
}

fn read_stripe(body: &mut ByteReader<'_>) -> Result<Stripe, RepairError> {
    let stripe = body.u8().ok_or(RepairError::Truncated)?;
    if stripe < STRIPES_MAX { Ok(stripe) } else { Err(RepairError::Field { name: "stripe" }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::fixtures;

    fn want() -> RepairWant {
        RepairWant {
            stream: StreamId([7; 32]),
            epoch: 9,
            stripe: 3,
            deadline_ms: 1_500,
            ranges: vec![(4, 4), (9, 30)],
        }
    }

    fn answer() -> RepairAnswer<WireChunk> {
        let stripes = vec![
            HaveEntry { stripe: 0, floor: 0, end: 7 },
            HaveEntry { stripe: 3, floor: 2, end: 90 },
        ];
        let chunk = fixtures::chunk();
        RepairAnswer { have: RepairHave { epoch: 9, stripes }, chunks: vec![chunk.clone(), chunk] }
    }

    #[test]
    fn the_messages_have_the_bytes_that_others_were_built_against() {
        fixtures::golden("repair-want", &want().encode());
        fixtures::golden("repair-have", &answer().encode());
        let nothing = RepairAnswer { have: RepairHave::default(), chunks: Vec::new() };
        fixtures::golden("repair-have-nothing", &nothing.encode());
    }

    #[test]
    fn messages_survive_the_wire_and_know_their_length() {
        assert_eq!(RepairWant::decode(&want().encode()), Ok(want()));
        assert_eq!(want().encode().len(), want().wire_len());
        assert_eq!(RepairAnswer::decode(&answer().encode()), Ok(answer()));
        assert_eq!(answer().encode().len(), answer().wire_len());
    }

    #[test]
    fn every_prefix_of_a_message_is_refused_beside_whole_chunks() {
        let bytes = want().encode();
        for len in 0..bytes.len() {
            assert!(RepairWant::decode(&bytes[..len]).is_err(), "{len}");
        }
        let bytes = answer().encode();
        let whole = (0..bytes.len())
            .filter(|len| RepairAnswer::decode(&bytes.slice(..*len)).is_ok())
            .count();
        assert_eq!(whole, 2, "no chunk, one chunk");
    }

    #[test]
    fn every_bound_is_kept() {
        let refused = |want: RepairWant| RepairWant::decode(&want.encode());
        let field = |name| Err(RepairError::Field { name });
        assert_eq!(refused(RepairWant { stripe: 16, ..want() }), field("stripe"));
        assert_eq!(refused(RepairWant { ranges: Vec::new(), ..want() }), field("count"));
        assert_eq!(refused(RepairWant { ranges: vec![(5, 4)], ..want() }), field("range"));
        let many = RepairWant { ranges: vec![(1, 1); 99], ..want() };
        assert_eq!(refused(many).map(|want| want.ranges.len()), Ok(WANT_RANGES_MAX));
        let long = [&[HAVE, 0xff, 0xff, 0xff][..], &[0; 64]].concat();
        assert_eq!(RepairAnswer::decode(&long.into()), Err(RepairError::TooLong));
        let huge = Bytes::from(vec![0; ANSWER_BYTES_MAX + 1]);
        assert_eq!(RepairAnswer::decode(&huge), Err(RepairError::TooLong));
    }

    #[test]
    fn a_field_of_a_later_version_is_skipped() {
        let mut bytes = want().encode().to_vec();
        bytes.extend_from_slice(&[1, 2, 3]);
        bytes[3] += 3;
        assert_eq!(RepairWant::decode(&bytes), Ok(want()));
    }
}
