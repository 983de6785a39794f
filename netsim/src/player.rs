//! One viewer's player: what arrived when, what was delivered, and whether that was lawful.
//!
//! Owns a viewer's figures and the checks on what its sink gets: in order, exactly once, verified,
//! nothing left out unsaid. Does not own the sink: that is the production relay's.

mod runs;

use std::collections::VecDeque;

use astral_core::{
    ids::{STRIPES_MAX, StreamId},
    media::{
        chunk::Payload,
        relay::{Delivery, Policy, SkipCause},
    },
    time::micros,
};

use crate::{
    payload::SimChunk,
    tally::{CutLog, Tally},
};

/// Lags at which continuity is measured, in microseconds.
pub const LAGS_US: [u64; 2] = [1_500_000, 3_000_000];
/// A player may take the newest chunk for a little older than it is: chunks of one frame have one
/// time, and delays vary.
const SKIP_EARLY_US: u64 = 150_000;
/// Chunks behind the newest whose arrival is remembered one by one: ten seconds of 16 stripes.
const WINDOW: usize = 4_096;
/// Chunks that may arrive before the first is delivered, for the log; beyond, the oldest go.
const EARLY_MAX: usize = 4_096;

/// See the module.
#[derive(Debug)]
pub struct Player {
    stream: StreamId,
    policy: Policy,
    /// When the wish to watch came.
    pub asked_at: u64,
    /// When the first feed from a parent opened.
    pub admitted_at: Option<u64>,
    /// When the first chunk was delivered.
    pub playing_at: Option<u64>,
    /// When watching ended, in its own figures.
    ended_at: Option<u64>,
    /// Chunks cut between these moments are counted apart.
    window: Option<(u64, u64)>,
    /// Those of them that were there within 3 s.
    in_window: u64,
    /// Chunks before this one were due already, and looked at.
    judged: u64,
    start: u64,
    /// `seq` of `arrivals[0]`.
    base: u64,
    arrivals: VecDeque<Arrival>,
    early: VecDeque<(u64, u64)>,
    on_time: [u64; 2],
    /// Next `seq` that the sink must speak of.
    next: Option<u64>,
    has_init: bool,
    /// Chunks delivered.
    pub delivered: u64,
    /// Chunks that the sink said it left out.
    pub skipped: u64,
    /// Times that it did.
    pub skips: u64,
    /// The sink said that the stream is over.
    pub over: bool,
    stripes: Vec<StripeWatch>,
    /// Where media are intervals: all of them, to be summed up in the end.
    runs: Vec<runs::Run>,
    /// The same as `start`: the cut before it.
    start_cut: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Arrival {
    seen: bool,
    on_time: [bool; 2],
}

/// One stripe as it comes in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StripeWatch {
    /// When its last new chunk came.
    pub last_at: Option<u64>,
    /// Where media are intervals: how long it was dry the last time.
    dry_us: Option<u64>,
    /// It has a parent.
    fed: bool,
    /// Until when it had none, the last time.
    orphan_until: u64,
    /// Where media are intervals: the newest cut that came, or will.
    come_until: Option<u64>,
}

impl Player {
    /// A player that was just asked for.
    #[must_use]
    pub fn new(stream: StreamId, policy: Policy, now: u64) -> Self {
        Self {
            stream,
            policy,
            asked_at: now,
            admitted_at: None,
            playing_at: None,
            ended_at: None,
            window: None,
            in_window: 0,
            judged: 0,
            start: 0,
            base: 0,
            arrivals: VecDeque::new(),
            early: VecDeque::new(),
            on_time: [0; 2],
            next: None,
            has_init: false,
            delivered: 0,
            skipped: 0,
            skips: 0,
            over: false,
            stripes: vec![StripeWatch::default(); usize::from(STRIPES_MAX)],
            runs: Vec::new(),
            start_cut: 0,
        }
    }

    /// The stream watched.
    #[must_use]
    pub const fn stream(&self) -> StreamId {
        self.stream
    }

    /// When skips happen.
    #[must_use]
    pub const fn policy(&self) -> Policy {
        self.policy
    }

    /// One stripe.
    #[must_use]
    pub fn stripe(&self, stripe: u8) -> StripeWatch {
        self.stripes.get(usize::from(stripe)).copied().unwrap_or_default()
    }

