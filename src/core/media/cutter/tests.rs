//! What the cutter promises, over made-up encoders.
//!
//! Owns the cutter's tests, apart from the striper's. Does not own the tags' bytes, which only
//! their first few matter of.

use proptest::prelude::*;

use super::*;
use crate::media::{
    fixtures::{chunk_signer, stream, tag},
    flv::TagReader,
    init::SignedInit,
    normalize::Normalizer,
};

const EPOCH: u64 = 42;

/// A cutter behind a normalizer, and what came out so far.
struct Source {
    normalizer: Normalizer,
    cutter: Cutter,
    cuts: Vec<Cut>,
}

impl Source {
    fn new(k: u8, rate: Bitrate) -> Self {
        Self::announcing(k, rate, Tracks::default())
    }

    fn announcing(k: u8, rate: Bitrate, tracks: Tracks) -> Self {
        let cutter = Cutter::new(EPOCH, k, rate, tracks);
        Self { normalizer: Normalizer::new(), cutter, cuts: Vec::new() }
    }

    fn push(&mut self, kind: TagKind, ms: u32, body: &[u8]) -> &mut Self {
        if let Some(media) = self.normalizer.push(tag(kind, ms, body)) {
            self.cutter.push(media);
        }
        self.drain()
    }

    fn drain(&mut self) -> &mut Self {
        self.cuts.extend(std::iter::from_fn(|| self.cutter.poll_output()));
        self
    }

    fn headers(&mut self) -> &mut Self {
        self.push(TagKind::Video, 0, b"\x17\x00\x00\x00\x00avcC");
        self.push(TagKind::Audio, 0, b"\xaf\x00\x11\x90")
    }

    fn key(&mut self, ms: u32, len: usize) -> &mut Self {
        self.push(TagKind::Video, ms, &[&b"\x17\x01\x00\x00\x00"[..], &vec![0x65; len]].concat())
    }

    fn frame(&mut self, ms: u32, len: usize) -> &mut Self {
        self.push(TagKind::Video, ms, &[&b"\x27\x01\x00\x00\x00"[..], &vec![0x41; len]].concat())
    }

    fn sound(&mut self, ms: u32) -> &mut Self {
        self.push(TagKind::Audio, ms, b"\xaf\x01 a frame of sound")
    }

    fn end(&mut self) -> &mut Self {
        self.cutter.end();
        self.drain()
    }

    fn chunks(&self) -> Vec<CutChunk> {
        self.cuts
            .iter()
            .filter_map(|cut| match cut {
                Cut::Chunk(chunk) => Some(chunk.clone()),
                Cut::Init(_) => None,
            })
            .collect()
    }

    fn inits(&self) -> Vec<InitSegment> {
        self.cuts
            .iter()
            .filter_map(|cut| match cut {
                Cut::Init(init) => Some(init.clone()),
                Cut::Chunk(_) => None,
            })
            .collect()
    }

    fn tee(&self) -> Vec<u8> {
        self.cuts.iter().filter_map(Cut::tee_bytes).flatten().copied().collect()
    }

    /// What a viewer writes that starts at chunk `at`.
    fn viewer_file(&self, at: usize) -> Vec<u8> {
        let chunks = self.chunks();
        let version = chunks[at].header.init_version;
        let inits = self.inits();
        let init = inits.iter().find(|init| init.version == version).unwrap();
        let payloads = chunks[at..].iter().flat_map(|chunk| &chunk.payload);
        init.payload.iter().chain(payloads).copied().collect()
    }
}

fn tags(file: &[u8]) -> Vec<Tag> {
    let mut reader = TagReader::default();
    reader.push(file);
    std::iter::from_fn(|| reader.next()).map(|tag| tag.expect("lawful FLV")).collect()
}

fn has(chunk: &CutChunk, flag: ChunkFlags) -> bool {
    chunk.header.flags.contains(flag)
}

