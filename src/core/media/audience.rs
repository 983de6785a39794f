//! Who takes a stream below a node, as those nodes say themselves.
//!
//! Owns the counts of one report, which counts are lawful, and how two are added. Does not own when a
//! report is sent nor whose count (see the relay). Reports go up the tree of stripe 0, in which every
//! node of a stream stands once, so that nobody is counted for each stripe. They are unsigned: a node
//! can make up as many as [`AUDIENCE_MAX`] below itself, so the counts are for display and nothing is
//! decided by them.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use bytes::BufMut;
use serde::{Deserialize, Serialize};

use super::byte_reader::ByteReader;

/// Most nodes that one report may count.
pub const AUDIENCE_MAX: u32 = 1_000_000;
/// Upper bounds of the delays that are told apart, in milliseconds; the last bucket is beyond them.
pub const DELAY_BOUNDS_MS: [u32; 7] = [100, 250, 500, 1_000, 2_000, 4_000, 8_000];
/// Buckets of delays.
pub const DELAY_BUCKETS: usize = DELAY_BOUNDS_MS.len() + 1;

/// Counts of some nodes of one stream. Lawful ones hold: viewers and the sum of `delays` are at most
/// `nodes`, `stalled` at most `viewers`, `nodes` at most [`AUDIENCE_MAX`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Audience {
    /// Nodes that take the stream, to watch or to forward it.
    pub nodes: u32,
    /// Of these, nodes with a reader on their machine.
    pub viewers: u32,
    /// Of these, those whose readers were spared chunks since the report before.
    pub stalled: u32,
    /// Nodes by how far their newest chunk is behind the source, see [`DELAY_BOUNDS_MS`].
    pub delays: [u32; DELAY_BUCKETS],
}

impl Audience {
    /// Bytes of a report.
    pub const LEN: usize = 12 + 4 * DELAY_BUCKETS;

    /// One node.
    #[must_use]
    pub fn one(is_viewer: bool, is_stalled: bool, delay_ms: Option<u32>) -> Self {
        let viewers = u32::from(is_viewer);
        let mut one = Self {
            nodes: 1,
            viewers,
            stalled: viewers.min(u32::from(is_stalled)),
            ..Self::default()
        };
        let bucket = delay_ms.map(|ms| DELAY_BOUNDS_MS.iter().take_while(|max| ms > **max).count());
        if let Some(count) = bucket.and_then(|bucket| one.delays.get_mut(bucket)) {
            *count = 1;
        }
        one
    }

    /// Both together. What does not fit under [`AUDIENCE_MAX`] is left out as a whole, so that the sum
    /// of lawful counts is lawful.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        if self.nodes.saturating_add(other.nodes) > AUDIENCE_MAX {
            return self;
        }
        let mut sum = Self {
            nodes: self.nodes.saturating_add(other.nodes),
            viewers: self.viewers.saturating_add(other.viewers),
            stalled: self.stalled.saturating_add(other.stalled),
            delays: self.delays,
        };
        for (to, more) in sum.delays.iter_mut().zip(other.delays) {
            *to = to.saturating_add(more);
        }
        sum
    }

    /// The delay that `percent` of the nodes do not exceed, as the bound of their bucket in
    /// milliseconds; `None` when none said its delay, or when it is beyond all bounds.
    #[must_use]
    pub fn delay_ms(&self, percent: u8) -> Option<u32> {
        let told: u64 = self.delays.iter().copied().map(u64::from).sum();
        let wanted = told.saturating_mul(percent.into()).div_ceil(100).max(1);
        let mut seen: u64 = 0;
        DELAY_BOUNDS_MS.iter().zip(self.delays).find_map(|(bound, count)| {
            seen = seen.saturating_add(count.into());
            (seen >= wanted).then_some(*bound)
        })
    }

    /// Whether a node may say so.
    #[must_use]
    pub fn is_lawful(&self) -> bool {
        let told: u64 = self.delays.iter().copied().map(u64::from).sum();
        self.nodes <= AUDIENCE_MAX
            && self.viewers <= self.nodes
            && self.stalled <= self.viewers
            && told <= self.nodes.into()
    }

    /// Appends the report.
    pub(crate) fn put(&self, out: &mut impl BufMut) {
        [self.nodes, self.viewers, self.stalled].into_iter().for_each(|count| out.put_u32(count));
        self.delays.into_iter().for_each(|count| out.put_u32(count));
    }

    /// Reads a report; `None` when it is too short.
    pub(crate) fn take(body: &mut ByteReader<'_>) -> Option<Self> {
        let mut audience = Self {
            nodes: body.u32()?,
            viewers: body.u32()?,
            stalled: body.u32()?,
            delays: [0; DELAY_BUCKETS],
        };
        for count in &mut audience.delays {
            *count = body.u32()?;
        }
        Some(audience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up_and_their_percentiles_are_bounds() {
        let quick = Audience::one(true, false, Some(90));
        let slow = Audience::one(true, true, Some(3_000));
        let seeder = Audience::one(false, true, None);
        let mut all = seeder;
        for _ in 0..18 {
            all = all.plus(quick);
        }
        all = all.plus(slow).plus(slow);
        assert_eq!((all.nodes, all.viewers, all.stalled), (21, 20, 2));
        assert_eq!(
            (all.delay_ms(50), all.delay_ms(90), all.delay_ms(95)),
            (Some(100), Some(100), Some(4_000))
        );
        assert_eq!(Audience::default().delay_ms(50), None);
        assert_eq!(
            Audience::one(true, false, Some(60_000)).delay_ms(50),
            None,
            "beyond all bounds"
        );
        assert!(all.is_lawful());
    }

    #[test]
    fn a_sum_of_lawful_claims_is_lawful_however_large_they_are() {
        let huge = Audience { nodes: AUDIENCE_MAX, viewers: AUDIENCE_MAX, ..Audience::default() };
        let one = Audience::one(true, true, Some(1));
        assert_eq!(one.plus(huge), one);
        assert!(huge.is_lawful() && huge.plus(one).is_lawful());
        for unlawful in [
            Audience { nodes: AUDIENCE_MAX + 1, ..Audience::default() },
            Audience { nodes: 1, viewers: 2, ..Audience::default() },
            Audience { nodes: 5, viewers: 1, stalled: 2, ..Audience::default() },
            Audience { nodes: 1, delays: [u32::MAX; DELAY_BUCKETS], ..Audience::default() },
        ] {
            assert!(!unlawful.is_lawful(), "{unlawful:?}");
        }
    }
}
