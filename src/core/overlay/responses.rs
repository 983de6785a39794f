//! What answers to own requests, or their absence, lead to.
//!
//! Owns the matching of answers with what was asked. Does not own any decision of a sub-machine.

use super::{
    AskAnswer, DirResponse, EndReason, Overlay, RequestFailure, RequestId, Response, StripeAnswer,
    TicketId, TicketRequest, TicketResponse, Verdict,
    announcing::Origin,
    local::{Pending, Purpose},
};
use crate::ids::NodeId;

impl Overlay {
    pub(super) fn on_response(&mut self, id: RequestId, result: Result<Response, RequestFailure>) {
        let Some(pending) = self.local.take_pending(id) else { return };
        match result {
            Ok(response) => {
                self.local.nodes.answered(pending.to, self.local.now);
                match (pending.given_up, response) {
                    (true, Response::Ticket(TicketResponse::Answer(answer))) => {
                        self.give_back(&pending, &answer);
                    }
                    (true, Response::Ticket(_) | Response::Dir(_)) => {}
                    (false, Response::Ticket(response)) => {
                        self.on_ticket_answer(id, pending, response);
                    }
                    (false, Response::Dir(response)) => self.on_dir_answer(pending, response),
                }
            }
            Err(failure) if !pending.given_up => self.on_failure(id, pending, failure),
            Err(_) => {}
        }
    }

    /// No answer: what the other side did is unknown.
    pub(super) fn on_failure(&mut self, id: RequestId, pending: Pending, _: RequestFailure) {
        let Pending { to, purpose, .. } = pending;
        self.local.counters.requests_failed += 1;
        self.local.nodes.failed(to, self.local.now);
        match purpose {
            Purpose::Register => {
                let digest = self.directory.digest();
                let step = self.registrant.failed(&mut self.local, to, digest);
                self.take_step(step);
            }
            Purpose::Backup => self.registrant.backup_failed(&self.local, to),
            Purpose::Meet => {
                if let Some(registrar) = &mut self.registrar {
                    registrar.neighbour_failed(to, false);
                }
            }
            Purpose::Join { stream } => {
                if let Some(watch) = self.watches.get_mut(&stream) {
                    watch.joined(&mut self.local, None);
                }
            }
            Purpose::Fetch { part } => self.dissemination.failed(to, part),
            Purpose::Carriers { stream } => self.on_carriers(to, stream, None),
            Purpose::Push => self.dissemination.pushed(to),
            Purpose::Ask { stream, .. } => {
                if let Some(watch) = self.watches.get_mut(&stream) {
                    watch.on_silence(&mut self.local, id, to);
                }
            }
            Purpose::Publish { stream } => self.publisher.unconfirmed(stream, self.local.now),
            // A member that does not answer is not waited for.
            Purpose::Unregister => self.dismissed(to),
            Purpose::Status
            | Purpose::Summary
            | Purpose::Complain
            | Purpose::Offer
            | Purpose::Release
            | Purpose::Revoke => {}
        }
    }

    /// A member was told to go elsewhere.
    fn dismissed(&mut self, member: NodeId) {
        if let Some(registrar) = &mut self.registrar {
            registrar.on_unregister(member);
        }
        self.dissemination.forget(&member);
    }

    fn on_ticket_answer(&mut self, id: RequestId, pending: Pending, response: TicketResponse) {
        let Pending { to, purpose, .. } = pending.clone();
        let Purpose::Ask { stream, stripes, warm, .. } = purpose else { return };
        let Some(watch) = self.watches.get_mut(&stream) else {
            if let TicketResponse::Answer(answer) = response {
                self.give_back(&pending, &answer);
            }
            return;
        };
        let (local, forwarder) = (&mut self.local, &mut self.forwarder);
        match response {
            TicketResponse::Answer(mut answer) => {
                // Nothing that was not asked for.
                answer.stripes.retain(|answer| stripes.contains(&answer.stripe));
                watch.on_answer(local, forwarder, id, to, warm, answer);
            }
            TicketResponse::Refused { reason, .. } => {
                watch.on_refused(local, forwarder, id, to, (&stripes, warm), reason);
            }
            TicketResponse::Done => watch.on_silence(local, id, to),
        }
    }

