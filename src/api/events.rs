//! `GET /api/v1/events`: what happens, for as long as the reader stays.
//!
//! Owns both forms: a WebSocket with numbered changes for pages, and plain events as JSON lines for
//! scripts. Does not own what is told (see `changes`). A reader that is too slow is let go; it costs
//! nobody else anything: of what it has not read the node holds one batch of frames, or one part of a
//! snapshot.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use axum::{
    body::Body,
    extract::{
        State,
        ws::{
            CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code,
            rejection::WebSocketUpgradeRejection,
        },
    },
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, sleep_until, timeout};

use super::{
    body::Query,
    changes::{Follower, PART_BYTES, Told},
    error::Problem,
    state::{Api, EVENT_READERS_MAX},
};
use crate::edge::local::Gate;

/// A client says little: larger messages end it.
const MESSAGE_BYTES_MAX: usize = 4 * 1024;
/// A client whose socket does not take a batch or a part within this long is let go.
const SEND_MAX: Duration = Duration::from_secs(5);
/// Frames that come sooner than this after the last ones wait, and are written together: a storm
/// costs a client fifty writes a second, not one for each frame.
const PACE: Duration = Duration::from_millis(20);
/// Silence after which a client is told that nothing is new, so that it can tell a quiet node from
/// a dead one within 5 s.
const IDLE: Duration = Duration::from_secs(2);
/// Snapshots that a client may ask for in a row; each is given back after a second.
const RESYNCS_MAX: u32 = 5;

/// What became of event readers since the start.
#[derive(Debug, Default)]
pub(super) struct EventCounters {
    /// Let go because they read too slowly.
    pub(super) slow: AtomicU64,
    /// Let go because of what they sent.
    pub(super) unruly: AtomicU64,
    /// Refused because there were too many.
    pub(super) refused: AtomicU64,
    /// Told everything anew because the ring had forgotten what they missed.
    pub(super) anew: AtomicU64,
}

/// Where a WebSocket client left off.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Left {
    /// The last number it has seen.
    after: Option<u64>,
    /// The `instance` of the snapshot before it.
    instance: Option<String>,
}

/// Events, numbered over a WebSocket or as JSON lines.
///
/// A WebSocket offers `astral.v1` and `astral.token.TOKEN` as sub-protocols and gets a snapshot,
/// then `add`, `update`, `remove` and `event` frames with consecutive numbers.
#[utoipa::path(get, path = "/events", tag = "events", params(Left), responses(
    (status = 101, description = "The WebSocket is open"),
    (status = 200, description = "One JSON object a line", content_type = "application/x-ndjson"),
    (status = 401, description = "A WebSocket without the token"),
    (status = 503, description = "Too many readers"),
))]
pub(super) async fn follow(
    State(api): State<Api>,
    Query(left): Query<Left>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    if headers.contains_key(header::UPGRADE) && !api.gate.ws_authorised(&headers) {
        return Err(Problem::unauthorized());
    }
    let Ok(permit) = api.event_readers.clone().try_acquire_owned() else {
        api.event_counters.refused.fetch_add(1, Ordering::Relaxed);
        let detail = format!("{EVENT_READERS_MAX} programs read events already");
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too_many", detail));
    };
    if let Ok(upgrade) = upgrade {
        let upgrade = upgrade
            .protocols([Gate::WS_PROTOCOL])
            .max_message_size(MESSAGE_BYTES_MAX)
            .max_frame_size(MESSAGE_BYTES_MAX)
            .write_buffer_size(PART_BYTES);
        return Ok(upgrade.on_upgrade(async move |socket| {
            let _held = permit;
            let stopping = api.stopping.clone();
            tokio::select! {
                () = serve(&api, socket, &left) => {}
                // The socket closes with the task.
                () = stopping.cancelled() => {}
            }
        }));
    }
    if headers.contains_key(header::UPGRADE) {
        let detail = "this is no WebSocket request that can be answered";
        return Err(Problem::new(StatusCode::BAD_REQUEST, "malformed", detail));
    }
    let lines = api.node.events().map(move |event| {
        let _held = &permit;
        Ok::<_, std::io::Error>(format!("{event}\n"))
    });
    let stopping = api.stopping.clone();
    let lines = lines.take_until(async move { stopping.cancelled().await });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, Body::from_stream(lines)).into_response())
}

/// Why a client is let go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// It left, or its socket failed.
    Left,
    /// It reads too slowly.
    Slow,
    /// It sent what it should not.
    Unruly,
}

async fn serve(api: &Api, mut socket: WebSocket, left: &Left) {
    let end = talk(api, &mut socket, left).await;
    let (counter, code, reason) = match end {
        End::Left => return,
        End::Slow => (&api.event_counters.slow, close_code::AGAIN, "too slow: reconnect"),
        End::Unruly => (&api.event_counters.unruly, close_code::POLICY, "not understood"),
    };
    counter.fetch_add(1, Ordering::Relaxed);
    let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
    // Whoever reads nothing does not read this either.
    let _ = timeout(Duration::from_millis(100), socket.send(close)).await;
}

async fn talk(api: &Api, socket: &mut WebSocket, left: &Left) -> End {
    let mut follower = api.changes.follow(left.instance.as_deref(), left.after);
    let mut resyncs = RESYNCS_MAX;
    let mut asked = true;
    let mut second = tokio::time::interval(Duration::from_secs(1));
    let mut written = Instant::now();
    let mut due = written;
    loop {
        let told = tokio::select! {
            told = next(&mut follower, due) => told,
            message = socket.recv() => match message {
                Some(Ok(Message::Text(text))) if is_resync(&text) && resyncs > 0 => {
                    resyncs -= 1;
                    asked = true;
                    follower.resync();
                    continue;
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                Some(Ok(Message::Close(_)) | Err(_)) | None => return End::Left,
                Some(Ok(Message::Text(_) | Message::Binary(_))) => return End::Unruly,
            },
            _ = second.tick() => {
                resyncs = RESYNCS_MAX.min(resyncs + 1);
                if written.elapsed() < IDLE {
                    continue;
                }
                let idle = json!({"type": "idle", "seq": follower.seq()});
                Told::Frames(vec![idle.to_string().into()])
            }
        };
        if let Err(end) = tell(api, socket, told, std::mem::take(&mut asked)).await {
            return end;
        }
        written = Instant::now();
        due = written + PACE;
    }
}

/// What comes next, not before it is `due`.
async fn next(follower: &mut Follower, due: Instant) -> Told {
    sleep_until(due).await;
    follower.next().await
}

async fn tell(api: &Api, socket: &mut WebSocket, told: Told, asked: bool) -> Result<(), End> {
    match told {
        Told::Frames(frames) => send(socket, frames).await,
        Told::Snapshot(snapshot) => {
            if !asked {
                api.event_counters.anew.fetch_add(1, Ordering::Relaxed);
            }
            for part in &snapshot.parts {
                send(socket, vec![part.clone()]).await?;
            }
            Ok(())
        }
        Told::TooSlow => Err(End::Slow),
    }
}

fn is_resync(text: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(text).is_ok_and(|value| value["type"] == "resync")
}

/// Writes the frames together, and waits until the socket has taken them all.
async fn send(socket: &mut WebSocket, frames: Vec<Utf8Bytes>) -> Result<(), End> {
    let written = async {
        for frame in frames {
            socket.feed(Message::Text(frame)).await?;
        }
        socket.flush().await
    };
    match timeout(SEND_MAX, written).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(End::Left),
        Err(_) => Err(End::Slow),
    }
}
