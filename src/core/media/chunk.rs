//! The chunk: the smallest signed unit of media, and its place on the wire.
//!
//! Owns the header's layout, the bytes that a chunk's signature covers, and [`WireChunk`], the
//! complete CHUNK frame as every child of every parent gets it. Does not own keys (see
//! [`super::cert`]), nor when a chunk is cut (see [`super::cutter`]) or moved (see the relay).
//!
//! ```text
//! frame   = type u8 (0x13), body length u24, body
//! body    = header (43 bytes), signature (64 bytes), payload (0 ..= 16,384 bytes)
//! header  = epoch u64, seq u64, stripe u8, stripe_seq u64, time_ms u64, flags u8,
//!           fragment u16, fragments u16, init_version u16, key_id u8, payload_len u16
//! signed  = "astral chunk v1", stream id (32), header (43), blake3 of the payload (32)
//! ```
//!
//! Everything is big endian. A chunk's frame has exactly one encoding: the header's reserved flag
//! bits travel untouched, any other deviation makes the frame malformed.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use std::{fmt, ops::BitOr};

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::{
    byte_reader::ByteReader,
    cert::{Batch, ChunkSigner, SIGNATURE_LEN, VerifyingKey},
    frame::{FRAME_HEADER_LEN, FrameKind, put_frame_header},
};
use crate::ids::{STRIPES_MAX, StreamId, Stripe};

/// Most bytes of media in one chunk: above this the gain in overhead is below one percent, while a
/// chunk of a slow stripe would take too long to be recognised as late.
pub const CHUNK_PAYLOAD_MAX: usize = 16_384;

/// Bytes that a CHUNK frame has beside its payload: frame header, chunk header, signature.
pub const CHUNK_OVERHEAD: usize = 111;
const _: () = assert!(CHUNK_OVERHEAD == FRAME_HEADER_LEN + ChunkHeader::WIRE_LEN + SIGNATURE_LEN);

/// Domain separator of chunk signatures.
const CHUNK_DOMAIN: &[u8; 15] = b"astral chunk v1";

/// Length of what a chunk's signature covers.
pub const SIGNING_INPUT_LEN: usize = 122;
const _: () = assert!(SIGNING_INPUT_LEN == CHUNK_DOMAIN.len() + 32 + ChunkHeader::WIRE_LEN + 32);

/// What is special about a chunk; bits without a name here are kept as they came.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct ChunkFlags(pub u8);

impl ChunkFlags {
    /// Nothing special.
    pub const NONE: Self = Self(0);
    /// Decoding can start here: the first fragment of a keyframe; with audio alone, every chunk.
    pub const KEYFRAME: Self = Self(1);
    /// The last fragment of its frame.
    pub const END_OF_FRAME: Self = Self(2);
    /// Changed metadata or sequence headers, in band; the chunk names the new init version.
    pub const INIT: Self = Self(4);
    /// The media clock jumped at the source: time goes on, the picture may not.
    pub const DISCONTINUITY: Self = Self(8);
    /// The stream ends with this chunk, which has no payload.
    pub const END: Self = Self(16);
    /// The source paused: nothing follows until it resumes. The chunk has no payload.
    pub const PAUSE: Self = Self(32);
    /// With [`Self::PAUSE`]: the encoder broke off, and the source waits for it to be back in a
    /// moment. Who does not know this bit sees a pause.
    pub const RECONNECTING: Self = Self(64);

    /// Whether all bits of `other` are set here.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for ChunkFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for ChunkFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [(ChunkFlags, &str); 7] = [
            (ChunkFlags::KEYFRAME, "key"),
            (ChunkFlags::END_OF_FRAME, "eof"),
            (ChunkFlags::INIT, "init"),
            (ChunkFlags::DISCONTINUITY, "disc"),
            (ChunkFlags::END, "end"),
            (ChunkFlags::PAUSE, "pause"),
            (ChunkFlags::RECONNECTING, "reconnecting"),
        ];
        let mut list = f.debug_set();
        for (flag, name) in NAMES {
            if self.contains(flag) {
                list.entry(&format_args!("{name}"));
            }
        }
        list.finish()
    }
}

