//! `astral doctor`: what is in order on this machine, what is not, and what to do about it.
//!
//! Owns the checks and their words. Does not own what it checks, and changes nothing: no identity is
//! made, and the node that looks for supernodes is gone afterwards.

mod machine;
mod network;

use std::{path::PathBuf, sync::Arc};

use clap::Args;

use super::{host::HostArgs, output::Usage};
use crate::{
    api::{
        Local,
        dto::{Check, DoctorDto, Verdict},
    },
    config::Settings,
    node::Handle,
};

/// Flags of `astral doctor`.
#[derive(Args, Debug)]
pub struct DoctorArgs {
    /// The node's settings, as `astral run` takes them.
    #[command(flatten)]
    pub host: HostArgs,
}

impl Check {
    fn ok(name: impl Into<String>, message: impl Into<String>) -> Self {
        Self { name: name.into(), verdict: Verdict::Ok, message: message.into(), fix: None }
    }

    fn warn(name: impl Into<String>, message: impl Into<String>, fix: impl Into<String>) -> Self {
        let fix = Some(fix.into());
        Self { name: name.into(), verdict: Verdict::Warn, message: message.into(), fix }
    }

    fn bad(name: impl Into<String>, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { verdict: Verdict::Bad, ..Self::warn(name, message, fix) }
    }

    fn in_words(&self) -> String {
        let mark = match self.verdict {
            Verdict::Ok => "ok  ",
            Verdict::Warn => "warn",
            Verdict::Bad => "BAD ",
        };
        let mut line = format!("{mark}  {}: {}", self.name, self.message);
        if let Some(fix) = &self.fix {
            line.push_str(&format!("\n      -> {fix}"));
        }
        line
    }
}

/// Something is in the way of using Astral on this machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{count} of the checks above say that Astral does not work like this")]
pub struct NotWell {
    count: usize,
}

/// Checks, and prints each result as it comes.
///
/// # Errors
/// [`NotWell`] when a check is bad, so that the exit code tells.
pub async fn run(args: DoctorArgs) -> anyhow::Result<()> {
    let settings = args.host.settle()?;
    let json = settings.json;
    let mut checks = Vec::new();
    let mut report = |check: Check| {
        if !json {
            println!("{}", check.in_words());
        }
        checks.push(check);
    };
    let folder = machine::data_dir(&settings);
    report(machine::identity(folder.as_deref()));
    report(machine::clock());
    for check in network::ports(&settings).await {
        report(check);
    }
    for check in network::network(&settings).await.map_err(|error| Usage(error.to_string()))? {
        report(check);
    }
    let elements = tokio::task::spawn_blocking(machine::elements).await?;
    for check in elements {
        report(check);
    }
    report(machine::players());
    let count = checks.iter().filter(|check| check.verdict == Verdict::Bad).count();
    if json {
        println!("{}", serde_json::to_string(&DoctorDto::new(checks))?);
    }
    if count > 0 { Err(NotWell { count }.into()) } else { Ok(()) }
}

/// Lets the local API examine the running node, whose keys are in `folder`.
pub fn offer(local: &Local, handle: Handle, settings: Arc<Settings>, folder: Option<PathBuf>) {
    local.offer_doctor(Arc::new(move || {
        let (handle, settings, folder) = (handle.clone(), settings.clone(), folder.clone());
        Box::pin(async move {
            let mut checks = vec![machine::identity(folder.as_deref()), machine::clock()];
            checks.extend(network::running(&handle, &settings).await);
            let elements = tokio::task::spawn_blocking(machine::elements).await;
            checks.extend(elements.unwrap_or_else(|error| {
                vec![Check::bad("gstreamer", error.to_string(), "`astral doctor` says more")]
            }));
            checks.push(machine::players());
            checks
        })
    }));
}
