//! The parents' side of a stream: PROMOTE, what comes in, gaps and who is asked for them.
//!
//! Owns what a child does on its feeds. Does not own which parent is promoted (the overlay's).
//!
//! A parent's START, KEEP and GAP speak of the epoch of the last CERT on its feed; those of another
//! epoch than ours are ignored. PROMOTE and WANT go only to parents in our epoch, beside a start at
//! the newest keyframe, which means the same in every epoch.

use std::time::Duration;

use super::{
    config::{ACK_BYTES, BATCH_OVERHEAD, FEEDS_MAX, SEQ_MAX},
    flow::{Arrival, Flow},
    input::{DownFrameMeta, FeedOffence, StreamRole},
    output::{RelayOutput, RelayTimeout},
    parent::{Parent, ReportDue},
    stream::{Ctx, Stream},
};
use crate::{
    ids::{FeedKey, NodeId, Stripe, StripeSet},
    media::{
        chunk::Payload,
        frame::{KeepEntry, PROMOTE_RANGES_MAX, Start, UpFrame},
        ring::StripePoint,
        stripe::Incoming,
    },
};

impl<P: Payload> Stream<P> {
    /// The parent of a feed, made on its first mention.
    pub(crate) fn parent(&mut self, feed: FeedKey, cx: &mut Ctx<'_, P>) -> Option<&mut Parent> {
        if !self.parents.contains_key(&feed.peer) && self.parents.len() >= FEEDS_MAX {
            cx.stats.refused += 1;
            return None;
        }
        Some(self.parents.entry(feed.peer).or_insert_with(|| Parent::new(feed, cx.now)))
    }

    pub(crate) fn parent_up(&mut self, feed: FeedKey, rtt: Option<Duration>, cx: &mut Ctx<'_, P>) {
        let Some(parent) = self.parent(feed, cx) else { return };
        rtt.into_iter().for_each(|rtt| parent.rtt.observe(rtt));
        parent.up_at = Some(cx.now);
        parent.expect(cx.now);
        // A new feed may have what the others lack.
        for stripe in &mut self.flow.stripes {
            stripe.gaps_mut().iter_mut().for_each(|gap| gap.asked_at = None);
        }
        self.send_promotes(feed.peer, cx);
        cx.wake.arm(cx.now, RelayTimeout::Ack);
    }

    pub(crate) fn parent_down(&mut self, node: NodeId, cx: &mut Ctx<'_, P>) {
        if self.parents.remove(&node).is_none() {
            return;
        }
        for stripe in &mut self.flow.stripes {
            if stripe.parent == Some(node) {
                stripe.parent = None;
            }
        }
        self.judge_pause(cx);
        cx.wake.arm(cx.now, RelayTimeout::Gap);
    }

    /// Makes `feed`'s parent the one that a stripe comes from.
    pub(crate) fn promote(&mut self, feed: FeedKey, stripe: Stripe, cx: &mut Ctx<'_, P>) {
        let Some(incoming) = self.flow.stripes.get_mut(usize::from(stripe)) else { return };
        let former = incoming.parent.replace(feed.peer);
        if let Some(former) = former.and_then(|node| self.parents.get_mut(&node)) {
            former.promoted.remove(stripe);
            former.unsent.remove(stripe);
        }
        let Some(parent) = self.parent(feed, cx) else { return };
        parent.promoted.insert(stripe);
        parent.unsent.insert(stripe);
        self.send_promotes(feed.peer, cx);
        self.judge_pause(cx);
    }

    /// The tickets that this node holds at a parent.
    pub(crate) fn set_tickets(
        &mut self,
        feed: FeedKey,
        live: StripeSet,
        warm: StripeSet,
        cx: &mut Ctx<'_, P>,
    ) {
        if let Some(parent) = self.parent(feed, cx) {
            parent.tickets = Some(StripeSet(live.0 | warm.0));
        }
    }

    /// Gives a stripe back to a parent.
    pub(crate) fn release(&mut self, feed: FeedKey, stripe: Stripe, cx: &mut Ctx<'_, P>) {
        self.forget_stripe(feed.peer, stripe);
        let Some(parent) = self.parents.get_mut(&feed.peer) else { return };
        if let Some(tickets) = &mut parent.tickets {
            tickets.remove(stripe);
        }
        if parent.up_at.is_some() {
            send_up(feed, UpFrame::Release { stripe, reason: 0 }, cx);
        }
    }

