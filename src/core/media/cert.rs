//! Keys and the certificate that binds an epoch's chunk key to its source.
//!
//! Owns the signers, signature checking under the ZIP 215 rules (so that every node agrees on every
//! signature, however odd, and single and batch checks do too), and [`SignedCert`]. Does not own
//! where keys are stored, nor the clock: whoever knows the time compares `expires_unix`.
//!
//! The source key is long-lived and names the stream; it signs one certificate per epoch. Chunks
//! and init segments are signed by the epoch's chunk key, so that publishing can be taken over or
//! delegated without a change on the wire.
//!
//! ```text
//! cert   = source key (32), name length u16, name (UTF-8), epoch u64, k u8, rate u64 (bit/s),
//!          chunk key (32), expiry u64 (unix seconds)
//! signed = cert, signature (64) over "astral cert v1", cert
//! ```

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use std::fmt;

use bytes::{BufMut, BytesMut};
use ed25519_zebra::{Signature, SigningKey, VerificationKey, batch};
use rand_core_06::{CryptoRng, RngCore, impls::next_u32_via_fill, impls::next_u64_via_fill};

use super::byte_reader::ByteReader;
use crate::{
    ids::{SourceKey, StreamId, StreamName},
    units::Bitrate,
};

/// Bytes of an Ed25519 signature.
pub const SIGNATURE_LEN: usize = 64;

/// Most bytes of a [`SignedCert`] on the wire; the longest name makes 667.
pub const CERT_BYTES_MAX: usize = 1_024;

/// Highest rate that a certificate may claim: beyond any video encoder, and low enough that
/// arithmetic on rates cannot overflow.
pub const RATE_MAX: Bitrate = Bitrate::from_mbps(10_000);

/// Domain separator of certificate signatures.
const CERT_DOMAIN: &[u8; 14] = b"astral cert v1";

/// Whether `k` is a number of stripes that a stream can have.
#[must_use]
pub const fn is_stripe_count(k: u8) -> bool {
    matches!(k, 1 | 2 | 4 | 8 | 16)
}

/// An Ed25519 public key, decompressed once, used for many checks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct VerifyingKey(VerificationKey);

impl VerifyingKey {
    /// Reads a public key.
    ///
    /// # Errors
    /// [`CertError::Key`] if the bytes are no point of the curve.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, CertError> {
        VerificationKey::try_from(*bytes).map(Self).map_err(|_| CertError::Key)
    }

    /// Whether `signature` over `message` is this key's, by the ZIP 215 rules.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8; SIGNATURE_LEN]) -> bool {
        self.0.verify(&Signature::from_bytes(signature), message).is_ok()
    }

    /// The key's bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 32] {
        self.0.into()
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({})", SourceKey(self.to_bytes()).short())
    }
}

/// Signatures that are checked together, for less than half of what they cost one by one
/// (`bench micro`).
///
/// Each signature counts with a factor that a forger must not foresee. They are drawn from a hash over
/// the whole batch: whoever changes one signature changes all factors, and no randomness is needed.
#[derive(Default)]
pub struct Batch {
    verifier: batch::Verifier,
    whole: blake3::Hasher,
}

impl Batch {
    /// Adds a signature over `message`.
    pub fn add(&mut self, key: &VerifyingKey, message: &[u8], signature: &[u8; SIGNATURE_LEN]) {
        self.whole
            .update(&key.to_bytes())
            .update(signature)
            .update(blake3::hash(message).as_bytes());
        self.verifier.queue((key.0.into(), Signature::from_bytes(signature), message));
    }

    /// Whether every one of them is its key's, by the ZIP 215 rules.
    #[must_use]
    pub fn verify(self) -> bool {
        self.verifier.verify(Factors(self.whole.finalize_xof())).is_ok()
    }
}

/// What a hash goes on to say, as the library wants its randomness.
struct Factors(blake3::OutputReader);

impl RngCore for Factors {
    fn next_u32(&mut self) -> u32 {
        next_u32_via_fill(self)
    }

    fn next_u64(&mut self) -> u64 {
        next_u64_via_fill(self)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand_core_06::Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

impl CryptoRng for Factors {}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").finish_non_exhaustive()
    }
}

macro_rules! signer {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name(SigningKey);

        impl $name {
            /// The signer of a 32-byte secret seed.
            #[must_use]
            pub fn from_seed(seed: &[u8; 32]) -> Self {
                Self(SigningKey::from(*seed))
            }

            /// The public key's bytes.
            #[must_use]
            pub fn public(&self) -> [u8; 32] {
                self.0.verification_key().into()
            }

            /// Signs `message`, which must begin with a domain separator of its own.
            #[must_use]
            pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_LEN] {
                self.0.sign(message).to_bytes()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    };
}

