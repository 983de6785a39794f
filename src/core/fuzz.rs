//! Fuzz targets as plain functions, and a mutator, so that `cargo test` runs them on stable Rust.
//!
//! Owns one function for each parser that reads a stranger's bytes. Each must return for every
//! input, and asserts what holds whenever the input decodes: encoding it and decoding that again
//! gives the same value. Does not own a corpus: the tests use the golden fixtures. Any coverage
//! guided fuzzer can call the same functions.
//!
//! To add a target: write `pub fn name(data: &[u8])` here and one line in the tests below.

use bytes::{Bytes, BytesMut};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use crate::{
    media::{
        cert::SignedCert,
        chunk::{CHUNK_OVERHEAD, ChunkHeader, Payload, WireChunk},
        cutter::{Cut, Cutter},
        flv::{FlvLimits, Tag, TagReader, Tracks, write_header},
        frame::{
            DownFrame, FRAME_HEADER_LEN, FrameKind, FrameReader, FrameSide, Hello, HelloAck,
            RawFrame, UpFrame,
        },
        init::SignedInit,
        normalize::Normalizer,
        repair::{RepairAnswer, RepairWant},
    },
    units::Bitrate,
};

/// Longest input that the mutator makes, in bytes.
pub const MUTANT_BYTES_MAX: usize = 256 * 1_024;

/// FLV from an encoder: reading in pieces gives the tags that reading at once gives, they survive
/// being written, and what is cut from them is the same byte stream in lawful chunks.
pub fn flv(data: &[u8]) {
    let limits = FlvLimits { tag_bytes_max: MUTANT_BYTES_MAX };
    let tags = read_tags(limits, data.chunks(data.len().max(1)));
    let step = data.first().map_or(1, |byte| usize::from(*byte % 31) + 1);
    assert_eq!(tags, read_tags(limits, data.chunks(step)), "pieces change what is read");

    let mut file = BytesMut::from(&write_header(true, true)[..]);
    for tag in &tags {
        let _ = (tag.is_keyframe(), tag.video_codec(), tag.audio_codec());
        tag.write(&mut file);
    }
    assert_eq!(tags, read_tags(limits, [&file[..]].into_iter()), "writing changes tags");

    let k = 1 << (data.len() % 5);
    let mut normalizer = Normalizer::new();
    let mut cutter = Cutter::new(7, k, Bitrate::from_kbps(500), Tracks::default());
    tags.into_iter().filter_map(|tag| normalizer.push(tag)).for_each(|media| cutter.push(media));
    cutter.end();
    check_cuts(&mut cutter);
}

fn read_tags<'a>(limits: FlvLimits, pieces: impl Iterator<Item = &'a [u8]>) -> Vec<Tag> {
    let mut reader = TagReader::new(limits);
    let mut tags = Vec::new();
    for piece in pieces {
        reader.push(piece);
        while let Some(Ok(tag)) = reader.next() {
            tags.push(tag);
        }
    }
    tags
}

/// Every chunk has a lawful header, numbers have no holes, and the tee is readable FLV.
fn check_cuts(cutter: &mut Cutter) {
    let (mut tee, mut seq, mut version, mut time_ms) = (BytesMut::new(), 0, 0, 0);
    while let Some(cut) = cutter.poll_output() {
        tee.extend_from_slice(cut.tee_bytes().unwrap_or(&Bytes::new()));
        match cut {
            Cut::Init(init) => {
                assert_eq!((init.version, init.valid_from_seq), (version + 1, seq));
                version = init.version;
            }
            Cut::Chunk(chunk) => {
                let mut wire = [0; ChunkHeader::WIRE_LEN];
                chunk.header.encode(&mut wire);
                assert_eq!(ChunkHeader::decode(&wire), Ok(chunk.header));
                assert_eq!((chunk.header.seq, chunk.header.init_version), (seq, version));
                assert_eq!(usize::from(chunk.header.payload_len), chunk.payload.len());
                assert!(chunk.header.time_ms >= time_ms, "time falls");
                (seq, time_ms) = (seq + 1, chunk.header.time_ms);
            }
        }
    }
    let mut reader = TagReader::new(FlvLimits::default());
    reader.push(&tee);
    while let Some(tag) = reader.next() {
        assert!(tag.is_ok(), "the tee is no FLV: {tag:?}");
    }
}

