//! One RTMP connection of an encoder or a player, without the socket.
//!
//! Owns the order of handshake, connect, publish or play, and media, and what is answered (to
//! players: the submodule `play`). Does not own sockets, deadlines or stream keys (see `server`), nor
//! the bytes of chunks and commands.
//!
//! Use: [`Session::receive`] bytes, call [`Session::next`] until it says `None`, carry out what it
//! says in that order. After an error nothing more can be read from this connection.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod connect;
mod play;

use std::collections::VecDeque;

use astral_core::media::flv::{Tag, TagKind};
use bytes::{Buf, Bytes};

use super::{
    amf0::{self, Amf0Error, Value},
    chunk::{ChunkError, ChunkReader, Message, UNPROVEN_MESSAGE_BYTES_MAX},
    wire::{ServerHandshake, Speaker, Status, kind},
};

/// The one application encoders connect to.
pub const APP: &str = "astral";
/// Largest command. A `connect` has some hundred bytes.
pub const COMMAND_BYTES_MAX: usize = UNPROVEN_MESSAGE_BYTES_MAX;
/// Largest metadata; larger ones are dropped and counted, since an init segment holds no more.
pub const METADATA_BYTES_MAX: usize = 60 * 1024;
/// Longest stream key, in bytes.
pub const KEY_BYTES_MAX: usize = 256;

/// We acknowledge, and ask the peer to acknowledge, this often; 2.5 MB is what most servers say.
const WINDOW_BYTES: u32 = 2_500_000;
/// Least window that a peer's wish sets, so that it can't make us answer every packet.
const WINDOW_BYTES_MIN: u32 = 16 * 1024;

/// What to do next for a session.
#[derive(Clone, PartialEq, Debug)]
pub enum Step {
    /// Send these bytes.
    Send(Vec<u8>),
    /// The encoder asks to publish: answer by [`Session::accept`] or [`Session::refuse`].
    PublishAsked {
        /// The stream key.
        key: String,
        /// What the encoder calls itself.
        encoder: Option<String>,
    },
    /// A tag of the published stream, times as the encoder sent them.
    Tag(Tag),
    /// The encoder stopped publishing; the connection stays.
    Unpublished,
    /// A player asks for a stream: answer by [`Session::accept_player`] or
    /// [`Session::refuse_player`].
    PlayAsked {
        /// What it asks for, the id of a stream when it is right.
        name: String,
    },
    /// The player wants no more; the connection stays.
    PlayStopped,
    /// Send what came before, then close.
    Close {
        /// Why, for the log.
        reason: &'static str,
    },
}

/// Why a publisher is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// No stream has this key.
    UnknownKey,
    /// Another encoder is publishing with this key.
    Busy,
    /// Too many encoders and players are connected.
    TooMany,
}

