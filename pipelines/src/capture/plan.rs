//! From a spec to a pipeline: description, encoder, devices, and the properties set on named elements.
//!
//! A plan can build its pipeline any number of times (a file loops, a microphone fails). Doesn't own the
//! running pipeline (`watch.rs`).

use std::path::{Path, PathBuf};

use gst::prelude::*;
use gstreamer as gst;

use super::file;
use super::spec::{CaptureSource, CaptureSpec};
use crate::description::{self, Description, Values};
use crate::device::{self, DeviceKind, Found};
use crate::encoder::{ENCODER, RateProperty};
use crate::error::CaptureError;
use crate::microphone::{self, Mic, Microphone};
use crate::mode;
use crate::shelf;

/// Everything needed to build a capture pipeline again and again.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// What [`super::Capture::encoder_name`] says.
    pub(crate) encoder_name: String,
    /// How the rate of its encoder changes; `None` = it has none, or the user's own.
    pub(crate) rate: Option<RateProperty>,
    /// To be told before the first byte.
    pub(crate) warnings: Vec<String>,
    /// The source is a file that begins anew at its end.
    pub(crate) loops: bool,
    origin: PathBuf,
    full: String,
    /// Without the microphone, when it wasn't named and its loss is no reason to stop.
    video_only: Option<String>,
    settings: Vec<Setting>,
    /// What to choose a device for again when it went away: a camera comes back under another name.
    choice: Option<Box<CaptureSpec>>,
}

/// A property of a named element, set after parsing: no text of a user ever becomes description text.
#[derive(Clone, Debug)]
struct Setting {
    element: &'static str,
    property: &'static str,
    value: SettingValue,
}

#[derive(Clone, Debug)]
enum SettingValue {
    Text(String),
    Path(PathBuf),
    Caps(gst::Caps),
}

impl Plan {
    /// Chooses description, encoder and devices for `spec`.
    ///
    /// # Errors
    /// When something is missing or wrong, as [`super::Capture::start`].
    pub(crate) fn make(spec: &CaptureSpec) -> Result<Self, CaptureError> {
        match &spec.source {
            CaptureSource::Test => Self::plain(spec, Description::shipped(shelf::CAPTURE_TEST)),
            CaptureSource::Camera { device, mic } => Self::camera(spec, device.as_deref(), mic),
            CaptureSource::Screen { mic } => Self::screen(spec, mic),
            CaptureSource::File(path) => Self::file(spec, path),
            CaptureSource::Launch(path) => Self::launch(spec, path),
        }
    }

    /// Builds the pipeline anew, in state NULL, with or without the microphone.
    ///
    /// # Errors
    /// When an element is missing or the description is wrong.
    pub(crate) fn pipeline(&self, with_microphone: bool) -> Result<gst::Pipeline, CaptureError> {
        let pipeline = description::parse(&self.origin, self.text(with_microphone))?;
        for setting in &self.settings {
            if let Some(element) = pipeline.by_name(setting.element) {
                setting.apply(&element);
            }
        }
        Ok(pipeline)
    }

    /// Chooses devices anew where that can make a difference. A plan stays as it was when there is
    /// nothing to choose from.
    pub(crate) fn choose_again(&mut self) {
        if let Some(plan) = self.choice.as_deref().and_then(|spec| Self::make(spec).ok()) {
            *self = plan;
        }
    }

    /// The filled description.
    pub(crate) fn text(&self, with_microphone: bool) -> &str {
        match &self.video_only {
            Some(video_only) if !with_microphone => video_only,
            Some(_) | None => &self.full,
        }
    }

    /// True when the capture may go on without its microphone.
    pub(crate) fn can_lose_microphone(&self) -> bool {
        self.video_only.is_some()
    }

    /// An error about the description of this plan.
    pub(crate) fn wrong(&self, message: &str) -> CaptureError {
        CaptureError::Description { path: self.origin.clone(), message: message.to_owned() }
    }

    fn plain(spec: &CaptureSpec, description: Description) -> Result<Self, CaptureError> {
        let mut values = spec.values();
        let (encoder_name, rate) = fill_encoder(spec, &mut values)?;
        fill_renditions(spec, &description, &mut values, true)?;
        Ok(Self {
            encoder_name,
            rate: Some(rate),
            warnings: Vec::new(),
            loops: false,
            origin: description.origin().to_owned(),
            full: description.fill(&values)?,
            video_only: None,
            settings: Vec::new(),
            choice: None,
        })
    }

