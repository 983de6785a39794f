//! A node that is attacked for an hour while it forwards a stream: nothing grows, and no byte of
//! the stream is lost.
//!
//! Owns the load and the figures. Run by `make soak`, on loopback; `SOAK_SECONDS` says how long.

use std::{
    collections::VecDeque,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use astral_core::{
    announcement::{Announcement, Signature, SignedAnnouncement},
    ids::StreamId,
    media::cert::SourceSigner,
    overlay::{Ask, AskStripe, DirRequest, StreamStatus, TicketRequest},
};
use tokio::{
    io::AsyncWriteExt,
    task::JoinHandle,
    time::{Instant, interval, timeout},
};

use super::Hostile;
use crate::node::{
    Event, Playback, PlaybackItem,
    testing::{Encoder, PATIENCE, Recorder, TestNode, Transport},
};

/// How long without `SOAK_SECONDS`.
const SECONDS: u64 = 3_600;
/// Viewers that come and go at once.
const VIEWERS: usize = 4;
/// A viewer comes, and the oldest goes, this often.
const CHURN: Duration = Duration::from_secs(3);
/// Hostile peers at once; each is somebody else after a while.
const ATTACKERS: u8 = 4;
/// Requests of one attacker under one name.
const REQUESTS: u32 = 400;
/// What an attacker leaves between two requests, so that one core is left for the network.
const PAUSE: Duration = Duration::from_millis(5);
/// Between two looks at the figures.
const LOOK: Duration = Duration::from_secs(1);
/// What may come on top of a tenth between the second and the last quarter: allocator and noise.
const SLACK: [u64; 3] = [24 * 1_024, 24, 40];
const NAMES: [&str; 3] = ["memory in KiB", "open files", "tasks of the node"];

/// One look: memory, files, tasks.
type Figures = [u64; 3];

fn figures(node: &tokio::runtime::Handle) -> Figures {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let memory = memory.split_whitespace().next().unwrap().parse().unwrap();
    let files = fs::read_dir("/proc/self/fd").unwrap().count();
    let tasks = node.metrics().num_alive_tasks();
    [memory, u64::try_from(files).unwrap(), u64::try_from(tasks).unwrap()]
}

fn median(looks: &[Figures], of: usize) -> u64 {
    let mut values: Vec<u64> = looks.iter().map(|look| look[of]).collect();
    values.sort_unstable();
    values[values.len() / 2]
}

/// Somebody who floods the node with announcements, tickets and claims, and is then somebody else.
async fn attack(number: u8, node: Arc<TestNode>, stream: StreamId, stop: Arc<AtomicBool>) -> u64 {
    let mut sent = 0;
    for life in 0_u32.. {
        let seed = u8::try_from(life % 50).unwrap() * ATTACKERS + number;
        let peer = Hostile::start(seed.wrapping_add(40)).await;
        if timeout(PATIENCE, peer.meet(&node)).await.is_err() {
            continue;
        }
        for round in 0..REQUESTS {
            if stop.load(Ordering::Relaxed) {
                return sent;
            }
            // Refused, banned or cut off: all of that is the node's right.
            let _ = flood(&peer, &node, stream, life * REQUESTS + round).await;
            sent += 1;
            tokio::time::sleep(PAUSE).await;
        }
    }
    sent
}

async fn flood(peer: &Hostile, node: &TestNode, stream: StreamId, n: u32) -> Result<(), String> {
    let mut other = *stream.as_bytes();
    other[..4].copy_from_slice(&n.to_be_bytes());
    let other = StreamId(other);
    match n % 4 {
        0 => {
            let status =
                StreamStatus { stream: other, depths: vec![1; 4], free: 9, seeding: false };
            peer.dir(node, DirRequest::Status { streams: vec![status] }).await.map(drop)
        }
        1 => {
            let stripes =
                (0..4).map(|stripe| AskStripe { stripe, head: None, warm: false }).collect();
            let contact = peer.contact.clone();
            let ask = Ask {
                stream: other,
                stripes,
                contact,
                free: 16,
                attempt: 0,
                slots: 16,
                displace: 0,
            };
            peer.ticket(node, TicketRequest::Ask(ask)).await.map(drop)
        }
        2 => peer.dir(node, DirRequest::Find { stream: other }).await.map(drop),
        _ => {
            // Sound announcements of streams that nobody has.
            let found = peer.dir(node, DirRequest::Find { stream }).await?;
            let astral_core::overlay::DirResponse::Found { announcement: Some(genuine) } = found
            else {
                return Ok(());
            };
            let seed = n.to_be_bytes();
            let signer = SourceSigner::from_seed(&std::array::from_fn(|at| seed[at % 4]));
            let base = genuine.announcement().clone();
            let mine = Announcement { source: signer.key(), ..base };
            let sealed = SignedAnnouncement::seal(mine, |bytes| Signature(signer.sign(bytes)));
            let Ok(announcement) = sealed.map(Arc::new) else { return Ok(()) };
            peer.dir(node, DirRequest::Publish { announcement }).await.map(drop)
        }
    }
}

/// Writes what is played into a file: in memory it would grow by itself.
fn keep(mut playback: Playback, file: &std::path::Path) -> (JoinHandle<u32>, Arc<AtomicU64>) {
    let file = file.to_owned();
    let size = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&size);
    let task = tokio::spawn(async move {
        let mut out = tokio::fs::File::create(file).await.unwrap();
        let mut skips = 0;
        while let Some(item) = playback.next().await {
            match item {
                PlaybackItem::Flv(bytes) => {
                    out.write_all(&bytes).await.unwrap();
                    counted.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                }
                PlaybackItem::Skipped { .. } => skips += 1,
                _ => {}
            }
        }
        out.flush().await.unwrap();
        skips
    });
    (task, size)
}

