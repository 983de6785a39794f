//! Reassembly: one local reader's way through the ring.
//!
//! Owns what a reader gets next and what it is spared, under its [`Policy`]. Does not own the
//! chunks (see `media::ring`), nor what a reader does with them.
//!
//! **A sink delivers in `seq` order, each chunk at most once, whole frames only; what it does not
//! deliver between its first and its last chunk it names in a `Skipped`.**

use std::time::Duration;

use super::{
    chunk::{ChunkFlags, Payload},
    frame::EndReason,
    relay::{
        Delivery, MissCause, Outbox, Policy, RelayOutput, RelayStats, SinkId, SkipCause, SkipCounts,
    },
    view::View,
};
use crate::time::Timestamp;

/// Where deliveries go and are counted.
pub(crate) struct Outlet<'a, P> {
    pub(crate) out: &'a mut Outbox<P>,
    pub(crate) stats: &'a mut RelayStats,
}

/// What a sink waits for. `Start` -> `Chunk` -> ... -> `End`; `Credit` and `Init` in between.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wait {
    /// A keyframe to start at.
    Start,
    /// This chunk; `overdue`: or any keyframe.
    Chunk { seq: u64, overdue: bool },
    /// The reader.
    Credit,
    /// The init segment that the next chunk names.
    Init,
    /// A new epoch.
    End,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Sink {
    id: SinkId,
    policy: Policy,
    credit: i64,
    wait: Wait,
    /// Next chunk to deliver.
    cursor: Option<u64>,
    /// Chunks below are cleared for delivery: their frame is whole.
    released: u64,
    /// Where the search for the current frame's first missing chunk goes on.
    checked: u64,
    /// The init version that the reader has, and whether it saw all since.
    init: Option<u16>,
    contiguous: bool,
    /// Start at the first keyframe, not the newest: the reader was here before the epoch was.
    from_first: bool,
    /// Start here or later: what lies before cannot be had whole.
    start_from: u64,
    paused: bool,
    slow: bool,
    /// When to look again without an input.
    wake_at: Timestamp,
    delivered: u64,
    skips: SkipCounts,
    /// Why the chunk that is overdue is not here.
    blame: Option<MissCause>,
}

/// A keyframe that a late reader may jump to.
enum Better {
    At(u64),
    /// It is coming in; it is late itself from `until` on.
    Soon {
        until: Timestamp,
    },
    None,
}

enum Frame {
    Whole {
        end: u64,
    },
    Lacks {
        seq: u64,
    },
    /// The cursor is within a frame whose start was skipped.
    Torn,
}

impl Sink {
    pub(crate) fn new(id: SinkId, policy: Policy, credit: usize) -> Self {
        Self {
            id,
            policy,
            credit: saturated(credit),
            wait: Wait::Start,
            cursor: None,
            released: 0,
            checked: 0,
            init: None,
            contiguous: false,
            from_first: false,
            start_from: 0,
            paused: false,
            slow: false,
            wake_at: Timestamp::NEVER,
            delivered: 0,
            skips: SkipCounts::default(),
            blame: None,
        }
    }

    pub(crate) fn add_credit(&mut self, bytes: usize) {
        self.credit = self.credit.saturating_add(saturated(bytes));
    }

    /// Whether a chunk that just came may let this sink go on.
    pub(crate) const fn awaits(&self, seq: u64) -> bool {
        match self.wait {
            Wait::Start => true,
            Wait::Chunk { seq: missing, overdue } => {
                seq == missing || overdue || (seq > missing && self.is_unarmed())
            }
            Wait::Credit | Wait::Init | Wait::End => false,
        }
    }

    pub(crate) const fn wake_at(&self) -> Timestamp {
        self.wake_at
    }

    pub(crate) const fn policy(&self) -> Policy {
        self.policy
    }

    pub(crate) const fn delivered(&self) -> u64 {
        self.delivered
    }

    pub(crate) const fn skips(&self) -> SkipCounts {
        self.skips
    }

    /// The lowest chunk that must not be dropped for age.
    pub(crate) const fn pin(&self) -> u64 {
        match (self.policy, self.cursor) {
            (Policy::KeepAll, Some(cursor)) => cursor,
            (Policy::KeepAll | Policy::Live { .. }, _) => u64::MAX,
        }
    }

