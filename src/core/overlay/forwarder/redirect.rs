//! Whom a refused or dismissed child should ask.
//!
//! Owns the choice among own children and the size of such lists. Does not own candidates of the
//! node's own search (see `candidates`).

use std::cell::OnceCell;

use super::{
    super::{CANDIDATES_MAX, Candidate, DEPTH_NONE, carriage::Carried, local::Local},
    Forwarder,
};
use crate::ids::{NodeId, StreamId, StripeSet};

/// Candidates beside the own children, worked out only for those who are refused something: nearly
/// all ASKs renew what is held.
pub(in super::super) struct Others<'a> {
    share: &'a dyn Fn(&Local) -> Vec<Candidate>,
    known: OnceCell<Vec<Candidate>>,
}

impl<'a> Others<'a> {
    pub(in super::super) const fn new(share: &'a dyn Fn(&Local) -> Vec<Candidate>) -> Self {
        Self { share, known: OnceCell::new() }
    }

    pub(super) fn of(&self, local: &Local) -> &[Candidate] {
        self.known.get_or_init(|| (self.share)(local))
    }
}

impl Forwarder {
    /// Others to ask for stripes that were refused: own children with free slots, then those whose
    /// children may have some, then `others`.
    pub(super) fn redirect(
        &self,
        local: &mut Local,
        carried: &Carried,
        stream: StreamId,
        wanted: StripeSet,
        asker: NodeId,
        others: Vec<Candidate>,
    ) -> Vec<Candidate> {
        let mut ranked = Vec::new();
        for ((_, node), child) in self.children.iter().filter(|((of, _), _)| *of == stream) {
            // Who names no address can't be dialled.
            if *node == asker || local.is_banned(node) || child.contact.addrs.is_empty() {
                continue;
            }
            let silent = child.seems_dead(local.config.tuning.child_silence, local.now);
            let (stripes, _) = self.stripes_by_class(stream, *node);
            if silent || !wanted.iter().any(|stripe| stripes.contains(stripe)) {
                continue;
            }
            let depths: Vec<u8> = (0..carried.k())
                .map(|stripe| {
                    let depth = u8::try_from(carried.path(stripe).len()).unwrap_or(DEPTH_NONE);
                    if stripes.contains(stripe) { depth } else { DEPTH_NONE }
                })
                .collect();
            let depth = depths.iter().copied().min().unwrap_or(DEPTH_NONE);
            let (contact, free) = (child.contact.clone(), child.free);
            ranked.push((free == 0, depth, Candidate { contact, depths, free, source: false }));
        }
        // Equally good ones in random order, so that a crowd does not all run to the same node.
        let mut ranked: Vec<_> = ranked
            .into_iter()
            .map(|(full, depth, candidate)| (full, depth, local.random(), candidate))
            .collect();
        ranked.sort_by_key(|(full, depth, lot, _)| (*full, *depth, *lot));
        let mut list: Vec<_> = ranked.into_iter().map(|(.., candidate)| candidate).collect();
        let full_from = list.partition_point(|candidate| candidate.free > 0);
        let full = list.split_off(full_from);
        list.extend(others.into_iter().filter(|other| other.contact.node != asker));
        list.extend(full);
        bound(&mut list);
        list
    }
}

/// Cuts a list of candidates to what fits a message, one entry for each node.
pub(in super::super) fn bound(candidates: &mut Vec<Candidate>) {
    let mut bytes = 0;
    let mut seen = Vec::new();
    candidates.retain(|candidate| {
        let node = candidate.contact.node;
        bytes += candidate.contact.addrs.iter().map(|addr| addr.as_str().len() + 4).sum::<usize>();
        bytes += 220;
        let fits = bytes <= CANDIDATE_BYTES_MAX && !seen.contains(&node);
        seen.push(node);
        fits
    });
    candidates.truncate(CANDIDATES_MAX);
}

/// Most bytes that candidates take of a message.
const CANDIDATE_BYTES_MAX: usize = 8_192;
