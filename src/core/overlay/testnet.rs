//! A network of overlays in virtual time, for the stories.
//!
//! Owns a model of links, requests, lookups, gossip and feeds, just good enough to test decisions:
//! a message takes the latency of its pair, a feed carries a counter. Does not own loss, bandwidth
//! or real chunks: those are the simulator's.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use super::{
    Addr, Command, Contact, DirRequest, DirResponse, EndReason, Event, FeedDownReason, FeedReport,
    InboundId, Input, Interest, LookupKey, Output, Overlay, OverlayConfig, Request, RequestFailure,
    RequestId, Response, Role, Snapshot, StripeProgress, TicketRequest, TicketResponse, WatchView,
    Wire, subscriber::Subscriber,
};
use crate::{
    announcement::{AnnouncementDraft, Rendition, Scheme, SignedAnnouncement},
    ids::{Direction, FeedKey, NodeId, SourceKey, StreamId, StreamName, Stripe, StripeSet},
    time::Timestamp,
    units::Bitrate,
};

pub(super) const UNIX_AT_START: u64 = 1_800_000_000;
const TICK: Duration = Duration::from_millis(50);
const T_DEAD: Duration = Duration::from_millis(400);

/// What a node does with what it is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Health {
    Alive,
    /// Connections stay up, nothing is ever answered or sent: SIGSTOP, or a black hole.
    Frozen,
    Dead,
}

struct SimNode {
    overlay: Overlay,
    health: Health,
    role: Role,
    contact: Contact,
    wake_at: Timestamp,
    links: BTreeSet<NodeId>,
    heads: BTreeMap<(StreamId, Stripe), u64>,
    publishes: BTreeMap<StreamId, u8>,
    left: bool,
}

#[derive(Default)]
struct SimFeed {
    up: bool,
    allowed: StripeSet,
    promoted: StripeSet,
    /// It fed some stripe at some time: its silence and its speech are told.
    was_promoted: bool,
    bytes: BTreeMap<Stripe, u64>,
    duplicates: u32,
    heard_at: Timestamp,
    reported_at: Timestamp,
    silent: bool,
}

enum Happening {
    Wake(NodeId),
    Deliver(NodeId, Input),
    Dialled { from: NodeId, to: NodeId },
    Asked { from: NodeId, to: NodeId, id: RequestId, body: Request },
    Opened { stream: StreamId, parent: NodeId, child: NodeId },
    Tick,
    Acks,
}

/// Why a parent that lives brings nothing.
#[derive(Clone, Copy)]
pub(super) enum Kept {
    /// It says that it has it.
    Withheld,
    /// It has nothing itself; what neighbours brought the child is so old, in milliseconds.
    Starved(u32),
}

pub(super) struct Testnet {
    pub(super) now: Timestamp,
    pub(super) events: Vec<(Timestamp, NodeId, Event)>,
    pub(super) requests: u64,
    /// Directory requests by kind, and lookups.
    pub(super) asked_for: BTreeMap<&'static str, u64>,
    /// Of 1,000 answers this many are lost.
    pub(super) lose_answers: u64,
    /// Gossip reaches nobody.
    /// The table of supernodes is empty for whoever asks.
    pub(super) no_lookups: bool,
    pub(super) no_gossip: bool,
    /// These supernodes know of no stream when members ask, and offer none.
    pub(super) liars: BTreeSet<NodeId>,
    /// These parents bring these children nothing, for this reason.
    pub(super) kept: BTreeMap<(NodeId, NodeId), Kept>,
    /// Parents that send each child of theirs in the pair everything twice.
    pub(super) twice: BTreeSet<(NodeId, NodeId)>,
    nodes: BTreeMap<NodeId, SimNode>,
    feeds: BTreeMap<(StreamId, NodeId, NodeId), SimFeed>,
    queue: BTreeMap<(Timestamp, u64), Happening>,
    answers: BTreeMap<InboundId, (NodeId, RequestId)>,
    latency: BTreeMap<(NodeId, NodeId), Duration>,
    order: u64,
    rng: ChaCha8Rng,
    trace: blake3::Hasher,
}

