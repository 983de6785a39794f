//! Slots of a stream whose encoder follows the uplink.
//!
//! Owns what there is room for, what its tickets cost after a change of rate, and which of them outlive
//! a smaller uplink until the encoder has followed. Does not own the encoder's rate (`media::adapt`).

use std::collections::BTreeSet;

use super::{Forwarder, Local, TicketId};
use crate::{ids::StreamId, overlay::carriage::Carried, units::Bitrate};

/// Media rates that fit the uplink.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CopyRates {
    /// One copy of the stream fits at this rate.
    pub one: Bitrate,
    /// The copies that are sent now fit at this rate.
    pub all: Bitrate,
}

impl Forwarder {
    /// At which rate of a carried stream its copies fit beside what other streams were promised;
    /// `None` while the uplink is neither told nor measured.
    pub(in super::super) fn copy_rates(
        &self,
        local: &Local,
        stream: StreamId,
    ) -> Option<CopyRates> {
        let carried = local.carried.get(&stream)?;
        self.limits.uplink.or(self.limits.estimate)?;
        let tuning = &local.config.tuning;
        let budget = self.limits.usable(tuning).percent(tuning.slot_share_percent);
        let others: u64 = self
            .given
            .iter()
            .filter(|(_, given)| !given.warm && given.seat.stream != stream)
            .map(|(_, given)| given.cost.as_bps())
            .sum();
        let left = budget.as_bps().saturating_sub(others);
        let copies = self.live(stream).count().div_ceil(usize::from(carried.k().max(1))).max(1);
        let copies = u64::try_from(copies).unwrap_or(u64::MAX);
        let at = |bps| carried.rate_within(Bitrate::from_bps(bps), tuning);
        Some(CopyRates { one: at(left), all: at(left / copies) })
    }

    /// The stream's rate changed: its tickets cost what they cost now.
    pub(in super::super) fn reprice(&mut self, local: &Local, stream: StreamId) {
        let Some(carried) = local.carried.get(&stream) else { return };
        let cost = carried.slot_cost(&local.config.tuning);
        let tickets: Vec<_> = self.live(stream).map(|(ticket, _)| ticket).collect();
        for ticket in tickets {
            if let Some(given) = self.given.get_mut(&ticket) {
                given.cost = cost;
            }
        }
    }

    /// The tickets of one copy of a stream whose encoder will follow: a second from now they cost
    /// what they cost at its floor, so that nobody is sent away for the time between.
    pub(super) fn elastic(&self, carried: &Carried, stream: StreamId) -> BTreeSet<TicketId> {
        if carried.floor.is_none() {
            return BTreeSet::new();
        }
        let mut stripes = BTreeSet::new();
        self.live(stream)
            .filter(|(_, given)| stripes.insert(given.seat.stripe))
            .map(|(ticket, _)| ticket)
            .collect()
    }
}
