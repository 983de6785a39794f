//! The feed protocol `/astral/feed/1`: frames between one parent and one child for one stream.
//!
//! Owns the frame types, their bounds and their bytes. Does not own when a frame is sent or what it
//! causes (see the relay), nor the stream that carries them. The parts that read bytes are in
//! [`reader`]: [`FrameReader`] and its errors.
//!
//! ```text
//! frame = type u8, body length u24, body         everything big endian
//!
//! either way, once, first:
//! 0x01 HELLO     stream id (32), opener u8 (0 = opener is the child, 1 = opener is the parent)
//! 0x02 HELLO_ACK answer u8 (0 = accepted, else a refusal's reason)
//! parent to child, body at most 68 KiB:
//! 0x10 CERT      see `cert`
//! 0x11 INIT      see `init`
//! 0x12 START     stripe u8, from_stripe_seq u64, from_seq u64
//! 0x13 CHUNK     see `chunk`
//! 0x14 KEEP      paused u8, count u8 (<= 16), {stripe u8, head_seq u64, age_ms u32, depth u8}...
//! 0x15 PATH      stripe u8, count u8 (<= 24), node hash u64...
//! 0x16 GAP       stripe u8, from u64, to u64
//! 0x17 SHED      stripes u16 (bit set)
//! 0x18 END       reason u8
//! child to parent, body at most 1 KiB:
//! 0x20 PROMOTE   stripe u8, start u8 (0 = live, 1 = from), stripe_seq u64, count u8 (<= 16),
//!                {from u64, to u64}...
//! 0x21 WANT      stripe u8, count u8 (<= 8), {from u64, to u64}...
//! 0x22 ACK       bytes u64, alive u16 (bit set)
//! 0x23 RELEASE   stripe u8, reason u8
//! 0x24 CANCEL    stripe u8, count u8 (<= 8), {from u64, to u64}...
//! 0xa0 AUDIENCE  nodes u32, viewers u32, stalled u32, nodes by delay u32 x 8
//! ```
//!
//! A later version may append fields to the unsigned frames: bytes after the known ones are
//! skipped. It may also add frames of type 0x80 and up, which those who don't know them skip; any
//! other unknown type is an offence.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod reader;

use bytes::{BufMut, BytesMut};
use serde::{Deserialize, Serialize};

pub use self::reader::{FrameError, FrameReader, FrameSide, RawFrame};
use super::{
    audience::Audience,
    cert::SignedCert,
    chunk::{Payload, WireChunk},
    init::SignedInit,
};
use crate::ids::{Direction, StreamId, Stripe, StripeSet};

/// Bytes of a frame's type and length.
pub const FRAME_HEADER_LEN: usize = 4;
/// Longest body from parent to child: the largest init segment with its signature and some room.
pub const FRAME_BODY_MAX: usize = 68 * 1_024;
/// Longest body from child to parent.
pub const FRAME_UP_BODY_MAX: usize = 1_024;
/// Most nodes in a PATH. Trees are below depth 16 in every simulation of 10^4 nodes.
pub const PATH_LEN_MAX: usize = 24;
/// Most missing ranges in a PROMOTE.
pub const PROMOTE_RANGES_MAX: usize = 16;
/// Most ranges in a WANT.
pub const WANT_RANGES_MAX: usize = 8;
/// Most entries of a KEEP: one for each stripe.
pub const KEEP_ENTRIES_MAX: usize = 16;

/// The type byte of a frame.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum FrameKind {
    /// First frame of the side that opened the feed.
    Hello = 0x01,
    /// First frame of the other side.
    HelloAck = 0x02,
    /// [`DownFrame::Cert`].
    Cert = 0x10,
    /// [`DownFrame::Init`].
    Init = 0x11,
    /// [`DownFrame::Start`].
    Start = 0x12,
    /// [`DownFrame::Chunk`].
    Chunk = 0x13,
    /// [`DownFrame::Keep`].
    Keep = 0x14,
    /// [`DownFrame::Path`].
    Path = 0x15,
    /// [`DownFrame::Gap`].
    Gap = 0x16,
    /// [`DownFrame::Shed`].
    Shed = 0x17,
    /// [`DownFrame::End`].
    End = 0x18,
    /// [`UpFrame::Promote`].
    Promote = 0x20,
    /// [`UpFrame::Want`].
    Want = 0x21,
    /// [`UpFrame::Ack`].
    Ack = 0x22,
    /// [`UpFrame::Release`].
    Release = 0x23,
    /// [`UpFrame::Cancel`].
    Cancel = 0x24,
    /// [`UpFrame::Audience`].
    Audience = 0xa0,
}

