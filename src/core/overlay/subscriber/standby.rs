//! Who takes over when a parent fails: one promise for each stripe, by another way.
//!
//! Owns the search for standbys, their checks, and the moment at which one is called. Does not own
//! what a failure is (see `failover`), nor the search for a parent when there is no standby.
//!
//! A standby costs no media: its ticket holds no slot, its feed is open and carries keepalives. It
//! is found without haste, one candidate at a time, and checked whenever the feed's leases are
//! renewed. What makes it worth having is that it does not depend on whom it stands in for.

use std::collections::BTreeMap;

use super::{
    super::{MoveCause, PATH_MAX, RequestId, TicketId, forwarder::Forwarder, local::Local},
    Held, Seat, Subscriber,
};
use crate::{
    ids::{NodeId, Stripe, StripeSet},
    time::Timestamp,
};

impl Subscriber {
    /// Looks for standbys where they are missing and nothing more urgent is to be done.
    pub(super) fn seek_standbys(&mut self, local: &mut Local, forwarder: &Forwarder) {
        let now = local.now;
        if now < self.standbys_due(local) {
            return;
        }
        let mut taken: BTreeMap<NodeId, u32> = BTreeMap::new();
        for held in self.seats.iter().flat_map(Seat::held) {
            *taken.entry(held.parent).or_default() += 1;
        }
        let mut plan: BTreeMap<NodeId, Vec<Stripe>> = BTreeMap::new();
        for (stripe, seat) in (0..).zip(&mut self.seats) {
            if seat.standby_due(local).is_none_or(|at| now < at) {
                continue;
            }
            let avoid = seat.held().map(|held| held.parent);
            seat.standby.visited.extend(avoid.collect::<Vec<_>>());
            let best = loop {
                let visited = &seat.standby.visited;
                match self.candidates.best_standby(local, stripe, visited, &taken) {
                    // Own children cannot be parents.
                    Some(node) if forwarder.feeds(self.stream, node, stripe) => {
                        seat.standby.visited.insert(node);
                    }
                    best => break best,
                }
            };
            let Some(node) = best else {
                // Everybody was asked: again from the beginning, later.
                seat.standby.visited.clear();
                let pause = local.config.tuning.standby_pause_max;
                seat.standby.due_at = now + local.jitter(pause);
                continue;
            };
            seat.standby.visited.insert(node);
            *taken.entry(node).or_default() += 1;
            plan.entry(node).or_default().push(stripe);
        }
        for (node, stripes) in plan {
            let mut warm = StripeSet::EMPTY;
            stripes.iter().for_each(|stripe| warm.insert(*stripe));
            let id = self.ask(local, forwarder, node, &stripes, warm, false);
            for stripe in stripes {
                self.seats[usize::from(stripe)].standby.asked = Some(id);
            }
        }
    }

    /// When [`Self::seek_standbys`] has something to do.
    pub(super) fn standbys_due(&self, local: &Local) -> Timestamp {
        let due = self.seats.iter().filter_map(|seat| seat.standby_due(local));
        due.fold(Timestamp::NEVER, Timestamp::min)
    }

    /// Calls the standby of every seat that lost its parent, or is about to.
    pub(super) fn call_standbys(&mut self, local: &mut Local, forwarder: &mut Forwarder) {
        let mut called = false;
        for seat in &mut self.seats {
            let urgent = seat.wants_parent() && (seat.live.is_none() || is_urgent(seat.cause));
            let feeds = &self.feeds;
            let ready = |held: &mut Held| {
                urgent
                    && !held.path.is_empty()
                    && feeds.get(&held.parent).is_some_and(|feed| feed.up && !feed.silent)
            };
            if let Some(held) = seat.standby.held.take_if(ready) {
                seat.next = Some(held);
                seat.search = None;
                called = true;
            }
        }
        if called {
            self.promote_ready(local, forwarder);
        }
    }

    /// A candidate promised to stand by, or repeated its promise.
    pub(super) fn promised(
        &mut self,
        local: &mut Local,
        id: RequestId,
        stripe: Stripe,
        (from, ticket, path): (NodeId, TicketId, Vec<u64>),
    ) {
        let now = local.now;
        let pause = local.jitter(local.config.tuning.standby_pause);
        let hash = local.hash;
        let Some(seat) = self.seats.get_mut(usize::from(stripe)) else { return };
        if let Some(held) = seat.standby.held.as_mut().filter(|held| held.parent == from) {
            (held.ticket, held.path) = (ticket, path);
            self.judge_standby(local, stripe);
            return;
        }
        let awaited = seat.standby.asked.take_if(|asked| *asked == id).is_some();
        let held = Held::new(from, ticket, path, now);
        let picky = seat.standby.visited.len() <= PICKY_TRIES;
        let fits = seat.live.as_ref().is_some_and(|live| match shared(&live.path, &held.path) {
            Shared::Nothing => true,
            Shared::Ancestor => !picky,
            Shared::Parent => false,
        });
        let sound = !held.path.contains(&hash) && held.path.len() < PATH_MAX;
        let wanted = awaited && fits && sound && seat.standby.held.is_none() && !seat.uses(from);
        if wanted {
            seat.standby.held = Some(held);
            seat.standby.visited.clear();
            self.open_feed(local, from);
        } else {
            if awaited {
                seat.standby.due_at = now + pause;
            }
            self.release(local, &[held]);
        }
    }

