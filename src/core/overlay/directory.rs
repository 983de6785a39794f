//! The announcements that this node believes.
//!
//! Owns them, their order, their expiry and the digest by which two directories are compared. Does
//! not own how they spread (see `dissemination`), nor signatures: what comes in is verified.

use std::{cmp::Ordering, sync::Arc, time::Duration};

use super::{
    Event, HEADS_MAX, Head, PAGE_MAX, RemovalReason, SHARDS, expiring_map::ExpiringMap,
    local::Local,
};
use crate::{
    announcement::{Announcement, SignedAnnouncement},
    ids::StreamId,
    time::Timestamp,
};

/// At most `streams_max` announcements, tombstones among them: those stay until they expire, so
/// that an older announcement cannot raise the dead.
#[derive(Debug)]
pub(super) struct Directory {
    entries: ExpiringMap<StreamId, Entry>,
    /// A digest of each shard.
    shards: [u64; SHARDS],
}

#[derive(Debug)]
struct Entry {
    signed: Arc<SignedAnnouncement>,
    known_since: Timestamp,
}

/// What became of an announcement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Applied {
    /// It was news.
    News,
    /// The same, or something newer, is known.
    Stale,
    /// Something newer is known for so long that only a replay explains it.
    Replayed,
    /// It has expired, or expires beyond belief.
    Void,
    /// No room.
    Full,
}

impl Directory {
    pub(super) const fn new() -> Self {
        Self { entries: ExpiringMap::new(), shards: [0; SHARDS] }
    }

    /// Whether `announcement` would be news: cheap, so that only news is verified.
    pub(super) fn judge(&self, local: &Local, announcement: &Announcement) -> Applied {
        let stream = announcement.stream();
        let tuning = &local.config.tuning;
        let unix_now = local.unix_now();
        let furthest = unix_now
            .saturating_add(tuning.announcement_lifetime_max.as_secs())
            .saturating_add(tuning.clock_skew.as_secs());
        let expires = announcement.expires_unix.saturating_add(tuning.clock_skew.as_secs());
        if expires <= unix_now || announcement.expires_unix > furthest {
            return Applied::Void;
        }
        match self.entries.get(&stream) {
            Some(known) => match known.signed.announcement().order().cmp(&announcement.order()) {
                Ordering::Less => Applied::News,
                Ordering::Equal => Applied::Stale,
                Ordering::Greater => {
                    let long = local.now.since(known.known_since) >= tuning.replay_after;
                    if long { Applied::Replayed } else { Applied::Stale }
                }
            },
            None if self.entries.len() >= tuning.streams_max => Applied::Full,
            None => Applied::News,
        }
    }

    /// Takes in a verified announcement when it is news, and tells the user.
    pub(super) fn apply(
        &mut self,
        local: &mut Local,
        announcement: &Arc<SignedAnnouncement>,
    ) -> Applied {
        let new = announcement.announcement();
        let verdict = self.judge(local, new);
        match verdict {
            Applied::News => {}
            Applied::Stale | Applied::Replayed => local.counters.stale += 1,
            Applied::Void => {}
            Applied::Full => local.counters.overflows += 1,
        }
        if verdict != Applied::News {
            return verdict;
        }
        let stream = new.stream();
        let tuning = &local.config.tuning;
        let left = new.expires_unix.saturating_add(tuning.clock_skew.as_secs());
        let left = Duration::from_secs(left.saturating_sub(local.unix_now()));
        let entry = Entry { signed: Arc::clone(announcement), known_since: local.now };
        let old = self.entries.insert(stream, entry, local.now + left).map(|old| old.signed);
        let digest = &mut self.shards[shard(&stream)];
        *digest ^= fingerprint(stream, new);
        if let Some(old) = &old {
            *digest ^= fingerprint(stream, old.announcement());
        }
        let was_live = old.as_ref().is_some_and(|old| !old.announcement().ended);
        let (name, title) = (new.name.as_str().to_owned(), new.title.clone());
        // A rendition is listed with its stream alone.
        let is_listed = new.rendition_of.is_none();
        match (was_live, new.ended) {
            _ if !is_listed => {}
            (false, false) => local.event(Event::StreamListed { stream, name, title }),
            (true, false) if old.is_some_and(|old| differs(old.announcement(), new)) => {
                local.event(Event::StreamChanged { stream, name, title });
            }
            (true, true) => {
                local.event(Event::StreamRemoved { stream, reason: RemovalReason::Ended });
            }
            (true | false, _) => {}
        }
        verdict
    }

