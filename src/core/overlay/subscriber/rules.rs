//! Rules R3 and R4: what becomes of a parent that speaks and brings nothing of a stripe.
//!
//! Owns the two decisions, as functions of what was seen, and who is blamed. Does not own closed and
//! silent parents (see `failover`), nor the search for a better one (see `search`).
//!
//! **R3, starved**: the fault is further up, and whoever is nearer to it is at it already. The child
//! stays and lives on what neighbours have. Only when these have had news for so long that the parent
//! will find none is it replaced, and nobody is blamed. **R4, withheld**: the parent says that it has
//! more and more, and sends nothing of it.

use std::time::Duration;

use super::{
    super::{ComplaintKind, MoveCause, StripeProgress, local::Local},
    Subscriber,
};
use crate::{
    ids::{NodeId, Stripe},
    time::Timestamp,
};

impl Subscriber {
    /// A parent that speaks has brought nothing of a stripe for a while: rules R3 and R4.
    pub(super) fn judge_conduct(
        &mut self,
        local: &mut Local,
        parent: NodeId,
        progress: &StripeProgress,
    ) {
        let (now, stripe) = (local.now, progress.stripe);
        let tuning = &local.config.tuning;
        let (withheld, starved) = (tuning.withheld_after, tuning.starved_after);
        let age = Duration::from_millis(u64::from(progress.age_ms));
        let Some(seat) = self.seats.get_mut(usize::from(stripe)).filter(|seat| !seat.replacing)
        else {
            return;
        };
        let Some(held) = seat.live.as_ref().filter(|held| held.delivered) else { return };
        match held.conduct.judge((withheld, starved), age, now) {
            Verdict::Stay => {}
            Verdict::Starves => seat.replace(MoveCause::Starved, now),
            Verdict::Withholds => {
                seat.replace(MoveCause::Withheld, now);
                self.blame(local, parent, stripe);
            }
        }
    }

    /// A parent kept a stripe. It is blamed if it brought nothing on any: no full queue looks like
    /// that.
    pub(super) fn blame(&mut self, local: &mut Local, parent: NodeId, stripe: Stripe) {
        let patience = local.config.tuning.withheld_after;
        let brought_at = self.feeds.get(&parent).map(|feed| feed.brought_at);
        if brought_at.is_some_and(|at| local.now.since(at) >= patience) {
            self.candidates.broke(parent);
            local.complain(parent, self.stream, stripe, ComplaintKind::Withheld);
        }
    }
}

/// What a parent of one stripe said and did since it last brought something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Conduct {
    /// When it last brought a chunk of the stripe, or was promoted.
    brought_at: Timestamp,
    /// The newest that it had by its word then.
    had: Option<u64>,
    /// The newest that it has by its word.
    has: u64,
    /// Since when it has more than then.
    ahead_since: Option<Timestamp>,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// Nothing.
    Stay,
    /// R3: the way through this parent is broken, and others have a better one.
    Starves,
    /// R4: it keeps what it has.
    Withholds,
}

impl Conduct {
    pub(super) const fn new(now: Timestamp) -> Self {
        Self { brought_at: now, had: None, has: 0, ahead_since: None }
    }

    /// The parent says how far it is (`claimed`), and has or has not `brought` something.
    pub(super) fn note(&mut self, claimed: u64, brought: bool, now: Timestamp) {
        if brought {
            *self = Self { had: Some(claimed), has: claimed, ..Self::new(now) };
            return;
        }
        let had = *self.had.get_or_insert(claimed);
        self.has = claimed;
        if claimed <= had {
            self.ahead_since = None;
        } else if self.ahead_since.is_none() {
            self.ahead_since = Some(now);
        }
    }

    /// Judges the parent after these patiences (withheld, starved); `age` is that of the newest chunk
    /// that is here, whoever brought it.
    pub(super) fn judge(
        &self,
        (withheld, starved): (Duration, Duration),
        age: Duration,
        now: Timestamp,
    ) -> Verdict {
        let ahead = self.has.saturating_sub(self.had.unwrap_or(self.has));
        if ahead >= AHEAD_MIN && self.ahead_since.is_some_and(|at| now.since(at) >= withheld) {
            return Verdict::Withholds;
        }
        let others_are_ahead = age < starved / 2;
        if others_are_ahead && now.since(self.brought_at) >= starved {
            return Verdict::Starves;
        }
        Verdict::Stay
    }
}

/// One chunk more than was sent may be on its way.
const AHEAD_MIN: u64 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: (Duration, Duration) = (Duration::from_millis(600), Duration::from_secs(3));
    const OLD: Duration = Duration::from_secs(9);
    const NEW: Duration = Duration::from_millis(200);

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    /// It brought chunk 10 at 1 s, and then said this.
    fn said(claims: &[(u64, u64)]) -> Conduct {
        let mut conduct = Conduct::new(at(0));
        conduct.note(10, true, at(1_000));
        claims.iter().for_each(|(ms, claimed)| conduct.note(*claimed, false, at(*ms)));
        conduct
    }

    #[test]
    fn who_claims_more_and_more_and_sends_nothing_withholds() {
        let conduct = said(&[(1_150, 11), (1_300, 13), (1_450, 14)]);
        assert_eq!(conduct.judge(PATIENCE, OLD, at(1_740)), Verdict::Stay, "not long enough");
        assert_eq!(conduct.judge(PATIENCE, OLD, at(1_750)), Verdict::Withholds);
        assert_eq!(
            conduct.judge(PATIENCE, NEW, at(1_750)),
            Verdict::Withholds,
            "whoever helps out"
        );
    }

    #[test]
    fn who_brings_something_now_and_then_does_not_withhold() {
        let mut conduct = said(&[(1_150, 13), (1_300, 14)]);
        conduct.note(15, true, at(1_500));
        conduct.note(16, false, at(1_700));
        conduct.note(17, false, at(1_900));
        assert_eq!(conduct.judge(PATIENCE, OLD, at(2_200)), Verdict::Stay);
        assert_eq!(conduct.judge(PATIENCE, OLD, at(2_300)), Verdict::Withholds);
    }

    #[test]
    fn who_has_nothing_new_itself_is_stayed_with_while_nobody_has() {
        let conduct = said(&[(1_150, 10), (2_000, 10), (5_000, 10)]);
        assert_eq!(conduct.judge(PATIENCE, OLD, at(20_000)), Verdict::Stay, "the source is lost");
        assert_eq!(conduct.judge(PATIENCE, NEW, at(3_900)), Verdict::Stay, "it may mend itself");
        assert_eq!(conduct.judge(PATIENCE, NEW, at(4_000)), Verdict::Starves);
    }

    #[test]
    fn what_a_new_parent_had_before_it_was_asked_is_no_claim() {
        let mut conduct = Conduct::new(at(0));
        conduct.note(500, false, at(100));
        conduct.note(500, false, at(5_000));
        assert_eq!(conduct.judge(PATIENCE, OLD, at(9_000)), Verdict::Stay, "the source pauses");
    }

    #[test]
    fn one_chunk_may_be_on_its_way() {
        let conduct = said(&[(1_150, 11), (1_300, 11)]);
        assert_eq!(conduct.judge(PATIENCE, OLD, at(9_000)), Verdict::Stay);
    }
}
