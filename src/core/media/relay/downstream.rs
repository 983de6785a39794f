//! The children's side of a stream: PROMOTE, cursors, repair, KEEP, and what slow children lose.
//!
//! Owns what a parent does on its feeds. Does not own who may have what (the overlay's, told by
//! `SetStripes`), nor the turns among children (see `media::scheduler`).

use std::time::Duration;

use super::{
    child::{Ask, Child, Cursor},
    config::{FEEDS_MAX, PROMOTE_ASKED_INTERVAL, QUEUED_MAX, RelayConfig, SEQ_MAX},
    flow::Flow,
    output::{RelayOutput, RelayTimeout},
    stream::{Ctx, Stream},
    way_back::WayBack,
};
use crate::{
    ids::{FeedKey, NodeId, STRIPES_MAX, Stripe, StripeSet},
    media::{
        cert::SignedCert,
        chunk::Payload,
        frame::{DownFrame, KeepEntry, Start, UpFrame},
        ring::StripePoint,
        scheduler::{Class, Turn},
        stripe::Incoming,
    },
    time::Timestamp,
};

impl<P: Payload> Stream<P> {
    /// The child of a feed that is up, made when it comes up.
    pub(crate) fn child(&mut self, feed: FeedKey, cx: &mut Ctx<'_, P>) -> Option<&mut Child<P>> {
        if !self.children.contains_key(&feed.peer) && self.children.len() >= FEEDS_MAX {
            cx.stats.refused += 1;
            return None;
        }
        Some(self.children.entry(feed.peer).or_insert_with(|| Child::new(feed, cx.now)))
    }

    pub(crate) fn child_up(&mut self, feed: FeedKey, rtt: Option<Duration>, cx: &mut Ctx<'_, P>) {
        let cert = self.flow.cert.clone();
        let inits: Vec<_> = self.flow.inits.values().cloned().collect();
        let Some(child) = self.child(feed, cx) else { return };
        rtt.into_iter().for_each(|rtt| child.rtt.observe(rtt));
        child.up_at = Some(cx.now);
        child.control.extend(cert.map(DownFrame::Cert));
        child.control.extend(inits.into_iter().map(DownFrame::Init));
        self.keep(feed.peer, cx);
        self.start_children(cx);
    }

    /// What a child may have. A stripe that it may not have any more stops at once.
    pub(crate) fn set_stripes(
        &mut self,
        feed: FeedKey,
        live: StripeSet,
        warm: StripeSet,
        cx: &mut Ctx<'_, P>,
    ) {
        // A feed that has gone in the meantime must not come back as a child that nobody serves.
        let Some(child) = self.children.get_mut(&feed.peer) else {
            cx.stats.unknown += 1;
            return;
        };
        let before = StripeSet(child.live.0 | child.warm.0);
        let granted = StripeSet(live.0 | warm.0);
        let taken = StripeSet(before.0 & !granted.0);
        child.revoked = StripeSet((child.revoked.0 | taken.0) & !granted.0);
        (child.live, child.warm) = (live, StripeSet(warm.0 & !live.0));
        for stripe in (0..STRIPES_MAX).filter(|stripe| !live.contains(*stripe)) {
            if taken.contains(stripe) {
                child.stop(stripe);
            } else if child.cursors[usize::from(stripe)].take().is_some() {
                child.ready.remove(stripe);
            }
        }
        self.start_children(cx);
        cx.wake.arm(cx.now, RelayTimeout::Keep);
    }

    pub(crate) fn on_up_frame(&mut self, node: NodeId, frame: UpFrame, cx: &mut Ctx<'_, P>) {
        let Some(child) = self.children.get_mut(&node) else { return };
        let feed = child.feed;
        match frame {
            UpFrame::Promote { .. } | UpFrame::Want { .. } if child.queued_bytes() > QUEUED_MAX => {
                cx.stats.refused += 1;
            }
            UpFrame::Promote { stripe, start, missing } => {
                self.on_promote(node, stripe, start, missing, cx);
            }
            UpFrame::Want { stripe, ranges } => self.on_want(node, stripe, &ranges, cx),
            UpFrame::Cancel { stripe, ranges } => {
                if let Some(wants) = child.wants.get_mut(&stripe) {
                    ranges.iter().for_each(|(from, to)| wants.remove_run(*from, *to));
                    if wants.is_empty() {
                        child.wants.remove(&stripe);
                    }
                }
            }
            UpFrame::Ack { bytes, alive } => self.on_ack(node, bytes, alive, cx),
            UpFrame::Audience(audience) => child.audience = Some((audience, cx.now)),
            UpFrame::Release { stripe, reason: _ } => {
                child.stop(stripe);
                child.live.remove(stripe);
                child.warm.remove(stripe);
                cx.out.push_back(RelayOutput::Released { feed, stripe });
            }
        }
    }

