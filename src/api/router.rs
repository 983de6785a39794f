//! The routes of the local HTTP server.
//!
//! Owns the table of paths. Does not own handlers: each is in its own file.

use axum::{
    Router,
    extract::Request,
    http::StatusCode,
    middleware,
    routing::{delete, get, post},
};

use super::{
    app, devices, doctor,
    error::Problem,
    events, graph,
    guard::{self, Guard},
    healthz, logs, metrics, node, openapi, peers, record, seed, session, settings, shutdown,
    state::Api,
    stats, stream, streams, thumbnail, tickets, url, watch,
};
use crate::edge::{hls, http_flv, page_in};

/// Everything that the node serves over HTTP.
pub(super) fn router(api: Api) -> Router {
    let v1 = Router::new()
        .route("/node", get(node::show))
        .route("/node/shutdown", post(shutdown::shutdown))
        .route("/session", get(session::check).post(session::open))
        .route("/links", post(session::create))
        .route("/devices", get(devices::list))
        .route("/graph", get(graph::show))
        .route("/doctor", get(doctor::show))
        .route("/logs", get(logs::show))
        .route("/peers", get(peers::list))
        .route("/peers/{id}", delete(peers::forget))
        .route("/streams", get(streams::list).post(streams::create))
        .route("/streams/{id}", get(stream::show).patch(stream::change).delete(stream::end))
        .route("/streams/{id}/thumbnail.jpg", get(thumbnail::show))
        .route("/streams/{id}/watch", post(watch::start).delete(watch::stop))
        .route("/streams/{id}/seed", post(seed::start).delete(seed::stop))
        .route("/streams/{id}/record", post(record::start).delete(record::stop))
        .route("/streams/{id}/stats", get(stats::show))
        .route("/streams/{id}/url", get(url::show))
        .route("/tickets", get(tickets::list))
        .route("/tickets/{id}", delete(tickets::revoke))
        .route("/settings", get(settings::show).patch(settings::change))
        .route("/events", get(events::follow))
        .route("/openapi.json", get(openapi::show))
        .fallback(unknown);
    let guard = Guard { gate: api.gate.clone(), rates: api.rates.clone() };
    Router::new()
        .route("/healthz", get(healthz::show))
        .route("/metrics", get(metrics::show))
        .nest("/api/v1", v1)
        .fallback(app::serve)
        .with_state(api.clone())
        .merge(http_flv::router(api.interests.clone(), api.gate.clone()))
        .merge(hls::router(api.interests.clone(), api.gate.clone()))
        .merge(page_in::router(api.publishing.keys(), api.gate))
        .method_not_allowed_fallback(not_allowed)
        .layer(middleware::from_fn_with_state(guard, guard::check))
}

async fn unknown(request: Request) -> Problem {
    Problem::not_found(format!("nothing is at {}", request.uri().path()))
}

async fn not_allowed(request: Request) -> Problem {
    let detail = format!("{} can't be done here", request.method());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method", detail)
}
