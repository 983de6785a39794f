//! The thread that watches a running capture: bus messages in, events out, loops and fallbacks.
//!
//! Doesn't own the bytes (`tap.rs`), which go their own way from GStreamer's thread to the same channel.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use gst::prelude::*;
use gstreamer as gst;

use super::CaptureEvent;
use super::plan::Plan;
use super::tap::{self, Begin, Delivered};
use crate::bus::{self, Fault, FaultKind, Notice};
use crate::encoder::{ENCODER, RateProperty};
use crate::error::CaptureError;
use crate::outlet::Outlet;

/// How often a device that is gone is looked for.
const LOOK_EVERY: gst::ClockTime = gst::ClockTime::from_seconds(1);
/// How long a pipeline may take to drain after a request to stop; encoders hold less than a second.
const DRAIN_MAX: gst::ClockTime = gst::ClockTime::from_seconds(2);

/// What the owner wants; it only ever moves forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Capture. Next: `Stopping` or `Aborting`.
    Running = 0,
    /// Drain what is captured, then end. Next: `Aborting`.
    Stopping = 1,
    /// End at once. Last.
    Aborting = 2,
}

/// How the owner reaches the watching thread.
#[derive(Debug)]
pub(crate) struct Control {
    phase: AtomicU8,
    /// The bus of the pipeline that runs; it changes when the pipeline is built anew.
    bus: Mutex<gst::Bus>,
    /// The encoder that runs, and how its rate changes; the same.
    encoder: Mutex<Option<(gst::glib::WeakRef<gst::Element>, RateProperty)>>,
    /// The rate that is wanted of it, in kbit/s; 0 = as it was started.
    kbps: AtomicU32,
}

impl Control {
    /// Asks for `phase` and wakes the thread.
    pub(crate) fn request(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::SeqCst);
        let bus = self.bus.lock().unwrap_or_else(PoisonError::into_inner);
        // A flushing bus refuses it; then the thread is between two pipelines and reads the phase next.
        let _ = bus.post(bus::own(gst::Structure::new_empty("wake")));
    }

    fn phase(&self) -> Phase {
        match self.phase.load(Ordering::SeqCst) {
            0 => Phase::Running,
            1 => Phase::Stopping,
            _ => Phase::Aborting,
        }
    }

    fn follow(&self, bus: gst::Bus) {
        *self.bus.lock().unwrap_or_else(PoisonError::into_inner) = bus;
    }

    /// Changes the encoder's rate, also of pipelines to come; false when it can't be changed.
    pub(crate) fn set_rate(&self, kbps: u32) -> bool {
        self.kbps.store(kbps, Ordering::SeqCst);
        let encoder = self.encoder.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((encoder, property)) = encoder.as_ref() else { return false };
        // Without a pipeline the next one gets it.
        encoder.upgrade().is_none_or(|encoder| property.set(&encoder, kbps))
    }

    /// Another pipeline runs: its encoder gets the rate that the last one had.
    fn follow_encoder(&self, pipeline: &gst::Pipeline, property: Option<RateProperty>) {
        let found = pipeline.by_name(ENCODER).zip(property);
        let kbps = self.kbps.load(Ordering::SeqCst);
        if let (Some((encoder, property)), 1..) = (&found, kbps)
            && !property.set(encoder, kbps)
        {
            tracing::warn!("the new encoder does not take the rate of the last one");
        }
        *self.encoder.lock().unwrap_or_else(PoisonError::into_inner) =
            found.map(|(encoder, property)| (encoder.downgrade(), property));
    }
}

/// A capture and its current pipeline.
#[derive(Debug)]
pub(crate) struct Watch {
    plan: Plan,
    outlet: Arc<Outlet<CaptureEvent>>,
    control: Arc<Control>,
    running: Running,
    with_microphone: bool,
    /// The owner was told that the device is gone, and nothing came since.
    told_lost: bool,
}

/// One pipeline; dropping it sets it to NULL.
#[derive(Debug)]
struct Running {
    pipeline: gst::Pipeline,
    bus: gst::Bus,
    delivered: Arc<Delivered>,
}

/// Why one pipeline came to its end.
#[derive(Debug)]
enum Outcome {
    End,
    Aborted,
    Fault(Fault),
}