/// The opener's first frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hello {
    /// The stream that the feed is for.
    pub stream: StreamId,
    /// Which end the *other* side is, seen from the opener, as in the opener's own
    /// [`FeedKey`](crate::ids::FeedKey): [`Direction::ToChild`] = "I am the parent",
    /// [`Direction::FromParent`] = "I am the child".
    pub opener: Direction,
}

/// The answer to a [`Hello`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HelloAck {
    /// The feed is open.
    Accepted,
    /// It is not; the stream closes.
    Refused(RefuseReason),
}

/// Why a feed was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefuseReason {
    /// No ticket between the two for this stream.
    NoTicket,
    /// The stream isn't known here.
    UnknownStream,
    /// Too many feeds already.
    Busy,
    /// The two have a feed for this stream and direction.
    Duplicate,
    /// The node is leaving.
    Leaving,
    /// A reason of a later version.
    Unknown(u8),
}

impl RefuseReason {
    const fn code(self) -> u8 {
        match self {
            Self::NoTicket => 1,
            Self::UnknownStream => 2,
            Self::Busy => 3,
            Self::Duplicate => 4,
            Self::Leaving => 5,
            Self::Unknown(code) => code,
        }
    }
}

/// One stripe in a KEEP.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeepEntry {
    /// Which stripe.
    pub stripe: Stripe,
    /// `stripe_seq` of the newest chunk that the parent has.
    pub head_seq: u64,
    /// How long ago, in milliseconds, the source cut that chunk, as far as the parent knows.
    pub age_ms: u32,
    /// Hops between the source and the parent in this stripe; 0 = the parent is the source.
    pub depth: u8,
}

/// Why a stream ends on a feed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The source ended the stream.
    Ended,
    /// The source fell silent for good.
    SourceLost,
    /// The parent leaves the stream or the network.
    Left,
    /// The parent took the ticket back.
    Revoked,
}

impl EndReason {
    const fn code(self) -> u8 {
        match self {
            Self::Ended => 0,
            Self::SourceLost => 1,
            Self::Left => 2,
            Self::Revoked => 3,
        }
    }
}

/// From parent to child. `P` is the chunk as this machine moves it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DownFrame<P> {
    /// The epoch's certificate; before anything that depends on it.
    Cert(SignedCert),
    /// An init segment; before the first chunk that names it.
    Init(SignedInit),
    /// Answer to PROMOTE: this stripe is complete from here on.
    Start {
        /// Which stripe.
        stripe: Stripe,
        /// First chunk that follows, counted in the stripe.
        from_stripe_seq: u64,
        /// The same chunk, counted in the stream.
        from_seq: u64,
    },
    /// A chunk.
    Chunk(P),
    /// A sign of life with the newest of each stripe.
    Keep {
        /// At most [`KEEP_ENTRIES_MAX`].
        stripes: Vec<KeepEntry>,
        /// The source paused.
        paused: bool,
    },
    /// Who stands between the source and the parent in a stripe.
    Path {
        /// Which stripe.
        stripe: Stripe,
        /// Eight-byte hashes of node ids, source first, at most [`PATH_LEN_MAX`].
        path: Vec<u64>,
    },
    /// Chunks that the parent cannot give.
    Gap {
        /// Which stripe.
        stripe: Stripe,
        /// First missing `stripe_seq`.
        from: u64,
        /// Last missing `stripe_seq`, not below `from`.
        to: u64,
    },
    /// The parent stops these stripes: look elsewhere.
    Shed {
        /// Which stripes.
        stripes: StripeSet,
    },
    /// Nothing follows.
    End {
        /// Why.
        reason: EndReason,
    },
}

