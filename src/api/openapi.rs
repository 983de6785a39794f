//! `GET /api/v1/openapi.json`: the API, described from the code.
//!
//! Owns the document's frame and the list of routes. Does not own what each route says of itself.

use axum::Json;
use utoipa::{
    Modify, OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};

use super::{
    devices, dto, events, graph, healthz, metrics, node, peers, seed, session, settings, shutdown,
    stats, stream, streams, tickets, url, watch,
};

/// The document.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Astral",
        description = "The local API of one node. It listens on loopback and answers to requests \
            that name it; whatever changes something takes the token of the node's data directory. \
            Errors are problems as in RFC 9457.",
        license(name = "MIT OR Apache-2.0")
    ),
    servers((url = "/api/v1")),
    tags(
        (name = "node", description = "This node"),
        (name = "streams", description = "Streams: known, watched, seeded and published"),
        (name = "network", description = "Other nodes, tickets and the graph"),
        (name = "events", description = "What happens"),
        (name = "access", description = "How a page gets the token"),
    ),
    paths(
        node::show, shutdown::shutdown, devices::list, settings::show, settings::change,
        healthz::show, metrics::show, streams::list, streams::create, stream::show, stream::change, stream::end,
        watch::start, watch::stop, seed::start, seed::stop, stats::show, url::show, peers::list,
        peers::forget, tickets::list, tickets::revoke, graph::show, events::follow, session::open,
        session::check, session::create,
    ),
    components(schemas(dto::ProblemDto)),
    modifiers(&Token),
)]
struct Document;

/// The bearer token, as a security scheme; and the two routes that are not below `/api/v1`.
struct Token;

impl Modify for Token {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("The token in the node's data directory"))
            .build();
        let components = api.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(bearer));
        for path in ["/healthz", "/metrics"] {
            if let Some(item) = api.paths.paths.get_mut(path) {
                item.servers = Some(vec![utoipa::openapi::Server::new("/")]);
            }
        }
    }
}

/// This document.
pub(super) async fn show() -> Json<utoipa::openapi::OpenApi> {
    Json(Document::openapi())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn the_committed_document_is_the_codes() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api/openapi.json");
        let document = Document::openapi().to_pretty_json().unwrap() + "\n";
        if std::env::var("ASTRAL_FIXTURES").as_deref() == Ok("write") {
            fs::write(&path, &document).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == document,
            "the API changed. When that is wanted, write its description anew and commit it:\n  \
             ASTRAL_FIXTURES=write cargo test --lib api::openapi"
        );
    }

    #[test]
    fn what_changes_something_says_that_it_takes_the_token() {
        let document = serde_json::to_value(Document::openapi()).unwrap();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let changes = ["post", "patch", "delete", "put"].contains(&method.as_str());
                if changes && path != "/session" {
                    let needs = operation["security"][0].get("token").is_some();
                    assert!(needs, "{method} {path}");
                }
            }
        }
    }
}