/// Node number `index`.
pub(super) fn node(index: u16) -> NodeId {
    let mut id = [0; 32];
    id[..2].copy_from_slice(&index.to_be_bytes());
    id[2..].copy_from_slice(&blake3::hash(&index.to_be_bytes()).as_bytes()[..30]);
    NodeId(id)
}

pub(super) fn config() -> OverlayConfig {
    OverlayConfig {
        unix_at_start: UNIX_AT_START,
        scheme: Scheme::Tag,
        uplink: Some(Bitrate::from_mbps(100)),
        ..OverlayConfig::default()
    }
}

pub(super) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(super) fn source_key(owner: NodeId) -> SourceKey {
    SourceKey(*blake3::hash(owner.as_bytes()).as_bytes())
}

pub(super) fn draft(
    owner: NodeId,
    name: &str,
    rate: Bitrate,
    k: u8,
    epoch: u64,
) -> AnnouncementDraft {
    AnnouncementDraft {
        source: source_key(owner),
        name: StreamName::new(name).unwrap(),
        title: "a title".into(),
        description: String::new(),
        tags: vec!["test".into()],
        codecs: vec!["avc1".into()],
        resolution: None,
        rate,
        k,
        epoch,
        thumbnail: None,
        renditions: Vec::new(),
        rendition_of: None,
        floor: None,
    }
}

impl Testnet {
    pub(super) fn new(seed: u64) -> Self {
        let mut net = Self {
            now: Timestamp::ZERO,
            events: Vec::new(),
            requests: 0,
            asked_for: BTreeMap::new(),
            lose_answers: 0,
            no_gossip: false,
            no_lookups: false,
            liars: BTreeSet::new(),
            kept: BTreeMap::new(),
            twice: BTreeSet::new(),
            nodes: BTreeMap::new(),
            feeds: BTreeMap::new(),
            queue: BTreeMap::new(),
            answers: BTreeMap::new(),
            latency: BTreeMap::new(),
            order: 0,
            rng: ChaCha8Rng::seed_from_u64(seed),
            trace: blake3::Hasher::new(),
        };
        net.after(TICK, Happening::Tick);
        net.after(secs(1), Happening::Acks);
        net
    }

    /// Adds a node that knows `bootstrap`.
    pub(super) fn add(
        &mut self,
        index: u16,
        mut config: OverlayConfig,
        bootstrap: &[NodeId],
    ) -> NodeId {
        let id = node(index);
        let contacts = bootstrap.iter().map(|node| self.contact(*node));
        config.bootstrap = contacts.collect();
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        let mut clocked = config.clone();
        clocked.unix_at_start = config.unix_at_start;
        let overlay = Overlay::new(id, clocked, seed, self.now);
        let addr = Addr::new(format!("/sim/{index}")).unwrap();
        let contact = Contact::new(id, vec![addr.clone()]);
        let fresh = SimNode {
            overlay,
            health: Health::Alive,
            role: Role::Member,
            contact,
            wake_at: Timestamp::NEVER,
            links: BTreeSet::new(),
            heads: BTreeMap::new(),
            publishes: BTreeMap::new(),
            left: false,
        };
        self.nodes.insert(id, fresh);
        self.input(id, Input::ListenAddrs { addrs: vec![addr], reachable: true });
        id
    }

    pub(super) fn contact(&self, node: NodeId) -> Contact {
        self.nodes.get(&node).map_or_else(|| Contact::new(node, vec![]), |n| n.contact.clone())
    }

    pub(super) fn set_latency(&mut self, a: NodeId, b: NodeId, one_way: Duration) {
        self.latency.insert((a, b), one_way);
        self.latency.insert((b, a), one_way);
    }

    /// Slows one direction only: answers, but not what they answer.
    pub(super) fn set_latency_one_way(&mut self, from: NodeId, to: NodeId, one_way: Duration) {
        self.latency.insert((from, to), one_way);
    }

    pub(super) fn unreachable(&mut self, node: NodeId) {
        self.input(node, Input::ListenAddrs { addrs: vec![], reachable: false });
    }

    pub(super) fn command(&mut self, node: NodeId, command: Command) {
        self.input(node, Input::Command(command));
    }

