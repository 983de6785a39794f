//! When a window shows a frame: a fixed slack behind the live edge.
//!
//! A stream that is joined begins with a burst of the past (everything since the last keyframe), and only
//! then runs in real time. Shown from its first frame on, it would stay late by the length of that burst for
//! ever. So the base time of the sinks follows the *earliest* arrivals: what is older than the live edge
//! comes too late and is dropped, unseen, at the sink. Later the base moves only when a whole window of
//! arrivals was late (a stall, a slower path) or far too early (a faster path); jitter never moves it.
//!
//! [`Timeline`] is arithmetic on nanoseconds. Doesn't own clocks: [`attach`] reads them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gst::prelude::*;
use gstreamer as gst;

/// How long after the first frame every earlier arrival moves the base: a burst of the past is over by
/// then even on a slow path.
const SETTLING_NS: i64 = 2_000_000_000;
/// How much lateness or earliness is judged together: long enough for some keyframes, short enough that a
/// stall costs at most a second of dropped frames.
const WINDOW_NS: i64 = 1_000_000_000;
/// How far ahead of its time everything must come before the base moves back towards live; below it the
/// cost of a visible jump is higher than the gain.
const TOO_EARLY_NS: i64 = 500_000_000;
/// The sound and the picture of a stream.
const TRACKS: usize = 2;

/// Maps running time to clock time for one player.
#[derive(Clone, Debug)]
pub(crate) struct Timeline {
    slack_ns: i64,
    base_ns: Option<i64>,
    settled_at_ns: i64,
    window_ends_ns: i64,
    /// Per track the smallest (arrival - running time) since the last decision: its live edge.
    edges_ns: [Option<i64>; TRACKS],
}

impl Timeline {
    /// Frames are shown `slack_ns` after the live edge.
    pub(crate) fn new(slack_ns: i64) -> Self {
        Self {
            slack_ns,
            base_ns: None,
            settled_at_ns: 0,
            window_ends_ns: 0,
            edges_ns: [None; TRACKS],
        }
    }

    /// A frame of `track` with `running_time_ns` arrived at `now_ns`; returns the base time when it changes.
    pub(crate) fn on_arrival(
        &mut self,
        track: usize,
        running_time_ns: i64,
        now_ns: i64,
    ) -> Option<i64> {
        let offset = now_ns.saturating_sub(running_time_ns);
        let edge = self.edges_ns.get_mut(track)?;
        *edge = Some(edge.map_or(offset, |known| known.min(offset)));
        let Some(base) = self.base_ns else {
            self.settled_at_ns = now_ns.saturating_add(SETTLING_NS);
            return self.move_to(now_ns, self.target()?);
        };
        let target = self.target()?;
        if now_ns < self.settled_at_ns {
            return if target == base { None } else { self.move_to(now_ns, target) };
        }
        if now_ns < self.window_ends_ns {
            return None;
        }
        let late_ns = target.saturating_sub(base);
        if late_ns > self.slack_ns || late_ns < -TOO_EARLY_NS {
            self.edges_ns = [None; TRACKS];
            return self.move_to(now_ns, target);
        }
        self.edges_ns = [None; TRACKS];
        self.window_ends_ns = now_ns.saturating_add(WINDOW_NS);
        None
    }

    /// The base that shows the later track's live edge after exactly the slack.
    fn target(&self) -> Option<i64> {
        self.edges_ns.iter().flatten().max().map(|edge| edge.saturating_add(self.slack_ns))
    }

    fn move_to(&mut self, now_ns: i64, base: i64) -> Option<i64> {
        self.window_ends_ns = now_ns.saturating_add(WINDOW_NS);
        self.base_ns = Some(base);
        Some(base)
    }
}

/// Lets `pipeline` keep the time of a [`Timeline`] with slack `lag`. Call it before the pipeline starts.
pub(crate) fn attach(pipeline: &gst::Pipeline, lag: Duration) {
    let slack_ns = i64::try_from(lag.as_nanos()).unwrap_or(i64::MAX / 2);
    let clock = gst::SystemClock::obtain();
    pipeline.use_clock(Some(&clock));
    // Without a start time the pipeline leaves base times alone when it begins to play.
    pipeline.set_start_time(gst::ClockTime::NONE);
    if let Some(now) = clock.time().into() {
        pipeline.set_base_time(now);
    }
    let timeline = Arc::new(Mutex::new(Timeline::new(slack_ns)));
    for (track, name) in ["video_in", "audio_in"].into_iter().enumerate() {
        let Some(pad) = pipeline.by_name(name).and_then(|queue| queue.static_pad("sink")) else {
            continue;
        };
        let (pipeline, clock, timeline) =
            (pipeline.downgrade(), clock.clone(), Arc::clone(&timeline));
        pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
            if let (Some(pipeline), Some(running_time)) =
                (pipeline.upgrade(), running_time_ns(pad, info))
            {
                let now = i64::try_from(clock.time().nseconds()).unwrap_or(i64::MAX);
                let mut timeline = timeline.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(base) = timeline.on_arrival(track, running_time, now) {
                    show_at(&pipeline, base);
                }
            }
            gst::PadProbeReturn::Ok
        });
    }
}

