//! Cuts a source's tags into chunks and init segments.
//!
//! Owns where chunks begin and end, what they are called, which stripe carries them, and when a new
//! init version begins. Does not own time stamps (see [`super::normalize`]), signatures (see
//! [`super::chunk`]), nor what becomes of a chunk.
//!
//! A *unit* is one video frame with the audio before it, or, where no video frame comes for a
//! while, a bundle of audio frames. A unit is a run of whole FLV tags; it makes one chunk, or
//! several of about the same size if it is longer than the target. So all payloads in order are an
//! FLV byte stream without its header.
//!
//! Init version 1 exists before the first chunk and is not in band. When headers change later, the
//! changed tags flow in band, in a chunk of their own that names the new version, and a complete
//! new segment is there for those who join later. What a viewer writes to a file is therefore the
//! segment that its first chunk names, then payloads; what the source writes (`--tee`) is segment
//! 1, then all payloads: from the viewer's first chunk on, the two are the same bytes.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod striper;

use std::collections::{BTreeMap, VecDeque};

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;

use self::striper::Striper;
pub use self::striper::{TARGET_BYTES_MIN, stripes_for, target_bytes};
use super::{
    amf,
    chunk::{CHUNK_OVERHEAD, ChunkFlags, ChunkHeader},
    flv::{HeaderClass, HeaderSlot, Tag, TagKind, Tracks, write_header},
    init::{INIT_BYTES_MAX, InitSegment},
    normalize::MediaTag,
};
use crate::units::Bitrate;

/// Sound alone is bundled until it lasts this long: two AAC or Opus frames.
const AUDIO_BUNDLE_MS: u64 = 40;
/// Beside a picture, sound waits this long for the next frame to travel with.
const AUDIO_WAIT_MS: u64 = 60;
/// A stream that should have a picture begins without it after this much sound.
const START_WAIT_MS: u64 = 2_000;
/// Most bytes that wait for the first keyframe or for the next frame.
const PENDING_BYTES_MAX: usize = 1_024 * 1_024;
/// After this much sound without a picture, decoding may start at the sound.
const PICTURE_GONE_MS: u64 = 5_000;

/// A chunk without its signature.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CutChunk {
    /// Its header, complete.
    pub header: ChunkHeader,
    /// A slice of the FLV byte stream, at most
    /// [`CHUNK_PAYLOAD_MAX`](super::chunk::CHUNK_PAYLOAD_MAX) bytes.
    pub payload: Bytes,
}

/// What comes out of a [`Cutter`], in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cut {
    /// A new init version, before the first chunk that names it.
    Init(InitSegment),
    /// A chunk.
    Chunk(CutChunk),
}

impl Cut {
    /// What `--tee` writes for this, so that the file is the stream as it was cut.
    #[must_use]
    pub fn tee_bytes(&self) -> Option<&Bytes> {
        match self {
            Self::Init(init) => (init.version == 1).then_some(&init.payload),
            Self::Chunk(chunk) => Some(&chunk.payload),
        }
    }
}

/// What was not cut, counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct CutterStats {
    /// Frames before the first keyframe, which nobody could decode.
    pub undecodable: u64,
    /// Sound that waited too long for the first keyframe, in tags.
    pub overdue: u64,
    /// Headers that would have made the init segment too long, or its version overflow.
    pub refused_headers: u64,
}

/// Tags that wait to become a unit.
#[derive(Debug, Default)]
struct Pending {
    bytes: BytesMut,
    tags: u64,
    since_ms: u64,
    newest_ms: u64,
    discontinuity: bool,
}

impl Pending {
    fn add(&mut self, media: &MediaTag) {
        if self.bytes.is_empty() {
            self.since_ms = media.time_ms;
        }
        self.newest_ms = self.newest_ms.max(media.time_ms);
        self.discontinuity |= media.discontinuity;
        self.tags = self.tags.saturating_add(1);
        media.tag.write(&mut self.bytes);
    }

    const fn span_ms(&self) -> u64 {
        self.newest_ms.saturating_sub(self.since_ms)
    }
}