    pub(super) fn publish(&mut self, owner: NodeId, name: &str, rate: Bitrate, k: u8) -> StreamId {
        self.publish_epoch(owner, owner, name, rate, k, 1)
    }

    pub(super) fn publish_epoch(
        &mut self,
        at: NodeId,
        owner: NodeId,
        name: &str,
        rate: Bitrate,
        k: u8,
        epoch: u64,
    ) -> StreamId {
        let draft = draft(owner, name, rate, k, epoch);
        let stream = draft.stream();
        self.nodes.get_mut(&at).unwrap().publishes.insert(stream, k);
        self.command(at, Command::Publish { announcement: Box::new(draft) });
        stream
    }

    pub(super) fn watch(&mut self, node: NodeId, stream: StreamId) {
        let lag = ms(1_500);
        self.command(node, Command::Watch { stream, lag, kind: Interest::Play });
    }

    /// Ends a node as `kill -9` does: its connections close at once.
    pub(super) fn kill(&mut self, node: NodeId) {
        self.set_health(node, Health::Dead);
    }

    pub(super) fn set_health(&mut self, node: NodeId, health: Health) {
        let sim = self.nodes.get_mut(&node).unwrap();
        sim.health = health;
        if health != Health::Dead {
            return;
        }
        let peers: Vec<_> = std::mem::take(&mut sim.links).into_iter().collect();
        self.feeds.retain(|(_, parent, child), _| *parent != node && *child != node);
        for peer in peers {
            self.nodes.get_mut(&peer).unwrap().links.remove(&node);
            self.after(ms(2), Happening::Deliver(peer, Input::LinkDown { node }));
        }
    }

