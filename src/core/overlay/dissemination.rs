//! How announcements travel beside gossip: what a directory lacks is fetched, news is pushed.
//!
//! Owns the fetches under way and the queues of news for each receiver. Does not own the
//! directory, nor who receives (see `registrar`).
//!
//! An empty directory is filled page by page, in parts that go on side by side. One that is not
//! empty compares: it tells the digests of its shards, hears the revisions of the streams in those
//! that differ, and fetches what is newer. So a difference of one stream costs one shard's
//! revisions and one announcement, however long the list.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::{
    DirRequest, FETCH_MAX, Head, PAGE_MAX,
    directory::{Directory, PAGE_BYTES_MAX},
    local::{Local, Purpose},
};
use crate::{
    announcement::SignedAnnouncement,
    ids::{NodeId, StreamId},
    time::Timestamp,
};

/// Fetches and queues.
#[derive(Debug, Default)]
pub(super) struct Dissemination {
    fetches: BTreeMap<(NodeId, u8), Fetch>,
    queues: BTreeMap<NodeId, Queue>,
}

/// One thing after the other that is fetched of one node.
#[derive(Debug)]
struct Fetch {
    stage: Stage,
    /// Messages sent so far.
    messages: u32,
    /// The node is busy: go on at this moment.
    resume_at: Option<Timestamp>,
}

#[derive(Debug)]
enum Stage {
    /// Everything from behind `after` up to `end`.
    Listing { after: Option<StreamId>, end: Option<StreamId> },
    /// The revisions in the shards that differ.
    Comparing { after: Option<StreamId>, wanted: BTreeSet<StreamId> },
    /// What is newer there.
    Fetching { wanted: BTreeSet<StreamId> },
}

#[derive(Debug, Default)]
struct Queue {
    news: BTreeSet<StreamId>,
    in_flight: bool,
}

impl Dissemination {
    /// Fetches what this directory lacks of the one of `from`, unless that is under way.
    pub(super) fn fetch(&mut self, local: &mut Local, directory: &Directory, from: NodeId) {
        if self.is_fetching(from) {
            return;
        }
        if directory.is_empty() {
            for part in 0..PARTS {
                let after = (part > 0).then(|| part_end(part - 1));
                let end = (part + 1 < PARTS).then(|| part_end(part));
                self.begin(local, directory, from, part, Stage::Listing { after, end });
            }
        } else {
            let stage = Stage::Comparing { after: None, wanted: BTreeSet::new() };
            self.begin(local, directory, from, 0, stage);
        }
    }

    /// A page has come; `next` is where to go on.
    pub(super) fn page(
        &mut self,
        local: &mut Local,
        directory: &Directory,
        from: NodeId,
        part: u8,
        got: &[Arc<SignedAnnouncement>],
        next: Option<StreamId>,
    ) {
        let Some(fetch) = self.fetches.get_mut(&(from, part)) else { return };
        let last = got.iter().map(|signed| signed.stream()).max();
        let more = match &mut fetch.stage {
            Stage::Listing { after, end } => {
                // A page that does not advance would go on for ever.
                let next = next.filter(|next| Some(*next) == last && *after < Some(*next));
                let next = next.filter(|next| end.is_none_or(|end| *next < end));
                *after = next;
                next.is_some()
            }
            Stage::Comparing { .. } => false,
            Stage::Fetching { wanted } => {
                // They come in order: what was passed over is not there any more.
                match last {
                    Some(last) => *wanted = wanted.split_off(&last),
                    None => wanted.clear(),
                }
                wanted.retain(|stream| Some(*stream) != last);
                !wanted.is_empty()
            }
        };
        self.go_on(local, directory, from, part, more);
    }

    /// Revisions have come; `next` is where to go on.
    pub(super) fn heads(
        &mut self,
        local: &mut Local,
        directory: &Directory,
        from: NodeId,
        part: u8,
        heads: &[Head],
        next: Option<StreamId>,
    ) {
        let Some(fetch) = self.fetches.get_mut(&(from, part)) else { return };
        let Stage::Comparing { after, wanted } = &mut fetch.stage else { return };
        for head in heads {
            let known = directory.find(&head.stream).map(|known| known.announcement().order());
            if known < Some((head.epoch, head.revision)) && wanted.len() < WANTED_MAX {
                wanted.insert(head.stream);
            }
        }
        let last = heads.iter().map(|head| head.stream).max();
        match next.filter(|next| Some(*next) == last && *after < Some(*next)) {
            Some(next) => *after = Some(next),
            None => fetch.stage = Stage::Fetching { wanted: std::mem::take(wanted) },
        }
        let more = !matches!(&fetch.stage, Stage::Fetching { wanted } if wanted.is_empty());
        self.go_on(local, directory, from, part, more);
    }

    /// It did not come: the next comparison of digests starts again.
    pub(super) fn failed(&mut self, from: NodeId, part: u8) {
        self.fetches.remove(&(from, part));
    }

