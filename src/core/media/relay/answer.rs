//! What neighbours ask of this node, and what they get.
//!
//! Owns the questions that wait for the uplink and the stream's own rate for them. Does not own the
//! turns of children: a neighbour is served when no child, live or repair, has anything to send.

use std::{collections::VecDeque, time::Duration};

use super::{
    config::{ANSWER_BYTES, BATCH_OVERHEAD, QUESTIONS_MAX, SEQ_MAX},
    input::AnswerId,
    output::{RelayOutput, RelayTimeout},
    stream::{Ctx, Stream},
};
use crate::{
    ids::NodeId,
    media::{
        chunk::Payload,
        repair::{HaveEntry, RepairAnswer, RepairHave, RepairWant},
    },
    time::Timestamp,
    units::Bitrate,
};

/// Of a stream's rate, what all neighbours together get: half. Six of them then give one who lost
/// everything three times what the stream brings, and none is worth asking instead of a parent.
const SHARE_PERCENT: u64 = 50;
/// A question waits for its turn no longer than this, whatever it says.
const PATIENCE_MAX: Duration = Duration::from_secs(2);

/// The questions of neighbours.
#[derive(Clone, Debug)]
pub(crate) struct Questions {
    waiting: VecDeque<Waiting>,
    allowance: Allowance,
}

/// What neighbours may take: a rate, and one full answer at once.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    rate: Bitrate,
    bytes: u64,
    at: Timestamp,
}

#[derive(Clone, Debug)]
struct Waiting {
    from: NodeId,
    id: AnswerId,
    want: RepairWant,
    until: Timestamp,
}

/// What came of one look at a question.
enum Look<P> {
    Chunks(Vec<P>),
    /// Nothing that is wanted is here.
    Nothing,
    /// The uplink lets nothing pass before.
    NotBefore(Timestamp),
}

impl Questions {
    pub(crate) const fn new(now: Timestamp) -> Self {
        let allowance = Allowance { rate: Bitrate::ZERO, bytes: 0, at: now };
        Self { waiting: VecDeque::new(), allowance }
    }

    pub(crate) const fn set_rate(&mut self, rate: Bitrate, now: Timestamp) {
        let rate = rate.percent(SHARE_PERCENT);
        self.allowance = Allowance { rate, bytes: ANSWER_BYTES as u64, at: now };
    }
}

impl Allowance {
    fn allows(&mut self, bytes: usize, now: Timestamp) -> bool {
        let more = self.rate.bytes_in(now.since(self.at));
        if more > 0 {
            self.bytes = self.bytes.saturating_add(more).min(ANSWER_BYTES as u64);
            self.at = now;
        }
        self.bytes >= bytes as u64
    }

    const fn spend(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes as u64);
    }

    fn ready_at(&self, bytes: usize) -> Timestamp {
        if self.rate == Bitrate::ZERO {
            return Timestamp::NEVER;
        }
        let short = (bytes as u64).saturating_sub(self.bytes);
        self.at + self.rate.time_for(short) + Duration::from_millis(1)
    }
}

impl<P: Payload> Stream<P> {
    /// A neighbour asks.
    pub(crate) fn on_repair_asked(
        &mut self,
        from: NodeId,
        id: AnswerId,
        want: RepairWant,
        cx: &mut Ctx<'_, P>,
    ) {
        let waiting = &self.questions.waiting;
        let again = waiting.iter().any(|other| other.from == from);
        let wrong = Some(want.epoch) != self.flow.epoch() || want.stripe >= self.flow.k();
        if again || wrong || waiting.len() >= QUESTIONS_MAX {
            cx.stats.neighbour_wants_refused += 1;
            self.answer(from, id, Vec::new(), cx);
            return;
        }
        cx.stats.neighbour_wants_in += 1;
        let patience = Duration::from_millis(u64::from(want.deadline_ms)).min(PATIENCE_MAX);
        let until = cx.now + patience;
        self.questions.waiting.push_back(Waiting { from, id, want, until });
        cx.wake.arm(until, RelayTimeout::Repair);
    }

    pub(crate) fn has_questions(&self) -> bool {
        !self.questions.waiting.is_empty()
    }

