//! The sending half and the handshake, mostly by `rml_rtmp`.
//!
//! Owns every use of that crate outside tests, so that it can be replaced in one file, and how media
//! is cut into chunks for players. Does not own what is said (see `session`).

use astral_core::media::flv::{Tag, TagKind};
use bytes::Bytes;
use rml_rtmp::{
    chunk_io::ChunkSerializer,
    handshake::{Handshake, HandshakeProcessResult, PeerType},
    messages::MessagePayload,
    time::RtmpTimestamp,
};

use super::amf0::{Value, Writer};

/// Chunks we send are this long: one chunk for every message we have to say, some for a frame.
const CHUNK_BYTES: u32 = 4_096;
/// In the three-byte time field: four more bytes hold the time.
const EXTENDED: u32 = 0xff_ffff;
/// Chunk header of a message that goes on.
const CONTINUES: u8 = 0xc0;
/// Chunk streams of what players get; the serializer uses lower ones.
const DATA_CHANNEL: u8 = 20;
const AUDIO_CHANNEL: u8 = 21;
const VIDEO_CHANNEL: u8 = 22;
/// And before that is announced.
const CHUNK_BYTES_INITIAL: u32 = 128;

/// Message type ids of the RTMP specification, sections 5.4, 6.2 and 7.1.
pub mod kind {
    /// The sender's chunks get another size.
    pub const SET_CHUNK_SIZE: u8 = 1;
    /// An unfinished message is given up.
    pub const ABORT: u8 = 2;
    /// Bytes received so far.
    pub const ACKNOWLEDGEMENT: u8 = 3;
    /// Pings and stream state.
    pub const USER_CONTROL: u8 = 4;
    /// How often the sender wants acknowledgements.
    pub const WINDOW: u8 = 5;
    /// How much the receiver may leave unacknowledged.
    pub const BANDWIDTH: u8 = 6;
    /// Audio, as the body of an FLV tag.
    pub const AUDIO: u8 = 8;
    /// Video, as the body of an FLV tag.
    pub const VIDEO: u8 = 9;
    /// Data behind one byte of AMF3.
    pub const DATA_AMF3: u8 = 15;
    /// A command behind one byte of AMF3.
    pub const COMMAND_AMF3: u8 = 17;
    /// Data in AMF0, as the body of an FLV script tag.
    pub const DATA: u8 = 18;
    /// A command in AMF0.
    pub const COMMAND: u8 = 20;
}

/// The server's side of the handshake.
pub struct ServerHandshake(Handshake);

/// Where a handshake stands after some bytes.
#[derive(Debug)]
pub struct Shaken {
    /// What to send.
    pub reply: Vec<u8>,
    /// Bytes behind the handshake, once it is complete.
    pub rest: Option<Vec<u8>>,
}

impl std::fmt::Debug for ServerHandshake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServerHandshake")
    }
}

impl Default for ServerHandshake {
    fn default() -> Self {
        Self(Handshake::new(PeerType::Server))
    }
}

impl ServerHandshake {
    /// Takes bytes; `None` when they are no handshake.
    pub fn receive(&mut self, bytes: &[u8]) -> Option<Shaken> {
        match self.0.process_bytes(bytes).ok()? {
            HandshakeProcessResult::InProgress { response_bytes } => {
                Some(Shaken { reply: response_bytes, rest: None })
            }
            HandshakeProcessResult::Completed { response_bytes, remaining_bytes } => {
                Some(Shaken { reply: response_bytes, rest: Some(remaining_bytes) })
            }
        }
    }
}

/// Turns what the server says into chunks.
pub struct Speaker {
    serializer: ChunkSerializer,
    chunk_bytes: u32,
}

impl std::fmt::Debug for Speaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Speaker")
    }
}

impl Default for Speaker {
    fn default() -> Self {
        Self { serializer: ChunkSerializer::new(), chunk_bytes: CHUNK_BYTES_INITIAL }
    }
}

