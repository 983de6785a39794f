//! The API over a real socket, on a node made up here.

mod access;
mod events;
mod flood;
mod portal;
mod views;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use astral_core::{
    announcement::Rendition,
    ids::{NodeId, StreamId, StreamName},
    media::{flv::Tag, relay::RelaySnapshot},
    overlay::{
        Addr, CapacityView, Contact, Counters, Interest, NodeView, RegistrationView, Role,
        Snapshot, StreamView, StripeView, TicketId, TicketView, WatchView,
    },
    units::Bitrate,
};
use bytes::Bytes;
use futures::{future::BoxFuture, stream::BoxStream};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{
    LogTail,
    body::BODY_BYTES_MAX,
    local::{Local, LocalConfig, LocalError},
    port::{
        Encoded, Flow, Limits, NodePort, NodeState, PortError, PublishRequest, Published, Texts,
    },
    publishing::{Filler, Opened, Source, Wanted},
};
use crate::edge::{
    fake::FakeStreams,
    local::Access,
    ports::{Ingest, IngestError},
};

const SOON: Duration = Duration::from_secs(20);
const LISTED: StreamId = StreamId([1; 32]);
const WATCHED: StreamId = StreamId([2; 32]);
const PEER: NodeId = NodeId([7; 32]);

/// Notes what it is asked to do.
struct FakeNode {
    done: Arc<Mutex<Vec<String>>>,
    limits: Mutex<Limits>,
}

impl FakeNode {
    fn note(&self, what: impl Into<String>) {
        self.done.lock().unwrap().push(what.into());
    }
}

struct FakePublished {
    id: StreamId,
    done: Arc<Mutex<Vec<String>>>,
}

impl Ingest for FakePublished {
    fn rest<'a>(&'a mut self) -> BoxFuture<'a, Result<(), IngestError>> {
        Box::pin(async { Ok(()) })
    }

    fn push<'a>(&'a mut self, tag: Tag) -> BoxFuture<'a, Result<(), IngestError>> {
        self.done.lock().unwrap().push(format!("tag at {}", tag.timestamp_ms));
        Box::pin(async { Ok(()) })
    }

    fn restart(&mut self) {}

    fn idle<'a>(&'a mut self, idle: bool) -> BoxFuture<'a, Result<(), IngestError>> {
        self.done.lock().unwrap().push(format!("idle {idle}"));
        Box::pin(async { Ok(()) })
    }
}

impl Published for FakePublished {
    fn id(&self) -> StreamId {
        self.id
    }

    fn link(&self) -> String {
        "astral:key/third".into()
    }

    fn push_flv<'a>(&'a mut self, _flv: Bytes) -> BoxFuture<'a, Result<(), IngestError>> {
        Box::pin(async { Ok(()) })
    }

    fn push_lower<'a>(
        &'a mut self,
        _number: usize,
        _begins: bool,
        _flv: Bytes,
    ) -> BoxFuture<'a, Result<(), IngestError>> {
        Box::pin(async { Ok(()) })
    }

    fn picture_rate(&self) -> Option<Bitrate> {
        None
    }

    fn end(self: Box<Self>) -> BoxFuture<'static, ()> {
        self.done.lock().unwrap().push("ended".into());
        Box::pin(async {})
    }
}

