//! What the two machines put out, carried to the other machine, the network or the player.
//!
//! Owns the same table as the node's driver. Does not own feeds' lives (see `feeds`).

use std::sync::Arc;

use astral_core::{
    announcement::SignedAnnouncement,
    ids::{Direction, FeedKey, NodeId, StreamId},
    media::{
        chunk::{CHUNK_OVERHEAD, Payload},
        frame::{DownFrame, EndReason as WireEnd},
        relay::{Delivery, FeedProgress, RelayInput, RelayOutput, SinkId, StreamRole},
    },
    overlay::{
        DirRequest, DirResponse, EndReason, Event, FeedReport, Input, MoveCause, Output, Request,
        RequestFailure, RequestId, Response, StripeProgress,
    },
};

use super::{Cx, Effect, SimNode, Todo};
use crate::{
    packet::Packet,
    payload::SimChunk,
    player::{Moment, Player},
};

/// The one sink of a viewer.
const SINK: SinkId = SinkId(1);
/// Bytes that may wait for a player, as in the driver.
const SINK_CREDIT: usize = 2 * 1_024 * 1_024;
/// A batch for a child travels in pieces of about this, so that its first chunk need not wait for
/// its last: a transport's segment buffer.
const PIECE_BYTES: usize = 16 * 1_024;

/// What is sent at once.
struct Piece {
    frames: Vec<DownFrame<SimChunk>>,
    bytes: usize,
    repair: bool,
}

impl SimNode {
    /// The user wants to watch; the player starts with the stream.
    pub fn watch(&mut self, player: Player, lag: std::time::Duration, cx: &mut Cx<'_>) {
        let (stream, policy) = (player.stream(), player.policy());
        self.player = Some(player);
        self.wanted.insert(stream, false);
        let kind = astral_core::overlay::Interest::Play;
        let watch = astral_core::overlay::Command::Watch { stream, lag, kind };
        self.todo.push_back(Todo::Overlay(Input::Command(watch)));
        let open = RelayInput::Open { stream, role: StreamRole::Member };
        self.todo.push_back(Todo::Relay(open));
        let attach = RelayInput::Attach { stream, sink: SINK, policy, credit: SINK_CREDIT };
        self.todo.push_back(Todo::Relay(attach));
        self.settle(cx);
    }

    /// The user stops watching.
    pub fn unwatch(&mut self, cx: &mut Cx<'_>) {
        let Some(player) = &mut self.player else { return };
        player.end(cx.now);
        let stream = player.stream();
        self.wanted.remove(&stream);
        let unwatch = astral_core::overlay::Command::Unwatch { stream };
        self.todo.push_back(Todo::Relay(RelayInput::Detach { sink: SINK }));
        self.todo.push_back(Todo::Overlay(Input::Command(unwatch)));
        self.settle(cx);
    }

    /// The user wants the node to leave.
    pub fn leave(&mut self, cx: &mut Cx<'_>) {
        if let Some(player) = &mut self.player {
            player.end(cx.now);
        }
        self.leaving = true;
        let leave = astral_core::overlay::Command::Leave;
        self.overlay_input(Input::Command(leave), cx);
    }

    /// This node publishes; chunks follow as [`RelayInput::LocalChunk`].
    pub fn publish(&mut self, source: &crate::source::SimSource, cx: &mut Cx<'_>) {
        let stream = source.id();
        self.wanted.insert(stream, true);
        let open = RelayInput::Open { stream, role: StreamRole::Source };
        self.todo.push_back(Todo::Relay(open));
        let epoch = RelayInput::Epoch { stream, cert: source.cert(), feed: None };
        self.todo.push_back(Todo::Relay(epoch));
        let announcement = source.draft();
        let announcement = Box::new(announcement);
        let publish = astral_core::overlay::Command::Publish { announcement };
        self.todo.push_back(Todo::Overlay(Input::Command(publish)));
        self.settle(cx);
    }

