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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::media::fixtures::{flv_file, tag};

    fn read(pieces: &[&[u8]]) -> Vec<Result<Tag, FlvError>> {
        let mut reader = TagReader::default();
        let mut read = Vec::new();
        for piece in pieces {
            reader.push(piece);
            read.extend(std::iter::from_fn(|| reader.next()));
        }
        read
    }

    fn file(tags: &[Tag]) -> BytesMut {
        let mut out = BytesMut::from(&write_header(true, true)[..]);
        tags.iter().for_each(|tag| tag.write(&mut out));
        out
    }

    #[test]
    fn a_file_is_read_and_written_byte_for_byte() {
        let tags: Vec<_> = read(&[&flv_file()]).into_iter().map(Result::unwrap).collect();
        assert_eq!(tags.len(), 12);
        assert_eq!(file(&tags), flv_file());
    }

    #[test]
    fn a_tag_leaves_as_soon_as_its_body_is_whole() {
        let one = tag(TagKind::Audio, 20, b"\xaf\x01x");
        let bytes = file(std::slice::from_ref(&one));
        let whole = bytes.len() - TAG_TRAILER_LEN;
        assert!(read(&[&bytes[..whole - 1]]).is_empty());
        assert_eq!(read(&[&bytes[..whole]]), [Ok(one)]);
    }

    #[test]
    fn all_thirty_two_bits_of_a_time_stamp_survive() {
        for ms in [0, 0xff_ffff, 0x100_0000, 0x1234_5678, u32::MAX] {
            let one = tag(TagKind::Video, ms, b"\x27\x01\x00\x00\x00x");
            assert_eq!(read(&[&file(std::slice::from_ref(&one))]), [Ok(one)], "{ms:#x}");
        }
    }

    #[test]
    fn what_is_no_flv_is_refused_at_its_first_wrong_byte() {
        assert_eq!(read(&[b"FLX"]), [Err(FlvError::NotFlv)]);
        assert_eq!(read(&[b"FLV\x02"]), [Err(FlvError::NotFlv)]);
        assert_eq!(read(&[b"FLV"]), []);
        let long = b"FLV\x01\x05\xff\xff\xff\xff";
        assert_eq!(read(&[long]), [Err(FlvError::HeaderLength { claimed: u32::MAX })]);
    }

    #[test]
    fn a_tag_beyond_the_limit_is_an_error_and_unknown_kinds_are_skipped() {
        let mut unknown = tag(TagKind::Audio, 0, b"abc");
        let known = tag(TagKind::Audio, 7, b"\xaf\x01x");
        unknown.timestamp_ms = 5;
        let mut bytes = file(&[unknown, known.clone()]);
        bytes[FILE_HEADER_LEN] = 15;
        assert_eq!(read(&[&bytes]), [Ok(known.clone())]);

        let mut huge = file(&[known]);
        huge[FILE_HEADER_LEN + 1] = 0x40;
        let claimed = TAG_BYTES_MAX + 3;
        assert_eq!(read(&[&huge]), [Err(FlvError::TagTooLarge { claimed })]);
    }

    #[test]
    fn a_second_file_header_begins_where_a_tag_could() {
        let twice = [flv_file(), flv_file()].concat();
        assert_eq!(read(&[&twice]).len(), 24);
        assert!(read(&[&twice]).iter().all(Result::is_ok));
    }

    #[test]
    fn tags_are_told_apart_by_their_first_bytes() {
        use Codec::{Aac, Av1, Avc, Hevc, Mp3, Opus};
        use HeaderClass::{AudioSequence, VideoColour, VideoSequence};
        let video = |body: &[u8]| {
            let tag = tag(TagKind::Video, 0, body);
            (tag.video_codec(), tag.header_slot().map(|slot| slot.class), tag.is_keyframe())
        };
        assert_eq!(video(b"\x17\x00\0\0\0cfg"), (Some(Avc), Some(VideoSequence), false));
        assert_eq!(video(b"\x17\x01\0\0\0key"), (Some(Avc), None, true));
        assert_eq!(video(b"\x27\x01\0\0\0"), (Some(Avc), None, false));
        assert_eq!(video(b"\x1c\x00\0\0\0cfg"), (Some(Hevc), Some(VideoSequence), false));
        assert_eq!(video(b"\x90hvc1cfg"), (Some(Hevc), Some(VideoSequence), false));
        assert_eq!(video(b"\x93av01key"), (Some(Av1), None, true));
        assert_eq!(video(b"\xa3av01frame"), (Some(Av1), None, false));
        assert_eq!(video(b"\x95av01cfg"), (Some(Av1), Some(VideoSequence), false));
        assert_eq!(video(b"\x94hvc1colorInfo"), (Some(Hevc), Some(VideoColour), false));
        assert_eq!(video(b"\x97\x00x\x03hvc1key"), (Some(Hevc), None, true));
        assert_eq!(video(b"\x96\x00avc1\x05cfg"), (Some(Avc), Some(VideoSequence), false));
        let audio = |body: &[u8]| {
            let tag = tag(TagKind::Audio, 0, body);
            (tag.audio_codec(), tag.header_slot().map(|slot| slot.class))
        };
        assert_eq!(audio(b"\xaf\x00\x11\x90"), (Some(Aac), Some(AudioSequence)));
        assert_eq!(audio(b"\xaf\x01x"), (Some(Aac), None));
        assert_eq!(audio(b"\x2fx"), (Some(Mp3), None));
        assert_eq!(audio(b"\x90Opushead"), (Some(Opus), Some(AudioSequence)));
        assert_eq!(audio(b"\x91Opusx"), (Some(Opus), None));
        assert!(tag(TagKind::Video, 0, b"\x17\x02\0\0\0").is_end_of_sequence());
        assert!(tag(TagKind::Video, 0, b"\x92hvc1").is_end_of_sequence());
        assert!(tag(TagKind::Video, 0, b"\x57\x00").is_void());
        assert!(tag(TagKind::Video, 0, b"").is_void());
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_give_the_same_tags(cuts in prop::collection::vec(1_usize..900, 1..40)) {
            let bytes = flv_file();
            let (mut pieces, mut rest) = (Vec::new(), &bytes[..]);
            for cut in cuts {
                let (head, tail) = rest.split_at(cut.min(rest.len()));
                pieces.push(head);
                rest = tail;
            }
            pieces.push(rest);
            prop_assert_eq!(read(&pieces), read(&[&bytes]));
        }
    }
}
