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

/// Forwards a stream without playing it.
#[utoipa::path(post, path = "/streams/{id}/seed", tag = "streams", security(("token" = [])),
    params(("id" = String, Path, description = "The stream's id, or its link with `/` written as `%2F`")), responses(
    (status = 200, description = "It is seeded", body = UrlDto),
))]
pub(super) async fn start(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Json<UrlDto>, Problem> {
    let id = stream_id(&id)?;
    api.node.seed(id).await?;
    api.seeding(id);
    Ok(Json(api.urls(id)))
}

/// Stops seeding. Players that are still reading keep the stream.
#[utoipa::path(delete, path = "/streams/{id}/seed", tag = "streams", security(("token" = [])),
    params(("id" = String, Path, description = "The stream's id, or its link with `/` written as `%2F`")), responses(
    (status = 204, description = "It is not seeded any more"),
    (status = 404, description = "It was not seeded through the API"),
))]
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
