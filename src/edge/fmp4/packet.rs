//! What an FLV tag carries, taken out of its envelope: configuration or frame.
//!
//! Owns classic and Enhanced RTMP envelopes of the codecs that MP4 can carry. Does not own the
//! decision what to do with a codec that it can't: such tags are read over.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use astral_core::media::flv::{Codec, Tag, TagKind};
use bytes::Bytes;
use mp4_atom::{Atom as _, Av1c, Avcc, Hvcc, VpcC};

/// How a picture is coded, as its sequence header says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum VideoConfig {
    /// H.264.
    Avc(Avcc),
    /// H.265.
    Hevc(Hvcc),
    /// AV1.
    Av1(Av1c),
    /// VP9.
    Vp9(VpcC),
}

/// How sound is coded, as its sequence header says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AudioConfig {
    /// AAC, by its AudioSpecificConfig.
    Aac {
        /// The whole AudioSpecificConfig.
        config: Bytes,
        /// Samples a second.
        rate: u32,
        /// Number of channels.
        channels: u16,
    },
    /// Opus, always 48,000 samples a second.
    Opus {
        /// Number of channels.
        channels: u8,
        /// Samples to throw away at the beginning.
        pre_skip: u16,
    },
}

impl AudioConfig {
    /// Samples a second: the time scale of the track.
    #[must_use]
    pub const fn rate(&self) -> u32 {
        match self {
            Self::Aac { rate, .. } => *rate,
            Self::Opus { .. } => OPUS_RATE,
        }
    }
}

const OPUS_RATE: u32 = 48_000;
/// Samples of one AAC frame (ISO/IEC 14496-3; the 960 variant is broadcast radio's).
const AAC_SAMPLES: u32 = 1_024;
/// AudioSpecificConfig, table 1.18: samples a second by index.
const AAC_RATES: [u32; 13] = [
    96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000,
    7_350,
];

/// A tag's contents.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Packet {
    VideoConfig(VideoConfig),
    /// A frame; `cts_ms` is what its showing is later than its decoding.
    Video {
        data: Bytes,
        cts_ms: i32,
        key: bool,
    },
    AudioConfig(AudioConfig),
    /// Sound of so many samples.
    Audio {
        data: Bytes,
        samples: u32,
    },
}

/// Opens a tag; `None` for what MP4 can't carry or nobody can read.
pub(super) fn open(tag: &Tag) -> Option<Packet> {
    match tag.kind {
        TagKind::Video => open_video(tag),
        TagKind::Audio => open_audio(tag),
        TagKind::Script => None,
    }
}

fn open_video(tag: &Tag) -> Option<Packet> {
    let codec = tag.video_codec()?;
    let body = &tag.body;
    let first = *body.first()?;
    let key = tag.is_keyframe();
    let (is_config, cts_ms, payload) = if first & 0x80 == 0 {
        // Frame type and codec, packet type, 24 bits of composition time.
        let [_, packet, c2, c1, c0] = *body.first_chunk::<5>()?;
        (packet == 0, signed_24([c2, c1, c0]), body.slice(5..))
    } else {
        // Frame type and packet type, FourCC, and with type 1 of NAL codecs the composition time.
        body.first_chunk::<5>()?;
        match (first & 0x0f, codec) {
            (0, _) => (true, 0, body.slice(5..)),
            (1, Codec::Avc | Codec::Hevc) => {
                let cts = *body.get(5..)?.first_chunk::<3>()?;
                (false, signed_24(cts), body.slice(8..))
            }
            (1 | 3, _) => (false, 0, body.slice(5..)),
            // Extensions, multitrack, colour and ends: no plain frame.
            _ => return None,
        }
    };
    if !is_config {
        return (!payload.is_empty()).then_some(Packet::Video { data: payload, cts_ms, key });
    }
    let config = match codec {
        Codec::Avc => VideoConfig::Avc(Avcc::decode_body(&mut &payload[..]).ok()?),
        Codec::Hevc => VideoConfig::Hevc(Hvcc::decode_body(&mut &payload[..]).ok()?),
        Codec::Av1 => VideoConfig::Av1(Av1c::decode_body(&mut &payload[..]).ok()?),
        Codec::Vp9 => {
            // The record alone travels in RTMP; in MP4, version and flags stand before it.
            let full = [&[1, 0, 0, 0], &payload[..]].concat();
            VideoConfig::Vp9(VpcC::decode_body(&mut &full[..]).ok()?)
        }
        Codec::Vp8 | Codec::Aac | Codec::Mp3 | Codec::Opus | Codec::Other(_) => return None,
    };
    Some(Packet::VideoConfig(config))
}

fn signed_24([high, middle, low]: [u8; 3]) -> i32 {
    let sign = if high & 0x80 == 0 { 0 } else { 0xff };
    i32::from_be_bytes([sign, high, middle, low])
}

fn open_audio(tag: &Tag) -> Option<Packet> {
    let body = &tag.body;
    let first = *body.first()?;
    let (is_config, payload) = if first >> 4 == 9 {
        body.first_chunk::<5>()?;
        match first & 0x0f {
            0 => (true, body.slice(5..)),
            1 => (false, body.slice(5..)),
            _ => return None,
        }
    } else {
        let packet = *body.get(1)?;
        (packet == 0, body.slice(2..))
    };
    match (tag.audio_codec()?, is_config) {
        (Codec::Aac, true) => aac(payload).map(Packet::AudioConfig),
        (Codec::Opus, true) => opus(&payload).map(Packet::AudioConfig),
        (Codec::Aac, false) if !payload.is_empty() => {
            Some(Packet::Audio { data: payload, samples: AAC_SAMPLES })
        }
        (Codec::Opus, false) => {
            let samples = opus_samples(&payload)?;
            Some(Packet::Audio { data: payload, samples })
        }
        _ => None,
    }
}