/// Why a connection can't be read on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The first bytes are no RTMP.
    #[error("no RTMP handshake")]
    Handshake,
    /// The chunks are malformed.
    #[error("malformed chunk: {0}")]
    Chunk(#[from] ChunkError),
    /// A command is malformed.
    #[error("malformed command: {0}")]
    Command(#[from] Amf0Error),
    /// A command is larger than [`COMMAND_BYTES_MAX`].
    #[error("a command of {bytes} bytes")]
    CommandTooLong {
        /// Its size.
        bytes: usize,
    },
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum State {
    Shaking,
    Fresh,
    Connected,
    /// Waiting for the decision on a publish request.
    Asked {
        stream: u32,
    },
    Publishing {
        stream: u32,
    },
    /// Waiting for the decision on a play request, or for the first media.
    PlayAsked {
        stream: u32,
    },
    Playing {
        stream: u32,
    },
    Closing,
}

/// The server's side of one connection.
#[derive(Debug)]
pub struct Session {
    state: State,
    handshake: ServerHandshake,
    reader: ChunkReader,
    speaker: Speaker,
    steps: VecDeque<Step>,
    error: Option<SessionError>,
    encoder: Option<String>,
    streams: u32,
    received: u32,
    acknowledged: u32,
    window: u32,
    ignored: u64,
}

impl Default for Session {
    fn default() -> Self {
        Self {
            state: State::Shaking,
            handshake: ServerHandshake::default(),
            reader: ChunkReader::default(),
            speaker: Speaker::default(),
            steps: VecDeque::new(),
            error: None,
            encoder: None,
            streams: 0,
            received: 0,
            acknowledged: 0,
            window: WINDOW_BYTES,
            ignored: 0,
        }
    }
}

impl Session {
    /// Takes bytes as they came from the socket.
    pub fn receive(&mut self, bytes: &[u8]) {
        if self.state == State::Closing || self.error.is_some() {
            return;
        }
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.received = self.received.wrapping_add(len);
        if self.state != State::Shaking {
            self.reader.push(bytes);
            return;
        }
        let Some(shaken) = self.handshake.receive(bytes) else {
            self.error = Some(SessionError::Handshake);
            return;
        };
        if !shaken.reply.is_empty() {
            self.steps.push_back(Step::Send(shaken.reply));
        }
        if let Some(rest) = shaken.rest {
            self.state = State::Fresh;
            self.reader.push(&rest);
        }
    }

    /// The next thing to do; `None` until more bytes come or a request is decided.
    ///
    /// # Errors
    /// [`SessionError`]: close the connection.
    #[expect(clippy::should_implement_trait, reason = "an iterator can't go on after None")]
    pub fn next(&mut self) -> Result<Option<Step>, SessionError> {
        loop {
            if let Some(step) = self.steps.pop_front() {
                return Ok(Some(step));
            }
            if let Some(error) = self.error {
                return Err(error);
            }
            if matches!(self.state, State::Shaking | State::Asked { .. } | State::Closing) {
                // A player that waits is read on: it may leave, or ask for nothing after all.
                return Ok(None);
            }
            let Some(message) = self.reader.next()? else {
                self.acknowledge();
                return Ok(self.steps.pop_front());
            };
            self.on_message(message)?;
        }
    }

    /// Lets the encoder that asked publish.
    pub fn accept(&mut self) {
        let State::Asked { stream } = self.state else { return };
        self.state = State::Publishing { stream };
        self.reader.expect_media();
        self.status(stream, "status", "NetStream.Publish.Start", "go ahead");
    }

    /// Refuses the encoder that asked, says why, and closes.
    pub fn refuse(&mut self, refusal: Refusal) {
        let State::Asked { stream } = self.state else { return };
        let (code, description) = match refusal {
            Refusal::UnknownKey => {
                ("NetStream.Publish.Denied", "wrong stream key: no stream of this node has it")
            }
            Refusal::Busy => (
                "NetStream.Publish.BadName",
                "another encoder is publishing with this key: stop it first",
            ),
            Refusal::TooMany => (
                "NetStream.Publish.Denied",
                "this node has too many encoders and players: close one first",
            ),
        };
        self.status(stream, "error", code, description);
        self.close("publisher refused");
    }

    /// Tells a publishing encoder that its stream was stopped here, and closes.
    pub fn stop(&mut self) {
        if let State::Publishing { stream } | State::Asked { stream } = self.state {
            self.status(stream, "status", "NetStream.Unpublish.Success", "the stream was stopped");
        }
        self.close("stream stopped");
    }

    /// Whether media is flowing.
    #[must_use]
    pub const fn is_publishing(&self) -> bool {
        matches!(self.state, State::Publishing { .. })
    }

    /// Messages that were read over: unknown kinds, commands nobody needs, oversized metadata.
    #[must_use]
    pub const fn ignored(&self) -> u64 {
        self.ignored
    }

    /// Bytes that wait here to become messages.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.reader.held_bytes()
    }

    fn status(&mut self, stream: u32, level: &str, code: &str, description: &str) {
        let bytes = self.speaker.on_status(stream, &Status { level, code, description });
        self.steps.push_back(Step::Send(bytes));
    }

    fn close(&mut self, reason: &'static str) {
        self.state = State::Closing;
        self.steps.push_back(Step::Close { reason });
    }

    const fn ignore(&mut self) {
        self.ignored = self.ignored.saturating_add(1);
    }

    fn acknowledge(&mut self) {
        if self.received.wrapping_sub(self.acknowledged) >= self.window {
            self.acknowledged = self.received;
            let body = self.received.to_be_bytes().to_vec();
            let bytes = self.speaker.message(kind::ACKNOWLEDGEMENT, 0, body);
            self.steps.push_back(Step::Send(bytes));
        }
    }

    fn on_message(&mut self, message: Message) -> Result<(), SessionError> {
        let Message { kind, stream, timestamp, body } = message;
        let number = body.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes));
        match (kind, number) {
            (kind::SET_CHUNK_SIZE, Some(bytes)) => self.reader.set_chunk_bytes(bytes)?,
            (kind::ABORT, Some(id)) => self.reader.abort(id),
            (kind::WINDOW, Some(bytes)) => {
                self.window = bytes.clamp(WINDOW_BYTES_MIN, WINDOW_BYTES);
            }
            (kind::USER_CONTROL, _) => self.on_user_control(&body),
            (kind::AUDIO, _) => self.on_media(TagKind::Audio, stream, timestamp, body),
            (kind::VIDEO, _) => self.on_media(TagKind::Video, stream, timestamp, body),
            (kind::DATA, _) => self.on_data(stream, timestamp, body),
            (kind::DATA_AMF3, _) => self.on_data(stream, timestamp, without_amf3_marker(body)),
            (kind::COMMAND, _) => self.on_command(stream, &body)?,
            (kind::COMMAND_AMF3, _) => self.on_command(stream, &without_amf3_marker(body))?,
            (kind::ACKNOWLEDGEMENT | kind::BANDWIDTH, _) => {}
            _ => self.ignore(),
        }
        Ok(())
    }

    /// Answers a ping; everything else a publisher may say about stream state changes nothing.
    fn on_user_control(&mut self, body: &[u8]) {
        if let Some([0, 6, time @ ..]) = body.first_chunk::<6>() {
            let mut pong = vec![0, 7];
            pong.extend_from_slice(time);
            let bytes = self.speaker.message(kind::USER_CONTROL, 0, pong);
            self.steps.push_back(Step::Send(bytes));
        }
    }

    fn on_media(&mut self, kind: TagKind, stream: u32, timestamp_ms: u32, body: Bytes) {
        if self.state != (State::Publishing { stream }) || body.is_empty() {
            return self.ignore();
        }
        self.steps.push_back(Step::Tag(Tag { kind, timestamp_ms, body }));
    }

    /// Metadata: the bytes stay as the encoder wrote them, but for the leading `@setDataFrame`,
    /// which asks a server to keep what follows.
    fn on_data(&mut self, stream: u32, timestamp_ms: u32, mut body: Bytes) {
        if self.state != (State::Publishing { stream }) || body.len() > METADATA_BYTES_MAX {
            return self.ignore();
        }
        if let Some(len) = amf0::leading_text(&body, "@setDataFrame") {
            body.advance(len);
        }
        // Whatever has no name first is no script tag; it would only confuse players.
        if body.first() != Some(&2) || amf0::leading_text(&body, "@clearDataFrame").is_some() {
            return self.ignore();
        }
        self.steps.push_back(Step::Tag(Tag { kind: TagKind::Script, timestamp_ms, body }));
    }

    fn on_command(&mut self, stream: u32, body: &[u8]) -> Result<(), SessionError> {
        if body.len() > COMMAND_BYTES_MAX {
            return Err(SessionError::CommandTooLong { bytes: body.len() });
        }
        let values = amf0::read(body)?;
        let name = values.first().and_then(Value::text).unwrap_or_default();
        let call = values.get(1).and_then(Value::number).unwrap_or_default();
        match name {
            "connect" => self.on_connect(call, values.get(2)),
            "createStream" => self.on_create_stream(call),
            "publish" => self.on_publish(stream, values.get(3)),
            "play" | "play2" => self.on_play(stream, values.get(3)),
            "FCUnpublish" | "deleteStream" | "closeStream" => self.on_unpublish(),
            // releaseStream, FCPublish, _checkbw, getStreamLength and the like need no answer.
            _ => self.ignore(),
        }
        Ok(())
    }

    fn on_create_stream(&mut self, call: f64) {
        if matches!(self.state, State::Shaking | State::Fresh) {
            return self.ignore();
        }
        self.streams = self.streams.wrapping_add(1).max(1);
        let bytes = self.speaker.stream_created(call, self.streams);
        self.steps.push_back(Step::Send(bytes));
    }

    fn on_publish(&mut self, stream: u32, key: Option<&Value>) {
        let (code, description) = match self.state {
            State::Connected => {
                let key = key.and_then(Value::text).unwrap_or_default();
                let key = key.split('?').next().unwrap_or_default();
                // A longer key is wrong anyway: the refusal tells the encoder so.
                let key = key.chars().take(KEY_BYTES_MAX).collect();
                self.state = State::Asked { stream };
                self.steps.push_back(Step::PublishAsked { key, encoder: self.encoder.clone() });
                return;
            }
            State::Publishing { .. } | State::Asked { .. } => {
                ("NetStream.Publish.BadName", "this connection publishes already")
            }
            State::PlayAsked { .. } | State::Playing { .. } => {
                ("NetStream.Publish.BadName", "this connection plays already")
            }
            State::Shaking | State::Fresh | State::Closing => {
                ("NetStream.Publish.Denied", "connect to the application first")
            }
        };
        self.status(stream, "error", code, description);
        self.close("publish at the wrong time");
    }

    fn on_unpublish(&mut self) {
        if self.stop_playing() {
            return;
        }
        let State::Publishing { stream } = self.state else { return self.ignore() };
        self.state = State::Connected;
        self.steps.push_back(Step::Unpublished);
        self.status(stream, "status", "NetStream.Unpublish.Success", "the stream is finished");
    }
}

/// AMF3 messages begin with a zero byte and go on in AMF0.
fn without_amf3_marker(mut body: Bytes) -> Bytes {
    if body.first() == Some(&0) {
        body.advance(1);
    }
    body
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
