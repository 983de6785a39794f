//! The work of the hot path on a fixed input: what a forwarding node does for each chunk and child.
//!
//! Owns the made-up stream and one function for each piece of work; `micro` times them, `budget`
//! counts their instructions. Does not own sockets, keys' safety, or what is measured about it.

use std::time::Duration;

use astral_core::{
    ids::{Direction, FeedKey, NodeId, SourceKey, StreamId, StreamName, StripeSet},
    media::{
        cert::{Batch, ChunkSigner, EpochCert, SignedCert, SourceSigner, VerifyingKey},
        chunk::{ChunkFlags, ChunkHeader, Payload, WireChunk},
        flv::{FlvLimits, Tag, TagKind, TagReader, write_header},
        frame::{Start, UpFrame},
        init::{InitSegment, SignedInit},
        relay::{Relay, RelayConfig, RelayInput, RelayOutput, StreamRole},
    },
    time::Timestamp,
    units::Bitrate,
};
use bytes::{Bytes, BytesMut};

/// Stripes of the made-up stream, as a stream of 4 Mbit/s has them.
const K: u8 = 8;
/// Chunks of one picture: 16.7 KB at 4 Mbit/s and 30 pictures a second.
pub const CHUNKS_PER_PICTURE: u64 = 14;
/// Bytes of media in a chunk.
const CHUNK_BYTES: usize = 1_200;
/// Milliseconds between pictures.
const PICTURE_MS: u64 = 33;

/// A stream as its source signs it.
pub struct Made {
    stream: StreamId,
    cert: SignedCert,
    init: SignedInit,
    signer: ChunkSigner,
    key: VerifyingKey,
}

impl Made {
    /// Always the same one.
    pub fn stream() -> Self {
        let source = SourceSigner::from_seed(&[1; 32]);
        let signer = ChunkSigner::from_seed(&[2; 32]);
        let name = StreamName::new("bench").expect("a lawful name");
        let cert = source.certify(EpochCert {
            source: SourceKey([0; 32]),
            name,
            epoch: 1,
            k: K,
            rate: Bitrate::from_mbps(4),
            chunk_key: signer.public(),
            expires_unix: u64::MAX,
        });
        let stream = cert.cert.stream();
        let payload = Bytes::from_static(b"header");
        let init = InitSegment { epoch: 1, version: 1, valid_from_seq: 0, payload };
        let init = SignedInit::seal(&stream, init, &signer).expect("a short segment");
        let key = signer.verifying_key();
        Self { stream, cert, init, signer, key }
    }

    /// Signs the chunk with this number.
    pub fn seal(&self, seq: u64, payload: &[u8]) -> WireChunk {
        let fragment = seq % CHUNKS_PER_PICTURE;
        let mut flags = ChunkFlags::NONE;
        if seq.is_multiple_of(CHUNKS_PER_PICTURE * 60) {
            flags = flags | ChunkFlags::KEYFRAME;
        }
        if fragment + 1 == CHUNKS_PER_PICTURE {
            flags = flags | ChunkFlags::END_OF_FRAME;
        }
        let header = ChunkHeader {
            epoch: 1,
            seq,
            stripe: (seq % u64::from(K)) as u8,
            stripe_seq: seq / u64::from(K),
            time_ms: seq / CHUNKS_PER_PICTURE * PICTURE_MS,
            flags,
            fragment: fragment as u16,
            fragments: CHUNKS_PER_PICTURE as u16,
            init_version: 1,
            key_id: 0,
            payload_len: 0,
        };
        WireChunk::seal(&self.stream, header, payload, &self.signer).expect("a lawful chunk")
    }

    /// Checks a chunk as every hop does.
    pub fn verify(&self, chunk: &WireChunk) {
        chunk.verify(&self.stream, &self.key).expect("the source's own");
    }

    /// Checks chunks that came together, as every hop does.
    pub fn verify_together(&self, chunks: &[WireChunk]) {
        let mut batch = Batch::default();
        for chunk in chunks {
            chunk.verify_in(&mut batch, &self.stream, &self.key).expect("whole");
        }
        assert!(batch.verify(), "the source's own");
    }

    /// Chunks of so many pictures, in order.
    pub fn pictures(&self, number: u64) -> Vec<WireChunk> {
        let payload = [7; CHUNK_BYTES];
        (0..number * CHUNKS_PER_PICTURE).map(|seq| self.seal(seq, &payload)).collect()
    }

