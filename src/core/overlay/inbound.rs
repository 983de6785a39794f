//! What comes in, and where it goes.
//!
//! Owns the routing of inputs and requests to the sub-machines, and what is due after each. Does
//! not own any decision of theirs.

use std::sync::Arc;

use super::{
    Command, Contact, DirRefusal, DirRequest, DirResponse, GossipVerdict, InboundId, Input,
    Interest, Offence, Output, Overlay, RefuseReason, Request, Response, TicketRequest,
    TicketResponse,
    directory::Applied,
    leave::Leaving,
    local::Purpose,
    membership::Learnt,
    rate_limit::{Admission, Lane},
    registrant::Step,
    registrar::Registrar,
    reporter,
    subscriber::Subscriber,
};
use crate::{
    announcement::SignedAnnouncement,
    ids::{Direction, NodeId, StreamId},
};

/// How an announcement came here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    /// Published here.
    Own,
    /// A member, or a guest, publishes it.
    Publish(NodeId),
    /// By gossip: verified, and passed on by gossip itself.
    Gossip(NodeId),
    /// A neighbour or the supernode pushed it, or it came on a page.
    Heard(NodeId),
}

impl Overlay {
    pub(super) fn route(&mut self, input: Input) {
        let now = self.local.now;
        match input {
            Input::Command(command) => self.on_command(command),
            Input::LinkUp { contact, private } => {
                self.local.nodes.link_up(&contact, private, now);
                self.registrant.link_up(now);
            }
            Input::LinkDown { node } => self.on_link_down(node),
            Input::DialFailed { node } => self.local.nodes.failed(node, now),
            Input::Rtt { node, rtt } => self.local.nodes.measured(node, rtt, now),
            Input::ListenAddrs { addrs, reachable } => self.on_listen(addrs, reachable),
            Input::SignedContact { contact } => {
                if contact.node == self.local.me.node && contact.seq == self.local.me.seq {
                    self.local.me = contact;
                    self.publisher.moved(&mut self.local);
                }
            }
            Input::Request { id, from, body } => self.on_request(id, from, body),
            Input::Response { id, result } => self.on_response(id, result),
            Input::LookupDone { id, found } => {
                self.registrant.lookup_done(&mut self.local, id, &found);
                if let Some(registrar) = &mut self.registrar {
                    registrar.lookup_done(&mut self.local, id, &found);
                }
            }
            Input::Discovered { contact } => {
                if contact.node != self.local.me.node {
                    self.local.nodes.learn(&contact, Learnt::Hearsay, now);
                    self.local.dial(contact.node);
                }
            }
            Input::Gossip { id, from, announcement } => {
                let verdict = match self.take_in(&announcement, Origin::Gossip(from)) {
                    Some(Applied::News) => GossipVerdict::Accept,
                    Some(Applied::Stale | Applied::Void | Applied::Full) => GossipVerdict::Ignore,
                    None => GossipVerdict::Reject,
                };
                self.local.emit(Output::GossipVerdict { id, verdict });
            }
            Input::ForgedGossip { from } => {
                self.local.counters.forged += 1;
                self.local.offence(from, Offence::Forged);
            }
            Input::Signed { announcement } => {
                if self.publisher.signed(&announcement) {
                    self.take_in(&announcement, Origin::Own);
                }
            }
            Input::UplinkEstimate(rate) => {
                self.forwarder.limits.estimate = Some(rate);
                self.forwarder.enforce_limits(&mut self.local);
            }
            Input::Rate { stream, rate, k } => {
                if let Some(watch) = self.watches.get_mut(&stream)
                    && k.is_power_of_two()
                    && k <= crate::ids::STRIPES_MAX
                {
                    watch.certified(&mut self.local, rate, k);
                }
            }
            Input::StreamEnded { stream } => {
                if let Some(watch) = self.watches.get_mut(&stream) {
                    watch.stream_ended(&mut self.local);
                }
            }
            Input::Paused { stream, paused } => {
                if let Some(watch) = self.watches.get_mut(&stream) {
                    watch.set_paused(now, paused);
                }
            }
            input @ (Input::FeedUp { .. }
            | Input::FeedDown { .. }
            | Input::Progress(_)
            | Input::Path { .. }
            | Input::Ended { .. }
            | Input::Shed { .. }
            | Input::PromoteAsked { .. }
            | Input::ChildAlive { .. }
            | Input::ChildStalled { .. }
            | Input::ChildShed { .. }
            | Input::Released { .. }) => self.on_feed(input),
        }
    }

