//! The first bytes of a tag's body: codec, keyframe, sequence header.
//!
//! Owns what can be told of a tag without decoding it, for classic FLV and Enhanced RTMP. Does not
//! own anything behind those bytes.
//!
//! ```text
//! classic video  = frame type u4 (1 = key), codec u4 (7 = AVC, 12 = HEVC, 13 = AV1), with
//!                  those codecs packet type u8 (0 = sequence header, 1 = frame, 2 = end)
//! enhanced video = 1 u1, frame type u3, packet type u4, [mod-ex...], FourCC
//! classic audio  = format u4 (10 = AAC, 2 and 14 = MP3), rate and width u4, with AAC packet type u8
//! enhanced audio = 9 u4, packet type u4, [mod-ex...], FourCC
//! mod-ex         = size - 1 u8 (255: size - 1 u16 follows), data, type u4, packet type u4
//! multitrack     = type u4 (0 one, 1 many, 2 many with own codecs), packet type u4,
//!                  [FourCC unless 2], {[FourCC if 2], track id u8, ...}
//! ```

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Tag, TagKind};
use crate::media::{amf, byte_reader::ByteReader};

/// Most extensions before a packet; the standard knows one.
const MOD_EX_MAX: usize = 4;

/// How a track is coded.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Codec {
    /// H.264.
    Avc,
    /// H.265.
    Hevc,
    /// AV1.
    Av1,
    /// VP9.
    Vp9,
    /// VP8.
    Vp8,
    /// AAC.
    Aac,
    /// MP3.
    Mp3,
    /// Opus.
    Opus,
    /// Another one, by its FourCC; classic codecs without one have a made-up name.
    Other([u8; 4]),
}

impl Codec {
    fn from_fourcc(fourcc: [u8; 4]) -> Self {
        match &fourcc {
            b"avc1" => Self::Avc,
            b"hvc1" => Self::Hevc,
            b"av01" => Self::Av1,
            b"vp09" => Self::Vp9,
            b"vp08" => Self::Vp8,
            b"mp4a" => Self::Aac,
            b".mp3" => Self::Mp3,
            b"Opus" => Self::Opus,
            _ => Self::Other(fourcc),
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Avc => "H.264",
            Self::Hevc => "HEVC",
            Self::Av1 => "AV1",
            Self::Vp9 => "VP9",
            Self::Vp8 => "VP8",
            Self::Aac => "AAC",
            Self::Mp3 => "MP3",
            Self::Opus => "Opus",
            Self::Other(fourcc) => return write!(f, "{}", fourcc.escape_ascii()),
        })
    }
}

/// What a header tag configures; the order is the order in an init segment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum HeaderClass {
    /// `onMetaData`.
    Metadata,
    /// A video sequence header.
    VideoSequence,
    /// Colour description of the picture (Enhanced RTMP).
    VideoColour,
    /// An audio sequence header.
    AudioSequence,
    /// Layout of the audio channels (Enhanced RTMP).
    AudioChannels,
}

/// The place of a header tag: a later tag of the same slot replaces the one before.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HeaderSlot {
    /// What it configures.
    pub class: HeaderClass,
    /// 0, or with multitrack 256 x (its type + 1) + its first track's id.
    pub track: u16,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Packet {
    Sequence,
    Media,
    End,
    /// Colour or channel layout.
    Configuration,
    /// No media at all: seek marks and the like.
    Command,
}

struct Head {
    codec: Option<Codec>,
    packet: Packet,
    key: bool,
    track: u16,
}

impl Tag {
    /// Whether this is a video frame that decoding can start at.
    #[must_use]
    pub fn is_keyframe(&self) -> bool {
        self.video_head().is_some_and(|head| head.key && head.packet == Packet::Media)
    }

    /// Whether this configures a decoder: AVC, HEVC or AAC sequence header, or Enhanced RTMP's
    /// sequence start.
    #[must_use]
    pub fn is_sequence_header(&self) -> bool {
        self.head().is_some_and(|head| head.packet == Packet::Sequence)
    }

    /// Whether this says that the encoder ended its sequence.
    #[must_use]
    pub fn is_end_of_sequence(&self) -> bool {
        self.head().is_some_and(|head| head.packet == Packet::End)
    }

    /// Whether this is an `onMetaData` script tag.
    #[must_use]
    pub fn is_metadata(&self) -> bool {
        self.kind == TagKind::Script && amf::is_metadata(&self.body)
    }

    /// Whether this is a video or audio tag without media: empty, or a command.
    #[must_use]
    pub fn is_void(&self) -> bool {
        self.kind != TagKind::Script
            && self.head().is_none_or(|head| head.packet == Packet::Command)
    }

    /// How the picture is coded; `None` for other tags and for packets that do not say.
    #[must_use]
    pub fn video_codec(&self) -> Option<Codec> {
        self.video_head().and_then(|head| head.codec)
    }

    /// How the sound is coded; `None` for other tags and for packets that do not say.
    #[must_use]
    pub fn audio_codec(&self) -> Option<Codec> {
        self.audio_head().and_then(|head| head.codec)
    }

