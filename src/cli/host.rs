//! A node with its local servers, as every node-running command starts it.
//!
//! Owns start-up order, the `ready` event, the event lines, the status line and the polite end.
//! Does not own what a command adds: a publisher, a player; nor where its folder is.

use std::{
    future::Future,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::bail;
use astral_core::ids::StreamId;
use clap::Args;
use serde_json::{Value, json};
use tokio::{io::AsyncReadExt, sync::broadcast};

use super::{
    bootstrap, doctor, folders,
    folders::{Ephemeral, Home},
    output::{Output, Usage, log_tail},
    signals::Stop,
    sources, status,
};
use crate::{
    api::{
        Local, LocalConfig, RtmpsConfig,
        summary::{Summaries, Summary},
    },
    config::{NodeArgs, Relay, Role, Settings},
    edge::{local::Access, rtmp::Certificate},
    node::{
        Event, Handle, Node, NodeConfig, PRIVATE_STREAMS_DEFAULT, RELAY_CIRCUITS_DEFAULT,
        RELAY_RATE_DEFAULT, RelayChoice, RoleChoice, Running, caught,
    },
};

/// Longest polite leave. The promise is 5 s even when every peer is dead.
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

/// A running node with its local servers.
pub struct Host {
    /// The node.
    pub handle: Handle,
    /// Its local servers.
    pub local: Local,
    /// Where results go.
    pub out: Output,
    running: Running,
    events: broadcast::Receiver<Event>,
    token_file: PathBuf,
    leave_with_stdin: bool,
    /// Goes with this host.
    _ephemeral: Option<Ephemeral>,
    stop: Option<Stop>,
    rates: status::Rates,
    patience: status::Patience,
    summaries: Summaries,
}

impl Host {
    /// Starts the node, then its local servers.
    ///
    /// # Errors
    /// When a setting is wrong, a port or the data directory is taken, or keys can't be read.
    pub async fn start(
        settings: Settings,
        args: &HostArgs,
        home: Home<'_>,
    ) -> anyhow::Result<Self> {
        let out = Output { json: settings.json, is_stdout_media: false };
        let told = Arc::new(settings.clone());
        let settings = bootstrap::resolve(settings).await?;
        let config = node_config(&settings)?;
        let rtmps = rtmps_config(&settings)?;
        let ephemeral = if settings.ephemeral { Some(Ephemeral::new()?) } else { None };
        let (handle, running, folder) = if let Some(folder) = &ephemeral {
            let (handle, running) = Node::start(config).await?;
            (handle, running, folder.path().to_owned())
        } else if let Some(folder) = &settings.data_dir {
            let config = NodeConfig { data_dir: Some(folder.clone()), ..config };
            let (handle, running) = Node::start(config).await?;
            (handle, running, folder.clone())
        } else {
            folders::start_in_default(&folders::base()?, home, config, out).await?
        };
        let events = handle.events();
        let token_file = folder.join("api.token");
        let local = Local::start(
            handle.clone(),
            LocalConfig {
                api: (settings.api.addr, settings.api.movable),
                rtmp: (settings.rtmp.addr, settings.rtmp.movable),
                rtmps,
                token_file: token_file.clone(),
                access: Access {
                    remote: settings.api_remote,
                    hosts: settings.api_host,
                    origins: settings.api_origin,
                },
                log: log_tail(),
            },
        )
        .await?;
        sources::offer(&local);
        let kept = (!settings.ephemeral).then(|| folder.clone());
        if let Some(recordings) =
            settings.recordings.or_else(|| Some(kept.as_ref()?.join("recordings")))
        {
            local.allow_recording(recordings);
        }
        doctor::offer(&local, handle.clone(), told, kept);
        Ok(Self {
            handle,
            local,
            out,
            running,
            events,
            token_file,
            leave_with_stdin: args.leave_with_stdin,
            _ephemeral: ephemeral,
            stop: None,
            rates: status::Rates::default(),
            patience: status::Patience::default(),
            summaries: Summaries::default(),
        })
    }

    /// What `ready` says about a stream of this command.
    pub fn stream_fields(&self, stream: StreamId) -> Value {
        json!({
            "stream_id": stream,
            "media": {
                "http_flv": self.local.http_flv_url(stream),
                "rtmp": self.local.rtmp_play_url(stream),
                "hls": self.local.hls_url(stream),
            },
        })
    }

    /// Prints `ready` with the command's own `fields`, or the same in words. Until then a signal
    /// ends this process at once, as nobody was told of it yet.
    pub fn announce_ready(&mut self, fields: Value) {
        self.stop = Some(Stop::listen());
        let listen: Vec<String> =
            self.handle.listen_addrs().iter().map(ToString::to_string).collect();
        let mut ready = json!({
            "peer_id": self.handle.peer_id_text(),
            "node_id": self.handle.node_id(),
            "listen": listen,
            "api": self.local.api_url(),
            "rtmp": self.local.rtmp_url(),
            "rtmps": self.local.rtmps_url(),
            "token_file": self.token_file,
            "version": env!("LONG_VERSION"),
        });
        let web = self.local.web_link().ok();
        ready["web"] = json!(web);
        self.say_ready(&listen, &fields, web.as_deref());
        if let (Some(ready), Value::Object(fields)) = (ready.as_object_mut(), fields) {
            ready.extend(fields);
        }
        self.out.event("ready", ready);
    }

    fn say_ready(&self, listen: &[String], fields: &Value, web: Option<&str>) {
        self.out.say("Others join through one of:");
        for address in one_per_host(listen) {
            self.out.say(&format!("  --bootstrap {address}"));
        }
        if let Some(link) = fields["stream"].as_str() {
            self.out.say(&format!("Stream:    {link}"));
        }
        for (name, kind) in [("HTTP-FLV", "http_flv"), ("RTMP", "rtmp"), ("HLS", "hls")] {
            if let Some(url) = fields["media"][kind].as_str() {
                self.out.say(&format!("{:10} {url}", format!("{name}:")));
            }
        }
        if let Some(link) = web {
            self.out
                .say(&format!("Web page:  {link}   (opens once; `astral ctl web` makes another)"));
        }
        self.out.say(&format!("API:       {}", self.local.api_url()));
        self.out.say(&format!("Token:     {}", self.token_file.display()));
    }

    /// Reports events until `work` ends, the user or the API asks to stop, or the node dies.
    ///
    /// # Errors
    /// What `work` failed with, or the task of the node that died.
    pub async fn run_until(
        &mut self,
        work: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<()> {
        let work = async { caught(work).await.unwrap_or_else(|message| bail!("{message}")) };
        let mut work = std::pin::pin!(work);
        let mut stop = self.stop.take().unwrap_or_else(Stop::listen);
        let mut stdin = std::pin::pin!(stdin_closed(self.leave_with_stdin));
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                outcome = &mut work => {
                    self.drain_events();
                    return outcome;
                }
                () = stop.asked() => return Ok(()),
                () = &mut stdin => return Ok(()),
                () = self.local.shutdown_requested() => return Ok(()),
                error = self.local.failed() => return Err(error.into()),
                outcome = self.running.join() => return outcome.map_err(Into::into),
                event = self.events.recv() => self.report(event),
                _ = tick.tick() => self.report_status().await,
            }
        }
    }

    /// Leaves politely, within [`LEAVE_WITHIN`].
    pub async fn leave(mut self) {
        self.out.progress("leaving ...");
        let left = async {
            // Encoders are let go first, so that their streams end with a last word.
            self.local.stop().await;
            self.handle.leave().await;
            // Whether a task still died while leaving changes nothing any more.
            let _ = self.running.join().await;
        };
        if tokio::time::timeout(LEAVE_WITHIN, left).await.is_err() {
            tracing::warn!("some peers did not hear the goodbye within {LEAVE_WITHIN:?}");
        }
        self.drain_events();
        let over = self.summaries.finish();
        self.summarise(&over);
        self.out.progress("");
    }

    fn report(&mut self, event: Result<Event, broadcast::error::RecvError>) {
        match event {
            Ok(event) => {
                if let Ok(Value::Object(mut fields)) = serde_json::to_value(&event) {
                    let kind = fields.remove("event");
                    let kind = kind.as_ref().and_then(Value::as_str).unwrap_or("unknown");
                    self.out.event(kind, Value::Object(fields));
                }
                let is_news = self.patience.is_news(&event, Instant::now());
                if let Some(line) = status::in_words(&event).filter(|_| is_news) {
                    self.out.note(&line);
                }
            }
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                self.out.event("events_missed", json!({"count": missed}));
            }
            // The node is ending; `running` says why.
            Err(broadcast::error::RecvError::Closed) => {}
        }
    }

    fn drain_events(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            self.report(Ok(event));
        }
    }

    fn summarise(&self, over: &[Summary]) {
        for summary in over {
            self.out.event("summary", json!(summary));
            self.out.note(&summary.in_words());
        }
    }

    async fn report_status(&mut self) {
        let Ok(snapshot) = self.handle.snapshot().await else { return };
        let looks = status::looks(&snapshot);
        let over = self.summaries.observe(Instant::now(), &looks);
        self.summarise(&over);
        let status = self.rates.status(&snapshot);
        self.out.progress(&status::line(&status));
        self.out.event("status", status);
    }
}

