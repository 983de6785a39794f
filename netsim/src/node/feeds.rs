//! The life of feeds at one node, and what is read from them.
//!
//! Owns greeting, closing, and the checks before anything reaches a machine. Does not own delays.

use astral_core::{
    ids::{Direction, FeedKey, NodeId, STRIPES_MAX, StreamId},
    media::{
        cert::SignedCert,
        chunk::{ChunkFlags, Payload},
        frame::{DownFrame, EndReason, RefuseReason},
        relay::{DownFrameMeta, FeedOffence, RelayInput},
    },
    overlay::{FeedDownReason, InboundId, Input, Offence, Request, RequestId},
};

use super::{Cx, Effect, Feed, SimNode, Todo, routing::end};
use crate::{
    packet::{FeedLife, Packet},
    payload::SimChunk,
    source::{verify_cert, verify_init},
};

/// The epochs that a feed certified: the newest and the one before.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Epochs {
    newest: Option<(u64, u8)>,
    before: Option<(u64, u8)>,
}

/// Why a feed is dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    Signature,
    Stripe,
    NoCert,
}

/// A chunk that may be handed over, or only counts.
enum Checked {
    Chunk(SimChunk),
    Discarded(usize),
}

impl Epochs {
    fn certify(&mut self, cert: &SignedCert) {
        let epoch = (cert.cert.epoch, cert.cert.k);
        if self.newest.is_none_or(|newest| newest.0 < epoch.0) {
            self.before = self.newest.replace(epoch);
        }
    }

    fn knows(&self, epoch: u64) -> Option<(u64, u8)> {
        [self.newest, self.before].into_iter().flatten().find(|known| known.0 == epoch)
    }

    fn check(&self, chunk: SimChunk, stream: &StreamId) -> Result<Checked, Fault> {
        let header = chunk.header();
        let known = self.knows(header.epoch).ok_or(Fault::NoCert)?;
        if self.newest != Some(known) {
            return Ok(Checked::Discarded(chunk.wire_len()));
        }
        if header.stripe >= known.1 {
            return Err(Fault::Stripe);
        }
        if !chunk.verify(stream) {
            return Err(Fault::Signature);
        }
        Ok(Checked::Chunk(chunk))
    }
}

impl SimNode {
    /// A packet arrived.
    pub fn receive(&mut self, from: NodeId, packet: Packet, cx: &mut Cx<'_>) {
        match packet {
            Packet::Hello { stream, life } => self.greeted(from, stream, life, cx),
            Packet::HelloAck { stream, life, refused } => {
                self.answered(self.key(stream, from, Direction::FromParent), life, refused, cx);
            }
            Packet::Down { stream, life, frames, repair: _ } => {
                let feed = self.key(stream, from, Direction::FromParent);
                for frame in frames {
                    // An earlier frame may have ended the feed.
                    if self.is_life(&feed, life) {
                        self.down_frame(feed, frame, cx);
                    }
                }
            }
            Packet::Flow { stream, life, stripe, flow } => {
                self.flowed((from, stream, life), stripe, flow, cx);
            }
            Packet::Up { stream, life, frame } => {
                let feed = self.key(stream, from, Direction::ToChild);
                if self.is_life(&feed, life) {
                    self.todo.push_back(Todo::Relay(RelayInput::UpFrame { feed, frame }));
                }
            }
            Packet::FeedClosed { stream, life, by_parent } => {
                let direction = if by_parent { Direction::FromParent } else { Direction::ToChild };
                let feed = self.key(stream, from, direction);
                if self.feeds.get(&feed).is_some_and(|known| known.life == life) {
                    self.feed_gone(feed, FeedDownReason::Closed);
                }
            }
            Packet::RepairWant { want } => self.repair_asked(from, want),
            Packet::RepairAnswer { stream, answer } => self.repaired(from, stream, answer, cx),
            Packet::Request { id, body } => self.requested(from, id, body, cx),
            Packet::Response { id, body } => {
                let id = RequestId(id);
                // One that timed out before is not heard any more.
                if self.sent.remove(&id).is_some() {
                    self.todo.push_back(Todo::Overlay(Input::Response { id, result: Ok(body) }));
                }
            }
        }
        self.settle(cx);
    }

    /// A greeting had no answer in time.
    pub fn greeting_timeout(&mut self, feed: FeedKey, life: FeedLife, cx: &mut Cx<'_>) {
        if self.feeds.get(&feed).is_some_and(|known| known.life == life && !known.up) {
            self.feeds.remove(&feed);
            let reason = FeedDownReason::OpenFailed;
            self.overlay_input(Input::FeedDown { feed, reason }, cx);
        }
    }

