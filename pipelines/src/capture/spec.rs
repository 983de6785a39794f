//! What to capture: the caller's wishes and their ranges.
//!
//! Doesn't own how they become a pipeline (`plan.rs`).

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use crate::description::Values;
use crate::encoder::Encoder;
use crate::error::CaptureError;
use crate::microphone::Mic;
use crate::mode::Wish;

/// Where pictures and sound come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaptureSource {
    /// A moving test picture with a running clock, and a tick every second.
    Test,
    /// A camera.
    Camera {
        /// An id or name that [`crate::devices`] lists, or any V4L2 device file; `None` takes the first.
        device: Option<String>,
        /// The microphone that goes with it.
        mic: Mic,
    },
    /// The screen of this session.
    Screen {
        /// The microphone that goes with it.
        mic: Mic,
    },
    /// A media file (FLV, MP4, Matroska and whatever else GStreamer reads), over and over in real time.
    /// Its H.264 and AAC are sent as they are, anything else is encoded.
    File(PathBuf),
    /// A user's own description with an element `appsink name=out` that delivers FLV.
    Launch(PathBuf),
}

/// A smaller picture of the same, encoded beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RenditionSpec {
    /// Pixels, even, 16 to 7680.
    pub width: u32,
    /// Pixels, even, 16 to 4320.
    pub height: u32,
    /// 16 to 200,000 kbit/s.
    pub video_bitrate_kbps: u32,
}

/// Bits per second of the encoded sound, in thousands, where nothing else is wished.
pub const AUDIO_KBPS: u32 = 128;

/// What to capture and how to encode it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureSpec {
    /// Where pictures and sound come from.
    pub source: CaptureSource,
    /// Pixels, even, 16 to 7680. Other pictures are scaled and get borders.
    pub width: u32,
    /// Pixels, even, 16 to 4320.
    pub height: u32,
    /// Pictures a second, 1 to 240; of a slower camera, fewer.
    pub fps: u32,
    /// 16 to 200,000 kbit/s.
    pub video_bitrate_kbps: u32,
    /// 8 to 512 kbit/s.
    pub audio_bitrate_kbps: u32,
    /// From keyframe to keyframe, 0.1 to 60 seconds: how long a joiner may wait for a picture.
    pub keyframe_interval: Duration,
    /// The H.264 encoder.
    pub encoder: Encoder,
    /// Lower renditions, each an FLV byte stream of its own: [`super::CaptureEvent::Rendition`].
    pub renditions: Vec<RenditionSpec>,
}

impl Default for CaptureSpec {
    /// The test picture at 1280x720, 30 pictures a second, 2500 + 128 kbit/s, a keyframe every 2 s: what
    /// streaming sites suggest for 720p, and what the latency measurements were made with.
    fn default() -> Self {
        Self {
            source: CaptureSource::Test,
            width: 1280,
            height: 720,
            fps: 30,
            video_bitrate_kbps: 2500,
            audio_bitrate_kbps: AUDIO_KBPS,
            keyframe_interval: Duration::from_secs(2),
            encoder: Encoder::Auto,
            renditions: Vec::new(),
        }
    }
}

impl CaptureSpec {
    /// # Errors
    /// [`CaptureError::Spec`] on the first value out of its range.
    pub(crate) fn check(&self) -> Result<(), CaptureError> {
        within("the width", self.width, 16..=7680)?;
        within("the height", self.height, 16..=4320)?;
        within("the frame rate", self.fps, 1..=240)?;
        within("the video bitrate in kbit/s", self.video_bitrate_kbps, 16..=200_000)?;
        within("the audio bitrate in kbit/s", self.audio_bitrate_kbps, 8..=512)?;
        even(self.width, self.height)?;
        for rendition in &self.renditions {
            within("a rendition's width", rendition.width, 16..=7680)?;
            within("a rendition's height", rendition.height, 16..=4320)?;
            let kbps = rendition.video_bitrate_kbps;
            within("a rendition's bitrate in kbit/s", kbps, 16..=200_000)?;
            even(rendition.width, rendition.height)?;
        }
        let interval = self.keyframe_interval;
        if !(Duration::from_millis(100)..=Duration::from_secs(60)).contains(&interval) {
            let message =
                format!("the keyframe interval is {interval:?}; it must be from 100 ms to 60 s");
            return Err(CaptureError::Spec { message });
        }
        Ok(())
    }