/// All that a forwarder needs to know of a chunk. Signed together with the payload.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct ChunkHeader {
    /// The source's epoch, named by its certificate.
    pub epoch: u64,
    /// Place in the whole stream; from 0, without holes, in every epoch.
    pub seq: u64,
    /// The stripe that carries it, below the epoch's `k`.
    pub stripe: Stripe,
    /// Place in its stripe; from 0, without holes, in every epoch.
    pub stripe_seq: u64,
    /// Media time in milliseconds since the epoch's first media; never falls as `seq` rises.
    pub time_ms: u64,
    /// What is special about it.
    pub flags: ChunkFlags,
    /// Which piece of its frame this is, from 0, below `fragments`.
    pub fragment: u16,
    /// How many pieces its frame has, at least 1.
    pub fragments: u16,
    /// The init segment that a player needs which starts here; from 1.
    pub init_version: u16,
    /// 0 = the payload is in the clear.
    pub key_id: u8,
    /// Bytes of payload, at most [`CHUNK_PAYLOAD_MAX`].
    pub payload_len: u16,
}

impl ChunkHeader {
    /// Bytes of a header on the wire.
    pub const WIRE_LEN: usize = 43;

    /// Writes the header.
    pub fn encode(&self, out: &mut [u8; Self::WIRE_LEN]) {
        let mut rest = &mut out[..];
        rest.put_u64(self.epoch);
        rest.put_u64(self.seq);
        rest.put_u8(self.stripe);
        rest.put_u64(self.stripe_seq);
        rest.put_u64(self.time_ms);
        rest.put_u8(self.flags.0);
        rest.put_u16(self.fragment);
        rest.put_u16(self.fragments);
        rest.put_u16(self.init_version);
        rest.put_u8(self.key_id);
        rest.put_u16(self.payload_len);
    }

    /// Reads a header off the front of `bytes`.
    ///
    /// # Errors
    /// [`ChunkError::Truncated`], or the field that is out of its range.
    pub fn decode(bytes: &[u8]) -> Result<Self, ChunkError> {
        let header = Self::read(&mut ByteReader::new(bytes)).ok_or(ChunkError::Truncated)?;
        if header.stripe >= STRIPES_MAX {
            return Err(ChunkError::Stripe);
        }
        if header.fragment >= header.fragments {
            return Err(ChunkError::Fragment);
        }
        if header.init_version == 0 {
            return Err(ChunkError::InitVersion);
        }
        if usize::from(header.payload_len) > CHUNK_PAYLOAD_MAX {
            return Err(ChunkError::PayloadLength);
        }
        Ok(header)
    }

    fn read(reader: &mut ByteReader<'_>) -> Option<Self> {
        Some(Self {
            epoch: reader.u64()?,
            seq: reader.u64()?,
            stripe: reader.u8()?,
            stripe_seq: reader.u64()?,
            time_ms: reader.u64()?,
            flags: ChunkFlags(reader.u8()?),
            fragment: reader.u16()?,
            fragments: reader.u16()?,
            init_version: reader.u16()?,
            key_id: reader.u8()?,
            payload_len: reader.u16()?,
        })
    }
}

/// Why bytes are not a chunk of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChunkError {
    /// Fewer bytes than the lengths inside say.
    #[error("the chunk is cut short")]
    Truncated,
    /// The frame is no CHUNK frame.
    #[error("the frame carries no chunk")]
    Kind,
    /// More or fewer bytes than header, signature and payload have.
    #[error("the chunk's lengths contradict each other")]
    Length,
    /// `stripe` is not below [`STRIPES_MAX`].
    #[error("the chunk names a stripe that no stream has")]
    Stripe,
    /// `fragment` is not below `fragments`.
    #[error("the chunk is a fragment beyond its frame's last")]
    Fragment,
    /// `init_version` is 0.
    #[error("the chunk names no init segment")]
    InitVersion,
    /// More than [`CHUNK_PAYLOAD_MAX`] bytes of payload.
    #[error("the chunk has more than {CHUNK_PAYLOAD_MAX} bytes of media")]
    PayloadLength,
    /// Not signed by the epoch's chunk key for this stream.
    #[error("the chunk's signature is not the source's")]
    Signature,
}

