//! Children of the node under test that are no nodes: they speak libp2p, tickets and feeds, read
//! and acknowledge everything and check nothing, so that one core bears hundreds of them and what is
//! measured is their parent.
//!
//! Owns the child's side of both protocols. Does not own what is counted (`counter`).

use std::{collections::BTreeMap, time::Duration};

use astral::node::StreamRef;
use astral_core::{
    ids::{Direction, NodeId, StreamId, StripeSet},
    media::{
        chunk::{Payload, WireChunk},
        frame::{DownFrame, FrameReader, FrameSide, Hello, HelloAck, Start, UpFrame},
    },
    overlay::{Ask, AskAnswer, AskStripe, Contact, TicketRequest, TicketResponse, Verdict, Wire},
};
use bytes::BytesMut;
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, Swarm, SwarmBuilder,
    futures::{AsyncReadExt, AsyncWriteExt, StreamExt},
    identity::Keypair,
    multiaddr::Protocol,
    noise,
    swarm::SwarmEvent,
    tcp, yamux,
};
use libp2p_stream::{Behaviour, Control};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt as _, BufReader, stdin},
    sync::mpsc,
};
use tokio_util::compat::FuturesAsyncReadCompatExt;

use crate::{
    counter::{News, count},
    nodes::refs,
    picture::born,
    process::say,
};

const TICKETS: StreamProtocol = StreamProtocol::new("/astral/ticket/1");
const FEEDS: StreamProtocol = StreamProtocol::new("/astral/feed/1");
/// Stripes of the stream under test.
const K: u8 = 8;
/// From one child's join to the next one's.
const BETWEEN_JOINS: Duration = Duration::from_millis(30);
/// Questions for tickets before a child gives up.
const TRIES_MAX: u32 = 40;
/// Bytes of a tag before its body.
const TAG_HEAD: usize = 11;

/// Connects `n` times, says so, and follows the streams in turn when it is told to.
pub async fn followers(transport: &str, n: usize, address: &str, links: &str) {
    let streams: Vec<StreamId> = refs(links).iter().map(StreamRef::id).collect();
    let (address, children) = connections(transport, n, address).await;
    told_to_follow(n).await;
    let (report, reports) = mpsc::channel(4_096);
    tokio::spawn(async move {
        for (at, (node, control)) in children.into_iter().enumerate() {
            let stream = streams[at % streams.len()];
            tokio::spawn(follow(node, control, peer_of(&address), stream, report.clone()));
            // A node bounds the greetings that it answers at the same moment.
            tokio::time::sleep(BETWEEN_JOINS).await;
        }
    });
    count(n, reports).await;
}

/// `n` connections to `address`, each with a key of its own.
pub async fn connections(
    transport: &str,
    n: usize,
    address: &str,
) -> (Multiaddr, Vec<(NodeId, Control)>) {
    let address: Multiaddr = address.parse().expect("address");
    let mut children = Vec::new();
    for _ in 0..n {
        children.push(connect(transport, &address).await);
    }
    (address, children)
}

/// Says that all `n` are connected, and waits for the order to follow.
pub async fn told_to_follow(n: usize) {
    say(&json!({"connected": n}));
    BufReader::new(stdin()).lines().next_line().await.expect("stdin").expect("the order to follow");
}

/// Whose address it is.
pub fn peer_of(address: &Multiaddr) -> PeerId {
    match address.iter().last() {
        Some(Protocol::P2p(peer)) => peer,
        _ => panic!("{address} tells no peer"),
    }
}

/// A connection with a key of its own, whose swarm runs as long as this process.
async fn connect(transport: &str, address: &Multiaddr) -> (NodeId, Control) {
    let key = Keypair::generate_ed25519();
    let public = key.public().try_into_ed25519().expect("the kind that was made");
    let node = NodeId(public.to_bytes());
    let mut swarm = swarm(transport, key);
    let control = swarm.behaviour().new_control();
    swarm.dial(address.clone()).expect("an address that can be dialled");
    while !matches!(swarm.select_next_some().await, SwarmEvent::ConnectionEstablished { .. }) {}
    tokio::spawn(async move { while swarm.next().await.is_some() {} });
    (node, control)
}

/// A peer that opens and accepts streams, and no more.
pub fn swarm(transport: &str, key: Keypair) -> Swarm<Behaviour> {
    let builder = SwarmBuilder::with_existing_identity(key).with_tokio();
    let idle = |config: libp2p::swarm::Config| {
        config.with_idle_connection_timeout(Duration::from_secs(3_600))
    };
    let behaviour = |_: &Keypair| Behaviour::new();
    match transport {
        "quic" => {
            let builder = builder.with_quic().with_behaviour(behaviour).expect("never fails");
            builder.with_swarm_config(idle).build()
        }
        _ => {
            let tcp = tcp::Config::default().nodelay(true);
            let builder = builder.with_tcp(tcp, noise::Config::new, yamux::Config::default);
            let builder = builder.expect("a transport").with_behaviour(behaviour);
            builder.expect("never fails").with_swarm_config(idle).build()
        }
    }
}

