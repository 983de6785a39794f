//! What every sub-machine needs of this node: identity, time, randomness, the queue of outputs, the
//! requests under way, and what is carried.
//!
//! Owns these shared parts. Does not own any decision.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use super::{
    CONTACTS_MAX, Complaint, ComplaintKind, Contact, Counters, DirRequest, Event, LookupId,
    LookupKey, Offence, Output, OverlayConfig, Request, RequestId, TicketRequest,
    carriage::Carried,
    dht::{Position, node_position},
    expiring_map::ExpiringMap,
    membership::{Learnt, Membership},
    path_hash,
    score::Scores,
};
use crate::{
    ids::{NodeId, StreamId, Stripe, StripeSet},
    time::Timestamp,
    units::Bitrate,
};

/// This node, as its sub-machines see it.
#[derive(Debug)]
pub(super) struct Local {
    pub(super) me: Contact,
    /// Path hash of `me`.
    pub(super) hash: u64,
    /// Place of `me` in the distributed hash table.
    pub(super) position: Position,
    /// Others can dial this node.
    pub(super) reachable: bool,
    pub(super) leaving: bool,
    /// What may be used of the uplink.
    pub(super) usable: Bitrate,
    pub(super) config: OverlayConfig,
    pub(super) now: Timestamp,
    pub(super) nodes: Membership,
    pub(super) scores: Scores,
    pub(super) carried: BTreeMap<StreamId, Carried>,
    pub(super) counters: Counters,
    /// Complaints for the supernode.
    complaints: Vec<Complaint>,
    outputs: VecDeque<Output>,
    pending: ExpiringMap<RequestId, Pending>,
    rng: ChaCha8Rng,
    next_id: u64,
}

/// A request under way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Pending {
    pub(super) to: NodeId,
    pub(super) purpose: Purpose,
    /// The deadline has passed; only a late grant still matters, to be given back.
    pub(super) given_up: bool,
}

/// What an answer is for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Purpose {
    Register,
    Backup,
    Meet,
    Unregister,
    Status,
    Join {
        stream: StreamId,
    },
    /// Of a list, or of what a list lacks.
    Fetch {
        part: u8,
    },
    Carriers {
        stream: StreamId,
    },
    Complain,
    Summary,
    Offer,
    Publish {
        stream: StreamId,
    },
    Push,
    Ask {
        stream: StreamId,
        stripes: Vec<Stripe>,
        warm: StripeSet,
        renewal: bool,
        displace: u8,
    },
    Release,
    Revoke,
}

impl Local {
    pub(super) fn new(me: NodeId, config: OverlayConfig, seed: [u8; 32], now: Timestamp) -> Self {
        let tuning = &config.tuning;
        Self {
            me: Contact::new(me, Vec::new()),
            hash: path_hash(&me),
            position: node_position(&me),
            reachable: false,
            leaving: false,
            usable: Bitrate::from_bps(0),
            now,
            nodes: Membership::new(me, &config),
            scores: Scores::new(tuning.strikes_max, tuning.strike_decay, tuning.ban),
            carried: BTreeMap::new(),
            counters: Counters::default(),
            complaints: Vec::new(),
            outputs: VecDeque::new(),
            pending: ExpiringMap::new(),
            rng: ChaCha8Rng::from_seed(seed),
            next_id: 1,
            config,
        }
    }