    /// Delivers all that can be delivered.
    pub(crate) fn pump<P: Payload>(
        &mut self,
        view: &View<'_, P>,
        outlet: &mut Outlet<'_, P>,
        now: Timestamp,
    ) {
        self.wake_at = Timestamp::NEVER;
        while self.step(view, outlet, now) {}
    }

    /// The source paused or resumed.
    pub(crate) fn set_paused<P>(&mut self, paused: bool, out: &mut Outbox<P>) {
        if self.paused != paused && self.cursor.is_some() {
            self.paused = paused;
            self.emit(if paused { Delivery::Paused } else { Delivery::Resumed }, out);
        }
    }

    /// The stream ends here, whatever was still to come.
    pub(crate) fn end<P>(&mut self, reason: EndReason, out: &mut Outbox<P>) {
        if self.wait != Wait::End {
            self.wait = Wait::End;
            self.emit(Delivery::Ended(reason), out);
        }
    }

    /// The source restarted. A `KeepAll` reader first gets what is there of the old epoch, even
    /// beyond its credit: the ring that holds it goes.
    pub(crate) fn restart<P: Payload>(
        &mut self,
        view: &View<'_, P>,
        epoch: u64,
        outlet: &mut Outlet<'_, P>,
        now: Timestamp,
    ) {
        if self.policy == Policy::KeepAll && self.cursor.is_some() {
            let credit = self.credit;
            self.credit = i64::MAX / 2;
            self.pump(view, outlet, now);
            self.credit = credit - (i64::MAX / 2 - self.credit);
        }
        let end = view.ring.end().unwrap_or(0);
        if let Some(cursor) = self.cursor
            && self.wait != Wait::End
            && cursor < end
        {
            self.skip(cursor, end, SkipCause::EpochOver, outlet);
        }
        if self.cursor.is_some() {
            self.emit(Delivery::NewEpoch { epoch }, outlet.out);
        }
        let renewed = Self::new(self.id, self.policy, 0);
        *self =
            Self { credit: self.credit, delivered: self.delivered, skips: self.skips, ..renewed };
    }

    fn step<P: Payload>(
        &mut self,
        view: &View<'_, P>,
        outlet: &mut Outlet<'_, P>,
        now: Timestamp,
    ) -> bool {
        if self.wait == Wait::End {
            return false;
        }
        let Some(cursor) = self.cursor else { return self.begin(view) };
        if cursor < self.released {
            return self.deliver(cursor, view, outlet);
        }
        if self.credit <= 0 {
            self.wait = Wait::Credit;
            self.slow = true;
            return false;
        }
        match self.frame_at(cursor, view) {
            Frame::Whole { end } => self.release(cursor, end, view, outlet, now),
            Frame::Lacks { seq } => self.lack(cursor, seq, view, outlet, now),
            Frame::Torn => {
                self.skip(cursor, view.next_frame(cursor + 1), SkipCause::Lost, outlet);
                true
            }
        }
    }

    /// Finds the keyframe to start at.
    fn begin<P: Payload>(&mut self, view: &View<'_, P>) -> bool {
        self.wait = Wait::Start;
        let Some(base) = view.base else { return false };
        let base = base.max(self.start_from);
        let start = if self.from_first && self.policy == Policy::KeepAll {
            view.first_keyframe(base)
        } else {
            let fits = |seq: &u64| *seq >= base && view.has_init(*seq);
            view.ring.keyframes().iter().rev().copied().find(fits)
        };
        let Some(start) = start else { return false };
        self.move_to(start);
        true
    }

