//! Which H.264 encoder a capture uses, found by trying it.
//!
//! Doesn't own the encoders' settings: those are `encode/*.launch`.

use std::path::Path;

use gst::prelude::*;
use gstreamer as gst;

use crate::bus::{self, Notice};
use crate::description::{self, Description, Values};
use crate::error::CaptureError;
use crate::packages::package_of;
use crate::shelf;

/// How long an encoder may take over its first pictures. Hardware starts in well under a second; the
/// rest is for a loaded machine.
const TRIAL_MAX: gst::ClockTime = gst::ClockTime::from_seconds(5);

/// The H.264 encoder asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoder {
    /// The first that really encodes here: VA-API, NVENC, V4L2, VideoToolbox, then x264, then OpenH264.
    #[default]
    Auto,
    /// x264 in software (GPL; Debian's gstreamer1.0-plugins-ugly).
    X264,
    /// OpenH264 in software (BSD; Debian's gstreamer1.0-plugins-bad).
    OpenH264,
    /// Intel and AMD graphics.
    Vaapi,
    /// NVIDIA graphics.
    Nvenc,
    /// V4L2 memory-to-memory encoders of small boards.
    V4l2,
    /// macOS.
    VideoToolbox,
}

/// How an encoder's rate is changed while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RateProperty {
    /// Its property `bitrate`, in kbit/s.
    Kbps,
    /// Its property `bitrate`, in bit/s.
    Bps,
    /// A control of the driver, `video_bitrate`, in bit/s.
    Control,
}

/// The name that every shipped description of an encoder gives it.
pub(crate) const ENCODER: &str = "venc";

impl RateProperty {
    /// Changes the rate of `encoder`; false when it can't be changed now.
    pub(crate) fn set(self, encoder: &gst::Element, kbps: u32) -> bool {
        let bps = kbps.saturating_mul(1000);
        let changeable = |name| {
            encoder.find_property(name).is_some_and(|property| {
                let stopped = encoder.current_state() < gst::State::Paused;
                stopped || property.flags().contains(gst::PARAM_FLAG_MUTABLE_PLAYING)
            })
        };
        match self {
            Self::Kbps | Self::Bps if !changeable("bitrate") => false,
            Self::Kbps => set_number(encoder, kbps),
            Self::Bps => set_number(encoder, bps),
            Self::Control => {
                let known = encoder.find_property("extra-controls").is_some();
                if known {
                    let controls = format!("controls,video_bitrate={bps}");
                    encoder.set_property_from_str("extra-controls", &controls);
                }
                known
            }
        }
    }
}

/// Sets `bitrate`, signed in some encoders; false when the number is out of its range.
fn set_number(encoder: &gst::Element, value: u32) -> bool {
    let Some(property) = encoder.find_property("bitrate") else { return false };
    let unsigned = property.downcast_ref::<gst::glib::ParamSpecUInt>();
    let signed = property.downcast_ref::<gst::glib::ParamSpecInt>();
    match (unsigned, signed, i32::try_from(value)) {
        (Some(range), ..) if (range.minimum()..=range.maximum()).contains(&value) => {
            encoder.set_property("bitrate", value);
        }
        (_, Some(range), Ok(value)) if (range.minimum()..=range.maximum()).contains(&value) => {
            encoder.set_property("bitrate", value);
        }
        _ => return false,
    }
    true
}

/// An encoder that was found to work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// The factory name of its element, such as `x264enc`.
    pub(crate) element: &'static str,
    /// Its shipped description.
    pub(crate) shipped: (&'static str, &'static str),
    /// How its rate changes.
    pub(crate) rate: RateProperty,
}

const VA: Candidate =
    Candidate { element: "vah264enc", shipped: shelf::ENCODE_VA, rate: RateProperty::Kbps };
const VAAPI: Candidate =
    Candidate { element: "vaapih264enc", shipped: shelf::ENCODE_VAAPI, rate: RateProperty::Kbps };
const NVENC: Candidate =
    Candidate { element: "nvh264enc", shipped: shelf::ENCODE_NVENC, rate: RateProperty::Kbps };
const V4L2: Candidate =
    Candidate { element: "v4l2h264enc", shipped: shelf::ENCODE_V4L2, rate: RateProperty::Control };
const VIDEO_TOOLBOX: Candidate = Candidate {
    element: "vtenc_h264",
    shipped: shelf::ENCODE_VIDEOTOOLBOX,
    rate: RateProperty::Kbps,
};
const X264: Candidate =
    Candidate { element: "x264enc", shipped: shelf::ENCODE_X264, rate: RateProperty::Kbps };
const OPENH264: Candidate =
    Candidate { element: "openh264enc", shipped: shelf::ENCODE_OPENH264, rate: RateProperty::Bps };

