//! FLV, the carrier: file header and tags, read in pieces and written back byte for byte.
//!
//! Owns the tag layout, [`TagReader`] and the inspection of a tag's first bytes (the submodule
//! `head`), H.264/AAC and Enhanced RTMP alike. Does not own the meaning of time stamps (see
//! [`super::normalize`]) nor the contents of tags: bodies are opaque and travel untouched.
//!
//! ```text
//! file = "FLV", version u8 (1), flags u8 (4 = audio, 1 = video), header length u32 (9),
//!        previous tag size u32 (0), tags...
//! tag  = kind u8 (8 audio, 9 video, 18 script), body length u24, time u24 (lower bits of ms),
//!        time u8 (highest bits), stream u24 (0), body, previous tag size u32 (11 + body length)
//! ```

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod head;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

pub use self::head::{Codec, HeaderClass, HeaderSlot};
use super::byte_reader::ByteReader;

/// Largest tag body: 4 MiB, a 4K keyframe at a very high rate, is far above what encoders make
/// live, and far below the 16 MiB that the length field could claim.
pub const TAG_BYTES_MAX: usize = 4 * 1_024 * 1_024;

/// Bytes of a tag before its body.
pub const TAG_HEADER_LEN: usize = 11;
/// Bytes of a tag after its body: its own size once more.
const TAG_TRAILER_LEN: usize = 4;
/// Bytes of the file header with the size of the tag before the first.
pub const FILE_HEADER_LEN: usize = 13;
/// Longest file header that is read; the format lets it grow, nobody does.
const FILE_HEADER_MAX: usize = 1_024;

/// Which tracks a stream has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Tracks {
    /// There is sound.
    pub audio: bool,
    /// There is a picture.
    pub video: bool,
}

/// The file header, with the size of the tag before the first.
#[must_use]
pub const fn write_header(has_audio: bool, has_video: bool) -> [u8; FILE_HEADER_LEN] {
    let flags = if has_audio { 4 } else { 0 } | if has_video { 1 } else { 0 };
    [b'F', b'L', b'V', 1, flags, 0, 0, 0, 9, 0, 0, 0, 0]
}

/// What a tag carries.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum TagKind {
    /// Sound.
    Audio = 8,
    /// Picture.
    Video = 9,
    /// AMF0: metadata and the like.
    Script = 18,
}

/// One FLV tag.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tag {
    /// What it carries.
    pub kind: TagKind,
    /// Decoding time in milliseconds, all 32 bits.
    pub timestamp_ms: u32,
    /// Everything between the tag's header and its trailer; at most [`TAG_BYTES_MAX`] bytes.
    pub body: Bytes,
}

impl Tag {
    /// Bytes of the tag in a file, header and trailer included.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        self.body.len().saturating_add(TAG_HEADER_LEN + TAG_TRAILER_LEN)
    }

    /// Appends the tag and its trailer.
    pub fn write(&self, out: &mut BytesMut) {
        out.reserve(self.wire_len());
        let body_len = u32::try_from(self.body.len()).unwrap_or(0);
        out.put_u8(self.kind as u8);
        out.put_uint(u64::from(body_len), 3);
        out.put_uint(u64::from(self.timestamp_ms & 0x00ff_ffff), 3);
        out.put_u8(self.timestamp_ms.to_be_bytes()[0]);
        out.put_uint(0, 3);
        out.put_slice(&self.body);
        out.put_u32(body_len.saturating_add(11));
    }
}

/// Bounds of a [`TagReader`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlvLimits {
    /// Largest tag body in bytes; more is an error.
    pub tag_bytes_max: usize,
}

impl Default for FlvLimits {
    fn default() -> Self {
        Self { tag_bytes_max: TAG_BYTES_MAX }
    }
}

/// Why bytes are not FLV.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FlvError {
    /// They do not begin with an FLV header of version 1.
    #[error("this is no FLV: its header is missing")]
    NotFlv,
    /// A file header of an impossible length.
    #[error("the FLV header claims to be {claimed} bytes long")]
    HeaderLength {
        /// What the header says.
        claimed: u32,
    },
    /// A tag beyond the limit; also what comes of bytes that lost their place.
    #[error("an FLV tag of {claimed} bytes is too large")]
    TagTooLarge {
        /// What the tag says.
        claimed: usize,
    },
}

/// Reads an FLV byte stream in pieces of any size.
///
/// Feed it with [`push`](Self::push), then call [`next`](Self::next) until it gives `None`; it
/// then holds at most one unfinished tag. A second file header where a tag could begin (a
/// restarted encoder behind one pipe) is accepted. After an error it gives nothing more.
#[derive(Debug)]
pub struct TagReader {
    limits: FlvLimits,
    buffer: BytesMut,
    /// Bytes still to be thrown away: trailers, unknown tags, a long file header.
    skip: usize,
    tracks: Option<Tracks>,
    unknown: u64,
    failed: bool,
}

