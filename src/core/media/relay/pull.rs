//! Repair from neighbours: what is missing and who is asked for it.
//!
//! Owns the choice. Does not own the parents' part (see `gaps`) nor what neighbours are (see
//! `neighbours`).
//!
//! Two things are asked of neighbours: chunks missing before others that came, unless the parent is
//! at it; and what comes next on a stripe that stands still while its parent is there, has gone or
//! is starved itself. A stripe without a parent is kept alive by that alone.

use std::time::Duration;

use super::{
    config::{ASK_CHUNKS_MAX, NEIGHBOURS_MAX, RelayConfig, SEQ_MAX},
    flow::{Arrival, Flow},
    input::StreamRole,
    neighbours::Question,
    output::{RelayOutput, RelayTimeout},
    parent::Parent,
    stream::{Ctx, Stream},
    upstream::send_up,
};
use crate::{
    ids::{NodeId, Stripe},
    media::{
        chunk::Payload,
        frame::{UpFrame, WANT_RANGES_MAX},
        ranges::RangeSet,
        repair::{RepairHave, RepairWant},
        stripe::Gap,
    },
    time::Timestamp,
};

/// Chunks at the front of a large gap that are left to the parent who owes them: what it sends in
/// the time that a neighbour needs to answer.
const PARENT_PART: u64 = 8;
/// Chunks ahead that are asked for of a stripe that no parent brings, of all neighbours together.
const PULL_CHUNKS: u64 = ASK_CHUNKS_MAX * NEIGHBOURS_MAX as u64;
/// The next look at stripes that live on neighbours is never sooner.
const PULL_SOONEST: Duration = Duration::from_millis(10);
/// Chunks of a gap that are looked at in one turn.
const LOOKED_AT_MAX: usize = 512;

/// What a stripe lacks and neighbours may be asked for.
struct Lack {
    stripe: Stripe,
    /// `seq` before the first missing chunk: what is older is more urgent.
    after_seq: u64,
    ranges: Vec<(u64, u64)>,
}

impl<P: Payload> Stream<P> {
    /// Asks every idle neighbour for something that is missing, oldest first.
    pub(crate) fn ask_neighbours(&mut self, cx: &mut Ctx<'_, P>) {
        let Some(epoch) = self.flow.epoch() else { return };
        if self.neighbours.is_empty() || self.flow.role == StreamRole::Source {
            return;
        }
        let lacks = self.lacks(cx.config, cx.now);
        if !lacks.is_empty() {
            for node in self.neighbours.idle(cx.now) {
                if self.parents.get(&node).is_some_and(|parent| parent.up_at.is_some()) {
                    // Its feed is the shorter way.
                    continue;
                }
                let question = lacks.iter().find_map(|lack| self.question(node, lack, cx));
                let Some(question) = question else { continue };
                let want = RepairWant {
                    stream: self.id,
                    epoch,
                    stripe: question.stripe,
                    deadline_ms: u32::try_from(cx.config.repair_deadline.as_millis())
                        .unwrap_or(u32::MAX),
                    ranges: question.ranges.clone(),
                };
                cx.stats.neighbour_wants_out += 1;
                cx.stats.control_bytes_out += want.wire_len() as u64;
                cx.pacer.spend(want.wire_len(), cx.now);
                self.neighbours.ask(node, question);
                cx.out.push_back(RelayOutput::RepairWant { to: node, want });
            }
            cx.wake.arm(self.neighbours.next_at(cx.now), RelayTimeout::Repair);
        }
        cx.wake.arm(self.stands_still_at(cx), RelayTimeout::Repair);
    }

    /// Chunks that a neighbour sent; verified by the driver.
    pub(crate) fn on_repair(
        &mut self,
        node: NodeId,
        have: RepairHave,
        chunks: Vec<P>,
        cx: &mut Ctx<'_, P>,
    ) {
        let same_epoch = self.flow.epoch() == Some(have.epoch);
        let mut fresh: Vec<(Stripe, u64)> = Vec::new();
        for chunk in chunks {
            let header = *chunk.header();
            cx.stats.neighbour_bytes_in += chunk.wire_len() as u64;
            match self.take_chunk(chunk, cx) {
                Arrival::New(_) => {
                    cx.stats.neighbour_chunks_in += 1;
                    fresh.push((header.stripe, header.stripe_seq));
                }
                Arrival::Duplicate => cx.stats.neighbour_duplicates += 1,
                Arrival::OtherEpoch => cx.stats.other_epoch += 1,
                Arrival::Offence(_) => cx.stats.offences += 1,
            }
        }
        let have = if same_epoch { have } else { RepairHave::default() };
        self.neighbours.answered(node, have, fresh.len(), cx.now);
        self.cancel(&fresh, cx);
        self.ask_neighbours(cx);
    }

    /// A neighbour did not answer, or not as it should.
    pub(crate) fn on_repair_failed(&mut self, node: NodeId, cx: &mut Ctx<'_, P>) {
        self.neighbours.failed(node, cx.now);
        self.ask_neighbours(cx);
    }

