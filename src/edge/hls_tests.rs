//! HLS over a real socket, from made-up streams.

use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::*;
use crate::edge::{
    fake::{FakeServer, FakeStreams},
    ports::MediaItem,
};

const ID: StreamId = StreamId([9; 32]);
/// How long an answer that can't come yet is waited for.
const STEP: Duration = Duration::from_millis(50);
const SOON: Duration = Duration::from_secs(60);

/// An init segment, or two seconds of ten pictures a second from a keyframe on.
fn piece(from_ms: u32) -> MediaItem {
    let tag = |time: u32, body: &[u8]| {
        let [t3, t2, t1, t0] = time.to_be_bytes();
        let len = u8::try_from(body.len()).unwrap();
        let mut bytes = vec![9, 0, 0, len, t2, t1, t0, t3, 0, 0, 0];
        bytes.extend(body);
        bytes.extend([0, 0, 0, len + 11]);
        bytes
    };
    let mut flv = Vec::new();
    if from_ms == 0 {
        flv.extend(b"FLV\x01\x01\0\0\0\x09\0\0\0\0");
        let avc =
            b"\x17\x00\0\0\0\x01\x42\xc0\x1e\xff\xe1\x00\x04\x67\x42\xc0\x1e\x01\x00\x02\x68\xce";
        flv.extend(tag(0, avc));
    }
    for n in 0..20 {
        let first = if n == 0 { 0x17 } else { 0x27 };
        flv.extend(tag(from_ms + n * 100, &[first, 1, 0, 0, 0, 0, 0, 0, 1, 0x65]));
    }
    MediaItem::Flv(flv.into())
}

async fn server(streams: FakeStreams) -> FakeServer {
    FakeServer::start(streams, router).await
}

impl FakeServer {
    async fn get(&self, file: &str, headers: &str) -> (u16, Vec<u8>) {
        let mut socket = TcpStream::connect(self.addr).await.unwrap();
        let host = self.addr;
        let request = format!(
            "GET /live/{ID}/{file} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n"
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        timeout(SOON, socket.read_to_end(&mut answer)).await.unwrap().unwrap();
        let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        let status = std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap();
        (status, answer.split_off(end))
    }

    async fn playlist(&self, query: &str) -> String {
        let (status, body) = self.get(&format!("index.m3u8{query}"), "").await;
        assert_eq!(status, 200);
        String::from_utf8(body).unwrap()
    }
}

#[tokio::test]
async fn a_player_finds_everything_that_the_playlist_names_and_waits_for_what_comes_next() {
    let server = server(FakeStreams::greeting(piece(0))).await;
    // Media comes until there is enough for a playlist: what came before the first look is skipped.
    let mut asking = std::pin::pin!(server.playlist(""));
    let (mut source, mut at) = (None, 0);
    let text = loop {
        if let Ok(text) = timeout(STEP, &mut asking).await {
            break text;
        }
        if source.is_none() && !server.streams.opened().is_empty() {
            source = Some(server.streams.newest());
        }
        if let Some(source) = &source {
            at += 2_000;
            source.send(piece(at)).await.unwrap();
        }
    };
    let source = source.unwrap();
    let files: Vec<&str> = text
        .split(['\n', '"'])
        .filter(|word| word.ends_with(".m4s") || word.ends_with(".mp4"))
        .collect();
    let (last, files) = files.split_last().unwrap();
    assert!(files.contains(&"init-1.mp4"), "{text}");
    assert!(files.iter().any(|file| file.starts_with("seg-")), "{text}");
    for file in files {
        let (status, body) = server.get(file, "").await;
        assert!(status == 200 && body.len() > 100, "{file}: {status}");
    }
    let last = (*last).to_owned();
    let (segment, part) =
        last.split_once('-').unwrap().1.strip_suffix(".m4s").unwrap().split_once('-').unwrap();
    // The hinted part, and a playlist that names it, come with the next media.
    let hinted = server.get(&last, "");
    let query = format!("?_HLS_msn={segment}&_HLS_part={part}");
    let reload = server.playlist(&query);
    let ((status, body), text, sent) = tokio::join!(hinted, reload, source.send(piece(at + 2_000)));
    sent.unwrap();
    assert!(status == 200 && body.len() > 100);
    assert!(text.contains(&format!("#EXT-X-PART:DURATION=0.500,URI=\"{last}\"")), "{text}");
    drop(source);
    let over = async {
        loop {
            let text = server.playlist("").await;
            if text.contains("#EXT-X-ENDLIST") {
                break text;
            }
        }
    };
    let text = timeout(SOON, over).await.unwrap();
    assert!(text.contains(&format!("seg-{segment}.m4s")), "{text}");
}

#[tokio::test]
async fn nothing_is_joined_for_files_and_for_strangers() {
    let server = server(FakeStreams::greeting(piece(0))).await;
    for file in
        ["init-1.mp4", "seg-0.m4s", "part-0-0.m4s", "seg-x.m4s", "x.m3u8", "..%2findex.m3u8"]
    {
        assert_eq!(server.get(file, "").await.0, 404, "{file}");
    }
    for headers in ["Sec-Fetch-Site: cross-site\r\n", "Sec-Fetch-Site: same-origin\r\n"] {
        assert_eq!(server.get("index.m3u8", headers).await.0, 403, "{headers}");
    }
    assert!(server.streams.opened().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_stream_for_which_nobody_asks_is_cut_no_more() {
    let streams = Arc::new(FakeStreams::greeting(piece(0)));
    let interests = Interests::new(streams.clone());
    let hub = Hub::new(interests.clone());
    let cutting = hub.open(ID).await.unwrap();
    let _source = streams.newest();
    assert_eq!((hub.len(), interests.readers(ID)), (1, 1));
    tokio::time::sleep(hub::IDLE_MAX / 2).await;
    let _ = cutting.until(Duration::ZERO, |_| Some(())).await;
    tokio::time::sleep(hub::IDLE_MAX * 3 / 4).await;
    assert_eq!((hub.len(), interests.readers(ID)), (1, 1), "somebody asked in between");
    tokio::time::sleep(hub::IDLE_MAX).await;
    assert_eq!((hub.len(), interests.readers(ID)), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn streams_being_cut_are_bounded_and_a_silent_one_is_said_to_be() {
    let hub = Hub::new(Interests::new(Arc::new(FakeStreams::default())));
    for n in 0..hub::STREAMS_MAX {
        hub.open(StreamId([u8::try_from(n).unwrap(); 32])).await.unwrap();
    }
    let error = hub.open(StreamId([99; 32])).await.unwrap_err();
    assert_eq!(error, HubError::TooMany);
    let silent = server(FakeStreams::default()).await;
    assert_eq!(silent.get("index.m3u8", "").await.0, 503);
    assert!(silent.interests.readers(ID) <= 1);
}