    /// A chunk came in that children may be waiting for.
    pub(crate) fn notify_children(&mut self, stripe: Stripe, stripe_seq: u64, cx: &mut Ctx<'_, P>) {
        for (node, child) in &mut self.children {
            if let Some(class) = child.notice(stripe, stripe_seq)
                && child.enter(class)
            {
                cx.turns.push(Turn { stream: self.id, child: *node }, class);
            }
        }
    }

    /// Starts every PROMOTE that can start.
    pub(crate) fn start_children(&mut self, cx: &mut Ctx<'_, P>) {
        let waiting: Vec<NodeId> = self
            .children
            .iter()
            .filter(|(_, child)| child.up_at.is_some() && !child.asks.is_empty())
            .map(|(node, _)| *node)
            .collect();
        let mut known = None;
        for node in waiting {
            let mut way_back = known.take().unwrap_or_else(|| WayBack::of(self, cx));
            let Some(child) = self.children.get_mut(&node) else { continue };
            let before = child.asks.len();
            let stripes: Vec<Stripe> = child.asks.keys().copied().collect();
            let live = child.live;
            for stripe in stripes.into_iter().filter(|stripe| live.contains(*stripe)) {
                start_stripe(child, stripe, &self.flow, &mut way_back, cx);
            }
            if child.asks.len() < before {
                self.keep(node, cx);
                self.queue(node, Class::Live, cx);
                self.queue(node, Class::Repair, cx);
            } else {
                // Nothing has begun to flow since it was worked out.
                known = Some(way_back);
            }
        }
    }

    /// The epoch is over: nothing flows until the children PROMOTE anew, which they do when they
    /// read the certificate.
    pub(crate) fn restart_children(&mut self, cert: &SignedCert, cx: &mut Ctx<'_, P>) {
        for child in self.children.values_mut() {
            child.cursors.fill(None);
            child.ready = StripeSet::EMPTY;
            child.wants.clear();
            // It reads on: nothing of the new epoch may be left out.
            child.reads_on = child.live;
            // A start at the newest keyframe means the same in every epoch.
            child.asks.retain(|_, ask| ask.start == Start::Live);
            child.asks.values_mut().for_each(|ask| ask.missing.clear());
        }
        self.tell_children(&DownFrame::Cert(cert.clone()), cx);
    }

    /// Sends a frame to every child.
    pub(crate) fn tell_children(&mut self, frame: &DownFrame<P>, cx: &mut Ctx<'_, P>) {
        for (node, child) in &mut self.children {
            if child.up_at.is_some() {
                child.control.push(frame.clone());
                if child.enter(Class::Control) {
                    cx.turns.push(Turn { stream: self.id, child: *node }, Class::Control);
                }
            }
        }
    }

    /// Sends a KEEP to every child.
    pub(crate) fn keep_all(&mut self, cx: &mut Ctx<'_, P>) {
        let nodes: Vec<NodeId> = self.children.keys().copied().collect();
        for node in nodes {
            self.keep(node, cx);
        }
    }

    /// Chunks were given up: whoever wanted them is told.
    pub(crate) fn settle_wants(&mut self, stripe: Stripe, cx: &mut Ctx<'_, P>) {
        let nodes: Vec<NodeId> = self
            .children
            .iter()
            .filter(|(_, child)| child.wants.contains_key(&stripe))
            .map(|(node, _)| *node)
            .collect();
        for node in nodes {
            self.queue(node, Class::Repair, cx);
        }
    }

    /// Whether nobody waits for anything of this stream, which ended.
    pub(crate) fn is_served(&self) -> bool {
        let Some(end) = self.flow.end_seq else { return false };
        let k = usize::from(self.flow.k());
        let used = self.flow.stripes.iter().take(k);
        let complete = used.clone().all(|stripe| stripe.gaps().is_empty())
            && used.map(Incoming::passed).max() > Some(end);
        let mut children = self.children.values().filter(|child| child.up_at.is_some());
        children.clone().next().is_none()
            || (complete && children.all(|child| child.has_all(&self.flow.ring)))
    }

