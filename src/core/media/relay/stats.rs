//! What the relay counts and shows.
//!
//! Owns [`RelayStats`] and [`RelaySnapshot`]. Does not own any decision: nothing reads these to act.

use serde::Serialize;

use super::{
    input::{Policy, SinkId, StreamRole},
    output::SkipCause,
};
use crate::{
    ids::{FeedKey, StreamId, StripeSet},
    media::audience::Audience,
    units::Bitrate,
};

/// Totals of one relay since it was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct RelayStats {
    /// Chunks from parents that were new.
    pub chunks_in: u64,
    /// Bytes of all chunks from parents.
    pub bytes_in: u64,
    /// Chunks cut here.
    pub chunks_local: u64,
    /// Chunks that were here already, or whose time was over.
    pub duplicates: u64,
    /// Chunks, init segments and frames of another epoch.
    pub other_epoch: u64,
    /// Unlawful frames, by us or the driver.
    pub offences: u64,
    /// Inputs for a stream, feed or sink that isn't there.
    pub unknown: u64,
    /// Inputs refused because a named limit was reached.
    pub refused: u64,
    /// Chunks sent to children live.
    pub live_chunks_out: u64,
    /// Bytes of them.
    pub live_bytes_out: u64,
    /// Chunks sent to children for repair.
    pub repair_chunks_out: u64,
    /// Bytes of them.
    pub repair_bytes_out: u64,
    /// Bytes of all other frames to children and parents.
    pub control_bytes_out: u64,
    /// Questions to neighbours.
    pub neighbour_wants_out: u64,
    /// New chunks from neighbours.
    pub neighbour_chunks_in: u64,
    /// Chunks from neighbours that were here already.
    pub neighbour_duplicates: u64,
    /// Bytes of all chunks from neighbours.
    pub neighbour_bytes_in: u64,
    /// Questions of neighbours that were let in.
    pub neighbour_wants_in: u64,
    /// Questions of neighbours that got nothing for want of room or time.
    pub neighbour_wants_refused: u64,
    /// Chunks sent to neighbours.
    pub neighbour_chunks_out: u64,
    /// Bytes of them.
    pub neighbour_bytes_out: u64,
    /// PROMOTEs sent.
    pub promotes_out: u64,
    /// WANTs sent.
    pub wants_out: u64,
    /// GAPs sent.
    pub gaps_out: u64,
    /// GAPs that parents sent.
    pub gaps_in: u64,
    /// Gaps seen between chunks that came.
    pub gaps_seen: u64,
    /// Chunks given up: every ring that we know has lost them.
    pub given_up: u64,
    /// Stripes taken from slow children.
    pub sheds: u64,
    /// Children that drained nothing any more.
    pub stalls: u64,
    /// Bytes of chunks that children acknowledged.
    pub acked_bytes_out: u64,
    /// ACKs of more than was sent.
    pub false_acks: u64,
    /// Ranges forgotten because a child or parent had too many.
    pub ranges_dropped: u64,
    /// Chunks that went to sinks.
    pub delivered: u64,
    /// Chunks that sinks were spared.
    pub skips: SkipCounts,
    /// Of these, the ones that had not come, by what kept them.
    pub missed: MissCounts,
}

/// Chunks skipped, by cause.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct SkipCounts {
    /// [`SkipCause::Deadline`].
    pub deadline: u64,
    /// [`SkipCause::Lost`].
    pub lost: u64,
    /// [`SkipCause::SlowReader`].
    pub slow_reader: u64,
    /// [`SkipCause::Overwritten`].
    pub overwritten: u64,
    /// [`SkipCause::EpochOver`].
    pub epoch_over: u64,
}

impl SkipCounts {
    /// Counts `chunks` more.
    pub fn count(&mut self, cause: SkipCause, chunks: u64) {
        let total = match cause {
            SkipCause::Deadline => &mut self.deadline,
            SkipCause::Lost => &mut self.lost,
            SkipCause::SlowReader => &mut self.slow_reader,
            SkipCause::Overwritten => &mut self.overwritten,
            SkipCause::EpochOver => &mut self.epoch_over,
        };
        *total = total.saturating_add(chunks);
    }

    /// All of them.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.deadline + self.lost + self.slow_reader + self.overwritten + self.epoch_over
    }
}

