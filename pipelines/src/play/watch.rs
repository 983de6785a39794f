//! The thread that watches a running player: bus messages in, events out.
//!
//! Doesn't own the counters (`meter.rs`), the input (`input.rs`) nor what a person's wishes do (`panel.rs`).

use std::sync::Arc;

use gst::prelude::*;
use gstreamer as gst;
use tokio::sync::Semaphore;

use super::PlayerEvent;
use super::keys::{self, Wish};
use super::meter::{self, Meter};
use super::panel::{Outcome, Panel};
use crate::bus::{self, Fault, FaultKind, Notice};
use crate::error::PlayError;
use crate::outlet::{Outlet, Unwanted};

/// Name of the message that stops the thread.
pub(crate) const STOP: &str = "stop";

/// A player's pipeline; dropping it sets it to NULL and refuses more input.
#[derive(Debug)]
pub(crate) struct Watch {
    pipeline: gst::Pipeline,
    bus: gst::Bus,
    panel: Panel,
    meter: Arc<Meter>,
    room: Arc<Semaphore>,
    outlet: Outlet<PlayerEvent>,
}

impl Watch {
    /// Starts `pipeline`; `room` is closed when it ends.
    ///
    /// # Errors
    /// When the pipeline refuses to start.
    pub(crate) fn start(
        pipeline: gst::Pipeline,
        panel: Panel,
        meter: Arc<Meter>,
        room: Arc<Semaphore>,
        outlet: Outlet<PlayerEvent>,
    ) -> Result<Self, PlayError> {
        let bus = pipeline.bus().expect("a pipeline made by this crate has a bus");
        let watch = Self { pipeline, bus, panel, meter, room, outlet };
        if watch.pipeline.set_state(gst::State::Playing).is_err() {
            let fault = bus::pending_fault(&watch.bus);
            let message =
                fault.map_or_else(|| "GStreamer doesn't say why".to_owned(), |fault| fault.message);
            return Err(PlayError::State { message });
        }
        Ok(watch)
    }

    /// Where [`STOP`] is posted.
    pub(crate) fn bus(&self) -> gst::Bus {
        self.bus.clone()
    }

    /// Watches until the player is over.
    pub(crate) fn run(mut self) {
        let last = self.follow();
        self.meter.keep();
        self.room.close();
        if self.pipeline.set_state(gst::State::Null).is_err() {
            tracing::warn!("a player's pipeline didn't stop cleanly");
        }
        if let Some(last) = last {
            // When nobody listens, nobody needs to know.
            let _ = self.outlet.send(last);
        }
    }

    /// The last event; `None` when the owner dropped the player.
    fn follow(&mut self) -> Option<PlayerEvent> {
        loop {
            match bus::next(&self.bus, self.panel.wait()) {
                Notice::End => return Some(PlayerEvent::Ended),
                Notice::Fault(fault) => return Some(last_word(fault)),
                Notice::Warning(warning) => {
                    if !self.outlet.offer(PlayerEvent::Warning(warning)) {
                        tracing::debug!("a warning was dropped: the receiver is behind");
                    }
                }
                Notice::Latency => {
                    if self.pipeline.recalculate_latency().is_err() {
                        tracing::debug!("the latency of a player can't be spread");
                    }
                }
                Notice::Own(structure) if structure.name() == STOP => return None,
                Notice::Own(structure) if structure.name() == meter::DRAINED => {
                    if self.meter.is_drained() {
                        return Some(PlayerEvent::Ended);
                    }
                }
                Notice::Own(structure) if structure.name() == keys::WISH => {
                    let outcome = Wish::of_message(&structure).map(|wish| self.panel.on(wish));
                    if outcome == Some(Outcome::Closes) {
                        return Some(PlayerEvent::Closed);
                    }
                }
                Notice::Own(structure) => {
                    if self.tell(&structure).is_err() {
                        tracing::debug!("nobody listens to the events of a player");
                    }
                }
                Notice::Silence => {}
            }
            self.panel.on_time();
        }
    }

    fn tell(&self, structure: &gst::Structure) -> Result<(), Unwanted> {
        if structure.name() == meter::FIRST_FRAME {
            return self.outlet.send(PlayerEvent::FirstFrame);
        }
        match (structure.get::<u32>("width"), structure.get::<u32>("height")) {
            (Ok(width), Ok(height)) => self.outlet.send(PlayerEvent::Resized { width, height }),
            _ => Ok(()),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.room.close();
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// Every window sink says "not found" when the user closes its window.
fn last_word(fault: Fault) -> PlayerEvent {
    match fault.kind {
        FaultKind::NotFound if fault.within("video") => PlayerEvent::Closed,
        FaultKind::NotFound | FaultKind::Resource | FaultKind::Other => {
            PlayerEvent::Failed(fault.message)
        }
    }
}