impl Speaker {
    /// Announces the size of our chunks and uses it from here on.
    pub fn chunk_size(&mut self) -> Vec<u8> {
        self.chunk_bytes = CHUNK_BYTES;
        let packet = self.serializer.set_max_chunk_size(CHUNK_BYTES, RtmpTimestamp::new(0));
        packet.map(|packet| packet.bytes).unwrap_or_default()
    }

    /// A message on message stream `stream`.
    pub fn message(&mut self, kind: u8, stream: u32, body: impl Into<Bytes>) -> Vec<u8> {
        let payload = MessagePayload {
            timestamp: RtmpTimestamp::new(0),
            type_id: kind,
            message_stream_id: stream,
            data: body.into(),
        };
        // A full header for each message is what the oldest clients understand. The crate would
        // put one before each further chunk of a long message too, which is malformed.
        let is_short = payload.data.len() <= self.chunk_bytes as usize;
        // Fails only for bodies above 16 MiB; ours have some hundred bytes.
        let packet = self.serializer.serialize(&payload, is_short, false);
        packet.map(|packet| packet.bytes).unwrap_or_default()
    }

    /// A tag for a player, on message stream `stream`. Each message has a full header, so that it
    /// can be read whatever was left out before it.
    #[must_use]
    pub fn media(&self, stream: u32, tag: &Tag) -> Vec<u8> {
        let (kind, channel) = match tag.kind {
            TagKind::Audio => (kind::AUDIO, AUDIO_CHANNEL),
            TagKind::Video => (kind::VIDEO, VIDEO_CHANNEL),
            TagKind::Script => (kind::DATA, DATA_CHANNEL),
        };
        let time = tag.timestamp_ms.to_be_bytes();
        let extended = tag.timestamp_ms >= EXTENDED;
        let field = tag.timestamp_ms.min(EXTENDED).to_be_bytes();
        let length = u32::try_from(tag.body.len()).unwrap_or(0).to_be_bytes();
        let chunks = tag.body.len().div_ceil(self.chunk_bytes as usize).max(1);
        let mut bytes = Vec::with_capacity(tag.body.len().saturating_add(16 + 5 * chunks));
        bytes.push(channel);
        bytes.extend_from_slice(&field[1..]);
        bytes.extend_from_slice(&length[1..]);
        bytes.push(kind);
        bytes.extend_from_slice(&stream.to_le_bytes());
        for (n, piece) in tag.body.chunks(self.chunk_bytes as usize).enumerate() {
            if n > 0 {
                bytes.push(CONTINUES | channel);
            }
            if extended {
                bytes.extend_from_slice(&time);
            }
            bytes.extend_from_slice(piece);
        }
        bytes
    }

    /// The answer to a call: `_result` or `_error`.
    pub fn answer(
        &mut self,
        name: &str,
        call: f64,
        properties: &[(&str, Value)],
        status: &Status<'_>,
    ) -> Vec<u8> {
        let body = Writer::default().text(name).number(call).object(properties);
        self.message(kind::COMMAND, 0, body.object(&status.fields()).finish())
    }

    /// The answer to `createStream`.
    pub fn stream_created(&mut self, call: f64, stream: u32) -> Vec<u8> {
        let body = Writer::default().text("_result").number(call).null().number(stream.into());
        self.message(kind::COMMAND, 0, body.finish())
    }

    /// A status of a message stream.
    pub fn on_status(&mut self, stream: u32, status: &Status<'_>) -> Vec<u8> {
        let body = Writer::default().text("onStatus").number(0.0).null();
        self.message(kind::COMMAND, stream, body.object(&status.fields()).finish())
    }
}

/// A status as RTMP says it.
#[derive(Clone, Copy, Debug)]
pub struct Status<'a> {
    /// `status` or `error`.
    pub level: &'a str,
    /// Such as `NetStream.Publish.Start`.
    pub code: &'a str,
    /// For people.
    pub description: &'a str,
}

impl Status<'_> {
    fn fields(&self) -> [(&'static str, Value); 3] {
        [
            ("level", Value::Text(self.level.into())),
            ("code", Value::Text(self.code.into())),
            ("description", Value::Text(self.description.into())),
        ]
    }
}