    pub(super) fn emit(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(super) fn event(&mut self, event: Event) {
        self.emit(Output::Event(event));
    }

    pub(super) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Sends a ticket request.
    pub(super) fn ask_ticket(
        &mut self,
        to: NodeId,
        body: TicketRequest,
        purpose: Purpose,
    ) -> RequestId {
        let timeout = self.config.tuning.ask_timeout;
        self.send(to, Request::Ticket(body), purpose, timeout)
    }

    /// Sends a directory request.
    pub(super) fn ask_dir(&mut self, to: NodeId, body: DirRequest, purpose: Purpose) -> RequestId {
        let timeout = self.config.tuning.dir_timeout;
        self.send(to, Request::Dir(body), purpose, timeout)
    }

    pub(super) fn dial(&mut self, node: NodeId) {
        if node == self.me.node || self.nodes.is_linked(&node) {
            return;
        }
        if let Some(contact) = self.nodes.contact(&node).cloned() {
            self.emit(Output::Dial { contact });
        }
    }

    /// Somebody says that these are supernodes.
    pub(super) fn learn_supernodes(&mut self, contacts: &[Contact]) {
        for contact in contacts {
            self.nodes.learn(contact, Learnt::Hearsay, self.now);
            self.nodes.set_supernode(contact.node, true);
        }
    }

    /// Supernodes that somebody else may want to know, those that surely live first.
    pub(super) fn supernode_contacts(&self, asker: NodeId) -> Vec<Contact> {
        let mut known: Vec<_> = self
            .nodes
            .supernodes(self.now)
            .filter(|known| known.contact.node != asker && !self.is_banned(&known.contact.node))
            .collect();
        known.sort_by_key(|known| (!known.linked, known.rank()));
        known.into_iter().take(CONTACTS_MAX / 2).map(|known| known.contact.clone()).collect()
    }

    pub(super) fn lookup(&mut self, key: LookupKey) -> LookupId {
        let id = LookupId(self.fresh_id());
        self.emit(Output::Lookup { id, key });
        id
    }

    /// Takes what a request was for. After the deadline it is kept as given up for a while.
    pub(super) fn take_pending(&mut self, id: RequestId) -> Option<Pending> {
        self.pending.remove(&id)
    }

    /// A request whose deadline has passed; the second time it comes due it is dropped for good.
    pub(super) fn pop_overdue(&mut self) -> Option<(RequestId, Pending)> {
        loop {
            let (id, pending) = self.pending.pop_due(self.now)?;
            if pending.given_up {
                continue;
            }
            let late = Pending { given_up: true, ..pending.clone() };
            self.pending.insert(id, late, self.now + self.config.tuning.lease);
            return Some((id, pending));
        }
    }

    pub(super) fn next_request_deadline(&self) -> Option<Timestamp> {
        self.pending.next()
    }

    /// Whether this node is asking `node` for `stripe` at this moment.
    pub(super) fn is_asking(&self, node: NodeId, stream: StreamId, stripe: Stripe) -> bool {
        self.pending.iter().any(|(_, pending)| {
            !pending.given_up
                && pending.to == node
                && matches!(&pending.purpose, Purpose::Ask { stream: asked, stripes, warm, .. }
                    if *asked == stream && stripes.contains(&stripe) && !warm.contains(stripe))
        })
    }

    /// For how many stripes of a stream this node is asking at this moment to take another's place.
    pub(super) fn displacing(&self, stream: StreamId) -> u16 {
        let asks = self.pending.iter().filter(|(_, pending)| !pending.given_up);
        let places = asks.map(|(_, pending)| match &pending.purpose {
            Purpose::Ask { stream: asked, displace, .. } if *asked == stream => *displace,
            _ => 0,
        });
        places.map(u16::from).sum()
    }

    /// Whether somebody was told goodbye and has not answered.
    pub(super) fn is_parting(&self) -> bool {
        self.pending.iter().any(|(_, pending)| {
            !pending.given_up
                && match pending.purpose {
                    Purpose::Unregister | Purpose::Release | Purpose::Publish { .. } => true,
                    Purpose::Register
                    | Purpose::Backup
                    | Purpose::Meet
                    | Purpose::Status
                    | Purpose::Join { .. }
                    | Purpose::Fetch { .. }
                    | Purpose::Carriers { .. }
                    | Purpose::Complain
                    | Purpose::Summary
                    | Purpose::Offer
                    | Purpose::Push
                    | Purpose::Ask { .. }
                    | Purpose::Revoke => false,
                }
        })
    }

    /// Notes a misdeed and tells the user.
    pub(super) fn offence(&mut self, node: NodeId, kind: Offence) {
        self.counters.offences += 1;
        let banned = self.scores.strike(node, kind, self.now);
        self.event(Event::Offence { node, kind, banned });
    }

    /// Tells the supernode of a parent that does not do as it says: soon, and once at a time.
    pub(super) fn complain(
        &mut self,
        accused: NodeId,
        stream: StreamId,
        stripe: Stripe,
        kind: ComplaintKind,
    ) {
        let about_it = |complaint: &Complaint| complaint.accused == accused;
        if self.complaints.len() < COMPLAINTS_MAX && !self.complaints.iter().any(about_it) {
            self.complaints.push(Complaint { stream, stripe, accused, kind });
        }
    }

    pub(super) fn take_complaints(&mut self) -> Vec<Complaint> {
        std::mem::take(&mut self.complaints)
    }

    pub(super) fn is_banned(&self, node: &NodeId) -> bool {
        self.scores.is_banned(node, self.now)
    }

    /// Unix seconds, as far as the start was right.
    pub(super) const fn unix_now(&self) -> u64 {
        self.config.unix_at_start + self.now.as_millis() / 1_000
    }

    pub(super) fn random(&mut self) -> u64 {
        self.rng.next_u64()
    }

    /// Between half of `about` and one and a half.
    pub(super) fn jitter(&mut self, about: Duration) -> Duration {
        let us = crate::time::micros(about).max(1);
        Duration::from_micros(us / 2 + self.random() % us)
    }

    fn send(
        &mut self,
        to: NodeId,
        body: Request,
        purpose: Purpose,
        timeout: Duration,
    ) -> RequestId {
        self.dial(to);
        let id = RequestId(self.fresh_id());
        self.counters.requests_sent += 1;
        self.pending.insert(id, Pending { to, purpose, given_up: false }, self.now + timeout);
        self.emit(Output::Request { id, to, body });
        id
    }

    const fn fresh_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }
}

/// Complaints that wait to be sent.
const COMPLAINTS_MAX: usize = 16;
