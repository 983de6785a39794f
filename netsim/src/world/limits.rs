//! Invariants of single nodes that are looked at now and then: timers, bounds, blame, and what the
//! directory believes; and the row that every second leaves behind.
//!
//! Owns those checks. Does not own the ones on trees, tickets and capacity (see `checks`).

use astral_core::{
    ids::NodeId,
    media::relay::{RING_BYTES_MAX, RING_CHUNKS_MAX},
    overlay::PATH_MAX,
};

use super::{
    Second, World,
    cast::{Kind, State},
};

/// A dead node may be named for this long, in microseconds: the lifetime of its last STATUS, and what
/// a summary of it takes to be replaced.
const NAMED_DEAD_US: u64 = 25_000_000;
/// A node that lacks a parent must wake up within this, in microseconds: the longest pause between
/// searches and some.
const LOST_WAKEUP_US: u64 = 10_000_000;

impl World {
    /// Whoever lacks a parent has a timer that will make it look for one.
    pub(super) fn check_timers(&mut self) {
        let (now, k) = (self.now(), self.scenario.stream.stripes);
        let mut found = Vec::new();
        for (index, slot) in (0_u32..).zip(&mut self.nodes) {
            let (State::Up, Some(node)) = (slot.state, slot.node.as_deref_mut()) else { continue };
            let wants = node.player.as_ref().is_some_and(|player| !player.is_over());
            let lacks = wants && (0..k).any(|stripe| node.view().parent(stripe).is_none());
            if lacks && node.wake_at().is_none_or(|at| at > now + LOST_WAKEUP_US) {
                found.push(index);
            }
        }
        for index in found {
            self.violated(Some(index), "it lacks a parent and no timer is armed".to_owned());
        }
    }

    /// A supernode should not name those who are long dead: counted, since it does now and then.
    pub(super) fn check_named(&mut self, nodes: &[NodeId]) {
        let now = self.now();
        let long_dead = |id: &&NodeId| {
            let state = self.index_of(id).map(|index| self.nodes[index as usize].state);
            matches!(state, Some(State::Gone { at, .. }) if now.saturating_sub(at) > NAMED_DEAD_US)
        };
        self.tally.named_dead += nodes.iter().filter(long_dead).count() as u64;
    }

    /// Stripes that viewers could feed: as they told their supernodes last, and as it is.
    pub(super) fn directory_free(&self) -> Option<(u64, u64)> {
        let (mut known, mut real) = (0, 0);
        for slot in &self.nodes {
            let (State::Up, Some(node)) = (slot.state, slot.node.as_deref()) else { continue };
            if let Some(told) = node.view().told_free.filter(|_| node.misdeed.is_honest()) {
                known += u64::from(told);
                real += u64::from(slot.slots_max.saturating_sub(node.view().live_stripes()));
            }
        }
        (real > 0).then_some((known, real))
    }

    /// Nothing that others fill grows without end.
    pub(super) fn check_bounds(&mut self) {
        let mut found = Vec::new();
        for (index, slot) in (0_u32..).zip(&self.nodes) {
            let Some(node) = slot.node.as_deref() else { continue };
            for stream in
                node.media().relay().into_iter().flat_map(|relay| relay.snapshot().streams)
            {
                if stream.ring_bytes > RING_BYTES_MAX || stream.ring_chunks > RING_CHUNKS_MAX {
                    found.push((index, format!("its ring holds {} bytes", stream.ring_bytes)));
                }
            }
            let deepest = node.view().path_max();
            if deepest > PATH_MAX {
                found.push((index, format!("a path has {deepest} nodes")));
            }
        }
        for (index, what) in found {
            self.violated(Some(index), what);
        }
    }

    /// Where nobody misbehaves, nobody is blamed.
    pub(super) fn check_blame(&mut self) {
        let offences = self.tally.offences;
        let attacked = self.scenario.faults.iter().any(|fault| fault.kind.is_misdeed());
        if !attacked && offences > self.checks.blamed() {
            self.violated(None, format!("{offences} offences of honest nodes"));
        }
        self.checks.set_blamed(offences);
    }

    /// Leaves a row behind.
    pub(super) fn note_second(&mut self) {
        let k = self.scenario.stream.stripes;
        let (mut viewers, mut asked, mut admitted, mut playing, mut orphans) = (0, 0, 0, 0, 0);
        for slot in &self.nodes {
            let (Kind::Viewer(_), Some(node)) = (slot.kind, slot.node.as_deref()) else { continue };
            viewers += 1;
            let Some(player) = node.player.as_ref().filter(|player| !player.is_over()) else {
                continue;
            };
            asked += 1;
            admitted += u64::from(player.admitted_at.is_some());
            if player.playing_at.is_some() {
                playing += 1;
                orphans += (0..k).filter(|s| node.view().parent(*s).is_none()).count() as u64;
            }
        }
        let source = self.nodes.first().and_then(|slot| slot.node.as_deref());
        let sent = source.map_or(0, |node| node.view().sent.payload);
        let bytes = self.tally.bytes;
        self.series.push(Second {
            at_s: self.now() / super::SECOND_US,
            viewers,
            asked,
            admitted,
            playing,
            orphans,
            source_copies: sent as f64 / self.cut_bytes.max(1) as f64,
            payload: bytes.payload,
            repair: bytes.repair,
            bytes: bytes.total(),
            events: self.events,
        });
    }
}
