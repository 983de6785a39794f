//! What forwarding costs: CPU seconds of a relay per delivered gigabit and the delay from the source
//! to the relay's children, over TCP+Noise and QUIC; beside it in the same run a plain tokio TCP
//! fan-out that writes each chunk by itself, nginx-rtmp (60 KB chunks, where it is installed), and
//! libp2p alone with one write a picture.
//! Then how many children one core bears, what one more hop costs, how long a viewer takes to join,
//! and how long nothing comes when its parent is killed.
//!
//! Owns which processes there are: the server under test on one core, on the other the source and
//! all children. Does not own thresholds: the figures are printed, `ARCHITECTURE.md` keeps them.
//!
//! `cargo bench --bench fanout` runs all; `FANOUT_N=1,50 FANOUT_SECONDS=3 FANOUT_OF=tcp-noise`
//! shortens it.

#[path = "support/bare.rs"]
mod bare;
#[path = "support/counter.rs"]
mod counter;
#[path = "support/followers.rs"]
mod followers;
#[path = "support/kills.rs"]
mod kills;
#[path = "support/load.rs"]
mod load;
#[path = "support/namespace.rs"]
mod namespace;
#[path = "support/nginx.rs"]
mod nginx;
#[path = "support/nodes.rs"]
mod nodes;
#[path = "support/picture.rs"]
mod picture;
#[path = "support/plain.rs"]
mod plain;
#[path = "support/process.rs"]
mod process;
#[path = "support/rtmp.rs"]
mod rtmp;
#[path = "support/table.rs"]
mod table;

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use nginx::Nginx;
use picture::RATE;
use process::{Process, numbers, run, seconds, text};
use serde_json::{Value, json};
use table::Table;

/// Hops of the chain whose delay is measured.
const HOPS: usize = 5;
/// Joins that are timed.
const JOINS: usize = 40;
/// Streams that one relay carries in the last row, for as many viewers as one stream has before.
const STREAMS: usize = 8;
/// Steps by which a relay gets more children until one is too many.
const CHILDREN_STEP: usize = 50;
/// With so many more than that bar asks for the search ends.
const CHILDREN_MAX: usize = 600;
/// A relay bears its children while this share of what it gets goes out to each of them,
const DELIVERED: f64 = 0.98;
/// and 99 of 100 frames are there after so many milliseconds.
const LATE_MS: f64 = 100.0;
/// Children whose memory is measured.
const MEMORY_CHILDREN: usize = 100;
/// A relay keeps so much of a stream (`RelayConfig::ring_window`), and a little more.
const RING: Duration = Duration::from_secs(25);
/// Parents that are killed.
const KILLS: usize = 20;
/// Stripes of the stream.
const STRIPES: u64 = 8;
/// A kill waits so long for every stripe to have a standby, which few forwarders cannot always give.
const STANDBYS_MAX: Duration = Duration::from_secs(20);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse().expect("a number");
    match words[..] {
        ["plain"] => run(plain::sender()),
        ["plain-receivers", n, address] => run(plain::receivers(number(n), address)),
        ["bare"] => run(bare::sender()),
        ["bare-receivers", n, address] => run(bare::receivers(number(n), address)),
        ["players", n, publish, play] => run(load::players(number(n), publish, play)),
        ["relay", transport] => run(nodes::relay(transport)),
        ["source", transport, address, streams] => {
            run(nodes::source(transport, address, number(streams)));
        }
        ["followers", transport, n, address, links] => {
            run(followers::followers(transport, number(n), address, links));
        }
        ["origin"] => run(kills::origin()),
        ["forwarder", address, link] => run(kills::forwarder(address, link)),
        ["keeper", address, link] => run(kills::keeper(address, link)),
        ["chain", hops] => run(nodes::chain(number(hops))),
        ["joins", address, link, joins] => run(nodes::joins(address, link, number(joins))),
        _ => drive(),
    }
}

fn drive() {
    namespace::enter();
    let window = seconds("FANOUT_SECONDS", 6);
    let of = std::env::var("FANOUT_OF")
        .unwrap_or_else(|_| "plain-tcp,nginx-rtmp,bare-libp2p,tcp-noise,quic".into());
    let about = format!("{RATE} to each; CPU seconds of the server per delivered Gbit");
    let mut table = Table::new("fanout", &about);
    let sizes = numbers("FANOUT_N", "1,10,50,100,200");
    for n in &sizes {
        for server in of.split(',') {
            match row(server, *n, 1, window) {
                Some(row) => table.row(row),
                None => table.missing(server, *n, "is not installed"),
            }
        }
    }
    if let Some(most) = sizes.iter().max().filter(|most| **most >= STREAMS) {
        let mut row = relay("tcp-noise", *most, STREAMS, window);
        row["server"] = json!(format!("{STREAMS} streams"));
        table.row(row);
    }
    let mut also = Vec::new();
    if of.contains("tcp-noise") {
        let children = children_per_core(&mut table, window);
        also = vec![children, memory(), chain(window), joins(), gaps()];
        also.iter().for_each(|what| println!("{what}"));
    }
    table.write(also);
}

