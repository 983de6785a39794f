//! HTTP-FLV over a real socket, from made-up streams.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Duration, timeout},
};

use super::*;
use crate::edge::{
    fake::{FakeServer, FakeStreams},
    interest::LINGER,
};

const ID: StreamId = StreamId([9; 32]);
const SOON: Duration = Duration::from_secs(20);

fn begun() -> FakeStreams {
    FakeStreams::greeting(flv(init()))
}

async fn server(streams: FakeStreams) -> FakeServer {
    FakeServer::start(streams, router).await
}

impl FakeServer {
    async fn ask(&self, method: &str, path: &str, headers: &str) -> (String, TcpStream) {
        let mut socket = TcpStream::connect(self.addr).await.unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n{headers}\r\n", self.addr);
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let byte = timeout(SOON, socket.read_u8()).await.unwrap().unwrap();
            head.push(byte);
        }
        (String::from_utf8(head).unwrap(), socket)
    }
}

fn path() -> String {
    format!("/live/{ID}.flv")
}

fn init() -> Vec<u8> {
    b"FLV\x01\x05\0\0\0\x09\0\0\0\0".to_vec()
}

fn frame(time: u8) -> Vec<u8> {
    vec![9, 0, 0, 2, 0, 0, time, 0, 0, 0, 0, 0x17, 1, 0, 0, 0, 13]
}

fn flv(bytes: Vec<u8>) -> MediaItem {
    MediaItem::Flv(bytes.into())
}

