//! The member role: finding a supernode, staying registered, or becoming one.
//!
//! Owns the state of this node's own registration, with a backup beside the primary supernode, and
//! the move to a nearer one. Does not own what a supernode does (see `registrar`), nor when it stops
//! being one (see `demotion`).

mod backup;
mod heirs;
mod nearer;
mod search;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use self::{backup::Backup, heirs::Heirs, nearer::Nearer};
use super::{
    Contact, DirRequest, DirResponse, Event, LookupId, Output, PromotionReason, Register,
    RegistrationView, Role, RoleChoice,
    local::{Local, Purpose},
};
use crate::{
    ids::{NodeId, StreamId},
    time::Timestamp,
};

/// This node's own registration.
#[derive(Debug)]
pub(super) struct Registrant {
    state: State,
    lookup: Option<(LookupId, Timestamp)>,
    /// Since when somebody is there who could be asked, in this search.
    linked_at: Option<Timestamp>,
    /// A lookup has ended in this search, after time enough to hear who is connected.
    looked: bool,
    /// Nodes asked in this search; each is asked once.
    asked: BTreeSet<NodeId>,
    /// Some supernode answered in this search, if only that it is full.
    found_any: bool,
    /// The nearest that was full: whose guest this node may be.
    host: Option<NodeId>,
    founded_at: Timestamp,
    guest_told: bool,
    /// When this node last stepped down: it does not step up again at once.
    demoted_at: Option<Timestamp>,
    backup: Backup,
    heirs: Heirs,
    /// How many take a stream, as the supernode said last.
    audiences: BTreeMap<StreamId, u32>,
    nearer: Nearer,
}

/// Legal next states: `Looking` to `Measuring`, `Supernode`, `Guest`; `Measuring` to `Asking`;
/// `Asking` to `Registered`, `Supernode`, `Guest`; `Registered` to `Asking` (its backup); `Registered`,
/// `Guest` and `Supernode` back to `Looking`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// A lookup is under way, or the next one is waited for.
    Looking {
        again_at: Timestamp,
    },
    /// Round trips of the supernodes found are waited for.
    Measuring {
        until: Timestamp,
    },
    /// One is being asked.
    Asking {
        node: NodeId,
    },
    Registered {
        node: NodeId,
        renew_at: Timestamp,
        misses: u32,
        renewing: bool,
    },
    Guest {
        of: Option<NodeId>,
        again_at: Timestamp,
    },
    Supernode,
}

/// What the overlay has to do about a step of the registration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    None,
    /// Newly registered, or a guest's next turn: hand over announcements, fetch the directory.
    Home {
        node: NodeId,
        in_sync: bool,
    },
    Promoted,
}

impl Registrant {
    pub(super) fn new(local: &Local) -> Self {
        let tuning = &local.config.tuning;
        let expected = local.config.bootstrap_expected || !local.config.bootstrap.is_empty();
        let patience = if expected { tuning.bootstrap_patience } else { tuning.found_after };
        Self {
            state: State::Looking { again_at: local.now },
            lookup: None,
            linked_at: None,
            looked: false,
            asked: BTreeSet::new(),
            found_any: false,
            host: None,
            founded_at: local.now + patience,
            guest_told: false,
            demoted_at: None,
            backup: Backup::new(local.now),
            heirs: Heirs::default(),
            audiences: BTreeMap::new(),
            nearer: Nearer::new(local),
        }
    }

    /// A link came up, a round trip was measured, or time passed.
    pub(super) fn drive(&mut self, local: &mut Local, digest: u64) -> Step {
        let now = local.now;
        if self.state != State::Supernode && local.config.role == RoleChoice::Supernode {
            return self.promote(local, PromotionReason::Configured);
        }
        match self.state {
            State::Supernode | State::Asking { .. } => Step::None,
            State::Looking { again_at } if again_at <= now => self.look(local),
            State::Looking { .. } => Step::None,
            State::Measuring { until } => {
                let all_known = self.untried(local).all(|known| known.rtt.is_some());
                if all_known || until <= now { self.ask_next(local, digest) } else { Step::None }
            }
            State::Registered { node, renew_at, misses, renewing } => {
                if !renewing && renew_at <= now {
                    self.state = State::Registered { node, renew_at, misses, renewing: true };
                    self.register_at(local, node, digest);
                }
                self.backup.drive(local, node, digest);
                if let Some(next) = self.nearer.drive(local, node) {
                    self.register_at(local, next, digest);
                }
                Step::None
            }
            State::Guest { of, again_at } if again_at <= now => {
                let again_at = now + local.config.tuning.search_every;
                self.state = State::Guest { of, again_at };
                self.begin_search(local);
                // Until the search ends it stays a guest: its list is fetched meanwhile.
                of.map_or(Step::None, |node| Step::Home { node, in_sync: false })
            }
            State::Guest { .. } => Step::None,
        }
    }

