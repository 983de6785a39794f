//! Play: an FLV byte stream into a window, or decoded and counted without one.
//!
//! Owns the public types and the life of a player. How the pipeline is put together is `play/plan.rs`, when
//! a frame is shown `play/timeline.rs`, what is counted `play/meter.rs`, what a person sees and does at a
//! window `play/panel.rs`.

mod display;
mod input;
mod keys;
mod meter;
mod panel;
mod plan;
mod screen;
mod timeline;
mod watch;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use gstreamer as gst;
use tokio::sync::mpsc;

use crate::bus;
use crate::error::PlayError;
use crate::outlet::{Outlet, Shutter};

pub use input::PlayerInput;
pub use keys::KEYS;

/// How many events wait for a slow receiver; a player says a handful in its life.
const EVENTS_MAX: usize = 64;

/// Where to play.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PlaySink {
    /// A window when a display answers (by DISPLAY or WAYLAND_DISPLAY), else [`PlaySink::Fake`].
    #[default]
    Auto,
    /// A window, and the loudspeaker.
    Window,
    /// Decodes every frame and counts it, as fast as bytes come; shows nothing.
    Fake,
}

/// How to play.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlaySpec {
    /// Where to.
    pub sink: PlaySink,
    /// How much later than the newest arrival a window shows a frame. Covers the jitter of arrivals:
    /// frames that come later than this are dropped. No meaning for [`PlaySink::Fake`].
    pub lag: Duration,
    /// Decode and play sound as well.
    pub audio: bool,
}

impl Default for PlaySpec {
    /// Where a person sees it, 100 ms late (measured: 155 ms from camera to window, jitter 3 ms), with sound.
    fn default() -> Self {
        Self { sink: PlaySink::Auto, lag: Duration::from_millis(100), audio: true }
    }
}

/// What a player reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlayerEvent {
    /// The first frame is decoded and at the sink. Once.
    FirstFrame,
    /// Something is wrong and playing goes on. Dropped when the channel is full.
    Warning(String),
    /// The picture has this size from here on; also told of the first picture.
    Resized {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
    },
    /// The user closed the window, by its button or a key; the last event.
    Closed,
    /// Playing can't go on; the last event.
    Failed(String),
    /// Everything up to [`PlayerInput::end`] was played; the last event.
    Ended,
}

/// What a player has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlayStats {
    /// Decoded frames that reached the screen (a window) or the counting sink.
    pub frames_rendered: u64,
    /// Pieces of decoded sound that reached the sink, some 20 ms each.
    pub audio_buffers: u64,
    /// Pixels of the latest picture; 0 before the first.
    pub width: u32,
    /// Pixels of the latest picture; 0 before the first.
    pub height: u32,
    /// How loud a window is, in percent of the stream's own loudness, 0 while muted; `None` without sound.
    pub loudness_percent: Option<u8>,
}

/// A running player. Dropping it closes the window at once.
#[derive(Debug)]
pub struct Player {
    bus: gst::Bus,
    meter: Arc<meter::Meter>,
    board: panel::Board,
    loudness: panel::Loudness,
    shutter: Shutter,
    thread: Option<JoinHandle<()>>,
}

impl Player {
    /// Starts to play what is pushed into the returned input. Blocks while plugins load, usually well under
    /// a second.
    ///
    /// The receiver ends after [`PlayerEvent::Closed`], [`PlayerEvent::Failed`] or [`PlayerEvent::Ended`].
    ///
    /// # Errors
    /// When a window is asked for without a display, an element is missing, or the pipeline refuses to
    /// start.
    pub fn start(
        spec: &PlaySpec,
    ) -> Result<(Self, PlayerInput, mpsc::Receiver<PlayerEvent>), PlayError> {
        crate::init()?;
        let plan = plan::Plan::make(spec)?;
        let pipeline = plan.pipeline()?;
        let meter = meter::attach(&pipeline)?;
        if plan.keeps_time {
            timeline::attach(&pipeline, spec.lag);
        }
        let (input, room) = input::attach(&pipeline)?;
        let (outlet, shutter, events) = Outlet::new(EVENTS_MAX);
        keys::attach(&pipeline);
        let panel = panel::Panel::new(&pipeline);
        let (board, loudness) = (panel.board(), panel.loudness());
        let watch = watch::Watch::start(pipeline, panel, Arc::clone(&meter), room, outlet)?;
        let bus = watch.bus();
        let thread = std::thread::Builder::new()
            .name("astral-player".to_owned())
            .spawn(move || watch.run())
            .map_err(|error| PlayError::State { message: format!("no thread: {error}") })?;
        Ok((Self { bus, meter, board, loudness, shutter, thread: Some(thread) }, input, events))
    }

    /// What was played so far; also after the last event.
    pub fn stats(&self) -> PlayStats {
        PlayStats { loudness_percent: self.loudness.percent(), ..self.meter.stats() }
    }

    /// What a window shows over the picture while the user wants statistics: lines of plain text, at most
    /// 2 KiB. Nothing for other sinks.
    pub fn set_figures(&self, text: &str) {
        self.board.write(text);
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        self.shutter.shut();
        // A flushing bus refuses it: then the thread has ended already.
        let _ = self.bus.post(bus::own(gst::Structure::new_empty(watch::STOP)));
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that watched a player panicked");
        }
    }
}
