//! One reading of a stream for all players on this node.
//!
//! Owns the task that pulls a stream once, the pieces it keeps (from the last keyframe on, and a
//! few seconds for players that are behind), and each player's place in them. Pieces are shared,
//! never copied: a node serves a thousand players from one reassembly. Does not own when a stream
//! is joined or left (`interest`), nor what a player's protocol makes of the pieces.
//!
//! A player that falls behind what is kept goes on at the newest keyframe and is told so; it slows
//! nobody, and costs no memory beyond its place.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use astral_core::media::flv::{Tag, TagKind};
use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::ports::{MediaItem, MediaSource};

/// Bytes kept for players at most: 8 s of a 16 Mbit/s stream.
pub const KEPT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Items kept for players at most: 8 s of a stream of two hundred chunks a second.
pub const KEPT_ITEMS_MAX: usize = 2_048;

/// How many keyframes back a reader begins that wants what was kept: enough for two segments of HLS.
const PAST_KEYFRAMES_MAX: usize = 6;

/// A stream being read once for many. Clones share it; the last one to go ends the reading.
#[derive(Clone)]
pub struct Share {
    shelf: Arc<Shelf>,
    _reading: Arc<Reading>,
}

impl std::fmt::Debug for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Share({} items)", self.shelf.lock().items.len())
    }
}

/// Ends the stream for its readers when the pulling task ends, however it does: nobody waits for what
/// can't come.
struct Filling(Arc<Shelf>);

impl Drop for Filling {
    fn drop(&mut self) {
        self.0.lock().over = true;
        self.0.fresh.notify_waiters();
    }
}

/// Ends the pulling task when the last [`Share`] and [`Place`] have gone.
struct Reading(CancellationToken);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Share {
    /// Starts pulling `source`.
    #[must_use]
    pub fn start(mut source: Box<dyn MediaSource>) -> Self {
        let shelf = Arc::new(Shelf::default());
        let (filling, stop) = (Filling(Arc::clone(&shelf)), CancellationToken::new());
        let stopped = stop.clone();
        tokio::spawn(async move {
            let filled = &filling.0;
            loop {
                let item = tokio::select! {
                    item = source.next() => item,
                    () = stopped.cancelled() => return,
                };
                // Whatever is there at once is told at once: the chunks of one frame wake a player
                // once.
                let mut next = Some(item);
                while let Some(item) = next {
                    let Some(item) = item else { return };
                    filled.put(item);
                    next = source.next().now_or_never();
                }
                filled.fresh.notify_waiters();
            }
        });
        Self { shelf, _reading: Arc::new(Reading(stop)) }
    }

    /// The stream is over: there will never be anything new.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.shelf.lock().over
    }

    /// A place for a new player, at the last keyframe.
    #[must_use]
    pub fn join(&self) -> Place {
        Place { share: self.clone(), at: At::Start { told: 0 } }
    }

    /// A place for somebody who wants what was just shown as well, some keyframes back.
    #[must_use]
    pub fn join_past(&self) -> Place {
        Place { share: self.clone(), at: At::Past }
    }
}

/// What was pulled, and who waits for more.
#[derive(Default)]
struct Shelf {
    kept: Mutex<Kept>,
    fresh: Notify,
}

impl Shelf {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Nothing between lock and unlock can panic half-way through a change.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, item: MediaItem) {
        self.lock().put(item);
    }
}

#[derive(Default)]
struct Kept {
    items: VecDeque<MediaItem>,
    /// Number of the first item kept; the first of all has 0.
    first: u64,
    bytes: usize,
    /// The newest init segment, and how many there have been.
    init: Option<Bytes>,
    inits: u64,
    /// Number of the newest item that begins with a keyframe (and the sound before it).
    keyframe: Option<u64>,
    /// Numbers of items that the newest init segment fits and that begin with a keyframe, oldest
    /// first.
    past: VecDeque<u64>,
    tags: TagEdges,
    over: bool,
}

impl Kept {
    fn end(&self) -> u64 {
        self.first + self.items.len() as u64
    }

    fn put(&mut self, item: MediaItem) {
        match &item {
            MediaItem::Flv(bytes) => {
                self.bytes += bytes.len();
                if bytes.starts_with(b"FLV") {
                    self.init = Some(bytes.clone());
                    self.inits += 1;
                    self.past.clear();
                    self.tags = TagEdges::after(bytes);
                } else if self.tags.pass(bytes) {
                    self.keyframe = Some(self.end());
                    self.past.push_back(self.end());
                }
            }
            MediaItem::NewEpoch => {
                // What came before is of another timeline: nobody begins there any more.
                self.keyframe = None;
                self.past.clear();
                self.tags.cut();
            }
            MediaItem::Skipped { .. } | MediaItem::Behind { .. } => self.tags.cut(),
            MediaItem::Ended { .. } => self.over = true,
            MediaItem::Paused
            | MediaItem::Resumed
            | MediaItem::SourceLost
            | MediaItem::SourceBack => {}
        }
        self.items.push_back(item);
        while self.bytes > KEPT_BYTES_MAX || self.items.len() > KEPT_ITEMS_MAX {
            if let Some(MediaItem::Flv(bytes)) = self.items.pop_front() {
                self.bytes -= bytes.len();
            }
            self.first += 1;
        }
        self.keyframe = self.keyframe.filter(|at| *at >= self.first);
        let first = self.first;
        while self.past.len() > PAST_KEYFRAMES_MAX
            || self.past.front().is_some_and(|at| *at < first)
        {
            self.past.pop_front();
        }
    }

