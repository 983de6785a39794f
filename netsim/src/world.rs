//! A simulated network: nodes, links between them, time.
//!
//! Owns the event loop and who gets which event. The parts: `cast` (who is there), `net` (links and
//! messages), `services` (Kademlia and gossip), `faults`, `checks` (invariants). Does not own what a
//! node does.
//!
//! **One event is handled completely before the next**, and each changes one node; what that wants of
//! others becomes events. Among events of the same microsecond the one pushed first comes first.

mod cast;
mod checks;
mod event;
mod faults;
mod limits;
mod net;
mod plan;
mod services;

use std::collections::BTreeMap;

use astral_core::{
    ids::NodeId,
    media::{
        chunk::{ChunkFlags, Payload},
        relay::{RelayConfig, RelayInput},
    },
    overlay::{Contact, Input, Tuning},
};

use serde::Serialize;

pub use self::{
    cast::Kind,
    checks::{LeakedTicket, Violation},
    faults::choose,
    plan::Planned,
};
use self::{
    cast::{Slot, State},
    checks::Checks,
    event::Event,
    faults::Partition,
    net::Link,
};
use crate::{
    node::{Cx, Effect, SimNode},
    packet::Packet,
    player::Player,
    queue::Queue,
    random::Dice,
    scenario::{Fidelity, Scenario, duration, seconds},
    source::{Made, SimSource},
    summary::{Outcome, Parts, Summary},
    tally::{CutLog, Tally},
    trace::Trace,
};

/// The driver gives a request up after this, in microseconds; the overlay has deadlines of its own.
const REQUEST_TIMEOUT_US: u64 = 5_000_000;
/// The driver gives a greeting up after this, in microseconds.
const GREETING_TIMEOUT_US: u64 = 3_000_000;
const SECOND_US: u64 = 1_000_000;
/// How long the aftermath of the first fault is, in microseconds.
const AFTERMATH_US: u64 = 30_000_000;
/// Who was there for so long, in microseconds, should have seen a picture.
const PATIENCE_US: u64 = 5_000_000;

/// See the module.
#[derive(Debug)]
pub struct World {
    scenario: Scenario,
    seed: u64,
    dice: Dice,
    queue: Queue<Event>,
    events: u64,
    nodes: Vec<Slot>,
    links: BTreeMap<(u32, u32), Link>,
    link_lives: u64,
    feed_lives: u64,
    source: SimSource,
    cuts: CutLog,
    /// Bytes of media cut so far.
    cut_bytes: u64,
    /// Supernodes that serve Kademlia, and when those that died did.
    servers: BTreeMap<u32, Option<u64>>,
    partitions: Vec<Partition>,
    /// Viewers that were ever created.
    viewers: u32,
    trace: Trace,
    tally: Tally,
    /// Players of nodes that are gone.
    retired: Vec<Outcome>,
    checks: Checks,
    effects: Vec<Effect>,
    tuning: Tuning,
    relay_config: RelayConfig,
    /// Whose journal is kept.
    recorded: Option<u32>,
    journal: Option<Vec<u8>>,
    series: Vec<Second>,
}

impl World {
    /// The world of a scenario at time 0.
    #[must_use]
    pub fn new(scenario: Scenario, seed: u64) -> Self {
        let dice = Dice::new(seed);
        let key = dice.bytes(crate::random::Purpose::Identity, u64::MAX, 0);
        let source = SimSource::new(astral_core::ids::SourceKey(key), 1, scenario.stream.clone());
        let (tuning, relay_config) = (scenario.overlay_tuning(), scenario.relay_config());
        let mut world = Self {
            scenario,
            seed,
            dice,
            queue: Queue::new(),
            events: 0,
            nodes: Vec::new(),
            links: BTreeMap::new(),
            link_lives: 0,
            feed_lives: 0,
            source,
            cuts: CutLog::default(),
            cut_bytes: 0,
            servers: BTreeMap::new(),
            partitions: Vec::new(),
            viewers: 0,
            trace: Trace::new(),
            tally: Tally::default(),
            retired: Vec::new(),
            checks: Checks::default(),
            effects: Vec::new(),
            tuning,
            relay_config,
            recorded: None,
            journal: None,
            series: Vec::new(),
        };
        world.cast();
        world
    }

