//! A chunk as the simulator moves it: its header, its length and a keyed tag.
//!
//! Owns [`SimChunk`] and the tag that stands for the source's signature. Does not own chunk sizes
//! and numbers: the production cutter makes them.

use std::rc::Rc;

use astral_core::{
    ids::StreamId,
    media::chunk::{CHUNK_OVERHEAD, ChunkHeader, Payload},
};

use crate::random::mix;

/// A chunk without its bytes. A clone shares the header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SimChunk(Rc<Inner>);

#[derive(PartialEq, Eq, Debug)]
struct Inner {
    header: ChunkHeader,
    tag: u64,
}

impl SimChunk {
    /// The chunk as the source of `stream` tags it.
    #[must_use]
    pub fn seal(stream: &StreamId, header: ChunkHeader) -> Self {
        Self(Rc::new(Inner { header, tag: tag(stream, &header) }))
    }

    /// The same chunk with one bit of its media turned: its tag is wrong.
    #[must_use]
    pub fn polluted(&self) -> Self {
        Self(Rc::new(Inner { header: self.0.header, tag: !self.0.tag }))
    }

    /// Whether the source of `stream` tagged exactly this.
    #[must_use]
    pub fn verify(&self, stream: &StreamId) -> bool {
        self.0.tag == tag(stream, &self.0.header)
    }
}

impl Payload for SimChunk {
    fn header(&self) -> &ChunkHeader {
        &self.0.header
    }

    fn wire_len(&self) -> usize {
        CHUNK_OVERHEAD + usize::from(self.0.header.payload_len)
    }
}

fn tag(stream: &StreamId, header: &ChunkHeader) -> u64 {
    let (first, _) = stream.as_bytes().split_first_chunk().expect("32 bytes have a first eight");
    let words = [
        header.epoch,
        header.seq,
        header.stripe_seq,
        header.time_ms,
        u64::from(header.stripe) << 32 | u64::from(header.flags.0),
        u64::from(header.fragment) << 32 | u64::from(header.fragments),
        u64::from(header.init_version) << 32 | u64::from(header.payload_len),
    ];
    words.into_iter().fold(u64::from_be_bytes(*first), |tag, word| mix(tag ^ word))
}

#[cfg(test)]
mod tests {
    use astral_core::media::chunk::ChunkFlags;

    use super::*;

    #[test]
    fn a_tag_holds_for_one_chunk_of_one_stream() {
        let header = ChunkHeader {
            epoch: 1,
            seq: 2,
            stripe: 3,
            stripe_seq: 4,
            time_ms: 5,
            flags: ChunkFlags::NONE,
            fragment: 0,
            fragments: 1,
            init_version: 1,
            key_id: 0,
            payload_len: 100,
        };
        let chunk = SimChunk::seal(&StreamId([1; 32]), header);
        assert!(chunk.verify(&StreamId([1; 32])));
        assert!(!chunk.verify(&StreamId([2; 32])));
        assert!(!chunk.polluted().verify(&StreamId([1; 32])));
        assert_eq!(chunk.wire_len(), 211);
    }
}
