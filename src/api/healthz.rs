//! `GET /healthz`: whether the node lives.

use axum::{extract::State, http::StatusCode};

use super::{error::Problem, state::Api};

/// Whether the node lives.
///
/// Answers at once, also under load: it says whether the node's own tasks answered the last time
/// that they were asked, once a second.
#[utoipa::path(get, path = "/healthz", tag = "node", responses(
    (status = 200, description = "It does", body = String, content_type = "text/plain"),
    (status = 503, description = "Its tasks do not answer"),
))]
pub(super) async fn show(State(api): State<Api>) -> Result<&'static str, Problem> {
    if api.pulse.is_well() {
        return Ok("ok\n");
    }
    let silence = api.pulse.silence().as_secs();
    let detail = format!("the node has not answered for {silence} s: look at its log");
    Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "silent", detail))
}