    /// The slot of a tag that belongs into an init segment; `None` for media.
    #[must_use]
    pub fn header_slot(&self) -> Option<HeaderSlot> {
        if self.kind == TagKind::Script {
            return self
                .is_metadata()
                .then_some(HeaderSlot { class: HeaderClass::Metadata, track: 0 });
        }
        let head = self.head()?;
        let class = match (head.packet, self.kind) {
            (Packet::Sequence, TagKind::Video) => HeaderClass::VideoSequence,
            (Packet::Sequence, _) => HeaderClass::AudioSequence,
            (Packet::Configuration, TagKind::Video) => HeaderClass::VideoColour,
            (Packet::Configuration, _) => HeaderClass::AudioChannels,
            (Packet::Media | Packet::End | Packet::Command, _) => return None,
        };
        Some(HeaderSlot { class, track: head.track })
    }

    fn head(&self) -> Option<Head> {
        match self.kind {
            TagKind::Video => self.video_head(),
            TagKind::Audio => self.audio_head(),
            TagKind::Script => None,
        }
    }

    fn video_head(&self) -> Option<Head> {
        if self.kind != TagKind::Video {
            return None;
        }
        let mut reader = ByteReader::new(&self.body);
        let first = reader.u8()?;
        if first & 0x80 == 0 {
            return classic_video(first, &mut reader);
        }
        let frame_type = first >> 4 & 7;
        let key = frame_type == 1;
        let packet_type = after_mod_ex(first & 0x0f, &mut reader)?;
        if frame_type == 5 && packet_type != 4 {
            return Some(Head { codec: None, packet: Packet::Command, key: false, track: 0 });
        }
        let (packet_type, codec, track) = if packet_type == 6 {
            multitrack(&mut reader)?
        } else {
            (packet_type, Codec::from_fourcc(reader.array()?), 0)
        };
        let packet = match packet_type {
            // 5 is AV1's sequence start when it came out of an MPEG transport stream.
            0 | 5 => Packet::Sequence,
            2 => Packet::End,
            4 => Packet::Configuration,
            _ => Packet::Media,
        };
        Some(Head { codec: Some(codec), packet, key, track })
    }

    fn audio_head(&self) -> Option<Head> {
        if self.kind != TagKind::Audio {
            return None;
        }
        let mut reader = ByteReader::new(&self.body);
        let first = reader.u8()?;
        if first >> 4 != 9 {
            return classic_audio(first, &mut reader);
        }
        let packet_type = after_mod_ex(first & 0x0f, &mut reader)?;
        let (packet_type, codec, track) = if packet_type == 5 {
            multitrack(&mut reader)?
        } else {
            (packet_type, Codec::from_fourcc(reader.array()?), 0)
        };
        let packet = match packet_type {
            0 => Packet::Sequence,
            2 => Packet::End,
            4 => Packet::Configuration,
            _ => Packet::Media,
        };
        Some(Head { codec: Some(codec), packet, key: false, track })
    }
}

fn classic_video(first: u8, reader: &mut ByteReader<'_>) -> Option<Head> {
    let frame_type = first >> 4;
    let codec = match first & 0x0f {
        7 => Codec::Avc,
        12 => Codec::Hevc,
        13 => Codec::Av1,
        2 => Codec::Other(*b"flv1"),
        3 | 6 => Codec::Other(*b"fsv1"),
        4 => Codec::Other(*b"vp6f"),
        5 => Codec::Other(*b"vp6a"),
        id => Codec::Other([b'v', b'i', b'd', b"0123456789abcdef".get(usize::from(id)).copied()?]),
    };
    let packet = match (frame_type, codec) {
        (5, _) => Packet::Command,
        (_, Codec::Avc | Codec::Hevc | Codec::Av1) => match reader.u8()? {
            0 => Packet::Sequence,
            2 => Packet::End,
            _ => Packet::Media,
        },
        _ => Packet::Media,
    };
    Some(Head { codec: Some(codec), packet, key: frame_type == 1, track: 0 })
}

fn classic_audio(first: u8, reader: &mut ByteReader<'_>) -> Option<Head> {
    let codec = match first >> 4 {
        10 => Codec::Aac,
        2 | 14 => Codec::Mp3,
        0 | 3 => Codec::Other(*b"lpcm"),
        1 => Codec::Other(*b"adpc"),
        4..=6 => Codec::Other(*b"nell"),
        7 => Codec::Other(*b"alaw"),
        8 => Codec::Other(*b"ulaw"),
        11 => Codec::Other(*b"spex"),
        id => Codec::Other([b'a', b'u', b'd', b"0123456789abcdef".get(usize::from(id)).copied()?]),
    };
    let sequence = codec == Codec::Aac && reader.u8()? == 0;
    let packet = if sequence { Packet::Sequence } else { Packet::Media };
    Some(Head { codec: Some(codec), packet, key: false, track: 0 })
}

/// The packet type behind any number of extensions (type 7).
fn after_mod_ex(mut packet_type: u8, reader: &mut ByteReader<'_>) -> Option<u8> {
    for _ in 0..=MOD_EX_MAX {
        if packet_type != 7 {
            return Some(packet_type);
        }
        let short = reader.u8()?;
        let size = if short == u8::MAX { reader.u16()? } else { u16::from(short) };
        reader.take(usize::from(size).saturating_add(1))?;
        packet_type = reader.u8()? & 0x0f;
    }
    None
}

/// Packet type, codec and slot of the first track of a multitrack packet.
fn multitrack(reader: &mut ByteReader<'_>) -> Option<(u8, Codec, u16)> {
    let byte = reader.u8()?;
    let codec = Codec::from_fourcc(reader.array()?);
    let track = reader.u8()?;
    let slot = u16::from_be_bytes([(byte >> 4).saturating_add(1), track]);
    Some((byte & 0x0f, codec, slot))
}
