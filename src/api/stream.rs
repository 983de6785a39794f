//! `/api/v1/streams/{id}`: one stream, and its end when it is published here.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};

use super::{
    dto::{StreamDto, StreamRole},
    error::Problem,
    state::{Api, stream_id},
};

pub(super) async fn show(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Json<StreamDto>, Problem> {
    api.stream(stream_id(&id)?).await.map(Json)
}

/// Ends a stream that was published through this API, for everybody.
pub(super) async fn end(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let id = stream_id(&id)?;
    if api.publishing.end(id).await {
        return Ok(StatusCode::NO_CONTENT);
    }
    let detail = match api.stream(id).await?.role {
        StreamRole::Publishing => "this stream belongs to the command that publishes it: end that",
        StreamRole::Listed | StreamRole::Watching | StreamRole::Seeding => {
            "only its publisher ends a stream; DELETE .../watch and .../seed leave it"
        }
    };
    Err(Problem::new(StatusCode::CONFLICT, "not_yours", detail))
}
