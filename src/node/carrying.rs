//! Streams that a supernode carries for members that nobody else may know.
//!
//! Owns which streams these are and for how long: a member that names no address (`--privacy`, or a
//! NAT without any relay) can't be sent to other nodes, so its supernode becomes its parent. Does not
//! own the search for the supernode's own parents, nor the member's tickets.

use std::{collections::BTreeMap, time::Duration};

use astral_core::{
    ids::{NodeId, StreamId},
    overlay::Role,
};
use tokio::time::Instant;

use super::run::Driver;

/// A stream that no such member has asked for, and nobody is fed with, is given up after this.
const IDLE: Duration = Duration::from_secs(60);
/// Between two looks at who is still fed.
const LOOK: Duration = Duration::from_secs(5);

/// The streams.
#[derive(Debug)]
pub struct Carrying {
    streams: BTreeMap<StreamId, Instant>,
    most: usize,
    next_look: Instant,
}

impl Carrying {
    /// None yet, and never more than `most`.
    #[must_use]
    pub fn new(most: u32, now: Instant) -> Self {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        Self { streams: BTreeMap::new(), most, next_look: now }
    }

    /// A stream is asked for; whether it is taken on now.
    fn ask(&mut self, stream: StreamId, now: Instant) -> bool {
        if let Some(used) = self.streams.get_mut(&stream) {
            *used = now;
            return false;
        }
        let has_room = self.streams.len() < self.most;
        if has_room {
            self.streams.insert(stream, now);
        }
        has_room
    }

    /// Those that nobody needs any more; `is_fed` says whether a stream has children.
    fn idle(&mut self, now: Instant, is_fed: impl Fn(&StreamId) -> bool) -> Vec<StreamId> {
        for (stream, used) in &mut self.streams {
            if is_fed(stream) {
                *used = now;
            }
        }
        let idle = self.streams.extract_if(.., |_, used| now - *used > IDLE);
        idle.map(|(stream, _)| stream).collect()
    }
}

impl Driver {
    /// A node asks who may serve a stream. If it is a member that names no address, this node will.
    pub(super) fn carry_for(&mut self, from: NodeId, stream: StreamId) {
        if self.role != Role::Supernode || self.carrying.most == 0 {
            return;
        }
        let ours = self.carrying.streams.contains_key(&stream);
        if self.streams.is_carried(stream) && !ours {
            return;
        }
        let now = self.overlay.snapshot();
        let names_none = now.nodes.iter().any(|node| node.node == from && node.addrs.is_empty());
        let is_member = now.members.contains(&from);
        let is_listed = now.streams.iter().any(|view| view.stream == stream);
        if names_none && is_member && is_listed && self.carrying.ask(stream, Instant::now()) {
            tracing::info!(%stream, member = %from.short(), "carried for a member without address");
            let change = self.streams.seed(stream);
            self.change(stream, change);
        }
    }

    /// Gives up what nobody needs any more.
    pub(super) fn tend_carried(&mut self, now: Instant) {
        if self.carrying.streams.is_empty() || now < self.carrying.next_look {
            return;
        }
        self.carrying.next_look = now + LOOK;
        let given = self.overlay.snapshot().given;
        let is_fed = |stream: &StreamId| given.iter().any(|ticket| ticket.stream == *stream);
        for stream in self.carrying.idle(now, is_fed) {
            let change = self.streams.unseed(stream);
            self.change(stream, change);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_carried_stream_is_given_up_when_nobody_is_fed() {
        let now = Instant::now();
        let mut carrying = Carrying::new(2, now);
        let [one, two, three] = [1, 2, 3].map(|n| StreamId([n; 32]));
        assert!(carrying.ask(one, now) && !carrying.ask(one, now));
        assert!(carrying.ask(two, now));
        assert!(!carrying.ask(three, now), "there is a bound");
        let later = now + IDLE + Duration::from_secs(1);
        assert_eq!(carrying.idle(later, |stream| *stream == one), [two]);
        assert!(carrying.ask(three, later));
    }
}
