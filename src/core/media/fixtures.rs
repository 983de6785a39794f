//! Golden bytes of everything on the wire, kept in `tests/fixtures/wire` at the repository's root.
//!
//! Owns the values behind the fixtures and the tests that compare. A wire format that changes
//! breaks them, and needs a new protocol name; a new format adds files. `ASTRAL_FIXTURES=write`
//! writes the files instead of comparing them.

// The whole module is compiled for tests alone; said here too for the check of the core's purity,
// which reads each file by itself.
#[cfg(test)]
use std::{fs, path::PathBuf};

use bytes::{Bytes, BytesMut};

use super::{
    audience::Audience,
    cert::{ChunkSigner, EpochCert, SignedCert, SourceSigner},
    chunk::{ChunkFlags, ChunkHeader, WireChunk},
    flv::{Tag, TagKind, write_header},
    frame::{
        DownFrame, EndReason, FrameReader, FrameSide, Hello, HelloAck, KeepEntry, RawFrame,
        RefuseReason, Start, UpFrame,
    },
    init::{InitSegment, SignedInit},
};
use crate::{
    ids::{Direction, SourceKey, StreamId, StreamName, StripeSet},
    units::Bitrate,
};

fn directory() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/wire"))
}

/// The fixtures whose names begin with `prefix`, in the order of their names.
pub(crate) fn corpus(prefix: &str) -> Vec<Vec<u8>> {
    let mut paths: Vec<_> = fs::read_dir(directory())
        .expect("the fixtures are in the repository")
        .map(|entry| entry.expect("a readable directory").path())
        .filter(|path| {
            path.file_name().and_then(|name| name.to_str()).is_some_and(|n| n.starts_with(prefix))
        })
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "no fixture is called {prefix}*");
    paths.into_iter().map(|path| fs::read(path).expect("a readable fixture")).collect()
}

/// Compares with the file, or writes it.
pub(crate) fn golden(name: &str, bytes: &[u8]) {
    let path = directory().join(format!("{name}.bin"));
    if std::env::var("ASTRAL_FIXTURES").as_deref() == Ok("write") {
        fs::create_dir_all(directory()).unwrap();
        fs::write(&path, bytes).unwrap();
    }
    let expected = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(bytes, expected, "{name}: the bytes on the wire changed");
}

pub(crate) fn source() -> SourceSigner {
    SourceSigner::from_seed(&[1; 32])
}

pub(crate) fn chunk_signer() -> ChunkSigner {
    ChunkSigner::from_seed(&[2; 32])
}

fn name() -> StreamName {
    StreamName::new("Zo\u{eb}'s garden").unwrap()
}

pub(crate) fn stream() -> StreamId {
    StreamId::derive(&source().key(), &name())
}

pub(crate) fn cert() -> SignedCert {
    source().certify(EpochCert {
        source: SourceKey([0; 32]),
        name: name(),
        epoch: 1_764_000_000,
        k: 8,
        rate: Bitrate::from_kbps(3_000),
        chunk_key: chunk_signer().public(),
        expires_unix: 1_764_086_400,
    })
}

pub(crate) fn init() -> SignedInit {
    let mut payload = BytesMut::from(&write_header(true, true)[..]);
    tag(TagKind::Video, 0, b"\x17\x00\x00\x00\x00\x01\x42\xc0\x1f").write(&mut payload);
    tag(TagKind::Audio, 0, b"\xaf\x00\x11\x90").write(&mut payload);
    let payload = payload.freeze();
    let init = InitSegment { epoch: 1_764_000_000, version: 2, valid_from_seq: 77, payload };
    SignedInit::seal(&stream(), init, &chunk_signer()).unwrap()
}

pub(crate) fn header() -> ChunkHeader {
    ChunkHeader {
        epoch: 1_764_000_000,
        seq: 0x0102_0304_0506_0708,
        stripe: 5,
        stripe_seq: 0x1112_1314_1516_1718,
        time_ms: 0x2122_2324_2526_2728,
        flags: ChunkFlags::KEYFRAME | ChunkFlags::END_OF_FRAME,
        fragment: 0,
        fragments: 1,
        init_version: 2,
        key_id: 0,
        payload_len: 0,
    }
}