    pub(super) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some((key, happening)) = self.queue.pop_first() {
            if key.0 > until {
                self.queue.insert(key, happening);
                break;
            }
            assert!(key.0 >= self.now, "time never goes back");
            self.now = key.0;
            self.happen(happening);
        }
        self.now = until;
    }

    /// Runs until `done` holds; panics when it does not within `limit`.
    pub(super) fn run_until(
        &mut self,
        what: &str,
        limit: Duration,
        mut done: impl FnMut(&Self) -> bool,
    ) -> Duration {
        let start = self.now;
        while !done(self) {
            assert!(
                self.now.since(start) < limit,
                "{what}: not within {limit:?}; last events {}",
                self.last_events(12)
            );
            self.run(ms(20));
        }
        self.now.since(start)
    }

    fn last_events(&self, count: usize) -> String {
        let from = self.events.len().saturating_sub(count);
        self.events[from..].iter().map(|event| format!("\n  {event:?}")).collect()
    }

    pub(super) fn snapshot(&self, node: NodeId) -> Snapshot {
        self.nodes[&node].overlay.snapshot()
    }

    pub(super) fn renditions(&self, node: NodeId, stream: StreamId) -> Vec<Rendition> {
        self.nodes[&node].overlay.renditions(stream)
    }

    pub(super) fn copy_rates(&self, node: NodeId, stream: StreamId) -> Option<super::CopyRates> {
        self.nodes[&node].overlay.copy_rates(stream)
    }

    pub(super) fn is_left(&self, node: NodeId) -> bool {
        self.nodes[&node].left
    }

    pub(super) fn is_alive(&self, node: NodeId) -> bool {
        self.nodes[&node].health == Health::Alive && !self.nodes[&node].left
    }

    pub(super) fn role(&self, node: NodeId) -> Role {
        self.nodes[&node].role
    }

    /// A digest of every output of every node so far.
    pub(super) fn trace(&self) -> blake3::Hash {
        self.trace.finalize()
    }

    /// How many stripes a node sends.
    pub(super) fn sends(&self, parent: NodeId, stream: StreamId) -> u32 {
        let of = |(key, feed): (&(StreamId, NodeId, NodeId), &SimFeed)| {
            (key.0 == stream && key.1 == parent).then(|| feed.flow_set().len())
        };
        self.feeds.iter().filter_map(of).sum()
    }

    /// Every stripe has a parent that delivers.
    pub(super) fn plays(&self, node: NodeId, stream: StreamId) -> bool {
        self.watch_of(node, stream).is_some_and(|watch| watch.playing)
    }

    pub(super) fn depth(&self, node: NodeId, stream: StreamId) -> u8 {
        let watch = self.watch_of(node, stream).unwrap();
        watch.stripes.iter().map(|stripe| stripe.depth.unwrap_or(u8::MAX)).max().unwrap()
    }

    pub(super) fn parents(&self, node: NodeId, stream: StreamId) -> Vec<Option<NodeId>> {
        let watch = self.watch_of(node, stream).unwrap();
        watch.stripes.iter().map(|stripe| stripe.parent).collect()
    }

    fn watch_of(&self, node: NodeId, stream: StreamId) -> Option<WatchView> {
        self.nodes[&node].overlay.watches.get(&stream).map(Subscriber::view)
    }

    pub(super) fn lists(&self, node: NodeId, stream: StreamId) -> bool {
        self.snapshot(node).streams.iter().any(|view| view.stream == stream)
    }

    pub(super) fn events_of(&self, of: NodeId) -> impl Iterator<Item = &Event> {
        self.events.iter().filter(move |(_, node, _)| *node == of).map(|(_, _, event)| event)
    }

    /// Follows living edges upwards; true when a node is its own ancestor in some stripe.
    pub(super) fn has_cycle(&self, stream: StreamId, k: u8) -> bool {
        (0..k).any(|stripe| {
            self.nodes.keys().any(|start| {
                let mut at = *start;
                for _ in 0..=self.nodes.len() {
                    let watch = self.watch_of(at, stream);
                    let seat = watch.and_then(|w| w.stripes.get(usize::from(stripe)).copied());
                    let Some(parent) = seat.and_then(|seat| seat.parent) else { return false };
                    if !self.is_alive(parent) {
                        return false;
                    }
                    at = parent;
                    if at == *start {
                        return true;
                    }
                }
                false
            })
        })
    }

    /// Sends a request as `from` would, whoever that is; the answer is thrown away.
    pub(super) fn inject(&mut self, from: NodeId, to: NodeId, body: Request) -> Response {
        let id = InboundId(u64::MAX);
        self.nodes
            .get_mut(&to)
            .unwrap()
            .overlay
            .handle_input(Input::Request { id, from, body }, self.now);
        let mut answer = None;
        let mut rest = Vec::new();
        while let Some(output) = self.nodes.get_mut(&to).unwrap().overlay.poll_output() {
            match output {
                Output::Respond { id: InboundId(u64::MAX), body } => answer = Some(body),
                output => rest.push(output),
            }
        }
        for output in rest {
            self.carry_out(to, output);
        }
        self.rearm(to);
        answer.expect("every request is answered within the same drain")
    }

    pub(super) fn input(&mut self, node: NodeId, input: Input) {
        let sim = self.nodes.get_mut(&node).unwrap();
        if sim.health != Health::Alive || sim.left {
            return;
        }
        sim.overlay.handle_input(input, self.now);
        self.drain(node);
    }

    fn drain(&mut self, node: NodeId) {
        while let Some(output) = self.nodes.get_mut(&node).unwrap().overlay.poll_output() {
            self.carry_out(node, output);
        }
        self.rearm(node);
    }

    fn rearm(&mut self, node: NodeId) {
        let sim = self.nodes.get_mut(&node).unwrap();
        let at = sim.overlay.poll_timeout().map_or(Timestamp::NEVER, |(at, _)| at);
        if at != sim.wake_at && at != Timestamp::NEVER {
            sim.wake_at = at;
            self.at(at, Happening::Wake(node));
        }
    }

    fn at(&mut self, at: Timestamp, happening: Happening) {
        self.order += 1;
        self.queue.insert((at.max(self.now), self.order), happening);
    }

    fn after(&mut self, time: Duration, happening: Happening) {
        self.at(self.now + time, happening);
    }

    fn delay(&self, a: NodeId, b: NodeId) -> Duration {
        self.latency.get(&(a, b)).copied().unwrap_or(ms(5))
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Wake(node) => {
                let sim = self.nodes.get_mut(&node).unwrap();
                let due = sim.overlay.poll_timeout().is_some_and(|(at, _)| at <= self.now);
                if sim.health == Health::Alive && !sim.left && due {
                    sim.overlay.handle_timeout(self.now);
                    self.drain(node);
                }
            }
            Happening::Deliver(node, input) => self.input(node, input),
            Happening::Dialled { from, to } => self.dialled(from, to),
            Happening::Asked { from, to, id, body } => self.asked(from, to, id, body),
            Happening::Opened { stream, parent, child } => self.opened(stream, parent, child),
            Happening::Tick => self.tick(),
            Happening::Acks => self.acks(),
        }
    }

    #[expect(clippy::too_many_lines, reason = "one short arm for each output")]
    fn carry_out(&mut self, from: NodeId, output: Output) {
        self.trace.update(format!("{:?} {from:?} {output:?}", self.now).as_bytes());
        match output {
            Output::Dial { contact } => {
                let to = contact.node;
                let time = self.delay(from, to) * 3;
                self.after(time, Happening::Dialled { from, to });
            }
            Output::Disconnect { node } => {
                if self.nodes.get_mut(&from).unwrap().links.remove(&node) {
                    self.nodes.get_mut(&node).unwrap().links.remove(&from);
                    self.after(ms(2), Happening::Deliver(node, Input::LinkDown { node: from }));
                }
            }
            Output::Request { id, to, body } => {
                self.requests += 1;
                *self.asked_for.entry(kind(&body)).or_default() += 1;
                if self.liars.contains(&from) && matches!(kind(&body), "offer" | "push") {
                    return;
                }
                let linked = self.nodes[&from].links.contains(&to);
                let time = self.delay(from, to) * if linked { 1 } else { 4 };
                self.after(time, Happening::Asked { from, to, id, body: over_the_wire(body) });
            }
            Output::Respond { id, body } => {
                let (to, request) = self.answers.remove(&id).expect("answered once");
                let body = if self.liars.contains(&from) { denied(body) } else { body };
                let lost = self.lose_answers > 0 && self.rng.next_u64() % 1_000 < self.lose_answers;
                let result = if lost { Err(RequestFailure::Timeout) } else { Ok(back(body)) };
                let time = if lost { secs(5) } else { self.delay(from, to) };
                self.after(time, Happening::Deliver(to, Input::Response { id: request, result }));
            }
            Output::Lookup { id, key } => {
                if let LookupKey::Stream(_) = key {
                    *self.asked_for.entry("lookup").or_default() += 1;
                }
                let connected = !self.no_lookups && !self.nodes[&from].links.is_empty();
                let supernodes = self.nodes.values().filter(|sim| {
                    connected && sim.role == Role::Supernode && sim.contact.node != from
                });
                let found = supernodes.map(|sim| sim.contact.clone()).collect();
                self.after(ms(100), Happening::Deliver(from, Input::LookupDone { id, found }));
            }
            Output::SetRole(role) => self.nodes.get_mut(&from).unwrap().role = role,
            Output::Sign { draft } => {
                let key = *draft.source.as_bytes();
                let sealed =
                    SignedAnnouncement::seal(*draft, |bytes| Scheme::tag(&key, bytes)).unwrap();
                let input = Input::Signed { announcement: Arc::new(sealed) };
                self.after(Duration::ZERO, Happening::Deliver(from, input));
            }
            Output::SignContact { mut contact } => {
                let proof = Scheme::tag(contact.node.as_bytes(), &contact.signing_input());
                contact.proof = Some(proof);
                self.nodes.get_mut(&from).unwrap().contact = contact.clone();
                let input = Input::SignedContact { contact };
                self.after(Duration::ZERO, Happening::Deliver(from, input));
            }
            Output::Gossip { .. } if self.no_gossip => {}
            Output::Gossip { announcement } => {
                let to: Vec<_> = self
                    .nodes
                    .iter()
                    .filter(|(id, sim)| sim.role == Role::Supernode && **id != from)
                    .map(|(id, _)| *id)
                    .collect();
                for to in to {
                    let announcement = Arc::clone(&announcement);
                    let input = Input::Gossip { id: 0, from, announcement };
                    self.after(ms(60), Happening::Deliver(to, input));
                }
            }
            Output::GossipVerdict { .. } | Output::Want { .. } | Output::OpenStream { .. } => {}
            Output::CloseStream { stream } => {
                let heads = &mut self.nodes.get_mut(&from).unwrap().heads;
                heads.retain(|(of, _), _| *of != stream);
            }
            Output::OpenFeed { feed } => {
                let FeedKey { stream, peer: parent, .. } = feed;
                let time = self.delay(from, parent) * 2;
                self.after(time, Happening::Opened { stream, parent, child: from });
            }
            Output::CloseFeed { feed, reason } => self.closed(from, feed, reason),
            Output::SetStripes { feed, live, .. } => {
                if let Some(feed) = self.feeds.get_mut(&(feed.stream, from, feed.peer)) {
                    feed.allowed = live;
                }
            }
            Output::SendPath { feed, stripe, path } => {
                let key =
                    FeedKey { stream: feed.stream, peer: from, direction: Direction::FromParent };
                let input = Input::Path { feed: key, stripe, path };
                self.after(self.delay(from, feed.peer), Happening::Deliver(feed.peer, input));
            }
            Output::Promote { feed, stripe } => {
                for ((stream, _, child), other) in &mut self.feeds {
                    if *stream == feed.stream && *child == from {
                        other.promoted.remove(stripe);
                    }
                }
                let FeedKey { stream, peer: parent, .. } = feed;
                let Some(feed) = self.feeds.get_mut(&(stream, parent, from)) else { return };
                feed.promoted.insert(stripe);
                feed.was_promoted = true;
                feed.heard_at = self.now;
                if !feed.allowed.contains(stripe) {
                    let feed = FeedKey { stream, peer: from, direction: Direction::ToChild };
                    let asked = Input::PromoteAsked { feed, stripe };
                    self.after(self.delay(from, parent), Happening::Deliver(parent, asked));
                }
            }
            Output::Event(event) => self.events.push((self.now, from, event)),
            Output::Left => {
                self.set_health(from, Health::Dead);
                self.nodes.get_mut(&from).unwrap().left = true;
            }
        }
    }

    fn dialled(&mut self, from: NodeId, to: NodeId) {
        let alive = |id: NodeId| self.nodes.get(&id).is_some_and(|sim| sim.health != Health::Dead);
        if !alive(from) || self.nodes[&from].links.contains(&to) {
            return;
        }
        let reachable = alive(to) && !self.nodes[&to].contact.addrs.is_empty();
        if !reachable {
            self.input(from, Input::DialFailed { node: to });
            return;
        }
        self.nodes.get_mut(&from).unwrap().links.insert(to);
        self.nodes.get_mut(&to).unwrap().links.insert(from);
        for (at, other) in [(from, to), (to, from)] {
            let contact = self.contact(other);
            self.input(at, Input::LinkUp { contact, private: true });
            if self.nodes[&other].health == Health::Alive {
                let rtt = self.delay(at, other) * 2;
                self.after(rtt, Happening::Deliver(at, Input::Rtt { node: other, rtt }));
            }
        }
    }

    fn asked(&mut self, from: NodeId, to: NodeId, id: RequestId, body: Request) {
        let linked = self.nodes[&from].links.contains(&to);
        let health = self.nodes.get(&to).map_or(Health::Dead, |sim| sim.health);
        if !linked || health == Health::Dead {
            let result = Err(RequestFailure::Unreachable);
            self.after(ms(5), Happening::Deliver(from, Input::Response { id, result }));
            return;
        }
        if health == Health::Frozen {
            let result = Err(RequestFailure::Timeout);
            self.after(secs(10), Happening::Deliver(from, Input::Response { id, result }));
            return;
        }
        self.order += 1;
        let inbound = InboundId(self.order);
        self.answers.insert(inbound, (from, id));
        self.input(to, Input::Request { id: inbound, from, body });
    }

    fn opened(&mut self, stream: StreamId, parent: NodeId, child: NodeId) {
        let up = FeedKey { stream, peer: parent, direction: Direction::FromParent };
        let down = FeedKey { stream, peer: child, direction: Direction::ToChild };
        let linked = self.nodes[&child].links.contains(&parent);
        match self.nodes.get(&parent).map_or(Health::Dead, |sim| sim.health) {
            Health::Alive if linked => {
                let feed = SimFeed { up: true, heard_at: self.now, ..SimFeed::default() };
                self.feeds.insert((stream, parent, child), feed);
                self.input(parent, Input::FeedUp { feed: down });
                if self.feeds.contains_key(&(stream, parent, child)) {
                    self.input(child, Input::FeedUp { feed: up });
                }
            }
            Health::Frozen => {}
            Health::Alive | Health::Dead => {
                let reason = FeedDownReason::OpenFailed;
                self.input(child, Input::FeedDown { feed: up, reason });
            }
        }
    }

    fn closed(&mut self, by: NodeId, feed: FeedKey, reason: EndReason) {
        let FeedKey { stream, peer, direction } = feed;
        let (parent, child) = match direction {
            Direction::FromParent => (peer, by),
            Direction::ToChild => (by, peer),
        };
        if self.feeds.remove(&(stream, parent, child)).is_none() {
            return;
        }
        let time = self.delay(by, peer);
        match direction {
            Direction::ToChild => {
                let feed = FeedKey { stream, peer: by, direction: Direction::FromParent };
                self.after(time, Happening::Deliver(peer, Input::Ended { feed, reason }));
                let reason = FeedDownReason::Closed;
                self.after(time, Happening::Deliver(peer, Input::FeedDown { feed, reason }));
            }
            Direction::FromParent => {
                let feed = FeedKey { stream, peer: by, direction: Direction::ToChild };
                let reason = FeedDownReason::Closed;
                self.after(time, Happening::Deliver(peer, Input::FeedDown { feed, reason }));
            }
        }
    }

    /// Sources cut, feeds carry what the parent had a tick ago.
    fn tick(&mut self) {
        self.after(TICK, Happening::Tick);
        let before: BTreeMap<_, _> =
            self.nodes.iter().map(|(id, sim)| (*id, sim.heads.clone())).collect();
        for sim in self.nodes.values_mut().filter(|sim| sim.health == Health::Alive && !sim.left) {
            for (stream, k) in &sim.publishes {
                for stripe in 0..*k {
                    *sim.heads.entry((*stream, stripe)).or_default() += 1;
                }
            }
        }
        let mut reports = Vec::new();
        for ((stream, parent, child), feed) in &mut self.feeds {
            if feed.promoted.is_empty() && !feed.was_promoted {
                continue;
            }
            let alive = self.nodes[parent].health == Health::Alive;
            let kept = self.kept.get(&(*parent, *child)).copied();
            let mut moved = false;
            for stripe in feed.flow_set().iter().filter(|_| alive && kept.is_none()) {
                let head = before[parent].get(&(*stream, stripe)).copied().unwrap_or(0);
                let mine = self.nodes.get_mut(child).unwrap().heads.entry((*stream, stripe));
                let mine = mine.or_default();
                if head > *mine {
                    *feed.bytes.entry(stripe).or_default() += 1_000 * (head - *mine).min(20);
                    if self.twice.contains(&(*parent, *child)) {
                        feed.duplicates += 1;
                    }
                    *mine = head;
                    moved = true;
                }
            }
            if alive {
                // Keepalives at least.
                feed.heard_at = self.now;
            }
            let silent = self.now.since(feed.heard_at) >= T_DEAD;
            let due = self.now.since(feed.reported_at) >= secs(1) || kept.is_some();
            if moved || silent != feed.silent || due {
                feed.silent = silent;
                feed.reported_at = self.now;
                let heads = &self.nodes[child].heads;
                let claims = match kept {
                    Some(Kept::Withheld) => &before[parent],
                    Some(Kept::Starved(_)) | None => heads,
                };
                let age_ms = match kept {
                    Some(Kept::Starved(age_ms)) => age_ms,
                    // Nobody but parents brings anything here.
                    Some(Kept::Withheld) | None => u32::MAX,
                };
                let stripes = feed.promoted.iter().map(|stripe| StripeProgress {
                    stripe,
                    head_stripe_seq: heads.get(&(*stream, stripe)).copied().unwrap_or(0),
                    claimed_stripe_seq: claims.get(&(*stream, stripe)).copied().unwrap_or(0),
                    bytes: feed.bytes.get(&stripe).copied().unwrap_or(0),
                    age_ms,
                    gaps: 0,
                    depth: 0,
                });
                let key =
                    FeedKey { stream: *stream, peer: *parent, direction: Direction::FromParent };
                let silent_since = silent.then_some(feed.heard_at);
                let report = FeedReport {
                    feed: key,
                    silent_since,
                    at: self.now,
                    stripes: stripes.collect(),
                    duplicates: feed.duplicates,
                    offences: 0,
                };
                reports.push((*child, report));
            }
        }
        for (child, report) in reports {
            self.input(child, Input::Progress(report));
        }
    }

    fn acks(&mut self) {
        self.after(secs(1), Happening::Acks);
        let alive: Vec<_> = self
            .feeds
            .iter()
            .filter(|((_, _, child), _)| self.nodes[child].health == Health::Alive)
            .map(|((stream, parent, child), feed)| (*stream, *parent, *child, feed.promoted))
            .collect();
        for (stream, parent, child, stripes) in alive {
            let feed = FeedKey { stream, peer: child, direction: Direction::ToChild };
            self.input(parent, Input::ChildAlive { feed, stripes });
        }
    }
}