    pub(super) fn open_feed(&mut self, feed: FeedKey, cx: &mut Cx<'_>) {
        if !self.linked.contains_key(&feed.peer) {
            let reason = FeedDownReason::OpenFailed;
            self.todo.push_back(Todo::Overlay(Input::FeedDown { feed, reason }));
            return;
        }
        *cx.lives += 1;
        let life = FeedLife(*cx.lives);
        self.feeds.insert(feed, Feed::new(life, false));
        let packet = Packet::Hello { stream: feed.stream, life };
        cx.effects.push(Effect::Send { to: feed.peer, packet });
        cx.effects.push(Effect::Greeted(feed, life));
    }

    pub(super) fn close_feed(&mut self, feed: FeedKey, reason: EndReason, cx: &mut Cx<'_>) {
        if feed.direction == Direction::ToChild {
            self.view.granted(feed, astral_core::ids::StripeSet::EMPTY);
            self.send_down(feed, vec![DownFrame::End { reason }], cx);
        } else {
            self.parent_gone(feed.peer);
        }
        let Some(known) = self.feeds.remove(&feed) else { return };
        self.hang_up(feed, known.life, cx);
        if known.up {
            self.todo.push_back(Todo::Relay(RelayInput::FeedDown { feed }));
        }
    }

    /// A feed ended without our doing.
    pub(super) fn feed_gone(&mut self, feed: FeedKey, reason: FeedDownReason) {
        let Some(known) = self.feeds.remove(&feed) else { return };
        if feed.direction == Direction::ToChild {
            self.view.granted(feed, astral_core::ids::StripeSet::EMPTY);
        } else {
            self.parent_gone(feed.peer);
        }
        let reason = if known.up { reason } else { FeedDownReason::OpenFailed };
        if known.up {
            self.todo.push_back(Todo::Relay(RelayInput::FeedDown { feed }));
        }
        self.todo.push_back(Todo::Overlay(Input::FeedDown { feed, reason }));
    }

    fn parent_gone(&mut self, parent: NodeId) {
        for stripe in 0..STRIPES_MAX {
            if self.view.parent(stripe) == Some(parent)
                && let Some(player) = &mut self.player
            {
                player.orphaned(stripe);
            }
        }
        self.view.parent_gone(parent);
    }

    fn is_life(&self, feed: &FeedKey, life: FeedLife) -> bool {
        self.feeds.get(feed).is_some_and(|known| known.life == life && known.up)
    }

    fn hang_up(&self, feed: FeedKey, life: FeedLife, cx: &mut Cx<'_>) {
        let by_parent = feed.direction == Direction::ToChild;
        let packet = Packet::FeedClosed { stream: feed.stream, life, by_parent };
        cx.effects.push(Effect::Send { to: feed.peer, packet });
    }

    /// A child opens a feed.
    fn greeted(&mut self, from: NodeId, stream: StreamId, life: FeedLife, cx: &mut Cx<'_>) {
        let feed = self.key(stream, from, Direction::ToChild);
        let refused = if self.leaving {
            Some(RefuseReason::Leaving)
        } else if !self.wanted.contains_key(&stream) {
            Some(RefuseReason::UnknownStream)
        } else {
            None
        };
        let packet = Packet::HelloAck { stream, life, refused };
        cx.effects.push(Effect::Send { to: from, packet });
        if refused.is_some() {
            return;
        }
        if let Some(old) = self.feeds.remove(&feed) {
            // The same two nodes again: the older stream is the dead one.
            self.hang_up(feed, old.life, cx);
            self.todo.push_back(Todo::Relay(RelayInput::FeedDown { feed }));
        }
        self.feeds.insert(feed, Feed::new(life, true));
        self.feed_up(feed);
    }

    /// The parent answered our greeting.
    fn answered(
        &mut self,
        feed: FeedKey,
        life: FeedLife,
        refused: Option<RefuseReason>,
        cx: &mut Cx<'_>,
    ) {
        let wanted = self.feeds.get_mut(&feed).filter(|known| known.life == life);
        match (wanted, refused) {
            (Some(known), None) => {
                known.up = true;
                if let Some(player) = &mut self.player {
                    player.admitted_at.get_or_insert(cx.now);
                }
                self.feed_up(feed);
            }
            (Some(_), Some(_)) => {
                self.feeds.remove(&feed);
                let reason = FeedDownReason::Refused;
                self.todo.push_back(Todo::Overlay(Input::FeedDown { feed, reason }));
            }
            (None, None) => self.hang_up(feed, life, cx),
            (None, Some(_)) => {}
        }
    }

    fn feed_up(&mut self, feed: FeedKey) {
        let rtt = self.linked.get(&feed.peer).copied().flatten();
        self.todo.push_back(Todo::Relay(RelayInput::FeedUp { feed, rtt }));
        self.todo.push_back(Todo::Overlay(Input::FeedUp { feed }));
    }

