//! The local servers of a node as one thing: API, HTTP-FLV and RTMP.
//!
//! Owns their start, their supervision and their end. Does not own the node, nor what each serves.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use astral_core::ids::StreamId;
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use super::{
    devices::LookForDevices,
    doctor::Examine,
    listener::BoundedListener,
    logs::LogTail,
    observer,
    port::{NodePort, Published},
    publishing::{Ingest, Outside, Publishing, Source},
    recordings::Recordings,
    router,
    session::NoRandomness,
    state::{Api, Parts},
    token::{self, TokenError},
    url_file::UrlFile,
};
use crate::{
    edge::{
        certificate::CertificateError,
        hls, http_flv,
        interest::{Interests, Pin},
        local::{Access, BindError, Gate, bind},
        ports::Streams,
        rtmp::{
            Certificate, IngestKeys, KeyError, RtmpCounters, RtmpLimits, RtmpServer, session::APP,
        },
    },
    node::{NodeError, Tasks},
};

/// The task that serves HTTP.
pub const API: &str = "api";
/// The task that serves encoders.
pub const RTMP: &str = "rtmp";
/// The task that serves encoders inside TLS.
pub const RTMPS: &str = "rtmps";
/// The task that stops streams nobody reads any more.
const INTERESTS: &str = "interests";

/// The task that hears the node's events.
const HISTORY: &str = "history";
/// The task that looks at the node.
const OBSERVER: &str = "observer";

/// Until every local task has ended.
const STOP_MAX: Duration = Duration::from_secs(2);

/// Where the local servers are.
#[derive(Clone, Debug)]
pub struct LocalConfig {
    /// The API's address, and whether a taken port may move.
    pub api: (SocketAddr, bool),
    /// The RTMP address, and whether a taken port may move.
    pub rtmp: (SocketAddr, bool),
    /// Where encoders connect inside TLS, if anywhere.
    pub rtmps: Option<RtmpsConfig>,
    /// Where the API's token is kept. Beside it, with the extension `url`, stands where the API is
    /// while the node runs.
    pub token_file: PathBuf,
    /// Who besides this machine may use the API.
    pub access: Access,
    /// What `GET /logs` tells.
    pub log: LogTail,
}

/// RTMP inside TLS: for encoders on other machines, since nobody on the way reads the stream key.
#[derive(Clone, Debug)]
pub struct RtmpsConfig {
    /// The address, and whether a taken port may move.
    pub addr: (SocketAddr, bool),
    /// Shown to encoders.
    pub certificate: Certificate,
}

/// Why the local servers did not start, or ended by themselves.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocalError {
    /// An address can't be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A bound socket has no address.
    #[error("a local socket has no address: {0}")]
    Socket(#[from] std::io::Error),
    /// There is no token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Other machines could reach the API, and nobody said that they may.
    #[error(
        "the API would listen on {addr}, where other machines reach it: add --api-remote if they \
         shall, with the token; or use 127.0.0.1"
    )]
    Exposed {
        /// The address.
        addr: SocketAddr,
    },
    /// HTTPS can't be served.
    #[error("portal: {0}")]
    Tls(#[from] CertificateError),
    /// A server's task died.
    #[error(transparent)]
    Task(#[from] NodeError),
}

/// The running local servers of a node. Dropping it does not stop them: see [`Self::stop`].
pub struct Local {
    api: Api,
    tasks: Tasks,
    rtmp_counters: Arc<RtmpCounters>,
    rtmps_url: Option<String>,
    url_file: UrlFile,
}

impl std::fmt::Debug for Local {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Local({}, {})", self.api_url(), self.rtmp_url())
    }
}

