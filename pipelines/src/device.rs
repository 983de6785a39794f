//! The cameras, microphones and screens of this machine.
//!
//! Doesn't own which of them a capture takes when none is named (`capture/plan.rs`, `microphone.rs`).

use std::path::Path;

use gst::prelude::*;
use gstreamer as gst;

use crate::error::InitError;
use crate::mode;

/// What a device delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeviceKind {
    /// Pictures of a camera.
    Camera,
    /// Sound.
    Microphone,
    /// Pictures of a screen.
    Screen,
}

/// A device as a person chooses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// What it delivers.
    pub kind: DeviceKind,
    /// What `--camera` and `--mic` take, such as `/dev/video0`.
    pub id: String,
    /// What its maker calls it.
    pub name: String,
    /// Picture sizes and the highest frame rate of each, such as `1280x720@30`, largest first; empty for
    /// sound and where the device doesn't tell.
    pub modes: Vec<String>,
}

/// A device with what GStreamer needs to open it.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) device: Device,
    /// The factory name of its source element, such as `v4l2src`.
    pub(crate) factory: String,
    /// The system's own choice among its kind.
    pub(crate) is_default: bool,
}

impl Found {
    /// How messages name the device.
    pub(crate) fn label(&self) -> String {
        format!("{} ({})", self.device.id, self.device.name)
    }

    /// True when a person means this device by `wanted`: its id, or its name in any case.
    pub(crate) fn is_meant_by(&self, wanted: &str) -> bool {
        self.device.id == wanted || self.device.name.eq_ignore_ascii_case(wanted)
    }
}

/// Every camera, microphone and screen that GStreamer sees, in this order. No device is an empty list.
///
/// Blocks for some milliseconds, with slow drivers for longer.
///
/// # Errors
/// When GStreamer can't start.
pub fn devices() -> Result<Vec<Device>, InitError> {
    crate::init()?;
    let mut all: Vec<Device> = find().into_iter().map(|found| found.device).collect();
    all.sort_by(|a, b| (a.kind, &a.id).cmp(&(b.kind, &b.id)));
    Ok(all)
}

/// As [`devices`], in the order in which GStreamer lists them.
pub(crate) fn find() -> Vec<Found> {
    let mut all = monitored();
    add_bare_v4l2(&mut all);
    all.extend(x11_screen());
    all
}

/// The property of a source element that names its device.
pub(crate) fn device_property(factory: &str) -> &'static str {
    match factory {
        "pipewiresrc" => "target-object",
        "avfvideosrc" => "device-index",
        _ => "device",
    }
}

/// What the source element `factory` can deliver when it is bound to `id`; `None` when it can't be opened.
pub(crate) fn source_caps(factory: &str, id: Option<&str>) -> Option<gst::Caps> {
    let source = gst::ElementFactory::make(factory).build().ok()?;
    let property = device_property(factory);
    if let Some(id) = id
        && source.find_property(property).is_some()
    {
        source.set_property_from_str(property, id);
    }
    // Only an opened device knows its own caps; READY opens it.
    let opened = source.set_state(gst::State::Ready).is_ok();
    let caps = source.static_pad("src").filter(|_| opened).map(|pad| pad.query_caps(None));
    let _ = source.set_state(gst::State::Null);
    caps
}

fn monitored() -> Vec<Found> {
    let monitor = gst::DeviceMonitor::new();
    monitor.add_filter(Some("Video/Source"), None);
    monitor.add_filter(Some("Audio/Source"), None);
    if monitor.start().is_err() {
        return Vec::new();
    }
    let found = monitor.devices().iter().filter_map(read).collect();
    monitor.stop();
    found
}

fn read(device: &gst::Device) -> Option<Found> {
    let properties = device.properties();
    let property = |name: &str| properties.as_ref().and_then(|all| all.get::<String>(name).ok());
    let is_sound = device.device_class().contains("Audio");
    // A sound server also lists what its loudspeakers play; that is not a microphone.
    if is_sound && property("device.class").is_some_and(|class| class == "monitor") {
        return None;
    }
    let element = device.create_element(None).ok()?;
    let factory = element.factory()?.name().to_string();
    let kind = match (is_sound, factory.as_str()) {
        (true, _) => DeviceKind::Microphone,
        (false, "v4l2src" | "avfvideosrc") => DeviceKind::Camera,
        // PipeWire also lists cameras; those are opened directly, by their device files.
        (false, "pipewiresrc") if property("device.api").is_none() => DeviceKind::Screen,
        (false, _) => return None,
    };
    let id = text_of(&element, device_property(&factory)).or_else(|| text_of(&element, "path"))?;
    let modes = match (kind, device.caps()) {
        (DeviceKind::Microphone, _) | (_, None) => Vec::new(),
        (DeviceKind::Camera | DeviceKind::Screen, Some(caps)) => mode::list(&caps),
    };
    let is_default =
        properties.as_ref().and_then(|all| all.get::<bool>("is-default").ok()).unwrap_or(false);
    let name = device.display_name().to_string();
    Some(Found { device: Device { kind, id, name, modes }, factory, is_default })
}

fn text_of(element: &gst::Element, property: &str) -> Option<String> {
    element.find_property(property)?;
    let value = element.property_value(property);
    value
        .transform::<String>()
        .ok()?
        .get::<Option<String>>()
        .ok()
        .flatten()
        .filter(|text| !text.is_empty())
}

/// GStreamer lists V4L2 cameras through udev. In a container or a small system without it the device
/// files are still there.
fn add_bare_v4l2(all: &mut Vec<Found>) {
    for index in 0..V4L2_DEVICES_MAX {
        let id = format!("/dev/video{index}");
        let known = all.iter().any(|found| found.device.id == id);
        if known || !Path::new(&id).exists() {
            continue;
        }
        let Some(caps) = source_caps("v4l2src", Some(&id)) else { continue };
        let name = std::fs::read_to_string(format!("/sys/class/video4linux/video{index}/name"))
            .map_or_else(|_| "camera".to_owned(), |name| name.trim().to_owned());
        let device = Device { kind: DeviceKind::Camera, id, name, modes: mode::list(&caps) };
        all.push(Found { device, factory: "v4l2src".to_owned(), is_default: false });
    }
}

fn x11_screen() -> Option<Found> {
    let display = std::env::var("DISPLAY").ok().filter(|display| !display.is_empty())?;
    let caps = source_caps("ximagesrc", None)?;
    let device = Device {
        kind: DeviceKind::Screen,
        name: format!("X11 display {display}"),
        id: display,
        modes: mode::list(&caps),
    };
    Some(Found { device, factory: "ximagesrc".to_owned(), is_default: true })
}

/// The kernel numbers V4L2 devices from 0 to 63 by default.
const V4L2_DEVICES_MAX: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listing_devices_works_without_any() {
        for device in devices().unwrap() {
            println!("{device:?}");
            assert!(!device.id.is_empty());
        }
    }

    #[test]
    fn a_source_that_can_not_be_opened_has_no_caps() {
        crate::init().unwrap();
        assert!(source_caps("v4l2src", Some("/dev/video99")).is_none());
    }

    #[test]
    fn a_device_is_meant_by_its_id_or_its_name() {
        let device = Device {
            kind: DeviceKind::Camera,
            id: "/dev/video0".to_owned(),
            name: "Desk Camera".to_owned(),
            modes: Vec::new(),
        };
        let found = Found { device, factory: "v4l2src".to_owned(), is_default: false };
        assert!(found.is_meant_by("/dev/video0"));
        assert!(found.is_meant_by("desk camera"));
        assert!(!found.is_meant_by("/dev/video1"));
    }
}
