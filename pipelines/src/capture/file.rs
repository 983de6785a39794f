//! What a media file holds: which of its tracks can be sent as they are.
//!
//! Opens the file once with the same decodebin settings as `capture/file.launch`. Doesn't own playing it.

use std::path::Path;

use gst::prelude::*;
use gstreamer as gst;

use crate::bus::{self, Notice};
use crate::description;
use crate::error::CaptureError;

/// How long a file may take to show its tracks; local files take milliseconds.
const OPENING_MAX: gst::ClockTime = gst::ClockTime::from_seconds(10);

/// How a track gets into FLV.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Track {
    /// H.264 or AAC: untouched.
    Copy,
    /// Any other codec that can be decoded here.
    Encode,
    /// There is none.
    Absent,
}

/// The first video and the first audio track of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tracks {
    pub(crate) video: Track,
    pub(crate) audio: Track,
}

/// Reads the tracks of the file at `path`.
///
/// # Errors
/// When the file can't be read, or isn't a media file that GStreamer knows here.
pub(crate) fn tracks(path: &Path) -> Result<Tracks, CaptureError> {
    let wrong = |message: String| CaptureError::File { path: path.to_owned(), message };
    std::fs::File::open(path).map_err(|error| wrong(error.to_string()))?;
    let pipeline = description::parse(Path::new("the look into a file"), LOOK)?;
    let file = pipeline.by_name("file").expect("the description names it");
    file.set_property("location", path);
    let decoder = pipeline.by_name("tracks").expect("the description names it");
    let bus = pipeline.bus().expect("a pipeline made by this crate has a bus");
    drain_every_pad(&decoder, &pipeline);
    let teller = bus.clone();
    decoder.connect_no_more_pads(move |_| {
        // A bus that is flushing already refuses it; then nobody waits for it any more.
        let _ = teller.post(bus::own(gst::Structure::new_empty("tracks-known")));
    });
    let verdict =
        match pipeline.set_state(gst::State::Paused) {
            Ok(_) => until_known(&bus),
            Err(_) => Err(bus::pending_fault(&bus)
                .map_or("can't be opened".to_owned(), |fault| fault.message)),
        };
    let found = verdict.map(|()| read_pads(&decoder));
    let _ = pipeline.set_state(gst::State::Null);
    found.map_err(wrong)
}

fn drain_every_pad(decoder: &gst::Element, pipeline: &gst::Pipeline) {
    let pipeline = pipeline.downgrade();
    decoder.connect_pad_added(move |_, pad| {
        let Some(pipeline) = pipeline.upgrade() else { return };
        let Ok(drain) = gst::ElementFactory::make("fakesink").property("async", false).build()
        else {
            return;
        };
        let linked = pipeline.add(&drain).is_ok()
            && drain.sync_state_with_parent().is_ok()
            && drain.static_pad("sink").is_some_and(|sink| pad.link(&sink).is_ok());
        if !linked {
            tracing::debug!(pad = %pad.name(), "a track of the file isn't drained");
        }
    });
}

fn until_known(bus: &gst::Bus) -> Result<(), String> {
    loop {
        match bus::next(bus, Some(OPENING_MAX)) {
            Notice::Own(_) | Notice::End => return Ok(()),
            Notice::Fault(fault) => return Err(fault.message),
            Notice::Silence => return Err("shows no tracks".to_owned()),
            Notice::Warning(_) | Notice::Latency => {}
        }
    }
}

fn read_pads(decoder: &gst::Element) -> Tracks {
    let mut found = Tracks { video: Track::Absent, audio: Track::Absent };
    for pad in decoder.src_pads() {
        let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        let media =
            caps.structure(0).map(|structure| structure.name().to_string()).unwrap_or_default();
        match media.as_str() {
            "video/x-h264" if found.video == Track::Absent => found.video = Track::Copy,
            "video/x-raw" if found.video == Track::Absent => found.video = Track::Encode,
            "audio/mpeg" if found.audio == Track::Absent => found.audio = Track::Copy,
            "audio/x-raw" if found.audio == Track::Absent => found.audio = Track::Encode,
            _ => {}
        }
    }
    found
}

const LOOK: &str = "filesrc name=file ! decodebin name=tracks \
    caps=\"video/x-h264;audio/mpeg,mpegversion=4;video/x-raw;audio/x-raw\"";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_there_is_told_by_its_path() {
        crate::init().unwrap();
        let error = tracks(Path::new("/no/such/film.mp4")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the file /no/such/film.mp4: No such file or directory (os error 2)"
        );
    }

    #[test]
    fn a_file_that_is_not_media_is_refused() {
        crate::init().unwrap();
        let error =
            tracks(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))).unwrap_err();
        println!("{error}");
        assert!(matches!(error, CaptureError::File { .. }), "{error}");
    }
}
