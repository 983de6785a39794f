//! The children's side of a stream: PROMOTE, cursors, repair, KEEP, and what slow children lose.
//!
//! Owns what a parent does on its feeds. Does not own who may have what (the overlay's, told by
//! `SetStripes`), nor the turns among children (see `media::scheduler`).

use std::time::Duration;

use super::{
    child::{Ask, Child, Cursor},
    config::{BATCH_BYTES_MAX, FEEDS_MAX, QUANTUM_BYTES, SEQ_MAX},
    flow::Flow,
    output::{RelayOutput, RelayTimeout, frames_len},
    stream::{Ctx, Stream},
};
use crate::{
    ids::{FeedKey, NodeId, STRIPES_MAX, Stripe, StripeSet},
    media::{
        cert::SignedCert,
        chunk::Payload,
        frame::{DownFrame, KeepEntry, Start, UpFrame},
        ring::StripePoint,
        scheduler::{Class, Pacer, Turn},
    },
};

/// How a child's turn ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Served {
    /// It has nothing more to send, or nothing that it can take.
    Dry,
    /// It has more; others first.
    More,
    /// It has more; the uplink doesn't let so many bytes pass.
    Paced(usize),
}

impl<P: Payload> Stream<P> {
    /// The child of a feed, made on its first mention.
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
        let Some(child) = self.child(feed, cx) else { return };
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
            UpFrame::Promote { stripe, start, missing } => {
                if stripe >= STRIPES_MAX || matches!(start, Start::From(next) if next >= SEQ_MAX) {
                    cx.stats.offences += 1;
                    return;
                }
                child.asks.insert(stripe, Ask { start, missing });
                if child.live.contains(stripe) {
                    self.start_children(cx);
                } else {
                    cx.out.push_back(RelayOutput::PromoteAsked { feed, stripe });
                }
            }
            UpFrame::Want { stripe, ranges } => self.on_want(node, stripe, &ranges, cx),
            UpFrame::Ack { bytes, alive } => self.on_ack(node, bytes, alive, cx),
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
        for node in waiting {
            let Some(child) = self.children.get_mut(&node) else { continue };
            let before = child.asks.len();
            let stripes: Vec<Stripe> = child.asks.keys().copied().collect();
            let live = child.live;
            for stripe in stripes.into_iter().filter(|stripe| live.contains(*stripe)) {
                start_stripe(child, stripe, &self.flow, cx);
            }
            if child.asks.len() < before {
                self.keep(node, cx);
                self.queue(node, Class::Live, cx);
                self.queue(node, Class::Repair, cx);
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

    /// KEEPs, and the judgement of slow children.
    pub(crate) fn tick_children(&mut self, cx: &mut Ctx<'_, P>) {
        let nodes: Vec<NodeId> = self.children.keys().copied().collect();
        for node in nodes {
            let Some(child) = self.children.get(&node) else { continue };
            if child.up_at.is_none() {
                continue;
            }
            if keep_at(child, cx) <= cx.now {
                self.keep(node, cx);
            }
            self.judge_backlog(node, cx);
            let Some(child) = self.children.get(&node) else { continue };
            cx.wake.arm(keep_at(child, cx), RelayTimeout::Keep);
            if !child.ready.is_empty() {
                cx.wake.arm(cx.now + Duration::from_millis(100), RelayTimeout::Backlog);
            }
            if child.unacked() > 0 && child.stalled_at.is_none() {
                cx.wake.arm(child.drained_at + cx.config.stall_after, RelayTimeout::Backlog);
            }
        }
    }

    /// One turn of a child: its control frames, then as much of its class as fits.
    pub(crate) fn serve(
        &mut self,
        node: NodeId,
        class: Class,
        pacer: &mut Pacer,
        cx: &mut Ctx<'_, P>,
    ) -> Served {
        let Some(child) = self.children.get_mut(&node) else { return Served::Dry };
        child.leave(class);
        if child.up_at.is_none() {
            return Served::Dry;
        }
        let mut frames = std::mem::take(&mut child.control);
        let budget = if pacer.ceiling().is_some() { QUANTUM_BYTES } else { BATCH_BYTES_MAX };
        let mut batch = Batch { frames: &mut frames, bytes: 0, budget };
        let served = match class {
            Class::Control => Served::Dry,
            Class::Live => fill_live(child, &self.flow, &mut batch, pacer, cx),
            Class::Repair => fill_repair(child, &self.flow, &mut batch, pacer, cx),
        };
        let chunk_bytes = batch.bytes;
        if !frames.is_empty() {
            let control = frames_len(&frames) - chunk_bytes;
            cx.stats.control_bytes_out += control as u64;
            pacer.spend(control + BATCH_OVERHEAD, cx.now);
            child.sent_at = cx.now;
            cx.out.push_back(RelayOutput::Down { feed: child.feed, frames });
        }
        if child.unacked() > 0 {
            cx.wake.arm(child.drained_at + cx.config.stall_after, RelayTimeout::Backlog);
        }
        if !child.ready.is_empty() {
            cx.wake.arm(cx.now + cx.config.backlog_max / 4, RelayTimeout::Backlog);
        }
        cx.wake.arm(keep_at(child, cx), RelayTimeout::Keep);
        served
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
        if bytes > child.acked_bytes {
            child.acked_bytes = bytes;
            child.drained_at = cx.now;
            child.stalled_at = None;
        }
        if child.alive_at.is_none_or(|at| cx.now.since(at) >= Duration::from_secs(1)) {
            child.alive_at = Some(cx.now);
            cx.out.push_back(RelayOutput::ChildAlive { feed: child.feed, stripes: alive });
        }
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
        (child.kept_at, child.sent_at) = (cx.now, cx.now);
        self.queue(node, Class::Control, cx);
    }

    fn queue(&mut self, node: NodeId, class: Class, cx: &mut Ctx<'_, P>) {
        if let Some(child) = self.children.get_mut(&node)
            && child.up_at.is_some()
            && child.enter(class)
        {
            cx.turns.push(Turn { stream: self.id, child: node }, class);
        }
    }

    /// Takes stripes from a child that is too slow, one at a time; tells of one that is stuck.
    fn judge_backlog(&mut self, node: NodeId, cx: &mut Ctx<'_, P>) {
        let Some(child) = self.children.get_mut(&node) else { return };
        let stuck = child.unacked() > 0 && cx.now.since(child.drained_at) >= cx.config.stall_after;
        if stuck && child.stalled_at.is_none() {
            child.stalled_at = Some(cx.now);
            cx.stats.stalls += 1;
            cx.out.push_back(RelayOutput::Stalled { feed: child.feed });
        }
        if child.shed_at.is_some_and(|at| cx.now.since(at) < cx.config.shed_grace) {
            return;
        }
        let slow = (0..STRIPES_MAX).rev().find(|stripe| is_behind(child, *stripe, &self.flow, cx));
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

/// What the transport adds to a write: frames and tags of the secured, multiplexed connection.
const BATCH_OVERHEAD: usize = 48;

/// What a turn has collected.
struct Batch<'a, P> {
    frames: &'a mut Vec<DownFrame<P>>,
    bytes: usize,
    budget: usize,
}

/// When a child is due a KEEP.
fn keep_at<P>(child: &Child<P>, cx: &Ctx<'_, P>) -> crate::time::Timestamp {
    (child.sent_at + cx.config.keep_idle).min(child.kept_at + cx.config.keep_interval)
}

/// Starts a stripe as the child asked; leaves the ask where it is if that cannot be done yet.
fn start_stripe<P: Payload>(
    child: &mut Child<P>,
    stripe: Stripe,
    flow: &Flow<P>,
    cx: &mut Ctx<'_, P>,
) {
    let Some(first) = flow.first_point(stripe) else { return };
    let Some(ask) = child.asks.get(&stripe) else { return };
    let begin = match ask.start {
        Start::Live => {
            let Some(keyframe) = flow.newest_keyframe(first.seq) else { return };
            let before = flow.ring.last_held(stripe, u64::MAX, keyframe);
            let stripe_seq = before.map_or(first.stripe_seq, |last| last.stripe_seq + 1);
            StripePoint { stripe_seq: stripe_seq.max(first.stripe_seq), seq: keyframe }
        }
        Start::From(next) if next <= first.stripe_seq => first,
        Start::From(next) => {
            let before = flow.ring.last_held(stripe, next, u64::MAX);
            let seq = before.map_or(first.seq, |last| last.seq + 1);
            StripePoint { stripe_seq: next, seq }
        }
    };
    let Some(ask) = child.asks.remove(&stripe) else { return };
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
    for (from, to) in ask.missing.into_iter().filter(|(from, to)| from <= to && *to < SEQ_MAX) {
        cx.stats.ranges_dropped += child.want(stripe, from, to);
    }
    let cursor = Cursor { next: begin.stripe_seq, since: cx.now, caught_up: false };
    child.cursors[usize::from(stripe)] = Some(cursor);
    child.ready.insert(stripe);
}

/// Puts live chunks into the batch, lowest `seq` of all stripes first.
fn fill_live<P: Payload>(
    child: &mut Child<P>,
    flow: &Flow<P>,
    batch: &mut Batch<'_, P>,
    pacer: &mut Pacer,
    cx: &mut Ctx<'_, P>,
) -> Served {
    let window = child.window(flow.rate(), flow.k());
    loop {
        let mut next: Option<(u64, Stripe)> = None;
        for stripe in child.ready.iter() {
            match next_live(child, stripe, flow, batch, cx) {
                Some(seq) if next.is_none_or(|(lowest, _)| seq < lowest) => {
                    next = Some((seq, stripe));
                }
                Some(_) => {}
                None => child.ready.remove(stripe),
            }
        }
        let Some((seq, stripe)) = next else { return Served::Dry };
        let Some(held) = flow.ring.get(seq) else { return Served::Dry };
        match fits(child, held.chunk.wire_len(), window, batch, pacer, cx) {
            Ok(()) => {}
            Err(served) => return served,
        }
        push(child, &held.chunk, batch, pacer, cx);
        cx.stats.live_chunks_out += 1;
        cx.stats.live_bytes_out += held.chunk.wire_len() as u64;
        if let Some(cursor) = &mut child.cursors[usize::from(stripe)] {
            cursor.next += 1;
        }
    }
}

/// The `seq` of the stripe's next chunk to send. Passes over what isn't here: what may still come
/// is remembered for repair, the rest is a GAP.
fn next_live<P: Payload>(
    child: &mut Child<P>,
    stripe: Stripe,
    flow: &Flow<P>,
    batch: &mut Batch<'_, P>,
    cx: &mut Ctx<'_, P>,
) -> Option<u64> {
    let cursor = child.cursors[usize::from(stripe)]?;
    let end = flow.ring.stripe_end(stripe).unwrap_or(0);
    let mut next = cursor.next;
    let mut lost: Option<(u64, u64)> = None;
    let mut owed: Option<(u64, u64)> = None;
    let mut found = None;
    // What lies below the floor is judged by `is_behind`; it is never walked through here.
    let floor = flow.ring.stripe_floor(stripe).stripe_seq;
    if next < floor {
        lost = Some((next, floor - 1));
        next = floor;
    }
    while next < end {
        found = flow.ring.seq_of(stripe, next);
        if found.is_some() {
            break;
        }
        let run =
            if flow.stripes[usize::from(stripe)].is_awaited(next) { &mut owed } else { &mut lost };
        match run {
            Some((_, to)) if *to + 1 == next => *to = next,
            Some(_) | None => {
                if let Some((from, to)) = run.replace((next, next)) {
                    settle(child, stripe, (from, to), flow, batch, cx);
                }
            }
        }
        next += 1;
    }
    for range in [owed, lost].into_iter().flatten() {
        settle(child, stripe, range, flow, batch, cx);
    }
    if let Some(cursor) = &mut child.cursors[usize::from(stripe)] {
        cursor.next = next;
        cursor.caught_up |= found.is_none();
    }
    found
}

/// A run that a cursor passes over: owed if it may still come, else a GAP.
fn settle<P: Payload>(
    child: &mut Child<P>,
    stripe: Stripe,
    (from, to): (u64, u64),
    flow: &Flow<P>,
    batch: &mut Batch<'_, P>,
    cx: &mut Ctx<'_, P>,
) {
    if flow.stripes[usize::from(stripe)].is_awaited(from) {
        cx.stats.ranges_dropped += child.want(stripe, from, to);
    } else {
        cx.stats.gaps_out += 1;
        batch.frames.push(DownFrame::Gap { stripe, from, to });
    }
}

/// Puts wanted chunks into the batch, oldest first; what can never be had is a GAP.
fn fill_repair<P: Payload>(
    child: &mut Child<P>,
    flow: &Flow<P>,
    batch: &mut Batch<'_, P>,
    pacer: &mut Pacer,
    cx: &mut Ctx<'_, P>,
) -> Served {
    // Half the window stays free for live chunks.
    let window = child.window(flow.rate(), flow.k()) / 2;
    let stripes: Vec<Stripe> = child.wants.keys().copied().collect();
    for stripe in stripes {
        let incoming = &flow.stripes[usize::from(stripe)];
        let mut at = 0;
        while let Some(wanted) = child.wants.get(&stripe).and_then(|wants| wants.next_from(at)) {
            at = wanted + 1;
            let held = flow.ring.seq_of(stripe, wanted).and_then(|seq| flow.ring.get(seq));
            let Some(held) = held else {
                if incoming.is_awaited(wanted) {
                    continue;
                }
                let to = lost_until(child, stripe, wanted, flow);
                for number in wanted..=to {
                    forget_want(child, stripe, number);
                }
                cx.stats.gaps_out += 1;
                batch.frames.push(DownFrame::Gap { stripe, from: wanted, to });
                continue;
            };
            match fits(child, held.chunk.wire_len(), window, batch, pacer, cx) {
                Ok(()) => {}
                Err(served) => return served,
            }
            push(child, &held.chunk, batch, pacer, cx);
            cx.stats.repair_chunks_out += 1;
            cx.stats.repair_bytes_out += held.chunk.wire_len() as u64;
            forget_want(child, stripe, wanted);
        }
    }
    Served::Dry
}

/// The end of a wanted run of which nothing can be had.
fn lost_until<P: Payload>(child: &Child<P>, stripe: Stripe, from: u64, flow: &Flow<P>) -> u64 {
    let end = child.wants.get(&stripe).and_then(|wants| wants.run_end(from)).unwrap_or(from);
    let incoming = &flow.stripes[usize::from(stripe)];
    let gone =
        |number: &u64| flow.ring.seq_of(stripe, *number).is_none() && !incoming.is_awaited(*number);
    (from..=end).take_while(gone).last().unwrap_or(from)
}

fn forget_want<P>(child: &mut Child<P>, stripe: Stripe, stripe_seq: u64) {
    if let Some(wants) = child.wants.get_mut(&stripe) {
        wants.remove(stripe_seq);
        if wants.is_empty() {
            child.wants.remove(&stripe);
        }
    }
}

/// Whether a chunk may go now: window, uplink, turn.
fn fits<P>(
    child: &Child<P>,
    len: usize,
    window: u64,
    batch: &Batch<'_, P>,
    pacer: &mut Pacer,
    cx: &Ctx<'_, P>,
) -> Result<(), Served> {
    let unacked = child.unacked();
    if unacked > 0 && unacked + len as u64 > window {
        return Err(Served::Dry);
    }
    if batch.bytes > 0 && batch.bytes + len > batch.budget {
        return Err(Served::More);
    }
    if pacer.allows(len, cx.now) { Ok(()) } else { Err(Served::Paced(len)) }
}

fn push<P: Payload>(
    child: &mut Child<P>,
    chunk: &P,
    batch: &mut Batch<'_, P>,
    pacer: &mut Pacer,
    cx: &Ctx<'_, P>,
) {
    let len = chunk.wire_len();
    pacer.spend(len, cx.now);
    if child.unacked() == 0 {
        child.drained_at = cx.now;
    }
    child.sent_bytes += len as u64;
    batch.bytes += len;
    batch.frames.push(DownFrame::Chunk(chunk.clone()));
}

/// Whether a child is too slow for a stripe: its next chunk has waited too long, or has left the
/// ring, or catching up takes for ever.
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
    let patience = if cursor.caught_up { cx.config.backlog_max } else { cx.config.catch_up_max };
    waited > patience
}
