//! Reads frames off a feed, bounded in every field.
//!
//! Owns [`FrameReader`] and the decoders of all frames. Does not own the layouts (see the parent
//! module), nor signatures: what comes out has the right form and nothing more.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use bytes::{Buf, Bytes, BytesMut};

use super::{
    DownFrame, EndReason, FRAME_BODY_MAX, FRAME_HEADER_LEN, FRAME_UP_BODY_MAX, FrameKind, Hello,
    HelloAck, KEEP_ENTRIES_MAX, KeepEntry, PATH_LEN_MAX, PROMOTE_RANGES_MAX, RefuseReason, Start,
    UpFrame, WANT_RANGES_MAX,
};
use crate::{
    ids::{Direction, STRIPES_MAX, StreamId, Stripe, StripeSet},
    media::{
        audience::Audience,
        byte_reader::ByteReader,
        cert::{CERT_BYTES_MAX, CertError, SignedCert},
        chunk::{CHUNK_OVERHEAD, CHUNK_PAYLOAD_MAX, ChunkError, WireChunk},
        init::{INIT_BYTES_MAX, INIT_OVERHEAD, InitError, SignedInit},
    },
};

/// Types from here on may be skipped by those who don't know them.
const SKIPPABLE_FROM: u8 = 0x80;
/// Most skippable frames in a row: more is somebody filling the line.
const SKIPPED_RUN_MAX: u32 = 8;
/// Longest body of the frames that have no bound of their own.
const CONTROL_BODY_MAX: usize = FRAME_UP_BODY_MAX;
/// The buffer of a parent's frames grows by this much, so that reads are few.
const READ_BLOCK: usize = 32 * 1_024;
/// It grows once this little is left: a kept chunk keeps its whole block, so blocks are filled.
const READ_ROOM_MIN: usize = 4 * 1_024;
/// The same of a child's frames, which are a few bytes; a node has many children.
const READ_BLOCK_UP: usize = 1_024;
const READ_ROOM_MIN_UP: usize = 256;

/// Which frames may come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameSide {
    /// The other side is the parent.
    Down,
    /// The other side is the child.
    Up,
}

/// A complete frame whose type and length are lawful; its body was not looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RawFrame {
    kind: FrameKind,
    frame: Bytes,
}

impl RawFrame {
    /// Its type.
    #[must_use]
    pub const fn kind(&self) -> FrameKind {
        self.kind
    }

    /// The whole frame, type and length included: what counts for ACK.
    #[must_use]
    pub const fn frame(&self) -> &Bytes {
        &self.frame
    }

    fn body(&self) -> ByteReader<'_> {
        ByteReader::new(self.frame.get(FRAME_HEADER_LEN..).unwrap_or_default())
    }
}

/// Cuts the bytes of a feed into frames, without copying chunks.
///
/// Fill it with [`push`](Self::push), or read from the network right into
/// [`buffer_mut`](Self::buffer_mut); then call [`next`](Self::next) until it gives `None`. It
/// never holds more than one unfinished frame beside what was pushed since. After an error it
/// gives no more frames: the feed is to be closed.
#[derive(Debug)]
pub struct FrameReader {
    side: FrameSide,
    buffer: BytesMut,
    skipped_run: u32,
    failed: bool,
}

impl FrameReader {
    /// A reader of what the given side sends.
    #[must_use]
    pub fn new(side: FrameSide) -> Self {
        Self { side, buffer: BytesMut::new(), skipped_run: 0, failed: false }
    }

    /// Appends bytes by copying them.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The buffer, with room for what the other side sends at a time, to read into without a copy.
    pub fn buffer_mut(&mut self) -> &mut BytesMut {
        let (block, room_min) = match self.side {
            FrameSide::Down => (READ_BLOCK, READ_ROOM_MIN),
            FrameSide::Up => (READ_BLOCK_UP, READ_ROOM_MIN_UP),
        };
        if self.buffer.capacity().saturating_sub(self.buffer.len()) < room_min {
            self.buffer.reserve(block);
        }
        &mut self.buffer
    }

