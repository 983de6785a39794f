//! What other nodes ask.
//!
//! Owns admission of requests by rate and the routing to who answers. Every request is answered at
//! once, from local state: no handler waits for anybody.

use super::{
    DirRefusal, DirRequest, DirResponse, InboundId, Offence, Output, Overlay, RefuseReason,
    Request, Response, Role, TicketRequest, TicketResponse,
    announcing::Origin,
    directory::Applied,
    membership::Learnt,
    rate_limit::{Admission, Lane},
    registrar::Registrar,
    reporter,
};
use crate::ids::{NodeId, StreamId};

impl Overlay {
    /// Every request is answered at once, from local state.
    pub(super) fn on_request(&mut self, id: InboundId, from: NodeId, body: Request) {
        self.local.nodes.answered(from, self.local.now);
        self.local.counters.requests_answered += 1;
        let body = match body {
            Request::Ticket(request) => Response::Ticket(self.on_ticket(from, request)),
            Request::Dir(request) => Response::Dir(self.on_dir(from, request)),
        };
        self.local.emit(Output::Respond { id, body });
    }

    fn on_ticket(&mut self, from: NodeId, request: TicketRequest) -> TicketResponse {
        let refuse = |reason| TicketResponse::Refused { reason, retry_ms: 0 };
        if self.local.is_banned(&from) {
            return refuse(RefuseReason::Banned);
        }
        if !self.is_admitted(from, Lane::Ticket) {
            return TicketResponse::Refused { reason: RefuseReason::RateLimited, retry_ms: 1_000 };
        }
        match request {
            TicketRequest::Ask(ask) => {
                if ask.contact.node != from {
                    self.local.offence(from, Offence::NotParty);
                    return refuse(RefuseReason::NotParty);
                }
                self.local.nodes.learn(&ask.contact, Learnt::FirstHand, self.local.now);
                let watch = self.watches.get(&ask.stream);
                let others = watch.map_or_else(Vec::new, |watch| watch.share(&self.local));
                self.forwarder.on_ask(&mut self.local, from, &ask, others)
            }
            TicketRequest::Release { tickets } => {
                if self.forwarder.on_release(&mut self.local, from, &tickets) {
                    return TicketResponse::Done;
                }
                self.local.offence(from, Offence::NotParty);
                refuse(RefuseReason::NotParty)
            }
            TicketRequest::Revoke(revoke) => {
                if let Some(watch) = self.watches.get_mut(&revoke.stream) {
                    watch.revoked(&mut self.local, from, revoke);
                }
                TicketResponse::Done
            }
        }
    }

    fn on_dir(&mut self, from: NodeId, request: DirRequest) -> DirResponse {
        let refuse = |reason| DirResponse::Refused { reason, retry_ms: 0 };
        if self.local.is_banned(&from) {
            return refuse(DirRefusal::Banned);
        }
        let registrar = self.registrar.as_ref();
        let serves =
            |r: &Registrar| r.is_member(&from) || r.is_backup_of(&from) || r.is_neighbour(&from);
        let known = registrar.is_some_and(serves)
            || self.registrant.home() == Some(from)
            || self.registrant.backup() == Some(from);
        let lane = match request {
            // A stranger's registration is no guest's request.
            DirRequest::Register(_) | DirRequest::Unregister => Lane::Dir,
            DirRequest::Status { .. }
            | DirRequest::Join { .. }
            | DirRequest::Find { .. }
            | DirRequest::List { .. }
            | DirRequest::Publish { .. }
            | DirRequest::Push { .. } => {
                if known {
                    Lane::Dir
                } else {
                    Lane::Guest
                }
            }
        };
        if !self.is_admitted(from, lane) {
            return DirResponse::Refused { reason: DirRefusal::RateLimited, retry_ms: 1_000 };
        }
        match request {
            DirRequest::Unregister => {
                let digest = self.directory.digest();
                self.registrant.dismissed(&mut self.local, from, digest);
                if let Some(registrar) = &mut self.registrar {
                    if registrar.is_neighbour(&from) {
                        self.local.nodes.set_supernode(from, false);
                    }
                    registrar.on_unregister(from);
                }
                self.dissemination.forget(&from);
                DirResponse::Done
            }
            DirRequest::Push { announcements } => {
                if !known {
                    return refuse(DirRefusal::NotMember);
                }
                for announcement in &announcements {
                    self.take_in(announcement, Origin::Heard(from));
                }
                DirResponse::Done
            }
            request => self.on_registrar(from, request),
        }
    }

