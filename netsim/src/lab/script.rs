//! What happens in a lab and when: joins and faults.
//!
//! Owns the order of events, who is hit (by the simulator's draws) and what that means for real
//! processes. Does not own processes nor lines.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{bail, ensure};
use astral_netsim::{
    geography::Place,
    random::Dice,
    scenario::{Fault, FaultKind, Pick, Scenario, seconds},
    world::{Kind, Planned, choose},
};

/// Something that happens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// A viewer comes.
    Join(usize),
    /// The fault of this number.
    Fault(usize),
    /// `kill -9`.
    Kill(usize),
    /// Nothing gets through to and from it any more; then it is killed, so that nothing closes.
    Vanish(usize),
    /// Stopped, or going on.
    Freeze(usize, bool),
    /// `SIGTERM`.
    Leave(usize),
    /// Cut off from all others, or not any more.
    Part {
        /// Names the partition.
        name: u64,
        /// Who is cut off; empty: it heals.
        members: BTreeSet<usize>,
        /// Only what they send is lost.
        one_way: bool,
    },
    /// So many percent of its rate.
    Throttle(usize, u64),
    /// The lab is over.
    End,
}

/// Who may be hit at this moment.
#[derive(Clone, Copy, Debug)]
pub struct Alive {
    /// It runs.
    pub is_up: bool,
    /// It feeds somebody.
    pub feeds: bool,
}

/// What is to come.
#[derive(Debug)]
pub struct Script {
    steps: BTreeMap<(u64, u64), Step>,
    order: u64,
    faults: Vec<Fault>,
    quiet_from: u64,
    dice: Dice,
}

/// Says what of a scenario real processes can't do.
///
/// # Errors
/// Names it.
pub fn check(scenario: &Scenario) -> anyhow::Result<()> {
    for fault in &scenario.faults {
        match fault.kind {
            FaultKind::Kill
            | FaultKind::Vanish
            | FaultKind::Freeze { .. }
            | FaultKind::Partition { .. }
            | FaultKind::Leave
            | FaultKind::Throttle { .. } => {}
            FaultKind::Unwatch | FaultKind::Revoke => {
                bail!("faults of kind unwatch and revoke are for netsim run alone")
            }
            FaultKind::Withhold
            | FaultKind::Pollute
            | FaultKind::Delay { .. }
            | FaultKind::Drop { .. }
            | FaultKind::LieCapacity { .. }
            | FaultKind::LieDepth
            | FaultKind::Sybil
            | FaultKind::BadDirectory => bail!("real nodes do not misbehave: netsim run does that"),
        }
    }
    ensure!(scenario.session.is_none(), "[session] is for netsim run alone: use kill and leave");
    let tuned = scenario.overlay_tuning() != Default::default();
    ensure!(!tuned, "[tuning] is for netsim run alone");
    Ok(())
}

impl Script {
    /// The joins and faults of a scenario.
    #[must_use]
    pub fn new(scenario: &Scenario, plan: &[Planned], dice: Dice) -> Self {
        let mut script = Self {
            steps: BTreeMap::new(),
            order: 0,
            faults: scenario.faults.clone(),
            quiet_from: seconds(scenario.duration_s),
            dice,
        };
        for (node, planned) in plan.iter().enumerate() {
            if let Some(at) = planned.watch_at {
                script.push(at, Step::Join(node));
            }
        }
        for (number, fault) in scenario.faults.iter().enumerate() {
            script.push(seconds(fault.at_s), Step::Fault(number));
        }
        script.push(seconds(scenario.duration_s + scenario.settle_s), Step::End);
        script
    }

    /// The next step and its time in microseconds.
    pub fn next(&mut self) -> Option<(u64, Step)> {
        self.steps.pop_first().map(|((at, _), step)| (at, step))
    }