    /// Whether the bytes so far end within a frame.
    #[must_use]
    pub fn is_within_frame(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// The next complete frame, if it is there.
    #[expect(clippy::should_implement_trait, reason = "None means not yet, not never")]
    pub fn next(&mut self) -> Option<Result<RawFrame, FrameError>> {
        if self.failed {
            return None;
        }
        let next = self.step().transpose();
        self.failed = matches!(next, Some(Err(_)));
        next
    }

    fn step(&mut self) -> Result<Option<RawFrame>, FrameError> {
        loop {
            let mut head = ByteReader::new(&self.buffer);
            let (Some(code), Some(body_len)) = (head.u8(), head.u24()) else { return Ok(None) };
            let body_len = usize::try_from(body_len).unwrap_or(usize::MAX);
            let kind = self.admit(code, body_len)?;
            let frame_len = body_len.saturating_add(FRAME_HEADER_LEN);
            if self.buffer.len() < frame_len {
                self.buffer.reserve(frame_len.saturating_sub(self.buffer.len()));
                return Ok(None);
            }
            if let Some(kind) = kind {
                self.skipped_run = 0;
                return Ok(Some(RawFrame {
                    kind,
                    frame: self.buffer.split_to(frame_len).freeze(),
                }));
            }
            self.buffer.advance(frame_len);
            self.skipped_run = self.skipped_run.saturating_add(1);
            if self.skipped_run > SKIPPED_RUN_MAX {
                return Err(FrameError::TooManyUnknown);
            }
        }
    }

    /// The frame's type, `None` for one to skip, before any of its body is awaited.
    fn admit(&self, code: u8, body_len: usize) -> Result<Option<FrameKind>, FrameError> {
        let (kind, body_max) = match FrameKind::from_code(code) {
            None if code >= SKIPPABLE_FROM => (None, CONTROL_BODY_MAX),
            None => return Err(FrameError::UnknownKind { code }),
            Some(kind) if kind.is_from(self.side) => (Some(kind), kind.body_max()),
            Some(kind) => return Err(FrameError::WrongSide { kind }),
        };
        if body_len > body_max {
            return Err(FrameError::TooLong { body_len });
        }
        Ok(kind)
    }
}

impl FrameKind {
    const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0x01 => Self::Hello,
            0x02 => Self::HelloAck,
            0x10 => Self::Cert,
            0x11 => Self::Init,
            0x12 => Self::Start,
            0x13 => Self::Chunk,
            0x14 => Self::Keep,
            0x15 => Self::Path,
            0x16 => Self::Gap,
            0x17 => Self::Shed,
            0x18 => Self::End,
            0x20 => Self::Promote,
            0x21 => Self::Want,
            0x22 => Self::Ack,
            0x23 => Self::Release,
            0x24 => Self::Cancel,
            0xa0 => Self::Audience,
            _ => return None,
        })
    }

    const fn is_from(self, side: FrameSide) -> bool {
        match self {
            Self::Hello | Self::HelloAck => true,
            Self::Cert
            | Self::Init
            | Self::Start
            | Self::Chunk
            | Self::Keep
            | Self::Path
            | Self::Gap
            | Self::Shed
            | Self::End => matches!(side, FrameSide::Down),
            Self::Promote
            | Self::Want
            | Self::Ack
            | Self::Release
            | Self::Cancel
            | Self::Audience => matches!(side, FrameSide::Up),
        }
    }

    const fn body_max(self) -> usize {
        match self {
            Self::Chunk => CHUNK_OVERHEAD + CHUNK_PAYLOAD_MAX - FRAME_HEADER_LEN,
            Self::Init => INIT_OVERHEAD + INIT_BYTES_MAX,
            Self::Cert => CERT_BYTES_MAX,
            Self::Hello
            | Self::HelloAck
            | Self::Start
            | Self::Keep
            | Self::Path
            | Self::Gap
            | Self::Shed
            | Self::End
            | Self::Promote
            | Self::Want
            | Self::Ack
            | Self::Release
            | Self::Cancel
            | Self::Audience => CONTROL_BODY_MAX,
        }
    }
}

