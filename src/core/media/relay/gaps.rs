//! Gaps: who is asked for what is missing, and when it is given up.
//!
//! Owns WANT. Does not own where a gap is seen (see `media::stripe`).

use super::{
    config::WANTED_MAX,
    output::RelayTimeout,
    stream::{Ctx, Stream},
    upstream::send_up,
};
use crate::{
    ids::{NodeId, Stripe},
    media::{
        chunk::Payload,
        frame::{UpFrame, WANT_RANGES_MAX},
    },
};

impl<P: Payload> Stream<P> {
    /// Asks a parent for everything that it may have of what a stripe lacks.
    pub(crate) fn want(&mut self, node: NodeId, stripe: Stripe, cx: &mut Ctx<'_, P>) {
        let Some(parent) = self.parents.get(&node) else { return };
        let Some(incoming) = self.flow.stripes.get_mut(usize::from(stripe)) else { return };
        if parent.up_at.is_none() || parent.epoch != self.flow.cert.as_ref().map(|c| c.cert.epoch) {
            return;
        }
        let mut ranges = Vec::new();
        for gap in incoming.gaps_mut() {
            if ranges.len() < WANT_RANGES_MAX && !parent.denies(stripe, gap.from, gap.to) {
                gap.asked_at = Some(cx.now);
                ranges.push((gap.from, gap.to));
            }
        }
        let end = incoming.end();
        if let Some(claimed) = parent.stripes[usize::from(stripe)].claimed
            && incoming.start.is_some()
            && claimed >= end
            && ranges.len() < WANT_RANGES_MAX
        {
            ranges.push((end, claimed.min(end + WANTED_MAX)));
        }
        if !ranges.is_empty() {
            cx.stats.wants_out += 1;
            send_up(parent.feed, UpFrame::Want { stripe, ranges }, cx);
        }
    }

    /// Asks for gaps, and gives up those that nobody has.
    pub(crate) fn tick_gaps(&mut self, cx: &mut Ctx<'_, P>) {
        let mut given_up = 0;
        for stripe in 0..self.flow.k() {
            given_up += self.give_up_gaps(stripe, cx);
            self.ask_around(stripe, cx);
            let incoming = &self.flow.stripes[usize::from(stripe)];
            if !incoming.gaps().is_empty() {
                cx.wake.arm(cx.now + cx.config.gap_patience / 3, RelayTimeout::Gap);
            }
        }
        if given_up > 0 {
            cx.stats.given_up += given_up;
            self.pump_sinks(|_| true, cx);
        }
    }

    fn give_up_gaps(&mut self, stripe: Stripe, cx: &mut Ctx<'_, P>) -> u64 {
        let (config, now) = (cx.config, cx.now);
        let up = || self.parents.values().filter(|parent| parent.up_at.is_some());
        let known = up().next().is_some();
        let neighbours = &self.neighbours;
        let given_up = self.flow.stripes[usize::from(stripe)].give_up(&self.flow.ring, |gap| {
            let waited = now.since(gap.since);
            let denied = known
                && up().all(|parent| parent.denies(stripe, gap.from, gap.to))
                && !neighbours.spans(stripe, gap.from, gap.to, now);
            waited >= config.gap_give_up || (denied && waited >= config.gap_denied_max)
        });
        if given_up > 0 {
            self.settle_wants(stripe, cx);
        }
        given_up
    }

    /// Asks feeds, in turn, for gaps that the live parent does not seem to fill.
    fn ask_around(&mut self, stripe: Stripe, cx: &mut Ctx<'_, P>) {
        let epoch = self.flow.epoch();
        let incoming = &mut self.flow.stripes[usize::from(stripe)];
        let live = incoming.parent;
        let live_parent = live.and_then(|node| self.parents.get(&node));
        let mut nodes: Vec<NodeId> = self
            .parents
            .iter()
            .filter(|(_, parent)| parent.up_at.is_some() && parent.epoch == epoch)
            .map(|(node, _)| *node)
            .collect();
        if nodes.is_empty() || incoming.gaps().is_empty() {
            return;
        }
        let turn = self.ask_turn % nodes.len();
        nodes.rotate_left(turn);
        let mut asked: Vec<(NodeId, Vec<(u64, u64)>)> = Vec::new();
        for gap in incoming.gaps_mut() {
            let age = cx.now.since(gap.since);
            let owed = live_parent.is_some_and(|live| !live.denies(stripe, gap.from, gap.to));
            // As long as the live parent is at it, nobody else is bothered.
            let early = owed && cx.now.since(gap.filled_at) < cx.config.gap_patience;
            if early || gap.asked_at.is_some_and(|at| cx.now.since(at) < cx.config.gap_retry) {
                continue;
            }
            // The live parent remembers what it owes; it is reminded only if that seems lost.
            let remind = age >= cx.config.gap_retry * 2;
            let target = nodes.iter().copied().find(|node| {
                (remind || Some(*node) != live)
                    && self.parents.get(node).is_some_and(|p| !p.denies(stripe, gap.from, gap.to))
            });
            let Some(target) = target else { continue };
            match asked.iter_mut().find(|(node, _)| *node == target) {
                Some((_, ranges)) if ranges.len() >= WANT_RANGES_MAX => continue,
                Some((_, ranges)) => ranges.push((gap.from, gap.to)),
                None => asked.push((target, vec![(gap.from, gap.to)])),
            }
            gap.asked_at = Some(cx.now);
        }
        for (node, ranges) in asked {
            self.ask_turn = self.ask_turn.wrapping_add(1);
            cx.stats.wants_out += 1;
            if let Some(parent) = self.parents.get_mut(&node) {
                parent.is_asked(stripe, &ranges);
                send_up(parent.feed, UpFrame::Want { stripe, ranges }, cx);
            }
        }
    }
}