    /// A CERT came, on a parent's feed or none; `newer`: it started our epoch.
    pub(crate) fn on_parent_epoch(
        &mut self,
        epoch: u64,
        from: Option<NodeId>,
        newer: bool,
        cx: &mut Ctx<'_, P>,
    ) {
        for (node, parent) in &mut self.parents {
            let speaks = from == Some(*node);
            // What a parent was asked before its first CERT was asked in the epoch that it is in;
            // every other change of epoch voids what was asked.
            let first = parent.epoch.is_none() && speaks;
            let changed = speaks && parent.epoch != Some(epoch);
            if (newer || changed) && !first && parent.epoch.is_some() {
                parent.unsent = parent.promoted;
            }
            if speaks {
                parent.epoch = Some(epoch);
            }
        }
        let nodes: Vec<NodeId> = self.parents.keys().copied().collect();
        for node in nodes {
            self.send_promotes(node, cx);
        }
    }

    pub(crate) fn on_chunk(&mut self, node: NodeId, chunk: P, cx: &mut Ctx<'_, P>) {
        let header = *chunk.header();
        let len = chunk.wire_len() as u64;
        self.on_bytes(node, len, cx);
        let arrival = self.take_chunk(chunk, cx);
        let Some(parent) = self.parents.get_mut(&node) else { return };
        let is_ours = matches!(arrival, Arrival::New(_) | Arrival::Duplicate);
        let is_again = is_ours && parent.brings_again(header.stripe, header.stripe_seq);
        match arrival {
            Arrival::New(taken) => {
                cx.stats.chunks_in += 1;
                self.neighbours.brought(header.stripe);
                if taken.new_gap {
                    parent.report_now();
                }
            }
            Arrival::Duplicate => {
                cx.stats.duplicates += 1;
                // It could not know that a neighbour or another parent was faster; what it sent
                // itself it knows.
                if is_again {
                    parent.duplicates = parent.duplicates.saturating_add(1);
                }
            }
            Arrival::OtherEpoch => {
                cx.stats.other_epoch += 1;
                return;
            }
            Arrival::Offence(kind) => return self.on_offence(node, kind, cx),
        }
        let seen = &mut parent.stripes[usize::from(header.stripe)];
        seen.bytes += len;
        seen.head = seen.head.max(Some(header.stripe_seq));
        parent.report_soon();
        self.report(node, cx);
    }

    /// Bytes of a CHUNK frame came, whatever becomes of it.
    pub(crate) fn on_bytes(&mut self, node: NodeId, bytes: u64, cx: &mut Ctx<'_, P>) {
        let Some(parent) = self.parents.get_mut(&node) else { return };
        cx.stats.bytes_in += bytes;
        parent.heard(cx.now);
        parent.read_bytes += bytes;
        let due = parent.ack_due(ACK_BYTES, cx.config, cx.now);
        if let Some(bytes) = due {
            send_up(parent.feed, UpFrame::Ack { bytes, alive: parent.alive() }, cx);
        }
        cx.wake.arm(parent.ack_at(cx.config), RelayTimeout::Ack);
        if due.is_some() {
            self.report_audience(cx);
        }
    }

    pub(crate) fn on_offence(&mut self, node: NodeId, _kind: FeedOffence, cx: &mut Ctx<'_, P>) {
        cx.stats.offences += 1;
        let Some(parent) = self.parents.get_mut(&node) else { return };
        parent.offences = parent.offences.saturating_add(1);
        parent.report_now();
        self.report(node, cx);
    }

