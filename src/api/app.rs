//! The web app: its files, in the binary.
//!
//! Owns serving them, and what the browser may do with a page of ours. Does not own the app (see
//! `web/`). The files hold no secret; the page gets its token by a link that works once.

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use rust_embed::{EmbeddedFile, RustEmbed};

use super::{error::Problem, state::Api};

/// The app as `npm run build` leaves it. Builds with optimisation hold the files; others read them
/// when asked, so that the app can be changed without building the program again.
#[derive(RustEmbed)]
#[folder = "web/dist/"]
#[allow_missing = true]
struct Files;

/// The page of every path that is the app's.
const INDEX: &str = "index.html";
/// Files below it have their content's hash in their name and never change.
const HASHED: &str = "assets/";
/// What stands in for an app that was not built.
const MISSING: &str = "<!doctype html><meta charset=\"utf-8\"><title>Astral</title><h1>Astral \
     runs</h1><p>Its web page was not built into this program. In the source tree run \
     <code>make web</code>, then start again. Until then <code>astral ctl</code> shows and steers \
     the node, and players open <code>/live/STREAM_ID.flv</code>.</p>\n";
/// May be shown only by us, talk only to us, and run only what we serve.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' \
     blob: data:; media-src 'self' blob:; connect-src 'self' {WS}; worker-src 'self' blob:; \
     font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors \
     'none'";
/// Capture is what the page is for; the rest it never asks for.
const PERMISSIONS: &str =
    "camera=(self), microphone=(self), display-capture=(self), fullscreen=(self), geolocation=()";

/// The page of a portal.
pub(super) const PORTAL: &str = "portal.html";

/// A file that a portal shows: its page, and what the page is made of.
pub(super) fn portal(path: &str, headers: &HeaderMap) -> Response {
    // Builds that read the folder would follow the dots, to other files of it.
    match Files::get(path).filter(|_| !path.contains("..")) {
        Some(file) => answer("", path, &file, headers),
        None if path == PORTAL => page("", StatusCode::OK.into_response(), Body::from(MISSING)),
        None => Problem::not_found("there is no such file").into_response(),
    }
}

/// A file of the app; a problem for what is none.
pub(super) async fn serve(
    State(api): State<Api>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let path = match uri.path().trim_start_matches('/') {
        "" => INDEX,
        path => path,
    };
    let reads = matches!(method, Method::GET | Method::HEAD);
    match Files::get(path).filter(|_| reads) {
        Some(file) => answer(&ws(&api), path, &file, &headers),
        None if path == INDEX && reads => {
            page(&ws(&api), StatusCode::OK.into_response(), Body::from(MISSING))
        }
        None => Problem::not_found(format!("nothing is at {}", uri.path())).into_response(),
    }
}

/// Where the app's sockets go, which some browsers don't count as `'self'`.
fn ws(api: &Api) -> String {
    api.api_url.replacen("http", "ws", 1)
}

fn answer(ws: &str, path: &str, file: &EmbeddedFile, headers: &HeaderMap) -> Response {
    let etag = data_encoding::HEXLOWER.encode(&file.metadata.sha256_hash()[..16]);
    let etag = format!("\"{etag}\"");
    let cache =
        if path.starts_with(HASHED) { "public, max-age=31536000, immutable" } else { "no-cache" };
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|given| given == etag.as_str());
    let status = if known { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
    let kind = file.metadata.mimetype().to_owned();
    let head = [
        (header::ETAG, etag),
        (header::CACHE_CONTROL, cache.to_owned()),
        (header::CONTENT_TYPE, kind.clone()),
    ];
    let response = (status, head).into_response();
    let body = if known { Body::empty() } else { Body::from(file.data.clone().into_owned()) };
    if kind == "text/html" {
        return page(ws, response, body);
    }
    let (parts, _) = response.into_parts();
    Response::from_parts(parts, body)
}

/// A page, with what it may do; `ws` is where else it may connect.
fn page(ws: &str, response: Response, body: Body) -> Response {
    let (mut parts, _) = response.into_parts();
    let policy = POLICY.replace("{WS}", ws);
    let mut set = |name, value: &str| {
        // The policy is ASCII: its only part that varies is an address.
        if let Ok(value) = HeaderValue::from_str(value) {
            parts.headers.insert(name, value);
        }
    };
    set(header::CONTENT_TYPE, "text/html; charset=utf-8");
    set(header::CONTENT_SECURITY_POLICY, &policy);
    set(header::HeaderName::from_static("permissions-policy"), PERMISSIONS);
    set(header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    Response::from_parts(parts, body)
}
