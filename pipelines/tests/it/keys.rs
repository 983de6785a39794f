//! A person at a window: real key presses by the X server's XTEST, and what they change on the screen.
//!
//! Needs Xvfb, as `window.rs` does.

use std::sync::{Arc, Mutex};

use x11rb::connection::Connection;
use x11rb::protocol::Event;
use x11rb::protocol::xproto::{
    AtomEnum, ChangeWindowAttributesAux, ConfigureWindowAux, ConnectionExt as _, CreateWindowAux,
    EventMask, ImageFormat, KEY_PRESS_EVENT, KEY_RELEASE_EVENT, PropMode, Window, WindowClass,
};
use x11rb::protocol::xtest::ConnectionExt as _;
use x11rb::rust_connection::RustConnection;
use x11rb::wrapper::ConnectionExt as _;

use crate::common::{next, small};
use crate::window::{Playing, inside_a_display, playing_window, until, window_of};
use astral_pipelines::{CaptureSource, PlayerEvent};

/// Key symbols of X11.
const ESCAPE: u32 = 0xff1b;
const DOWN: u32 = 0xff54;
const F11: u32 = 0xffc8;

/// The display of `inside_a_display`.
const SCREEN: (u16, u16) = (800, 600);
const PICTURE: (u16, u16) = (320, 180);

/// A display, its one window, and a hand at the keys.
struct Person {
    display: RustConnection,
    window: Window,
}

impl Person {
    /// Puts the pointer into the window, since keys go where it is.
    async fn at_the_window() -> Self {
        let (display, _) = x11rb::connect(None).unwrap();
        until("a window on the display", || window_of(&display).is_some()).await;
        let window = window_of(&display).unwrap();
        let (x, y) = (i16::try_from(PICTURE.0 / 2).unwrap(), i16::try_from(PICTURE.1 / 2).unwrap());
        display.warp_pointer(x11rb::NONE, window, 0, 0, 0, 0, x, y).unwrap().check().unwrap();
        Self { display, window }
    }

    fn press(&self, symbol: impl Into<u32>) {
        let (setup, symbol) = (self.display.setup(), symbol.into());
        let (first, last) = (setup.min_keycode, setup.max_keycode);
        let keys = self.display.get_keyboard_mapping(first, last - first + 1).unwrap();
        let keys = keys.reply().unwrap();
        let at = keys
            .keysyms
            .chunks(keys.keysyms_per_keycode.into())
            .position(|symbols| symbols[0] == symbol)
            .expect("a key with that symbol");
        let code = first + u8::try_from(at).unwrap();
        for event in [KEY_PRESS_EVENT, KEY_RELEASE_EVENT] {
            let sent = self.display.xtest_fake_input(event, code, 0, x11rb::NONE, 0, 0, 0);
            sent.unwrap().check().unwrap();
        }
    }

    fn size(&self) -> (u16, u16) {
        let now = self.display.get_geometry(self.window).unwrap().reply().unwrap();
        (now.width, now.height)
    }

    /// How many pixels of the window are dark.
    fn dark(&self) -> usize {
        let (width, height) = self.size();
        let picture = self
            .display
            .get_image(ImageFormat::Z_PIXMAP, self.window, 0, 0, width, height, u32::MAX)
            .unwrap()
            .reply()
            .unwrap();
        picture.data.chunks(4).filter(|pixel| pixel[..3].iter().all(|part| *part < 100)).count()
    }
}

/// A white picture in a window.
async fn white_window(folder: &str) -> Playing {
    let path = crate::common::folder(folder).join("white.launch");
    let launch = "videotestsrc is-live=true pattern=white \
         ! video/x-raw,width=320,height=180,framerate=30/1 \
         ! {encoder} ! h264parse ! flvmux streamable=true ! appsink name=out";
    std::fs::write(&path, launch).unwrap();
    playing_window(&small(CaptureSource::Launch(path))).await
}

