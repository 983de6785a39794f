//! Repair from neighbours over `/astral/repair/1`.
//!
//! Owns the stream's codec, the pairing of questions and answers between relay and swarm, and the
//! telling of who the neighbours are. Does not own who is asked for what (the relay's), nor the
//! check of signatures (`media::repair`).

use std::{collections::BTreeMap, io};

use astral_core::{
    ids::{NodeId, StreamId},
    media::{
        chunk::{Payload, WireChunk},
        relay::{AnswerId, NEIGHBOURS_MAX, RelayInput},
        repair::{ANSWER_BYTES_MAX, RepairAnswer, RepairError, RepairWant, WANT_BYTES_MAX},
    },
    overlay::{Input, Offence},
};
use bytes::Bytes;
use libp2p::{
    PeerId, StreamProtocol,
    futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    request_response::{self, Message, OutboundRequestId, ResponseChannel},
};

use super::{identity, media::MediaCommand, run::Driver, traffic::Class};

/// Questions of others that wait for the relay's answer, all together.
pub const QUESTIONS_MAX: usize = 256;
/// Streams whose neighbours are remembered.
const STREAMS_MAX: usize = 256;

/// What was read of a question or an answer; libp2p tells nobody of what could not be read.
pub type Read<M> = Result<M, RepairError>;

/// How repair travels: one message, then the end of the stream.
#[derive(Clone, Copy, Debug, Default)]
pub struct RepairCodec;

impl request_response::Codec for RepairCodec {
    type Protocol = StreamProtocol;
    type Request = Read<RepairWant>;
    type Response = Read<RepairAnswer<WireChunk>>;

    async fn read_request<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<Read<RepairWant>>
    where
        T: AsyncRead + Unpin + Send,
    {
        Ok(RepairWant::decode(&read(io, WANT_BYTES_MAX).await?))
    }

    async fn read_response<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<Read<RepairAnswer<WireChunk>>>
    where
        T: AsyncRead + Unpin + Send,
    {
        Ok(RepairAnswer::decode(&read(io, ANSWER_BYTES_MAX).await?))
    }

    async fn write_request<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        want: Read<RepairWant>,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&want.map_err(invalid)?.encode()).await
    }

    async fn write_response<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        answer: Read<RepairAnswer<WireChunk>>,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&answer.map_err(invalid)?.encode()).await
    }
}

async fn read<T: AsyncRead + Unpin + Send>(io: &mut T, most: usize) -> io::Result<Bytes> {
    let mut bytes = Vec::with_capacity(1_024);
    // One byte more than allowed tells "too long" from "just fits".
    io.take(most as u64 + 1).read_to_end(&mut bytes).await?;
    Ok(bytes.into())
}

