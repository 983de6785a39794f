//! Events over a WebSocket: who may follow, what they are sent, and those who read too slowly.

use futures::{SinkExt, StreamExt};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Error, Message, client::IntoClientRequest, http::HeaderValue},
};

use super::*;
use crate::api::changes::RING_BYTES_MAX;

pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

impl Server {
    async fn open(&self, query: &str, headers: &[(&'static str, &str)]) -> Result<Socket, Error> {
        let url = format!("ws://{}/api/v1/events{query}", self.host());
        let mut request = url.into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, HeaderValue::from_str(value).unwrap());
        }
        let (socket, answer) = timeout(SOON, connect_async(request)).await.unwrap()?;
        let agreed = answer.headers().get("sec-websocket-protocol");
        assert!(agreed.is_none_or(|protocol| protocol == "astral.v1"), "{agreed:?}");
        Ok(socket)
    }

    pub(super) async fn follow(&self, query: &str) -> Socket {
        let offered = format!("astral.v1, astral.token.{}", self.token);
        self.open(query, &[("sec-websocket-protocol", &offered)]).await.unwrap()
    }
}

/// The next frame that `accept`s.
async fn frame(socket: &mut Socket, accept: impl Fn(&Value) -> bool) -> Value {
    loop {
        let message = timeout(SOON, socket.next()).await.unwrap().unwrap().unwrap();
        let value: Value = serde_json::from_str(message.to_text().unwrap()).unwrap();
        if accept(&value) {
            return value;
        }
    }
}

