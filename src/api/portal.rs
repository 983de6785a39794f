//! `astral run --portal`: what this node shows to everybody.
//!
//! Owns the public listener: a page of what is live, the list of supernodes that new nodes join
//! through, and, if allowed, the pictures of announced streams for a bounded number of viewers. It is
//! a server of its own with a handful of routes that only read: no route of the control API, no token
//! and no way to one exist on it. Does not own pages' files (see `app`) nor the list's form (see
//! `node::bootstrap`).

mod clients;
mod tls;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use astral_core::ids::StreamId;
use axum::{
    Extension, Json, Router,
    extract::{ConnectInfo, Path, Request, State, connect_info::Connected},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
    serve::IncomingStream,
};
use serde::Serialize;
use tokio::{sync::Mutex, time::Instant};
use tokio_util::sync::CancellationToken;

use self::clients::{Client, Seats};
use super::{
    app,
    dto::StreamDto,
    error::Problem,
    guard,
    listener::BoundedListener,
    local::{Local, LocalError},
    rate::{Kind, Rates},
    state::Api,
    thumbnail,
};
use crate::{
    edge::{http_flv, local::bind},
    node::bootstrap,
};

pub use clients::SEATS_PER_CLIENT_MAX;
pub use tls::Identity;

/// The task that serves it.
const PORTAL: &str = "portal";
/// What is shown of the node is looked up at most this often, however many ask.
const LOOK: Duration = Duration::from_secs(1);
/// Streams on the page, those with most viewers first.
const STREAMS_MAX: usize = 500;

/// What a portal is.
#[derive(Clone, Debug, Default)]
pub struct PortalConfig {
    /// The host names that it is reached by; literal addresses and `localhost` always count.
    pub names: Vec<String>,
    /// Viewers who may watch through this node at the same time; 0 = none.
    pub viewers: usize,
    /// Certificate and key of HTTPS; `None` = HTTP, for a proxy or a local network.
    pub identity: Option<Identity>,
    /// A proxy stands before it, whose `X-Forwarded-For` says who asks.
    pub behind_proxy: bool,
}

/// What the handlers share.
#[derive(Clone)]
struct Portal {
    api: Api,
    config: Arc<PortalConfig>,
    seats: Seats,
    rates: Rates,
    look: Arc<Mutex<Option<Arc<Look>>>>,
}

/// What there is to show, as of one moment.
struct Look {
    at: Instant,
    streams: Vec<PublicStream>,
    bootstrap: String,
}

/// A stream as strangers see it: what its source announced, and nothing of what this node does.
#[derive(Clone, PartialEq, Debug, Serialize)]
struct PublicStream {
    id: StreamId,
    link: Option<String>,
    title: String,
    description: String,
    tags: Vec<String>,
    codecs: Vec<String>,
    height: Option<u16>,
    bitrate_bps: u64,
    viewers: u32,
    thumbnail: bool,
}

#[derive(Serialize)]
struct PublicStreams {
    /// Whether pictures can be watched here.
    gateway: bool,
    streams: Vec<PublicStream>,
}

impl Local {
    /// Opens a portal on `addr`; where it is. It ends with the other local servers.
    ///
    /// # Errors
    /// [`LocalError`] when the address is taken or the certificate can't be used.
    pub async fn open_portal(
        &self,
        addr: SocketAddr,
        config: PortalConfig,
    ) -> Result<String, LocalError> {
        let acceptor = config.identity.clone().map(tls::Acceptor::new).transpose()?;
        let listener = bind(addr, false).await?;
        let addr = listener.local_addr()?;
        let listener = BoundedListener::public(listener);
        let scheme = if acceptor.is_some() { "https" } else { "http" };
        let service = router(self.api(), config).into_make_service_with_connect_info::<Peer>();
        let stopped = |stop: CancellationToken| async move { stop.cancelled().await };
        self.spawn_server(PORTAL, move |stop| async move {
            let served = match acceptor {
                Some(acceptor) => {
                    let listener = tls::TlsListener::new(listener, acceptor);
                    axum::serve(listener, service).with_graceful_shutdown(stopped(stop)).await
                }
                None => axum::serve(listener, service).with_graceful_shutdown(stopped(stop)).await,
            };
            if let Err(error) = served {
                tracing::error!(%error, "the portal's listener failed");
            }
        });
        Ok(format!("{scheme}://{addr}"))
    }
}

