//! `GET /live/{id}.flv`: any stream as HTTP-FLV for players on this machine.
//!
//! Owns the route and its access rule. Does not own the listener (the API's), nor joining and
//! leaving (see `interest`). The URL holds for the stream's whole life: the response goes on through
//! failover and source restarts, and ends when the stream does.

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
use futures::stream;

use super::{
    interest::{Interests, ReadError, Reader},
    local::{Gate, Origin},
    ports::{Keep, MediaItem, MediaSource, OpenError},
    splice::{Clock, Splicer},
};

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
}

impl IntoResponse for LiveError {
    fn into_response(self) -> Response {
        let (status, retry_ms) = match &self {
            Self::Path(_) => (StatusCode::NOT_FOUND, None),
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
    let reader = live.interests.read(id, Keep::Live).await?;
    Ok((kind, body(reader)).into_response())
}

/// The response body: pulled by the player's socket, so that a slow player slows nobody and the
/// node skips for it.
fn body(reader: Reader) -> Body {
    let state = (reader, Splicer::new(Clock::Zero));
    Body::from_stream(stream::unfold(state, |(mut reader, mut splicer)| async move {
        loop {
            let item = reader.next().await?;
            if matches!(item, MediaItem::Ended { .. }) {
                return None;
            }
            let bytes = splicer.take(&item);
            if !bytes.is_empty() {
                return Some((Ok::<Bytes, std::io::Error>(bytes), (reader, splicer)));
            }
        }
    }))
}

#[cfg(test)]
#[path = "http_flv_tests.rs"]
mod tests;
