//! Who might serve a stream.
//!
//! Owns the list of candidates of one watched stream and their order of preference. Does not own
//! asking (see `search`).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    Candidate, Contact, DEPTH_NONE, RefuseReason, local::Local, membership::Learnt, path_hash,
};
use crate::{
    ids::{NodeId, Stripe},
    time::Timestamp,
};

/// Candidates of one stream.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    list: BTreeMap<NodeId, Entry>,
    /// Nobody in the list was heard of before this: spares a look through all of it each time.
    oldest: Timestamp,
}

#[derive(Debug)]
struct Entry {
    /// The node's path hash, which decides ties.
    hash: u64,
    depths: Vec<u8>,
    free: u16,
    source: bool,
    seen_at: Timestamp,
    refused_at: Option<Timestamp>,
    /// When its connection was lost, or it fell silent.
    lost_at: Option<Timestamp>,
    /// Promises it broke: feeds that never came up, requests it never answered.
    broken: u32,
}

/// How dear a candidate is. The cheapest is asked first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Cost {
    /// Milliseconds: expected delay, and what doubts and dependence on one node are worth.
    ms: u64,
    /// Ties are broken differently at each node, so that a crowd does not all run to the same
    /// parent.
    lot: u64,
    node: NodeId,
}

/// What is asked of a candidate.
#[derive(Clone, Copy, Debug)]
struct Wish<'a> {
    stripe: Stripe,
    /// Stripes that already come from a node, or are about to be asked of it.
    taken: &'a BTreeMap<NodeId, u32>,
    /// Those among them that are asked of it right now.
    asked: &'a BTreeMap<NodeId, u32>,
    /// The asker has slots to give, and may take the place of somebody who has none.
    gives: bool,
    /// Only to stand by.
    standby: bool,
}

impl Candidates {
    /// Takes in a list from a directory or a redirect.
    pub(super) fn merge(&mut self, local: &mut Local, candidates: Vec<Candidate>) {
        for candidate in candidates {
            let node = candidate.contact.node;
            if node == local.me.node || local.is_banned(&node) {
                continue;
            }
            local.nodes.learn(&candidate.contact, Learnt::Hearsay, local.now);
            let now = local.now;
            let entry = self.list.entry(node).or_insert_with(|| Entry::new(&node, now));
            entry.seen_at = now;
            entry.free = candidate.free;
            entry.source |= candidate.source;
            if entry.depths.len() < candidate.depths.len() {
                entry.depths.resize(candidate.depths.len(), DEPTH_NONE);
            }
            for (known, told) in entry.depths.iter_mut().zip(&candidate.depths) {
                if *told != DEPTH_NONE {
                    *known = *told;
                }
            }
        }
        self.bound(local);
    }

    /// The publishing node itself: never forgotten while the stream is watched.
    pub(super) fn set_source(&mut self, local: &mut Local, contact: &Contact, k: u8) {
        local.nodes.learn(contact, Learnt::Hearsay, local.now);
        for entry in self.list.values_mut() {
            entry.source = false;
        }
        // The former source was kept however long ago it was heard of.
        self.oldest = Timestamp::ZERO;
        if contact.node == local.me.node {
            return;
        }
        let (node, now) = (contact.node, local.now);
        let entry = self.list.entry(node).or_insert_with(|| Entry::new(&node, now));
        entry.source = true;
        entry.free = entry.free.max(1);
        entry.depths = vec![0; usize::from(k)];
    }

    /// It said no.
    pub(super) fn refused(&mut self, node: NodeId, reason: RefuseReason, now: Timestamp) {
        if let Some(entry) = self.list.get_mut(&node) {
            entry.refused_at = Some(now);
            match reason {
                RefuseReason::NoCapacity | RefuseReason::CopyLimit => entry.free = 0,
                RefuseReason::NotCarrying
                | RefuseReason::Loop
                | RefuseReason::TooDeep
                | RefuseReason::Banned
                | RefuseReason::RateLimited
                | RefuseReason::Leaving
                | RefuseReason::NotParty
                | RefuseReason::Malformed => {}
            }
        }
    }

    /// It did not keep a promise, or did not answer.
    pub(super) fn broke(&mut self, node: NodeId) {
        if let Some(entry) = self.list.get_mut(&node) {
            entry.broken = entry.broken.saturating_add(1);
        }
    }

