//! The supernode role: members, neighbours, and what members carry.
//!
//! Owns registrations, their exact capacity, the neighbours it meets, and the statuses from which
//! candidates are picked. Does not own announcements (see `directory`), what other supernodes know
//! (see `coordination`), nor when a node becomes a supernode (see `registrant`) or stops being one
//! (see `demotion`).

mod complaints;
mod coordination;
mod spoken_for;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

pub(super) use self::coordination::{Coordination, Own, Waiting};
use self::{
    complaints::{Complaints, Heard, Law},
    spoken_for::SpokenFor,
};
use super::{
    AUDIENCES_MAX, Candidate, Complaint, Contact, DEPTH_NONE, DirRefusal, DirRequest, DirResponse,
    Load, LookupId, LookupKey, Register, Role, StreamStatus, StreamSummary,
    expiring_map::ExpiringMap,
    local::{Local, Purpose},
    membership::Learnt,
    mixing::mix,
};
use crate::{
    ids::{NodeId, StreamId},
    time::Timestamp,
};

/// Members and neighbours of a supernode.
#[derive(Debug)]
pub(super) struct Registrar {
    /// Since when each is one.
    members: ExpiringMap<NodeId, Timestamp>,
    /// Members of other supernodes that keep this one as their backup.
    backups: ExpiringMap<NodeId, ()>,
    /// What each told of itself when it was last met.
    neighbours: ExpiringMap<NodeId, Option<Load>>,
    statuses: ExpiringMap<(StreamId, NodeId), StreamStatus>,
    /// Slots that those who were sent to a node lately will probably take, until it says itself.
    spoken_for: SpokenFor,
    /// What other supernodes know.
    pub(super) coordination: Coordination,
    complaints: Complaints,
    lookup: Option<LookupId>,
    lookup_at: Timestamp,
    meet_at: Timestamp,
    /// Who may have become a supernode at the same time as this node.
    kin: Vec<NodeId>,
    /// It is about to be a supernode no longer: nobody new is taken in.
    closing: bool,
}

impl Registrar {
    /// A supernode as of now; `kin` were heirs of the same one as this node.
    pub(super) fn new(now: Timestamp, kin: Vec<NodeId>) -> Self {
        Self {
            kin,
            members: ExpiringMap::new(),
            backups: ExpiringMap::new(),
            neighbours: ExpiringMap::new(),
            statuses: ExpiringMap::new(),
            spoken_for: SpokenFor::new(),
            coordination: Coordination::new(now),
            complaints: Complaints::default(),
            lookup: None,
            lookup_at: now,
            meet_at: now,
            closing: false,
        }
    }

    /// Registers, renews or meets. The capacity is exact and a renewal is never refused.
    pub(super) fn on_register(
        &mut self,
        local: &mut Local,
        from: NodeId,
        register: &Register,
        digest: u64,
    ) -> DirResponse {
        local.nodes.learn(&register.contact, Learnt::FirstHand, local.now);
        local.nodes.set_supernode(from, register.role == Role::Supernode);
        let tuning = &local.config.tuning;
        let mut lease = tuning.member_lease;
        let (backup_lease, capacity) = (tuning.backup_lease, local.config.member_capacity);
        let others = local.supernode_contacts(from);
        if self.closing {
            return match register.role {
                Role::Member if !self.members.contains(&from) => DirResponse::Full { others },
                Role::Member | Role::Supernode => {
                    DirResponse::Refused { reason: DirRefusal::Leaving, retry_ms: 0 }
                }
            };
        }
        let (mut load, mut heirs, mut audiences) = (None, Vec::new(), Vec::new());
        match register.role {
            Role::Supernode => {
                self.members.remove(&from);
                self.backups.remove(&from);
                self.add_neighbour(local, from, register.load);
                load = Some(self.load(local));
            }
            Role::Member if register.standby => {
                if !self.backups.contains(&from) && self.backups.len() >= capacity {
                    return DirResponse::Full { others };
                }
                lease = backup_lease;
                self.members.remove(&from);
                self.neighbours.remove(&from);
                self.backups.insert(from, (), local.now + lease);
            }
            Role::Member => {
                let since = self.members.get(&from).copied();
                if since.is_none() && self.members.len() >= capacity {
                    return DirResponse::Full { others };
                }
                self.backups.remove(&from);
                self.neighbours.remove(&from);
                self.members.insert(from, since.unwrap_or(local.now), local.now + lease);
                heirs = self.heirs(local, HEIRS_MAX.saturating_sub(others.len()));
                audiences = self.audiences();
            }
        }
        let expires_in_ms = u32::try_from(lease.as_millis()).unwrap_or(u32::MAX);
        let in_sync = digest == register.digest;
        DirResponse::Accepted { expires_in_ms, others, in_sync, load, heirs, audiences }
    }