    fn on_dir_answer(&mut self, pending: Pending, response: DirResponse) {
        let Pending { to, purpose, .. } = pending;
        match purpose {
            Purpose::Register => {
                let digest = self.directory.digest();
                let step = self.registrant.answered(&mut self.local, to, &response, digest);
                self.take_step(step);
            }
            Purpose::Backup => {
                if self.registrant.backup_answered(&mut self.local, to, &response) {
                    self.dissemination.fetch(&mut self.local, &self.directory, to);
                }
            }
            Purpose::Meet => self.met(to, &response),
            Purpose::Join { stream } => self.on_candidates(to, stream, response),
            Purpose::Fetch { part } => self.on_page(to, part, response),
            Purpose::Carriers { stream } => self.on_carriers(to, stream, Some(response)),
            Purpose::Publish { stream } => match response {
                // Refused for good as well: repeating would not help.
                DirResponse::Done | DirResponse::Refused { retry_ms: 0, .. } => {
                    self.publisher.confirmed(stream);
                }
                DirResponse::Refused { .. }
                | DirResponse::Accepted { .. }
                | DirResponse::Full { .. }
                | DirResponse::Elsewhere { .. }
                | DirResponse::Candidates { .. }
                | DirResponse::Found { .. }
                | DirResponse::Heads { .. }
                | DirResponse::Page { .. } => self.publisher.unconfirmed(stream, self.local.now),
            },
            Purpose::Push => self.dissemination.pushed(to),
            Purpose::Unregister => self.dismissed(to),
            Purpose::Status
            | Purpose::Summary
            | Purpose::Complain
            | Purpose::Offer
            | Purpose::Ask { .. }
            | Purpose::Release
            | Purpose::Revoke => {}
        }
    }

    fn met(&mut self, neighbour: NodeId, response: &DirResponse) {
        let Some(registrar) = &mut self.registrar else { return };
        match response {
            DirResponse::Accepted { in_sync, others, load, .. } => {
                registrar.neighbour_met(&self.local, neighbour, *load);
                self.local.learn_supernodes(others);
                if !in_sync {
                    self.dissemination.fetch(&mut self.local, &self.directory, neighbour);
                }
            }
            DirResponse::Refused { .. } => {
                registrar.neighbour_failed(neighbour, true);
                self.local.nodes.set_supernode(neighbour, false);
            }
            DirResponse::Elsewhere { others } => {
                registrar.neighbour_failed(neighbour, true);
                self.local.nodes.set_supernode(neighbour, false);
                self.local.learn_supernodes(others);
            }
            DirResponse::Full { .. }
            | DirResponse::Done
            | DirResponse::Candidates { .. }
            | DirResponse::Found { .. }
            | DirResponse::Heads { .. }
            | DirResponse::Page { .. } => {}
        }
    }

    fn on_page(&mut self, from: NodeId, part: u8, response: DirResponse) {
        let fetches = &mut self.dissemination;
        match response {
            DirResponse::Page { announcements, next } => {
                for announcement in &announcements {
                    self.take_in(announcement, Origin::Heard(from));
                }
                let (local, directory) = (&mut self.local, &self.directory);
                self.dissemination.page(local, directory, from, part, &announcements, next);
            }
            DirResponse::Heads { heads, next } => {
                fetches.heads(&mut self.local, &self.directory, from, part, &heads, next);
            }
            DirResponse::Refused { retry_ms, .. } if retry_ms > 0 => {
                fetches.busy(&self.local, from, part, retry_ms);
            }
            DirResponse::Refused { .. }
            | DirResponse::Accepted { .. }
            | DirResponse::Full { .. }
            | DirResponse::Elsewhere { .. }
            | DirResponse::Done
            | DirResponse::Found { .. }
            | DirResponse::Candidates { .. } => fetches.failed(from, part),
        }
    }

    /// Returns what a late answer grants. A parent gives each stripe one ticket, whatever the number
    /// of ASKs, so what an earlier answer brought may be in use by now: that stays, as does what
    /// the answer to another ASK, still under way, will decide about.
    fn give_back(&mut self, pending: &Pending, answer: &AskAnswer) {
        let Purpose::Ask { stream, renewal: false, .. } = pending.purpose else { return };
        let parent = pending.to;
        let watch = self.watches.get(&stream);
        let surplus = |given: &StripeAnswer| match given.verdict {
            Verdict::Grant { ticket, .. } => {
                let needed = watch.is_some_and(|watch| {
                    watch.holds(parent, ticket)
                        || self.local.is_asking(parent, stream, given.stripe)
                });
                (!needed).then_some(ticket)
            }
            Verdict::Refuse { .. } => None,
        };
        let tickets: Vec<TicketId> = answer.stripes.iter().filter_map(surplus).collect();
        if !tickets.is_empty() {
            let request = TicketRequest::Release { tickets };
            self.local.ask_ticket(parent, request, Purpose::Release);
        }
    }

    /// Closes everything that is carried.
    pub(super) fn abandon_all(&mut self) {
        for (stream, watch) in &mut self.watches {
            self.forwarder.drop_stream(&mut self.local, *stream, EndReason::Left);
            watch.abandon(&mut self.local);
        }
        self.watches.clear();
        let streams: Vec<_> = self.local.carried.keys().copied().collect();
        for stream in streams {
            self.forwarder.drop_stream(&mut self.local, stream, EndReason::Ended);
            self.local.carried.remove(&stream);
        }
    }
}
