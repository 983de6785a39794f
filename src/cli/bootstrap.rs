//! `--bootstrap https://...`: the list of a portal.
//!
//! Owns fetching it. Does not own what in it counts (see `node::bootstrap`): a portal is believed only
//! what the listed nodes signed themselves.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, bail};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use ureq::{
    Agent,
    tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem},
};

use crate::{
    config::{Settings, is_portal},
    node::bootstrap::{LIST_BYTES_MAX, Listed, read},
};

/// A portal answers within this, or is done without.
const FETCH_MAX: Duration = Duration::from_secs(15);
/// Where a portal has its list.
const LIST: &str = "/bootstrap";
/// The file of further authorities that most programs know, for portals of one's own.
const AUTHORITIES: &str = "SSL_CERT_FILE";

/// Replaces each portal among the bootstrap entries by the supernodes that it lists.
///
/// # Errors
/// When no entry at all is left: the node would found a network of its own unasked.
pub async fn resolve(mut settings: Settings) -> anyhow::Result<Settings> {
    let mut problem = None;
    let mut addresses = Vec::new();
    for entry in std::mem::take(&mut settings.bootstrap) {
        if !is_portal(&entry) {
            addresses.push(entry);
            continue;
        }
        let url = entry.clone();
        let fetched = tokio::task::spawn_blocking(move || fetch(&url)).await?;
        match fetched.with_context(|| format!("--bootstrap {entry}")) {
            Ok(Listed { addresses: listed, refused }) => {
                if refused > 0 {
                    tracing::warn!("{entry} lists {refused} nodes that did not sign what it says");
                }
                addresses.extend(listed.iter().map(ToString::to_string));
            }
            Err(error) => {
                tracing::warn!("{error:#}");
                problem = Some(error);
            }
        }
    }
    if let Some(error) = problem.filter(|_| addresses.is_empty()) {
        return Err(error);
    }
    settings.bootstrap = addresses;
    Ok(settings)
}

fn fetch(url: &str) -> anyhow::Result<Listed> {
    let (scheme, rest) = url.split_once("://").context("it is no URL")?;
    let bare = rest.trim_end_matches('/');
    let url = if bare.contains('/') { url.to_owned() } else { format!("{scheme}://{bare}{LIST}") };
    let config = Agent::config_builder()
        .timeout_global(Some(FETCH_MAX))
        .max_redirects(3)
        .tls_config(
            TlsConfig::builder()
                .unversioned_rustls_crypto_provider(Arc::new(aws_lc_rs::default_provider()))
                .root_certs(authorities()?)
                .build(),
        )
        .build();
    let mut answer = Agent::from(config)
        .get(&url)
        .call()
        .context("the portal does not answer; give another --bootstrap, or try again later")?;
    let list = answer
        .body_mut()
        .with_config()
        .limit(LIST_BYTES_MAX.try_into().unwrap_or(u64::MAX))
        .read_to_vec()
        .context("the portal's list is too long, or broke off")?;
    let listed = read(&list)?;
    if listed.addresses.is_empty() {
        bail!("the portal lists no supernode whose signature holds ({} refused)", listed.refused);
    }
    Ok(listed)
}

/// Mozilla's authorities, or those of the user's file.
fn authorities() -> anyhow::Result<RootCerts> {
    let Some(path) = std::env::var_os(AUTHORITIES) else { return Ok(RootCerts::WebPki) };
    let text = std::fs::read(&path).with_context(|| format!("{AUTHORITIES} {}", path.display()))?;
    let certificates: Vec<Certificate<'static>> = parse_pem(&text)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            Ok(_) | Err(_) => None,
        })
        .collect();
    Ok(RootCerts::from(certificates))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpListener,
        thread,
    };

    use clap::Parser;

    use super::*;
    use crate::config::NodeArgs;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        node: NodeArgs,
    }

    /// A portal that answers once, with `answer`.
    fn portal(answer: String) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let read = socket.read(&mut [0; 4_096]).unwrap();
            assert!(read > 0);
            let length = answer.len();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            // The reader may hang up before it has all of it.
            let _ = socket.write_all((head + &answer).as_bytes());
        });
        url
    }

    async fn resolved(entries: &[&str]) -> anyhow::Result<Settings> {
        let args = entries.iter().flat_map(|entry| ["--bootstrap", entry]);
        let settings = Cli::parse_from(std::iter::once("astral").chain(args)).node.settle()?;
        resolve(settings).await
    }

    #[tokio::test]
    async fn a_portal_that_lies_is_worth_nothing_and_harms_nothing() {
        let node = "9".repeat(64);
        let forged = format!(
            r#"{{"supernodes":[{{"node":"{node}","addrs":["/ip4/192.0.2.7/tcp/1"],"seq":1,"proof":"{}"}}]}}"#,
            "00".repeat(64)
        );
        let known =
            "/ip4/192.0.2.1/tcp/4001/p2p/12D3KooWRBhwfeP2Y4TCx1SM6s9rUoHhR5STiGwxBhgFRcw3UERE";
        for answer in [forged, "<html>".into(), "{}".into(), " ".repeat(LIST_BYTES_MAX + 1)] {
            let alone = resolved(&[&portal(answer.clone())]).await.unwrap_err();
            assert!(format!("{alone:#}").contains("--bootstrap http://127.0.0.1"), "{alone:#}");
            let beside = resolved(&[&portal(answer), known]).await.unwrap();
            assert_eq!(beside.bootstrap, [known]);
        }
    }

    #[tokio::test]
    async fn without_a_portal_nothing_is_fetched() {
        assert!(resolved(&[]).await.unwrap().bootstrap.is_empty());
    }
}