/// Ten seconds of a usual encoder: 30 frames a second, a keyframe every two, AAC.
fn usual(k: u8) -> Source {
    let mut source = Source::new(k, Bitrate::from_kbps(2_500));
    source.headers();
    let (mut sound_at, mut at) = (0, 0);
    while at < 300 {
        let ms = at * 1_000 / 30;
        while sound_at * 1_024 / 48 <= ms {
            source.sound(sound_at * 1_024 / 48);
            sound_at += 1;
        }
        if at % 60 == 0 {
            source.key(ms, 60_000)
        } else {
            source.frame(ms, 6_000)
        };
        at += 1;
    }
    source.end();
    source
}

#[test]
fn all_payloads_in_order_are_the_tags_that_came_in() {
    let source = usual(8);
    let [header, body] = [&source.inits()[0].payload[..13], &source.tee()[13..]];
    assert_eq!(header, write_header(true, true));
    let file = [header, body].concat();
    assert_eq!(tags(&file).len(), 2 + 300 + 468);
    assert_eq!(source.inits().len(), 1);
    let rewritten = tags(&file).iter().fold(BytesMut::from(header), |mut out, tag| {
        tag.write(&mut out);
        out
    });
    assert_eq!(rewritten, file);
}

#[test]
fn a_viewer_that_starts_at_any_keyframe_writes_the_end_of_what_the_source_wrote() {
    let mut source = usual(4);
    let tee = source.tee();
    let starts: Vec<_> = source
        .chunks()
        .iter()
        .enumerate()
        .filter(|(_, chunk)| has(chunk, ChunkFlags::KEYFRAME))
        .map(|(at, _)| at)
        .collect();
    assert_eq!(starts.len(), 5);
    for at in starts {
        let init_len = source.inits()[0].payload.len();
        let file = source.viewer_file(at);
        assert!(tee.ends_with(&file[init_len..]), "from chunk {at}");
        let media: Vec<_> = tags(&file).into_iter().filter(|t| t.header_slot().is_none()).collect();
        assert!(media.iter().find(|t| t.kind == TagKind::Video).unwrap().is_keyframe());
    }
    source.end();
    assert_eq!(source.tee(), tee, "the end comes once");
}

#[test]
fn a_large_keyframe_becomes_chunks_of_about_one_size() {
    let mut source = Source::new(8, Bitrate::from_mbps(3));
    source.headers().sound(0).key(10, 300_000);
    let chunks = source.chunks();
    assert_eq!(chunks.len(), 65, "300,000 bytes and some in pieces of at most 4,687");
    let fragments = u16::try_from(chunks.len()).unwrap();
    for (at, chunk) in (0..).zip(&chunks) {
        let header = &chunk.header;
        assert_eq!((header.fragment, header.fragments), (at, fragments));
        assert_eq!(has(chunk, ChunkFlags::KEYFRAME), at == 0);
        assert_eq!(has(chunk, ChunkFlags::END_OF_FRAME), at + 1 == fragments);
        assert_eq!((header.seq, header.time_ms), (u64::from(at), 10));
        assert!((4_500..=4_687).contains(&chunk.payload.len()), "{}", chunk.payload.len());
    }
    let whole: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.payload.to_vec()).collect();
    let mut file = write_header(true, true).to_vec();
    file.extend(whole);
    assert_eq!(tags(&file).len(), 2, "the sound before the frame travels with it");
}

#[test]
fn the_largest_tag_fits_the_fragment_numbers() {
    let mut source = Source::new(16, Bitrate::from_kbps(64));
    source.headers().key(0, crate::media::flv::TAG_BYTES_MAX - 5);
    let chunks = source.chunks();
    assert!(chunks.iter().all(|chunk| chunk.payload.len() <= TARGET_BYTES_MIN));
    assert_eq!(chunks.last().unwrap().header.fragment + 1, chunks[0].header.fragments);
}

