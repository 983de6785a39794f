//! `GET /api/v1/streams/{id}/url`: where to play and where to publish one stream.

use axum::{
    Json,
    extract::{Path, State},
    http::HeaderMap,
};

use super::{
    dto::UrlDto,
    error::Problem,
    state::{Api, stream_id},
};

/// Where to play a stream, and where its encoder publishes.
///
/// Needs the token although it changes nothing: the answer holds the stream key.
#[utoipa::path(get, path = "/streams/{id}/url", tag = "streams", security(("token" = [])),
    params(("id" = String, Path, description = "The stream's id, or its link with `/` written as `%2F`")), responses(
    (status = 200, description = "Its URLs", body = UrlDto),
    (status = 401, description = "The token is missing"),
    (status = 404, description = "No such stream is known"),
))]
pub(super) async fn show(
    State(api): State<Api>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<UrlDto>, Problem> {
    if !api.gate.authorised(&headers) {
        return Err(Problem::unauthorized());
    }
    let id = stream_id(&id)?;
    let link = api.stream(id).await?.link;
    Ok(Json(UrlDto { link, ..api.urls(id) }))
}
