//! Entry point of the simulator: `netsim run`, `swarm`, `replay`, `shrink`, `sweep`, `bars`, `plot`,
//! `lab`.
//!
//! Owns the command line: results on stdout, progress on stderr, exit code 0 when every bar holds and
//! nothing was violated, 1 when not, 2 for usage. Does not own what the commands do (see `commands`).

mod commands;
#[cfg(target_os = "linux")]
mod lab;

use std::{path::PathBuf, process::ExitCode};

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
    /// Run one scenario
    Run(RunArgs),
    /// Run scenarios drawn from seeds: what nobody thought of writing down
    Swarm(SwarmArgs),
    /// Run a failed run again, twice, and say whether it is the same run; or a node's journal
    Replay(ReplayArgs),
    /// Find the smallest scenario that still fails the same way, and write it down
    Shrink(ShrinkArgs),
    /// Run a scenario with one field changed over and over; prints a table
    Sweep(SweepArgs),
    /// Run every scenario of a folder; prints what was measured beside each bar
    Bars(BarsArgs),
    /// Run a scenario chunk by chunk and as intervals; prints both, and whether they agree
    Compare(CompareArgs),
    /// Run and draw the pictures of the README
    Plot(PlotArgs),
    /// Run a scenario with real astral processes in network namespaces, beside the simulator (root)
    Lab(LabArgs),
    /// What the event queue costs, beside a binary heap
    Bench,
}

/// Options of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// A TOML file, or the name of one in netsim/scenarios
    scenario: String,
    /// Seed of all randomness
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Another number of viewers than the scenario's
    #[arg(long)]
    nodes: Option<u32>,
    /// Change a field: tuning.lease_ms=5000, viewers.lag_ms=1500 (may be given several times)
    #[arg(long, value_name = "FIELD=VALUE")]
    set: Vec<String>,
    /// What stands for media: chunks, or intervals (see netsim/README.md)
    #[arg(long, value_name = "chunks|intervals")]
    fidelity: Option<String>,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
    /// Write summary.json, nodes.csv, series.csv and delay.csv into this folder
    #[arg(long, value_name = "DIR")]
    csv: Option<PathBuf>,
    /// Write the journal of one node's overlay, by its number (the source is 0)
    #[arg(long, value_name = "NODE=FILE")]
    journal: Option<String>,
    /// Write all that these nodes (by number, the source is 0) hear and do to stderr
    #[arg(long, value_delimiter = ',')]
    log: Vec<u32>,
    /// Begin with that at this second
    #[arg(long, default_value_t = 0.0)]
    log_from: f64,
    /// End it at this second
    #[arg(long, default_value_t = 1e9)]
    log_to: f64,
}

/// Options of `swarm`.
#[derive(Debug, Args)]
pub struct SwarmArgs {
    /// How many seeds
    #[arg(long, default_value_t = 20)]
    seeds: u64,
    /// The first one
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Runs side by side
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// One JSON object on stdout for each seed
    #[arg(long)]
    json: bool,
}

/// Options of `replay`.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct ReplayArgs {
    /// SCENARIO@SEED or swarm@SEED, as a failure prints it
    what: Option<String>,
    /// The file that `astral ... --journal FILE` or `netsim run --journal` wrote
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
}

/// Options of `shrink`.
#[derive(Debug, Args)]
pub struct ShrinkArgs {
    /// SCENARIO@SEED or swarm@SEED
    what: String,
    /// Where the smaller scenario goes
    #[arg(long, default_value = "shrunk.toml", value_name = "FILE")]
    out: PathBuf,
    /// Runs at most
    #[arg(long, default_value_t = 200)]
    runs: u32,
}

/// Options of `sweep`.
#[derive(Debug, Args)]
pub struct SweepArgs {
    /// A TOML file, or the name of one in netsim/scenarios
    scenario: String,
    /// The field and its values: tuning.lease_ms=5000,10000,20000
    field: String,
    /// Seeds of each value
    #[arg(long, default_value_t = 2)]
    seeds: u64,
    /// Runs side by side
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Another number of viewers than the scenario's
    #[arg(long)]
    nodes: Option<u32>,
}

/// Options of `bars`.
#[derive(Debug, Args)]
pub struct BarsArgs {
    /// Scenarios or folders of them
    #[arg(default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios/bars"))]
    scenarios: Vec<PathBuf>,
    /// Another number of viewers; crowds and supernodes shrink alike
    #[arg(long)]
    nodes: Option<u32>,
    /// Seed of all runs
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Runs side by side
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Exit with 1 when a bar is missed, not only when something was violated
    #[arg(long)]
    strict: bool,
}

/// Options of `compare`.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// A TOML file, or the name of one in netsim/scenarios
    #[arg(default_value = "wide")]
    scenario: String,
    /// Seed of both runs
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Another number of viewers than the scenario's
    #[arg(long)]
    nodes: Option<u32>,
}

/// Options of `plot`.
#[derive(Debug, Args)]
pub struct PlotArgs {
    /// Where the pictures go
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/plots"))]
    out: PathBuf,
    /// Viewers of the largest run
    #[arg(long, default_value_t = 400)]
    nodes: u32,
    /// Seed of all runs
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Runs side by side
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

/// Options of `lab`.
#[derive(Debug, Args)]
pub struct LabArgs {
    /// A TOML file, or the name of one in netsim/scenarios
    scenario: String,
    /// Seed of all randomness: places, lines, losses, faults
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Change a field: viewers.count=5 (may be given several times)
    #[arg(long, value_name = "FIELD=VALUE")]
    set: Vec<String>,
    /// The program that is tested [default: the astral beside this one, then the one in PATH]
    #[arg(long, value_name = "FILE")]
    astral: Option<PathBuf>,
    /// Keep what each node says in this folder
    #[arg(long, value_name = "DIR")]
    logs: Option<PathBuf>,
    /// One JSON object on stdout
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
        Command::Run(args) => commands::run(&args),
        Command::Swarm(args) => commands::swarm(&args),
        Command::Replay(args) => commands::replay(&args),
        Command::Shrink(args) => commands::shrink(&args),
        Command::Sweep(args) => commands::sweep(&args),
        Command::Bars(args) => commands::bars(&args),
        Command::Compare(args) => commands::compare(&args),
        Command::Plot(args) => commands::plot(&args),
        Command::Lab(args) => commands::lab(&args),
        Command::Bench => {
            commands::bench();
            Ok(true)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
