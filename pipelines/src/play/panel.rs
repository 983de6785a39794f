//! What a person sees and changes at a window: statistics over the picture, sound, full screen.
//!
//! Owns what each wish does. Does not own the keys (`keys.rs`), how a window fills the screen
//! (`screen.rs`), nor what the statistics say: whoever made the player does.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gst::prelude::*;
use gstreamer as gst;

use super::keys::Wish;
use super::screen::Screen;

/// Longest text of statistics, in bytes; what is longer is cut.
pub(crate) const FIGURES_BYTES_MAX: usize = 2048;
/// One press of a key, in percent.
const STEP_PERCENT: u8 = 10;
/// The stream's own loudness.
const FULL_PERCENT: u8 = 100;
/// How long it is said what a key did.
const NOTE: Duration = Duration::from_millis(1500);

/// The text over the picture. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Board {
    overlay: Option<gst::Element>,
    state: Arc<Mutex<Writing>>,
}

#[derive(Debug, Default)]
struct Writing {
    figures: String,
    is_shown: bool,
    note: Option<String>,
}

impl Board {
    fn new(pipeline: &gst::Pipeline) -> Self {
        Self { overlay: pipeline.by_name("figures"), state: Arc::default() }
    }

    /// What is shown from here on where statistics are shown.
    pub(crate) fn write(&self, figures: &str) {
        let mut end = figures.len().min(FIGURES_BYTES_MAX);
        while !figures.is_char_boundary(end) {
            end -= 1;
        }
        self.change(|writing| figures[..end].clone_into(&mut writing.figures));
    }

    fn change(&self, change: impl FnOnce(&mut Writing)) {
        let mut writing = self.lock();
        change(&mut writing);
        let Some(overlay) = &self.overlay else { return };
        let figures = writing.is_shown.then_some(writing.figures.as_str());
        let lines: Vec<&str> = writing.note.as_deref().into_iter().chain(figures).collect();
        let text = lines.join("\n");
        overlay.set_property("silent", text.is_empty());
        // The element reads Pango's markup; names of streams come from others.
        overlay.set_property("text", gst::glib::markup_escape_text(&text).as_str());
    }

    fn lock(&self) -> MutexGuard<'_, Writing> {
        // Whole values are assigned: nothing is half-way when a holder panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How loud a player is; nothing for one without sound. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Loudness(Option<gst::Element>);

impl Loudness {
    fn new(pipeline: &gst::Pipeline) -> Self {
        Self(pipeline.by_name("loudness"))
    }

    /// Percent of the stream's own; 0 while muted.
    pub(crate) fn percent(&self) -> Option<u8> {
        let volume = self.0.as_ref()?;
        if volume.property::<bool>("mute") { Some(0) } else { Some(step_of(volume)) }
    }

    fn step(&self, up: bool) -> Option<u8> {
        let volume = self.0.as_ref()?;
        let now = step_of(volume);
        let next = if up {
            now.saturating_add(STEP_PERCENT).min(FULL_PERCENT)
        } else {
            now.saturating_sub(STEP_PERCENT)
        };
        volume.set_property("mute", false);
        volume.set_property("volume", (f64::from(next) / f64::from(FULL_PERCENT)).powi(3));
        Some(next)
    }

    /// Whether it is mute from here on.
    fn toggle_mute(&self) -> Option<bool> {
        let volume = self.0.as_ref()?;
        let mute = !volume.property::<bool>("mute");
        volume.set_property("mute", mute);
        Some(mute)
    }
}

/// People hear the cube root: a slider at half is a factor of an eighth.
fn step_of(volume: &gst::Element) -> u8 {
    let percent = volume.property::<f64>("volume").cbrt() * f64::from(FULL_PERCENT);
    (0..=FULL_PERCENT).rev().find(|step| f64::from(*step) < percent + 0.5).unwrap_or_default()
}

/// Whether a window stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Stays,
    Closes,
}

/// One window's.
#[derive(Debug)]
pub(crate) struct Panel {
    board: Board,
    loudness: Loudness,
    screen: Screen,
    note_ends: Option<Instant>,
}

impl Panel {
    /// Finds its elements in `pipeline`, which need not have any of them.
    pub(crate) fn new(pipeline: &gst::Pipeline) -> Self {
        Self {
            board: Board::new(pipeline),
            loudness: Loudness::new(pipeline),
            screen: Screen::attach(pipeline),
            note_ends: None,
        }
    }

    pub(crate) fn board(&self) -> Board {
        self.board.clone()
    }

    pub(crate) fn loudness(&self) -> Loudness {
        self.loudness.clone()
    }