/// Tags in, chunks and init segments out.
///
/// Call [`push`](Self::push), then [`poll_output`](Self::poll_output) until it gives `None`.
#[derive(Debug)]
pub struct Cutter {
    epoch: u64,
    target: usize,
    striper: Striper,
    next_seq: u64,
    newest_ms: u64,
    /// 0 = nothing was cut yet.
    version: u16,
    /// What the encoder's own file header said.
    announced: Tracks,
    /// What the newest init segment's file header says.
    tracks: Tracks,
    headers: BTreeMap<HeaderSlot, Tag>,
    /// Headers that the newest init segment does not have yet.
    changed: BTreeMap<HeaderSlot, MediaTag>,
    pending: Pending,
    audio_newest_ms: Option<u64>,
    audio_step_ms: u64,
    picture_newest_ms: u64,
    ended: bool,
    output: VecDeque<Cut>,
    stats: CutterStats,
}

impl Cutter {
    /// A cutter of one epoch with `k` stripes. `announced` is what the encoder says of its tracks
    /// (its FLV file header), all false if it says nothing.
    #[must_use]
    pub fn new(epoch: u64, k: u8, rate: Bitrate, announced: Tracks) -> Self {
        Self {
            epoch,
            target: target_bytes(rate, k),
            striper: Striper::new(k),
            next_seq: 0,
            newest_ms: 0,
            version: 0,
            announced,
            tracks: Tracks::default(),
            headers: BTreeMap::new(),
            changed: BTreeMap::new(),
            pending: Pending::default(),
            audio_newest_ms: None,
            audio_step_ms: 0,
            picture_newest_ms: 0,
            ended: false,
            output: VecDeque::new(),
            stats: CutterStats::default(),
        }
    }

    /// What was not cut so far.
    #[must_use]
    pub const fn stats(&self) -> CutterStats {
        self.stats
    }

    /// The next piece, if there is one.
    pub fn poll_output(&mut self) -> Option<Cut> {
        self.output.pop_front()
    }

    /// Takes the next tag. Ignored after [`end`](Self::end).
    pub fn push(&mut self, media: MediaTag) {
        if self.ended {
            return;
        }
        if let Some(slot) = media.tag.header_slot() {
            self.take_header(slot, media);
        } else if self.version == 0 {
            self.take_before_start(&media);
        } else {
            self.take_media(&media);
        }
    }

    /// Cuts what waits and says that the source paused. The next tag resumes.
    pub fn pause(&mut self) {
        self.say_pause(ChunkFlags::PAUSE);
    }

    /// As [`pause`](Self::pause), for a moment: the encoder broke off and may be back.
    pub fn reconnecting(&mut self) {
        self.say_pause(ChunkFlags::PAUSE | ChunkFlags::RECONNECTING);
    }

    fn say_pause(&mut self, flags: ChunkFlags) {
        if !self.ended {
            self.flush();
            self.emit(&Bytes::new(), self.newest_ms, flags | ChunkFlags::END_OF_FRAME);
        }
    }

    /// Cuts what waits and ends the stream.
    pub fn end(&mut self) {
        if !self.ended {
            self.flush();
            self.ended = true;
            self.emit(&Bytes::new(), self.newest_ms, ChunkFlags::END | ChunkFlags::END_OF_FRAME);
        }
    }

    /// Cuts everything that waits. The first init segment is there afterwards.
    fn flush(&mut self) {
        if self.version == 0 {
            self.start(None);
        }
        self.publish_changes();
        self.flush_pending();
    }

    fn take_header(&mut self, slot: HeaderSlot, media: MediaTag) {
        let mut header = media.tag.clone();
        header.timestamp_ms = 0;
        let replaced = self.headers.insert(slot, header);
        let fits = self.init_payload(Tracks::default()).len() <= INIT_BYTES_MAX;
        if !fits || self.version == u16::MAX {
            self.stats.refused_headers = self.stats.refused_headers.saturating_add(1);
            match replaced {
                Some(old) => self.headers.insert(slot, old),
                None => self.headers.remove(&slot),
            };
        } else if self.version > 0 {
            self.changed.insert(slot, media);
        }
    }

