//! What a player counts, and the messages by which its sinks tell what they see.
//!
//! Doesn't own the events for the caller: `watch.rs` makes them from the messages posted here.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use gst::prelude::*;
use gstreamer as gst;

use super::PlayStats;
use crate::bus;
use crate::error::PlayError;

/// Name of the message of the first frame.
pub(crate) const FIRST_FRAME: &str = "first-frame";
/// Name of the message of a new picture size; its fields are `width` and `height` (u32).
pub(crate) const RESIZED: &str = "resized";
/// Name of the message of a sink that has seen the end of its stream.
pub(crate) const DRAINED: &str = "drained";

/// Counters of one player.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    frames: AtomicU64,
    audio_buffers: AtomicU64,
    width: AtomicU32,
    height: AtomicU32,
    video: Track,
    audio: Track,
    /// The element that shows frames, found once its bin has chosen it.
    screen: OnceLock<gst::glib::WeakRef<gst::Element>>,
    /// What it had shown when it went away.
    shown: AtomicU64,
}

/// How far one track of the stream has come.
#[derive(Debug, Default)]
struct Track {
    /// Where it leaves the demuxer; linked as soon as the stream turns out to have this track.
    entry: gst::glib::WeakRef<gst::Pad>,
    drained: AtomicBool,
}

impl Track {
    fn is_open(&self) -> bool {
        let exists = self.entry.upgrade().is_some_and(|entry| entry.is_linked());
        exists && !self.drained.load(Ordering::Acquire)
    }
}

impl Meter {
    /// The counters as they are now.
    pub(crate) fn stats(&self) -> PlayStats {
        PlayStats {
            frames_rendered: self.rendered(),
            audio_buffers: self.audio_buffers.load(Ordering::Relaxed),
            width: self.width.load(Ordering::Relaxed),
            height: self.height.load(Ordering::Relaxed),
            loudness_percent: None,
        }
    }

    /// True when every track the stream has is played to its end. A sink without a track never ends.
    pub(crate) fn is_drained(&self) -> bool {
        !self.video.is_open() && !self.audio.is_open()
    }

    /// Keeps the count of the screen, whose own count is lost when the pipeline stops.
    pub(crate) fn keep(&self) {
        self.shown.fetch_max(self.rendered(), Ordering::Relaxed);
    }

    /// A sink counts what it rendered and what it dropped as too late; only the first is of interest.
    fn rendered(&self) -> u64 {
        let screen = self.screen.get().and_then(gst::glib::WeakRef::upgrade);
        let live =
            screen.filter(|screen| screen.find_property("stats").is_some()).and_then(|screen| {
                screen.property::<gst::Structure>("stats").get::<u64>("rendered").ok()
            });
        let kept = self.shown.load(Ordering::Relaxed);
        live.map_or(kept, |live| live.max(kept))
    }
}

/// Watches the sinks `video` and `audio` (if there is one) of `pipeline`.
///
/// # Errors
/// When the description has no sink `video`.
pub(crate) fn attach(pipeline: &gst::Pipeline) -> Result<Arc<Meter>, PlayError> {
    let meter = Arc::new(Meter::default());
    for (track, entry) in [(&meter.video, "video_in"), (&meter.audio, "audio_in")] {
        track.entry.set(sink_of(pipeline, entry).map(|(_, pad)| pad).as_ref());
    }
    let bus = pipeline.bus().expect("a pipeline made by this crate has a bus");
    let Some((video, pad)) = sink_of(pipeline, "video") else {
        return Err(PlayError::State {
            message: "the description has no sink `name=video`".to_owned(),
        });
    };
    watch_video(&video, &pad, &meter, &bus);
    // Before it is scaled to the window.
    let picture = sink_of(pipeline, "picture").map_or(pad, |(_, pad)| pad);
    watch_size(&picture, &meter, &bus);
    if let Some((_, pad)) = sink_of(pipeline, "audio") {
        let meter = Arc::clone(&meter);
        pad.add_probe(PROBED, move |_, info| {
            if info.buffer().is_some() {
                meter.audio_buffers.fetch_add(1, Ordering::Relaxed);
            }
            if is_end(info) {
                meter.audio.drained.store(true, Ordering::Release);
                tell(&bus, gst::Structure::new_empty(DRAINED));
            }
            gst::PadProbeReturn::Ok
        });
    }
    Ok(meter)
}

const PROBED: gst::PadProbeType =
    gst::PadProbeType::BUFFER.union(gst::PadProbeType::EVENT_DOWNSTREAM);

fn sink_of(pipeline: &gst::Pipeline, name: &str) -> Option<(gst::Element, gst::Pad)> {
    let element = pipeline.by_name(name)?;
    let pad = element.static_pad("sink")?;
    Some((element, pad))
}

fn watch_video(video: &gst::Element, pad: &gst::Pad, meter: &Arc<Meter>, bus: &gst::Bus) {
    let (video, meter, bus) = (video.downgrade(), Arc::clone(meter), bus.clone());
    pad.add_probe(PROBED, move |_, info| {
        if info.buffer().is_some() && meter.frames.fetch_add(1, Ordering::Relaxed) == 0 {
            if let Some(screen) = video.upgrade().and_then(|video| screen_within(&video)) {
                let _ = meter.screen.set(screen.downgrade());
            }
            tell(&bus, gst::Structure::new_empty(FIRST_FRAME));
        }
        if is_end(info) {
            meter.video.drained.store(true, Ordering::Release);
            tell(&bus, gst::Structure::new_empty(DRAINED));
        }
        gst::PadProbeReturn::Ok
    });
}

/// Tells the size of the pictures that go into `pad`.
fn watch_size(pad: &gst::Pad, meter: &Arc<Meter>, bus: &gst::Bus) {
    let (meter, bus) = (Arc::clone(meter), bus.clone());
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        if let Some((width, height)) = size_of(info)
            && (
                meter.width.swap(width, Ordering::Relaxed),
                meter.height.swap(height, Ordering::Relaxed),
            ) != (width, height)
        {
            let size =
                gst::Structure::builder(RESIZED).field("width", width).field("height", height);
            tell(&bus, size.build());
        }
        gst::PadProbeReturn::Ok
    });
}

/// The sink itself, or the one that an automatic sink chose inside.
pub(crate) fn screen_within(video: &gst::Element) -> Option<gst::Element> {
    let Some(bin) = video.downcast_ref::<gst::Bin>() else { return Some(video.clone()) };
    bin.iterate_recurse().into_iter().flatten().find(|element| {
        element.element_flags().contains(gst::ElementFlags::SINK) && !element.is::<gst::Bin>()
    })
}

fn size_of(info: &gst::PadProbeInfo<'_>) -> Option<(u32, u32)> {
    let gst::EventView::Caps(caps) = info.event()?.view() else { return None };
    let structure = caps.caps().structure(0)?;
    let side = |name| u32::try_from(structure.get::<i32>(name).ok()?).ok();
    Some((side("width")?, side("height")?))
}

fn is_end(info: &gst::PadProbeInfo<'_>) -> bool {
    info.event().is_some_and(|event| event.type_() == gst::EventType::Eos)
}

fn tell(bus: &gst::Bus, structure: gst::Structure) {
    // A flushing bus refuses it: the player is being stopped.
    let _ = bus.post(bus::own(structure));
}