    /// Its connection broke, or it fell silent: dead, as far as can be told.
    pub(super) fn lost(&mut self, node: NodeId, now: Timestamp) {
        if let Some(entry) = self.list.get_mut(&node) {
            entry.lost_at = Some(now);
        }
    }

    /// It serves well: old sins are forgiven.
    pub(super) fn served(&mut self, node: NodeId) {
        if let Some(entry) = self.list.get_mut(&node) {
            entry.broken = 0;
            (entry.refused_at, entry.lost_at) = (None, None);
        }
    }

    /// It is no candidate any more.
    pub(super) fn remove(&mut self, node: &NodeId) {
        if self.list.get(node).is_some_and(|entry| !entry.source) {
            self.list.remove(node);
        }
    }

    /// The best candidate for a stripe that is not among `visited`; `taken` says how many stripes
    /// already come from a node, and how many of these are being asked for; `gives` whether the asker
    /// has slots to give.
    pub(super) fn best(
        &self,
        local: &Local,
        stripe: Stripe,
        visited: &BTreeSet<NodeId>,
        (taken, asked): (&BTreeMap<NodeId, u32>, &BTreeMap<NodeId, u32>),
        gives: bool,
    ) -> Option<NodeId> {
        self.cheapest(local, visited, Wish { stripe, taken, asked, gives, standby: false })
    }

    /// The same, to stand by.
    pub(super) fn best_standby(
        &self,
        local: &Local,
        stripe: Stripe,
        visited: &BTreeSet<NodeId>,
        taken: &BTreeMap<NodeId, u32>,
    ) -> Option<NodeId> {
        let asked = &BTreeMap::new();
        self.cheapest(local, visited, Wish { stripe, taken, asked, gives: false, standby: true })
    }

    fn cheapest(
        &self,
        local: &Local,
        visited: &BTreeSet<NodeId>,
        wish: Wish<'_>,
    ) -> Option<NodeId> {
        self.list
            .iter()
            .filter(|(node, _)| !visited.contains(node) && !local.is_banned(node))
            .filter(|(_, entry)| !wish.standby || !entry.is_lost(local.now))
            .map(|(node, entry)| entry.cost(local, *node, wish))
            .min()
            .map(|cost| cost.node)
    }

    /// The best few that are not connected: worth a dial before they are needed.
    pub(super) fn unlinked(&self, local: &Local, count: usize) -> Vec<NodeId> {
        let mut ranked = self.with_slots(local);
        ranked.truncate(count);
        ranked.retain(|node| !local.nodes.is_linked(node));
        ranked
    }

    /// What may be told to others: those that had free slots.
    pub(super) fn to_share(&self, local: &Local, count: usize) -> Vec<Candidate> {
        let ranked = self.with_slots(local);
        let others = ranked.iter().filter(|node| !self.is_source(node));
        others.take(count).filter_map(|node| self.candidate(local, node)).collect()
    }

    /// Those that had free slots and seem to live, cheapest first.
    fn with_slots(&self, local: &Local) -> Vec<NodeId> {
        let none = BTreeMap::new();
        let wish = Wish { stripe: 0, taken: &none, asked: &none, gives: false, standby: false };
        let mut ranked: Vec<_> = self
            .list
            .iter()
            .filter(|(node, entry)| {
                entry.free > 0
                    && !entry.is_lost(local.now)
                    && !local.is_banned(node)
                    && !local.nodes.is_suspect(node, local.now)
            })
            .map(|(node, entry)| entry.cost(local, *node, wish))
            .collect();
        ranked.sort();
        ranked.into_iter().map(|cost| cost.node).collect()
    }

    /// A candidate in the form that travels.
    pub(super) fn candidate(&self, local: &Local, node: &NodeId) -> Option<Candidate> {
        let entry = self.list.get(node)?;
        let contact = local.nodes.contact(node)?.clone();
        let (depths, free, source) = (entry.depths.clone(), entry.free, entry.source);
        Some(Candidate { contact, depths, free, source })
    }

    pub(super) fn is_source(&self, node: &NodeId) -> bool {
        self.list.get(node).is_some_and(|entry| entry.source)
    }

    /// All of them.
    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.list.keys().copied()
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Forgets those not heard of for a while.
    pub(super) fn expire(&mut self, lifetime: Duration, now: Timestamp) {
        if now.since(self.oldest) < lifetime {
            return;
        }
        self.list.retain(|_, entry| entry.source || now.since(entry.seen_at) < lifetime);
        let mortal = self.list.values().filter(|entry| !entry.source);
        self.oldest = mortal.map(|entry| entry.seen_at).min().unwrap_or(now);
    }

