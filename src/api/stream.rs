//! `/api/v1/streams/{id}`: one stream, its changes and its end when it is published here.

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{
    body::{Body, matches},
    dto::{StreamDto, StreamPatch},
    error::Problem,
    port::Texts,
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

/// Changes what lists show of an own stream, pauses it or lets it go on, ends its preview.
///
/// With `If-Match`, only if nobody else changed it meanwhile. The answer shows the wish; the
/// directory follows with the stream's next media.
#[utoipa::path(patch, path = "/streams/{id}", tag = "streams", security(("token" = [])),
    params(("id" = String, Path, description = "The stream's id, or its link with `/` written as `%2F`")), request_body = StreamPatch, responses(
    (status = 200, description = "The stream from here on", body = StreamDto),
    (status = 404, description = "No such stream is known"),
    (status = 409, description = "It is not published here"),
    (status = 412, description = "Somebody else changed it"),
    (status = 422, description = "A text that can't be"),
))]
pub(super) async fn change(
    State(api): State<Api>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Body(patch): Body<StreamPatch>,
) -> Result<Response, Problem> {
    let id = stream_id(&id)?;
    let _one_at_a_time = api.stream_changes.lock().await;
    let mut stream = api.stream(id).await?;
    if !stream.own {
        return Err(not_ours());
    }
    if !matches(&headers, &stream.etag()) {
        return Err(Problem::changed());
    }
    if patch.is_edit() {
        let texts = Texts {
            title: patch.title.unwrap_or(stream.title),
            description: patch.description.unwrap_or(stream.description),
            tags: patch.tags.unwrap_or(stream.tags),
        };
        api.node.edit(id, texts.clone()).await?;
        stream.title = texts.title;
        stream.description = texts.description;
        stream.tags = texts.tags;
    }
    match patch.preview {
        Some(true) if !stream.preview => {
            return Err(Problem::invalid("a stream that is live can't be a preview again"));
        }
        Some(false) => {
            api.node.go_live(id).await?;
            stream.preview = false;
        }
        Some(true) | None => {}
    }
    if let Some(paused) = patch.paused {
        api.node.pause(id, paused).await?;
        stream.paused = paused;
    }
    Ok(answer(stream))
}

fn not_ours() -> Problem {
    let detail =
        "only its publisher changes or ends a stream; DELETE .../watch and .../seed leave it";
    Problem::new(StatusCode::CONFLICT, "not_yours", detail)
}

/// Ends an own stream, whoever fills it, for everybody.
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
    if !api.stream(id).await?.own {
        return Err(not_ours());
    }
    api.node.end(id).await?;
    Ok(StatusCode::NO_CONTENT)
}
