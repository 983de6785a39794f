//! At which rate an encoder runs while the uplink changes: a pure decision.
//!
//! Owns when the rate goes down and up again, and how far. Does not own the measurement (see the relay's
//! uplink meter), nor the arithmetic of slots (the overlay's), nor the encoder.
//!
//! Down at once, since what doesn't fit is late for everybody; up by small steps, and only after a
//! while in which all children had room for more: a picture that gets better and worse all the time is
//! worse than one that stays.

use std::time::Duration;

use crate::{time::Timestamp, units::Bitrate};

/// An encoder goes no lower than this, where its ceiling is four times as high: with less, H.264 of
/// the sizes that are streamed is blocks without content.
pub const FLOOR_MAX: Bitrate = Bitrate::from_kbps(300);
/// ... and otherwise no lower than this share of its ceiling: a quarter of the bits leaves a picture
/// that is poor, and still the same picture.
const FLOOR_PERCENT: u64 = 25;
/// No encoder takes less.
const ENCODER_MIN: Bitrate = Bitrate::from_kbps(16);
/// From one change to the next one down: the uplink's estimate is a second old.
const DOWN_EVERY: Duration = Duration::from_secs(1);
/// There is room for more for so long before the rate goes up.
const UP_AFTER: Duration = Duration::from_secs(5);
/// One step up.
const UP_PERCENT: u64 = 125;
/// A step that would be smaller than this is not worth a change, unless it reaches the ceiling.
const UP_MIN_PERCENT: u64 = 112;

/// What the uplink has room for, as rates of the encoded picture.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// One copy of the stream fits at this rate: above it nobody can be served.
    pub one: Bitrate,
    /// All copies that are sent now fit at this rate.
    pub all: Bitrate,
}

/// Follows the uplink; see the module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RateAdapter {
    ceiling: Bitrate,
    floor: Bitrate,
    target: Bitrate,
    moved_at: Option<Timestamp>,
    roomy_since: Option<Timestamp>,
}

impl RateAdapter {
    /// An encoder that runs at `ceiling`, its highest rate.
    #[must_use]
    pub fn new(ceiling: Bitrate) -> Self {
        let floor = floor(ceiling);
        Self { ceiling, floor, target: ceiling, moved_at: None, roomy_since: None }
    }

    /// The rate at which the encoder should run.
    #[must_use]
    pub const fn target(&self) -> Bitrate {
        self.target
    }

    /// Never below this.
    #[must_use]
    pub const fn floor(&self) -> Bitrate {
        self.floor
    }

    /// Hears what there is room for, `None` while nobody knows; the new target, when it changes. To
    /// be called at least once a second.
    pub fn observe(&mut self, room: Option<Room>, now: Timestamp) -> Option<Bitrate> {
        let Room { one, all } = room.unwrap_or(Room { one: self.ceiling, all: self.ceiling });
        let fitting = one.clamp(self.floor, self.ceiling);
        if fitting < self.target {
            self.roomy_since = None;
            let rests = self.moved_at.is_some_and(|at| now.since(at) < DOWN_EVERY);
            return if rests { None } else { self.go_to(fitting, now) };
        }
        let goal = one.min(all).min(self.ceiling).min(self.target.percent(UP_PERCENT));
        let is_worth_it = goal >= self.target.percent(UP_MIN_PERCENT) || goal == self.ceiling;
        if goal <= self.target || !is_worth_it {
            self.roomy_since = None;
            return None;
        }
        let since = *self.roomy_since.get_or_insert(now);
        if now.since(since) < UP_AFTER {
            return None;
        }
        // The next step waits as long again.
        self.roomy_since = None;
        self.go_to(goal, now)
    }

    const fn go_to(&mut self, target: Bitrate, now: Timestamp) -> Option<Bitrate> {
        self.target = target;
        self.moved_at = Some(now);
        Some(target)
    }
}

