//! Announcements between the directory, the publisher and other nodes.
//!
//! Owns how one is taken in, verified and passed on. Does not own the directory's rules (see
//! `directory`), nor the queues (see `dissemination`).

use std::sync::Arc;

use super::{
    DirRequest, Offence, Output, Overlay, dht::coordinators, directory::Applied, local::Purpose,
};
use crate::{
    announcement::SignedAnnouncement,
    ids::{NodeId, StreamId},
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

impl Origin {
    /// Who pays for a replay. Pages and pushes hold what a neighbour believes, which may be old;
    /// a source that lost its clock is no attacker.
    fn to_blame(self, announcement: &SignedAnnouncement) -> Option<NodeId> {
        match self {
            Self::Publish(from) | Self::Gossip(from) => {
                (announcement.announcement().node.node != from).then_some(from)
            }
            Self::Own | Self::Heard(_) => None,
        }
    }
}

impl Overlay {
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
        if applied == Applied::Replayed
            && let Some(from) = origin.to_blame(announcement)
        {
            self.local.offence(from, Offence::Replayed);
        }
        if applied == Applied::News {
            self.spread(stream, announcement, origin);
            if let Some(watch) = self.watches.get_mut(&stream) {
                watch.announced(&mut self.local, announcement.announcement());
            }
        }
        Some(applied)
    }

    /// Offers the newest own announcements to the supernode.
    pub(super) fn hand_over_announcements(&mut self) {
        let streams = self.publisher.take_unconfirmed(self.local.now);
        let home = self.registrant.home();
        for stream in streams {
            let announcement = self.directory.find(&stream).cloned();
            match (home, announcement) {
                (Some(home), Some(announcement)) => {
                    let request = DirRequest::Publish { announcement };
                    self.local.ask_dir(home, request, Purpose::Publish { stream });
                }
                (None, Some(_)) if !self.registrant.is_supernode() => {
                    self.publisher.unconfirmed(stream, self.local.now);
                }
                // A supernode has gossiped it; what is not in the directory is void.
                (None, Some(_)) | (_, None) => self.publisher.confirmed(stream),
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
            // So do the coordinators, whom everybody asks who does not know it.
            let me = self.local.me.node;
            for node in coordinators(&self.local, &stream) {
                if node != me {
                    self.dissemination.queue(node, stream);
                }
            }
            self.local.emit(Output::Gossip { announcement: Arc::clone(announcement) });
        }
    }
}
