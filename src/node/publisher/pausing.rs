//! Pausing, resuming, preview and edits of a stream being published.
//!
//! Owns when media is let through, and what viewers are told of it. Does not own cutting.

use std::io::SeekFrom;

use astral_core::media::{
    flv::{Tag, TagKind},
    relay::RelayInput,
};
use tokio::io::AsyncSeekExt;

use super::{Live, Publisher, Stage};
use crate::node::{error::PushError, media::MediaCommand, wishes::Wishes};

/// Whether the encoder is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Encoder {
    /// It is, as far as anybody knows.
    #[default]
    Here,
    /// Its connection broke; it may be back in a moment.
    Reconnecting,
    /// It has left.
    Gone,
}

/// Why media is held back.
#[derive(Debug, Default)]
pub(super) struct Pausing {
    /// What the users want, as far as it was carried out.
    wished: Wishes,
    encoder: Encoder,
    /// Viewers were told that the stream pauses, and whether that is for a moment.
    told: Option<Encoder>,
    /// The picture goes on with a keyframe only.
    awaits_keyframe: bool,
    has_picture: bool,
}

impl Pausing {
    pub(super) const fn await_keyframe(&mut self) {
        self.awaits_keyframe = true;
    }

    /// Nobody was told anything of the broadcast that begins.
    pub(super) const fn begin_anew(&mut self) {
        self.told = None;
        self.awaits_keyframe = true;
    }

    /// What viewers should believe; `None` = it plays.
    const fn wanted(&self) -> Option<Encoder> {
        match (self.wished.paused, self.encoder) {
            (true, _) => Some(Encoder::Gone),
            (false, Encoder::Here) => None,
            (false, away) => Some(away),
        }
    }
}

impl Publisher {
    /// Tells the viewers that the source pauses, or goes on with its next keyframe. This is about
    /// the encoder; a user's pause ([`Handle::pause`](crate::node::Handle::pause)) holds beside it.
    ///
    /// # Errors
    /// [`PushError`].
    pub async fn pause(&mut self, paused: bool) -> Result<(), PushError> {
        self.encoder_is(if paused { Encoder::Gone } else { Encoder::Here });
        self.tell_pause().await
    }

    /// Tells the viewers that the encoder broke off and may be back in a moment.
    ///
    /// # Errors
    /// [`PushError`].
    pub async fn reconnecting(&mut self) -> Result<(), PushError> {
        self.encoder_is(Encoder::Reconnecting);
        self.tell_pause().await
    }

    fn encoder_is(&mut self, encoder: Encoder) {
        self.pausing.encoder = encoder;
        self.pausing.await_keyframe();
        let away = encoder != Encoder::Here;
        // A stream that is over is asked about no more.
        let _ = self.shared.inner.wishes.change(self.stream, |wishes| wishes.away = away);
    }

    /// Resolves when somebody asked for the stream's end by
    /// [`Handle::end`](crate::node::Handle::end). Holds nothing of the publisher.
    pub fn end_wanted(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut wishes = self.wishes.clone();
        async move {
            // An error means that the publisher is gone: its end needs no waiting for.
            let _ = wishes.wait_for(|wishes| wishes.over).await;
        }
    }

    /// Says a pause that is new; that the stream goes on is said with the media itself.
    async fn tell_pause(&mut self) -> Result<(), PushError> {
        let Some(away) = self.pausing.wanted() else { return Ok(()) };
        if self.pausing.told == Some(away) {
            return Ok(());
        }
        self.pausing.told = Some(away);
        if let Stage::Live(live) = &mut self.stage {
            match away {
                Encoder::Reconnecting => live.cutter.reconnecting(),
                Encoder::Here | Encoder::Gone => live.cutter.pause(),
            }
        }
        self.flush().await?;
        self.tell_relay(true).await
    }

    async fn tell_relay(&self, paused: bool) -> Result<(), PushError> {
        let input = RelayInput::Paused { stream: self.stream, paused };
        Ok(self.shared.media(MediaCommand::Relay(input)).await?)
    }

    /// Carries out what the users want by now.
    pub(super) async fn follow_wishes(&mut self) -> Result<(), PushError> {
        if !self.wishes.has_changed().unwrap_or(false) {
            return Ok(());
        }
        let wishes = self.wishes.borrow_and_update().clone();
        if wishes.over {
            return Err(PushError::Ended);
        }
        let before = std::mem::replace(&mut self.pausing.wished, wishes.clone());
        let paused_meanwhile = before.pauses != wishes.pauses;
        if before.paused != wishes.paused || paused_meanwhile {
            self.pausing.await_keyframe();
            if paused_meanwhile && !wishes.paused {
                // It was over before the next media; viewers were told by the relay all the same.
                self.pausing.told = Some(Encoder::Gone);
            }
            self.tell_pause().await?;
        }
        if wishes.on_air && self.spec.preview {
            self.go_on_air().await?;
        }
        if let Some(metadata) = wishes.metadata.filter(|new| before.metadata.as_ref() != Some(new))
        {
            self.spec.title = metadata.title;
            self.spec.description = metadata.description;
            self.spec.tags = metadata.tags;
            if let (true, Stage::Live(live)) = (self.announced, &self.stage) {
                let (rate, k) = (live.rate, live.k);
                self.announce(rate, k).await?;
            }
        }
        Ok(())
    }

    /// Whether a media tag is let through; the first after a pause says that the stream goes on.
    pub(super) async fn admit(&mut self, tag: &Tag) -> Result<bool, PushError> {
        self.pausing.has_picture |= tag.kind == TagKind::Video;
        if self.pausing.wanted().is_some() {
            return Ok(false);
        }
        if self.pausing.awaits_keyframe && self.pausing.has_picture && !tag.is_keyframe() {
            return Ok(false);
        }
        self.pausing.awaits_keyframe = false;
        if self.pausing.told.take().is_some() {
            self.tell_relay(false).await?;
        }
        Ok(true)
    }

    /// Begins what others see in an epoch of its own, so that nobody finds anything of the preview
    /// in a ring.
    async fn go_on_air(&mut self) -> Result<(), PushError> {
        self.spec.preview = false;
        let Stage::Live(live) = &self.stage else { return Ok(()) };
        let Live { rate, k, .. } = **live;
        (self.spec.rate, self.spec.k) = (self.spec.rate.or(Some(rate)), Some(k));
        self.begin_epoch()?;
        self.pausing.await_keyframe();
        if let Some(tee) = &mut self.tee {
            // What is sent begins here.
            tee.set_len(0).await.map_err(PushError::Tee)?;
            tee.seek(SeekFrom::Start(0)).await.map_err(PushError::Tee)?;
        }
        Ok(())
    }
}
