//! `astral man`: the manual pages, one for the program and one for each command.
//!
//! Owns nothing but the call. Does not own the commands.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

/// Flags of `astral man`.
#[derive(Args, Debug)]
pub struct ManArgs {
    /// Where the pages go; made when it is not there
    #[arg(default_value = ".")]
    dir: PathBuf,
}

/// Writes the pages of `command`.
///
/// # Errors
/// When the folder can't be written.
pub fn run(args: &ManArgs, command: clap::Command) -> anyhow::Result<()> {
    let dir = args.dir.display();
    std::fs::create_dir_all(&args.dir).with_context(|| format!("can't make {dir}"))?;
    clap_mangen::generate_to(command, &args.dir)
        .with_context(|| format!("can't write manual pages to {dir}"))
}
