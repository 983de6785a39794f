//! What other nodes ask.
//!
//! Owns admission of requests by rate and the routing to who answers. Every request is answered at
//! once, from local state: no handler waits for anybody.

use super::{
    DirRefusal, DirRequest, DirResponse, InboundId, Offence, Output, Overlay, RefuseReason,
    Request, Response, Role, TicketRequest, TicketResponse,
    announcing::Origin,
    directory::Applied,
    finding::Scope,
    forwarder::Others,
    local::Local,
    membership::Learnt,
    rate_limit::{Admission, Lane},
    registrar::Registrar,
};
use crate::ids::NodeId;

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
                let share = |local: &Local| watch.map_or_else(Vec::new, |watch| watch.share(local));
                self.forwarder.on_ask(&mut self.local, from, &ask, &Others::new(&share))
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
                    watch.revoked(&mut self.local, &mut self.forwarder, from, revoke);
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
            // Any two supernodes may be each other's coordinators.
            DirRequest::Carriers { .. } | DirRequest::Summary { .. } => Lane::Peer,
            DirRequest::Push { .. } if !known && registrar.is_some() => Lane::Peer,
            DirRequest::List { .. } | DirRequest::Compare { .. } | DirRequest::Fetch { .. } => {
                if known {
                    Lane::List
                } else {
                    Lane::GuestList
                }
            }
            DirRequest::Status { .. }
            | DirRequest::Join { .. }
            | DirRequest::Find { .. }
            | DirRequest::Complain(_)
            | DirRequest::Offer { .. }
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
                // To a supernode anybody may be another that coordinates with it.
                if !known && self.registrar.is_none() {
                    return refuse(DirRefusal::NotMember);
                }
                for announcement in &announcements {
                    self.take_in(announcement, Origin::Heard(from));
                }
                DirResponse::Done
            }
            DirRequest::Offer { stream, announcement, candidates } => {
                let is_home = self.registrant.home() == Some(from);
                if !is_home && self.registrant.backup() != Some(from) {
                    return refuse(DirRefusal::NotMember);
                }
                let offer = DirResponse::Candidates { announcement, candidates };
                self.on_candidates(from, stream, offer);
                DirResponse::Done
            }
            request => self.on_registrar(from, request),
        }
    }

    fn on_registrar(&mut self, from: NodeId, request: DirRequest) -> DirResponse {
        let refuse = |reason| DirResponse::Refused { reason, retry_ms: 0 };
        let digest = self.directory.digest();
        let Some(registrar) = self.registrar.as_mut() else {
            return match request {
                // Whoever dials any node of the network finds it by this.
                DirRequest::Register(_) => self.registrant.elsewhere(&self.local, from),
                _ => refuse(DirRefusal::NotSupernode),
            };
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
                    self.dissemination.fetch(&mut self.local, &self.directory, from);
                }
                answer
            }
            DirRequest::Status { streams } => registrar.on_status(&self.local, from, streams),
            DirRequest::Join { stream } => self.candidates_for(from, stream, Scope::Member),
            DirRequest::Carriers { stream } => {
                self.candidates_for(from, stream, Scope::Coordinator)
            }
            DirRequest::Summary { streams } => {
                registrar.coordination.on_summary(&mut self.local, from, streams);
                DirResponse::Done
            }
            DirRequest::Find { stream } => {
                DirResponse::Found { announcement: self.directory.find(&stream).cloned() }
            }
            DirRequest::List { after } => {
                let (announcements, next) = self.directory.page(after);
                DirResponse::Page { announcements, next }
            }
            DirRequest::Complain(complaint) => {
                registrar.on_complaint(&mut self.local, from, complaint)
            }
            DirRequest::Compare { shards, after } => {
                let (heads, next) = self.directory.heads(&shards, after);
                DirResponse::Heads { heads, next }
            }
            DirRequest::Fetch { streams } => {
                let announcements = self.directory.several(&streams);
                DirResponse::Page { announcements, next: None }
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
            DirRequest::Unregister | DirRequest::Push { .. } | DirRequest::Offer { .. } => {
                DirResponse::Done
            }
        }
    }

    fn is_admitted(&mut self, from: NodeId, lane: Lane) -> bool {
        let tuning = &self.local.config.tuning;
        let per_second = match lane {
            Lane::Ticket => tuning.ticket_rate,
            Lane::Dir | Lane::Peer => tuning.dir_rate,
            Lane::List => tuning.list_rate,
            Lane::Guest | Lane::GuestList => tuning.guest_rate,
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
