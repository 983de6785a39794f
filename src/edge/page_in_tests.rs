//! A page's socket, by hand: headers, frames, what becomes of them.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::*;
use crate::edge::rtmp::IngestFeed;

const ID: StreamId = StreamId([9; 32]);
const SOON: Duration = Duration::from_secs(20);

struct Server {
    addr: std::net::SocketAddr,
    keys: IngestKeys,
    _tasks: JoinSet<()>,
}

async fn server() -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let keys = IngestKeys::default();
    let app = router(keys.clone(), Gate::new(addr, "s3cret"));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
    Server { addr, keys, _tasks: tasks }
}

impl Server {
    async fn page(&self, id: StreamId, token: &str) -> (String, TcpStream) {
        let mut socket = TcpStream::connect(self.addr).await.unwrap();
        let host = self.addr;
        let request = format!(
            "GET /publish/{id} HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nConnection: \
             Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: \
             dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: astral.v1, \
             astral.token.{token}\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(timeout(SOON, socket.read_u8()).await.unwrap().unwrap());
        }
        (String::from_utf8(head).unwrap(), socket)
    }
}

/// A frame as a browser sends it, with a mask of zeros.
async fn send(socket: &mut TcpStream, kind: u8, body: &[u8]) {
    let len = u16::try_from(body.len()).unwrap().to_be_bytes();
    let frame = [&[0x80 | kind, 0x80 | 126], &len[..], &[0; 4], body].concat();
    socket.write_all(&frame).await.unwrap();
}

/// The next text of the server.
async fn hear(socket: &mut TcpStream) -> String {
    let mut head = [0; 2];
    timeout(SOON, socket.read_exact(&mut head)).await.unwrap().unwrap();
    assert_eq!(head[0], 0x81, "a text");
    let mut body = vec![0; usize::from(head[1] & 0x7f)];
    assert!(body.len() < 126);
    timeout(SOON, socket.read_exact(&mut body)).await.unwrap().unwrap();
    String::from_utf8(body).unwrap()
}

async fn next(feed: &mut IngestFeed) -> RtmpEvent {
    timeout(SOON, feed.next()).await.unwrap()
}

fn tag(kind: u8, time: u8, body: &[u8]) -> Vec<u8> {
    let len = u8::try_from(body.len()).unwrap();
    [&[kind, 0, 0, len, 0, 0, time, 0, 0, 0, 0], body, &[0; 4]].concat()
}

const HEADER: &[u8] = b"FLV\x01\x05\0\0\0\x09\0\0\0\0";

#[tokio::test]
async fn a_page_fills_a_stream_like_an_encoder_and_may_leave_and_come_back() {
    let server = server().await;
    let mut feed = server.keys.open().unwrap();
    feed.admit_page(ID);
    for _ in 0..2 {
        let (head, mut socket) = server.page(ID, "s3cret").await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        assert_eq!(hear(&mut socket).await, r#"{"type":"ready"}"#);
        assert!(matches!(next(&mut feed).await, RtmpEvent::Started { .. }));
        let (busy, _) = server.page(ID, "s3cret").await;
        assert!(busy.starts_with("HTTP/1.1 409"), "{busy}");
        let bytes = [HEADER, &tag(9, 40, b"\x17\x01\0\0\0key")].concat();
        // Cut anywhere.
        send(&mut socket, 2, &bytes[..20]).await;
        send(&mut socket, 2, &bytes[20..]).await;
        let body = Bytes::from_static(b"\x17\x01\0\0\0key");
        let wanted = Tag { kind: TagKind::Video, timestamp_ms: 40, body };
        assert_eq!(next(&mut feed).await, RtmpEvent::Tag(wanted));
        send(&mut socket, 8, &1_000_u16.to_be_bytes()).await;
        let finished = RtmpEvent::Finished { cause: FinishCause::Unpublished };
        assert_eq!(next(&mut feed).await, finished);
    }
}

#[tokio::test]
async fn only_pages_with_the_token_publish_and_only_streams_that_wait_for_one() {
    let server = server().await;
    let feed = server.keys.open().unwrap();
    let (head, _) = server.page(ID, "s3cret").await;
    assert!(head.starts_with("HTTP/1.1 404"), "this stream waits for an encoder: {head}");
    feed.admit_page(ID);
    let (head, _) = server.page(ID, "guess").await;
    assert!(head.starts_with("HTTP/1.1 401"), "{head}");
    let (head, _) = server.page(StreamId([1; 32]), "s3cret").await;
    assert!(head.starts_with("HTTP/1.1 404"), "{head}");
}

#[tokio::test]
async fn what_is_no_flv_is_refused_with_a_reason_and_a_broken_connection_is_noticed() {
    let server = server().await;
    let mut feed = server.keys.open().unwrap();
    feed.admit_page(ID);
    for (body, cause) in
        [(Some(&b"matroska?"[..]), FinishCause::Malformed), (None, FinishCause::Closed)]
    {
        let (_, mut socket) = server.page(ID, "s3cret").await;
        hear(&mut socket).await;
        assert!(matches!(next(&mut feed).await, RtmpEvent::Started { .. }));
        if let Some(body) = body {
            send(&mut socket, 2, body).await;
            assert!(hear(&mut socket).await.contains("this is no FLV"));
        }
        drop(socket);
        assert_eq!(next(&mut feed).await, RtmpEvent::Finished { cause });
    }
}

#[tokio::test]
async fn a_page_that_says_what_nobody_understands_is_told_so() {
    let server = server().await;
    let mut feed = server.keys.open().unwrap();
    feed.admit_page(ID);
    for text in [&b"hello"[..], br#"{"format": "avi"}"#] {
        let (_, mut socket) = server.page(ID, "s3cret").await;
        hear(&mut socket).await;
        send(&mut socket, 1, text).await;
        assert!(hear(&mut socket).await.contains("matroska"));
        assert!(matches!(next(&mut feed).await, RtmpEvent::Started { .. }));
        let finished = RtmpEvent::Finished { cause: FinishCause::Malformed };
        assert_eq!(next(&mut feed).await, finished);
    }
}
