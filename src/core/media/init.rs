//! The init segment: what a player needs before its first chunk.
//!
//! Owns [`InitSegment`] (FLV header, metadata, sequence headers), its signature and its form on the
//! wire. Does not own its contents (see [`super::cutter`]), nor which version a player gets: the one
//! that its first chunk names.
//!
//! ```text
//! wire   = epoch u64, version u16, valid_from_seq u64, signature (64), payload (1 ..= 65,536)
//! signed = "astral init v1", stream id (32), epoch u64, version u16, valid_from_seq u64,
//!          blake3 of the payload (32)
//! ```

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    byte_reader::ByteReader,
    cert::{ChunkSigner, SIGNATURE_LEN, VerifyingKey},
};
use crate::ids::StreamId;

/// Most bytes of an init segment's payload. Real ones have below 1 KiB.
pub const INIT_BYTES_MAX: usize = 65_536;

/// Bytes of an init segment on the wire beside its payload.
pub const INIT_OVERHEAD: usize = 82;
const _: () = assert!(INIT_OVERHEAD == 8 + 2 + 8 + SIGNATURE_LEN);

/// Domain separator of init signatures.
const INIT_DOMAIN: &[u8; 14] = b"astral init v1";
const SIGNING_INPUT_LEN: usize = 96;
const _: () = assert!(SIGNING_INPUT_LEN == INIT_DOMAIN.len() + 32 + 8 + 2 + 8 + 32);

/// What a player needs before a chunk whose header names `version`.
#[derive(Clone, PartialEq, Eq)]
pub struct InitSegment {
    /// The epoch it belongs to.
    pub epoch: u64,
    /// Its number, from 1; chunks name it.
    pub version: u16,
    /// The first chunk that names this version.
    pub valid_from_seq: u64,
    /// FLV header, metadata and sequence headers, complete, all at time 0; 1 to
    /// [`INIT_BYTES_MAX`] bytes.
    pub payload: Bytes,
}

impl InitSegment {
    fn signing_input(&self, stream: &StreamId) -> [u8; SIGNING_INPUT_LEN] {
        let mut input = [0; SIGNING_INPUT_LEN];
        let mut rest = &mut input[..];
        rest.put_slice(INIT_DOMAIN);
        rest.put_slice(stream.as_bytes());
        rest.put_u64(self.epoch);
        rest.put_u16(self.version);
        rest.put_u64(self.valid_from_seq);
        rest.put_slice(blake3::hash(&self.payload).as_bytes());
        input
    }
}

impl fmt::Debug for InitSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { epoch, version, valid_from_seq, payload } = self;
        let len = payload.len();
        write!(f, "InitSegment(epoch {epoch}, v{version} from {valid_from_seq}, {len} bytes)")
    }
}

/// An init segment and the chunk key's signature. Reading one checks its form, not its signature.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedInit {
    /// What is signed.
    pub init: InitSegment,
    /// The chunk key's signature.
    pub signature: [u8; SIGNATURE_LEN],
}

impl SignedInit {
    /// Signs an init segment of `stream`.
    ///
    /// # Errors
    /// [`InitError::Length`] if the payload is empty or too long, [`InitError::Version`] for
    /// version 0.
    pub fn seal(
        stream: &StreamId,
        init: InitSegment,
        signer: &ChunkSigner,
    ) -> Result<Self, InitError> {
        check(init.version, init.payload.len())?;
        let signature = signer.sign(&init.signing_input(stream));
        Ok(Self { init, signature })
    }

    /// Appends the segment.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u64(self.init.epoch);
        out.put_u16(self.init.version);
        out.put_u64(self.init.valid_from_seq);
        out.put_slice(&self.signature);
        out.put_slice(&self.init.payload);
    }

    /// Bytes that [`encode`](Self::encode) appends.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        self.init.payload.len().saturating_add(INIT_OVERHEAD)
    }

    /// Reads a segment that is exactly `bytes`. The payload is copied: an init segment outlives by
    /// far the read buffer that it arrived in.
    ///
    /// # Errors
    /// Says what is wrong with its form. The signature isn't checked here.
    pub fn decode(bytes: &[u8]) -> Result<Self, InitError> {
        let mut reader = ByteReader::new(bytes);
        let mut head = || Some((reader.u64()?, reader.u16()?, reader.u64()?, reader.array()?));
        let (epoch, version, valid_from_seq, signature) = head().ok_or(InitError::Truncated)?;
        check(version, reader.rest().len())?;
        let payload = Bytes::copy_from_slice(reader.rest());
        Ok(Self { init: InitSegment { epoch, version, valid_from_seq, payload }, signature })
    }

    /// Checks the signature: `key` is the chunk key of the segment's epoch.
    ///
    /// # Errors
    /// [`InitError::Signature`] if this isn't what the source signed for `stream`.
    pub fn verify(&self, stream: &StreamId, key: &VerifyingKey) -> Result<(), InitError> {
        let input = self.init.signing_input(stream);
        if key.verify(&input, &self.signature) { Ok(()) } else { Err(InitError::Signature) }
    }
}

impl fmt::Debug for SignedInit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signed{:?}", self.init)
    }
}

const fn check(version: u16, payload_len: usize) -> Result<(), InitError> {
    if version == 0 {
        return Err(InitError::Version);
    }
    if payload_len == 0 || payload_len > INIT_BYTES_MAX {
        return Err(InitError::Length);
    }
    Ok(())
}

/// Why bytes are not an init segment of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitError {
    /// Fewer bytes than its fixed fields have.
    #[error("the init segment is cut short")]
    Truncated,
    /// Version 0.
    #[error("the init segment has no version")]
    Version,
    /// No payload, or more than [`INIT_BYTES_MAX`] bytes.
    #[error("the init segment is empty or longer than {INIT_BYTES_MAX} bytes")]
    Length,
    /// Not signed by the epoch's chunk key for this stream.
    #[error("the init segment's signature is not the source's")]
    Signature,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::fixtures::{chunk_signer, init, stream};

    #[test]
    fn every_changed_bit_of_an_init_segment_is_noticed() {
        let mut bytes = BytesMut::new();
        init().encode(&mut bytes);
        let key = chunk_signer().verifying_key();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            let verdict =
                SignedInit::decode(&changed).and_then(|init| init.verify(&stream(), &key));
            assert!(verdict.is_err(), "bit {bit}");
        }
    }

    #[test]
    fn only_a_segment_of_lawful_length_is_sealed_or_read() {
        let seal = |len: usize| {
            let payload = Bytes::from(vec![0; len]);
            let segment = InitSegment { payload, ..init().init };
            SignedInit::seal(&stream(), segment, &chunk_signer()).map(|init| {
                let mut out = BytesMut::new();
                init.encode(&mut out);
                (SignedInit::decode(&out), out.len() == init.wire_len())
            })
        };
        assert!(matches!(seal(INIT_BYTES_MAX), Ok((Ok(_), true))));
        assert_eq!(seal(INIT_BYTES_MAX + 1), Err(InitError::Length));
        assert_eq!(seal(0), Err(InitError::Length));
        assert_eq!(SignedInit::decode(&[1; INIT_OVERHEAD]), Err(InitError::Length));
        assert_eq!(SignedInit::decode(&[1; INIT_OVERHEAD - 1]), Err(InitError::Truncated));
        assert_eq!(SignedInit::decode(&[0; INIT_OVERHEAD + 1]), Err(InitError::Version));
    }
}
