//! Nodes that carry the stream too and are not parents: what is known of each, and what is asked.
//!
//! Owns the questions under way and the judgement of answers. Does not own what is missing (see
//! `pull`) nor what is answered to others (see `answer`).
//!
//! **A neighbour has at most one question of ours at a time. No chunk is asked of two at once.**

use std::{collections::BTreeMap, time::Duration};

use super::config::{NEIGHBOURS_MAX, RANGES_MAX, RelayConfig};
use crate::{
    ids::{NodeId, Stripe},
    media::{
        ranges::RangeSet,
        repair::{HaveEntry, RepairHave},
    },
    time::Timestamp,
};

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Neighbours {
    known: BTreeMap<NodeId, Neighbour>,
    /// Turns the order in which they are asked.
    turn: usize,
    /// Stripes that no parent brings, and when their next chunks are asked for.
    pulled: BTreeMap<Stripe, Timestamp>,
}

#[derive(Clone, Debug, Default)]
struct Neighbour {
    asked: Option<Question>,
    have: Option<(Timestamp, RepairHave)>,
    /// It is left alone until then.
    rest_until: Timestamp,
    /// Answers in a row that were none, or brought nothing.
    vain: u32,
}

/// What a neighbour was asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Question {
    pub(crate) stripe: Stripe,
    pub(crate) ranges: Vec<(u64, u64)>,
    /// No answer comes any more.
    pub(crate) until: Timestamp,
}

/// A stripe that lives on neighbours is asked for this often: what comes late by that much costs no
/// player anything, and asking for single chunks costs more than they do.
const PULL_EVERY: Duration = Duration::from_millis(100);
/// How long a neighbour that had nothing is left alone at first; twice as long each time.
const REST: Duration = Duration::from_millis(250);
/// The longest that it is left alone.
const REST_MAX: Duration = Duration::from_secs(8);
/// What a neighbour said of its ring is believed for so long; rings move on.
const HAVE_FRESH: Duration = Duration::from_secs(1);