impl Default for TagReader {
    fn default() -> Self {
        Self::new(FlvLimits::default())
    }
}

impl TagReader {
    /// A reader at the beginning of an FLV byte stream.
    #[must_use]
    pub fn new(limits: FlvLimits) -> Self {
        let buffer = BytesMut::new();
        Self { limits, buffer, skip: 0, tracks: None, unknown: 0, failed: false }
    }

    /// Appends bytes by copying them; ignored after an error.
    pub fn push(&mut self, bytes: &[u8]) {
        if !self.failed {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// What the file header says of the tracks; `None` until it was read.
    #[must_use]
    pub const fn tracks(&self) -> Option<Tracks> {
        self.tracks
    }

    /// Tags of unknown kinds that were skipped.
    #[must_use]
    pub const fn unknown(&self) -> u64 {
        self.unknown
    }

    /// The next complete tag, if it is there.
    #[expect(clippy::should_implement_trait, reason = "None means not yet, not never")]
    pub fn next(&mut self) -> Option<Result<Tag, FlvError>> {
        if self.failed {
            return None;
        }
        let next = self.step().transpose();
        if matches!(next, Some(Err(_))) {
            self.failed = true;
            self.buffer = BytesMut::new();
        }
        next
    }

    fn step(&mut self) -> Result<Option<Tag>, FlvError> {
        loop {
            let skipped = self.skip.min(self.buffer.len());
            self.buffer.advance(skipped);
            self.skip = self.skip.saturating_sub(skipped);
            if self.skip > 0 {
                return Ok(None);
            }
            if self.tracks.is_none() || self.buffer.starts_with(b"FLV\x01") {
                if !self.read_file_header()? {
                    return Ok(None);
                }
                continue;
            }
            let Some(head) = TagHead::read(&self.buffer) else { return Ok(None) };
            if head.body_len > self.limits.tag_bytes_max {
                return Err(FlvError::TagTooLarge { claimed: head.body_len });
            }
            let Some(kind) = head.kind else {
                self.unknown = self.unknown.saturating_add(1);
                self.skip = head.body_len.saturating_add(TAG_HEADER_LEN + TAG_TRAILER_LEN);
                continue;
            };
            let tag_len = head.body_len.saturating_add(TAG_HEADER_LEN);
            if self.buffer.len() < tag_len {
                return Ok(None);
            }
            self.buffer.advance(TAG_HEADER_LEN);
            let body = self.buffer.split_to(head.body_len).freeze();
            // The trailer is not waited for: a live tag leaves as soon as its body is whole.
            self.skip = TAG_TRAILER_LEN;
            return Ok(Some(Tag { kind, timestamp_ms: head.timestamp_ms, body }));
        }
    }

    /// Whether the file header was there; it and what follows up to the first tag is then skipped.
    fn read_file_header(&mut self) -> Result<bool, FlvError> {
        let known = self.buffer.len().min(4);
        if self.buffer.get(..known) != b"FLV\x01".get(..known) {
            return Err(FlvError::NotFlv);
        }
        let mut reader = ByteReader::new(&self.buffer);
        let mut fields = || {
            reader.take(4)?;
            Some((reader.u8()?, reader.u32()?))
        };
        let Some((flags, claimed)) = fields() else { return Ok(false) };
        let length = usize::try_from(claimed).unwrap_or(usize::MAX);
        if !(9..=FILE_HEADER_MAX).contains(&length) {
            return Err(FlvError::HeaderLength { claimed });
        }
        self.tracks = Some(Tracks { audio: flags & 4 != 0, video: flags & 1 != 0 });
        self.skip = length.saturating_add(4);
        Ok(true)
    }
}

struct TagHead {
    /// `None` for kinds that nobody defined, and for encrypted tags.
    kind: Option<TagKind>,
    body_len: usize,
    timestamp_ms: u32,
}

impl TagHead {
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut reader = ByteReader::new(bytes);
        // The two highest bits are reserved; the third says that the body is encrypted.
        let kind = match reader.u8()? & 0x3f {
            8 => Some(TagKind::Audio),
            9 => Some(TagKind::Video),
            18 => Some(TagKind::Script),
            _ => None,
        };
        let body_len = usize::try_from(reader.u24()?).ok()?;
        let [middle, low, lowest, highest] = reader.array()?;
        let timestamp_ms = u32::from_be_bytes([highest, middle, low, lowest]);
        reader.u24()?;
        Some(Self { kind, body_len, timestamp_ms })
    }
}
