//! A modelled encoder in front of the production cutter.
//!
//! Owns frame sizes and times, and the certificate and init segment of its epoch with tags for
//! signatures. Does not own chunk sizes, numbers and stripes: [`Cutter`] is the node's.

use std::time::Duration;

use astral_core::{
    announcement::{AnnouncementDraft, Scheme},
    ids::{SourceKey, StreamId, StreamName},
    media::{
        cert::{EpochCert, SignedCert},
        cutter::{Cut, Cutter},
        flv::{Tag, TagKind, Tracks},
        init::{InitSegment, SignedInit},
        normalize::MediaTag,
    },
    units::Bitrate,
};
use bytes::Bytes;

use crate::{payload::SimChunk, scenario::Stream};

/// AAC frames of 1,024 samples at 48 kHz, in microseconds.
const AUDIO_FRAME_US: u64 = 21_333;
/// Bytes that FLV adds to each frame: tag header and trailer.
const TAG_OVERHEAD: u64 = 15;

/// The published stream and its encoder.
#[derive(Debug)]
pub struct SimSource {
    key: SourceKey,
    name: StreamName,
    id: StreamId,
    model: Stream,
    epoch: u64,
    cutter: Cutter,
    frames: u64,
    audio_frames: u64,
}

/// What a source makes.
#[derive(Debug)]
pub enum Made {
    /// A chunk.
    Chunk(SimChunk),
    /// A new init segment; before the chunk that names it.
    Init(SignedInit),
}

impl SimSource {
    /// An encoder that has not begun.
    #[must_use]
    pub fn new(key: SourceKey, epoch: u64, model: Stream) -> Self {
        let name = StreamName::new("simulated").expect("the name is short and visible");
        let id = StreamId::derive(&key, &name);
        let tracks = Tracks { audio: true, video: true };
        let mut cutter = Cutter::new(epoch, model.stripes, model.rate, tracks);
        cutter.push(header(TagKind::Video, &[0x17, 0, 0, 0, 0, 1, 0x64, 0, 0x1f]));
        cutter.push(header(TagKind::Audio, &[0xaf, 0, 0x11, 0x90]));
        Self { key, name, id, model, epoch, cutter, frames: 0, audio_frames: 0 }
    }

    /// The stream's id.
    #[must_use]
    pub const fn id(&self) -> StreamId {
        self.id
    }

    /// The stream's model.
    #[must_use]
    pub const fn model(&self) -> &Stream {
        &self.model
    }

    /// The certificate of this epoch.
    #[must_use]
    pub fn cert(&self) -> SignedCert {
        let cert = EpochCert {
            source: self.key,
            name: self.name.clone(),
            epoch: self.epoch,
            k: self.model.stripes,
            rate: self.model.rate,
            chunk_key: self.key.0,
            expires_unix: u64::MAX,
        };
        let signature = cert_tag(&cert);
        SignedCert { cert, signature }
    }

    /// What the publisher wants announced.
    #[must_use]
    pub fn draft(&self) -> AnnouncementDraft {
        AnnouncementDraft {
            source: self.key,
            name: self.name.clone(),
            title: "A simulated programme".to_owned(),
            description: String::new(),
            tags: Vec::new(),
            codecs: vec!["avc1".to_owned(), "mp4a".to_owned()],
            resolution: None,
            rate: self.model.rate,
            k: self.model.stripes,
            epoch: self.epoch,
            thumbnail: None,
            renditions: Vec::new(),
            rendition_of: None,
            floor: None,
        }
    }

    /// Time between two frames.
    #[must_use]
    pub fn interval(&self) -> Duration {
        Duration::from_micros(1_000_000 / u64::from(self.model.fps.max(1)))
    }

    /// Encodes the next frame with the sound before it; gives what was cut.
    pub fn frame(&mut self) -> Vec<Made> {
        let at_us = self.frames * 1_000_000 / u64::from(self.model.fps.max(1));
        while self.audio_frames * AUDIO_FRAME_US <= at_us {
            let time_ms = self.audio_frames * AUDIO_FRAME_US / 1_000;
            let bytes = share(self.model.audio, AUDIO_FRAME_US).saturating_sub(TAG_OVERHEAD);
            self.cutter.push(tag(TagKind::Audio, [0xaf, 1], bytes, time_ms));
            self.audio_frames += 1;
        }
        let gop = self.gop();
        let first = if self.frames.is_multiple_of(gop) { 0x17 } else { 0x27 };
        let bytes = self.frame_bytes(first == 0x17, gop).saturating_sub(TAG_OVERHEAD);
        self.cutter.push(tag(TagKind::Video, [first, 1], bytes, at_us / 1_000));
        self.frames += 1;
        self.cut()
    }

    /// Ends the stream; gives the last chunks.
    pub fn end(&mut self) -> Vec<Made> {
        self.cutter.end();
        self.cut()
    }

