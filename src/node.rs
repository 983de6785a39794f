//! The libp2p driver of the two machines.
//!
//! Owns one node: its keys, its connections, its tasks, and the [`Handle`] through which everything
//! else of the process talks to it. Does not own decisions (`astral_core::overlay`), media
//! (`astral_core::media`), nor any local protocol.
//!
//! ```text
//! Handle, Publisher, Playback -> overlay task (swarm + overlay)  <-> other nodes: tickets, directory
//!            |                        |      ^                          |
//!            v                        v      |                          v
//!         media task (relay) <---- commands  news          feed tasks: one reader, one writer each
//!            ^____________ verified frames, batches to write ___________|
//! ```
//!
//! The media task waits for nobody, the overlay task waits for the media task alone, the feeds'
//! tasks wait for both: nothing can wait in a circle. Every queue between them is bounded and named.

mod behaviour;
pub mod bootstrap;
mod candidates;
mod carrying;
mod clock;
mod coalesce;
mod codec;
mod config;
mod control;
mod datadir;
mod desk;
mod dial;
mod drowsy;
mod error;
mod feed;
mod feeds;
mod gossip;
mod handle;
mod identity;
mod inbound;
mod journal;
mod ladder;
mod link;
mod links;
mod marks;
mod media;
mod meters;
mod moves;
mod outbound;
mod paths;
mod pictures;
mod playback;
mod publisher;
mod reach;
mod relaying;
mod repair;
mod requests;
mod run;
mod serving;
mod status;
mod streams;
mod swarm;
mod tasks;
mod toll;
mod traffic;
mod translate;
mod wishes;

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod network_tests;
#[cfg(test)]
mod testing;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, RwLock, atomic::AtomicU64},
    time::Duration,
};

pub use astral_core::{
    announcement::Rendition,
    media::{
        frame::EndReason,
        relay::{Policy, SkipCause},
    },
    overlay::{Event, TicketId},
};
use astral_core::{
    media::{cert::SourceSigner, relay::RelayInput},
    overlay::{Contact, Overlay, OverlayConfig, Role},
};
pub use config::{
    DEFAULT_PORT, MEMBER_CAPACITY_DEFAULT, NodeConfig, PRIVATE_STREAMS_DEFAULT,
    RELAY_CIRCUITS_DEFAULT, RELAY_RATE_DEFAULT, RelayChoice, RoleChoice,
};
pub use error::{LinkError, NodeError, NodeGone, PublishError, PushError, StartError, WatchError};
pub use handle::{Handle, Limits};
pub use ladder::{Ladder, Lower};
pub use libp2p::Multiaddr;
pub use link::{StreamLink, StreamRef};
pub use meters::StreamStats;
pub use pictures::{PICTURE_BYTES_MAX, PictureMaker};
pub use playback::{Playback, PlaybackItem, WatchSpec};
pub use publisher::{Adaptive, PublishSpec, Publisher};
pub use reach::{NatKind, ReachView, Transport, Upnp, Verdict};
pub use status::{DriverCounters, LinkView, NodeSnapshot, PlayerStats, StreamRole, StreamStatus};
pub use tasks::{Tasks, caught};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
pub use traffic::TrafficView;
pub use wishes::{ControlError, Metadata, PublishState};

use self::{
    clock::Clock,
    datadir::DataDir,
    dial::Dialer,
    handle::{COMMANDS_MAX, Inner, Shared},
    journal::Journal,
    media::{MEDIA_COMMANDS_MAX, Media, MediaCommand},
    run::{Driver, NEWS_MAX},
    traffic::Traffic,
};

/// After the order to stop, tasks have this long to end.
const STOP_MAX: Duration = Duration::from_secs(1);

/// A node; see [`Node::start`].
#[derive(Debug)]
pub struct Node;

