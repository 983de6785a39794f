//! Errors as RFC 9457 problems.
//!
//! Owns the one mapping of what went wrong to HTTP status codes, and the JSON form. Does not own
//! the errors themselves.

use std::time::Duration;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{body::BODY_BYTES_MAX, dto::ProblemDto, port::PortError};
use crate::edge::{ports::OpenError, rtmp::KeyError};

/// Why a request failed, as the client reads it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    retry_ms: Option<u64>,
}

impl Problem {
    /// A problem with a `code` for programs and a `detail` for people, which says what to do next.
    #[must_use]
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), retry_ms: None }
    }

    /// Something in the path or body is not what it should be.
    #[must_use]
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail)
    }

    /// The thing asked for is not there.
    #[must_use]
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    /// The request needs the token.
    #[must_use]
    pub fn unauthorized() -> Self {
        let detail = "send the token of this node as 'Authorization: Bearer TOKEN'; it is in the \
                      file that the node names when it starts";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
    }

    /// The body is larger than any that makes sense.
    #[must_use]
    pub fn too_large() -> Self {
        let detail = format!("a body has at most {BODY_BYTES_MAX} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
    }

    /// Somebody asks too often; the next request may come after `wait`.
    #[must_use]
    pub fn too_many_requests(wait: Duration) -> Self {
        let detail = "too many requests: slow down, and use /events instead of asking again";
        let retry_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1);
        Self {
            retry_ms: Some(retry_ms),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", detail)
        }
    }

    /// The thing was changed since the client read it.
    #[must_use]
    pub fn changed() -> Self {
        let detail = "it was changed since you read it: read it again, then send the new ETag";
        Self::new(StatusCode::PRECONDITION_FAILED, "changed", detail)
    }

    /// The status that the client gets.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.status
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let wire = ProblemDto {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            code: self.code,
            detail: self.detail,
            retry_ms: self.retry_ms,
        };
        // Texts and numbers always serialise.
        let body = serde_json::to_string(&wire).unwrap_or_default();
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (self.status, kind, body).into_response();
        let headers = response.headers_mut();
        if let Some(ms) = self.retry_ms {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1_000)));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<PortError> for Problem {
    fn from(error: PortError) -> Self {
        let detail = error.to_string();
        match error {
            PortError::Gone => Self::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", detail),
            PortError::Unknown { .. } => Self::not_found(detail),
            PortError::Conflict { .. } => Self::new(StatusCode::CONFLICT, "conflict", detail),
            PortError::Invalid { .. } => Self::invalid(detail),
            PortError::Failed { .. } => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", detail)
            }
        }
    }
}

impl From<OpenError> for Problem {
    fn from(error: OpenError) -> Self {
        let detail = error.to_string();
        match error {
            OpenError::Unknown { .. } => Self::not_found(detail),
            OpenError::NoCapacity { retry_ms, .. } => Self {
                retry_ms: Some(retry_ms),
                ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "no_capacity", detail)
            },
            OpenError::Node { .. } => Self::new(StatusCode::SERVICE_UNAVAILABLE, "failed", detail),
        }
    }
}

impl From<KeyError> for Problem {
    fn from(error: KeyError) -> Self {
        let status = match error {
            KeyError::Full | KeyError::Taken => StatusCode::CONFLICT,
            KeyError::NoRandomness => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, "no_key", error.to_string())
    }
}
