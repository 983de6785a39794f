//! What a person presses in a window, and what that asks for.
//!
//! Owns the keys. Does not own what they do (`panel.rs`).

use std::time::{Duration, Instant};

use gst::prelude::*;
use gstreamer as gst;

use crate::bus;

/// Every key of a window and what it does, for help texts.
pub const KEYS: &[(&str, &str)] = &[
    ("i", "statistics"),
    ("f, F11, double click", "full screen and back"),
    ("Up, Down", "louder, quieter"),
    ("m", "mute"),
    ("Escape", "leave full screen, or close"),
    ("q", "close"),
];

/// Name of the message that carries a wish; its field `wish` is a [`Wish`] as a number.
pub(crate) const WISH: &str = "wish";
/// Two clicks within this are one double click: what desktops use.
const DOUBLE_CLICK: Duration = Duration::from_millis(400);
/// The button of a mouse that people call the left one.
const FIRST_BUTTON: i32 = 1;

/// What a person asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Statistics over the picture, or none.
    Figures,
    /// Full screen, or a window again.
    FullScreen,
    /// Sound a step up.
    Louder,
    /// Sound a step down.
    Quieter,
    /// No sound, or sound again.
    Mute,
    /// Out of full screen; closes a window that is none.
    Leave,
    /// The end.
    Close,
}

impl Wish {
    const ALL: [Self; 7] = [
        Self::Figures,
        Self::FullScreen,
        Self::Louder,
        Self::Quieter,
        Self::Mute,
        Self::Leave,
        Self::Close,
    ];

    /// What a key asks for, by the name that X11 gives it, as other systems' sinks do too.
    fn of_key(key: &str) -> Option<Self> {
        Some(match key {
            "i" | "I" => Self::Figures,
            "f" | "F" | "F11" => Self::FullScreen,
            "Up" | "plus" | "KP_Add" | "XF86AudioRaiseVolume" => Self::Louder,
            "Down" | "minus" | "KP_Subtract" | "XF86AudioLowerVolume" => Self::Quieter,
            "m" | "M" | "XF86AudioMute" => Self::Mute,
            "Escape" => Self::Leave,
            "q" | "Q" => Self::Close,
            _ => return None,
        })
    }

    /// What a message of [`attach`] says.
    pub(crate) fn of_message(message: &gst::StructureRef) -> Option<Self> {
        let number = usize::try_from(message.get::<u32>(WISH).ok()?).ok()?;
        Self::ALL.get(number).copied()
    }

    fn message(self) -> gst::Structure {
        let number = Self::ALL.iter().position(|wish| *wish == self).unwrap_or_default();
        gst::Structure::builder(WISH).field(WISH, u32::try_from(number).unwrap_or_default()).build()
    }
}

/// Finds double clicks among clicks.
#[derive(Debug, Default)]
struct Clicks {
    last: Option<Instant>,
}

impl Clicks {
    fn is_double(&mut self, now: Instant) -> bool {
        let double =
            self.last.is_some_and(|last| now.saturating_duration_since(last) <= DOUBLE_CLICK);
        // A third click begins anew.
        self.last = (!double).then_some(now);
        double
    }
}

/// Posts a message for each wish that the sink `video` of `pipeline` hears.
pub(crate) fn attach(pipeline: &gst::Pipeline) {
    let pad = pipeline.by_name("video").and_then(|sink| sink.static_pad("sink"));
    let (Some(pad), Some(bus)) = (pad, pipeline.bus()) else { return };
    let clicks = std::sync::Mutex::new(Clicks::default());
    pad.add_probe(gst::PadProbeType::EVENT_UPSTREAM, move |_, info| {
        let Some(event) = info.event().filter(|e| e.type_() == gst::EventType::Navigation) else {
            return gst::PadProbeReturn::Ok;
        };
        let wish = event.structure().and_then(|said| match said.get::<&str>("event").ok()? {
            "key-press" => Wish::of_key(said.get("key").ok()?),
            "mouse-button-press" if said.get::<i32>("button").ok()? == FIRST_BUTTON => {
                let mut clicks = clicks.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                clicks.is_double(Instant::now()).then_some(Wish::FullScreen)
            }
            _ => None,
        });
        if let Some(wish) = wish {
            // A flushing bus refuses it: the player is being stopped.
            let _ = bus.post(bus::own(wish.message()));
        }
        gst::PadProbeReturn::Ok
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_clicks_in_time_are_a_double_click_and_the_third_begins_anew() {
        let (mut clicks, start) = (Clicks::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        let doubles: Vec<bool> =
            [0, 300, 500, 1_000, 1_300].map(|ms| clicks.is_double(at(ms))).into();
        assert_eq!(doubles, [false, true, false, false, true]);
    }

    #[test]
    fn every_wish_survives_its_message_and_unknown_keys_ask_for_nothing() {
        crate::init().unwrap();
        for wish in Wish::ALL {
            assert_eq!(Wish::of_message(&wish.message()), Some(wish));
        }
        for key in ["", "x", "Return", "é"] {
            assert_eq!(Wish::of_key(key), None);
        }
        let foreign = gst::Structure::builder(WISH).field(WISH, 99_u32).build();
        assert_eq!(Wish::of_message(&foreign), None);
    }
}