fn row(server: &str, n: usize, streams: usize, window: Duration) -> Option<Value> {
    match server {
        "plain-tcp" => {
            let mut sender = Process::start(0, &["plain"]);
            let address = text(&sender.line(), "address");
            let mut receivers = Process::start(1, &["plain-receivers", &n.to_string(), &address]);
            Some(sender.measure(server, n, &mut receivers, window))
        }
        "bare-libp2p" => {
            let mut sender = Process::start(0, &["bare"]);
            let address = text(&sender.line(), "address");
            let mut children = connected(n, &["bare-receivers", &n.to_string(), &address]);
            children.ask("follow");
            Some(sender.measure(server, n, &mut children, window))
        }
        "nginx-rtmp" => {
            let nginx = Nginx::start()?;
            let words = ["players", &n.to_string(), &nginx.url, &nginx.url];
            let mut players = Process::start(1, &words);
            Some(nginx.process.measure(server, n, &mut players, window))
        }
        transport => Some(relay(transport, n, streams, window)),
    }
}

/// A source, the relay under test with the only free slots, and its children.
fn relay(transport: &str, n: usize, streams: usize, window: Duration) -> Value {
    let (relay, _source, address, links) = carrying(transport, streams);
    let words = ["followers", transport, &n.to_string(), &address, &links];
    let mut children = connected(n, &words);
    children.ask("follow");
    relay.measure(transport, n, &mut children, window)
}

/// A relay that carries the streams of a source, and where they are found.
fn carrying(transport: &str, streams: usize) -> (Process, Process, String, String) {
    let mut relay = Process::start(0, &["relay", transport]);
    let address = text(&relay.line(), "address");
    let mut source = Process::start(1, &["source", transport, &address, &streams.to_string()]);
    let links = text(&source.line(), "links");
    relay.ask(&links);
    assert_eq!(relay.line()["carries"], json!(streams), "the relay carries every stream");
    (relay, source, address, links)
}

/// Children with their connections, which follow when they are told to.
fn connected(n: usize, words: &[&str]) -> Process {
    let mut children = Process::start(1, words);
    assert_eq!(children.line()["connected"], json!(n), "every child has its connection");
    children
}

/// How many children one core bears, and rows of them until there are too many.
fn children_per_core(table: &mut Table, window: Duration) -> Value {
    let first = seconds("FANOUT_CHILDREN", 250).as_secs() as usize;
    let mut borne = 0;
    for n in (first..=CHILDREN_MAX).step_by(CHILDREN_STEP) {
        let row = relay("tcp-noise", n, 1, window);
        let number = |field: &str| row[field].as_f64().unwrap_or(f64::INFINITY);
        let wanted = RATE.as_bps() as f64 / 1e6 * n as f64;
        let bears = number("p99_ms") < LATE_MS && number("mbps") > DELIVERED * wanted;
        table.row(row);
        if !bears {
            break;
        }
        borne = n;
    }
    json!({"children_per_core": borne, "late_ms": LATE_MS})
}

/// What a child costs in memory, beside one of a sender that is nothing but libp2p.
fn memory() -> Value {
    let n = MEMORY_CHILDREN.to_string();
    let (relay, _source, address, links) = carrying("tcp-noise", 1);
    // The ring is full by then, and grows no more.
    thread::park_timeout(RING);
    let of_relay = memory_of(&relay, &["followers", "tcp-noise", &n, &address, &links]);
    let mut bare = Process::start(0, &["bare"]);
    let address = text(&bare.line(), "address");
    let of_bare = memory_of(&bare, &["bare-receivers", &n, &address]);
    json!({
        "children": MEMORY_CHILDREN, "kb_per_child": of_relay, "kb_per_bare_child": of_bare,
        "kb_beyond": of_relay - of_bare,
    })
}

