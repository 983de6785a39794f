//! The one door to a running node.
//!
//! Owns [`Handle`]: what the command line, the API and the local protocols can ask of the node. Does
//! not own the node's state: every answer comes from the tasks that do.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use astral_core::{
    announcement::Rendition,
    ids::{NodeId, StreamId, StreamName},
    media::{
        cert::SourceSigner,
        relay::{RelayInput, SinkId, StreamRole},
    },
    overlay::{Change, Command, Event, TicketId},
    units::Bitrate,
};
use bytes::Bytes;
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use tokio::{
    sync::{broadcast, mpsc, oneshot},
    time::timeout,
};

use super::{
    clock::Clock,
    datadir::DataDir,
    error::{NodeGone, PublishError, WatchError},
    link::StreamRef,
    media::MediaCommand,
    pictures::Pictures,
    playback::{Item, Playback, SINK_QUEUE_MAX, WatchSpec},
    publisher::{PublishSpec, Publisher},
    status::{NodeSnapshot, PlayerStats, assemble},
    tasks::Tasks,
    traffic::Traffic,
    wishes::WishTable,
};

/// Commands that wait for the overlay task.
pub(super) const COMMANDS_MAX: usize = 256;
/// Events that a slow listener may be behind before it misses some.
const EVENTS_MAX: usize = 1_024;
/// The polite leave takes at most this, whatever the peers do.
const LEAVE_MAX: Duration = Duration::from_secs(4);

/// What the overlay task is asked.
#[derive(Debug)]
pub(super) enum NodeCommand {
    /// For the overlay as it is.
    Overlay(Command),
    /// A stream is about to be published here; false = it is already.
    Reserve { stream: StreamId, reply: oneshot::Sender<bool> },
    /// The stream published here is over.
    PublishOver { stream: StreamId },
    /// The small picture of a stream.
    Picture { stream: StreamId, reply: oneshot::Sender<Option<Bytes>> },
    /// The renditions of a stream that live.
    Renditions { stream: StreamId, reply: oneshot::Sender<Vec<Rendition>> },
    /// A local reader comes.
    Watch {
        stream: StreamId,
        spec: WatchSpec,
        sink: SinkId,
        to: mpsc::Sender<Item>,
        reply: oneshot::Sender<Result<(), WatchError>>,
    },
    /// A local reader left.
    ReaderGone { stream: StreamId, sink: SinkId },
    /// Forward a stream without playing it.
    Seed { stream: StreamId },
    /// No longer forward a stream for its own sake.
    Unseed { stream: StreamId },
    /// Stop watching and seeding a stream.
    Stop { stream: StreamId },
    /// The same, when nobody here reads, seeds or publishes it.
    StopIfUnused { stream: StreamId },
    /// Everything the overlay task knows.
    Snapshot { reply: oneshot::Sender<super::run::DriverReport> },
    /// Leave politely.
    Leave { reply: oneshot::Sender<()> },
}

/// Changes of a running node's limits; by default each stays as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// Hard ceiling of what is sent; lifted, the uplink is measured.
    pub uplink: Change<Bitrate>,
    /// Copies of one stream.
    pub max_copies: Change<u32>,
    /// Copies of all streams together.
    pub max_total_copies: Change<u32>,
}

/// What every handle, publisher and playback of a node shares.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub commands: mpsc::Sender<NodeCommand>,
    pub media: mpsc::Sender<MediaCommand>,
    pub told: broadcast::Sender<Event>,
    pub inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub node: NodeId,
    pub peer: PeerId,
    pub clock: Clock,
    pub source: SourceSigner,
    pub data: Mutex<DataDir>,
    pub addrs: RwLock<Vec<Multiaddr>>,
    pub traffic: Arc<Traffic>,
    pub tasks: Tasks,
    pub players: Mutex<BTreeMap<StreamId, PlayerStats>>,
    pub next_sink: AtomicU64,
    pub wishes: WishTable,
    pub pictures: Pictures,
    /// The lower rendition of a stream that players here get.
    pub lower: Mutex<BTreeMap<StreamId, Rendition>>,
}

impl Shared {
    pub(super) fn events() -> broadcast::Sender<Event> {
        broadcast::Sender::new(EVENTS_MAX)
    }

    pub(super) async fn command(&self, command: NodeCommand) -> Result<(), NodeGone> {
        self.commands.send(command).await.map_err(|_| NodeGone)
    }

    pub(super) async fn media(&self, command: MediaCommand) -> Result<(), NodeGone> {
        self.media.send(command).await.map_err(|_| NodeGone)
    }
}

/// A running node. Clones speak of the same one.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(super) shared: Shared,
}