signer! {
    /// Signs with the long-lived key of a source: certificates and announcements.
    SourceSigner
}
signer! {
    /// Signs with the key of one epoch: chunks and init segments.
    ChunkSigner
}

impl SourceSigner {
    /// The key that names this source's streams.
    #[must_use]
    pub fn key(&self) -> SourceKey {
        SourceKey(self.public())
    }

    /// Signs a certificate; its `source` is set to this signer's key.
    #[must_use]
    pub fn certify(&self, mut cert: EpochCert) -> SignedCert {
        cert.source = self.key();
        let signature = self.sign(&cert.signing_input());
        SignedCert { cert, signature }
    }
}

impl ChunkSigner {
    /// The key that checks this signer's signatures.
    #[must_use]
    pub fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey(self.0.verification_key())
    }
}

/// What a source says about one of its epochs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EpochCert {
    /// The source's key.
    pub source: SourceKey,
    /// The stream's name; with `source` it makes the stream's id.
    pub name: StreamName,
    /// The epoch; the highest wins.
    pub epoch: u64,
    /// How many stripes the epoch has: 1, 2, 4, 8 or 16.
    pub k: u8,
    /// The whole stream's nominal rate, at most [`RATE_MAX`], not zero.
    pub rate: Bitrate,
    /// Public key that chunks and init segments of the epoch are signed with.
    pub chunk_key: [u8; 32],
    /// Unix time in seconds after which the certificate is void.
    pub expires_unix: u64,
}

impl EpochCert {
    /// The stream that this is a certificate of.
    #[must_use]
    pub fn stream(&self) -> StreamId {
        StreamId::derive(&self.source, &self.name)
    }

    fn put(&self, out: &mut BytesMut) {
        let name = self.name.as_str().as_bytes();
        out.put_slice(self.source.as_bytes());
        // A `StreamName` has at most 128 characters of at most 4 bytes.
        out.put_u16(u16::try_from(name.len()).unwrap_or(u16::MAX));
        out.put_slice(name);
        out.put_u64(self.epoch);
        out.put_u8(self.k);
        out.put_u64(self.rate.as_bps());
        out.put_slice(&self.chunk_key);
        out.put_u64(self.expires_unix);
    }

    fn signing_input(&self) -> BytesMut {
        let mut input = BytesMut::with_capacity(CERT_BYTES_MAX);
        input.put_slice(CERT_DOMAIN);
        self.put(&mut input);
        input
    }
}

/// A certificate and the source's signature. Reading one checks its form, not its signature.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedCert {
    /// What is signed.
    pub cert: EpochCert,
    /// The source's signature.
    pub signature: [u8; SIGNATURE_LEN],
}

impl SignedCert {
    /// Appends the certificate, at most [`CERT_BYTES_MAX`] bytes.
    pub fn encode(&self, out: &mut BytesMut) {
        self.cert.put(out);
        out.put_slice(&self.signature);
    }

    /// Bytes that [`encode`](Self::encode) appends.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        self.cert.name.as_str().len().saturating_add(155)
    }

    /// Reads a certificate that is exactly `bytes`.
    ///
    /// # Errors
    /// Says what is wrong with its form. The signature isn't checked here.
    pub fn decode(bytes: &[u8]) -> Result<Self, CertError> {
        if bytes.len() > CERT_BYTES_MAX {
            return Err(CertError::TooLong);
        }
        let mut reader = ByteReader::new(bytes);
        let signed = Self::read(&mut reader)?;
        if !reader.rest().is_empty() {
            return Err(CertError::TooLong);
        }
        Ok(signed)
    }

    fn read(reader: &mut ByteReader<'_>) -> Result<Self, CertError> {
        let short = CertError::Truncated;
        let source = SourceKey(reader.array().ok_or(short)?);
        let name_len = usize::from(reader.u16().ok_or(short)?);
        let name = reader.take(name_len).ok_or(short)?;
        let epoch = reader.u64().ok_or(short)?;
        let k = reader.u8().ok_or(short)?;
        let rate = Bitrate::from_bps(reader.u64().ok_or(short)?);
        let chunk_key = reader.array().ok_or(short)?;
        let expires_unix = reader.u64().ok_or(short)?;
        let signature = reader.array().ok_or(short)?;
        let Some(name) = str::from_utf8(name).ok().and_then(|text| StreamName::new(text).ok())
        else {
            return Err(CertError::Name);
        };
        if !is_stripe_count(k) {
            return Err(CertError::Stripes);
        }
        if rate == Bitrate::ZERO || rate > RATE_MAX {
            return Err(CertError::Rate);
        }
        let cert = EpochCert { source, name, epoch, k, rate, chunk_key, expires_unix };
        Ok(Self { cert, signature })
    }

    /// Checks that the source of `expected` signed this for that stream, and gives the key that
    /// checks the epoch's chunks. Expiry is for the caller, who knows the time.
    ///
    /// # Errors
    /// [`CertError::Stream`], [`CertError::Key`] or [`CertError::Signature`].
    pub fn verify(&self, expected: &StreamId) -> Result<VerifyingKey, CertError> {
        if self.cert.stream() != *expected {
            return Err(CertError::Stream);
        }
        let source = VerifyingKey::from_bytes(self.cert.source.as_bytes())?;
        if !source.verify(&self.cert.signing_input(), &self.signature) {
            return Err(CertError::Signature);
        }
        VerifyingKey::from_bytes(&self.cert.chunk_key)
    }
}

