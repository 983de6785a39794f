//! `/api/v1/streams/{id}/record`: keep a stream in files on the node's machine.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde_json::json;

use super::{
    body::OptionalBody,
    dto::{NewRecording, RecordedDto, StartedDto},
    error::Problem,
    recordings::{Outcome, RECORDINGS_MAX},
    state::{Api, stream_id},
};
use crate::edge::{interest::ReadError, ports::Keep};

/// Records a stream into the node's folder for recordings, until it ends or this is deleted.
///
/// What runs already goes on as it is. `/events` tells `recorded` or `recording_failed`.
#[utoipa::path(post, path = "/streams/{id}/record", tag = "streams", security(("token" = [])),
    params(("id" = String, Path, description = "The stream's id, or its link with `/` written as `%2F`")),
    request_body = Option<NewRecording>, responses(
    (status = 200, description = "It is recorded", body = StartedDto),
    (status = 404, description = "No such stream is known"),
    (status = 409, description = "This node has no folder for recordings"),
    (status = 422, description = "A limit that can't be"),
    (status = 503, description = "Too many recordings or players, or nobody can serve it"),
))]
pub(super) async fn start(
    State(api): State<Api>,
    Path(id): Path<String>,
    OptionalBody(new): OptionalBody<NewRecording>,
) -> Result<Json<StartedDto>, Problem> {
    let id = stream_id(&id)?;
    let Some(folder) = api.recordings.folder() else {
        let detail = "this node keeps nothing (--ephemeral): start it with --recordings DIR";
        return Err(Problem::new(StatusCode::CONFLICT, "no_folder", detail));
    };
    let spec = new.spec(folder.clone())?;
    let _one_at_a_time = api.recordings.starting.lock().await;
    if api.recordings.of(id).is_none() {
        if !api.recordings.has_room() {
            let detail = format!("{RECORDINGS_MAX} recordings run: stop one");
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too_many", detail));
        }
        api.stream(id).await?;
        let source = api.interests.read(id, Keep::All).await.map_err(|error| match error {
            ReadError::TooMany => {
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too_many", error.to_string())
            }
            ReadError::Open(error) => error.into(),
        })?;
        let changes = api.changes.clone();
        let tell = move |outcome: &Outcome| {
            changes.event(&match outcome {
                Ok(made) => {
                    let RecordedDto { stream, files, bytes } = RecordedDto::new(id, made);
                    json!({"event": "recorded", "stream": stream, "files": files, "bytes": bytes})
                }
                Err(message) => {
                    json!({"event": "recording_failed", "stream": id, "message": message})
                }
            });
        };
        api.recordings.start(id, Box::new(source), new.format, spec, tell);
        api.changes.nudge();
    }
    let (format, bytes) =
        api.recordings.of(id).map_or((new.format, 0), |now| (now.format, now.bytes));
    Ok(Json(StartedDto { stream: id, folder: folder.display().to_string(), format, bytes }))
}

/// Ends a recording that was started through the API; its files stay.
#[utoipa::path(delete, path = "/streams/{id}/record", tag = "streams", security(("token" = [])),
    params(("id" = String, Path, description = "The stream's id, or its link with `/` written as `%2F`")), responses(
    (status = 200, description = "What it came to", body = RecordedDto),
    (status = 404, description = "It is not recorded through the API"),
    (status = 503, description = "It broke off, such as for a full disk"),
))]
pub(super) async fn stop(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Json<RecordedDto>, Problem> {
    let id = stream_id(&id)?;
    let outcome = api.recordings.stop(id).await.ok_or_else(|| {
        Problem::not_found(format!("stream {id} is not recorded through the API"))
    })?;
    api.changes.nudge();
    let made = outcome.map_err(|detail| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "recording_failed", detail)
    })?;
    Ok(Json(RecordedDto::new(id, &made)))
}
