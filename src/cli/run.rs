//! `astral run`: a node that serves its network, its local players and encoders, and, if asked, the
//! public as a portal.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;
use serde_json::json;

use super::{
    folders::Home,
    host::{Host, HostArgs},
};
use crate::api::portal::{Identity, PortalConfig};

/// Flags of `astral run`.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// The node.
    #[command(flatten)]
    pub host: HostArgs,
    /// The portal.
    #[command(flatten)]
    pub portal: PortalArgs,
}

/// What is shown to the public.
#[derive(Args, Debug)]
#[command(next_help_heading = "Portal")]
pub struct PortalArgs {
    /// Show to everybody, on an address of its own, what is live, and the supernodes to join through
    /// (--bootstrap https://NAME); no control of this node is there [default address: 0.0.0.0:8080]
    #[arg(long, env = "ASTRAL_PORTAL", value_name = "ADDR", num_args = 0..=1, default_missing_value = "0.0.0.0:8080")]
    pub portal: Option<SocketAddr>,
    /// A host name of the portal; may be given several times. Literal addresses always count
    #[arg(
        long,
        env = "ASTRAL_PORTAL_NAME",
        value_name = "NAME",
        value_delimiter = ',',
        requires = "portal"
    )]
    pub portal_name: Vec<String>,
    /// Viewers who may watch through the portal at the same time, each with a whole copy of this
    /// node's uplink [default: 0]
    #[arg(long, env = "ASTRAL_PORTAL_VIEWERS", value_name = "N", requires = "portal")]
    pub portal_viewers: Option<usize>,
    /// Serve HTTPS with this certificate chain (PEM); it is read again when it changes
    #[arg(long, env = "ASTRAL_PORTAL_CERT", value_name = "FILE", requires_all = ["portal", "portal_key"])]
    pub portal_cert: Option<PathBuf>,
    /// The certificate's private key (PEM)
    #[arg(long, env = "ASTRAL_PORTAL_KEY", value_name = "FILE", requires = "portal_cert")]
    pub portal_key: Option<PathBuf>,
    /// A proxy stands before the portal: believe its X-Forwarded-For
    #[arg(long, env = "ASTRAL_PORTAL_PROXY", num_args = 0..=1, default_missing_value = "true", requires = "portal")]
    pub portal_proxy: Option<bool>,
}

impl PortalArgs {
    fn config(&self) -> PortalConfig {
        let identity = self.portal_cert.clone().zip(self.portal_key.clone());
        PortalConfig {
            names: self.portal_name.clone(),
            viewers: self.portal_viewers.unwrap_or(0),
            identity: identity.map(|(cert, key)| Identity { cert, key }),
            behind_proxy: self.portal_proxy.unwrap_or(false),
        }
    }
}

/// Runs until the user or the API stops it.
///
/// # Errors
/// When the node or the portal does not start, or one of its tasks dies.
pub async fn run(args: RunArgs) -> anyhow::Result<()> {
    let settings = args.host.settle()?;
    let mut host = Host::start(settings, &args.host, Home::Command("run")).await?;
    let fields = match args.portal.portal {
        Some(addr) => {
            let url = host.local.open_portal(addr, args.portal.config()).await?;
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
