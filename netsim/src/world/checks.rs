//! Invariants of the whole network, and the liveness that must follow when faults stop.
//!
//! Owns what is checked each simulated second and at the end; what can be checked on one node's
//! outputs is checked where they pass (see [`crate::node`] and [`crate::player`]). A violation never
//! stops a run: the first one is the interesting one, and the summary shows it with the command that
//! replays it.

use std::collections::{BTreeMap, BTreeSet};

use astral_core::ids::Stripe;
use serde::Serialize;

use super::{
    World,
    cast::{Kind, Slot, State},
};
use crate::{scenario::seconds, summary::ChecksReport};

/// Violations that are kept with their words; all are counted.
const VIOLATIONS_MAX: usize = 50;
/// A cycle may stand for so many checks while a path vector is on its way.
const CYCLE_CHECKS_MAX: u32 = 2;
/// A dead node may be a live parent for so long, in microseconds: the lease and some.
const DEAD_PARENT_MAX_US: u64 = 15_000_000;
/// At the end, each stripe must have brought a chunk within this, in microseconds.
const FRESH_US: u64 = 3_000_000;
/// Tickets that only one side knows must be gone after this, in microseconds: a lease and the way.
const LEASE_US: u64 = 12_000_000;
/// Everybody must be served where slots are this many times what is wanted.
const CAPACITY_MIN: f64 = 1.05;
/// One in so many slots may be in use twice while a child moves; at least one.
const MOVING_SHARE: u32 = 16;
/// Control may add so much to the ceiling, in percent, and one batch may straddle two checks.
const CONTROL_PERCENT: u64 = 5;
const BATCH_BYTES: u64 = 70_000;

/// Something that must not happen.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Violation {
    /// When, in milliseconds of simulated time.
    pub at_ms: u64,
    /// At which node.
    pub node: Option<u32>,
    /// What.
    pub what: String,
}

/// A ticket that its parent keeps and its child does not know.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct LeakedTicket {
    parent: u32,
    ticket: u64,
    stripe: Stripe,
}

/// What the checks remember.
#[derive(Debug, Default)]
pub(super) struct Checks {
    violations: Vec<Violation>,
    count: u64,
    cycles: BTreeMap<(Stripe, u32), u32>,
    leaks: BTreeSet<LeakedTicket>,
    depth_max: u32,
    depth_sum: u64,
    depth_count: u64,
    /// Media sent by viewers that are gone.
    gone_payload: u64,
    /// Bytes that the source sent and that were cut when the joins were over.
    source_before: Option<(u64, u64)>,
    source_copies: f64,
    /// Slots over wants at the end.
    capacity: f64,
    /// Free stripes as known and as they are, at the end.
    free: Option<(u64, u64)>,
    /// Offences that were told already.
    blamed: u64,
}

impl Checks {
    pub(super) fn into_report(self) -> ChecksReport {
        ChecksReport {
            violations: self.violations,
            count: self.count,
            depth_max: self.depth_max,
            depth_mean: self.depth_sum as f64 / self.depth_count.max(1) as f64,
            source_copies: self.source_copies,
            capacity: self.capacity,
            free: self.free,
        }
    }

    /// Media that viewers sent.
    pub(super) fn viewer_payload(&self, nodes: &[Slot]) -> u64 {
        let there = nodes.iter().filter(|slot| matches!(slot.kind, Kind::Viewer(_)));
        let sent = there.filter_map(|slot| slot.node.as_ref()).map(|n| n.view().sent.payload);
        self.gone_payload + sent.sum::<u64>()
    }

    /// Offences that were told already.
    pub(super) const fn blamed(&self) -> u64 {
        self.blamed
    }

    pub(super) const fn set_blamed(&mut self, offences: u64) {
        self.blamed = offences;
    }

    /// A node goes: its figures stay.
    pub(super) fn forget(&mut self, slot: &Slot) {
        if let (Kind::Viewer(_), Some(node)) = (slot.kind, &slot.node) {
            self.gone_payload += node.view().sent.payload;
        }
    }
}

impl World {
    /// Notes a violation.
    pub(super) fn violated(&mut self, node: Option<u32>, what: String) {
        self.checks.count += 1;
        if self.checks.violations.len() < VIOLATIONS_MAX {
            let at_ms = self.now() / 1_000;
            self.checks.violations.push(Violation { at_ms, node, what });
        }
    }