    /// A member or neighbour leaves.
    pub(super) fn on_unregister(&mut self, from: NodeId) {
        self.members.remove(&from);
        self.backups.remove(&from);
        self.neighbours.remove(&from);
        self.drop_statuses(from);
    }

    /// What a member carries replaces what it carried.
    pub(super) fn on_status(
        &mut self,
        local: &Local,
        from: NodeId,
        streams: Vec<StreamStatus>,
    ) -> DirResponse {
        let tuning = &local.config.tuning;
        let lifetime = if self.members.contains(&from) {
            tuning.status_lifetime
        } else if self.backups.contains(&from) {
            tuning.backup_status_lifetime
        } else {
            return DirResponse::Refused { reason: DirRefusal::NotMember, retry_ms: 0 };
        };
        let until = local.now + lifetime;
        let is_new = |status: &StreamStatus| self.of_stream(status.stream).next().is_none();
        if streams.iter().any(is_new) {
            self.coordination.hurry(local.now);
        }
        for status in &streams {
            let told = self.statuses.get(&(status.stream, from));
            if told.is_some_and(|told| told.free != status.free) {
                self.spoken_for.settled(status.stream, from);
            }
        }
        self.drop_statuses(from);
        for status in streams {
            self.statuses.insert((status.stream, from), status, until);
        }
        DirResponse::Done
    }

    /// A member complains of a parent. It counts when the accused itself says that it has what it
    /// is to pass on: a parent that starves is none the worse for it.
    pub(super) fn on_complaint(
        &mut self,
        local: &mut Local,
        from: NodeId,
        complaint: Complaint,
    ) -> DirResponse {
        if !self.members.contains(&from) {
            return DirResponse::Refused { reason: DirRefusal::NotMember, retry_ms: 0 };
        }
        let Complaint { stream, stripe, accused, .. } = complaint;
        let carries = |status: &StreamStatus| {
            status.depths.get(usize::from(stripe)).is_some_and(|depth| *depth != DEPTH_NONE)
        };
        local.counters.complaints += 1;
        if !self.statuses.get(&(stream, accused)).is_some_and(carries) {
            return DirResponse::Done;
        }
        let tuning = &local.config.tuning;
        let (half_life, delist) = (tuning.complaint_half_life, tuning.delist);
        let law = Law { half_life, delist, enough: tuning.complaints_enough };
        let listed: BTreeSet<_> = self.statuses.keys().map(|(_, node)| *node).collect();
        if self.complaints.hear(law, from, accused, listed.len(), local.now) == Heard::Delisted {
            local.counters.delisted += 1;
        }
        DirResponse::Done
    }

