//! What serving players on this machine costs: CPU seconds of the server per delivered gigabit and
//! the delay from the encoder's push to the player's socket, over HTTP-FLV and RTMP, beside
//! nginx-rtmp (60 KB chunks, where it is installed) in the same run.
//!
//! Owns the three kinds of process (this driver, the server under test on one core, and on the
//! other one the encoder with N players) and the table. Does not own thresholds: the figures are
//! printed, `ARCHITECTURE.md` keeps them.
//!
//! `cargo bench --bench players` runs all; `PLAYERS_N=1,100 PLAYERS_SECONDS=5` shortens it.
//! Everything stays on loopback.

#[path = "support/picture.rs"]
mod picture;
#[path = "support/process.rs"]
mod process;
#[path = "support/rtmp.rs"]
mod rtmp;

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use astral_core::media::flv::TagReader;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};

use picture::{Picture, born, sequence_header, unix_nanos};
use process::{Process, load, say, text};
use rtmp::Client;

/// Between the last player's first picture and the measurement: more than a keyframe interval.
const SETTLE: Duration = Duration::from_secs(4);
/// Players whose media is parsed for delays; the others only count bytes, so that the load tool
/// keeps up.
const PARSED_MAX: usize = 8;
/// The stream's name at nginx.
const APP: &str = "live";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["players", n, publish, play] => {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("runtime");
            runtime.block_on(players(n.parse().expect("a number"), publish, play));
            runtime.shutdown_background();
        }
        _ => drive(),
    }
}

// ---------------------------------------------------------------- the driver

fn drive() {
    let list = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.into());
    let sizes: Vec<usize> = list("PLAYERS_N", "1,50,100,400")
        .split(',')
        .map(|n| n.parse().expect("PLAYERS_N"))
        .collect();
    let seconds: u64 = list("PLAYERS_SECONDS", "8").parse().expect("PLAYERS_SECONDS");
    println!(
        "{} to each player; server CPU seconds per delivered Gbit; load {}",
        picture::RATE,
        load()
    );
    println!(
        "{:<16} {:>4} {:>10} {:>10} {:>9} {:>9}",
        "server", "N", "s/Gbit", "Mbit/s", "p50 ms", "p99 ms"
    );
    for n in sizes {
        for kind in [Kind::AstralHttpFlv, Kind::AstralRtmp, Kind::NginxRtmp] {
            let Some(server) = Server::start(kind) else {
                println!("{:<16} {n:>4} not installed", kind.name());
                continue;
            };
            let row = measure(server, n, Duration::from_secs(seconds));
            let number = |field: &str| row[field].as_f64().unwrap_or(f64::NAN);
            println!(
                "{:<16} {n:>4} {:>10.3} {:>10.1} {:>9.2} {:>9.2}",
                kind.name(),
                number("s_per_gbit"),
                number("mbps"),
                number("p50_ms"),
                number("p99_ms"),
            );
            println!("{row}");
        }
    }
}

fn measure(server: Server, n: usize, window: Duration) -> Value {
    let mut players =
        Process::start(1, &["players", &n.to_string(), &server.publish, &server.play]);
    assert_eq!(players.line()["playing"], json!(n), "every player plays");
    std::thread::park_timeout(SETTLE);
    players.ask();
    let begin = players.line();
    let cpu_begin = server.process.cpu_seconds();
    std::thread::park_timeout(window);
    players.ask();
    let end = players.line();
    let cpu = server.process.cpu_seconds() - cpu_begin;
    let number = |row: &Value, field: &str| row[field].as_f64().unwrap_or(0.0);
    let gbit = (number(&end, "bytes") - number(&begin, "bytes")) * 8.0 / 1e9;
    let seconds = number(&end, "at") - number(&begin, "at");
    json!({
        "server": server.kind.name(), "n": n, "cpu_s": cpu, "gbit": gbit,
        "s_per_gbit": cpu / gbit, "mbps": gbit * 1_000.0 / seconds,
        "p50_ms": end["p50_ms"], "p99_ms": end["p99_ms"],
    })
}

#[derive(Clone, Copy)]
enum Kind {
    AstralHttpFlv,
    AstralRtmp,
    NginxRtmp,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::AstralHttpFlv => "astral http-flv",
            Self::AstralRtmp => "astral rtmp",
            Self::NginxRtmp => "nginx-rtmp",
        }
    }
}

/// A server under test, on the first core.
struct Server {
    kind: Kind,
    process: Process,
    publish: String,
    play: String,
    _scratch: Option<Scratch>,
}

impl Server {
    /// `None` when it is not installed.
    fn start(kind: Kind) -> Option<Self> {
        match kind {
            Kind::NginxRtmp => Self::nginx(),
            Kind::AstralHttpFlv | Kind::AstralRtmp => Some(Self::astral(kind)),
        }
    }