const _: () = assert!(INIT_OVERHEAD + INIT_BYTES_MAX <= FRAME_BODY_MAX);

impl Hello {
    /// Reads a HELLO.
    ///
    /// # Errors
    /// [`FrameError::WrongKind`], [`FrameError::Truncated`] or [`FrameError::Field`].
    pub fn decode(raw: &RawFrame) -> Result<Self, FrameError> {
        expect_kind(raw, FrameKind::Hello)?;
        let mut body = raw.body();
        let stream = StreamId(body.array().ok_or(FrameError::Truncated)?);
        let opener = match body.u8().ok_or(FrameError::Truncated)? {
            0 => Direction::FromParent,
            1 => Direction::ToChild,
            _ => return Err(FrameError::Field { name: "opener" }),
        };
        Ok(Self { stream, opener })
    }
}

impl HelloAck {
    /// Reads a HELLO_ACK.
    ///
    /// # Errors
    /// [`FrameError::WrongKind`] or [`FrameError::Truncated`].
    pub fn decode(raw: &RawFrame) -> Result<Self, FrameError> {
        expect_kind(raw, FrameKind::HelloAck)?;
        Ok(match raw.body().u8().ok_or(FrameError::Truncated)? {
            0 => Self::Accepted,
            1 => Self::Refused(RefuseReason::NoTicket),
            2 => Self::Refused(RefuseReason::UnknownStream),
            3 => Self::Refused(RefuseReason::Busy),
            4 => Self::Refused(RefuseReason::Duplicate),
            5 => Self::Refused(RefuseReason::Leaving),
            code => Self::Refused(RefuseReason::Unknown(code)),
        })
    }
}

impl DownFrame<WireChunk> {
    /// Reads a frame from a parent; a chunk shares the frame's bytes. Signatures are not checked.
    ///
    /// # Errors
    /// Says what breaks the layout or a bound.
    pub fn decode(raw: &RawFrame) -> Result<Self, FrameError> {
        let mut body = raw.body();
        match raw.kind {
            FrameKind::Cert => Ok(Self::Cert(SignedCert::decode(body.rest())?)),
            FrameKind::Init => Ok(Self::Init(SignedInit::decode(body.rest())?)),
            FrameKind::Chunk => Ok(Self::Chunk(WireChunk::parse(raw.frame.clone())?)),
            FrameKind::Start => read_start(&mut body),
            FrameKind::Keep => read_keep(&mut body),
            FrameKind::Path => read_path(&mut body),
            FrameKind::Gap => read_gap(&mut body),
            FrameKind::Shed => {
                Ok(Self::Shed { stripes: StripeSet(body.u16().ok_or(FrameError::Truncated)?) })
            }
            FrameKind::End => read_end(&mut body),
            FrameKind::Hello
            | FrameKind::HelloAck
            | FrameKind::Promote
            | FrameKind::Want
            | FrameKind::Ack
            | FrameKind::Release
            | FrameKind::Cancel
            | FrameKind::Audience => Err(FrameError::WrongKind { kind: raw.kind }),
        }
    }
}

type Down = DownFrame<WireChunk>;

fn read_start(body: &mut ByteReader<'_>) -> Result<Down, FrameError> {
    Ok(Down::Start {
        stripe: read_stripe(body)?,
        from_stripe_seq: body.u64().ok_or(FrameError::Truncated)?,
        from_seq: body.u64().ok_or(FrameError::Truncated)?,
    })
}

fn read_keep(body: &mut ByteReader<'_>) -> Result<Down, FrameError> {
    let paused = match body.u8().ok_or(FrameError::Truncated)? {
        0 => false,
        1 => true,
        _ => return Err(FrameError::Field { name: "paused" }),
    };
    let stripes = read_list(body, KEEP_ENTRIES_MAX, |body| {
        Ok(KeepEntry {
            stripe: read_stripe(body)?,
            head_seq: body.u64().ok_or(FrameError::Truncated)?,
            age_ms: body.u32().ok_or(FrameError::Truncated)?,
            depth: body.u8().ok_or(FrameError::Truncated)?,
        })
    })?;
    Ok(Down::Keep { stripes, paused })
}

