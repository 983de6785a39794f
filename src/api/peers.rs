//! `/api/v1/peers`: the nodes this node knows.

use astral_core::ids::{IdError, NodeId};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};

use super::{dto::PeersDto, error::Problem, state::Api};

pub(super) async fn list(State(api): State<Api>) -> Result<Json<PeersDto>, Problem> {
    Ok(Json(PeersDto::new(&api.node.state().await?.overlay)))
}

/// Closes the connection and forgets the addresses; the node may come back by itself.
pub(super) async fn forget(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let node: NodeId = id.parse().map_err(|e: IdError| Problem::not_found(e.to_string()))?;
    if !api.node.state().await?.overlay.nodes.iter().any(|view| view.node == node) {
        return Err(Problem::not_found(format!("node {node} is not known here")));
    }
    api.node.forget(node).await?;
    Ok(StatusCode::NO_CONTENT)
}
