//! What a fan-out costs: CPU seconds of the sending process per delivered gigabit, and the delay of
//! one hop including verification, over TCP+Noise and QUIC, beside a plain tokio TCP fan-out that
//! writes each chunk by itself, in the same run.
//!
//! Owns the three kinds of process (this driver, a sender, N receivers), the synthetic stream and
//! the table. Does not own thresholds: the figures are printed, `ARCHITECTURE.md` keeps them.
//!
//! `cargo bench --bench fanout` runs all; `FANOUT_N=1,16 FANOUT_SECONDS=3` shortens it. Everything
//! stays on loopback.

#[path = "support/picture.rs"]
mod picture;
#[path = "support/process.rs"]
mod process;

use std::time::Duration;

use astral::node::{Node, NodeConfig, PlaybackItem, Policy, PublishSpec, RoleChoice, WatchSpec};
use astral_core::{ids::StreamName, media::flv::TagReader, units::Bitrate};
use bytes::Bytes;
use picture::{MARK, Picture, RATE, born, sequence_header, unix_nanos};
use process::{Process, load, say, text};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Between the last receiver's first picture and the measurement: more than a keyframe interval.
const SETTLE: Duration = Duration::from_secs(4);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("runtime");
    match words[..] {
        ["sender", transport] => runtime.block_on(sender(transport)),
        ["receivers", transport, n, address, stream] => {
            runtime.block_on(receivers(transport, n.parse().expect("a number"), address, stream));
        }
        _ => drive(),
    }
    runtime.shutdown_background();
}

// ---------------------------------------------------------------- the driver

fn drive() {
    let list = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.into());
    let sizes: Vec<usize> =
        list("FANOUT_N", "1,4,16,64").split(',').map(|n| n.parse().expect("FANOUT_N")).collect();
    let seconds: u64 = list("FANOUT_SECONDS", "6").parse().expect("FANOUT_SECONDS");
    println!("{RATE} of signed chunks; sender CPU seconds per delivered Gbit; load {}", load());
    println!(
        "{:<12} {:>4} {:>10} {:>10} {:>9} {:>9}",
        "transport", "N", "s/Gbit", "Mbit/s", "p50 ms", "p99 ms"
    );
    for n in sizes {
        for transport in ["plain-tcp", "tcp-noise", "quic"] {
            let row = measure(transport, n, Duration::from_secs(seconds));
            println!(
                "{:<12} {:>4} {:>10.3} {:>10.1} {:>9.2} {:>9.2}",
                transport,
                n,
                row["s_per_gbit"].as_f64().unwrap_or(f64::NAN),
                row["mbps"].as_f64().unwrap_or(f64::NAN),
                row["p50_ms"].as_f64().unwrap_or(f64::NAN),
                row["p99_ms"].as_f64().unwrap_or(f64::NAN),
            );
            println!("{row}");
        }
    }
}

fn measure(transport: &str, n: usize, window: Duration) -> Value {
    let mut sender = Process::start(0, &["sender", transport]);
    let hello = sender.line();
    let (address, stream) = (text(&hello, "address"), text(&hello, "stream"));
    let n_text = n.to_string();
    let mut receivers = Process::start(1, &["receivers", transport, &n_text, &address, &stream]);
    assert_eq!(receivers.line()["playing"], json!(n), "every receiver plays");
    // Joiners begin at the last keyframe: what they catch up on is not delay of the hop.
    std::thread::park_timeout(SETTLE);
    receivers.ask();
    let begin = receivers.line();
    let cpu_begin = sender.cpu_seconds();
    std::thread::park_timeout(window);
    receivers.ask();
    let end = receivers.line();
    let cpu = sender.cpu_seconds() - cpu_begin;
    let number = |row: &Value, field: &str| row[field].as_f64().unwrap_or(0.0);
    let gbit = (number(&end, "bytes") - number(&begin, "bytes")) * 8.0 / 1e9;
    let seconds = number(&end, "at") - number(&begin, "at");
    json!({
        "transport": transport, "n": n, "cpu_s": cpu, "gbit": gbit, "s_per_gbit": cpu / gbit,
        "mbps": gbit * 1_000.0 / seconds, "p50_ms": end["p50_ms"], "p99_ms": end["p99_ms"],
    })
}

// ---------------------------------------------------------------- senders

