//! Machine 2: the relay moves chunks between parents, children and local readers.
//!
//! Owns, for all streams of one node: the rings, the children's cursors, the send scheduler under
//! one uplink ceiling, KEEP, ACK and silence, PROMOTE and repair from both ends, and the sinks. Does
//! not own who feeds whom (the overlay decides and tells), signatures (the driver checks them
//! before the relay sees anything), bytes (a [`Payload`] may be a mere length), sockets or clocks.
//!
//! # Contract
//!
//! 1. Make one [`Relay`] for each node.
//! 2. Hand it one [`RelayInput`] with the present time, or call [`Relay::handle_timeout`].
//! 3. Drain [`Relay::poll_output`] to `None` and do what it says, in that order.
//! 4. Ask [`Relay::poll_timeout`] and sleep until then, or until the next input; go to 2. Several
//!    inputs may be handed over before draining: what is then due for one child comes in one batch.
//! 5. A feed's frames are handed over in the order in which they were read, every CERT as
//!    [`RelayInput::Epoch`] with its feed, every CHUNK as [`RelayInput::Chunk`] or
//!    [`RelayInput::Discarded`]. A feed's outputs are written in the order in which they come.
//! 6. The bytes of an ACK are those of the CHUNK frames that were read on its feed since
//!    [`RelayInput::FeedUp`], and nothing else.
//!
//! Time never goes back between two calls; if it does, the relay goes on with the latest it saw.
//!
//! # Invariants
//!
//! - **A sink gets each chunk at most once, in `seq` order, and is told of every chunk that it does
//!   not get.** `KeepAll` is spared a chunk only when no ring that this node knows has it.
//! - **A stripe goes on at a new parent with the next chunk that is missing here**, so the death of
//!   a parent costs nothing that another parent's ring still has.
//! - **START{n, q} is a promise about the parent's stripe: no chunk from `n` on has a `seq` below
//!   `q`, and every one of them follows, is repaired, or is named in a GAP.**
//! - **Nobody slows anybody.** A child is a cursor and a window; it costs the same memory however
//!   slow it is. Repair is sent only when nothing live can be.
//! - **In no window of a second does more leave than the ceiling allows.**
//! - **A stripe that `SetStripes` does not name as live is not sent.**
//! - **Equal inputs at equal times give equal outputs**: containers are ordered and nothing is drawn
//!   at random.
//!
//! # How chunks get lost, and how not
//!
//! A stripe's chunks are numbered without holes, and a feed keeps their order, so a number that is
//! left out is a gap. A parent whose cursor meets a gap in its own ring passes over it, remembers
//! that it owes it and sends it as repair once it came; if it will never come, the parent says GAP.
//! What is older than the newest chunk when a PROMOTE starts is repair too, and a resumption after a
//! failure comes before a joiner's way back to the last keyframe. A child asks its other feeds for a
//! gap: at once after a GAP, otherwise when the parent does not seem to fill it. It
//! gives one up when all its feeds denied it for as long as a ring is long, or after 20 s. A chunk
//! of which only the `seq` is known to be missing belongs to *some* stripe: it is lost when every
//! stripe has passed it.

mod anchor;
mod answer;
mod audience;
mod child;
mod config;
mod downstream;
mod flow;
mod gaps;
mod input;
mod neighbours;
mod output;
mod parent;
mod pull;
mod serve;
mod stats;
mod stream;
mod uplink;
mod upstream;
mod way_back;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub(crate) use self::{anchor::Anchor, output::Outbox};
use self::{
    child::Child,
    serve::Served,
    stream::{Ctx, Stream, Wake},
    uplink::{Children, UplinkMeter},
};
pub use self::{
    config::{
        ACK_BYTES, ANSWER_BYTES, ASK_CHUNKS_MAX, BATCH_BYTES_MAX, FEEDS_MAX, HOLES_MAX, INITS_MAX,
        NEIGHBOURS_MAX, QUANTUM_BYTES, QUESTIONS_MAX, RANGES_MAX, RING_BYTES_MAX, RING_CHUNKS_MAX,
        RelayConfig, SEQ_AHEAD_MAX, SEQ_MAX, SINKS_MAX, STREAMS_MAX, WANTED_MAX, WINDOW_MIN,
    },
    input::{AnswerId, DownFrameMeta, FeedOffence, Policy, RelayInput, SinkId, StreamRole},
    output::{Delivery, FeedProgress, RelayOutput, RelayTimeout, SkipCause, StripeProgress},
    stats::{
        ChildSnapshot, MissCause, MissCounts, ParentSnapshot, RelaySnapshot, RelayStats,
        SinkSnapshot, SkipCounts, StreamSnapshot,
    },
};
use super::{
    chunk::Payload,
    pacer::Pacer,
    repair::{RepairAnswer, RepairHave, RepairWant},
    scheduler::{Class, Turn, Turns},
};
use crate::{
    ids::{Direction, FeedKey, NodeId, StreamId, StripeSet},
    time::Timestamp,
};