    /// A fault happens: those whom it hits and what comes of it are among the next steps.
    pub fn fault(&mut self, number: usize, now: u64, plan: &[Planned], alive: &[Alive]) {
        let Some(fault) = self.faults.get(number).cloned() else { return };
        if now > self.quiet_from {
            return;
        }
        if fault.every_s > 0.0 {
            self.push(now + seconds(fault.every_s), Step::Fault(number));
        }
        let hit = |index: &u32| {
            let at = *index as usize;
            let who = &fault.who;
            let is_picked = match (plan[at].kind, who.pick) {
                (Kind::Viewer(viewer), Pick::Viewers | Pick::Parents) => {
                    (who.viewers.is_empty() || who.viewers.contains(&viewer))
                        && (who.pick == Pick::Viewers || alive[at].feeds)
                }
                (Kind::Supernode, Pick::Supernodes) => who.viewers.is_empty(),
                (Kind::Source | Kind::Supernode, _) | (Kind::Viewer(_), Pick::Supernodes) => false,
            };
            let region = |place: Place| who.region.is_none_or(|region| place.region() == region);
            alive[at].is_up && is_picked && region(plan[at].place)
        };
        let among = (0_u32..).take(plan.len()).filter(hit);
        let victims: Vec<usize> = choose(&fault.who, among, (number, now), self.dice)
            .into_iter()
            .map(|victim| victim as usize)
            .collect();
        let until = |for_s: f64| (now + seconds(for_s)).min(self.quiet_from);
        match fault.kind {
            FaultKind::Partition { for_s, one_way, flap_s } => {
                let until = until(for_s);
                self.part(victims.into_iter().collect(), one_way, (now, until, seconds(flap_s)));
            }
            FaultKind::Kill => self.each(&victims, now, Step::Kill),
            FaultKind::Vanish => self.each(&victims, now, Step::Vanish),
            FaultKind::Leave => self.each(&victims, now, Step::Leave),
            FaultKind::Freeze { for_s } => {
                let until = until(for_s);
                self.each(&victims, now, |node| Step::Freeze(node, true));
                self.each(&victims, until, |node| Step::Freeze(node, false));
            }
            FaultKind::Throttle { percent, for_s } => {
                let until = until(for_s);
                self.each(&victims, now, |node| Step::Throttle(node, percent));
                if for_s > 0.0 {
                    self.each(&victims, until, |node| Step::Throttle(node, 100));
                }
            }
            // `check` refused them.
            _ => {}
        }
    }

    fn part(
        &mut self,
        members: BTreeSet<usize>,
        one_way: bool,
        (from, until, flap): (u64, u64, u64),
    ) {
        let name = self.order;
        let (mut at, mut is_cut) = (from, true);
        while at < until {
            let members = if is_cut { members.clone() } else { BTreeSet::new() };
            self.push(at, Step::Part { name, members, one_way });
            if flap == 0 {
                break;
            }
            (at, is_cut) = (at + flap, !is_cut);
        }
        self.push(until, Step::Part { name, members: BTreeSet::new(), one_way });
    }

    fn each(&mut self, victims: &[usize], at: u64, step: impl Fn(usize) -> Step) {
        for victim in victims {
            self.push(at, step(*victim));
        }
    }

    fn push(&mut self, at: u64, step: Step) {
        self.order += 1;
        self.steps.insert((at, self.order), step);
    }
}

#[cfg(test)]
mod tests {
    use astral_netsim::world::World;

    use super::*;

    const TEXT: &str = "name = 'x'\nduration_s = 30\n[viewers]\ncount = 5\n";

    fn steps(fault: &str) -> Vec<(u64, Step)> {
        let scenario = Scenario::parse(&format!("{TEXT}[[fault]]\nat_s = 10\n{fault}")).unwrap();
        check(&scenario).unwrap();
        let plan = World::new(scenario.clone(), 1).plan();
        let mut script = Script::new(&scenario, &plan, Dice::new(1));
        let alive = vec![Alive { is_up: true, feeds: true }; plan.len()];
        let mut all = Vec::new();
        while let Some((at, step)) = script.next() {
            if let Step::Fault(number) = step {
                script.fault(number, at, &plan, &alive);
            } else if !matches!(step, Step::Join(_)) {
                all.push((at / 1_000_000, step));
            }
        }
        all
    }

    #[test]
    fn a_freeze_ends_and_a_flapping_partition_comes_and_goes() {
        let frozen = steps("kind = 'freeze'\nfor_s = 3\nwho = { viewers = [1] }");
        let expected = [(10, Step::Freeze(3, true)), (13, Step::Freeze(3, false)), (50, Step::End)];
        assert_eq!(frozen, expected);
        let parted = steps("kind = 'partition'\nfor_s = 5\nflap_s = 2\nwho = { viewers = [0] }");
        let cut = |step: &Step| matches!(step, Step::Part { members, .. } if !members.is_empty());
        let times: Vec<(u64, bool)> = parted.iter().map(|(at, step)| (*at, cut(step))).collect();
        assert_eq!(times, [(10, true), (12, false), (14, true), (15, false), (50, false)]);
    }

    #[test]
    fn faults_repeat_until_the_duration_is_over() {
        let killed = steps("every_s = 8\nkind = 'kill'\nwho = { count = 1 }");
        let times: Vec<u64> = killed.iter().map(|(at, _)| *at).collect();
        assert_eq!(times, [10, 18, 26, 50]);
    }

    #[test]
    fn what_real_nodes_do_not_do_is_refused() {
        let text = format!("{TEXT}[[fault]]\nat_s = 1\nkind = 'pollute'\nwho = {{ count = 1 }}");
        assert!(check(&Scenario::parse(&text).unwrap()).is_err());
        let text = format!("{TEXT}[session]\nlaw = 'exponential'\nmean_s = 60\n");
        assert!(check(&Scenario::parse(&text).unwrap()).is_err());
    }
}
