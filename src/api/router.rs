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
    error::Problem, events, guard, healthz, node, peers, seed, settings, shutdown, state::Api,
    stats, stream, streams, tickets, url, watch,
};
use crate::edge::http_flv;

/// Everything that the node serves over HTTP.
pub(super) fn router(api: Api) -> Router {
    let v1 = Router::new()
        .route("/node", get(node::show))
        .route("/node/shutdown", post(shutdown::shutdown))
        .route("/peers", get(peers::list))
        .route("/peers/{id}", delete(peers::forget))
        .route("/streams", get(streams::list).post(streams::create))
        .route("/streams/{id}", get(stream::show).delete(stream::end))
        .route("/streams/{id}/watch", post(watch::start).delete(watch::stop))
        .route("/streams/{id}/seed", post(seed::start).delete(seed::stop))
        .route("/streams/{id}/stats", get(stats::show))
        .route("/streams/{id}/url", get(url::show))
        .route("/tickets", get(tickets::list))
        .route("/tickets/{id}", delete(tickets::revoke))
        .route("/settings", get(settings::show).patch(settings::change))
        .route("/events", get(events::follow));
    Router::new()
        .route("/healthz", get(healthz::show))
        .nest("/api/v1", v1)
        .with_state(api.clone())
        .merge(http_flv::router(api.interests.clone(), api.gate.clone()))
        .fallback(unknown)
        .method_not_allowed_fallback(not_allowed)
        .layer(middleware::from_fn_with_state(api.gate, guard::check))
}

async fn unknown(request: Request) -> Problem {
    Problem::not_found(format!("nothing is at {}", request.uri().path()))
}

async fn not_allowed(request: Request) -> Problem {
    let detail = format!("{} can't be done here", request.method());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method", detail)
}