    /// KEEPs, and the judgement of slow children.
    pub(crate) fn tick_children(&mut self, cx: &mut Ctx<'_, P>) {
        // Ticks are frequent, and nearly all children are neither due a word nor behind.
        let (config, now) = (cx.config, cx.now);
        let is_due = |child: &Child<P>| {
            keep_at(child, config) <= now || child.unacked() > 0 || !child.ready.is_empty()
        };
        let due: Vec<NodeId> = self
            .children
            .iter()
            .filter(|(_, child)| child.up_at.is_some() && is_due(child))
            .map(|(node, _)| *node)
            .collect();
        for node in due {
            if self.children.get(&node).is_some_and(|child| keep_at(child, config) <= now) {
                self.keep(node, cx);
            }
            self.judge_backlog(node, cx);
        }
        for child in self.children.values().filter(|child| child.up_at.is_some()) {
            cx.wake.arm(keep_at(child, cx.config), RelayTimeout::Keep);
            if !child.ready.is_empty() {
                cx.wake.arm(cx.now + Duration::from_millis(100), RelayTimeout::Backlog);
            }
            cx.wake.arm(child.doubtful_at(cx.config), RelayTimeout::Backlog);
        }
    }

    fn on_promote(
        &mut self,
        node: NodeId,
        stripe: Stripe,
        start: Start,
        missing: Vec<(u64, u64)>,
        cx: &mut Ctx<'_, P>,
    ) {
        let Some(child) = self.children.get_mut(&node) else { return };
        if stripe >= STRIPES_MAX || matches!(start, Start::From(next) if next >= SEQ_MAX) {
            cx.stats.offences += 1;
            return;
        }
        // The overlay is asked again only if it took its time to answer.
        let again = child.asks.get(&stripe).map(|ask| ask.asked_at);
        let told = again.is_some_and(|at| cx.now.since(at) < PROMOTE_ASKED_INTERVAL);
        let asked_at = again.filter(|_| told).unwrap_or(cx.now);
        child.asks.insert(stripe, Ask { start, missing, asked_at });
        if child.live.contains(stripe) {
            self.start_children(cx);
        } else if !told {
            let feed = child.feed;
            cx.out.push_back(RelayOutput::PromoteAsked { feed, stripe });
            // From now on it expects to hear of this node.
            cx.wake.arm(cx.now, RelayTimeout::Keep);
        }
    }

    fn on_want(
        &mut self,
        node: NodeId,
        stripe: Stripe,
        ranges: &[(u64, u64)],
        cx: &mut Ctx<'_, P>,
    ) {
        let Some(child) = self.children.get_mut(&node) else { return };
        let entitled = child.live.0 | child.warm.0 != 0 && !child.revoked.contains(stripe);
        for &(from, to) in ranges.iter().filter(|(from, to)| from <= to && *to < SEQ_MAX) {
            if !entitled {
                child.control.push(DownFrame::Gap { stripe, from, to });
                cx.stats.gaps_out += 1;
            } else {
                cx.stats.ranges_dropped += child.want(stripe, from, to);
            }
        }
        self.queue(node, Class::Repair, cx);
    }

    fn on_ack(&mut self, node: NodeId, bytes: u64, alive: StripeSet, cx: &mut Ctx<'_, P>) {
        let Some(child) = self.children.get_mut(&node) else { return };
        if bytes > child.sent_bytes {
            cx.stats.false_acks += 1;
            return;
        }
        child.claimed_bytes = child.claimed_bytes.max(bytes);
        cx.stats.acked_bytes_out += child.settle_acks(cx.now);
        if child.alive_at.is_none_or(|at| cx.now.since(at) >= Duration::from_secs(1)) {
            child.alive_at = Some(cx.now);
            cx.out.push_back(RelayOutput::ChildAlive { feed: child.feed, stripes: alive });
        }
        self.go_on(node, cx);
    }

    /// The driver handed bytes of a child on.
    pub(crate) fn on_drained(
        &mut self,
        node: NodeId,
        bytes: u64,
        chunk_bytes: u64,
        cx: &mut Ctx<'_, P>,
    ) {
        let Some(child) = self.children.get_mut(&node) else { return };
        child.drained_bytes += bytes;
        child.drained_chunk_bytes += chunk_bytes;
        let acked = child.settle_acks(cx.now);
        cx.stats.acked_bytes_out += acked;
        if acked > 0 {
            self.go_on(node, cx);
        }
    }

