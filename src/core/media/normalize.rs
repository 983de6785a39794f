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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::media::fixtures::tag;

    const KEY: &[u8] = b"\x17\x01\x00\x00\x00key";
    const FRAME: &[u8] = b"\x27\x01\x00\x00\x00frame";
    const SOUND: &[u8] = b"\xaf\x01sound";
    const AVC_HEADER: &[u8] = b"\x17\x00\x00\x00\x00cfg";
    const AAC_HEADER: &[u8] = b"\xaf\x00\x11\x90";

    fn video(ms: u32) -> Tag {
        tag(TagKind::Video, ms, FRAME)
    }

    fn audio(ms: u32) -> Tag {
        tag(TagKind::Audio, ms, SOUND)
    }

    fn metadata(date: &[u8]) -> Tag {
        let mut body = b"\x02\x00\x0aonMetaData\x08\x00\x00\x00\x02\x00\x05width\x00".to_vec();
        body.extend(1280_f64.to_be_bytes());
        body.extend(b"\x00\x0ccreationdate\x02\x00\x03");
        body.extend(date);
        body.extend([0, 0, 9]);
        tag(TagKind::Script, 0, &body)
    }

    /// Times of what comes out, discontinuities marked.
    fn times(tags: impl IntoIterator<Item = Tag>) -> Vec<(u64, bool)> {
        let mut normalizer = Normalizer::new();
        tags.into_iter()
            .filter_map(|tag| normalizer.push(tag))
            .map(|media| {
                assert_eq!(u64::from(media.tag.timestamp_ms), media.time_ms & 0xffff_ffff);
                (media.time_ms, media.discontinuity)
            })
            .collect()
    }

    #[test]
    fn repeated_headers_and_metadata_are_dropped_and_counted() {
        let mut normalizer = Normalizer::new();
        let mut passes = |tag: Tag| normalizer.push(tag).is_some();
        assert!(passes(metadata(b"Mon")));
        assert!(passes(tag(TagKind::Video, 0, AVC_HEADER)));
        assert!(passes(tag(TagKind::Audio, 0, AAC_HEADER)));
        assert!(!passes(metadata(b"Tue")), "another date alone is no other metadata");
        assert!(!passes(tag(TagKind::Video, 9, AVC_HEADER)));
        assert!(passes(tag(TagKind::Video, 9, b"\x17\x00\x00\x00\x00other")));
        assert!(passes(tag(TagKind::Video, 9, AVC_HEADER)), "back again is a change");
        assert_eq!(normalizer.stats().repeated, 2);
    }

    #[test]
    fn the_clock_begins_at_the_first_media_tag_and_not_at_the_headers() {
        let headers = [metadata(b"Mon"), tag(TagKind::Video, 0, AVC_HEADER)];
        let media = [video(20_000_000), audio(20_000_012), video(20_000_033)];
        let out = times(headers.into_iter().chain(media));
        assert_eq!(out, [0, 0, 0, 12, 33].map(|ms| (ms, false)));
    }

    #[test]
    fn time_stamps_that_cross_24_and_32_bits_just_go_on() {
        for edge in [0x00ff_ffff_u32, u32::MAX] {
            let start = edge - 100;
            let out = times((0..10).map(|at| video(start.wrapping_add(at * 33))));
            let expected: Vec<_> = (0..10).map(|at| (at * 33, false)).collect();
            assert_eq!(out, expected, "across {edge:#x}");
        }
    }

    #[test]
    fn media_time_goes_on_beyond_32_bits() {
        // Steps of 9 s stay below the limit of a jump: 49.7 days take half a million of them.
        let mut normalizer = Normalizer::new();
        let mut last = None;
        for at in 0..500_000_u32 {
            last = normalizer.push(video(at.wrapping_mul(9_000)));
        }
        let last = last.unwrap();
        assert_eq!(last.time_ms, 499_999 * 9_000);
        assert!(last.time_ms > u64::from(u32::MAX) && !last.discontinuity);
    }

    #[test]
    fn an_encoder_that_restarts_goes_on_one_frame_later_with_one_mark() {
        let before = [video(0), audio(5), video(40), audio(26), video(5_000), audio(5_010)];
        let after = [video(0), audio(5), video(40), audio(26)];
        let out = times(before.into_iter().chain(after));
        let resumed = [(5_043, true), (5_048, false), (5_083, false), (5_069, false)];
        // The last step before the restart was too long to be a frame: 40 ms is remembered.
        let shifted = resumed.map(|(ms, mark)| (ms + 7, mark));
        assert_eq!(out[6..], shifted);
    }

    #[test]
    fn a_jump_ahead_is_a_mark_but_a_pause_of_one_track_is_not() {
        let out = times([video(0), video(33), video(3_600_000), video(3_600_033)]);
        assert_eq!(out, [(0, false), (33, false), (66, true), (99, false)]);

        let sound = (0..600).map(|at| audio(at * 21));
        let frozen = [video(0)].into_iter().chain(sound).chain([video(12_600)]);
        assert!(times(frozen).iter().all(|(_, mark)| !mark), "the picture froze for 12 s");
    }

    #[test]
    fn a_new_encoder_is_a_mark_even_when_its_clock_seems_to_fit() {
        let mut normalizer = Normalizer::new();
        let time = |normalizer: &mut Normalizer, tag| {
            let media = normalizer.push(tag).unwrap();
            (media.time_ms, media.discontinuity)
        };
        normalizer.restart();
        assert_eq!(time(&mut normalizer, audio(900)), (0, false), "nothing was there before");
        assert_eq!(time(&mut normalizer, video(910)), (10, false));
        assert_eq!(time(&mut normalizer, video(943)), (43, false));
        normalizer.restart();
        assert_eq!(time(&mut normalizer, video(0)), (76, true));
        assert_eq!(time(&mut normalizer, audio(10)), (86, false));
        assert_eq!(time(&mut normalizer, video(33)), (109, false));
    }

    #[test]
    fn a_time_stamp_that_falls_a_little_is_held() {
        let out = times([video(1_000), video(1_040), video(1_020), video(1_080)]);
        assert_eq!(out, [0, 40, 40, 80].map(|ms| (ms, false)));
    }

    #[test]
    fn tracks_with_clocks_of_their_own_run_side_by_side() {
        let out = times([
            audio(4_873_450),
            video(257),
            audio(4_873_471),
            video(290),
            audio(4_873_492),
            video(323),
        ]);
        assert_eq!(out, [0, 0, 21, 33, 42, 66].map(|ms| (ms, false)));
    }

    #[test]
    fn sound_that_begins_before_the_picture_stays_in_step_with_it() {
        let out = times([video(2_000), audio(1_000), audio(1_500), audio(2_021), video(2_033)]);
        assert_eq!(out, [0, 0, 0, 21, 33].map(|ms| (ms, false)));
    }

    #[test]
    fn tags_without_media_or_of_absurd_size_are_dropped_and_counted() {
        let mut normalizer = Normalizer::new();
        for body in [&b""[..], b"\x17\x02\x00\x00\x00", b"\x57\x00", b"\x92hvc1"] {
            assert_eq!(normalizer.push(tag(TagKind::Video, 0, body)), None);
        }
        let huge = vec![0x17, 0, 0, 0, 0].into_iter().chain([9; 20_000]).collect::<Vec<_>>();
        assert_eq!(normalizer.push(tag(TagKind::Video, 0, &huge)), None);
        for track in 0..=u8::MAX {
            normalizer.push(tag(
                TagKind::Video,
                0,
                &[b"\x96\x00avc1".as_slice(), &[track]].concat(),
            ));
        }
        let stats = normalizer.stats();
        assert_eq!((stats.void, stats.absurd), (4, 1 + 256 - HEADER_SLOTS_MAX as u64));
        assert_eq!(times([tag(TagKind::Video, 500, KEY)]), [(0, false)], "media is not a header");
    }

    #[test]
    fn metadata_lose_the_prefix_that_rtmp_puts_before_them() {
        let plain = metadata(b"Mon");
        let prefixed = [&b"\x02\x00\x0d@setDataFrame"[..], &plain.body].concat();
        let out = Normalizer::new().push(tag(TagKind::Script, 0, &prefixed)).unwrap();
        assert_eq!(out.tag.body, plain.body);
    }

    proptest! {
        #[test]
        fn time_never_falls_within_a_track_whatever_the_encoder_says(
            tags in prop::collection::vec((any::<bool>(), any::<u32>(), 0_u32..200, any::<u8>()), 1..80),
        ) {
            let mut normalizer = Normalizer::new();
            let (mut raw, mut newest) = (0_u32, [0_u64; 2]);
            for (is_video, jump, step, chance) in tags {
                raw = if chance < 16 { jump } else { raw.wrapping_add(step) };
                if chance == 255 {
                    normalizer.restart();
                }
                let tag = if is_video { video(raw) } else { audio(raw) };
                let media = normalizer.push(tag).unwrap();
                let floor = &mut newest[usize::from(is_video)];
                prop_assert!(media.time_ms >= *floor);
                *floor = media.time_ms;
                let ceiling = (FORWARD_MS_MAX + STEP_MS_MAX) * 80;
                prop_assert!(media.time_ms <= ceiling);
            }
        }
    }
}