    /// Members that carry a stream, best first, with this node when it does (`own`); and charges of
    /// other supernodes that have it as their backup.
    pub(super) fn carriers(
        &self,
        local: &mut Local,
        stream: StreamId,
        own: Option<StreamStatus>,
    ) -> [Vec<Candidate>; 2] {
        let me = local.me.node;
        let told: Vec<_> = self
            .of_stream(stream)
            .map(|(node, status)| (node, status.clone()))
            .chain(own.map(|status| (me, status)))
            .collect();
        let mut ranked = Vec::new();
        for (node, StreamStatus { depths, free, .. }) in told {
            let contact = if node == me { Some(&local.me) } else { local.nodes.contact(&node) };
            let is_out = local.is_banned(&node) || self.complaints.is_delisted(&node, local.now);
            // Behind a NAT without a relay it dials others; nobody can be sent to it.
            let found = contact.filter(|contact| !is_out && !contact.addrs.is_empty());
            let Some(contact) = found.cloned() else { continue };
            let depth = depths.iter().copied().min().unwrap_or(u8::MAX);
            let is_charge = self.backups.contains(&node);
            if is_charge && self.is_overdue(local, &node) {
                continue;
            }
            let free = self.left_of(stream, &node, free);
            let candidate = Candidate { contact, depths, free, source: false };
            // Of those equally good all take turns.
            ranked.push((is_charge, free == 0, depth, local.random(), candidate));
        }
        ranked.sort_by_key(|(charge, full, depth, lot, _)| (*charge, *full, *depth, *lot));
        let members_until = ranked.partition_point(|(charge, ..)| !charge);
        let mut list: Vec<_> = ranked.into_iter().map(|(.., candidate)| candidate).collect();
        let charges = list.split_off(members_until);
        [list, charges]
    }

    /// What is left of a node's free slots when those who were sent there have come.
    pub(super) fn left_of(&self, stream: StreamId, node: &NodeId, free: u16) -> u16 {
        self.spoken_for.left_of(stream, node, free)
    }

    /// `asker` was told of these. If it lacks parents, the next one who asks is sent elsewhere.
    pub(super) fn told_of(
        &mut self,
        local: &Local,
        stream: StreamId,
        asker: NodeId,
        named: &[Candidate],
    ) {
        let lacks = match self.statuses.get(&(stream, asker)) {
            Some(status) => status.depths.iter().filter(|depth| **depth == DEPTH_NONE).count(),
            None => named.first().map_or(0, |candidate| candidate.depths.len()),
        };
        let lifetime = local.config.tuning.spoken_for;
        self.spoken_for.told_of(stream, lacks, named, (local.now, lifetime));
    }

    /// What the members carry, for the coordinators; `own` is what this node does.
    pub(super) fn summaries(&self, local: &mut Local, own: Vec<StreamStatus>) -> Own {
        let members = self.statuses.keys().filter(|(_, node)| self.members.contains(node));
        let mut viewers: BTreeMap<StreamId, u32> = BTreeMap::new();
        for status in members.filter_map(|key| self.statuses.get(key)).chain(&own) {
            *viewers.entry(status.stream).or_default() += u32::from(!status.is_source());
        }
        let mut own: BTreeMap<_, _> = own.into_iter().map(|own| (own.stream, own)).collect();
        let summary = |(stream, viewers)| {
            let [members, _] = self.carriers(local, stream, own.remove(&stream));
            let mut candidates = mix(None, vec![members], SUMMARY_PER_STRIPE);
            candidates.truncate(SUMMARY_PER_STRIPE);
            (stream, StreamSummary { stream, viewers, candidates, relayed: false })
        };
        viewers.into_iter().map(summary).collect()
    }

    /// The lookup of other supernodes is done.
    pub(super) fn lookup_done(&mut self, local: &mut Local, id: LookupId, found: &[Contact]) {
        if self.lookup != Some(id) {
            return;
        }
        self.lookup = None;
        local.learn_supernodes(found);
        self.choose_neighbours(local);
    }

    /// A neighbour answered that it keeps no directory, or did not answer.
    pub(super) fn neighbour_failed(&mut self, node: NodeId, for_good: bool) {
        if for_good {
            self.neighbours.remove(&node);
        }
    }

    /// A neighbour answered.
    pub(super) fn neighbour_met(&mut self, local: &Local, node: NodeId, load: Option<Load>) {
        if self.neighbours.contains(&node) {
            let until = local.now + local.config.tuning.member_lease;
            self.neighbours.insert(node, load, until);
        }
    }