/// The machine. See the module for its contract.
#[derive(Clone, Debug)]
pub struct Relay<P> {
    config: RelayConfig,
    now: Timestamp,
    streams: BTreeMap<StreamId, Stream<P>>,
    sinks: BTreeMap<SinkId, StreamId>,
    pacer: Pacer,
    turns: Turns,
    out: Outbox<P>,
    wake: Wake,
    stats: RelayStats,
    uplink: UplinkMeter,
}

impl<P: Payload> Relay<P> {
    /// A relay without streams.
    #[must_use]
    pub fn new(config: RelayConfig, now: Timestamp) -> Self {
        Self {
            config,
            now,
            streams: BTreeMap::new(),
            sinks: BTreeMap::new(),
            pacer: Pacer::new(now),
            turns: Turns::default(),
            out: Outbox::new(),
            wake: Wake::NEVER,
            stats: RelayStats::default(),
            uplink: UplinkMeter::new(now),
        }
    }

    /// Takes one input in.
    pub fn handle_input(&mut self, input: RelayInput<P>, now: Timestamp) {
        self.now = self.now.max(now);
        match input {
            RelayInput::Open { stream, role } => self.open(stream, role),
            RelayInput::Close { stream } => self.close(stream),
            RelayInput::Epoch { stream, cert, feed } => {
                let from = feed.map(|feed| feed.peer);
                self.with(stream, |stream, cx| stream.on_cert(cert, from, cx));
            }
            RelayInput::Init { stream, init } => {
                self.with(stream, |stream, cx| stream.on_init(&init, cx));
            }
            RelayInput::LocalChunk { stream, chunk } => {
                self.with(stream, |stream, cx| stream.on_local_chunk(chunk, cx));
            }
            RelayInput::Attach { stream, sink, policy, credit } => {
                self.attach(stream, sink, policy, credit);
            }
            RelayInput::Detach { sink } => self.detach(sink),
            RelayInput::Credit { sink, bytes } => match self.sinks.get(&sink).copied() {
                Some(stream) => self.with(stream, |stream, cx| stream.credit(sink, bytes, cx)),
                None => self.stats.unknown += 1,
            },
            RelayInput::Uplink { ceiling } => {
                self.pacer.set_ceiling(ceiling, self.now);
            }
            RelayInput::Spent { bytes } => self.pacer.spend(bytes, self.now),
            RelayInput::Neighbours { stream, nodes } => {
                self.with(stream, |stream, cx| {
                    stream.neighbours.set(&nodes);
                    cx.wake.arm(cx.now, RelayTimeout::Repair);
                });
            }
            RelayInput::RepairAsked { from, id, want } => self.repair_asked(from, id, want),
            RelayInput::Repair { stream, from, have, chunks } => {
                self.with(stream, |stream, cx| stream.on_repair(from, have, chunks, cx));
            }
            RelayInput::RepairFailed { stream, from } => {
                self.with(stream, |stream, cx| stream.on_repair_failed(from, cx));
            }
            RelayInput::Paused { stream, paused } => {
                self.with(stream, |stream, cx| stream.set_paused(paused, cx));
            }
            RelayInput::Chunk { feed, .. }
            | RelayInput::Discarded { feed, .. }
            | RelayInput::Frame { feed, .. }
            | RelayInput::UpFrame { feed, .. }
            | RelayInput::Offence { feed, .. }
            | RelayInput::FeedUp { feed, .. }
            | RelayInput::FeedDown { feed }
            | RelayInput::Rtt { feed, .. }
            | RelayInput::SetStripes { feed, .. }
            | RelayInput::Promote { feed, .. }
            | RelayInput::Release { feed, .. }
            | RelayInput::Want { feed, .. }
            | RelayInput::Path { feed, .. }
            | RelayInput::Drained { feed, .. } => match feed.direction {
                Direction::FromParent => self.with_parent(feed, input),
                Direction::ToChild => {
                    let before = self.stats.acked_bytes_out;
                    self.with_child(feed, input);
                    self.measure_uplink(self.stats.acked_bytes_out - before);
                }
            },
        }
    }