fn overlay() -> Snapshot {
    let view = |stream, name: &str| StreamView {
        stream,
        source: astral_core::ids::SourceKey([9; 32]),
        name: name.into(),
        node: PEER,
        title: "A garden".into(),
        description: String::new(),
        tags: vec!["flowers".into()],
        codecs: vec!["avc".into(), "aac".into()],
        resolution: None,
        rate: Bitrate::from_kbps(800),
        k: 2,
        epoch: 5,
        revision: 1,
        mine: false,
        viewers: 3,
        thumbnail: true,
        renditions: vec![Rendition {
            stream: StreamId([0x48; 32]),
            height: 480,
            rate: Bitrate::from_kbps(400),
        }],
    };
    let ticket = |ticket| TicketView {
        ticket: TicketId(ticket),
        stream: WATCHED,
        stripe: 1,
        node: PEER,
        confirmed: true,
        standby: false,
        expires_in_ms: 9_000,
    };
    Snapshot {
        me: Contact::new(NodeId([3; 32]), Vec::new()),
        reachable: true,
        role: Role::Member,
        registration: RegistrationView::Registered { supernode: PEER, backup: None },
        members: Vec::new(),
        nodes: vec![NodeView {
            node: PEER,
            addrs: vec![Addr::new("/ip4/127.0.0.1/tcp/4001").unwrap()],
            seq: 0,
            proof: None,
            supernode: true,
            linked: true,
            rtt: Some(Duration::from_micros(1_500)),
            failures: 0,
            banned: false,
        }],
        streams: vec![view(LISTED, "garden"), view(WATCHED, "pond")],
        rendition_of: BTreeMap::new(),
        watches: vec![WatchView {
            stream: WATCHED,
            kind: Interest::Play,
            playing: true,
            stripes: vec![StripeView { stripe: 0, parent: Some(PEER), depth: Some(2) }],
            candidates: 1,
        }],
        publishing: Vec::new(),
        // A name beyond what a JavaScript number holds.
        given: vec![ticket(u64::MAX - 1)],
        held: vec![ticket(4)],
        capacity: CapacityView { usable: Bitrate::from_mbps(6), ..CapacityView::default() },
        counters: Counters::default(),
    }
}

impl NodePort for FakeNode {
    fn peer_id(&self) -> String {
        "12D3Koo".into()
    }

    fn listen_addrs(&self) -> Vec<String> {
        vec!["/ip4/127.0.0.1/tcp/4001/p2p/12D3Koo".into()]
    }

