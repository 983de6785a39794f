//! A child's turn: what is put into one batch for it.
//!
//! Owns the choice of chunks under the child's window and the uplink's ceiling. Does not own whose
//! turn it is (see `media::scheduler`).

use super::{
    child::Child,
    config::{BATCH_BYTES_MAX, BATCH_OVERHEAD, QUANTUM_BYTES},
    downstream::keep_at,
    flow::Flow,
    output::{RelayOutput, RelayTimeout, frames_len},
    stream::{Ctx, Stream},
};
use crate::{
    ids::{NodeId, Stripe},
    media::{chunk::Payload, frame::DownFrame, scheduler::Class},
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
    /// One turn of a child: its control frames, then as much of its class as fits.
    pub(crate) fn serve(&mut self, node: NodeId, class: Class, cx: &mut Ctx<'_, P>) -> Served {
        let Some(child) = self.children.get_mut(&node) else { return Served::Dry };
        child.leave(class);
        if child.up_at.is_none() {
            return Served::Dry;
        }
        let mut frames = std::mem::take(&mut child.control);
        let budget = if cx.pacer.ceiling().is_some() { QUANTUM_BYTES } else { BATCH_BYTES_MAX };
        let mut batch = Batch { frames: &mut frames, bytes: 0, budget };
        let served = match class {
            Class::Control => Served::Dry,
            Class::Live => fill_live(child, &self.flow, &mut batch, cx),
            Class::Repair => fill_repair(child, &self.flow, &mut batch, cx),
        };
        let chunk_bytes = batch.bytes;
        if !frames.is_empty() {
            let control = frames_len(&frames) - chunk_bytes;
            child.handed_bytes += (control + chunk_bytes) as u64;
            cx.stats.control_bytes_out += control as u64;
            cx.pacer.spend(control + BATCH_OVERHEAD, cx.now);
            child.sent_at = cx.now;
            cx.out.push_back(RelayOutput::Down { feed: child.feed, frames });
        }
        cx.wake.arm(child.doubtful_at(cx.config), RelayTimeout::Backlog);
        if !child.ready.is_empty() {
            cx.wake.arm(cx.now + cx.config.backlog_max / 4, RelayTimeout::Backlog);
        }
        cx.wake.arm(keep_at(child, cx.config), RelayTimeout::Keep);
        served
    }
}

/// What a turn has collected.
struct Batch<'a, P> {
    frames: &'a mut Vec<DownFrame<P>>,
    bytes: usize,
    budget: usize,
}

/// Puts live chunks into the batch, lowest `seq` of all stripes first.
fn fill_live<P: Payload>(
    child: &mut Child<P>,
    flow: &Flow<P>,
    batch: &mut Batch<'_, P>,
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
        match fits(child, held.chunk.wire_len(), window, batch, cx) {
            Ok(()) => {}
            Err(served) => {
                child.held_up |= served == Served::Dry;
                return served;
            }
        }
        push(child, &held.chunk, batch, cx);
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
    cx: &mut Ctx<'_, P>,
) -> Served {
    // A quarter of the window stays free for live chunks.
    let window = child.window(flow.rate(), flow.k()) / 4 * 3;
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
            match fits(child, held.chunk.wire_len(), window, batch, cx) {
                Ok(()) => {}
                Err(served) => return served,
            }
            push(child, &held.chunk, batch, cx);
            cx.stats.repair_chunks_out += 1;
            cx.stats.repair_bytes_out += held.chunk.wire_len() as u64;
            forget_want(child, stripe, wanted);
        }
    }
    child.is_resuming &= !child.wants.is_empty();
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
    cx: &mut Ctx<'_, P>,
) -> Result<(), Served> {
    let unacked = child.unacked();
    if unacked > 0 && unacked + len as u64 > window {
        return Err(Served::Dry);
    }
    if batch.bytes > 0 && batch.bytes + len > batch.budget {
        return Err(Served::More);
    }
    if cx.pacer.allows(len, cx.now) { Ok(()) } else { Err(Served::Paced(len)) }
}

fn push<P: Payload>(
    child: &mut Child<P>,
    chunk: &P,
    batch: &mut Batch<'_, P>,
    cx: &mut Ctx<'_, P>,
) {
    let len = chunk.wire_len();
    cx.pacer.spend(len, cx.now);
    if child.unacked() == 0 {
        child.drained_at = cx.now;
    }
    child.sent_bytes += len as u64;
    batch.bytes += len;
    batch.frames.push(DownFrame::Chunk(chunk.clone()));
}