    /// Tells a child the path of a stripe, between its other frames and within the ceiling.
    pub(crate) fn send_path(
        &mut self,
        node: NodeId,
        stripe: Stripe,
        path: Vec<u64>,
        cx: &mut Ctx<'_, P>,
    ) {
        if let Some(child) = self.children.get_mut(&node).filter(|child| child.up_at.is_some()) {
            // An older path of the stripe that has not left yet is worth nothing any more.
            child.control.retain(
                |frame| !matches!(frame, DownFrame::Path { stripe: of, .. } if *of == stripe),
            );
            child.control.push(DownFrame::Path { stripe, path });
            self.queue(node, Class::Control, cx);
        }
    }

    /// The window may have opened.
    fn go_on(&mut self, node: NodeId, cx: &mut Ctx<'_, P>) {
        let Some(child) = self.children.get(&node) else { return };
        let (ready, wants) = (!child.ready.is_empty(), !child.wants.is_empty());
        if ready {
            self.queue(node, Class::Live, cx);
        }
        if wants {
            self.queue(node, Class::Repair, cx);
        }
    }

    /// Puts a KEEP into a child's control frames.
    fn keep(&mut self, node: NodeId, cx: &mut Ctx<'_, P>) {
        let Some(child) = self.children.get_mut(&node) else { return };
        if child.up_at.is_none() {
            return;
        }
        (child.kept_at, child.sent_at) = (cx.now, cx.now);
        if child.queued_bytes() > QUEUED_MAX {
            return;
        }
        let flow = &self.flow;
        let named = StripeSet(child.live.0 | child.warm.0);
        let stripes = named
            .iter()
            .filter_map(|stripe| {
                let (head_seq, _) = flow.ring.stripe_head(stripe)?;
                let age_ms = flow.head_age_ms(stripe, cx.now);
                Some(KeepEntry { stripe, head_seq, age_ms, depth: flow.depth(stripe) })
            })
            .collect();
        child.control.push(DownFrame::Keep { stripes, paused: flow.paused });
        self.queue(node, Class::Control, cx);
    }

    fn queue(&mut self, node: NodeId, class: Class, cx: &mut Ctx<'_, P>) {
        if let Some(child) = self.children.get_mut(&node)
            && child.up_at.is_some()
            && child.enter(class)
        {
            let turn = Turn { stream: self.id, child: node };
            if class == Class::Repair && child.is_resuming {
                cx.turns.push_front(turn, class);
            } else {
                cx.turns.push(turn, class);
            }
        }
    }

    /// Takes stripes from a child that is too slow, one at a time; tells of one that is stuck.
    fn judge_backlog(&mut self, node: NodeId, cx: &mut Ctx<'_, P>) {
        let Some(child) = self.children.get_mut(&node) else { return };
        let waits = child.unacked() > 0;
        if waits && !child.quiet && cx.now.since(child.drained_at) >= cx.config.quiet_after {
            child.quiet = true;
            cx.out.push_back(RelayOutput::ChildQuiet { feed: child.feed });
        }
        let stuck = waits && cx.now.since(child.drained_at) >= cx.config.stall_after;
        if stuck && child.stalled_at.is_none() {
            child.stalled_at = Some(cx.now);
            cx.stats.stalls += 1;
            cx.out.push_back(RelayOutput::Stalled { feed: child.feed });
        }
        if child.shed_at.is_some_and(|at| cx.now.since(at) < cx.config.shed_grace) {
            return;
        }
        let k = self.flow.k();
        // A stripe that is not ready has sent all there is.
        let mut waiting = (0..k).rev().filter(|stripe| child.ready.contains(*stripe));
        let slow = waiting.find(|stripe| is_behind(child, *stripe, &self.flow, cx));
        let Some(stripe) = slow else { return };
        let next = child.cursors[usize::from(stripe)].map_or(0, |cursor| cursor.next);
        let end = self.flow.ring.stripe_end(stripe).unwrap_or(0);
        if next < end {
            child.control.push(DownFrame::Gap { stripe, from: next, to: end - 1 });
            cx.stats.gaps_out += 1;
        }
        let mut stripes = StripeSet::EMPTY;
        stripes.insert(stripe);
        child.control.push(DownFrame::Shed { stripes });
        child.stop(stripe);
        child.live.remove(stripe);
        child.shed_at = Some(cx.now);
        cx.stats.sheds += 1;
        cx.out.push_back(RelayOutput::Shed { feed: child.feed, stripes });
        self.queue(node, Class::Control, cx);
    }
}

