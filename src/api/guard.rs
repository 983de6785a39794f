//! Who may ask what: the checks before every handler.
//!
//! Owns the order of the checks and the deadline of a request. Does not own their rules (see
//! `edge::local`). Changing anything takes the token; reading takes a request that no web page of a
//! stranger could have made.

use std::time::Duration;

use axum::{
    extract::{Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::error::Problem;
use crate::edge::local::{Gate, Origin};

/// Until a handler answers; bodies that go on (events, media) are not bound by it.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Checks a request, then lets it through.
pub(super) async fn check(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    if let Err(problem) = may(&gate, &request) {
        return problem.into_response();
    }
    let answer = tokio::time::timeout(ANSWER_MAX, next.run(request)).await;
    let mut response = answer.unwrap_or_else(|_| {
        let detail = "the node did not answer in time: look at its log";
        Problem::new(StatusCode::GATEWAY_TIMEOUT, "timeout", detail).into_response()
    });
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

fn may(gate: &Gate, request: &Request) -> Result<(), Problem> {
    let headers = request.headers();
    if !gate.names_us(headers) {
        let detail = "this server answers to 127.0.0.1, [::1] and localhost with its port only";
        return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, "foreign_host", detail));
    }
    if gate.origin(headers) == Origin::Foreign {
        let detail = "pages of other sites may not use this node";
        return Err(Problem::new(StatusCode::FORBIDDEN, "foreign_origin", detail));
    }
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if reads || gate.authorised(headers) { Ok(()) } else { Err(Problem::unauthorized()) }
}
