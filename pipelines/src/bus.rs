//! Bus messages, turned into what the two machines of this crate act on.
//!
//! The one place that reads GStreamer messages. Doesn't own what follows from them.

use gst::prelude::*;
use gstreamer as gst;

/// One thing a pipeline said.
#[derive(Debug)]
pub(crate) enum Notice {
    /// The pipeline can't go on.
    Fault(Fault),
    /// Something is wrong and the pipeline goes on.
    Warning(String),
    /// Every sink has seen the end.
    End,
    /// The latency of an element changed; the pipeline must spread it anew.
    Latency,
    /// A message of this crate's own, with its name and structure.
    Own(gst::Structure),
    /// The time to wait is over, or there was nothing to act on.
    Silence,
}

/// An error of an element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Names of the element and of the bins around it, innermost first.
    pub(crate) path: Vec<String>,
    /// What kind of trouble it is.
    pub(crate) kind: FaultKind,
    /// The element brings pictures or sound into the pipeline from a device, or from a camera in the
    /// network.
    pub(crate) of_device: bool,
    /// GStreamer's words on one line: element, message, cause.
    pub(crate) message: String,
}

/// The kinds of trouble that are treated apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultKind {
    /// A device, file or window isn't there.
    NotFound,
    /// A device, file or window is there and can't be used any more.
    Resource,
    /// Anything else.
    Other,
}

impl Fault {
    /// True when the element, or a bin around it, is called `name`.
    pub(crate) fn within(&self, name: &str) -> bool {
        self.path.iter().any(|part| part == name)
    }

    fn read(error: &gst::message::Error) -> Self {
        let mut path = Vec::new();
        let mut at = error.src().cloned();
        while let Some(object) = at {
            path.push(object.name().to_string());
            at = object.parent();
        }
        let element = path.first().cloned().unwrap_or_default();
        let of_device =
            error.src().and_then(|src| src.downcast_ref::<gst::Element>()).is_some_and(is_device);
        let kind = match error.error().kind::<gst::ResourceError>() {
            Some(gst::ResourceError::NotFound) => FaultKind::NotFound,
            Some(_) => FaultKind::Resource,
            None => FaultKind::Other,
        };
        let message = sentence(&element, error.error().message(), error.debug().as_deref());
        Self { path, kind, of_device, message }
    }
}

/// Waits for the next message that matters, at most `wait` (for ever when `None`).
pub(crate) fn next(bus: &gst::Bus, wait: Option<gst::ClockTime>) -> Notice {
    use gst::MessageType as Type;
    let wanted = [Type::Error, Type::Warning, Type::Eos, Type::Latency, Type::Application];
    let Some(message) = bus.timed_pop_filtered(wait, &wanted) else { return Notice::Silence };
    match message.view() {
        gst::MessageView::Error(error) => Notice::Fault(Fault::read(error)),
        gst::MessageView::Warning(warning) => {
            let element = warning.src().map(|src| src.name().to_string()).unwrap_or_default();
            Notice::Warning(sentence(
                &element,
                warning.error().message(),
                warning.debug().as_deref(),
            ))
        }
        gst::MessageView::Eos(_) => Notice::End,
        gst::MessageView::Latency(_) => Notice::Latency,
        gst::MessageView::Application(own) => match own.structure() {
            Some(structure) => Notice::Own(structure.to_owned()),
            None => Notice::Silence,
        },
        _ => Notice::Silence,
    }
}

/// The first fault that waits on `bus`, for a state change that failed; faults come before it returns.
pub(crate) fn pending_fault(bus: &gst::Bus) -> Option<Fault> {
    let message = bus.pop_filtered(&[gst::MessageType::Error])?;
    match message.view() {
        gst::MessageView::Error(error) => Some(Fault::read(error)),
        _ => None,
    }
}

/// A message of this crate's own.
pub(crate) fn own(structure: gst::Structure) -> gst::Message {
    gst::message::Application::builder(structure).build()
}

fn is_device(element: &gst::Element) -> bool {
    let class = element.metadata("klass").unwrap_or_default();
    class.contains("Source")
        && ["Video", "Audio", "Network"].iter().any(|kind| class.contains(kind))
}

/// Element, message and the last line of the debug text, where GStreamer puts the system's error.
fn sentence(element: &str, message: &str, debug: Option<&str>) -> String {
    let cause = debug
        .and_then(|debug| debug.lines().skip(1).last())
        .map(str::trim)
        .filter(|cause| !cause.is_empty());
    match cause {
        Some(cause) if !message.contains(cause) => format!("{element}: {message} ({cause})"),
        _ => format!("{element}: {message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_device_is_told_with_the_systems_error() {
        crate::init().unwrap();
        let pipeline = crate::description::parse(
            std::path::Path::new("x"),
            "v4l2src name=camera device=/dev/video99 ! fakesink",
        )
        .unwrap();
        assert!(pipeline.set_state(gst::State::Playing).is_err());
        let fault = pending_fault(&pipeline.bus().unwrap()).unwrap();
        assert!(fault.within("camera"));
        assert!(fault.of_device);
        assert_eq!(fault.kind, FaultKind::NotFound);
        assert!(fault.message.contains("No such file or directory"), "{}", fault.message);
        pipeline.set_state(gst::State::Null).unwrap();
    }

    #[test]
    fn silence_is_told_when_the_wait_is_over() {
        crate::init().unwrap();
        assert!(matches!(
            next(&gst::Bus::new(), Some(gst::ClockTime::from_mseconds(1))),
            Notice::Silence
        ));
    }
}