    fn state(&self) -> BoxFuture<'_, Result<NodeState, PortError>> {
        let children = [(PEER, astral_core::ids::StripeSet(0b10))].into();
        let rate = Bitrate::from_kbps(800);
        let flow = Flow { k: 2, rate, bytes: 77, children, ..Flow::default() };
        Box::pin(async move {
            Ok(NodeState {
                lower: BTreeMap::new(),
                overlay: overlay(),
                uptime: Duration::from_secs(12),
                sent_bytes: 100,
                sent_media_bytes: 90,
                received_bytes: 200,
                flows: [(WATCHED, flow)].into(),
                limits: *self.limits.lock().unwrap(),
                relay: RelaySnapshot::default(),
                reach: crate::node::ReachView::default(),
                driver: vec![("overflows", 3)],
            })
        })
    }

    fn publish(
        &self,
        request: PublishRequest,
    ) -> BoxFuture<'_, Result<Box<dyn Published>, PortError>> {
        Box::pin(async move {
            if request.name.as_str() == "taken" {
                return Err(PortError::Conflict { message: "published already".into() });
            }
            self.note(format!("publish {} as {}", request.name, request.title));
            let name = StreamName::new(request.name.as_str()).unwrap();
            let id = StreamId::derive(&astral_core::ids::SourceKey([8; 32]), &name);
            Ok(Box::new(FakePublished { id, done: self.done.clone() }) as Box<dyn Published>)
        })
    }

    fn picture(&self, id: StreamId) -> BoxFuture<'_, Result<Option<Bytes>, PortError>> {
        let picture = (id == LISTED).then(|| Bytes::from_static(b"\xff\xd8jpeg"));
        Box::pin(async move { Ok(picture) })
    }

    fn seed(&self, id: StreamId) -> BoxFuture<'_, Result<(), PortError>> {
        self.note(format!("seed {}", id.short()));
        Box::pin(async { Ok(()) })
    }

    fn unseed(&self, id: StreamId) -> BoxFuture<'_, Result<(), PortError>> {
        self.note(format!("unseed {}", id.short()));
        Box::pin(async { Ok(()) })
    }

    fn pause(&self, id: StreamId, paused: bool) -> BoxFuture<'_, Result<(), PortError>> {
        self.note(format!("pause {} {paused}", id.short()));
        Box::pin(async { Ok(()) })
    }

    fn go_live(&self, id: StreamId) -> BoxFuture<'_, Result<(), PortError>> {
        self.note(format!("live {}", id.short()));
        Box::pin(async { Ok(()) })
    }

    fn edit(&self, id: StreamId, texts: Texts) -> BoxFuture<'_, Result<(), PortError>> {
        self.note(format!("edit {} {} {:?}", id.short(), texts.title, texts.tags));
        Box::pin(async { Ok(()) })
    }

    fn end(&self, id: StreamId) -> BoxFuture<'_, Result<(), PortError>> {
        self.note(format!("end {}", id.short()));
        Box::pin(async { Ok(()) })
    }

    fn revoke(&self, ticket: TicketId) -> BoxFuture<'_, Result<(), PortError>> {
        self.note(format!("revoke {}", ticket.0));
        Box::pin(async { Ok(()) })
    }

    fn forget(&self, node: NodeId) -> BoxFuture<'_, Result<(), PortError>> {
        self.note(format!("forget {}", node.short()));
        Box::pin(async { Ok(()) })
    }

    fn limits(&self) -> BoxFuture<'_, Result<Limits, PortError>> {
        Box::pin(async move { Ok(*self.limits.lock().unwrap()) })
    }

    fn set_limits(&self, limits: Limits) -> BoxFuture<'_, Result<(), PortError>> {
        *self.limits.lock().unwrap() = limits;
        self.note("limits");
        Box::pin(async { Ok(()) })
    }

    fn events(&self) -> BoxStream<'static, Value> {
        let events = [json!({"event": "playing"}), json!({"event": "ended"})];
        Box::pin(futures::stream::iter(events))
    }
}

struct Server {
    local: Local,
    token: String,
    token_file: PathBuf,
    streams: Arc<FakeStreams>,
    done: Arc<Mutex<Vec<String>>>,
    log: LogTail,
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{}: {}", self.head, self.body))
    }
}

fn config() -> LocalConfig {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("astral-api-{}-{number}.token", std::process::id());
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    LocalConfig {
        api: (any, false),
        rtmps: None,
        rtmp: (any, false),
        token_file: std::env::temp_dir().join(name),
        access: Access::default(),
        log: LogTail::default(),
    }
}

async fn server() -> Server {
    server_with(config()).await
}

async fn server_with(config: LocalConfig) -> Server {
    server_of(config, FakeStreams::default()).await
}

async fn server_of(config: LocalConfig, streams: FakeStreams) -> Server {
    let done = Arc::new(Mutex::new(Vec::new()));
    let node = FakeNode { done: done.clone(), limits: Mutex::default() };
    let streams = Arc::new(streams);
    let (token_file, log) = (config.token_file.clone(), config.log.clone());
    let local = Local::start_on(Arc::new(node), streams.clone(), config, None).await.unwrap();
    let token = std::fs::read_to_string(&token_file).unwrap().trim().to_owned();
    Server { local, token, token_file, streams, done, log }
}

/// Removes a node's token, and where its API was, which stands beside it.
fn forget(token_file: &Path) {
    let _ = std::fs::remove_file(token_file);
    let _ = std::fs::remove_file(token_file.with_extension("url"));
}

impl Drop for Server {
    fn drop(&mut self) {
        forget(&self.token_file);
    }
}

impl Server {
    fn host(&self) -> String {
        self.local.api_url().trim_start_matches("http://").to_owned()
    }

    async fn raw(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        request(&self.host(), method, path, headers, body).await
    }