/// Where encoders connect inside TLS: nowhere without a certificate.
fn rtmps_config(settings: &Settings) -> anyhow::Result<Option<RtmpsConfig>> {
    let Some((chain, key)) = &settings.rtmps_certificate else { return Ok(None) };
    let certificate = Certificate::load(chain, key)?;
    let addr = (settings.rtmps.addr, settings.rtmps.movable);
    Ok(Some(RtmpsConfig { addr, certificate }))
}

/// What these settings mean to a node.
///
/// # Errors
/// [`Usage`] names the address that is none.
pub fn node_config(settings: &Settings) -> anyhow::Result<NodeConfig> {
    let addresses = |texts: &[String], flag: &str| {
        texts
            .iter()
            .map(|text| {
                text.parse().map_err(|e| {
                    Usage(format!(
                        "{flag} {text}: {e}; a multiaddr looks like /ip4/0.0.0.0/tcp/4001"
                    ))
                })
            })
            .collect::<Result<Vec<_>, Usage>>()
    };
    Ok(NodeConfig {
        data_dir: None,
        listen: addresses(&settings.listen, "--listen")?,
        bootstrap: addresses(&settings.bootstrap, "--bootstrap")?,
        uplink: settings.uplink,
        max_copies: settings.max_copies,
        max_total_copies: settings.max_total_copies,
        role: match settings.role {
            Role::Auto => RoleChoice::Auto,
            Role::Supernode => RoleChoice::Supernode,
            Role::Member => RoleChoice::Member,
        },
        mdns: settings.mdns,
        upnp: settings.upnp,
        autonat: settings.autonat,
        hole_punching: settings.hole_punching,
        relay: match settings.relay {
            Relay::On => RelayChoice::Auto,
            Relay::Use => RelayChoice::Use,
            Relay::Off => RelayChoice::Off,
        },
        relay_rate: settings.relay_rate.unwrap_or(RELAY_RATE_DEFAULT),
        relay_circuits: settings.relay_circuits.unwrap_or(RELAY_CIRCUITS_DEFAULT),
        external: addresses(&settings.external, "--external")?,
        privacy: settings.privacy,
        private_streams: settings.private_streams.unwrap_or(PRIVATE_STREAMS_DEFAULT),
        member_capacity: settings.members_max,
        journal: settings.journal.clone(),
        picture_maker: Some(super::picture::maker()),
        ..NodeConfig::default()
    })
}

