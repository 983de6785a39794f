//! `astral run`: a node that serves its network, its local players and encoders.

use clap::Args;
use serde_json::json;

use super::host::{Host, HostArgs};

/// Flags of `astral run`.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// The node.
    #[command(flatten)]
    pub host: HostArgs,
}

/// Runs until the user or the API stops it.
///
/// # Errors
/// When the node does not start, or one of its tasks dies.
pub async fn run(args: RunArgs) -> anyhow::Result<()> {
    let settings = args.host.settle()?;
    let mut host = Host::start(settings, &args.host, "run").await?;
    host.announce_ready(json!({}));
    let outcome = host.run_until(std::future::pending()).await;
    host.leave().await;
    outcome
}