impl Local {
    /// Starts the servers of the node behind `node` and `streams`. The task called
    /// `panic_in` panics, for tests.
    ///
    /// # Errors
    /// [`LocalError`] when an address is taken or the token can't be kept.
    pub async fn start_on(
        node: Arc<dyn NodePort>,
        streams: Arc<dyn Streams>,
        config: LocalConfig,
        panic_in: Option<String>,
    ) -> Result<Self, LocalError> {
        let api_ip = config.api.0.ip();
        if !api_ip.is_loopback() && !config.access.remote {
            return Err(LocalError::Exposed { addr: config.api.0 });
        }
        let token = token::load_or_create(&config.token_file)?;
        let listener = bind(config.api.0, config.api.1).await?;
        let rtmp = bind(config.rtmp.0, config.rtmp.1).await?;
        let (api_addr, rtmp_addr) = (listener.local_addr()?, rtmp.local_addr()?);
        let (rtmps, rtmps_url) = match config.rtmps {
            Some(RtmpsConfig { addr, certificate }) => {
                let listener = bind(addr.0, addr.1).await?;
                let url = format!("rtmps://{}/{APP}", reachable(listener.local_addr()?));
                (Some((listener, certificate)), Some(url))
            }
            None => (None, None),
        };
        let tasks = Tasks::new(panic_in);
        let keys = IngestKeys::default();
        let gate = Gate::with_access(api_addr, token.as_str(), config.access);
        let interests = Interests::new(streams);
        let rtmp_url = format!("rtmp://{}/{APP}", reachable(rtmp_addr));
        let publishing = Publishing::new(keys.clone(), tasks.clone(), rtmp_url);
        let api_url = format!("http://{}", reachable(api_addr));
        // It takes streams alone: a player knows no secret that would prove who it is.
        let rtmps = rtmps.map(|(listener, certificate)| {
            let server = RtmpServer::new(listener, keys.clone(), RtmpLimits::default());
            server.secured(certificate)
        });
        let server = RtmpServer::new(rtmp, keys, RtmpLimits::default()).playing(interests.clone());
        let stopping = tasks.child_token();
        let url_file = UrlFile::create(&config.token_file, &api_url)?;
        let parts = Parts {
            node,
            interests: interests.clone(),
            gate,
            publishing,
            api_url,
            token,
            recordings: Recordings::new(tasks.clone()),
            log: config.log,
            instance: instance()?,
            stopping,
        };
        let api = Api::new(parts);
        let rtmp_counters = server.counters();
        let local = Self { api, tasks, rtmp_counters, rtmps_url, url_file };
        local.spawn(RTMP, server.run());
        if let Some(server) = rtmps {
            local.spawn(RTMPS, server.run());
        }
        local.spawn(INTERESTS, async move { interests.run().await });
        local.spawn(HISTORY, hear(local.api.clone()));
        local.spawn(OBSERVER, observer::run(local.api.clone()));
        local.spawn_http(BoundedListener::new(listener));
        Ok(local)
    }

    fn spawn(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let tasks = self.tasks.clone();
        self.tasks.spawn_vital(name, async move {
            tasks.panic_point(name);
            tokio::select! {
                () = work => {}
                () = tasks.stopping() => {}
            }
        });
    }

    pub(super) fn api(&self) -> Api {
        self.api.clone()
    }

