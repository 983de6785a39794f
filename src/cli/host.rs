//! A node with its local servers, as every node-running command starts it.
//!
//! Owns start-up order, the `ready` event, the once-a-second `status` event and the polite end.
//! Does not own what a command adds: a publisher, a player.

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};
use tokio::sync::broadcast;

use super::{
    output::{Output, Usage},
    signals,
};
use crate::{
    config::{LocalAddr, NodeArgs, Role, Settings},
    node::{Event, Handle, Node, NodeConfig, RoleChoice, Running},
};

/// Longest polite leave; design promise is 5 s even when every peer is dead.
const LEAVE_WITHIN: Duration = Duration::from_secs(4);

/// Flags of every command that runs a node.
#[derive(Args, Clone, Debug)]
pub struct HostArgs {
    /// The node's settings.
    #[command(flatten)]
    pub node: NodeArgs,
    /// Leave when stdin closes: for programs that start nodes and must not leave any behind
    #[arg(long, hide = true)]
    pub leave_with_stdin: bool,
}

impl HostArgs {
    /// Merges the settings of this command.
    ///
    /// # Errors
    /// [`Usage`]: the settings can't be used.
    pub fn settle(&self) -> anyhow::Result<Settings> {
        self.node.clone().settle().map_err(|e| Usage(e.to_string()).into())
    }
}
