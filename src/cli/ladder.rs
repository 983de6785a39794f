//! Lower renditions as people ask for them: heights, their widths and rates.
//!
//! Owns the heights that there are. Does not own encoding nor publishing them.

use astral_core::units::Bitrate;
use astral_pipelines::RenditionSpec;
use clap::ValueEnum;

use crate::node::Lower;

/// As `--rendition` takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Height {
    #[value(name = "720p")]
    P720,
    #[value(name = "480p")]
    P480,
    #[value(name = "360p")]
    P360,
    #[value(name = "240p")]
    P240,
}

impl Height {
    /// The height of so many pixels, if there is one.
    pub fn of_pixels(pixels: u16) -> Option<Self> {
        Self::value_variants().iter().copied().find(|one| one.pixels() == u32::from(pixels))
    }

    /// In pixels.
    pub const fn pixels(self) -> u32 {
        match self {
            Self::P720 => 720,
            Self::P480 => 480,
            Self::P360 => 360,
            Self::P240 => 240,
        }
    }

    /// What its picture gets, in kbit/s: within the ranges that YouTube's help for live encoders gave
    /// for H.264 at 30 pictures a second (720p 1,500-4,000, 480p 500-2,000, 360p 400-1,000, 240p
    /// 300-700); never more than half of the stream's own, or it would spare nobody anything.
    const fn kbps(self) -> u32 {
        match self {
            Self::P720 => 2_500,
            Self::P480 => 1_000,
            Self::P360 => 600,
            Self::P240 => 400,
        }
    }
}

/// The smaller pictures of one of that size and rate, the best first.
///
/// # Errors
/// In words, for one that is not smaller.
pub fn smaller(
    heights: &[Height],
    (width, height): (u32, u32),
    video_kbps: u32,
) -> Result<Vec<RenditionSpec>, String> {
    let mut heights = heights.to_vec();
    heights.sort_by_key(|height| std::cmp::Reverse(height.pixels()));
    heights.dedup();
    let smaller = |own: Height| {
        if own.pixels() >= height {
            let pixels = own.pixels();
            return Err(format!(
                "a rendition of {pixels}p: the picture has {height} lines, and a rendition fewer"
            ));
        }
        Ok(RenditionSpec {
            width: (width * own.pixels() / height).next_multiple_of(2),
            height: own.pixels(),
            video_bitrate_kbps: own.kbps().min(video_kbps / 2).max(16),
        })
    };
    heights.into_iter().map(smaller).collect()
}

/// The same as they are published, with sound of `audio_kbps`.
pub fn published(renditions: &[RenditionSpec], audio_kbps: u32) -> Vec<Lower> {
    let lower = |one: &RenditionSpec| Lower {
        height: u16::try_from(one.height).unwrap_or(u16::MAX),
        rate: Bitrate::from_kbps((one.video_bitrate_kbps + audio_kbps).into()),
    };
    renditions.iter().map(lower).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renditions_keep_the_shape_of_the_picture_the_best_first_and_cost_half_at_most() {
        let of =
            |width, height, video_bitrate_kbps| RenditionSpec { width, height, video_bitrate_kbps };
        let all = [Height::P240, Height::P480, Height::P240];
        let wide = smaller(&all, (1_280, 720), 2_500).unwrap();
        assert_eq!(wide, [of(854, 480, 1_000), of(426, 240, 400)]);
        let small = smaller(&[Height::P240], (640, 360), 500).unwrap();
        assert_eq!(small, [of(426, 240, 250)]);
        assert!(smaller(&[Height::P360], (640, 360), 500).unwrap_err().contains("360 lines"));
        assert_eq!(published(&small, 128), [Lower { height: 240, rate: Bitrate::from_kbps(378) }]);
    }

    #[test]
    fn a_height_is_one_of_four() {
        assert_eq!(Height::of_pixels(480), Some(Height::P480));
        assert_eq!(Height::of_pixels(100), None);
    }
}