    /// Everything that may be due after any input.
    pub(super) fn drive(&mut self) {
        let digest = self.directory.digest();
        let step = self.registrant.drive(&mut self.local, digest);
        self.take_step(step);
        if let Some(registrar) = &mut self.registrar {
            registrar.drive(&mut self.local, digest);
        }
        self.publisher.drive(&mut self.local, &mut self.forwarder);
        let joins: Vec<StreamId> = self
            .watches
            .iter_mut()
            .filter_map(|(stream, watch)| watch.take_join(&self.local).then_some(*stream))
            .collect();
        for stream in joins {
            self.join(stream);
        }
        for watch in self.watches.values_mut() {
            watch.drive(&mut self.local, &mut self.forwarder);
        }
        self.watches.retain(|_, watch| !watch.is_done());
        self.dissemination.flush(&mut self.local, &self.directory);
        let home = self.registrant.home().filter(|_| self.registrant.is_member());
        self.reporter.drive(&mut self.local, &self.forwarder, home);
        self.drive_leaving();
    }

    /// Inputs after which the supernode may have to be told something.
    pub(super) fn touch_reporter(&mut self, input: &Input) {
        match input {
            Input::Progress(_) | Input::Rtt { .. } | Input::Gossip { .. } => {}
            Input::Command(_)
            | Input::Request { .. }
            | Input::Response { .. }
            | Input::FeedUp { .. }
            | Input::FeedDown { .. }
            | Input::Path { .. }
            | Input::Ended { .. }
            | Input::Shed { .. }
            | Input::PromoteAsked { .. }
            | Input::ChildAlive { .. }
            | Input::ChildStalled { .. }
            | Input::ChildShed { .. }
            | Input::Released { .. }
            | Input::UplinkEstimate(_)
            | Input::Rate { .. }
            | Input::StreamEnded { .. }
            | Input::Paused { .. }
            | Input::LinkUp { .. }
            | Input::LinkDown { .. }
            | Input::DialFailed { .. }
            | Input::ListenAddrs { .. }
            | Input::SignedContact { .. }
            | Input::LookupDone { .. }
            | Input::Discovered { .. }
            | Input::ForgedGossip { .. }
            | Input::Signed { .. } => self.reporter.touch(),
        }
    }

    /// What a step of the registration asks for.
    pub(super) fn take_step(&mut self, step: Step) {
        match step {
            Step::None => {}
            Step::Promoted => {
                self.registrar = Some(Registrar::new(self.local.now));
                // Own streams are gossiped now, not handed over.
                self.publisher.moved(&mut self.local);
            }
            Step::Home { node, in_sync } => {
                if !in_sync {
                    self.dissemination.fetch(&mut self.local, node);
                    self.publisher.hand_over_again();
                }
                self.hand_over_announcements();
            }
        }
    }

    /// Takes in an announcement and passes news on. `None`: it was forged.
    pub(super) fn take_in(
        &mut self,
        announcement: &Arc<SignedAnnouncement>,
        origin: Origin,
    ) -> Option<Applied> {
        let stream = announcement.stream();
        let verified = match origin {
            Origin::Own | Origin::Gossip(_) => None,
            Origin::Publish(from) | Origin::Heard(from) => Some(from),
        };
        if let Some(from) = verified
            && self.directory.judge(&self.local, announcement.announcement()) == Applied::News
            && !announcement.verify(self.local.config.scheme)
        {
            self.local.counters.forged += 1;
            self.local.offence(from, Offence::Forged);
            return None;
        }
        let applied = self.directory.apply(&mut self.local, announcement);
        if applied == Applied::News {
            self.spread(stream, announcement, origin);
            if let Some(watch) = self.watches.get_mut(&stream) {
                watch.announced(&mut self.local, announcement.announcement());
            }
        }
        if origin == Origin::Own {
            self.hand_over_announcements();
        }
        Some(applied)
    }