impl fmt::Debug for SignedCert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedCert").field("cert", &self.cert).finish_non_exhaustive()
    }
}

/// Why bytes are not a stream's certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertError {
    /// Fewer bytes than the lengths inside say.
    #[error("the certificate is cut short")]
    Truncated,
    /// More than [`CERT_BYTES_MAX`] bytes, or bytes after its end.
    #[error("the certificate is too long")]
    TooLong,
    /// The name breaks the rules of [`StreamName`].
    #[error("the certificate's stream name is not one")]
    Name,
    /// `k` is none of 1, 2, 4, 8, 16.
    #[error("the certificate's number of stripes is none of 1, 2, 4, 8, 16")]
    Stripes,
    /// The rate is zero or above [`RATE_MAX`].
    #[error("the certificate's rate is out of range")]
    Rate,
    /// It is another stream's.
    #[error("the certificate is another stream's")]
    Stream,
    /// A key in it is no Ed25519 key.
    #[error("a key in the certificate is no Ed25519 key")]
    Key,
    /// The source did not sign it.
    #[error("the certificate's signature is not the source's")]
    Signature,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::fixtures::{cert, stream};

    fn wire(cert: &SignedCert) -> BytesMut {
        let mut out = BytesMut::new();
        cert.encode(&mut out);
        out
    }

    #[test]
    fn every_changed_bit_of_a_certificate_is_noticed() {
        let bytes = wire(&cert());
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            let verdict = SignedCert::decode(&changed).and_then(|cert| cert.verify(&stream()));
            assert!(verdict.is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_certificate_of_any_wrong_length_is_refused() {
        let bytes = wire(&cert());
        for len in 0..bytes.len() {
            assert_eq!(SignedCert::decode(&bytes[..len]), Err(CertError::Truncated), "{len}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(SignedCert::decode(&longer), Err(CertError::TooLong));
        assert_eq!(SignedCert::decode(&[0; 2_000]), Err(CertError::TooLong));
    }

    #[test]
    fn the_longest_name_fits() {
        let name = StreamName::new("\u{1f3a5}".repeat(128)).unwrap();
        let signer = SourceSigner::from_seed(&[1; 32]);
        let long = signer.certify(EpochCert { name, ..cert().cert });
        assert_eq!(wire(&long).len(), 667);
        assert_eq!(long.wire_len(), 667);
        assert_eq!(SignedCert::decode(&wire(&long)), Ok(long));
    }

    #[test]
    fn only_lawful_stripe_counts_and_rates_are_read() {
        let signer = SourceSigner::from_seed(&[1; 32]);
        let read = |k, bps| {
            let rate = Bitrate::from_bps(bps);
            let made = signer.certify(EpochCert { k, rate, ..cert().cert });
            SignedCert::decode(&wire(&made)).map(|_| ())
        };
        for k in 0..=u8::MAX {
            let lawful = [1, 2, 4, 8, 16].contains(&k);
            assert_eq!(read(k, 1), if lawful { Ok(()) } else { Err(CertError::Stripes) });
        }
        assert_eq!(read(1, 0), Err(CertError::Rate));
        assert_eq!(read(1, u64::MAX), Err(CertError::Rate));
    }

    #[test]
    fn nobody_can_certify_for_another_source() {
        let thief = SourceSigner::from_seed(&[9; 32]);
        let mut forged = thief.certify(cert().cert);
        assert_eq!(forged.verify(&stream()), Err(CertError::Stream));
        forged.cert.source = cert().cert.source;
        assert_eq!(forged.verify(&stream()), Err(CertError::Signature));
    }

    #[test]
    fn a_signer_does_not_print_its_secret() {
        assert_eq!(format!("{:?}", ChunkSigner::from_seed(&[7; 32])), "ChunkSigner { .. }");
    }
}
