//! Finding out who may serve a stream, from both sides.
//!
//! Owns how a node asks its supernode, and a second one when in doubt; how a supernode answers at
//! once from what it knows, asks coordinators for more, and offers that to whoever asked. Does not
//! own what is known (see `registrar` and its `coordination`), nor the choice among it (see
//! `mixing`).

use std::sync::Arc;

use super::{
    Candidate, DirRefusal, DirRequest, DirResponse, Overlay, StreamStatus,
    announcing::Origin,
    dht::coordinators,
    local::Purpose,
    mixing::{in_turns, mix},
    registrar::Waiting,
    reporter,
};
use crate::{
    announcement::SignedAnnouncement,
    ids::{NodeId, StreamId},
};

/// For whom an answer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Scope {
    /// A node that wants to watch: everything, and coordinators are asked for more.
    Member,
    /// The same, with what the coordinators answered.
    Offer,
    /// A supernode that asks a coordinator: what was told here, nothing is asked on.
    Coordinator,
}

impl Overlay {
    /// Asks the directory for candidates: the supernode, or oneself; in doubt a second supernode
    /// as well, so that one that lies, or knows nothing, cannot keep a viewer from a stream.
    pub(super) fn join(&mut self, stream: StreamId) {
        if self.registrant.is_supernode() {
            let me = self.local.me.node;
            let answer = self.candidates_for(me, stream, Scope::Member);
            self.on_candidates(me, stream, answer);
            return;
        }
        let home = self.registrant.home();
        let doubts = self.watches.get(&stream).is_some_and(|watch| watch.doubts_directory());
        let second = doubts.then(|| self.second_supernode(home)).flatten();
        for node in home.into_iter().chain(second) {
            self.local.ask_dir(node, DirRequest::Join { stream }, Purpose::Join { stream });
        }
        if home.is_none()
            && second.is_none()
            && let Some(watch) = self.watches.get_mut(&stream)
        {
            watch.joined(&mut self.local, None);
        }
    }

    /// The backup, or else the nearest supernode beside `home`.
    fn second_supernode(&self, home: Option<NodeId>) -> Option<NodeId> {
        let local = &self.local;
        let others = local.nodes.supernodes(local.now).filter(|known| {
            Some(known.contact.node) != home && !local.is_banned(&known.contact.node)
        });
        let nearest = || others.map(super::membership::Known::rank).min().map(|(.., node)| node);
        self.registrant.backup().filter(|backup| Some(*backup) != home).or_else(nearest)
    }

    /// Who may serve a stream, from what is known here.
    pub(super) fn candidates_for(
        &mut self,
        asker: NodeId,
        stream: StreamId,
        scope: Scope,
    ) -> DirResponse {
        let announcement = self.directory.find(&stream).cloned();
        let own = self.own_statuses().into_iter().find(|status| status.stream == stream);
        let Some(registrar) = &mut self.registrar else {
            return DirResponse::Refused { reason: DirRefusal::NotSupernode, retry_ms: 0 };
        };
        let local = &mut self.local;
        let [members, charges] = registrar.carriers(local, stream, own);
        let free = members.iter().filter(|candidate| candidate.free > 0).count();
        let source = source_of(announcement.as_ref(), &members).filter(|s| s.contact.node != asker);
        let source_node = announcement.as_ref().map(|signed| signed.announcement().node.node);
        let mut tellers = vec![members];
        let mut elsewhere = registrar.coordination.tellers(stream, scope != Scope::Coordinator);
        for candidate in elsewhere.iter_mut().flatten() {
            candidate.free = registrar.left_of(stream, &candidate.contact.node, candidate.free);
        }
        // The nearer half is its own members, of whom it knows most.
        tellers.push(in_turns(elsewhere));
        tellers.push(charges);
        for list in &mut tellers {
            list.retain_mut(|candidate| {
                candidate.source = false;
                let node = candidate.contact.node;
                node != asker && Some(node) != source_node && !local.is_banned(&node)
            });
        }
        let candidates = mix(source, tellers, local.config.tuning.candidates_per_stripe);
        if scope != Scope::Coordinator {
            registrar.told_of(local, stream, asker, &candidates);
        }
        let ended = announcement.as_ref().is_some_and(|signed| signed.announcement().ended);
        // A coordinator is told what there is to know; what it does not know it asks, too.
        let coordinates = || coordinators(local, &stream).contains(&local.me.node);
        let knows_all = announcement.is_some() && coordinates();
        if scope == Scope::Member && !ended && !knows_all {
            let few = announcement.is_none() || free < FEW;
            registrar.coordination.ask(local, stream, asker, few);
        }
        DirResponse::Candidates { announcement, candidates }
    }