    /// Carries out one wish of the overlay.
    pub(super) fn carry_out(&mut self, output: Output, cx: &mut Cx<'_>) {
        match output {
            Output::Dial { contact } => self.dial(contact, cx),
            Output::Disconnect { node } => cx.effects.push(Effect::Disconnect { node }),
            Output::Request { id, to, body } => self.request(id, to, body, cx),
            Output::Respond { id, body } => {
                if let Some((to, id)) = self.came.remove(&id) {
                    let mut body = body;
                    if let Response::Dir(DirResponse::Candidates { candidates, .. }) = &body {
                        let named = candidates.iter().map(|named| named.contact.node).collect();
                        cx.effects.push(Effect::Named(named));
                    }
                    self.misdeed.answer(&mut body);
                    let packet = Packet::Response { id, body };
                    cx.effects.push(Effect::Send { to, packet });
                }
            }
            Output::Lookup { id, key } => cx.effects.push(Effect::Lookup { id, key }),
            Output::SetRole(role) => {
                self.view.role = Some(role);
                cx.effects.push(Effect::Role(role));
            }
            Output::Sign { draft } => {
                let key = draft.source;
                let sealed = SignedAnnouncement::seal(*draft, |bytes| {
                    astral_core::announcement::Scheme::tag(key.as_bytes(), bytes)
                });
                match sealed {
                    Ok(signed) => {
                        let announcement = Arc::new(signed);
                        self.todo.push_back(Todo::Overlay(Input::Signed { announcement }));
                    }
                    Err(error) => cx.effects.push(Effect::Violation(error.to_string())),
                }
            }
            Output::SignContact { mut contact } => {
                let message = contact.signing_input();
                let tag = astral_core::announcement::Scheme::tag(self.id.as_bytes(), &message);
                contact.proof = Some(tag);
                self.todo.push_back(Todo::Overlay(Input::SignedContact { contact }));
            }
            Output::Gossip { announcement } => cx.effects.push(Effect::Gossip(announcement)),
            // The model of gossip reaches every supernode by itself.
            Output::GossipVerdict { .. } => {}
            Output::OpenFeed { feed } => self.open_feed(feed, cx),
            Output::CloseFeed { feed, reason } => self.close_feed(feed, wire_end(reason), cx),
            Output::SetStripes { feed, live, warm } => {
                if feed.direction == Direction::ToChild {
                    self.view.granted(feed, live);
                }
                self.todo.push_back(Todo::Relay(RelayInput::SetStripes { feed, live, warm }));
            }
            Output::SendPath { feed, stripe, path } => {
                self.view.path_told(path.len());
                self.todo.push_back(Todo::Relay(RelayInput::Path { feed, stripe, path }));
            }
            Output::Promote { feed, stripe } => {
                self.view.promoted(stripe, feed.peer);
                if let Some(player) = &mut self.player {
                    player.fed(stripe, cx.now);
                }
                self.todo.push_back(Todo::Relay(RelayInput::Promote { feed, stripe }));
            }
            Output::Want { feed, stripe } => {
                self.todo.push_back(Todo::Relay(RelayInput::Want { feed, stripe }));
            }
            Output::OpenStream { stream } => {
                if self.closing.remove(&stream) && self.wanted.get(&stream) != Some(&true) {
                    self.todo.push_back(Todo::Relay(RelayInput::Close { stream }));
                }
                let open = RelayInput::Open { stream, role: StreamRole::Member };
                self.todo.push_back(Todo::Relay(open));
            }
            Output::CloseStream { stream } => {
                self.closing.insert(stream);
            }
            Output::Event(event) => self.told(&event, cx),
            Output::Left => cx.effects.push(Effect::Left),
        }
    }

    /// Passes on what the relay puts out.
    pub(super) fn pass_on(&mut self, output: RelayOutput<SimChunk>, cx: &mut Cx<'_>) {
        match output {
            RelayOutput::Down { feed, frames } => self.send_down(feed, frames, cx),
            RelayOutput::Up { feed, frame } => {
                cx.trace.text(cx.now, self.index, &frame);
                let Some(known) = self.feeds.get(&feed) else { return };
                let packet = Packet::Up { stream: feed.stream, life: known.life, frame };
                self.count_sent(&packet, cx);
                cx.effects.push(Effect::Send { to: feed.peer, packet });
            }
            RelayOutput::Progress(progress) => {
                let silent = progress.silent_since.map_or(0, |at| at.as_micros());
                let bytes = progress.stripes.iter().map(|stripe| stripe.bytes).sum();
                cx.trace.numbers([cx.now, u64::from(self.index), silent, bytes]);
                self.todo.push_back(Todo::Overlay(Input::Progress(report(progress))));
            }
            RelayOutput::Deliver { sink, item } => self.deliver(sink, &item, cx),
            RelayOutput::PromoteAsked { feed, stripe } => {
                self.tell(Input::PromoteAsked { feed, stripe }, cx);
            }
            RelayOutput::ChildAlive { feed, stripes } => {
                self.tell(Input::ChildAlive { feed, stripes }, cx);
            }
            // The scenario says what a node's uplink is.
            RelayOutput::Uplink { .. } => {}
            RelayOutput::RepairWant { to, want } => self.ask_neighbour(to, want, cx),
            RelayOutput::RepairAnswer { to, id, answer } => {
                self.answer_neighbour(to, id, answer, cx);
            }
            RelayOutput::ChildQuiet { feed } => self.tell(Input::ChildQuiet { feed }, cx),
            RelayOutput::Stalled { feed } => self.tell(Input::ChildStalled { feed }, cx),
            RelayOutput::Shed { feed, stripes } => {
                self.tell(Input::ChildShed { feed, stripes }, cx);
            }
            RelayOutput::Released { feed, stripe } => {
                self.tell(Input::Released { feed, stripe }, cx);
            }
        }
    }

