//! Where nodes are and how long a message is on its way between them.
//!
//! Owns regions, access delays and the one-way delay of a pair. Does not own queues (see
//! [`crate::uplink`]).

use std::time::Duration;

use crate::{
    random::{Dice, Purpose},
    scenario::Network,
};

/// Regions of the table.
pub const REGIONS_MAX: usize = 10;
/// One-way delays between regions, in milliseconds: Western Europe, North America East and West,
/// East Asia, South America, Oceania, Eastern Europe, South Asia, Middle East, Africa. Our own fit:
/// 4 ms and 1.35 times the great circle between a large city of each at two thirds of the speed of
/// light, rounded; 10 within a region. The median round trip is 139 ms, the longest 258 ms; public
/// clouds publish 149 ms and about 300 ms for theirs.
const REGIONS: [[u64; REGIONS_MAX]; REGIONS_MAX] = [
    [10, 45, 65, 65, 70, 115, 15, 50, 35, 45],
    [45, 10, 30, 75, 55, 110, 55, 90, 80, 85],
    [65, 30, 10, 60, 75, 85, 70, 95, 90, 110],
    [65, 75, 60, 10, 130, 55, 60, 50, 60, 80],
    [70, 55, 75, 130, 10, 95, 80, 95, 85, 65],
    [115, 110, 85, 55, 95, 10, 105, 75, 85, 85],
    [15, 55, 70, 60, 80, 105, 10, 40, 30, 45],
    [50, 90, 95, 50, 95, 75, 40, 10, 15, 35],
    [35, 80, 90, 60, 85, 85, 30, 15, 10, 30],
    [45, 85, 110, 80, 65, 85, 45, 35, 30, 10],
];
/// Viewers of each region in a hundred, when they are spread as people with fast lines are: a guess.
const PEOPLE: [u64; REGIONS_MAX] = [22, 14, 8, 20, 9, 2, 9, 9, 4, 3];
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
    pub fn of(node: u32, access_ms: f64, network: &Network, dice: Dice) -> Self {
        let draw = (Purpose::Place, u64::from(node), 1);
        let access = dice.lognormal(access_ms, ACCESS_SIGMA, draw).min(ACCESS_MS_MAX);
        Self {
            region: region_of(node, network, dice),
            access: Duration::from_micros((access * 1e3) as u64),
        }
    }

    /// Its region, by number.
    #[must_use]
    pub const fn region(self) -> usize {
        self.region
    }

    /// One-way delay to another place, without queues and jitter.
    #[must_use]
    pub fn delay(self, to: Self) -> Duration {
        Duration::from_millis(REGIONS[self.region][to.region]) + self.access + to.access
    }
}

fn region_of(node: u32, network: &Network, dice: Dice) -> usize {
    let regions = usize::from(network.regions).clamp(1, REGIONS_MAX);
    let people = PEOPLE.iter().take(regions);
    let weights = people.map(|people| if network.by_population { *people } else { 1 });
    let total: u64 = weights.clone().sum();
    let mut draw = dice.below(total, Purpose::Place, u64::from(node), 0);
    for (region, weight) in weights.enumerate() {
        if draw < weight {
            return region;
        }
        draw -= weight;
    }
    regions - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_the_same_both_ways_and_positive() {
        let network = Network { regions: 10, by_population: true, ..Network::default() };
        let places: Vec<Place> =
            (0..50).map(|n| Place::of(n, 8.0, &network, Dice::new(1))).collect();
        for a in &places {
            for b in &places {
                assert_eq!(a.delay(*b), b.delay(*a));
                assert!(a.delay(*b) >= Duration::from_millis(10));
                assert!(a.delay(*b) <= Duration::from_millis(300));
            }
        }
    }
}
