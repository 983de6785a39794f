//! `GET /api/v1/graph`: the network as this node sees it.

use super::{
    body::Query,
    dto::GraphDto,
    error::Problem,
    state::{Api, stream_id},
};
use axum::{Json, extract::State};
use serde::Deserialize;

/// The query of a graph.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Only {
    /// A stream's id or link: its part of the graph alone.
    stream: Option<String>,
}

/// Nodes, streams and edges that this node knows of.
#[utoipa::path(get, path = "/graph", tag = "network", params(Only), responses(
    (status = 200, description = "The graph; partial, since every node knows its neighbours only", body = GraphDto),
    (status = 404, description = "The stream's id is none"),
))]
pub(super) async fn show(
    State(api): State<Api>,
    Query(only): Query<Only>,
) -> Result<Json<GraphDto>, Problem> {
    let only = only.stream.as_deref().map(stream_id).transpose()?;
    let state = api.node.state().await?;
    Ok(Json(GraphDto::new(&state, api.streams(&state), only)))
}
