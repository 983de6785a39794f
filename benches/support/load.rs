//! The load on a server that serves players: one encoder and N players in one process, which read
//! the time of birth in what they get.

use std::time::Duration;

use astral_core::media::flv::TagReader;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};

use crate::{
    counter::{News, count},
    picture::{Picture, born, sequence_header},
    rtmp::{self, Client},
};

/// Players whose media is parsed for delays; the others only count bytes, so that the load tool
/// keeps up.
const PARSED_MAX: usize = 8;
/// A node bounds the connections that ask for nothing yet (the oldest of 128 makes way), so that not all
/// come at the same moment.
const BETWEEN_PLAYERS: Duration = Duration::from_millis(5);

/// Publishes to `publish`, reads `n` times from `play`, and answers what the driver asks.
pub async fn players(n: usize, publish: &str, play: &str) {
    let mut encoder = Client::connect(publish).await;
    encoder.publish().await;
    encoder.send(&sequence_header()).await;
    tokio::spawn(async move {
        let mut picture = Picture::new();
        loop {
            encoder.send(&picture.next().await).await;
        }
    });
    let (report, reports) = mpsc::channel::<News>(4_096);
    for player in 0..n {
        let (report, play) = (report.clone(), play.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep(BETWEEN_PLAYERS * player as u32).await;
            one_player(report, play, player < PARSED_MAX).await;
        });
    }
    count(n, reports).await;
}

async fn one_player(report: mpsc::Sender<News>, url: String, parses: bool) {
    let (mut socket, mut media) = if url.starts_with("rtmp:") {
        let (socket, session) = Client::connect(&url).await.play().await;
        (socket, Media::Rtmp(Box::new(session)))
    } else {
        (ask_http(&url).await, Media::Flv(TagReader::default()))
    };
    if report.send(News::Playing).await.is_err() {
        return;
    }
    let mut buffer = vec![0; 128 * 1024];
    while let Ok(read @ 1..) = socket.read(&mut buffer).await {
        let born = if parses { media.newest(&buffer[..read]) } else { None };
        if report.send(News::Bytes(read, born)).await.is_err() {
            return;
        }
    }
}

/// Asks until the stream is there; gives the socket behind the head of the answer.
async fn ask_http(url: &str) -> TcpStream {
    let rest = url.strip_prefix("http://").expect("http");
    let (host, path) = rest.split_once('/').expect("a path");
    loop {
        let mut socket = TcpStream::connect(host).await.expect("the server listens");
        // Version 1.0: the body comes as it is, not in pieces with sizes.
        let ask = format!("GET /{path} HTTP/1.0\r\nHost: {host}\r\n\r\n");
        socket.write_all(ask.as_bytes()).await.expect("the server reads");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(byte) = socket.read_u8().await else { break };
            head.push(byte);
        }
        if head.starts_with(b"HTTP/1.0 200") || head.starts_with(b"HTTP/1.1 200") {
            return socket;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// How a player reads what comes.
enum Media {
    Flv(TagReader),
    Rtmp(Box<rtmp::Session>),
}

impl Media {
    /// The birth of the newest frame that these bytes complete.
    fn newest(&mut self, bytes: &[u8]) -> Option<u64> {
        match self {
            Self::Flv(tags) => {
                tags.push(bytes);
                let mut newest = None;
                while let Some(Ok(tag)) = tags.next() {
                    newest = born(&tag.body).or(newest);
                }
                newest
            }
            Self::Rtmp(session) => {
                session.videos(bytes).iter().filter_map(|body| born(body)).next_back()
            }
        }
    }
}