#[test]
fn stripes_are_numbered_without_holes_and_carry_alike() {
    for k in [1, 2, 4, 8, 16] {
        let source = usual(k);
        let (mut next, mut bytes) = (vec![0; usize::from(k)], vec![0; usize::from(k)]);
        let mut largest = 0;
        for (seq, chunk) in (0..).zip(source.chunks()) {
            let stripe = usize::from(chunk.header.stripe);
            assert_eq!(chunk.header.seq, seq);
            assert_eq!(chunk.header.stripe_seq, next[stripe], "k = {k}, stripe {stripe}");
            next[stripe] += 1;
            bytes[stripe] += chunk.payload.len() + CHUNK_OVERHEAD;
            largest = largest.max(chunk.payload.len() + CHUNK_OVERHEAD);
        }
        let spread = bytes.iter().max().unwrap() - bytes.iter().min().unwrap();
        assert!(spread <= largest, "k = {k}: {bytes:?}");
    }
}

#[test]
fn changed_headers_flow_in_band_once_under_a_new_version() {
    let mut source = Source::new(2, Bitrate::from_mbps(1));
    source.headers().key(0, 100).sound(10).frame(33, 100).sound(40);
    source.push(TagKind::Video, 66, b"\x17\x00\x00\x00\x00other avcC");
    source.push(TagKind::Audio, 66, b"\xaf\x00\x12\x10");
    source.key(66, 100).frame(100, 100).end();

    let inits = source.inits();
    assert_eq!(inits.iter().map(|init| init.version).collect::<Vec<_>>(), [1, 2]);
    let chunks = source.chunks();
    let changed: Vec<_> = chunks.iter().filter(|c| has(c, ChunkFlags::INIT)).collect();
    assert_eq!(changed.len(), 1, "two headers make one change");
    assert_eq!(changed[0].header.seq, inits[1].valid_from_seq);
    assert!(!has(changed[0], ChunkFlags::KEYFRAME));
    for chunk in &chunks {
        let version = if chunk.header.seq < inits[1].valid_from_seq { 1 } else { 2 };
        assert_eq!(chunk.header.init_version, version, "chunk {}", chunk.header.seq);
    }
    // In the source's cuts the segment comes before the first chunk that names it.
    let position = |wanted: &dyn Fn(&Cut) -> bool| source.cuts.iter().position(wanted).unwrap();
    let init_at = position(&|cut| matches!(cut, Cut::Init(init) if init.version == 2));
    let chunk_at = position(&|cut| matches!(cut, Cut::Chunk(c) if c.header.init_version == 2));
    assert!(init_at < chunk_at);

    // One who watches on gets the headers in band; one who joins at the next keyframe gets them
    // in the segment, at time 0; both decode the same from there.
    let joined = tags(&source.viewer_file(chunks.len() - 3));
    assert_eq!(joined[0].body, &b"\x17\x00\x00\x00\x00other avcC"[..]);
    assert!(joined[0].timestamp_ms == 0 && joined[1].timestamp_ms == 0 && joined[2].is_keyframe());
    let watched = tags(&source.tee());
    assert!(watched.ends_with(&joined[2..]));
    assert!(watched.contains(&tag(TagKind::Audio, 40, b"\xaf\x00\x12\x10")));
}

#[test]
fn an_encoder_that_restarts_with_the_same_headers_makes_no_new_version() {
    let mut source = Source::new(1, Bitrate::from_mbps(1));
    source.headers().key(50_000, 100).frame(50_033, 100).sound(50_040);
    source.headers().key(0, 100).frame(33, 100).end();
    assert_eq!(source.inits().len(), 1);
    let marked: Vec<_> =
        source.chunks().into_iter().filter(|c| has(c, ChunkFlags::DISCONTINUITY)).collect();
    assert_eq!(marked.len(), 1);
    assert!(has(&marked[0], ChunkFlags::KEYFRAME), "the new encoder's first keyframe");
    assert_eq!(tags(&source.viewer_file(0)).len(), 2 + 5);
}