/// What a signature covers, and the signature.
type Signed = ([u8; SIGNING_INPUT_LEN], [u8; SIGNATURE_LEN]);

/// What a chunk's signature covers.
#[must_use]
pub fn signing_input(
    stream: &StreamId,
    header: &[u8; ChunkHeader::WIRE_LEN],
    payload_hash: &[u8; 32],
) -> [u8; SIGNING_INPUT_LEN] {
    let mut input = [0; SIGNING_INPUT_LEN];
    let mut rest = &mut input[..];
    rest.put_slice(CHUNK_DOMAIN);
    rest.put_slice(stream.as_bytes());
    rest.put_slice(header);
    rest.put_slice(payload_hash);
    input
}

/// Anything that a relay can move: a whole frame in the node, a mere length in a simulation.
pub trait Payload: Clone {
    /// The chunk's header.
    fn header(&self) -> &ChunkHeader;

    /// Bytes that the chunk's frame takes on the wire.
    fn wire_len(&self) -> usize;
}

/// A chunk as the node moves it: the complete CHUNK frame, byte for byte the same for every child.
///
/// A clone shares the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct WireChunk {
    header: ChunkHeader,
    frame: Bytes,
}

impl WireChunk {
    /// Signs a chunk and lays its frame out, in one allocation. The header's `payload_len` is set
    /// to the payload's length.
    ///
    /// # Errors
    /// [`ChunkError::PayloadLength`] if the payload is too long, or the header's field that is out
    /// of range.
    pub fn seal(
        stream: &StreamId,
        mut header: ChunkHeader,
        payload: &[u8],
        signer: &ChunkSigner,
    ) -> Result<Self, ChunkError> {
        if payload.len() > CHUNK_PAYLOAD_MAX {
            return Err(ChunkError::PayloadLength);
        }
        header.payload_len = u16::try_from(payload.len()).map_err(|_| ChunkError::PayloadLength)?;
        let mut head = [0; ChunkHeader::WIRE_LEN];
        header.encode(&mut head);
        ChunkHeader::decode(&head)?;
        let hash = blake3::hash(payload);
        let signature = signer.sign(&signing_input(stream, &head, hash.as_bytes()));

        let frame_len = CHUNK_OVERHEAD.saturating_add(payload.len());
        let mut frame = BytesMut::with_capacity(frame_len);
        put_frame_header(&mut frame, FrameKind::Chunk, frame_len.saturating_sub(FRAME_HEADER_LEN));
        frame.put_slice(&head);
        frame.put_slice(&signature);
        frame.put_slice(payload);
        Ok(Self { header, frame: frame.freeze() })
    }

    /// Reads a complete CHUNK frame, type byte included; the payload is not copied and the
    /// signature not checked.
    ///
    /// # Errors
    /// Says what contradicts the layout above.
    pub fn parse(frame: Bytes) -> Result<Self, ChunkError> {
        let mut reader = ByteReader::new(&frame);
        if reader.u8().ok_or(ChunkError::Truncated)? != FrameKind::Chunk as u8 {
            return Err(ChunkError::Kind);
        }
        let body_len = reader.u24().ok_or(ChunkError::Truncated)?;
        if usize::try_from(body_len) != Ok(reader.rest().len()) {
            return Err(ChunkError::Length);
        }
        let header = ChunkHeader::decode(reader.rest())?;
        let expected = CHUNK_OVERHEAD.saturating_add(usize::from(header.payload_len));
        if frame.len() < expected {
            return Err(ChunkError::Truncated);
        }
        if frame.len() > expected {
            return Err(ChunkError::Length);
        }
        Ok(Self { header, frame })
    }

    /// The media bytes, shared with the frame.
    #[must_use]
    pub fn payload(&self) -> Bytes {
        // Both constructors made sure that the frame is at least this long.
        self.frame.slice(CHUNK_OVERHEAD..)
    }

