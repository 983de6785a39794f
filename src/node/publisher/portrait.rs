//! The small picture of a stream being published, made anew every half minute.
//!
//! Owns when one is made and that its hash is announced. Does not own how (see
//! [`PictureMaker`](crate::node::PictureMaker)) nor who fetches it (`node::pictures`).

use std::time::Duration;

use astral_core::media::{
    flv::{Codec, HeaderClass, HeaderSlot, Tag, TagKind},
    normalize::MediaTag,
};
use bytes::Bytes;
use tokio::{
    sync::oneshot::{self, error::TryRecvError},
    time::Instant,
};

use super::{Publisher, Stage};
use crate::node::{error::PushError, pictures::PictureHash};

/// From one picture to the next.
const EVERY: Duration = Duration::from_secs(30);
/// What precedes a picture: frame type and codec, packet type and composition time in a classic tag;
/// packet type and FourCC in an enhanced one ...
const ENVELOPE_BYTES: usize = 5;
/// ... and with one packet type of H.264 and HEVC a composition time behind it.
const TIMED_ENVELOPE_BYTES: usize = 8;

/// How far the portrait is.
#[derive(Debug, Default)]
pub(super) struct Portrait {
    made_at: Option<Instant>,
    making: Option<oneshot::Receiver<Option<Bytes>>>,
    pub(super) hash: Option<PictureHash>,
}

impl Publisher {
    /// Takes a picture of this tag when it is time, and announces the one before when it is there.
    pub(super) async fn portray(&mut self, media: &MediaTag) -> Result<(), PushError> {
        self.begin_portrait(media);
        let Some(making) = &mut self.portrait.making else { return Ok(()) };
        let picture = match making.try_recv() {
            Ok(picture) => picture,
            Err(TryRecvError::Empty) => return Ok(()),
            Err(TryRecvError::Closed) => None,
        };
        self.portrait.making = None;
        let Some(picture) = picture else { return Ok(()) };
        let hash = self.shared.inner.pictures.put_own(self.stream, picture);
        let is_new = self.portrait.hash.replace(hash) != Some(hash);
        if let (true, true, Stage::Live(live)) = (is_new, self.announced, &self.stage) {
            let (rate, k) = (live.rate, live.k);
            self.announce(rate, k).await?;
        }
        Ok(())
    }

    fn begin_portrait(&mut self, media: &MediaTag) {
        let Some(maker) = self.shared.inner.pictures.maker() else { return };
        if self.spec.rendition_of.is_some() {
            return; // It is shown with the stream's own.
        }
        let is_due = self.portrait.made_at.is_none_or(|at| at.elapsed() >= EVERY);
        let tag = &media.tag;
        if !is_due || tag.kind != TagKind::Video || !tag.is_keyframe() {
            return;
        }
        let slot = HeaderSlot { class: HeaderClass::VideoSequence, track: 0 };
        let Some(header) = self.headers.get(&slot) else { return };
        let Some(codec) = header.tag.video_codec() else { return };
        let (config, keyframe) = (inside(&header.tag, codec), inside(tag, codec));
        let (Some(config), Some(keyframe)) = (config, keyframe) else { return };
        let (reply, made) = oneshot::channel();
        let maker = maker.clone();
        tokio::task::spawn_blocking(move || {
            // The publisher may be gone.
            let _ = reply.send(maker.make(codec, config, keyframe));
        });
        self.portrait.making = Some(made);
        self.portrait.made_at = Some(Instant::now());
    }
}

/// What a plain tag of a picture carries; `None` for extensions and several tracks.
fn inside(tag: &Tag, codec: Codec) -> Option<Bytes> {
    let body = &tag.body;
    let first = *body.first()?;
    let (is_enhanced, packet) = (first & 0x80 != 0, first & 0x0f);
    let at = match packet {
        _ if !is_enhanced => ENVELOPE_BYTES,
        1 if matches!(codec, Codec::Avc | Codec::Hevc) => TIMED_ENVELOPE_BYTES,
        0 | 1 | 3 => ENVELOPE_BYTES,
        _ => return None,
    };
    (body.len() > at).then(|| body.slice(at..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_found_behind_each_envelope() {
        let behind = |body: &'static [u8], codec| {
            let tag = Tag { kind: TagKind::Video, timestamp_ms: 0, body: Bytes::from_static(body) };
            inside(&tag, codec)
        };
        let found = Some(Bytes::from_static(b"picture"));
        assert_eq!(behind(b"\x17\x01\0\0\0picture", Codec::Avc), found);
        assert_eq!(behind(b"\x91hvc1\0\0\0picture", Codec::Hevc), found);
        assert_eq!(behind(b"\x93hvc1picture", Codec::Hevc), found);
        assert_eq!(behind(b"\x91av01picture", Codec::Av1), found);
        assert_eq!(behind(b"\x90vp09picture", Codec::Vp9), found);
        for (none, codec) in [
            (&b"\x97hvc1picture"[..], Codec::Hevc),
            (b"\x91hvc1\0\0\0", Codec::Hevc),
            (b"\x93hvc1", Codec::Hevc),
            (b"", Codec::Avc),
        ] {
            assert_eq!(behind(none, codec), None, "{none:?}");
        }
    }
}