    /// Sends a request over a connection that is up.
    pub(super) fn send_request(
        &mut self,
        to: NodeId,
        id: RequestId,
        body: Request,
        cx: &mut Cx<'_>,
    ) {
        self.sent.insert(id, to);
        let mut body = body;
        if let Request::Dir(DirRequest::Status { streams }) = &body {
            self.view.told_free = streams.first().map(|stream| stream.free);
        }
        self.misdeed.request(&mut body);
        let packet = Packet::Request { id: id.0, body };
        cx.effects.push(Effect::Send { to, packet });
        cx.effects.push(Effect::RequestSent(id));
    }

    /// A request failed.
    pub(super) fn request_failed(&mut self, id: RequestId, failure: RequestFailure) {
        self.sent.remove(&id);
        self.todo.push_back(Todo::Overlay(Input::Response { id, result: Err(failure) }));
    }

    /// Sends frames to a child, in pieces.
    pub(super) fn send_down(
        &mut self,
        feed: FeedKey,
        frames: Vec<DownFrame<SimChunk>>,
        cx: &mut Cx<'_>,
    ) {
        let Some(life) = self.feeds.get(&feed).filter(|known| known.up).map(|known| known.life)
        else {
            return;
        };
        let mut pieces: Vec<Piece> = Vec::new();
        for frame in frames {
            let Some(frame) = self.as_sent(frame, feed, cx) else { continue };
            let (repair, bytes) = (self.is_repair(&feed, &frame), frame.wire_len());
            match pieces.last_mut() {
                Some(piece) if piece.repair == repair && piece.bytes < PIECE_BYTES => {
                    piece.frames.push(frame);
                    piece.bytes += bytes;
                }
                Some(_) | None => pieces.push(Piece { frames: vec![frame], bytes, repair }),
            }
        }
        for Piece { frames, bytes, repair } in pieces {
            let chunks = frames.iter().filter(|frame| matches!(frame, DownFrame::Chunk(_)));
            let chunk_bytes = chunks.map(DownFrame::wire_len).sum();
            let packet = Packet::Down { stream: feed.stream, life, frames, repair };
            self.count_sent(&packet, cx);
            cx.effects.push(Effect::Send { to: feed.peer, packet });
            self.todo.push_back(Todo::Relay(RelayInput::Drained { feed, bytes, chunk_bytes }));
        }
    }

    /// Whether a frame is a chunk that is older than one that this feed carried before.
    fn is_repair(&mut self, feed: &FeedKey, frame: &DownFrame<SimChunk>) -> bool {
        let (DownFrame::Chunk(chunk), Some(known)) = (frame, self.feeds.get_mut(feed)) else {
            return false;
        };
        let header = chunk.header();
        let next = &mut known.sent[usize::from(header.stripe) % known.sent.len()];
        let is_old = header.stripe_seq < *next;
        *next = (*next).max(header.stripe_seq + 1);
        is_old
    }

    /// What a frame becomes at a node that may misbehave; checks what an honest one sends.
    fn as_sent(
        &self,
        frame: DownFrame<SimChunk>,
        feed: FeedKey,
        cx: &mut Cx<'_>,
    ) -> Option<DownFrame<SimChunk>> {
        let DownFrame::Chunk(chunk) = &frame else {
            cx.trace.text(cx.now, self.index, &frame);
            return self.misdeed.frame(frame);
        };
        let (header, peer) = (chunk.header(), u64::from(feed.peer.0[0]));
        cx.trace.numbers([cx.now, u64::from(self.index), peer, header.seq]);
        if !chunk.verify(&feed.stream) {
            let what = format!("chunk {} was forwarded unverified", header.seq);
            cx.effects.push(Effect::Violation(what));
        }
        self.misdeed.frame(frame)
    }

    pub(super) fn count_sent(&mut self, packet: &Packet, cx: &mut Cx<'_>) {
        let mut sent = crate::tally::Bytes::default();
        match packet {
            Packet::Down { frames, repair, .. } => {
                for frame in frames {
                    if let DownFrame::Chunk(chunk) = frame {
                        let again = if *repair { chunk.wire_len() } else { 0 };
                        sent.repair += again as u64;
                        sent.payload += (chunk.wire_len() - CHUNK_OVERHEAD) as u64;
                        sent.chunk_overhead += CHUNK_OVERHEAD as u64;
                    } else {
                        sent.feed_control += frame.wire_len() as u64;
                    }
                }
            }
            Packet::Up { frame, .. } => sent.feed_control += frame.wire_len() as u64,
            Packet::RepairWant { want } => sent.feed_control += want.wire_len() as u64,
            Packet::RepairAnswer { answer, .. } => {
                let chunks: usize = answer.chunks.iter().map(Payload::wire_len).sum();
                let overhead = answer.chunks.len() * CHUNK_OVERHEAD;
                sent.payload += (chunks - overhead) as u64;
                sent.chunk_overhead += overhead as u64;
                sent.feed_control += (answer.wire_len() - chunks) as u64;
            }
            // Counted where their length is found out: when they are sent.
            Packet::Hello { .. }
            | Packet::HelloAck { .. }
            | Packet::FeedClosed { .. }
            | Packet::Flow { .. }
            | Packet::Request { .. }
            | Packet::Response { .. } => {}
        }
        self.view.sent.add(sent);
        cx.tally.bytes.add(sent);
    }

