//! What comes in, and where it goes.
//!
//! Owns the routing of inputs and requests to the sub-machines, and what is due after each. Does
//! not own any decision of theirs.

use std::sync::Arc;

use super::{
    Addr, Contact, DirRequest, EndReason, FeedDownReason, GossipVerdict, Input, Offence, Output,
    Overlay, announcing::Origin, directory::Applied, local::Purpose, membership::Learnt,
    registrant::Step, registrar::Registrar,
};
use crate::{
    announcement::SignedAnnouncement,
    ids::{Direction, NodeId, StreamId},
};

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
                    registrar.coordination.lookup_done(&mut self.local, id, &found);
                }
            }
            Input::Discovered { contact } => self.on_discovered(&contact),
            Input::Gossip { id, from, announcement } => {
                let verdict = self.judge_gossip(from, &announcement);
                self.local.emit(Output::GossipVerdict { id, verdict });
            }
            Input::ForgedGossip { from } => {
                self.local.counters.forged += 1;
                self.local.offence(from, Offence::Forged);
            }
            Input::Misbehaved { node, kind } => self.local.offence(node, kind),
            Input::Signed { announcement } => {
                if self.publisher.signed(&announcement) {
                    self.take_in(&announcement, Origin::Own);
                }
            }
            Input::UplinkEstimate(rate) => {
                self.forwarder.limits.estimate = Some(rate);
                self.forwarder.enforce_limits(&mut self.local);
            }
            Input::Relayed(rate) => {
                self.forwarder.limits.relayed = rate;
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
            | Input::ChildQuiet { .. }
            | Input::ChildStalled { .. }
            | Input::ChildShed { .. }
            | Input::Released { .. }) => self.on_feed(input),
        }
    }

    fn on_discovered(&mut self, contact: &Contact) {
        if contact.node != self.local.me.node {
            self.local.nodes.learn(contact, Learnt::Hearsay, self.local.now);
            self.local.dial(contact.node);
        }
    }

    fn judge_gossip(
        &mut self,
        from: NodeId,
        announcement: &Arc<SignedAnnouncement>,
    ) -> GossipVerdict {
        match self.take_in(announcement, Origin::Gossip(from)) {
            Some(Applied::News) => GossipVerdict::Accept,
            Some(Applied::Stale | Applied::Void | Applied::Full) => GossipVerdict::Ignore,
            Some(Applied::Replayed) | None => GossipVerdict::Reject,
        }
    }

    /// Everything that may be due after any input.
    pub(super) fn drive(&mut self) {
        let digest = self.directory.digest();
        self.local.usable = self.forwarder.limits.usable(&self.local.config.tuning);
        let step = self.registrant.drive(&mut self.local, digest);
        self.take_step(step);
        self.drive_demotion();
        if let Some(registrar) = &mut self.registrar {
            registrar.drive(&mut self.local, digest);
        }
        self.drive_finding();
        self.publisher.drive(&mut self.local, &mut self.forwarder);
        self.hand_over_announcements();
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
        self.dissemination.drive(&mut self.local, &self.directory);
        self.dissemination.flush(&mut self.local, &self.directory);
        let home = self.registrant.home().filter(|_| self.registrant.is_member());
        let backup = self.registrant.backup();
        // Without a supernode nobody hears them, and later they would be stale.
        let complaints = self.local.take_complaints();
        if let Some(home) = home {
            for complaint in complaints {
                let request = DirRequest::Complain(complaint);
                self.local.ask_dir(home, request, Purpose::Complain);
            }
        }
        self.reporter.drive(&mut self.local, &self.forwarder, home, backup);
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
            | Input::ChildQuiet { .. }
            | Input::ChildStalled { .. }
            | Input::ChildShed { .. }
            | Input::Released { .. }
            | Input::UplinkEstimate(_)
            | Input::Relayed(_)
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
            | Input::Misbehaved { .. }
            | Input::Signed { .. } => self.reporter.touch(),
        }
    }

    /// What a step of the registration asks for.
    pub(super) fn take_step(&mut self, step: Step) {
        match step {
            Step::None => {}
            Step::Promoted => {
                let kin = self.registrant.heirs().to_vec();
                self.registrar = Some(Registrar::new(self.local.now, kin));
                // Own streams are gossiped now, not handed over.
                self.publisher.moved(&mut self.local);
            }
            Step::Home { node, in_sync } => {
                if !in_sync {
                    self.dissemination.fetch(&mut self.local, &self.directory, node);
                    self.publisher.hand_over_again();
                }
            }
        }
    }

    pub(super) fn on_link_down(&mut self, node: NodeId) {
        self.local.nodes.link_down(node);
        self.registrant.link_down(&self.local, node);
        self.forwarder.link_down(&mut self.local, node);
        let reason = FeedDownReason::Closed;
        for watch in self.watches.values_mut() {
            watch.feed_down(&mut self.local, &mut self.forwarder, node, reason);
        }
    }

    fn on_listen(&mut self, addrs: Vec<Addr>, reachable: bool) {
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
                    None => local.emit(Output::CloseFeed { feed, reason: EndReason::Left }),
                },
            },
            Input::FeedDown { feed, reason } => match feed.direction {
                Direction::ToChild => {
                    forwarder.feed_down(local, feed);
                    if let FeedDownReason::Offence(offence) = reason {
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
            Input::PromoteAsked { feed, stripe } => forwarder.promote_asked(local, feed, stripe),
            Input::ChildAlive { feed, stripes } => forwarder.child_alive(local, feed, stripes),
            Input::ChildQuiet { feed } => forwarder.child_quiet(feed),
            Input::ChildStalled { feed } => forwarder.child_stalled(local, feed),
            Input::ChildShed { feed, stripes } => forwarder.child_shed(local, feed, stripes),
            Input::Released { feed, stripe } => forwarder.on_released(local, feed, stripe),
            // Routed by `route` itself.
            _ => {}
        }
    }
}