    pub(super) fn lookup_done(&mut self, local: &mut Local, id: LookupId, found: &[Contact]) {
        if self.lookup.take_if(|(asked, _)| *asked == id).is_none() {
            return;
        }
        self.looked = self.linked_at.is_some_and(|at| local.now.since(at) >= HOPE_AFTER);
        local.learn_supernodes(found);
        if let State::Looking { .. } | State::Guest { .. } = self.state
            && self.untried(local).next().is_some()
        {
            self.measure(local);
        }
    }

    /// A supernode answered REGISTER.
    pub(super) fn answered(
        &mut self,
        local: &mut Local,
        from: NodeId,
        answer: &DirResponse,
        digest: u64,
    ) -> Step {
        match answer {
            DirResponse::Accepted { others, in_sync, heirs, audiences, .. } => {
                self.learn_others(local, others);
                let step = self.accepted(local, from, *in_sync);
                if self.home() == Some(from) {
                    self.heirs.learn(local, heirs);
                    self.audiences = audiences.iter().copied().collect();
                }
                step
            }
            DirResponse::Full { others } => {
                self.learn_others(local, others);
                if self.is_move_to(from) {
                    self.nearer.refused(local);
                    return Step::None;
                }
                if !std::mem::replace(&mut self.found_any, true) {
                    self.host = Some(from);
                }
                self.refused(local, from, digest)
            }
            DirResponse::Elsewhere { others } => {
                local.nodes.set_supernode(from, false);
                self.learn_others(local, others);
                if self.is_move_to(from) {
                    self.nearer.refused(local);
                }
                self.refused(local, from, digest)
            }
            DirResponse::Refused { .. } => {
                local.nodes.set_supernode(from, false);
                if self.is_move_to(from) {
                    self.nearer.refused(local);
                }
                self.refused(local, from, digest)
            }
            DirResponse::Done
            | DirResponse::Candidates { .. }
            | DirResponse::Found { .. }
            | DirResponse::Heads { .. }
            | DirResponse::Page { .. } => self.refused(local, from, digest),
        }
    }

    /// A supernode did not answer REGISTER.
    pub(super) fn failed(&mut self, local: &mut Local, from: NodeId, digest: u64) -> Step {
        if self.is_move_to(from) {
            self.nearer.refused(local);
        }
        match self.state {
            State::Registered { node, misses, .. } if node == from => {
                let misses = misses + 1;
                if misses >= MISSES_MAX {
                    return self.lost(local, node, digest);
                }
                let renew_at = local.now + RETRY;
                self.state = State::Registered { node, renew_at, misses, renewing: false };
                Step::None
            }
            State::Asking { node } if node == from => self.ask_next(local, digest),
            State::Looking { .. }
            | State::Measuring { .. }
            | State::Asking { .. }
            | State::Registered { .. }
            | State::Guest { .. }
            | State::Supernode => Step::None,
        }
    }

    /// A connection is up: a good moment to look.
    pub(super) fn link_up(&mut self, now: Timestamp) {
        if let State::Looking { again_at } = &mut self.state {
            *again_at = now;
            self.linked_at.get_or_insert(now);
        }
    }

    /// The connection to a node is gone: if it is the supernode, find out at once.
    pub(super) fn link_down(&mut self, local: &Local, gone: NodeId) {
        if let State::Registered { node, misses, renewing: false, .. } = self.state
            && node == gone
        {
            let renew_at = local.now;
            self.state = State::Registered { node, renew_at, misses, renewing: false };
        }
    }