    fn on_registrar(&mut self, from: NodeId, request: DirRequest) -> DirResponse {
        let refuse = |reason| DirResponse::Refused { reason, retry_ms: 0 };
        let digest = self.directory.digest();
        let Some(registrar) = self.registrar.as_mut() else {
            return refuse(DirRefusal::NotSupernode);
        };
        if self.local.leaving {
            return refuse(DirRefusal::Leaving);
        }
        match request {
            DirRequest::Register(register) => {
                if register.contact.node != from {
                    self.local.offence(from, Offence::NotParty);
                    return refuse(DirRefusal::NotMember);
                }
                let answer = registrar.on_register(&mut self.local, from, &register, digest);
                if register.role == Role::Supernode
                    && matches!(answer, DirResponse::Accepted { in_sync: false, .. })
                {
                    self.dissemination.fetch(&mut self.local, from);
                }
                answer
            }
            DirRequest::Status { streams } => registrar.on_status(&self.local, from, streams),
            DirRequest::Join { stream } => self.candidates_for(from, stream),
            DirRequest::Find { stream } => {
                DirResponse::Found { announcement: self.directory.find(&stream).cloned() }
            }
            DirRequest::List { after } => {
                let (announcements, next) = self.directory.page(after);
                DirResponse::Page { announcements, next }
            }
            DirRequest::Publish { announcement } => {
                match self.take_in(&announcement, Origin::Publish(from)) {
                    None => refuse(DirRefusal::Forged),
                    Some(Applied::News) => DirResponse::Done,
                    Some(Applied::Stale) => {
                        let known = self.directory.find(&announcement.stream());
                        let order = announcement.announcement().order();
                        let same = known.is_some_and(|k| k.announcement().order() == order);
                        if same { DirResponse::Done } else { refuse(DirRefusal::Stale) }
                    }
                    Some(Applied::Void | Applied::Replayed) => refuse(DirRefusal::Stale),
                    Some(Applied::Full) => refuse(DirRefusal::Full),
                }
            }
            // Answered before.
            DirRequest::Unregister | DirRequest::Push { .. } => DirResponse::Done,
        }
    }

    pub(super) fn candidates_for(&mut self, asker: NodeId, stream: StreamId) -> DirResponse {
        let announcement = self.directory.find(&stream).cloned();
        let Some(registrar) = &self.registrar else {
            return DirResponse::Refused { reason: DirRefusal::NotSupernode, retry_ms: 0 };
        };
        let own = reporter::statuses(&self.local, &self.forwarder)
            .into_iter()
            .find(|status| status.stream == stream);
        let live = announcement.as_ref().map(|signed| signed.announcement());
        let live = live.filter(|announcement| !announcement.ended);
        let candidates = registrar.candidates(&mut self.local, stream, asker, live, own);
        DirResponse::Candidates { announcement, candidates }
    }

    fn is_admitted(&mut self, from: NodeId, lane: Lane) -> bool {
        let tuning = &self.local.config.tuning;
        let per_second = match lane {
            Lane::Ticket => tuning.ticket_rate,
            Lane::Dir => tuning.dir_rate,
            Lane::Guest => tuning.guest_rate,
        };
        let admission = self.limits.take(from, lane, per_second, self.local.now);
        if admission == Admission::Pass {
            return true;
        }
        self.local.counters.rate_limited += 1;
        if admission == Admission::Flood {
            self.local.offence(from, Offence::Flood);
        }
        false
    }
}
