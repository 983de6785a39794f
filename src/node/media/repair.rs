//! The media task's neighbours: what they send for repair is verified here.
//!
//! Owns the keys of the streams' epochs outside of any feed. Does not own questions and answers
//! (see `node::repair`).

use std::collections::BTreeMap;

use astral_core::{
    ids::{NodeId, StreamId},
    media::{
        cert::{SignedCert, VerifyingKey},
        chunk::{Payload, WireChunk},
        relay::RelayInput,
        repair::RepairAnswer,
    },
    overlay::{Input, Offence},
};

use super::Media;

/// Streams whose key is kept; the relay carries fewer.
const STREAMS_MAX: usize = 512;

/// The newest epoch of each stream.
#[derive(Debug, Default)]
pub(super) struct Keys {
    epochs: BTreeMap<StreamId, Epoch>,
}

#[derive(Clone, Copy, Debug)]
struct Epoch {
    epoch: u64,
    k: u8,
    key: VerifyingKey,
}

impl Keys {
    /// A certificate that was verified.
    pub(super) fn learn(&mut self, stream: StreamId, cert: &SignedCert) {
        let newest = self.epochs.get(&stream).map_or(0, |known| known.epoch);
        let full = self.epochs.len() >= STREAMS_MAX && !self.epochs.contains_key(&stream);
        if cert.cert.epoch <= newest || full {
            return;
        }
        if let Ok(key) = cert.verify(&stream) {
            let epoch = Epoch { epoch: cert.cert.epoch, k: cert.cert.k, key };
            self.epochs.insert(stream, epoch);
        }
    }

    pub(super) fn forget(&mut self, stream: StreamId) {
        self.epochs.remove(&stream);
    }

    /// Whether the stream's source signed all of these. Those of another epoch are left out.
    fn check(&self, stream: StreamId, chunks: &mut Vec<WireChunk>) -> bool {
        let Some(known) = self.epochs.get(&stream) else {
            chunks.clear();
            return true;
        };
        chunks.retain(|chunk| chunk.header().epoch == known.epoch);
        chunks.iter().all(|chunk| {
            chunk.header().stripe < known.k && chunk.verify(&stream, &known.key).is_ok()
        })
    }
}

impl Media {
    /// A neighbour's answer.
    pub(super) fn repaired(
        &mut self,
        stream: StreamId,
        from: NodeId,
        answer: RepairAnswer<WireChunk>,
    ) {
        let RepairAnswer { have, mut chunks } = answer;
        if !self.keys.check(stream, &mut chunks) {
            tracing::warn!(node = %from.short(), "a neighbour sent what the source did not sign");
            self.input(RelayInput::RepairFailed { stream, from });
            let kind = Offence::BadSignature;
            self.report(Input::Misbehaved { node: from, kind });
            return;
        }
        let now = self.clock.now();
        for chunk in &chunks {
            self.meters.received(stream, chunk, now);
            if let Some(paused) = self.marks.chunk(stream, chunk.header(), now) {
                self.report(Input::Paused { stream, paused });
            }
        }
        self.input(RelayInput::Repair { stream, from, have, chunks });
    }
}

#[cfg(test)]
mod tests {
    use astral_core::{
        ids::{SourceKey, StreamName},
        media::{
            cert::{ChunkSigner, EpochCert, SourceSigner},
            chunk::{ChunkFlags, ChunkHeader},
        },
        units::Bitrate,
    };

    use super::*;

    #[test]
    fn only_what_the_source_signed_passes_and_another_epoch_counts_for_nothing() {
        let source = SourceSigner::from_seed(&[1; 32]);
        let signer = ChunkSigner::from_seed(&[2; 32]);
        let name = StreamName::new("repaired").unwrap();
        let stream = StreamId::derive(&source.key(), &name);
        let cert = source.certify(EpochCert {
            source: SourceKey([0; 32]),
            name,
            epoch: 7,
            k: 4,
            rate: Bitrate::from_kbps(800),
            chunk_key: signer.public(),
            expires_unix: u64::MAX,
        });
        let chunk = |epoch, stripe, signer: &ChunkSigner| {
            let header = ChunkHeader {
                epoch,
                seq: 1,
                stripe,
                stripe_seq: 1,
                time_ms: 40,
                flags: ChunkFlags::NONE,
                fragment: 0,
                fragments: 1,
                init_version: 1,
                key_id: 0,
                payload_len: 0,
            };
            WireChunk::seal(&stream, header, b"media", signer).unwrap()
        };
        let mut keys = Keys::default();
        let mut early = vec![chunk(7, 0, &signer)];
        assert!(keys.check(stream, &mut early) && early.is_empty(), "no key, no chunk");
        keys.learn(stream, &cert);
        let mut sound = vec![chunk(7, 0, &signer), chunk(6, 0, &signer)];
        assert!(keys.check(stream, &mut sound));
        assert_eq!(sound.len(), 1);
        let other = ChunkSigner::from_seed(&[3; 32]);
        assert!(!keys.check(stream, &mut vec![chunk(7, 0, &signer), chunk(7, 1, &other)]));
        assert!(!keys.check(stream, &mut vec![chunk(7, 4, &signer)]), "a stripe too many");
    }
}
