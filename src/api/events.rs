//! `GET /api/v1/events`: what happens, as one JSON object a line, for as long as the reader stays.

use axum::{
    body::Body,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::StreamExt;

use super::{
    error::Problem,
    state::{Api, EVENT_READERS_MAX},
};

pub(super) async fn follow(State(api): State<Api>) -> Result<Response, Problem> {
    let Ok(permit) = api.event_readers.clone().try_acquire_owned() else {
        let detail = format!("{EVENT_READERS_MAX} programs read events already");
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too_many", detail));
    };
    let lines = api.node.events().map(move |event| {
        let _held = &permit;
        Ok::<_, std::io::Error>(format!("{event}\n"))
    });
    let stopping = api.stopping.clone();
    let lines = lines.take_until(async move { stopping.cancelled().await });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, Body::from_stream(lines)).into_response())
}
