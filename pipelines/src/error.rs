//! What can go wrong, one enum per operation; every message says what to do next.
//!
//! Doesn't own trouble that comes later, while a pipeline runs: that is an event of its channel.

use std::path::PathBuf;

use crate::packages::install_command;

/// GStreamer can't start at all.
#[derive(Clone, Debug, thiserror::Error)]
#[error("GStreamer can't start: {message}; check its packages with `gst-inspect-1.0`")]
pub struct InitError {
    /// GStreamer's own words.
    pub message: String,
}

/// Why a capture didn't start.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaptureError {
    /// GStreamer itself can't start.
    #[error(transparent)]
    Init(#[from] InitError),
    /// A value of the spec is out of its range.
    #[error("{message}")]
    Spec {
        /// Which value, and the range it must lie in.
        message: String,
    },
    /// A GStreamer element isn't installed.
    #[error("the GStreamer element `{element}` is missing; {}", install_command(.package))]
    MissingElement {
        /// Its factory name, such as `x264enc`.
        element: String,
        /// The Debian package that brings it; empty when not known.
        package: String,
    },
    /// There is no such device.
    #[error("{wanted} wasn't found; {}", device_hint(.available))]
    DeviceNotFound {
        /// What was asked for, in words.
        wanted: String,
        /// The devices of that kind there are, each as `id (name)`.
        available: Vec<String>,
    },
    /// A pipeline description is wrong.
    #[error("the pipeline description {}: {message}", .path.display())]
    Description {
        /// The file, or the name of a shipped description.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The media file can't be read, or holds nothing that can be sent.
    #[error("the file {}: {message}", .path.display())]
    File {
        /// The file asked for.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The encoder asked for is installed but doesn't work on this machine.
    #[error("the encoder {encoder} doesn't run here: {message}; use `auto` or `x264`")]
    Encoder {
        /// Its factory name.
        encoder: String,
        /// GStreamer's own words.
        message: String,
    },
    /// The pipeline refused to run.
    #[error("the capture pipeline doesn't start: {message}")]
    State {
        /// GStreamer's own words.
        message: String,
    },
}

/// Why a player didn't start, or why it takes no more bytes.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlayError {
    /// GStreamer itself can't start.
    #[error(transparent)]
    Init(#[from] InitError),
    /// A GStreamer element isn't installed.
    #[error("the GStreamer element `{element}` is missing; {}", install_command(.package))]
    MissingElement {
        /// Its factory name, such as `avdec_h264`.
        element: String,
        /// The Debian package that brings it; empty when not known.
        package: String,
    },
    /// A window was asked for and there is no display.
    #[error(
        "no window can open: {reason}; start this in a desktop session, or play into `fake`, `file:` or `fd:`"
    )]
    NoDisplay {
        /// What is not set, or does not answer.
        reason: String,
    },
    /// A pipeline description is wrong.
    #[error("the pipeline description {}: {message}", .path.display())]
    Description {
        /// The name of a shipped description.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The pipeline refused to run.
    #[error("the player's pipeline doesn't start: {message}")]
    State {
        /// GStreamer's own words.
        message: String,
    },
    /// The bytes that were pushed first aren't an FLV stream.
    #[error("the bytes to play aren't an FLV stream")]
    NotFlv,
    /// The player has ended (window closed, failed, or dropped) and takes no more bytes.
    #[error("the player has ended")]
    Closed,
}

fn device_hint(available: &[String]) -> String {
    if available.is_empty() {
        "there is none on this machine: plug one in, or publish with --test".to_owned()
    } else {
        format!("there are: {} (see `astral devices`)", available.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_device_is_told_with_the_devices_there_are() {
        let error = CaptureError::DeviceNotFound {
            wanted: "the camera /dev/video9".to_owned(),
            available: vec!["/dev/video0 (Desk)".to_owned(), "/dev/video2 (Door)".to_owned()],
        };
        assert_eq!(
            error.to_string(),
            "the camera /dev/video9 wasn't found; there are: /dev/video0 (Desk), /dev/video2 (Door) \
             (see `astral devices`)"
        );
    }

    #[test]
    fn a_missing_element_is_told_with_its_package() {
        let error = PlayError::MissingElement {
            element: "avdec_h264".to_owned(),
            package: crate::packages::package_of("avdec_h264").to_owned(),
        };
        assert!(error.to_string().contains("`avdec_h264`"));
        assert!(error.to_string().contains("gstreamer1.0-libav"), "{error}");
    }
}
