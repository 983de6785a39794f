//! Many players of one node, and one that stops reading.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::timeout,
};

use crate::harness::{Network, Node, SOON, Scratch};

/// Players that read whatever comes.
const PLAYERS: usize = 200;
/// From a player's last byte taken to the end of its connection: twenty seconds are promised.
const CLOSED_MAX: Duration = Duration::from_secs(60);
/// What two hundred players may cost the node: some kilobytes each, and what an allocator keeps.
const GROWTH_MAX: u64 = 64 << 20;

/// What one player went through.
#[derive(Default)]
struct Seen {
    bytes: AtomicU64,
    /// Longest time without a byte, in milliseconds, since the measuring began.
    gap_ms: AtomicU64,
}

#[test]
fn two_hundred_players_read_on_while_one_that_stopped_reading_is_closed_and_memory_stays() {
    let scratch = Scratch::new("crowd");
    let network = Network::found();
    let source = network.publish("crowd", &scratch.file("cut.flv"), &["--bitrate", "600kbit"]);
    let node = network.seed("server", &source.link, &[]);
    node.wait("playing", SOON, |_| true);
    let url = node.ready["media"]["http_flv"].as_str().unwrap().to_owned();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(crowd(&node, &url));
}

async fn crowd(node: &Node, url: &str) {
    let mut tasks = JoinSet::new();
    let measuring = Arc::new(AtomicBool::new(false));
    let mut players = Vec::new();
    for _ in 0..PLAYERS {
        let (seen, measuring) = (Arc::new(Seen::default()), Arc::clone(&measuring));
        let socket = open(url, None).await;
        players.push(Arc::clone(&seen));
        tasks.spawn(read(socket, seen, measuring));
    }
    let all = |least: u64| players.iter().all(|seen| seen.bytes.load(Ordering::Relaxed) > least);
    until("every player reads", SOON, || all(0)).await;
    let mut stopped = open(url, Some(16 * 1_024)).await;
    let mut first = [0; 1_024];
    timeout(SOON, stopped.read_exact(&mut first)).await.unwrap().unwrap();
    let memory = resident(node);
    measuring.store(true, Ordering::Relaxed);
    let began = Instant::now();
    let before: Vec<u64> = players.iter().map(|s| s.bytes.load(Ordering::Relaxed)).collect();
    // Its connection is reset; nothing is read from it until then.
    let closed = async { timeout(CLOSED_MAX, stopped.ready(tokio::io::Interest::ERROR)).await };
    closed.await.expect("closed in time").unwrap();
    println!(
        "the player that stopped reading was closed {:?} after its last byte",
        began.elapsed()
    );
    let grown = resident(node).saturating_sub(memory);
    let mut gaps: Vec<u64> = players.iter().map(|s| s.gap_ms.load(Ordering::Relaxed)).collect();
    gaps.sort_unstable();
    println!(
        "{PLAYERS} players: longest gap p50 {} ms, max {} ms; memory +{} KB over {} KB",
        gaps[PLAYERS / 2],
        gaps[PLAYERS - 1],
        grown >> 10,
        memory >> 10,
    );
    assert!(grown < GROWTH_MAX, "memory grew by {grown} bytes");
    let played = players.iter().zip(before).map(|(s, b)| s.bytes.load(Ordering::Relaxed) - b);
    let played: Vec<u64> = played.collect();
    let (least, most) = (*played.iter().min().unwrap(), *played.iter().max().unwrap());
    assert!(least * 2 > most, "one got {least} bytes while another got {most}");
    assert!(gaps[PLAYERS - 1] < 5_000, "somebody waited: {gaps:?}");
}

/// A player of `url` whose answer has begun; with a small window where `window` says so.
async fn open(url: &str, window: Option<u32>) -> TcpStream {
    let (host, path) = url.trim_start_matches("http://").split_once('/').unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    if let Some(window) = window {
        socket.set_recv_buffer_size(window).unwrap();
    }
    let mut socket = socket.connect(host.parse().unwrap()).await.unwrap();
    let request = format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    socket
}

async fn read(mut socket: TcpStream, seen: Arc<Seen>, measuring: Arc<AtomicBool>) {
    let mut bytes = vec![0; 64 * 1_024];
    let mut last = Instant::now();
    while let Ok(n) = socket.read(&mut bytes).await {
        if n == 0 {
            return;
        }
        seen.bytes.fetch_add(n as u64, Ordering::Relaxed);
        let gap = u64::try_from(last.elapsed().as_millis()).unwrap();
        last = Instant::now();
        if measuring.load(Ordering::Relaxed) {
            seen.gap_ms.fetch_max(gap, Ordering::Relaxed);
        }
    }
}

async fn until(what: &str, within: Duration, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !done() {
        assert!(Instant::now() < deadline, "{what} within {within:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Memory of a node's process, in bytes.
fn resident(node: &Node) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}