/// When a child is due a KEEP. Silence means death to one that is fed; to one that only stands by a
/// word each second is enough: twenty of those at 150 ms cost a source of 340 kbit/s a fifth of it.
pub(super) fn keep_at<P>(child: &Child<P>, config: &RelayConfig) -> Timestamp {
    let stands_by = child.live == StripeSet::EMPTY && child.asks.is_empty();
    let idle = if stands_by { config.keep_interval } else { config.keep_idle };
    (child.sent_at + idle).min(child.kept_at + config.keep_interval)
}

/// Starts a stripe as the child asked; leaves the ask where it is if that cannot be done yet.
fn start_stripe<P: Payload>(
    child: &mut Child<P>,
    stripe: Stripe,
    flow: &Flow<P>,
    way_back: &mut WayBack,
    cx: &mut Ctx<'_, P>,
) {
    let Some(first) = flow.first_point(stripe) else { return };
    let Some(ask) = child.asks.get(&stripe) else { return };
    let begin = match ask.start {
        Start::Live => {
            let keyframe = flow.newest_keyframe(first.seq).map(|keyframe| {
                let before = flow.ring.last_held(stripe, u64::MAX, keyframe);
                let stripe_seq = before.map_or(first.stripe_seq, |last| last.stripe_seq + 1);
                StripePoint { stripe_seq: stripe_seq.max(first.stripe_seq), seq: keyframe }
            });
            let begin = match child.reads_on.contains(stripe) {
                true => keyframe,
                false => way_back.begin(stripe, keyframe, flow),
            };
            let Some(begin) = begin else { return };
            begin
        }
        Start::From(next) if next <= first.stripe_seq => first,
        Start::From(next) => {
            let before = flow.ring.last_held(stripe, next, u64::MAX);
            let seq = before.map_or(first.seq, |last| last.seq + 1);
            StripePoint { stripe_seq: next, seq }
        }
    };
    let Some(ask) = child.asks.remove(&stripe) else { return };
    child.reads_on.remove(stripe);
    child.wants.remove(&stripe);
    child.control.push(DownFrame::Start {
        stripe,
        from_stripe_seq: begin.stripe_seq,
        from_seq: begin.seq,
    });
    if let Start::From(next) = ask.start
        && next < begin.stripe_seq
    {
        cx.stats.gaps_out += 1;
        child.control.push(DownFrame::Gap { stripe, from: next, to: begin.stripe_seq - 1 });
    }
    for &(from, to) in ask.missing.iter().filter(|(from, to)| from <= to && *to < SEQ_MAX) {
        cx.stats.ranges_dropped += child.want(stripe, from, to);
    }
    // What is older than the stripe's newest chunk goes below live: a joiner's way back to the last
    // keyframe must not delay those who are already watching.
    let end = flow.ring.stripe_end(stripe).unwrap_or(0).max(begin.stripe_seq);
    if begin.stripe_seq < end {
        cx.stats.ranges_dropped += child.want(stripe, begin.stripe_seq, end - 1);
    }
    child.is_resuming |= matches!(ask.start, Start::From(_)) && child.wants.contains_key(&stripe);
    child.cursors[usize::from(stripe)] = Some(Cursor { next: end, since: cx.now });
    child.ready.insert(stripe);
}

/// Whether a child is too slow for a stripe: its next chunk has waited too long, or has left the
/// ring.
fn is_behind<P: Payload>(
    child: &Child<P>,
    stripe: Stripe,
    flow: &Flow<P>,
    cx: &Ctx<'_, P>,
) -> bool {
    let Some(cursor) = child.cursors[usize::from(stripe)] else { return false };
    if cursor.next < flow.ring.stripe_floor(stripe).stripe_seq {
        return true;
    }
    let end = flow.ring.stripe_end(stripe).unwrap_or(0);
    let next = (cursor.next..end).find_map(|at| flow.ring.seq_of(stripe, at));
    let Some(held) = next.and_then(|seq| flow.ring.get(seq)) else { return false };
    let waited = cx.now.since(held.at.max(cursor.since));
    // The ACK that opens the window takes its way too.
    waited > cx.config.backlog_max + child.rtt.mean().unwrap_or_default()
}