    /// Also writes what some nodes do to stderr.
    #[must_use]
    pub fn with_log(mut self, log: crate::trace::Log) -> Self {
        self.trace.set_log(log);
        self
    }

    /// Also keeps the journal of one node's overlay.
    #[must_use]
    pub const fn with_journal(mut self, node: u32) -> Self {
        self.recorded = Some(node);
        self
    }

    /// Runs to the end; `progress` hears of every simulated second.
    #[must_use]
    pub fn run(mut self, mut progress: impl FnMut(&Progress)) -> Run {
        let end = self.end();
        while let Some((at, event)) = self.queue.pop() {
            if at > end {
                break;
            }
            self.events += 1;
            if matches!(event, Event::Second) {
                progress(&self.progress(end));
            }
            self.handle(event);
        }
        self.note_intervals();
        self.last_checks();
        self.into_run()
    }

    /// End of joins, sessions and faults, in microseconds.
    fn quiet_from(&self) -> u64 {
        seconds(self.scenario.duration_s)
    }

    fn end(&self) -> u64 {
        self.quiet_from() + seconds(self.scenario.settle_s)
    }

    const fn now(&self) -> u64 {
        self.queue.now()
    }

    /// Whether media are intervals.
    fn is_coarse(&self) -> bool {
        self.scenario.engine.fidelity == Fidelity::Intervals
    }

    /// Where media are intervals: counts what everybody sent, and notes what flows.
    fn note_intervals(&mut self) {
        if !self.is_coarse() {
            return;
        }
        let now = self.now();
        let k = self.scenario.stream.stripes;
        let Self { nodes, trace, tally, cuts, effects, feed_lives, .. } = self;
        for node in nodes.iter_mut().filter_map(|slot| slot.node.as_deref_mut()) {
            node.count_intervals(&mut Cx { now, cuts, trace, tally, effects, lives: feed_lives });
            for stripe in 0..k {
                if node.is_flowing(stripe)
                    && let Some(player) = &mut node.player
                {
                    player.flows(stripe, now);
                }
            }
        }
    }

    fn handle(&mut self, event: Event) {
        if let Some(node) = event.target()
            && let Some(slot) = self.nodes.get_mut(node as usize)
            && slot.state == State::Frozen
        {
            slot.held.push(event);
            return;
        }
        match event {
            Event::Start(node) => self.start(node),
            Event::Watch(node) => self.watch(node),
            Event::Depart(node) => self.depart(node),
            Event::Publish => self.publish(),
            Event::Frame => self.frame(),
            Event::Wake(node) => self.wake(node),
            Event::Arrive(message) => self.arrive(message),
            Event::Deliver(message) => self.deliver(*message),
            Event::Drain { from, to, lane } => self.drain_pipe(from, to, lane),
            Event::DialDone { from, to } => self.dial_done(from, to),
            Event::DialFailed { node, peer } => {
                self.with_node(node, |node, cx| node.dial_failed(peer, cx));
            }
            Event::Identified { node, peer, life } => self.identified(node, peer, life),
            Event::LinkDown { node, peer, life, last } => self.link_down(node, peer, life, last),
            Event::LinkTimeout { a, b, life } => self.link_timeout(a, b, life),
            Event::RequestTimeout { node, id } => {
                self.with_node(node, |node, cx| node.request_timeout(id, cx));
            }
            Event::GreetingTimeout { node, feed, life } => {
                self.with_node(node, |node, cx| node.greeting_timeout(*feed, life, cx));
            }
            Event::LookupDone { node, id, key } => self.lookup_done(node, id, key),
            Event::Gossip { to, from, announcement } => {
                let from = self.nodes[from as usize].id;
                self.with_node(to, |node, cx| {
                    let id = 0;
                    node.overlay_input(Input::Gossip { id, from, announcement }, cx);
                });
            }
            Event::Hush { node, peer } => {
                let peer = self.nodes[peer as usize].id;
                self.with_node(node, |node, cx| node.hush(peer, cx));
            }
            Event::Fault(number) => self.fault(number),
            Event::Thaw(node) => self.thaw(node),
            Event::Heal(number) => self.heal(number),
            Event::Unthrottle(node) => self.unthrottle(node),
            Event::ProgrammeEnd => self.programme_end(),
            Event::Second => self.second(),
        }
    }

