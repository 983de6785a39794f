//! The small picture of a stream being published, made anew every half minute.
//!
//! Owns when one is made and that its hash is announced. Does not own how (see
//! [`PictureMaker`](crate::node::PictureMaker)) nor who fetches it (`node::pictures`).

use std::time::Duration;

use astral_core::media::{
    flv::{Codec, HeaderClass, HeaderSlot, TagKind},
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
/// Frame type and codec, packet type, composition time: what precedes H.264 in a classic tag.
const ENVELOPE_BYTES: usize = 5;

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
        let is_plain = tag.body.first().is_some_and(|first| first & 0x80 == 0);
        let is_picture = tag.kind == TagKind::Video && tag.is_keyframe() && is_plain;
        if !is_due || !is_picture || tag.video_codec() != Some(Codec::Avc) {
            return;
        }
        let slot = HeaderSlot { class: HeaderClass::VideoSequence, track: 0 };
        let Some(header) = self.headers.get(&slot) else { return };
        let inside = |body: &Bytes| body.slice(ENVELOPE_BYTES.min(body.len())..);
        let (config, keyframe) = (inside(&header.tag.body), inside(&tag.body));
        let (reply, made) = oneshot::channel();
        let maker = maker.clone();
        tokio::task::spawn_blocking(move || {
            // The publisher may be gone.
            let _ = reply.send(maker.make(config, keyframe));
        });
        self.portrait.making = Some(made);
        self.portrait.made_at = Some(Instant::now());
    }
}
