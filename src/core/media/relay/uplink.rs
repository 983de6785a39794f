//! How much the uplink carries, learnt from what children acknowledge.
//!
//! Owns the estimate that stands in for an uplink that nobody told. Does not own what is done with
//! it (the overlay grants fewer or more tickets), nor any pacing.
//!
//! What children acknowledge in a second has left the uplink, so the estimate is never above what
//! was carried but for one cautious step at a time; and it falls only when most children were held
//! up for seconds on end, since one child's poor downlink says nothing about this end.

use std::time::Duration;

use crate::{time::Timestamp, units::Bitrate};

/// Over so long is counted: shorter, and bursts of acknowledgements count as rate.
const WINDOW: Duration = Duration::from_secs(1);
/// Windows in a row with most children held up, before the estimate falls.
const HELD_UP_MIN: u32 = 3;
/// Windows in a row at half of the estimate or more, and nobody held up, before it rises.
const EASY_MIN: u32 = 10;
/// A low estimate that nothing was measured for since is forgotten after this.
const DOUBT_AFTER: Duration = Duration::from_secs(5);
/// It rises by so many hundredths at a time.
const STEP_PERCENT: u64 = 125;
/// No estimate is higher.
const ESTIMATE_MAX: Bitrate = Bitrate::from_mbps(10_000);

/// See the module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct UplinkMeter {
    since: Timestamp,
    acked: u64,
    held_up: u32,
    easy: u32,
    estimate: Option<Bitrate>,
}

/// How the children fared when a window ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Children {
    /// Children with a stripe that flows.
    pub(crate) flowing: usize,
    /// Of these, such whose window of unacknowledged bytes kept chunks back.
    pub(crate) held_up: usize,
}

impl UplinkMeter {
    pub(crate) const fn new(now: Timestamp) -> Self {
        Self { since: now, acked: 0, held_up: 0, easy: 0, estimate: None }
    }

    pub(crate) const fn estimate(&self) -> Option<Bitrate> {
        self.estimate
    }

    /// Whether the estimate is below what is assumed without any, and old. It keeps everybody out,
    /// and without children nothing would ever correct it.
    pub(crate) fn is_doubtful(&self, assumed: Bitrate, now: Timestamp) -> bool {
        self.estimate.is_some_and(|estimate| estimate < assumed)
            && now.since(self.since) >= DOUBT_AFTER
    }

    /// As if nothing had ever been measured.
    pub(crate) const fn forget(&mut self, now: Timestamp) {
        *self = Self::new(now);
    }

    /// Children acknowledged so many bytes; true when a window is over and is to be judged.
    pub(crate) fn acked(&mut self, bytes: u64, now: Timestamp) -> bool {
        self.acked = self.acked.saturating_add(bytes);
        now.since(self.since) >= WINDOW
    }

    /// Judges the window; a new estimate, if it changed. `assumed` is what counts before the first.
    pub(crate) fn judge(
        &mut self,
        children: Children,
        assumed: Bitrate,
        now: Timestamp,
    ) -> Option<Bitrate> {
        let took = now.since(self.since);
        let rate = rate_of(self.acked, took);
        (self.since, self.acked) = (now, 0);
        if took > WINDOW * 3 || children.flowing == 0 {
            // Nothing was sent for a while: no measurement.
            (self.held_up, self.easy) = (0, 0);
            return None;
        }
        let known = self.estimate.unwrap_or(assumed);
        let next = if children.held_up * 2 > children.flowing {
            self.easy = 0;
            self.held_up += 1;
            if self.held_up >= HELD_UP_MIN { rate } else { rate.max(known) }
        } else {
            self.held_up = 0;
            self.easy = if rate.as_bps() >= known.as_bps() / 2 { self.easy + 1 } else { 0 };
            if self.easy >= EASY_MIN {
                self.easy = 0;
                known.percent(STEP_PERCENT)
            } else {
                known
            }
            .max(rate)
        };
        let next = next.min(ESTIMATE_MAX);
        // Changes of a few hundredths would only make tickets come and go.
        let differs = next.as_bps().abs_diff(known.as_bps()) * 20 > known.as_bps();
        if !differs {
            return None;
        }
        self.estimate = Some(next);
        Some(next)
    }
}

fn rate_of(bytes: u64, took: Duration) -> Bitrate {
    let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
    Bitrate::from_bps(bytes.saturating_mul(8).saturating_mul(1_000) / (us / 1_000).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASSUMED: Bitrate = Bitrate::from_mbps(10);

    /// Seconds of `mbps` acknowledged, with `held_up` of four children held up.
    fn run(meter: &mut UplinkMeter, from_s: u64, seconds: u64, mbps: u64, held_up: usize) {
        for second in from_s..from_s + seconds {
            let now = Timestamp::from_millis((second + 1) * 1_000);
            assert!(meter.acked(mbps * 125_000, now));
            meter.judge(Children { flowing: 4, held_up }, ASSUMED, now);
        }
    }

    #[test]
    fn it_falls_to_what_was_carried_once_most_children_are_held_up_for_seconds() {
        let mut meter = UplinkMeter::new(Timestamp::ZERO);
        run(&mut meter, 0, 2, 4, 4);
        assert_eq!(meter.estimate(), None, "a bad moment is no measurement");
        run(&mut meter, 2, 1, 4, 4);
        assert_eq!(meter.estimate(), Some(Bitrate::from_mbps(4)));
    }

    #[test]
    fn one_slow_child_says_nothing_about_the_uplink() {
        let mut meter = UplinkMeter::new(Timestamp::ZERO);
        run(&mut meter, 0, 60, 4, 1);
        assert_eq!(meter.estimate(), None);
    }

    #[test]
    fn it_rises_step_by_step_while_half_of_it_is_used_with_ease() {
        let mut meter = UplinkMeter::new(Timestamp::ZERO);
        run(&mut meter, 0, 9, 6, 0);
        assert_eq!(meter.estimate(), None);
        run(&mut meter, 9, 1, 6, 0);
        assert_eq!(meter.estimate(), Some(Bitrate::from_bps(12_500_000)));
        run(&mut meter, 10, 60, 6, 0);
        assert_eq!(meter.estimate(), Some(Bitrate::from_bps(12_500_000)), "less than half is used");
        run(&mut meter, 70, 1, 20, 0);
        assert_eq!(meter.estimate(), Some(Bitrate::from_mbps(20)), "that much was carried");
    }

    #[test]
    fn a_low_estimate_is_doubted_when_nobody_is_left_to_correct_it() {
        let mut meter = UplinkMeter::new(Timestamp::ZERO);
        run(&mut meter, 0, 3, 1, 4);
        assert_eq!(meter.estimate(), Some(Bitrate::from_mbps(1)));
        let at = |second: u64| Timestamp::from_millis(second * 1_000);
        assert!(!meter.is_doubtful(ASSUMED, at(7)));
        assert!(meter.is_doubtful(ASSUMED, at(8)));
        assert!(!meter.is_doubtful(Bitrate::from_kbps(500), at(8)), "it is no low one");
        meter.forget(at(8));
        assert_eq!(meter.estimate(), None);
    }

    #[test]
    fn silence_is_no_measurement() {
        let mut meter = UplinkMeter::new(Timestamp::ZERO);
        let late = Timestamp::from_millis(60_000);
        assert!(meter.acked(1, late));
        assert_eq!(meter.judge(Children { flowing: 4, held_up: 4 }, ASSUMED, late), None);
        assert_eq!(meter.estimate(), None);
    }
}
