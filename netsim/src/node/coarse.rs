//! A node whose media are intervals: the way of what the intervals say.
//!
//! Owns the wiring between them, the network and the player. Does not own the intervals (see
//! [`crate::intervals`]).

use astral_core::ids::{Direction, NodeId, StreamId, Stripe};

use super::{Cx, Effect, SimNode};
use crate::{
    intervals::Flow,
    packet::{FeedLife, Packet},
};

impl SimNode {
    /// Sends what the intervals tell children, and hands the player what is its.
    pub(super) fn pass_on_intervals(&mut self, cx: &mut Cx<'_>) {
        let Some(intervals) = self.relay.intervals() else { return };
        while let Some((feed, stripe, flow)) = intervals.poll_flow() {
            let Some(known) = self.feeds.get(&feed).filter(|known| known.up) else { continue };
            let packet = Packet::Flow { stream: feed.stream, life: known.life, stripe, flow };
            cx.effects.push(Effect::Send { to: feed.peer, packet });
        }
        while let Some(news) = intervals.poll_news() {
            if let Some(player) = &mut self.player {
                player.hear(news, Self::moment(cx), cx.tally);
            }
        }
    }

    /// A parent told how a stripe flows.
    pub(super) fn flowed(
        &mut self,
        (from, stream, life): (NodeId, StreamId, FeedLife),
        stripe: Stripe,
        flow: Flow,
        cx: &mut Cx<'_>,
    ) {
        let feed = self.key(stream, from, Direction::FromParent);
        if !self.feeds.get(&feed).is_some_and(|known| known.life == life && known.up) {
            return;
        }
        let runs = u64::from(matches!(flow, Flow::Runs { .. }));
        cx.trace.numbers([cx.now, u64::from(self.index), u64::from(stripe), runs]);
        let now = self.local(cx.now);
        if let Some(intervals) = self.relay.intervals() {
            intervals.flow(from, stripe, flow, now, cx.cuts);
        }
    }

    /// Nothing is heard of a node any more, and no connection says so.
    pub fn hush(&mut self, node: NodeId, cx: &mut Cx<'_>) {
        let now = self.local(cx.now);
        if let Some(intervals) = self.relay.intervals() {
            intervals.hush(node, now);
        }
        self.settle(cx);
    }

    /// Whether a stripe comes in now, where that is known without chunks.
    pub fn is_flowing(&mut self, stripe: Stripe) -> bool {
        self.relay.intervals().is_some_and(|intervals| intervals.is_flowing(stripe))
    }

    /// Counts what was sent since the last time.
    pub fn count_intervals(&mut self, cx: &mut Cx<'_>) {
        let now = self.local(cx.now);
        if let Some(intervals) = self.relay.intervals() {
            let sent = intervals.take_sent(now);
            self.view.sent.add(sent);
            cx.tally.bytes.add(sent);
        }
    }

    /// The player gets all that came until now.
    pub fn settle_intervals(&mut self, cx: &mut Cx<'_>) {
        let now = self.local(cx.now);
        if let Some(intervals) = self.relay.intervals() {
            intervals.settle_all(now);
            self.pass_on_intervals(cx);
            if let Some(player) = &mut self.player {
                player.sum_up(Self::moment(cx), cx.tally);
            }
        }
    }
}
