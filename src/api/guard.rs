//! Who may ask what: the checks before every handler.
//!
//! Owns the order of the checks, the deadline of a request and the headers of every answer. Does
//! not own their rules (see `edge::local`, `rate`). Changing anything takes the token; reading takes
//! a request that no web page of a stranger could have made, and the token too when other machines
//! may connect.

use std::time::Duration;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{
    body::BODY_BYTES_MAX,
    error::Problem,
    rate::{Kind, Rates},
};
use crate::edge::local::{Gate, Origin};

/// Until a handler answers; bodies that go on (events, media) are not bound by it.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// How long a browser may remember what an allowed origin may do.
const PREFLIGHT_AGE_S: &str = "600";
/// The one change that takes no token: it is how a page gets it.
const SESSION: &str = "/api/v1/session";
/// What of the server is not the web app's own files.
const NOT_FILES: [&str; 4] = ["/api/", "/live/", "/publish/", "/metrics"];

/// Headers of every answer, unless its handler set another value.
pub(super) const HEADERS: [(HeaderName, &str); 6] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// What the checks need.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    pub(super) gate: Gate,
    pub(super) rates: Rates,
}

/// Checks a request, then lets it through.
pub(super) async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let allowed = guard.gate.allowed_origin(request.headers()).map(HeaderValue::from_str);
    let mut response = match may(&guard, &request) {
        Err(problem) => problem.into_response(),
        Ok(()) if *request.method() == Method::OPTIONS => StatusCode::NO_CONTENT.into_response(),
        Ok(()) => {
            let answer = tokio::time::timeout(ANSWER_MAX, next.run(request)).await;
            answer.unwrap_or_else(|_| {
                let detail = "the node did not answer in time: look at its log";
                Problem::new(StatusCode::GATEWAY_TIMEOUT, "timeout", detail).into_response()
            })
        }
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    if let Some(Ok(origin)) = allowed {
        allow(headers, origin);
    }
    response
}

/// Says to the browser that a page of `origin` may read the answer and send the token.
fn allow(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, PATCH, DELETE"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type, if-match"),
        (header::ACCESS_CONTROL_EXPOSE_HEADERS, "etag, location, retry-after"),
        (header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_AGE_S),
        (HeaderName::from_static("cross-origin-resource-policy"), "cross-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

fn may(guard: &Guard, request: &Request) -> Result<(), Problem> {
    let (gate, headers) = (&guard.gate, request.headers());
    if !gate.names_us(headers) {
        let detail = "this server answers to 127.0.0.1, [::1] and localhost with its port only; \
                      --api-host adds a name";
        return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, "foreign_host", detail));
    }
    if gate.origin(headers) == Origin::Foreign {
        let detail = "pages of other sites may not use this node; --api-origin allows one";
        return Err(Problem::new(StatusCode::FORBIDDEN, "foreign_origin", detail));
    }
    let trusted = gate.ws_authorised(headers);
    limit(guard, if trusted { Kind::Trusted } else { Kind::Other })?;
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    if length.and_then(|length| length.parse().ok()).is_some_and(|n: usize| n > BODY_BYTES_MAX) {
        return Err(Problem::too_large());
    }
    if trusted || !takes_token(gate, request) {
        return Ok(());
    }
    limit(guard, Kind::Refused)?;
    Err(Problem::unauthorized())
}

fn limit(guard: &Guard, kind: Kind) -> Result<(), Problem> {
    guard.rates.take(kind).map_err(Problem::too_many_requests)
}

fn takes_token(gate: &Gate, request: &Request) -> bool {
    let path = request.uri().path();
    match *request.method() {
        Method::GET | Method::HEAD => {
            gate.is_remote() && NOT_FILES.iter().any(|prefix| path.starts_with(prefix))
        }
        // A browser asks for an allowed origin before it sends the token; others get a 401.
        Method::OPTIONS => gate.allowed_origin(request.headers()).is_none(),
        Method::POST => path != SESSION,
        _ => true,
    }
}
