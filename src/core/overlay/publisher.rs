//! The source role: streams that this node publishes.
//!
//! Owns what is announced of them, when it is repeated, and how they end. Does not own chunks or
//! keys: the driver seals what this drafts.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::{EndReason, Output, carriage::Carried, forwarder::Forwarder, local::Local};
use crate::{
    announcement::{Announcement, AnnouncementDraft, SignedAnnouncement},
    ids::StreamId,
    time::Timestamp,
};

/// Published streams.
#[derive(Debug, Default)]
pub(super) struct Publisher {
    streams: BTreeMap<StreamId, Published>,
    /// Signed, and not yet confirmed by the supernode.
    unconfirmed: BTreeSet<StreamId>,
    /// Of those, handed over and not yet answered.
    in_flight: BTreeSet<StreamId>,
    retry_at: Option<Timestamp>,
}

#[derive(Debug)]
struct Published {
    draft: AnnouncementDraft,
    revision: u64,
    repeat_at: Timestamp,
    /// Asked to be sealed and not yet answered.
    sealing: bool,
    /// The user ended it; feeds are closed at this moment.
    ending: Option<Timestamp>,
    closed: bool,
}

impl Publisher {
    /// Publishes, or changes what is announced. `newest` is the newest revision known of the
    /// draft's epoch, so that this one is newer.
    pub(super) fn publish(&mut self, local: &mut Local, draft: AnnouncementDraft, newest: u64) {
        let stream = draft.stream();
        let carried = local
            .carried
            .entry(stream)
            .or_insert_with(|| Carried::source(draft.rate, draft.k, local.hash));
        if !carried.source || carried.k() != draft.k || carried.closing {
            *carried = Carried::source(draft.rate, draft.k, local.hash);
        }
        (carried.rate, carried.floor) = (draft.rate, draft.floor);
        let known = self.streams.get(&stream).filter(|known| known.draft.epoch == draft.epoch);
        let revision = known.map_or(0, |known| known.revision).max(newest);
        let repeat_at = local.now;
        let fresh =
            Published { draft, revision, repeat_at, sealing: false, ending: None, closed: false };
        self.streams.insert(stream, fresh);
        self.drive_announcements(local);
    }

    /// Ends a stream: children keep their feeds for a moment, so that the end arrives.
    pub(super) fn unpublish(&mut self, local: &mut Local, stream: StreamId) -> bool {
        let Some(published) = self.streams.get_mut(&stream) else { return false };
        if published.ending.is_none() {
            published.ending = Some(local.now + END_GRACE);
            published.repeat_at = local.now;
            published.sealing = false;
            if let Some(carried) = local.carried.get_mut(&stream) {
                carried.closing = true;
            }
        }
        self.drive_announcements(local);
        true
    }

    pub(super) fn unpublish_all(&mut self, local: &mut Local) {
        let streams: Vec<_> = self.streams.keys().copied().collect();
        for stream in streams {
            self.unpublish(local, stream);
        }
    }

    /// The driver sealed a draft; returns whether it is the newest of a stream published here.
    pub(super) fn signed(&mut self, announcement: &Arc<SignedAnnouncement>) -> bool {
        let sealed = announcement.announcement();
        let stream = sealed.stream();
        let Some(published) = self.streams.get_mut(&stream) else { return false };
        let newest = (published.draft.epoch, published.revision) == sealed.order();
        if newest {
            published.sealing = false;
            self.unconfirmed.insert(stream);
            self.in_flight.remove(&stream);
        }
        newest
    }

    /// The node is found elsewhere now: everything is announced anew.
    pub(super) fn moved(&mut self, local: &mut Local) {
        for published in self.streams.values_mut() {
            published.repeat_at = local.now;
        }
        self.drive_announcements(local);
    }

    /// A new supernode knows nothing of this node's streams.
    pub(super) fn hand_over_again(&mut self) {
        self.unconfirmed = self.streams.keys().copied().collect();
        self.in_flight.clear();
        self.retry_at = None;
    }

