//! Makes an encoder's tags fit to be cut: one clock, no repetitions, nothing absurd.
//!
//! Owns the one rewriting that tags ever get, at the source and before cutting: time stamps are
//! rebased, repeated headers dropped. Does not own tag bodies, which stay as they are, nor cutting
//! (see [`super::cutter`]).
//!
//! **The clock.** Media time is 0 at the first media tag. (Header tags do not count: encoders with
//! a large offset send them at 0 and the media at N.) Each track has a *line*, the distance between
//! its 32-bit time stamps and media time; the tracks share one when that fits. Time stamps wrap
//! after 49.7 days and just go on. A time stamp that leads back, or far ahead of all tracks, means
//! that the encoder restarted or jumped: the track gets a new line that goes on one frame after
//! the newest time, and the tag is marked as a discontinuity. The other track then finds its time
//! stamps fit the new line and follows without a mark. Time never falls within a track.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    amf,
    flv::{HeaderClass, HeaderSlot, TAG_BYTES_MAX, Tag, TagKind},
};

/// A time stamp may fall this much behind its track, as with encoders that reorder or round: it
/// is then held, not taken for a restart.
pub const BACKWARD_MS_MAX: u64 = 500;
/// A time stamp further than this ahead of all tracks is a jump, not a pause.
pub const FORWARD_MS_MAX: u64 = 10_000;
/// A track may begin this much before the first media tag; it is held at 0 until it catches up,
/// because sound and picture that are in step matter more than a smooth first second.
const START_FLOOR_MS: i64 = -2_000;
/// Longest frame that a jump goes on by.
const STEP_MS_MAX: u64 = 100;
/// Frame duration while none was seen: 30 frames a second.
const VIDEO_STEP_MS: u64 = 33;
/// Audio frame duration while none was seen: 1,024 samples at 48 kHz.
const AUDIO_STEP_MS: u64 = 21;
/// Largest `onMetaData`; real ones have below 1 KiB, those of files with an index may have more.
pub const METADATA_BYTES_MAX: usize = 32_768;
/// Largest sequence header; those of HEVC reach some hundred bytes.
pub const SEQUENCE_HEADER_BYTES_MAX: usize = 16_384;
/// Largest other script tag.
pub const SCRIPT_BYTES_MAX: usize = 65_536;
/// Most header slots: metadata and a handful of tracks.
pub const HEADER_SLOTS_MAX: usize = 16;

/// A tag in the stream's own time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MediaTag {
    /// The tag; its time stamp is the low 32 bits of `time_ms`.
    pub tag: Tag,
    /// Milliseconds since the first media tag.
    pub time_ms: u64,
    /// The encoder's clock jumped here.
    pub discontinuity: bool,
}

/// What was dropped or mended, counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct NormalizerStats {
    /// Headers and metadata equal to the last of their kind.
    pub repeated: u64,
    /// Tags without media: empty bodies, commands, ends of sequences.
    pub void: u64,
    /// Tags beyond their size limit, or headers of too many tracks.
    pub absurd: u64,
    /// Time stamps held because they fell a little.
    pub held: u64,
    /// Jumps of the encoder's clock.
    pub discontinuities: u64,
}

/// One track's clock.
#[derive(Clone, Copy, Debug)]
struct Track {
    /// Time stamp of the newest tag.
    raw: u32,
    /// Where `raw` lies in media time, before holding; may be negative.
    position_ms: i64,
    /// Media time given to the newest tag.
    time_ms: u64,
    /// Newest distance between two tags.
    step_ms: u64,
}

impl Track {
    /// Where a time stamp lies on this track's line.
    fn locate(&self, raw: u32) -> i64 {
        // The nearest of all times with these 32 bits: this is what lets the clock wrap.
        let ahead = raw.wrapping_sub(self.raw).cast_signed();
        self.position_ms.saturating_add(i64::from(ahead))
    }
}

/// Tags in, tags out; at most one for one.
#[derive(Clone, Debug, Default)]
pub struct Normalizer {
    audio: Option<Track>,
    video: Option<Track>,
    /// Newest media time of all.
    newest_ms: u64,
    /// The encoder was replaced: no old line is worth anything.
    restarted: bool,
    /// Fingerprints of the newest headers.
    headers: BTreeMap<HeaderSlot, [u8; 32]>,
    stats: NormalizerStats,
}

impl Normalizer {
    /// A normalizer of a stream that begins.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What was dropped or mended so far.
    #[must_use]
    pub const fn stats(&self) -> NormalizerStats {
        self.stats
    }

    /// A new encoder takes over: whatever its time stamps are, its first media tag goes on one
    /// frame after the newest time and is a discontinuity.
    pub fn restart(&mut self) {
        self.restarted = self.audio.is_some() || self.video.is_some();
    }

