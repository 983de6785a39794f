//! How a stream being published ends, for good or until its next encoder.
//!
//! Owns the last words and the waiting for those who still take them. Does not own the pause that
//! comes before (see `pausing`).

use std::{sync::PoisonError, time::Duration};

use astral_core::media::relay::{RelayInput, StreamRole};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};

use super::{MEASURE, Publisher, Stage, measured};
use crate::node::{
    error::{NodeGone, PushError},
    handle::NodeCommand,
    media::MediaCommand,
};

/// Children that take nothing for so long are not waited for when a stream ends ...
const LAST_WORDS: Duration = Duration::from_millis(1_500);
/// ... and those that do, no longer than this: a node that is told to leave is gone after five.
const LAST_WORDS_MAX: Duration = Duration::from_secs(3);
/// How often it is looked whether they did.
const LAST_WORDS_STEP: Duration = Duration::from_millis(50);

impl Publisher {
    /// Ends the stream: the end is said in the stream and in the directory. Takes at most two
    /// seconds where no child takes anything any more, three where one is still catching up.
    pub async fn end(mut self) {
        if self.over {
            return; // It rests, and everybody knows.
        }
        if let Err(error) = self.finish().await {
            tracing::debug!(%error, "the stream ended without the last words");
        }
    }

    /// Ends the broadcast as [`Self::end`] does, and waits for another encoder: the next media
    /// begins a broadcast of its own, in a new epoch under the same name.
    ///
    /// # Errors
    /// [`PushError`].
    pub async fn rest(&mut self) -> Result<(), PushError> {
        let is_silent = matches!(self.stage, Stage::Measuring { bytes: 0, .. });
        if self.over || is_silent { Ok(()) } else { self.finish().await }
    }

    /// Begins the next broadcast after [`Self::rest`].
    pub(super) async fn wake(&mut self) -> Result<(), PushError> {
        let stream = self.stream;
        // Whoever waits on this node for the stream has waited for others to bring it.
        self.shared.command(NodeCommand::Stop { stream }).await?;
        self.shared.media(MediaCommand::Relay(RelayInput::Close { stream })).await?;
        let (reply, reserved) = oneshot::channel();
        self.shared.command(NodeCommand::Reserve { stream, reply }).await?;
        if !reserved.await.map_err(|_| NodeGone)? {
            // Somebody published under the same name meanwhile.
            return Err(PushError::Ended);
        }
        self.over = false;
        let open = RelayInput::Open { stream, role: StreamRole::Source };
        self.shared.media(MediaCommand::Relay(open)).await?;
        self.begin_epoch()?;
        self.announced = false;
        self.pausing.begin_anew();
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), PushError> {
        self.over = true;
        if let Stage::Measuring { bytes, .. } = self.stage {
            // Shorter than two seconds, and still a stream.
            self.go_live(self.spec.rate.unwrap_or_else(|| measured(bytes, MEASURE))).await?;
        }
        if let Stage::Live(live) = &mut self.stage {
            live.cutter.end();
        }
        self.flush().await?;
        if let Some(tee) = &mut self.tee {
            tee.sync_all().await.map_err(PushError::Tee)?;
        }
        self.wait_for_children().await?;
        self.shared.command(NodeCommand::PublishOver { stream: self.stream }).await?;
        Ok(())
    }

    /// Until every child has all, takes nothing more, or [`LAST_WORDS_MAX`] is over.
    async fn wait_for_children(&self) -> Result<(), NodeGone> {
        let begun = Instant::now();
        let (mut moved_at, mut acked) = (begun, 0);
        while moved_at.elapsed() < LAST_WORDS && begun.elapsed() < LAST_WORDS_MAX {
            sleep(LAST_WORDS_STEP).await;
            let (reply, report) = oneshot::channel();
            self.shared.media(MediaCommand::Report { reply }).await?;
            let report = report.await.map_err(|_| NodeGone)?;
            let ours = report.relay.streams.iter().find(|ours| ours.stream == self.stream);
            let Some(ours) = ours else { break };
            let all_taken = ours
                .children
                .iter()
                .all(|child| child.acked_bytes >= child.sent_bytes && child.wanted == 0);
            if all_taken {
                break;
            }
            let now_acked = ours.children.iter().map(|child| child.acked_bytes).sum();
            if now_acked > acked {
                (moved_at, acked) = (Instant::now(), now_acked);
            }
        }
        Ok(())
    }

    /// What is cut next belongs to an epoch of its own.
    pub(super) fn begin_epoch(&mut self) -> Result<(), PushError> {
        let inner = &self.shared.inner;
        let epoch = {
            let mut data = inner.data.lock().unwrap_or_else(PoisonError::into_inner);
            data.epochs.next(self.stream, inner.clock.unix())
        };
        self.epoch = epoch.map_err(|error| {
            tracing::error!(%error, "the stream's epoch can't be stored");
            PushError::Gone(NodeGone)
        })?;
        let held = self.headers.values().cloned().collect();
        self.stage = Stage::Measuring { held, bytes: 0, first_ms: None };
        Ok(())
    }
}
