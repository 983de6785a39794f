//! Tags in, initialization segments and fragments out.
//!
//! Owns where a fragment begins and ends, and samples' times and durations. Does not own what an MP4
//! box looks like (see `boxes`).
//!
//! A fragment is at most about [`Fragmenter::default`]'s half second long, begins with a keyframe
//! whenever there is one, and is [`FRAGMENT_BYTES_MAX`] bytes at most. Its last picture's duration
//! is known when the next comes, so one picture is always held back.

use astral_core::media::flv::{Tag, TagKind};
use bytes::Bytes;

use super::{
    boxes::{self, Layout, Run, Sample, VIDEO_SCALE},
    packet::{self, Packet},
};
use crate::edge::rtmp::amf0;

/// A fragment ends when it has this many bytes: 500 ms of 100 Mbit/s, and the largest frame above.
pub const FRAGMENT_BYTES_MAX: usize = 16 * 1_024 * 1_024;
const SAMPLES_BYTES_MAX: usize = FRAGMENT_BYTES_MAX / 2;
/// Metadata larger than this are not looked into.
const METADATA_BYTES_MAX: usize = 60 * 1_024;
/// A picture lasts at most this long: a gap is a gap and no still picture.
const PICTURE_MS_MAX: u64 = 1_000;
/// Sound that is further from where its samples put it than this is put where its tags say.
const DRIFT_MS_MAX: u64 = 100;
/// Beside a picture, sound waits this long for one; then it goes alone.
const ALONE_MS: u64 = 2_000;

/// A fragment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fragment {
    /// `moof` and `mdat`.
    pub bytes: Bytes,
    /// How long it lasts.
    pub duration_ms: u64,
    /// Begins with a keyframe, or has only sound.
    pub independent: bool,
    /// The media time at which it begins, on the reader's clock.
    pub start_ms: u64,
}

/// What comes out, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// A new initialization segment; the fragments behind it belong to it.
    Init(Bytes),
    /// The next fragment.
    Fragment(Fragment),
}

struct Held {
    dts_ms: u64,
    cts_ms: i32,
    key: bool,
    data: Bytes,
}

/// See the module.
#[derive(Default)]
pub struct Fragmenter {
    layout: Layout,
    /// The layout that the newest initialization segment has.
    written: Option<Layout>,
    number: u32,
    /// Time stamps' upper half, counted here: they wrap after 49 days.
    last_stamp: u32,
    now_ms: u64,
    held: Option<Held>,
    video: Run,
    audio: Run,
    /// Where the next sound belongs by its samples, in the sound's ticks.
    audio_next: Option<u64>,
    start_ms: Option<u64>,
    part_ms: u64,
    bytes: usize,
}

impl std::fmt::Debug for Fragmenter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fragmenter({} ms)", self.now_ms)
    }
}

impl Fragmenter {
    /// Longest usual fragment, in milliseconds: what a playlist promises.
    pub const FRAGMENT_MS: u64 = 500;

    /// Takes the next tag of a stream whose clock never jumps (see `edge::splice`).
    pub fn push(&mut self, tag: &Tag) -> Vec<Output> {
        let mut out = Vec::new();
        if tag.kind == TagKind::Script {
            self.on_metadata(&tag.body);
            return out;
        }
        let Some(packet) = packet::open(tag) else { return out };
        match packet {
            Packet::VideoConfig(config) => self.layout.video = Some(config),
            Packet::AudioConfig(config) => self.layout.audio = Some(config),
            Packet::Video { data, cts_ms, key } => {
                let dts_ms = self.clock(tag.timestamp_ms);
                self.on_video(Held { dts_ms, cts_ms, key, data }, &mut out);
            }
            Packet::Audio { data, samples } => {
                let now_ms = self.clock(tag.timestamp_ms);
                self.on_audio(data, samples, now_ms, &mut out);
            }
        }
        out
    }

    /// What is left, when nothing more comes.
    pub fn finish(&mut self) -> Vec<Output> {
        let mut out = Vec::new();
        if let Some(held) = self.held.take() {
            let duration_ms =
                self.video.samples.last().map_or(40, |last| u64::from(last.duration / 90));
            self.settle(held, duration_ms);
        }
        self.flush(&mut out);
        out
    }

    fn clock(&mut self, stamp: u32) -> u64 {
        let passed = i64::from(stamp.wrapping_sub(self.last_stamp).cast_signed());
        self.last_stamp = stamp;
        let now = i64::try_from(self.now_ms).unwrap_or(i64::MAX).saturating_add(passed);
        self.now_ms = u64::try_from(now).unwrap_or(0);
        self.now_ms
    }