    /// Meets neighbours and looks for new ones, when due.
    pub(super) fn drive(&mut self, local: &mut Local, digest: u64) {
        let now = local.now;
        while let Some((node, _)) = self.members.pop_due(now) {
            self.drop_statuses(node);
        }
        while let Some((node, ())) = self.backups.pop_due(now) {
            self.drop_statuses(node);
        }
        while let Some((node, _)) = self.neighbours.pop_due(now) {
            local.nodes.failed(node, now);
        }
        while self.statuses.pop_due(now).is_some() {}
        self.spoken_for.expire(now);
        if self.lookup_at <= now {
            let alone = self.neighbours.is_empty();
            let every = &local.config.tuning;
            let every = if alone { every.search_every } else { every.lookup_every };
            self.lookup_at = now + every;
            self.lookup = Some(local.lookup(LookupKey::Supernodes));
            if alone {
                self.look_around(local, digest);
            }
        }
        if self.meet_at <= now {
            self.meet_at = now + local.config.tuning.meet_every;
            self.choose_neighbours(local);
            let nodes: Vec<_> = self.neighbours.keys().copied().collect();
            for node in nodes {
                self.meet(local, node, digest);
            }
        }
    }

    pub(super) fn next_deadline(&self) -> Timestamp {
        let at = self.lookup_at.min(self.meet_at);
        let nodes = [self.members.next(), self.backups.next(), self.neighbours.next()];
        let at = at.min(self.coordination.next_deadline());
        let tables = nodes.into_iter().chain([self.statuses.next()]);
        tables.flatten().fold(at, Timestamp::min)
    }

    pub(super) fn is_member(&self, node: &NodeId) -> bool {
        self.members.contains(node)
    }

    pub(super) fn is_backup_of(&self, node: &NodeId) -> bool {
        self.backups.contains(node)
    }

    pub(super) fn is_neighbour(&self, node: &NodeId) -> bool {
        self.neighbours.contains(node)
    }

    pub(super) fn members(&self) -> impl Iterator<Item = NodeId> {
        self.members.keys().copied()
    }

    /// Members of other supernodes that keep this one as their backup.
    pub(super) fn backups(&self) -> impl Iterator<Item = NodeId> {
        self.backups.keys().copied()
    }

    pub(super) fn neighbours(&self) -> impl Iterator<Item = NodeId> {
        self.neighbours.keys().copied()
    }

    /// What neighbours told of themselves.
    pub(super) fn loads(&self) -> impl Iterator<Item = (NodeId, Load)> {
        self.neighbours.iter().filter_map(|(node, load)| Some((*node, (*load)?)))
    }

    /// How busy this supernode is.
    pub(super) fn load(&self, local: &Local) -> Load {
        let members = self.members.len();
        let places = local.config.member_capacity.saturating_sub(members);
        let count = |number: usize| u16::try_from(number).unwrap_or(u16::MAX);
        Load { members: count(members), places: count(places) }
    }

    /// Nobody new is taken in from here on.
    pub(super) const fn close(&mut self) {
        self.closing = true;
    }

    /// Viewers and seeders of a stream, as far as this supernode was told.
    pub(super) fn viewers(&self, stream: StreamId) -> u32 {
        let members = self
            .of_stream(stream)
            .filter(|(node, status)| self.members.contains(node) && !status.is_source());
        let members = u32::try_from(members.count()).unwrap_or(u32::MAX);
        members.saturating_add(self.coordination.viewers(stream))
    }

    /// Streams that somebody takes and how many do, the largest first, as many as one answer tells.
    fn audiences(&self) -> Vec<(StreamId, u32)> {
        let carried = self.statuses.iter().map(|((stream, _), _)| *stream);
        let streams: BTreeSet<StreamId> = carried.chain(self.coordination.told_of()).collect();
        let counted = streams.into_iter().map(|stream| (stream, self.viewers(stream)));
        let mut audiences: Vec<_> = counted.filter(|(_, viewers)| *viewers > 0).collect();
        audiences.sort_by_key(|(stream, viewers)| (Reverse(*viewers), *stream));
        audiences.truncate(AUDIENCES_MAX);
        audiences
    }