/// The lowest rate of an encoder whose highest is `ceiling`.
#[must_use]
pub fn floor(ceiling: Bitrate) -> Bitrate {
    ceiling.percent(FLOOR_PERCENT).min(FLOOR_MAX).max(ENCODER_MIN).min(ceiling)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kbps(kbps: u64) -> Bitrate {
        Bitrate::from_kbps(kbps)
    }

    fn room(one: u64) -> Option<Room> {
        Some(Room { one: kbps(one), all: kbps(one) })
    }

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    /// Looks every 200 ms over `[from, to)` milliseconds; when the target changed, and to what.
    fn run(
        adapter: &mut RateAdapter,
        from: u64,
        to: u64,
        room: Option<Room>,
    ) -> Vec<(u64, Bitrate)> {
        (from..to)
            .step_by(200)
            .filter_map(|ms| adapter.observe(room, at(ms)).map(|target| (ms, target)))
            .collect()
    }

    #[test]
    fn an_uplink_that_nobody_knows_is_no_reason_to_change_anything() {
        let mut adapter = RateAdapter::new(kbps(2_500));
        assert_eq!(run(&mut adapter, 0, 60_000, None), []);
        assert_eq!(adapter.target(), kbps(2_500));
    }

    #[test]
    fn it_goes_down_at_once_to_what_fits_and_never_below_the_floor() {
        let mut adapter = RateAdapter::new(kbps(2_500));
        assert_eq!(adapter.observe(room(1_100), at(0)), Some(kbps(1_100)));
        assert_eq!(adapter.observe(room(1_100), at(200)), None);
        assert_eq!(adapter.observe(room(0), at(400)), None, "one change a second");
        assert_eq!(adapter.observe(room(0), at(1_000)), Some(kbps(300)));
        assert_eq!(adapter.observe(room(0), at(5_000)), None, "it is as low as it gets");
    }

    #[test]
    fn it_goes_up_by_steps_after_seconds_of_room_and_never_above_the_ceiling() {
        let mut adapter = RateAdapter::new(kbps(1_000));
        adapter.observe(room(600), at(0));
        assert_eq!(
            run(&mut adapter, 200, 30_000, room(5_000)),
            [(5_200, kbps(750)), (10_400, Bitrate::from_bps(937_500)), (15_600, kbps(1_000))]
        );
    }

    #[test]
    fn room_that_comes_and_goes_does_not_lift_it() {
        let mut adapter = RateAdapter::new(kbps(1_000));
        adapter.observe(room(600), at(0));
        for start in (1_000..40_000).step_by(4_000) {
            assert_eq!(run(&mut adapter, start, start + 3_800, room(900)), []);
            assert_eq!(adapter.observe(room(620), at(start + 3_800)), None);
        }
    }

    #[test]
    fn a_little_more_room_is_no_reason_to_change_and_the_ceiling_is_reached_all_the_same() {
        let mut adapter = RateAdapter::new(kbps(1_000));
        adapter.observe(room(950), at(0));
        assert_eq!(run(&mut adapter, 1_000, 20_000, room(980)), []);
        assert_eq!(run(&mut adapter, 20_000, 30_000, room(1_500)), [(25_000, kbps(1_000))]);
    }

    #[test]
    fn it_goes_up_only_as_far_as_all_who_are_served_have_room_for() {
        let mut adapter = RateAdapter::new(kbps(1_000));
        adapter.observe(room(400), at(0));
        let shared = Some(Room { one: kbps(1_000), all: kbps(500) });
        assert_eq!(run(&mut adapter, 1_000, 30_000, shared), [(6_000, kbps(500))]);
        // More of them than fit is no reason to go down: who has no room waits for a slot.
        let crowded = Some(Room { one: kbps(1_000), all: kbps(100) });
        assert_eq!(run(&mut adapter, 30_000, 60_000, crowded), []);
    }

    #[test]
    fn the_floor_is_a_quarter_of_a_small_ceiling_and_300_kbit_of_a_large_one() {
        assert_eq!(floor(kbps(2_500)), kbps(300));
        assert_eq!(floor(kbps(400)), kbps(100));
        assert_eq!(floor(kbps(20)), kbps(16));
    }
}
