//! The overlay task: drives the swarm and the overlay.
//!
//! Owns the loop: one thing happens, the overlay hears of it, everything it wants is carried out,
//! and only then the next thing. Does not own what events mean (`inbound`, `desk`) nor how wishes
//! are carried out (`outbound`).

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::PoisonError,
    time::Duration,
};

use astral_core::{
    ids::{FeedKey, NodeId},
    media::frame::{FrameReader, Hello},
    overlay::{Addr, FeedDownReason, Input, LookupId, Overlay, Role, Snapshot},
    time::Timestamp,
};
use libp2p::{Multiaddr, Stream, Swarm, futures::StreamExt, identity::Keypair, kad::QueryId};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::compat::Compat;

use super::{
    behaviour::Behaviour,
    carrying::Carrying,
    config::RelayChoice,
    dial::Dialer,
    drowsy::Drowsy,
    feed::handshake::GreetingError,
    feeds::Feeds,
    gossip::GossipDesk,
    handle::{NodeCommand, Shared},
    journal::Journal,
    links::Links,
    media::MediaCommand,
    paths::Paths,
    pictures::PictureDesk,
    reach::{Reach, ReachView, Strangers},
    relaying::Places,
    repair::{RepairDesk, RepairNews},
    requests::Requests,
    status::{DriverCounters, LinkView},
    streams::Streams,
    tasks,
    toll::taken::Taken,
};

/// News that wait for the overlay task.
pub const NEWS_MAX: usize = 4_096;
/// Rhythm of second dial stages, bootstrap and connection management.
const TICK: Duration = Duration::from_millis(200);
/// After the last words, connections are closed properly for at most this: a QUIC peer would
/// otherwise notice only by its idle timeout.
const CLOSE_MAX: Duration = Duration::from_millis(300);
/// A router at home has so long to hear that it need not forward ports any more. One that is slower
/// forgets them by itself within the hour.
const ROUTER_MAX: Duration = Duration::from_secs(1);

/// What other tasks tell the overlay task.
pub enum News {
    /// For the overlay as it is.
    Input(Input),
    /// A feed is over.
    FeedDown {
        /// Which.
        feed: FeedKey,
        /// Which life of it.
        generation: u64,
        /// How.
        reason: FeedDownReason,
    },
    /// The relay wants something of neighbours.
    Repair(RepairNews),
    /// A node that opened a stream to us has greeted.
    Greeted {
        /// Who.
        node: NodeId,
        /// What it wants.
        hello: Hello,
        /// The stream.
        stream: Compat<Stream>,
        /// Its place among inbound streams.
        permit: OwnedSemaphorePermit,
    },
    /// A node that opened a stream to us did not greet.
    GreetedInVain {
        /// Who.
        node: NodeId,
    },
    /// A greeting is over, whoever began it.
    Greeting {
        /// For which feed.
        feed: FeedKey,
        /// Which life of it.
        generation: u64,
        /// The stream, or why there is none.
        outcome: Result<GreetedFeed, GreetingError>,
    },
}

/// A feed's stream after both sides agreed.
pub struct GreetedFeed {
    /// The stream.
    pub stream: Compat<Stream>,
    /// The frames, perhaps with some bytes read already.
    pub frames: FrameReader,
    /// Its place among inbound streams.
    pub permit: Option<OwnedSemaphorePermit>,
}

impl std::fmt::Debug for News {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Input(input) => f.debug_tuple("Input").field(input).finish(),
            Self::FeedDown { feed, .. } => f.debug_tuple("FeedDown").field(feed).finish(),
            Self::Repair(news) => f.debug_tuple("Repair").field(news).finish(),
            Self::Greeted { node, .. } => f.debug_tuple("Greeted").field(node).finish(),
            Self::GreetedInVain { node } => f.debug_tuple("GreetedInVain").field(node).finish(),
            Self::Greeting { feed, .. } => f.debug_tuple("Greeting").field(feed).finish(),
        }
    }
}

/// What the overlay task contributes to a snapshot.
#[derive(Debug)]
pub struct DriverReport {
    /// What the overlay knows.
    pub overlay: Snapshot,
    /// Connected peers.
    pub links: Vec<LinkView>,
    /// Counters.
    pub counters: DriverCounters,
    /// Whether others can dial this node.
    pub reach: ReachView,
}

/// The task's state.
pub struct Driver {
    pub(super) swarm: Swarm<Drowsy<Behaviour>>,
    pub(super) overlay: Overlay,
    pub(super) journal: Option<Journal>,
    pub(super) key: Keypair,
    pub(super) shared: Shared,
    pub(super) links: Links,
    pub(super) dialer: Dialer,
    pub(super) requests: Requests,
    pub(super) gossip: GossipDesk,
    pub(super) feeds: Feeds,
    pub(super) streams: Streams,
    pub(super) repair: RepairDesk,
    pub(super) pictures: PictureDesk,
    pub(super) lookups: HashMap<QueryId, LookupId>,
    pub(super) listen: Vec<Multiaddr>,
    pub(super) role: Role,
    /// Whether others can dial this node.
    pub(super) reach: Reach,
    pub(super) strangers: Strangers,
    /// The connections with each peer.
    pub(super) paths: Paths,
    /// Its places at relays.
    pub(super) places: Places,
    pub(super) relay_choice: RelayChoice,
    /// What circuits through this node take.
    pub(super) taken: Taken,
    /// In privacy mode, the only node that this one speaks with.
    pub(super) only: Option<Multiaddr>,
    /// Streams carried for members that name no address.
    pub(super) carrying: Carrying,
    /// What the overlay was told last of the own addresses.
    pub(super) told: Option<(Vec<Addr>, bool)>,
    /// Since when each address is listened on.
    pub(super) since: BTreeMap<Multiaddr, Instant>,
    pub(super) counters: DriverCounters,
    /// Inputs that carrying out a wish brought about at once.
    pub(super) pending: VecDeque<Input>,
    /// For the media task, in order.
    pub(super) outbox: VecDeque<MediaCommand>,
    pub(super) left: bool,
    pub(super) leaving: Vec<oneshot::Sender<()>>,
    pub(super) commands: mpsc::Receiver<NodeCommand>,
    pub(super) news: mpsc::Receiver<News>,
    pub(super) news_in: mpsc::Sender<News>,
}