/// Gets tickets for all stripes and reads them until the parent ends the feed.
async fn follow(
    node: NodeId,
    mut control: Control,
    parent: PeerId,
    stream: StreamId,
    report: mpsc::Sender<News>,
) {
    // A relay that has just begun may not have every stripe yet.
    let mut tries = 0;
    loop {
        let asked = control.open_stream(parent, TICKETS).await.expect("the parent has tickets");
        let answer = ask(asked, node, stream).await;
        if granted(&answer) == usize::from(K) {
            break;
        }
        tries += 1;
        assert!(tries < TRIES_MAX, "not every stripe is granted: {answer:?}");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let feed = control.open_stream(parent, FEEDS).await.expect("the parent has feeds");
    let mut feed = feed.compat();
    let mut said = BytesMut::new();
    Hello { stream, opener: Direction::FromParent }.encode(&mut said);
    write(&mut feed, &mut said).await;
    let mut frames = FrameReader::new(FrameSide::Down);
    let answer = loop {
        if let Some(frame) = frames.next() {
            break HelloAck::decode(&frame.expect("a lawful frame")).expect("an answer");
        }
        assert!(feed.read_buf(frames.buffer_mut()).await.expect("the parent lives") > 0);
    };
    assert_eq!(answer, HelloAck::Accepted);
    for stripe in 0..K {
        UpFrame::Promote { stripe, start: Start::Live, missing: Vec::new() }.encode(&mut said);
    }
    write(&mut feed, &mut said).await;
    let (mut bytes, mut births, mut playing) = (0, Births::default(), false);
    loop {
        let (mut framed, mut media, mut newest) = (0, 0, None);
        while let Some(frame) = frames.next() {
            let raw = frame.expect("a lawful frame");
            if let DownFrame::Chunk(chunk) = DownFrame::<WireChunk>::decode(&raw).expect("lawful") {
                framed += raw.frame().len() as u64;
                media += chunk.payload().len();
                newest = births.of(&chunk).or(newest);
            }
        }
        if framed > 0 {
            let first = !std::mem::replace(&mut playing, true);
            let news = [first.then_some(News::Playing), Some(News::Bytes(media, newest))];
            for news in news.into_iter().flatten() {
                if report.send(news).await.is_err() {
                    return;
                }
            }
            bytes += framed;
            UpFrame::Ack { bytes, alive: StripeSet::first(K) }.encode(&mut said);
            write(&mut feed, &mut said).await;
        }
        let read = feed.read_buf(frames.buffer_mut()).await.expect("the parent lives");
        assert!(read > 0, "the parent ended the feed");
    }
}

async fn ask(mut stream: Stream, node: NodeId, of: StreamId) -> AskAnswer {
    let ask = TicketRequest::Ask(Ask {
        stream: of,
        stripes: (0..K).map(AskStripe::live).collect(),
        contact: Contact::new(node, Vec::new()),
        free: 16,
        attempt: 0,
        // As many as make nobody contribute more, who would get its place.
        slots: 16 * u16::from(K),
        displace: 0,
    });
    let bytes = ask.to_wire().expect("a short request");
    stream.write_all(&bytes).await.expect("the parent reads");
    stream.close().await.expect("the parent reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("the parent answers");
    match TicketResponse::from_wire(&answer).expect("an answer") {
        TicketResponse::Answer(answer) => answer,
        other => panic!("{other:?}"),
    }
}

fn granted(answer: &AskAnswer) -> usize {
    answer.stripes.iter().filter(|it| matches!(it.verdict, Verdict::Grant { .. })).count()
}

async fn write(feed: &mut (impl tokio::io::AsyncWrite + Unpin), said: &mut BytesMut) {
    use tokio::io::AsyncWriteExt;
    feed.write_all(&said.split()).await.expect("the parent reads");
    feed.flush().await.expect("the parent reads");
}

/// When frames were born of which not all chunks are there yet.
#[derive(Default)]
struct Births(BTreeMap<u64, Frame>);

#[derive(Default)]
struct Frame {
    born: Option<u64>,
    chunks: u16,
}

impl Births {
    /// Of the frame that this chunk completes.
    fn of(&mut self, chunk: &WireChunk) -> Option<u64> {
        let header = chunk.header();
        let frame = self.0.entry(header.time_ms).or_default();
        frame.chunks += 1;
        if header.fragment == 0 {
            frame.born = chunk.payload().get(TAG_HEAD..).and_then(born);
        }
        let whole = frame.chunks == header.fragments;
        let born = whole.then(|| self.0.remove(&header.time_ms)).flatten()?.born;
        // What came before a frame that is whole will not be.
        self.0 = self.0.split_off(&header.time_ms.saturating_sub(2_000));
        born
    }
}