pub(crate) fn chunk() -> WireChunk {
    WireChunk::seal(&stream(), header(), b"opaque media bytes", &chunk_signer()).unwrap()
}

pub(crate) fn tag(kind: TagKind, timestamp_ms: u32, body: &[u8]) -> Tag {
    Tag { kind, timestamp_ms, body: Bytes::copy_from_slice(body) }
}

fn down_frames() -> Vec<(&'static str, DownFrame<WireChunk>)> {
    let entry = |stripe, head_seq| KeepEntry { stripe, head_seq, age_ms: 1_234, depth: stripe + 1 };
    vec![
        ("down-cert", DownFrame::Cert(cert())),
        ("down-init", DownFrame::Init(init())),
        ("down-start", DownFrame::Start { stripe: 3, from_stripe_seq: 41, from_seq: 328 }),
        ("down-chunk", DownFrame::Chunk(chunk())),
        ("down-keep", DownFrame::Keep { stripes: vec![entry(0, 9), entry(7, 10)], paused: true }),
        ("down-path", DownFrame::Path { stripe: 2, path: vec![1, u64::MAX, 0xabcd] }),
        ("down-gap", DownFrame::Gap { stripe: 15, from: 5, to: 5 }),
        ("down-shed", DownFrame::Shed { stripes: StripeSet(0x8001) }),
        ("down-end-ended", DownFrame::End { reason: EndReason::Ended }),
        ("down-end-source-lost", DownFrame::End { reason: EndReason::SourceLost }),
        ("down-end-left", DownFrame::End { reason: EndReason::Left }),
        ("down-end-revoked", DownFrame::End { reason: EndReason::Revoked }),
    ]
}

fn up_frames() -> Vec<(&'static str, UpFrame)> {
    vec![
        ("up-promote-live", UpFrame::Promote { stripe: 1, start: Start::Live, missing: vec![] }),
        (
            "up-promote-from",
            UpFrame::Promote {
                stripe: 1,
                start: Start::From(900),
                missing: vec![(3, 4), (880, 899)],
            },
        ),
        ("up-want", UpFrame::Want { stripe: 0, ranges: vec![(0, u64::MAX)] }),
        ("up-ack", UpFrame::Ack { bytes: 1 << 40, alive: StripeSet(0x00ff) }),
        ("up-cancel", UpFrame::Cancel { stripe: 3, ranges: vec![(1, 1), (5, 9)] }),
        ("up-release", UpFrame::Release { stripe: 15, reason: 2 }),
        ("up-audience", UpFrame::Audience(audience())),
    ]
}

fn audience() -> Audience {
    let seeder = Audience::one(false, false, Some(90));
    seeder.plus(Audience::one(true, true, Some(700))).plus(Audience::one(true, false, None))
}

/// A short encoder's stream: metadata, both header styles, keyframes, sound.
pub(crate) fn flv_file() -> Bytes {
    let mut file = BytesMut::from(&write_header(true, true)[..]);
    let metadata = b"\x02\x00\x0aonMetaData\x08\x00\x00\x00\x01\x00\x05width\
        \x00\x40\x94\x00\x00\x00\x00\x00\x00\x00\x00\x09";
    let tags = [
        tag(TagKind::Script, 0, metadata),
        tag(TagKind::Video, 0, b"\x17\x00\x00\x00\x00\x01\x42\xc0\x1f"),
        tag(TagKind::Audio, 0, b"\xaf\x00\x11\x90"),
        tag(TagKind::Video, 5_000, &[&b"\x17\x01\x00\x00\x00"[..], &[0x65; 3_000]].concat()),
        tag(TagKind::Audio, 5_010, b"\xaf\x01sound"),
        tag(TagKind::Video, 5_033, b"\x27\x01\x00\x00\x00slice"),
        tag(TagKind::Script, 5_033, metadata),
        tag(TagKind::Video, 5_066, b"\x90hvc1config"),
        tag(TagKind::Video, 5_066, b"\x91hvc1\x00\x00\x00keyframe"),
        tag(TagKind::Audio, 5_070, b"\x91Opussound"),
        tag(TagKind::Video, 100, b"\x97\x02xyz\x03hvc1after mod-ex"),
        tag(TagKind::Video, 133, b"\x17\x02\x00\x00\x00"),
    ];
    tags.iter().for_each(|tag| tag.write(&mut file));
    file.freeze()
}

