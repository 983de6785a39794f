//! The player's side of a session: play requests, and media on its way out.
//!
//! Owns what a player is answered. Does not own which streams there are, nor when media is sent.

use astral_core::media::flv::Tag;

use super::{Session, State, Step};
use crate::edge::rtmp::{amf0::Value, wire::kind};

/// Longest stream name of a player's request, in characters.
const NAME_CHARS_MAX: usize = 256;

/// User control events of the RTMP specification, section 7.1.7.
const STREAM_BEGIN: [u8; 2] = [0, 0];
const STREAM_EOF: [u8; 2] = [0, 1];

impl Session {
    /// Lets the player that asked play: from here on [`Self::media`] makes messages.
    pub fn accept_player(&mut self) {
        let State::PlayAsked { stream } = self.state else { return };
        self.state = State::Playing { stream };
        self.stream_event(STREAM_BEGIN, stream);
        self.status(stream, "status", "NetStream.Play.Reset", "from the live edge");
        self.status(stream, "status", "NetStream.Play.Start", "go ahead");
    }

    /// Refuses the player that asked, says why, and closes.
    pub fn refuse_player(&mut self, reason: &str) {
        let State::PlayAsked { stream } = self.state else { return };
        self.status(stream, "error", "NetStream.Play.StreamNotFound", reason);
        self.close("player refused");
    }

    /// Tells a playing player that the stream is over, and closes.
    pub fn end_play(&mut self) {
        if let State::Playing { stream } = self.state {
            self.stream_event(STREAM_EOF, stream);
            self.status(stream, "status", "NetStream.Play.UnpublishNotify", "the stream is over");
            self.status(stream, "status", "NetStream.Play.Stop", "the stream is over");
        }
        self.close("stream over");
    }

    /// The bytes that carry `tag` to the player; empty when nobody plays.
    #[must_use]
    pub fn media(&self, tag: &Tag) -> Vec<u8> {
        match self.state {
            State::Playing { stream } => self.speaker.media(stream, tag),
            State::Shaking
            | State::Fresh
            | State::Connected
            | State::Asked { .. }
            | State::Publishing { .. }
            | State::PlayAsked { .. }
            | State::Closing => Vec::new(),
        }
    }

    pub(super) fn on_play(&mut self, stream: u32, name: Option<&Value>) {
        if self.state != State::Connected {
            let reason = "connect first, and play one stream on a connection";
            self.status(stream, "error", "NetStream.Play.Failed", reason);
            return self.close("play at the wrong time");
        }
        let name = name.and_then(Value::text).unwrap_or_default();
        let name = name.split('?').next().unwrap_or_default();
        // A longer name is wrong anyway: the refusal tells the player so.
        let name = name.chars().take(NAME_CHARS_MAX).collect();
        self.state = State::PlayAsked { stream };
        self.steps.push_back(Step::PlayAsked { name });
    }

    /// Takes a play request or a running play back; false when there is none.
    pub(super) fn stop_playing(&mut self) -> bool {
        let plays = matches!(self.state, State::PlayAsked { .. } | State::Playing { .. });
        if plays {
            self.state = State::Connected;
            self.steps.push_back(Step::PlayStopped);
        }
        plays
    }

    fn stream_event(&mut self, event: [u8; 2], stream: u32) {
        let body = [&event[..], &stream.to_be_bytes()].concat();
        let bytes = self.speaker.message(kind::USER_CONTROL, 0, body);
        self.steps.push_back(Step::Send(bytes));
    }
}