/// The address at the other end of a connection.
#[derive(Clone, Copy, Debug)]
struct Peer(IpAddr);

impl Connected<IncomingStream<'_, BoundedListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, BoundedListener>) -> Self {
        Self(stream.remote_addr().ip())
    }
}

impl Connected<IncomingStream<'_, tls::TlsListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, tls::TlsListener>) -> Self {
        Self(stream.remote_addr().ip())
    }
}

fn router(api: Api, config: PortalConfig) -> Router {
    let seats = Seats::new(config.viewers);
    let config = Arc::new(config);
    let (rates, look) = (Rates::default(), Arc::default());
    let portal = Portal { api, config, seats, rates, look };
    Router::new()
        .route("/", get(page))
        .route("/streams", get(streams))
        .route("/bootstrap", get(list))
        .route("/live/{file}", get(live))
        .route("/thumbnails/{file}", get(picture))
        .route("/assets/{*file}", get(asset))
        .route("/icon.svg", get(asset))
        .route("/healthz", get(async || "ok\n"))
        .fallback(async || Problem::not_found("nothing is here: / shows what is live"))
        .layer(middleware::from_fn_with_state(portal.clone(), check))
        .with_state(portal)
}

/// What precedes every handler: it reads, it names this portal, and it is no page of another site.
async fn check(
    State(portal): State<Portal>,
    ConnectInfo(Peer(peer)): ConnectInfo<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    let client = Client::of(peer, request.headers(), portal.config.behind_proxy);
    let mut response = match may(&portal, &request) {
        Ok(()) => {
            request.extensions_mut().insert(client);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    };
    let headers = response.headers_mut();
    for (name, value) in guard::HEADERS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    if portal.config.identity.is_some() {
        let year = HeaderValue::from_static("max-age=31536000");
        headers.insert(header::STRICT_TRANSPORT_SECURITY, year);
    }
    response
}

fn may(portal: &Portal, request: &Request) -> Result<(), Problem> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let detail = "a portal only shows: GET and HEAD";
        return Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method", detail));
    }
    if !names_us(&portal.config.names, request.headers()) {
        let detail = "this portal does not have that name; --portal-name gives it one";
        return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, "foreign_host", detail));
    }
    Ok(())
}

/// Whether the one `Host` is a literal address, `localhost` or one of `names`, at whatever port: a
/// proxy has its own.
fn names_us(names: &[String], headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next().and_then(|host| host.to_str().ok()), hosts.next())
    else {
        return false;
    };
    if host.parse::<SocketAddr>().is_ok() || host.parse::<IpAddr>().is_ok() {
        return true;
    }
    if host.starts_with('[') {
        return host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    }
    let name = host.rsplit_once(':').map_or(host, |(name, _port)| name);
    name.eq_ignore_ascii_case("localhost")
        || names.iter().any(|ours| ours.eq_ignore_ascii_case(name) || ours == host)
}

