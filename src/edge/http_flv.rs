//! `GET /live/{id}.flv`: any stream as HTTP-FLV for players on this machine.
//!
//! Owns the route and its access rule. Does not own the listener (the API's), nor joining and
//! leaving (see `interest`). The URL holds for the stream's whole life: the response goes on through
//! failover and source restarts, and ends when the stream does.

use std::time::Duration;

use astral_core::ids::StreamId;
use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio::time::timeout;

use super::{
    interest::{Interests, ReadError, Reader},
    local::{Gate, Origin},
    ports::{Keep, MediaItem, MediaSource, OpenError},
    splice::{Clock, Splicer},
};

/// Until the first media of a stream that is being joined; then the player is told to come back
/// rather than left waiting: joining takes a second or two when somebody can serve.
const FIRST_MEDIA_MAX: Duration = Duration::from_secs(10);

/// The route, to be merged into the node's local HTTP server.
pub fn router(interests: Interests, gate: Gate) -> Router {
    Router::new().route("/live/{file}", get(live)).with_state(Live { interests, gate })
}

/// The URL of a stream on the server at `base` (such as `http://127.0.0.1:8000`).
#[must_use]
pub fn url(base: &str, id: StreamId) -> String {
    format!("{base}/live/{id}.flv")
}

#[derive(Clone)]
struct Live {
    interests: Interests,
    gate: Gate,
}

/// Why no media is sent.
#[derive(Debug, thiserror::Error)]
enum LiveError {
    #[error("{0}")]
    Path(String),
    #[error("a web page needs this node's own origin and its token to open a stream")]
    Page,
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the stream is over")]
    Over,
    #[error(
        "nothing came from this stream for {}s: nobody announces it, nobody can serve it, or its \
         source is silent", FIRST_MEDIA_MAX.as_secs()
    )]
    Silent,
}

impl IntoResponse for LiveError {
    fn into_response(self) -> Response {
        let (status, retry_ms) = match &self {
            Self::Path(_) | Self::Over => (StatusCode::NOT_FOUND, None),
            Self::Silent => (StatusCode::SERVICE_UNAVAILABLE, Some(1_000)),
            Self::Page => (StatusCode::FORBIDDEN, None),
            Self::Read(ReadError::TooMany) => (StatusCode::SERVICE_UNAVAILABLE, Some(5_000)),
            Self::Read(ReadError::Open(error)) => match error {
                OpenError::Unknown { .. } => (StatusCode::NOT_FOUND, None),
                OpenError::NoCapacity { retry_ms, .. } => {
                    (StatusCode::SERVICE_UNAVAILABLE, Some(*retry_ms))
                }
                OpenError::Node { .. } => (StatusCode::INTERNAL_SERVER_ERROR, None),
            },
        };
        let problem = serde_json::json!({
            "type": "about:blank",
            "title": status.canonical_reason(),
            "status": status.as_u16(),
            "detail": self.to_string(),
        });
        let json = HeaderValue::from_static("application/problem+json");
        let headers = [(header::CONTENT_TYPE, json)];
        let mut response = (status, headers, problem.to_string()).into_response();
        if let Some(ms) = retry_ms {
            let seconds = HeaderValue::from(ms.div_ceil(1_000));
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}

async fn live(
    State(live): State<Live>,
    Path(file): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, LiveError> {
    let id = file.strip_suffix(".flv").map(str::parse::<StreamId>);
    let id = match id {
        Some(Ok(id)) => id,
        Some(Err(error)) => return Err(LiveError::Path(error.to_string())),
        None => return Err(LiveError::Path("media URLs end in .flv".into())),
    };
    // A page of a stranger must not make this node join streams by an <img> or a fetch. Players
    // send neither header.
    let may = match live.gate.origin(&headers) {
        Origin::Program => true,
        Origin::Same => live.gate.authorised(&headers),
        Origin::User | Origin::Foreign => false,
    };
    if !may {
        return Err(LiveError::Page);
    }
    let kind = [
        (header::CONTENT_TYPE, "video/x-flv"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    if method == Method::HEAD {
        return Ok(kind.into_response());
    }
    let mut output = Output {
        reader: live.interests.read(id, Keep::Live).await?,
        splicer: Splicer::new(Clock::Zero),
    };
    let first = timeout(FIRST_MEDIA_MAX, output.next()).await;
    let first = first.map_err(|_| LiveError::Silent)?.ok_or(LiveError::Over)?;
    Ok((kind, output.into_body(first)).into_response())
}

/// What one player gets.
struct Output {
    reader: Reader,
    splicer: Splicer,
}

impl Output {
    /// The next bytes; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Bytes> {
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
    fn into_body(self, first: Bytes) -> Body {
        let rest = stream::unfold(self, |mut output| async move {
            let bytes = output.next().await?;
            Some((bytes, output))
        });
        let all = stream::once(async { first }).chain(rest);
        Body::from_stream(all.map(Ok::<Bytes, std::convert::Infallible>))
    }
}

#[cfg(test)]
#[path = "http_flv_tests.rs"]
mod tests;
