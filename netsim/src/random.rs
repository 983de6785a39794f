//! Counter-based randomness: each draw is a pure function of (seed, purpose, entity, counter).
//!
//! Owns the mixing and the laws drawn from it. There is no generator state: removing a node or a
//! fault leaves every other draw as it was, which is what makes failures shrink and replay. `ln` and
//! `exp` come from `libm`, so that two machines agree.

use std::time::Duration;

/// What a draw is for; keeps the sequences of one entity apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u64)]
pub enum Purpose {
    /// Identity and the overlay's own seed.
    Identity = 1,
    /// Region and access delay.
    Place,
    /// Class of uplink.
    Class,
    /// When a viewer joins.
    Join,
    /// How long a viewer stays.
    Session,
    /// How a viewer goes.
    Departure,
    /// Delay variation of one message.
    Jitter,
    /// Whether a link is in a bad moment.
    LossState,
    /// Whether a packet is lost in a bad moment.
    Loss,
    /// Kademlia.
    Lookup,
    /// Gossip.
    Gossip,
    /// Whom a fault hits.
    Fault,
    /// When a dead connection is noticed.
    Notice,
    /// Bootstrap contacts.
    Bootstrap,
    /// Parameters of a swarm run.
    Swarm,
    /// Whether a dial succeeds.
    Dial,
}

/// The seed of a run; copies are the same dice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dice {
    seed: u64,
}

impl Dice {
    /// Dice of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// 64 random bits.
    #[must_use]
    pub const fn bits(self, purpose: Purpose, entity: u64, counter: u64) -> u64 {
        let start = mix(self.seed ^ (purpose as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let middle = mix(start ^ entity.wrapping_mul(0xd1b5_4a32_d192_ed03));
        mix(middle ^ counter.wrapping_mul(0x8cb9_2ba7_2f3d_8dd7))
    }

    /// 32 random bytes.
    #[must_use]
    pub fn bytes(self, purpose: Purpose, entity: u64, counter: u64) -> [u8; 32] {
        let mut out = [0; 32];
        for (at, word) in out.chunks_exact_mut(8).enumerate() {
            let word_at = counter.wrapping_mul(4).wrapping_add(at as u64);
            word.copy_from_slice(&self.bits(purpose, entity, word_at).to_be_bytes());
        }
        out
    }

    /// Uniform in [0, 1).
    #[must_use]
    pub fn unit(self, purpose: Purpose, entity: u64, counter: u64) -> f64 {
        // 53 bits fit a double exactly.
        (self.bits(purpose, entity, counter) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// True with probability `p`.
    #[must_use]
    pub fn chance(self, p: f64, purpose: Purpose, entity: u64, counter: u64) -> bool {
        p > 0.0 && self.unit(purpose, entity, counter) < p
    }

    /// Uniform below `below`; 0 when that is 0.
    #[must_use]
    pub fn below(self, below: u64, purpose: Purpose, entity: u64, counter: u64) -> u64 {
        let wide = u128::from(self.bits(purpose, entity, counter)) * u128::from(below);
        (wide >> 64) as u64
    }

    /// Uniform between two durations.
    #[must_use]
    pub fn between(self, range: (Duration, Duration), draw: (Purpose, u64, u64)) -> Duration {
        let (least, most) = range;
        let span = most.saturating_sub(least).as_micros();
        let span = u64::try_from(span).unwrap_or(u64::MAX);
        least + Duration::from_micros(self.below(span.saturating_add(1), draw.0, draw.1, draw.2))
    }

    /// Exponential with mean 1.
    #[must_use]
    pub fn exponential(self, purpose: Purpose, entity: u64, counter: u64) -> f64 {
        -libm::log(1.0 - self.unit(purpose, entity, counter))
    }

    /// Standard normal, by Box and Muller.
    #[must_use]
    pub fn normal(self, purpose: Purpose, entity: u64, counter: u64) -> f64 {
        let radius = libm::sqrt(2.0 * self.exponential(purpose, entity, counter.wrapping_mul(2)));
        let turn = self.unit(purpose, entity, counter.wrapping_mul(2).wrapping_add(1));
        radius * libm::cos(2.0 * std::f64::consts::PI * turn)
    }

    /// Lognormal with the given mean and shape `sigma`.
    #[must_use]
    pub fn lognormal(self, mean: f64, sigma: f64, draw: (Purpose, u64, u64)) -> f64 {
        let mu = libm::log(mean) - sigma * sigma / 2.0;
        libm::exp(mu + sigma * self.normal(draw.0, draw.1, draw.2))
    }
}

impl Dice {
    /// Weibull with the given mean and shape.
    #[must_use]
    pub fn weibull(self, mean: f64, shape: f64, draw: (Purpose, u64, u64)) -> f64 {
        let scale = mean / libm::tgamma(1.0 + 1.0 / shape);
        scale * libm::pow(self.exponential(draw.0, draw.1, draw.2), 1.0 / shape)
    }
}

/// The finaliser of splitmix64: every input bit reaches every output bit.
#[must_use]
pub const fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_depends_on_seed_purpose_entity_and_counter_alone() {
        let dice = Dice::new(7);
        let first = dice.bits(Purpose::Jitter, 3, 9);
        assert_eq!(first, Dice::new(7).bits(Purpose::Jitter, 3, 9));
        assert_ne!(first, Dice::new(8).bits(Purpose::Jitter, 3, 9));
        assert_ne!(first, dice.bits(Purpose::Loss, 3, 9));
        assert_ne!(first, dice.bits(Purpose::Jitter, 4, 9));
        assert_ne!(first, dice.bits(Purpose::Jitter, 3, 10));
    }

    #[test]
    fn the_laws_have_the_means_they_should_have() {
        let dice = Dice::new(1);
        let n = 20_000;
        let mean = |draw: &dyn Fn(u64) -> f64| (0..n).map(draw).sum::<f64>() / n as f64;
        assert!((mean(&|i| dice.unit(Purpose::Loss, 0, i)) - 0.5).abs() < 0.01);
        assert!((mean(&|i| dice.exponential(Purpose::Loss, 1, i)) - 1.0).abs() < 0.03);
        let lognormal = mean(&|i| dice.lognormal(300.0, 1.0, (Purpose::Session, i, 0)));
        assert!((lognormal / 300.0 - 1.0).abs() < 0.05, "{lognormal}");
        let weibull = mean(&|i| dice.weibull(300.0, 0.6, (Purpose::Session, i, 0)));
        assert!((weibull / 300.0 - 1.0).abs() < 0.05, "{weibull}");
        let range = (Duration::from_millis(5), Duration::from_millis(7));
        let between = |i| dice.between(range, (Purpose::Notice, 0, i)).as_secs_f64();
        assert!((mean(&between) - 0.006).abs() < 0.000_1);
    }
}