/// A CHUNK frame.
pub fn chunk(data: &[u8]) {
    let Ok(chunk) = WireChunk::parse(Bytes::copy_from_slice(data)) else { return };
    assert_eq!(chunk.wire_len(), CHUNK_OVERHEAD + chunk.payload().len());
    let mut head = [0; ChunkHeader::WIRE_LEN];
    chunk.header().encode(&mut head);
    assert_eq!(head, data[FRAME_HEADER_LEN..][..ChunkHeader::WIRE_LEN]);
    assert_eq!(WireChunk::parse(chunk.frame().clone()), Ok(chunk));
}

/// Frames from a parent.
pub fn frame_down(data: &[u8]) {
    for raw in read_frames(FrameSide::Down, data) {
        let Ok(frame) = DownFrame::decode(&raw) else { continue };
        let mut wire = BytesMut::new();
        frame.encode(&mut wire);
        assert_eq!(wire.len(), frame.wire_len());
        let again = read_frames(FrameSide::Down, &wire);
        assert_eq!(again.iter().map(DownFrame::decode).collect::<Vec<_>>(), [Ok(frame)]);
    }
}

/// Frames from a child.
pub fn frame_up(data: &[u8]) {
    for raw in read_frames(FrameSide::Up, data) {
        let Ok(frame) = UpFrame::decode(&raw) else { continue };
        let mut wire = BytesMut::new();
        frame.encode(&mut wire);
        assert_eq!(wire.len(), frame.wire_len());
        let again = read_frames(FrameSide::Up, &wire);
        assert_eq!(again.iter().map(UpFrame::decode).collect::<Vec<_>>(), [Ok(frame)]);
    }
}

/// The first frames of a feed, HELLO and HELLO_ACK.
pub fn hello(data: &[u8]) {
    for raw in read_frames(FrameSide::Down, data) {
        let mut wire = BytesMut::new();
        match raw.kind() {
            FrameKind::Hello => {
                let Ok(frame) = Hello::decode(&raw) else { continue };
                frame.encode(&mut wire);
                let again = read_frames(FrameSide::Up, &wire);
                assert_eq!(again.iter().map(Hello::decode).collect::<Vec<_>>(), [Ok(frame)]);
            }
            FrameKind::HelloAck => {
                let Ok(frame) = HelloAck::decode(&raw) else { continue };
                frame.encode(&mut wire);
                let again = read_frames(FrameSide::Up, &wire);
                assert_eq!(again.iter().map(HelloAck::decode).collect::<Vec<_>>(), [Ok(frame)]);
            }
            _ => {}
        }
    }
}

/// Both messages of the repair protocol.
pub fn repair(data: &[u8]) {
    if let Ok(want) = RepairWant::decode(data) {
        assert_eq!(want.encode().len(), want.wire_len());
        assert_eq!(RepairWant::decode(&want.encode()), Ok(want));
    }
    if let Ok(answer) = RepairAnswer::decode(&Bytes::copy_from_slice(data)) {
        assert_eq!(answer.encode().len(), answer.wire_len());
        assert_eq!(RepairAnswer::decode(&answer.encode()), Ok(answer));
    }
}

/// A certificate and an init segment, both on their own.
pub fn cert(data: &[u8]) {
    if let Ok(cert) = SignedCert::decode(data) {
        let mut wire = BytesMut::new();
        cert.encode(&mut wire);
        assert_eq!(wire, data);
        assert_eq!(cert.wire_len(), data.len());
        // Hostile keys and signatures must be safe to check, too.
        let _ = cert.verify(&cert.cert.stream());
    }
    if let Ok(init) = SignedInit::decode(data) {
        let mut wire = BytesMut::new();
        init.encode(&mut wire);
        assert_eq!(wire, data);
        assert_eq!(init.wire_len(), data.len());
    }
}

/// All frames in `data`, which must not depend on the pieces that it comes in.
fn read_frames(side: FrameSide, data: &[u8]) -> Vec<RawFrame> {
    let read = |piece_len: usize| {
        let mut reader = FrameReader::new(side);
        let mut frames = Vec::new();
        for piece in data.chunks(piece_len) {
            reader.push(piece);
            while let Some(Ok(frame)) = reader.next() {
                frames.push(frame);
            }
        }
        frames
    };
    let frames = read(data.len().max(1));
    let piece_len = data.last().map_or(1, |byte| usize::from(*byte % 61) + 1);
    assert_eq!(frames, read(piece_len), "pieces change what is read");
    frames
}