    /// Runs a server of its own, which is to end with the token it gets.
    pub(super) fn spawn_server<F: Future<Output = ()> + Send + 'static>(
        &self,
        name: &'static str,
        serve: impl FnOnce(CancellationToken) -> F,
    ) {
        let (serving, tasks) = (serve(self.tasks.child_token()), self.tasks.clone());
        self.tasks.spawn_vital(name, async move {
            tasks.panic_point(name);
            serving.await;
        });
    }

    fn spawn_http(&self, listener: BoundedListener) {
        let (router, tasks) = (router::router(self.api.clone()), self.tasks.clone());
        let interests = self.api.interests.clone();
        self.tasks.spawn_vital(API, async move {
            tasks.panic_point(API);
            let stop = tasks.child_token();
            let stopping = async move {
                stop.cancelled().await;
                interests.close();
            };
            let served = axum::serve(listener, router).with_graceful_shutdown(stopping).await;
            if let Err(error) = served {
                tracing::error!(%error, "the API's listener failed");
            }
        });
    }

    /// Where the API is, such as `http://127.0.0.1:8000`.
    #[must_use]
    pub fn api_url(&self) -> String {
        self.api.api_url.clone()
    }

    /// A new link that opens the web app in a browser, once.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn web_link(&self) -> Result<String, NoRandomness> {
        self.api.web_link()
    }

    /// Lets `GET /devices` look for devices with `look`.
    pub fn offer_devices(&self, look: LookForDevices) {
        self.api.devices.offer(look);
    }

    /// Lets `GET /doctor` examine the node with `examine`.
    pub fn offer_doctor(&self, examine: Examine) {
        self.api.doctor.offer(examine);
    }

    /// Lets `POST /streams/{id}/record` record into `folder`, which is made with the first one.
    pub fn allow_recording(&self, folder: PathBuf) {
        self.api.recordings.allow(folder);
    }

    /// Where encoders connect, without a key, such as `rtmp://127.0.0.1:1935/astral`.
    #[must_use]
    pub fn rtmp_url(&self) -> String {
        self.api.publishing.rtmp_url().to_owned()
    }

    /// The same inside TLS, where there is a certificate.
    #[must_use]
    pub fn rtmps_url(&self) -> Option<&str> {
        self.rtmps_url.as_deref()
    }

    /// Where a player on this machine opens `stream`.
    #[must_use]
    pub fn http_flv_url(&self, stream: StreamId) -> String {
        http_flv::url(&self.api.api_url, stream)
    }

    /// Where a player on this machine opens `stream` over RTMP.
    #[must_use]
    pub fn rtmp_play_url(&self, stream: StreamId) -> String {
        format!("{}/{stream}", self.rtmp_url())
    }

    /// Where a player on this machine opens `stream` as HLS.
    #[must_use]
    pub fn hls_url(&self, stream: StreamId) -> String {
        hls::url(&self.api.api_url, stream)
    }

    /// What happened on the RTMP port.
    #[must_use]
    pub fn rtmp_counters(&self) -> Arc<RtmpCounters> {
        self.rtmp_counters.clone()
    }

    /// Opens a stream key for `stream` and fills it from the encoder that comes with the key. The
    /// stream ends through the API or by [`Self::stop`]; a broadcast of
    /// it when no encoder has been there for `window`.
    ///
    /// # Errors
    /// [`KeyError`] when too many keys are open; the stream is ended then.
    pub fn ingest_into(
        &self,
        name: &str,
        stream: Box<dyn Published>,
        window: Duration,
    ) -> Result<Ingest, KeyError> {
        self.api.publishing.take_encoder(name, stream, Outside::Encoder, window)
    }

    /// Lets `POST /streams` publish from `source` under `name`.
    pub fn offer_source(&self, name: &str, source: Arc<dyn Source>) {
        self.api.publishing.offer(name, source);
    }

    /// Says that something besides players needs `id`: while the pin lives, players that leave
    /// never stop the stream.
    #[must_use]
    pub fn pin(&self, id: StreamId) -> Pin {
        self.api.interests.pin(id)
    }

    #[cfg(test)]
    pub(super) fn changes(&self) -> &super::changes::Changes {
        &self.api.changes
    }

    /// Resolves when the API was asked to shut the node down. Cancel safe.
    pub async fn shutdown_requested(&self) {
        self.api.shutdown.cancelled().await;
    }

    /// Resolves when a server's task died; never when the servers were stopped. Cancel safe.
    pub async fn failed(&self) -> LocalError {
        self.tasks.stopping().await;
        match self.tasks.failure() {
            Some(error) => error.into(),
            None => std::future::pending().await,
        }
    }

    /// Ends published streams, then every server; 2 s at most.
    pub async fn stop(&mut self) {
        self.tasks.stop();
        if tokio::time::timeout(STOP_MAX, self.tasks.wait()).await.is_err() {
            tracing::warn!("some local connections did not end within {STOP_MAX:?}");
        }
        self.url_file.remove();
    }

    /// A token that ends with the servers.
    #[must_use]
    pub fn stopping(&self) -> CancellationToken {
        self.tasks.child_token()
    }
}

/// Draws the name of this run of the node.
fn instance() -> Result<String, TokenError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|_| TokenError::NoRandomness)?;
    Ok(data_encoding::HEXLOWER.encode(&bytes))
}

/// Counts and tells events for as long as the node lives.
async fn hear(api: Api) {
    let mut events = api.node.events();
    while let Some(event) = events.next().await {
        api.history.hear(&event);
        api.changes.event(&event);
    }
    // The node is ending, and says itself why.
    std::future::pending::<()>().await;
}

/// The address that programs on this machine use for a listener: one on all addresses is reached
/// by loopback.
fn reachable(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => {
            SocketAddr::new(std::net::Ipv4Addr::LOCALHOST.into(), addr.port())
        }
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => {
            SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), addr.port())
        }
        SocketAddr::V4(_) | SocketAddr::V6(_) => addr,
    }
}