impl Encoder {
    /// Best first. When none is installed, the last is the one worth installing.
    fn candidates(self) -> &'static [Candidate] {
        match self {
            Self::Auto => &[VA, VAAPI, NVENC, V4L2, VIDEO_TOOLBOX, X264, OPENH264],
            Self::X264 => &[X264],
            Self::OpenH264 => &[OPENH264],
            Self::Vaapi => &[VA, VAAPI],
            Self::Nvenc => &[NVENC],
            Self::V4l2 => &[V4L2],
            Self::VideoToolbox => &[VIDEO_TOOLBOX],
        }
    }

    /// Finds the encoder to use; `values` holds the numbers its description asks for, among them the size
    /// that is tried.
    ///
    /// # Errors
    /// When none is installed, or those installed don't run.
    pub(crate) fn choose(self, values: &Values) -> Result<Candidate, CaptureError> {
        let mut refused = None;
        for candidate in self.candidates() {
            if gst::ElementFactory::find(candidate.element).is_none() {
                continue;
            }
            match candidate.try_out(values) {
                Ok(()) => return Ok(*candidate),
                Err(message) => {
                    tracing::debug!(encoder = candidate.element, %message, "encoder doesn't run here");
                    refused = Some(CaptureError::Encoder {
                        encoder: candidate.element.to_owned(),
                        message,
                    });
                }
            }
        }
        Err(refused.unwrap_or_else(|| {
            let element =
                if self == Self::Auto { X264.element } else { self.candidates()[0].element };
            CaptureError::MissingElement {
                element: element.to_owned(),
                package: package_of(element).to_owned(),
            }
        }))
    }
}

impl Candidate {
    /// Encodes three pictures: a plugin may be installed, and even link, without its hardware.
    fn try_out(self, values: &Values) -> Result<(), String> {
        let mut values = values.clone();
        values.fragment("encoder", self.shipped).map_err(|error| format!("{error:?}"))?;
        let trial = Description::shipped(("the trial of an encoder", TRIAL));
        let filled = trial.fill(&values).map_err(|error| format!("{error:?}"))?;
        let pipeline = description::parse(Path::new(self.element), &filled)
            .map_err(|error| CaptureError::from(error).to_string())?;
        let bus = pipeline.bus().expect("a pipeline made by this crate has a bus");
        let verdict = match pipeline.set_state(gst::State::Playing) {
            Err(_) => Err(bus::pending_fault(&bus)
                .map_or("it refuses to start".to_owned(), |fault| fault.message)),
            Ok(_) => until_end(&bus),
        };
        let _ = pipeline.set_state(gst::State::Null);
        verdict
    }
}

fn until_end(bus: &gst::Bus) -> Result<(), String> {
    loop {
        match bus::next(bus, Some(TRIAL_MAX)) {
            Notice::End => return Ok(()),
            Notice::Fault(fault) => return Err(fault.message),
            Notice::Silence => return Err("it encodes nothing".to_owned()),
            Notice::Warning(_) | Notice::Latency | Notice::Own(_) => {}
        }
    }
}

const TRIAL: &str = "videotestsrc num-buffers=3 \
    ! video/x-raw,format=I420,width={width},height={height},framerate={fps}/1 \
    ! {encoder} ! h264parse ! video/x-h264,stream-format=avc ! fakesink sync=false";

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Values {
        let mut values = Values::default();
        for (name, value) in [
            ("width", 320),
            ("height", 180),
            ("fps", 30),
            ("video_kbps", 300),
            ("video_bps", 300_000),
            ("keyframe_frames", 60),
        ] {
            values.number(name, value);
        }
        values
    }

    #[test]
    fn auto_finds_an_encoder_that_encodes() {
        crate::init().unwrap();
        let found = Encoder::Auto.choose(&values()).unwrap();
        println!("auto chose {}", found.element);
        assert!(found.try_out(&values()).is_ok());
    }

    #[test]
    fn both_software_encoders_run() {
        crate::init().unwrap();
        assert_eq!(Encoder::X264.choose(&values()).unwrap(), X264);
        assert_eq!(Encoder::OpenH264.choose(&values()).unwrap(), OPENH264);
    }

    #[test]
    fn every_shipped_encoder_has_the_name_by_which_its_rate_is_changed() {
        for candidate in Encoder::Auto.candidates() {
            let (path, text) = candidate.shipped;
            assert!(text.contains(&format!("{} name={ENCODER} ", candidate.element)), "{path}");
        }
    }

    #[test]
    fn the_rate_of_both_software_encoders_changes_in_their_own_units() {
        crate::init().unwrap();
        for (candidate, expected) in [(X264, 450), (OPENH264, 450_000)] {
            let encoder = gst::ElementFactory::make(candidate.element).build().unwrap();
            assert!(candidate.rate.set(&encoder, 450), "{}", candidate.element);
            assert_eq!(encoder.property::<u32>("bitrate"), expected, "{}", candidate.element);
        }
        let encoder = gst::ElementFactory::make("x264enc").build().unwrap();
        assert!(!X264.rate.set(&encoder, u32::MAX), "more than it takes");
        let none = gst::ElementFactory::make("identity").build().unwrap();
        assert!(!RateProperty::Kbps.set(&none, 450) && !RateProperty::Control.set(&none, 450));
    }

    #[test]
    fn an_encoder_that_is_not_installed_is_named_with_its_package() {
        crate::init().unwrap();
        if gst::ElementFactory::find("vaapih264enc").is_some()
            || gst::ElementFactory::find("vah264enc").is_some()
        {
            println!("skipped: VA-API is installed here");
            return;
        }
        let error = Encoder::Vaapi.choose(&values()).unwrap_err();
        assert!(matches!(error, CaptureError::MissingElement { .. }), "{error}");
    }
}
