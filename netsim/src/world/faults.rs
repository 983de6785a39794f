//! Faults, carried out.
//!
//! Owns who is hit and what happens to them. Everything that a scenario breaks is whole again when
//! its duration is over, but for nodes that are gone and nodes that misbehave.

use std::{collections::BTreeSet, sync::Arc};

use astral_core::{
    overlay::{Addr, Change, Command, Contact, Input},
    units::Bitrate,
};

use super::{
    World,
    cast::{Kind, State},
    event::Event,
};
use crate::{
    node::{Misdeed, SimNode},
    random::{Dice, Purpose},
    scenario::{FaultKind, Pick, Who, seconds},
};

/// Some nodes that others do not hear.
#[derive(Debug)]
pub(super) struct Partition {
    members: BTreeSet<u32>,
    one_way: bool,
    from: u64,
    until: u64,
    /// It comes and goes: so long each, in microseconds; 0: it stands.
    flap: u64,
}

impl Partition {
    /// Until when it holds up what one sends to the other now, if it does.
    fn blocks(&self, from: u32, to: u32, now: u64) -> Option<u64> {
        let applies = match (self.members.contains(&from), self.members.contains(&to)) {
            (true, false) => true,
            (false, true) => !self.one_way,
            (true, true) | (false, false) => false,
        };
        if !applies || self.flap == 0 {
            return applies.then_some(self.until);
        }
        let phase = now.saturating_sub(self.from) / self.flap;
        let ends = self.from + (phase + 1) * self.flap;
        phase.is_multiple_of(2).then_some(ends.min(self.until))
    }
}

impl World {
    /// The scenario's fault of this number happens.
    pub(super) fn fault(&mut self, number: usize) {
        let Some(fault) = self.scenario.faults.get(number).cloned() else { return };
        let now = self.now();
        let quiet_from = self.quiet_from();
        if now > quiet_from {
            return;
        }
        let victims = self.victims(&fault.who, number);
        let until = |for_s| (now + seconds(for_s)).min(quiet_from);
        match fault.kind {
            FaultKind::Kill => self.each(&victims, |world, node| world.kill(node, false)),
            FaultKind::Vanish => self.each(&victims, |world, node| world.kill(node, true)),
            FaultKind::Freeze { for_s } => {
                self.each(&victims, |world, node| world.freeze(node, until(for_s)));
            }
            FaultKind::Partition { for_s, one_way, flap_s } => {
                self.part(victims, one_way, until(for_s), seconds(flap_s));
            }
            FaultKind::Leave => self.each(&victims, |world, node| {
                world.with_node(node, SimNode::leave);
            }),
            FaultKind::Unwatch => self.each(&victims, |world, node| {
                world.with_node(node, SimNode::unwatch);
            }),
            FaultKind::Revoke => self.each(&victims, Self::revoke),
            FaultKind::Withhold => self.misbehave(&victims, &Misdeed::Withholds),
            FaultKind::Pollute => self.misbehave(&victims, &Misdeed::Pollutes),
            FaultKind::Drop { percent } => self.misbehave(&victims, &Misdeed::Drops(percent)),
            FaultKind::LieDepth => self.misbehave(&victims, &Misdeed::LiesAboutDepth),
            FaultKind::Delay { ms } => self.each(&victims, |world, node| {
                world.nodes[node as usize].holds_back_us = ms * 1_000;
            }),
            FaultKind::LieCapacity { factor } => {
                self.each(&victims, |world, node| world.lie_about_capacity(node, factor));
            }
            FaultKind::Sybil => self.sybils(&victims),
            FaultKind::BadDirectory => {
                let friends = self.misbehaving();
                self.misbehave(&victims, &Misdeed::BadDirectory(friends));
            }
            FaultKind::Throttle { percent, for_s } => self.each(&victims, |world, node| {
                let slot = &mut world.nodes[node as usize];
                slot.up.set_rate(slot.uplink.percent(percent));
                if for_s > 0.0 {
                    world.queue.push(until(for_s), Event::Unthrottle(node));
                }
            }),
        }
        if fault.every_s > 0.0 {
            self.queue.push(now + seconds(fault.every_s), Event::Fault(number));
        }
    }

    /// A frozen node goes on: what happened to it meanwhile happens now, in order.
    pub(super) fn thaw(&mut self, index: u32) {
        let slot = &mut self.nodes[index as usize];
        if slot.state != State::Frozen {
            return;
        }
        slot.state = State::Up;
        slot.armed_at = u64::MAX;
        let held = std::mem::take(&mut slot.held);
        let now = self.now();
        for event in held {
            if !matches!(event, Event::Wake(_)) {
                self.queue.push(now, event);
            }
        }
        self.with_node(index, |_, _| {});
    }

    /// A partition ends.
    pub(super) fn heal(&mut self, number: usize) {
        if let Some(partition) = self.partitions.get_mut(number) {
            partition.members.clear();
        }
    }

    /// Whether nothing gets from one node to the other now.
    pub(super) fn is_blocked(&self, from: u32, to: u32) -> bool {
        self.blocked_until(from, to).is_some()
    }

    /// Until when nothing gets from one node to the other.
    pub(super) fn blocked_until(&self, from: u32, to: u32) -> Option<u64> {
        let now = self.now();
        self.partitions.iter().filter_map(|part| part.blocks(from, to, now)).max()
    }

    fn each(&mut self, victims: &[u32], mut act: impl FnMut(&mut Self, u32)) {
        for victim in victims {
            act(self, *victim);
        }
    }

    fn kill(&mut self, index: u32, vanished: bool) {
        self.leave_for_good(index, vanished);
        if self.scenario.session.as_ref().is_some_and(|session| session.replace) {
            self.replace(index);
        }
    }