fn running_time_ns(pad: &gst::Pad, info: &gst::PadProbeInfo<'_>) -> Option<i64> {
    let time = info.buffer()?.dts_or_pts()?;
    let event = pad.sticky_event::<gst::event::Segment>(0)?;
    let segment = event.segment().downcast_ref::<gst::ClockTime>()?;
    i64::try_from(segment.to_running_time(time)?.nseconds()).ok()
}

/// Sinks read their base time at each frame, so it can move while they play.
fn show_at(pipeline: &gst::Pipeline, base_ns: i64) {
    let base = gst::ClockTime::from_nseconds(u64::try_from(base_ns).unwrap_or(0));
    pipeline.set_base_time(base);
    for element in pipeline.iterate_recurse().into_iter().flatten() {
        if element.element_flags().contains(gst::ElementFlags::SINK) {
            element.set_base_time(base);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;
    const SLACK: i64 = 100 * MS;
    const FRAME: i64 = 33 * MS;

    /// Plays `frames` frames in real time from running time `from`, `delay` after their time; returns the
    /// moves of the base.
    fn run(
        timeline: &mut Timeline,
        from: i64,
        frames: i64,
        delay: impl Fn(i64) -> i64,
    ) -> Vec<i64> {
        (0..frames)
            .filter_map(|frame| {
                let running_time = from + frame * FRAME;
                timeline.on_arrival(0, running_time, running_time + delay(frame))
            })
            .collect()
    }

    #[test]
    fn a_burst_of_the_past_does_not_make_the_stream_late() {
        let mut timeline = Timeline::new(SLACK);
        // Two seconds of the past arrive within 60 ms; the first frame after them is live.
        let burst_at = 10_000 * MS;
        let mut base = 0;
        for frame in 0..60 {
            if let Some(moved) = timeline.on_arrival(0, frame * FRAME, burst_at + frame * MS) {
                base = moved;
            }
        }
        let newest = 59 * FRAME;
        assert_eq!(base + newest, burst_at + 59 * MS + SLACK);
    }

    #[test]
    fn jitter_within_the_slack_never_moves_the_base_once_settled() {
        let mut timeline = Timeline::new(SLACK);
        run(&mut timeline, 0, 90, |frame| (frame * 7 % 10) * MS);
        let moves = run(&mut timeline, 90 * FRAME, 900, |frame| 5 * MS + (frame * 7 % 60) * MS);
        assert!(moves.is_empty(), "{moves:?}");
    }

    #[test]
    fn a_path_that_became_slower_moves_the_base_once() {
        let mut timeline = Timeline::new(SLACK);
        run(&mut timeline, 0, 90, |_| 0);
        let moves = run(&mut timeline, 90 * FRAME, 300, |_| 400 * MS);
        assert_eq!(moves, [400 * MS + SLACK]);
    }

    #[test]
    fn a_stall_that_is_caught_up_leaves_the_base_alone() {
        let mut timeline = Timeline::new(SLACK);
        run(&mut timeline, 0, 90, |_| 0);
        // Frames 0-24 all arrive when the 25th is due, then it runs on as before.
        let moves =
            run(
                &mut timeline,
                90 * FRAME,
                300,
                |frame| if frame < 25 { (25 - frame) * FRAME } else { 0 },
            );
        assert!(moves.is_empty(), "{moves:?}");
    }

    #[test]
    fn the_picture_waits_for_sound_that_comes_later() {
        let mut timeline = Timeline::new(SLACK);
        let base = timeline.on_arrival(0, 0, 1000 * MS).unwrap();
        assert_eq!(base, 1000 * MS + SLACK);
        assert_eq!(timeline.on_arrival(1, 0, 1050 * MS), Some(1050 * MS + SLACK));
    }

    #[test]
    fn a_clock_that_drifts_is_followed_before_anything_is_lost_for_long() {
        let mut timeline = Timeline::new(SLACK);
        run(&mut timeline, 0, 90, |_| 0);
        // The source's clock is slow by 1 in 1000: after 100 s everything is 100 ms late.
        let moves = run(&mut timeline, 90 * FRAME, 6000, |frame| frame * FRAME / 1000);
        assert_eq!(moves.len(), 1);
    }
}
