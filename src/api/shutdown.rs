//! `POST /api/v1/node/shutdown`: leave politely and end the process.

use axum::{extract::State, http::StatusCode};

use super::state::Api;

/// Answers before the node leaves; the program that runs the node does the leaving.
#[utoipa::path(post, path = "/node/shutdown", tag = "node", security(("token" = [])), responses(
    (status = 202, description = "It leaves"),
))]
pub(super) async fn shutdown(State(api): State<Api>) -> StatusCode {
    tracing::info!("asked to shut down through the API");
    api.shutdown.cancel();
    StatusCode::ACCEPTED
}
