//! `GET /api/v1/streams/{id}/stats`: what flows in one stream.

use axum::{
    Json,
    extract::{Path, State},
};

use super::{
    dto::StatsDto,
    error::Problem,
    state::{Api, stream_id},
};

pub(super) async fn show(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Json<StatsDto>, Problem> {
    let id = stream_id(&id)?;
    let state = api.node.state().await?;
    let stats = StatsDto::new(id, &state, api.interests.readers(id));
    let unknown = || Problem::not_found(format!("no stream {id} is known to this node"));
    stats.map(Json).ok_or_else(unknown)
}
