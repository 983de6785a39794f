//! `astral run`: a node that serves its network, its local players and encoders, and, if asked, the
//! public as a portal.

use clap::Args;
use serde_json::json;

use super::{
    folders::Home,
    host::{Host, HostArgs},
    output::Usage,
};
use crate::{
    api::portal::{Identity, PortalConfig},
    config::Portal,
};

/// Flags of `astral run`.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// The node.
    #[command(flatten)]
    pub host: HostArgs,
    /// The portal.
    #[command(flatten)]
    pub portal: Portal,
}

fn config(portal: Portal) -> PortalConfig {
    let identity = portal.portal_cert.zip(portal.portal_key);
    PortalConfig {
        names: portal.portal_name,
        viewers: portal.portal_viewers.unwrap_or(0),
        identity: identity.map(|(cert, key)| Identity { cert, key }),
        behind_proxy: portal.portal_proxy.unwrap_or(false),
    }
}

/// Runs until the user or the API stops it.
///
/// # Errors
/// When the node or the portal does not start, or one of its tasks dies.
pub async fn run(args: RunArgs) -> anyhow::Result<()> {
    let settings = args.host.settle()?;
    let portal =
        args.portal.or(settings.portal.clone()).map_err(|error| Usage(error.to_string()))?;
    let mut host = Host::start(settings, &args.host, Home::Command("run")).await?;
    let fields = match portal.portal {
        Some(addr) => {
            let url = host.local.open_portal(addr, config(portal)).await?;
            host.out.say(&format!("Portal:    {url}   (public)"));
            json!({"portal": url})
        }
        None => json!({}),
    };
    host.announce_ready(fields);
    let outcome = host.run_until(std::future::pending()).await;
    host.leave().await;
    outcome
}