    pub(super) fn handle_timeout(&mut self, local: &mut Local) {
        while let Some((stream, Entry { signed: old, .. })) = self.entries.pop_due(local.now) {
            self.shards[shard(&stream)] ^= fingerprint(stream, old.announcement());
            let old = old.announcement();
            if !old.ended && old.rendition_of.is_none() {
                local.event(Event::StreamRemoved { stream, reason: RemovalReason::Expired });
            }
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.entries.next()
    }

    /// Equal digests: equal directories.
    pub(super) fn digest(&self) -> u64 {
        self.shards.iter().fold(0, |all, shard| all ^ shard)
    }

    /// The same for each shard.
    pub(super) const fn shards(&self) -> &[u64; SHARDS] {
        &self.shards
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The newest statement about a stream, a tombstone included.
    pub(super) fn find(&self, stream: &StreamId) -> Option<&Arc<SignedAnnouncement>> {
        self.entries.get(stream).map(|entry| &entry.signed)
    }

    /// Streams that have not ended.
    pub(super) fn live(&self) -> impl Iterator<Item = (&StreamId, &Announcement)> {
        self.entries
            .iter()
            .map(|(stream, entry)| (stream, entry.signed.announcement()))
            .filter(|(_, announcement)| !announcement.ended)
    }

    /// Revisions of the streams in those shards that differ from `theirs`, as many as fit a message,
    /// and where the next ones begin.
    pub(super) fn heads(
        &self,
        theirs: &[u64],
        after: Option<StreamId>,
    ) -> (Vec<Head>, Option<StreamId>) {
        let differs = |stream: &StreamId| {
            let shard = shard(stream);
            theirs.get(shard) != Some(&self.shards[shard])
        };
        let mut rest = self.entries.iter_after(after).filter(|(stream, _)| differs(stream));
        let head = |(stream, entry): (&StreamId, &Entry)| {
            let (epoch, revision) = entry.signed.announcement().order();
            Head { stream: *stream, epoch, revision }
        };
        let heads: Vec<Head> = rest.by_ref().take(HEADS_MAX).map(head).collect();
        let next = heads.last().map(|head| head.stream).filter(|_| rest.next().is_some());
        (heads, next)
    }

    /// The announcements of these streams, in their order, as many as fit a message.
    pub(super) fn several(&self, streams: &[StreamId]) -> Vec<Arc<SignedAnnouncement>> {
        let mut bytes = 0;
        let known = streams.iter().filter_map(|stream| self.find(stream));
        let fits = |signed: &&Arc<SignedAnnouncement>| {
            bytes += signed.wire_len() + 8;
            bytes <= PAGE_BYTES_MAX
        };
        known.take_while(fits).take(PAGE_MAX).cloned().collect()
    }

    /// A page that fits a message, and where the next one begins.
    pub(super) fn page(
        &self,
        after: Option<StreamId>,
    ) -> (Vec<Arc<SignedAnnouncement>>, Option<StreamId>) {
        let mut page = Vec::new();
        let mut bytes = 0;
        for (_, Entry { signed, .. }) in self.entries.iter_after(after) {
            bytes += signed.wire_len() + 8;
            if page.len() >= PAGE_MAX || bytes > PAGE_BYTES_MAX {
                let next = page.last().map(|last: &Arc<SignedAnnouncement>| last.stream());
                return (page, next);
            }
            page.push(Arc::clone(signed));
        }
        (page, None)
    }
}

/// Most bytes of announcements in one message.
pub(super) const PAGE_BYTES_MAX: usize = 12 * 1_024;

fn shard(stream: &StreamId) -> usize {
    usize::from(stream.as_bytes()[0]) * SHARDS / 256
}

fn fingerprint(stream: StreamId, announcement: &Announcement) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(stream.as_bytes());
    hasher.update(&announcement.epoch.to_be_bytes());
    hasher.update(&announcement.revision.to_be_bytes());
    let hash = hasher.finalize();
    let (first, _) = hash.as_bytes().split_first_chunk().expect("32 bytes have a first eight");
    u64::from_be_bytes(*first)
}

/// Whether people would see a difference.
fn differs(old: &Announcement, new: &Announcement) -> bool {
    let same_but_for_time = Announcement {
        revision: new.revision,
        expires_unix: new.expires_unix,
        node: new.node.clone(),
        ..old.clone()
    };
    same_but_for_time != *new
}
