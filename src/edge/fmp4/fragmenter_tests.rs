//! Fragments read back by the crate's own decoder, and by nobody: garbage.

use mp4_atom::{Any, Decode as _, Moof, TrunEntry};

use super::*;
use crate::edge::fmp4::fuzz;

const AVC: &[u8] =
    b"\x17\x00\0\0\0\x01\x42\xc0\x1e\xff\xe1\x00\x04\x67\x42\xc0\x1e\x01\x00\x02\x68\xce";
const AAC: &[u8] = b"\xaf\x00\x11\x90";

fn tag(kind: TagKind, timestamp_ms: u32, body: &[u8]) -> Tag {
    Tag { kind, timestamp_ms, body: Bytes::copy_from_slice(body) }
}

fn frame(time: u32, key: bool) -> Tag {
    let first = if key { 0x17 } else { 0x27 };
    tag(TagKind::Video, time, &[first, 1, 0, 0, 0, 0, 0, 0, 1, 0x65])
}

fn sound(time: u32) -> Tag {
    tag(TagKind::Audio, time, b"\xaf\x01sound")
}

/// Headers, then `seconds` of 25 pictures and 48,000 samples a second from `from_ms` on.
fn stream(from_ms: u32, seconds: u32) -> Vec<Tag> {
    let mut tags = vec![tag(TagKind::Video, from_ms, AVC), tag(TagKind::Audio, from_ms, AAC)];
    let mut media: Vec<Tag> =
        (0..seconds * 25).map(|n| frame(from_ms + n * 40, n % 50 == 0)).collect();
    media.extend((0..seconds * 1_000 * 48 / 1_024).map(|n| sound(from_ms + n * 1_024 / 48)));
    media.sort_by_key(|tag| (tag.timestamp_ms, tag.kind == TagKind::Audio));
    tags.extend(media);
    tags
}

fn cut(tags: &[Tag]) -> (Vec<Bytes>, Vec<Fragment>) {
    let mut fragmenter = Fragmenter::default();
    let mut outputs: Vec<Output> = tags.iter().flat_map(|tag| fragmenter.push(tag)).collect();
    outputs.extend(fragmenter.finish());
    let (mut inits, mut fragments) = (Vec::new(), Vec::new());
    for output in outputs {
        match output {
            Output::Init(bytes) => inits.push(bytes),
            Output::Fragment(fragment) => fragments.push(fragment),
        }
    }
    (inits, fragments)
}

/// Track, first decoding time and entries of each run; checks that the data are where they say.
fn runs(fragment: &Fragment) -> Vec<(u32, u64, Vec<TrunEntry>)> {
    let moof = Moof::decode(&mut &fragment.bytes[..]).unwrap();
    let moof_len = u32::from_be_bytes(*fragment.bytes.first_chunk::<4>().unwrap()) as usize;
    let mut data_at = moof_len + 8;
    let runs = moof.traf.iter().map(|traf| {
        let run = &traf.trun[0];
        assert_eq!(run.data_offset, Some(i32::try_from(data_at).unwrap()));
        let entries: Vec<TrunEntry> = run.samples.iter().collect();
        data_at += entries.iter().map(|entry| entry.size.unwrap() as usize).sum::<usize>();
        (traf.tfhd.track_id, traf.tfdt.as_ref().unwrap().base_media_decode_time, entries)
    });
    let runs = runs.collect();
    assert_eq!(data_at, fragment.bytes.len());
    runs
}

#[test]
fn every_picture_and_every_sound_is_in_a_fragment_once_and_time_has_no_holes() {
    let (inits, fragments) = cut(&stream(1_000, 10));
    assert_eq!(inits.len(), 1);
    let (mut pictures, mut sounds) = (0, 0);
    let mut next = [None; 3];
    for fragment in &fragments {
        assert!(fragment.duration_ms <= Fragmenter::FRAGMENT_MS, "{}", fragment.duration_ms);
        for (track, start, entries) in runs(fragment) {
            if let Some(next) = next[track as usize] {
                assert_eq!(start, next, "track {track}");
            }
            let span: u64 = entries.iter().map(|entry| u64::from(entry.duration.unwrap())).sum();
            next[track as usize] = Some(start + span);
            *(if track == 1 { &mut pictures } else { &mut sounds }) += entries.len();
        }
    }
    assert_eq!((pictures, sounds), (250, 468));
    let independent = fragments.iter().filter(|fragment| fragment.independent).count();
    assert_eq!(independent, 5, "as many as keyframes");
    assert_eq!(fragments.iter().map(|fragment| fragment.duration_ms).sum::<u64>(), 10_000);
}

