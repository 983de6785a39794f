//! `/api/v1/streams`: the streams this node knows, and a new one.

use astral_core::ids::StreamName;
use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{
    body::Body,
    dto::{NewStream, StreamsDto},
    error::Problem,
    port::PublishRequest,
    state::Api,
};

/// The source that every node offers: an encoder of the user's.
const FROM_ENCODER: &str = "rtmp";

pub(super) async fn list(State(api): State<Api>) -> Result<Json<StreamsDto>, Problem> {
    let state = api.node.state().await?;
    Ok(Json(StreamsDto { streams: api.streams(&state) }))
}

/// Begins to publish; for `"source": "rtmp"` the answer has the URL for the encoder.
pub(super) async fn create(
    State(api): State<Api>,
    Body(new): Body<NewStream>,
) -> Result<Response, Problem> {
    let name = StreamName::new(new.name).map_err(|error| Problem::invalid(error.to_string()))?;
    let source = match new.source.as_str() {
        FROM_ENCODER => None,
        other => Some(api.publishing.source(other).ok_or_else(|| {
            let offered = [vec![FROM_ENCODER.to_owned()], api.publishing.offered()].concat();
            Problem::invalid(format!("this node has no such source: {}", offered.join(", ")))
        })?),
    };
    let request = PublishRequest {
        title: new.title.unwrap_or_else(|| name.to_string()),
        name: name.clone(),
        description: new.description,
        tags: new.tags,
        stripes: new.stripes,
    };
    let stream = api.node.publish(request).await?;
    let id = stream.id();
    match source {
        Some(source) => api.publishing.take_source(name.as_str(), stream, &*source),
        None => {
            api.publishing.take_encoder(name.as_str(), stream)?;
        }
    }
    let location = [(header::LOCATION, format!("/api/v1/streams/{id}"))];
    Ok((StatusCode::CREATED, location, Json(api.urls(id))).into_response())
}
