//! `astral seed`: a node that forwards one stream without playing it.

use clap::Args;
use serde_json::json;

use super::{
    folders::Home,
    host::{Host, HostArgs},
    output::Usage,
    record::RecordArgs,
};
use crate::node::StreamRef;

/// Flags of `astral seed`.
#[derive(Args, Debug)]
pub struct SeedArgs {
    /// The stream: a link (`astral:...`) or the 64 digits of its id
    stream: String,
    /// Recording.
    #[command(flatten)]
    record: RecordArgs,
    /// The node.
    #[command(flatten)]
    pub host: HostArgs,
}

/// Forwards until the stream ends or the user stops.
///
/// # Errors
/// When the node does not start.
pub async fn run(args: SeedArgs) -> anyhow::Result<()> {
    let stream: StreamRef = args.stream.parse().map_err(|e| Usage(format!("{e}")))?;
    let settings = args.host.settle()?;
    args.record.check()?;
    let mut host = Host::start(settings, &args.host, Home::Command("seed")).await?;
    let mut ready = host.stream_fields(stream.id());
    ready["stream"] = json!(args.stream);
    host.announce_ready(ready);
    host.handle.seed(&stream).await?;
    let recording = args.record.start(&host.handle, stream.id(), host.out).await?;
    host.out.note(&format!("seeding {}", args.stream));
    let ended = host.handle.clone();
    let until_the_end = async move {
        ended.ended(stream.id()).await;
        Ok(())
    };
    let outcome = host.run_until(until_the_end).await;
    host.leave().await;
    recording.finish().await;
    outcome
}