fn status(refused: Result<Socket, Error>) -> u16 {
    match refused {
        Err(Error::Http(answer)) => answer.status().as_u16(),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_page_follows_with_the_token_as_sub_protocol_and_nobody_without() {
    let server = server().await;
    let token = format!("astral.v1, astral.token.{}", server.token);
    let offer = "sec-websocket-protocol";
    let wrong = format!("{token}x");
    for (headers, refusal) in [
        (vec![], 401),
        (vec![(offer, "astral.v1")], 401),
        (vec![(offer, wrong.as_str())], 401),
        (vec![(offer, token.as_str()), ("origin", "http://evil.example")], 403),
        (vec![(offer, token.as_str()), ("host", "rebound.example")], 421),
    ] {
        assert_eq!(status(server.open("", &headers).await), refusal, "{headers:?}");
    }
    let mut socket = server.follow("").await;
    let snapshot = frame(&mut socket, |_| true).await;
    assert_eq!(snapshot["type"], "snapshot");
    let bearer = format!("Bearer {}", server.token);
    server.open("", &[("authorization", bearer.as_str())]).await.unwrap();
}

#[tokio::test]
async fn a_follower_learns_what_there_is_and_what_changes_and_can_ask_anew() {
    let server = server().await;
    let mut socket = server.follow("").await;
    let is_node = |frame: &Value| frame["kind"] == "node" || frame["type"] == "snapshot";
    // Either the node was looked at before, or it is now.
    let mut first = frame(&mut socket, is_node).await;
    if first["objects"]["node"] == json!([]) {
        first = frame(&mut socket, is_node).await;
    }
    assert!(first.to_string().contains("12D3Koo"), "{first}");
    server.ask("PATCH", "/api/v1/settings", Some(json!({"max_copies": 3}))).await;
    let is_changed = |frame: &Value| frame["object"]["max_copies"] == 3;
    let changed = frame(&mut socket, is_changed).await;
    assert_eq!(changed["kind"], "settings");
    socket.send(Message::text(r#"{"type":"resync"}"#)).await.unwrap();
    let snapshot = frame(&mut socket, |frame| frame["type"] == "snapshot").await;
    for (kind, count) in [("node", 1), ("peer", 1), ("stream", 2), ("stats", 1), ("ticket", 2)] {
        assert_eq!(snapshot["objects"][kind].as_array().unwrap().len(), count, "{kind}");
    }
    assert_eq!(snapshot["objects"]["settings"][0]["max_copies"], 3);
    let (instance, seq) = (snapshot["instance"].as_str().unwrap(), &snapshot["seq"]);
    server.local.changes().event(&json!({"event": "playing"}));
    let mut again = server.follow(&format!("?instance={instance}&after={seq}")).await;
    let missed = frame(&mut again, |_| true).await;
    assert_eq!(missed["seq"], seq.as_u64().unwrap() + 1);
    assert_ne!(missed["type"], "snapshot");
    let mut stranger = server.follow(&format!("?instance=another&after={seq}")).await;
    assert_eq!(frame(&mut stranger, |_| true).await["type"], "snapshot");
}

#[tokio::test]
async fn silence_is_told_so_that_a_quiet_node_is_not_taken_for_a_dead_one() {
    let server = server().await;
    let mut socket = server.follow("").await;
    let idle = frame(&mut socket, |frame| frame["type"] == "idle").await;
    assert_eq!(idle["seq"], server.local.changes().seq());
}

#[tokio::test]
async fn followers_who_never_read_are_let_go_and_others_miss_nothing() {
    const SLOW: usize = 4;
    let server = server().await;
    let mut slow = Vec::new();
    for _ in 0..SLOW {
        slow.push(server.follow("").await);
    }
    let mut quick = server.follow("").await;
    let mut seq = frame(&mut quick, |_| true).await["seq"].as_u64().unwrap();
    // Beyond the ring and what the sockets of the slow ones take together.
    let long = "x".repeat(20_000);
    for round in 0..2 * RING_BYTES_MAX / long.len() {
        server.local.changes().event(&json!({"event": "storm", "round": round, "text": long}));
        loop {
            let frame = frame(&mut quick, |frame| frame["type"] != "idle").await;
            seq += 1;
            assert_eq!((&frame["seq"], frame["type"] == "snapshot"), (&json!(seq), false));
            if frame["event"]["round"] == round {
                break;
            }
        }
    }
    assert!(server.local.changes().kept_bytes() <= RING_BYTES_MAX);
    assert_eq!(server.ask("GET", "/api/v1/session", None).await.status, 204);
    let all = format!("astral_api_readers_dropped_total{{why=\"slow\"}} {SLOW}");
    let gone = async {
        while !server.raw("GET", "/metrics", "", "").await.body.contains(&all) {
            frame(&mut quick, |_| true).await;
        }
    };
    timeout(3 * SOON, gone).await.expect("whoever takes nothing is let go");
    // Now one of them reads, and finds that it was let go.
    let end = timeout(SOON, async {
        loop {
            match slow[0].next().await {
                Some(Ok(Message::Close(close))) => return close,
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return None,
            }
        }
    });
    let reason = end.await.unwrap().map(|close| close.reason.to_string());
    assert!(reason.is_none_or(|reason| reason.contains("too slow")));
}

#[tokio::test]
async fn a_follower_who_talks_nonsense_is_let_go() {
    let server = server().await;
    for nonsense in [Message::text("nonsense"), Message::binary(vec![0; 100])] {
        let mut socket = server.follow("").await;
        socket.send(nonsense).await.unwrap();
        let closed = timeout(SOON, async {
            while let Some(Ok(message)) = socket.next().await {
                if message.is_close() {
                    break;
                }
            }
        });
        closed.await.unwrap();
    }
    let large = Message::text("x".repeat(100_000));
    let mut socket = server.follow("").await;
    // The server may hang up before it has all of it.
    let _ = socket.send(large).await;
    timeout(SOON, async { while let Some(Ok(_)) = socket.next().await {} }).await.unwrap();
}

#[tokio::test]
async fn followers_end_with_the_node() {
    let mut server = server().await;
    let mut socket = server.follow("").await;
    frame(&mut socket, |_| true).await;
    timeout(SOON, server.local.stop()).await.unwrap();
    timeout(SOON, async { while let Some(Ok(_)) = socket.next().await {} }).await.unwrap();
}