/// The last event, warnings aside.
async fn last(playing: &mut Playing) -> Option<PlayerEvent> {
    loop {
        match next(&mut playing.events).await {
            Some(PlayerEvent::Warning(warning)) => println!("warning: {warning}"),
            other => return other,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_show_statistics_fill_the_screen_change_the_sound_and_close() {
    let test = "keys_show_statistics_fill_the_screen_change_the_sound_and_close";
    if !inside_a_display("keys", test) {
        return;
    }
    let mut playing = white_window("keys").await;
    let player = &playing.player;
    player.set_figures("garden\npicture 320x180, 30 a second");
    let person = Person::at_the_window().await;
    until("a white picture", || person.dark() == 0).await;

    person.press('i');
    until("statistics over the picture", || person.dark() > 200).await;
    person.press('i');
    until("the picture alone", || person.dark() == 0).await;

    for (enter, leave) in [(u32::from('f'), F11), (F11, u32::from('f')), ('f'.into(), ESCAPE)] {
        person.press(enter);
        until("the whole screen", || person.size() == SCREEN).await;
        // 320x180 in 800x600 leaves a quarter for borders above and below.
        let (all, borders) = (usize::from(SCREEN.0) * usize::from(SCREEN.1), 800 * 150);
        until("a picture in its shape, as wide as the screen", || {
            let dark = person.dark();
            (borders * 9 / 10..borders * 11 / 10).contains(&dark) && dark < all / 2
        })
        .await;
        person.press(leave);
        until("a window again", || person.size() == PICTURE).await;
        until("the picture alone", || person.dark() == 0).await;
    }

    assert_eq!(player.stats().loudness_percent, Some(100));
    person.press(DOWN);
    until("less sound", || player.stats().loudness_percent == Some(90)).await;
    person.press('m');
    until("no sound", || player.stats().loudness_percent == Some(0)).await;
    until("what was said of it is gone", || person.dark() == 0).await;

    person.press('q');
    assert_eq!(last(&mut playing).await, Some(PlayerEvent::Closed));
    assert_eq!(next(&mut playing.events).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn escape_closes_a_window_that_does_not_fill_the_screen() {
    if !inside_a_display("keys", "escape_closes_a_window_that_does_not_fill_the_screen") {
        return;
    }
    let mut playing = white_window("escape").await;
    Person::at_the_window().await.press(ESCAPE);
    assert_eq!(last(&mut playing).await, Some(PlayerEvent::Closed));
}

/// What a window manager was asked for: `_NET_WM_STATE`'s first two words.
type Asked = Arc<Mutex<Vec<[u32; 2]>>>;

/// Manages windows as far as a test needs it: shows them, and fills the screen when asked.
fn manage() -> (Asked, u32) {
    let (display, _) = x11rb::connect(None).unwrap();
    let root = display.setup().roots[0].root;
    let atom = |name: &[u8]| display.intern_atom(false, name).unwrap().reply().unwrap().atom;
    let (state, full) = (atom(b"_NET_WM_STATE"), atom(b"_NET_WM_STATE_FULLSCREEN"));
    let masks = EventMask::SUBSTRUCTURE_REDIRECT | EventMask::SUBSTRUCTURE_NOTIFY;
    let wanted = ChangeWindowAttributesAux::new().event_mask(masks);
    display.change_window_attributes(root, &wanted).unwrap().check().unwrap();
    let own = display.generate_id().unwrap();
    let aux = CreateWindowAux::new();
    display
        .create_window(0, own, root, 0, 0, 1, 1, 0, WindowClass::INPUT_ONLY, 0, &aux)
        .unwrap()
        .check()
        .unwrap();
    let check = atom(b"_NET_SUPPORTING_WM_CHECK");
    for window in [root, own] {
        let set =
            display.change_property32(PropMode::REPLACE, window, check, AtomEnum::WINDOW, &[own]);
        set.unwrap().check().unwrap();
    }
    let asked: Asked = Arc::default();
    let told = Arc::clone(&asked);
    // Ends with the process, which has this one test.
    std::thread::spawn(move || {
        while let Ok(event) = display.wait_for_event() {
            match event {
                Event::MapRequest(wanted) => {
                    display.map_window(wanted.window).unwrap();
                }
                Event::ConfigureRequest(wanted) => {
                    let aux = ConfigureWindowAux::from_configure_request(&wanted);
                    display.configure_window(wanted.window, &aux).unwrap();
                }
                Event::ClientMessage(message) if message.type_ == state => {
                    let [what, which, ..] = message.data.as_data32();
                    let is_full = what == 1;
                    let (width, height) = if is_full { SCREEN } else { PICTURE };
                    let aux =
                        ConfigureWindowAux::new().width(u32::from(width)).height(u32::from(height));
                    display.configure_window(message.window, &aux).unwrap();
                    let states: &[u32] = if is_full { &[full] } else { &[] };
                    let mode = PropMode::REPLACE;
                    let kind = AtomEnum::ATOM;
                    display.change_property32(mode, message.window, state, kind, states).unwrap();
                    told.lock().unwrap().push([what, which]);
                }
                _ => {}
            }
            display.flush().unwrap();
        }
    });
    (asked, full)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_manager_is_asked_to_fill_the_screen_and_to_end_it() {
    if !inside_a_display("keys", "a_window_manager_is_asked_to_fill_the_screen_and_to_end_it") {
        return;
    }
    let (asked, full) = manage();
    let mut playing = white_window("manager").await;
    let person = Person::at_the_window().await;
    person.press('f');
    until("the whole screen", || person.size() == SCREEN).await;
    until("told", || *asked.lock().unwrap() == [[1, full]]).await;
    person.press(ESCAPE);
    until("a window again", || person.size() == PICTURE).await;
    until("told", || *asked.lock().unwrap() == [[1, full], [0, full]]).await;
    person.press(ESCAPE);
    assert_eq!(last(&mut playing).await, Some(PlayerEvent::Closed));
}
