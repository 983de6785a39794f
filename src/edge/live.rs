//! What every media route shares: who may, and how a refusal is said.
//!
//! Owns the access rule of media and its errors. Does not own the routes.

use std::time::Duration;

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{
    interest::ReadError,
    local::{Gate, Origin},
    ports::OpenError,
};

/// Until the first media of a stream that is being joined; then the player is told to come back
/// rather than left waiting: joining takes a second or two when somebody can serve.
pub(super) const FIRST_MEDIA_MAX: Duration = Duration::from_secs(10);

/// Whether a request may make this node play, and so join, a stream. A page of a stranger must not,
/// by an `<img>` or a fetch; players send neither `Origin` nor `Sec-Fetch-Site`; our own page brings
/// the token.
///
/// # Errors
/// [`LiveError::Page`].
pub(super) fn may_play(gate: &Gate, headers: &HeaderMap) -> Result<(), LiveError> {
    let may = match gate.origin(headers) {
        Origin::Program => true,
        Origin::Same => gate.ws_authorised(headers),
        Origin::User | Origin::Foreign => false,
    };
    if may { Ok(()) } else { Err(LiveError::Page) }
}

/// Why no media is sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum LiveError {
    #[error("{0}")]
    Path(String),
    #[error("a web page needs this node's own origin and its token to open a stream")]
    Page,
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the stream is over")]
    Over,
    #[error("{0}")]
    Busy(String),
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
            Self::Busy(_) => (StatusCode::SERVICE_UNAVAILABLE, Some(5_000)),
            Self::Read(ReadError::TooMany) => (StatusCode::SERVICE_UNAVAILABLE, Some(5_000)),
            Self::Read(ReadError::Open(error)) => match error {
                OpenError::Unknown { .. } => (StatusCode::NOT_FOUND, None),
                OpenError::NoCapacity { retry_ms, .. } => {
                    (StatusCode::SERVICE_UNAVAILABLE, Some(*retry_ms))
                }
                OpenError::Node { .. } => (StatusCode::INTERNAL_SERVER_ERROR, None),
            },
        };
        problem(status, &self.to_string(), retry_ms)
    }
}

/// A refusal as every route of this server says it (RFC 9457).
pub(super) fn problem(status: StatusCode, detail: &str, retry_ms: Option<u64>) -> Response {
    let problem = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "detail": detail,
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
