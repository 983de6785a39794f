//! Scenarios drawn from a seed: what nobody thought of writing down.
//!
//! Owns the ranges that parameters are drawn from. They stay where the network must cope: enough
//! capacity for everybody, faults that leave somebody alive.

use astral_core::units::Bitrate;

use super::{
    Bars, Changes, Class, Engine, Fault, FaultKind, Join, JoinLaw, Network, Pick, PolicyChoice,
    Scenario, Services, Session, SessionLaw, Source, Stream, Supernodes, Viewers, Who,
};
use crate::random::{Dice, Purpose};

/// One draw after the other.
struct Draw {
    dice: Dice,
    at: u64,
}

impl Draw {
    fn next(&mut self) -> u64 {
        self.at += 1;
        self.at
    }

    fn below(&mut self, below: u64) -> u64 {
        let at = self.next();
        self.dice.below(below, Purpose::Swarm, 0, at)
    }

    fn between(&mut self, least: f64, most: f64) -> f64 {
        let at = self.next();
        least + (most - least) * self.dice.unit(Purpose::Swarm, 0, at)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        let at = self.below(choices.len() as u64);
        choices[usize::try_from(at).expect("below a length")]
    }
}

impl Scenario {
    /// The swarm's scenario of this seed: 6 to 40 viewers, half a minute, two or three faults.
    #[must_use]
    pub fn drawn(seed: u64) -> Self {
        let mut draw = Draw { dice: Dice::new(seed), at: 0 };
        let (kbps, stripes) = draw.of(&[(300, 1), (700, 2), (1_000, 4), (2_000, 4), (3_000, 8)]);
        let count = 6 + u32::try_from(draw.below(35)).unwrap_or(0);
        let supernodes = 1 + u32::try_from(draw.below(3)).unwrap_or(0);
        let faults = (0..2 + draw.below(2)).map(|_| fault(&mut draw)).collect();
        Self {
            name: format!("swarm-{seed}"),
            about: "drawn from its seed".to_owned(),
            duration_s: 30.0,
            settle_s: 20.0,
            stream: Stream {
                rate: Bitrate::from_kbps(kbps),
                stripes,
                keyframe_s: draw.of(&[1.0, 2.0, 4.0]),
                audio: Bitrate::from_kbps(64),
                ..Stream::default()
            },
            source: Source { copies: draw.between(3.0, 8.0), max_copies: None },
            supernodes: Supernodes { count: Some(supernodes), ..Supernodes::default() },
            viewers: viewers(count, stripes, &mut draw),
            join: Join {
                law: draw.of(&[JoinLaw::Ramp, JoinLaw::Poisson, JoinLaw::Flash]),
                from_s: 4.0,
                over_s: draw.between(1.0, 8.0),
                warm_s: draw.of(&[0.0, 2.0]),
            },
            session: session(&mut draw),
            network: Network {
                regions: draw.of(&[1, 2, 3, 6]),
                access_ms: draw.between(2.0, 25.0),
                jitter_ms: draw.between(0.0, 8.0),
                loss: draw.of(&[0.0, 0.0, 0.001, 0.005]),
                ..Network::default()
            },
            services: Services::default(),
            engine: Engine::default(),
            tuning: Changes::new(),
            relay: Changes::new(),
            crowds: Vec::new(),
            absent: Vec::new(),
            faults,
            bars: Bars::default(),
        }
    }
}

fn viewers(count: u32, stripes: u8, draw: &mut Draw) -> Viewers {
    let class = |share, copies| Class { share, copies, ..Class::default() };
    // Without preemption a few viewers who forward nothing can fill the source of an unstriped
    // stream; then nobody else is served, whatever the others could give.
    let leaves = if stripes == 1 { 0.0 } else { 0.3 };
    Viewers {
        count,
        policy: draw.of(&[PolicyChoice::KeepAll, PolicyChoice::Live]),
        dealt: false,
        lag_ms: draw.of(&[1_500, 3_000]),
        classes: vec![
            class(draw.between(0.0, leaves), 0.0),
            class(draw.between(0.0, leaves), 0.5),
            class(draw.between(0.5, 1.0), draw.between(2.0, 4.0)),
        ],
    }
}

fn session(draw: &mut Draw) -> Option<Session> {
    (!draw.one_in(3)).then(|| Session {
        law: draw.of(&[SessionLaw::Exponential, SessionLaw::Lognormal]),
        mean_s: draw.between(30.0, 200.0),
        sigma: 1.0,
        shape: 0.6,
        trace: None,
        lengths: Vec::new().into(),
        programme_end_s: None,
        exodus: 0.0,
        exodus_over_s: 0.0,
        abrupt: draw.between(0.0, 1.0),
        silent: draw.between(0.0, 0.3),
        replace: true,
    })
}

fn fault(draw: &mut Draw) -> Fault {
    let at_s = draw.between(12.0, 25.0);
    let kind = match draw.below(6) {
        0 | 1 => FaultKind::Kill,
        2 => FaultKind::Vanish,
        3 => FaultKind::Freeze { for_s: draw.between(0.5, 6.0) },
        4 => FaultKind::Partition {
            for_s: draw.between(0.5, 4.0),
            one_way: draw.one_in(2),
            flap_s: 0.0,
        },
        _ => FaultKind::Unwatch,
    };
    let pick = draw.of(&[Pick::Viewers, Pick::Parents]);
    let who = Who { pick, share: Some(draw.between(0.05, 0.25)), ..Who::default() };
    Fault { at_s, every_s: 0.0, kind, who }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawn_scenario_is_sound_and_depends_on_its_seed() {
        for seed in 0..200 {
            Scenario::drawn(seed).check().unwrap();
        }
        assert_eq!(Scenario::drawn(3), Scenario::drawn(3));
        assert_ne!(Scenario::drawn(3).viewers, Scenario::drawn(4).viewers);
    }
}
