//! Which rendition of a stream a viewer gets: a pure decision.
//!
//! Owns when to go down and up again. Does not own what can be had (the overlay finds out by trying), how
//! a switch is made without a seam (the edges do), nor the lag, which is the relay's.
//!
//! Down soon, since a picture that stands still is worse than a small one; up by trying, beside what
//! plays and after a calm while, since nobody knows what an uplink elsewhere has room for. A try that
//! failed, or that held for a moment only, is repeated ever less often.

use std::{collections::VecDeque, time::Duration};

use crate::time::Timestamp;

/// So many skips ...
const SKIPS_MIN: usize = 2;
/// ... within so long mean that the lag can't be held; a single one is a failover that cost something.
const SKIPS_WITHIN: Duration = Duration::from_secs(10);
/// Nothing to play for so long means the same: three times what a failover may take.
const STALL_MAX: Duration = Duration::from_secs(3);
/// A stream that was just joined, or switched to, may take longer to begin.
const START_MAX: Duration = Duration::from_secs(4);
/// Calm for so long, a higher rendition is tried; the first time.
pub const PATIENCE_MIN: Duration = Duration::from_secs(20);
/// ... and at the longest.
pub const PATIENCE_MAX: Duration = Duration::from_secs(320);
/// A higher rendition that plays for so long was worth the try.
const PROBATION: Duration = Duration::from_secs(30);

/// What was seen of the rendition that plays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen {
    /// Media came.
    Media,
    /// Media was left out, because it did not come in time.
    Skipped,
    /// Nothing is to come: its source pauses, or is lost. No rendition of it would play.
    Idle,
    /// Time passed.
    Nothing,
    /// What was asked for plays: the rendition with this number.
    Switched(usize),
    /// A higher one was tried, and does not come as it should.
    Refused,
}

/// What to do about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Switch {
    /// The lag can't be held: take the rendition with this number, and do not wait for it beside what
    /// plays.
    Down(usize),
    /// It may be worth a try: take the rendition with this number as soon as it comes well.
    Try(usize),
}

/// Chooses; see the module. Renditions have numbers: 0 is the source's own, each further one is lower.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Switcher {
    at: usize,
    /// Asked for and not there yet.
    wanted: Option<usize>,
    skips: VecDeque<Timestamp>,
    /// Something came last, or was told to come.
    media_at: Timestamp,
    /// It plays, rather than begins.
    plays: bool,
    idle: bool,
    /// Without trouble and without a switch since.
    calm_since: Timestamp,
    patience: Duration,
    /// Since when a higher rendition plays that has to prove itself.
    on_trial: Option<Timestamp>,
}

impl Switcher {
    /// A viewer that begins with the source's own.
    #[must_use]
    pub const fn new(now: Timestamp) -> Self {
        Self {
            at: 0,
            wanted: None,
            skips: VecDeque::new(),
            media_at: now,
            plays: false,
            idle: false,
            calm_since: now,
            patience: PATIENCE_MIN,
            on_trial: None,
        }
    }

    /// The rendition that plays.
    #[must_use]
    pub const fn at(&self) -> usize {
        self.at
    }

    /// Hears what was seen, of a stream with so many `renditions` besides the source's own. To be
    /// called at least once a second.
    pub fn observe(&mut self, seen: Seen, renditions: usize, now: Timestamp) -> Option<Switch> {
        match seen {
            Seen::Media => {
                (self.media_at, self.plays, self.idle) = (now, true, false);
            }
            Seen::Skipped => {
                self.skips.push_back(now);
                if self.skips.len() > SKIPS_MIN {
                    self.skips.pop_front();
                }
                self.calm_since = now;
            }
            Seen::Idle => self.idle = true,
            Seen::Nothing => {}
            Seen::Switched(to) => return self.switched(to, now),
            Seen::Refused => {
                if self.wanted.take_if(|wanted| *wanted < self.at).is_some() {
                    self.be_patient();
                    self.calm_since = now;
                }
                return None;
            }
        }
        if self.idle {
            (self.media_at, self.calm_since) = (now, now);
            return None;
        }
        self.judge(renditions, now)
    }