    /// What a supernode, or this node for itself, says of a stream.
    pub(super) fn on_candidates(&mut self, from: NodeId, stream: StreamId, response: DirResponse) {
        let answer = match response {
            DirResponse::Candidates { announcement, candidates } => {
                self.take_in_of(from, stream, announcement.as_ref());
                let known = announcement.is_some_and(|signed| !signed.announcement().ended);
                Some((known, candidates))
            }
            DirResponse::Refused { .. }
            | DirResponse::Accepted { .. }
            | DirResponse::Full { .. }
            | DirResponse::Elsewhere { .. }
            | DirResponse::Done
            | DirResponse::Found { .. }
            | DirResponse::Heads { .. }
            | DirResponse::Page { .. } => None,
        };
        if let Some(watch) = self.watches.get_mut(&stream) {
            watch.joined(&mut self.local, answer);
        }
    }

    /// A coordinator answered, or (`None`) did not.
    pub(super) fn on_carriers(
        &mut self,
        from: NodeId,
        stream: StreamId,
        response: Option<DirResponse>,
    ) {
        let answer = match response {
            Some(DirResponse::Candidates { announcement, candidates }) => {
                self.take_in_of(from, stream, announcement.as_ref());
                Some((announcement.is_some(), candidates))
            }
            Some(DirResponse::Refused { .. }) => {
                self.local.nodes.set_supernode(from, false);
                None
            }
            Some(
                DirResponse::Accepted { .. }
                | DirResponse::Full { .. }
                | DirResponse::Elsewhere { .. }
                | DirResponse::Done
                | DirResponse::Found { .. }
                | DirResponse::Heads { .. }
                | DirResponse::Page { .. },
            )
            | None => None,
        };
        let Some(registrar) = &mut self.registrar else { return };
        let waiting = registrar.coordination.answered(&mut self.local, stream, from, answer);
        self.offer(stream, waiting);
    }

    /// Questions that have waited long enough, and what coordinators are to be told.
    pub(super) fn drive_finding(&mut self) {
        let Some(registrar) = &mut self.registrar else { return };
        let due = registrar.coordination.due(&mut self.local);
        for (stream, waiting) in due {
            self.offer(stream, waiting);
        }
        let now = self.local.now;
        let is_due = |r: &mut super::registrar::Registrar| r.coordination.is_due(now);
        if self.registrar.as_mut().is_some_and(is_due) {
            let own = self.own_statuses();
            let Some(registrar) = &mut self.registrar else { return };
            let own = registrar.summaries(&mut self.local, own);
            registrar.coordination.drive(&mut self.local, &own);
        }
    }

    /// Tells those who asked what has been found out since.
    fn offer(&mut self, stream: StreamId, waiting: Waiting) {
        for asker in waiting {
            let answer = self.candidates_for(asker, stream, Scope::Offer);
            if asker == self.local.me.node {
                self.on_candidates(asker, stream, answer);
            } else if let DirResponse::Candidates { announcement, candidates } = answer {
                let offer = DirRequest::Offer { stream, announcement, candidates };
                self.local.ask_dir(asker, offer, Purpose::Offer);
            }
        }
    }

    fn take_in_of(
        &mut self,
        from: NodeId,
        stream: StreamId,
        announcement: Option<&Arc<SignedAnnouncement>>,
    ) {
        if let Some(announcement) = announcement.filter(|signed| signed.stream() == stream) {
            self.take_in(announcement, Origin::Heard(from));
        }
    }

    fn own_statuses(&self) -> Vec<StreamStatus> {
        reporter::statuses(&self.local, &self.forwarder)
    }
}

/// The source as a candidate: as its status says, or as the announcement does.
fn source_of(
    announcement: Option<&Arc<SignedAnnouncement>>,
    members: &[Candidate],
) -> Option<Candidate> {
    let announcement = announcement?.announcement();
    if announcement.ended {
        return None;
    }
    let node = announcement.node.node;
    let known = members.iter().find(|candidate| candidate.contact.node == node);
    let told = known.map(|known| Candidate { source: true, ..known.clone() });
    told.or_else(|| {
        let depths = vec![0; usize::from(announcement.k)];
        Some(Candidate { contact: announcement.node.clone(), depths, free: 1, source: true })
    })
}

/// Fewer own members with free slots than this are few.
const FEW: usize = 3;