    /// Offers the newest own announcements to the supernode.
    pub(super) fn hand_over_announcements(&mut self) {
        if self.registrant.is_supernode() {
            let streams: Vec<_> = self.publisher.unconfirmed().collect();
            streams.into_iter().for_each(|stream| self.publisher.confirmed(stream));
            return;
        }
        let Some(home) = self.registrant.home() else { return };
        let streams: Vec<_> = self.publisher.unconfirmed().collect();
        for stream in streams {
            if let Some(announcement) = self.directory.find(&stream).cloned() {
                let request = DirRequest::Publish { announcement };
                self.local.ask_dir(home, request, Purpose::Publish { stream });
            }
        }
    }

    fn spread(&mut self, stream: StreamId, announcement: &Arc<SignedAnnouncement>, origin: Origin) {
        let Some(registrar) = &self.registrar else { return };
        let (from, first) = match origin {
            Origin::Own => (None, true),
            Origin::Publish(from) => (Some(from), true),
            Origin::Gossip(from) | Origin::Heard(from) => (Some(from), false),
        };
        for member in registrar.members().filter(|member| Some(*member) != from) {
            self.dissemination.queue(member, stream);
        }
        if first {
            // Neighbours hear it directly as well: gossip needs time to form its mesh.
            for neighbour in registrar.neighbours() {
                self.dissemination.queue(neighbour, stream);
            }
            self.local.emit(Output::Gossip { announcement: Arc::clone(announcement) });
        }
    }

    fn on_command(&mut self, command: Command) {
        let local = &mut self.local;
        match command {
            Command::Publish { announcement } => {
                let stream = announcement.stream();
                let known = self.directory.find(&stream).map(|known| known.announcement().order());
                let newest = known.filter(|(epoch, _)| *epoch == announcement.epoch);
                let newest = newest.map_or(0, |(_, revision)| revision);
                self.publisher.publish(local, announcement, newest);
            }
            Command::Unpublish { stream } => {
                self.publisher.unpublish(local, stream);
            }
            Command::Watch { stream, lag, kind } => self.watch(stream, lag, kind),
            Command::Unwatch { stream } => {
                if let Some(watch) = self.watches.get_mut(&stream) {
                    watch.unwatch(local, &mut self.forwarder);
                }
            }
            Command::RevokeTicket { ticket } => {
                if !self.forwarder.revoke_by_user(local, ticket) {
                    for watch in self.watches.values_mut() {
                        watch.release_by_user(local, ticket);
                    }
                }
            }
            Command::ForgetNode { node } => {
                self.on_link_down(node);
                self.forwarder.expel(&mut self.local, node);
                self.dissemination.forget(&node);
                self.local.scores.forget(&node);
                self.local.nodes.forget(&node);
                self.local.emit(Output::Disconnect { node });
            }
            Command::SetLimits { uplink, max_copies, max_total_copies } => {
                let limits = &mut self.forwarder.limits;
                limits.uplink = uplink.or(limits.uplink);
                limits.max_copies = max_copies.or(limits.max_copies);
                limits.max_total_copies = max_total_copies.or(limits.max_total_copies);
                self.forwarder.enforce_limits(local);
            }
            Command::AddBootstrap { contacts } => {
                for contact in &contacts {
                    local.nodes.learn(contact, Learnt::Hearsay, local.now);
                    local.dial(contact.node);
                }
            }
            Command::Leave => {
                if self.leaving.is_none() {
                    self.leaving = Some(Leaving::new(local.now + local.config.tuning.leave_max));
                    self.begin_leaving();
                }
            }
        }
    }

