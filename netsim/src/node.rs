//! One simulated node: the production overlay and the production relay, wired as the node's driver
//! wires them.
//!
//! Owns the routing between the two machines, the checks that the driver makes on what it reads
//! (certificates, chunks), and the bookkeeping of feeds and requests. Does not own links, delays and
//! other nodes: what leaves this node is an [`Effect`] for the world. Its time begins at zero when it
//! starts, as a process's does.

mod coarse;
mod feeds;
mod media;
mod misdeeds;
mod repair;
mod routing;
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use astral_core::{
    announcement::{Scheme, SignedAnnouncement},
    ids::{Direction, FeedKey, NodeId, STRIPES_MAX, StreamId},
    media::relay::{Relay, RelayConfig, RelayInput},
    overlay::{
        Contact, InboundId, Input, LookupId, LookupKey, Overlay, OverlayConfig, Request, RequestId,
        Role, journal::Recorder,
    },
    time::Timestamp,
    units::Bitrate,
};

pub use self::{media::Media, misdeeds::Misdeed, view::NodeView};
use crate::{
    intervals::{Intervals, queueing::Shape},
    packet::{FeedLife, Packet},
    payload::SimChunk,
    player::{Moment, Player},
    tally::{CutLog, Tally},
    trace::Trace,
};

/// Rounds that the machines may want at one moment; more is a loop.
const ROUNDS_MAX: u32 = 10_000;

/// What a node wants of the world.
#[derive(Debug)]
pub enum Effect {
    /// Send.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        packet: Packet,
    },
    /// Connect.
    Dial {
        /// To whom.
        contact: Contact,
    },
    /// Close the connection.
    Disconnect {
        /// With whom.
        node: NodeId,
    },
    /// Ask Kademlia.
    Lookup {
        /// Names it.
        id: LookupId,
        /// What for.
        key: LookupKey,
    },
    /// Serve Kademlia and gossip, or not.
    Role(Role),
    /// Publish by gossip.
    Gossip(std::sync::Arc<SignedAnnouncement>),
    /// Wake this request up when it has no answer in time.
    RequestSent(RequestId),
    /// Wake this greeting up when it has no answer in time.
    Greeted(FeedKey, FeedLife),
    /// It named these nodes to somebody who looks for a parent.
    Named(Vec<NodeId>),
    /// It has left.
    Left,
    /// Something happened that must not.
    Violation(String),
}

/// What a node acts with.
#[derive(Debug)]
pub struct Cx<'a> {
    /// Simulated time, in microseconds.
    pub now: u64,
    /// When the source cut what.
    pub cuts: &'a CutLog,
    /// Hashes every output.
    pub trace: &'a mut Trace,
    /// Counts.
    pub tally: &'a mut Tally,
    /// What the node wants.
    pub effects: &'a mut Vec<Effect>,
    /// Names the lives of feeds; shared by all nodes.
    pub lives: &'a mut u64,
}

/// What a node is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Its number.
    pub index: u32,
    /// Its identity.
    pub id: NodeId,
    /// Settings of its overlay.
    pub config: OverlayConfig,
    /// Settings of its relay.
    pub relay: RelayConfig,
    /// Media are moved as intervals, of this shape.
    pub intervals: Option<Shape>,
    /// Seed of its overlay.
    pub seed: [u8; 32],
    /// `--uplink`, if told.
    pub ceiling: Option<Bitrate>,
    /// Measured uplink, if not told.
    pub measured: Option<Bitrate>,
    /// Where it listens.
    pub contact: Contact,
    /// Others can dial it.
    pub reachable: bool,
    /// Its journal is kept.
    pub is_recorded: bool,
}

/// The journal of a node's overlay.
#[derive(Debug)]
struct Journal {
    recorder: Recorder,
    bytes: Vec<u8>,
}