impl Handle {
    /// This node's id.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.shared.inner.node
    }

    /// This node's id as libp2p writes it.
    #[must_use]
    pub fn peer_id_text(&self) -> String {
        self.shared.inner.peer.to_string()
    }

    /// Where this node listens, each address complete with `/p2p/..`: ready for `--bootstrap`.
    #[must_use]
    pub fn listen_addrs(&self) -> Vec<Multiaddr> {
        let inner = &self.shared.inner;
        let addrs = inner.addrs.read().unwrap_or_else(PoisonError::into_inner);
        addrs.iter().map(|addr| addr.clone().with(Protocol::P2p(inner.peer))).collect()
    }

    pub(super) fn set_listening(&self, listen: Vec<Multiaddr>) {
        let addrs = &self.shared.inner.addrs;
        *addrs.write().unwrap_or_else(PoisonError::into_inner) = listen;
    }

    /// The events from now on. A listener that is more than a thousand behind misses the oldest.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.shared.told.subscribe()
    }

    /// Everything at one moment.
    ///
    /// # Errors
    /// [`NodeGone`].
    pub async fn snapshot(&self) -> Result<NodeSnapshot, NodeGone> {
        let (reply, driver) = oneshot::channel();
        self.shared.command(NodeCommand::Snapshot { reply }).await?;
        let driver = driver.await.map_err(|_| NodeGone)?;
        let (reply, media) = oneshot::channel();
        self.shared.media(MediaCommand::Report { reply }).await?;
        let media = media.await.map_err(|_| NodeGone)?;
        Ok(assemble(&self.shared.inner, driver, media))
    }

    /// Begins to publish; nothing is announced before the first media.
    ///
    /// # Errors
    /// [`PublishError`].
    pub async fn publish(&self, spec: PublishSpec) -> Result<Publisher, PublishError> {
        spec.check()?;
        let inner = &self.shared.inner;
        let stream = StreamId::derive(&inner.source.key(), &spec.name);
        let (reply, reserved) = oneshot::channel();
        self.shared.command(NodeCommand::Reserve { stream, reply }).await?;
        if !reserved.await.map_err(|_| NodeGone)? {
            return Err(PublishError::AlreadyPublished { name: spec.name.to_string() });
        }
        let epoch = {
            let mut data = inner.data.lock().unwrap_or_else(PoisonError::into_inner);
            data.epochs.next(stream, inner.clock.unix())
        };
        match epoch {
            Ok(epoch) => {
                let open = RelayInput::Open { stream, role: StreamRole::Source };
                self.shared.media(MediaCommand::Relay(open)).await?;
                Ok(Publisher::new(self.shared.clone(), spec, stream, epoch))
            }
            Err(error) => {
                self.shared.command(NodeCommand::PublishOver { stream }).await?;
                Err(PublishError::Epoch { reason: error.to_string() })
            }
        }
    }

    /// The id that a stream of this name has when this node publishes it.
    #[must_use]
    pub fn own_stream(&self, name: &StreamName) -> StreamId {
        StreamId::derive(&self.shared.inner.source.key(), name)
    }

    /// The lower renditions of a stream, the best first; none for a stream that nothing is known of.
    ///
    /// # Errors
    /// [`NodeGone`].
    pub async fn renditions(&self, stream: StreamId) -> Result<Vec<Rendition>, NodeGone> {
        let (reply, renditions) = oneshot::channel();
        self.shared.command(NodeCommand::Renditions { stream, reply }).await?;
        renditions.await.map_err(|_| NodeGone)
    }

    /// Players here get this lower rendition of a stream from now on; `None` = the source's own.
    pub fn note_rendition(&self, stream: StreamId, lower: Option<Rendition>) {
        let known = &self.shared.inner.lower;
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match lower {
            Some(lower) => known.insert(stream, lower),
            None => known.remove(&stream),
        };
        if before != lower {
            let height = lower.map(|lower| lower.height);
            // Nobody may be listening.
            let _ = self.shared.told.send(Event::Rendition { stream, height });
        }
    }

    /// The small picture of a stream, a JPEG of at most
    /// [`PICTURE_BYTES_MAX`](super::PICTURE_BYTES_MAX) bytes, from here or from other nodes; `None`
    /// when it has none or nobody gives it.
    ///
    /// # Errors
    /// [`NodeGone`].
    pub async fn picture(&self, stream: StreamId) -> Result<Option<Bytes>, NodeGone> {
        let (reply, picture) = oneshot::channel();
        self.shared.command(NodeCommand::Picture { stream, reply }).await?;
        picture.await.map_err(|_| NodeGone)
    }

    /// Joins a stream, or reads one that this node has already.
    ///
    /// # Errors
    /// [`WatchError`]. That nobody can serve it is no error but an event: the search goes on.
    pub async fn watch(&self, stream: &StreamRef, spec: WatchSpec) -> Result<Playback, WatchError> {
        let stream = stream.id();
        let sink = SinkId(self.shared.inner.next_sink.fetch_add(1, Ordering::Relaxed));
        let (to, items) = mpsc::channel(SINK_QUEUE_MAX);
        let (reply, done) = oneshot::channel();
        self.shared.command(NodeCommand::Watch { stream, spec, sink, to, reply }).await?;
        done.await.map_err(|_| NodeGone)??;
        Ok(Playback::new(stream, sink, items, self.shared.clone()))
    }

    /// Forwards a stream without playing it, until [`Self::stop`].
    ///
    /// # Errors
    /// [`NodeGone`].
    pub async fn seed(&self, stream: &StreamRef) -> Result<(), NodeGone> {
        self.shared.command(NodeCommand::Seed { stream: stream.id() }).await
    }

    /// Takes [`Self::seed`] back; local readers of the stream keep it.
    ///
    /// # Errors
    /// [`NodeGone`].
    pub async fn unseed(&self, stream: StreamId) -> Result<(), NodeGone> {
        self.shared.command(NodeCommand::Unseed { stream }).await
    }

    /// Stops watching and seeding a stream; its readers end, its children are handed over.
    ///
    /// # Errors
    /// [`NodeGone`].
    pub async fn stop(&self, stream: StreamId) -> Result<(), NodeGone> {
        self.shared.command(NodeCommand::Stop { stream }).await
    }

    /// Stops watching a stream that nobody on this node reads, seeds or publishes. Dropping the last
    /// [`Playback`] alone does not: the next reader may be seconds away.
    ///
    /// # Errors
    /// [`NodeGone`].
    pub async fn stop_if_unused(&self, stream: StreamId) -> Result<(), NodeGone> {
        self.shared.command(NodeCommand::StopIfUnused { stream }).await
    }

    /// Ends one ticket, given or held.
    ///
    /// # Errors
    /// [`NodeGone`].
    pub async fn revoke(&self, ticket: TicketId) -> Result<(), NodeGone> {
        self.shared.command(NodeCommand::Overlay(Command::RevokeTicket { ticket })).await
    }

    /// Forgets a node and everything agreed with it.
    ///
    /// # Errors
    /// [`NodeGone`].
    pub async fn forget(&self, node: NodeId) -> Result<(), NodeGone> {
        self.shared.command(NodeCommand::Overlay(Command::ForgetNode { node })).await
    }

    /// Changes limits while running.
    ///
    /// # Errors
    /// [`NodeGone`].
    pub async fn set_limits(&self, limits: Limits) -> Result<(), NodeGone> {
        let Limits { uplink, max_copies, max_total_copies } = limits;
        let ceiling = match uplink {
            Change::Keep => None,
            Change::Lift => Some(None),
            Change::Set(ceiling) => Some(Some(ceiling)),
        };
        if let Some(ceiling) = ceiling {
            self.shared.media(MediaCommand::Relay(RelayInput::Uplink { ceiling })).await?;
        }
        let command = Command::SetLimits { uplink, max_copies, max_total_copies };
        self.shared.command(NodeCommand::Overlay(command)).await
    }

    /// Resolves when a stream that is watched or seeded here has ended, or the node has.
    pub async fn ended(&self, stream: StreamId) {
        let mut events = self.events();
        loop {
            match events.recv().await {
                Ok(Event::Ended { stream: ended, .. }) if ended == stream => return,
                Ok(_) => {}
                Err(broadcast::error::RecvError::Closed) => return,
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    // The end may have been among what was missed.
                    let carried = self.snapshot().await.is_ok_and(|now| {
                        now.overlay.watches.iter().any(|watch| watch.stream == stream)
                    });
                    if !carried {
                        return;
                    }
                }
            }
        }
    }

    /// What a local player says about itself, for the status view.
    pub fn note_player(&self, stream: StreamId, frames: u64, audio_buffers: u64) {
        let mut players = self.shared.inner.players.lock().unwrap_or_else(PoisonError::into_inner);
        players.insert(stream, PlayerStats { frames, audio_buffers });
    }

    /// Panics when the test hook names `task`: for the supervised tasks outside the node.
    pub fn panic_point(&self, task: &'static str) {
        self.shared.inner.tasks.panic_point(task);
    }

    /// The task that the test hook names, for other sets of tasks.
    pub(crate) fn panic_in(&self) -> Option<String> {
        self.shared.inner.tasks.panic_in()
    }

    /// Leaves politely and stops; at most 4 s, even when every peer is dead.
    pub async fn leave(&self) {
        let (reply, left) = oneshot::channel();
        if self.shared.command(NodeCommand::Leave { reply }).await.is_ok()
            && timeout(LEAVE_MAX, left).await.is_err()
        {
            tracing::warn!("left without the last words");
        }
        self.shared.inner.tasks.stop();
    }
}
