//! Finds the node that a command means.
//!
//! Owns the rule: what is named, else the one node that runs under the user's data folder. Does not
//! own the files: beside the token, a living node says where its API is (see `api::url_file`).

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

use crate::{
    api::{token, url_file},
    cli::folders,
};

/// File that holds the token.
const TOKEN_FILE: &str = "api.token";

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
    let base = folders::base()?;
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
    let living = url_file::living(token_file);
    let Some(api) = living.with_context(|| format!("looking beside {}", token_file.display()))?
    else {
        return Ok(None);
    };
    let token = token::read(token_file)
        .with_context(|| format!("reading the token in {}", token_file.display()))?;
    Ok(Some(Node { api, token }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::url_file::UrlFile;

    fn folder(base: &Path, name: &str) -> PathBuf {
        let folder = base.join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(TOKEN_FILE), "abc\n").unwrap();
        folder.join(TOKEN_FILE)
    }

    #[test]
    fn a_node_that_died_gets_no_token_though_somebody_else_took_its_port() {
        let base = tempfile::tempdir().unwrap();
        let living = UrlFile::create(&folder(base.path(), "run"), "http://127.0.0.1:1").unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let api = format!("http://{}", listener.local_addr().unwrap());
        drop(UrlFile::create(&folder(base.path(), "publish"), &api).unwrap());
        fs::create_dir(base.path().join("empty")).unwrap();
        let found = running(base.path()).unwrap();
        assert_eq!(found.len(), 1);
        let node_found = (found[0].1.api.as_str(), found[0].1.token.as_str());
        assert_eq!(node_found, ("http://127.0.0.1:1", "abc"));
        let named = node(Some(&base.path().join("publish")), None, None).unwrap_err();
        assert!(named.to_string().contains("no node runs"), "{named}");
        drop(living);
        assert!(running(base.path()).unwrap().is_empty());
    }
}
