//! The plainest fan-out there is: each chunk is written to each socket by itself, nothing is
//! encrypted, signed or framed.

use astral_core::media::flv::TagReader;
use bytes::Bytes;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use crate::{
    counter::{News, count},
    nodes::newest,
    picture::{MARK, Picture, RATE},
    process::say,
};

/// Serves whoever connects.
pub async fn sender() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address").to_string();
    say(&json!({"address": address}));
    let (frames, _) = tokio::sync::broadcast::channel::<Bytes>(256);
    let to = frames.clone();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            socket.set_nodelay(true).expect("nodelay");
            let mut from = to.subscribe();
            tokio::spawn(async move {
                while let Ok(chunk) = from.recv().await {
                    if socket.write_all(&chunk).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    let mut picture = Picture::new();
    // The chunk size that the node's cutter uses at this rate and k = 8.
    let target = (RATE.as_bps() / 80 / 8) as usize;
    loop {
        let mut flv = bytes::BytesMut::new();
        picture.next().await.write(&mut flv);
        let mut flv = flv.freeze();
        while !flv.is_empty() {
            // Without receivers there is nobody to send to.
            let _ = frames.send(flv.split_to(flv.len().min(target)));
        }
    }
}

/// Reads `n` times from `address`.
pub async fn receivers(n: usize, address: &str) {
    let (report, reports) = mpsc::channel(4_096);
    for _ in 0..n {
        tokio::spawn(receiver(report.clone(), address.to_owned()));
    }
    count(n, reports).await;
}

async fn receiver(report: mpsc::Sender<News>, address: String) {
    let mut socket = TcpStream::connect(address).await.expect("the sender listens");
    let mut reader = TagReader::default();
    reader.push(b"FLV\x01\x01\0\0\0\x09\0\0\0\0");
    let mut buffer = vec![0; 65_536];
    report.send(News::Playing).await.expect("the counter lives");
    let mut joined = false;
    while let Ok(read @ 1..) = socket.read(&mut buffer).await {
        let mut fresh = &buffer[..read];
        if !joined {
            // A subscriber may come in the middle of a tag: wait for the next one's beginning.
            let Some(at) = fresh.windows(MARK.len()).position(|w| w == MARK) else { continue };
            fresh = &fresh[at.saturating_sub(16)..];
            joined = true;
        }
        reader.push(fresh);
        if report.send(News::Bytes(read, newest(&mut reader))).await.is_err() {
            return;
        }
    }
}