    /// The complete frame, ready to be written.
    #[must_use]
    pub const fn frame(&self) -> &Bytes {
        &self.frame
    }

    /// Checks the signature: `key` is the chunk key of the epoch that the header names.
    ///
    /// # Errors
    /// [`ChunkError::Signature`] if header or payload are not what the source signed for `stream`.
    pub fn verify(&self, stream: &StreamId, key: &VerifyingKey) -> Result<(), ChunkError> {
        let (input, signature) = self.signed(stream)?;
        if key.verify(&input, &signature) { Ok(()) } else { Err(ChunkError::Signature) }
    }

    /// Adds the signature to those that are checked together.
    ///
    /// # Errors
    /// [`ChunkError::Truncated`]
    pub fn verify_in(
        &self,
        batch: &mut Batch,
        stream: &StreamId,
        key: &VerifyingKey,
    ) -> Result<(), ChunkError> {
        let (input, signature) = self.signed(stream)?;
        batch.add(key, &input, &signature);
        Ok(())
    }

    /// What was signed, and the signature.
    fn signed(&self, stream: &StreamId) -> Result<Signed, ChunkError> {
        let mut reader = ByteReader::new(&self.frame);
        let mut parts = || {
            reader.take(FRAME_HEADER_LEN)?;
            Some((reader.array::<{ ChunkHeader::WIRE_LEN }>()?, reader.array::<SIGNATURE_LEN>()?))
        };
        let (head, signature) = parts().ok_or(ChunkError::Truncated)?;
        let hash = blake3::hash(reader.rest());
        Ok((signing_input(stream, &head, hash.as_bytes()), signature))
    }
}

impl Payload for WireChunk {
    fn header(&self) -> &ChunkHeader {
        &self.header
    }

    fn wire_len(&self) -> usize {
        self.frame.len()
    }
}

