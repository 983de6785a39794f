//! A portal over a real socket: what strangers see, and what they never reach.

use super::*;
use crate::{
    api::portal::{Identity, PortalConfig},
    edge::ports::MediaItem,
};

impl Server {
    async fn portal(&self, config: PortalConfig) -> String {
        let any = "127.0.0.1:0".parse().unwrap();
        let url = self.local.open_portal(any, config).await.unwrap();
        url.split_once("://").unwrap().1.to_owned()
    }
}

async fn show(portal: &str, path: &str, headers: &str) -> Answer {
    request(portal, "GET", path, headers, "").await
}

/// A viewer who was let in.
async fn watch(portal: &str, path: &str) -> TcpStream {
    let mut viewer = TcpStream::connect(portal).await.unwrap();
    let get = format!("GET {path} HTTP/1.1\r\nHost: {portal}\r\nConnection: close\r\n\r\n");
    viewer.write_all(get.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    timeout(SOON, viewer.read_exact(&mut status)).await.unwrap().unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
    viewer
}

fn open() -> PortalConfig {
    PortalConfig { viewers: 1, ..PortalConfig::default() }
}

#[tokio::test]
async fn strangers_see_what_is_announced_and_nothing_of_the_node() {
    let server = server().await;
    let portal = server.portal(PortalConfig::default()).await;
    let shown = show(&portal, "/streams", "").await.json();
    assert_eq!(
        (&shown["gateway"], &shown["streams"][0]["title"]),
        (&json!(false), &json!("A garden"))
    );
    let fields: Vec<&String> = shown["streams"][0].as_object().unwrap().keys().collect();
    for private in ["role", "own", "paused", "recording", "node", "http_flv", "hls"] {
        assert!(!fields.contains(&&private.to_owned()), "{private} is the node's own business");
    }
    assert_eq!(show(&portal, "/bootstrap", "").await.json(), json!({"supernodes": []}));
    assert_eq!(show(&portal, "/healthz", "").await.body, "ok\n");
    let page = show(&portal, "/", "").await;
    assert!(page.status == 200 && page.head.contains("connect-src 'self' ;"), "{}", page.head);
    let id = StreamId([1; 32]);
    assert_eq!(show(&portal, &format!("/live/{id}.flv"), "").await.status, 403, "no gateway");
}

#[tokio::test]
async fn no_way_of_control_is_on_a_portal_whatever_is_brought_along() {
    let mut config = config();
    config.access.origins = vec!["https://tv.example".into()];
    let server = server_with(config).await;
    let portal = server.portal(open()).await;
    let code = server.local.web_link().unwrap();
    let (_, code) = code.split_once("#code=").unwrap();
    let keys = format!("Authorization: Bearer {}\r\nOrigin: https://tv.example\r\n", server.token);
    let json = "Content-Type: application/json\r\n";
    let mut tried = changes();
    tried.push(("POST", "/api/v1/session".into(), json!({"code": code})));
    tried.push(("POST", "/".into(), Value::Null));
    for (method, path, body) in tried {
        let answer =
            request(&portal, method, &path, &format!("{keys}{json}"), &body.to_string()).await;
        assert_eq!(answer.status, 405, "{method} {path}");
    }
    let live = format!("/live/{WATCHED}");
    for path in [
        "/api/v1/node",
        "/api/v1/session",
        "/api/v1/events",
        "/api/v1/streams",
        "/api/v1/logs",
        "/api/v1/openapi.json",
        "/metrics",
        "/publish/x",
        "/index.html",
        "/../api.token",
        "/assets/../index.html",
        "/assets/%2e%2e/index.html",
        live.as_str(),
        "/live/x/index.m3u8",
    ] {
        let answer = show(&portal, path, &keys).await;
        assert!([403, 404].contains(&answer.status), "{path}: {}", answer.status);
        assert!(!answer.head.contains("access-control-allow"), "{path}");
        assert!(!answer.body.contains(&server.token), "{path}");
    }
    assert!(server.done().is_empty() && server.streams.opened().is_empty());
    // The code was not used up either.
    let body = json!({"code": code}).to_string();
    assert_eq!(server.raw("POST", "/api/v1/session", json, &body).await.status, 200);
}

#[tokio::test]
async fn a_name_that_was_bound_to_the_portals_address_shows_nothing() {
    let server = server().await;
    let config = PortalConfig { names: vec!["tv.example".into()], ..PortalConfig::default() };
    let portal = server.portal(config).await;
    for (host, status) in [("tv.example", 200), ("rebound.example", 421), ("127.0.0.1:1", 200)] {
        let answer = show(&portal, "/streams", &format!("Host: {host}\r\n")).await;
        assert_eq!(answer.status, status, "{host}");
    }
    // And the control API does not have the portal's name.
    let control = server.raw("GET", "/api/v1/node", "Host: tv.example\r\n", "").await;
    assert_eq!(control.status, 421);
}

#[tokio::test]
async fn a_gateway_has_a_place_for_so_many_viewers_and_for_no_page_of_another_site() {
    let init = b"FLV\x01\x05\0\0\0\x09\0\0\0\0".to_vec();
    let server = server_of(config(), FakeStreams::greeting(MediaItem::Flv(init.into()))).await;
    let portal = server.portal(open()).await;
    let path = format!("/live/{WATCHED}.flv");
    for foreign in ["Sec-Fetch-Site: cross-site\r\n", "Origin: https://evil.example\r\n"] {
        assert_eq!(show(&portal, &path, foreign).await.status, 403, "{foreign}");
    }
    let unknown = format!("/live/{}.flv", StreamId([77; 32]));
    assert_eq!(show(&portal, &unknown, "").await.status, 404, "not announced, so not looked for");
    assert_eq!(request(&portal, "HEAD", &path, "", "").await.status, 200);
    assert!(server.streams.opened().is_empty(), "nothing was joined so far");
    let mut viewer = watch(&portal, &path).await;
    let full = show(&portal, &path, "").await;
    assert!(full.status == 503 && full.body.contains("\"full\""), "{}", full.body);
    // The stream ends, and with it the viewer's answer: the place is free.
    drop(server.streams.newest());
    timeout(SOON, viewer.read_to_end(&mut Vec::new())).await.unwrap().ok();
    watch(&portal, &path).await;
}

#[tokio::test]
async fn https_is_served_with_the_certificate_given_and_a_wrong_one_is_refused_in_words() {
    let server = server().await;
    let folder = tempfile::tempdir().unwrap();
    let identity = Identity { cert: folder.path().join("cert"), key: folder.path().join("key") };
    let config = PortalConfig { identity: Some(identity.clone()), ..PortalConfig::default() };
    let any = "127.0.0.1:0".parse().unwrap();
    let missing = server.local.open_portal(any, config.clone()).await.unwrap_err().to_string();
    assert!(missing.contains("cert") && missing.contains("PEM"), "{missing}");
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    std::fs::write(&identity.cert, made.cert.pem()).unwrap();
    std::fs::write(&identity.key, made.key_pair.serialize_pem()).unwrap();
    let portal = server.portal(config).await;
    let port = portal.rsplit_once(':').unwrap().1;
    let url = format!("https://localhost:{port}/bootstrap");
    let root = ureq::tls::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap();
    let roots = ureq::tls::RootCerts::from([root]);
    let fetched = tokio::task::spawn_blocking(move || {
        let agent = |roots| {
            let provider = tokio_rustls::rustls::crypto::aws_lc_rs::default_provider();
            let tls = ureq::tls::TlsConfig::builder()
                .unversioned_rustls_crypto_provider(Arc::new(provider))
                .root_certs(roots)
                .build();
            ureq::Agent::from(ureq::Agent::config_builder().tls_config(tls).build())
        };
        let trusted = agent(roots).get(&url).call().unwrap();
        let strict = trusted.headers().contains_key("strict-transport-security");
        let stranger = agent(ureq::tls::RootCerts::WebPki).get(&url).call();
        (trusted.status().as_u16(), strict, stranger.is_err())
    });
    assert_eq!(timeout(SOON, fetched).await.unwrap().unwrap(), (200, true, true));
}