    /// A verified chunk arrived from a parent.
    pub fn arrived(&mut self, chunk: &SimChunk, at: Moment<'_>, tally: &mut Tally) {
        let header = chunk.header();
        let Some(cut_at) = at.cuts.at(header.seq) else { return };
        tally.arrivals += 1;
        self.judge(at, tally);
        if self.ended_at.is_some() || !self.note(header.seq, cut_at, at.now) {
            tally.duplicates += 1;
            return;
        }
        let watch = &mut self.stripes[usize::from(header.stripe) % usize::from(STRIPES_MAX)];
        watch.last_at = Some(at.now);
        if self.playing_at.is_some_and(|playing| cut_at > playing) {
            tally.delay.add(at.now - cut_at);
        }
    }

    /// A new parent has brought the first chunk of a stripe whose parent failed, so long after the
    /// last one. Where media are intervals the overlay hears too seldom to know.
    pub fn failed_over(&mut self, stripe: u8, gap_ms: Option<u64>, tally: &mut Tally) {
        let Some(watch) = self.stripes.get_mut(usize::from(stripe)) else { return };
        let gap = watch.dry_us.take().or(gap_ms.map(|ms| ms * 1_000));
        gap.into_iter().for_each(|us| tally.repair.add(us));
    }

    /// Chunks cut from `from` on and before `until` are counted apart from now on.
    pub const fn set_window(&mut self, from: u64, until: u64) {
        self.window = Some((from, until));
    }

    /// Of the chunks of the window, at lag 3 s: those due and those in time. `None`: this viewer was
    /// not there all the time.
    #[must_use]
    pub fn window(&self, now: u64, cuts: &CutLog) -> Option<(u64, u64)> {
        let (from, until) = self.window?;
        let there = self.playing_at.is_some_and(|at| at <= from)
            && self.ended_at.unwrap_or(now) >= until + LAGS_US[1];
        let due = cuts.end_before(until).saturating_sub(cuts.end_before(from));
        there.then_some((due, self.in_window.min(due)))
    }

    /// A stripe has a parent now.
    pub fn fed(&mut self, stripe: u8, now: u64) {
        if let Some(watch) = self.stripes.get_mut(usize::from(stripe))
            && !std::mem::replace(&mut watch.fed, true)
        {
            watch.orphan_until = now;
        }
    }

    /// A stripe has no parent any more.
    pub fn orphaned(&mut self, stripe: u8) {
        if let Some(watch) = self.stripes.get_mut(usize::from(stripe)) {
            watch.fed = false;
        }
    }

    /// Looks at each chunk once, when it was due at lag 3 s: what was missing then?
    fn judge(&mut self, at: Moment<'_>, tally: &mut Tally) {
        let (Some(_), None) = (self.playing_at, self.ended_at) else { return };
        while let Some(cut_at) = at.cuts.at(self.judged)
            && cut_at + LAGS_US[1] < at.now
        {
            let place = self.judged.checked_sub(self.base);
            let place = place.and_then(|place| usize::try_from(place).ok());
            let arrival = place.and_then(|place| self.arrivals.get(place)).copied();
            if !arrival.unwrap_or_default().on_time[1] {
                let stripe = at.cuts.stripe(self.judged);
                let watch = self.stripe(stripe);
                if !watch.fed || watch.orphan_until > cut_at {
                    tally.missed.orphan += 1;
                } else if arrival.is_some_and(|arrival| arrival.seen) {
                    tally.missed.late += 1;
                } else {
                    tally.missed.upstream += 1;
                }
            }
            self.judged += 1;
        }
    }

    /// The sink delivered something.
    ///
    /// # Errors
    /// In words, when that was unlawful.
    pub fn deliver(
        &mut self,
        item: &Delivery<SimChunk>,
        at: Moment<'_>,
        tally: &mut Tally,
    ) -> Result<(), String> {
        let now = at.now;
        match item {
            Delivery::Init(_) => self.has_init = true,
            Delivery::Chunk(chunk) => {
                let header = *chunk.header();
                if !chunk.verify(&self.stream) {
                    return Err(format!("chunk {} was delivered unverified", header.seq));
                }
                if !self.has_init {
                    return Err(format!("chunk {} was delivered before any init", header.seq));
                }
                if self.next.is_some_and(|next| next != header.seq) {
                    return Err(format!(
                        "chunk {} was delivered, {:?} was due",
                        header.seq, self.next
                    ));
                }
                self.next = Some(header.seq + 1);
                self.delivered += 1;
                if self.playing_at.is_none() {
                    self.begin(header.seq, now, tally);
                }
            }
            Delivery::Skipped { from_seq, to_seq, cause } => {
                if self.next.is_some_and(|next| next != *from_seq) || to_seq < from_seq {
                    let next = self.next;
                    return Err(format!("skipped {from_seq}..={to_seq}, {next:?} was due"));
                }
                self.check_skip(*from_seq, *cause, at)?;
                self.next = Some(to_seq + 1);
                self.skips += 1;
                self.skipped += to_seq - from_seq + 1;
            }
            Delivery::Ended(_) => self.over = true,
            Delivery::NewEpoch { .. } => self.next = None,
            Delivery::Paused | Delivery::Resumed => {}
        }
        Ok(())
    }