impl fmt::Debug for WireChunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WireChunk").field("header", &self.header).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::media::fixtures::{chunk, chunk_signer, header, stream};

    #[test]
    fn every_changed_bit_of_a_chunk_is_noticed() {
        let key = chunk_signer().verifying_key();
        let frame = chunk().frame().clone();
        for bit in 0..frame.len() * 8 {
            let mut bytes = frame.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let verdict =
                WireChunk::parse(bytes.into()).and_then(|chunk| chunk.verify(&stream(), &key));
            assert!(verdict.is_err(), "bit {bit}");
        }
    }

    #[test]
    fn chunks_verify_together_exactly_when_each_does() {
        let header = |seq| ChunkHeader { seq, ..*chunk().header() };
        let sealed = |seq| WireChunk::seal(&stream(), header(seq), b"media", &chunk_signer());
        let sealed = |seq| sealed(seq).unwrap();
        let together = |chunks: &[WireChunk]| {
            let mut batch = Batch::default();
            let key = chunk_signer().verifying_key();
            chunks.iter().for_each(|chunk| chunk.verify_in(&mut batch, &stream(), &key).unwrap());
            batch.verify()
        };
        let chunks: Vec<_> = (0..20).map(sealed).collect();
        assert!(together(&[]));
        assert!(together(&chunks[..1]));
        assert!(together(&chunks));
        for at in 0..chunks.len() {
            let mut bytes = chunks[at].frame().to_vec();
            *bytes.last_mut().unwrap() ^= 1;
            let mut forged = chunks.clone();
            forged[at] = WireChunk::parse(bytes.into()).unwrap();
            assert!(!together(&forged), "chunk {at}");
        }
        let mut swapped = chunks;
        let (first, second) = (swapped[0].frame().to_vec(), swapped[1].frame().to_vec());
        let signature = FRAME_HEADER_LEN + ChunkHeader::WIRE_LEN..CHUNK_OVERHEAD;
        let with = |bytes: &[u8], of: &[u8]| {
            let mut bytes = bytes.to_vec();
            bytes[signature.clone()].copy_from_slice(&of[signature.clone()]);
            WireChunk::parse(bytes.into()).unwrap()
        };
        swapped[0] = with(&first, &second);
        swapped[1] = with(&second, &first);
        assert!(!together(&swapped), "two signatures that make up for each other");
    }

    #[test]
    fn a_chunk_of_another_stream_or_key_does_not_verify() {
        let key = chunk_signer().verifying_key();
        let other = ChunkSigner::from_seed(&[9; 32]).verifying_key();
        assert_eq!(chunk().verify(&stream(), &key), Ok(()));
        assert_eq!(chunk().verify(&StreamId([0; 32]), &key), Err(ChunkError::Signature));
        assert_eq!(chunk().verify(&stream(), &other), Err(ChunkError::Signature));
    }

    #[test]
    fn a_frame_of_any_wrong_length_is_refused() {
        let frame = chunk().frame().clone();
        for len in 0..frame.len() {
            assert!(WireChunk::parse(frame.slice(..len)).is_err(), "{len} bytes");
        }
        assert_eq!(
            WireChunk::parse([&frame[..], &[0]].concat().into()),
            Err(ChunkError::Length),
            "a byte too many"
        );
    }

    #[test]
    fn fields_out_of_range_are_refused_by_name() {
        let refused = |change: fn(&mut ChunkHeader)| {
            let mut header = header();
            change(&mut header);
            let mut wire = [0; ChunkHeader::WIRE_LEN];
            header.encode(&mut wire);
            ChunkHeader::decode(&wire).unwrap_err()
        };
        assert_eq!(refused(|h| h.stripe = 16), ChunkError::Stripe);
        assert_eq!(refused(|h| h.fragment = 1), ChunkError::Fragment);
        assert_eq!(refused(|h| h.fragments = 0), ChunkError::Fragment);
        assert_eq!(refused(|h| h.init_version = 0), ChunkError::InitVersion);
        assert_eq!(refused(|h| h.payload_len = 16_385), ChunkError::PayloadLength);
        let too_long = [0; CHUNK_PAYLOAD_MAX + 1];
        let sealed = WireChunk::seal(&stream(), header(), &too_long, &chunk_signer());
        assert_eq!(sealed, Err(ChunkError::PayloadLength));
    }

    #[test]
    fn a_payload_shares_the_memory_of_its_frame() {
        let frame = chunk().frame().clone();
        let parsed = WireChunk::parse(frame.clone()).unwrap();
        assert_eq!(parsed.frame().as_ptr(), frame.as_ptr());
        assert_eq!(parsed.payload().as_ptr(), frame[CHUNK_OVERHEAD..].as_ptr());
        assert_eq!(parsed.payload(), &b"opaque media bytes"[..]);
    }

    prop_compose! {
        fn any_header()(
            (epoch, seq, stripe_seq, time_ms) in any::<(u64, u64, u64, u64)>(),
            stripe in 0..STRIPES_MAX,
            (flags, key_id) in any::<(u8, u8)>(),
            fragments in 1..=u16::MAX,
            place in any::<u16>(),
            init_version in 1..=u16::MAX,
        ) -> ChunkHeader {
            let fragment = place % fragments;
            let flags = ChunkFlags(flags);
            ChunkHeader {
                epoch, seq, stripe, stripe_seq, time_ms, flags, fragment, fragments,
                init_version, key_id, payload_len: 0,
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_sealed_chunk_is_read_as_it_was_and_verifies(
            header in any_header(),
            payload in proptest::collection::vec(any::<u8>(), 0..3_000),
        ) {
            let sealed = WireChunk::seal(&stream(), header, &payload, &chunk_signer()).unwrap();
            let read = WireChunk::parse(sealed.frame().clone()).unwrap();
            prop_assert_eq!(&read, &sealed);
            prop_assert_eq!(read.payload(), &payload[..]);
            let payload_len = u16::try_from(payload.len()).unwrap();
            prop_assert_eq!(*read.header(), ChunkHeader { payload_len, ..header });
            prop_assert_eq!(read.verify(&stream(), &chunk_signer().verifying_key()), Ok(()));
        }
    }
}