    /// A supernode says that it leaves, or is one no longer.
    pub(super) fn dismissed(&mut self, local: &mut Local, by: NodeId, digest: u64) {
        self.backup.dismissed(local.now, by);
        if let State::Registered { node, .. } = self.state
            && node == by
        {
            local.nodes.set_supernode(by, false);
            self.lost(local, node, digest);
        }
    }

    /// A supernode answered the request to be the backup; returns whether its directory differs.
    pub(super) fn backup_answered(
        &mut self,
        local: &mut Local,
        from: NodeId,
        answer: &DirResponse,
    ) -> bool {
        if let DirResponse::Accepted { others, .. } | DirResponse::Full { others } = answer {
            self.learn_others(local, others);
        }
        self.backup.answered(local, from, answer)
    }

    /// A supernode did not answer that request.
    pub(super) fn backup_failed(&mut self, local: &Local, from: NodeId) {
        self.backup.failed(local, from);
    }

    /// This node is a supernode no longer: it looks for one.
    pub(super) fn demoted(&mut self, local: &mut Local) {
        self.demoted_at = Some(local.now);
        self.founded_at = local.now + local.config.tuning.bootstrap_patience;
        self.state = State::Looking { again_at: local.now + LOOK_AGAIN };
        self.begin_search(local);
    }

    pub(super) fn next_deadline(&self) -> Timestamp {
        match self.state {
            State::Looking { again_at } | State::Guest { again_at, .. } => again_at,
            State::Measuring { until } => until,
            State::Registered { renew_at, renewing, .. } => {
                let renew_at = if renewing { Timestamp::NEVER } else { renew_at };
                renew_at.min(self.backup.next_deadline()).min(self.nearer.next_deadline())
            }
            State::Asking { .. } | State::Supernode => Timestamp::NEVER,
        }
    }

    /// The supernode that stands by in case the own one is lost.
    pub(super) const fn backup(&self) -> Option<NodeId> {
        self.backup.node()
    }

    /// What a member answers to somebody who takes it for a supernode, or asks whoever is there.
    pub(super) fn elsewhere(&self, local: &Local, asker: NodeId) -> DirResponse {
        let mut others = local.supernode_contacts(asker);
        others.sort_by_key(|contact| Some(contact.node) != self.home());
        DirResponse::Elsewhere { others }
    }

    /// Members of the last supernode that take over from it, this node perhaps among them.
    pub(super) fn heirs(&self) -> &[NodeId] {
        self.heirs.nodes()
    }

    /// Viewers and seeders of a stream, as the supernode said last; 0 when it said nothing.
    pub(super) fn audience(&self, stream: StreamId) -> u32 {
        self.audiences.get(&stream).copied().unwrap_or(0)
    }

    /// Which supernode serves this node: its own, or its host as a guest.
    pub(super) const fn home(&self) -> Option<NodeId> {
        match self.state {
            State::Registered { node, .. } => Some(node),
            State::Guest { of, .. } => of,
            State::Looking { .. } | State::Measuring { .. } | State::Asking { .. } => self.host,
            State::Supernode => None,
        }
    }

    pub(super) const fn is_member(&self) -> bool {
        matches!(self.state, State::Registered { .. })
    }

    pub(super) fn is_supernode(&self) -> bool {
        self.state == State::Supernode
    }

    pub(super) const fn view(&self) -> RegistrationView {
        match self.state {
            State::Looking { .. } | State::Measuring { .. } | State::Asking { .. } => {
                RegistrationView::Searching
            }
            State::Registered { node, .. } => {
                RegistrationView::Registered { supernode: node, backup: self.backup.node() }
            }
            State::Guest { of, .. } => RegistrationView::Guest { supernode: of },
            State::Supernode => RegistrationView::Supernode,
        }
    }