/// By how much a server grows for each child that it serves.
fn memory_of(server: &Process, words: &[&str]) -> f64 {
    let alone = server.resident_kb();
    let mut children = connected(MEMORY_CHILDREN, words);
    children.ask("follow");
    assert_eq!(children.line()["playing"], json!(MEMORY_CHILDREN), "every child plays");
    thread::park_timeout(Duration::from_secs(4));
    (server.resident_kb() - alone) / MEMORY_CHILDREN as f64
}

/// The delay of a chain without load, in one process, by hop.
fn chain(window: Duration) -> Value {
    let mut chain = Process::start(0, &["chain", &HOPS.to_string()]);
    assert_eq!(chain.line()["playing"], json!(1), "the end of the chain plays");
    chain.ask("now");
    chain.line();
    thread::park_timeout(window);
    chain.ask("now");
    let end = chain.line();
    let a_hop = |field: &str| end[field].as_f64().map(|ms| ms / HOPS as f64);
    json!({"chain_hops": HOPS, "p50_ms_a_hop": a_hop("p50_ms"), "p99_ms_a_hop": a_hop("p99_ms")})
}

/// From a node's start to the first byte of a picture, and from its wish when it runs already.
fn joins() -> Value {
    let mut relay = Process::start(0, &["relay", "tcp-noise"]);
    let address = text(&relay.line(), "address");
    let mut source = Process::start(1, &["source", "tcp-noise", &address, "1"]);
    let link = text(&source.line(), "links");
    relay.ask(&link);
    relay.line();
    Process::start(1, &["joins", &address, &link, &JOINS.to_string()]).line()
}

/// A viewer's parent is killed again and again: its longest wait for a frame, and what it lost.
fn gaps() -> Value {
    let mut origin = Process::start(1, &["origin"]);
    let ready = origin.line();
    let (address, link) = (text(&ready, "address"), text(&ready, "link"));
    let forwarder = || {
        let mut forwarder = Process::start(1, &["forwarder", &address, &link]);
        (text(&forwarder.line(), "node"), forwarder)
    };
    let mut forwarders = BTreeMap::from([forwarder(), forwarder(), forwarder()]);
    let mut keeper = Process::start(0, &["keeper", &address, &link]);
    keeper.line();
    let (mut waits_us, mut stripes, mut standbys, mut lost) = (Vec::new(), 0, 0, 0);
    for _ in 0..KILLS {
        let fed = busiest(&mut keeper, &forwarders);
        drop(forwarders.remove(&fed.parent));
        thread::park_timeout(Duration::from_secs(2));
        keeper.ask("now");
        let told = keeper.line();
        waits_us.push((told["wait_ms"].as_f64().expect("a wait") * 1e3) as u32);
        lost += told["lost"].as_u64().expect("a count");
        stripes += fed.stripes;
        standbys += fed.standbys;
        forwarders.extend([forwarder()]);
    }
    waits_us.sort_unstable();
    let wait_ms = |percent: usize| f64::from(waits_us[(KILLS - 1) * percent / 100]) / 1e3;
    let of_each = |count: u64| count as f64 / KILLS as f64;
    json!({
        "kills": KILLS, "stripes_of_each": of_each(stripes), "standbys_of_each": of_each(standbys),
        "gap_p50_ms": wait_ms(50), "gap_p95_ms": wait_ms(95), "frames_lost": lost,
    })
}

/// Of a viewer at the moment when its parent is killed.
struct Fed {
    parent: String,
    /// Stripes that come from it.
    stripes: u64,
    /// Stripes with somebody to take over.
    standbys: u64,
}

/// Who feeds the viewer most, as soon as every stripe has a standby, or after [`STANDBYS_MAX`] anyway.
fn busiest(keeper: &mut Process, forwarders: &BTreeMap<String, Process>) -> Fed {
    let deadline = Instant::now() + STANDBYS_MAX;
    loop {
        keeper.ask("now");
        let told = keeper.line();
        let standbys = told["standbys"].as_u64().expect("a count");
        let parents = told["parents"].as_object().expect("parents");
        let feeding = parents.iter().filter(|(node, _)| forwarders.contains_key(*node));
        let most = feeding.max_by_key(|(_, stripes)| stripes.as_u64());
        let is_late = Instant::now() >= deadline;
        match most {
            Some((parent, stripes)) if standbys == STRIPES || is_late => {
                let stripes = stripes.as_u64().expect("a count");
                return Fed { parent: parent.clone(), stripes, standbys };
            }
            _ => assert!(!is_late, "no forwarder feeds the viewer after 20 s: {told}"),
        }
        thread::park_timeout(Duration::from_millis(100));
    }
}