#[test]
fn the_stream_begins_at_a_keyframe_with_the_sound_before_it() {
    let mut source = Source::new(1, Bitrate::from_mbps(1));
    source.headers().frame(0, 100).sound(5).frame(33, 100).sound(26).key(66, 100).end();
    let chunks = source.chunks();
    assert!(has(&chunks[0], ChunkFlags::KEYFRAME));
    let kinds: Vec<_> = tags(&source.tee()).iter().map(|tag| tag.kind).collect();
    use TagKind::{Audio, Video};
    assert_eq!(kinds, [Video, Audio, Audio, Audio, Video]);
    assert_eq!(source.cutter.stats().undecodable, 2);
}

#[test]
fn sound_alone_is_bundled_and_can_start_anywhere() {
    let mut source = Source::new(1, Bitrate::from_kbps(128));
    source.push(TagKind::Audio, 0, b"\xaf\x00\x11\x90");
    (0..100).for_each(|at| {
        source.sound(at * 1_024 / 48);
    });
    source.end();
    assert_eq!(source.inits()[0].payload[..13], write_header(true, false));
    let chunks = source.chunks();
    let (end, bundles) = chunks.split_last().unwrap();
    assert!(has(end, ChunkFlags::END) && end.payload.is_empty());
    assert!(
        bundles.iter().all(|chunk| has(chunk, ChunkFlags::KEYFRAME | ChunkFlags::END_OF_FRAME))
    );
    assert!((50..=51).contains(&bundles.len()), "two frames of 21 ms each: {}", bundles.len());
}

#[test]
fn a_picture_that_was_announced_and_never_comes_is_not_waited_for_long() {
    let mut source =
        Source::announcing(1, Bitrate::from_mbps(1), Tracks { audio: true, video: true });
    (0..90).for_each(|at| {
        source.sound(at * 21);
    });
    assert!(source.cuts.is_empty(), "below two seconds it may still come");
    (90..120).for_each(|at| {
        source.sound(at * 21);
    });
    assert_eq!(source.inits()[0].payload[..13], write_header(true, false));
    assert!(has(&source.chunks()[0], ChunkFlags::KEYFRAME));

    source.key(2_600, 100).end();
    assert_eq!(source.inits()[1].payload[..13], write_header(true, true), "it came after all");
    assert_eq!(source.inits()[1].version, 2);
    assert_eq!(tags(&source.tee()).len(), 120 + 1, "and no sound was lost");
}

#[test]
fn sound_does_not_wait_long_for_a_slow_picture() {
    let mut source = Source::new(1, Bitrate::from_mbps(1));
    source.headers().key(0, 100);
    let before = source.chunks().len();
    (0..24).for_each(|at| {
        source.sound(at * 21);
    });
    let sounds = &source.chunks()[before..];
    assert!(sounds.len() >= 7, "half a second in pieces of at most 80 ms: {}", sounds.len());
    assert!(sounds.iter().all(|chunk| !has(chunk, ChunkFlags::KEYFRAME)));
}

#[test]
fn when_the_camera_is_off_viewers_may_start_at_the_sound() {
    let mut source = Source::new(1, Bitrate::from_mbps(1));
    source.headers().key(0, 100);
    (0..400).for_each(|at| {
        source.sound(at * 21);
    });
    let key = |chunk: &CutChunk| has(chunk, ChunkFlags::KEYFRAME);
    let first = source.chunks().into_iter().skip(1).find(key).expect("a start");
    assert!((5_000..5_100).contains(&first.header.time_ms), "{}", first.header.time_ms);
}

#[test]
fn a_pause_is_said_and_what_waits_is_cut_first() {
    let mut source = Source::new(1, Bitrate::from_mbps(1));
    source.headers().key(0, 100).sound(10);
    source.cutter.pause();
    source.drain().frame(5_000, 100).end();
    let chunks = source.chunks();
    let pause = chunks.iter().position(|c| has(c, ChunkFlags::PAUSE)).unwrap();
    assert!(chunks[pause].payload.is_empty());
    assert!(!chunks[pause - 1].payload.is_empty(), "the sound that waited");
    assert!(chunks[pause + 1].payload.len() > 100 && !has(&chunks[pause + 1], ChunkFlags::PAUSE));
    assert!(has(chunks.last().unwrap(), ChunkFlags::END));
    let before = source.cuts.len();
    source.frame(6_000, 100);
    assert_eq!(source.cuts.len(), before, "nothing after the end");
}