    fn deliver<P: Payload>(
        &mut self,
        cursor: u64,
        view: &View<'_, P>,
        outlet: &mut Outlet<'_, P>,
    ) -> bool {
        let Some(held) = view.ring.get(cursor) else {
            // A frame is delivered in one go, so this is out of reach; the frame ends here.
            self.released = cursor;
            return true;
        };
        let chunk = held.chunk.clone();
        let flags = chunk.header().flags;
        if self.paused && !view.paused && !flags.contains(ChunkFlags::PAUSE) {
            self.set_paused(false, outlet.out);
        }
        self.credit -= i64::try_from(chunk.wire_len()).unwrap_or(i64::MAX);
        self.cursor = Some(cursor + 1);
        self.delivered += 1;
        outlet.stats.delivered += 1;
        self.emit(Delivery::Chunk(chunk), outlet.out);
        if flags.contains(ChunkFlags::PAUSE) {
            self.set_paused(true, outlet.out);
        }
        if flags.contains(ChunkFlags::END) {
            self.end(EndReason::Ended, outlet.out);
        }
        true
    }

    /// A whole frame is there: clears it, unless it is too late to be worth showing.
    fn release<P: Payload>(
        &mut self,
        cursor: u64,
        end: u64,
        view: &View<'_, P>,
        outlet: &mut Outlet<'_, P>,
        now: Timestamp,
    ) -> bool {
        if let Policy::Live { lag } = self.policy
            && view.due(cursor, lag) < now
        {
            let cause = if self.slow { SkipCause::SlowReader } else { SkipCause::Deadline };
            match self.better_keyframe(cursor, lag, view, now) {
                Better::At(next) => {
                    if cause == SkipCause::Deadline && self.has_begun() {
                        // It is here now, and was not when it was due.
                        let blame = self.blame.unwrap_or(MissCause::LateRepair);
                        outlet.stats.missed.count(blame, next - cursor);
                    }
                    self.skip(cursor, next, cause, outlet);
                    return true;
                }
                Better::Soon { until } => return self.await_keyframe(cursor, until),
                Better::None => {}
            }
        }
        let Some(version) = view.ring.get(cursor).map(|held| held.chunk.header().init_version)
        else {
            return false;
        };
        if self.init != Some(version) && !self.contiguous {
            let Some(init) = view.inits.get(&version) else {
                self.wait = Wait::Init;
                return false;
            };
            self.emit(Delivery::Init(init.clone()), outlet.out);
        }
        // A reader that saw every chunk got the new headers in band.
        self.init = Some(version);
        self.contiguous = true;
        self.slow = false;
        self.blame = None;
        self.released = end;
        true
    }

    /// A chunk of the frame at the cursor is not there.
    fn lack<P: Payload>(
        &mut self,
        cursor: u64,
        seq: u64,
        view: &View<'_, P>,
        outlet: &mut Outlet<'_, P>,
        now: Timestamp,
    ) -> bool {
        if !self.has_begun()
            && !self.from_first
            && let Some(next) = self.newest_whole_keyframe(cursor, view)
        {
            // Nobody has seen anything yet, so the picture that is there first is the best.
            self.move_to(next);
            return true;
        }
        let gone = if cursor < view.ring.floor() {
            Some(if self.slow { SkipCause::SlowReader } else { SkipCause::Overwritten })
        } else if seq < view.settled {
            Some(SkipCause::Lost)
        } else {
            None
        };
        // A chunk is known to be missing since the next one came.
        let later = view.ring.next_held(seq + 1).and_then(|at| Some((at, view.ring.get(at)?.at)));
        let (next, cause) = match (self.policy, gone, later) {
            (Policy::KeepAll, Some(cause), _) => (Better::At(view.next_frame(seq + 1)), cause),
            (Policy::Live { lag }, Some(cause), _) => {
                (self.better_keyframe(cursor, lag, view, now), cause)
            }
            // Nothing behind it came yet, so nobody can say that it is late.
            (_, None, None) => return self.await_chunk(seq, Timestamp::NEVER),
            (Policy::KeepAll, None, Some((_, since))) => {
                if now.since(since) < view.give_up {
                    return self.await_chunk(seq, since + view.give_up);
                }
                (Better::At(view.next_frame(seq + 1)), SkipCause::Lost)
            }
            (Policy::Live { lag }, None, Some((later, _))) => {
                let due = view.due(later, lag);
                if now < due {
                    return self.await_chunk(seq, due);
                }
                (self.better_keyframe(cursor, lag, view, now), SkipCause::Deadline)
            }
        };
        // What kept it when it was due; by the time a keyframe is whole, that may be over.
        let blame = *self.blame.get_or_insert_with(|| view.blame(seq));
        match next {
            Better::At(next) => {
                if self.has_begun() && cause != SkipCause::SlowReader {
                    outlet.stats.missed.count(blame, next - cursor);
                }
                self.skip(cursor, next, cause, outlet);
                true
            }
            Better::Soon { until } => self.await_keyframe(seq, until),
            Better::None => self.await_keyframe(seq, Timestamp::NEVER),
        }
    }