/// Reads an AudioSpecificConfig: object type u5, rate index u4, channels u4.
fn aac(config: Bytes) -> Option<AudioConfig> {
    let bits = u16::from_be_bytes(*config.first_chunk::<2>()?);
    let rate = *AAC_RATES.get(usize::from(bits >> 7 & 0x0f))?;
    let channels = match bits >> 3 & 0x0f {
        0 => 2, // Told inside the frames.
        7 => 8,
        channels => channels,
    };
    Some(AudioConfig::Aac { config, rate, channels })
}

/// Reads an OpusHead (RFC 7845, section 5.1). More than two channels need its mapping table.
fn opus(head: &[u8]) -> Option<AudioConfig> {
    let head = head.strip_prefix(b"OpusHead").unwrap_or(head);
    let [_version, channels, low, high] = *head.first_chunk::<4>()?;
    let pre_skip = u16::from_le_bytes([low, high]);
    (1..=2).contains(&channels).then_some(AudioConfig::Opus { channels, pre_skip })
}

/// Samples of an Opus packet by its first bytes (RFC 6716, section 3.1).
fn opus_samples(packet: &[u8]) -> Option<u32> {
    let first = *packet.first()?;
    let frame: u32 = match first >> 3 {
        config @ 0..=11 => [480, 960, 1_920, 2_880].get(usize::from(config & 3)).copied()?,
        config @ 12..=15 => [480, 960].get(usize::from(config & 1)).copied()?,
        config => [120, 240, 480, 960].get(usize::from(config & 3)).copied()?,
    };
    let frames = match first & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(*packet.get(1)? & 0x3f),
    };
    // A packet is at most 120 ms long.
    let samples = frame.checked_mul(frames)?;
    (1..=5_760).contains(&samples).then_some(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn video(body: &[u8]) -> Option<Packet> {
        let body = Bytes::copy_from_slice(body);
        open(&Tag { kind: TagKind::Video, timestamp_ms: 0, body })
    }

    fn audio(body: &[u8]) -> Option<Packet> {
        let body = Bytes::copy_from_slice(body);
        open(&Tag { kind: TagKind::Audio, timestamp_ms: 0, body })
    }

    #[test]
    fn frames_come_out_of_both_envelopes_with_their_composition_time() {
        let frame = |data: &'static [u8], cts_ms, key| {
            Some(Packet::Video { data: Bytes::from_static(data), cts_ms, key })
        };
        assert_eq!(video(b"\x17\x01\x00\x00\x28nal"), frame(b"nal", 40, true));
        assert_eq!(video(b"\x27\x01\xff\xff\xd8nal"), frame(b"nal", -40, false));
        assert_eq!(video(b"\x91hvc1\x00\x00\x28nal"), frame(b"nal", 40, true));
        assert_eq!(video(b"\xa3hvc1nal"), frame(b"nal", 0, false));
        assert_eq!(video(b"\x91av01obu"), frame(b"obu", 0, true));
        for none in [&b"\x17\x01\0\0"[..], b"\x17\x02\0\0\0", b"\x92hvc1", b"\x96\x00avc1", b""] {
            assert_eq!(video(none), None, "{none:?}");
        }
    }

    #[test]
    fn sound_says_its_rate_and_each_packet_its_length() {
        let config = Bytes::from_static(b"\x11\x90");
        let wanted = AudioConfig::Aac { config, rate: 48_000, channels: 2 };
        assert_eq!(audio(b"\xaf\x00\x11\x90"), Some(Packet::AudioConfig(wanted)));
        assert!(matches!(audio(b"\xaf\x01x"), Some(Packet::Audio { samples: 1_024, .. })));
        let head = b"\x90OpusOpusHead\x01\x02\x38\x01\x80\xbb\x00\x00\x00\x00\x00";
        let wanted = AudioConfig::Opus { channels: 2, pre_skip: 312 };
        assert_eq!(audio(head), Some(Packet::AudioConfig(wanted)));
        for (first, samples) in [(0xfc_u8, 960), (0xf9, 1_920), (0x00, 480), (0x18, 2_880)] {
            let packet = [&b"\x91Opus"[..], &[first, 0]].concat();
            let Some(Packet::Audio { samples: read, .. }) = audio(&packet) else {
                panic!("{first}")
            };
            assert_eq!(read, samples, "{first:#x}");
        }
        assert_eq!(audio(b"\x2fmp3"), None);
    }

    #[test]
    fn broken_configurations_are_read_over() {
        for none in
            [&b"\x17\x00\0\0\0"[..], b"\x17\x00\0\0\0\x01\x64", b"\x90hvc1\x01", b"\x90av01"]
        {
            assert_eq!(video(none), None, "{none:?}");
        }
        assert_eq!(audio(b"\xaf\x00\x17"), None);
        assert_eq!(audio(b"\x90OpusOpusHead\x01\x08\0\0"), None);
    }
}
