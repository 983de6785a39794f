//! What a source says about its stream: the announcement, its signature and its order.
//!
//! Owns the announcement's fields and bounds, its canonical bytes, its signature check and the rule
//! which of two announcements is newer. Does not own keys (the driver signs), nor who keeps and
//! passes on announcements (see `overlay::directory`).

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    ids::{NAME_CHARS_MAX, STRIPES_MAX, SourceKey, StreamId, StreamName},
    overlay::Contact,
    units::Bitrate,
};

/// Domain separator of the signature.
const SIGN_DOMAIN: &[u8] = b"astral announcement v1";
/// Domain separator of the simulation's keyed tag.
const TAG_DOMAIN: &str = "astral 2026 simulated signature v1";

/// Largest signed announcement on the wire, in bytes: fits a gossip message and three to a page.
pub const ANNOUNCEMENT_BYTES_MAX: usize = 4_096;
/// Longest title, in bytes: a stream is called by its name unless told otherwise, so every name
/// must fit (four bytes a character).
pub const TITLE_BYTES_MAX: usize = 4 * NAME_CHARS_MAX;
/// Longest description, in bytes.
pub const DESCRIPTION_BYTES_MAX: usize = 1_024;
/// Most tags, and most codecs, of one announcement.
pub const TAGS_MAX: usize = 8;
/// Most lower renditions of one stream: more heights than anybody tells apart.
pub const RENDITIONS_MAX: usize = 4;
/// Longest tag or codec name, in bytes.
pub const TAG_BYTES_MAX: usize = 48;

/// A 64-byte signature: Ed25519 in the node, a keyed tag in the simulator.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signature(pub [u8; 64]);

/// How signatures of announcements and contacts are made and checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scheme {
    /// Real Ed25519 signatures, verified by the rules of ZIP 215.
    #[default]
    Ed25519,
    /// A keyed hash that anybody can compute: for simulations, where crypto would only cost time.
    Tag,
}

impl Scheme {
    /// Whether `signature` is `key`'s over `message`.
    #[must_use]
    pub fn verify(self, key: &[u8; 32], message: &[u8], signature: &Signature) -> bool {
        match self {
            Self::Ed25519 => ed25519_zebra::VerificationKey::try_from(*key).is_ok_and(|key| {
                key.verify(&ed25519_zebra::Signature::from(signature.0), message).is_ok()
            }),
            Self::Tag => Self::tag(key, message) == *signature,
        }
    }

    /// The tag of [`Scheme::Tag`]: no protection, only distinguishes honest from forged in a
    /// simulation.
    #[must_use]
    pub fn tag(key: &[u8; 32], message: &[u8]) -> Signature {
        let mut hasher = blake3::Hasher::new_derive_key(TAG_DOMAIN);
        hasher.update(key);
        hasher.update(message);
        let mut out = [0; 64];
        hasher.finalize_xof().fill(&mut out);
        Signature(out)
    }
}

/// The size of a stream's picture.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Resolution {
    /// Pixels across.
    pub width: u16,
    /// Pixels down.
    pub height: u16,
}

/// A lower rendition of a stream: a stream of its own under the same key, for viewers whose lag can't
/// be held at the full rate.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rendition {
    /// The stream that it is.
    pub stream: StreamId,
    /// Pixels down.
    pub height: u16,
    /// Bit rate, sound included.
    pub rate: Bitrate,
}

/// What a publisher wants announced; the overlay adds address, revision and expiry.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AnnouncementDraft {
    /// The key that owns the stream.
    pub source: SourceKey,
    /// Its name under that key.
    pub name: StreamName,
    /// A line for people; may be empty.
    pub title: String,
    /// A paragraph for people; may be empty.
    pub description: String,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// Codec names such as `avc1` or `mp4a`.
    pub codecs: Vec<String>,
    /// Picture size, when known.
    pub resolution: Option<Resolution>,
    /// Bit rate of the whole stream.
    pub rate: Bitrate,
    /// Number of stripes: 1, 2, 4, 8 or 16.
    pub k: u8,
    /// The source's epoch: grows with each start.
    pub epoch: u64,
    /// blake3 of the thumbnail, when there is one.
    pub thumbnail: Option<[u8; 32]>,
    /// Lower renditions, the best first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub renditions: Vec<Rendition>,
    /// It is a rendition of this stream, and listed with it alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rendition_of: Option<StreamId>,
    /// The lowest rate of an encoder that follows the uplink; `None` = the rate stays. Not announced:
    /// it says how much of a small uplink this node has to keep for one copy.
    #[serde(default)]
    pub floor: Option<Bitrate>,
}