    fn judge(&mut self, renditions: usize, now: Timestamp) -> Option<Switch> {
        if self.on_trial.is_some_and(|since| now.since(since) >= PROBATION) {
            self.on_trial = None;
            self.patience = PATIENCE_MIN;
        }
        if self.is_in_trouble(now) {
            self.calm_since = now;
            let lower = self.at + 1;
            let goes_down = self.wanted.is_some_and(|wanted| wanted > self.at);
            if lower > renditions {
                return self.despair(now);
            }
            if goes_down {
                return None;
            }
            if self.on_trial.take().is_some() {
                self.be_patient();
            }
            self.wanted = Some(lower);
            return Some(Switch::Down(lower));
        }
        let is_calm = self.wanted.is_none() && now.since(self.calm_since) >= self.patience;
        let higher = self.at.checked_sub(1).filter(|_| is_calm && self.plays)?;
        self.wanted = Some(higher);
        Some(Switch::Try(higher))
    }

    /// The lowest does not come either: perhaps it is gone, and its stream is not.
    fn despair(&mut self, now: Timestamp) -> Option<Switch> {
        let is_long = now.since(self.media_at) >= self.patience;
        let higher = self.at.checked_sub(1).filter(|_| is_long && self.wanted.is_none())?;
        self.wanted = Some(higher);
        Some(Switch::Try(higher))
    }

    fn is_in_trouble(&self, now: Timestamp) -> bool {
        let patience = if self.plays { STALL_MAX } else { START_MAX };
        let stalls = now.since(self.media_at) >= patience;
        let first = self.skips.front().filter(|_| self.skips.len() >= SKIPS_MIN);
        stalls || first.is_some_and(|at| now.since(*at) < SKIPS_WITHIN)
    }

    fn switched(&mut self, to: usize, now: Timestamp) -> Option<Switch> {
        self.on_trial = (to < self.at).then_some(now);
        self.at = to;
        self.wanted = None;
        self.skips.clear();
        (self.media_at, self.calm_since, self.plays) = (now, now, false);
        None
    }