    fn take_before_start(&mut self, media: &MediaTag) {
        let is_key = media.tag.is_keyframe();
        if media.tag.kind == TagKind::Video && !is_key {
            self.stats.undecodable = self.stats.undecodable.saturating_add(1);
            return;
        }
        if is_key || !self.expects_picture() {
            self.start(Some(media.tag.kind));
            self.take_media(media);
            return;
        }
        let len = self.pending.bytes.len().saturating_add(media.tag.wire_len());
        if len > PENDING_BYTES_MAX {
            self.stats.overdue = self.stats.overdue.saturating_add(self.pending.tags);
            self.pending = Pending::default();
        }
        self.note_audio(media);
        self.pending.add(media);
        if self.pending.span_ms() >= START_WAIT_MS {
            self.start(None);
            self.flush_pending();
        }
    }

    fn take_media(&mut self, media: &MediaTag) {
        let tracks = self.tracks;
        self.note_audio(media);
        match media.tag.kind {
            TagKind::Audio => self.tracks.audio = true,
            TagKind::Video => self.tracks.video = true,
            TagKind::Script => {}
        }
        if !self.changed.is_empty() || self.tracks != tracks {
            self.publish_changes_from(tracks);
        }
        if media.discontinuity {
            self.flush_pending();
        }
        self.pending.add(media);
        if media.tag.kind == TagKind::Video {
            self.picture_newest_ms = media.time_ms;
            let key = media.tag.is_keyframe();
            let key = if key { ChunkFlags::KEYFRAME } else { ChunkFlags::NONE };
            self.cut_unit(media.time_ms, key);
            return;
        }
        let wait_ms = if self.tracks.video { AUDIO_WAIT_MS } else { AUDIO_BUNDLE_MS };
        let lasts_ms = self.pending.span_ms().saturating_add(self.audio_step_ms);
        if lasts_ms >= wait_ms || self.pending.bytes.len() >= self.target {
            self.flush_pending();
        }
    }

    fn note_audio(&mut self, media: &MediaTag) {
        if media.tag.kind == TagKind::Audio {
            let before = self.audio_newest_ms.replace(media.time_ms);
            let step = before.map_or(0, |before| media.time_ms.saturating_sub(before));
            self.audio_step_ms = step.min(AUDIO_WAIT_MS);
        }
    }

    /// Whether a picture is announced anywhere.
    fn expects_picture(&self) -> bool {
        self.announced.video
            || self.headers.iter().any(|(slot, tag)| match slot.class {
                HeaderClass::VideoSequence | HeaderClass::VideoColour => true,
                HeaderClass::Metadata => amf::announces_video(&tag.body),
                HeaderClass::AudioSequence | HeaderClass::AudioChannels => false,
            })
    }

    /// Makes init version 1 of what is known by now; `first` is the kind of the first media tag.
    /// A picture that was only announced is not claimed: players would wait for it.
    fn start(&mut self, first: Option<TagKind>) {
        let has = |class| self.headers.keys().any(|slot| slot.class == class);
        self.tracks = Tracks {
            audio: has(HeaderClass::AudioSequence)
                || self.audio_newest_ms.is_some()
                || first == Some(TagKind::Audio)
                || self.announced.audio,
            video: has(HeaderClass::VideoSequence) || first == Some(TagKind::Video),
        };
        self.version = 1;
        self.emit_init();
    }

    fn publish_changes(&mut self) {
        if !self.changed.is_empty() {
            self.publish_changes_from(self.tracks);
        }
    }