async fn sender(transport: &str) {
    if transport == "plain-tcp" {
        return plain_sender().await;
    }
    let listen = match transport {
        "quic" => "/ip4/127.0.0.1/udp/0/quic-v1",
        _ => "/ip4/127.0.0.1/tcp/0",
    };
    let config = NodeConfig {
        listen: vec![listen.parse().expect("address")],
        role: RoleChoice::Supernode,
        uplink: Some(Bitrate::from_mbps(10_000)),
        mdns: false,
        ..NodeConfig::default()
    };
    let (handle, _running) = Node::start(config).await.expect("the sender");
    let spec = PublishSpec {
        name: StreamName::new("bench").expect("name"),
        title: String::new(),
        description: String::new(),
        tags: Vec::new(),
        k: Some(8),
        rate: Some(RATE),
        preview: false,
    };
    let mut publisher = handle.publish(spec).await.expect("publishing");
    say(&json!({
        "address": handle.listen_addrs()[0].to_string(), "stream": publisher.link().to_string(),
    }));
    publisher.push_tag(sequence_header()).await.expect("the stream lives");
    let mut picture = Picture::new();
    loop {
        publisher.push_tag(picture.next().await).await.expect("the stream lives");
    }
}

async fn plain_sender() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address").to_string();
    say(&json!({"address": address, "stream": ""}));
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

// ---------------------------------------------------------------- receivers

#[derive(Default)]
struct Seen {
    bytes: u64,
    delays_us: Vec<u32>,
}

async fn receivers(transport: &str, n: usize, address: &str, stream: &str) {
    let (report, mut reports) = tokio::sync::mpsc::channel::<(usize, Option<u64>)>(4_096);
    for _ in 0..n {
        let (report, address, stream) = (report.clone(), address.to_owned(), stream.to_owned());
        if transport == "plain-tcp" {
            tokio::spawn(plain_receiver(report, address));
        } else {
            tokio::spawn(node_receiver(report, address, stream));
        }
    }
    let mut seen = Seen::default();
    let mut playing = 0;
    let mut lines = tokio::io::BufReader::new(tokio::io::stdin());
    let mut line = String::new();
    loop {
        tokio::select! {
            report = reports.recv() => match report {
                Some((0, _)) => {
                    playing += 1;
                    if playing == n {
                        say(&json!({"playing": n}));
                    }
                }
                Some((bytes, born)) => {
                    seen.bytes += bytes as u64;
                    seen.delays_us.extend(born.map(|b| (unix_nanos().saturating_sub(b) / 1_000) as u32));
                }
                None => return,
            },
            read = tokio::io::AsyncBufReadExt::read_line(&mut lines, &mut line) => {
                if read.unwrap_or(0) == 0 {
                    return;
                }
                line.clear();
                seen.delays_us.sort_unstable();
                let at = |share: usize| {
                    let index = (seen.delays_us.len().max(1) - 1) * share / 100;
                    seen.delays_us.get(index).map(|us| f64::from(*us) / 1_000.0)
                };
                say(&json!({
                    "bytes": seen.bytes, "at": unix_nanos() as f64 / 1e9,
                    "p50_ms": at(50), "p99_ms": at(99),
                }));
                seen.delays_us.clear();
            }
        }
    }
}

type Report = tokio::sync::mpsc::Sender<(usize, Option<u64>)>;

async fn plain_receiver(report: Report, address: String) {
    let mut socket = TcpStream::connect(address).await.expect("the sender listens");
    let mut reader = TagReader::default();
    reader.push(b"FLV\x01\x01\0\0\0\x09\0\0\0\0");
    let mut buffer = vec![0; 65_536];
    report.send((0, None)).await.expect("the counter lives");
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
        take(&mut reader, read, &report).await;
    }
}

async fn node_receiver(report: Report, address: String, stream: String) {
    let config = NodeConfig {
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().expect("address")],
        bootstrap: vec![address.parse().expect("address")],
        role: RoleChoice::Member,
        max_copies: Some(0),
        mdns: false,
        ..NodeConfig::default()
    };
    let (handle, _running) = Node::start(config).await.expect("a receiver");
    let stream = stream.parse().expect("link");
    let lag = Duration::from_millis(1_500);
    let spec = WatchSpec { policy: Policy::Live { lag }, lag };
    let mut playback = handle.watch(&stream, spec).await.expect("watching");
    let mut reader = TagReader::default();
    let mut first = true;
    while let Some(item) = playback.next().await {
        if let PlaybackItem::Flv(bytes) = item {
            if std::mem::take(&mut first) {
                report.send((0, None)).await.expect("the counter lives");
            }
            reader.push(&bytes);
            take(&mut reader, bytes.len(), &report).await;
        }
    }
}

async fn take(reader: &mut TagReader, bytes: usize, report: &Report) {
    let mut newest = None;
    while let Some(Ok(tag)) = reader.next() {
        newest = born(&tag.body).or(newest);
    }
    // The counter ends with the process.
    let _ = report.send((bytes, newest)).await;
}
