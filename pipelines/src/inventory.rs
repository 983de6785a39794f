//! Which GStreamer elements are there, by what they are needed for.
//!
//! Owns the list of purposes. Doesn't own the pipelines that use the elements, nor which package
//! brings which (see `packages`).

use gstreamer as gst;

use crate::{
    error::InitError,
    packages::{install_command, package_of},
};

/// Something that elements are needed for, and how it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Purpose {
    /// What for, in words.
    pub what: &'static str,
    /// Astral is of little use without it.
    pub essential: bool,
    /// The elements that do it here; empty when it can't be done.
    pub found: Vec<&'static str>,
    /// What is missing.
    pub missing: Vec<Missing>,
}

impl Purpose {
    /// Whether it can be done.
    #[must_use]
    pub const fn is_met(&self) -> bool {
        self.missing.is_empty()
    }
}

/// An element that is not there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Missing {
    /// Its name.
    pub element: &'static str,
    /// The Debian package that brings it; empty when not known.
    pub package: &'static str,
    /// What to type.
    pub install: String,
}

/// A purpose takes one element of each of these rows; the first of a row is the one advised.
const PURPOSES: &[(&str, bool, &[&[&str]])] = &[
    (
        "encoding video",
        true,
        &[&["x264enc", "openh264enc", "vah264enc", "nvh264enc"], &["h264parse"]],
    ),
    ("encoding sound", true, &[&["voaacenc", "avenc_aac", "fdkaacenc"], &["aacparse"]]),
    ("writing and reading FLV", true, &[&["flvmux"], &["flvdemux"]]),
    ("playing", true, &[&["avdec_h264", "openh264dec", "vah264dec"], &["avdec_aac", "faad"]]),
    ("the test picture", false, &[&["videotestsrc"], &["audiotestsrc"], &["timeoverlay"]]),
    ("cameras", false, &[&["v4l2src", "avfvideosrc"], &["jpegdec"]]),
    ("microphones", false, &[&["pulsesrc", "pipewiresrc", "alsasrc", "osxaudiosrc"]]),
    ("screens", false, &[&["ximagesrc", "pipewiresrc", "avfvideosrc"]]),
    (
        "windows",
        false,
        &[&["autovideosink"], &["xvimagesink", "ximagesink", "waylandsink", "glimagesink"]],
    ),
    ("MP4 files", false, &[&["qtdemux"]]),
    ("what browsers record", false, &[&["matroskademux"], &["opusdec"], &["vp8dec"]]),
    ("small pictures in lists", false, &[&["avdec_h264"], &["jpegenc"]]),
];

/// Looks at every purpose. Loads the registry of plugins, which may take some seconds the first
/// time.
///
/// # Errors
/// When GStreamer itself can't start.
pub fn inventory() -> Result<Vec<Purpose>, InitError> {
    crate::init()?;
    Ok(PURPOSES.iter().map(|(what, essential, rows)| purpose(what, *essential, rows)).collect())
}

fn purpose(what: &'static str, essential: bool, rows: &[&[&'static str]]) -> Purpose {
    let is_here = |name: &&&'static str| gst::ElementFactory::find(name).is_some();
    let mut purpose = Purpose { what, essential, found: Vec::new(), missing: Vec::new() };
    for row in rows {
        match row.iter().find(is_here) {
            Some(found) => purpose.found.push(found),
            None => purpose.missing.extend(row.first().map(|element| {
                let package = package_of(element);
                Missing { element, package, install: install_command(package) }
            })),
        }
    }
    purpose
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_names_the_package_that_brings_it() {
        crate::init().unwrap();
        let met = purpose("x", true, &[&["no-such-element", "identity"]]);
        assert_eq!((met.is_met(), met.found.as_slice()), (true, &["identity"][..]));
        let unmet = purpose("x", true, &[&["x264enc-of-another-world"], &["identity"]]);
        assert_eq!(unmet.missing[0].element, "x264enc-of-another-world");
        assert!(unmet.missing[0].install.contains("apt-cache") || cfg!(target_os = "macos"));
    }

    #[test]
    fn every_advised_element_has_a_known_package() {
        let advised =
            PURPOSES.iter().flat_map(|(_, _, rows)| rows.iter().filter_map(|r| r.first()));
        for element in advised {
            assert_ne!(package_of(element), "", "{element}");
        }
    }
}
