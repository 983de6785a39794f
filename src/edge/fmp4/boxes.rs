//! The boxes of an initialization segment and of a fragment.
//!
//! Owns which boxes there are and what stands in them, by `mp4_atom`. Does not own samples' times.

use bytes::Bytes;
use mp4_atom::{
    Audio, Av01, Avc1, Codec, Dinf, Dops, Dref, Encode, FourCC, Ftyp, Hdlr, Hvc1, Mdhd, Mdia, Mfhd,
    Minf, Moof, Moov, Mp4a, Mvex, Mvhd, Opus, Smhd, Stbl, Stco, Stsd, Tfdt, Tfhd, Tkhd, Traf, Trak,
    Trex, Trun, TrunEntry, Url, Visual, Vmhd, Vp09,
    esds::{DecoderConfig, DecoderSpecific, EsDescriptor, Esds, SLConfig},
};

use super::packet::{AudioConfig, VideoConfig};

/// Ticks a second of the picture's track.
pub(super) const VIDEO_SCALE: u32 = 90_000;
const VIDEO_TRACK: u32 = 1;
const AUDIO_TRACK: u32 = 2;
/// Sample flags (ISO/IEC 14496-12, 8.8.3.1): depends on no other; depends on others and is no
/// place to start at.
const SYNC: u32 = 0x0200_0000;
const NO_SYNC: u32 = 0x0101_0000;
/// MPEG-4's numbers for AAC and for an audio stream (ISO/IEC 14496-1, tables 5 and 6).
const AAC_OBJECT: u8 = 0x40;
const AUDIO_STREAM: u8 = 0x05;

/// One sample, ready for a run.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) duration: u32,
    pub(super) cts: i32,
    pub(super) key: bool,
    pub(super) data: Bytes,
}

/// The samples of one track in a fragment.
#[derive(Clone, Debug, Default)]
pub(super) struct Run {
    /// Decoding time of the first.
    pub(super) start: u64,
    pub(super) samples: Vec<Sample>,
}

/// What an initialization segment is made of.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Layout {
    pub(super) video: Option<VideoConfig>,
    pub(super) audio: Option<AudioConfig>,
    pub(super) size: (u16, u16),
}

/// The initialization segment.
pub(super) fn init(layout: &Layout) -> Option<Bytes> {
    let ftyp = Ftyp {
        major_brand: FourCC::new(b"iso6"),
        minor_version: 0,
        compatible_brands: [b"iso6", b"cmfc", b"mp41"].map(FourCC::new).into(),
    };
    let mut trak = Vec::new();
    if let Some(config) = &layout.video {
        trak.push(video_track(config, layout.size));
    }
    if let Some(config) = &layout.audio {
        trak.push(audio_track(config));
    }
    let trex = trak.iter().map(|trak| Trex {
        track_id: trak.tkhd.track_id,
        default_sample_description_index: 1,
        ..Trex::default()
    });
    let moov = Moov {
        mvhd: Mvhd {
            timescale: 1_000,
            rate: 1.into(),
            volume: 1.into(),
            next_track_id: AUDIO_TRACK + 1,
            ..Mvhd::default()
        },
        mvex: Some(Mvex { mehd: None, trex: trex.collect() }),
        trak,
        ..Moov::default()
    };
    let mut bytes = Vec::new();
    ftyp.encode(&mut bytes).ok()?;
    moov.encode(&mut bytes).ok()?;
    Some(bytes.into())
}

fn track(id: u32, scale: u32, handler: &[u8; 4], minf: Minf) -> Trak {
    Trak {
        tkhd: Tkhd { track_id: id, enabled: true, in_movie: true, ..Tkhd::default() },
        mdia: Mdia {
            mdhd: Mdhd { timescale: scale, language: "und".into(), ..Mdhd::default() },
            hdlr: Hdlr { handler: FourCC::new(handler), name: "astral".into() },
            minf,
        },
        ..Trak::default()
    }
}

fn samples(codec: Codec) -> (Dinf, Stbl) {
    let here = Url { location: String::new() };
    let dinf = Dinf { dref: Dref { entries: vec![mp4_atom::DrefEntry::Url(here)] } };
    let stsd = Stsd { codecs: vec![codec] };
    (dinf, Stbl { stsd, stco: Some(Stco::default()), ..Stbl::default() })
}