    fn camera(spec: &CaptureSpec, wanted: Option<&str>, mic: &Mic) -> Result<Self, CaptureError> {
        let all = device::find();
        let camera = choose_camera(wanted, &all)?;
        let shipped =
            if camera.factory == "avfvideosrc" { shelf::CAPTURE_AVF } else { shelf::CAPTURE_V4L2 };
        let mut plan = Self::with_microphone(spec, &Description::shipped(shipped), mic, &all)?;
        let property = device::device_property(&camera.factory);
        plan.set("camera", property, SettingValue::Text(camera.device.id.clone()));
        let caps = device::source_caps(&camera.factory, Some(&camera.device.id));
        if let Some(mode) = caps.and_then(|caps| mode::nearest(&caps, spec.wish())) {
            plan.set("camera_caps", "caps", SettingValue::Caps(mode));
        }
        plan.choice = Some(Box::new(spec.clone()));
        Ok(plan)
    }

    fn screen(spec: &CaptureSpec, mic: &Mic) -> Result<Self, CaptureError> {
        let all = device::find();
        if cfg!(target_os = "macos") {
            return Self::with_microphone(
                spec,
                &Description::shipped(shelf::CAPTURE_SCREEN_AVF),
                mic,
                &all,
            );
        }
        // Under Wayland an X11 capture shows the windows of X11 programs at best: only PipeWire will do.
        let wayland =
            std::env::var_os("WAYLAND_DISPLAY").is_some_and(|display| !display.is_empty());
        let (factory, shipped, wanted) = if wayland {
            let wanted = "a screen (under Wayland, a screen-cast session of PipeWire that is already running)";
            ("pipewiresrc", shelf::CAPTURE_SCREEN_PIPEWIRE, wanted)
        } else {
            let set = std::env::var_os("DISPLAY").is_some_and(|display| !display.is_empty());
            let wanted = if set {
                "a screen (DISPLAY names none that can be opened)"
            } else {
                "a screen (DISPLAY is not set: this session has none)"
            };
            ("ximagesrc", shelf::CAPTURE_SCREEN_X11, wanted)
        };
        let found = all
            .iter()
            .find(|found| found.device.kind == DeviceKind::Screen && found.factory == factory);
        let Some(found) = found else {
            return Err(CaptureError::DeviceNotFound {
                wanted: wanted.to_owned(),
                available: Vec::new(),
            });
        };
        let mut plan = Self::with_microphone(spec, &Description::shipped(shipped), mic, &all)?;
        if wayland {
            let property = device::device_property(factory);
            plan.set("screen", property, SettingValue::Text(found.device.id.clone()));
        }
        Ok(plan)
    }

    fn file(spec: &CaptureSpec, path: &Path) -> Result<Self, CaptureError> {
        let tracks = file::tracks(path)?;
        let description = Description::shipped(shelf::CAPTURE_FILE);
        let mut values = spec.values();
        let (mut encoder_name, mut rate) = ("none".to_owned(), None);
        match tracks.video {
            file::Track::Copy => values.fragment("video", shelf::FILE_VIDEO_COPY)?,
            file::Track::Encode => {
                let (name, property) = fill_encoder(spec, &mut values)?;
                (encoder_name, rate) = (name, Some(property));
                values.fragment("video", shelf::FILE_VIDEO_ENCODE)?;
            }
            file::Track::Absent => {
                let message = "has no video track that GStreamer can read here".to_owned();
                return Err(CaptureError::File { path: path.to_owned(), message });
            }
        }
        match tracks.audio {
            file::Track::Copy => values.fragment("audio", shelf::FILE_AUDIO_COPY)?,
            file::Track::Encode => values.fragment("audio", shelf::FILE_AUDIO_ENCODE)?,
            file::Track::Absent => values.word("audio", ""),
        }
        if tracks.video == file::Track::Copy && !spec.renditions.is_empty() {
            let message =
                "is sent as it is, so there are no pictures to make renditions of".to_owned();
            return Err(CaptureError::File { path: path.to_owned(), message });
        }
        fill_renditions(spec, &description, &mut values, tracks.audio != file::Track::Absent)?;
        Ok(Self {
            encoder_name,
            rate,
            warnings: Vec::new(),
            loops: true,
            origin: description.origin().to_owned(),
            full: description.fill(&values)?,
            video_only: None,
            settings: vec![Setting {
                element: "file",
                property: "location",
                value: SettingValue::Path(path.to_owned()),
            }],
            choice: None,
        })
    }

    fn launch(spec: &CaptureSpec, path: &Path) -> Result<Self, CaptureError> {
        let description = Description::from_file(path)?;
        let plan = if description.uses("audio") {
            Self::with_microphone(spec, &description, &Mic::Default, &device::find())?
        } else if description.uses("encoder") {
            Self::plain(spec, description)?
        } else {
            let mut values = spec.values();
            fill_renditions(spec, &description, &mut values, true)?;
            let full = description.fill(&values)?;
            Self {
                encoder_name: "own".to_owned(),
                rate: None,
                warnings: Vec::new(),
                loops: false,
                origin: path.to_owned(),
                full,
                video_only: None,
                settings: Vec::new(),
                choice: None,
            }
        };
        Ok(plan)
    }

