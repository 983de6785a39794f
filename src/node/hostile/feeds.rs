//! The hostile peer's feeds: a child that keeps what it gets, a parent that passes on what it likes.
//!
//! Owns both tasks. Does not own any check.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use astral_core::{
    ids::{Direction, NodeId, StreamId, StripeSet},
    media::{
        cert::SignedCert,
        chunk::{ChunkFlags, Payload, WireChunk},
        frame::{
            DownFrame, EndReason, FrameReader, FrameSide, Hello, HelloAck, KeepEntry, Start,
            UpFrame,
        },
        init::SignedInit,
    },
    overlay::{
        Ask, AskAnswer, AskStripe, RefuseReason, StripeAnswer, TicketId, TicketRequest,
        TicketResponse, Verdict, path_hash,
    },
    units::Bitrate,
};
use bytes::{Bytes, BytesMut};
use libp2p::Stream;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinHandle,
    time::Instant,
};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};

use super::{Hostile, until};
use crate::node::{
    feed::handshake::{answer, be_greeted, greet},
    testing::TestNode,
};

/// What came down a feed.
#[derive(Default)]
pub struct Got {
    pub cert: Option<SignedCert>,
    pub inits: Vec<SignedInit>,
    pub chunks: Vec<WireChunk>,
    pub last_chunk: Option<Instant>,
    pub shed: StripeSet,
    pub end: Option<EndReason>,
    pub closed: bool,
}

