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
    scenario::{Scenario, seconds},
    summary::Summary,
    trace::Log,
    world::{Progress, World},
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
    /// Write all that these nodes (by number, the source is 0) hear and do to stderr.
    #[arg(long, value_delimiter = ',')]
    log: Vec<u32>,
    /// Begin with that at this second.
    #[arg(long, default_value_t = 0.0)]
    log_from: f64,
    /// End it at this second.
    #[arg(long, default_value_t = 1e9)]
    log_to: f64,
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
    let mut scenario = named(&args.scenario)?;
    if let Some(nodes) = args.nodes {
        scenario.viewers.count = nodes;
        scenario.check()?;
    }
    let log = Log {
        nodes: args.log.iter().copied().collect(),
        from: seconds(args.log_from),
        to: seconds(args.log_to),
    };
    let summary = World::new(scenario, args.seed).with_log(log).run(progress());
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
    let scenario = named(what)?;
    let first = run(scenario.clone(), seed, progress());
    let second = run(scenario, seed, progress());
    print(&first, false, name)?;
    if first != second {
        bail!("two runs differ: {} and {}", first.trace_hash, second.trace_hash);
    }
    println!("the same run twice");
    Ok(first.ok)
}

/// `swarm@SEED`, or what [`load`] takes, whose seed is not looked at.
fn named(what: &str) -> anyhow::Result<Scenario> {
    let (name, seed) = what.rsplit_once('@').unwrap_or((what, "1"));
    if name == "swarm" {
        return Ok(Scenario::drawn(seed.parse().context("the seed is a number")?));
    }
    load(name)
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
        let name = name.split_once('@').map_or(name, |(name, _)| name);
        eprintln!("replay with: netsim replay {name}@{}", summary.seed);
    }
    Ok(())
}

/// A line on stderr that is refreshed in place on a terminal; elsewhere a line now and then.
fn progress() -> impl FnMut(&Progress) {
    const PLAIN_EVERY_S: u64 = 20;
    let terminal = std::io::stderr().is_terminal();
    move |progress| {
        let Progress { now, end, nodes, events, waiting } = progress;
        let (now, end) = (now / 1_000_000, end / 1_000_000);
        let line = format!("{now}/{end} s  {nodes} nodes  {events} events  {waiting} wait");
        let mut out = std::io::stderr();
        // A terminal that is gone is no reason to stop.
        let _ = match (terminal, now) {
            (true, now) if now >= end => writeln!(out, "\r{line}\x1b[K"),
            (true, _) => write!(out, "\r{line}\x1b[K").and_then(|()| out.flush()),
            (false, now) if now.is_multiple_of(PLAIN_EVERY_S) => writeln!(out, "{line}"),
            (false, _) => Ok(()),
        };
    }
}