    /// A candidate does not stand by, or not any more.
    pub(super) fn unpromised(
        &mut self,
        local: &mut Local,
        id: RequestId,
        stripe: Stripe,
        from: NodeId,
    ) {
        let pause = local.jitter(local.config.tuning.standby_pause);
        let Some(seat) = self.seats.get_mut(usize::from(stripe)) else { return };
        if seat.standby.is(from) {
            seat.standby.drop(local.now);
        }
        if seat.standby.asked.take_if(|asked| *asked == id).is_some() {
            let tries = u32::try_from(seat.standby.visited.len()).unwrap_or(u32::MAX);
            let most = local.config.tuning.standby_pause_max;
            let pause = pause.saturating_mul(1 << tries.min(4)).min(most);
            seat.standby.due_at = local.now + pause;
        }
    }

    /// The path of a standby changed, or that of the parent: it must not lead through this node or
    /// through the parent that it stands in for.
    pub(super) fn judge_standby(&mut self, local: &mut Local, stripe: Stripe) {
        let Some(seat) = self.seats.get_mut(usize::from(stripe)) else { return };
        let Some(held) = &seat.standby.held else { return };
        let live = seat.live.as_ref();
        let below = live.is_some_and(|live| shared(&live.path, &held.path) == Shared::Parent);
        if below || held.path.contains(&local.hash) || live.is_some_and(|l| l.parent == held.parent)
        {
            let gone = seat.standby.drop(local.now);
            self.release(local, gone.as_slice());
        }
    }
}

impl Seat {
    /// When a standby is to be looked for; `None` while there is one, or something more urgent.
    fn standby_due(&self, local: &Local) -> Option<Timestamp> {
        let live = self.live.as_ref().filter(|live| live.delivered)?;
        let busy = self.replacing || self.next.is_some() || self.soft.is_some();
        if busy || self.standby.held.is_some() || self.standby.asked.is_some() {
            return None;
        }
        Some(self.standby.due_at.max(live.since + local.config.tuning.standby_after))
    }
}

/// What two ways from the source have in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shared {
    Nothing,
    /// Somebody above both, other than the source.
    Ancestor,
    /// The standby hangs on the very parent that it stands in for.
    Parent,
}

fn shared(live: &[u64], standby: &[u64]) -> Shared {
    // The source is on every path: when it fails, nobody can stand in.
    let Some((_, live)) = live.split_first() else { return Shared::Nothing };
    match live.split_last() {
        None => Shared::Nothing,
        Some((parent, _)) if standby.contains(parent) => Shared::Parent,
        Some((_, above)) if above.iter().any(|node| standby.contains(node)) => Shared::Ancestor,
        Some(_) => Shared::Nothing,
    }
}

/// Whether a parent that is to be replaced may fail at any moment. One that was displaced first
/// asks whoever took its place, and keeps the standby for the case that this comes to nothing.
const fn is_urgent(cause: MoveCause) -> bool {
    match cause {
        MoveCause::Closed
        | MoveCause::Silent
        | MoveCause::Revoked
        | MoveCause::Leaving
        | MoveCause::Shed
        | MoveCause::Loop
        | MoveCause::Offence
        | MoveCause::Expired
        | MoveCause::Unopened
        | MoveCause::Starved
        | MoveCause::Withheld => true,
        MoveCause::Joined | MoveCause::Displaced | MoveCause::Slow | MoveCause::Improved => false,
    }
}

/// So many candidates are refused for an ancestor in common before one is taken nonetheless.
const PICKY_TRIES: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standby_shares_the_source_at_most_and_never_hangs_on_the_parent() {
        assert_eq!(shared(&[1, 2, 3], &[1, 4, 5]), Shared::Nothing);
        assert_eq!(shared(&[1, 2, 3], &[1, 2, 5]), Shared::Ancestor);
        assert_eq!(shared(&[1, 2, 3], &[1, 4, 3, 6]), Shared::Parent);
        assert_eq!(shared(&[1], &[1, 4]), Shared::Nothing, "the parent is the source");
        assert_eq!(shared(&[1, 2], &[1]), Shared::Nothing, "the source stands by");
        assert_eq!(shared(&[], &[1, 4]), Shared::Nothing, "the path is broken");
    }

    #[test]
    fn who_was_displaced_asks_the_newcomer_before_the_standby() {
        assert!(!is_urgent(MoveCause::Displaced));
        assert!(is_urgent(MoveCause::Closed));
        assert!(is_urgent(MoveCause::Silent));
    }
}
