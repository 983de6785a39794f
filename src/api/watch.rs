//! `/api/v1/streams/{id}/watch`: join a stream so that players here start at once, and leave it.

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
    api.interests.watch(id).await?;
    Ok(Json(api.urls(id)))
}

/// Players that are still reading keep the stream.
pub(super) async fn stop(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let id = stream_id(&id)?;
    if api.interests.unwatch(id).await {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(Problem::not_found(format!("stream {id} is not watched through the API")))
}