/// A child that reads and acknowledges everything.
pub struct Follower {
    pub got: Arc<Mutex<Got>>,
    pub tickets: Vec<TicketId>,
    task: JoinHandle<()>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Follower {
    /// Gets tickets for all of a stream's stripes and follows them from the newest keyframe on.
    pub async fn start(peer: &Hostile, parent: &TestNode, stream: StreamId, k: u8) -> Self {
        let tickets = ask(peer, parent, stream, k).await;
        assert_eq!(tickets.len(), usize::from(k));
        let mut feed = peer.open(parent).await.unwrap();
        let hello = Hello { stream, opener: Direction::FromParent };
        let frames = greet(&mut feed, hello).await.unwrap();
        let got = Arc::new(Mutex::new(Got::default()));
        let task = tokio::spawn(follow(feed, frames, k, Arc::clone(&got)));
        Self { got, tickets, task }
    }

    pub async fn has_chunks(&self, count: usize) {
        until("chunks", async || self.got.lock().unwrap().chunks.len() >= count).await;
    }
}

/// Asks for every stripe; gives the tickets granted.
pub async fn ask(peer: &Hostile, parent: &TestNode, stream: StreamId, k: u8) -> Vec<TicketId> {
    let ask = Ask {
        stream,
        stripes: (0..k).map(AskStripe::live).collect(),
        contact: peer.contact.clone(),
        free: 16,
        attempt: 0,
        // As many as make nobody contribute more, who would get its place.
        slots: 16 * u16::from(k),
        displace: 0,
    };
    let mut again = tokio::time::interval(Duration::from_millis(50));
    let answer = loop {
        again.tick().await;
        match peer.ticket(parent, TicketRequest::Ask(ask.clone())).await.unwrap() {
            TicketResponse::Answer(answer) => break answer,
            // Published, and not yet announced.
            TicketResponse::Refused { reason: RefuseReason::NotCarrying, .. } => {}
            other => panic!("{other:?}"),
        }
    };
    let granted = answer.stripes.iter().filter_map(|stripe| match stripe.verdict {
        Verdict::Grant { ticket, .. } => Some(ticket),
        Verdict::Refuse { .. } => None,
    });
    granted.collect()
}

pub fn promote_all(k: u8) -> BytesMut {
    let mut bytes = BytesMut::new();
    for stripe in 0..k {
        UpFrame::Promote { stripe, start: Start::Live, missing: Vec::new() }.encode(&mut bytes);
    }
    bytes
}

async fn follow(mut feed: Compat<Stream>, mut frames: FrameReader, k: u8, got: Arc<Mutex<Got>>) {
    let mut bytes = 0;
    let mut said = promote_all(k);
    loop {
        while let Some(frame) = frames.next() {
            let raw = frame.unwrap();
            let frame = DownFrame::decode(&raw).unwrap();
            // Chunks alone are acknowledged.
            if matches!(frame, DownFrame::Chunk(_)) {
                bytes += raw.frame().len() as u64;
            }
            let mut got = got.lock().unwrap();
            match frame {
                DownFrame::Cert(cert) => got.cert = Some(cert),
                DownFrame::Init(init) => got.inits.push(init),
                DownFrame::Chunk(chunk) => {
                    got.chunks.push(chunk);
                    got.last_chunk = Some(Instant::now());
                }
                DownFrame::Shed { stripes } => got.shed.0 |= stripes.0,
                DownFrame::End { reason } => got.end = Some(reason),
                DownFrame::Start { .. }
                | DownFrame::Keep { .. }
                | DownFrame::Path { .. }
                | DownFrame::Gap { .. } => {}
            }
        }
        UpFrame::Ack { bytes, alive: StripeSet::first(k) }.encode(&mut said);
        let said_all = feed.write_all(&said.split()).await.is_ok() && feed.flush().await.is_ok();
        if !said_all || !matches!(feed.read_buf(frames.buffer_mut()).await, Ok(1..)) {
            got.lock().unwrap().closed = true;
            return;
        }
    }
}

/// The bytes of frames.
pub fn encoded(frames: &[DownFrame<WireChunk>]) -> Bytes {
    let mut bytes = BytesMut::new();
    for frame in frames {
        frame.encode(&mut bytes);
    }
    bytes.freeze()
}

/// What a hostile parent sends in the place of each chunk.
pub type Tamper = Box<dyn FnMut(&WireChunk) -> Vec<Bytes> + Send>;

/// Becomes a forwarder of a stream with one stripe: grants `child` what it asks, refuses everybody
/// else, and passes on what `tamper` makes of what came from `source`.
pub fn forward(
    peer: &Hostile,
    source: NodeId,
    child: NodeId,
    got: &Arc<Mutex<Got>>,
    tamper: Tamper,
) -> Served {
    let path = vec![path_hash(&source), path_hash(&peer.node)];
    grant(peer, child, path.clone());
    let mut feeds = peer.take_feeds();
    let got = Arc::clone(got);
    let tamper = Arc::new(Mutex::new(tamper));
    let task = tokio::spawn(async move {
        while let Some((node, inbound)) = feeds.recv().await {
            let mut feed = inbound.stream.compat();
            let hello = be_greeted(&mut feed).await.unwrap();
            assert_eq!((node, hello.opener), (child, Direction::FromParent));
            answer(&mut feed, HelloAck::Accepted).await.unwrap();
            serve(feed, path.clone(), Arc::clone(&got), Arc::clone(&tamper)).await;
        }
    });
    Served(task)
}

/// The task of a forwarder; dies with this value.
pub struct Served(JoinHandle<()>);

impl Drop for Served {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Grants one child the first stripe, and refuses everything else.
pub fn grant(peer: &Hostile, child: NodeId, path: Vec<u64>) {
    peer.on_ticket(move |from, request| {
        let TicketRequest::Ask(ask) = request else { return Some(TicketResponse::Done) };
        let stripes = ask.stripes.iter().map(|asked| {
            let verdict = if from == child {
                let ticket = TicketId(7);
                Verdict::Grant {
                    ticket,
                    expires_in_ms: 10_000,
                    path: path.clone(),
                    displaced: None,
                }
            } else {
                Verdict::Refuse { reason: RefuseReason::NoCapacity }
            };
            StripeAnswer { stripe: asked.stripe, verdict }
        });
        Some(TicketResponse::Answer(AskAnswer {
            rate: Bitrate::from_kbps(400),
            k: 1,
            stripes: stripes.collect(),
            redirect: Vec::new(),
        }))
    });
}

async fn serve(
    mut feed: Compat<Stream>,
    path: Vec<u64>,
    got: Arc<Mutex<Got>>,
    tamper: Arc<Mutex<Tamper>>,
) {
    let opening = {
        let got = got.lock().unwrap();
        let mut frames = vec![DownFrame::Cert(got.cert.clone().unwrap())];
        frames.extend(got.inits.iter().cloned().map(DownFrame::Init));
        frames.push(DownFrame::Path { stripe: 0, path });
        encoded(&frames)
    };
    if feed.write_all(&opening).await.is_err() || feed.flush().await.is_err() {
        return;
    }
    let mut frames = FrameReader::new(FrameSide::Up);
    let start = loop {
        if let Some(frame) = frames.next() {
            if let UpFrame::Promote { start, .. } = UpFrame::decode(&frame.unwrap()).unwrap() {
                break start;
            }
        } else if !matches!(feed.read_buf(frames.buffer_mut()).await, Ok(1..)) {
            return;
        }
    };
    let mut next = begin(&got.lock().unwrap().chunks, start);
    let mut look = tokio::time::interval(Duration::from_millis(5));
    let mut begun = false;
    let (mut readable, mut writable) = tokio::io::split(feed);
    let drain = async {
        let mut sunk = BytesMut::new();
        while matches!(readable.read_buf(&mut sunk).await, Ok(1..)) {
            sunk.clear();
        }
    };
    let write = async {
        loop {
            look.tick().await;
            let due: Vec<WireChunk> = got.lock().unwrap().chunks[next..].to_vec();
            next += due.len();
            for chunk in &due {
                let mut bytes = BytesMut::new();
                if !std::mem::replace(&mut begun, true) {
                    bytes.extend_from_slice(&opened_at(chunk));
                }
                for frame in (tamper.lock().unwrap())(chunk) {
                    bytes.extend_from_slice(&frame);
                }
                if writable.write_all(&bytes).await.is_err() || writable.flush().await.is_err() {
                    return;
                }
            }
        }
    };
    tokio::select! {
        () = drain => {}
        () = write => {}
    }
}

fn begin(chunks: &[WireChunk], start: Start) -> usize {
    let key = |chunk: &WireChunk| chunk.header().flags.contains(ChunkFlags::KEYFRAME);
    let at = match start {
        Start::Live => chunks.iter().rposition(|c| key(c) && c.header().fragment == 0),
        Start::From(from) => chunks.iter().position(|c| c.header().stripe_seq >= from),
    };
    at.unwrap_or(chunks.len())
}

fn opened_at(chunk: &WireChunk) -> Bytes {
    let header = chunk.header();
    let (from_stripe_seq, from_seq) = (header.stripe_seq, header.seq);
    let keep = KeepEntry { stripe: 0, head_seq: from_seq, age_ms: 0, depth: 1 };
    encoded(&[
        DownFrame::Start { stripe: 0, from_stripe_seq, from_seq },
        DownFrame::Keep { stripes: vec![keep], paused: false },
    ])
}