    /// Answers what can be answered now.
    pub(crate) fn answer_questions(&mut self, cx: &mut Ctx<'_, P>) {
        for _ in 0..self.questions.waiting.len() {
            let Some(question) = self.questions.waiting.pop_front() else { return };
            match self.look(&question.want, cx) {
                Look::Chunks(chunks) => self.answer(question.from, question.id, chunks, cx),
                Look::Nothing => self.answer(question.from, question.id, Vec::new(), cx),
                Look::NotBefore(_) if question.until <= cx.now => {
                    cx.stats.neighbour_wants_refused += 1;
                    self.answer(question.from, question.id, Vec::new(), cx);
                }
                Look::NotBefore(at) => {
                    cx.wake.arm(at.min(question.until), RelayTimeout::Repair);
                    self.questions.waiting.push_back(question);
                }
            }
        }
    }

    /// Answers those that waited too long while children had the uplink.
    pub(crate) fn expire_questions(&mut self, cx: &mut Ctx<'_, P>) {
        let now = cx.now;
        let (late, rest): (VecDeque<Waiting>, VecDeque<Waiting>) =
            std::mem::take(&mut self.questions.waiting).into_iter().partition(|q| q.until <= now);
        self.questions.waiting = rest;
        for question in late {
            cx.stats.neighbour_wants_refused += 1;
            self.answer(question.from, question.id, Vec::new(), cx);
        }
        if let Some(until) = self.questions.waiting.iter().map(|question| question.until).min() {
            cx.wake.arm(until, RelayTimeout::Repair);
        }
    }

    fn look(&mut self, want: &RepairWant, cx: &mut Ctx<'_, P>) -> Look<P> {
        let mut chunks = Vec::new();
        let mut bytes = 0;
        let end = self.flow.ring.stripe_end(want.stripe).unwrap_or(0);
        let floor = self.flow.ring.stripe_floor(want.stripe).stripe_seq;
        let ranges = want.ranges.iter().filter(|(_, to)| *to < SEQ_MAX);
        let numbers =
            ranges.flat_map(|(from, to)| (*from).max(floor)..to.saturating_add(1).min(end));
        for number in numbers {
            let held = self.flow.ring.seq_of(want.stripe, number);
            let Some(held) = held.and_then(|seq| self.flow.ring.get(seq)) else { continue };
            let len = held.chunk.wire_len();
            if bytes > 0 && bytes + len > ANSWER_BYTES {
                break;
            }
            let own = &mut self.questions.allowance;
            if !own.allows(len, cx.now) || !cx.pacer.allows(len, cx.now) {
                if chunks.is_empty() {
                    return Look::NotBefore(own.ready_at(len).max(cx.pacer.ready_at(len)));
                }
                break;
            }
            own.spend(len);
            cx.pacer.spend(len, cx.now);
            bytes += len;
            chunks.push(held.chunk.clone());
        }
        if chunks.is_empty() { Look::Nothing } else { Look::Chunks(chunks) }
    }

    fn answer(&self, to: NodeId, id: AnswerId, chunks: Vec<P>, cx: &mut Ctx<'_, P>) {
        let bytes: usize = chunks.iter().map(Payload::wire_len).sum();
        cx.stats.neighbour_chunks_out += chunks.len() as u64;
        cx.stats.neighbour_bytes_out += bytes as u64;
        let answer = RepairAnswer { have: self.have(), chunks };
        // The chunks were paid for already.
        let rest = answer.wire_len() - bytes;
        cx.stats.control_bytes_out += rest as u64;
        cx.pacer.spend(rest + BATCH_OVERHEAD, cx.now);
        cx.out.push_back(RelayOutput::RepairAnswer { to, id, answer });
    }

    fn have(&self) -> RepairHave {
        let Some(epoch) = self.flow.epoch() else { return RepairHave::default() };
        let stripes = (0..self.flow.k())
            .filter_map(|stripe| {
                let floor = self.flow.ring.stripe_floor(stripe).stripe_seq;
                let end = self.flow.ring.stripe_end(stripe)?;
                (floor < end).then_some(HaveEntry { stripe, floor, end })
            })
            .collect();
        RepairHave { epoch, stripes }
    }
}