impl<P: Payload> DownFrame<P> {
    /// Bytes of the whole frame on the wire.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        let body = match self {
            Self::Chunk(chunk) => return chunk.wire_len(),
            Self::Cert(cert) => cert.wire_len(),
            Self::Init(init) => init.wire_len(),
            Self::Start { .. } | Self::Gap { .. } => 17,
            Self::Keep { stripes, .. } => stripes.len().saturating_mul(14).saturating_add(2),
            Self::Path { path, .. } => path.len().saturating_mul(8).saturating_add(2),
            Self::Shed { .. } => 2,
            Self::End { .. } => 1,
        };
        body.saturating_add(FRAME_HEADER_LEN)
    }
}

impl DownFrame<WireChunk> {
    /// Appends the whole frame. Lists beyond their bound are cut off at it.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Chunk(chunk) => out.put_slice(chunk.frame()),
            Self::Cert(cert) => {
                put_frame_header(out, FrameKind::Cert, cert.wire_len());
                cert.encode(out);
            }
            Self::Init(init) => {
                put_frame_header(out, FrameKind::Init, init.wire_len());
                init.encode(out);
            }
            Self::Start { stripe, from_stripe_seq, from_seq } => {
                put_frame_header(out, FrameKind::Start, 17);
                out.put_u8(*stripe);
                out.put_u64(*from_stripe_seq);
                out.put_u64(*from_seq);
            }
            Self::Keep { stripes, paused } => put_body(out, FrameKind::Keep, |body| {
                body.put_u8(u8::from(*paused));
                put_list(body, stripes, KEEP_ENTRIES_MAX, |body, entry| {
                    body.put_u8(entry.stripe);
                    body.put_u64(entry.head_seq);
                    body.put_u32(entry.age_ms);
                    body.put_u8(entry.depth);
                });
            }),
            Self::Path { stripe, path } => put_body(out, FrameKind::Path, |body| {
                body.put_u8(*stripe);
                put_list(body, path, PATH_LEN_MAX, |body, node| body.put_u64(*node));
            }),
            Self::Gap { stripe, from, to } => {
                put_frame_header(out, FrameKind::Gap, 17);
                out.put_u8(*stripe);
                out.put_u64(*from);
                out.put_u64(*to);
            }
            Self::Shed { stripes } => {
                put_frame_header(out, FrameKind::Shed, 2);
                out.put_u16(stripes.0);
            }
            Self::End { reason } => {
                put_frame_header(out, FrameKind::End, 1);
                out.put_u8(reason.code());
            }
        }
    }
}

/// Where a promoted stripe starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// At the newest keyframe.
    Live,
    /// At this `stripe_seq`: the child has everything before, beside what it says is missing.
    From(u64),
}

/// From child to parent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpFrame {
    /// Send this stripe live from now on.
    Promote {
        /// Which stripe.
        stripe: Stripe,
        /// From where on.
        start: Start,
        /// Inclusive ranges of `stripe_seq` that the child misses before `start`, at most
        /// [`PROMOTE_RANGES_MAX`].
        missing: Vec<(u64, u64)>,
    },
    /// Send these once, below everything live.
    Want {
        /// Which stripe.
        stripe: Stripe,
        /// Inclusive ranges of `stripe_seq`, at most [`WANT_RANGES_MAX`].
        ranges: Vec<(u64, u64)>,
    },
    /// What arrived, and what is still wanted.
    Ack {
        /// Bytes of the CHUNK frames read on this feed since it opened, and of no other frames.
        bytes: u64,
        /// Stripes that the child still holds a ticket for: renews their leases.
        alive: StripeSet,
    },
    /// These came from elsewhere: they need not be repaired any more.
    Cancel {
        /// Which stripe.
        stripe: Stripe,
        /// Inclusive ranges of `stripe_seq`, at most [`WANT_RANGES_MAX`].
        ranges: Vec<(u64, u64)>,
    },
    /// The child gives a stripe's ticket back.
    Release {
        /// Which stripe.
        stripe: Stripe,
        /// Why, for display alone.
        reason: u8,
    },
    /// Who takes the stream at the child and below it.
    Audience(Audience),
}

