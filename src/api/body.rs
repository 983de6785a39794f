//! JSON bodies, queries and preconditions, bounded and strict.
//!
//! Owns reading a request's body, query and `If-Match` into typed values. Does not own the types.

use axum::{
    body::{Bytes, to_bytes},
    extract::{FromRequest, FromRequestParts, Request},
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use serde::de::DeserializeOwned;

use super::error::Problem;

/// Largest request body: a stream with every text at its limit takes a tenth of it.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// The query of a request, strict: an unknown word is an error.
#[derive(Clone, Copy, Debug)]
pub(super) struct Query<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let query = axum::extract::Query::try_from_uri(&parts.uri);
        let query = query.map_err(|error| Problem::invalid(error.body_text()))?;
        Ok(Self(query.0))
    }
}

/// What an `If-Match` header allows: no header, `*` or a list with the current tag.
pub(super) fn matches(headers: &HeaderMap, etag: &str) -> bool {
    let given = headers.get_all(header::IF_MATCH).iter();
    let mut tags = given.filter_map(|tag| tag.to_str().ok()).flat_map(|tag| tag.split(','));
    !headers.contains_key(header::IF_MATCH) || tags.any(|tag| [etag, "*"].contains(&tag.trim()))
}

/// A JSON request body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let bytes = read(request).await?;
        parse(&bytes).map(Self)
    }
}

/// A JSON request body that may be absent, which is the default.
#[derive(Clone, Copy, Debug)]
pub(super) struct OptionalBody<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for OptionalBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        if !request.headers().contains_key(header::CONTENT_TYPE) {
            return Ok(Self(T::default()));
        }
        let bytes = read(request).await?;
        if bytes.is_empty() { Ok(Self(T::default())) } else { parse(&bytes).map(Self) }
    }
}

async fn read(request: Request) -> Result<Bytes, Problem> {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
    // A form or plain text is what a page can send without asking; neither is taken.
    if !kind.eq_ignore_ascii_case("application/json") {
        let detail = "send the body as application/json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", detail));
    }
    to_bytes(request.into_body(), BODY_BYTES_MAX).await.map_err(|_| Problem::too_large())
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // serde would take a list for an object, field by field.
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(Problem::invalid("the body is an object, not a list"));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        if error.is_data() {
            Problem::invalid(error.to_string())
        } else {
            Problem::new(StatusCode::BAD_REQUEST, "malformed", error.to_string())
        }
    })
}
