//! `GET /healthz`: whether the node lives.

use axum::extract::State;

use super::{error::Problem, state::Api};

/// Answers only when the node's own tasks do.
pub(super) async fn show(State(api): State<Api>) -> Result<&'static str, Problem> {
    api.node.state().await?;
    Ok("ok\n")
}