    fn of_stream(&self, stream: StreamId) -> impl Iterator<Item = (NodeId, &StreamStatus)> {
        self.statuses
            .iter_after(Some((stream, NodeId([0; 32]))))
            .take_while(move |((of, _), _)| *of == stream)
            .map(|((_, node), status)| (*node, status))
    }

    fn meet(&self, local: &mut Local, node: NodeId, digest: u64) {
        let (contact, role) = (local.me.clone(), Role::Supernode);
        let load = (!self.closing).then(|| self.load(local));
        let register = Register { contact, role, digest, standby: false, load };
        local.ask_dir(node, DirRequest::Register(register), Purpose::Meet);
    }

    /// Without a neighbour: asks those who may be one, or may have another supernode, whether they do.
    fn look_around(&self, local: &mut Local, digest: u64) {
        let linked = local.nodes.linked().map(|known| known.contact.node);
        let strangers = linked.filter(|node| !self.members.contains(node));
        let nodes: BTreeSet<_> =
            self.kin.iter().copied().chain(strangers.take(STRANGERS_MAX)).collect();
        for node in nodes {
            self.meet(local, node, digest);
        }
    }

    /// Fills the neighbourhood with the nearest supernodes known.
    fn choose_neighbours(&mut self, local: &Local) {
        let mut known: Vec<_> = local
            .nodes
            .supernodes(local.now)
            .filter(|known| !self.neighbours.contains(&known.contact.node))
            .filter(|known| !local.is_banned(&known.contact.node))
            .map(super::membership::Known::rank)
            .collect();
        known.sort();
        let room = local.config.tuning.neighbours_max.saturating_sub(self.neighbours.len());
        let until = local.now + local.config.tuning.member_lease;
        for (.., node) in known.into_iter().take(room) {
            self.neighbours.insert(node, None, until);
        }
    }

    fn add_neighbour(&mut self, local: &Local, node: NodeId, load: Option<Load>) {
        // Those that chose this node are met as well, up to as many again.
        let room = 2 * local.config.tuning.neighbours_max;
        if self.neighbours.contains(&node) || self.neighbours.len() < room {
            let until = local.now + local.config.tuning.member_lease;
            self.neighbours.insert(node, load, until);
        }
    }

    /// A charge that has not renewed its registration when it should have is perhaps dead.
    fn is_overdue(&self, local: &Local, charge: &NodeId) -> bool {
        let tuning = &local.config.tuning;
        let due_in = tuning.backup_lease.saturating_sub(tuning.backup_renew_every);
        let left = self.backups.deadline(charge).map(|at| at.since(local.now));
        left.is_some_and(|left| left + tuning.dir_timeout < due_in)
    }

    fn drop_statuses(&mut self, node: NodeId) {
        let of_node: Vec<_> =
            self.statuses.keys().filter(|(_, member)| *member == node).copied().collect();
        for key in of_node {
            self.statuses.remove(&key);
        }
    }

    /// The members that were here longest and can be dialled.
    fn heirs(&self, local: &Local, most: usize) -> Vec<Contact> {
        let mut members: Vec<_> =
            self.members.iter().map(|(node, since)| (*since, *node)).collect();
        members.sort_unstable();
        let contacts = members.iter().filter_map(|(_, node)| local.nodes.contact(node));
        let dialled = contacts.filter(|contact| !contact.addrs.is_empty());
        dialled.take(most).cloned().collect()
    }
}

/// Other supernodes and heirs that a member is told at least: as many as may be lost at once with its
/// supernode before the network falls apart.
const HEIRS_MAX: usize = 4;
/// Nodes asked at once by a supernode that knows no other.
const STRANGERS_MAX: usize = 8;
/// Candidates that a summary names for each stripe, and in all.
const SUMMARY_PER_STRIPE: usize = 4;