fn read_one(side: FrameSide, wire: &[u8]) -> RawFrame {
    let mut reader = FrameReader::new(side);
    reader.push(wire);
    let frame = reader.next().expect("a whole frame").expect("a lawful frame");
    assert!(reader.next().is_none() && !reader.is_within_frame());
    frame
}

#[test]
fn certificate_and_init_segment_are_what_they_always_were() {
    let mut wire = BytesMut::new();
    cert().encode(&mut wire);
    golden("cert", &wire);
    let read = SignedCert::decode(&wire).unwrap();
    assert_eq!(read, cert());
    assert_eq!(read.verify(&stream()), Ok(chunk_signer().verifying_key()));

    let mut wire = BytesMut::new();
    init().encode(&mut wire);
    golden("init", &wire);
    let read = SignedInit::decode(&wire).unwrap();
    assert_eq!(read, init());
    assert_eq!(read.verify(&stream(), &chunk_signer().verifying_key()), Ok(()));
}

#[test]
fn a_chunk_is_what_it_always_was() {
    golden("chunk", chunk().frame());
    let read = WireChunk::parse(chunk().frame().clone()).unwrap();
    assert_eq!(read, chunk());
    assert_eq!(read.verify(&stream(), &chunk_signer().verifying_key()), Ok(()));
}

#[test]
fn frames_down_are_what_they_always_were() {
    for (name, frame) in down_frames() {
        let mut wire = BytesMut::new();
        frame.encode(&mut wire);
        golden(name, &wire);
        assert_eq!(wire.len(), frame.wire_len(), "{name}");
        assert_eq!(DownFrame::decode(&read_one(FrameSide::Down, &wire)), Ok(frame), "{name}");
    }
}

#[test]
fn frames_up_are_what_they_always_were() {
    for (name, frame) in up_frames() {
        let mut wire = BytesMut::new();
        frame.encode(&mut wire);
        golden(name, &wire);
        assert_eq!(wire.len(), frame.wire_len(), "{name}");
        assert_eq!(UpFrame::decode(&read_one(FrameSide::Up, &wire)), Ok(frame), "{name}");
    }
}

#[test]
fn hellos_are_what_they_always_were() {
    for (name, opener) in
        [("hello-from-child", Direction::FromParent), ("hello-from-parent", Direction::ToChild)]
    {
        let hello = Hello { stream: stream(), opener };
        let mut wire = BytesMut::new();
        hello.encode(&mut wire);
        golden(name, &wire);
        assert_eq!(Hello::decode(&read_one(FrameSide::Up, &wire)), Ok(hello));
    }
    let refused = [
        ("hello-ack-no-ticket", RefuseReason::NoTicket),
        ("hello-ack-unknown-stream", RefuseReason::UnknownStream),
        ("hello-ack-busy", RefuseReason::Busy),
        ("hello-ack-duplicate", RefuseReason::Duplicate),
        ("hello-ack-leaving", RefuseReason::Leaving),
        ("hello-ack-unknown", RefuseReason::Unknown(200)),
    ]
    .map(|(name, reason)| (name, HelloAck::Refused(reason)));
    for (name, ack) in refused.into_iter().chain([("hello-ack-accepted", HelloAck::Accepted)]) {
        let mut wire = BytesMut::new();
        ack.encode(&mut wire);
        golden(name, &wire);
        assert_eq!(HelloAck::decode(&read_one(FrameSide::Down, &wire)), Ok(ack));
    }
}

#[test]
fn an_flv_file_is_what_it_always_was() {
    golden("flv-stream", &flv_file());
}
