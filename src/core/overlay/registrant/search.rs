//! Looking for a supernode: lookups, measuring, asking one after the other.
//!
//! Owns a search and its end: a place, the role of a supernode, or that of a guest. Does not own
//! what happens once there is a place (see `registrant`).

use std::time::Duration;

use super::{
    super::{Event, LookupKey, PromotionReason, local::Local, membership::Known},
    LOOK_AGAIN, Registrant, State, Step,
};

impl Registrant {
    pub(super) fn begin_search(&mut self, local: &mut Local) {
        self.asked.clear();
        self.looked = false;
        self.linked_at = local.nodes.any_linked().then_some(local.now);
        self.found_any = false;
        if self.untried(local).next().is_some() {
            self.measure(local);
        }
        self.start_lookup(local);
    }

    fn start_lookup(&mut self, local: &mut Local) {
        let busy = self.lookup.is_some_and(|(_, at)| local.now.since(at) < LOOKUP_MAX);
        if !busy {
            self.lookup = Some((local.lookup(LookupKey::Supernodes), local.now));
        }
    }

    /// One turn of looking: found a network when nobody is there, else look again.
    pub(super) fn look(&mut self, local: &mut Local) -> Step {
        let looking = self.lookup.is_some_and(|(_, at)| local.now.since(at) < LOOKUP_MAX);
        if !looking || !local.nodes.any_linked() {
            let founder = local.now >= self.founded_at && self.untried(local).next().is_none();
            if founder && self.may_promote(local, PromotionReason::Founder) {
                return self.promote(local, PromotionReason::Founder);
            }
            if founder && !self.guest_told {
                self.guest_told = true;
                local.event(Event::Guest { supernode: None });
            }
        }
        let again_at = local.now + LOOK_AGAIN;
        self.state = State::Looking { again_at };
        if self.untried(local).next().is_some() {
            self.measure(local);
        } else if local.nodes.any_linked() {
            self.start_lookup(local);
        }
        Step::None
    }

    pub(super) fn measure(&mut self, local: &mut Local) {
        let mut nodes: Vec<_> = self.untried(local).map(Known::rank).collect();
        nodes.sort();
        nodes.truncate(MEASURED_MAX);
        for (.., node) in nodes {
            local.dial(node);
        }
        let until = local.now + local.config.tuning.measure_wait;
        self.state = State::Measuring { until };
    }

    /// Asks the nearest supernode that was not asked yet; without one the search ends.
    pub(super) fn ask_next(&mut self, local: &mut Local, digest: u64) -> Step {
        let nearest = self.untried(local).map(Known::rank).min();
        if let Some((.., node)) = nearest {
            self.asked.insert(node);
            self.state = State::Asking { node };
            self.register_at(local, node, digest);
            return Step::None;
        }
        let reason =
            if self.found_any { PromotionReason::AllFull } else { PromotionReason::Founder };
        let patient = !self.found_any && local.now < self.founded_at;
        if self.may_promote(local, reason) && !patient {
            return self.promote(local, reason);
        }
        let pause = local.config.tuning.search_every;
        let again_at = local.now + if patient { LOOK_AGAIN } else { local.jitter(pause) };
        if patient {
            self.asked.clear();
            self.state = State::Looking { again_at };
            return Step::None;
        }
        self.host = self.host.filter(|_| self.found_any);
        self.state = State::Guest { of: self.host, again_at };
        if !std::mem::replace(&mut self.guest_told, true) {
            local.event(Event::Guest { supernode: self.host });
        }
        self.host.map_or(Step::None, |node| Step::Home { node, in_sync: false })
    }

    /// Supernodes that were not asked in this search yet. While none is left: those who may have
    /// become one, and once a lookup has ended, anybody that a connection leads to: whoever is of the
    /// network knows one.
    pub(super) fn untried<'a>(&'a self, local: &'a Local) -> impl Iterator<Item = &'a Known> {
        let is_new = |known: &&Known| {
            !self.asked.contains(&known.contact.node) && !local.is_banned(&known.contact.node)
        };
        let none_left = local.nodes.supernodes(local.now).find(is_new).is_none();
        let room = if none_left { HOPES_MAX.saturating_sub(self.asked.len()) } else { 0 };
        let linked = local.nodes.linked().filter(|known| self.looked && !known.supernode);
        let hopes = self.heirs.hopes(local).chain(linked).filter(is_new).take(room);
        local.nodes.supernodes(local.now).filter(is_new).chain(hopes)
    }
}

/// A lookup that takes longer is not waited for.
const LOOKUP_MAX: Duration = Duration::from_secs(4);
/// Supernodes dialled to be measured.
const MEASURED_MAX: usize = 16;
/// Nodes that are asked in one search though they are perhaps no supernodes.
const HOPES_MAX: usize = 12;