#[tokio::test]
async fn a_player_gets_one_flv_stream_through_loss_and_restart_of_the_source() {
    let server = server(begun()).await;
    let (head, mut socket) = server.ask("GET", &path(), "Connection: close\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("video/x-flv"), "{head}");
    assert_eq!(server.streams.opened(), [(ID, Keep::Live)]);
    let source = server.streams.newest();
    let mut bytes = Vec::new();
    source.send(flv(frame(0))).await.unwrap();
    // It plays: what comes now is not passed over for a newer keyframe.
    while !bytes.windows(frame(0).len()).any(|w| w == frame(0)) {
        bytes.push(timeout(SOON, socket.read_u8()).await.unwrap().unwrap());
    }
    for item in [
        MediaItem::SourceLost,
        MediaItem::SourceBack,
        flv(frame(33)),
        MediaItem::NewEpoch,
        flv(init()),
        flv(frame(5)),
        MediaItem::Ended { reason: "ended".into() },
    ] {
        source.send(item).await.unwrap();
    }
    let mut body = String::new();
    timeout(SOON, socket.read_to_end(&mut bytes)).await.unwrap().unwrap();
    // Chunked: sizes in hexadecimal between the pieces.
    let mut rest = &bytes[..];
    let mut got: Vec<u8> = Vec::new();
    while let Some(end) = rest.windows(2).position(|w| w == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        body.push('.');
        got.extend(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 4 + size..];
        if size == 0 {
            break;
        }
    }
    assert_eq!(got, [init(), frame(0), frame(33), frame(73)].concat());
    assert_eq!(body.len(), 5);
}

#[tokio::test]
async fn a_player_that_leaves_gives_the_stream_up() {
    let server = server(begun()).await;
    let (_, socket) = server.ask("GET", &path(), "").await;
    let source = server.streams.newest();
    assert_eq!(server.interests.readers(ID), 1);
    drop(socket);
    // A server sees a player go when it writes.
    let gone = async {
        while server.interests.readers(ID) > 0 {
            source.send(flv(frame(0))).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, gone).await.unwrap();
    assert!(LINGER >= Duration::from_secs(30));
}

#[tokio::test]
async fn web_pages_need_our_origin_and_the_token() {
    let server = server(begun()).await;
    let token = "Authorization: Bearer s3cret\r\n";
    let ours = format!("Origin: http://{}\r\n", server.addr);
    for (headers, passes) in [
        (String::new(), true),
        (token.to_owned(), true),
        (ours.clone(), false),
        (format!("{ours}{token}"), true),
        (format!("Sec-Fetch-Site: same-origin\r\n{token}"), true),
        ("Sec-Fetch-Site: none\r\n".to_owned(), false),
        ("Sec-Fetch-Site: cross-site\r\n".to_owned(), false),
        (format!("Origin: http://evil.example\r\n{token}"), false),
        (format!("Origin: null\r\n{token}"), false),
    ] {
        let opened = server.streams.opened().len();
        let (head, _socket) = server.ask("GET", &path(), &headers).await;
        let wanted = if passes { "HTTP/1.1 200" } else { "HTTP/1.1 403" };
        assert!(head.starts_with(wanted), "{headers:?}: {head}");
        // Who may read shares the one reading that the first of them began.
        assert_eq!(server.streams.opened().len() > opened, passes && opened == 0, "{headers:?}");
        assert!(!head.to_lowercase().contains("access-control"), "{head}");
    }
}

#[tokio::test]
async fn what_is_no_stream_is_said_as_a_problem() {
    let server = server(FakeStreams::unknown()).await;
    for path in [path(), "/live/abc.flv".into(), format!("/live/{ID}"), "/live/..%2fx.flv".into()] {
        let (head, _socket) = server.ask("GET", &path, "").await;
        assert!(head.starts_with("HTTP/1.1 404"), "{path}: {head}");
        assert!(head.contains("application/problem+json"), "{path}: {head}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_brings_nothing_is_said_to_be_silent_and_one_that_is_over_to_be_over() {
    let silent = server(FakeStreams::default()).await;
    let (head, _socket) = silent.ask("GET", &path(), "").await;
    assert!(head.starts_with("HTTP/1.1 503") && head.contains("retry-after: 1"), "{head}");
    assert_eq!(silent.interests.readers(ID), 0);
    let over = server(FakeStreams::greeting(MediaItem::Ended { reason: "ended".into() })).await;
    let (head, _socket) = over.ask("GET", &path(), "").await;
    assert!(head.starts_with("HTTP/1.1 404"), "{head}");
}

#[tokio::test]
async fn a_page_gets_the_same_bytes_in_frames_with_the_token_among_its_protocols() {
    let server = server(begun()).await;
    let path = format!("/live/{ID}");
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let page = format!("{upgrade}Origin: http://{}\r\n", server.addr);
    let protocols =
        |token: &str| format!("{page}Sec-WebSocket-Protocol: astral.v1, astral.token.{token}\r\n");
    for refused in [page.clone(), protocols("guess")] {
        let (head, _socket) = server.ask("GET", &path, &refused).await;
        assert!(head.starts_with("HTTP/1.1 403"), "{head}");
    }
    assert!(server.streams.opened().is_empty());
    for (headers, agreed) in [(protocols("s3cret"), true), (upgrade.to_owned(), false)] {
        let (head, mut socket) = server.ask("GET", &path, &headers).await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        assert_eq!(head.contains("sec-websocket-protocol: astral.v1\r\n"), agreed, "{head}");
        assert!(!head.contains("s3cret"), "{head}");
        let source = server.streams.newest();
        source.send(flv(frame(0))).await.unwrap();
        source.send(MediaItem::Ended { reason: "ended".into() }).await.unwrap();
        let mut got = Vec::new();
        timeout(SOON, socket.read_to_end(&mut got)).await.unwrap().unwrap();
        let mut wanted = vec![0x82, u8::try_from(init().len()).unwrap()];
        wanted.extend(init());
        wanted.extend([0x82, u8::try_from(frame(0).len()).unwrap()]);
        wanted.extend(frame(0));
        wanted.extend(b"\x88\x06\x03\xe8over");
        assert_eq!(got, wanted);
    }
}

#[tokio::test]
async fn asking_for_headers_only_joins_nothing() {
    let server = server(begun()).await;
    let (head, _socket) = server.ask("HEAD", &path(), "").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(server.streams.opened().is_empty());
    let (head, _socket) = server.ask("POST", &path(), "Content-Length: 0\r\n").await;
    assert!(head.starts_with("HTTP/1.1 405"), "{head}");
}
