//! Makes one FLV stream of what a stream hands over through skips and source restarts.
//!
//! Owns tag boundaries and the timeline of one reader. Does not own the reader. A player that opened
//! one URL expects one FLV header and one clock: a second header in the middle ends it, and a jump
//! of the clock stalls it. Whole tags come out; a tag that a skip tore is dropped.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use astral_core::media::flv::{TAG_BYTES_MAX, Tag, TagKind};
use bytes::{Bytes, BytesMut};

use super::ports::MediaItem;

/// FLV header with its first PreviousTagSize, from the FLV specification, annex E.2.
const FILE_HEADER_BYTES: usize = 9 + 4;
const TAG_HEADER_BYTES: usize = 11;
const PREVIOUS_TAG_SIZE_BYTES: usize = 4;

/// Media time that may pass unseen between two tags before a player's clock is moved instead:
/// what a skip to the next keyframe leaves out at most in a stream with the usual 2 s of keyframe
/// interval.
const FORWARD_MAX_MS: i32 = 10_000;
/// Audio and video run this far behind each other at most.
const BACK_MAX_MS: i32 = 1_000;
/// Between the last tag before a clock change and the first after it: one frame at 25 a second.
const STEP_MS: u32 = 40;

/// How a reader's clock begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Clock {
    /// As the source cut it: a file's bytes stay identical to the source's, also over a skip.
    Source,
    /// At zero, and never jumps: what players want.
    Zero,
}

/// Splices one reader's stream.
#[derive(Debug)]
pub struct Splicer {
    clock: Clock,
    pending: BytesMut,
    /// The reader has its file header.
    begun: bool,
    /// Tags since a file header are still metadata and sequence headers.
    in_headers: bool,
    /// Media tags were there before.
    played: bool,
    /// The next media tag begins another timeline.
    moved: bool,
    shift: u32,
    last_in: u32,
    last_out: u32,
    /// Nothing can be told apart until the next whole item.
    lost: bool,
    dropped_bytes: u64,
}

