//! A fan-out over libp2p and nothing else: one write for each picture, nothing signed, verified or
//! granted. What a relay costs beyond this is Astral's own.
//!
//! Owns both ends of that protocol. Does not own connections (`followers`).

use astral_core::media::flv::TagReader;
use bytes::{Bytes, BytesMut};
use libp2p::{
    PeerId, Stream, StreamProtocol,
    futures::{AsyncReadExt, AsyncWriteExt, StreamExt},
    identity::Keypair,
    multiaddr::Protocol,
    swarm::SwarmEvent,
};
use libp2p_stream::Control;
use serde_json::json;
use tokio::sync::{broadcast, mpsc};

use crate::{
    counter::{News, count},
    followers::{connections, peer_of, swarm, told_to_follow},
    nodes::newest,
    picture::Picture,
    process::say,
};

const PICTURES: StreamProtocol = StreamProtocol::new("/bench/pictures/1");

/// Serves whoever opens a stream.
pub async fn sender() {
    let mut swarm = swarm("tcp-noise", Keypair::generate_ed25519());
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().expect("address")).expect("a listener");
    let mut streams = swarm.behaviour().new_control().accept(PICTURES).expect("the first time");
    let peer = Protocol::P2p(*swarm.local_peer_id());
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            break address.with(peer);
        }
    };
    say(&json!({"address": address.to_string()}));
    tokio::spawn(async move { while swarm.next().await.is_some() {} });
    let (pictures, _) = broadcast::channel::<Bytes>(64);
    let to = pictures.clone();
    tokio::spawn(async move {
        while let Some((_, stream)) = streams.next().await {
            tokio::spawn(send(stream, to.subscribe()));
        }
    });
    let mut picture = Picture::new();
    loop {
        let mut flv = BytesMut::new();
        picture.next().await.write(&mut flv);
        // Without receivers there is nobody to send to.
        let _ = pictures.send(flv.freeze());
    }
}

async fn send(mut stream: Stream, mut pictures: broadcast::Receiver<Bytes>) {
    // The other side said nothing: a stream is there when its first byte is.
    while let Ok(picture) = pictures.recv().await {
        if stream.write_all(&picture).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
}

/// Reads `n` times from `address`, as soon as it is told to.
pub async fn receivers(n: usize, address: &str) {
    let (address, children) = connections("tcp-noise", n, address).await;
    told_to_follow(n).await;
    let (report, reports) = mpsc::channel(4_096);
    for (_, control) in children {
        tokio::spawn(receive(control, peer_of(&address), report.clone()));
    }
    drop(report);
    count(n, reports).await;
}

async fn receive(mut control: Control, from: PeerId, report: mpsc::Sender<News>) {
    let mut stream = control.open_stream(from, PICTURES).await.expect("the sender has pictures");
    let mut reader = TagReader::default();
    reader.push(b"FLV\x01\x01\0\0\0\x09\0\0\0\0");
    let mut buffer = vec![0; 65_536];
    let mut playing = false;
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        if !std::mem::replace(&mut playing, true) && report.send(News::Playing).await.is_err() {
            return;
        }
        reader.push(&buffer[..read]);
        if report.send(News::Bytes(read, newest(&mut reader))).await.is_err() {
            return;
        }
    }
}