/// Why a chunk was not there when a reader had to go on without it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MissCause {
    /// Its stripe had no parent.
    Orphan,
    /// It was known to be missing and did not come back in time.
    LateRepair,
    /// The parent was there and had not brought it.
    Upstream,
    /// Every ring that is known had lost it.
    Gone,
}

/// Chunks that readers missed, by cause. What a skip leaves out beside the missing chunk, up to the
/// next keyframe, counts with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct MissCounts {
    /// [`MissCause::Orphan`].
    pub orphan: u64,
    /// [`MissCause::LateRepair`].
    pub late_repair: u64,
    /// [`MissCause::Upstream`].
    pub upstream: u64,
    /// [`MissCause::Gone`].
    pub gone: u64,
}

impl MissCounts {
    /// Counts `chunks` more.
    pub fn count(&mut self, cause: MissCause, chunks: u64) {
        let total = match cause {
            MissCause::Orphan => &mut self.orphan,
            MissCause::LateRepair => &mut self.late_repair,
            MissCause::Upstream => &mut self.upstream,
            MissCause::Gone => &mut self.gone,
        };
        *total = total.saturating_add(chunks);
    }

    /// All of them.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.orphan + self.late_repair + self.upstream + self.gone
    }
}

/// Everything that a relay shows.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct RelaySnapshot {
    /// Totals.
    pub stats: RelayStats,
    /// The ceiling in force.
    pub ceiling: Option<Bitrate>,
    /// What the uplink carries, as measured; `None` = not measured, or not needed.
    pub uplink: Option<Bitrate>,
    /// Every stream, by id.
    pub streams: Vec<StreamSnapshot>,
}

/// One stream.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct StreamSnapshot {
    /// Which.
    pub stream: StreamId,
    /// What this node is to it.
    pub role: StreamRole,
    /// The epoch, once its certificate came.
    pub epoch: Option<u64>,
    /// Number of stripes; 0 = not known yet.
    pub k: u8,
    /// The certified rate.
    pub rate: Bitrate,
    /// Whether the source paused.
    pub paused: bool,
    /// Newest chunk.
    pub head_seq: Option<u64>,
    /// How long ago, in milliseconds, the source cut it.
    pub age_ms: u64,
    /// Chunks in the ring.
    pub ring_chunks: usize,
    /// Bytes in the ring.
    pub ring_bytes: usize,
    /// Chunks dropped from the ring so far.
    pub evicted: u64,
    /// Of these, dropped for its limits while they were needed.
    pub overrun: u64,
    /// Init versions known.
    pub inits: Vec<u16>,
    /// Chunks missing between others, now.
    pub missing: u64,
    /// Who takes the stream here and below, as far as they say; the source counts nobody here.
    pub audience: Audience,
    /// Parents.
    pub parents: Vec<ParentSnapshot>,
    /// Children.
    pub children: Vec<ChildSnapshot>,
    /// Local readers.
    pub sinks: Vec<SinkSnapshot>,
}

/// One feed from a parent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ParentSnapshot {
    /// Which.
    pub feed: FeedKey,
    /// Stripes promoted on it.
    pub promoted: StripeSet,
    /// Bytes of chunks that came.
    pub bytes: u64,
    /// Chunks that were here already.
    pub duplicates: u32,
    /// Unlawful frames.
    pub offences: u32,
    /// Whether it is silent for too long.
    pub silent: bool,
    /// Smoothed round trip time in milliseconds.
    pub rtt_ms: Option<u64>,
}

/// One feed to a child.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ChildSnapshot {
    /// Which.
    pub feed: FeedKey,
    /// Stripes that it may have.
    pub live: StripeSet,
    /// Stripes that it may ask for.
    pub warm: StripeSet,
    /// Stripes that it is being sent.
    pub flowing: StripeSet,
    /// Bytes of chunks handed to the driver.
    pub sent_bytes: u64,
    /// Of these, acknowledged.
    pub acked_bytes: u64,
    /// Bytes that the driver handed to the transport, as it says.
    pub drained_bytes: u64,
    /// Chunks that it waits for as repair.
    pub wanted: u64,
}

/// One local reader.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct SinkSnapshot {
    /// Which.
    pub sink: SinkId,
    /// When it skips.
    pub policy: Policy,
    /// Chunks delivered.
    pub delivered: u64,
    /// Chunks skipped.
    pub skips: SkipCounts,
}
