//! `WS /publish/{id}`: a web page publishes what its browser coded.
//!
//! Owns the socket and what its frames mean; sound in Opus becomes AAC on the way (`astral_pipelines`),
//! since no browser codes AAC and few players know Opus in FLV. Does not own the stream: the page takes
//! the place of an encoder in the stream's [`IngestKeys`] slot, with everything that goes with it.
//!
//! Frames from the page: binary, the bytes of an FLV stream cut anywhere, with H.264 and AAC as RTMP has
//! them, or other codecs as Enhanced RTMP has them. A browser that can only record says first, as text,
//! `{"format": "matroska"}` (H.264 and Opus), `"webm"` (VP8 and Opus) or `"mp4"` (H.264, and AAC or
//! Opus), and sends that. Frames to the page: text, one JSON object each, with a `type`: `ready`, and `error` with a `detail`
//! before the socket closes.

use std::time::Duration;

use astral_core::{
    ids::StreamId,
    media::flv::{Codec, FlvLimits, TAG_BYTES_MAX, Tag, TagKind, TagReader},
};
use astral_pipelines::{Container, OpusToAac, Sound, ToFlv};
use axum::{
    Router,
    extract::{
        Path, State,
        ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code},
    },
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};

use super::{
    live::problem,
    local::{Gate, Origin},
    rtmp::{FinishCause, IngestKeys, RtmpEvent, ingest::Claim, session::Refusal},
};

/// Largest frame: the largest tag, and some.
const MESSAGE_BYTES_MAX: usize = TAG_BYTES_MAX + 64 * 1_024;
/// A page that sends nothing this long is gone.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// For a word to the page.
const WRITE_MAX: Duration = Duration::from_secs(5);
/// An Opus packet lasts 120 ms and holds 1,275 bytes a frame at most; this is beyond all of them.
const OPUS_BYTES_MAX: usize = 64 * 1_024;

/// The route, to be merged into the node's local HTTP server.
pub fn router(keys: IngestKeys, gate: Gate) -> Router {
    Router::new().route("/publish/{id}", get(publish)).with_state(PageIn { keys, gate })
}

#[derive(Clone)]
struct PageIn {
    keys: IngestKeys,
    gate: Gate,
}

async fn publish(
    State(page): State<PageIn>,
    Path(id): Path<String>,
    headers: HeaderMap,
    socket: WebSocketUpgrade,
) -> Response {
    let refuse = |status, detail: &str| problem(status, detail, None).into_response();
    let foreign = page.gate.origin(&headers) == Origin::Foreign;
    if foreign || !page.gate.ws_authorised(&headers) {
        return refuse(StatusCode::UNAUTHORIZED, "publishing takes this node's token");
    }
    let Ok(id) = id.parse::<StreamId>() else {
        return refuse(StatusCode::NOT_FOUND, "a stream is named by the 64 digits of its id");
    };
    match page.keys.claim_page(id) {
        Ok(claim) => socket
            .protocols([Gate::WS_PROTOCOL])
            .max_message_size(MESSAGE_BYTES_MAX)
            .max_frame_size(MESSAGE_BYTES_MAX)
            .on_upgrade(move |socket| Page::new(socket, claim).run()),
        Err(Refusal::UnknownKey) => {
            refuse(StatusCode::NOT_FOUND, "no stream of this node waits for a page under this id")
        }
        Err(Refusal::Busy) => {
            refuse(StatusCode::CONFLICT, "somebody publishes this stream already")
        }
        Err(Refusal::TooMany) => {
            refuse(StatusCode::SERVICE_UNAVAILABLE, "this node has too many encoders: stop one")
        }
    }
}

/// Why a page's socket came to its end.
enum End {
    /// The page closed it in order.
    Finished,
    /// The connection broke, or nothing came.
    Broken(FinishCause),
    /// The stream was stopped here.
    Stopped,
    /// What came can't be used.
    Refused(String),
}

