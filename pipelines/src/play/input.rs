//! Where the bytes of the FLV stream go in, with a bound on what waits inside.
//!
//! Doesn't own FLV: bytes pass as they are.

use std::sync::Arc;

use bytes::Bytes;
use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app as gst_app;
use tokio::sync::Semaphore;

use crate::error::PlayError;

/// How many bytes wait in front of the demuxer: 4 MiB, some three seconds of 10 Mbit/s.
const WAITING_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Larger pieces are cut, so that each fits the bound.
const PIECE_BYTES_MAX: usize = 256 * 1024;

/// What every FLV byte stream begins with; the demuxer would skip anything else without a word.
const FLV_MAGIC: &[u8] = b"FLV";

/// Takes the FLV byte stream of a [`super::Player`]. Dropping it ends the stream, as [`PlayerInput::end`].
#[derive(Debug)]
pub struct PlayerInput {
    source: gst_app::AppSrc,
    room: Arc<Semaphore>,
    /// How many of the first bytes were looked at.
    magic_seen: usize,
}

impl PlayerInput {
    /// Hands over the next bytes, of any length; the first of all must begin with `FLV`. Waits while
    /// 4 MiB wait to be read.
    ///
    /// Not cancel-safe: when the future is dropped, a leading part of `flv` may have been taken.
    ///
    /// # Errors
    /// [`PlayError::Closed`] when the player has ended, [`PlayError::NotFlv`] when the stream doesn't begin
    /// with `FLV` (nothing of this piece is taken).
    pub async fn push(&mut self, mut flv: Bytes) -> Result<(), PlayError> {
        let rest = FLV_MAGIC.get(self.magic_seen..).unwrap_or_default();
        let look = rest.len().min(flv.len());
        if flv[..look] != rest[..look] {
            return Err(PlayError::NotFlv);
        }
        self.magic_seen += look;
        while !flv.is_empty() {
            let piece = flv.split_to(flv.len().min(PIECE_BYTES_MAX));
            let bytes = u32::try_from(piece.len()).expect("a piece is at most PIECE_BYTES_MAX");
            match self.room.acquire_many(bytes).await {
                // The probe of `attach` gives it back when the piece leaves the source.
                Ok(permit) => permit.forget(),
                Err(_) => return Err(PlayError::Closed),
            }
            if self.source.push_buffer(gst::Buffer::from_slice(piece)).is_err() {
                return Err(PlayError::Closed);
            }
        }
        Ok(())
    }

    /// Says that nothing follows; what was pushed is played to its end.
    pub fn end(self) {
        drop(self);
    }
}

impl Drop for PlayerInput {
    fn drop(&mut self) {
        if self.source.end_of_stream().is_err() {
            tracing::debug!("the player had ended before its input");
        }
    }
}

/// Makes the input of `pipeline`; closing the returned semaphore refuses what is pushed later.
///
/// # Errors
/// When the description has no `appsrc name=in`.
pub(crate) fn attach(pipeline: &gst::Pipeline) -> Result<(PlayerInput, Arc<Semaphore>), PlayError> {
    let source =
        pipeline.by_name("in").and_then(|element| element.downcast::<gst_app::AppSrc>().ok());
    let Some(source) = source else {
        return Err(PlayError::State {
            message: "the description has no `appsrc name=in`".to_owned(),
        });
    };
    source.set_max_bytes(0);
    let room = Arc::new(Semaphore::new(WAITING_BYTES_MAX));
    let freed = Arc::clone(&room);
    let pad = source.static_pad("src").expect("an appsrc always has its source pad");
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(buffer) = info.buffer() {
            freed.add_permits(buffer.size());
        }
        gst::PadProbeReturn::Ok
    });
    Ok((PlayerInput { source, room: Arc::clone(&room), magic_seen: 0 }, room))
}