    /// The chunk, or any keyframe that gets whole.
    fn await_keyframe(&mut self, seq: u64, until: Timestamp) -> bool {
        self.wait = Wait::Chunk { seq, overdue: true };
        self.wake_at = until;
        false
    }

    fn await_chunk(&mut self, seq: u64, until: Timestamp) -> bool {
        self.wait = Wait::Chunk { seq, overdue: !self.has_begun() && !self.from_first };
        self.wake_at = until;
        false
    }

    fn skip<P>(&mut self, from: u64, next: u64, cause: SkipCause, outlet: &mut Outlet<'_, P>) {
        if !self.has_begun() {
            self.cursor = None;
            (self.start_from, self.from_first) = (next, false);
            return;
        }
        self.skips.count(cause, next - from);
        outlet.stats.skips.count(cause, next - from);
        self.emit(Delivery::Skipped { from_seq: from, to_seq: next - 1, cause }, outlet.out);
        self.move_to(next);
        self.contiguous = false;
    }

    const fn move_to(&mut self, next: u64) {
        self.cursor = Some(next);
        self.released = next;
        self.checked = next;
        self.blame = None;
    }

    /// Whether anything of this epoch was delivered.
    const fn has_begun(&self) -> bool {
        self.init.is_some()
    }

    fn newest_whole_keyframe<P: Payload>(&self, after: u64, view: &View<'_, P>) -> Option<u64> {
        let keyframes = view.ring.keyframes().iter().rev().copied();
        keyframes
            .take_while(|seq| *seq > after)
            .find(|seq| view.has_init(*seq) && view.is_whole(*seq))
    }

    fn emit<P>(&self, item: Delivery<P>, out: &mut Outbox<P>) {
        out.push_back(RelayOutput::Deliver { sink: self.id, item });
    }

    fn frame_at<P: Payload>(&mut self, cursor: u64, view: &View<'_, P>) -> Frame {
        let Some(first) = view.ring.get(cursor) else { return Frame::Lacks { seq: cursor } };
        let header = first.chunk.header();
        if header.fragment != 0 {
            return Frame::Torn;
        }
        let end = cursor + u64::from(header.fragments);
        self.checked = self.checked.max(cursor + 1);
        while self.checked < end {
            if view.ring.get(self.checked).is_none() {
                return Frame::Lacks { seq: self.checked };
            }
            self.checked += 1;
        }
        Frame::Whole { end }
    }

    /// Where a reader that is late at `cursor` had better go on: the first keyframe behind that
    /// isn't late itself, once it is whole; without one the newest whole keyframe.
    fn better_keyframe<P: Payload>(
        &self,
        cursor: u64,
        lag: Duration,
        view: &View<'_, P>,
        now: Timestamp,
    ) -> Better {
        let keyframes = view.ring.keyframes();
        let from = keyframes.partition_point(|&seq| seq <= cursor);
        let mut better = Better::None;
        for seq in keyframes.range(from..).copied() {
            let due = view.due(seq, lag);
            let usable = self.init_is(view, seq) || view.has_init(seq);
            if usable && view.is_whole(seq) {
                better = Better::At(seq);
            } else if due >= now {
                return Better::Soon { until: due + Duration::from_millis(1) };
            }
            if due >= now {
                break;
            }
        }
        better
    }

    fn init_is<P: Payload>(&self, view: &View<'_, P>, seq: u64) -> bool {
        let version = view.ring.get(seq).map(|held| held.chunk.header().init_version);
        version.is_some() && version == self.init
    }

    const fn is_unarmed(&self) -> bool {
        self.wake_at.as_micros() == Timestamp::NEVER.as_micros()
    }
}

fn saturated(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