    /// What a player gets that is to begin at a keyframe and was told of so many init segments.
    fn begin(&self, told: u64) -> Step {
        match (&self.init, self.keyframe) {
            (Some(init), _) if told < self.inits => {
                Step::Give(MediaItem::Flv(init.clone()), At::Start { told: self.inits })
            }
            (Some(_), Some(keyframe)) => self.follow(keyframe),
            _ => self.wait(),
        }
    }

    /// What a reader gets that is to begin with the past.
    fn begin_past(&self) -> Step {
        match (&self.init, self.past.front()) {
            (Some(init), Some(at)) => Step::Give(MediaItem::Flv(init.clone()), At::Item(*at)),
            _ => self.begin(0),
        }
    }

    /// What a player gets whose next item is this one.
    fn follow(&self, next: u64) -> Step {
        let Some(ahead) = next.checked_sub(self.first) else {
            // Nothing can be decoded before a keyframe: the newest, or the next.
            let told = self.inits;
            let to = self.keyframe.map_or(At::Start { told }, At::Item);
            let items = self.keyframe.unwrap_or(self.end()) - next;
            return Step::Give(MediaItem::Behind { items }, to);
        };
        match usize::try_from(ahead).ok().and_then(|ahead| self.items.get(ahead)) {
            Some(item) => Step::Give(item.clone(), At::Item(next + 1)),
            None => self.wait(),
        }
    }

    const fn wait(&self) -> Step {
        if self.over { Step::Over } else { Step::Wait }
    }
}

/// Where a player is.
#[derive(Clone, Copy, Debug)]
enum At {
    /// Before a keyframe, having been given the newest of so many init segments.
    Start { told: u64 },
    /// Before some keyframes that were kept, if any.
    Past,
    /// Before this item.
    Item(u64),
}

enum Step {
    /// The next thing, and where the player is after it.
    Give(MediaItem, At),
    Wait,
    Over,
}

/// One player's place in a shared stream.
#[derive(Debug)]
pub struct Place {
    share: Share,
    at: At,
}

impl Place {
    /// The next item when there is one; `Some(None)` at the end.
    fn take(&mut self) -> Option<Option<MediaItem>> {
        let kept = self.share.shelf.lock();
        let step = match self.at {
            At::Start { told } => kept.begin(told),
            At::Past => kept.begin_past(),
            At::Item(next) => kept.follow(next),
        };
        match step {
            Step::Give(item, at) => {
                self.at = at;
                Some(Some(item))
            }
            Step::Over => Some(None),
            Step::Wait => None,
        }
    }
}

impl MediaSource for Place {
    fn next(&mut self) -> BoxFuture<'_, Option<MediaItem>> {
        Box::pin(async move {
            let shelf = Arc::clone(&self.share.shelf);
            loop {
                let fresh = shelf.fresh.notified();
                tokio::pin!(fresh);
                // Registered before looking, so that nothing is missed in between.
                fresh.as_mut().enable();
                if let Some(item) = self.take() {
                    return item;
                }
                fresh.await;
            }
        })
    }
}

/// Follows tag boundaries through pieces of an FLV byte stream without copying it.
#[derive(Debug, Default)]
pub(super) struct TagEdges {
    /// Bytes of the present tag that have not come yet.
    left: usize,
    /// The boundary is lost until the next whole init segment or cut.
    lost: bool,
    /// The stream has no picture: a player may begin with any sound.
    sound_alone: bool,
}

impl TagEdges {
    /// The edges of a stream that begins with this init segment.
    pub(super) fn after(init: &[u8]) -> Self {
        const FLAGS: usize = 4;
        const VIDEO: u8 = 1;
        let has_video = init.get(FLAGS).is_none_or(|flags| flags & VIDEO != 0);
        Self { sound_alone: !has_video, ..Self::default() }
    }

    /// Forgets a torn tag.
    pub(super) const fn cut(&mut self) {
        self.left = 0;
        self.lost = false;
    }

    /// Takes the next piece; whether a player may begin with it.
    pub(super) fn pass(&mut self, bytes: &Bytes) -> bool {
        let whole = self.left == 0;
        let mut begins = false;
        let mut at = self.left.min(bytes.len());
        self.left -= at;
        while at < bytes.len() && !self.lost {
            let Some((tag, len)) = tag_head(bytes, at) else {
                // A chunk is cut from whole tags, so that its first piece is longer than a header.
                self.lost = true;
                break;
            };
            begins |= tag.is_keyframe() || (self.sound_alone && tag.kind == TagKind::Audio);
            let here = len.min(bytes.len() - at);
            self.left = len - here;
            at += here;
        }
        whole && begins && !self.lost
    }
}

/// The tag that begins at `at`, with the first bytes of its body alone, and its whole length.
fn tag_head(bytes: &Bytes, at: usize) -> Option<(Tag, usize)> {
    const HEADER: usize = 11;
    const PREVIOUS_TAG_SIZE: usize = 4;
    /// More than any codec needs to say whether it is a keyframe.
    const PEEK: usize = 16;
    let &[kind, a, b, c, ..] = bytes.get(at..at + HEADER)? else { return None };
    let kind = match kind & 0x1f {
        8 => TagKind::Audio,
        9 => TagKind::Video,
        18 => TagKind::Script,
        _ => return None,
    };
    let body = u32::from_be_bytes([0, a, b, c]) as usize;
    let from = at + HEADER;
    let to = (from + body.min(PEEK)).min(bytes.len());
    let tag = Tag { kind, timestamp_ms: 0, body: bytes.slice(from..to) };
    Some((tag, HEADER + body + PREVIOUS_TAG_SIZE))
}

#[cfg(test)]
#[path = "share_tests.rs"]
mod tests;