    /// Takes one tag; `None` if it was dropped.
    pub fn push(&mut self, mut tag: Tag) -> Option<MediaTag> {
        if tag.body.len() > TAG_BYTES_MAX {
            self.stats.absurd = self.stats.absurd.saturating_add(1);
            return None;
        }
        if tag.is_void() || tag.body.is_empty() || tag.is_end_of_sequence() {
            self.stats.void = self.stats.void.saturating_add(1);
            return None;
        }
        if tag.kind == TagKind::Script {
            let prefix =
                tag.body.len().saturating_sub(amf::without_set_data_frame(&tag.body).len());
            tag.body = tag.body.slice(prefix..);
        }
        let (time_ms, discontinuity) = match tag.header_slot() {
            Some(slot) => (self.admit_header(slot, &tag)?, false),
            None => match tag.kind {
                TagKind::Script => (self.admit_script(&tag)?, false),
                TagKind::Audio | TagKind::Video => self.tick(&tag),
            },
        };
        tag.timestamp_ms = low_32(time_ms);
        Some(MediaTag { tag, time_ms, discontinuity })
    }

    /// The time of a header that is new.
    fn admit_header(&mut self, slot: HeaderSlot, tag: &Tag) -> Option<u64> {
        let (bytes_max, print) = match slot.class {
            HeaderClass::Metadata => (METADATA_BYTES_MAX, amf::fingerprint(&tag.body)),
            HeaderClass::VideoSequence
            | HeaderClass::VideoColour
            | HeaderClass::AudioSequence
            | HeaderClass::AudioChannels => {
                (SEQUENCE_HEADER_BYTES_MAX, *blake3::hash(&tag.body).as_bytes())
            }
        };
        if self.headers.get(&slot) == Some(&print) {
            self.stats.repeated = self.stats.repeated.saturating_add(1);
            return None;
        }
        let known = self.headers.contains_key(&slot);
        if tag.body.len() > bytes_max || (!known && self.headers.len() >= HEADER_SLOTS_MAX) {
            self.stats.absurd = self.stats.absurd.saturating_add(1);
            return None;
        }
        self.headers.insert(slot, print);
        Some(self.newest_ms)
    }

    fn admit_script(&mut self, tag: &Tag) -> Option<u64> {
        if tag.body.len() > SCRIPT_BYTES_MAX {
            self.stats.absurd = self.stats.absurd.saturating_add(1);
            return None;
        }
        Some(self.newest_ms)
    }

    /// Media time of a media tag, and whether its clock jumped.
    fn tick(&mut self, tag: &Tag) -> (u64, bool) {
        let is_video = tag.kind == TagKind::Video;
        let (own, other) =
            if is_video { (self.video, self.audio) } else { (self.audio, self.video) };
        let raw = tag.timestamp_ms;
        let default_step = if is_video { VIDEO_STEP_MS } else { AUDIO_STEP_MS };
        let step_ms = own.map_or(default_step, |track| track.step_ms);

        let restarted = std::mem::take(&mut self.restarted);
        let on_line = |line: Option<Track>| {
            let position = line?.locate(raw);
            (!restarted && self.fits(position, own)).then_some(position)
        };
        let (position_ms, discontinuity) = match (on_line(own), on_line(other)) {
            (Some(position), _) | (None, Some(position)) => (position, false),
            (None, None) if own.is_none() && other.is_none() => (0, false),
            // A track that begins with a clock of its own begins now; it did not jump.
            (None, None) if own.is_none() && !restarted => (to_signed(self.newest_ms), false),
            (None, None) => (to_signed(self.newest_ms.saturating_add(step_ms)), true),
        };
        let floor = own.map_or(0, |track| track.time_ms);
        let time_ms = u64::try_from(position_ms).unwrap_or(0).max(floor);
        if to_signed(time_ms) != position_ms {
            self.stats.held = self.stats.held.saturating_add(1);
        }
        if discontinuity {
            self.stats.discontinuities = self.stats.discontinuities.saturating_add(1);
        }
        let moved = own.map_or(0, |track| time_ms.saturating_sub(track.time_ms));
        let step_ms = if (1..=STEP_MS_MAX).contains(&moved) { moved } else { step_ms };
        let track = Some(Track { raw, position_ms, time_ms, step_ms });
        let (own, other) = if is_video {
            (&mut self.video, &mut self.audio)
        } else {
            (&mut self.audio, &mut self.video)
        };
        *own = track;
        if restarted && let Some(other) = other {
            // The new encoder's clock is the only one now. The other track keeps its own time as
            // a floor and measures its next time stamp against this tag's.
            *other = Track { raw, position_ms, ..*other };
        }
        self.newest_ms = self.newest_ms.max(time_ms);
        (time_ms, discontinuity)
    }

    /// Whether a position is a plausible next one of a track.
    fn fits(&self, position_ms: i64, own: Option<Track>) -> bool {
        let newest = to_signed(self.newest_ms);
        let floor = own.map_or_else(
            // A track's first tag may lie well behind the other's newest: audio often starts late.
            || newest.saturating_sub(to_signed(FORWARD_MS_MAX)).max(START_FLOOR_MS),
            // Whatever goes forward on its line is fine, also while it is held.
            |track| {
                let held = to_signed(track.time_ms.saturating_sub(BACKWARD_MS_MAX));
                held.min(track.position_ms)
            },
        );
        let ceiling = newest.saturating_add(to_signed(FORWARD_MS_MAX));
        (floor..=ceiling).contains(&position_ms)
    }
}

fn to_signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

/// The low half, which is what an FLV tag has room for.
fn low_32(ms: u64) -> u32 {
    u32::try_from(ms & u64::from(u32::MAX)).unwrap_or(0)
}