    /// An FLV file of so many tags of so many bytes.
    pub fn flv(tags: u32, bytes: usize) -> Bytes {
        let mut file = BytesMut::from(&write_header(false, true)[..]);
        for number in 0..tags {
            let body = Bytes::from(vec![0x27; bytes]);
            Tag { kind: TagKind::Video, timestamp_ms: number * 33, body }.write(&mut file);
        }
        file.freeze()
    }
}

/// Reads a chunk's frame without checking its signature.
pub fn parse(frame: &Bytes) -> WireChunk {
    WireChunk::parse(frame.clone()).expect("a lawful frame")
}

/// Reads a file's tags; how many there were.
pub fn read_flv(file: &[u8]) -> usize {
    let mut reader = TagReader::new(FlvLimits::default());
    let mut tags = 0;
    for piece in file.chunks(64 * 1_024) {
        reader.push(piece);
        while let Some(tag) = reader.next() {
            tag.expect("a lawful tag");
            tags += 1;
        }
    }
    tags
}

/// A node that cuts a stream and serves children who acknowledge ten times a second.
pub struct Forwarding {
    relay: Relay<WireChunk>,
    stream: StreamId,
    children: Vec<(FeedKey, u64)>,
    now: Timestamp,
    pictures: u64,
}

impl Forwarding {
    /// With so many children, each of whom gets all stripes.
    pub fn to(children: u16, made: &Made) -> Self {
        let stream = made.stream;
        let now = Timestamp::ZERO;
        let mut relay = Relay::new(RelayConfig::default(), now);
        relay.handle_input(RelayInput::Open { stream, role: StreamRole::Source }, now);
        let cert = made.cert.clone();
        relay.handle_input(RelayInput::Epoch { stream, cert, feed: None }, now);
        relay.handle_input(RelayInput::Init { stream, init: made.init.clone() }, now);
        let mut all = StripeSet::EMPTY;
        (0..K).for_each(|stripe| all.insert(stripe));
        let feeds = (0..children).map(|number| {
            let mut id = [9; 32];
            id[..2].copy_from_slice(&number.to_be_bytes());
            FeedKey { stream, peer: NodeId(id), direction: Direction::ToChild }
        });
        let children: Vec<_> = feeds.map(|feed| (feed, 0)).collect();
        for &(feed, _) in &children {
            relay.handle_input(
                RelayInput::FeedUp { feed, rtt: Some(Duration::from_millis(1)) },
                now,
            );
            let (live, warm) = (all, StripeSet::EMPTY);
            relay.handle_input(RelayInput::SetStripes { feed, live, warm }, now);
            for stripe in 0..K {
                let frame = UpFrame::Promote { stripe, start: Start::Live, missing: Vec::new() };
                relay.handle_input(RelayInput::UpFrame { feed, frame }, now);
            }
        }
        Self { relay, stream, children, now, pictures: 0 }
    }

    /// One picture comes and goes out to every child, who acknowledges each third one; gives the
    /// bytes of chunks that left.
    pub fn picture(&mut self, chunks: &[WireChunk]) -> usize {
        self.now += Duration::from_millis(PICTURE_MS);
        self.pictures += 1;
        for chunk in chunks {
            let input = RelayInput::LocalChunk { stream: self.stream, chunk: chunk.clone() };
            self.relay.handle_input(input, self.now);
        }
        let mut sent = self.drain();
        if self.pictures.is_multiple_of(3) {
            for at in 0..self.children.len() {
                let (feed, bytes) = self.children[at];
                let frame = UpFrame::Ack { bytes, alive: StripeSet::EMPTY };
                self.relay.handle_input(RelayInput::UpFrame { feed, frame }, self.now);
            }
            sent += self.drain();
        }
        if self.relay.poll_timeout().is_some_and(|(at, _)| at <= self.now) {
            self.relay.handle_timeout(self.now);
            sent += self.drain();
        }
        sent
    }

    fn drain(&mut self) -> usize {
        let mut sent = 0;
        while let Some(output) = self.relay.poll_output() {
            let RelayOutput::Down { feed, frames } = output else { continue };
            let bytes: usize = frames
                .iter()
                .map(|frame| match frame {
                    astral_core::media::frame::DownFrame::Chunk(chunk) => chunk.wire_len(),
                    _ => 0,
                })
                .sum();
            if let Ok(at) = self.children.binary_search_by_key(&feed, |(feed, _)| *feed) {
                self.children[at].1 += bytes as u64;
            }
            sent += bytes;
        }
        sent
    }
}
