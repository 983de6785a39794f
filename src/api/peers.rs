//! `/api/v1/peers`: the nodes this node knows.

use astral_core::ids::{IdError, NodeId};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};

use super::{
    body::Query,
    dto::{Page, PeersDto},
    error::Problem,
    state::Api,
};

/// Known nodes, connected or not.
#[utoipa::path(get, path = "/peers", tag = "network", params(Page), responses(
    (status = 200, description = "One page of them", body = PeersDto),
))]
pub(super) async fn list(
    State(api): State<Api>,
    Query(page): Query<Page>,
) -> Result<Json<PeersDto>, Problem> {
    Ok(Json(PeersDto::new(&api.node.state().await?.overlay, &page)))
}

/// Closes the connection and forgets the addresses; the node may come back by itself.
#[utoipa::path(delete, path = "/peers/{id}", tag = "network", security(("token" = [])),
    params(("id" = String, Path, description = "The node's id, 64 digits")), responses(
    (status = 204, description = "It is forgotten"),
    (status = 404, description = "It was not known"),
))]
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