impl Neighbours {
    /// Who may be asked from now on, best first; what is known of those who stay is kept.
    pub(crate) fn set(&mut self, nodes: &[NodeId]) {
        let nodes = nodes.iter().take(NEIGHBOURS_MAX);
        self.known =
            nodes.map(|node| (*node, self.known.remove(node).unwrap_or_default())).collect();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// The epoch is over: numbers start again.
    pub(crate) fn restart(&mut self) {
        self.pulled.clear();
        for neighbour in self.known.values_mut() {
            *neighbour = Neighbour::default();
        }
    }

    /// Those who can be asked now, each time in another order.
    pub(crate) fn idle(&mut self, now: Timestamp) -> Vec<NodeId> {
        for neighbour in self.known.values_mut() {
            if neighbour.asked.as_ref().is_some_and(|question| question.until <= now) {
                neighbour.rest(now);
            }
        }
        let mut idle: Vec<NodeId> = self
            .known
            .iter()
            .filter(|(_, neighbour)| neighbour.asked.is_none() && neighbour.rest_until <= now)
            .map(|(node, _)| *node)
            .collect();
        if !idle.is_empty() {
            let turn = self.turn % idle.len();
            idle.rotate_left(turn);
            self.turn = self.turn.wrapping_add(1);
        }
        idle
    }

    /// What is on its way of a stripe.
    pub(crate) fn busy(&self, stripe: Stripe) -> RangeSet {
        let mut busy = RangeSet::new(NEIGHBOURS_MAX * RANGES_MAX);
        let asked = self.known.values().filter_map(|neighbour| neighbour.asked.as_ref());
        for &(from, to) in asked.filter(|of| of.stripe == stripe).flat_map(|of| &of.ranges) {
            busy.insert(from, to);
        }
        busy
    }

    /// Whether a neighbour may have a chunk, as far as it said.
    pub(crate) fn may_have(
        &self,
        node: NodeId,
        stripe: Stripe,
        number: u64,
        now: Timestamp,
    ) -> bool {
        let Some((at, have)) = self.known.get(&node).and_then(|known| known.have.as_ref()) else {
            return true;
        };
        let Some(entry) = entry(have, stripe) else { return false };
        let fresh = now.since(*at) < HAVE_FRESH;
        // Rings lose their old chunks for good; new ones they may have got since.
        entry.floor <= number && (number < entry.end || !fresh)
    }

    /// Whether some neighbour's ring spans these.
    pub(crate) fn spans(&self, stripe: Stripe, from: u64, to: u64, now: Timestamp) -> bool {
        self.known.values().any(|neighbour| {
            neighbour.have.as_ref().is_some_and(|(at, have)| {
                let spans = |of: HaveEntry| of.floor <= to && of.end > from;
                now.since(*at) < REST_MAX && entry(have, stripe).is_some_and(spans)
            })
        })
    }

    pub(crate) fn ask(&mut self, node: NodeId, question: Question) {
        if let Some(neighbour) = self.known.get_mut(&node) {
            neighbour.asked = Some(question);
        }
    }

    /// An answer came, with so many chunks that were of use. The question, if it was one.
    pub(crate) fn answered(
        &mut self,
        node: NodeId,
        have: RepairHave,
        useful: usize,
        now: Timestamp,
    ) -> Option<Question> {
        let neighbour = self.known.get_mut(&node)?;
        let question = neighbour.asked.take();
        neighbour.have = Some((now, have));
        if useful == 0 {
            neighbour.rest(now);
        } else {
            neighbour.vain = 0;
        }
        question
    }

    /// No answer came, or one that nobody can read.
    pub(crate) fn failed(&mut self, node: NodeId, now: Timestamp) {
        if let Some(neighbour) = self.known.get_mut(&node) {
            neighbour.rest(now);
        }
    }

    /// A stripe stands still, or did and still lives on neighbours; whether to ask for more now.
    pub(crate) fn pull(&mut self, stripe: Stripe, stands_still: bool, now: Timestamp) -> bool {
        let due = match self.pulled.get(&stripe) {
            Some(at) => *at <= now,
            None => stands_still,
        };
        if due {
            self.pulled.insert(stripe, now + PULL_EVERY);
        }
        due
    }

    /// A parent brings the stripe again.
    pub(crate) fn brought(&mut self, stripe: Stripe) {
        self.pulled.remove(&stripe);
    }

    /// When a stripe that lives on neighbours is asked for next.
    pub(crate) fn pull_at(&self) -> Timestamp {
        self.pulled.values().min().copied().unwrap_or(Timestamp::NEVER)
    }

    /// When a neighbour can be asked that can't be now.
    pub(crate) fn next_at(&self, now: Timestamp) -> Timestamp {
        let at = |neighbour: &Neighbour| match &neighbour.asked {
            Some(question) => question.until,
            None => neighbour.rest_until,
        };
        let later = self.known.values().map(at).filter(|at| *at > now);
        later.min().unwrap_or(Timestamp::NEVER)
    }
}

impl Neighbour {
    fn rest(&mut self, now: Timestamp) {
        self.asked = None;
        let rest = REST.saturating_mul(1 << self.vain.min(5)).min(REST_MAX);
        self.vain = self.vain.saturating_add(1);
        self.rest_until = now + rest;
    }
}

impl Question {
    /// A question that is given up when its answer is worth nothing.
    pub(crate) fn new(
        stripe: Stripe,
        ranges: Vec<(u64, u64)>,
        config: &RelayConfig,
        now: Timestamp,
    ) -> Self {
        // The way there and back comes on top of what the neighbour may take.
        Self { stripe, ranges, until: now + config.repair_deadline * 2 }
    }
}

fn entry(have: &RepairHave, stripe: Stripe) -> Option<HaveEntry> {
    have.stripes.iter().copied().find(|entry| entry.stripe == stripe)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId([1; 32]);
    const B: NodeId = NodeId([2; 32]);

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    fn have(floor: u64, end: u64) -> RepairHave {
        RepairHave { epoch: 1, stripes: vec![HaveEntry { stripe: 0, floor, end }] }
    }

    #[test]
    fn who_has_nothing_is_left_alone_ever_longer_and_asked_again_at_last() {
        let mut all = Neighbours::default();
        all.set(&[A]);
        let mut now = at(0);
        let mut waits = Vec::new();
        for _ in 0..8 {
            assert_eq!(all.idle(now), [A]);
            all.answered(A, have(0, 9), 0, now);
            assert!(all.idle(now).is_empty());
            let next = all.next_at(now);
            waits.push(next.since(now));
            now = next;
        }
        assert!(waits.is_sorted());
        assert_eq!((waits[0], waits[7]), (REST, REST_MAX));
        all.answered(A, have(0, 9), 3, now);
        assert_eq!(all.idle(now), [A], "one that gave something is asked again at once");
    }

    #[test]
    fn a_question_without_answer_is_forgotten_in_time() {
        let mut all = Neighbours::default();
        all.set(&[A, B]);
        let config = RelayConfig::default();
        all.ask(A, Question::new(0, vec![(3, 9)], &config, at(0)));
        assert_eq!(all.idle(at(1)), [B]);
        assert!(all.busy(0).covers(3, 9) && all.busy(1).is_empty());
        let later = at(0) + config.repair_deadline * 2;
        assert_eq!(all.idle(later), [B], "it rests for its silence");
        assert!(all.busy(0).is_empty());
    }

    #[test]
    fn what_a_ring_spans_is_believed_for_a_while() {
        let mut all = Neighbours::default();
        all.set(&[A]);
        assert!(all.may_have(A, 0, 7, at(0)), "nobody knows yet");
        all.answered(A, have(5, 20), 1, at(0));
        let asks = [(4, false), (5, true), (19, true), (20, false)];
        for (number, expected) in asks {
            assert_eq!(all.may_have(A, 0, number, at(10)), expected, "{number}");
        }
        assert!(all.may_have(A, 0, 20, at(2_000)), "it may have come since");
        assert!(!all.may_have(A, 0, 4, at(2_000)), "it will not come back");
        assert!(!all.may_have(A, 1, 7, at(10)));
        assert!(all.spans(0, 18, 25, at(10)) && !all.spans(0, 0, 4, at(10)));
    }

    #[test]
    fn neighbours_are_bounded_and_those_who_stay_are_remembered() {
        let mut all = Neighbours::default();
        let many: Vec<NodeId> = (0..40).map(|n| NodeId([n; 32])).collect();
        all.set(&many);
        assert_eq!(all.idle(at(0)).len(), NEIGHBOURS_MAX);
        all.set(&[A]);
        all.failed(A, at(0));
        all.set(&[A, B]);
        assert_eq!(all.idle(at(1)), [B]);
    }
}
