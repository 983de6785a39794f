//! `GET /api/v1/openapi.json`: the API, described from the code.
//!
//! Owns the document's frame and the list of routes. Does not own what each route says of itself.

use axum::Json;
use utoipa::{
    Modify, OpenApi,
    openapi::{
        ContentBuilder, Ref, RefOr, Response, ResponseBuilder,
        path::{Operation, Parameter, ParameterIn},
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use super::{
    devices, doctor, dto, events, graph, healthz, logs, metrics, node, peers, record, seed,
    session, settings, shutdown, stats, stream, streams, thumbnail, tickets, url, watch,
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
        watch::start, watch::stop, seed::start, seed::stop, record::start, record::stop, doctor::show,
        logs::show, stats::show, url::show, thumbnail::show, peers::list,
        peers::forget, tickets::list, tickets::revoke, graph::show, events::follow, session::open,
        session::check, session::create,
    ),
    components(schemas(dto::ProblemDto)),
    modifiers(&Token, &Refusals),
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

/// What every handler may answer because of what stands before it: the guard, the body, the path.
struct Refusals;

impl Modify for Refusals {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        for (path, item) in &mut api.paths.paths {
            let methods = [&mut item.get, &mut item.post, &mut item.patch, &mut item.delete];
            for operation in methods.into_iter().flatten() {
                for (status, why) in refusals(path, operation) {
                    let answers = &mut operation.responses.responses;
                    answers.entry(status.to_owned()).or_insert_with(|| problem(why));
                }
            }
        }
    }
}

fn refusals(path: &str, operation: &Operation) -> Vec<(&'static str, &'static str)> {
    let mut refusals = vec![
        ("403", "A page of somebody else asks"),
        ("421", "The `Host` is not this server"),
        ("429", "Too many requests: `Retry-After` says when the next may come"),
        ("503", "The node is ending, or has no room"),
        ("504", "The node did not answer in time"),
    ];
    if operation.security.is_some() {
        refusals.push(("401", "The token is missing"));
    }
    if path.contains('{') {
        refusals.push(("404", "Nothing has this name"));
        refusals.push(("422", "The name can't be one"));
    }
    let is_query = |parameter: &RefOr<Parameter>| matches!(parameter, RefOr::T(parameter) if parameter.parameter_in == ParameterIn::Query);
    if operation.parameters.iter().flatten().any(is_query) {
        refusals.push(("422", "The query has a word or a value that can't be"));
    }
    if operation.request_body.is_some() {
        refusals.extend([
            ("400", "The body is no JSON"),
            ("413", "The body is too large"),
            ("415", "The body is not `application/json`"),
            ("422", "The body has a field or a value that can't be"),
        ]);
    }
    refusals
}

fn problem(why: &str) -> RefOr<Response> {
    let schema = ContentBuilder::new().schema(Some(Ref::from_schema_name("ProblemDto"))).build();
    let response = ResponseBuilder::new().description(why);
    RefOr::T(response.content("application/problem+json", schema).build())
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
