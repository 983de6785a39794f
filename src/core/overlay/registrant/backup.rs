//! The second supernode of a member: where it goes at once when the first is lost.
//!
//! Owns whom to keep as the backup and how that is renewed. Does not own the registration proper
//! (see `registrant`), nor what a backup is told (see `reporter`).

use std::{collections::BTreeSet, time::Duration};

use super::super::{
    DirRequest, DirResponse, Register, Role,
    local::{Local, Purpose},
    membership::Known,
};
use crate::{ids::NodeId, time::Timestamp};

/// The backup of a member, or the search for one.
#[derive(Debug)]
pub(in super::super) struct Backup {
    state: State,
    /// Supernodes that were asked since the last success: each once.
    asked: BTreeSet<NodeId>,
}

/// Legal next states: `Without` to `Asking`; `Asking` to `Kept`, `Without`; `Kept` to `Without`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Without { again_at: Timestamp },
    Asking { node: NodeId },
    Kept { node: NodeId, renew_at: Timestamp, misses: u32, renewing: bool },
}

impl Backup {
    pub(super) const fn new(now: Timestamp) -> Self {
        Self { state: State::Without { again_at: now }, asked: BTreeSet::new() }
    }

    /// The supernode that stands by.
    pub(super) const fn node(&self) -> Option<NodeId> {
        match self.state {
            State::Kept { node, .. } => Some(node),
            State::Without { .. } | State::Asking { .. } => None,
        }
    }

    /// Takes the backup, to make it the primary.
    pub(super) fn take(&mut self, now: Timestamp) -> Option<NodeId> {
        let node = self.node();
        *self = Self::new(now);
        node
    }

    /// Asks, renews, or asks the next: called while a primary `home` is there.
    pub(super) fn drive(&mut self, local: &mut Local, home: NodeId, digest: u64) {
        let now = local.now;
        match self.state {
            State::Kept { node, .. } if node == home => *self = Self::new(now),
            State::Kept { node, renew_at, misses, renewing: false } if renew_at <= now => {
                self.state = State::Kept { node, renew_at, misses, renewing: true };
                ask(local, node, digest);
            }
            State::Without { again_at } if again_at <= now => self.ask_next(local, home, digest),
            State::Kept { .. } | State::Without { .. } | State::Asking { .. } => {}
        }
    }

    /// A supernode answered; returns whether it keeps a directory that differs from this node's.
    pub(super) fn answered(
        &mut self,
        local: &mut Local,
        from: NodeId,
        answer: &DirResponse,
    ) -> bool {
        let expected = match self.state {
            State::Asking { node } | State::Kept { node, .. } => node == from,
            State::Without { .. } => false,
        };
        let DirResponse::Accepted { in_sync, .. } = answer else {
            if let DirResponse::Refused { .. } | DirResponse::Elsewhere { .. } = answer {
                local.nodes.set_supernode(from, false);
            }
            if expected {
                self.state = State::Without { again_at: local.now };
            }
            return false;
        };
        if !expected {
            local.ask_dir(from, DirRequest::Unregister, Purpose::Unregister);
            return false;
        }
        let renew_at = local.now + local.config.tuning.backup_renew_every;
        self.state = State::Kept { node: from, renew_at, misses: 0, renewing: false };
        self.asked.clear();
        !in_sync
    }

    /// A supernode did not answer.
    pub(super) fn failed(&mut self, local: &Local, from: NodeId) {
        match self.state {
            State::Kept { node, misses: 0, .. } if node == from => {
                let renew_at = local.now + RETRY;
                self.state = State::Kept { node, renew_at, misses: 1, renewing: false };
            }
            State::Kept { node, .. } | State::Asking { node } if node == from => {
                self.state = State::Without { again_at: local.now };
            }
            State::Kept { .. } | State::Asking { .. } | State::Without { .. } => {}
        }
    }

    /// A supernode says that it leaves.
    pub(super) fn dismissed(&mut self, now: Timestamp, by: NodeId) {
        if self.node() == Some(by) {
            self.state = State::Without { again_at: now };
        }
    }

    pub(super) const fn next_deadline(&self) -> Timestamp {
        match self.state {
            State::Without { again_at } => again_at,
            State::Kept { renew_at, renewing: false, .. } => renew_at,
            State::Kept { .. } | State::Asking { .. } => Timestamp::NEVER,
        }
    }

    /// The nearest other supernode that was not asked yet; when all were, a pause.
    fn ask_next(&mut self, local: &mut Local, home: NodeId, digest: u64) {
        let next = local
            .nodes
            .supernodes(local.now)
            .filter(|known| known.contact.node != home && !self.asked.contains(&known.contact.node))
            .filter(|known| !local.is_banned(&known.contact.node))
            .map(Known::rank)
            .min();
        let Some((.., node)) = next else {
            self.asked.clear();
            let pause = local.config.tuning.search_every;
            self.state = State::Without { again_at: local.now + local.jitter(pause) };
            return;
        };
        self.asked.insert(node);
        self.state = State::Asking { node };
        ask(local, node, digest);
    }
}

fn ask(local: &mut Local, node: NodeId, digest: u64) {
    let contact = local.me.clone();
    let register = Register { contact, role: Role::Member, digest, standby: true, load: None };
    local.ask_dir(node, DirRequest::Register(register), Purpose::Backup);
}

/// Between a renewal that failed and the next.
const RETRY: Duration = Duration::from_millis(500);
