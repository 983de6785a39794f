//! Where a joiner begins: at the last keyframe, or with what comes next.
//!
//! Owns that decision. Does not own the sending (see `downstream` and `serve`).
//!
//! What a joiner gets from before its time leaves below live media. A parent whose slots are all taken
//! has a tenth of its uplink for that, and a whole second of a stripe takes it many: the newcomer
//! waits, and so does everybody who misses a chunk. Then the next keyframe is sooner.

use std::time::Duration;

use super::{
    flow::Flow,
    stream::{Ctx, Stream},
};
use crate::{
    ids::Stripe,
    media::{chunk::Payload, ranges::RangeSet, ring::StripePoint},
};

/// What a joiner's way back to the last keyframe costs: it leaves below live, in what live leaves of
/// the uplink, after what others wait for already.
pub(crate) struct WayBack {
    /// Chunks that wait.
    owed: u64,
    /// Chunks a second beside the live ones; `None`: nobody knows a ceiling.
    spare: Option<u64>,
}

impl WayBack {
    pub(crate) fn of<P: Payload>(stream: &Stream<P>, cx: &Ctx<'_, P>) -> Self {
        let flow = &stream.flow;
        let children = || stream.children.values();
        let owed = children().flat_map(|child| child.wants.values()).map(RangeSet::count).sum();
        let flowing: u64 = children().map(|child| u64::from(child.flowing().len())).sum();
        let chunk = flow.ring.bytes().checked_div(flow.ring.chunks()).unwrap_or(1).max(1) as u64;
        let spare = cx.pacer.ceiling().map(|ceiling| {
            let live = flow.rate().as_bps() * flowing / u64::from(flow.k().max(1));
            // At the least what the scheduler finds between two live chunks.
            let least = ceiling.as_bps() / 20;
            (ceiling.as_bps().saturating_sub(live).max(least) / 8 / chunk).max(1)
        });
        Self { owed, spare }
    }

    /// Where a joiner begins: at the last keyframe, or at what comes next, if the next keyframe is
    /// here sooner than everything since the last.
    pub(crate) fn begin<P: Payload>(
        &mut self,
        stripe: Stripe,
        keyframe: Option<StripePoint>,
        flow: &Flow<P>,
    ) -> Option<StripePoint> {
        let (head, held) = flow.ring.stripe_head(stripe)?;
        let next = StripePoint { stripe_seq: head + 1, seq: held.chunk.header().seq + 1 };
        let Some(keyframe) = keyframe else {
            // This node began between two keyframes. Or it has only just begun at one, which is still
            // on its way on another stripe.
            let begun = flow.first_point(stripe).and_then(|first| flow.ring.next_held(first.seq));
            let begun_ms = begun.and_then(|seq| flow.ring.get(seq))?.chunk.header().time_ms;
            let here_ms = flow.ring.newest_ms().saturating_sub(begun_ms);
            return (here_ms >= KEYFRAME_AWAITED_MS).then_some(next);
        };
        let chunks = next.stripe_seq.saturating_sub(keyframe.stripe_seq);
        let takes = self.spare.map_or(0, |spare| (self.owed + chunks) * 1_000 / spare);
        if Duration::from_millis(takes) > flow.next_keyframe_in() {
            return Some(next);
        }
        self.owed += chunks;
        Some(keyframe)
    }
}

/// Chunks of one frame come within this of each other, whatever way each stripe takes. Half of what a
/// child waits for a parent's first chunk.
const KEYFRAME_AWAITED_MS: u64 = 400;
