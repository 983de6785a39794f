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
}

#[derive(Debug)]
struct Entry {
    depths: Vec<u8>,
    free: u16,
    source: bool,
    seen_at: Timestamp,
    refused_at: Option<Timestamp>,
    /// Promises it broke: feeds that never came up, requests it never answered.
    broken: u32,
}

/// How dear a candidate is, in milliseconds; ties are broken differently at each node, so that a
/// crowd does not all run to the same parent.
type Cost = (u64, u64, NodeId);

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
            let entry = self.list.entry(node).or_insert_with(|| Entry::new(now));
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
        if contact.node == local.me.node {
            return;
        }
        let now = local.now;
        let entry = self.list.entry(contact.node).or_insert_with(|| Entry::new(now));
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

    /// It serves well: old sins are forgiven.
    pub(super) fn served(&mut self, node: NodeId) {
        if let Some(entry) = self.list.get_mut(&node) {
            entry.broken = 0;
            entry.refused_at = None;
        }
    }

    /// It is no candidate any more.
    pub(super) fn remove(&mut self, node: &NodeId) {
        if self.list.get(node).is_some_and(|entry| !entry.source) {
            self.list.remove(node);
        }
    }

    /// The best candidate for a stripe that is not among `visited`; `taken` says how many stripes
    /// already come from a node.
    pub(super) fn best(
        &self,
        local: &Local,
        stripe: Stripe,
        visited: &BTreeSet<NodeId>,
        taken: &BTreeMap<NodeId, u32>,
    ) -> Option<NodeId> {
        self.list
            .iter()
            .filter(|(node, _)| !visited.contains(node) && !local.is_banned(node))
            .map(|(node, entry)| entry.cost(local, *node, stripe, taken))
            .min()
            .map(|(.., node)| node)
    }

    /// The best few that are not connected: worth a dial before they are needed.
    pub(super) fn unlinked(&self, local: &Local, count: usize) -> Vec<NodeId> {
        let mut ranked: Vec<_> = self
            .list
            .iter()
            .filter(|(node, entry)| {
                entry.free > 0 && !local.is_banned(node) && !local.nodes.is_suspect(node, local.now)
            })
            .map(|(node, entry)| entry.cost(local, *node, 0, &BTreeMap::new()))
            .collect();
        ranked.sort();
        ranked.truncate(count);
        ranked.retain(|(.., node)| !local.nodes.is_linked(node));
        ranked.into_iter().map(|(.., node)| node).collect()
    }

    /// What may be told to others: those that had free slots.
    pub(super) fn to_share(&self, local: &Local, count: usize) -> Vec<Candidate> {
        let mut ranked: Vec<_> = self
            .list
            .iter()
            .filter(|(node, entry)| {
                entry.free > 0 && !entry.source && !local.nodes.is_suspect(node, local.now)
            })
            .map(|(node, entry)| entry.cost(local, *node, 0, &BTreeMap::new()))
            .collect();
        ranked.sort();
        ranked.truncate(count);
        ranked.iter().filter_map(|(.., node)| self.candidate(local, node)).collect()
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
        self.list.retain(|_, entry| entry.source || now.since(entry.seen_at) < lifetime);
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
    const fn new(now: Timestamp) -> Self {
        Self {
            depths: Vec::new(),
            free: 0,
            source: false,
            seen_at: now,
            refused_at: None,
            broken: 0,
        }
    }

    fn cost(
        &self,
        local: &Local,
        node: NodeId,
        stripe: Stripe,
        taken: &BTreeMap<NodeId, u32>,
    ) -> Cost {
        let known = local.nodes.known(&node);
        let private = known.is_some_and(|known| known.private);
        let rtt = known.and_then(|known| known.rtt);
        let mut cost = rtt.map_or(RTT_UNKNOWN_MS, |rtt| {
            u64::try_from(rtt.as_millis() / 2).unwrap_or(u64::MAX / 4)
        });
        cost += match self.depths.get(usize::from(stripe)).copied().unwrap_or(DEPTH_NONE) {
            DEPTH_NONE => DEPTH_UNKNOWN_MS,
            depth => u64::from(depth) * HOP_MS,
        };
        if self.source {
            cost += SOURCE_MS;
        }
        if self.free == 0 {
            cost += FULL_MS;
        }
        if !private {
            cost += u64::from(taken.get(&node).copied().unwrap_or(0)) * TAKEN_MS;
        }
        if self.refused_at.is_some_and(|at| local.now.since(at) < REFUSAL_COUNTS) {
            cost += REFUSED_MS;
        }
        if local.nodes.is_suspect(&node, local.now) {
            cost += SUSPECT_MS;
        }
        cost += u64::from(self.broken.min(8) + local.scores.strikes(&node)) * STRIKE_MS;
        let lot = path_hash(&node) ^ local.hash;
        (cost, lot, node)
    }
}

/// A hop costs a chunk's serialisation and half a round trip (guess, to be swept).
const HOP_MS: u64 = 20;
/// The source is a little dearer than a parent one hop down, and cheaper than one two hops down:
/// its slots stay for newcomers, and trees stay flat.
const SOURCE_MS: u64 = 30;
const RTT_UNKNOWN_MS: u64 = 40;
const DEPTH_UNKNOWN_MS: u64 = 150;
const FULL_MS: u64 = 400;
/// Several stripes from one node die together.
const TAKEN_MS: u64 = 60;
const REFUSED_MS: u64 = 150;
const SUSPECT_MS: u64 = 800;
const STRIKE_MS: u64 = 200;
const REFUSAL_COUNTS: Duration = Duration::from_secs(2);
