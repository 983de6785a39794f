//! Which microphone goes with a camera or a screen.
//!
//! Doesn't own listing them (`device.rs`) nor what happens when one falls silent later (`capture/watch.rs`).

use crate::device::{DeviceKind, Found};
use crate::error::CaptureError;
use crate::shelf;

/// The microphone asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mic {
    /// The system's own choice; video only, with a warning, when there is none.
    #[default]
    Default,
    /// No sound: the FLV stream carries video only.
    None,
    /// This one, by the id or name that [`crate::devices`] lists; it must be there.
    Device(String),
}

/// A microphone and the description of its branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Microphone {
    /// The audio branch, `audio/*.launch`.
    pub(crate) shipped: (&'static str, &'static str),
    /// The property of the element `microphone` that names the device, and its value.
    pub(crate) device: (&'static str, String),
    /// Named by the user: losing it ends the capture.
    pub(crate) explicit: bool,
}

/// Picks among `all`; `Ok(None)` means video only.
///
/// # Errors
/// When a named microphone isn't there.
pub(crate) fn choose(wanted: &Mic, all: &[Found]) -> Result<Option<Microphone>, CaptureError> {
    let mut candidates: Vec<_> = all
        .iter()
        .filter(|found| found.device.kind == DeviceKind::Microphone)
        .filter_map(|found| branch(&found.factory).map(|(rank, shipped)| (rank, shipped, found)))
        .collect();
    candidates.sort_by_key(|(rank, _, found)| (*rank, !found.is_default));
    let taken = match wanted {
        Mic::None => None,
        Mic::Default => candidates.first(),
        Mic::Device(name) => {
            let named = candidates.iter().find(|(_, _, found)| found.is_meant_by(name));
            Some(named.ok_or_else(|| CaptureError::DeviceNotFound {
                wanted: format!("the microphone {name}"),
                available: candidates.iter().map(|(_, _, found)| found.label()).collect(),
            })?)
        }
    };
    Ok(taken.map(|(_, shipped, found)| Microphone {
        shipped: *shipped,
        device: (crate::device::device_property(&found.factory), found.device.id.clone()),
        explicit: matches!(wanted, Mic::Device(_)),
    }))
}

/// The branch for a source element, with its rank: what mixes for several programs comes first.
fn branch(factory: &str) -> Option<(u8, (&'static str, &'static str))> {
    match factory {
        "pipewiresrc" => Some((0, shelf::AUDIO_PIPEWIRE)),
        "pulsesrc" => Some((1, shelf::AUDIO_PULSE)),
        "alsasrc" => Some((2, shelf::AUDIO_ALSA)),
        "osxaudiosrc" => Some((0, shelf::AUDIO_OSX)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;

    fn mic(factory: &str, id: &str, is_default: bool) -> Found {
        let device = Device {
            kind: DeviceKind::Microphone,
            id: id.to_owned(),
            name: format!("name of {id}"),
            modes: Vec::new(),
        };
        Found { device, factory: factory.to_owned(), is_default }
    }

    #[test]
    fn the_default_is_the_sound_servers_own_choice() {
        let all = [
            mic("alsasrc", "hw:0", false),
            mic("pulsesrc", "b", false),
            mic("pulsesrc", "a", true),
        ];
        let taken = choose(&Mic::Default, &all).unwrap().unwrap();
        assert_eq!((taken.shipped, taken.device.1.as_str()), (shelf::AUDIO_PULSE, "a"));
        assert!(!taken.explicit);
    }

    #[test]
    fn no_microphone_at_all_means_video_only() {
        assert_eq!(choose(&Mic::Default, &[]).unwrap(), None);
    }

    #[test]
    fn none_means_video_only_even_when_there_is_one() {
        assert_eq!(choose(&Mic::None, &[mic("alsasrc", "hw:0", false)]).unwrap(), None);
    }

    #[test]
    fn a_named_microphone_that_is_not_there_is_refused_with_those_that_are() {
        let error =
            choose(&Mic::Device("hw:9".to_owned()), &[mic("alsasrc", "hw:0", false)]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the microphone hw:9 wasn't found; there are: hw:0 (name of hw:0) (see `astral devices`)"
        );
    }
}
