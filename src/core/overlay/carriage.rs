//! What this node carries: per stream and stripe, whether it has something to pass on.
//!
//! Owns that table, which the publisher and the subscriber write and the forwarder reads. Does not
//! own how a stripe is obtained or to whom it goes.

use std::time::Duration;

use super::{DEPTH_NONE, Tuning};
use crate::{ids::Stripe, time::Timestamp, units::Bitrate};

/// One stream that this node carries.
#[derive(Clone, Debug)]
pub(super) struct Carried {
    /// Bit rate of the whole stream.
    pub(super) rate: Bitrate,
    /// This node is the source.
    pub(super) source: bool,
    /// It forwards without playing.
    pub(super) seeding: bool,
    /// It is about to stop: nothing new is granted.
    pub(super) closing: bool,
    /// The lowest rate of a source whose encoder follows the uplink.
    pub(super) floor: Option<Bitrate>,
    stripes: Vec<CarriedStripe>,
}

#[derive(Clone, Debug, Default)]
struct CarriedStripe {
    /// Down to and with this node; empty without a living parent.
    path: Vec<u64>,
    head: Option<u64>,
    fresh_at: Timestamp,
}

impl Carried {
    pub(super) fn member(rate: Bitrate, k: u8, seeding: bool) -> Self {
        let stripes = vec![CarriedStripe::default(); usize::from(k)];
        Self { rate, source: false, seeding, closing: false, floor: None, stripes }
    }

    pub(super) fn source(rate: Bitrate, k: u8, hash: u64) -> Self {
        let stripe = CarriedStripe { path: vec![hash], ..CarriedStripe::default() };
        let stripes = vec![stripe; usize::from(k)];
        Self { rate, source: true, seeding: false, closing: false, floor: None, stripes }
    }

    /// The number of stripes: fewer are forgotten, more are empty.
    pub(super) fn set_k(&mut self, k: u8) {
        self.stripes.resize(usize::from(k), CarriedStripe::default());
    }

    /// The path of a stripe has changed; empty: no living parent.
    pub(super) fn set_path(&mut self, stripe: Stripe, path: Vec<u64>) {
        if let Some(carried) = self.stripes.get_mut(usize::from(stripe)) {
            carried.path = path;
        }
    }

    /// Something new has arrived.
    pub(super) fn advanced(&mut self, stripe: Stripe, head: u64, now: Timestamp) {
        if let Some(carried) = self.stripes.get_mut(usize::from(stripe)) {
            carried.head = Some(head);
            carried.fresh_at = now;
        }
    }

    /// A new epoch counts from the beginning.
    pub(super) fn restart(&mut self) {
        self.stripes.iter_mut().for_each(|carried| carried.head = None);
    }

    pub(super) fn k(&self) -> u8 {
        u8::try_from(self.stripes.len()).expect("at most STRIPES_MAX stripes")
    }

    /// Media rate of one stripe.
    fn stripe_rate(&self) -> Bitrate {
        Bitrate::from_bps(self.rate.as_bps() / u64::from(self.k().max(1)))
    }

    /// What a slot costs when the encoder is as slow as it gets.
    pub(super) fn slot_cost_at_floor(&self, tuning: &Tuning) -> Bitrate {
        let rate = self.floor.map_or(self.rate, |floor| floor.min(self.rate));
        let slow = Self { rate, ..self.clone() };
        slow.slot_cost(tuning)
    }

    /// The media rate at which one copy costs no more than `budget`: the inverse of
    /// [`Self::slot_cost`], a little on the safe side where chunks are small.
    pub(super) fn rate_within(&self, budget: Bitrate, tuning: &Tuning) -> Bitrate {
        let k = u64::from(self.k().max(1));
        let framed = budget.as_bps() / k * 100 / (100 + tuning.feed_overhead_percent);
        // Ten chunks a second and stripe, unless that would make them smaller or larger than they get.
        let in_ten = framed.saturating_sub(80 * tuning.chunk_overhead_bytes);
        let in_smallest =
            framed * CHUNK_BYTES_MIN / (CHUNK_BYTES_MIN + tuning.chunk_overhead_bytes);
        let in_largest = framed * CHUNK_BYTES_MAX / (CHUNK_BYTES_MAX + tuning.chunk_overhead_bytes);
        // The smallest chunks cost most below their bound, the largest most above theirs.
        let stripe = if in_ten < 80 * CHUNK_BYTES_MIN {
            in_smallest
        } else if in_ten > 80 * CHUNK_BYTES_MAX {
            in_largest
        } else {
            in_ten
        };
        // Costs are whole numbers: one in a thousand is left for what they round.
        Bitrate::from_bps((stripe - stripe / 1_000) * k)
    }

