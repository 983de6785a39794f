//! Who may use the API: links that work once, other sites, other machines, floods.

use super::*;
use crate::api::{body::BODY_BYTES_MAX, rate::REFUSED_PER_S};

const JSON: &str = "Content-Type: application/json\r\n";

fn code_of(link: &str) -> String {
    link.split_once("/#code=").unwrap().1.to_owned()
}

#[tokio::test]
async fn a_link_gives_the_token_once_and_to_our_own_page_only() {
    let server = server().await;
    let body = json!({"code": code_of(&server.local.web_link().unwrap())}).to_string();
    let session = "/api/v1/session";
    for (headers, status) in [
        (format!("{JSON}Origin: http://evil.example\r\n"), 403),
        (format!("{JSON}Host: evil.example\r\n"), 421),
        ("Content-Type: text/plain\r\n".into(), 415),
    ] {
        assert_eq!(server.raw("POST", session, &headers, &body).await.status, status, "{headers}");
    }
    let ours = format!("{JSON}Origin: http://{}\r\n", server.host());
    let opened = server.raw("POST", session, &ours, &body).await;
    assert_eq!((opened.status, opened.json()), (200, json!({"token": server.token})));
    let again = server.raw("POST", session, &ours, &body).await;
    assert_eq!((again.status, &again.json()["code"]), (401, &json!("link_used")));
    let guess = json!({"code": "00000000000000000000000000000000"}).to_string();
    assert_eq!(server.raw("POST", session, &ours, &guess).await.status, 401);
    assert_eq!(server.raw("GET", session, "", "").await.status, 401);
    assert_eq!(server.ask("GET", session, None).await.status, 204);
    let link = server.ask("POST", "/api/v1/links", None).await.json();
    let body = json!({"code": code_of(link["url"].as_str().unwrap())}).to_string();
    assert_eq!(server.raw("POST", session, &ours, &body).await.status, 200);
}

#[tokio::test]
async fn a_flood_of_wrong_tokens_is_slowed_down_and_the_right_one_still_passes() {
    let server = server().await;
    let mut statuses = Vec::new();
    for _ in 0..REFUSED_PER_S * 8 {
        let wrong = "Authorization: Bearer wrong\r\n";
        let answer = server.raw("POST", "/api/v1/node/shutdown", wrong, "").await;
        if answer.status == 429 {
            assert!(answer.head.contains("retry-after"), "{}", answer.head);
        }
        statuses.push(answer.status);
    }
    assert_eq!(statuses[0], 401);
    assert!(statuses.contains(&429), "{statuses:?}");
    assert_eq!(server.ask("GET", "/api/v1/session", None).await.status, 204);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_before_it_is_read() {
    let server = server().await;
    for (method, path) in [
        ("POST", "/api/v1/streams".to_owned()),
        ("POST", format!("/api/v1/streams/{LISTED}/watch")),
        ("POST", "/api/v1/session".to_owned()),
        ("DELETE", format!("/api/v1/peers/{PEER}")),
    ] {
        let mut socket = TcpStream::connect(server.host()).await.unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{JSON}Authorization: \
             Bearer {}\r\nContent-Length: {}\r\n\r\n",
            server.host(),
            server.token,
            BODY_BYTES_MAX + 1
        );
        // Not one byte of the body is sent: the answer comes without it.
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut answer = vec![0; 64];
        timeout(SOON, socket.read_exact(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 413"), "{path}: {}", answer.escape_ascii());
    }
    assert_eq!(server.done(), Vec::<String>::new());
}

#[tokio::test]
async fn every_answer_forbids_what_a_browser_might_do_with_it() {
    let server = server().await;
    for path in ["/api/v1/node", "/api/v1/nothing", "/live/x.flv", "/healthz"] {
        let head = server.raw("GET", path, "", "").await.head;
        for wanted in [
            "x-content-type-options: nosniff",
            "x-frame-options: deny",
            "referrer-policy: no-referrer",
            "content-security-policy: default-src 'none'; frame-ancestors 'none'",
            "cache-control: no-store",
            "cross-origin-resource-policy: same-origin",
        ] {
            assert!(head.contains(wanted), "{path} lacks {wanted}: {head}");
        }
        assert!(!head.contains("access-control"), "{head}");
    }
}

#[tokio::test]
async fn an_address_that_other_machines_reach_needs_a_word_of_consent() {
    let config = LocalConfig { api: ("0.0.0.0:0".parse().unwrap(), false), ..config() };
    let node = FakeNode { done: Arc::default(), limits: Mutex::default() };
    let streams = Arc::new(FakeStreams::default());
    let refused = Local::start_on(Arc::new(node), streams, config, None).await;
    let error = refused.unwrap_err();
    assert!(matches!(error, LocalError::Exposed { .. }));
    assert!(error.to_string().contains("--api-remote"), "{error}");
}

#[tokio::test]
async fn where_other_machines_may_connect_reading_takes_the_token_too() {
    let access = Access { remote: true, ..Access::default() };
    let any = "0.0.0.0:0".parse().unwrap();
    let server = server_with(LocalConfig { api: (any, false), access, ..config() }).await;
    let live = format!("/live/{LISTED}.flv");
    for path in ["/api/v1/node", "/api/v1/streams", "/api/v1/events", "/metrics", &live] {
        assert_eq!(server.raw("GET", path, "", "").await.status, 401, "{path}");
    }
    assert!(server.streams.opened().is_empty());
    assert_eq!(server.ask("GET", "/api/v1/node", None).await.status, 200);
    assert_eq!(server.raw("GET", "/healthz", "", "").await.status, 200);
    let named = "Host: rebound.example:80\r\n";
    assert_eq!(server.raw("GET", "/healthz", named, "").await.status, 421);
}

#[tokio::test]
async fn an_allowed_site_may_use_the_api_with_the_token_and_no_other_may() {
    let origins = vec!["https://tv.example".to_owned()];
    let access = Access { origins, ..Access::default() };
    let server = server_with(LocalConfig { access, ..config() }).await;
    let theirs = "Origin: https://tv.example\r\nSec-Fetch-Site: cross-site\r\n";
    let asked = server.raw("OPTIONS", "/api/v1/settings", theirs, "").await;
    assert_eq!(asked.status, 204);
    assert!(asked.head.contains("access-control-allow-origin: https://tv.example"));
    assert!(!asked.head.contains("allow-credentials"), "no cookies are ever used");
    let path = format!("/api/v1/streams/{LISTED}/seed");
    assert_eq!(server.raw("POST", &path, theirs, "").await.status, 401);
    let token = format!("{theirs}Authorization: Bearer {}\r\n", server.token);
    assert_eq!(server.raw("POST", &path, &token, "").await.status, 200);
    let other = "Origin: https://evil.example\r\n";
    let refused = server.raw("OPTIONS", "/api/v1/settings", other, "").await;
    assert_eq!(refused.status, 403);
    assert!(!refused.head.contains("access-control"), "{}", refused.head);
}