    fn freeze(&mut self, index: u32, until: u64) {
        if self.nodes[index as usize].state != State::Up {
            return;
        }
        self.nodes[index as usize].state = State::Frozen;
        self.queue.push(until, Event::Thaw(index));
        for peer in self.peers(index) {
            self.watch_link(index, peer);
        }
    }

    /// A throttled uplink is whole again.
    pub(super) fn unthrottle(&mut self, index: u32) {
        let slot = &mut self.nodes[index as usize];
        slot.up.set_rate(slot.uplink);
    }

    fn part(&mut self, victims: Vec<u32>, one_way: bool, until: u64, flap: u64) {
        let members: BTreeSet<u32> = victims.into_iter().collect();
        let crossing: Vec<(u32, u32)> = self
            .links
            .keys()
            .filter(|(a, b)| members.contains(a) != members.contains(b))
            .copied()
            .collect();
        let from = self.now();
        self.partitions.push(Partition { members, one_way, from, until, flap });
        self.queue.push(until, Event::Heal(self.partitions.len() - 1));
        for (a, b) in crossing {
            self.watch_link(a, b);
        }
    }

    fn revoke(&mut self, index: u32) {
        self.with_node(index, |node, cx| {
            for ticket in node.overlay().snapshot().given {
                let revoke = Command::RevokeTicket { ticket: ticket.ticket };
                node.overlay_input(Input::Command(revoke), cx);
            }
        });
    }

    fn misbehave(&mut self, victims: &[u32], misdeed: &Misdeed) {
        for victim in victims {
            if let Some(node) = self.nodes[*victim as usize].node.as_deref_mut() {
                node.misdeed = misdeed.clone();
            }
        }
    }

    /// Its overlay believes in an uplink that its line does not have.
    fn lie_about_capacity(&mut self, index: u32, factor: u64) {
        let slot = &self.nodes[index as usize];
        let claimed = Bitrate::from_bps(slot.uplink.as_bps() * factor);
        self.nodes[index as usize].slots_max = self.slots_max(claimed, slot.max_copies);
        self.with_node(index, |node, cx| {
            let uplink = Change::Set(claimed);
            let (max_copies, max_total_copies) = (Change::Keep, Change::Keep);
            let limits = Command::SetLimits { uplink, max_copies, max_total_copies };
            node.overlay_input(Input::Command(limits), cx);
        });
    }

    /// All in one address block, naming each other.
    fn sybils(&mut self, victims: &[u32]) {
        for (victim, number) in victims.iter().zip(1_u32..) {
            let [_, _, c, d] = number.to_be_bytes();
            let addr = Addr::new(format!("/ip4/66.66.{c}.{d}/tcp/4001")).expect("short");
            self.nodes[*victim as usize].contact.addrs = vec![addr.clone()];
            self.with_node(*victim, |node, cx| {
                let addrs = vec![addr];
                node.overlay_input(Input::ListenAddrs { addrs, reachable: true }, cx);
            });
        }
        let friends = victims.iter().map(|victim| self.contact(*victim)).collect();
        self.misbehave(victims, &Misdeed::Sybil(friends));
    }

    /// Nodes that misbehave by now.
    fn misbehaving(&self) -> Arc<[Contact]> {
        let bad = |slot: &&super::cast::Slot| {
            slot.node.as_ref().is_some_and(|node| !node.misdeed.is_honest())
        };
        self.nodes.iter().filter(bad).map(|slot| slot.contact.clone()).collect()
    }

    /// The nodes that a fault hits, in the order of their numbers.
    fn victims(&self, who: &Who, number: usize) -> Vec<u32> {
        let among = (0_u32..)
            .zip(&self.nodes)
            .filter(|(_, slot)| slot.state == State::Up && self.is_picked(slot.kind, who, slot))
            .filter(|(_, slot)| who.region.is_none_or(|region| slot.place.region() == region))
            .map(|(index, _)| index);
        choose(who, among, (number, self.now()), self.dice)
    }

    fn is_picked(&self, kind: Kind, who: &Who, slot: &super::cast::Slot) -> bool {
        match (kind, who.pick) {
            (Kind::Viewer(number), Pick::Viewers | Pick::Parents) => {
                let feeds = || slot.node.as_ref().is_some_and(|n| n.view().live_stripes() > 0);
                (who.viewers.is_empty() || who.viewers.contains(&number))
                    && (who.pick == Pick::Viewers || feeds())
            }
            (Kind::Supernode, Pick::Supernodes) => who.viewers.is_empty(),
            (Kind::Source | Kind::Supernode, _) | (Kind::Viewer(_), Pick::Supernodes) => false,
        }
    }
}

/// Draws those whom the fault of this number hits now (in microseconds) out of those who may be hit;
/// in the order of their numbers.
#[must_use]
pub fn choose(
    who: &Who,
    among: impl Iterator<Item = u32>,
    (number, now): (usize, u64),
    dice: Dice,
) -> Vec<u32> {
    let draw = now ^ (number as u64) << 48;
    let mut among: Vec<(u64, u32)> =
        among.map(|index| (dice.bits(Purpose::Fault, u64::from(index), draw), index)).collect();
    if who.viewers.is_empty() {
        among.sort_unstable();
        let share = who.share.map(|share| (share * among.len() as f64).ceil() as usize);
        let count = who.count.map(|count| count as usize);
        among.truncate(share.or(count).unwrap_or(0));
    }
    let mut victims: Vec<u32> = among.into_iter().map(|(_, index)| index).collect();
    victims.sort_unstable();
    victims
}
