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

/// Joins a stream, so that players on this machine start at once.
#[utoipa::path(post, path = "/streams/{id}/watch", tag = "streams", security(("token" = [])),
    params(("id" = String, Path, description = "The stream's id, or its link with `/` written as `%2F`")), responses(
    (status = 200, description = "Where to play it", body = UrlDto),
    (status = 404, description = "Nobody announces it"),
    (status = 503, description = "Nobody can serve it at the moment"),
))]
pub(super) async fn start(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Json<UrlDto>, Problem> {
    let id = stream_id(&id)?;
    api.interests.watch(id).await?;
    Ok(Json(api.urls(id)))
}

/// Leaves a stream. Players that are still reading keep it.
#[utoipa::path(delete, path = "/streams/{id}/watch", tag = "streams", security(("token" = [])),
    params(("id" = String, Path, description = "The stream's id, or its link with `/` written as `%2F`")), responses(
    (status = 204, description = "It is left"),
    (status = 404, description = "It was not watched through the API"),
))]
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