#[test]
fn the_initialization_segment_has_the_codecs_and_the_size_that_the_metadata_say() {
    let mut metadata = b"\x02\x00\x0aonMetaData\x08\x00\x00\x00\x02\x00\x05width\x00".to_vec();
    metadata.extend(640_f64.to_be_bytes());
    metadata.extend(b"\x00\x06height\x00");
    metadata.extend(360_f64.to_be_bytes());
    metadata.extend([0, 0, 9]);
    let mut tags = vec![tag(TagKind::Script, 0, &metadata)];
    tags.extend(stream(0, 1));
    let (inits, _) = cut(&tags);
    let mut rest = &inits[0][..];
    let mut boxes = Vec::new();
    while !rest.is_empty() {
        boxes.push(Any::decode(&mut rest).unwrap());
    }
    let [Any::Ftyp(_), Any::Moov(moov)] = &boxes[..] else { panic!("{boxes:?}") };
    let [video, audio] = &moov.trak[..] else { panic!("{} tracks", moov.trak.len()) };
    assert_eq!((video.tkhd.width.integer(), video.tkhd.height.integer()), (640, 360));
    assert!(matches!(video.mdia.minf.stbl.stsd.codecs[..], [mp4_atom::Codec::Avc1(_)]));
    assert!(matches!(audio.mdia.minf.stbl.stsd.codecs[..], [mp4_atom::Codec::Mp4a(_)]));
    assert_eq!(audio.mdia.mdhd.timescale, 48_000);
}

#[test]
fn new_headers_begin_a_new_initialization_segment_at_their_keyframe() {
    let mut tags = stream(0, 4);
    let other = AVC.iter().map(|byte| if *byte == 0x1e { 0x1f } else { *byte });
    tags.push(tag(TagKind::Video, 4_000, &other.collect::<Vec<_>>()));
    tags.extend((0..50).map(|n| frame(4_000 + n * 40, n == 0)));
    let (inits, fragments) = cut(&tags);
    assert_eq!(inits.len(), 2);
    assert_eq!(fragments.iter().map(|f| f.duration_ms).sum::<u64>(), 6_000);
    // Repeated headers change nothing.
    let mut tags = stream(0, 4);
    tags.extend(stream(4_000, 4));
    assert_eq!(cut(&tags).0.len(), 1);
}

#[test]
fn sound_alone_is_cut_as_well_and_what_precedes_the_first_keyframe_is_left_out() {
    let tags: Vec<Tag> =
        stream(0, 4).into_iter().filter(|tag| tag.kind == TagKind::Audio).collect();
    let (inits, fragments) = cut(&tags);
    assert_eq!(inits.len(), 1);
    assert!(fragments.len() >= 8 && fragments.iter().all(|f| f.independent));
    let late: Vec<Tag> = stream(0, 4)
        .into_iter()
        .filter(|tag| tag.timestamp_ms != 0 || tag.is_sequence_header())
        .collect();
    let (_, fragments) = cut(&late);
    assert_eq!(fragments[0].start_ms, 2_000);
}

#[test]
fn a_gap_is_a_gap_and_sound_is_put_where_its_tags_say_again() {
    let mut tags = stream(0, 2);
    tags.extend(stream(9_000, 2).split_off(2));
    let (_, fragments) = cut(&tags);
    let starts: Vec<u64> = fragments.iter().map(|fragment| fragment.start_ms).collect();
    assert!(starts.contains(&9_000), "{starts:?}");
    let sounds: Vec<u64> =
        fragments.iter().flat_map(runs).filter(|run| run.0 == 2).map(|run| run.1).collect();
    assert!(sounds.contains(&(9_000 * 48)), "{sounds:?}");
}

#[test]
fn codecs_that_mp4_can_t_carry_are_left_out() {
    let tags = [tag(TagKind::Video, 0, b"\x12\x00sorenson"), tag(TagKind::Audio, 0, b"\x2fmp3")];
    assert_eq!(cut(&tags), (Vec::new(), Vec::new()));
}

/// Ten thousand mutations of headers and frames, by a seeded generator.
#[test]
fn no_made_up_configuration_panics() {
    let bodies: [&[u8]; 8] = [
        AVC,
        AAC,
        b"\x90hvc1\x01\x01\x60\0\0\0\x90\0\0\0\0\0\x5d\xf0\0\xfc\xfd\xf8\xf8\0\0\x0f\x01\xa0\0\x01\0\x02\x40\x01",
        b"\x90av01\x81\x04\x0c\0",
        b"\x90vp09\x01\0\0\0\0\x1e\x82\x01\x01\x01\0\0",
        b"\x90OpusOpusHead\x01\x02\x38\x01\x80\xbb\0\0\0\0\0",
        b"\x17\x01\0\0\0key",
        b"\x91Opus\xfcsound",
    ];
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut draw = |below: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    for _ in 0..10_000 {
        let mut data = Vec::new();
        for _ in 0..1 + draw(8) {
            let body = bodies[draw(bodies.len())];
            let kind = usize::from(matches!(body[0], 0xaf) || body[1..].starts_with(b"Opus"));
            data.extend([kind, draw(256), body.len()].map(|n| u8::try_from(n).unwrap()));
            data.extend(body);
        }
        for _ in 0..draw(5) {
            let at = draw(data.len());
            data[at] = u8::try_from(draw(256)).unwrap();
        }
        fuzz(&data);
    }
}