/// `n` mutants of the corpus, the same ones for the same seed. The corpus itself comes first.
pub fn mutate(corpus: &[Vec<u8>], n: u64, seed: u64) -> impl Iterator<Item = Vec<u8>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mutants = (0..n).map(move |_| {
        let mut bytes = pick(&mut rng, corpus).cloned().unwrap_or_default();
        for _ in 0..=below(&mut rng, 4) {
            mutate_once(&mut bytes, corpus, &mut rng);
            bytes.truncate(MUTANT_BYTES_MAX);
        }
        bytes
    });
    corpus.iter().cloned().chain(mutants)
}

fn mutate_once(bytes: &mut Vec<u8>, corpus: &[Vec<u8>], rng: &mut ChaCha8Rng) {
    const TELLING: [u8; 8] = [0, 1, 0x7f, 0x80, 0xfe, 0xff, 0x10, 0x46];
    let at = below(rng, bytes.len());
    match below(rng, 8) {
        0 => flip(bytes, at, 1 << below(rng, 8)),
        1 => set(bytes, at, TELLING[below(rng, TELLING.len())]),
        2 => set(bytes, at, u8::try_from(below(rng, 256)).unwrap_or(0)),
        3 => bytes.truncate(at),
        4 => {
            // A length or a counter, made huge or one off.
            let delta = [1, u8::MAX, 0x80][below(rng, 3)];
            let byte = bytes.get(at).copied().unwrap_or(0).wrapping_add(delta);
            set(bytes, at, byte);
        }
        5 => {
            let copy = slice(bytes, rng);
            bytes.splice(at..at, copy);
        }
        6 => {
            let other = pick(rng, corpus).map(|other| slice(other, rng)).unwrap_or_default();
            bytes.splice(at..at, other);
        }
        _ => {
            let end = at + below(rng, (bytes.len() - at).min(64));
            bytes.drain(at..end);
        }
    }
}

fn slice(bytes: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let from = below(rng, bytes.len());
    let len = below(rng, (bytes.len() - from).min(2_048));
    bytes[from..from + len].to_vec()
}

fn flip(bytes: &mut [u8], at: usize, bit: u8) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= bit;
    }
}

fn set(bytes: &mut [u8], at: usize, value: u8) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte = value;
    }
}

fn pick<'a, T>(rng: &mut ChaCha8Rng, list: &'a [T]) -> Option<&'a T> {
    list.get(below(rng, list.len()))
}

/// Evenly below `limit`; 0 for 0.
fn below(rng: &mut ChaCha8Rng, limit: usize) -> usize {
    let limit = u64::try_from(limit).unwrap_or(u64::MAX);
    usize::try_from(rng.next_u64().checked_rem(limit).unwrap_or(0)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::fixtures;

    /// Counted, not timed, so that every run of the tests does the same.
    const MUTANTS: u64 = 20_000;

    fn run(target: fn(&[u8]), corpus: &[Vec<u8>], seed: u64) {
        for (at, mutant) in mutate(corpus, MUTANTS, seed).enumerate() {
            let outcome = std::panic::catch_unwind(|| target(&mutant));
            assert!(outcome.is_ok(), "seed {seed}, mutant {at}: {mutant:02x?}");
        }
    }

    #[test]
    fn no_flv_from_an_encoder_breaks_the_source() {
        run(flv, &fixtures::corpus("flv"), 1);
    }

    #[test]
    fn no_chunk_frame_breaks_a_node() {
        run(chunk, &fixtures::corpus("chunk"), 2);
    }

    #[test]
    fn no_frame_from_a_parent_breaks_a_child() {
        run(frame_down, &fixtures::corpus("down"), 3);
    }

    #[test]
    fn no_frame_from_a_child_breaks_a_parent() {
        run(frame_up, &fixtures::corpus("up"), 4);
    }

    #[test]
    fn no_message_of_repair_breaks_a_node() {
        run(repair, &fixtures::corpus("repair"), 7);
    }

    #[test]
    fn no_hello_breaks_a_node() {
        run(hello, &fixtures::corpus("hello"), 5);
    }

    #[test]
    fn no_certificate_or_init_segment_breaks_a_node() {
        let mut corpus = fixtures::corpus("cert");
        corpus.extend(fixtures::corpus("init"));
        run(cert, &corpus, 6);
    }

    #[test]
    fn the_same_seed_makes_the_same_mutants() {
        let corpus = [b"some bytes".to_vec(), b"others".to_vec()];
        let all = |seed| mutate(&corpus, 100, seed).collect::<Vec<_>>();
        assert_eq!(all(1), all(1));
        assert_ne!(all(1), all(2));
        assert_eq!(mutate(&[], 10, 1).count(), 10);
    }
}
