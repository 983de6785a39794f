//! Small pictures of streams: which codecs they are made of.
//!
//! Owns nothing but translation to `astral_pipelines`, which decodes. Does not own when one is made.

use astral_core::media::flv::Codec;
use astral_pipelines::{PictureCoding, jpeg};

use crate::node::PictureMaker;

/// Makes pictures of whatever GStreamer decodes here.
pub fn maker() -> PictureMaker {
    PictureMaker::new(|codec, config, keyframe| {
        let coding = match codec {
            Codec::Avc => PictureCoding::H264,
            Codec::Hevc => PictureCoding::Hevc,
            Codec::Av1 => PictureCoding::Av1,
            Codec::Vp9 => PictureCoding::Vp9,
            Codec::Vp8 | Codec::Aac | Codec::Mp3 | Codec::Opus | Codec::Other(_) => return None,
        };
        jpeg(coding, config, keyframe)
    })
}