    /// Lets one node act, then does what it wants and sees to it that it wakes in time.
    fn with_node(&mut self, index: u32, act: impl FnOnce(&mut SimNode, &mut Cx<'_>)) {
        let now = self.now();
        let timer_us = self.scenario.engine.timer_ms * 1_000;
        let Self { nodes, trace, tally, cuts, effects, feed_lives, .. } = self;
        let Some(slot) = nodes.get_mut(index as usize) else { return };
        let Some(node) = slot.node.as_deref_mut() else { return };
        act(node, &mut Cx { now, cuts, trace, tally, effects, lives: feed_lives });
        let wake_at = node.wake_at().map_or(u64::MAX, |at| grid(at.max(now), timer_us));
        if wake_at < slot.armed_at {
            slot.armed_at = wake_at;
            self.queue.push(wake_at, Event::Wake(index));
        }
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            self.carry_out(index, effect);
        }
        // The allocation goes back: this is the innermost loop.
        self.effects = effects;
    }

    fn carry_out(&mut self, from: u32, effect: Effect) {
        let now = self.now();
        match effect {
            Effect::Send { to, packet } => {
                if let Some(to) = self.index_of(&to) {
                    self.send(from, to, packet);
                }
            }
            Effect::Dial { contact } => self.dial(from, &contact),
            Effect::Disconnect { node } => {
                if let Some(to) = self.index_of(&node) {
                    self.close_link(from, to);
                }
            }
            Effect::Lookup { id, key } => self.look_up(from, id, key),
            Effect::Role(role) => self.set_role(from, role),
            Effect::Gossip(announcement) => self.gossip(from, &announcement),
            Effect::RequestSent(id) => {
                let event = Event::RequestTimeout { node: from, id };
                self.queue.push(now + REQUEST_TIMEOUT_US, event);
            }
            Effect::Greeted(feed, life) => {
                let event = Event::GreetingTimeout { node: from, feed: Box::new(feed), life };
                self.queue.push(now + GREETING_TIMEOUT_US, event);
            }
            Effect::Named(nodes) => self.check_named(&nodes),
            Effect::Left => self.leave_for_good(from, false),
            Effect::Violation(what) => self.violated(Some(from), what),
        }
    }

    fn wake(&mut self, index: u32) {
        let now = self.now();
        let Some(slot) = self.nodes.get_mut(index as usize) else { return };
        if slot.armed_at == now {
            slot.armed_at = u64::MAX;
            self.with_node(index, SimNode::wake);
        }
    }

    fn publish(&mut self) {
        let now = self.now();
        let Self { nodes, trace, tally, cuts, effects, feed_lives, source, .. } = self;
        if let Some(node) = nodes.first_mut().and_then(|slot| slot.node.as_deref_mut()) {
            let mut cx = Cx { now, cuts, trace, tally, effects, lives: feed_lives };
            node.publish(source, &mut cx);
        }
        self.with_node(0, |_, _| {});
        self.queue.push(now, Event::Frame);
    }

