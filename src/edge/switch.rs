//! A stream in the rendition that can be had: one reading that changes between sibling streams.
//!
//! Owns the change itself: another rendition is read beside what plays until it comes well, and takes over
//! at a keyframe of its own with its own headers; readers see a new epoch, which every edge splices
//! as it splices a source's restart. Does not own when to change (`media::switcher`) nor the streams
//! ([`Ladder`]).

use std::{collections::VecDeque, time::Duration};

use astral_core::{
    media::switcher::{Seen, Switch, Switcher},
    time::Timestamp,
};
use bytes::Bytes;
use futures::future::{BoxFuture, OptionFuture};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::{
    ports::{MediaItem, MediaSource, OpenError},
    share::TagEdges,
};

/// How often time that passes is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A lower rendition that brings nothing for so long beside what plays is not waited for: the slots
/// that it needs may be those of what plays, which is given up then.
const BESIDE_MAX: Duration = Duration::from_secs(2);
/// After so long it counts as what plays, whatever it brings, so that a lower one may be asked for.
const DOWN_MAX: Duration = Duration::from_secs(10);
/// A higher rendition that is tried has so long for its first media ...
const TRY_MAX: Duration = Duration::from_secs(8);
/// ... and has to come without a skip for so long, before it takes over at its next keyframe.
const TRIAL: Duration = Duration::from_secs(3);
/// A keyframe that does not come within this is not waited for.
const KEYFRAME_MAX: Duration = Duration::from_secs(20);

/// The renditions of one stream, 0 being the source's own.
pub trait Ladder: Send + 'static {
    /// How many lower ones there are by now.
    fn lower(&mut self) -> BoxFuture<'_, usize>;

    /// Starts reading one, joining it.
    ///
    /// # Errors
    /// [`OpenError`] when it can't be read.
    fn open(&mut self, rendition: usize) -> BoxFuture<'_, Result<Box<dyn MediaSource>, OpenError>>;

    /// It is not read any more.
    fn leave(&mut self, rendition: usize);

    /// Another one plays from here on.
    fn plays(&mut self, rendition: usize);
}

/// See the module.
pub struct Switching<L: Ladder> {
    ladder: L,
    switcher: Switcher,
    lower: usize,
    current: Option<Box<dyn MediaSource>>,
    /// To be opened.
    wanted: Option<Switch>,
    next: Option<Candidate>,
    ready: VecDeque<MediaItem>,
    began: Instant,
    look: Interval,
    over: bool,
}

impl<L: Ladder> std::fmt::Debug for Switching<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Switching({:?})", self.switcher)
    }
}

/// What may take over.
struct Candidate {
    rendition: usize,
    source: Box<dyn MediaSource>,
    is_try: bool,
    since: Instant,
    init: Option<Bytes>,
    edges: TagEdges,
    first_at: Option<Instant>,
}

/// What one item of a candidate means.
enum Progress {
    Waits,
    Fails,
    TakesOver(MediaItem),
}