    /// A request of a program that has the token.
    async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        let headers =
            format!("Authorization: Bearer {}\r\nContent-Type: application/json\r\n", self.token);
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        self.raw(method, path, &headers, &body).await
    }

    fn done(&self) -> Vec<String> {
        self.done.lock().unwrap().clone()
    }
}

/// One request with exactly these headers, but for the host unless they name one.
async fn request(to: &str, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    let mut socket = TcpStream::connect(to).await.unwrap();
    let named = headers.to_lowercase().contains("host:");
    let host = if named { String::new() } else { format!("Host: {to}\r\n") };
    let head = format!("{method} {path} HTTP/1.1\r\n{host}Connection: close\r\n{headers}");
    let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A server that refuses a large body may close before it has read all of it.
    let _ = timeout(SOON, socket.read_to_end(&mut answer)).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_lowercase(), body: body.to_owned() }
}

/// Every route that changes something, with a body it would take.
fn changes() -> Vec<(&'static str, String, Value)> {
    vec![
        ("POST", "/api/v1/node/shutdown".into(), Value::Null),
        ("DELETE", format!("/api/v1/peers/{PEER}"), Value::Null),
        ("POST", "/api/v1/streams".into(), json!({"name": "third", "source": "rtmp"})),
        ("DELETE", format!("/api/v1/streams/{LISTED}"), Value::Null),
        ("POST", format!("/api/v1/streams/{LISTED}/watch"), Value::Null),
        ("DELETE", format!("/api/v1/streams/{LISTED}/watch"), Value::Null),
        ("POST", format!("/api/v1/streams/{LISTED}/seed"), Value::Null),
        ("DELETE", format!("/api/v1/streams/{LISTED}/seed"), Value::Null),
        ("POST", format!("/api/v1/streams/{LISTED}/record"), Value::Null),
        ("DELETE", format!("/api/v1/streams/{LISTED}/record"), Value::Null),
        ("DELETE", format!("/api/v1/tickets/{}", u64::MAX - 1), Value::Null),
        ("PATCH", format!("/api/v1/streams/{LISTED}"), json!({"paused": true})),
        ("PATCH", "/api/v1/settings".into(), json!({"max_copies": 1})),
        ("POST", "/api/v1/links".into(), Value::Null),
    ]
}

#[tokio::test]
async fn nothing_changes_without_the_token_or_for_a_page_of_somebody_else() {
    let server = server().await;
    let token = format!("Authorization: Bearer {}\r\n", server.token);
    let json = "Content-Type: application/json\r\n";
    for (method, path, body) in changes() {
        let body = body.to_string();
        for (headers, status) in [
            (json.to_owned(), 401),
            (format!("{json}Authorization: Bearer wrong\r\n"), 401),
            (format!("{json}Authorization: Basic {}\r\n", server.token), 401),
            (format!("{json}{token}Host: evil.example\r\n"), 421),
            (format!("{json}{token}Host: 127.0.0.1\r\n"), 421),
            (format!("{json}{token}Origin: http://evil.example\r\n"), 403),
            (format!("{json}{token}Origin: null\r\n"), 403),
            (format!("{json}{token}Sec-Fetch-Site: cross-site\r\n"), 403),
        ] {
            let answer = server.raw(method, &path, &headers, &body).await;
            assert_eq!(answer.status, status, "{method} {path} {headers}");
            assert!(answer.head.contains("application/problem+json"), "{}", answer.head);
        }
        // A GET, with everything a GET may have, changes nothing either.
        server.raw("GET", &path, &token, "").await;
    }
    assert_eq!(server.done(), Vec::<String>::new());
    assert!(server.streams.opened().is_empty());
}