    fn bound(&mut self, local: &mut Local) {
        while self.list.len() > local.config.tuning.candidates_max {
            let oldest = self
                .list
                .iter()
                .filter(|(_, entry)| !entry.source)
                .min_by_key(|(_, entry)| (entry.free > 0, entry.seen_at))
                .map(|(node, _)| *node);
            let Some(oldest) = oldest else { break };
            self.list.remove(&oldest);
            local.counters.overflows += 1;
        }
    }
}

impl Entry {
    fn new(node: &NodeId, now: Timestamp) -> Self {
        Self {
            hash: path_hash(node),
            depths: Vec::new(),
            free: 0,
            source: false,
            seen_at: now,
            refused_at: None,
            lost_at: None,
            broken: 0,
        }
    }

    fn is_lost(&self, now: Timestamp) -> bool {
        self.lost_at.is_some_and(|at| now.since(at) < LOSS_COUNTS)
    }

    fn cost(&self, local: &Local, node: NodeId, wish: Wish<'_>) -> Cost {
        let known = local.nodes.known(&node);
        let private = known.is_some_and(|known| known.private);
        let rtt = known.and_then(|known| known.rtt);
        let mut ms = rtt.map_or(RTT_UNKNOWN_MS, |rtt| {
            u64::try_from(rtt.as_millis() / 2).unwrap_or(u64::MAX / 4)
        });
        ms += match self.depths.get(usize::from(wish.stripe)).copied().unwrap_or(DEPTH_NONE) {
            DEPTH_NONE => DEPTH_UNKNOWN_MS,
            depth => u64::from(depth) * HOP_MS,
        };
        if self.source {
            ms += SOURCE_MS;
        }
        let asked = wish.asked.get(&node).copied().unwrap_or(0);
        ms += match (u32::from(self.free).saturating_sub(asked), wish.gives) {
            (0, true) => PLACE_MS,
            (0, false) => FULL_MS,
            (1.., _) => 0,
        };
        let taken = u64::from(wish.taken.get(&node).copied().unwrap_or(0));
        if wish.standby {
            // An open feed is worth something; many stripes that wait for one node are not.
            ms += if taken == 0 { FEED_MS } else { 0 };
            ms += taken.saturating_sub(STANDBYS_EASY) * TAKEN_MS;
        } else if !private {
            ms += taken * TAKEN_MS;
        }
        if self.refused_at.is_some_and(|at| local.now.since(at) < REFUSAL_COUNTS) {
            ms += REFUSED_MS;
        }
        if known.is_some_and(|known| known.is_suspect(local.now)) {
            ms += SUSPECT_MS;
        }
        if self.is_lost(local.now) {
            ms += LOST_MS;
        }
        ms += u64::from(self.broken.min(8) + local.scores.strikes(&node)) * STRIKE_MS;
        Cost { ms, lot: self.hash ^ local.hash, node }
    }
}

/// A hop costs a chunk's serialisation and half a round trip (guess, to be swept).
const HOP_MS: u64 = 20;
/// The source is a little dearer than a parent one hop down, and cheaper than one two hops down:
/// its slots stay for newcomers, and trees stay flat.
const SOURCE_MS: u64 = 30;
const RTT_UNKNOWN_MS: u64 = 40;
const DEPTH_UNKNOWN_MS: u64 = 150;
/// A full candidate refuses whoever has nothing to give.
const FULL_MS: u64 = 400;
/// Who has something to give may get another's place there: worth three hops.
const PLACE_MS: u64 = 60;
/// Several stripes from one node die together.
const TAKEN_MS: u64 = 60;
/// A new connection for a standby alone.
const FEED_MS: u64 = 100;
/// Stripes that wait for one node without harm.
const STANDBYS_EASY: u64 = 3;
const REFUSED_MS: u64 = 150;
const SUSPECT_MS: u64 = 800;
/// Asked when nobody else is left.
const LOST_MS: u64 = 2_000;
const STRIKE_MS: u64 = 200;
const REFUSAL_COUNTS: Duration = Duration::from_secs(2);
/// Twice the lifetime of what a directory is told.
const LOSS_COUNTS: Duration = Duration::from_secs(15);