    fn astral(kind: Kind) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_astral"));
        command.args(["publish", "bench", "--rtmp-in", "--ephemeral", "--json", "--mdns", "false"]);
        command.args(["--listen", "/ip4/127.0.0.1/tcp/0", "--api", "127.0.0.1:0"]);
        command.args(["--rtmp", "127.0.0.1:0", "--leave-with-stdin"]);
        let mut process = Process::spawn(0, command);
        let ready = process.line();
        let play = match kind {
            Kind::AstralRtmp => format!("{}/{}", text(&ready, "rtmp"), text(&ready, "stream_id")),
            Kind::AstralHttpFlv | Kind::NginxRtmp => text(&ready["media"], "http_flv"),
        };
        Self { kind, process, publish: text(&ready, "publish_url"), play, _scratch: None }
    }

    fn nginx() -> Option<Self> {
        let module = Path::new("/usr/lib/nginx/modules/ngx_rtmp_module.so");
        let program = Path::new("/usr/sbin/nginx");
        if !module.exists() || !program.exists() {
            return None;
        }
        let scratch = Scratch::new();
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).ok()?.port();
        let config = format!(
            "load_module {module};\ndaemon off;\nmaster_process off;\npid {dir}/pid;\n\
             error_log {dir}/error.log;\nevents {{ worker_connections 2048; }}\n\
             rtmp {{ server {{ listen 127.0.0.1:{port}; chunk_size 60000;\n\
             application {APP} {{ live on; }} }} }}\n",
            module = module.display(),
            dir = scratch.0.display(),
        );
        let file = scratch.0.join("nginx.conf");
        std::fs::write(&file, config).expect("a scratch file");
        let mut command = Command::new(program);
        command.arg("-e").arg(scratch.0.join("start.log")).arg("-p").arg(&scratch.0);
        command.arg("-c").arg(file);
        let process = Process::spawn(0, command);
        let url = format!("rtmp://127.0.0.1:{port}/{APP}/bench");
        for _ in 0..100 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                break;
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
        let (publish, play) = (url.clone(), url);
        Some(Self { kind: Kind::NginxRtmp, process, publish, play, _scratch: Some(scratch) })
    }
}

/// A folder that goes with its value.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("astral-bench-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a scratch folder");
        Self(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Left behind, it is a few kilobytes of logs.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

// ---------------------------------------------------------------- encoder and players

/// What a player tells the counter.
enum News {
    Playing,
    Bytes(usize, Option<u64>),
}

async fn players(n: usize, publish: &str, play: &str) {
    let mut encoder = Client::connect(publish).await;
    encoder.publish().await;
    encoder.send(&sequence_header()).await;
    tokio::spawn(async move {
        let mut picture = Picture::new();
        loop {
            encoder.send(&picture.next().await).await;
        }
    });
    let (report, mut reports) = mpsc::channel::<News>(4_096);
    for player in 0..n {
        tokio::spawn(one_player(report.clone(), play.to_owned(), player < PARSED_MAX));
    }
    let (mut bytes, mut delays_us, mut playing) = (0_u64, Vec::<u32>::new(), 0);
    let mut lines = tokio::io::BufReader::new(tokio::io::stdin());
    let mut line = String::new();
    loop {
        tokio::select! {
            news = reports.recv() => match news {
                Some(News::Playing) => {
                    playing += 1;
                    if playing == n {
                        say(&json!({"playing": n}));
                    }
                }
                Some(News::Bytes(more, born)) => {
                    bytes += more as u64;
                    let delay = born.map(|b| (unix_nanos().saturating_sub(b) / 1_000) as u32);
                    delays_us.extend(delay);
                }
                None => return,
            },
            read = tokio::io::AsyncBufReadExt::read_line(&mut lines, &mut line) => {
                if read.unwrap_or(0) == 0 {
                    return;
                }
                line.clear();
                delays_us.sort_unstable();
                let at = |share: usize| {
                    let index = (delays_us.len().max(1) - 1) * share / 100;
                    delays_us.get(index).map(|us| f64::from(*us) / 1_000.0)
                };
                say(&json!({
                    "bytes": bytes, "at": unix_nanos() as f64 / 1e9,
                    "p50_ms": at(50), "p99_ms": at(99),
                }));
                delays_us.clear();
            }
        }
    }
}

async fn one_player(report: mpsc::Sender<News>, url: String, parses: bool) {
    let (mut socket, mut media) = if url.starts_with("rtmp:") {
        let (socket, session) = Client::connect(&url).await.play().await;
        (socket, Media::Rtmp(Box::new(session)))
    } else {
        (ask_http(&url).await, Media::Flv(TagReader::default()))
    };
    if report.send(News::Playing).await.is_err() {
        return;
    }
    let mut buffer = vec![0; 128 * 1024];
    while let Ok(read @ 1..) = socket.read(&mut buffer).await {
        let born = if parses { media.newest(&buffer[..read]) } else { None };
        if report.send(News::Bytes(read, born)).await.is_err() {
            return;
        }
    }
}

/// Asks until the stream is there; gives the socket behind the head of the answer.
async fn ask_http(url: &str) -> TcpStream {
    let rest = url.strip_prefix("http://").expect("http");
    let (host, path) = rest.split_once('/').expect("a path");
    loop {
        let mut socket = TcpStream::connect(host).await.expect("the server listens");
        // Version 1.0: the body comes as it is, not in pieces with sizes.
        let ask = format!("GET /{path} HTTP/1.0\r\nHost: {host}\r\n\r\n");
        socket.write_all(ask.as_bytes()).await.expect("the server reads");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(byte) = socket.read_u8().await else { break };
            head.push(byte);
        }
        if head.starts_with(b"HTTP/1.0 200") || head.starts_with(b"HTTP/1.1 200") {
            return socket;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// How a player reads what comes.
enum Media {
    Flv(TagReader),
    Rtmp(Box<rtmp::Session>),
}

impl Media {
    /// The birth of the newest frame that these bytes complete.
    fn newest(&mut self, bytes: &[u8]) -> Option<u64> {
        match self {
            Self::Flv(tags) => {
                tags.push(bytes);
                let mut newest = None;
                while let Some(Ok(tag)) = tags.next() {
                    newest = born(&tag.body).or(newest);
                }
                newest
            }
            Self::Rtmp(session) => {
                session.videos(bytes).iter().filter_map(|body| born(body)).next_back()
            }
        }
    }
}