fn video_track(config: &VideoConfig, (width, height): (u16, u16)) -> Trak {
    let visual = Visual { data_reference_index: 1, width, height, ..Visual::default() };
    let codec = match config.clone() {
        VideoConfig::Avc(avcc) => Codec::Avc1(Avc1 { visual, avcc, ..Avc1::default() }),
        VideoConfig::Hevc(hvcc) => Codec::Hvc1(Hvc1 { visual, hvcc, ..Hvc1::default() }),
        VideoConfig::Av1(av1c) => Codec::Av01(Av01 { visual, av1c, ..Av01::default() }),
        VideoConfig::Vp9(vpcc) => Codec::Vp09(Vp09 { visual, vpcc, ..Vp09::default() }),
    };
    let (dinf, stbl) = samples(codec);
    let minf = Minf { vmhd: Some(Vmhd::default()), dinf, stbl, ..Minf::default() };
    let mut trak = track(VIDEO_TRACK, VIDEO_SCALE, b"vide", minf);
    (trak.tkhd.width, trak.tkhd.height) = (width.into(), height.into());
    trak
}

fn audio_track(config: &AudioConfig) -> Trak {
    let audio = |channel_count, rate: u32| Audio {
        data_reference_index: 1,
        channel_count,
        sample_size: 16,
        // 16 bits hold no more; decoders read the rate elsewhere.
        sample_rate: u16::try_from(rate).unwrap_or(0).into(),
    };
    let codec = match config {
        AudioConfig::Aac { config: asc, rate, channels } => {
            let raw = asc.to_vec();
            let dec_specific =
                Some(DecoderSpecific { raw, profile: 2, freq_index: 3, chan_conf: 2 });
            let es_desc = EsDescriptor {
                es_id: 1,
                dec_config: DecoderConfig {
                    object_type_indication: AAC_OBJECT,
                    stream_type: AUDIO_STREAM,
                    dec_specific,
                    ..DecoderConfig::default()
                },
                sl_config: SLConfig::default(),
                ..EsDescriptor::default()
            };
            let (audio, esds) = (audio(*channels, *rate), Esds { es_desc });
            Codec::Mp4a(Mp4a { audio, esds, btrt: None, taic: None })
        }
        AudioConfig::Opus { channels, pre_skip } => Codec::Opus(Opus {
            audio: audio((*channels).into(), config.rate()),
            dops: Dops {
                output_channel_count: *channels,
                pre_skip: *pre_skip,
                input_sample_rate: config.rate(),
                output_gain: 0,
                channel_mapping: None,
            },
            btrt: None,
        }),
    };
    let (dinf, stbl) = samples(codec);
    let minf = Minf { smhd: Some(Smhd::default()), dinf, stbl, ..Minf::default() };
    let mut trak = track(AUDIO_TRACK, config.rate(), b"soun", minf);
    trak.tkhd.volume = 1.into();
    trak
}

/// A fragment: `moof` and `mdat` of both runs.
pub(super) fn fragment(number: u32, video: &Run, audio: &Run) -> Option<Bytes> {
    let runs = [(VIDEO_TRACK, video), (AUDIO_TRACK, audio)];
    let runs = runs.into_iter().filter(|(_, run)| !run.samples.is_empty());
    let runs: Vec<_> = runs.collect();
    let moof = |first_offset: usize| {
        let mut offset = first_offset;
        let traf = runs.iter().map(|(track, run)| {
            let at = offset;
            offset += run.samples.iter().map(|sample| sample.data.len()).sum::<usize>();
            part(*track, run, i32::try_from(at).unwrap_or(0))
        });
        Moof { traf: traf.collect(), mfhd: Mfhd { sequence_number: number } }
    };
    let mut bytes = Vec::new();
    moof(0).encode(&mut bytes).ok()?;
    // The data begin behind this box and the header of the next.
    let data_at = bytes.len() + MDAT_HEADER_BYTES;
    bytes.clear();
    moof(data_at).encode(&mut bytes).ok()?;
    let data = || runs.iter().flat_map(|(_, run)| &run.samples).map(|sample| &sample.data);
    let len = data().map(Bytes::len).sum::<usize>() + MDAT_HEADER_BYTES;
    bytes.reserve(len);
    bytes.extend_from_slice(&u32::try_from(len).ok()?.to_be_bytes());
    bytes.extend_from_slice(b"mdat");
    data().for_each(|piece| bytes.extend_from_slice(piece));
    Some(bytes.into())
}

const MDAT_HEADER_BYTES: usize = 8;

fn part(track: u32, run: &Run, data_offset: i32) -> Traf {
    let entries = run.samples.iter().map(|sample| TrunEntry {
        duration: Some(sample.duration),
        size: Some(u32::try_from(sample.data.len()).unwrap_or(0)),
        flags: Some(if sample.key { SYNC } else { NO_SYNC }),
        cts: Some(sample.cts.into()),
    });
    Traf {
        tfhd: Tfhd { track_id: track, default_base_is_moof: true, ..Tfhd::default() },
        tfdt: Some(Tfdt { base_media_decode_time: run.start }),
        trun: vec![Trun {
            data_offset: Some(data_offset),
            samples: entries.collect::<Vec<_>>().into(),
        }],
        ..Traf::default()
    }
}