fn read_path(body: &mut ByteReader<'_>) -> Result<Down, FrameError> {
    let stripe = read_stripe(body)?;
    let path = read_list(body, PATH_LEN_MAX, |body| body.u64().ok_or(FrameError::Truncated))?;
    Ok(Down::Path { stripe, path })
}

fn read_gap(body: &mut ByteReader<'_>) -> Result<Down, FrameError> {
    let stripe = read_stripe(body)?;
    let (from, to) = read_range(body)?;
    Ok(Down::Gap { stripe, from, to })
}

fn read_end(body: &mut ByteReader<'_>) -> Result<Down, FrameError> {
    let reason = match body.u8().ok_or(FrameError::Truncated)? {
        0 => EndReason::Ended,
        1 => EndReason::SourceLost,
        2 => EndReason::Left,
        3 => EndReason::Revoked,
        _ => return Err(FrameError::Field { name: "end reason" }),
    };
    Ok(Down::End { reason })
}

impl UpFrame {
    /// Reads a frame from a child.
    ///
    /// # Errors
    /// Says what breaks the layout or a bound.
    pub fn decode(raw: &RawFrame) -> Result<Self, FrameError> {
        let mut body = raw.body();
        match raw.kind {
            FrameKind::Promote => {
                let stripe = read_stripe(&mut body)?;
                let kind = body.u8().ok_or(FrameError::Truncated)?;
                let stripe_seq = body.u64().ok_or(FrameError::Truncated)?;
                let start = match kind {
                    0 => Start::Live,
                    1 => Start::From(stripe_seq),
                    _ => return Err(FrameError::Field { name: "start" }),
                };
                let missing = read_list(&mut body, PROMOTE_RANGES_MAX, read_range)?;
                Ok(Self::Promote { stripe, start, missing })
            }
            FrameKind::Want => {
                let stripe = read_stripe(&mut body)?;
                Ok(Self::Want {
                    stripe,
                    ranges: read_list(&mut body, WANT_RANGES_MAX, read_range)?,
                })
            }
            FrameKind::Ack => Ok(Self::Ack {
                bytes: body.u64().ok_or(FrameError::Truncated)?,
                alive: StripeSet(body.u16().ok_or(FrameError::Truncated)?),
            }),
            FrameKind::Cancel => {
                let stripe = read_stripe(&mut body)?;
                let ranges = read_list(&mut body, WANT_RANGES_MAX, read_range)?;
                Ok(Self::Cancel { stripe, ranges })
            }
            FrameKind::Release => Ok(Self::Release {
                stripe: read_stripe(&mut body)?,
                reason: body.u8().ok_or(FrameError::Truncated)?,
            }),
            FrameKind::Audience => {
                let audience = Audience::take(&mut body).ok_or(FrameError::Truncated)?;
                let lawful = audience.is_lawful().then_some(Self::Audience(audience));
                lawful.ok_or(FrameError::Field { name: "audience" })
            }
            FrameKind::Hello
            | FrameKind::HelloAck
            | FrameKind::Cert
            | FrameKind::Init
            | FrameKind::Start
            | FrameKind::Chunk
            | FrameKind::Keep
            | FrameKind::Path
            | FrameKind::Gap
            | FrameKind::Shed
            | FrameKind::End => Err(FrameError::WrongKind { kind: raw.kind }),
        }
    }
}

fn expect_kind(raw: &RawFrame, kind: FrameKind) -> Result<(), FrameError> {
    if raw.kind == kind { Ok(()) } else { Err(FrameError::WrongKind { kind: raw.kind }) }
}

