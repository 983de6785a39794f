//! `astral completions`: what a shell needs to complete this program's commands.
//!
//! Owns nothing but the call. Does not own the commands.

use clap::Args;
use clap_complete::{Shell, generate};

/// Flags of `astral completions`.
#[derive(Args, Debug)]
pub struct CompletionsArgs {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the completions of `command`.
///
/// # Errors
/// Never at the moment.
pub fn run(args: &CompletionsArgs, command: &mut clap::Command) -> anyhow::Result<()> {
    generate(args.shell, command, "astral", &mut std::io::stdout().lock());
    Ok(())
}
