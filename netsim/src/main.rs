//! Entry point of the simulator: `netsim run`, `netsim swarm`, `netsim replay`.
//!
//! Owns the command line: results on stdout, progress on stderr, exit code 0 when every bar holds and
//! nothing was violated, 1 when not, 2 for usage. Does not own what a run is (see the library).

use std::{
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use astral_netsim::{
    run::{run, run_all},
    scenario::Scenario,
    summary::Summary,
    world::Progress,
};
use clap::{Args, Parser, Subcommand};

/// Deterministic simulator of Astral's production machines.
#[derive(Debug, Parser)]
#[command(name = "netsim", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one scenario.
    Run(RunArgs),
    /// Run scenarios drawn from seeds: what nobody thought of writing down.
    Swarm(SwarmArgs),
    /// Run a failed run again, twice, and say whether it is the same run: `SCENARIO@SEED`, or
    /// `swarm@SEED`.
    Replay {
        /// As a failure prints it.
        what: String,
    },
}

#[derive(Debug, Args)]
struct RunArgs {
    /// A TOML file, or the name of one in netsim/scenarios.
    scenario: String,
    /// Seed of all randomness.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Another number of viewers than the scenario's.
    #[arg(long)]
    nodes: Option<u32>,
    /// One JSON object on stdout.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct SwarmArgs {
    /// How many seeds.
    #[arg(long, default_value_t = 20)]
    seeds: u64,
    /// The first one.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Runs side by side.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// One JSON object on stdout for each seed.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    match start(Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("netsim: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(cli: Cli) -> anyhow::Result<bool> {
    match cli.command {
        Command::Run(args) => one(&args),
        Command::Swarm(args) => swarm(&args),
        Command::Replay { what } => replay(&what),
    }
}

fn one(args: &RunArgs) -> anyhow::Result<bool> {
    let mut scenario = load(&args.scenario)?;
    if let Some(nodes) = args.nodes {
        scenario.viewers.count = nodes;
        scenario.check()?;
    }
    let summary = run(scenario, args.seed, progress());
    print(&summary, args.json, &args.scenario)?;
    Ok(summary.ok)
}

fn swarm(args: &SwarmArgs) -> anyhow::Result<bool> {
    let seeds: Vec<u64> = (args.from..args.from.saturating_add(args.seeds)).collect();
    let summaries = run_all(&seeds, args.threads, Scenario::drawn, |summary| {
        eprintln!("seed {}: {}", summary.seed, if summary.ok { "ok" } else { "FAILED" });
    });
    let failed = summaries.iter().filter(|summary| !summary.ok).count();
    for summary in &summaries {
        if args.json || !summary.ok {
            print(summary, args.json, "swarm")?;
        }
    }
    eprintln!("{} of {} seeds failed", failed, summaries.len());
    Ok(failed == 0)
}

fn replay(what: &str) -> anyhow::Result<bool> {
    let (name, seed) = what.rsplit_once('@').context("write SCENARIO@SEED or swarm@SEED")?;
    let seed: u64 = seed.parse().context("the seed is a number")?;
    let scenario = if name == "swarm" { Scenario::drawn(seed) } else { load(name)? };
    let first = run(scenario.clone(), seed, progress());
    let second = run(scenario, seed, progress());
    print(&first, false, name)?;
    if first != second {
        bail!("two runs differ: {} and {}", first.trace_hash, second.trace_hash);
    }
    println!("the same run twice");
    Ok(first.ok)
}

fn load(name: &str) -> anyhow::Result<Scenario> {
    let given = PathBuf::from(name);
    if given.exists() {
        return Scenario::load(&given);
    }
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let shipped = shipped.join(name).with_extension("toml");
    if shipped.exists() {
        return Scenario::load(&shipped);
    }
    bail!("there is no scenario {name}: give a TOML file, or a name out of netsim/scenarios");
}

fn print(summary: &Summary, json: bool, name: &str) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string(summary)?);
    } else {
        print!("{summary}");
    }
    if !summary.ok {
        eprintln!("replay with: netsim replay {name}@{}", summary.seed);
    }
    Ok(())
}

/// A line on stderr that is refreshed in place on a terminal, and silence otherwise.
fn progress() -> impl FnMut(&Progress) {
    let terminal = std::io::stderr().is_terminal();
    move |progress| {
        if terminal {
            let Progress { now, end, nodes, events, waiting } = progress;
            let (now, end) = (now / 1_000_000, end / 1_000_000);
            let mut out = std::io::stderr();
            // A terminal that is gone is no reason to stop.
            let _ = write!(out, "\r{now}/{end} s  {nodes} nodes  {events} events  {waiting} wait \x1b[K");
            let _ = if now >= end { writeln!(out) } else { out.flush() };
        }
    }
}
