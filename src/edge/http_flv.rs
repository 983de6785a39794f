//! `GET /live/{id}.flv`: any stream as HTTP-FLV for players on this machine, and `WS /live/{id}`: the
//! same bytes for a page.
//!
//! Owns the route. Does not own the listener (the API's), the access rule (see `live`), nor joining
//! and leaving (see `interest`). The URL holds for the stream's whole life: the response goes on through
//! failover and source restarts, and ends when the stream does.

use astral_core::ids::StreamId;
use axum::{
    Router,
    body::Body,
    extract::{
        Path, State,
        ws::{WebSocketUpgrade, rejection::WebSocketUpgradeRejection},
    },
    http::{HeaderMap, Method, header},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio::time::timeout;

use super::{
    interest::{Interests, Reader},
    live::{FIRST_MEDIA_MAX, LiveError, may_play},
    local::Gate,
    ports::{Keep, MediaItem, MediaSource},
    splice::{Clock, Splicer},
    ws_flv,
};

/// The route, to be merged into the node's local HTTP server.
pub fn router(interests: Interests, gate: Gate) -> Router {
    Router::new().route("/live/{id}", get(live)).with_state(Live { interests, gate })
}

/// The URL of a stream on the server at `base` (such as `http://127.0.0.1:8000`).
#[must_use]
pub fn url(base: &str, id: StreamId) -> String {
    format!("{base}/live/{id}.flv")
}

/// Answers with the stream as HTTP-FLV for whoever may see it; `held` is dropped with the answer.
pub async fn play(interests: &Interests, id: StreamId, held: impl Send + 'static) -> Response {
    match Output::open(interests, id).await {
        Ok((output, first)) => {
            let kind = [(header::CONTENT_TYPE, "video/x-flv"), (header::CACHE_CONTROL, "no-store")];
            (kind, output.into_body(first, held)).into_response()
        }
        Err(error) => error.into_response(),
    }
}

#[derive(Clone)]
struct Live {
    interests: Interests,
    gate: Gate,
}

async fn live(
    State(live): State<Live>,
    Path(file): Path<String>,
    method: Method,
    headers: HeaderMap,
    socket: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, LiveError> {
    let (name, is_http) = match file.strip_suffix(".flv") {
        Some(name) => (name, true),
        None => (file.as_str(), false),
    };
    let id = name.parse::<StreamId>().map_err(|error| LiveError::Path(error.to_string()))?;
    may_play(&live.gate, &headers)?;
    if !is_http {
        let socket = socket.map_err(|_| LiveError::Path("media URLs end in .flv".into()))?;
        let (output, first) = Output::open(&live.interests, id).await?;
        return Ok(ws_flv::answer(socket, output, first));
    }
    let kind = [
        (header::CONTENT_TYPE, "video/x-flv"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    if method == Method::HEAD {
        return Ok(kind.into_response());
    }
    let (output, first) = Output::open(&live.interests, id).await?;
    Ok((kind, output.into_body(first, ())).into_response())
}

/// What one player gets.
pub(super) struct Output {
    reader: Reader,
    splicer: Splicer,
}

impl Output {
    /// Opens `id`, and waits for its first bytes.
    async fn open(interests: &Interests, id: StreamId) -> Result<(Self, Bytes), LiveError> {
        let reader = interests.read(id, Keep::Live).await?;
        let mut output = Self { reader, splicer: Splicer::new(Clock::Zero) };
        let first = timeout(FIRST_MEDIA_MAX, output.next()).await;
        let first = first.map_err(|_| LiveError::Silent)?.ok_or(LiveError::Over)?;
        Ok((output, first))
    }

    /// The next bytes; `None` at the end of the stream.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        loop {
            let item = self.reader.next().await?;
            if matches!(item, MediaItem::Ended { .. }) {
                return None;
            }
            let bytes = self.splicer.take(&item);
            if !bytes.is_empty() {
                return Some(bytes);
            }
        }
    }

    /// The response body: pulled by the player's socket, so that a slow player slows nobody and
    /// the node skips for it.
    fn into_body(self, first: Bytes, held: impl Send + 'static) -> Body {
        let rest = stream::unfold((self, held), |(mut output, held)| async move {
            let bytes = output.next().await?;
            Some((bytes, (output, held)))
        });
        let all = stream::once(async { first }).chain(rest);
        Body::from_stream(all.map(Ok::<Bytes, std::convert::Infallible>))
    }
}

#[cfg(test)]
#[path = "http_flv_tests.rs"]
mod tests;
