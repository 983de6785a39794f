//! What serving players on this machine costs: CPU seconds of the server per delivered gigabit and
//! the delay from the encoder's push to the player's socket, over HTTP-FLV and RTMP, beside
//! nginx-rtmp (60 KB chunks, where it is installed) in the same run.
//!
//! Owns which servers are measured with how many players: the server under test on one core, on the
//! other the encoder with all players. Does not own thresholds: the figures are printed,
//! `ARCHITECTURE.md` keeps them.
//!
//! `cargo bench --bench players` runs all; `PLAYERS_N=1,100 PLAYERS_SECONDS=5` shortens it.

#[path = "support/counter.rs"]
mod counter;
#[path = "support/load.rs"]
mod load;
#[path = "support/namespace.rs"]
mod namespace;
#[path = "support/nginx.rs"]
mod nginx;
#[path = "support/picture.rs"]
mod picture;
#[path = "support/process.rs"]
mod process;
#[path = "support/rtmp.rs"]
mod rtmp;
#[path = "support/table.rs"]
mod table;

use std::process::Command;

use nginx::Nginx;
use process::{Process, numbers, run, seconds, text};
use serde_json::Value;
use table::Table;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["players", n, publish, play] => {
            run(load::players(n.parse().expect("a number"), publish, play));
        }
        _ => drive(),
    }
}

fn drive() {
    namespace::enter();
    let window = seconds("PLAYERS_SECONDS", 8);
    let about = format!("{} to each player; server CPU seconds per delivered Gbit", picture::RATE);
    let mut table = Table::new("players", &about);
    for n in numbers("PLAYERS_N", "1,50,100,400,800") {
        let load = |publish: &str, play: &str| {
            Process::start(1, &["players", &n.to_string(), publish, play])
        };
        for edge in ["http-flv", "rtmp"] {
            let (server, ready) = astral();
            let play = match edge {
                "rtmp" => format!("{}/{}", text(&ready, "rtmp"), text(&ready, "stream_id")),
                _ => text(&ready["media"], "http_flv"),
            };
            let mut players = load(&text(&ready, "publish_url"), &play);
            table.row(server.measure(&format!("astral {edge}"), n, &mut players, window));
        }
        match Nginx::start() {
            Some(nginx) => {
                let mut players = load(&nginx.url, &nginx.url);
                table.row(nginx.process.measure("nginx-rtmp", n, &mut players, window));
            }
            None => table.missing("nginx-rtmp", n, "is not installed"),
        }
    }
    table.write(Vec::new());
}

/// A node that waits for an encoder, on the first core, and what it said when it was ready.
fn astral() -> (Process, Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_astral"));
    command.args(["publish", "bench", "--rtmp-in", "--ephemeral", "--json", "--mdns", "false"]);
    command.args(["--listen", "/ip4/127.0.0.1/tcp/0", "--api", "127.0.0.1:0"]);
    command.args(["--rtmp", "127.0.0.1:0", "--leave-with-stdin"]);
    let mut process = Process::spawn(0, command);
    let ready = process.line();
    (process, ready)
}