impl Node {
    /// Starts a node: keys, listeners, tasks. It has joined nothing yet when this returns, and
    /// begins at once.
    ///
    /// # Errors
    /// [`StartError`] says what to do about it.
    pub async fn start(config: NodeConfig) -> Result<(Handle, Running), StartError> {
        let config = config.settled();
        let clock = Clock::start();
        let data = DataDir::open(config.data_dir.as_deref())?;
        let no_key = || StartError::Transport { reason: "the node key is unusable".to_owned() };
        let key = identity::keypair(*data.node_seed).ok_or_else(no_key)?;
        let peer = key.public().to_peer_id();
        let node = identity::node_id(&peer).ok_or_else(no_key)?;
        let (mut swarm, toll) = swarm::build(key.clone(), &config, clock)?;
        let listen = swarm::listen(&mut swarm, &config).await?;

        let tasks = Tasks::new(config.panic_in.clone());
        let (commands_in, commands) = mpsc::channel(COMMANDS_MAX);
        let (media_in, media) = mpsc::channel(MEDIA_COMMANDS_MAX);
        let ((news_in, news), told) = (mpsc::channel(NEWS_MAX), Shared::events());
        let inner = Inner {
            node,
            peer,
            clock,
            source: SourceSigner::from_seed(&data.source_seed),
            data: Mutex::new(data),
            addrs: RwLock::new(Vec::new()),
            traffic: Arc::new(Traffic::default()),
            tasks: tasks.clone(),
            players: Mutex::new(BTreeMap::new()),
            lower: Mutex::new(BTreeMap::new()),
            next_sink: AtomicU64::new(1),
            wishes: wishes::WishTable::default(),
            pictures: pictures::Pictures::new(config.picture_maker.clone()),
        };
        let shared = Shared {
            commands: commands_in,
            media: media_in,
            told: told.clone(),
            inner: Arc::new(inner),
        };

        let media = Media::new(clock, tasks.clone(), toll.clone(), media, news_in.clone(), told);
        let (overlay, journal) = overlay(&config, node, clock)?;
        limit_first(&shared, &config);
        let driver = Driver {
            swarm,
            overlay,
            journal,
            key,
            shared: shared.clone(),
            links: links::Links::default(),
            dialer: Dialer::new(&config.bootstrap, Instant::now()),
            requests: requests::Requests::default(),
            gossip: gossip::GossipDesk::default(),
            feeds: feeds::Feeds::default(),
            streams: streams::Streams::default(),
            repair: repair::RepairDesk::default(),
            pictures: pictures::PictureDesk::default(),
            lookups: std::collections::HashMap::new(),
            listen: listen.clone(),
            role: Role::Member,
            reach: reach::Reach::new(&config.external, config.upnp),
            strangers: reach::Strangers::default(),
            paths: paths::Paths::default(),
            places: relaying::Places::default(),
            relay_choice: config.relay,
            taken: toll::taken::Taken::new(toll, Instant::now()),
            only: config.only(),
            carrying: carrying::Carrying::new(config.private_streams, Instant::now()),
            told: None,
            since: listen.iter().map(|addr| (addr.clone(), Instant::now())).collect(),
            counters: DriverCounters::default(),
            pending: std::collections::VecDeque::new(),
            outbox: std::collections::VecDeque::new(),
            left: false,
            leaving: Vec::new(),
            commands,
            news,
            news_in,
        };
        let handle = Handle { shared };
        handle.set_listening(listen);
        tasks.spawn_vital(tasks::MEDIA, media.run());
        tasks.spawn_vital(tasks::OVERLAY, driver.run());
        Ok((handle, Running { tasks }))
    }
}

/// The upload limit holds before anything is sent.
fn limit_first(shared: &Shared, config: &NodeConfig) {
    let ceiling = MediaCommand::Relay(RelayInput::Uplink { ceiling: config.uplink });
    // The queue is empty and longer than one.
    let _ = shared.media.try_send(ceiling);
}

fn overlay(
    config: &NodeConfig,
    node: astral_core::ids::NodeId,
    clock: Clock,
) -> Result<(Overlay, Option<Journal>), StartError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| StartError::Random { reason: error.to_string() })?;
    let bootstrap = config
        .bootstrap
        .iter()
        .filter_map(|whole| {
            let (addr, peer) = identity::split_peer(whole);
            let node = identity::node_id(&peer?)?;
            Some(Contact::new(node, translate::addr(&addr).into_iter().collect()))
        })
        .collect();
    let settings = OverlayConfig {
        unix_at_start: clock.unix_at_start(),
        role: config.role,
        member_capacity: usize::try_from(config.member_capacity).unwrap_or(usize::MAX),
        uplink: config.uplink,
        max_copies: config.max_copies,
        max_total_copies: config.max_total_copies,
        bootstrap,
        bootstrap_expected: !config.bootstrap.is_empty(),
        ..OverlayConfig::default()
    };
    let now = clock.now();
    let journal = config
        .journal
        .as_deref()
        .map(|path| Journal::create(path, node, &settings, seed, now))
        .transpose()?;
    Ok((Overlay::new(node, settings, seed, now), journal))
}

/// The tasks of a running node.
#[derive(Debug)]
pub struct Running {
    tasks: Tasks,
}

impl Running {
    /// Resolves when the node has stopped.
    ///
    /// # Errors
    /// [`NodeError`] when it stopped without being told to.
    pub async fn join(&mut self) -> Result<(), NodeError> {
        self.tasks.stopping().await;
        if timeout(STOP_MAX, self.tasks.wait()).await.is_err() {
            tracing::warn!("a task did not end in time");
        }
        self.tasks.failure().map_or(Ok(()), Err)
    }
}