#[test]
fn a_stream_that_ends_before_it_began_still_has_a_segment_and_an_end() {
    let mut source = Source::new(4, Bitrate::from_mbps(1));
    source.end();
    assert_eq!(source.inits().len(), 1);
    assert_eq!(source.chunks().len(), 1);
    assert!(has(&source.chunks()[0], ChunkFlags::END));
}

#[test]
fn headers_that_would_not_fit_a_segment_are_refused_and_counted() {
    let mut source = Source::new(1, Bitrate::from_mbps(1));
    for track in 0..6 {
        let body = [&b"\x96\x00avc1"[..], &[track], &vec![track; 15_000]].concat();
        source.push(TagKind::Video, 0, &body);
    }
    source.key(0, 10).end();
    assert_eq!(source.cutter.stats().refused_headers, 2);
    let init = source.inits().remove(0);
    assert!(SignedInit::seal(&stream(), init, &chunk_signer()).is_ok());
}

#[derive(Clone, Debug)]
enum Act {
    Key(usize),
    Frame(usize),
    Sound(usize),
    Header(u8),
    SoundHeader(u8),
    Restart,
    Wait(u32),
    Pause,
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        1 => (1_usize..40_000).prop_map(Act::Key),
        4 => (1_usize..6_000).prop_map(Act::Frame),
        6 => (1_usize..500).prop_map(Act::Sound),
        1 => (0..3_u8).prop_map(Act::Header),
        1 => (0..3_u8).prop_map(Act::SoundHeader),
        1 => Just(Act::Restart),
        8 => (0_u32..60).prop_map(Act::Wait),
        1 => Just(Act::Pause),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn whatever_an_encoder_does_every_viewer_writes_the_same_bytes(
        acts in prop::collection::vec(any_act(), 1..120),
        stripes in 0_u32..5,
    ) {
        let mut source = Source::new(1 << stripes, Bitrate::from_kbps(800));
        let mut ms = 7_000;
        for act in acts {
            match act {
                Act::Key(len) => { source.key(ms, len); }
                Act::Frame(len) => { source.frame(ms, len); }
                Act::Sound(len) => {
                    source.push(TagKind::Audio, ms, &[&b"\xaf\x01"[..], &vec![1; len]].concat());
                }
                Act::Header(kind) => {
                    source.push(TagKind::Video, ms, &[0x17, 0, 0, 0, 0, kind]);
                }
                Act::SoundHeader(kind) => { source.push(TagKind::Audio, ms, &[0xaf, 0, kind]); }
                Act::Restart => { source.normalizer.restart(); ms = 0; }
                Act::Wait(more) => ms += more,
                Act::Pause => { source.cutter.pause(); source.drain(); }
            }
        }
        source.end();
        let (tee, chunks) = (source.tee(), source.chunks());
        prop_assert!(tags(&tee).len() < 400);
        let (mut version, mut next) = (0, 0);
        for cut in &source.cuts {
            match cut {
                Cut::Init(init) => {
                    prop_assert_eq!((init.version, init.valid_from_seq), (version + 1, next));
                    version += 1;
                }
                Cut::Chunk(chunk) => {
                    prop_assert_eq!((chunk.header.init_version, chunk.header.seq), (version, next));
                    next += 1;
                }
            }
        }
        for (at, chunk) in chunks.iter().enumerate() {
            if has(chunk, ChunkFlags::KEYFRAME) {
                let file = source.viewer_file(at);
                let inits = source.inits();
                let init = &inits[usize::from(chunk.header.init_version) - 1];
                prop_assert!(tee.ends_with(&file[init.payload.len()..]));
                tags(&file);
            }
        }
    }
}