    fn watch(&mut self, stream: StreamId, lag: std::time::Duration, kind: Interest) {
        if self.publisher.publishes(&stream) || self.local.leaving {
            return;
        }
        if let Some(watch) = self.watches.get_mut(&stream) {
            watch.watch_again(&mut self.local, kind, lag);
        } else {
            let watch = Subscriber::new(&mut self.local, stream, kind, lag);
            self.watches.insert(stream, watch);
        }
        let known = self.directory.find(&stream).cloned();
        if let (Some(watch), Some(known)) = (self.watches.get_mut(&stream), known) {
            watch.announced(&mut self.local, known.announcement());
        }
    }

    fn on_link_down(&mut self, node: NodeId) {
        self.local.nodes.link_down(node);
        self.registrant.link_down(&self.local, node);
        self.forwarder.link_down(&mut self.local, node);
        let reason = super::FeedDownReason::Closed;
        for watch in self.watches.values_mut() {
            watch.feed_down(&mut self.local, &mut self.forwarder, node, reason);
        }
    }

    fn on_listen(&mut self, addrs: Vec<super::Addr>, reachable: bool) {
        self.local.reachable = reachable;
        if self.local.me.addrs != addrs {
            let mut me = Contact::new(self.local.me.node, addrs);
            me.seq = self.local.unix_now().max(self.local.me.seq + 1);
            self.local.me = me.clone();
            self.local.emit(Output::SignContact { contact: me });
            self.publisher.moved(&mut self.local);
        }
    }

    fn on_feed(&mut self, input: Input) {
        let local = &mut self.local;
        let forwarder = &mut self.forwarder;
        let watches = &mut self.watches;
        match input {
            Input::FeedUp { feed } => match feed.direction {
                Direction::ToChild => forwarder.feed_up(local, feed),
                Direction::FromParent => match watches.get_mut(&feed.stream) {
                    Some(watch) => watch.feed_up(local, forwarder, feed.peer),
                    None => local.emit(Output::CloseFeed { feed, reason: super::EndReason::Left }),
                },
            },
            Input::FeedDown { feed, reason } => match feed.direction {
                Direction::ToChild => {
                    forwarder.feed_down(local, feed);
                    if let super::FeedDownReason::Offence(offence) = reason {
                        local.offence(feed.peer, offence);
                    }
                }
                Direction::FromParent => {
                    if let Some(watch) = watches.get_mut(&feed.stream) {
                        watch.feed_down(local, forwarder, feed.peer, reason);
                    }
                }
            },
            Input::Progress(report) => {
                if let Some(watch) = watches.get_mut(&report.feed.stream) {
                    watch.progress(local, forwarder, &report);
                    if watch.take_news() {
                        self.reporter.touch();
                    }
                }
            }
            Input::Path { feed, stripe, path } => {
                if let Some(watch) = watches.get_mut(&feed.stream) {
                    watch.path(local, forwarder, feed.peer, stripe, path);
                }
            }
            Input::Ended { feed, reason } => {
                if let Some(watch) = watches.get_mut(&feed.stream) {
                    watch.feed_ended(local, forwarder, feed.peer, reason);
                }
            }
            Input::Shed { feed, stripes } => {
                if let Some(watch) = watches.get_mut(&feed.stream) {
                    for stripe in stripes.iter() {
                        watch.shed(local, forwarder, feed.peer, stripe);
                    }
                }
            }
            Input::PromoteAsked { feed, .. } => forwarder.promote_asked(local, feed),
            Input::ChildAlive { feed, stripes } => forwarder.child_alive(local, feed, stripes),
            Input::ChildStalled { feed } => forwarder.child_stalled(local, feed),
            Input::ChildShed { feed, stripes } => forwarder.child_shed(local, feed, stripes),
            Input::Released { feed, stripe } => forwarder.on_released(local, feed, stripe),
            // Routed by `route` itself.
            _ => {}
        }
    }

    /// Every request is answered at once, from local state.
    fn on_request(&mut self, id: InboundId, from: NodeId, body: Request) {
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
        let known = registrar.is_some_and(|r| r.is_member(&from) || r.is_neighbour(&from))
            || self.registrant.home() == Some(from);
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
                self.registrant.dismissed(&mut self.local, from);
                if let Some(registrar) = &mut self.registrar {
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
                if register.role == super::Role::Supernode
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
                    Some(Applied::Void) => refuse(DirRefusal::Stale),
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