    /// Nobody watches any more: later arrivals do not count.
    pub fn end(&mut self, now: u64) {
        self.ended_at.get_or_insert(now);
    }

    /// Whether nobody watches any more, or the stream is over.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.ended_at.is_some() || self.over
    }

    /// At each lag: chunks that were due until now (or until the end), and those that were there in
    /// time.
    #[must_use]
    pub fn continuity(&self, now: u64, cuts: &CutLog) -> [(u64, u64); 2] {
        let until = self.ended_at.unwrap_or(now);
        let mut at = 0;
        LAGS_US.map(|lag| {
            let index = at;
            at += 1;
            if self.playing_at.is_none() {
                return (0, 0);
            }
            let end = until.checked_sub(lag).map_or(0, |moment| cuts.end_before(moment));
            let due = end.saturating_sub(self.start);
            // Those that came early enough but were not due yet do not count either way.
            let skip = usize::try_from(end.saturating_sub(self.base)).unwrap_or(usize::MAX);
            let early = self.arrivals.iter().skip(skip).filter(|seen| seen.on_time[index]).count();
            (due, self.on_time[index].saturating_sub(early as u64).min(due))
        })
    }

    /// A live player may skip only what was due: nothing younger than its lag.
    fn check_skip(&self, from_seq: u64, cause: SkipCause, at: Moment<'_>) -> Result<(), String> {
        let (Policy::Live { lag }, SkipCause::Deadline) = (self.policy, cause) else {
            return Ok(());
        };
        let age = at.cuts.at(from_seq).map_or(u64::MAX, |cut_at| at.now.saturating_sub(cut_at));
        let due = micros(lag).saturating_sub(SKIP_EARLY_US);
        if age < due {
            return Err(format!(
                "chunk {from_seq} was skipped {age} us after its cut, lag {lag:?}"
            ));
        }
        Ok(())
    }

    fn begin(&mut self, start: u64, now: u64, tally: &mut Tally) {
        self.playing_at = Some(now);
        (self.start, self.judged) = (start, start);
        tally.first_picture.add(now - self.asked_at);
        for (seq, at) in std::mem::take(&mut self.early) {
            if seq >= start {
                self.count(seq, at, None);
            }
        }
    }

    /// Remembers an arrival; false when the chunk was there already.
    fn note(&mut self, seq: u64, cut_at: u64, now: u64) -> bool {
        if self.arrivals.is_empty() {
            self.base = seq.saturating_sub(WINDOW as u64 / 2);
        }
        let Some(place) = seq.checked_sub(self.base) else { return false };
        let place = usize::try_from(place).unwrap_or(usize::MAX).min(1 << 24);
        if place >= self.arrivals.len() {
            self.arrivals.resize(place + 1, Arrival::default());
        }
        let arrival = &mut self.arrivals[place];
        if std::mem::replace(&mut arrival.seen, true) {
            return false;
        }
        if self.playing_at.is_none() {
            if self.early.len() >= EARLY_MAX {
                self.early.pop_front();
            }
            self.early.push_back((seq, now - cut_at));
        } else if seq >= self.start {
            self.count(seq, now - cut_at, Some(cut_at));
        }
        while self.arrivals.len() > WINDOW {
            self.arrivals.pop_front();
            self.base += 1;
        }
        true
    }

    fn count(&mut self, seq: u64, delay: u64, cut_at: Option<u64>) {
        let within = |cut_at| self.window.is_some_and(|(from, to)| from < cut_at && cut_at <= to);
        self.in_window += u64::from(delay <= LAGS_US[1] && cut_at.is_some_and(within));
        let place = seq.checked_sub(self.base).and_then(|place| usize::try_from(place).ok());
        for (index, lag) in LAGS_US.iter().enumerate() {
            if delay <= *lag {
                self.on_time[index] += 1;
                if let Some(arrival) = place.and_then(|place| self.arrivals.get_mut(place)) {
                    arrival.on_time[index] = true;
                }
            }
        }
    }
}

