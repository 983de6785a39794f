//! The command line: one file a command, and what they share.
//!
//! Owns parsing, progress and exit codes. Does not own anything a node does.

mod bootstrap;
mod compare;
mod completions;
mod ctl;
mod demo;
mod devices;
mod doctor;
mod duration;
mod encoder_rate;
mod figures;
mod folders;
mod host;
mod ladder;
mod man;
mod output;
mod picture;
mod play;
mod publish;
mod record;
mod run;
mod seed;
mod signals;
mod sources;
mod status;
mod terminal;

use std::{collections::BTreeSet, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand};

use crate::config::{LogFormat, check_environment};

/// Exit code of a usage mistake; clap uses the same.
const USAGE: u8 = 2;

/// Live video without a CDN: publish, watch and forward over a peer-to-peer network.
#[derive(Parser, Debug)]
#[command(name = "astral", version = env!("LONG_VERSION"), about, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Try it:
  astral demo                                    a whole network on this machine
Three terminals, one network:
  astral run                                     prints its addresses
  astral publish garden --camera --bootstrap ADDRESS
  astral play LINK --bootstrap ADDRESS           LINK is printed by publish
OBS or ffmpeg:
  astral publish game --rtmp-in --bootstrap ADDRESS";

#[derive(Subcommand, Debug)]
enum Command {
    /// A whole network on this machine: source, supernode, forwarders, viewer
    Demo(demo::DemoArgs),
    /// Run a node: it joins the network and serves its members, local players and encoders
    Run(run::RunArgs),
    /// Publish a camera, a screen, a file, a test picture or what an encoder sends
    Publish(Box<publish::PublishArgs>),
    /// Play a stream, and forward it with part of the uplink
    Play(Box<play::PlayArgs>),
    /// Forward a stream without playing it
    Seed(seed::SeedArgs),
    /// List cameras, microphones and screens
    Devices(devices::DevicesArgs),
    /// See and steer a running node
    Ctl(ctl::CtlArgs),
    /// Say what is in order on this machine, what is not, and what to do
    Doctor(Box<doctor::DoctorArgs>),
    /// Print the completions of a shell
    Completions(completions::CompletionsArgs),
    /// Write the manual pages
    Man(man::ManArgs),
}

/// Runs the command line of this process to its end.
#[must_use]
pub fn main() -> ExitCode {
    if let Err(error) = check_environment(
        std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()),
        &known_variables(),
    ) {
        eprintln!("astral: {error}");
        return ExitCode::from(USAGE);
    }
    let cli = Cli::parse();
    output::start_log(cli.command.log_format());
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("astral: can't start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let json = cli.command.json();
    let outcome = runtime.block_on(cli.command.execute());
    // Blocking helpers (a pipeline winding down) must not hold the process.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::failure(&error, json);
            ExitCode::from(if error.is::<output::Usage>() { USAGE } else { 1 })
        }
    }
}

impl Command {
    async fn execute(self) -> anyhow::Result<()> {
        match self {
            Self::Demo(args) => demo::run(args).await,
            Self::Run(args) => Box::pin(run::run(args)).await,
            Self::Publish(args) => Box::pin(publish::run(*args)).await,
            Self::Play(args) => Box::pin(play::run(*args)).await,
            Self::Seed(args) => Box::pin(seed::run(args)).await,
            Self::Devices(args) => devices::run(&args),
            Self::Ctl(args) => tokio::task::spawn_blocking(move || ctl::run(args)).await?,
            Self::Doctor(args) => doctor::run(*args).await,
            Self::Completions(args) => completions::run(&args, &mut Cli::command()),
            Self::Man(args) => man::run(&args, Cli::command()),
        }
    }

    fn node(&self) -> Option<&host::HostArgs> {
        match self {
            Self::Demo(_)
            | Self::Devices(_)
            | Self::Ctl(_)
            | Self::Completions(_)
            | Self::Man(_) => None,
            Self::Doctor(args) => Some(&args.host),
            Self::Run(args) => Some(&args.host),
            Self::Publish(args) => Some(&args.host),
            Self::Play(args) => Some(&args.host),
            Self::Seed(args) => Some(&args.host),
        }
    }

    fn log_format(&self) -> LogFormat {
        self.node().and_then(|host| host.node.log_format).unwrap_or_default()
    }

    fn json(&self) -> bool {
        // The doctor's one JSON object says it all.
        if matches!(self, Self::Doctor(_)) {
            return false;
        }
        self.node().and_then(|host| host.node.json).unwrap_or(false)
    }
}

/// Every variable that a flag reads.
fn known_variables() -> BTreeSet<String> {
    Cli::command()
        .get_subcommands()
        .flat_map(|command| command.get_arguments())
        .filter_map(|arg| arg.get_env()?.to_str().map(str::to_owned))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_node_setting_has_its_variable() {
        let known = known_variables();
        for name in ["ASTRAL_UPLINK", "ASTRAL_DATA_DIR", "ASTRAL_BOOTSTRAP", "ASTRAL_LISTEN"] {
            assert!(known.contains(name), "{name}");
        }
    }

    #[test]
    fn the_examples_of_the_help_parse() {
        for line in EXAMPLES.lines().filter(|l| l.starts_with("  astral")) {
            let words = line.split("   ").find(|part| !part.is_empty()).unwrap_or(line);
            Cli::try_parse_from(words.split_whitespace()).unwrap_or_else(|e| panic!("{line}: {e}"));
        }
    }
}