    fn accepted(&mut self, local: &mut Local, from: NodeId, in_sync: bool) -> Step {
        let fresh = match self.state {
            State::Registered { node, .. } if node == from => false,
            State::Asking { node } if node == from => true,
            State::Registered { node, .. } if self.is_move_to(from) => {
                // The new place is held: the old one is given up.
                local.ask_dir(node, DirRequest::Unregister, Purpose::Unregister);
                true
            }
            // A late yes: the place is given back.
            State::Looking { .. }
            | State::Measuring { .. }
            | State::Asking { .. }
            | State::Registered { .. }
            | State::Guest { .. }
            | State::Supernode => {
                local.ask_dir(from, DirRequest::Unregister, Purpose::Unregister);
                return Step::None;
            }
        };
        let renew_at = local.now + local.config.tuning.renew_every;
        self.state = State::Registered { node: from, renew_at, misses: 0, renewing: false };
        self.guest_told = false;
        if fresh {
            self.asked.clear();
            self.host = None;
            self.nearer = Nearer::new(local);
            if self.backup.node() == Some(from) {
                self.backup = Backup::new(local.now);
            }
            local.nodes.set_supernode(from, true);
            local.event(Event::Registered { supernode: from });
            return Step::Home { node: from, in_sync };
        }
        if in_sync { Step::None } else { Step::Home { node: from, in_sync } }
    }

    fn refused(&mut self, local: &mut Local, from: NodeId, digest: u64) -> Step {
        match self.state {
            State::Asking { node } if node == from => self.ask_next(local, digest),
            State::Registered { node, .. } if node == from => self.lost(local, node, digest),
            State::Looking { .. }
            | State::Measuring { .. }
            | State::Asking { .. }
            | State::Registered { .. }
            | State::Guest { .. }
            | State::Supernode => Step::None,
        }
    }

    /// The supernode is gone: its backup is asked at once; without one a search begins.
    fn lost(&mut self, local: &mut Local, node: NodeId, digest: u64) -> Step {
        local.event(Event::RegistrationLost { supernode: node });
        local.nodes.failed(node, local.now);
        let turn = self.heirs.turn(local);
        self.founded_at = local.now + local.config.tuning.found_after + turn;
        self.nearer = Nearer::new(local);
        if let Some(next) = self.backup.take(local.now) {
            self.asked = BTreeSet::from([node, next]);
            self.found_any = false;
            self.host = Some(next);
            self.state = State::Asking { node: next };
            self.register_at(local, next, digest);
            return Step::None;
        }
        self.state = State::Looking { again_at: local.now + LOOK_AGAIN };
        self.begin_search(local);
        self.asked.insert(node);
        Step::None
    }

    fn is_move_to(&self, node: NodeId) -> bool {
        let registered = matches!(self.state, State::Registered { node: home, .. } if home != node);
        registered && self.nearer.asking == Some(node)
    }

    fn promote(&mut self, local: &mut Local, reason: PromotionReason) -> Step {
        self.state = State::Supernode;
        local.emit(Output::SetRole(Role::Supernode));
        local.event(Event::Promoted { reason });
        Step::Promoted
    }

    /// Whether this node may be a supernode. The only one is better than none; beside others it
    /// needs an uplink for it.
    fn may_promote(&self, local: &Local, reason: PromotionReason) -> bool {
        let tuning = &local.config.tuning;
        let is_fit = match reason {
            PromotionReason::Configured | PromotionReason::Founder => true,
            PromotionReason::AllFull => {
                let rested = self
                    .demoted_at
                    .is_none_or(|at| local.now.since(at) >= tuning.promote_again_after);
                rested && local.usable >= tuning.supernode_uplink
            }
        };
        match local.config.role {
            RoleChoice::Auto | RoleChoice::Supernode => is_fit && local.reachable && !local.leaving,
            RoleChoice::Member => false,
        }
    }

    fn register_at(&self, local: &mut Local, node: NodeId, digest: u64) {
        let (contact, role) = (local.me.clone(), Role::Member);
        let register = Register { contact, role, digest, standby: false, load: None };
        local.ask_dir(node, DirRequest::Register(register), Purpose::Register);
    }

    fn learn_others(&self, local: &mut Local, others: &[Contact]) {
        local.learn_supernodes(others);
        for contact in others.iter().filter(|_| !self.is_member()) {
            local.dial(contact.node);
        }
    }
}

/// Between lookups while nothing is found.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// A lookup that ends earlier after the first connection may not have had anybody to ask: a node is
/// known to be a supernode by what it says of itself, some round trips later.
const HOPE_AFTER: Duration = Duration::from_millis(1_500);
/// Between a renewal that failed and the next.
const RETRY: Duration = Duration::from_millis(500);
/// Renewals that may fail in a row: with 5 s between renewals and 2 s of patience for each, a loss
/// is noticed within 10 s.
const MISSES_MAX: u32 = 2;