impl Driver {
    /// Runs until the node has left or is stopped.
    pub async fn run(mut self) {
        let tasks = self.shared.inner.tasks.clone();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // What the overlay wants from the start comes before the first thing it is told.
        self.drain();
        self.listening_changed();
        loop {
            tasks.panic_point(tasks::OVERLAY);
            if !self.settle().await || self.left {
                break;
            }
            let deadline = self.deadline();
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_swarm(event),
                news = self.news.recv() => if let Some(news) = news { self.on_news(news) },
                command = self.commands.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => break,
                },
                () = sleep_until(deadline) => self.on_timeout(),
                _ = tick.tick() => self.on_tick(),
                () = tasks.stopping() => break,
            }
        }
        if let Some(journal) = &mut self.journal {
            journal.end();
        }
        self.close().await;
        for reply in self.leaving.drain(..) {
            // Whoever waited may have given up.
            let _ = reply.send(());
        }
        tasks.stop();
    }

    fn deadline(&self) -> Instant {
        let at = self.overlay.poll_timeout().map_or(Timestamp::NEVER, |(at, _)| at);
        self.shared.inner.clock.instant(at)
    }

    /// Tells the overlay one thing and carries out all it wants.
    pub(super) fn input(&mut self, input: Input) {
        self.pending.push_back(input);
        while let Some(input) = self.pending.pop_front() {
            let now = self.shared.inner.clock.now();
            if let Some(journal) = &mut self.journal {
                journal.input(&input, now);
            }
            self.overlay.handle_input(input, now);
            self.drain();
        }
    }

    fn on_timeout(&mut self) {
        let now = self.shared.inner.clock.now();
        if let Some(journal) = &mut self.journal {
            journal.timeout(now);
        }
        self.overlay.handle_timeout(now);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.overlay.poll_output() {
            if let Some(journal) = &mut self.journal {
                journal.output(&output);
            }
            self.carry_out(output);
        }
        // A stream closes after everything else that was said of it.
        for stream in self.streams.take_closing() {
            self.close_stream(stream);
        }
    }

    /// Hears what is pending and hands the media task its commands; false when that is gone.
    async fn settle(&mut self) -> bool {
        while let Some(input) = self.pending.pop_front() {
            self.input(input);
        }
        while let Some(command) = self.outbox.pop_front() {
            if self.shared.media.send(command).await.is_err() {
                return false;
            }
        }
        true
    }

    fn on_tick(&mut self) {
        if let Some(journal) = &mut self.journal {
            journal.flush();
        }
        let now = Instant::now();
        for dial in self.dialer.due(now, self.links.is_empty()) {
            self.dial(dial);
        }
        for (id, failure) in self.requests.expire(now) {
            self.input(Input::Response { id, result: Err(failure) });
        }
        self.tend_paths(now);
        self.tend_carried(now);
        self.tell_neighbours();
        self.shared.inner.wishes.tell_room(|stream| self.overlay.copy_rates(stream));
        self.links.count_feeds(&self.feeds.per_node());
        for peer in self.links.idle(now, self.role == Role::Supernode) {
            self.counters.idle_closed += 1;
            // It may have gone by itself this very moment.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
    }

    /// The listen addresses changed: the overlay, the handle and the peers learn of it.
    pub(super) fn listening_changed(&mut self) {
        {
            let mut addrs = self.shared.inner.addrs.write().unwrap_or_else(PoisonError::into_inner);
            addrs.clone_from(&self.listen);
        }
        self.reach.listening(&self.listen);
        self.reach_changed();
    }

    pub(super) fn report(&self) -> DriverReport {
        let links = self.links.iter().map(|(peer, link)| LinkView {
            node: link.node,
            peer_id: peer.to_string(),
            remote: link.remote.to_string(),
            dialled: link.dialled,
            rtt: link.rtt,
            feeds: link.feeds,
            supernode: link.serves_kad,
            agent: link.agent.clone(),
            relayed: self.paths.is_relayed(peer),
        });
        DriverReport {
            links: links.collect(),
            overlay: self.overlay.snapshot(),
            counters: DriverCounters { circuit_bytes: self.taken.bytes(), ..self.counters },
            reach: self.reach_view(),
        }
    }

    /// Closes every connection properly, within bounds.
    async fn close(&mut self) {
        if self.give_ports_back() {
            // Nothing says when the router has heard of it.
            let until = Instant::now() + ROUTER_MAX;
            while timeout_at(until, self.swarm.select_next_some()).await.is_ok() {}
        }
        let deadline = Instant::now() + CLOSE_MAX;
        // The writers of the feeds say their last words meanwhile.
        let peers: Vec<_> = self.links.iter().map(|(peer, _)| *peer).collect();
        let half = Instant::now() + CLOSE_MAX / 2;
        while timeout_at(half, self.swarm.select_next_some()).await.is_ok() {}
        for peer in peers {
            // It may have gone by itself.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        while self.swarm.connected_peers().next().is_some()
            && timeout_at(deadline, self.swarm.select_next_some()).await.is_ok()
        {}
    }
}