    fn requested(&mut self, from: NodeId, wire_id: u64, body: Request, cx: &mut Cx<'_>) {
        self.next_inbound += 1;
        let id = InboundId(self.next_inbound);
        self.came.insert(id, (from, wire_id));
        self.overlay_input(Input::Request { id, from, body }, cx);
        if self.came.remove(&id).is_some() {
            let what = "a request was not answered within its drain".to_owned();
            cx.effects.push(Effect::Violation(what));
        }
    }

    /// One frame of a parent, checked as the driver's reader checks it.
    fn down_frame(&mut self, feed: FeedKey, frame: DownFrame<SimChunk>, cx: &mut Cx<'_>) {
        let stream = feed.stream;
        match frame {
            DownFrame::Cert(cert) => {
                if !verify_cert(&cert, &stream) {
                    return self.drop_feed(feed, Fault::Signature, cx);
                }
                if let Some(known) = self.feeds.get_mut(&feed) {
                    known.epochs.certify(&cert);
                }
                let (rate, k) = (cert.cert.rate, cert.cert.k);
                self.relay_input(RelayInput::Epoch { stream, cert, feed: Some(feed) }, cx);
                self.overlay_input(Input::Rate { stream, rate, k }, cx);
            }
            DownFrame::Init(init) => {
                let known = self.feeds.get(&feed).and_then(|f| f.epochs.knows(init.init.epoch));
                if known.is_none() {
                    return self.drop_feed(feed, Fault::NoCert, cx);
                }
                if !verify_init(&init, &stream) {
                    return self.drop_feed(feed, Fault::Signature, cx);
                }
                self.relay_input(RelayInput::Init { stream, init }, cx);
            }
            DownFrame::Chunk(chunk) => self.chunk(feed, chunk, cx),
            DownFrame::Path { stripe, path } => {
                self.overlay_input(Input::Path { feed, stripe, path }, cx);
            }
            DownFrame::End { reason } => {
                let reason = end(reason);
                self.overlay_input(Input::Ended { feed, reason }, cx);
            }
            other @ (DownFrame::Start { .. }
            | DownFrame::Keep { .. }
            | DownFrame::Gap { .. }
            | DownFrame::Shed { .. }) => {
                let Ok(frame) = DownFrameMeta::from_frame(other) else { return };
                let shed = match &frame {
                    DownFrameMeta::Shed { stripes } => Some(*stripes),
                    DownFrameMeta::Start { .. }
                    | DownFrameMeta::Keep { .. }
                    | DownFrameMeta::Gap { .. } => None,
                };
                self.relay_input(RelayInput::Frame { feed, frame }, cx);
                if let Some(stripes) = shed {
                    self.overlay_input(Input::Shed { feed, stripes }, cx);
                }
            }
        }
    }

    fn chunk(&mut self, feed: FeedKey, chunk: SimChunk, cx: &mut Cx<'_>) {
        let Some(known) = self.feeds.get(&feed) else { return };
        match known.epochs.check(chunk, &feed.stream) {
            Ok(Checked::Chunk(chunk)) => {
                let ends = chunk.header().flags.contains(ChunkFlags::END);
                let paused = chunk.header().flags.contains(ChunkFlags::PAUSE);
                let stream = feed.stream;
                if std::mem::replace(&mut self.paused, paused) != paused {
                    self.overlay_input(Input::Paused { stream, paused }, cx);
                }
                if let Some(player) = &mut self.player {
                    player.arrived(&chunk, Self::moment(cx), cx.tally);
                }
                self.relay_input(RelayInput::Chunk { feed, chunk }, cx);
                if ends {
                    self.overlay_input(Input::StreamEnded { stream }, cx);
                }
            }
            Ok(Checked::Discarded(bytes)) => {
                self.relay_input(RelayInput::Discarded { feed, bytes }, cx);
            }
            Err(fault) => self.drop_feed(feed, fault, cx),
        }
    }

    /// The other side misbehaved: nothing more is read from this feed.
    fn drop_feed(&mut self, feed: FeedKey, fault: Fault, cx: &mut Cx<'_>) {
        cx.tally.offences += 1;
        let (kind, offence) = match fault {
            Fault::Signature => (FeedOffence::Signature, Offence::BadSignature),
            Fault::Stripe => (FeedOffence::Stripe, Offence::Malformed),
            Fault::NoCert => (FeedOffence::Frame, Offence::Malformed),
        };
        if let Some(known) = self.feeds.get(&feed) {
            self.hang_up(feed, known.life, cx);
        }
        self.todo.push_back(Todo::Relay(RelayInput::Offence { feed, kind }));
        self.feed_gone(feed, FeedDownReason::Offence(offence));
    }
}