    /// Does what a person asks for.
    pub(crate) fn on(&mut self, wish: Wish) -> Outcome {
        match wish {
            Wish::Figures => self.board.change(|writing| writing.is_shown = !writing.is_shown),
            Wish::Louder | Wish::Quieter => {
                let percent = self.loudness.step(wish == Wish::Louder);
                self.say(percent.map_or_else(no_sound, |percent| format!("volume {percent} %")));
            }
            Wish::Mute => {
                let said = match self.loudness.toggle_mute() {
                    Some(true) => "mute".to_owned(),
                    Some(false) => "sound".to_owned(),
                    None => no_sound(),
                };
                self.say(said);
            }
            Wish::FullScreen => {
                let full = !self.screen.is_full();
                self.set_full(full);
            }
            Wish::Leave if self.screen.is_full() => self.set_full(false),
            Wish::Leave | Wish::Close => return Outcome::Closes,
        }
        Outcome::Stays
    }

    /// How long [`Self::on_time`] can wait.
    pub(crate) fn wait(&self) -> Option<gst::ClockTime> {
        let left = self.note_ends?.saturating_duration_since(Instant::now());
        Some(gst::ClockTime::from_nseconds(u64::try_from(left.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// Takes back what was said long enough.
    pub(crate) fn on_time(&mut self) {
        if self.note_ends.is_some_and(|end| end <= Instant::now()) {
            self.note_ends = None;
            self.board.change(|writing| writing.note = None);
        }
    }

    fn set_full(&mut self, full: bool) {
        if let Err(reason) = self.screen.set_full(full) {
            tracing::warn!("no full screen: {reason}");
            self.say("no full screen here".to_owned());
        }
    }

    fn say(&mut self, note: String) {
        self.note_ends = Some(Instant::now() + NOTE);
        self.board.change(|writing| writing.note = Some(note));
    }
}

fn no_sound() -> String {
    "no sound".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel() -> (gst::Pipeline, Panel) {
        crate::init().unwrap();
        let text = "videotestsrc ! textoverlay name=figures silent=true ! fakesink name=video \
                    audiotestsrc ! volume name=loudness ! fakesink";
        let pipeline = crate::description::parse(std::path::Path::new("x"), text).unwrap();
        let panel = Panel::new(&pipeline);
        (pipeline, panel)
    }

    #[test]
    fn statistics_are_hidden_until_they_are_asked_for_and_never_read_as_markup() {
        let (pipeline, mut panel) = panel();
        let overlay = pipeline.by_name("figures").unwrap();
        panel.board().write("<b>garden</b>");
        assert!(overlay.property::<bool>("silent"));
        assert_eq!(panel.on(Wish::Figures), Outcome::Stays);
        assert!(!overlay.property::<bool>("silent"));
        assert_eq!(overlay.property::<String>("text"), "&lt;b&gt;garden&lt;/b&gt;");
        panel.on(Wish::Figures);
        assert!(overlay.property::<bool>("silent"));
        panel.on(Wish::Figures);
        panel.board().write(&"\u{6f22}".repeat(FIGURES_BYTES_MAX));
        assert!(overlay.property::<String>("text").len() <= FIGURES_BYTES_MAX);
    }

    #[test]
    fn sound_goes_in_steps_between_nothing_and_the_streams_own() {
        let (pipeline, mut panel) = panel();
        let volume = pipeline.by_name("loudness").unwrap();
        panel.on(Wish::Louder);
        assert_eq!(panel.loudness().percent(), Some(100));
        let mut heard = Vec::new();
        for _ in 0..11 {
            panel.on(Wish::Quieter);
            heard.push(panel.loudness().percent().unwrap());
        }
        assert_eq!(heard, [90, 80, 70, 60, 50, 40, 30, 20, 10, 0, 0]);
        panel.on(Wish::Louder);
        assert!((volume.property::<f64>("volume") - 0.001).abs() < 1e-9);
        panel.on(Wish::Mute);
        assert!(volume.property::<bool>("mute"));
        assert_eq!(panel.loudness().percent(), Some(0));
        panel.on(Wish::Louder);
        assert_eq!(panel.loudness().percent(), Some(20), "a key that changes it ends the silence");
    }

    #[test]
    fn what_a_key_did_is_said_for_a_while() {
        let (pipeline, mut panel) = panel();
        let overlay = pipeline.by_name("figures").unwrap();
        assert_eq!(panel.wait(), None);
        panel.on(Wish::Quieter);
        assert_eq!(overlay.property::<String>("text"), "volume 90 %");
        assert!(panel.wait().is_some());
        panel.note_ends = Some(Instant::now());
        panel.on_time();
        assert!(overlay.property::<bool>("silent"));
        assert_eq!(panel.wait(), None);
    }

    #[test]
    fn a_player_without_sound_or_screen_says_so_and_stays() {
        crate::init().unwrap();
        let text = "videotestsrc ! fakesink name=video";
        let pipeline = crate::description::parse(std::path::Path::new("x"), text).unwrap();
        let mut panel = Panel::new(&pipeline);
        for wish in [Wish::Figures, Wish::Louder, Wish::Mute, Wish::FullScreen] {
            assert_eq!(panel.on(wish), Outcome::Stays);
        }
        assert_eq!(panel.loudness().percent(), None);
        assert_eq!(panel.on(Wish::Leave), Outcome::Closes);
    }
}