    /// Once a simulated second.
    pub(super) fn check_second(&mut self) {
        self.check_capacity();
        self.check_parents();
        self.check_timers();
        for stripe in 0..self.scenario.stream.stripes {
            self.check_tree(stripe);
        }
        self.measure_source();
        let now = self.now();
        if now.is_multiple_of(5_000_000) {
            self.check_members();
            self.check_bounds();
        }
        self.check_blame();
        // The last second before the end that leaves a lease's time.
        let before_end = self.end().saturating_sub(now);
        if self.scenario.settle_s >= 15.0 && (LEASE_US..LEASE_US + 1_000_000).contains(&before_end)
        {
            self.checks.leaks = self.one_sided_tickets();
        }
    }

    /// When everything is over: liveness and leaks.
    pub(super) fn last_checks(&mut self) {
        if self.scenario.settle_s < 15.0 {
            return;
        }
        let still: Vec<LeakedTicket> =
            self.one_sided_tickets().intersection(&self.checks.leaks).copied().collect();
        for leak in still {
            let LeakedTicket { parent, ticket, stripe } = leak;
            let what =
                format!("ticket {ticket:x} of stripe {stripe} leaked: its child is not there");
            self.violated(Some(parent), what);
        }
        self.checks.free = self.directory_free();
        self.checks.capacity = self.capacity();
        if self.checks.capacity < CAPACITY_MIN {
            return;
        }
        let indices: Vec<u32> = (0_u32..).take(self.nodes.len()).collect();
        for index in indices {
            if let Some(what) = self.starving(index) {
                self.violated(Some(index), what);
            }
        }
    }

    /// Stripes that those who are there may promise, over those that the viewers among them want.
    fn capacity(&self) -> f64 {
        let there = || self.nodes.iter().filter(|slot| slot.state == State::Up);
        let slots: u64 = there().map(|slot| u64::from(slot.slots_max)).sum();
        let viewers = there().filter(|slot| matches!(slot.kind, Kind::Viewer(_))).count();
        let wanted = viewers * usize::from(self.scenario.stream.stripes);
        slots as f64 / wanted.max(1) as f64
    }

    /// What a viewer lacks that should lack nothing.
    fn starving(&self, index: u32) -> Option<String> {
        let slot = &self.nodes[index as usize];
        let (Kind::Viewer(_), State::Up) = (slot.kind, slot.state) else { return None };
        let node = slot.node.as_deref()?;
        let player = node.player.as_ref().filter(|player| !player.is_over())?;
        let end = self.end();
        if player.asked_at + seconds(self.scenario.settle_s) > end {
            return None;
        }
        if player.playing_at.is_none() {
            return Some("liveness: it never played".to_owned());
        }
        let dry: Vec<Stripe> = (0..self.scenario.stream.stripes)
            .filter(|stripe| player.stripe(*stripe).last_at.is_none_or(|at| at + FRESH_US < end))
            .collect();
        (!dry.is_empty()).then(|| format!("liveness: nothing comes on stripes {dry:?}"))
    }

    fn check_capacity(&mut self) {
        let mut found = Vec::new();
        // Bytes that are only charged keep to no second.
        let told = self.scenario.network.uplink_told && !self.is_coarse();
        for (index, slot) in (0_u32..).zip(&mut self.nodes) {
            let Some(node) = slot.node.as_deref_mut() else { continue };
            let (live, most) = (node.take_live_max(), slot.slots_max);
            // While a child moves, whoever took its place has its slot already.
            if live > most + most / MOVING_SHARE + 1 {
                found.push((index, format!("promised {live} stripes, may promise {most}")));
            }
            let sent = node.view().sent;
            let passed = sent.total().saturating_sub(slot.sent_before.total());
            let repair = sent.repair.saturating_sub(slot.sent_before.repair);
            slot.sent_before = sent;
            let ceiling = slot.uplink.as_bps() / 8;
            let most = ceiling + ceiling * CONTROL_PERCENT / 100 + BATCH_BYTES;
            // Repair takes what live leaves, so that it can fill the uplink but never exceed it.
            if told && repair > most {
                found.push((index, format!("repaired {repair} bytes in a second, has {most}")));
            }
            if told && passed > most {
                found.push((index, format!("sent {passed} bytes in a second, may send {most}")));
            }
        }
        for (index, what) in found {
            self.violated(Some(index), what);
        }
    }

    fn check_parents(&mut self) {
        let (now, k) = (self.now(), self.scenario.stream.stripes);
        let mut found = Vec::new();
        for (index, slot) in (0_u32..).zip(&self.nodes) {
            let (State::Up, Some(node)) = (slot.state, &slot.node) else { continue };
            for stripe in 0..k {
                let parent = node.view().parent(stripe).and_then(|id| self.index_of(&id));
                let state = parent.map(|parent| self.nodes[parent as usize].state);
                if let Some(State::Gone { at, .. }) = state
                    && now.saturating_sub(at) > DEAD_PARENT_MAX_US
                {
                    found.push((index, format!("the parent of stripe {stripe} is long dead")));
                }
            }
        }
        for (index, what) in found {
            self.violated(Some(index), what);
        }
    }

