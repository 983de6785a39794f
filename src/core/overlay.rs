//! Machine 1, the overlay: who feeds whom.
//!
//! Owns membership, registration with supernodes, the directory, forward tickets and failover of
//! one node. Does not own bytes (see `media`), sockets, keys or clocks: a driver carries out its
//! outputs and reports what happened as inputs. It sees no chunk, only the progress of feeds.
//!
//! **Mutate once, drain [`Overlay::poll_output`] to `None`, sleep until
//! [`Overlay::poll_timeout`].** Time never goes back between two calls. Handling is infallible: bad
//! input from a remote is an offence, counted and told. The same seed and the same inputs at the
//! same times give the same outputs.
//!
//! The sub-machines, each in its own file: `membership` (whom we know), `registrant` and
//! `registrar` (the two ends of a registration), `directory` and `dissemination` (announcements),
//! `publisher` (source), `subscriber` (child) and `forwarder` (parent), `reporter` (what the
//! supernode is told). They share `local` and never call each other but through their arguments.

mod announcing;
mod candidates;
mod capacity;
mod carriage;
mod commands;
mod config;
mod contact;
mod demotion;
mod dht;
mod directory;
mod dissemination;
mod event;
mod expiring_map;
mod finding;
mod forwarder;
pub mod fuzz;
mod inbound;
mod input;
pub mod journal;
mod leave;
mod local;
mod membership;
mod message;
mod mixing;
mod neighbours;
mod output;
mod publisher;
mod rate_limit;
mod registrant;
mod registrar;
mod reporter;
mod requests;
mod responses;
mod score;
mod snapshot;
mod subscriber;
mod wire;

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod stories;
#[cfg(test)]
mod testnet;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use self::{
    capacity::Limits, demotion::Demotion, directory::Directory, dissemination::Dissemination,
    forwarder::Forwarder, leave::Leaving, local::Local, membership::Learnt, publisher::Publisher,
    rate_limit::RateLimit, registrant::Registrant, registrar::Registrar, reporter::Reporter,
    subscriber::Subscriber,
};
use crate::{
    announcement::Rendition,
    ids::{NodeId, StreamId},
    time::Timestamp,
};

pub use config::{OverlayConfig, RoleChoice, Tuning};
pub use contact::{ADDR_BYTES_MAX, ADDRS_MAX, Addr, Contact, path_hash};
pub use dht::{COORDINATORS, distance};
pub use event::{
    DemotionReason, Event, MoveCause, NoCapacityReason, PromotionReason, RemovalReason, TicketEnd,
};
pub use forwarder::CopyRates;
pub use input::{
    Change, Command, EndReason, FeedDownReason, FeedReport, InboundId, Input, Interest, LookupId,
    Offence, RequestFailure, RequestId, StripeProgress,
};
pub use message::{
    AUDIENCES_MAX, Ask, AskAnswer, AskStripe, CANDIDATES_MAX, CONTACTS_MAX, Candidate, Complaint,
    ComplaintKind, DEPTH_NONE, DirRefusal, DirRequest, DirResponse, FETCH_MAX, HEADS_MAX, Head,
    Load, PAGE_MAX, PATH_MAX, REVOKE_MAX, RefuseReason, Register, Request, Response, Revoke,
    RevokeReason, Role, SHARDS, STATUS_STREAMS_MAX, SUMMARY_STREAMS_MAX, StreamStatus,
    StreamSummary, StripeAnswer, TicketId, TicketRequest, TicketResponse, Verdict,
};
pub use output::{GossipVerdict, LookupKey, Output};
pub use snapshot::{
    CapacityView, Counters, NodeView, RegistrationView, Snapshot, StreamView, StripeView,
    TicketView, WatchView,
};
pub use wire::{MESSAGE_BYTES_MAX, Wire, WireError};

