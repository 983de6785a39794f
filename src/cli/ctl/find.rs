//! Finds the node that a command means.
//!
//! Owns the rule: what is named, else the one node that runs under the user's data folder. Does not
//! own the files (see `api::local`): beside the token, `api.url` says where the API is.

use std::{
    fs,
    net::{TcpStream, ToSocketAddrs},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};

use crate::{api::token, cli::host::data_home};

/// File that holds the token.
const TOKEN_FILE: &str = "api.token";
/// A node on this machine accepts at once.
const CONNECT_MAX: Duration = Duration::from_secs(2);

/// Where a node's API is, and the token for it.
#[derive(Debug)]
pub struct Node {
    /// Such as `http://127.0.0.1:8000`.
    pub api: String,
    /// The token.
    pub token: String,
}

/// The node that is meant.
///
/// # Errors
/// When there is none, or more than one; the message says how to name it.
pub fn node(
    data_dir: Option<&Path>,
    api: Option<String>,
    token_file: Option<PathBuf>,
) -> anyhow::Result<Node> {
    let token_file = token_file.or_else(|| data_dir.map(|folder| folder.join(TOKEN_FILE)));
    if let (Some(api), Some(file)) = (api, &token_file) {
        let token = token::read(file).with_context(|| format!("reading {}", file.display()))?;
        return Ok(Node { api: api.trim_end_matches('/').to_owned(), token });
    }
    if let Some(file) = token_file {
        return read(&file)?.with_context(|| {
            format!("no node runs with {}: start it, or name another one", file.display())
        });
    }
    let base = data_home()?.join("astral");
    let mut found = running(&base)?;
    match found.len() {
        0 => bail!(
            "no running node is found below {}: start one with `astral run`, or name its \
             --data-dir",
            base.display()
        ),
        1 => Ok(found.swap_remove(0).1),
        _ => {
            let choices: Vec<String> = found
                .iter()
                .map(|(folder, _)| format!("--data-dir {}", folder.display()))
                .collect();
            bail!("several nodes run; say which one: {}", choices.join(" or "))
        }
    }
}

/// The nodes that run from folders in `base`, in the order of their names.
fn running(base: &Path) -> anyhow::Result<Vec<(PathBuf, Node)>> {
    let Ok(folders) = fs::read_dir(base) else { return Ok(Vec::new()) };
    let mut folders: Vec<PathBuf> = folders.flatten().map(|entry| entry.path()).collect();
    folders.sort();
    let mut found = Vec::new();
    for folder in folders {
        if let Some(node) = read(&folder.join(TOKEN_FILE))? {
            found.push((folder, node));
        }
    }
    Ok(found)
}

/// The node of a token file; `None` when it does not run.
fn read(token_file: &Path) -> anyhow::Result<Option<Node>> {
    let Ok(api) = fs::read_to_string(token_file.with_extension("url")) else { return Ok(None) };
    let api = api.trim().to_owned();
    if !answers(&api) {
        return Ok(None);
    }
    let token = token::read(token_file)
        .with_context(|| format!("reading the token in {}", token_file.display()))?;
    Ok(Some(Node { api, token }))
}

/// Whether somebody listens there: a node that was killed leaves its file behind.
fn answers(api: &str) -> bool {
    let host = api.trim_start_matches("http://");
    let Ok(mut addrs) = host.to_socket_addrs() else { return false };
    addrs.any(|addr| TcpStream::connect_timeout(&addr, CONNECT_MAX).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(base: &Path, name: &str, api: &str) {
        let folder = base.join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("api.url"), format!("{api}\n")).unwrap();
        fs::write(folder.join(TOKEN_FILE), "abc\n").unwrap();
    }

    #[test]
    fn only_nodes_that_run_are_found() {
        let base = tempfile::tempdir().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let api = format!("http://{}", listener.local_addr().unwrap());
        folder(base.path(), "run", &api);
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let dead = format!("http://{}", gone.local_addr().unwrap());
        drop(gone);
        folder(base.path(), "publish", &dead);
        fs::create_dir(base.path().join("empty")).unwrap();
        let found = running(base.path()).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].1.api.as_str(), found[0].1.token.as_str()), (api.as_str(), "abc"));
        let named = node(Some(&base.path().join("publish")), None, None).unwrap_err();
        assert!(named.to_string().contains("no node runs"), "{named}");
    }
}
