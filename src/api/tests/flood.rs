//! A hundred followers that hardly read, ten thousand events a second, and a few followers that do.

use futures::StreamExt;
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_tungstenite::tungstenite::Message;

use super::{events::Socket, *};
use crate::api::changes::RING_BYTES_MAX;

const SLOW: usize = 100;
const QUICK: usize = 5;
const PER_S: usize = 10_000;
const TICKS_PER_S: usize = 100;
/// What the node may hold for all slow followers together: the ring, and a batch for each in its
/// buffer, with room for what the allocator keeps.
const GROWTH_MAX: u64 = 96 * 1024 * 1024;

/// Reads a frame a second, and comes back after a while as a page does that hears nothing new.
async fn crawl(server: Arc<Server>) {
    loop {
        let mut socket = server.follow("").await;
        for _ in 0..10 {
            if socket.next().await.is_none_or(|message| message.is_err()) {
                break;
            }
            sleep(Duration::from_secs(1)).await;
        }
    }
}

/// Reads all `count` events as they come: how late each was, sorted, in microseconds.
async fn keep_up(mut socket: Socket, epoch: Instant, count: usize) -> Vec<u64> {
    let mut late = Vec::with_capacity(count);
    while late.len() < count {
        let message = timeout(SOON, socket.next()).await.unwrap().unwrap().unwrap();
        let Message::Text(text) = message else { continue };
        // Far cheaper than parsing, which would measure the test.
        let field = |name: &str| {
            let after = text.split_once(name)?.1;
            let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
            after[..end].parse::<u64>().ok()
        };
        let (Some(n), Some(sent)) = (field(r#""storm":"#), field(r#""sent_us":"#)) else {
            continue;
        };
        assert_eq!(n, late.len() as u64, "every event, in its order");
        late.push((epoch.elapsed().as_micros() as u64).saturating_sub(sent));
    }
    late.sort_unstable();
    late
}

/// Asks for the node's health twenty times a second; how long each answer took, in microseconds.
async fn ask_health(server: Arc<Server>, took: Arc<Mutex<Vec<u64>>>) {
    let mut tick = interval(Duration::from_millis(50));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let asked = Instant::now();
        let answer = server.raw("GET", "/healthz", "", "").await;
        assert_eq!(answer.status, 200);
        took.lock().unwrap().push(asked.elapsed().as_micros() as u64);
    }
}

/// Tells `seconds` of storm to followers that keep up; how late all events came to all of them.
async fn storm(server: &Server, seconds: usize) -> Vec<u64> {
    let epoch = Instant::now();
    let count = seconds * PER_S;
    let mut readers = JoinSet::new();
    for _ in 0..QUICK {
        readers.spawn(keep_up(server.follow("").await, epoch, count));
    }
    let mut tick = interval(Duration::from_secs(1) / TICKS_PER_S as u32);
    // Never more in a second than is told.
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for n in 0..count {
        if n % (PER_S / TICKS_PER_S) == 0 {
            tick.tick().await;
        }
        let sent = epoch.elapsed().as_micros() as u64;
        let detail = "a parent was lost and another one found";
        server.local.changes().event(
            &json!({"event": "storm", "storm": n, "sent_us": sent, "stream": LISTED, "detail": detail}),
        );
    }
    let mut late: Vec<u64> = readers.join_all().await.concat();
    late.sort_unstable();
    late
}

fn at(late: &[u64], share: f64) -> f64 {
    late[((late.len() - 1) as f64 * share) as usize] as f64 / 1_000.0
}

fn tell(what: &str, late: &[u64]) {
    println!(
        "{what}: {} times, after {:.1} ms (median), {:.1} ms (99 %), {:.1} ms (most)",
        late.len(),
        at(late, 0.5),
        at(late, 0.99),
        at(late, 1.0),
    );
}

/// What of this process is in memory, in bytes.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4_096
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "40 s of storm: make test-long"]
async fn a_hundred_slow_followers_and_ten_thousand_events_a_second_disturb_nobody() {
    let server = Arc::new(server().await);
    let alone = storm(&server, 10).await;
    tell("events with nobody slow", &alone);
    let before = resident();
    let mut crawling = JoinSet::new();
    for _ in 0..SLOW {
        crawling.spawn(crawl(server.clone()));
    }
    let health = Arc::new(Mutex::new(Vec::new()));
    let asking = tokio::spawn(ask_health(server.clone(), Arc::clone(&health)));
    let beside = storm(&server, 30).await;
    asking.abort();
    tell(&format!("events with {SLOW} slow ones"), &beside);
    let mut health = std::mem::take(&mut *health.lock().unwrap());
    health.sort_unstable();
    tell("health beside them", &health);
    let grown = resident().saturating_sub(before + beside.len() as u64 * 16);
    crawling.shutdown().await;
    let metrics = server.raw("GET", "/metrics", "", "").await.body;
    let let_go = metrics.lines().find_map(|line| {
        line.strip_prefix("astral_api_readers_dropped_total{why=\"slow\"} ")?.parse::<u32>().ok()
    });
    println!("{let_go:?} slow ones let go; {} KiB more in memory", grown / 1024);
    assert!(let_go > Some(0), "they were slow");
    assert!(server.local.changes().kept_bytes() <= RING_BYTES_MAX);
    assert!(grown < GROWTH_MAX, "{grown} bytes more");
    // Not how fast this machine is, but that the slow ones make little difference on it.
    assert!(at(&beside, 0.5) < 10.0 * at(&alone, 0.5).max(20.0));
    assert!(at(&health, 0.5) < 10.0 * at(&alone, 0.5).max(20.0));
}