    fn cut(&mut self) -> Vec<Made> {
        let mut made = Vec::new();
        while let Some(cut) = self.cutter.poll_output() {
            made.push(match cut {
                Cut::Chunk(chunk) => Made::Chunk(SimChunk::seal(&self.id, chunk.header)),
                Cut::Init(init) => {
                    let signature = init_tag(&self.id, &init);
                    Made::Init(SignedInit { init, signature })
                }
            });
        }
        made
    }

    /// Frames between two keyframes.
    fn gop(&self) -> u64 {
        // A few thousand at most.
        ((self.model.keyframe_s * f64::from(self.model.fps)) as u64).max(1)
    }

    fn frame_bytes(&self, key: bool, gop: u64) -> u64 {
        let video = Bitrate::from_bps(self.model.rate.as_bps() - self.model.audio.as_bps());
        let whole = share(video, gop * 1_000_000 / u64::from(self.model.fps.max(1))) as f64;
        let ratio = self.model.keyframe_ratio.max(1.0);
        let small = whole / (gop as f64 - 1.0 + ratio);
        if key { (small * ratio) as u64 } else { small as u64 }
    }
}

/// Whether the source of `stream` tagged this certificate.
#[must_use]
pub fn verify_cert(cert: &SignedCert, stream: &StreamId) -> bool {
    cert.cert.stream() == *stream && cert_tag(&cert.cert) == cert.signature
}

/// Whether the source of `stream` tagged this init segment.
#[must_use]
pub fn verify_init(init: &SignedInit, stream: &StreamId) -> bool {
    init_tag(stream, &init.init) == init.signature
}

fn cert_tag(cert: &EpochCert) -> [u8; 64] {
    let mut message = cert.epoch.to_be_bytes().to_vec();
    message.extend_from_slice(cert.name.as_str().as_bytes());
    message.extend_from_slice(&cert.rate.as_bps().to_be_bytes());
    message.push(cert.k);
    Scheme::tag(&cert.source.0, &message).0
}

fn init_tag(stream: &StreamId, init: &InitSegment) -> [u8; 64] {
    let mut message = init.epoch.to_be_bytes().to_vec();
    message.extend_from_slice(&init.version.to_be_bytes());
    message.extend_from_slice(&init.valid_from_seq.to_be_bytes());
    message.extend_from_slice(&init.payload);
    Scheme::tag(&stream.0, &message).0
}

/// Bytes of a rate in so many microseconds.
fn share(rate: Bitrate, us: u64) -> u64 {
    rate.bytes_in(Duration::from_micros(us))
}

fn header(kind: TagKind, body: &'static [u8]) -> MediaTag {
    let tag = Tag { kind, timestamp_ms: 0, body: Bytes::from_static(body) };
    MediaTag { tag, time_ms: 0, discontinuity: false }
}

fn tag(kind: TagKind, first: [u8; 2], bytes: u64, time_ms: u64) -> MediaTag {
    let mut body = first.to_vec();
    body.resize(usize::try_from(bytes).unwrap_or(0).clamp(8, 1 << 21), 0);
    let timestamp_ms = (time_ms & u64::from(u32::MAX)) as u32;
    let tag = Tag { kind, timestamp_ms, body: body.into() };
    MediaTag { tag, time_ms, discontinuity: false }
}

#[cfg(test)]
mod tests {
    use astral_core::media::chunk::{ChunkFlags, Payload};

    use super::*;

    #[test]
    fn ten_seconds_have_the_rate_the_keyframes_and_even_stripes() {
        let mut source = SimSource::new(SourceKey([3; 32]), 9, Stream::default());
        let mut inits = 0;
        let (mut bytes, mut keys, mut stripes) = (0, 0, [0_u64; 8]);
        let all: Vec<Made> = (0..300).flat_map(|_| source.frame()).collect();
        for made in all {
            match made {
                Made::Init(init) => {
                    assert!(verify_init(&init, &source.id()));
                    inits += 1;
                }
                Made::Chunk(chunk) => {
                    assert!(chunk.verify(&source.id()));
                    let header = chunk.header();
                    bytes += u64::from(header.payload_len);
                    keys += u64::from(header.flags.contains(ChunkFlags::KEYFRAME));
                    stripes[usize::from(header.stripe)] += u64::from(header.payload_len);
                }
            }
        }
        assert_eq!((inits, keys), (1, 5));
        let rate = bytes * 8 / 10;
        assert!((2_900_000..3_100_000).contains(&rate), "{rate}");
        let (least, most) = (stripes.iter().min().unwrap(), stripes.iter().max().unwrap());
        assert!(most - least < 2 * 16_384, "{stripes:?}");
        assert!(verify_cert(&source.cert(), &source.id()));
    }
}