impl<L: Ladder> Switching<L> {
    /// Begins with `first`, the source's own rendition.
    #[must_use]
    pub fn new(ladder: L, first: Box<dyn MediaSource>) -> Self {
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            ladder,
            switcher: Switcher::new(Timestamp::ZERO),
            lower: 0,
            current: Some(first),
            wanted: None,
            next: None,
            ready: VecDeque::new(),
            began: Instant::now(),
            look,
            over: false,
        }
    }

    async fn step(&mut self) -> Option<MediaItem> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                self.over = matches!(item, MediaItem::Ended { .. });
                return Some(item);
            }
            if self.over {
                return None;
            }
            self.open_wanted().await;
            let current: OptionFuture<_> = self.current.as_mut().map(|source| source.next()).into();
            let next: OptionFuture<_> =
                self.next.as_mut().map(|candidate| candidate.source.next()).into();
            tokio::select! {
                Some(item) = current => self.on_current(item),
                Some(item) = next => self.on_candidate(item),
                _ = self.look.tick() => {
                    self.lower = self.ladder.lower().await;
                    self.on_time();
                }
            }
        }
    }

    /// Opens what is wanted. Dropped half-way, it is begun again.
    async fn open_wanted(&mut self) {
        let Some(wanted) = self.wanted else { return };
        let (rendition, is_try) = match wanted {
            Switch::Down(rendition) => (rendition, false),
            Switch::Try(rendition) => (rendition, true),
        };
        let opened = self.ladder.open(rendition).await;
        self.wanted = None;
        self.give_up_candidate();
        match opened {
            Ok(source) => {
                self.next = Some(Candidate {
                    rendition,
                    source,
                    is_try,
                    since: Instant::now(),
                    init: None,
                    edges: TagEdges::default(),
                    first_at: None,
                });
            }
            Err(error) => {
                tracing::debug!(%error, rendition, "a rendition can't be read");
                let seen = if is_try { Seen::Refused } else { Seen::Switched(rendition) };
                self.observe(seen);
            }
        }
    }

    fn observe(&mut self, seen: Seen) {
        let passed = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let now = Timestamp::from_millis(passed);
        if let Some(switch) = self.switcher.observe(seen, self.lower, now) {
            self.wanted = Some(switch);
        }
    }

    fn on_current(&mut self, item: Option<MediaItem>) {
        let seen = match &item {
            Some(MediaItem::Flv(_) | MediaItem::Resumed | MediaItem::SourceBack) => Seen::Media,
            // What this machine was too slow for, no other rendition brings sooner.
            Some(MediaItem::Skipped { cause, .. }) if cause != "slow_reader" => Seen::Skipped,
            Some(MediaItem::Paused | MediaItem::SourceLost) => Seen::Idle,
            Some(MediaItem::Skipped { .. } | MediaItem::Behind { .. } | MediaItem::NewEpoch) => {
                Seen::Nothing
            }
            Some(MediaItem::Ended { .. }) | None => return self.on_end(item),
        };
        self.observe(seen);
        self.ready.extend(item);
    }

    /// A rendition that ends may have ended alone: the stream itself says whether it is over.
    fn on_end(&mut self, item: Option<MediaItem>) {
        let at = self.switcher.at();
        if at == 0 || self.next.as_ref().is_some_and(|next| next.rendition == 0 && !next.is_try) {
            let over = || MediaItem::Ended { reason: "ended".to_owned() };
            self.ready.push_back(item.unwrap_or_else(over));
            return;
        }
        self.leave_current();
        self.wanted = Some(Switch::Down(0));
    }

    fn on_candidate(&mut self, item: Option<MediaItem>) {
        let Some(candidate) = &mut self.next else { return };
        match candidate.take(item) {
            Progress::Waits => {}
            Progress::Fails => self.fail(),
            Progress::TakesOver(item) => {
                let Some(Candidate { rendition, source, init, .. }) = self.next.take() else {
                    return;
                };
                self.leave_current();
                self.current = Some(source);
                self.ready.push_back(MediaItem::NewEpoch);
                self.ready.extend(init.map(MediaItem::Flv));
                self.ready.push_back(item);
                self.observe(Seen::Switched(rendition));
                self.ladder.plays(rendition);
            }
        }
    }

    fn on_time(&mut self) {
        self.observe(Seen::Nothing);
        let Some(candidate) = &self.next else { return };
        let (waited, is_try) = (candidate.since.elapsed(), candidate.is_try);
        let silent = candidate.first_at.is_none();
        if is_try && (silent && waited > TRY_MAX || waited > KEYFRAME_MAX) {
            self.fail();
        } else if !is_try && silent && waited > BESIDE_MAX {
            self.leave_current();
            if waited > DOWN_MAX && candidate_is_lower(&self.next, &self.switcher) {
                let Some(Candidate { rendition, source, .. }) = self.next.take() else { return };
                self.current = Some(source);
                self.ready.push_back(MediaItem::NewEpoch);
                self.observe(Seen::Switched(rendition));
                self.ladder.plays(rendition);
            }
        }
    }

    /// What was tried does not come well, or has ended.
    fn fail(&mut self) {
        let Some(Candidate { rendition, source, is_try, .. }) = self.next.take() else { return };
        drop(source);
        if is_try {
            self.ladder.leave(rendition);
            self.observe(Seen::Refused);
        } else if self.current.is_none() {
            // Neither what played nor what was to play instead: the stream is over.
            self.ready.push_back(MediaItem::Ended { reason: "ended".to_owned() });
        } else {
            self.ladder.leave(rendition);
            self.observe(Seen::Switched(self.switcher.at()));
        }
    }

    fn give_up_candidate(&mut self) {
        if let Some(Candidate { rendition, source, .. }) = self.next.take() {
            drop(source);
            self.ladder.leave(rendition);
        }
    }

    fn leave_current(&mut self) {
        if self.current.take().is_some() {
            self.ladder.leave(self.switcher.at());
        }
    }
}

fn candidate_is_lower(candidate: &Option<Candidate>, switcher: &Switcher) -> bool {
    candidate.as_ref().is_some_and(|candidate| candidate.rendition > switcher.at())
}

impl Candidate {
    fn take(&mut self, item: Option<MediaItem>) -> Progress {
        match item {
            Some(MediaItem::Flv(bytes)) if bytes.starts_with(b"FLV") => {
                self.edges = TagEdges::after(&bytes);
                self.init = Some(bytes);
            }
            Some(MediaItem::Flv(bytes)) => {
                let first = *self.first_at.get_or_insert_with(Instant::now);
                let proven = !self.is_try || first.elapsed() >= TRIAL;
                if self.edges.pass(&bytes) && proven {
                    return Progress::TakesOver(MediaItem::Flv(bytes));
                }
            }
            Some(MediaItem::Skipped { .. } | MediaItem::Behind { .. }) if self.is_try => {
                return Progress::Fails;
            }
            Some(MediaItem::Skipped { .. } | MediaItem::Behind { .. } | MediaItem::NewEpoch) => {
                self.edges.cut();
            }
            Some(MediaItem::Ended { .. }) | None => return Progress::Fails,
            Some(
                MediaItem::Paused
                | MediaItem::Resumed
                | MediaItem::SourceLost
                | MediaItem::SourceBack,
            ) => {}
        }
        Progress::Waits
    }
}

impl<L: Ladder> MediaSource for Switching<L> {
    fn next(&mut self) -> BoxFuture<'_, Option<MediaItem>> {
        Box::pin(self.step())
    }
}

impl<L: Ladder> Drop for Switching<L> {
    fn drop(&mut self) {
        self.give_up_candidate();
        // The source's own is left by whoever counts its readers.
        if self.switcher.at() > 0 {
            self.leave_current();
        }
    }
}

#[cfg(test)]
#[path = "switch_tests.rs"]
mod tests;