    /// The source encodes one frame.
    fn frame(&mut self) {
        if self.nodes.first().is_none_or(|slot| slot.node.is_none()) {
            return;
        }
        let stream = self.source.id();
        let coarse = self.is_coarse();
        for made in self.source.frame() {
            let input = match made {
                Made::Init(init) => RelayInput::Init { stream, init },
                Made::Chunk(chunk) => {
                    let stripe = chunk.header().stripe;
                    if chunk.header().flags.contains(ChunkFlags::KEYFRAME) {
                        self.cuts.keyframe(self.queue.now());
                    }
                    self.cuts.cut(self.queue.now(), stripe);
                    self.cut_bytes += u64::from(chunk.header().payload_len);
                    RelayInput::LocalChunk { stream, chunk }
                }
            };
            if coarse {
                continue;
            }
            self.with_node(0, |node, cx| node.relay_input(input, cx));
        }
        let interval = u64::try_from(self.source.interval().as_micros()).unwrap_or(u64::MAX);
        self.queue.push(self.now() + interval, Event::Frame);
    }

    fn watch(&mut self, index: u32) {
        let stream = self.source.id();
        let (policy, lag) = self.policy();
        let now = self.now();
        let mut player = Player::new(stream, policy, now);
        if let Some(first) = self.scenario.faults.first() {
            let from = seconds(first.at_s);
            player.set_window(from, from + AFTERMATH_US.min(self.end().saturating_sub(from)));
        }
        self.with_node(index, |node, cx| {
            node.watch(player, lag, cx);
        });
        self.plan_departure(index);
    }

    fn second(&mut self) {
        self.note_intervals();
        self.check_second();
        self.note_second();
        let next = self.now() + SECOND_US;
        if next <= self.end() {
            self.queue.push(next, Event::Second);
        }
    }

    fn index_of(&self, id: &NodeId) -> Option<u32> {
        let (_, last) = id.0.split_last_chunk::<4>()?;
        let index = u32::from_be_bytes(*last);
        self.nodes.get(index as usize).filter(|slot| slot.id == *id).map(|_| index)
    }

    fn contact(&self, index: u32) -> Contact {
        self.nodes[index as usize].contact.clone()
    }

    fn progress(&self, end: u64) -> Progress {
        let up = self.nodes.iter().filter(|slot| slot.node.is_some()).count();
        Progress { now: self.now(), end, nodes: up, events: self.events, waiting: self.queue.len() }
    }

    fn into_run(mut self) -> Run {
        let now = self.now().min(self.end());
        let recorded = self.recorded.and_then(|index| self.nodes.get(index as usize));
        if let Some(node) = recorded.and_then(|slot| slot.node.as_deref()) {
            self.journal = node.journal();
        }
        for index in 0..self.nodes.len() {
            self.retire(u32::try_from(index).unwrap_or(u32::MAX), now, true);
        }
        let viewer_payload = self.checks.viewer_payload(&self.nodes);
        let summary = Summary::new(Parts {
            scenario: &self.scenario,
            seed: self.seed,
            events: self.events,
            trace_hash: self.trace.finish(),
            outcomes: &self.retired,
            tally: &self.tally,
            cut_bytes: self.cut_bytes,
            viewer_payload,
            checks: self.checks.into_report(),
        });
        Run {
            summary,
            outcomes: self.retired,
            series: self.series,
            tally: self.tally,
            journal: self.journal,
        }
    }