struct Page {
    socket: WebSocket,
    claim: Claim,
    sound: Option<Converting>,
    /// The newest Opus header, which a repetition does not start anew.
    config: Option<Bytes>,
    /// Turns what the page records into FLV.
    recording: Option<Recording>,
}

struct Recording {
    converter: ToFlv,
    pieces: mpsc::Receiver<Bytes>,
}

/// What a page says before its first bytes, unless they are FLV.
#[derive(Deserialize, Clone, Copy, Debug)]
struct Saying {
    format: Format,
}

#[derive(Deserialize, Clone, Copy, Debug)]
#[serde(rename_all = "lowercase")]
enum Format {
    Matroska,
    Webm,
    Mp4,
}

struct Converting {
    converter: OpusToAac,
    sounds: mpsc::Receiver<Sound>,
}

impl Page {
    const fn new(socket: WebSocket, claim: Claim) -> Self {
        Self { socket, claim, sound: None, config: None, recording: None }
    }

    async fn run(mut self) {
        let encoder = Some("a web page".to_owned());
        if !self.claim.send(RtmpEvent::Started { encoder }).await {
            return;
        }
        self.say(&json!({"type": "ready"})).await;
        let end = self.serve().await;
        let (cause, code, reason) = match &end {
            End::Finished => (FinishCause::Unpublished, close_code::NORMAL, "bye".to_owned()),
            End::Broken(cause) => (*cause, close_code::AWAY, "nothing came".to_owned()),
            End::Stopped => {
                (FinishCause::Unpublished, close_code::NORMAL, "the stream was stopped".to_owned())
            }
            End::Refused(detail) => {
                self.say(&json!({"type": "error", "detail": detail})).await;
                // A close frame has room for 123 bytes.
                let reason = detail.chars().take(60).collect();
                (FinishCause::Malformed, close_code::POLICY, reason)
            }
        };
        tracing::info!(?cause, reason, "a page has stopped publishing");
        self.claim.send(RtmpEvent::Finished { cause }).await;
        let close = Message::Close(Some(CloseFrame { code, reason: Utf8Bytes::from(reason) }));
        // The page may be gone.
        let _ = timeout(WRITE_MAX, self.socket.send(close)).await;
    }

    async fn say(&mut self, what: &serde_json::Value) {
        let text = Message::Text(what.to_string().into());
        // A page that does not read is found out by what it does not send.
        let _ = timeout(WRITE_MAX, self.socket.send(text)).await;
    }