impl Watch {
    /// Builds and starts the pipeline of `plan`.
    ///
    /// # Errors
    /// When the pipeline can't be built or refuses to start.
    pub(crate) fn start(
        mut plan: Plan,
        outlet: Outlet<CaptureEvent>,
    ) -> Result<Self, CaptureError> {
        let outlet = Arc::new(outlet);
        for warning in plan.warnings.drain(..) {
            outlet.offer(CaptureEvent::Warning(warning));
        }
        let mut with_microphone = true;
        let first = Begin::First;
        let running = match Running::start(&plan, with_microphone, &outlet, first) {
            Err(Refusal::Fault(fault))
                if plan.can_lose_microphone() && fault.within("microphone") =>
            {
                outlet.offer(CaptureEvent::Warning(microphone_lost(&fault)));
                with_microphone = false;
                Running::start(&plan, with_microphone, &outlet, first)
            }
            other => other,
        }
        .map_err(Refusal::into_error)?;
        let control = Control {
            phase: AtomicU8::new(Phase::Running as u8),
            bus: Mutex::new(running.bus.clone()),
            encoder: Mutex::new(None),
            kbps: AtomicU32::new(0),
        };
        control.follow_encoder(&running.pipeline, plan.rate);
        let control = Arc::new(control);
        Ok(Self { plan, outlet, control, running, with_microphone, told_lost: false })
    }

    /// The description of the pipeline that runs.
    pub(crate) fn description(&self) -> &str {
        self.plan.text(self.with_microphone)
    }

    /// How to stop it.
    pub(crate) fn control(&self) -> Arc<Control> {
        Arc::clone(&self.control)
    }

    /// Watches until the capture is over; every capture ends with exactly one last event, unless nobody
    /// wants it.
    pub(crate) fn run(mut self) {
        loop {
            let outcome = self.follow();
            // NULL joins GStreamer's threads: no byte of this pipeline comes after what is sent below.
            self.running.halt();
            match self.go_on_after(outcome) {
                Ok(()) => {}
                Err(last) => {
                    for event in last {
                        if self.outlet.send(event).is_err() {
                            return;
                        }
                    }
                    return;
                }
            }
        }
    }

    fn follow(&self) -> Outcome {
        let mut draining = false;
        loop {
            match self.control.phase() {
                Phase::Running => {}
                Phase::Stopping if draining => {}
                Phase::Stopping => {
                    draining = true;
                    self.running.pipeline.send_event(gst::event::Eos::new());
                }
                Phase::Aborting => return Outcome::Aborted,
            }
            match bus::next(&self.running.bus, draining.then_some(DRAIN_MAX)) {
                Notice::End => return Outcome::End,
                Notice::Silence if draining => return Outcome::End,
                Notice::Fault(fault) if draining => {
                    // Sources that read ahead stumble over the end that is put in their way.
                    tracing::debug!(message = %fault.message, "a capture stumbled while it was stopped");
                    return Outcome::End;
                }
                Notice::Fault(fault) => return Outcome::Fault(fault),
                Notice::Warning(warning) => {
                    if !self.outlet.offer(CaptureEvent::Warning(warning)) {
                        tracing::debug!("a warning was dropped: the receiver is behind");
                    }
                }
                Notice::Latency => {
                    if self.running.pipeline.recalculate_latency().is_err() {
                        tracing::debug!("the latency of a capture can't be spread");
                    }
                }
                Notice::Silence | Notice::Own(_) => {}
            }
        }
    }

    /// Goes on with a new pipeline, or returns the last events.
    fn go_on_after(&mut self, outcome: Outcome) -> Result<(), Vec<CaptureEvent>> {
        match outcome {
            Outcome::Aborted => Err(Vec::new()),
            Outcome::End if self.plan.loops && self.control.phase() == Phase::Running => {
                if self.running.delivered.is_empty() {
                    return Err(vec![CaptureEvent::Failed("the file holds no media".to_owned())]);
                }
                self.restart()
            }
            Outcome::End => Err(vec![CaptureEvent::Ended]),
            Outcome::Fault(fault) => {
                let may_go_on = self.with_microphone && self.plan.can_lose_microphone();
                if may_go_on && fault.within("microphone") {
                    self.outlet.offer(CaptureEvent::Warning(microphone_lost(&fault)));
                    self.with_microphone = false;
                    return self.restart();
                }
                if is_lost_device(&fault) {
                    return self.await_device(fault.message);
                }
                Err(vec![CaptureEvent::Failed(fault.message)])
            }
        }
    }

    fn restart(&mut self) -> Result<(), Vec<CaptureEvent>> {
        let refused =
            |refusal: Refusal| vec![CaptureEvent::Failed(refusal.into_error().to_string())];
        self.running = Running::start(&self.plan, self.with_microphone, &self.outlet, Begin::Anew)
            .map_err(refused)?;
        self.control.follow(self.running.bus.clone());
        self.control.follow_encoder(&self.running.pipeline, self.plan.rate);
        Ok(())
    }