    /// Cuts the changed headers into a chunk of their own under a new version. What waits was
    /// made under `tracks` and the version before, and goes first.
    fn publish_changes_from(&mut self, tracks: Tracks) {
        let now = std::mem::replace(&mut self.tracks, tracks);
        self.flush_pending();
        self.tracks = now;
        let mut unit = BytesMut::new();
        let mut time_ms = self.newest_ms;
        for media in std::mem::take(&mut self.changed).into_values() {
            time_ms = time_ms.max(media.time_ms);
            media.tag.write(&mut unit);
        }
        let Some(version) = self.version.checked_add(1) else { return };
        self.version = version;
        for class in [HeaderClass::AudioSequence, HeaderClass::VideoSequence] {
            let known = self.headers.keys().any(|slot| slot.class == class);
            self.tracks.audio |= known && class == HeaderClass::AudioSequence;
            self.tracks.video |= known && class == HeaderClass::VideoSequence;
        }
        self.emit_init();
        self.emit(&unit.freeze(), time_ms, ChunkFlags::INIT);
    }

    fn emit_init(&mut self) {
        self.output.push_back(Cut::Init(InitSegment {
            epoch: self.epoch,
            version: self.version,
            valid_from_seq: self.next_seq,
            payload: self.init_payload(self.tracks),
        }));
    }

    fn init_payload(&self, tracks: Tracks) -> Bytes {
        let mut payload = BytesMut::new();
        payload.put_slice(&write_header(tracks.audio, tracks.video));
        for tag in self.headers.values() {
            tag.write(&mut payload);
        }
        payload.freeze()
    }

    /// Cuts sound that waits, without a frame.
    fn flush_pending(&mut self) {
        if self.pending.bytes.is_empty() {
            return;
        }
        let time_ms = self.pending.newest_ms;
        let gone = time_ms.saturating_sub(self.picture_newest_ms) >= PICTURE_GONE_MS;
        let can_start = !self.tracks.video || gone;
        let key = if can_start { ChunkFlags::KEYFRAME } else { ChunkFlags::NONE };
        self.cut_unit(time_ms, key);
    }

    fn cut_unit(&mut self, time_ms: u64, flags: ChunkFlags) {
        let pending = std::mem::take(&mut self.pending);
        let mark = if pending.discontinuity { ChunkFlags::DISCONTINUITY } else { ChunkFlags::NONE };
        self.emit(&pending.bytes.freeze(), time_ms, flags | mark);
    }

    /// Cuts a unit into chunks of about equal size. The marks of its beginning are on the first;
    /// [`ChunkFlags::INIT`] is on all.
    fn emit(&mut self, unit: &Bytes, time_ms: u64, flags: ChunkFlags) {
        self.newest_ms = self.newest_ms.max(time_ms);
        let fragments = unit.len().div_ceil(self.target).clamp(1, usize::from(u16::MAX));
        let size = unit.len().div_ceil(fragments);
        let mut rest = unit.clone();
        for fragment in 0..fragments {
            let payload = rest.split_to(size.min(rest.len()));
            let mut flags = if fragment == 0 { flags } else { ChunkFlags(flags.0 & KEPT_FLAGS) };
            if rest.is_empty() {
                flags = flags | ChunkFlags::END_OF_FRAME;
            }
            self.emit_chunk(payload, flags, fragment, fragments);
        }
    }

    fn emit_chunk(&mut self, payload: Bytes, flags: ChunkFlags, fragment: usize, fragments: usize) {
        let wire_len = payload.len().saturating_add(CHUNK_OVERHEAD);
        let (stripe, stripe_seq) = self.striper.assign(wire_len);
        let header = ChunkHeader {
            epoch: self.epoch,
            seq: self.next_seq,
            stripe,
            stripe_seq,
            time_ms: self.newest_ms,
            flags,
            fragment: u16::try_from(fragment).unwrap_or(u16::MAX),
            fragments: u16::try_from(fragments).unwrap_or(u16::MAX),
            init_version: self.version,
            key_id: 0,
            payload_len: u16::try_from(payload.len()).unwrap_or(u16::MAX),
        };
        self.next_seq = self.next_seq.saturating_add(1);
        self.output.push_back(Cut::Chunk(CutChunk { header, payload }));
    }
}

/// Flags that all fragments of a unit have.
const KEPT_FLAGS: u8 = ChunkFlags::INIT.0;

#[cfg(test)]
mod tests;