    /// Keeps a viewer's figures when its node is gone, or at the end.
    fn retire(&mut self, index: u32, now: u64, stayed: bool) {
        let Self { nodes, trace, tally, cuts, effects, feed_lives, .. } = self;
        let Some(slot) = nodes.get_mut(index as usize) else { return };
        let Some(node) = slot.node.as_deref_mut() else { return };
        let mut cx = Cx { now, cuts, trace, tally, effects, lives: feed_lives };
        node.count_intervals(&mut cx);
        node.settle_intervals(&mut cx);
        if let Some(mut player) = node.player.take() {
            if !stayed {
                player.end(now);
            }
            let continuity = player.continuity(now, &self.cuts);
            let admitted = player.admitted_at;
            let after = |at: u64| at.saturating_sub(player.asked_at);
            self.retired.push(Outcome {
                node: index,
                stayed,
                played: player.playing_at.is_some(),
                patient: now.saturating_sub(player.asked_at) >= PATIENCE_US,
                contributes: slot.slots_max >= u32::from(self.scenario.stream.stripes),
                in_crowd: slot.in_crowd,
                misbehaved: !node.misdeed.is_honest() || slot.holds_back_us > 0,
                asked_at: player.asked_at,
                admitted_us: admitted.map(after),
                playing_us: player.playing_at.map(after),
                after_admission_us: admitted.map_or(0, |at| now.saturating_sub(at)),
                window: player.window(now, &self.cuts),
                continuity,
                delivered: player.delivered,
                skips: player.skips,
                skipped: player.skipped,
            });
        }
    }

    /// Counts bytes of a packet that no feed counted.
    fn count_message(&mut self, packet: &Packet, bytes: usize) {
        match packet {
            Packet::Down { .. }
            | Packet::Up { .. }
            | Packet::RepairWant { .. }
            | Packet::Flow { .. }
            | Packet::RepairAnswer { .. } => {}
            Packet::Hello { .. } | Packet::HelloAck { .. } | Packet::FeedClosed { .. } => {
                self.tally.bytes.feed_control += bytes as u64;
            }
            Packet::Request { .. } | Packet::Response { .. } => {
                self.tally.bytes.messages += bytes as u64;
            }
        }
    }

    fn policy(&self) -> (astral_core::media::relay::Policy, std::time::Duration) {
        use crate::scenario::PolicyChoice;
        use astral_core::media::relay::Policy;
        let lag = std::time::Duration::from_millis(self.scenario.viewers.lag_ms);
        match self.scenario.viewers.policy {
            PolicyChoice::KeepAll => (Policy::KeepAll, lag),
            PolicyChoice::Live => (Policy::Live { lag }, lag),
        }
    }

    fn buffer(&self) -> std::time::Duration {
        duration(self.scenario.network.buffer_ms as f64 / 1e3)
    }
}

/// The next moment at which a timer set for `at` fires.
const fn grid(at: u64, timer_us: u64) -> u64 {
    if timer_us == 0 { at } else { at.div_ceil(timer_us).saturating_mul(timer_us) }
}

/// Everything that a run showed.
#[derive(Debug)]
pub struct Run {
    /// Its figures.
    pub summary: Summary,
    /// Every viewer.
    pub outcomes: Vec<Outcome>,
    /// Every second.
    pub series: Vec<Second>,
    /// Counters and histograms.
    pub tally: Tally,
    /// The journal that was asked for, if that node was there at the end.
    pub journal: Option<Vec<u8>>,
}

/// One second of a run.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Second {
    /// Simulated seconds since the start.
    pub at_s: u64,
    /// Viewers that are there.
    pub viewers: u64,
    /// Those of them that want to watch.
    pub asked: u64,
    /// Those of them that have a feed.
    pub admitted: u64,
    /// Those of them that play.
    pub playing: u64,
    /// Stripes without a parent at those that play.
    pub orphans: u64,
    /// Media that the source sent so far, in copies.
    pub source_copies: f64,
    /// Bytes of media sent by everybody so far.
    pub payload: u64,
    /// Those of them that were sent again.
    pub repair: u64,
    /// All bytes sent so far.
    pub bytes: u64,
    /// Events so far.
    pub events: u64,
}

/// How far a run is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Simulated time, in microseconds.
    pub now: u64,
    /// When it ends.
    pub end: u64,
    /// Nodes that run.
    pub nodes: usize,
    /// Events handled.
    pub events: u64,
    /// Events that wait.
    pub waiting: usize,
}