#[test]
#[ignore = "an hour; make soak"]
fn an_attacked_node_does_not_grow_and_its_stream_is_unharmed() {
    let seconds = std::env::var("SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    let time = Duration::from_secs(seconds.unwrap_or(SECONDS));
    // The node's own tasks are counted, so it has a runtime of its own.
    let own = tokio::runtime::Runtime::new().unwrap();
    let rest = tokio::runtime::Runtime::new().unwrap();
    let handle = own.handle().clone();
    rest.block_on(soak(handle, time));
}

async fn soak(own: tokio::runtime::Handle, time: Duration) {
    let mut source =
        TestNode::start(Transport::Tcp, &[], |config| config.max_copies = Some(1)).await;
    source.event(|event| matches!(event, Event::Promoted { .. }).then_some(())).await;
    let encoder = Encoder::start(&source, "garden", 2, 400).await;
    let bootstrap = source.handle.listen_addrs();
    let node = own.spawn(async move {
        TestNode::start(Transport::Tcp, &[], |config| {
            config.bootstrap = bootstrap;
            config.role = crate::node::RoleChoice::Supernode;
        })
        .await
    });
    let mut node = node.await.unwrap();
    node.listed(encoder.stream).await;
    node.handle.seed(&encoder.stream.into()).await.unwrap();
    let node = Arc::new(node);
    let steady = TestNode::start(Transport::Tcp, &[&node], |_| {}).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("played.flv");
    let (played, size) = keep(steady.watch(encoder.stream).await, &file);

    let stop = Arc::new(AtomicBool::new(false));
    let attackers: Vec<_> = (0..ATTACKERS)
        .map(|n| tokio::spawn(attack(n, node.clone(), encoder.stream, stop.clone())))
        .collect();
    let looks = churn(&node, encoder.stream, &own, time, &size).await;
    stop.store(true, Ordering::Relaxed);
    let mut sent = 0;
    for attacker in attackers {
        sent += timeout(PATIENCE, attacker).await.unwrap().unwrap();
    }
    let cut = encoder.end().await;
    assert_eq!(timeout(PATIENCE, played).await.unwrap().unwrap(), 0, "chunks skipped");
    let bytes = fs::read(&file).unwrap();
    // Behind the init segment everything is the source's.
    let tail = &bytes[bytes.len() / 16..];
    assert!(cut.ends_with(tail), "{} bytes played are no tail of {}", tail.len(), cut.len());
    println!("{sent} hostile requests, {} bytes played, none lost", bytes.len());
    verdict(&looks);
}

/// Viewers come and go; gives the figures meanwhile.
async fn churn(
    node: &Arc<TestNode>,
    stream: StreamId,
    own: &tokio::runtime::Handle,
    time: Duration,
    size: &AtomicU64,
) -> Vec<Figures> {
    let (mut looks, mut viewers) = (Vec::new(), VecDeque::new());
    let (mut look, mut next) = (interval(LOOK), Instant::now());
    let (until, mut came) = (Instant::now() + time, 0);
    let mut last = (0, Instant::now());
    while Instant::now() < until {
        look.tick().await;
        looks.push(figures(own));
        let now = size.load(Ordering::Relaxed);
        if now > last.0 {
            last = (now, Instant::now());
        }
        assert!(last.1.elapsed() < PATIENCE, "the stream stands still at {now} bytes");
        if Instant::now() >= next {
            next += CHURN;
            came += 1;
            let viewer = TestNode::start(Transport::Tcp, &[node], |_| {}).await;
            let recorder = Recorder::start(viewer.watch(stream).await);
            viewers.push_back((viewer, recorder));
            // Every other one dies without a word.
            if viewers.len() > VIEWERS
                && let Some((viewer, recorder)) = viewers.pop_front()
            {
                if came % 2 == 0 {
                    viewer.kill().await;
                } else {
                    viewer.handle.leave().await;
                }
                recorder.finish().await;
            }
        }
    }
    println!("{came} viewers came and went");
    looks
}

fn verdict(looks: &[Figures]) {
    let quarter = looks.len() / 4;
    let (early, late) = (&looks[quarter..2 * quarter], &looks[3 * quarter..]);
    let mut grown = Vec::new();
    for (of, name) in NAMES.iter().enumerate() {
        let (before, after) = (median(early, of), median(late, of));
        println!("{name}: {before} in the second quarter, {after} in the last");
        if after > before + before / 10 + SLACK[of] {
            grown.push(*name);
        }
    }
    assert!(grown.is_empty(), "grown: {grown:?}");
}