fn read_stripe(body: &mut ByteReader<'_>) -> Result<Stripe, FrameError> {
    let stripe = body.u8().ok_or(FrameError::Truncated)?;
    if stripe < STRIPES_MAX { Ok(stripe) } else { Err(FrameError::Field { name: "stripe" }) }
}

fn read_range(body: &mut ByteReader<'_>) -> Result<(u64, u64), FrameError> {
    let from = body.u64().ok_or(FrameError::Truncated)?;
    let to = body.u64().ok_or(FrameError::Truncated)?;
    if from <= to { Ok((from, to)) } else { Err(FrameError::Field { name: "range" }) }
}

fn read_list<T>(
    body: &mut ByteReader<'_>,
    max: usize,
    mut read: impl FnMut(&mut ByteReader<'_>) -> Result<T, FrameError>,
) -> Result<Vec<T>, FrameError> {
    let count = usize::from(body.u8().ok_or(FrameError::Truncated)?);
    if count > max {
        return Err(FrameError::Field { name: "count" });
    }
    (0..count).map(|_| read(body)).collect()
}

/// Why bytes are not a lawful frame. Each is an offence of the other side.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A type that is unknown and may not be skipped.
    #[error("unknown frame type {code:#04x}")]
    UnknownKind {
        /// The type byte.
        code: u8,
    },
    /// More than a few skippable frames in a row.
    #[error("too many frames of unknown types in a row")]
    TooManyUnknown,
    /// A frame that only the other end may send.
    #[error("{kind:?} frame from the wrong end")]
    WrongSide {
        /// Which.
        kind: FrameKind,
    },
    /// A frame that may not come now.
    #[error("unexpected {kind:?} frame")]
    WrongKind {
        /// Which.
        kind: FrameKind,
    },
    /// A body beyond its type's bound.
    #[error("a frame body of {body_len} bytes is too long for its type")]
    TooLong {
        /// What the header claims.
        body_len: usize,
    },
    /// A body that ends before its fields do.
    #[error("the frame's body is cut short")]
    Truncated,
    /// A field out of its range.
    #[error("the frame's {name} is out of range")]
    Field {
        /// Which field.
        name: &'static str,
    },
    /// A malformed chunk.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// A malformed certificate.
    #[error(transparent)]
    Cert(#[from] CertError),
    /// A malformed init segment.
    #[error(transparent)]
    Init(#[from] InitError),
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::media::{chunk::Payload, fixtures};

    fn read_all(side: FrameSide, wire: &[u8]) -> Vec<Result<RawFrame, FrameError>> {
        let mut reader = FrameReader::new(side);
        reader.push(wire);
        std::iter::from_fn(|| reader.next()).collect()
    }

    fn first_error(side: FrameSide, wire: &[u8]) -> FrameError {
        read_all(side, wire).into_iter().find_map(Result::err).expect("an error")
    }

    #[test]
    fn a_length_beyond_its_type_is_refused_before_the_body_arrives() {
        for (side, code, body_max) in [
            (FrameSide::Down, 0x13, 16_491_u32),
            (FrameSide::Down, 0x11, 65_618),
            (FrameSide::Down, 0x10, 1_024),
            (FrameSide::Down, 0x14, 1_024),
            (FrameSide::Up, 0x20, 1_024),
            (FrameSide::Up, 0x01, 1_024),
            (FrameSide::Up, 0xff, 1_024),
        ] {
            let wire = |len: u32| [&[code][..], &len.to_be_bytes()[1..]].concat();
            assert!(read_all(side, &wire(body_max)).is_empty(), "{code:#x} may be {body_max}");
            let error = first_error(side, &wire(body_max + 1));
            assert!(matches!(error, FrameError::TooLong { .. }), "{code:#x}: {error}");
        }
    }

    #[test]
    fn frames_of_the_wrong_end_and_unknown_types_are_offences() {
        let up = [0x22, 0, 0, 0];
        let kind = FrameKind::Ack;
        assert_eq!(first_error(FrameSide::Down, &up), FrameError::WrongSide { kind });
        let kind = FrameKind::Chunk;
        assert_eq!(first_error(FrameSide::Up, &[0x13, 0, 0, 0]), FrameError::WrongSide { kind });
        let code = 0x7f;
        assert_eq!(first_error(FrameSide::Up, &[code, 0, 0, 0]), FrameError::UnknownKind { code });
    }

    #[test]
    fn frames_of_a_later_version_are_skipped_but_not_without_end() {
        let later = [0x80, 0, 0, 2, 9, 9];
        let ack = [0x22, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 1, 0, 3];
        let frames = read_all(FrameSide::Up, &[&later.repeat(8)[..], &ack].concat().repeat(3));
        assert_eq!(frames.len(), 3);
        assert_eq!(
            first_error(FrameSide::Up, &later.repeat(9)),
            FrameError::TooManyUnknown,
            "nine in a row"
        );
    }

    #[test]
    fn fields_that_a_later_version_appends_are_skipped() {
        let ack = [0x22, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 1, 0, 3, 0xaa, 0xbb];
        let raw = read_all(FrameSide::Up, &ack).remove(0).unwrap();
        assert_eq!(UpFrame::decode(&raw), Ok(UpFrame::Ack { bytes: 1, alive: StripeSet(3) }));
    }

    #[test]
    fn after_an_error_nothing_more_is_read() {
        let mut reader = FrameReader::new(FrameSide::Up);
        reader.push(&[0x7f, 0, 0, 0, 0x22, 0, 0, 0]);
        assert!(reader.next().unwrap().is_err());
        assert!(reader.next().is_none());
    }

    #[test]
    fn a_body_that_ends_early_is_truncated_at_every_length() {
        for (side, prefix) in [(FrameSide::Down, "down"), (FrameSide::Up, "up")] {
            for wire in fixtures::corpus(prefix) {
                for len in 0..wire.len() - FRAME_HEADER_LEN {
                    let mut cut = wire[..FRAME_HEADER_LEN + len].to_vec();
                    cut[1..4].copy_from_slice(&u32::try_from(len).unwrap().to_be_bytes()[1..]);
                    let raw = read_all(side, &cut).remove(0).unwrap();
                    let lawful = match side {
                        FrameSide::Down => DownFrame::decode(&raw).is_ok(),
                        FrameSide::Up => UpFrame::decode(&raw).is_ok(),
                    };
                    // An init segment may lawfully be shorter; its signature then fails.
                    assert!(!lawful || raw.kind() == FrameKind::Init, "{cut:02x?}");
                }
            }
        }
    }

    #[test]
    fn a_chunk_is_not_copied_on_its_way_in() {
        let mut reader = FrameReader::new(FrameSide::Down);
        reader.buffer_mut().extend_from_slice(fixtures::chunk().frame());
        let raw = reader.next().unwrap().unwrap();
        let Ok(DownFrame::Chunk(chunk)) = DownFrame::decode(&raw) else { panic!("no chunk") };
        assert_eq!(chunk.frame().as_ptr(), raw.frame().as_ptr());
        assert_eq!(chunk.wire_len(), raw.frame().len());
    }

    #[test]
    fn small_chunks_that_come_one_by_one_share_their_blocks() {
        let mut reader = FrameReader::new(FrameSide::Down);
        let kept: Vec<_> = (0..400)
            .map(|_| {
                reader.buffer_mut().extend_from_slice(fixtures::chunk().frame());
                reader.next().unwrap().unwrap()
            })
            .collect();
        let follows = |pair: &[RawFrame]| {
            pair[0].frame.as_ptr_range().end == pair[1].frame.as_ptr_range().start
        };
        let blocks = 1 + kept.windows(2).filter(|pair| !follows(pair)).count();
        assert!(blocks <= 3, "51,600 bytes of frames keep {blocks} blocks of 32 KiB");
    }

    fn ranges(max: usize) -> impl Strategy<Value = Vec<(u64, u64)>> {
        vec(any::<(u64, u64)>().prop_map(|(a, b)| (a.min(b), a.max(b))), 0..=max)
    }

    fn any_up() -> impl Strategy<Value = UpFrame> {
        let start = prop_oneof![Just(Start::Live), any::<u64>().prop_map(Start::From)];
        prop_oneof![
            (0..STRIPES_MAX, start, ranges(PROMOTE_RANGES_MAX))
                .prop_map(|(stripe, start, missing)| UpFrame::Promote { stripe, start, missing }),
            (0..STRIPES_MAX, ranges(WANT_RANGES_MAX))
                .prop_map(|(stripe, ranges)| UpFrame::Want { stripe, ranges }),
            (0..STRIPES_MAX, ranges(WANT_RANGES_MAX))
                .prop_map(|(stripe, ranges)| UpFrame::Cancel { stripe, ranges }),
            any::<(u64, u16)>()
                .prop_map(|(bytes, set)| UpFrame::Ack { bytes, alive: StripeSet(set) }),
            (0..STRIPES_MAX, any::<u8>())
                .prop_map(|(stripe, reason)| UpFrame::Release { stripe, reason }),
            vec((any::<bool>(), any::<bool>(), any::<Option<u32>>()), 0..9).prop_map(|nodes| {
                let nodes = nodes.into_iter().map(|(v, s, ms)| Audience::one(v, s, ms));
                UpFrame::Audience(nodes.fold(Audience::default(), Audience::plus))
            }),
        ]
    }

    fn any_down() -> impl Strategy<Value = DownFrame<WireChunk>> {
        let entry = (0..STRIPES_MAX, any::<(u64, u32, u8)>()).prop_map(
            |(stripe, (head_seq, age_ms, depth))| KeepEntry { stripe, head_seq, age_ms, depth },
        );
        prop_oneof![
            (0..STRIPES_MAX, any::<(u64, u64)>()).prop_map(|(stripe, (a, b))| DownFrame::Start {
                stripe,
                from_stripe_seq: a,
                from_seq: b
            }),
            (vec(entry, 0..=KEEP_ENTRIES_MAX), any::<bool>())
                .prop_map(|(stripes, paused)| DownFrame::Keep { stripes, paused }),
            (0..STRIPES_MAX, vec(any::<u64>(), 0..=PATH_LEN_MAX))
                .prop_map(|(stripe, path)| DownFrame::Path { stripe, path }),
            (0..STRIPES_MAX, any::<(u64, u64)>()).prop_map(|(stripe, (a, b))| DownFrame::Gap {
                stripe,
                from: a.min(b),
                to: a.max(b)
            }),
            any::<u16>().prop_map(|set| DownFrame::Shed { stripes: StripeSet(set) }),
        ]
    }

    proptest! {
        #[test]
        fn frames_up_survive_the_wire_in_pieces(
            frames in vec(any_up(), 1..6),
            piece_len in 1_usize..40,
        ) {
            let mut wire = BytesMut::new();
            frames.iter().for_each(|frame| frame.encode(&mut wire));
            prop_assert_eq!(wire.len(), frames.iter().map(UpFrame::wire_len).sum::<usize>());
            let mut reader = FrameReader::new(FrameSide::Up);
            let mut read = Vec::new();
            for piece in wire.chunks(piece_len) {
                reader.push(piece);
                while let Some(raw) = reader.next() {
                    read.push(UpFrame::decode(&raw.unwrap()).unwrap());
                }
            }
            prop_assert_eq!(read, frames);
        }

        #[test]
        fn frames_down_survive_the_wire(frames in vec(any_down(), 1..6)) {
            let mut wire = BytesMut::new();
            frames.iter().for_each(|frame| frame.encode(&mut wire));
            prop_assert_eq!(wire.len(), frames.iter().map(DownFrame::wire_len).sum::<usize>());
            let read: Vec<_> = read_all(FrameSide::Down, &wire)
                .into_iter()
                .map(|raw| DownFrame::decode(&raw.unwrap()).unwrap())
                .collect();
            prop_assert_eq!(read, frames);
        }
    }
}
