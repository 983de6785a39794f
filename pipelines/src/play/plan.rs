//! From a spec to a pipeline: sink, decoders, description.
//!
//! Doesn't own the running pipeline (`watch.rs`).

use std::path::PathBuf;

use gst::prelude::*;
use gstreamer as gst;

use super::{PlaySink, PlaySpec, display};
use crate::description::{self, Description, Values};
use crate::error::PlayError;
use crate::packages::package_of;
use crate::shelf;

/// H.264 decoders, best first; the first is the one worth installing.
const H264_DECODERS: &[&str] = &["avdec_h264", "vtdec", "openh264dec"];
/// AAC decoders, best first.
const AAC_DECODERS: &[&str] = &["avdec_aac", "atdec", "faad"];

/// A chosen description.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Frames are shown at their time, not as they come.
    pub(crate) keeps_time: bool,
    origin: PathBuf,
    text: String,
}

impl Plan {
    /// Chooses for `spec`.
    ///
    /// # Errors
    /// When there is no display for a window, or no decoder.
    pub(crate) fn make(spec: &PlaySpec) -> Result<Self, PlayError> {
        let window = match spec.sink {
            PlaySink::Fake => false,
            PlaySink::Auto => match display::check() {
                Ok(()) => true,
                Err(reason) => {
                    tracing::warn!("no window: {reason}; the picture is decoded and not shown");
                    false
                }
            },
            PlaySink::Window => match display::check() {
                Ok(()) => true,
                Err(reason) => return Err(PlayError::NoDisplay { reason }),
            },
        };
        let (shipped, audio) = if window {
            (shelf::PLAY_WINDOW, shelf::PLAY_WINDOW_AUDIO)
        } else {
            (shelf::PLAY_FAKE, shelf::PLAY_FAKE_AUDIO)
        };
        let mut values = Values::default();
        values.word("h264_decoder", first_installed(H264_DECODERS)?);
        if spec.audio {
            values.word("aac_decoder", first_installed(AAC_DECODERS)?);
            values.fragment("audio", audio)?;
        } else {
            values.fragment("audio", shelf::PLAY_NO_AUDIO)?;
        }
        let description = Description::shipped(shipped);
        let text = description.fill(&values)?;
        Ok(Self { keeps_time: window, origin: description.origin().to_owned(), text })
    }

    /// Builds the pipeline, in state NULL.
    ///
    /// # Errors
    /// When an element is missing.
    pub(crate) fn pipeline(&self) -> Result<gst::Pipeline, PlayError> {
        let pipeline = description::parse(&self.origin, &self.text)?;
        pipeline.connect_deep_element_added(|_, _, element| prepare_sink(element));
        pipeline.iterate_recurse().into_iter().flatten().for_each(|element| prepare_sink(&element));
        Ok(pipeline)
    }
}

/// A sink usually holds the whole pipeline back until it has its first frame; the sink of a track that
/// this stream doesn't have would do so for ever. And a sink that gets the past of a joined stream usually
/// tells the decoder to skip ahead by twice its lateness, into pictures that are still to come.
fn prepare_sink(element: &gst::Element) {
    if !element.element_flags().contains(gst::ElementFlags::SINK) {
        return;
    }
    for property in ["async", "qos"] {
        if element.find_property(property).is_some() {
            element.set_property(property, false);
        }
    }
}

fn first_installed(decoders: &[&'static str]) -> Result<&'static str, PlayError> {
    let found = decoders.iter().find(|name| gst::ElementFactory::find(name).is_some());
    found.copied().ok_or_else(|| PlayError::MissingElement {
        element: decoders[0].to_owned(),
        package: package_of(decoders[0]).to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decoder_that_is_not_installed_is_told_with_its_package() {
        crate::init().unwrap();
        let error = first_installed(&["avdec_nosuch"]).unwrap_err();
        assert!(error.to_string().contains("gstreamer1.0-libav"), "{error}");
    }

    #[test]
    fn only_a_window_keeps_time() {
        crate::init().unwrap();
        let plan = Plan::make(&PlaySpec { sink: PlaySink::Fake, ..PlaySpec::default() }).unwrap();
        assert!(!plan.keeps_time);
    }
}
