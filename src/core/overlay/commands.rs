//! What the user wants.
//!
//! Owns the routing of commands. Does not own any decision.

use super::{
    Command, Interest, Output, Overlay, leave::Leaving, membership::Learnt, subscriber::Subscriber,
};
use crate::ids::StreamId;

impl Overlay {
    pub(super) fn on_command(&mut self, command: Command) {
        let local = &mut self.local;
        match command {
            Command::Publish { announcement } => {
                let stream = announcement.stream();
                let known = self.directory.find(&stream).map(|known| known.announcement().order());
                let newest = known.filter(|(epoch, _)| *epoch == announcement.epoch);
                let newest = newest.map_or(0, |(_, revision)| revision);
                self.publisher.publish(local, *announcement, newest);
                self.forwarder.reprice(local, stream);
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
                limits.uplink = uplink.apply(limits.uplink);
                limits.max_copies = max_copies.apply(limits.max_copies);
                limits.max_total_copies = max_total_copies.apply(limits.max_total_copies);
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
}