impl AnnouncementDraft {
    /// The stream this draft speaks of.
    #[must_use]
    pub fn stream(&self) -> StreamId {
        StreamId::derive(&self.source, &self.name)
    }
}

/// One statement of a stream's owner; ordered by [`Announcement::order`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Announcement {
    /// The key that owns the stream.
    pub source: SourceKey,
    /// Its name under that key.
    pub name: StreamName,
    /// Where the publishing node is found.
    pub node: Contact,
    /// A line for people; may be empty.
    pub title: String,
    /// A paragraph for people; may be empty.
    pub description: String,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// Codec names such as `avc1` or `mp4a`.
    pub codecs: Vec<String>,
    /// Picture size, when known.
    pub resolution: Option<Resolution>,
    /// Bit rate of the whole stream.
    pub rate: Bitrate,
    /// Number of stripes: 1, 2, 4, 8 or 16.
    pub k: u8,
    /// The source's epoch: grows with each start.
    pub epoch: u64,
    /// Counts the statements within one epoch, from 1.
    pub revision: u64,
    /// Unix second after which it is void.
    pub expires_unix: u64,
    /// blake3 of the thumbnail, when there is one.
    pub thumbnail: Option<[u8; 32]>,
    /// Lower renditions, the best first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub renditions: Vec<Rendition>,
    /// It is a rendition of this stream, and listed with it alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rendition_of: Option<StreamId>,
    /// A tombstone: the stream has ended.
    pub ended: bool,
}

impl Announcement {
    /// The statement that `draft` becomes at `node`.
    #[must_use]
    pub fn new(draft: AnnouncementDraft, node: Contact, revision: u64, expires_unix: u64) -> Self {
        let AnnouncementDraft {
            source,
            name,
            title,
            description,
            tags,
            codecs,
            resolution,
            rate,
            k,
            epoch,
            thumbnail,
            renditions,
            rendition_of,
            floor: _,
        } = draft;
        Self {
            source,
            name,
            node,
            title,
            description,
            tags,
            codecs,
            resolution,
            rate,
            k,
            epoch,
            revision,
            expires_unix,
            thumbnail,
            renditions,
            rendition_of,
            ended: false,
        }
    }

    /// The stream it speaks of.
    #[must_use]
    pub fn stream(&self) -> StreamId {
        StreamId::derive(&self.source, &self.name)
    }

    /// The newer of two statements about one stream has the greater order.
    #[must_use]
    pub const fn order(&self) -> (u64, u64) {
        (self.epoch, self.revision)
    }

    /// The bytes that are signed are these behind the domain separator.
    ///
    /// # Errors
    /// [`AnnouncementError`] when a field breaks its bound.
    pub fn to_canonical(&self) -> Result<Bytes, AnnouncementError> {
        self.check()?;
        let mut raw = Vec::with_capacity(512);
        ciborium::into_writer(self, &mut raw).map_err(|_| AnnouncementError::Malformed)?;
        if raw.len() > ANNOUNCEMENT_BYTES_MAX - SIGNATURE_ROOM {
            return Err(AnnouncementError::TooLarge);
        }
        Ok(raw.into())
    }

    /// What the signature covers.
    #[must_use]
    pub fn signing_input(raw: &[u8]) -> Vec<u8> {
        [SIGN_DOMAIN, raw].concat()
    }

    fn check(&self) -> Result<(), AnnouncementError> {
        let words_fit = |words: &[String]| {
            words.len() <= TAGS_MAX && words.iter().all(|word| word.len() <= TAG_BYTES_MAX)
        };
        if self.title.len() > TITLE_BYTES_MAX
            || self.description.len() > DESCRIPTION_BYTES_MAX
            || !words_fit(&self.tags)
            || !words_fit(&self.codecs)
            || self.renditions.len() > RENDITIONS_MAX
            || !self.node.is_bounded()
        {
            return Err(AnnouncementError::TooLarge);
        }
        if !self.k.is_power_of_two() || self.k > STRIPES_MAX {
            return Err(AnnouncementError::Stripes);
        }
        Ok(())
    }
}

