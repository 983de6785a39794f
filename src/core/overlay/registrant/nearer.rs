//! Moving to a supernode that is clearly nearer.
//!
//! Owns the judgement, with its hysteresis. Does not own the move itself (see `registrant`).

use std::time::Duration;

use super::super::local::Local;
use crate::{ids::NodeId, time::Timestamp};

/// Watches whether somebody is clearly nearer than the own supernode.
#[derive(Debug)]
pub(super) struct Nearer {
    look_at: Timestamp,
    /// The nearest at the last look: it moves nobody unless it is so twice.
    favourite: Option<NodeId>,
    /// Asked, and not yet answered.
    pub(super) asking: Option<NodeId>,
}

impl Nearer {
    pub(super) fn new(local: &Local) -> Self {
        Self { look_at: local.now + local.config.tuning.move_look, favourite: None, asking: None }
    }

    /// Whom to ask for a place, when it is time to move.
    pub(super) fn drive(&mut self, local: &mut Local, home: NodeId) -> Option<NodeId> {
        if self.look_at > local.now || self.asking.is_some() {
            return None;
        }
        self.look_at = local.now + local.config.tuning.move_look;
        let here = local.nodes.known(&home).and_then(|known| known.rtt)?;
        let nearest = nearest(local, home);
        let best = nearest.filter(|(rtt, _)| is_clearly_nearer(local, *rtt, here));
        let best = best.map(|(_, node)| node);
        if is_clearly_nearer(local, Duration::ZERO, here) {
            measure(local, home);
        }
        let twice = best.is_some() && self.favourite == best;
        self.favourite = best.filter(|_| !twice);
        self.asking = best.filter(|_| twice);
        self.asking
    }

    /// It has no place, or does not answer.
    pub(super) fn refused(&mut self, local: &Local) {
        self.asking = None;
        self.look_at = local.now + local.config.tuning.move_pause;
    }

    pub(super) const fn next_deadline(&self) -> Timestamp {
        if self.asking.is_some() { Timestamp::NEVER } else { self.look_at }
    }
}

/// The nearest supernode beside `home`, of those measured.
fn nearest(local: &Local, home: NodeId) -> Option<(Duration, NodeId)> {
    local
        .nodes
        .supernodes(local.now)
        .filter(|known| known.contact.node != home && !local.is_banned(&known.contact.node))
        .filter_map(|known| Some((known.rtt?, known.contact.node)))
        .min()
}

/// Connects to a few supernodes whose round trip is unknown, so that it is measured.
fn measure(local: &mut Local, home: NodeId) {
    let unknown: Vec<NodeId> = local
        .nodes
        .supernodes(local.now)
        .filter(|known| known.rtt.is_none() && known.contact.node != home)
        .map(|known| known.contact.node)
        .take(DIALS_MAX)
        .collect();
    for node in unknown {
        local.dial(node);
    }
}

fn is_clearly_nearer(local: &Local, there: Duration, here: Duration) -> bool {
    let tuning = &local.config.tuning;
    let share = here.saturating_mul(tuning.move_gain_percent) / 100;
    here.saturating_sub(there) > tuning.move_gain.max(share)
}

/// Supernodes dialled at each look.
const DIALS_MAX: usize = 2;