    /// What feeding one stripe to one child takes of the uplink: media, and what its frames add.
    /// Small chunks pay more for their headers.
    pub(super) fn slot_cost(&self, tuning: &Tuning) -> Bitrate {
        let stripe = self.stripe_rate().as_bps();
        // As the source cuts: ten chunks a second and stripe, within bounds.
        let chunk = (stripe / 80).clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX);
        let framed = stripe + stripe * tuning.chunk_overhead_bytes / chunk;
        Bitrate::from_bps(framed).percent(100 + tuning.feed_overhead_percent)
    }

    /// The path of a stripe down to and with this node; empty without a living parent.
    pub(super) fn path(&self, stripe: Stripe) -> &[u64] {
        self.stripes.get(usize::from(stripe)).map_or(&[], |carried| &carried.path)
    }

    /// Whether a child would get something: the source always has, others when their own parent
    /// brought something lately.
    pub(super) fn can_serve(&self, stripe: Stripe, stale_after: Duration, now: Timestamp) -> bool {
        let Some(carried) = self.stripes.get(usize::from(stripe)) else { return false };
        self.source
            || !carried.path.is_empty()
                && carried.head.is_some()
                && now.since(carried.fresh_at) < stale_after
    }

    /// Depth of each stripe that could be served, [`DEPTH_NONE`] for the others.
    pub(super) fn depths(&self, stale_after: Duration, now: Timestamp) -> Vec<u8> {
        (0..self.k())
            .map(|stripe| {
                let depth = self.path(stripe).len().saturating_sub(1);
                let depth = u8::try_from(depth).unwrap_or(DEPTH_NONE - 1);
                if self.can_serve(stripe, stale_after, now) { depth } else { DEPTH_NONE }
            })
            .collect()
    }
}

/// Bounds of a chunk's payload, as the source cuts.
const CHUNK_BYTES_MIN: u64 = 1_200;
const CHUNK_BYTES_MAX: u64 = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(rate: Bitrate, k: u8) -> u64 {
        Carried::member(rate, k, false).slot_cost(&Tuning::default()).as_bps()
    }

    #[test]
    fn a_slot_costs_its_media_and_its_frames() {
        assert_eq!(cost(Bitrate::from_mbps(1), 4), 264_057);
        // Small chunks pay more: 1,200 bytes are the least.
        assert_eq!(cost(Bitrate::from_kbps(96), 1), 106_977);
    }

    #[test]
    fn the_rate_within_a_budget_is_the_highest_whose_copy_costs_no_more() {
        let tuning = Tuning::default();
        for k in [1, 2, 4, 8, 16_u8] {
            for kbps in [64, 96, 150, 400, 1_000, 3_000, 20_000, 80_000] {
                let budget = Bitrate::from_kbps(kbps);
                let rate = Carried::member(budget, k, false).rate_within(budget, &tuning);
                let spent = cost(rate, k) * u64::from(k);
                assert!(spent <= kbps * 1_000, "{rate} of {budget} in {k}: {spent}");
                assert!(spent * 100 >= kbps * 97_000, "{rate} of {budget} in {k}: {spent}");
            }
        }
    }

    #[test]
    fn without_a_living_parent_nothing_can_be_served_and_the_source_always_serves() {
        let now = Timestamp::from_millis(10_000);
        let stale = Duration::from_secs(3);
        let mut carried = Carried::member(Bitrate::from_mbps(1), 2, false);
        carried.set_path(0, vec![1, 2]);
        assert!(!carried.can_serve(0, stale, now), "nothing has arrived");
        carried.advanced(0, 7, now);
        assert!(carried.can_serve(0, stale, now));
        assert_eq!(carried.depths(stale, now), [1, DEPTH_NONE]);
        assert!(!carried.can_serve(0, stale, now + stale), "the parent brings nothing");
        carried.set_path(0, vec![]);
        assert!(!carried.can_serve(0, stale, now), "the path is broken");
        assert!(Carried::source(Bitrate::from_mbps(1), 2, 9).can_serve(1, stale, now));
        assert!(!Carried::source(Bitrate::from_mbps(1), 2, 9).can_serve(2, stale, now));
    }
}
