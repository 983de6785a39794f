//! Reports of who takes a stream: from the children in the tree of stripe 0, to the parent in it.
//!
//! Owns when a report is sent and which children's count. Does not own the counts (see
//! [`Audience`]). A report rides behind an ACK, so that it wakes nobody.

use std::time::Duration;

use super::{
    input::StreamRole,
    stream::{Ctx, Stream},
    upstream::send_up,
};
use crate::{
    ids::Stripe,
    media::{audience::Audience, chunk::Payload, frame::UpFrame},
    time::Timestamp,
};

/// Between two reports. A count at the source is as many times older as the tree is deep.
const REPORT_EVERY: Duration = Duration::from_secs(5);
/// After this long without a report a child counts for itself alone.
const STALE: Duration = Duration::from_secs(15);
/// In whose tree everybody is counted once.
const COUNTED: Stripe = 0;

impl<P: Payload> Stream<P> {
    /// Tells the parent who is here and below, when it is time, or when the parent is a new one.
    pub(super) fn report_audience(&mut self, cx: &mut Ctx<'_, P>) {
        let is_parent =
            |feed: &&super::parent::Parent| feed.up_at.is_some() && feed.promoted.contains(COUNTED);
        let Some(feed) = self.parents.values().find(is_parent).map(|parent| parent.feed) else {
            return;
        };
        let is_fresh =
            |&(to, at): &(_, Timestamp)| to == feed.peer && cx.now.since(at) < REPORT_EVERY;
        if self.audience_told.as_ref().is_some_and(is_fresh) {
            return;
        }
        let audience = self.audience(cx.now);
        self.audience_told = Some((feed.peer, cx.now));
        self.skips_told = self.skips();
        send_up(feed, UpFrame::Audience(audience), cx);
    }

    /// Everybody here and below; the source itself is no audience.
    pub(crate) fn audience(&self, now: Timestamp) -> Audience {
        let own = match self.flow.role {
            StreamRole::Source => Audience::default(),
            StreamRole::Member => {
                let newest = self.flow.ring.end().and_then(|end| self.flow.ring.get(end - 1));
                let stripe = newest.map(|held| held.chunk.header().stripe);
                let delay = stripe.filter(|_| !self.flow.paused);
                let delay = delay.map(|stripe| self.flow.head_age_ms(stripe, now));
                Audience::one(!self.sinks.is_empty(), self.skips() > self.skips_told, delay)
            }
        };
        let in_tree = self.children.values().filter(|child| child.flowing().contains(COUNTED));
        in_tree.fold(own, |sum, child| {
            let told = child.audience.filter(|(_, at)| now.since(*at) < STALE);
            sum.plus(told.map_or_else(|| Audience::one(false, false, None), |(told, _)| told))
        })
    }

    /// Chunks that readers here were spared.
    fn skips(&self) -> u64 {
        self.sinks.values().map(|sink| sink.skips().total()).sum()
    }
}