    fn with_microphone(
        spec: &CaptureSpec,
        description: &Description,
        mic: &Mic,
        all: &[Found],
    ) -> Result<Self, CaptureError> {
        let microphone = microphone::choose(mic, all)?;
        let mut values = spec.values();
        let uses_encoder = description.uses("encoder");
        let (encoder_name, rate) = fill_encoder(spec, &mut values)?;
        values.word("audio", "");
        fill_renditions(spec, description, &mut values, false)?;
        let video_only = description.fill(&values)?;
        let mut plan = Self {
            encoder_name,
            rate: uses_encoder.then_some(rate),
            warnings: Vec::new(),
            loops: false,
            origin: description.origin().to_owned(),
            full: video_only.clone(),
            video_only: None,
            settings: Vec::new(),
            choice: None,
        };
        match microphone {
            Some(Microphone { shipped, device: (property, id), explicit }) => {
                values.fragment("audio", shipped)?;
                fill_renditions(spec, description, &mut values, true)?;
                plan.full = description.fill(&values)?;
                plan.video_only = (!explicit).then_some(video_only);
                plan.set("microphone", property, SettingValue::Text(id));
            }
            None if *mic == Mic::Default => {
                plan.warnings.push("no microphone found: the stream carries video only".to_owned());
            }
            None => {}
        }
        Ok(plan)
    }

    fn set(&mut self, element: &'static str, property: &'static str, value: SettingValue) {
        self.settings.push(Setting { element, property, value });
    }
}

impl Setting {
    fn apply(&self, element: &gst::Element) {
        if element.find_property(self.property).is_none() {
            return;
        }
        match &self.value {
            SettingValue::Text(text) => element.set_property_from_str(self.property, text),
            SettingValue::Path(path) => element.set_property(self.property, path),
            SettingValue::Caps(caps) => element.set_property(self.property, caps),
        }
    }
}

/// Finds the encoder and lets `{encoder}` stand for it; its name, and how its rate changes.
fn fill_encoder(
    spec: &CaptureSpec,
    values: &mut Values,
) -> Result<(String, RateProperty), CaptureError> {
    let encoder = spec.encoder.choose(values)?;
    values.fragment("encoder", encoder.shipped)?;
    Ok((encoder.element.to_owned(), encoder.rate))
}

/// Lets `{renditions}` stand for the branches of the lower renditions.
fn fill_renditions(
    spec: &CaptureSpec,
    description: &Description,
    values: &mut Values,
    has_sound: bool,
) -> Result<(), CaptureError> {
    if spec.renditions.is_empty() {
        return Ok(());
    }
    if !description.uses("renditions") {
        let message = "it has no {renditions}, which the branches of --rendition would stand for";
        return Err(description.wrong(message.to_owned()).into());
    }
    let mut branches = String::new();
    for (number, rendition) in (1..).zip(&spec.renditions) {
        let mut own = spec.rendition_values(number, rendition);
        let encoder = spec.encoder.choose(&own)?;
        own.fragment("encoder", encoder.shipped)?;
        own.rename("encoder", ENCODER, &format!("{ENCODER}{number}"));
        let mut shipped = vec![shelf::RENDITION_PICTURE];
        shipped.extend(has_sound.then_some(shelf::RENDITION_SOUND));
        for part in shipped {
            branches.push_str(&Description::shipped(part).fill(&own)?);
            branches.push(' ');
        }
    }
    values.text("renditions", branches);
    Ok(())
}

fn choose_camera(wanted: Option<&str>, all: &[Found]) -> Result<Found, CaptureError> {
    let cameras = || all.iter().filter(|found| found.device.kind == DeviceKind::Camera);
    let found = match wanted {
        None => cameras().next().cloned(),
        Some(name) => {
            cameras().find(|found| found.is_meant_by(name)).cloned().or_else(|| device_file(name))
        }
    };
    found.ok_or_else(|| CaptureError::DeviceNotFound {
        wanted: wanted.map_or_else(|| "a camera".to_owned(), |name| format!("the camera {name}")),
        available: cameras().map(Found::label).collect(),
    })
}

/// A device file that isn't listed is tried all the same: opening it tells why it can't be used.
fn device_file(path: &str) -> Option<Found> {
    Path::new(path).exists().then(|| Found {
        device: device::Device {
            kind: DeviceKind::Camera,
            id: path.to_owned(),
            name: "device file".to_owned(),
            modes: Vec::new(),
        },
        factory: "v4l2src".to_owned(),
        is_default: false,
    })
}

#[cfg(test)]
impl Plan {
    /// A plan of given texts, for tests of what happens while one runs.
    pub(crate) fn of_texts(full: &str, video_only: Option<&str>) -> Self {
        Self {
            encoder_name: String::new(),
            rate: None,
            warnings: Vec::new(),
            loops: false,
            origin: PathBuf::from("a test"),
            full: full.to_owned(),
            video_only: video_only.map(str::to_owned),
            settings: Vec::new(),
            choice: None,
        }
    }
}
