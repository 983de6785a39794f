//! When a supernode stops being one, and how.
//!
//! Owns the judgement with its hysteresis, and the order: nobody new, members handed over, then the
//! role. Does not own the registrations (see `registrar`), nor the search for a supernode that
//! follows (see `registrant`).

use super::{
    DemotionReason, DirRequest, Event, Load, Output, Overlay, Role, RoleChoice,
    local::{Local, Purpose},
    registrar::Registrar,
};
use crate::{ids::NodeId, time::Timestamp};

/// What speaks against being a supernode, and since when; or the way out of it.
#[derive(Debug, Default)]
pub(super) struct Demotion {
    since: Option<(DemotionReason, Timestamp)>,
    handing_over: Option<(DemotionReason, Timestamp)>,
}

impl Demotion {
    pub(super) fn next_deadline(&self, local: &Local) -> Timestamp {
        match (self.handing_over, self.since) {
            (Some((_, until)), _) => until,
            (None, Some((_, since))) => since + local.config.tuning.demote_after,
            (None, None) => Timestamp::NEVER,
        }
    }

    /// Notes what speaks against the role now; returns it once it has done so for long enough.
    fn judge(&mut self, local: &Local, registrar: &Registrar) -> Option<DemotionReason> {
        let Some(reason) = reason(local, registrar) else {
            self.since = None;
            return None;
        };
        let (known, since) = *self.since.get_or_insert((reason, local.now));
        if known != reason {
            self.since = Some((reason, since));
        }
        (local.now.since(since) >= local.config.tuning.demote_after).then_some(reason)
    }
}

/// What speaks against being a supernode at this moment. Never the last: another one that is not
/// about to step down itself must have room for every member.
fn reason(local: &Local, registrar: &Registrar) -> Option<DemotionReason> {
    if local.config.role == RoleChoice::Supernode {
        return None;
    }
    let mine = registrar.load(local);
    let capacity = u32::try_from(local.config.member_capacity).unwrap_or(u32::MAX);
    // Some places more than needed, so that nobody has to step up again at once.
    let spare = (capacity / 10).max(1);
    let places: u32 = registrar.loads().map(|(_, load)| u32::from(load.places)).sum();
    if places < u32::from(mine.members) + spare {
        return None;
    }
    let tuning = &local.config.tuning;
    let few = capacity.saturating_mul(tuning.demote_members_percent) / 100;
    // Of two that could go, the one with fewer members goes: they never both do.
    let rank = |node: NodeId, load: Load| (load.members, node);
    let is_least =
        registrar.loads().any(|(node, load)| rank(node, load) > rank(local.me.node, mine));
    if !local.reachable {
        Some(DemotionReason::Unreachable)
    } else if local.usable.as_bps() < tuning.supernode_uplink.as_bps() / 2 {
        Some(DemotionReason::Uplink)
    } else if u32::from(mine.members) < few.max(1) && is_least {
        Some(DemotionReason::NotNeeded)
    } else {
        None
    }
}

impl Overlay {
    /// Steps down when it is time: first the members go, then the role.
    pub(super) fn drive_demotion(&mut self) {
        let Some(registrar) = &mut self.registrar else { return };
        if self.local.leaving {
            return;
        }
        if let Some((reason, until)) = self.demotion.handing_over {
            let empty = registrar.members().next().is_none();
            if empty || until <= self.local.now {
                self.step_down(reason);
            }
            return;
        }
        let Some(reason) = self.demotion.judge(&self.local, registrar) else { return };
        registrar.close();
        let until = self.local.now + self.local.config.tuning.demote_grace;
        self.demotion.handing_over = Some((reason, until));
        let nodes: Vec<NodeId> = registrar.members().chain(registrar.backups()).collect();
        for node in nodes {
            self.local.ask_dir(node, DirRequest::Unregister, Purpose::Unregister);
        }
    }

    fn step_down(&mut self, reason: DemotionReason) {
        self.demotion = Demotion::default();
        let Some(registrar) = self.registrar.take() else { return };
        for node in registrar.neighbours() {
            self.local.ask_dir(node, DirRequest::Unregister, Purpose::Unregister);
            self.dissemination.forget(&node);
        }
        for node in registrar.members() {
            self.dissemination.forget(&node);
        }
        self.local.emit(Output::SetRole(Role::Member));
        self.local.event(Event::Demoted { reason });
        self.registrant.demoted(&mut self.local);
    }
}