impl Splicer {
    /// A splicer for a new reader.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            pending: BytesMut::new(),
            begun: false,
            in_headers: false,
            played: false,
            moved: clock == Clock::Zero,
            shift: 0,
            last_in: 0,
            last_out: 0,
            lost: false,
            dropped_bytes: 0,
        }
    }

    /// Takes the next item; what the reader gets for it, perhaps nothing.
    pub fn take(&mut self, item: &MediaItem) -> Bytes {
        match item {
            MediaItem::Flv(bytes) => return self.push(bytes),
            MediaItem::Skipped { .. } | MediaItem::Behind { .. } => self.cut(),
            MediaItem::NewEpoch => {
                self.cut();
                self.moved = true;
            }
            MediaItem::Paused
            | MediaItem::Resumed
            | MediaItem::SourceLost
            | MediaItem::SourceBack
            | MediaItem::Ended { .. } => {}
        }
        Bytes::new()
    }

    /// Bytes that no reader can use: torn tags and what is no FLV.
    #[must_use]
    pub const fn dropped_bytes(&self) -> u64 {
        self.dropped_bytes
    }

    fn cut(&mut self) {
        self.drop_pending();
        self.lost = false;
    }

    fn drop_pending(&mut self) {
        self.dropped_bytes = self.dropped_bytes.saturating_add(self.pending.len() as u64);
        self.pending.clear();
    }

    fn push(&mut self, bytes: &Bytes) -> Bytes {
        self.pending.extend_from_slice(bytes);
        let mut out = BytesMut::new();
        while !self.pending.is_empty() && !self.lost {
            let taken = if self.pending.starts_with(b"F") {
                self.file_header(&mut out)
            } else {
                self.tag(&mut out)
            };
            if !taken {
                break;
            }
        }
        if self.lost {
            self.drop_pending();
        }
        out.freeze()
    }

    /// Takes a file header when it is there whole.
    fn file_header(&mut self, out: &mut BytesMut) -> bool {
        if self.pending.len() < FILE_HEADER_BYTES {
            return false;
        }
        if !self.pending.starts_with(b"FLV") {
            self.lost = true;
            return false;
        }
        let header = self.pending.split_to(FILE_HEADER_BYTES);
        if !self.begun {
            out.extend_from_slice(&header);
        }
        self.begun = true;
        self.in_headers = true;
        true
    }

    /// Takes a tag when it is there whole.
    fn tag(&mut self, out: &mut BytesMut) -> bool {
        let Some([kind, a, b, c, t2, t1, t0, t3, ..]) =
            self.pending.first_chunk::<TAG_HEADER_BYTES>().copied()
        else {
            return false;
        };
        let body_len = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(usize::MAX);
        let kind = match kind & 0x1f {
            8 => TagKind::Audio,
            9 => TagKind::Video,
            18 => TagKind::Script,
            _ => {
                self.lost = true;
                return false;
            }
        };
        if body_len > TAG_BYTES_MAX || !self.begun {
            self.lost = true;
            return false;
        }
        let body_end = TAG_HEADER_BYTES.saturating_add(body_len);
        let len = body_end.saturating_add(PREVIOUS_TAG_SIZE_BYTES);
        if self.pending.len() < len {
            return false;
        }
        let timestamp_ms = u32::from_be_bytes([t3, t2, t1, t0]);
        let raw = self.pending.split_to(len);
        let body = Bytes::copy_from_slice(raw.get(TAG_HEADER_BYTES..body_end).unwrap_or_default());
        let tag = Tag { kind, timestamp_ms, body };
        let time = self.time(&tag);
        if time == timestamp_ms {
            out.extend_from_slice(&raw);
        } else {
            let [u3, u2, u1, u0] = time.to_be_bytes();
            out.extend_from_slice(raw.get(..4).unwrap_or_default());
            out.extend_from_slice(&[u2, u1, u0, u3]);
            out.extend_from_slice(raw.get(8..).unwrap_or_default());
        }
        true
    }

    /// The reader's time of a tag.
    fn time(&mut self, tag: &Tag) -> u32 {
        let is_media = tag.kind != TagKind::Script && !tag.is_sequence_header();
        if self.in_headers && !is_media {
            return if self.played || self.clock == Clock::Zero {
                self.last_out
            } else {
                tag.timestamp_ms
            };
        }
        if is_media {
            self.in_headers = false;
            self.follow(tag.timestamp_ms);
        }
        let time = tag.timestamp_ms.wrapping_add(self.shift);
        if is_media {
            self.last_in = tag.timestamp_ms;
            self.last_out = time;
            self.played = true;
        }
        time
    }

    /// Moves the clock when the source's has moved.
    const fn follow(&mut self, time: u32) {
        let passed = time.wrapping_sub(self.last_in).cast_signed();
        let jumped = match self.clock {
            Clock::Source => false,
            Clock::Zero => self.played && (passed > FORWARD_MAX_MS || passed < -BACK_MAX_MS),
        };
        if !self.moved && !jumped {
            return;
        }
        self.moved = false;
        if self.played {
            self.shift = self.last_out.wrapping_add(STEP_MS).wrapping_sub(time);
        } else if matches!(self.clock, Clock::Zero) {
            self.shift = 0_u32.wrapping_sub(time);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An FLV header with a sequence header behind it.
    fn init() -> Vec<u8> {
        let mut bytes = b"FLV\x01\x05\0\0\0\x09\0\0\0\0".to_vec();
        bytes.extend(tag(9, 0, &[0x17, 0, 0, 0, 0, 1]));
        bytes
    }

    fn tag(kind: u8, time: u32, body: &[u8]) -> Vec<u8> {
        let [t3, t2, t1, t0] = time.to_be_bytes();
        let [_, a, b, c] = u32::try_from(body.len()).unwrap().to_be_bytes();
        let mut bytes = vec![kind, a, b, c, t2, t1, t0, t3, 0, 0, 0];
        bytes.extend(body);
        bytes.extend((u32::try_from(body.len()).unwrap() + 11).to_be_bytes());
        bytes
    }

    fn frame(time: u32) -> Vec<u8> {
        tag(9, time, &[0x17, 1, 0, 0, 0, 0xaa])
    }

    fn flv(bytes: &[u8]) -> MediaItem {
        MediaItem::Flv(Bytes::copy_from_slice(bytes))
    }

    fn skip() -> MediaItem {
        MediaItem::Skipped { from_seq: 0, to_seq: 1, cause: "deadline".into() }
    }

    fn all(splicer: &mut Splicer, items: &[MediaItem]) -> Vec<u8> {
        items.iter().flat_map(|item| splicer.take(item).to_vec()).collect()
    }

    fn times(bytes: &[u8]) -> Vec<u32> {
        let mut rest = &bytes[13..];
        let mut times = Vec::new();
        while !rest.is_empty() {
            let len = u32::from_be_bytes([0, rest[1], rest[2], rest[3]]) as usize;
            times.push(u32::from_be_bytes([rest[7], rest[4], rest[5], rest[6]]));
            rest = &rest[11 + len + 4..];
        }
        times
    }

    #[test]
    fn a_file_gets_exactly_the_bytes_that_the_source_cut() {
        let mut source = init();
        for n in 0..50 {
            source.extend(frame(5_000 + n * 33));
            source.extend(tag(8, 5_010 + n * 33, &[0xaf, 1, 7]));
        }
        for size in [1, 7, 64, 10_000] {
            let items: Vec<_> = source.chunks(size).map(flv).collect();
            let mut splicer = Splicer::new(Clock::Source);
            assert_eq!(all(&mut splicer, &items), source, "pieces of {size}");
        }
    }

    #[test]
    fn a_file_keeps_the_sources_time_over_a_skip() {
        let mut splicer = Splicer::new(Clock::Source);
        let items = [flv(&init()), flv(&frame(100)), skip(), flv(&frame(90_000))];
        assert_eq!(times(&all(&mut splicer, &items)), [0, 100, 90_000]);
    }

    #[test]
    fn a_players_clock_begins_at_zero_and_wraps_with_the_source() {
        let mut splicer = Splicer::new(Clock::Zero);
        let items = [flv(&init()), flv(&frame(0xffff_fff0)), flv(&frame(0x10)), flv(&frame(0x30))];
        assert_eq!(times(&all(&mut splicer, &items)), [0, 0, 0x20, 0x40]);
    }

    #[test]
    fn a_source_restart_leaves_one_header_and_a_clock_that_goes_on() {
        for clock in [Clock::Source, Clock::Zero] {
            let mut splicer = Splicer::new(clock);
            let items = [
                flv(&init()),
                flv(&frame(0)),
                flv(&frame(500)),
                MediaItem::SourceLost,
                MediaItem::NewEpoch,
                flv(&init()),
                flv(&frame(400)),
                flv(&frame(433)),
            ];
            let bytes = all(&mut splicer, &items);
            assert_eq!(times(&bytes), [0, 0, 500, 500, 540, 573], "{clock:?}");
            assert_eq!(bytes.windows(3).filter(|w| w == b"FLV").count(), 1);
        }
    }

    #[test]
    fn a_skip_tears_no_tag_and_a_far_jump_moves_the_clock() {
        let mut splicer = Splicer::new(Clock::Zero);
        let torn = frame(1_033);
        let items = [
            flv(&init()),
            flv(&frame(1_000)),
            flv(&torn[..9]),
            skip(),
            flv(&init()),
            flv(&frame(4_000)),
            skip(),
            flv(&frame(100_000)),
        ];
        assert_eq!(times(&all(&mut splicer, &items)), [0, 0, 0, 3_000, 3_040]);
        assert_eq!(splicer.dropped_bytes(), 9);
    }

    #[test]
    fn what_is_no_flv_is_dropped_until_the_next_skip() {
        let mut splicer = Splicer::new(Clock::Zero);
        let junk = [0x42; 500];
        assert_eq!(all(&mut splicer, &[flv(&init()), flv(&junk), flv(&junk)]).len(), init().len());
        assert_eq!(splicer.dropped_bytes(), 1_000);
        assert_eq!(all(&mut splicer, &[skip(), flv(&frame(7))]).len(), frame(7).len());
        let mut huge = tag(9, 0, &[]);
        huge[1] = 0xff;
        assert!(all(&mut splicer, &[flv(&huge)]).is_empty());
        assert!(splicer.pending.is_empty());
    }
}