impl UpFrame {
    /// Bytes of the whole frame on the wire.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        let body = match self {
            Self::Promote { missing, .. } => missing.len().saturating_mul(16).saturating_add(11),
            Self::Want { ranges, .. } | Self::Cancel { ranges, .. } => {
                ranges.len().saturating_mul(16).saturating_add(2)
            }
            Self::Ack { .. } => 10,
            Self::Release { .. } => 2,
            Self::Audience(_) => Audience::LEN,
        };
        body.saturating_add(FRAME_HEADER_LEN)
    }

    /// Appends the whole frame. Lists beyond their bound are cut off at it.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Promote { stripe, start, missing } => put_body(out, FrameKind::Promote, |body| {
                body.put_u8(*stripe);
                let (kind, stripe_seq) = match start {
                    Start::Live => (0, 0),
                    Start::From(stripe_seq) => (1, *stripe_seq),
                };
                body.put_u8(kind);
                body.put_u64(stripe_seq);
                put_list(body, missing, PROMOTE_RANGES_MAX, put_range);
            }),
            Self::Want { stripe, ranges } => put_body(out, FrameKind::Want, |body| {
                body.put_u8(*stripe);
                put_list(body, ranges, WANT_RANGES_MAX, put_range);
            }),
            Self::Cancel { stripe, ranges } => put_body(out, FrameKind::Cancel, |body| {
                body.put_u8(*stripe);
                put_list(body, ranges, WANT_RANGES_MAX, put_range);
            }),
            Self::Ack { bytes, alive } => {
                put_frame_header(out, FrameKind::Ack, 10);
                out.put_u64(*bytes);
                out.put_u16(alive.0);
            }
            Self::Release { stripe, reason } => {
                put_frame_header(out, FrameKind::Release, 2);
                out.put_u8(*stripe);
                out.put_u8(*reason);
            }
            Self::Audience(audience) => {
                put_frame_header(out, FrameKind::Audience, Audience::LEN);
                audience.put(out);
            }
        }
    }
}

impl Hello {
    /// Appends the whole frame.
    pub fn encode(&self, out: &mut BytesMut) {
        put_frame_header(out, FrameKind::Hello, 33);
        out.put_slice(self.stream.as_bytes());
        out.put_u8(match self.opener {
            Direction::FromParent => 0,
            Direction::ToChild => 1,
        });
    }
}

impl HelloAck {
    /// Appends the whole frame.
    pub fn encode(&self, out: &mut BytesMut) {
        put_frame_header(out, FrameKind::HelloAck, 1);
        out.put_u8(match self {
            Self::Accepted => 0,
            Self::Refused(reason) => reason.code(),
        });
    }
}

/// Appends a frame's type and length; bodies are far below 2^24 bytes.
pub(super) fn put_frame_header(out: &mut BytesMut, kind: FrameKind, body_len: usize) {
    out.put_u8(kind as u8);
    out.put_uint(u64::try_from(body_len).unwrap_or(0), 3);
}

/// Appends a frame whose length is known once its body is written.
fn put_body(out: &mut BytesMut, kind: FrameKind, write: impl FnOnce(&mut BytesMut)) {
    let mut body = BytesMut::with_capacity(FRAME_UP_BODY_MAX);
    write(&mut body);
    put_frame_header(out, kind, body.len());
    out.put_slice(&body);
}

fn put_list<T>(out: &mut BytesMut, list: &[T], max: usize, mut put: impl FnMut(&mut BytesMut, &T)) {
    let count = list.len().min(max);
    out.put_u8(u8::try_from(count).unwrap_or(0));
    for item in list.iter().take(count) {
        put(out, item);
    }
}

fn put_range(out: &mut BytesMut, &(from, to): &(u64, u64)) {
    out.put_u64(from);
    out.put_u64(to);
}