fn invalid(error: RepairError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// What the relay wants of the swarm.
#[derive(Debug)]
pub enum RepairNews {
    /// Ask.
    Ask {
        /// Whom.
        to: NodeId,
        /// What.
        want: RepairWant,
    },
    /// Answer.
    Answer {
        /// Which question.
        id: AnswerId,
        /// Whom.
        to: NodeId,
        /// The answer.
        answer: RepairAnswer<WireChunk>,
    },
}

/// Questions under way, both ways.
#[derive(Debug, Default)]
pub struct RepairDesk {
    next: u64,
    channels: BTreeMap<AnswerId, ResponseChannel<Read<RepairAnswer<WireChunk>>>>,
    asked: BTreeMap<OutboundRequestId, (StreamId, NodeId)>,
    told: BTreeMap<StreamId, Vec<NodeId>>,
}

type Event = request_response::Event<Read<RepairWant>, Read<RepairAnswer<WireChunk>>>;

impl Driver {
    /// Tells the relay who carries its streams and is connected, where that changed.
    pub(super) fn tell_neighbours(&mut self) {
        let streams: Vec<StreamId> = self.streams.carried().take(STREAMS_MAX).collect();
        self.repair.told.retain(|stream, _| streams.contains(stream));
        for stream in streams {
            let nodes = self.overlay.neighbours(stream, NEIGHBOURS_MAX);
            if self.repair.told.get(&stream) != Some(&nodes) {
                self.repair.told.insert(stream, nodes.clone());
                self.relay(RelayInput::Neighbours { stream, nodes });
            }
        }
    }

    /// What the relay wants.
    pub(super) fn on_repair_news(&mut self, news: RepairNews) {
        match news {
            RepairNews::Ask { to, want } => {
                let stream = want.stream;
                let peer = identity::peer_id(&to).filter(|peer| self.swarm.is_connected(peer));
                let Some(peer) = peer else {
                    return self.relay(RelayInput::RepairFailed { stream, from: to });
                };
                self.links.touch(&peer);
                let meter = self.shared.inner.traffic.meter(to);
                meter.sent(Class::Control, want.wire_len());
                let id = self.swarm.behaviour_mut().repair.send_request(&peer, Ok(want));
                self.repair.asked.insert(id, (stream, to));
            }
            RepairNews::Answer { id, to, answer } => {
                let Some(channel) = self.repair.channels.remove(&id) else { return };
                let chunks: usize = answer.chunks.iter().map(Payload::wire_len).sum();
                let meter = self.shared.inner.traffic.meter(to);
                meter.sent(Class::Media, chunks);
                meter.sent(Class::Control, answer.wire_len() - chunks);
                // An asker that has gone needs no answer.
                let _ = self.swarm.behaviour_mut().repair.send_response(channel, Ok(answer));
            }
        }
    }

    /// What the swarm says.
    pub(super) fn on_repair(&mut self, event: Event) {
        use request_response::Event;
        match event {
            Event::Message { peer, message: Message::Request { request, channel, .. }, .. } => {
                self.repair_asked(&peer, request, channel);
            }
            Event::Message {
                peer, message: Message::Response { request_id, response }, ..
            } => {
                self.links.touch(&peer);
                let Some((stream, from)) = self.repair.asked.remove(&request_id) else { return };
                match response {
                    Ok(answer) => {
                        let chunks: usize = answer.chunks.iter().map(Payload::wire_len).sum();
                        let meter = self.shared.inner.traffic.meter(from);
                        meter.received(Class::Media, chunks);
                        meter.received(Class::Control, answer.wire_len() - chunks);
                        self.outbox.push_back(MediaCommand::Repair { stream, from, answer });
                    }
                    // The stream ended early: its node is too busy, leaves, or lost the connection.
                    Err(RepairError::Truncated) => {
                        self.relay(RelayInput::RepairFailed { stream, from });
                    }
                    Err(error) => {
                        tracing::warn!(%peer, %error, "no lawful answer to a question of repair");
                        self.relay(RelayInput::RepairFailed { stream, from });
                        self.input(Input::Misbehaved { node: from, kind: Offence::Malformed });
                    }
                }
            }
            Event::OutboundFailure { request_id, error, .. } => {
                let Some((stream, from)) = self.repair.asked.remove(&request_id) else { return };
                tracing::debug!(node = %from.short(), %error, "no repair");
                self.relay(RelayInput::RepairFailed { stream, from });
            }
            // An answer that did not get through is a lost answer to the asker.
            Event::InboundFailure { .. } | Event::ResponseSent { .. } => {}
        }
    }

    fn repair_asked(
        &mut self,
        peer: &PeerId,
        want: Read<RepairWant>,
        channel: ResponseChannel<Read<RepairAnswer<WireChunk>>>,
    ) {
        self.links.touch(peer);
        // Dropping the channel refuses: who has no Ed25519 key is nobody to the core.
        let Some(from) = identity::node_id(peer) else { return };
        let want = match want {
            Ok(want) => want,
            // Who asked has gone meanwhile: dropping the channel is the answer.
            Err(RepairError::Truncated) => return,
            Err(error) => {
                self.counters.malformed_requests += 1;
                tracing::warn!(%peer, %error, "malformed question of repair: peer dropped");
                // It may have gone by itself.
                let _ = self.swarm.disconnect_peer_id(*peer);
                return;
            }
        };
        // Those whose asker went away meanwhile make room.
        self.repair.channels.retain(|_, channel| channel.is_open());
        if self.repair.channels.len() >= QUESTIONS_MAX {
            self.counters.overflows += 1;
            return;
        }
        self.repair.next += 1;
        let id = AnswerId(self.repair.next);
        self.repair.channels.insert(id, channel);
        let meter = self.shared.inner.traffic.meter(from);
        meter.received(Class::Control, want.wire_len());
        self.relay(RelayInput::RepairAsked { from, id, want });
    }
}

#[cfg(test)]
mod tests {
    use libp2p::{futures::io::Cursor, request_response::Codec};

    use super::*;

    const PROTOCOL: StreamProtocol = StreamProtocol::new("/test");

    #[tokio::test]
    async fn a_question_survives_the_stream() {
        let want = RepairWant {
            stream: StreamId([1; 32]),
            epoch: 1,
            stripe: 2,
            deadline_ms: 3,
            ranges: vec![(4, 5)],
        };
        let mut bytes = Cursor::new(Vec::new());
        RepairCodec.write_request(&PROTOCOL, &mut bytes, Ok(want.clone())).await.unwrap();
        bytes.set_position(0);
        assert_eq!(RepairCodec.read_request(&PROTOCOL, &mut bytes).await.unwrap(), Ok(want));
    }

    #[tokio::test]
    async fn sixteen_mebibytes_are_read_no_further_than_the_bound() {
        let mut bytes = Cursor::new(vec![0x30; 16 << 20]);
        assert!(RepairCodec.read_request(&PROTOCOL, &mut bytes).await.unwrap().is_err());
        assert_eq!(bytes.position(), WANT_BYTES_MAX as u64 + 1);
        let mut bytes = Cursor::new(vec![0x31; 16 << 20]);
        assert!(RepairCodec.read_response(&PROTOCOL, &mut bytes).await.unwrap().is_err());
        assert_eq!(bytes.position(), ANSWER_BYTES_MAX as u64 + 1);
    }
}
