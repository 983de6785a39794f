//! Where nodes are and how long a message is on its way between them.
//!
//! Owns regions, access delays and the one-way delay of a pair. Does not own queues (see
//! [`crate::uplink`]).

use std::time::Duration;

use crate::{
    random::{Dice, Purpose},
    scenario::Network,
};

/// One-way delays between regions, in milliseconds: Western Europe, North America East and West,
/// East Asia, South America, Australia. Rounded from great-circle distances at two thirds of the
/// speed of light with a detour factor of 1.5; within a region 10.
const REGIONS: [[u64; 6]; 6] = [
    [10, 42, 68, 110, 95, 130],
    [42, 10, 30, 85, 60, 105],
    [68, 30, 10, 60, 85, 75],
    [110, 85, 60, 10, 140, 55],
    [95, 60, 85, 140, 10, 100],
    [130, 105, 75, 55, 100, 10],
];
/// Shape of the law of access delays: most below the mean, a tail of several times as much.
const ACCESS_SIGMA: f64 = 0.6;
/// Longest access delay, in milliseconds.
const ACCESS_MS_MAX: f64 = 80.0;

/// Where a node is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    region: usize,
    access: Duration,
}

impl Place {
    /// The place of a node.
    #[must_use]
    pub fn of(node: u32, network: &Network, dice: Dice) -> Self {
        let regions = u64::from(network.regions.max(1));
        let region = dice.below(regions, Purpose::Place, u64::from(node), 0);
        let draw = (Purpose::Place, u64::from(node), 1);
        let access = dice.lognormal(network.access_ms, ACCESS_SIGMA, draw).min(ACCESS_MS_MAX);
        Self {
            region: usize::try_from(region).unwrap_or(0).min(REGIONS.len() - 1),
            access: Duration::from_micros((access * 1e3) as u64),
        }
    }

    /// One-way delay to another place, without queues and jitter.
    #[must_use]
    pub fn delay(self, to: Self) -> Duration {
        Duration::from_millis(REGIONS[self.region][to.region]) + self.access + to.access
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_the_same_both_ways_and_positive() {
        let network = Network { regions: 6, ..Network::default() };
        let places: Vec<Place> = (0..50).map(|n| Place::of(n, &network, Dice::new(1))).collect();
        for a in &places {
            for b in &places {
                assert_eq!(a.delay(*b), b.delay(*a));
                assert!(a.delay(*b) >= Duration::from_millis(10));
                assert!(a.delay(*b) <= Duration::from_millis(300));
            }
        }
    }
}