#[tokio::test]
async fn reading_takes_a_request_that_names_us_and_no_foreign_page() {
    let server = server().await;
    for path in ["/healthz", "/api/v1/node", "/api/v1/peers", "/api/v1/streams", "/api/v1/tickets"]
    {
        assert_eq!(server.raw("GET", path, "", "").await.status, 200, "{path}");
        let ours = format!("Origin: http://{}\r\n", server.host());
        let answer = server.raw("GET", path, &ours, "").await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(!answer.head.contains("access-control"), "{}", answer.head);
        assert_eq!(server.raw("GET", path, "Host: rebound.example\r\n", "").await.status, 421);
        let foreign = server.raw("GET", path, "Origin: http://evil.example\r\n", "").await;
        assert_eq!(foreign.status, 403, "{path}");
        assert!(!foreign.body.contains("12D3Koo"));
    }
}

#[tokio::test]
async fn what_the_node_is_and_knows_is_shown() {
    let server = server().await;
    let node = server.raw("GET", "/api/v1/node", "", "").await.json();
    assert_eq!(node["peer_id"], "12D3Koo");
    assert_eq!(node["role"], "member");
    assert_eq!(node["registration"]["supernode"], PEER.to_string());
    assert_eq!(node["traffic"]["sent_media_bytes"], 90);
    assert_eq!(node["watching"], json!([WATCHED]));
    let peers = server.raw("GET", "/api/v1/peers", "", "").await.json();
    assert_eq!(peers["peers"][0]["rtt_ms"], 1.5);
    assert_eq!(peers["peers"][0]["connected"], true);
    let streams = server.raw("GET", "/api/v1/streams", "", "").await.json();
    assert_eq!(streams["streams"][0]["name"], "garden");
    assert_eq!(streams["streams"][0]["role"], "listed");
    assert_eq!(streams["streams"][1]["role"], "watching");
    let link = streams["streams"][0]["link"].as_str().unwrap().replace('/', "%2F");
    let by_link = server.raw("GET", &format!("/api/v1/streams/{link}"), "", "").await;
    assert_eq!(by_link.status, 404, "the made-up id is not derived from the made-up key");
    let stats = format!("/api/v1/streams/{WATCHED}/stats");
    let stats = server.raw("GET", &stats, "", "").await.json();
    assert_eq!(stats["parents"], json!([{"stripe": 0, "node": PEER, "hops": 2}]));
    assert_eq!(stats["children"], json!([{"node": PEER, "stripes": [1]}]));
    let tickets = server.raw("GET", "/api/v1/tickets", "", "").await.json();
    assert_eq!(tickets["tickets"][0]["id"], (u64::MAX - 1).to_string());
    assert_eq!(tickets["tickets"][1]["end"], "held");
    let events = server.raw("GET", "/api/v1/events", "", "").await;
    assert!(events.head.contains("application/x-ndjson"), "{}", events.head);
    assert!(events.body.contains("{\"event\":\"playing\"}\n"), "{}", events.body);
}

#[tokio::test]
async fn commands_reach_the_node() {
    let server = server().await;
    let watch = format!("/api/v1/streams/{LISTED}/watch");
    let seed = format!("/api/v1/streams/{LISTED}/seed");
    let ticket = format!("/api/v1/tickets/{}", u64::MAX - 1);
    let url = server.ask("POST", &watch, None).await.json();
    assert!(url["http_flv"].as_str().unwrap().ends_with(&format!("/live/{LISTED}.flv")));
    assert_eq!(server.ask("POST", &seed, None).await.status, 200);
    assert_eq!(server.ask("DELETE", &seed, None).await.status, 204);
    assert!(server.streams.stopped().is_empty(), "still watched");
    assert_eq!(server.ask("DELETE", &watch, None).await.status, 204);
    assert_eq!(server.streams.stopped(), [LISTED]);
    assert_eq!(server.ask("DELETE", &watch, None).await.status, 404);
    assert_eq!(server.ask("DELETE", &seed, None).await.status, 404);
    assert_eq!(server.ask("DELETE", &ticket, None).await.status, 204);
    assert_eq!(
        server.ask("DELETE", "/api/v1/tickets/4", None).await.status,
        404,
        "not ours to end"
    );
    assert_eq!(server.ask("DELETE", &format!("/api/v1/peers/{PEER}"), None).await.status, 204);
    let patch = json!({"max_copies": 1, "uplink": "6Mbit"});
    let settings = server.ask("PATCH", "/api/v1/settings", Some(patch)).await.json();
    assert_eq!(
        settings,
        json!({"revision": 1, "uplink_bps": 6_000_000, "max_copies": 1, "max_total_copies": null})
    );
    let short = LISTED.short();
    let wanted = [
        format!("seed {short}"),
        format!("unseed {short}"),
        format!("revoke {}", u64::MAX - 1),
        format!("forget {}", PEER.short()),
        "limits".into(),
    ];
    assert_eq!(server.done(), wanted);
    assert_eq!(server.ask("POST", "/api/v1/node/shutdown", None).await.status, 202);
    timeout(SOON, server.local.shutdown_requested()).await.unwrap();
}