    /// Looks for the device until it is back, or the owner wants the end.
    fn await_device(&mut self, message: String) -> Result<(), Vec<CaptureEvent>> {
        // A device that opens and fails before its first picture was never back.
        if !self.told_lost || !self.running.delivered.is_empty() {
            self.told_lost = true;
            let lost = CaptureEvent::DeviceLost { message };
            self.outlet.send(lost).map_err(|_| Vec::new())?;
        }
        // The bus of a stopped pipeline takes no wake-up.
        let quiet = gst::Bus::new();
        self.control.follow(quiet.clone());
        loop {
            match self.control.phase() {
                Phase::Running => {}
                Phase::Stopping => return Err(vec![CaptureEvent::Ended]),
                Phase::Aborting => return Err(Vec::new()),
            }
            bus::next(&quiet, Some(LOOK_EVERY));
            if self.outlet.is_unwanted() {
                return Err(Vec::new());
            }
            // Another camera may be the first one now, or the same have another name.
            self.plan.choose_again();
            let opened =
                Running::start(&self.plan, self.with_microphone, &self.outlet, Begin::Anew);
            match opened {
                Ok(running) => {
                    self.running = running;
                    self.control.follow(self.running.bus.clone());
                    self.control.follow_encoder(&self.running.pipeline, self.plan.rate);
                    return Ok(());
                }
                Err(refusal) => {
                    let error = refusal.into_error();
                    tracing::debug!(%error, "the device is not back yet");
                }
            }
        }
    }
}

impl Running {
    fn start(
        plan: &Plan,
        with_microphone: bool,
        outlet: &Arc<Outlet<CaptureEvent>>,
        begin: Begin,
    ) -> Result<Self, Refusal> {
        let pipeline = plan.pipeline(with_microphone).map_err(Refusal::Error)?;
        let delivered = tap::connect(&pipeline, outlet, begin)
            .ok_or_else(|| Refusal::Error(plan.wrong(tap::NO_OUT)))?;
        let bus = pipeline.bus().expect("a pipeline made by this crate has a bus");
        let running = Self { pipeline, bus, delivered };
        match running.pipeline.set_state(gst::State::Playing) {
            Ok(_) => Ok(running),
            Err(_) => Err(bus::pending_fault(&running.bus).map_or_else(
                || {
                    Refusal::Error(CaptureError::State {
                        message: "GStreamer doesn't say why".to_owned(),
                    })
                },
                Refusal::Fault,
            )),
        }
    }