    /// Depths of one stripe's tree, and that it is one.
    fn check_tree(&mut self, stripe: Stripe) {
        const UNKNOWN: u32 = u32::MAX;
        const UNDER_WAY: u32 = u32::MAX - 1;
        const LOOSE: u32 = u32::MAX - 2;
        let mut depth = vec![UNKNOWN; self.nodes.len()];
        depth[0] = 0;
        let mut cycles = BTreeSet::new();
        for start in (0_u32..).take(self.nodes.len()) {
            let mut way = Vec::new();
            let mut at = start;
            let mut end = loop {
                match depth[at as usize] {
                    UNKNOWN => {}
                    UNDER_WAY => {
                        cycles.insert(at);
                        break LOOSE;
                    }
                    known => break known,
                }
                depth[at as usize] = UNDER_WAY;
                way.push(at);
                let node = self.nodes[at as usize].node.as_deref();
                let parent = node.and_then(|node| node.view().parent(stripe));
                match parent.and_then(|id| self.index_of(&id)) {
                    Some(parent) => at = parent,
                    None => break LOOSE,
                }
            };
            while let Some(node) = way.pop() {
                end = if end >= LOOSE { LOOSE } else { end + 1 };
                depth[node as usize] = end;
            }
        }
        for known in depth.into_iter().filter(|known| (1..LOOSE).contains(known)) {
            self.checks.depth_max = self.checks.depth_max.max(known);
            self.checks.depth_sum += u64::from(known);
            self.checks.depth_count += 1;
        }
        self.note_cycles(stripe, &cycles);
    }

    fn note_cycles(&mut self, stripe: Stripe, cycles: &BTreeSet<u32>) {
        self.checks.cycles.retain(|(of, node), _| *of != stripe || cycles.contains(node));
        let mut long = Vec::new();
        for node in cycles {
            let checks = self.checks.cycles.entry((stripe, *node)).or_default();
            *checks += 1;
            if *checks == CYCLE_CHECKS_MAX + 1 {
                long.push(*node);
            }
        }
        for node in long {
            self.violated(Some(node), format!("a cycle in stripe {stripe} stands"));
        }
    }

    fn check_members(&mut self) {
        let most = self.scenario.supernodes.capacity;
        let servers: Vec<u32> = self.servers.keys().copied().collect();
        for index in servers {
            let Some(node) = self.nodes[index as usize].node.as_deref() else { continue };
            let members = node.overlay().snapshot().members.len();
            if members > most {
                let what = format!("{members} members registered, {most} places");
                self.violated(Some(index), what);
            }
        }
    }

    /// Tickets that a parent gave and that its child does not hold.
    fn one_sided_tickets(&self) -> BTreeSet<LeakedTicket> {
        let mut held = BTreeSet::new();
        let snapshots: Vec<_> = (0_u32..)
            .zip(&self.nodes)
            .filter_map(|(index, slot)| Some((index, slot.id, slot.node.as_deref()?)))
            .map(|(index, id, node)| (index, id, node.overlay().snapshot()))
            .collect();
        for (_, id, snapshot) in &snapshots {
            held.extend(snapshot.held.iter().map(|t| (t.node, t.ticket, t.stripe, *id)));
        }
        let mut leaked = BTreeSet::new();
        for (parent, id, snapshot) in &snapshots {
            for given in &snapshot.given {
                if !held.contains(&(*id, given.ticket, given.stripe, given.node)) {
                    let (ticket, stripe) = (given.ticket.0, given.stripe);
                    leaked.insert(LeakedTicket { parent: *parent, ticket, stripe });
                }
            }
        }
        leaked
    }

    /// Copies that the source sends, from the end of the joins on.
    fn measure_source(&mut self) {
        let join = &self.scenario.join;
        if self.now() < seconds(join.from_s + join.over_s) {
            return;
        }
        let Some(source) = self.nodes.first().and_then(|slot| slot.node.as_deref()) else { return };
        let (sent, cut) = (source.view().sent.payload, self.cut_bytes);
        match self.checks.source_before {
            None => self.checks.source_before = Some((sent, cut)),
            Some((sent_before, cut_before)) if cut > cut_before => {
                let copies = (sent - sent_before) as f64 / (cut - cut_before) as f64;
                self.checks.source_copies = copies;
            }
            Some(_) => {}
        }
    }
}