    /// Tells the parents what they need not repair any more.
    fn cancel(&self, fresh: &[(Stripe, u64)], cx: &mut Ctx<'_, P>) {
        for stripe in 0..self.flow.k() {
            let mut came = RangeSet::new(WANT_RANGES_MAX);
            for (_, number) in fresh.iter().filter(|(of, _)| *of == stripe) {
                came.insert(*number, *number);
            }
            let live = self.flow.stripes[usize::from(stripe)].parent;
            let parent = live.and_then(|node| self.parents.get(&node));
            let Some(parent) = parent.filter(|parent| parent.up_at.is_some()) else { continue };
            if !came.is_empty() && parent.epoch == self.flow.epoch() {
                let ranges = came.iter().collect();
                send_up(parent.feed, UpFrame::Cancel { stripe, ranges }, cx);
            }
        }
    }

    /// What is missing and nobody seems to bring, most urgent first.
    fn lacks(&mut self, config: &RelayConfig, now: Timestamp) -> Vec<Lack> {
        let mut lacks = Vec::new();
        for stripe in 0..self.flow.k() {
            let since = self.stands_still_since(stripe);
            let stands_still = since.is_some_and(|at| at + config.starve_after <= now);
            if since.is_none() {
                // Paused, ended or not begun: nothing is to be pulled.
                self.neighbours.brought(stripe);
            }
            let pull = since.is_some() && self.neighbours.pull(stripe, stands_still, now);
            let incoming = &self.flow.stripes[usize::from(stripe)];
            if incoming.start.is_none() {
                continue;
            }
            let parent = incoming.parent.and_then(|node| self.parents.get(&node));
            let parent = parent.filter(|parent| parent.up_at.is_some() && !parent.is_silent());
            let gaps = incoming.gaps().iter();
            let mut ranges: Vec<(u64, u64)> = gaps
                .filter_map(|gap| part_of_neighbours(gap, stripe, parent, config, now))
                .collect();
            if pull {
                let end = incoming.end();
                ranges.push((end, end.saturating_add(PULL_CHUNKS - 1).min(SEQ_MAX - 1)));
            }
            if let Some((first, _)) = ranges.first() {
                let before = self.flow.ring.last_held(stripe, *first, u64::MAX);
                let after_seq = before.map_or(0, |point| point.seq);
                lacks.push(Lack { stripe, after_seq, ranges });
            }
        }
        lacks.sort_by_key(|lack| (lack.after_seq, lack.stripe));
        lacks
    }

    /// What to ask a neighbour of a lack; `None` if it has nothing of it, or all is on its way.
    fn question(&self, node: NodeId, lack: &Lack, cx: &Ctx<'_, P>) -> Option<Question> {
        let busy = self.neighbours.busy(lack.stripe);
        let mut wanted = RangeSet::new(WANT_RANGES_MAX);
        let numbers = lack.ranges.iter().flat_map(|(from, to)| *from..=*to).take(LOOKED_AT_MAX);
        for number in numbers {
            let here = self.flow.ring.seq_of(lack.stripe, number).is_some();
            if here
                || busy.contains(number)
                || !self.neighbours.may_have(node, lack.stripe, number, cx.now)
            {
                continue;
            }
            if !wanted.insert(number, number) || wanted.count() >= ASK_CHUNKS_MAX {
                break;
            }
        }
        let ranges: Vec<(u64, u64)> = wanted.iter().collect();
        (!ranges.is_empty()).then(|| Question::new(lack.stripe, ranges, cx.config, cx.now))
    }

    /// When the newest chunk of a stripe came, if more of it can be expected.
    fn stands_still_since(&self, stripe: Stripe) -> Option<Timestamp> {
        let flow: &Flow<P> = &self.flow;
        let incoming = &flow.stripes[usize::from(stripe)];
        if flow.paused || flow.end_seq.is_some_and(|end| incoming.passed() > end) {
            return None;
        }
        let start = incoming.start?;
        let head = flow.ring.stripe_head(stripe);
        let head = head.filter(|(number, _)| *number >= start.stripe_seq);
        head.map(|(_, held)| held.at)
    }

    /// When a stripe will have stood still for too long.
    fn stands_still_at(&self, cx: &Ctx<'_, P>) -> Timestamp {
        let since = (0..self.flow.k()).filter_map(|stripe| self.stands_still_since(stripe));
        let at = since.min().map_or(Timestamp::NEVER, |since| since + cx.config.starve_after);
        // Those that do already are asked for again in this rhythm.
        let pull_at = self.neighbours.pull_at().max(cx.now + PULL_SOONEST);
        at.max(cx.now + cx.config.gap_patience).min(pull_at)
    }
}

/// What of a gap neighbours are asked for.
fn part_of_neighbours(
    gap: &Gap,
    stripe: Stripe,
    parent: Option<&Parent>,
    config: &RelayConfig,
    now: Timestamp,
) -> Option<(u64, u64)> {
    let owed = parent.is_some_and(|parent| !parent.denies(stripe, gap.from, gap.to));
    if !owed || now.since(gap.filled_at) >= config.gap_patience {
        return Some((gap.from, gap.to));
    }
    // The parent brings it, oldest first. Where that is much, the rest comes from elsewhere.
    let from = gap.from.saturating_add(PARENT_PART);
    (from <= gap.to).then_some((from, gap.to))
}
