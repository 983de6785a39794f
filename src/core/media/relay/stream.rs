//! One stream at this node: its media, its feeds in both directions, its sinks.
//!
//! Owns how an epoch, a chunk and time reach all of them. The two sides are in `upstream` (parents)
//! and `downstream` (children).

use std::{collections::BTreeMap, time::Duration};

use super::{
    answer::Questions,
    child::Child,
    config::{RelayConfig, SINKS_MAX},
    flow::{Arrival, Flow},
    input::{Policy, SinkId, StreamRole},
    neighbours::Neighbours,
    output::{Outbox, RelayTimeout},
    parent::Parent,
    stats::{ChildSnapshot, ParentSnapshot, RelayStats, SinkSnapshot, StreamSnapshot},
};
use crate::{
    ids::{Direction, FeedKey, NodeId, StreamId},
    media::{
        cert::SignedCert,
        chunk::Payload,
        frame::{DownFrame, EndReason},
        init::SignedInit,
        pacer::Pacer,
        scheduler::Turns,
        sink::{Outlet, Sink},
        stripe::Incoming,
    },
    time::Timestamp,
};

/// What a stream's methods act with.
pub(crate) struct Ctx<'a, P> {
    pub(crate) config: &'a RelayConfig,
    pub(crate) out: &'a mut Outbox<P>,
    pub(crate) turns: &'a mut Turns,
    pub(crate) pacer: &'a mut Pacer,
    pub(crate) stats: &'a mut RelayStats,
    pub(crate) wake: &'a mut Wake,
    pub(crate) now: Timestamp,
}

impl<P> Ctx<'_, P> {
    fn outlet(&mut self) -> Outlet<'_, P> {
        Outlet { out: self.out, stats: self.stats }
    }
}

/// The next moment at which time alone changes something; never later than the truth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Wake {
    at: Timestamp,
    why: RelayTimeout,
}

impl Wake {
    pub(crate) const NEVER: Self = Self { at: Timestamp::NEVER, why: RelayTimeout::Keep };

    pub(crate) fn arm(&mut self, at: Timestamp, why: RelayTimeout) {
        if at < self.at {
            *self = Self { at, why };
        }
    }

