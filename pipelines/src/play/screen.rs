//! A window over the whole screen, and back.
//!
//! Owns who is asked for it: the sink where it can do so itself (Wayland), the window manager of an X11
//! display, and the window alone where there is no manager. Does not own the window.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gst::prelude::*;
use gstreamer as gst;

/// The property of sinks that fill the screen by themselves.
const OWN_PROPERTY: &str = "fullscreen";

/// One window's screen.
#[derive(Debug)]
pub(crate) struct Screen {
    sink: gst::glib::WeakRef<gst::Element>,
    /// The sink's window, once it has one; 0 before.
    window: Arc<AtomicU64>,
    #[cfg(all(unix, not(target_os = "macos")))]
    before: Option<x11::Place>,
}

impl Screen {
    /// Learns of the window that the sink `video` of `pipeline` opens.
    pub(crate) fn attach(pipeline: &gst::Pipeline) -> Self {
        let window = Arc::new(AtomicU64::new(0));
        if let Some(bus) = pipeline.bus() {
            let window = Arc::clone(&window);
            bus.set_sync_handler(move |_, message| {
                if let gst::MessageView::Element(element) = message.view()
                    && let Some(said) = element.structure()
                    && said.name() == "have-window-handle"
                    && let Ok(handle) = said.get::<u64>("window-handle")
                {
                    window.store(handle, Ordering::Release);
                }
                gst::BusSyncReply::Pass
            });
        }
        Self {
            sink: pipeline.by_name("video").map(|sink| sink.downgrade()).unwrap_or_default(),
            window,
            #[cfg(all(unix, not(target_os = "macos")))]
            before: None,
        }
    }

    /// Whether the window fills the screen, also by somebody else's doing.
    pub(crate) fn is_full(&self) -> bool {
        match self.own() {
            Some(sink) => sink.property(OWN_PROPERTY),
            None => self.is_full_by_others(),
        }
    }

    /// Fills the screen, or takes the window's place again.
    ///
    /// # Errors
    /// Why it can't.
    pub(crate) fn set_full(&mut self, full: bool) -> Result<(), String> {
        match self.own() {
            Some(sink) => {
                sink.set_property(OWN_PROPERTY, full);
                Ok(())
            }
            None => self.ask_others(full),
        }
    }

    /// The sink, where it can fill the screen itself.
    fn own(&self) -> Option<gst::Element> {
        let sink = self.sink.upgrade()?;
        let sink = super::meter::screen_within(&sink)?;
        sink.find_property(OWN_PROPERTY)
            .is_some_and(|property| property.value_type() == gst::glib::Type::BOOL)
            .then_some(sink)
    }

    #[cfg(all(unix, not(target_os = "macos")))]
    fn is_full_by_others(&self) -> bool {
        let Some(window) = self.window() else { return false };
        self.before.is_some() || x11::is_full(window).unwrap_or(false)
    }

    #[cfg(all(unix, not(target_os = "macos")))]
    fn ask_others(&mut self, full: bool) -> Result<(), String> {
        let window = self.window().ok_or("the window is not one of X11")?;
        self.before =
            x11::set_full(window, full, self.before).map_err(|error| error.to_string())?;
        Ok(())
    }

    #[cfg(all(unix, not(target_os = "macos")))]
    fn window(&self) -> Option<u32> {
        u32::try_from(self.window.load(Ordering::Acquire)).ok().filter(|window| *window > 0)
    }

    #[cfg(not(all(unix, not(target_os = "macos"))))]
    const fn is_full_by_others(&self) -> bool {
        false
    }

    #[cfg(not(all(unix, not(target_os = "macos"))))]
    fn ask_others(&mut self, _full: bool) -> Result<(), String> {
        Err(format!("the sink of window {} can't", self.window.load(Ordering::Acquire)))
    }
}

/// X11, by the Extended Window Manager Hints.
#[cfg(all(unix, not(target_os = "macos")))]
mod x11 {
    use x11rb::connection::Connection;
    use x11rb::errors::ReplyError;
    use x11rb::protocol::xproto::{
        AtomEnum, ClientMessageData, ClientMessageEvent, ConfigureWindowAux, ConnectionExt,
        EventMask, StackMode,
    };
    use x11rb::rust_connection::RustConnection;