    fn halt(&self) {
        if self.pipeline.set_state(gst::State::Null).is_err() {
            tracing::warn!("a capture pipeline didn't stop cleanly");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.halt();
    }
}

/// Why a pipeline doesn't start.
#[derive(Debug)]
enum Refusal {
    Error(CaptureError),
    Fault(Fault),
}

impl Refusal {
    fn into_error(self) -> CaptureError {
        match self {
            Self::Error(error) => error,
            Self::Fault(fault) => CaptureError::State { message: fault.message },
        }
    }
}

fn microphone_lost(fault: &Fault) -> String {
    format!("the microphone can't be used ({}): the stream carries video only", fault.message)
}

/// True when a device that was there can't be used any more, and may come back.
fn is_lost_device(fault: &Fault) -> bool {
    match fault.kind {
        FaultKind::NotFound | FaultKind::Resource => fault.of_device,
        FaultKind::Other => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(kind: FaultKind, of_device: bool) -> Fault {
        Fault {
            path: vec!["camera".to_owned()],
            kind,
            of_device,
            message: "camera: poll error".to_owned(),
        }
    }

    #[test]
    fn only_a_device_that_is_gone_is_waited_for() {
        assert!(is_lost_device(&fault(FaultKind::Resource, true)));
        assert!(is_lost_device(&fault(FaultKind::NotFound, true)));
        assert!(!is_lost_device(&fault(FaultKind::Resource, false)));
        assert!(!is_lost_device(&fault(FaultKind::Other, true)));
    }

    const SOUND: &str = "audiotestsrc is-live=true ! voaacenc ! aacparse \
        ! flvmux streamable=true ! appsink name=out";

    /// Every event until the end, the bytes left out but for the first piece of each FLV stream.
    fn watched(plan: Plan, stop_after_bytes: usize) -> Vec<CaptureEvent> {
        crate::init().unwrap();
        let (outlet, _shutter, mut events) = Outlet::new(64);
        let watch = Watch::start(plan, outlet).unwrap();
        let control = watch.control();
        let thread = std::thread::spawn(move || watch.run());
        let mut seen = Vec::new();
        let mut pieces = 0;
        while let Some(event) = events.blocking_recv() {
            match event {
                CaptureEvent::Bytes(bytes) => {
                    pieces += 1;
                    if bytes.starts_with(b"FLV") {
                        seen.push(CaptureEvent::Bytes(bytes.slice(..3)));
                    }
                    if pieces == stop_after_bytes {
                        control.request(Phase::Stopping);
                    }
                }
                other => seen.push(other),
            }
        }
        thread.join().unwrap();
        seen
    }

    #[test]
    fn a_microphone_that_fails_while_it_runs_is_left_out_and_the_stream_begins_anew() {
        let failing = format!(
            "{SOUND} audiotestsrc is-live=true ! identity name=microphone error-after=5 ! fakesink"
        );
        let seen = watched(Plan::of_texts(&failing, Some(SOUND)), 40);
        let begin = CaptureEvent::Bytes(bytes::Bytes::from_static(b"FLV"));
        assert_eq!(seen.len(), 5, "{seen:?}");
        assert_eq!(seen[0], begin);
        assert!(matches!(&seen[1], CaptureEvent::Warning(text) if text.contains("video only")));
        assert_eq!(seen[2..], [CaptureEvent::Restarted, begin, CaptureEvent::Ended]);
    }

    #[test]
    fn a_microphone_that_does_not_open_is_left_out_from_the_start() {
        let failing = format!("{SOUND} filesrc name=microphone location=/no/such ! fakesink");
        let seen = watched(Plan::of_texts(&failing, Some(SOUND)), 10);
        assert!(matches!(&seen[0], CaptureEvent::Warning(text) if text.contains("video only")));
        let begin = CaptureEvent::Bytes(bytes::Bytes::from_static(b"FLV"));
        assert_eq!(seen[1..], [begin, CaptureEvent::Ended]);
    }

    #[test]
    fn a_microphone_that_was_named_ends_the_capture_when_it_fails() {
        let failing = format!(
            "{SOUND} audiotestsrc is-live=true ! identity name=microphone error-after=5 ! fakesink"
        );
        let seen = watched(Plan::of_texts(&failing, None), 1_000);
        assert!(matches!(seen.last(), Some(CaptureEvent::Failed(_))), "{seen:?}");
    }

    #[test]
    fn a_device_that_goes_away_is_told_once_and_the_stream_begins_anew_when_it_is_back() {
        crate::init().unwrap();
        // The device is there as long as this file is.
        let there = std::env::temp_dir().join(format!("astral-device-{}", std::process::id()));
        std::fs::write(&there, "x").unwrap();
        let device = format!(
            "{SOUND} videotestsrc is-live=true name=camera ! fakesink \
             filesrc location={} ! fakesink",
            there.display()
        );
        let (outlet, _shutter, mut events) = Outlet::new(64);
        let watch = Watch::start(Plan::of_texts(&device, None), outlet).unwrap();
        let (control, pipeline) = (watch.control(), watch.running.pipeline.clone());
        let thread = std::thread::spawn(move || watch.run());
        let mut next = || loop {
            match events.blocking_recv() {
                Some(CaptureEvent::Bytes(bytes)) if !bytes.starts_with(b"FLV") => {}
                Some(CaptureEvent::Warning(_)) => {}
                other => break other,
            }
        };
        assert!(matches!(next(), Some(CaptureEvent::Bytes(_))));
        std::fs::remove_file(&there).unwrap();
        let camera = pipeline.by_name("camera").unwrap();
        gst::element_error!(camera, gst::ResourceError::Read, ["poll error"]);
        let lost = next();
        assert!(matches!(&lost, Some(CaptureEvent::DeviceLost { .. })), "{lost:?}");
        std::fs::write(&there, "x").unwrap();
        assert_eq!(next(), Some(CaptureEvent::Restarted));
        assert!(matches!(next(), Some(CaptureEvent::Bytes(_))));
        control.request(Phase::Stopping);
        assert_eq!(next(), Some(CaptureEvent::Ended));
        thread.join().unwrap();
        std::fs::remove_file(&there).unwrap();
    }

    #[test]
    fn a_device_that_stays_away_keeps_nobody_from_stopping() {
        crate::init().unwrap();
        let text = format!("{SOUND} videotestsrc is-live=true name=camera ! fakesink");
        let (outlet, _shutter, mut events) = Outlet::new(64);
        let mut plan = Plan::of_texts(&text, None);
        let watch = Watch::start(plan.clone(), outlet).unwrap();
        let (control, pipeline) = (watch.control(), watch.running.pipeline.clone());
        plan = Plan::of_texts("filesrc location=/no/such ! appsink name=out", None);
        let watch = Watch { plan, ..watch };
        let thread = std::thread::spawn(move || watch.run());
        let camera = pipeline.by_name("camera").unwrap();
        gst::element_error!(camera, gst::ResourceError::Read, ["poll error"]);
        while !matches!(events.blocking_recv().unwrap(), CaptureEvent::DeviceLost { .. }) {}
        control.request(Phase::Stopping);
        assert_eq!(events.blocking_recv(), Some(CaptureEvent::Ended));
        thread.join().unwrap();
    }
}