    /// Does what is due by time alone.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
        self.wake = Wake::NEVER;
        let streams: Vec<StreamId> = self.streams.keys().copied().collect();
        for stream in streams {
            self.with(stream, |stream, cx| stream.tick(cx));
        }
    }

    /// The next thing to do; `None` = all done.
    pub fn poll_output(&mut self) -> Option<RelayOutput<P>> {
        if self.out.is_empty() {
            self.pump();
            self.doubt_uplink();
        }
        self.out.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) and mainly why; `None` = time alone
    /// changes nothing. May be earlier than anything is due, never later. Valid once
    /// [`poll_output`](Self::poll_output) gave `None`.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Timestamp, RelayTimeout)> {
        self.wake.due()
    }

    /// Children acknowledged bytes: what the uplink carries. A told ceiling needs no measurement.
    fn measure_uplink(&mut self, acked: u64) {
        if acked == 0 || self.pacer.ceiling().is_some() || !self.uplink.acked(acked, self.now) {
            return;
        }
        let mut children = Children::default();
        for child in self.streams.values_mut().flat_map(|stream| stream.children.values_mut()) {
            let held_up = std::mem::take(&mut child.held_up);
            if child.flowing() != StripeSet::EMPTY {
                children.flowing += 1;
                children.held_up += usize::from(held_up);
            }
        }
        if let Some(rate) = self.uplink.judge(children, self.config.uplink_assumed, self.now) {
            self.out.push_back(RelayOutput::Uplink { rate });
        }
    }

    /// Forgets an estimate that nobody is left to correct: a link that was dead for seconds leaves
    /// one in which no child fits.
    fn doubt_uplink(&mut self) {
        let assumed = self.config.uplink_assumed;
        if !self.uplink.is_doubtful(assumed, self.now) {
            return;
        }
        let mut children = self.streams.values().flat_map(|stream| stream.children.values());
        if children.all(|child| child.flowing() == StripeSet::EMPTY) {
            self.uplink.forget(self.now);
            self.out.push_back(RelayOutput::Uplink { rate: assumed });
        }
    }

    /// Everything that there is to see.
    #[must_use]
    pub fn snapshot(&self) -> RelaySnapshot {
        RelaySnapshot {
            stats: self.stats,
            ceiling: self.pacer.ceiling(),
            uplink: self.uplink.estimate(),
            streams: self.streams.values().map(|stream| stream.snapshot(self.now)).collect(),
        }
    }

    /// Whether nobody waits for anything of a stream that ended: this node has all up to the end,
    /// and so have its children, as far as they said. False before the end came.
    #[must_use]
    pub fn is_served(&self, stream: StreamId) -> bool {
        self.streams.get(&stream).is_none_or(Stream::is_served)
    }

    /// The counters alone.
    #[must_use]
    pub const fn stats(&self) -> &RelayStats {
        &self.stats
    }

    fn open(&mut self, id: StreamId, role: StreamRole) {
        if self.streams.len() >= STREAMS_MAX && !self.streams.contains_key(&id) {
            self.stats.refused += 1;
            return;
        }
        let (config, now) = (&self.config, self.now);
        self.streams.entry(id).or_insert_with(|| Stream::new(id, role, config, now));
    }

    fn close(&mut self, id: StreamId) {
        match self.streams.remove(&id) {
            Some(mut stream) => {
                stream.close(&mut self.out);
                self.sinks.retain(|_, of| *of != id);
            }
            None => self.stats.unknown += 1,
        }
    }

    fn attach(&mut self, id: StreamId, sink: SinkId, policy: Policy, credit: usize) {
        if self.sinks.contains_key(&sink) {
            self.stats.refused += 1;
            return;
        }
        let mut attached = false;
        self.with(id, |stream, cx| attached = stream.attach(sink, policy, credit, cx));
        if attached {
            self.sinks.insert(sink, id);
        }
    }

    fn detach(&mut self, sink: SinkId) {
        let stream = self.sinks.remove(&sink).and_then(|id| self.streams.get_mut(&id));
        match stream {
            Some(stream) => stream.detach(sink, &self.config),
            None => self.stats.unknown += 1,
        }
    }

    fn with_parent(&mut self, feed: FeedKey, input: RelayInput<P>) {
        let node = feed.peer;
        self.with(feed.stream, |stream, cx| {
            if !stream.parents.contains_key(&node) && !makes_feed(&input) {
                cx.stats.unknown += 1;
                return;
            }
            match input {
                RelayInput::Chunk { chunk, .. } => stream.on_chunk(node, chunk, cx),
                RelayInput::Discarded { bytes, .. } => stream.on_bytes(node, bytes as u64, cx),
                RelayInput::Frame { frame, .. } => stream.on_frame(node, frame, cx),
                RelayInput::Offence { kind, .. } => stream.on_offence(node, kind, cx),
                RelayInput::FeedUp { rtt, .. } => {
                    stream.parent_up(feed, rtt, cx);
                }
                RelayInput::FeedDown { .. } => stream.parent_down(node, cx),
                RelayInput::Rtt { rtt, .. } => stream.observe_rtt(feed, Some(rtt)),
                RelayInput::SetStripes { live, warm, .. } => {
                    stream.set_tickets(feed, live, warm, cx);
                }
                RelayInput::Promote { stripe, .. } => stream.promote(feed, stripe, cx),
                RelayInput::Release { stripe, .. } => stream.release(feed, stripe, cx),
                RelayInput::Want { stripe, .. } => stream.want(node, stripe, cx),
                RelayInput::Drained { .. } => {}
                RelayInput::UpFrame { .. }
                | RelayInput::Path { .. }
                | RelayInput::Spent { .. }
                | RelayInput::Neighbours { .. }
                | RelayInput::RepairAsked { .. }
                | RelayInput::Repair { .. }
                | RelayInput::RepairFailed { .. }
                | RelayInput::Open { .. }
                | RelayInput::Close { .. }
                | RelayInput::Epoch { .. }
                | RelayInput::Init { .. }
                | RelayInput::LocalChunk { .. }
                | RelayInput::Attach { .. }
                | RelayInput::Detach { .. }
                | RelayInput::Credit { .. }
                | RelayInput::Uplink { .. }
                | RelayInput::Paused { .. } => cx.stats.unknown += 1,
            }
        });
    }

    fn with_child(&mut self, feed: FeedKey, input: RelayInput<P>) {
        let node = feed.peer;
        self.with(feed.stream, |stream, cx| {
            if !stream.children.contains_key(&node) && !makes_feed(&input) {
                cx.stats.unknown += 1;
                return;
            }
            match input {
                RelayInput::UpFrame { frame, .. } => stream.on_up_frame(node, frame, cx),
                RelayInput::Offence { .. } => cx.stats.offences += 1,
                RelayInput::FeedUp { rtt, .. } => {
                    stream.child_up(feed, rtt, cx);
                }
                RelayInput::FeedDown { .. } => {
                    stream.children.remove(&node);
                }
                RelayInput::Rtt { rtt, .. } => stream.observe_rtt(feed, Some(rtt)),
                RelayInput::SetStripes { live, warm, .. } => {
                    stream.set_stripes(feed, live, warm, cx);
                }
                RelayInput::Drained { bytes, chunk_bytes, .. } => {
                    stream.on_drained(node, bytes as u64, chunk_bytes as u64, cx);
                }
                RelayInput::Path { stripe, path, .. } => stream.send_path(node, stripe, path, cx),
                RelayInput::Spent { .. }
                | RelayInput::Neighbours { .. }
                | RelayInput::RepairAsked { .. }
                | RelayInput::Repair { .. }
                | RelayInput::RepairFailed { .. }
                | RelayInput::Chunk { .. }
                | RelayInput::Discarded { .. }
                | RelayInput::Frame { .. }
                | RelayInput::Promote { .. }
                | RelayInput::Release { .. }
                | RelayInput::Want { .. }
                | RelayInput::Open { .. }
                | RelayInput::Close { .. }
                | RelayInput::Epoch { .. }
                | RelayInput::Init { .. }
                | RelayInput::LocalChunk { .. }
                | RelayInput::Attach { .. }
                | RelayInput::Detach { .. }
                | RelayInput::Credit { .. }
                | RelayInput::Uplink { .. }
                | RelayInput::Paused { .. } => cx.stats.unknown += 1,
            }
        });
    }

    /// Runs `act` on a stream that is open; counts one that isn't.
    fn with(&mut self, id: StreamId, act: impl FnOnce(&mut Stream<P>, &mut Ctx<'_, P>)) {
        let Some(stream) = self.streams.get_mut(&id) else {
            self.stats.unknown += 1;
            return;
        };
        let mut cx = Ctx {
            config: &self.config,
            out: &mut self.out,
            turns: &mut self.turns,
            pacer: &mut self.pacer,
            stats: &mut self.stats,
            wake: &mut self.wake,
            now: self.now,
        };
        act(stream, &mut cx);
    }

    /// Gives every child its turns, until nothing can be sent.
    fn pump(&mut self) {
        while let Some(turn) = self.turns.pop(Class::Control) {
            self.serve(turn, Class::Control);
        }
        for class in [Class::Live, Class::Repair] {
            while let Some(turn) = self.turns.pop(class) {
                match self.serve(turn, class) {
                    Served::Dry => {}
                    Served::More => {
                        let first = class == Class::Repair && self.is_resuming(turn);
                        self.requeue(turn, class, first);
                    }
                    Served::Paced(bytes) => {
                        self.requeue(turn, class, true);
                        self.wake.arm(self.pacer.ready_at(bytes), RelayTimeout::Pace);
                        return;
                    }
                }
            }
        }
        self.answer_neighbours();
    }

    fn serve(&mut self, turn: Turn, class: Class) -> Served {
        let Some(stream) = self.streams.get_mut(&turn.stream) else { return Served::Dry };
        let mut cx = Ctx {
            config: &self.config,
            out: &mut self.out,
            turns: &mut self.turns,
            pacer: &mut self.pacer,
            stats: &mut self.stats,
            wake: &mut self.wake,
            now: self.now,
        };
        stream.serve(turn.child, class, &mut cx)
    }

    /// A neighbour asks, perhaps for a stream that isn't here.
    fn repair_asked(&mut self, from: NodeId, id: AnswerId, want: RepairWant) {
        if self.streams.contains_key(&want.stream) {
            self.with(want.stream, |stream, cx| stream.on_repair_asked(from, id, want, cx));
        } else {
            self.stats.neighbour_wants_refused += 1;
            let answer = RepairAnswer { have: RepairHave::default(), chunks: Vec::new() };
            self.pacer.spend(answer.wire_len(), self.now);
            self.out.push_back(RelayOutput::RepairAnswer { to: from, id, answer });
        }
    }

    /// Answers neighbours with what the children leave of the uplink.
    fn answer_neighbours(&mut self) {
        let streams: Vec<StreamId> = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.has_questions())
            .map(|(id, _)| *id)
            .collect();
        for stream in streams {
            self.with(stream, |stream, cx| stream.answer_questions(cx));
        }
    }

    fn is_resuming(&self, turn: Turn) -> bool {
        self.child(turn).is_some_and(|child| child.is_resuming)
    }

    fn child(&self, turn: Turn) -> Option<&Child<P>> {
        self.streams.get(&turn.stream)?.children.get(&turn.child)
    }

    fn requeue(&mut self, turn: Turn, class: Class, first: bool) {
        let child = self.streams.get_mut(&turn.stream);
        let Some(child) = child.and_then(|stream| stream.children.get_mut(&turn.child)) else {
            return;
        };
        if child.enter(class) {
            if first {
                self.turns.push_front(turn, class);
            } else {
                self.turns.push(turn, class);
            }
        }
    }
}

/// Whether an input may be the first mention of its feed.
const fn makes_feed<P>(input: &RelayInput<P>) -> bool {
    matches!(
        input,
        RelayInput::FeedUp { .. } | RelayInput::SetStripes { .. } | RelayInput::Promote { .. }
    )
}