impl SimFeed {
    fn flow_set(&self) -> StripeSet {
        if self.up { StripeSet(self.allowed.0 & self.promoted.0) } else { StripeSet::EMPTY }
    }
}

/// What a request asks, in one word; "ticket" for all that are not the directory's.
fn kind(body: &Request) -> &'static str {
    match body {
        Request::Ticket(_) => "ticket",
        Request::Dir(DirRequest::Register(_)) => "register",
        Request::Dir(DirRequest::Unregister) => "unregister",
        Request::Dir(DirRequest::Status { .. }) => "status",
        Request::Dir(DirRequest::Join { .. }) => "join",
        Request::Dir(DirRequest::Find { .. }) => "find",
        Request::Dir(DirRequest::List { .. }) => "list",
        Request::Dir(DirRequest::Compare { .. }) => "compare",
        Request::Dir(DirRequest::Fetch { .. }) => "fetch",
        Request::Dir(DirRequest::Carriers { .. }) => "carriers",
        Request::Dir(DirRequest::Summary { .. }) => "summary",
        Request::Dir(DirRequest::Offer { .. }) => "offer",
        Request::Dir(DirRequest::Complain(_)) => "complain",
        Request::Dir(DirRequest::Publish { .. }) => "publish",
        Request::Dir(DirRequest::Push { .. }) => "push",
    }
}

