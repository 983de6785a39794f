//! How much of the uplink may be promised.
//!
//! Owns the arithmetic of slots: pure functions over limits and promises. Does not own tickets.

use super::Tuning;
use crate::units::Bitrate;

/// What limits forwarding.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Limits {
    /// As told by the user.
    pub(super) uplink: Option<Bitrate>,
    /// As measured.
    pub(super) estimate: Option<Bitrate>,
    /// Of the told one, what circuits take that run through this node.
    pub(super) relayed: Bitrate,
    /// Copies of one stream.
    pub(super) max_copies: Option<u32>,
    /// Copies of all streams.
    pub(super) max_total_copies: Option<u32>,
}

/// What is promised already.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Promised {
    /// Sum of the costs of all tickets.
    pub(super) rate: Bitrate,
    /// Tickets of the stream in question.
    pub(super) of_stream: u32,
    /// Copies of all streams, in sixteenths: a ticket of a stream with k stripes is 16/k of them.
    pub(super) sixteenths: u32,
}

/// What one copy is made of.
pub(super) const SIXTEENTHS: u32 = 16;

impl Limits {
    /// The uplink that may be used: an explicit one as told less what is relayed for others, else a
    /// share of the measured or assumed one.
    pub(super) fn usable(&self, tuning: &Tuning) -> Bitrate {
        let measured = || {
            let estimate = self.estimate.unwrap_or(tuning.uplink_unmeasured);
            estimate.percent(tuning.measured_share_percent)
        };
        self.uplink.map_or_else(measured, |told| {
            Bitrate::from_bps(told.as_bps().saturating_sub(self.relayed.as_bps()))
        })
    }

    /// How many more tickets fit, each of `cost`, of a stream with `k` stripes.
    pub(super) fn free_slots(
        &self,
        promised: Promised,
        cost: Bitrate,
        k: u8,
        tuning: &Tuning,
    ) -> u16 {
        let budget = self.usable(tuning).percent(tuning.slot_share_percent);
        let left = budget.as_bps().saturating_sub(promised.rate.as_bps());
        let by_uplink = left / cost.as_bps().max(1);
        let k = u32::from(k.max(1));
        let by_stream = self
            .max_copies
            .map_or(u32::MAX, |copies| copies.saturating_mul(k).saturating_sub(promised.of_stream));
        let by_total = self.max_total_copies.map_or(u32::MAX, |copies| {
            let left = copies.saturating_mul(SIXTEENTHS).saturating_sub(promised.sixteenths);
            left / (SIXTEENTHS / k).max(1)
        });
        let slots = by_uplink.min(u64::from(by_stream.min(by_total)));
        u16::try_from(slots).unwrap_or(u16::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(limits: Limits, promised: Promised, rate: Bitrate, k: u8) -> u16 {
        let stripe = Bitrate::from_bps(rate.as_bps() / u64::from(k));
        limits.free_slots(promised, stripe, k, &Tuning::default())
    }

    #[test]
    fn an_explicit_uplink_counts_as_told_less_a_tenth() {
        let told = |uplink| Limits { uplink: Some(uplink), ..Limits::default() };
        let rate = Bitrate::from_mbps(1);
        assert_eq!(slots(told(Bitrate::from_mbps(6)), Promised::default(), rate, 4), 21);
        assert_eq!(slots(told(Bitrate::from_kbps(750)), Promised::default(), rate, 4), 2);
        let two_of = Bitrate::from_bps(75_000 * 8);
        let limit = told("170KB/s".parse().unwrap());
        assert_eq!(slots(limit, Promised::default(), two_of, 1), 2);
        let one = Promised { rate: two_of, of_stream: 1, sixteenths: 16 };
        assert_eq!(slots(limit, one, two_of, 1), 1);
    }

    #[test]
    fn what_is_relayed_for_others_leaves_fewer_slots() {
        let uplink = Some(Bitrate::from_mbps(6));
        let relayed = Bitrate::from_mbps(1);
        let rate = Bitrate::from_mbps(1);
        let limits = Limits { uplink, relayed, ..Limits::default() };
        assert_eq!(slots(limits, Promised::default(), rate, 4), 18);
        let more = Limits { relayed: Bitrate::from_mbps(60), ..limits };
        assert_eq!(slots(more, Promised::default(), rate, 4), 0);
        // A measured uplink is what children acknowledge beside all else.
        let unlimited = Limits { relayed, ..Limits::default() };
        assert_eq!(slots(unlimited, Promised::default(), rate, 1), 7);
    }

    #[test]
    fn an_unmeasured_uplink_is_taken_to_be_small() {
        let rate = Bitrate::from_mbps(1);
        assert_eq!(slots(Limits::default(), Promised::default(), rate, 1), 7);
        let limits = Limits { estimate: Some(Bitrate::from_mbps(100)), ..Limits::default() };
        assert_eq!(slots(limits, Promised::default(), rate, 1), 76);
    }

    #[test]
    fn copies_are_counted_per_stream_and_over_all_streams() {
        let limits = Limits {
            uplink: Some(Bitrate::from_mbps(1_000)),
            max_copies: Some(2),
            max_total_copies: Some(3),
            ..Limits::default()
        };
        let rate = Bitrate::from_mbps(1);
        assert_eq!(slots(limits, Promised::default(), rate, 4), 8);
        let used = Promised { of_stream: 7, sixteenths: 28, ..Promised::default() };
        assert_eq!(slots(limits, used, rate, 4), 1);
        let other = Promised { of_stream: 0, sixteenths: 47, ..Promised::default() };
        assert_eq!(slots(limits, other, rate, 4), 0);
        assert_eq!(slots(limits, other, rate, 16), 1);
        let none = Limits { max_copies: Some(0), ..limits };
        assert_eq!(slots(none, Promised::default(), rate, 4), 0);
    }
}
