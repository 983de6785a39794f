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

/// Parents, children, delays, repairs and failovers of one stream.
#[utoipa::path(get, path = "/streams/{id}/stats", tag = "streams",
    params(("id" = String, Path, description = "The stream's id, or its link with `/` written as `%2F`")), responses(
    (status = 200, description = "What flows", body = StatsDto),
    (status = 404, description = "No such stream is known"),
))]
pub(super) async fn show(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Json<StatsDto>, Problem> {
    let id = stream_id(&id)?;
    let state = api.node.state().await?;
    let history = api.history.of(id);
    // A stream that waits for its encoder is known to the API alone.
    let stream = api.streams(&state).into_iter().find(|stream| stream.id == id);
    let readers = api.interests.readers(id);
    let stats = stream.map(|s| StatsDto::new(id, s.role, &state, readers, history.as_ref()));
    let unknown = || Problem::not_found(format!("no stream {id} is known to this node"));
    stats.map(Json).ok_or_else(unknown)
}
