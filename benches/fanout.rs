//! What forwarding costs: CPU seconds of a relay per delivered gigabit and the delay from the source
//! to its viewers, verified at both hops, over TCP+Noise and QUIC; beside it in the same run a plain
//! tokio TCP fan-out that writes each chunk by itself, and nginx-rtmp (60 KB chunks, where it is
//! installed). Then what one more hop costs, and how long a viewer takes to join.
//!
//! Owns which processes there are: the server under test on one core, on the other the source and
//! all viewers. Does not own thresholds: the figures are printed, `ARCHITECTURE.md` keeps them.
//!
//! `cargo bench --bench fanout` runs all; `FANOUT_N=1,50 FANOUT_SECONDS=3 FANOUT_OF=tcp-noise`
//! shortens it.

#[path = "support/counter.rs"]
mod counter;
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

use std::time::Duration;

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

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse().expect("a number");
    match words[..] {
        ["plain"] => run(plain::sender()),
        ["plain-receivers", n, address] => run(plain::receivers(number(n), address)),
        ["players", n, publish, play] => run(load::players(number(n), publish, play)),
        ["relay", transport] => run(nodes::relay(transport)),
        ["source", transport, address, streams] => {
            run(nodes::source(transport, address, number(streams)));
        }
        ["viewers", transport, n, address, links] => {
            run(nodes::viewers(transport, number(n), address, links));
        }
        ["chain", hops] => run(nodes::chain(number(hops))),
        ["joins", address, link, joins] => run(nodes::joins(address, link, number(joins))),
        _ => drive(),
    }
}

fn drive() {
    namespace::enter();
    let window = seconds("FANOUT_SECONDS", 6);
    let of =
        std::env::var("FANOUT_OF").unwrap_or_else(|_| "plain-tcp,nginx-rtmp,tcp-noise,quic".into());
    let about = format!("{RATE} of signed chunks to each; server CPU seconds per delivered Gbit");
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
    for what in [chain(window), joins()] {
        println!("{what}");
    }
    table.write();
}

fn row(server: &str, n: usize, streams: usize, window: Duration) -> Option<Value> {
    match server {
        "plain-tcp" => {
            let mut sender = Process::start(0, &["plain"]);
            let address = text(&sender.line(), "address");
            let mut receivers = Process::start(1, &["plain-receivers", &n.to_string(), &address]);
            Some(sender.measure(server, n, &mut receivers, window))
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

/// A source, the relay under test with the only free slots, and its viewers.
fn relay(transport: &str, n: usize, streams: usize, window: Duration) -> Value {
    let mut relay = Process::start(0, &["relay", transport]);
    let address = text(&relay.line(), "address");
    let mut source = Process::start(1, &["source", transport, &address, &streams.to_string()]);
    let links = text(&source.line(), "links");
    relay.ask(&links);
    assert_eq!(relay.line()["carries"], json!(streams), "the relay carries every stream");
    let mut viewers = Process::start(1, &["viewers", transport, &n.to_string(), &address, &links]);
    relay.measure(transport, n, &mut viewers, window)
}

/// The delay of a chain without load, in one process, by hop.
fn chain(window: Duration) -> Value {
    let mut chain = Process::start(0, &["chain", &HOPS.to_string()]);
    assert_eq!(chain.line()["playing"], json!(1), "the end of the chain plays");
    chain.ask("now");
    chain.line();
    std::thread::park_timeout(window);
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
