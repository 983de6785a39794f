//! `/api/v1/streams`: the streams this node knows, and a new one.

use astral_core::ids::StreamName;
use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{
    body::{Body, Query},
    dto::{NewStream, Page, StreamsDto, UrlDto, paginate},
    error::Problem,
    port::PublishRequest,
    publishing::{FROM_ENCODER, FROM_PAGE, OWN_MAX, Outside, Wanted},
    state::Api,
};
use crate::edge::rtmp::RECONNECT_WINDOW;

/// Streams of the directory, and those of this node.
#[utoipa::path(get, path = "/streams", tag = "streams", params(Page), responses(
    (status = 200, description = "One page of them", body = StreamsDto),
))]
pub(super) async fn list(
    State(api): State<Api>,
    Query(page): Query<Page>,
) -> Result<Json<StreamsDto>, Problem> {
    let state = api.node.state().await?;
    let query = page.q.as_deref().unwrap_or_default();
    let streams = api.streams(&state).into_iter().filter(|stream| stream.has_words(query));
    let (streams, next) = paginate(streams, &page, |stream| stream.id.to_string());
    Ok(Json(StreamsDto { streams, next }))
}

/// Begins to publish; for `"source": "rtmp"` the answer has the URL for the encoder.
#[utoipa::path(post, path = "/streams", tag = "streams", security(("token" = [])),
    request_body = NewStream, responses(
    (status = 201, description = "It is published", body = UrlDto),
    (status = 409, description = "A stream of this name is published already"),
    (status = 422, description = "A field that can't be"),
))]
pub(super) async fn create(
    State(api): State<Api>,
    Body(new): Body<NewStream>,
) -> Result<Response, Problem> {
    let name = StreamName::new(new.name).map_err(|error| Problem::invalid(error.to_string()))?;
    let source = match new.source.as_str() {
        FROM_ENCODER | FROM_PAGE => None,
        other => Some(api.publishing.source(other).ok_or_else(|| {
            let offered = api.publishing.offered().join(", ");
            Problem::invalid(format!("this node has no such source; it has {offered}"))
        })?),
    };
    if !api.publishing.has_room() {
        let detail = format!("{OWN_MAX} streams are published here already: end one first");
        return Err(Problem::new(StatusCode::CONFLICT, "too_many", detail));
    }
    let wanted = Wanted {
        device: new.device,
        mic: new.mic,
        width: new.width,
        height: new.height,
        fps: new.fps,
        bitrate_bps: new.bitrate_bps,
        adaptive: new.adaptive,
        renditions: new.renditions,
    };
    let opened = match source {
        None if wanted.needs_encoder() => {
            let detail = "adaptive and renditions are for what this node encodes; what comes from \
                          another encoder passes as it is";
            return Err(Problem::invalid(detail.to_owned()));
        }
        None => None,
        Some(source) => Some(source.open(wanted).await.map_err(Problem::invalid)?),
    };
    let (filler, encoded) = opened.map(|opened| (opened.filler, opened.encoded)).unzip();
    let request = PublishRequest {
        title: new.title.unwrap_or_else(|| name.to_string()),
        name: name.clone(),
        description: new.description,
        tags: new.tags,
        stripes: new.stripes,
        preview: new.preview,
        encoded: encoded.unwrap_or_default(),
    };
    let stream = api.node.publish(request).await?;
    let id = stream.id();
    match filler {
        Some(filler) => api.publishing.take_source(name.as_str(), stream, filler),
        None => {
            let page = new.source == FROM_PAGE;
            let outside = if page { Outside::Page } else { Outside::Encoder };
            api.publishing.take_encoder(name.as_str(), stream, outside, RECONNECT_WINDOW)?;
        }
    }
    let location = [(header::LOCATION, format!("/api/v1/streams/{id}"))];
    Ok((StatusCode::CREATED, location, Json(api.urls(id))).into_response())
}