    fn dial(&mut self, contact: astral_core::overlay::Contact, cx: &mut Cx<'_>) {
        let node = contact.node;
        if node == self.id || self.linked.contains_key(&node) || !self.dialling.insert(node) {
            return;
        }
        cx.effects.push(Effect::Dial { contact });
    }

    fn request(&mut self, id: RequestId, to: NodeId, body: Request, cx: &mut Cx<'_>) {
        if self.linked.contains_key(&to) {
            self.send_request(to, id, body, cx);
        } else if self.dialling.contains(&to) {
            self.waiting.push((to, id, body));
        } else {
            self.request_failed(id, RequestFailure::Unreachable);
        }
    }

    fn deliver(&mut self, sink: SinkId, item: &Delivery<SimChunk>, cx: &mut Cx<'_>) {
        let Some(player) = &mut self.player else { return };
        match item {
            Delivery::Chunk(chunk) => {
                cx.trace.numbers([cx.now, u64::from(self.index), chunk.header().seq]);
                // The model's player takes everything at once.
                let credit = RelayInput::Credit { sink, bytes: chunk.wire_len() };
                self.todo.push_back(Todo::Relay(credit));
            }
            Delivery::Init(_)
            | Delivery::Skipped { .. }
            | Delivery::Paused
            | Delivery::Resumed
            | Delivery::Ended(_)
            | Delivery::NewEpoch { .. } => cx.trace.text(cx.now, self.index, item),
        }
        if let Err(what) = player.deliver(item, Moment { now: cx.now, cuts: cx.cuts }, cx.tally) {
            cx.effects.push(Effect::Violation(what));
        }
    }

    fn told(&mut self, event: &Event, cx: &mut Cx<'_>) {
        match event {
            Event::ParentChanged { stripe, old: Some(_), cause, gap_ms, .. } => {
                cx.tally.moves += 1;
                if matches!(cause, MoveCause::Closed | MoveCause::Silent)
                    && let Some(player) = &mut self.player
                {
                    player.failed_over(*stripe, *gap_ms, cx.tally);
                }
            }
            Event::NoCapacity { .. } => cx.tally.no_capacity += 1,
            Event::Promoted { .. } => cx.tally.promotions += 1,
            Event::Ended { stream, .. } => self.over(*stream),
            _ => {}
        }
    }

    fn over(&mut self, stream: StreamId) {
        if self.wanted.get(&stream) == Some(&false) {
            self.wanted.remove(&stream);
        }
    }

    /// Hands an output of the relay to the overlay.
    fn tell(&mut self, input: Input, cx: &mut Cx<'_>) {
        cx.trace.text(cx.now, self.index, &input);
        self.todo.push_back(Todo::Overlay(input));
    }
}

/// The overlay's word for why a feed ends.
pub(super) const fn end(reason: WireEnd) -> EndReason {
    match reason {
        WireEnd::Ended => EndReason::Ended,
        WireEnd::SourceLost => EndReason::SourceLost,
        WireEnd::Left => EndReason::Left,
        WireEnd::Revoked => EndReason::Revoked,
    }
}

const fn wire_end(reason: EndReason) -> WireEnd {
    match reason {
        EndReason::Ended => WireEnd::Ended,
        EndReason::SourceLost => WireEnd::SourceLost,
        EndReason::Left => WireEnd::Left,
        EndReason::Revoked => WireEnd::Revoked,
    }
}

/// A report of the relay as the overlay reads it.
fn report(progress: FeedProgress) -> FeedReport {
    let FeedProgress { feed, silent_since, at, stripes, duplicates, offences, shed: _ } = progress;
    let stripes = stripes
        .into_iter()
        .map(|stripe| StripeProgress {
            stripe: stripe.stripe,
            head_stripe_seq: stripe.head_stripe_seq,
            claimed_stripe_seq: stripe.claimed_stripe_seq,
            bytes: stripe.bytes,
            age_ms: stripe.age_ms,
            gaps: stripe.gaps,
            depth: stripe.depth,
        })
        .collect();
    FeedReport { feed, silent_since, at, stripes, duplicates, offences }
}