/// Refuses what a page of another site asks for: it would spend this portal's places.
fn is_foreign(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    if site.is_some_and(|site| site != b"same-origin" && site != b"none") {
        return true;
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    headers.get_all(header::ORIGIN).iter().any(|origin| {
        let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        origin.is_none_or(|(_, name)| Some(name) != host)
    })
}

impl Portal {
    /// What there is to show, at most [`LOOK`] old.
    async fn look(&self) -> Result<Arc<Look>, Problem> {
        let mut known = self.look.lock().await;
        if let Some(look) = known.as_ref().filter(|look| look.at.elapsed() < LOOK) {
            return Ok(look.clone());
        }
        let state = self.api.node.state().await?;
        let announced = self.api.streams(&state).into_iter();
        let announced = announced.filter(|stream| stream.announced && !stream.preview);
        let mut streams: Vec<PublicStream> = announced.map(public).collect();
        streams.sort_by(|a, b| b.viewers.cmp(&a.viewers).then(a.id.cmp(&b.id)));
        streams.truncate(STREAMS_MAX);
        let bootstrap = bootstrap::write(&state.overlay);
        let look = Arc::new(Look { at: Instant::now(), streams, bootstrap });
        *known = Some(look.clone());
        Ok(look)
    }

    /// A stream that everybody may see.
    async fn announced(&self, file: &str, ending: &str) -> Result<PublicStream, Problem> {
        let unknown = || Problem::not_found("no such stream is live");
        let id: StreamId =
            file.strip_suffix(ending).and_then(|id| id.parse().ok()).ok_or_else(unknown)?;
        let look = self.look().await?;
        look.streams.iter().find(|stream| stream.id == id).cloned().ok_or_else(unknown)
    }
}

fn public(stream: StreamDto) -> PublicStream {
    PublicStream {
        id: stream.id,
        link: stream.link,
        title: stream.title,
        description: stream.description,
        tags: stream.tags,
        codecs: stream.codecs,
        height: stream.height,
        bitrate_bps: stream.bitrate_bps,
        viewers: stream.viewers,
        thumbnail: stream.thumbnail.is_some(),
    }
}

async fn page(headers: HeaderMap) -> Response {
    app::portal(app::PORTAL, &headers)
}

async fn asset(request: Request) -> Response {
    app::portal(request.uri().path().trim_start_matches('/'), request.headers())
}

async fn streams(State(portal): State<Portal>) -> Result<Json<PublicStreams>, Problem> {
    let streams = portal.look().await?.streams.clone();
    Ok(Json(PublicStreams { gateway: portal.config.viewers > 0, streams }))
}

async fn list(State(portal): State<Portal>) -> Result<Response, Problem> {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    Ok((kind, portal.look().await?.bootstrap.clone()).into_response())
}

async fn live(
    State(portal): State<Portal>,
    Extension(client): Extension<Client>,
    Path(file): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let forbidden = |code, detail| Problem::new(StatusCode::FORBIDDEN, code, detail);
    if portal.config.viewers == 0 {
        let detail = "this portal shows what is live, but passes no pictures on: watch with a node \
                      of your own";
        return Err(forbidden("no_gateway", detail));
    }
    if is_foreign(&headers) {
        return Err(forbidden("foreign_origin", "pages of other sites may not watch through it"));
    }
    portal.rates.take(Kind::Other).map_err(Problem::too_many_requests)?;
    let stream = portal.announced(&file, ".flv").await?;
    if method == Method::HEAD {
        return Ok([(header::CONTENT_TYPE, "video/x-flv")].into_response());
    }
    let seat = portal.seats.take(client).ok_or_else(|| {
        let detail = "all places of this portal are taken: come back later, or watch with a node of \
                      your own";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "full", detail)
    })?;
    Ok(http_flv::play(&portal.api.interests, stream.id, seat).await)
}

async fn picture(
    State(portal): State<Portal>,
    Path(file): Path<String>,
) -> Result<Response, Problem> {
    portal.rates.take(Kind::Other).map_err(Problem::too_many_requests)?;
    let stream = portal.announced(&file, ".jpg").await?;
    thumbnail::find(&portal.api, stream.id).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    #[test]
    fn a_portal_answers_to_its_names_and_to_addresses_only() {
        let names = ["tv.example".to_owned()];
        for (host, passes) in [
            ("tv.example", true),
            ("TV.example:8443", true),
            ("192.0.2.7:8080", true),
            ("[2001:db8::7]:8080", true),
            ("[2001:db8::7]", true),
            ("localhost:8080", true),
            ("evil.example", false),
            ("tv.example.evil.example", false),
            ("", false),
        ] {
            assert_eq!(names_us(&names, &headers(&[("host", host)])), passes, "{host}");
        }
        assert!(!names_us(&names, &headers(&[])));
        let two = [("host", "tv.example"), ("host", "evil.example")];
        assert!(!names_us(&names, &headers(&two)));
    }

    #[test]
    fn pages_of_other_sites_are_foreign() {
        let host = ("host", "tv.example");
        for (pairs, foreign) in [
            (&[host][..], false),
            (&[host, ("origin", "https://tv.example"), ("sec-fetch-site", "same-origin")], false),
            (&[host, ("sec-fetch-site", "none")], false),
            (&[host, ("sec-fetch-site", "cross-site")], true),
            (&[host, ("origin", "https://evil.example")], true),
            (&[host, ("origin", "null")], true),
        ] {
            assert_eq!(is_foreign(&headers(pairs)), foreign, "{pairs:?}");
        }
    }
}