/// Now, and what the source had cut by then.
#[derive(Clone, Copy, Debug)]
pub struct Moment<'a> {
    /// In microseconds of simulated time.
    pub now: u64,
    /// When what was cut.
    pub cuts: &'a CutLog,
}

#[cfg(test)]
mod tests {
    use astral_core::media::{
        chunk::{ChunkFlags, ChunkHeader},
        init::{InitSegment, SignedInit},
        relay::SkipCause,
    };

    use super::*;

    const STREAM: StreamId = StreamId([1; 32]);

    fn chunk(seq: u64) -> SimChunk {
        let header = ChunkHeader {
            epoch: 1,
            seq,
            stripe: 0,
            stripe_seq: seq,
            time_ms: seq * 100,
            flags: ChunkFlags::NONE,
            fragment: 0,
            fragments: 1,
            init_version: 1,
            key_id: 0,
            payload_len: 10,
        };
        SimChunk::seal(&STREAM, header)
    }

    fn init() -> Delivery<SimChunk> {
        let init =
            InitSegment { epoch: 1, version: 1, valid_from_seq: 0, payload: b"x".to_vec().into() };
        Delivery::Init(SignedInit { init, signature: [0; 64] })
    }

    fn playing() -> (Player, Tally, CutLog) {
        let mut cuts = CutLog::default();
        (0..100).for_each(|seq| cuts.cut(seq * 100_000, 0));
        let (mut player, mut tally) = (Player::new(STREAM, Policy::KeepAll, 0), Tally::default());
        let now = Moment { now: 10_000, cuts: &cuts };
        player.arrived(&chunk(0), now, &mut tally);
        player.deliver(&init(), now, &mut tally).unwrap();
        player.deliver(&Delivery::Chunk(chunk(0)), now, &mut tally).unwrap();
        (player, tally, cuts)
    }

    #[test]
    fn continuity_counts_what_was_there_at_its_lag() {
        let (mut player, mut tally, cuts) = playing();
        for seq in 1..100 {
            // Chunk 10 comes two seconds late, chunk 11 never.
            let late = if seq == 10 { 2_000_000 } else { 50_000 };
            if seq != 11 {
                let now = Moment { now: seq * 100_000 + late, cuts: &cuts };
                player.arrived(&chunk(seq), now, &mut tally);
            }
        }
        let [(due_low, low), (due_high, high)] = player.continuity(9_950_000, &cuts);
        assert_eq!((due_low, due_low - low), (85, 2));
        assert_eq!((due_high, due_high - high), (70, 1));
        assert_eq!(tally.duplicates, 0);
    }

    #[test]
    fn a_sink_that_repeats_leaves_out_or_forges_is_found_out() {
        let (mut player, mut tally, cuts) = playing();
        let at = Moment { now: 20_000, cuts: &cuts };
        let again = player.deliver(&Delivery::Chunk(chunk(0)), at, &mut tally);
        assert!(again.is_err());
        assert!(player.deliver(&Delivery::Chunk(chunk(2)), at, &mut tally).is_err());
        let forged = Delivery::Chunk(chunk(1).polluted());
        assert!(player.deliver(&forged, at, &mut tally).is_err());
        let cause = SkipCause::Deadline;
        let skip = Delivery::Skipped { from_seq: 1, to_seq: 4, cause };
        assert!(player.deliver(&skip, at, &mut tally).is_ok());
        assert!(player.deliver(&Delivery::Chunk(chunk(5)), at, &mut tally).is_ok());
        assert_eq!((player.skips, player.skipped), (1, 4));
    }

    #[test]
    fn a_repair_lasts_as_long_as_nothing_came() {
        let (mut player, mut tally, _) = playing();
        player.failed_over(0, Some(300), &mut tally);
        assert_eq!(tally.repair.percentile(0.5), Some(300.0));
        player.failed_over(0, None, &mut tally);
        assert_eq!(tally.repair.count(), 1, "a stripe that never came was not repaired");
    }
}
