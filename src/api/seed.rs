//! `/api/v1/streams/{id}/seed`: forward a stream without playing it, and stop that.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};

use super::{
    dto::UrlDto,
    error::Problem,
    state::{Api, stream_id},
};

pub(super) async fn start(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Json<UrlDto>, Problem> {
    let id = stream_id(&id)?;
    api.node.seed(id).await?;
    api.seeding(id);
    Ok(Json(api.urls(id)))
}

/// Players that are still reading keep the stream.
pub(super) async fn stop(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let id = stream_id(&id)?;
    if !api.unseeded(id) {
        return Err(Problem::not_found(format!("stream {id} is not seeded through the API")));
    }
    api.node.unseed(id).await?;
    api.interests.stop_if_idle(id).await;
    Ok(StatusCode::NO_CONTENT)
}