/// Why the overlay wants to be woken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeoutReason {
    /// A request has no answer.
    Request,
    /// A registration is to be sought or renewed.
    Registration,
    /// A supernode meets its neighbours, or a lease of a member ends.
    Registrar,
    /// An announcement expires.
    Directory,
    /// An announcement is to be repeated, or a stream closed.
    Publisher,
    /// A given ticket lapses.
    Ticket,
    /// A watched stream searches, renews or gives up.
    Stream,
    /// The supernode is to be told what is carried.
    Status,
    /// Leaving takes too long.
    Leave,
}

/// One node's overlay; the module says how to drive it.
#[derive(Debug)]
pub struct Overlay {
    local: Local,
    registrant: Registrant,
    registrar: Option<Registrar>,
    demotion: Demotion,
    directory: Directory,
    dissemination: Dissemination,
    publisher: Publisher,
    forwarder: Forwarder,
    watches: BTreeMap<StreamId, Subscriber>,
    reporter: Reporter,
    limits: RateLimit,
    leaving: Option<Leaving>,
}

impl Overlay {
    /// A node's overlay at its start. All randomness comes from `seed`.
    #[must_use]
    pub fn new(me: NodeId, config: OverlayConfig, seed: [u8; 32], now: Timestamp) -> Self {
        let limits = Limits {
            uplink: config.uplink,
            estimate: None,
            relayed: crate::units::Bitrate::ZERO,
            max_copies: config.max_copies,
            max_total_copies: config.max_total_copies,
        };
        let bootstrap = config.bootstrap.clone();
        let mut local = Local::new(me, config, seed, now);
        for contact in &bootstrap {
            local.nodes.learn(contact, Learnt::Hearsay, now);
            local.dial(contact.node);
        }
        Self {
            registrant: Registrant::new(&local),
            registrar: None,
            demotion: Demotion::default(),
            directory: Directory::new(),
            dissemination: Dissemination::default(),
            publisher: Publisher::default(),
            forwarder: Forwarder::new(limits),
            watches: BTreeMap::new(),
            reporter: Reporter::default(),
            limits: RateLimit::default(),
            leaving: None,
            local,
        }
    }

    /// Exactly one thing happened.
    pub fn handle_input(&mut self, input: Input, now: Timestamp) {
        self.advance(now);
        self.touch_reporter(&input);
        self.route(input);
        self.drive();
    }