#[tokio::test]
async fn a_stream_for_an_encoder_lives_from_its_post_to_its_delete() {
    let server = server().await;
    let new = json!({"name": "third", "source": "rtmp", "title": "Third"});
    let answer = server.ask("POST", "/api/v1/streams", Some(new)).await;
    assert_eq!(answer.status, 201);
    let made = answer.json();
    let publish_url = made["publish_url"].as_str().unwrap().to_owned();
    assert!(publish_url.starts_with(&server.local.rtmp_url()), "{publish_url}");
    let path = format!("/api/v1/streams/{}", made["id"].as_str().unwrap());
    let shown = server.raw("GET", &path, "", "").await;
    assert_eq!(shown.json()["role"], "publishing");
    assert_eq!(shown.json()["announced"], false);
    let key = publish_url.rsplit('/').next().unwrap();
    assert!(!shown.body.contains(key), "a key is shown to the token's owner only");
    assert_eq!(server.raw("GET", &format!("{path}/url"), "", "").await.status, 401);
    let url = server.ask("GET", &format!("{path}/url"), None).await.json();
    assert_eq!(url["publish_url"], publish_url);
    assert_eq!(url["ws_publish"], Value::Null);
    assert!(url["hls"].as_str().unwrap().ends_with("/index.m3u8"), "{url}");
    assert_eq!(server.ask("DELETE", &path, None).await.status, 204);
    assert_eq!(server.done(), ["publish third as Third", "ended"]);
    assert_eq!(server.ask("DELETE", &path, None).await.status, 404);
}

struct Counting(AtomicU32);

impl Source for Counting {
    fn open(&self, wanted: Wanted) -> BoxFuture<'_, Result<Opened, String>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            if wanted.device.is_some() {
                return Err("no such camera".to_owned());
            }
            let filler: Filler = Box::new(|stream, stop| {
                Box::pin(async move {
                    stop.cancelled().await;
                    stream.end().await;
                })
            });
            Ok(Opened { filler, encoded: Encoded::default() })
        })
    }
}

#[tokio::test]
async fn a_source_that_the_program_offers_can_be_published() {
    let mut server = server().await;
    let new = json!({"name": "picture", "source": "test"});
    let answer = server.ask("POST", "/api/v1/streams", Some(new.clone())).await;
    assert_eq!(answer.status, 422, "not offered");
    let source = Arc::new(Counting(AtomicU32::new(0)));
    server.local.offer_source("test", source.clone());
    let made = server.ask("POST", "/api/v1/streams", Some(new)).await;
    assert_eq!((made.status, made.json()["publish_url"].clone()), (201, Value::Null));
    assert_eq!(source.0.load(Ordering::Relaxed), 1);
    let absent = json!({"name": "other", "source": "test", "device": "/dev/video9"});
    let refused = server.ask("POST", "/api/v1/streams", Some(absent)).await;
    assert_eq!((refused.status, refused.json()["detail"].clone()), (422, json!("no such camera")));
    assert!(!server.done().iter().any(|done| done.contains("other")), "nothing was announced");
    timeout(SOON, server.local.stop()).await.unwrap();
    assert_eq!(server.done().last().map(String::as_str), Some("ended"));
}

