//! `GET /live/{id}/index.m3u8`: any stream as low-latency HLS for players on this machine.
//!
//! Owns the routes and what is waited for. Does not own the listener (the API's), the access rule
//! (see `live`), the segments (see [`window`]) nor MP4 (see `fmp4`). Nothing is cut until somebody
//! asks, and nothing any more when nobody has asked for a while; no GStreamer is needed. The URL
//! holds through failover and source restarts: one clock, and a discontinuity only where the
//! codec's headers change.

pub mod hub;
pub mod window;

use std::time::Duration;

use astral_core::ids::StreamId;
use axum::{
    Router,
    extract::{Path, Query, State},
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Deserialize;

use self::{
    hub::{Hub, HubError},
    window::{Found, Window},
};
use super::{
    interest::Interests,
    live::{LiveError, may_play},
    local::Gate,
};

/// Until the first playlist: joining, then one whole segment.
const FIRST_PLAYLIST_MAX: Duration = Duration::from_secs(20);
/// How long a request for what comes next may wait: several parts.
const NEXT_MAX: Duration = Duration::from_secs(6);

/// The routes, to be merged into the node's local HTTP server.
pub fn router(interests: Interests, gate: Gate) -> Router {
    let state = Hls { hub: Hub::new(interests), gate };
    Router::new().route("/live/{id}/{file}", get(serve)).with_state(state)
}

/// The URL of a stream's playlist on the server at `base` (such as `http://127.0.0.1:8000`).
#[must_use]
pub fn url(base: &str, id: StreamId) -> String {
    format!("{base}/live/{id}/index.m3u8")
}

#[derive(Clone)]
struct Hls {
    hub: Hub,
    gate: Gate,
}

/// What a low-latency player adds to the playlist's URL: answer when this is there.
#[derive(Deserialize, Clone, Copy, Debug)]
struct Wanted {
    #[serde(rename = "_HLS_msn")]
    segment: Option<u64>,
    #[serde(rename = "_HLS_part")]
    part: Option<usize>,
}

/// What a path below a stream names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum File {
    Playlist,
    Init(u32),
    Segment(u64),
    Part(u64, usize),
}

impl File {
    fn parse(name: &str) -> Option<Self> {
        if name == "index.m3u8" {
            return Some(Self::Playlist);
        }
        if let Some(number) = name.strip_prefix("init-").and_then(|n| n.strip_suffix(".mp4")) {
            return number.parse().ok().map(Self::Init);
        }
        let name = name.strip_suffix(".m4s")?;
        if let Some(number) = name.strip_prefix("seg-") {
            return number.parse().ok().map(Self::Segment);
        }
        let (segment, part) = name.strip_prefix("part-")?.split_once('-')?;
        Some(Self::Part(segment.parse().ok()?, part.parse().ok()?))
    }
}

impl From<HubError> for LiveError {
    fn from(error: HubError) -> Self {
        match error {
            HubError::TooMany => Self::Busy(error.to_string()),
            HubError::Read(error) => error.into(),
        }
    }
}

async fn serve(
    State(hls): State<Hls>,
    Path((id, file)): Path<(String, String)>,
    Query(wanted): Query<Wanted>,
    headers: HeaderMap,
) -> Result<Response, LiveError> {
    let id = id.parse::<StreamId>().map_err(|error| LiveError::Path(error.to_string()))?;
    let file = File::parse(&file)
        .ok_or_else(|| LiveError::Path("the playlist of a stream is index.m3u8".into()))?;
    may_play(&hls.gate, &headers)?;
    if file == File::Playlist {
        return playlist(&hls.hub, id, wanted).await;
    }
    let cutting = hls.hub.get(id).ok_or_else(not_there)?;
    let find = |window: &Window| match file {
        File::Init(number) => window.init(number),
        File::Segment(number) => window.segment(number),
        File::Part(number, part) => window.part(number, part),
        File::Playlist => Found::Gone,
    };
    let found = cutting.until(NEXT_MAX, |window| match find(window) {
        Found::NotYet => None,
        found => Some(found),
    });
    match found.await {
        Some(Found::Bytes(bytes)) => {
            Ok(([(header::CONTENT_TYPE, "video/mp4")], bytes).into_response())
        }
        Some(Found::NotYet | Found::Gone) | None => Err(not_there()),
    }
}

fn not_there() -> LiveError {
    LiveError::Path("this part of the stream is not there any more: load the playlist".into())
}

async fn playlist(hub: &Hub, id: StreamId, wanted: Wanted) -> Result<Response, LiveError> {
    let cutting = hub.open(id).await?;
    let ready = cutting.until(FIRST_PLAYLIST_MAX, |window| window.is_ready().then_some(()));
    if ready.await.is_none() && cutting.with(Window::is_empty) {
        return Err(LiveError::Silent);
    }
    if let Some(segment) = wanted.segment {
        if !cutting.with(|window| window.is_near(segment)) {
            return Err(LiveError::Path("that segment is far in the future".into()));
        }
        let reached = |window: &Window| window.has_reached(segment, wanted.part).then_some(());
        // A stream that pauses gets its playlist late and unchanged; the player asks again.
        let _ = cutting.until(NEXT_MAX, reached).await;
    }
    let text = cutting.with(Window::playlist);
    let kind = [(header::CONTENT_TYPE, "application/vnd.apple.mpegurl")];
    Ok((kind, text).into_response())
}

#[cfg(test)]
#[path = "hls_tests.rs"]
mod tests;