    fn be_patient(&mut self) {
        self.patience = (self.patience * 2).min(PATIENCE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    /// Media every 200 ms over `[from, to)` milliseconds; what was decided, and when.
    fn plays(switcher: &mut Switcher, from: u64, to: u64, renditions: usize) -> Vec<(u64, Switch)> {
        let look =
            |ms| switcher.observe(Seen::Media, renditions, at(ms)).map(|switch| (ms, switch));
        (from..to).step_by(200).filter_map(look).collect()
    }

    /// Nothing every 200 ms.
    fn silence(
        switcher: &mut Switcher,
        from: u64,
        to: u64,
        renditions: usize,
    ) -> Vec<(u64, Switch)> {
        let look =
            |ms| switcher.observe(Seen::Nothing, renditions, at(ms)).map(|switch| (ms, switch));
        (from..to).step_by(200).filter_map(look).collect()
    }

    /// A viewer that went down to the only lower rendition at `ms`.
    fn low(ms: u64) -> Switcher {
        let mut switcher = Switcher::new(at(0));
        plays(&mut switcher, 0, ms, 1);
        switcher.observe(Seen::Skipped, 1, at(ms));
        assert_eq!(switcher.observe(Seen::Skipped, 1, at(ms)), Some(Switch::Down(1)));
        assert_eq!(switcher.observe(Seen::Switched(1), 1, at(ms)), None);
        switcher
    }

    #[test]
    fn one_skip_is_no_reason_to_go_down_and_two_in_a_row_are() {
        let mut switcher = Switcher::new(at(0));
        plays(&mut switcher, 0, 1_000, 1);
        assert_eq!(switcher.observe(Seen::Skipped, 1, at(1_000)), None);
        assert_eq!(plays(&mut switcher, 1_000, 12_000, 1), []);
        assert_eq!(switcher.observe(Seen::Skipped, 1, at(12_000)), None, "the first is long ago");
        assert_eq!(switcher.observe(Seen::Skipped, 1, at(15_000)), Some(Switch::Down(1)));
        assert_eq!(switcher.observe(Seen::Skipped, 1, at(15_200)), None, "it is asked for");
    }

    #[test]
    fn nothing_to_play_is_a_reason_to_go_down_and_a_pause_is_none() {
        let mut switcher = Switcher::new(at(0));
        plays(&mut switcher, 0, 1_000, 2);
        assert_eq!(silence(&mut switcher, 1_000, 6_000, 2), [(3_800, Switch::Down(1))]);
        let mut paused = Switcher::new(at(0));
        plays(&mut paused, 0, 1_000, 2);
        paused.observe(Seen::Idle, 2, at(1_000));
        assert_eq!(silence(&mut paused, 1_000, 90_000, 2), []);
        assert_eq!(plays(&mut paused, 90_000, 92_000, 2), []);
    }

    #[test]
    fn a_stream_that_never_begins_is_taken_in_a_lower_rendition_step_by_step() {
        let mut switcher = Switcher::new(at(0));
        assert_eq!(silence(&mut switcher, 0, 10_000, 2), [(4_000, Switch::Down(1))]);
        switcher.observe(Seen::Switched(1), 2, at(10_000));
        assert_eq!(silence(&mut switcher, 10_000, 30_000, 2), [(14_000, Switch::Down(2))]);
        switcher.observe(Seen::Switched(2), 2, at(30_000));
        assert_eq!(silence(&mut switcher, 30_000, 50_000, 2), [], "there is none lower");
        assert_eq!(silence(&mut switcher, 50_000, 60_000, 2), [(50_000, Switch::Try(1))]);
    }

    #[test]
    fn without_renditions_nothing_is_ever_done() {
        let mut switcher = Switcher::new(at(0));
        assert_eq!(silence(&mut switcher, 0, 60_000, 0), []);
        switcher.observe(Seen::Skipped, 0, at(60_000));
        assert_eq!(switcher.observe(Seen::Skipped, 0, at(60_100)), None);
    }

    #[test]
    fn after_a_calm_while_the_higher_one_is_tried_and_taken_when_it_comes_well() {
        let mut switcher = low(1_000);
        assert_eq!(plays(&mut switcher, 1_000, 60_000, 1), [(21_000, Switch::Try(0))]);
        assert_eq!(switcher.at(), 1, "what plays goes on meanwhile");
        switcher.observe(Seen::Switched(0), 1, at(60_000));
        assert_eq!(switcher.at(), 0);
        assert_eq!(plays(&mut switcher, 60_000, 200_000, 1), []);
    }

    #[test]
    fn a_try_that_fails_is_repeated_ever_less_often() {
        let mut switcher = low(0);
        let mut tries = Vec::new();
        for ms in (0..2_000_000).step_by(200) {
            if let Some(switch) = switcher.observe(Seen::Media, 1, at(ms)) {
                assert_eq!(switch, Switch::Try(0));
                tries.push(ms / 1_000);
                switcher.observe(Seen::Refused, 1, at(ms));
            }
        }
        assert_eq!(tries, [20, 60, 140, 300, 620, 940, 1_260, 1_580, 1_900]);
    }

    #[test]
    fn one_that_held_for_a_moment_only_is_tried_later_and_one_that_held_starts_anew() {
        let mut switcher = low(0);
        assert_eq!(plays(&mut switcher, 0, 20_200, 1), [(20_000, Switch::Try(0))]);
        switcher.observe(Seen::Switched(0), 1, at(21_000));
        plays(&mut switcher, 21_000, 26_000, 1);
        assert_eq!(silence(&mut switcher, 26_000, 29_000, 1), [(28_800, Switch::Down(1))]);
        switcher.observe(Seen::Switched(1), 1, at(29_000));
        assert_eq!(plays(&mut switcher, 29_000, 69_200, 1), [(69_000, Switch::Try(0))]);
        switcher.observe(Seen::Switched(0), 1, at(70_000));
        plays(&mut switcher, 70_000, 101_000, 1);
        assert_eq!(silence(&mut switcher, 101_000, 104_000, 1), [(103_800, Switch::Down(1))]);
        switcher.observe(Seen::Switched(1), 1, at(104_000));
        assert_eq!(plays(&mut switcher, 104_000, 124_200, 1), [(124_000, Switch::Try(0))]);
    }

    #[test]
    fn trouble_while_a_higher_one_is_tried_goes_on_down() {
        let mut switcher = low(0);
        assert_eq!(plays(&mut switcher, 0, 20_200, 2), [(20_000, Switch::Try(0))]);
        assert_eq!(silence(&mut switcher, 20_200, 24_000, 2), [(23_000, Switch::Down(2))]);
    }
}