#[tokio::test]
async fn bodies_are_bounded_typed_and_json() {
    let server = server().await;
    let token = format!("Authorization: Bearer {}\r\n", server.token);
    let json = format!("{token}Content-Type: application/json\r\n");
    let large = format!("{{\"name\": \"{}\"}}", "x".repeat(BODY_BYTES_MAX));
    let long_name = json!({"name": "x".repeat(10_000), "source": "rtmp"}).to_string();
    let twice = json!({"name": "taken", "source": "rtmp"}).to_string();
    for (headers, body, status) in [
        (&json, large.as_str(), 413),
        (&json, "{", 400),
        (&json, "{\"name\": 5, \"source\": \"rtmp\"}", 422),
        (&json, "{\"name\": \"a\", \"source\": \"rtmp\", \"colour\": 1}", 422),
        (&json, "{\"name\": \"a\", \"source\": \"cable\"}", 422),
        (&json, "{\"name\": \"a\", \"source\": \"rtmp\", \"adaptive\": true}", 422),
        (&json, "{\"name\": \"a\", \"source\": \"browser\", \"renditions\": [240]}", 422),
        (&json, long_name.as_str(), 422),
        (&json, twice.as_str(), 409),
        (&token, "{\"name\": \"a\", \"source\": \"rtmp\"}", 415),
    ] {
        let answer = server.raw("POST", "/api/v1/streams", headers, body).await;
        assert_eq!(answer.status, status, "{}", body.chars().take(60).collect::<String>());
        let problem = answer.json();
        assert_eq!(problem["status"], status);
        assert!(problem["detail"].as_str().is_some_and(|text| !text.is_empty()), "{problem}");
    }
    assert_eq!(server.done(), Vec::<String>::new());
}

#[tokio::test]
async fn wrong_paths_and_methods_are_problems_too() {
    let server = server().await;
    for (method, path, status) in [
        ("GET", "/nothing", 404),
        ("GET", "/api/v1/nothing", 404),
        ("GET", "/api/v1/streams/xyz", 404),
        ("GET", "/api/v1/streams/astral:broken", 422),
        ("DELETE", "/api/v1/peers/xyz", 404),
        ("DELETE", "/api/v1/tickets/xyz", 404),
        ("PUT", "/api/v1/settings", 405),
        ("GET", "/api/v1/node/shutdown", 405),
    ] {
        let answer = server.ask(method, path, None).await;
        assert_eq!(answer.status, status, "{method} {path}");
        assert!(
            answer.head.contains("application/problem+json"),
            "{method} {path}: {}",
            answer.head
        );
    }
}

#[tokio::test]
async fn a_task_that_panics_is_named_and_a_stop_is_no_failure() {
    for task in ["api", "rtmp", "interests", "history", "observer"] {
        let node = FakeNode { done: Arc::default(), limits: Mutex::default() };
        let streams = Arc::new(FakeStreams::default());
        let config = config();
        let file = config.token_file.clone();
        let panic_in = Some(task.to_owned());
        let local = Local::start_on(Arc::new(node), streams, config, panic_in).await.unwrap();
        let error = timeout(SOON, local.failed()).await.unwrap();
        forget(&file);
        assert!(matches!(error, LocalError::Task(_)));
        assert!(error.to_string().contains(task), "{error}");
    }
    let mut server = server().await;
    server.local.stop().await;
    assert!(timeout(Duration::from_millis(50), server.local.failed()).await.is_err());
    assert!(TcpStream::connect(server.host()).await.is_err());
}
