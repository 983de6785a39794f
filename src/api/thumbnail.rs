//! `/api/v1/streams/{id}/thumbnail.jpg`: a stream's small picture.

use std::time::Duration;

use astral_core::ids::StreamId;
use axum::{
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use tokio::time::timeout;

use super::{
    error::Problem,
    state::{Api, stream_id},
};

/// A picture that takes longer to find is not waited for.
const FIND_MAX: Duration = Duration::from_secs(12);

/// The small picture of a stream, at most half a minute old at its source. Fetched from other nodes
/// when this one does not have it.
#[utoipa::path(get, path = "/streams/{id}/thumbnail.jpg", tag = "streams",
    params(("id" = String, Path, description = "The stream's id, or its link with `/` written as `%2F`")), responses(
    (status = 200, description = "A JPEG of at most 24 KiB", body = Vec<u8>, content_type = "image/jpeg"),
    (status = 204, description = "The stream has no picture, or nobody gives it at the moment"),
))]
pub(super) async fn show(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    find(&api, stream_id(&id)?).await
}

/// Answers with the picture of `id`.
pub(super) async fn find(api: &Api, id: StreamId) -> Result<Response, Problem> {
    let picture = timeout(FIND_MAX, api.node.picture(id)).await;
    let picture = match picture {
        Ok(found) => found?,
        Err(_) => None,
    };
    // No failure: a page shows something else, and its console stays clean.
    let Some(picture) = picture else { return Ok(StatusCode::NO_CONTENT.into_response()) };
    let headers = [
        (header::CONTENT_TYPE, "image/jpeg"),
        (header::CACHE_CONTROL, "no-cache"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok((headers, picture).into_response())
}
