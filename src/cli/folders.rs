//! Where a node of the command line keeps its data when nobody says so.
//!
//! Owns the user's data folder, the default folder of each command and the temporary one of
//! `--ephemeral`. Does not own what is in them (see `node::datadir`).

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use astral_core::ids::StreamName;

use super::output::Output;
use crate::node::{Handle, Node, NodeConfig, Running, StartError};

/// Default folders tried beside one that is in use: nodes of one command on one machine.
const FOLDERS_MAX: u32 = 64;
/// Bytes of the name's hash in a publisher's folder: enough that two names of one user never meet.
const HASH_BYTES: usize = 8;
/// Attempts to remove a temporary folder: a node that was just killed may still be writing to it.
const REMOVALS_MAX: u32 = 20;
/// Domain separator of that hash.
const FOLDER_DOMAIN: &str = "astral 2026 folder of a published name v1";

/// What a node's default folder follows from.
#[derive(Clone, Copy, Debug)]
pub enum Home<'a> {
    /// The command alone: its nodes are alike, and a second one takes the next number.
    Command(&'static str),
    /// The stream that it publishes: the source's key in it makes the link, which must not depend on
    /// what else ran when it was started.
    Stream(&'a StreamName),
}

impl Home<'_> {
    /// Names of the folders that will do, best first.
    fn names(self) -> Vec<String> {
        match self {
            Self::Command(command) => (1..=FOLDERS_MAX)
                .map(|number| match number {
                    1 => command.to_owned(),
                    _ => format!("{command}-{number}"),
                })
                .collect(),
            Self::Stream(name) => {
                let hash = blake3::derive_key(FOLDER_DOMAIN, name.as_str().as_bytes());
                vec![format!("publish-{}", data_encoding::HEXLOWER.encode(&hash[..HASH_BYTES]))]
            }
        }
    }
}

/// Starts a node in the first of the default folders below `base` that is free.
///
/// # Errors
/// When none is free, or the node does not start.
pub async fn start_in_default(
    base: &Path,
    home: Home<'_>,
    config: NodeConfig,
    out: Output,
) -> anyhow::Result<(Handle, Running, PathBuf)> {
    for (at, name) in home.names().into_iter().enumerate() {
        let folder = base.join(name);
        let config = NodeConfig { data_dir: Some(folder.clone()), ..config.clone() };
        match Node::start(config).await {
            Ok((handle, running)) => {
                if at > 0 {
                    out.note(&format!(
                        "another node uses the default data directory; this one uses {}",
                        folder.display()
                    ));
                }
                return Ok((handle, running, folder));
            }
            Err(StartError::DataDirInUse { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    match home {
        Home::Command(_) => {
            bail!("{FOLDERS_MAX} nodes already run from {}; use --data-dir", base.display())
        }
        Home::Stream(name) => bail!(
            "'{name}' is published on this machine already: choose another name, or give this one \
             a --data-dir of its own, which makes it another stream"
        ),
    }
}

/// Where the default folders are.
///
/// # Errors
/// When the user has no home.
pub fn base() -> anyhow::Result<PathBuf> {
    Ok(data_home()?.join("astral"))
}

/// Where programs keep their data, by the platform's custom.
fn data_home() -> anyhow::Result<PathBuf> {
    let absolute =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    if let Some(folder) = absolute("XDG_DATA_HOME") {
        return Ok(folder);
    }
    let home = absolute("HOME").context("HOME is not set: give --data-dir, or use --ephemeral")?;
    let below =
        if cfg!(target_os = "macos") { "Library/Application Support" } else { ".local/share" };
    Ok(home.join(below))
}

/// A new folder that only this user can read, below the one for temporary files. It goes when this
/// is dropped, also when nothing started.
#[derive(Debug)]
pub struct Ephemeral(PathBuf);

impl Ephemeral {
    /// Makes the folder.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn new() -> anyhow::Result<Self> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).context("drawing a name for the temporary folder")?;
        let name = format!("astral-{}", data_encoding::HEXLOWER.encode(&random));
        let folder = std::env::temp_dir().join(name);
        create_private(&folder).with_context(|| format!("creating {}", folder.display()))?;
        Ok(Self(folder))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Ephemeral {
    fn drop(&mut self) {
        for _ in 0..REMOVALS_MAX {
            match std::fs::remove_dir_all(&self.0) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    std::thread::park_timeout(Duration::from_millis(50));
                }
                _ => return,
            }
        }
    }
}

#[cfg(unix)]
fn create_private(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().mode(0o700).create(folder)
}

#[cfg(not(unix))]
fn create_private(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Output = Output { json: true, is_stdout_media: false };

    fn config() -> NodeConfig {
        let listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
        NodeConfig { listen, mdns: false, ..NodeConfig::default() }
    }

    #[tokio::test]
    async fn a_streams_folder_follows_from_its_name_whatever_ran_before() {
        let base = tempfile::tempdir().unwrap();
        let names = ["one", "two"].map(|name| StreamName::new(name).unwrap());
        let mut seen = Vec::new();
        for order in [[0, 1], [1, 0]] {
            let mut started = Vec::new();
            for at in order {
                let home = Home::Stream(&names[at]);
                started.push(start_in_default(base.path(), home, config(), QUIET).await.unwrap());
            }
            let mut folders: Vec<_> =
                order.iter().zip(&started).map(|(at, node)| (*at, node.2.clone())).collect();
            folders.sort();
            seen.push(folders);
            for (handle, mut running, _) in started {
                handle.leave().await;
                running.join().await.unwrap();
            }
        }
        assert_eq!(seen[0], seen[1]);
        assert_ne!(seen[0][0].1, seen[0][1].1);
    }

    #[tokio::test]
    async fn a_name_that_is_published_here_already_is_refused_and_a_second_node_counts_on() {
        let base = tempfile::tempdir().unwrap();
        let name = StreamName::new("garden").unwrap();
        let start = |home| start_in_default(base.path(), home, config(), QUIET);
        let _first = start(Home::Stream(&name)).await.unwrap();
        let refused = start(Home::Stream(&name)).await.map(drop).unwrap_err().to_string();
        assert!(refused.contains("garden") && refused.contains("--data-dir"), "{refused}");
        let _node = start(Home::Command("run")).await.unwrap();
        let (_, _, folder) = start(Home::Command("run")).await.unwrap();
        assert_eq!(folder, base.path().join("run-2"));
    }
}