    fn on_metadata(&mut self, body: &[u8]) {
        if body.len() > METADATA_BYTES_MAX {
            return;
        }
        let Ok(values) = amf0::read(body) else { return };
        let side = |name| {
            let value = values.iter().find_map(|value| value.field(name)?.number());
            value.filter(|side| (1.0..=16_384.0).contains(side))
        };
        if let (Some(width), Some(height)) = (side("width"), side("height")) {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "within 1 to 16,384"
            )]
            let size = (width as u16, height as u16);
            self.layout.size = size;
        }
    }

    /// Whether the newest initialization segment does not fit the layout.
    fn is_stale(&self) -> bool {
        let same = |written: &Layout| {
            written.video == self.layout.video && written.audio == self.layout.audio
        };
        !self.written.as_ref().is_some_and(same)
    }

    fn write_init(&mut self, out: &mut Vec<Output>) {
        let layout = self.layout.clone();
        if let Some(init) = boxes::init(&layout) {
            out.push(Output::Init(init));
        }
        self.written = Some(layout);
    }

    fn on_video(&mut self, frame: Held, out: &mut Vec<Output>) {
        if self.layout.video.is_none() {
            return;
        }
        if self.written.is_none() && !frame.key {
            return; // Nothing can begin before a keyframe.
        }
        if let Some(held) = self.held.take() {
            let duration_ms = frame.dts_ms.saturating_sub(held.dts_ms).min(PICTURE_MS_MAX);
            self.settle(held, duration_ms);
        }
        if frame.key && self.is_stale() {
            self.flush(out);
            self.write_init(out);
        }
        let step_ms = self.video.samples.last().map_or(0, |last| u64::from(last.duration / 90));
        let is_full = self.part_ms.saturating_add(step_ms) > Self::FRAGMENT_MS;
        let is_large = self.bytes.saturating_add(frame.data.len()) > SAMPLES_BYTES_MAX;
        if frame.key || is_full || is_large {
            self.flush(out);
        }
        self.bytes = self.bytes.saturating_add(frame.data.len());
        self.held = Some(frame);
    }

    /// Puts a picture whose duration is known into the fragment.
    fn settle(&mut self, held: Held, duration_ms: u64) {
        if self.video.samples.is_empty() {
            self.video.start = held.dts_ms.saturating_mul(u64::from(VIDEO_SCALE / 1_000));
            self.start_ms = Some(held.dts_ms);
        }
        let ticks = |ms: u64| u32::try_from(ms.saturating_mul(90)).unwrap_or(u32::MAX);
        self.part_ms = self.part_ms.saturating_add(duration_ms);
        self.video.samples.push(Sample {
            duration: ticks(duration_ms),
            cts: held.cts_ms.saturating_mul(90),
            key: held.key,
            data: held.data,
        });
    }

    fn on_audio(&mut self, data: Bytes, samples: u32, now_ms: u64, out: &mut Vec<Output>) {
        let Some(rate) = self.layout.audio.as_ref().map(|config| u64::from(config.rate())) else {
            return;
        };
        let has_video = self.layout.video.is_some();
        if !has_video && self.is_stale() {
            self.flush(out);
            self.write_init(out);
        }
        let written = self.written.as_ref().map(|layout| &layout.audio);
        if written != Some(&self.layout.audio) {
            return; // The picture begins, and new headers come with its next keyframe.
        }
        let told = now_ms.saturating_mul(rate) / 1_000;
        let slack = rate.saturating_mul(DRIFT_MS_MAX) / 1_000;
        let next = self.audio_next.unwrap_or(told);
        if told.saturating_add(slack) < next {
            return; // Belongs where sound is already.
        }
        let start = if told > next.saturating_add(slack) { told } else { next };
        if start != next && !self.audio.samples.is_empty() {
            self.flush(out);
        }
        if self.audio.samples.is_empty() {
            self.audio.start = start;
        }
        self.audio_next = Some(start.saturating_add(u64::from(samples)));
        self.bytes = self.bytes.saturating_add(data.len());
        self.audio.samples.push(Sample { duration: samples, cts: 0, key: true, data });
        let sound: u64 = self.audio.samples.iter().map(|sample| u64::from(sample.duration)).sum();
        let sound_ms = sound.saturating_mul(1_000) / rate.max(1);
        let is_long =
            if has_video { sound_ms >= ALONE_MS } else { sound_ms + 40 > Self::FRAGMENT_MS };
        if is_long || self.bytes > SAMPLES_BYTES_MAX {
            self.flush(out);
        }
    }

    /// Ends the fragment.
    fn flush(&mut self, out: &mut Vec<Output>) {
        let (video, audio) = (std::mem::take(&mut self.video), std::mem::take(&mut self.audio));
        let part_ms = std::mem::take(&mut self.part_ms);
        let start_ms = self.start_ms.take();
        self.bytes = self.held.as_ref().map_or(0, |held| held.data.len());
        if video.samples.is_empty() && audio.samples.is_empty() {
            return;
        }
        let rate = self.written.as_ref().and_then(|layout| layout.audio.as_ref());
        let rate = rate.map_or(1, |config| u64::from(config.rate())).max(1);
        let sound: u64 = audio.samples.iter().map(|sample| u64::from(sample.duration)).sum();
        let has_video = !video.samples.is_empty();
        self.number = self.number.wrapping_add(1);
        let Some(bytes) = boxes::fragment(self.number, &video, &audio) else { return };
        out.push(Output::Fragment(Fragment {
            bytes,
            duration_ms: if has_video { part_ms } else { sound.saturating_mul(1_000) / rate },
            independent: video.samples.first().is_none_or(|first| first.key),
            start_ms: start_ms.unwrap_or_else(|| audio.start.saturating_mul(1_000) / rate),
        }));
    }
}

#[cfg(test)]
#[path = "fragmenter_tests.rs"]
mod tests;