/// What a liar answers instead.
fn denied(body: Response) -> Response {
    match body {
        Response::Dir(DirResponse::Candidates { .. }) => {
            Response::Dir(DirResponse::Candidates { announcement: None, candidates: vec![] })
        }
        other => other,
    }
}

/// Every message of every story passes through its encoding.
fn over_the_wire(body: Request) -> Request {
    match body {
        Request::Ticket(request) => {
            Request::Ticket(TicketRequest::from_wire(&request.to_wire().unwrap()).unwrap())
        }
        Request::Dir(request) => {
            Request::Dir(DirRequest::from_wire(&request.to_wire().unwrap()).unwrap())
        }
    }
}

fn back(body: Response) -> Response {
    match body {
        Response::Ticket(response) => {
            Response::Ticket(TicketResponse::from_wire(&response.to_wire().unwrap()).unwrap())
        }
        Response::Dir(response) => {
            Response::Dir(DirResponse::from_wire(&response.to_wire().unwrap()).unwrap())
        }
    }
}

/// Questions to coordinators that are under way at a supernode.
pub(super) fn questions(net: &Testnet, node: NodeId) -> usize {
    let registrar = net.nodes[&node].overlay.registrar.as_ref().expect("it is a supernode");
    registrar.coordination.questions()
}