    /// The numbers that placeholders stand for. Call [`CaptureSpec::check`] first.
    pub(crate) fn values(&self) -> Values {
        let mut values = Values::default();
        values.number("width", self.width);
        values.number("height", self.height);
        values.number("fps", self.fps);
        values.number("video_kbps", self.video_bitrate_kbps);
        values.number("video_bps", self.video_bitrate_kbps * 1000);
        values.number("audio_kbps", self.audio_bitrate_kbps);
        values.number("audio_bps", self.audio_bitrate_kbps * 1000);
        values.number("keyframe_frames", self.keyframe_frames());
        let (split, sound_split) = if self.renditions.is_empty() {
            ("", "")
        } else if matches!(self.source, CaptureSource::File(_)) {
            ("tee name=pictures ! queue !", "tee name=sounds !")
        } else {
            ("tee name=pictures ! queue max-size-buffers=2 leaky=downstream !", "tee name=sounds !")
        };
        values.word("split", split);
        values.word("sound_split", sound_split);
        values.word("renditions", "");
        values
    }

    /// The same for one of its renditions, the first being 1.
    pub(crate) fn rendition_values(&self, number: u32, rendition: &RenditionSpec) -> Values {
        let mut values = self.values();
        values.number("number", number);
        values.number("width", rendition.width);
        values.number("height", rendition.height);
        values.number("video_kbps", rendition.video_bitrate_kbps);
        values.number("video_bps", rendition.video_bitrate_kbps * 1000);
        // A file is paced by its appsinks, and nothing of it is dropped.
        let is_file = matches!(self.source, CaptureSource::File(_));
        values.word("sync", if is_file { "true" } else { "false" });
        values.word("leak", if is_file { "" } else { "max-size-buffers=2 leaky=downstream" });
        values
    }

    /// The picture to look for among a camera's modes.
    pub(crate) fn wish(&self) -> Wish {
        Wish { width: self.width, height: self.height, fps: self.fps }
    }

    fn keyframe_frames(&self) -> u32 {
        let frames = self.keyframe_interval.as_millis() * u128::from(self.fps) / 1000;
        u32::try_from(frames).map_or(u32::MAX, |frames| frames.max(1))
    }
}

fn even(width: u32, height: u32) -> Result<(), CaptureError> {
    if width.is_multiple_of(2) && height.is_multiple_of(2) {
        return Ok(());
    }
    let message = format!("{width}x{height}: width and height must be even");
    Err(CaptureError::Spec { message })
}

fn within(what: &str, value: u32, range: RangeInclusive<u32>) -> Result<(), CaptureError> {
    if range.contains(&value) {
        return Ok(());
    }
    let message =
        format!("{what} is {value}; it must be from {} to {}", range.start(), range.end());
    Err(CaptureError::Spec { message })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_in_range() {
        CaptureSpec::default().check().unwrap();
        assert_eq!(CaptureSpec::default().keyframe_frames(), 60);
    }

    #[test]
    fn values_out_of_range_are_refused_with_the_range() {
        let refused = [
            (
                CaptureSpec { fps: 0, ..CaptureSpec::default() },
                "the frame rate is 0; it must be from 1 to 240",
            ),
            (
                CaptureSpec { width: 333, ..CaptureSpec::default() },
                "333x720: width and height must be even",
            ),
            (
                CaptureSpec { keyframe_interval: Duration::ZERO, ..CaptureSpec::default() },
                "the keyframe interval is 0ns; it must be from 100 ms to 60 s",
            ),
        ];
        for (spec, message) in refused {
            assert_eq!(spec.check().unwrap_err().to_string(), message);
        }
    }
}
