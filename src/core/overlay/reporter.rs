//! Telling the supernode what this node carries.
//!
//! Owns when a STATUS is sent: on change, at most twice a second, and every five seconds; to the
//! backup only every half minute. Does not own what is carried (see `carriage`).

use super::{
    DirRequest, STATUS_STREAMS_MAX, StreamStatus,
    forwarder::Forwarder,
    local::{Local, Purpose},
};
use crate::{ids::NodeId, time::Timestamp};

/// What the supernode was last told.
#[derive(Debug, Default)]
pub(super) struct Reporter {
    told: Vec<StreamStatus>,
    told_to: Option<NodeId>,
    told_at: Timestamp,
    dirty: bool,
    backup_told: Option<(NodeId, Timestamp)>,
}

impl Reporter {
    /// Something may have changed.
    pub(super) const fn touch(&mut self) {
        self.dirty = true;
    }

    /// Sends a STATUS when due. Without a home nothing is due.
    pub(super) fn drive(
        &mut self,
        local: &mut Local,
        forwarder: &Forwarder,
        home: Option<NodeId>,
        backup: Option<NodeId>,
    ) {
        let Some(home) = home else { return };
        if let Some(backup) = backup
            && local.now >= self.backup_due(local, backup)
        {
            self.backup_told = Some((backup, local.now));
            let streams = statuses(local, forwarder);
            if !streams.is_empty() {
                local.ask_dir(backup, DirRequest::Status { streams }, Purpose::Status);
            }
        }
        if local.now < self.due(local, home) {
            return;
        }
        let dirty = std::mem::take(&mut self.dirty);
        let streams = statuses(local, forwarder);
        let new_home = self.told_to != Some(home);
        let repeat = local.now >= self.told_at + local.config.tuning.status_every;
        let changed = dirty && streams != self.told;
        if !(changed || (new_home || repeat) && !(streams.is_empty() && self.told.is_empty())) {
            if repeat {
                self.told_at = local.now;
            }
            return;
        }
        self.told.clone_from(&streams);
        self.told_to = Some(home);
        self.told_at = local.now;
        local.ask_dir(home, DirRequest::Status { streams }, Purpose::Status);
    }

    pub(super) fn next_deadline(
        &self,
        local: &Local,
        home: Option<NodeId>,
        backup: Option<NodeId>,
    ) -> Timestamp {
        let Some(home) = home else { return Timestamp::NEVER };
        let backup = backup.map_or(Timestamp::NEVER, |backup| self.backup_due(local, backup));
        self.due(local, home).min(backup)
    }

    fn backup_due(&self, local: &Local, backup: NodeId) -> Timestamp {
        match self.backup_told {
            Some((told, at)) if told == backup => at + local.config.tuning.backup_status_every,
            Some(_) | None => local.now,
        }
    }

    fn due(&self, local: &Local, home: NodeId) -> Timestamp {
        let tuning = &local.config.tuning;
        let hurry = self.dirty || self.told_to != Some(home) && !self.told.is_empty();
        self.told_at + if hurry { tuning.status_pause } else { tuning.status_every }
    }
}

/// What this node carries, in the form that travels.
pub(super) fn statuses(local: &Local, forwarder: &Forwarder) -> Vec<StreamStatus> {
    let stale_after = local.config.tuning.stale_after;
    local
        .carried
        .iter()
        .filter(|(_, carried)| !carried.closing)
        .map(|(stream, carried)| StreamStatus {
            stream: *stream,
            depths: carried.depths(stale_after, local.now),
            free: forwarder.free_slots(local, *stream, carried),
            seeding: carried.seeding,
        })
        .take(STATUS_STREAMS_MAX)
        .collect()
}
