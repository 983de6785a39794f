//! How a stream is spread over its stripes.
//!
//! Owns the choice of the number of stripes, of a chunk's size, and of the stripe of each chunk.
//! Does not own what is in a chunk.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use crate::{
    ids::{STRIPES_MAX, Stripe},
    media::chunk::CHUNK_PAYLOAD_MAX,
    units::Bitrate,
};

/// Smallest chunk target: about one packet on the wire.
pub const TARGET_BYTES_MIN: usize = 1_200;
/// Chunks a second that each stripe should get, so that its silence is noticed within a fraction
/// of a second: the target is a stripe's rate over this, in bytes.
const CHUNKS_PER_SECOND: u64 = 10;

/// The number of stripes for a stream of `rate`: each should carry about 250 to 400
/// kbit/s, enough for ten chunks a second and little enough for small uplinks to give.
#[must_use]
pub fn stripes_for(rate: Bitrate) -> u8 {
    match rate.as_bps() / 1_000 {
        0..500 => 1,
        500..900 => 2,
        900..1_800 => 4,
        1_800..3_800 => 8,
        _ => 16,
    }
}

/// Payload that a chunk aims at: what a stripe carries in a tenth of a second, in bytes, within
/// [`TARGET_BYTES_MIN`] and [`CHUNK_PAYLOAD_MAX`].
#[must_use]
pub fn target_bytes(rate: Bitrate, k: u8) -> usize {
    let per_second = u64::from(k.max(1)).saturating_mul(8 * CHUNKS_PER_SECOND);
    let bytes = rate.as_bps().checked_div(per_second).unwrap_or(0);
    usize::try_from(bytes).unwrap_or(usize::MAX).clamp(TARGET_BYTES_MIN, CHUNK_PAYLOAD_MAX)
}

/// One stripe's share so far.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    next_seq: u64,
    bytes: u64,
}

/// Puts each chunk on the stripe with the fewest bytes so far, the lowest among equals, so that
/// stripes never differ by more than one chunk.
#[derive(Debug)]
pub(super) struct Striper {
    shares: Vec<Share>,
}

impl Striper {
    pub(super) fn new(k: u8) -> Self {
        Self { shares: vec![Share::default(); usize::from(k.clamp(1, STRIPES_MAX))] }
    }

    /// The stripe for the next chunk of `bytes`, and the chunk's place in it.
    pub(super) fn assign(&mut self, bytes: usize) -> (Stripe, u64) {
        let lightest = self.shares.iter_mut().enumerate().min_by_key(|(_, share)| share.bytes);
        // There is always a first stripe, and never one beyond the sixteenth.
        let Some((at, share)) = lightest else { return (0, 0) };
        let stripe_seq = share.next_seq;
        share.next_seq = share.next_seq.saturating_add(1);
        share.bytes = share.bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        (Stripe::try_from(at).unwrap_or(0), stripe_seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stripe_carries_a_few_hundred_kilobits() {
        for (kbps, k) in [(96, 1), (400, 1), (750, 2), (1_000, 4), (3_000, 8), (6_000, 16)] {
            assert_eq!(stripes_for(Bitrate::from_kbps(kbps)), k, "{kbps} kbit/s");
        }
    }

    #[test]
    fn the_target_is_a_tenth_of_a_second_of_a_stripe_within_bounds() {
        assert_eq!(target_bytes(Bitrate::from_mbps(3), 8), 4_687);
        assert_eq!(target_bytes(Bitrate::from_kbps(64), 1), TARGET_BYTES_MIN);
        assert_eq!(target_bytes(Bitrate::from_mbps(50), 16), CHUNK_PAYLOAD_MAX);
        assert_eq!(target_bytes(Bitrate::ZERO, 0), TARGET_BYTES_MIN);
    }

    #[test]
    fn stripes_never_differ_by_more_than_one_chunk() {
        let mut striper = Striper::new(8);
        let mut next = [0; 8];
        for round in 0..1_000_usize {
            let (stripe, seq) = striper.assign(200 + round * 7_919 % 5_000);
            assert_eq!(seq, next[usize::from(stripe)], "a hole in stripe {stripe}");
            next[usize::from(stripe)] += 1;
            let bytes = striper.shares.iter().map(|share| share.bytes);
            assert!(bytes.clone().max().unwrap() - bytes.min().unwrap() <= 5_200);
        }
    }
}
