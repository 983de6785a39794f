//! Which package brings which GStreamer element (as found on Debian 12 with `dpkg -S`).
//!
//! Doesn't own the lists that are installed: `debian-build.txt` and `debian-run.txt`.

/// The Debian package that brings `element`; empty when not known.
pub(crate) fn package_of(element: &str) -> &'static str {
    PACKAGES
        .iter()
        .find(|(_, names)| {
            names.iter().any(|name| match name.strip_suffix('*') {
                Some(prefix) => element.starts_with(prefix),
                None => element == *name,
            })
        })
        .map_or("", |(package, _)| package)
}

/// What to type so that `package` is there; for an unknown package, how to find it.
pub(crate) fn install_command(package: &str) -> String {
    if cfg!(target_os = "macos") {
        "install it with: brew install gstreamer".to_owned()
    } else if package.is_empty() {
        "find its package with: apt-cache search gstreamer1.0".to_owned()
    } else {
        format!("install it with: sudo apt-get install {package}")
    }
}

/// A name that ends in `*` stands for all that begin so. The first match counts.
const PACKAGES: &[(&str, &[&str])] = &[
    ("gstreamer1.0-plugins-ugly", &["x264enc", "asfdemux"]),
    ("gstreamer1.0-libav", &["avdec_*", "avenc_*", "avdemux_*", "avmux_*"]),
    (
        "gstreamer1.0-plugins-bad",
        &[
            "h264parse",
            "h265parse",
            "voaacenc",
            "faad",
            "openh264*",
            "vah*",
            "vapostproc",
            "nvh264enc",
            "nvh265enc",
            "mpegts*",
            "waylandsink",
            "rtmp2*",
            "srt*",
        ],
    ),
    (
        "gstreamer1.0-plugins-good",
        &[
            "flvmux",
            "flvdemux",
            "aacparse",
            "v4l2*",
            "pulsesrc",
            "pulsesink",
            "ximagesrc",
            "jpegdec",
            "jpegenc",
            "qtdemux",
            "mp4mux",
            "matroska*",
            "auto*",
            "videocrop",
            "videoflip",
            "deinterlace",
            "level",
            "souphttpsrc",
            "vp8*",
            "vp9*",
        ],
    ),
    (
        "gstreamer1.0-x",
        &["timeoverlay", "clockoverlay", "textoverlay", "textrender", "ximagesink", "xvimagesink"],
    ),
    ("gstreamer1.0-alsa", &["alsa*"]),
    ("gstreamer1.0-pipewire", &["pipewire*"]),
    ("gstreamer1.0-vaapi", &["vaapi*"]),
    ("gstreamer1.0-gl", &["gl*"]),
    (
        "gstreamer1.0-plugins-base",
        &[
            "videotestsrc",
            "audiotestsrc",
            "videoconvert*",
            "videoscale",
            "videorate",
            "audioconvert",
            "audioresample",
            "audiomixer",
            "decodebin*",
            "parsebin",
            "uridecodebin*",
            "playbin*",
            "appsrc",
            "appsink",
            "volume",
            "compositor",
            "opus*",
        ],
    ),
    (
        "libgstreamer1.0-0",
        &[
            "queue",
            "queue2",
            "tee",
            "identity",
            "fakesink",
            "fakesrc",
            "filesrc",
            "filesink",
            "fdsrc",
            "fdsink",
            "capsfilter",
            "clocksync",
            "multiqueue",
            "typefind",
            "valve",
        ],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_of_the_shipped_descriptions_has_a_package_or_belongs_to_macos() {
        for (name, text) in crate::shelf::ALL {
            for word in crate::description::element_words(text) {
                let of_macos =
                    ["avfvideosrc", "osxaudiosrc", "vtenc_h264"].contains(&word.as_str());
                assert!(
                    of_macos || !package_of(&word).is_empty(),
                    "{word} of {name} has no package"
                );
            }
        }
    }

    #[test]
    fn an_unknown_element_says_how_to_look_for_its_package() {
        assert_eq!(package_of("nosuchelement"), "");
        assert!(!install_command("").is_empty());
    }
}