    pub(crate) fn on_frame(&mut self, node: NodeId, frame: DownFrameMeta, cx: &mut Ctx<'_, P>) {
        let Some(parent) = self.parents.get_mut(&node) else { return };
        parent.heard(cx.now);
        let same_epoch = parent.epoch.is_none() || parent.epoch == self.flow.epoch();
        let k = self.flow.k();
        match frame {
            DownFrameMeta::Keep { stripes, paused } => {
                parent.says_paused = paused;
                if same_epoch {
                    self.on_keep(node, &stripes, cx);
                }
                self.judge_pause(cx);
            }
            DownFrameMeta::Shed { stripes } => self.on_shed(node, stripes),
            DownFrameMeta::Start { stripe, .. } | DownFrameMeta::Gap { stripe, .. }
                if same_epoch && stripe >= k =>
            {
                self.on_offence(node, FeedOffence::Stripe, cx);
            }
            DownFrameMeta::Start { stripe, from_stripe_seq, from_seq } => {
                if same_epoch {
                    let start = StripePoint { stripe_seq: from_stripe_seq, seq: from_seq };
                    self.on_start(node, stripe, start, cx);
                }
            }
            DownFrameMeta::Gap { stripe, from, to } => {
                if same_epoch {
                    self.on_gap(node, stripe, (from, to), cx);
                }
            }
        }
        self.report(node, cx);
    }

    /// ACKs, silence and reports that time alone makes due.
    pub(crate) fn tick_parents(&mut self, cx: &mut Ctx<'_, P>) {
        for parent in self.parents.values_mut() {
            if let Some(bytes) = parent.ack_due(u64::MAX, cx.config, cx.now) {
                send_up(parent.feed, UpFrame::Ack { bytes, alive: parent.alive() }, cx);
            }
            cx.wake.arm(parent.ack_at(cx.config), RelayTimeout::Ack);
            let silent_at = parent.judge_silence(cx.config, cx.now);
            cx.wake.arm(silent_at, RelayTimeout::Silence);
            report_on(parent, &self.flow, cx);
        }
        self.report_audience(cx);
    }

    /// Sends the PROMOTEs that a parent is still to get, if it can understand them.
    fn send_promotes(&mut self, node: NodeId, cx: &mut Ctx<'_, P>) {
        let Some(parent) = self.parents.get_mut(&node) else { return };
        if parent.up_at.is_none() || parent.unsent.is_empty() {
            return;
        }
        let epoch = self.flow.cert.as_ref().map(|signed| signed.cert.epoch);
        for stripe in parent.unsent.iter() {
            let incoming = &self.flow.stripes[usize::from(stripe)];
            let (start, missing) = resume(incoming, self.flow.restarted);
            let understood = match (parent.epoch, epoch) {
                (Some(theirs), Some(ours)) => theirs == ours,
                (None, _) | (Some(_), None) => start == Start::Live,
            };
            if understood {
                parent.unsent.remove(stripe);
                parent.is_promoted(stripe);
                parent.expect(cx.now);
                cx.stats.promotes_out += 1;
                send_up(parent.feed, UpFrame::Promote { stripe, start, missing }, cx);
            }
        }
        cx.wake.arm(cx.now + cx.config.dead_min, RelayTimeout::Silence);
    }

    fn on_start(&mut self, node: NodeId, stripe: Stripe, start: StripePoint, cx: &mut Ctx<'_, P>) {
        if start.stripe_seq >= SEQ_MAX || start.seq >= SEQ_MAX {
            return self.on_offence(node, FeedOffence::Range, cx);
        }
        let incoming = &mut self.flow.stripes[usize::from(stripe)];
        if incoming.parent != Some(node) {
            return;
        }
        // The source's own stripes are complete from the beginning.
        if self.flow.role == StreamRole::Member {
            incoming.begin(start, &self.flow.ring, cx.now);
        }
        if let Some(parent) = self.parents.get_mut(&node) {
            parent.forgive(stripe);
        }
        self.start_children(cx);
        self.pump_sinks(|_| true, cx);
        cx.wake.arm(cx.now, RelayTimeout::Gap);
    }

    fn on_keep(&mut self, node: NodeId, entries: &[KeepEntry], cx: &mut Ctx<'_, P>) {
        let k = self.flow.k();
        let Some(parent) = self.parents.get_mut(&node) else { return };
        let trip = parent.rtt.mean().unwrap_or_default() / 2;
        let mut freshest = None;
        for entry in entries.iter().filter(|entry| entry.stripe < k && entry.head_seq < SEQ_MAX) {
            let seen = &mut parent.stripes[usize::from(entry.stripe)];
            (seen.claimed, seen.depth) = (Some(entry.head_seq), entry.depth);
            let incoming = &mut self.flow.stripes[usize::from(entry.stripe)];
            if incoming.parent == Some(node) {
                incoming.depth = Some(entry.depth);
            }
            if let Some(seq) = self.flow.ring.seq_of(entry.stripe, entry.head_seq) {
                freshest = freshest.max(Some((seq, entry.age_ms)));
            }
        }
        if let Some((seq, age_ms)) = freshest
            && let Some(held) = self.flow.ring.get(seq)
        {
            let age = Duration::from_millis(u64::from(age_ms)) + trip;
            let time_ms = held.chunk.header().time_ms;
            self.flow.anchor.observe_age(seq, time_ms, age, cx.now);
        }
        parent.report_soon();
    }

