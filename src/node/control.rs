//! Control of the streams published here, by whoever has the [`Handle`].
//!
//! Owns those calls. Does not own their effect (see `wishes` and `publisher`).

use astral_core::{ids::StreamId, media::relay::RelayInput};

use super::{
    Handle,
    media::MediaCommand,
    publisher::check_texts,
    wishes::{ControlError, Metadata, PublishState},
};

impl Handle {
    /// Pauses a stream published here, or lets it go on with its next keyframe. Viewers hear of it
    /// at once, and nobody reconnects.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn pause(&self, stream: StreamId, paused: bool) -> Result<(), ControlError> {
        let inner = &self.shared.inner;
        let renditions = inner.wishes.change_all(stream, |wishes| {
            wishes.paused = paused;
            wishes.pauses = wishes.pauses.wrapping_add(u32::from(paused));
        })?;
        if paused {
            // Said here as well: the encoder may be silent, and its next media far away.
            for stream in std::iter::once(stream).chain(renditions) {
                let input = RelayInput::Paused { stream, paused };
                self.shared.media(MediaCommand::Relay(input)).await?;
            }
        }
        Ok(())
    }

    /// Ends the preview of a stream published here: it is announced with its next keyframe, from
    /// which on others see it.
    ///
    /// # Errors
    /// [`ControlError::NotOurs`].
    pub fn go_live(&self, stream: StreamId) -> Result<(), ControlError> {
        self.shared.inner.wishes.change_all(stream, |wishes| wishes.on_air = true)?;
        Ok(())
    }

    /// Ends a stream published here. Whoever fills it sees
    /// [`PushError::Ended`](super::PushError::Ended), or that
    /// [`Publisher::end_wanted`](super::Publisher::end_wanted) resolves, and ends it politely.
    ///
    /// # Errors
    /// [`ControlError::NotOurs`].
    pub fn end(&self, stream: StreamId) -> Result<(), ControlError> {
        self.shared.inner.wishes.change_all(stream, |wishes| wishes.over = true)?;
        Ok(())
    }

    /// Says something else about a stream published here: announced again with the next media.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn edit(&self, stream: StreamId, metadata: Metadata) -> Result<(), ControlError> {
        check_texts(&metadata.title, &metadata.description, &metadata.tags)?;
        self.shared.inner.wishes.change(stream, |wishes| wishes.metadata = Some(metadata))
    }

    /// How a stream is that this node publishes; `None` for others.
    #[must_use]
    pub fn publish_state(&self, stream: StreamId) -> Option<PublishState> {
        let wishes = self.shared.inner.wishes.get(stream)?;
        Some(PublishState {
            name: wishes.name,
            paused: wishes.paused || wishes.away,
            preview: !wishes.on_air,
            encoder: wishes.encoder,
        })
    }
}