    /// A deadline may have passed. Early or repeated calls do nothing.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.advance(now);
        while let Some((id, pending)) = self.local.pop_overdue() {
            self.on_failure(id, pending, RequestFailure::Timeout);
        }
        self.directory.handle_timeout(&mut self.local);
        self.forwarder.handle_timeout(&mut self.local);
        self.drive();
    }

    /// The next effect, first in first out.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.local.poll_output()
    }

    /// When to call [`Self::handle_timeout`] if nothing happens before, and why. Always after the
    /// last `now`.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Timestamp, TimeoutReason)> {
        let home = self.registrant.home().filter(|_| self.registrant.is_member());
        let backup = self.registrant.backup();
        let registrar = self.registrar.as_ref().map_or(Timestamp::NEVER, Registrar::next_deadline);
        let streams = self.watches.values().map(|watch| watch.next_deadline(&self.local));
        let never = Timestamp::NEVER;
        let leave = self.leaving.as_ref().map_or(never, Leaving::next_deadline);
        let deadlines = [
            (self.local.next_request_deadline().unwrap_or(never), TimeoutReason::Request),
            (self.registrant.next_deadline(), TimeoutReason::Registration),
            (registrar, TimeoutReason::Registrar),
            (self.demotion.next_deadline(&self.local), TimeoutReason::Registrar),
            (self.directory.next_deadline().unwrap_or(never), TimeoutReason::Directory),
            (self.dissemination.next_deadline(), TimeoutReason::Directory),
            (self.publisher.next_deadline(), TimeoutReason::Publisher),
            (self.forwarder.next_deadline().unwrap_or(never), TimeoutReason::Ticket),
            (streams.fold(never, Timestamp::min), TimeoutReason::Stream),
            (self.reporter.next_deadline(&self.local, home, backup), TimeoutReason::Status),
            (leave, TimeoutReason::Leave),
        ];
        let (at, reason) = deadlines.into_iter().min()?;
        let soonest = self.local.now + std::time::Duration::from_millis(1);
        (at != never).then_some((at.max(soonest), reason))
    }

    /// A picture of everything, without side effects.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let local = &self.local;
        let is_supernode = self.registrant.is_supernode();
        let mut counters = local.counters;
        counters.overflows += local.nodes.dropped();
        Snapshot {
            me: local.me.clone(),
            reachable: local.reachable,
            role: if is_supernode { Role::Supernode } else { Role::Member },
            registration: self.registrant.view(),
            members: self.registrar.iter().flat_map(Registrar::members).collect(),
            nodes: local.nodes.views(|node| local.is_banned(node)),
            streams: self.streams(),
            rendition_of: self
                .directory
                .live()
                .filter_map(|(stream, known)| Some((*stream, known.rendition_of?)))
                .collect(),
            watches: self.watches.values().map(Subscriber::view).collect(),
            publishing: self.publisher.live().collect(),
            given: self.forwarder.views(local.now),
            held: self.watches.values().flat_map(Subscriber::held).collect(),
            capacity: self.forwarder.capacity(local),
            counters,
        }
    }

    /// What is announced of a stream that has not ended.
    #[must_use]
    pub fn announced(&self, stream: StreamId) -> Option<&crate::announcement::Announcement> {
        let found = self.directory.find(&stream)?.announcement();
        (!found.ended).then_some(found)
    }

    /// At which media rates copies of a stream published here fit the uplink beside what other streams
    /// were promised; `None` for others, and while the uplink is neither told nor measured.
    #[must_use]
    pub fn copy_rates(&self, stream: StreamId) -> Option<CopyRates> {
        if !self.publisher.publishes(&stream) {
            return None;
        }
        self.forwarder.copy_rates(&self.local, stream)
    }

    /// The lower renditions of a stream that live, the best first: announced by the stream and by
    /// themselves, under one key.
    #[must_use]
    pub fn renditions(&self, stream: StreamId) -> Vec<Rendition> {
        let Some(parent) = self.announced(stream) else { return Vec::new() };
        let lives = |rendition: &&Rendition| {
            self.announced(rendition.stream)
                .is_some_and(|own| own.source == parent.source && own.rendition_of == Some(stream))
        };
        parent.renditions.iter().filter(lives).copied().collect()
    }

    /// The supernode that this node stands with; `None` for one that is one.
    #[must_use]
    pub const fn supernode(&self) -> Option<NodeId> {
        self.registrant.home()
    }

    fn streams(&self) -> Vec<StreamView> {
        let view = |(stream, announcement): (&StreamId, &crate::announcement::Announcement)| {
            let heard = || self.registrant.audience(*stream);
            let viewers = self.registrar.as_ref().map_or_else(heard, |r| r.viewers(*stream));
            StreamView {
                stream: *stream,
                source: announcement.source,
                name: announcement.name.as_str().to_owned(),
                node: announcement.node.node,
                title: announcement.title.clone(),
                description: announcement.description.clone(),
                tags: announcement.tags.clone(),
                codecs: announcement.codecs.clone(),
                resolution: announcement.resolution,
                rate: announcement.rate,
                k: announcement.k,
                epoch: announcement.epoch,
                revision: announcement.revision,
                mine: self.publisher.publishes(stream),
                viewers,
                thumbnail: announcement.thumbnail.is_some(),
                renditions: announcement.renditions.clone(),
            }
        };
        let listed = self.directory.live().filter(|(_, known)| known.rendition_of.is_none());
        listed.map(view).collect()
    }

    fn advance(&mut self, now: Timestamp) {
        debug_assert!(now >= self.local.now, "time never goes back");
        self.local.now = now.max(self.local.now);
    }
}