    /// Streams whose newest announcement the supernode has not confirmed and should be handed now:
    /// a few at a time, so that its limit of requests holds.
    pub(super) fn take_unconfirmed(&mut self, now: Timestamp) -> Vec<StreamId> {
        if self.retry_at.is_some_and(|at| now < at) {
            return Vec::new();
        }
        self.retry_at = None;
        let room = IN_FLIGHT_MAX.saturating_sub(self.in_flight.len());
        let next: Vec<_> =
            self.unconfirmed.difference(&self.in_flight).take(room).copied().collect();
        self.in_flight.extend(&next);
        next
    }

    pub(super) fn confirmed(&mut self, stream: StreamId) {
        self.unconfirmed.remove(&stream);
        self.in_flight.remove(&stream);
    }

    /// The supernode did not take it, for now.
    pub(super) fn unconfirmed(&mut self, stream: StreamId, now: Timestamp) {
        self.in_flight.remove(&stream);
        self.retry_at = Some(now + RETRY);
    }

    /// Repeats announcements and closes what has ended, when due.
    pub(super) fn drive(&mut self, local: &mut Local, forwarder: &mut Forwarder) {
        self.drive_announcements(local);
        for (stream, published) in &mut self.streams {
            if published.ending.is_some_and(|at| at <= local.now) && !published.closed {
                published.closed = true;
                forwarder.drop_stream(local, *stream, EndReason::Ended);
                local.carried.remove(stream);
            }
        }
        let unconfirmed = &self.unconfirmed;
        self.streams.retain(|stream, published| {
            !published.closed || published.sealing || unconfirmed.contains(stream)
        });
    }

    pub(super) fn next_deadline(&self) -> Timestamp {
        self.streams
            .values()
            .map(|published| {
                let repeat = if published.sealing || published.ending.is_some() {
                    Timestamp::NEVER
                } else {
                    published.repeat_at
                };
                let close = published.ending.filter(|_| !published.closed);
                repeat.min(close.unwrap_or(Timestamp::NEVER))
            })
            .fold(self.retry_at.unwrap_or(Timestamp::NEVER), Timestamp::min)
    }

    /// Streams that are not ending.
    pub(super) fn live(&self) -> impl Iterator<Item = StreamId> {
        let live = self.streams.iter().filter(|(_, published)| published.ending.is_none());
        live.map(|(stream, _)| *stream)
    }

    pub(super) fn publishes(&self, stream: &StreamId) -> bool {
        self.streams.get(stream).is_some_and(|published| published.ending.is_none())
    }

    /// Every tombstone is sealed and confirmed.
    pub(super) fn is_told(&self) -> bool {
        self.unconfirmed.is_empty() && self.streams.values().all(|published| !published.sealing)
    }

    fn drive_announcements(&mut self, local: &mut Local) {
        let lifetime = local.config.tuning.announcement_lifetime.as_secs();
        let every = local.config.tuning.announce_every;
        for published in self.streams.values_mut() {
            if published.repeat_at > local.now || published.sealing {
                continue;
            }
            published.revision += 1;
            published.sealing = true;
            // A tombstone is said once.
            let again = published.ending.map_or(local.now + every, |_| Timestamp::NEVER);
            published.repeat_at = again;
            let expires_unix = local.unix_now() + lifetime;
            let (draft, me) = (published.draft.clone(), local.me.clone());
            let mut draft = Announcement::new(draft, me, published.revision, expires_unix);
            draft.ended = published.ending.is_some();
            local.emit(Output::Sign { draft: Box::new(draft) });
        }
    }
}

/// Children's feeds stay this long after the end, so that the last chunks arrive.
const END_GRACE: Duration = Duration::from_secs(2);
/// Announcements handed over at the same time.
const IN_FLIGHT_MAX: usize = 8;
/// Between a refusal and the next attempt.
const RETRY: Duration = Duration::from_secs(1);