/// An announcement with its exact bytes and the source key's signature over them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SignedAnnouncement {
    /// The fields, decoded from `raw`.
    announcement: Announcement,
    raw: Bytes,
    signature: Signature,
}

impl SignedAnnouncement {
    /// Seals `announcement`: `sign` gets the bytes to sign and answers with the source key's
    /// signature.
    ///
    /// # Errors
    /// [`AnnouncementError`] when a field breaks its bound.
    pub fn seal(
        announcement: Announcement,
        sign: impl FnOnce(&[u8]) -> Signature,
    ) -> Result<Self, AnnouncementError> {
        let raw = announcement.to_canonical()?;
        let signature = sign(&Announcement::signing_input(&raw));
        Ok(Self { announcement, raw, signature })
    }

    /// Reads the bytes of [`Self::to_bytes`]. The signature is *not* checked: see [`Self::verify`].
    ///
    /// # Errors
    /// [`AnnouncementError`] when the bytes are too many or no announcement within its bounds.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, AnnouncementError> {
        if bytes.len() > ANNOUNCEMENT_BYTES_MAX {
            return Err(AnnouncementError::TooLarge);
        }
        let (signature, raw) =
            bytes.split_first_chunk::<64>().ok_or(AnnouncementError::Malformed)?;
        let announcement: Announcement =
            ciborium::from_reader(raw).map_err(|_| AnnouncementError::Malformed)?;
        announcement.check()?;
        let raw = Bytes::copy_from_slice(raw);
        Ok(Self { announcement, raw, signature: Signature(*signature) })
    }

    /// The bytes that travel: the signature, then what it covers.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        [&self.signature.0[..], &self.raw].concat().into()
    }

    /// Whether the owner of the stream signed this.
    #[must_use]
    pub fn verify(&self, scheme: Scheme) -> bool {
        let message = Announcement::signing_input(&self.raw);
        scheme.verify(self.announcement.source.as_bytes(), &message, &self.signature)
    }

    /// What is announced.
    #[must_use]
    pub const fn announcement(&self) -> &Announcement {
        &self.announcement
    }

    /// The stream it speaks of.
    #[must_use]
    pub fn stream(&self) -> StreamId {
        self.announcement.stream()
    }

    /// Length on the wire, in bytes.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        SIGNATURE_ROOM + self.raw.len()
    }
}

impl Serialize for SignedAnnouncement {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_bytes(&self.to_bytes())
    }
}

impl<'de> Deserialize<'de> for SignedAnnouncement {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_byte_buf(ByteBuf)
            .and_then(|b| Self::from_bytes(&b).map_err(de::Error::custom))
    }
}

impl Serialize for Signature {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let bytes = d.deserialize_byte_buf(ByteBuf)?;
        let found = bytes.len();
        let bytes = bytes.try_into().map_err(|_| de::Error::invalid_length(found, &"64 bytes"))?;
        Ok(Self(bytes))
    }
}

impl std::fmt::Debug for Signature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signature({:02x}{:02x}..)", self.0[0], self.0[1])
    }
}

/// Why bytes are no announcement, or a draft can be none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnnouncementError {
    /// A field, or the whole, is longer than its bound.
    #[error("the announcement is too large")]
    TooLarge,
    /// The bytes are no announcement.
    #[error("the bytes are no announcement")]
    Malformed,
    /// `k` is none of 1, 2, 4, 8, 16.
    #[error("a stream has 1, 2, 4, 8 or 16 stripes")]
    Stripes,
}

const SIGNATURE_ROOM: usize = 64;

struct ByteBuf;

impl<'de> de::Visitor<'de> for ByteBuf {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }

    fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
        Ok(bytes)
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<u8>, A::Error> {
        let mut out = Vec::new();
        while let Some(byte) = seq.next_element()? {
            if out.len() >= ANNOUNCEMENT_BYTES_MAX {
                return Err(de::Error::invalid_length(out.len() + 1, &self));
            }
            out.push(byte);
        }
        Ok(out)
    }
}