/// What people are shown: each host once, by TCP where it is there. Programs get all by `--json`.
fn one_per_host(listen: &[String]) -> Vec<&String> {
    let host = |address: &str| address.split('/').take(3).collect::<Vec<_>>().join("/");
    let mut shown: Vec<&String> = Vec::new();
    let (tcp, other): (Vec<_>, Vec<_>) = listen.iter().partition(|text| text.contains("/tcp/"));
    for address in tcp.into_iter().chain(other) {
        if !shown.iter().any(|known| host(known) == host(address)) {
            shown.push(address);
        }
    }
    shown
}

/// Returns when stdin closes; never when nobody asked to watch it.
async fn stdin_closed(watch: bool) {
    if !watch {
        return std::future::pending().await;
    }
    let mut stdin = tokio::io::stdin();
    let mut sink = [0; 256];
    while matches!(stdin.read(&mut sink).await, Ok(read) if read > 0) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_see_each_host_once() {
        let texts = [
            "/ip4/127.0.0.1/udp/4001/quic-v1/p2p/A",
            "/ip4/127.0.0.1/tcp/4001/p2p/A",
            "/ip4/192.0.2.2/udp/4001/quic-v1/p2p/A",
        ]
        .map(str::to_owned);
        assert_eq!(one_per_host(&texts), [&texts[1], &texts[2]]);
    }
}