/// See the module.
#[derive(Debug)]
pub struct SimNode {
    index: u32,
    id: NodeId,
    started_at: u64,
    overlay: Overlay,
    relay: Media,
    feeds: BTreeMap<FeedKey, Feed>,
    /// Streams that somebody here wants, and whether they are published here.
    wanted: BTreeMap<StreamId, bool>,
    closing: BTreeSet<StreamId>,
    linked: BTreeMap<NodeId, Option<std::time::Duration>>,
    dialling: BTreeSet<NodeId>,
    waiting: Vec<(NodeId, RequestId, Request)>,
    sent: BTreeMap<RequestId, NodeId>,
    came: BTreeMap<InboundId, (NodeId, u64)>,
    next_inbound: u64,
    repair: repair::Desk,
    todo: VecDeque<Todo>,
    leaving: bool,
    journal: Option<Journal>,
    /// The overlay's next timeout as of its last word; asked again only when it acted.
    overlay_at: Timestamp,
    overlay_acted: bool,
    /// The newest chunk said that the source paused.
    paused: bool,
    /// The player, if this node watches.
    pub player: Option<Player>,
    /// How this node misbehaves.
    pub misdeed: Misdeed,
    view: NodeView,
}

/// One feed as the driver sees it.
#[derive(Clone, Debug)]
struct Feed {
    life: FeedLife,
    up: bool,
    epochs: feeds::Epochs,
    /// To a child: the next new chunk of each stripe; what is older is sent again.
    sent: [u64; STRIPES_MAX as usize],
}

impl Feed {
    fn new(life: FeedLife, up: bool) -> Self {
        let epochs = feeds::Epochs::default();
        Self { life, up, epochs, sent: [0; STRIPES_MAX as usize] }
    }
}

/// An input that waits its turn.
#[derive(Debug)]
enum Todo {
    Overlay(Input),
    Relay(RelayInput<SimChunk>),
}

impl SimNode {
    /// A node that starts now.
    #[must_use]
    pub fn start(setup: Setup, cx: &mut Cx<'_>) -> Self {
        let Setup {
            index,
            id,
            config,
            relay,
            intervals,
            seed,
            ceiling,
            measured,
            contact,
            reachable,
            is_recorded,
        } = setup;
        let zero = Timestamp::ZERO;
        let journal = is_recorded.then(|| {
            let (recorder, bytes) = Recorder::start(id, &config, seed, zero);
            Journal { recorder, bytes }
        });
        let uplink = ceiling.or(measured).unwrap_or_default();
        let relay = match intervals {
            None => Media::Chunks(Box::new(Relay::new(relay, zero))),
            Some(shape) => Media::Intervals(Box::new(Intervals::new(id, shape, uplink, cx.now))),
        };
        let mut node = Self {
            index,
            id,
            started_at: cx.now,
            overlay: Overlay::new(id, config, seed, zero),
            relay,
            feeds: BTreeMap::new(),
            wanted: BTreeMap::new(),
            closing: BTreeSet::new(),
            linked: BTreeMap::new(),
            dialling: BTreeSet::new(),
            waiting: Vec::new(),
            sent: BTreeMap::new(),
            came: BTreeMap::new(),
            next_inbound: 0,
            repair: repair::Desk::default(),
            todo: VecDeque::new(),
            leaving: false,
            journal,
            overlay_at: zero,
            overlay_acted: true,
            paused: false,
            player: None,
            misdeed: Misdeed::Honest,
            view: NodeView::default(),
        };
        node.todo.push_back(Todo::Relay(RelayInput::Uplink { ceiling }));
        if let Some(measured) = measured {
            node.todo.push_back(Todo::Overlay(Input::UplinkEstimate(measured)));
        }
        node.todo.push_back(Todo::Overlay(Input::ListenAddrs { addrs: contact.addrs, reachable }));
        node.settle(cx);
        node
    }

    /// Its identity.
    #[must_use]
    pub const fn id(&self) -> NodeId {
        self.id
    }

    /// What the checkers look at.
    #[must_use]
    pub const fn view(&self) -> &NodeView {
        &self.view
    }

    /// Most stripes promised at once since the last call.
    pub fn take_live_max(&mut self) -> u32 {
        let live = self.view.live_stripes();
        std::mem::replace(&mut self.view.live_max, live)
    }

    /// The overlay, to look at.
    #[must_use]
    pub const fn overlay(&self) -> &Overlay {
        &self.overlay
    }

    /// What moves its media, to look at.
    #[must_use]
    pub const fn media(&self) -> &Media {
        &self.relay
    }