    fn on_gap(
        &mut self,
        node: NodeId,
        stripe: Stripe,
        (from, to): (u64, u64),
        cx: &mut Ctx<'_, P>,
    ) {
        cx.stats.gaps_in += 1;
        let Some(parent) = self.parents.get_mut(&node) else { return };
        let seen = &mut parent.stripes[usize::from(stripe)];
        seen.gaps = seen.gaps.saturating_add(1);
        if !parent.deny(stripe, from, to.min(SEQ_MAX)) {
            cx.stats.ranges_dropped += 1;
        }
        parent.report_now();
        cx.wake.arm(cx.now, RelayTimeout::Gap);
    }

    fn on_shed(&mut self, node: NodeId, stripes: StripeSet) {
        for stripe in stripes.iter() {
            self.forget_stripe(node, stripe);
        }
        if let Some(parent) = self.parents.get_mut(&node) {
            parent.shed = StripeSet(parent.shed.0 | stripes.0);
            parent.report_now();
        }
    }

    /// The stripe doesn't come from this parent any more.
    fn forget_stripe(&mut self, node: NodeId, stripe: Stripe) {
        if let Some(incoming) = self.flow.stripes.get_mut(usize::from(stripe))
            && incoming.parent == Some(node)
        {
            incoming.parent = None;
        }
        if let Some(parent) = self.parents.get_mut(&node) {
            parent.promoted.remove(stripe);
            parent.unsent.remove(stripe);
        }
    }

    /// A member is paused when all that it is fed by say so.
    fn judge_pause(&mut self, cx: &mut Ctx<'_, P>) {
        if self.flow.role == StreamRole::Source {
            return;
        }
        let mut feeding = self
            .parents
            .values()
            .filter(|p| p.up_at.is_some() && !p.promoted.is_empty())
            .peekable();
        let paused = feeding.peek().is_some() && feeding.all(|parent| parent.says_paused);
        self.set_paused(paused, cx);
    }

    /// Tells the overlay how a parent fares, if that is due.
    fn report(&mut self, node: NodeId, cx: &mut Ctx<'_, P>) {
        if let Some(parent) = self.parents.get_mut(&node) {
            report_on(parent, &self.flow, cx);
        }
    }
}

fn report_on<P: Payload>(parent: &mut Parent, flow: &Flow<P>, cx: &mut Ctx<'_, P>) {
    match parent.report_due(cx.config, cx.now) {
        ReportDue::At(at) => cx.wake.arm(at, RelayTimeout::Progress),
        ReportDue::Now => {
            let progress = parent.progress(|stripe| flow.head_age_ms(stripe, cx.now), cx.now);
            cx.out.push_back(RelayOutput::Progress(progress));
        }
    }
}

/// Where a stripe goes on at a new parent: behind what is here, and what is missing before that.
fn resume(incoming: &Incoming, restarted: bool) -> (Start, Vec<(u64, u64)>) {
    match (incoming.start, restarted) {
        // After a restart of the source everything of the new epoch is wanted.
        (None, true) => (Start::From(0), Vec::new()),
        (None, false) => (Start::Live, Vec::new()),
        (Some(_), _) => {
            let gaps = incoming.gaps();
            let next = gaps.get(PROMOTE_RANGES_MAX).map_or(incoming.end(), |gap| gap.from);
            let listed = gaps.iter().take(PROMOTE_RANGES_MAX);
            (Start::From(next), listed.map(|gap| (gap.from, gap.to)).collect())
        }
    }
}

pub(super) fn send_up<P>(feed: FeedKey, frame: UpFrame, cx: &mut Ctx<'_, P>) {
    cx.pacer.spend(frame.wire_len() + BATCH_OVERHEAD, cx.now);
    cx.stats.control_bytes_out += frame.wire_len() as u64;
    cx.out.push_back(RelayOutput::Up { feed, frame });
}
