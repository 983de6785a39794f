//! How announcements travel beside gossip: pages that are fetched, news that is pushed.
//!
//! Owns the fetches under way and the queues of news for each receiver. Does not own the
//! directory, nor who receives (see `registrar`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    DirRequest, PAGE_MAX,
    directory::{Directory, PAGE_BYTES_MAX},
    local::{Local, Purpose},
};
use crate::{
    announcement::SignedAnnouncement,
    ids::{NodeId, StreamId},
};

/// Fetches and queues.
#[derive(Debug, Default)]
pub(super) struct Dissemination {
    fetching: BTreeSet<NodeId>,
    queues: BTreeMap<NodeId, Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    news: BTreeSet<StreamId>,
    in_flight: bool,
}

impl Dissemination {
    /// Fetches the whole directory of `from`, page by page, unless that is under way.
    pub(super) fn fetch(&mut self, local: &mut Local, from: NodeId) {
        if self.fetching.insert(from) {
            local.ask_dir(from, DirRequest::List { after: None }, Purpose::List);
        }
    }

    /// A page has come; `next` is where to go on.
    pub(super) fn fetched(&mut self, local: &mut Local, from: NodeId, next: Option<StreamId>) {
        match next {
            Some(after) if self.fetching.contains(&from) => {
                local.ask_dir(from, DirRequest::List { after: Some(after) }, Purpose::List);
            }
            Some(_) | None => {
                self.fetching.remove(&from);
            }
        }
    }

    /// A page did not come: the next comparison of digests starts again.
    pub(super) fn fetch_failed(&mut self, from: NodeId) {
        self.fetching.remove(&from);
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
        self.fetching.remove(node);
    }
}