    /// Whether a connection to this node is up.
    #[must_use]
    pub fn is_linked(&self, node: &NodeId) -> bool {
        self.linked.contains_key(node)
    }

    /// Peers that this node has a feed with, and which end they are.
    pub fn feeds(&self) -> impl Iterator<Item = (&FeedKey, bool)> {
        self.feeds.iter().map(|(key, feed)| (key, feed.up))
    }

    /// When time alone changes something next, in simulated time.
    pub fn wake_at(&mut self) -> Option<u64> {
        let at = self.overlay_due().min(self.relay_due());
        (at < Timestamp::NEVER).then(|| self.started_at.saturating_add(at.as_micros()))
    }

    /// The overlay looks through all it has to find its next timeout: asked once each time it acted.
    fn overlay_due(&mut self) -> Timestamp {
        if std::mem::take(&mut self.overlay_acted) {
            self.overlay_at = self.overlay.poll_timeout().map_or(Timestamp::NEVER, |(at, _)| at);
        }
        self.overlay_at
    }

    fn relay_due(&self) -> Timestamp {
        self.relay.poll_timeout()
    }

    /// Time has come, perhaps.
    pub fn wake(&mut self, cx: &mut Cx<'_>) {
        for _ in 0..ROUNDS_MAX {
            let now = self.local(cx.now);
            if self.overlay_due() <= now {
                if let Some(Journal { recorder, bytes }) = &mut self.journal {
                    bytes.extend(recorder.timeout(now));
                }
                self.overlay.handle_timeout(now);
                self.overlay_acted = true;
            } else if self.relay_due() <= now {
                self.relay.handle_timeout(now, cx.cuts);
            } else {
                return;
            }
            self.settle(cx);
        }
        let (overlay, relay) = (self.overlay.poll_timeout(), self.relay.poll_timeout());
        let what = format!("a timer never rests: overlay {overlay:?}, relay {relay:?}");
        cx.effects.push(Effect::Violation(what));
    }

    /// Something for the overlay.
    pub fn overlay_input(&mut self, input: Input, cx: &mut Cx<'_>) {
        self.todo.push_back(Todo::Overlay(input));
        self.settle(cx);
    }

    /// Something for the relay.
    pub fn relay_input(&mut self, input: RelayInput<SimChunk>, cx: &mut Cx<'_>) {
        self.todo.push_back(Todo::Relay(input));
        self.settle(cx);
    }

    /// A connection is up.
    pub fn link_up(&mut self, contact: Contact, cx: &mut Cx<'_>) {
        let node = contact.node;
        self.dialling.remove(&node);
        if self.linked.insert(node, None).is_some() {
            return;
        }
        self.todo.push_back(Todo::Overlay(Input::LinkUp { contact, private: false }));
        self.settle(cx);
        let (ready, rest) =
            std::mem::take(&mut self.waiting).into_iter().partition(|(to, ..)| *to == node);
        self.waiting = rest;
        let ready: Vec<(NodeId, RequestId, Request)> = ready;
        for (to, id, body) in ready {
            self.send_request(to, id, body, cx);
        }
    }

    /// A connection is gone.
    pub fn link_down(&mut self, node: NodeId, cx: &mut Cx<'_>) {
        if self.linked.remove(&node).is_none() {
            return;
        }
        let feeds: Vec<FeedKey> = self.feeds.keys().filter(|f| f.peer == node).copied().collect();
        for feed in feeds {
            self.feed_gone(feed, astral_core::overlay::FeedDownReason::Closed);
        }
        let lost: Vec<RequestId> =
            self.sent.iter().filter(|(_, to)| **to == node).map(|(id, _)| *id).collect();
        for id in lost {
            self.request_failed(id, astral_core::overlay::RequestFailure::Unreachable);
        }
        self.todo.push_back(Todo::Overlay(Input::LinkDown { node }));
        self.settle(cx);
    }

