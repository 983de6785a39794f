//! `/api/v1/streams/{id}`: one stream, and its end when it is published here.

use axum::{
    Json,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{
    dto::{StreamDto, StreamRole},
    error::Problem,
    state::{Api, stream_id},
};

/// One stream.
#[utoipa::path(get, path = "/streams/{id}", tag = "streams",
    params(("id" = String, Path, description = "The stream's id, or its link with `/` written as `%2F`")), responses(
    (status = 200, description = "The stream, with an ETag", body = StreamDto),
    (status = 404, description = "No such stream is known"),
))]
pub(super) async fn show(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    Ok(answer(api.stream(stream_id(&id)?).await?))
}

fn answer(stream: StreamDto) -> Response {
    ([(header::ETAG, stream.etag())], Json(stream)).into_response()
}

/// Ends a stream that was published through this API, for everybody.
#[utoipa::path(delete, path = "/streams/{id}", tag = "streams", security(("token" = [])),
    params(("id" = String, Path, description = "The stream's id, or its link with `/` written as `%2F`")), responses(
    (status = 204, description = "It is over"),
    (status = 404, description = "No such stream is known"),
    (status = 409, description = "It is not published here"),
))]
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