    /// The node is busy: it is asked again, not from the beginning.
    pub(super) fn busy(&mut self, local: &Local, from: NodeId, part: u8, retry_ms: u32) {
        if let Some(fetch) = self.fetches.get_mut(&(from, part)) {
            let pause =
                Duration::from_millis(u64::from(retry_ms.clamp(PAUSE_MIN_MS, PAUSE_MAX_MS)));
            fetch.resume_at = Some(local.now + pause);
        }
    }

    /// Goes on with what had to wait.
    pub(super) fn drive(&mut self, local: &mut Local, directory: &Directory) {
        let due = |fetch: &Fetch| fetch.resume_at.is_some_and(|at| at <= local.now);
        let due: Vec<_> =
            self.fetches.iter().filter(|(_, fetch)| due(fetch)).map(|(key, _)| *key).collect();
        for (from, part) in due {
            self.go_on(local, directory, from, part, true);
        }
    }

    pub(super) fn next_deadline(&self) -> Timestamp {
        let waits = self.fetches.values().filter_map(|fetch| fetch.resume_at);
        waits.fold(Timestamp::NEVER, Timestamp::min)
    }

    /// Queues news for a receiver. A stream that is queued twice travels once, in its newest form.
    pub(super) fn queue(&mut self, to: NodeId, stream: StreamId) {
        self.queues.entry(to).or_default().news.insert(stream);
    }

    /// Sends what is queued: one push at a time to each receiver.
    pub(super) fn flush(&mut self, local: &mut Local, directory: &Directory) {
        for (to, queue) in &mut self.queues {
            if queue.in_flight {
                continue;
            }
            let mut announcements: Vec<Arc<SignedAnnouncement>> = Vec::new();
            let mut bytes = 0;
            while let Some(stream) = queue.news.pop_first() {
                let Some(signed) = directory.find(&stream) else { continue };
                bytes += signed.wire_len() + 8;
                if bytes > PAGE_BYTES_MAX || announcements.len() >= PAGE_MAX {
                    queue.news.insert(stream);
                    break;
                }
                announcements.push(Arc::clone(signed));
            }
            if !announcements.is_empty() {
                queue.in_flight = true;
                local.ask_dir(*to, DirRequest::Push { announcements }, Purpose::Push);
            }
        }
        self.queues.retain(|_, queue| queue.in_flight || !queue.news.is_empty());
    }

    /// A push was answered, or not: what it held is not repeated, digests find what is missing.
    pub(super) fn pushed(&mut self, to: NodeId) {
        if let Some(queue) = self.queues.get_mut(&to) {
            queue.in_flight = false;
        }
    }

    /// A receiver is gone.
    pub(super) fn forget(&mut self, node: &NodeId) {
        self.queues.remove(node);
        self.fetches.retain(|(from, _), _| from != node);
    }

    fn is_fetching(&self, from: NodeId) -> bool {
        self.fetches.range((from, 0)..=(from, u8::MAX)).next().is_some()
    }

    fn begin(
        &mut self,
        local: &mut Local,
        directory: &Directory,
        from: NodeId,
        part: u8,
        stage: Stage,
    ) {
        self.fetches.insert((from, part), Fetch { stage, messages: 0, resume_at: None });
        self.go_on(local, directory, from, part, true);
    }

    /// Sends the next message of a fetch, or ends it.
    fn go_on(
        &mut self,
        local: &mut Local,
        directory: &Directory,
        from: NodeId,
        part: u8,
        more: bool,
    ) {
        let Some(fetch) = self.fetches.get_mut(&(from, part)) else { return };
        if !more || fetch.messages >= MESSAGES_MAX {
            local.counters.overflows += u64::from(more);
            self.fetches.remove(&(from, part));
            return;
        }
        fetch.messages += 1;
        fetch.resume_at = None;
        let request = match &fetch.stage {
            Stage::Listing { after, .. } => DirRequest::List { after: *after },
            Stage::Comparing { after, .. } => {
                DirRequest::Compare { shards: directory.shards().to_vec(), after: *after }
            }
            Stage::Fetching { wanted } => {
                DirRequest::Fetch { streams: wanted.iter().take(FETCH_MAX).copied().collect() }
            }
        };
        local.ask_dir(from, request, Purpose::Fetch { part });
    }
}

/// Where a part of the list ends: parts are equal in what they hold, as ids are hashes.
fn part_end(part: u8) -> StreamId {
    let mut end = [u8::MAX; 32];
    end[0] = (part + 1) * (u8::MAX / PARTS + 1) - 1;
    StreamId(end)
}

/// Parts of a whole list that are fetched side by side.
const PARTS: u8 = 4;
/// Most messages of one fetch: 5,000 streams of usual length need a third of it.
const MESSAGES_MAX: u32 = 512;
/// Most streams noted to be fetched.
const WANTED_MAX: usize = 5_000;
/// A busy node is left alone for at least and at most this, whatever it says, in milliseconds.
const PAUSE_MIN_MS: u32 = 200;
const PAUSE_MAX_MS: u32 = 5_000;