    pub(crate) fn due(self) -> Option<(Timestamp, RelayTimeout)> {
        (self.at < Timestamp::NEVER).then_some((self.at, self.why))
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Stream<P> {
    pub(crate) id: StreamId,
    pub(crate) flow: Flow<P>,
    pub(crate) parents: BTreeMap<NodeId, Parent>,
    pub(crate) children: BTreeMap<NodeId, Child<P>>,
    pub(crate) sinks: BTreeMap<SinkId, Sink>,
    /// Turns the order in which feeds are asked for a gap.
    pub(crate) ask_turn: usize,
    pub(crate) neighbours: Neighbours,
    pub(crate) questions: Questions,
    /// To whom and when the audience was last reported, and what readers had been spared then.
    pub(super) audience_told: Option<(NodeId, Timestamp)>,
    pub(super) skips_told: u64,
    window: Duration,
}

impl<P: Payload> Stream<P> {
    pub(crate) fn new(
        id: StreamId,
        role: StreamRole,
        config: &RelayConfig,
        now: Timestamp,
    ) -> Self {
        Self {
            id,
            flow: Flow::new(role),
            parents: BTreeMap::new(),
            children: BTreeMap::new(),
            sinks: BTreeMap::new(),
            ask_turn: 0,
            neighbours: Neighbours::default(),
            questions: Questions::new(now),
            audience_told: None,
            skips_told: 0,
            window: config.ring_window,
        }
    }

    /// A certificate, from a parent's feed or of our own.
    pub(crate) fn on_cert(&mut self, cert: SignedCert, from: Option<NodeId>, cx: &mut Ctx<'_, P>) {
        let epoch = cert.cert.epoch;
        let newer = self.flow.epoch().is_none_or(|known| epoch > known);
        if newer {
            self.start_epoch(cert, cx);
        }
        self.on_parent_epoch(epoch, from, newer, cx);
    }

    /// An init segment of the current epoch.
    pub(crate) fn on_init(&mut self, init: &SignedInit, cx: &mut Ctx<'_, P>) {
        if self.flow.epoch() != Some(init.init.epoch) {
            cx.stats.other_epoch += 1;
            return;
        }
        if self.flow.learn_init(init) {
            self.tell_children(&DownFrame::Init(init.clone()), cx);
            self.start_children(cx);
            self.pump_sinks(|_| true, cx);
        }
    }

    /// The source's own next chunk.
    pub(crate) fn on_local_chunk(&mut self, chunk: P, cx: &mut Ctx<'_, P>) {
        match self.take_chunk(chunk, cx) {
            Arrival::New(_) => cx.stats.chunks_local += 1,
            Arrival::Duplicate => cx.stats.duplicates += 1,
            Arrival::OtherEpoch => cx.stats.other_epoch += 1,
            Arrival::Offence(_) => cx.stats.offences += 1,
        }
    }

    /// Takes a verified chunk in and wakes whoever waits for it.
    pub(crate) fn take_chunk(&mut self, chunk: P, cx: &mut Ctx<'_, P>) -> Arrival {
        let header = *chunk.header();
        let arrival = self.flow.take(chunk, cx.now);
        let Arrival::New(taken) = arrival else { return arrival };
        cx.stats.given_up += taken.given_up;
        if taken.new_gap {
            cx.stats.gaps_seen += 1;
            cx.wake.arm(cx.now, RelayTimeout::Gap);
        }
        self.notify_children(header.stripe, header.stripe_seq, cx);
        self.start_children(cx);
        self.pump_sinks(|sink| sink.awaits(header.seq), cx);
        let pin = self.sinks.values().map(Sink::pin).min().unwrap_or(u64::MAX);
        self.flow.evict(self.window, pin);
        arrival
    }

    pub(crate) fn attach(
        &mut self,
        sink: SinkId,
        policy: Policy,
        credit: usize,
        cx: &mut Ctx<'_, P>,
    ) -> bool {
        if self.sinks.len() >= SINKS_MAX {
            cx.stats.refused += 1;
            return false;
        }
        self.sinks.insert(sink, Sink::new(sink, policy, credit));
        self.resize_window(cx.config);
        self.pump_sink(sink, cx);
        if self.flow.paused
            && let Some(sink) = self.sinks.get_mut(&sink)
        {
            sink.set_paused(true, cx.out);
        }
        true
    }

    pub(crate) fn detach(&mut self, sink: SinkId, config: &RelayConfig) {
        self.sinks.remove(&sink);
        self.resize_window(config);
    }

    pub(crate) fn credit(&mut self, sink: SinkId, bytes: usize, cx: &mut Ctx<'_, P>) {
        if let Some(sink) = self.sinks.get_mut(&sink) {
            sink.add_credit(bytes);
        }
        self.pump_sink(sink, cx);
    }

    /// The whole stream ends at this node.
    pub(crate) fn close(&mut self, out: &mut Outbox<P>) {
        for sink in self.sinks.values_mut() {
            sink.end(EndReason::Left, out);
        }
    }

    pub(crate) fn set_paused(&mut self, paused: bool, cx: &mut Ctx<'_, P>) {
        if self.flow.paused == paused {
            return;
        }
        self.flow.paused = paused;
        for sink in self.sinks.values_mut() {
            sink.set_paused(paused, cx.out);
        }
        self.keep_all(cx);
    }

    /// A measurement of a feed's round trip time.
    pub(crate) fn observe_rtt(&mut self, feed: FeedKey, rtt: Option<Duration>) {
        let estimate = match feed.direction {
            Direction::FromParent => self.parents.get_mut(&feed.peer).map(|parent| &mut parent.rtt),
            Direction::ToChild => self.children.get_mut(&feed.peer).map(|child| &mut child.rtt),
        };
        if let (Some(estimate), Some(rtt)) = (estimate, rtt) {
            estimate.observe(rtt);
        }
    }

    /// Everything that is due by time alone; arms what comes next.
    pub(crate) fn tick(&mut self, cx: &mut Ctx<'_, P>) {
        self.tick_gaps(cx);
        self.ask_neighbours(cx);
        self.expire_questions(cx);
        let now = cx.now;
        self.pump_sinks(|sink| sink.wake_at() <= now, cx);
        for sink in self.sinks.values() {
            cx.wake.arm(sink.wake_at(), RelayTimeout::Deadline);
        }
        self.tick_parents(cx);
        self.tick_children(cx);
    }

    /// Pumps the sinks that `which` names.
    pub(crate) fn pump_sinks(&mut self, which: impl Fn(&Sink) -> bool, cx: &mut Ctx<'_, P>) {
        for sink in self.sinks.values_mut() {
            if which(sink) {
                let view = self.flow.view(cx.config);
                let now = cx.now;
                sink.pump(&view, &mut cx.outlet(), now);
                cx.wake.arm(sink.wake_at(), RelayTimeout::Deadline);
            }
        }
    }

    pub(crate) fn snapshot(&self, now: Timestamp) -> StreamSnapshot {
        let flow = &self.flow;
        let head = flow.ring.end().and_then(|end| flow.ring.get(end - 1));
        let head = head.map(|held| *held.chunk.header());
        let missing = flow.stripes.iter().flat_map(Incoming::gaps);
        StreamSnapshot {
            stream: self.id,
            role: flow.role,
            epoch: flow.epoch(),
            k: flow.k(),
            rate: flow.rate(),
            paused: flow.paused,
            head_seq: head.map(|head| head.seq),
            age_ms: head.map_or(0, |head| u64::from(flow.head_age_ms(head.stripe, now))),
            ring_chunks: flow.ring.chunks(),
            ring_bytes: flow.ring.bytes(),
            evicted: flow.ring.evicted(),
            overrun: flow.ring.overrun(),
            inits: flow.inits.keys().copied().collect(),
            missing: missing.map(|gap| gap.to - gap.from + 1).sum(),
            audience: self.audience(now),
            parents: self.parents.values().map(parent_snapshot).collect(),
            children: self.children.values().map(child_snapshot).collect(),
            sinks: self.sinks.iter().map(|(id, sink)| sink_snapshot(*id, sink)).collect(),
        }
    }

    fn start_epoch(&mut self, cert: SignedCert, cx: &mut Ctx<'_, P>) {
        let (epoch, now) = (cert.cert.epoch, cx.now);
        if self.flow.cert.is_some() {
            for sink in self.sinks.values_mut() {
                let view = self.flow.view(cx.config);
                sink.restart(&view, epoch, &mut cx.outlet(), now);
            }
        }
        self.flow.restart(cert.clone(), now);
        self.neighbours.restart();
        self.questions.set_rate(cert.cert.rate, now);
        for parent in self.parents.values_mut() {
            parent.restart();
        }
        self.restart_children(&cert, cx);
    }

    fn resize_window(&mut self, config: &RelayConfig) {
        let lags = self.sinks.values().map(|sink| match sink.policy() {
            Policy::Live { lag } => lag.saturating_mul(2),
            Policy::KeepAll => Duration::ZERO,
        });
        self.window = lags.max().unwrap_or_default().max(config.ring_window);
    }

    fn pump_sink(&mut self, sink: SinkId, cx: &mut Ctx<'_, P>) {
        let Some(sink) = self.sinks.get_mut(&sink) else { return };
        let view = self.flow.view(cx.config);
        let now = cx.now;
        sink.pump(&view, &mut cx.outlet(), now);
        cx.wake.arm(sink.wake_at(), RelayTimeout::Deadline);
    }
}

fn parent_snapshot(parent: &Parent) -> ParentSnapshot {
    ParentSnapshot {
        feed: parent.feed,
        promoted: parent.promoted,
        bytes: parent.read_bytes,
        duplicates: parent.duplicates,
        offences: parent.offences,
        silent: parent.is_silent(),
        rtt_ms: parent.rtt.mean().map(|rtt| u64::try_from(rtt.as_millis()).unwrap_or(u64::MAX)),
    }
}

fn child_snapshot<P>(child: &Child<P>) -> ChildSnapshot {
    ChildSnapshot {
        feed: child.feed,
        live: child.live,
        warm: child.warm,
        flowing: child.flowing(),
        sent_bytes: child.sent_bytes,
        acked_bytes: child.acked_bytes,
        drained_bytes: child.drained_bytes,
        wanted: child.wants.values().map(|wants| wants.count()).sum(),
    }
}

fn sink_snapshot(id: SinkId, sink: &Sink) -> SinkSnapshot {
    SinkSnapshot {
        sink: id,
        policy: sink.policy(),
        delivered: sink.delivered(),
        skips: sink.skips(),
    }
}