    async fn serve(&mut self) -> End {
        let mut tags = TagReader::new(FlvLimits::default());
        let mut deadline = Instant::now() + IDLE_MAX;
        loop {
            let sound = async {
                match &mut self.sound {
                    Some(converting) => converting.sounds.recv().await,
                    None => std::future::pending().await,
                }
            };
            let piece = async {
                match &mut self.recording {
                    Some(recording) => recording.pieces.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                message = self.socket.recv() => match message {
                    Some(Ok(Message::Binary(bytes))) => {
                        deadline = Instant::now() + IDLE_MAX;
                        let end = match &self.recording {
                            Some(recording) if recording.converter.push(bytes.clone()) => None,
                            Some(_) => Some(End::Refused("the recording can't be converted".into())),
                            None => self.take_flv(&mut tags, &bytes).await,
                        };
                        if let Some(end) = end {
                            return end;
                        }
                    }
                    Some(Ok(Message::Close(_))) => return End::Finished,
                    Some(Ok(Message::Text(text))) => {
                        if let Some(end) = self.begin_recording(&text).await {
                            return end;
                        }
                    }
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    Some(Err(_)) | None => return End::Broken(FinishCause::Closed),
                },
                sound = sound => match sound {
                    Some(sound) => {
                        if !self.claim.send(RtmpEvent::Tag(aac_tag(sound))).await {
                            return End::Stopped;
                        }
                    }
                    None => return End::Refused("the sound converter has failed".into()),
                },
                piece = piece => {
                    let end = match piece {
                        Some(flv) => self.take_flv(&mut tags, &flv).await,
                        None => Some(End::Refused("the recording can't be converted".into())),
                    };
                    if let Some(end) = end {
                        return end;
                    }
                }
                () = sleep_until(deadline) => return End::Broken(FinishCause::Idle),
                () = self.claim.stopped() => return End::Stopped,
            }
        }
    }

    /// What follows is no FLV but what the page says.
    async fn begin_recording(&mut self, text: &str) -> Option<End> {
        let refuse = |why: &str| Some(End::Refused(why.to_owned()));
        let Ok(Saying { format }) = serde_json::from_str(text) else {
            return refuse(
                "only FLV, and {\"format\": \"matroska\"}, \"webm\" or \"mp4\", are understood",
            );
        };
        if self.recording.is_some() {
            return refuse("the format is said once");
        }
        let container = match format {
            Format::Matroska => Container::Matroska,
            Format::Webm => Container::Webm,
            Format::Mp4 => Container::Mp4,
        };
        match tokio::task::spawn_blocking(move || ToFlv::start(container)).await {
            Ok(Ok((converter, pieces))) => {
                self.recording = Some(Recording { converter, pieces });
                None
            }
            Ok(Err(error)) => refuse(&error.to_string()),
            Err(_) => refuse("the converter did not start"),
        }
    }

    async fn take_flv(&mut self, tags: &mut TagReader, flv: &[u8]) -> Option<End> {
        tags.push(flv);
        while let Some(tag) = tags.next() {
            let end = match tag {
                Ok(tag) => self.take(tag).await,
                Err(error) => Some(End::Refused(error.to_string())),
            };
            if end.is_some() {
                return end;
            }
        }
        None
    }

    async fn take(&mut self, tag: Tag) -> Option<End> {
        if tag.audio_codec() == Some(Codec::Opus) {
            return self.convert(&tag).await;
        }
        let taken = self.claim.send(RtmpEvent::Tag(tag)).await;
        (!taken).then_some(End::Stopped)
    }

    /// Hands an Opus tag of Enhanced RTMP to the converter: type and packet type, FourCC, payload.
    async fn convert(&mut self, tag: &Tag) -> Option<End> {
        let payload = tag.body.slice(tag.body.len().min(5)..);
        if payload.len() > OPUS_BYTES_MAX {
            return Some(End::Refused("an Opus packet is too large".into()));
        }
        if tag.is_sequence_header() {
            let head = payload.strip_prefix(b"OpusHead").unwrap_or(&payload);
            let channels = head.get(1).copied().unwrap_or(1);
            if self.config.as_ref() == Some(&payload) {
                return None;
            }
            let started = tokio::task::spawn_blocking(move || OpusToAac::start(channels)).await;
            match started {
                Ok(Ok((converter, sounds))) => {
                    self.sound = Some(Converting { converter, sounds });
                    self.config = Some(payload);
                }
                Ok(Err(error)) => return Some(End::Refused(error.to_string())),
                Err(_) => return Some(End::Refused("the sound converter did not start".into())),
            }
            return None;
        }
        let Some(converting) = &self.sound else {
            return Some(End::Refused("an Opus packet came before the Opus header".into()));
        };
        if !payload.is_empty() && !converting.converter.push(tag.timestamp_ms.into(), payload) {
            tracing::debug!("a sound packet was left out: the converter is behind");
        }
        None
    }
}

/// A frame or header of AAC as RTMP has it.
fn aac_tag(sound: Sound) -> Tag {
    let (packet, at_ms, data) = match &sound {
        Sound::Config(config) => (0, 0, config),
        Sound::Frame { at_ms, data } => (1, *at_ms, data),
    };
    let body = [&[0xaf, packet], &data[..]].concat().into();
    // The low half, which is what an FLV tag has room for.
    let timestamp_ms = u32::try_from(at_ms & u64::from(u32::MAX)).unwrap_or(0);
    Tag { kind: TagKind::Audio, timestamp_ms, body }
}

#[cfg(test)]
#[path = "page_in_tests.rs"]
mod tests;