    /// A dial failed.
    pub fn dial_failed(&mut self, node: NodeId, cx: &mut Cx<'_>) {
        if !self.dialling.remove(&node) || self.linked.contains_key(&node) {
            return;
        }
        cx.tally.dials_failed += 1;
        let (late, rest) =
            std::mem::take(&mut self.waiting).into_iter().partition(|(to, ..)| *to == node);
        self.waiting = rest;
        let late: Vec<(NodeId, RequestId, Request)> = late;
        for (_, id, _) in late {
            self.request_failed(id, astral_core::overlay::RequestFailure::Unreachable);
        }
        self.todo.push_back(Todo::Overlay(Input::DialFailed { node }));
        self.settle(cx);
    }

    /// A round trip was measured.
    pub fn rtt(&mut self, node: NodeId, rtt: std::time::Duration, cx: &mut Cx<'_>) {
        let Some(known) = self.linked.get_mut(&node) else { return };
        *known = Some(rtt);
        self.todo.push_back(Todo::Overlay(Input::Rtt { node, rtt }));
        let feeds: Vec<FeedKey> = self.feeds.keys().filter(|f| f.peer == node).copied().collect();
        for feed in feeds {
            self.todo.push_back(Todo::Relay(RelayInput::Rtt { feed, rtt }));
        }
        self.settle(cx);
    }

    /// A request had no answer for as long as the driver waits.
    pub fn request_timeout(&mut self, id: RequestId, cx: &mut Cx<'_>) {
        if self.sent.contains_key(&id) {
            cx.tally.timeouts += 1;
            self.request_failed(id, astral_core::overlay::RequestFailure::Timeout);
            self.settle(cx);
        }
    }

    /// The journal so far, if it is kept.
    #[must_use]
    pub fn journal(&self) -> Option<Vec<u8>> {
        let Journal { recorder, bytes } = self.journal.as_ref()?;
        Some([bytes.as_slice(), &recorder.end()].concat())
    }

    /// How signatures are made here.
    #[must_use]
    pub const fn scheme() -> Scheme {
        Scheme::Tag
    }

    const fn local(&self, now: u64) -> Timestamp {
        Timestamp::from_micros(now.saturating_sub(self.started_at))
    }

    const fn moment<'a>(cx: &Cx<'a>) -> Moment<'a> {
        Moment { now: cx.now, cuts: cx.cuts }
    }

    /// Hands over what waits, one after the other, and does what comes of it.
    fn settle(&mut self, cx: &mut Cx<'_>) {
        let now = self.local(cx.now);
        self.look_around(cx.now);
        self.drain(cx);
        let mut rounds = 0;
        while let Some(todo) = self.todo.pop_front() {
            match todo {
                Todo::Overlay(input) => {
                    cx.trace.note(cx.now, self.index, "overlay <-", &input);
                    if let Some(Journal { recorder, bytes }) = &mut self.journal {
                        bytes.extend(recorder.input(&input, now));
                    }
                    self.overlay.handle_input(input, now);
                    self.overlay_acted = true;
                }
                Todo::Relay(input) => {
                    if !matches!(input, RelayInput::Drained { .. } | RelayInput::Credit { .. }) {
                        cx.trace.note(cx.now, self.index, "relay <-", &input);
                    }
                    self.relay.handle_input(input, now, cx.cuts);
                }
            }
            self.drain(cx);
            rounds += 1;
            if rounds == ROUNDS_MAX {
                let what = "the machines never stop answering each other".to_owned();
                cx.effects.push(Effect::Violation(what));
                self.todo.clear();
            }
        }
    }

    fn drain(&mut self, cx: &mut Cx<'_>) {
        while let Some(output) = self.overlay.poll_output() {
            cx.trace.text(cx.now, self.index, &output);
            if let Some(Journal { recorder, .. }) = &mut self.journal {
                recorder.output(&output);
            }
            self.carry_out(output, cx);
        }
        // As in the driver: a stream closes after everything else that was said of it.
        for stream in std::mem::take(&mut self.closing) {
            if self.wanted.get(&stream) != Some(&true) {
                self.todo.push_back(Todo::Relay(RelayInput::Close { stream }));
            }
        }
        while let Some(output) = self.relay.poll_output() {
            self.pass_on(output, cx);
        }
        self.pass_on_intervals(cx);
    }

    fn key(&self, stream: StreamId, peer: NodeId, direction: Direction) -> FeedKey {
        debug_assert_ne!(peer, self.id, "a node has no feed with itself");
        FeedKey { stream, peer, direction }
    }
}