    /// Of `_NET_WM_STATE`: taken back, set.
    const REMOVE: u32 = 0;
    const ADD: u32 = 1;
    /// The request comes from a program, not from a pager.
    const FROM_A_PROGRAM: u32 = 1;
    /// Words of a property that are read: a window has a handful of states.
    const WORDS_MAX: u32 = 64;

    /// Where a window is, in pixels.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Place {
        x: i16,
        y: i16,
        width: u16,
        height: u16,
    }

    /// What can go wrong on the way to a display.
    #[derive(Debug, thiserror::Error)]
    pub(super) enum Error {
        #[error("the display does not answer: {0}")]
        Connect(#[from] x11rb::errors::ConnectError),
        #[error("the display refuses: {0}")]
        Reply(#[from] ReplyError),
    }

    impl From<x11rb::errors::ConnectionError> for Error {
        fn from(error: x11rb::errors::ConnectionError) -> Self {
            Self::Reply(error.into())
        }
    }

    /// Whether the window manager shows `window` over the whole screen.
    pub(super) fn is_full(window: u32) -> Result<bool, Error> {
        let (display, _) = x11rb::connect(None)?;
        let full = atom(&display, b"_NET_WM_STATE_FULLSCREEN")?;
        Ok(words(&display, window, b"_NET_WM_STATE", AtomEnum::ATOM)?.contains(&full))
    }

    /// Asks the window manager, or places `window` itself where there is none. Returns where the window
    /// was, when it has to be placed again.
    pub(super) fn set_full(
        window: u32,
        full: bool,
        before: Option<Place>,
    ) -> Result<Option<Place>, Error> {
        let (display, screen) = x11rb::connect(None)?;
        let Some(screen) = display.setup().roots.get(screen) else { return Ok(before) };
        if is_managed(&display, screen.root)? {
            let state = atom(&display, b"_NET_WM_STATE")?;
            let (what, full) =
                (if full { ADD } else { REMOVE }, atom(&display, b"_NET_WM_STATE_FULLSCREEN")?);
            let data = ClientMessageData::from([what, full, 0, FROM_A_PROGRAM, 0]);
            let message = ClientMessageEvent::new(32, window, state, data);
            let managers = EventMask::SUBSTRUCTURE_REDIRECT | EventMask::SUBSTRUCTURE_NOTIFY;
            display.send_event(false, screen.root, managers, message)?.check()?;
            return Ok(None);
        }
        if !full {
            if let Some(place) = before {
                put(&display, window, place)?;
            }
            return Ok(None);
        }
        let now = display.get_geometry(window)?.reply()?;
        let now = Place { x: now.x, y: now.y, width: now.width, height: now.height };
        let (width, height) = (screen.width_in_pixels, screen.height_in_pixels);
        put(&display, window, Place { x: 0, y: 0, width, height })?;
        Ok(Some(before.unwrap_or(now)))
    }

    /// A window manager that lives says so by a window that names itself.
    fn is_managed(display: &RustConnection, root: u32) -> Result<bool, Error> {
        let check = b"_NET_SUPPORTING_WM_CHECK";
        let Some(manager) = words(display, root, check, AtomEnum::WINDOW)?.first().copied() else {
            return Ok(false);
        };
        // The window of a manager that died is gone.
        Ok(words(display, manager, check, AtomEnum::WINDOW)
            .is_ok_and(|named| named.first() == Some(&manager)))
    }

    fn put(display: &RustConnection, window: u32, place: Place) -> Result<(), Error> {
        let wanted = ConfigureWindowAux::new()
            .x(i32::from(place.x))
            .y(i32::from(place.y))
            .width(u32::from(place.width))
            .height(u32::from(place.height))
            .stack_mode(StackMode::ABOVE);
        display.configure_window(window, &wanted)?.check()?;
        Ok(())
    }

    fn words(
        display: &RustConnection,
        window: u32,
        property: &[u8],
        kind: AtomEnum,
    ) -> Result<Vec<u32>, Error> {
        let property = atom(display, property)?;
        let value = display.get_property(false, window, property, kind, 0, WORDS_MAX)?.reply()?;
        Ok(value.value32().map(Iterator::collect).unwrap_or_default())
    }

    fn atom(display: &RustConnection, name: &[u8]) -> Result<u32, Error> {
        Ok(display.intern_atom(false, name)?.reply()?.atom)
    }
}
