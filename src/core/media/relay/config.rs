//! The relay's tunables and hard limits.
//!
//! Owns [`RelayConfig`] and the named limits on everything that a remote can fill. Does not own
//! limits of the wire (see `media::frame`).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units::Bitrate;

/// Timings of the relay. Sources: "design" = agreed and swept in simulation, "guess" = plausible,
/// to be swept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RelayConfig {
    /// Media time that the ring keeps at least, in the absence of a larger lag: as long as a gap is
    /// waited for (`gap_give_up`). What is missing comes with what live media leaves of uplinks that
    /// are nearly full, and must still be somewhere by then. Swept in `drill`, seeds 1 to 16, with
    /// readers that keep everything: with 8 s 671 chunks in eleven of the runs were lost for good, with
    /// 12 s 372, with 16 s 46, with 20 s none. At 3 Mbit/s it is 7.5 MB.
    pub ring_window: Duration,
    /// Silence on a feed after which a KEEP is sent (design: 150 ms); one on which nothing is to flow
    /// gets one each `keep_interval`.
    pub keep_idle: Duration,
    /// Longest time between two KEEPs of a feed (design: 1 s).
    pub keep_interval: Duration,
    /// Time between two ACKs while bytes arrive (design: 100 ms).
    pub ack_interval: Duration,
    /// Longest time between two ACKs, which also renew leases (design: 1 s).
    pub ack_idle: Duration,
    /// Least T_dead (design: 300 ms).
    pub dead_min: Duration,
    /// Most T_dead (design: 600 ms).
    pub dead_max: Duration,
    /// Least time between two progress reports of a feed (design: 20 a second).
    pub progress_interval: Duration,
    /// How long a chunk may wait for a slow child before stripes are shed (design: 1 s).
    pub backlog_max: Duration,
    /// Time between two sheds of one child, for the first to help (design: 1 s grace).
    pub shed_grace: Duration,
    /// Unacknowledged bytes without progress for this long make a child stalled (design: 5 s).
    pub stall_after: Duration,
    /// A child that has bytes and acknowledges none for this long is perhaps dead: its slots may be
    /// given away. Eight intervals of its ACKs (QUIC takes seconds to notice a host that is gone).
    pub quiet_after: Duration,
    /// A gap that the live parent has not begun to fill for so long is asked of others (guess: two
    /// stripe intervals and a round trip).
    pub gap_patience: Duration,
    /// Time between two rounds of asking for a gap (guess).
    pub gap_retry: Duration,
    /// The uplink before it was measured: the overlay's own assumption.
    pub uplink_assumed: Bitrate,
    /// A stripe that stands still for so long is asked of neighbours (design: R3, 500 ms).
    pub starve_after: Duration,
    /// A neighbour's answer is worth nothing after this (guess: an eighth of the ring).
    pub repair_deadline: Duration,
    /// A gap that every feed and neighbour denied for so long is given up: whoever has it would have
    /// said so (design: 8 s).
    pub gap_denied_max: Duration,
    /// A gap is given up after this in any case (design: 20 s).
    pub gap_give_up: Duration,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            ring_window: Duration::from_secs(20),
            keep_idle: Duration::from_millis(150),
            keep_interval: Duration::from_secs(1),
            ack_interval: Duration::from_millis(100),
            ack_idle: Duration::from_secs(1),
            dead_min: Duration::from_millis(300),
            dead_max: Duration::from_millis(600),
            progress_interval: Duration::from_millis(50),
            backlog_max: Duration::from_secs(1),
            shed_grace: Duration::from_secs(1),
            stall_after: Duration::from_secs(5),
            quiet_after: Duration::from_millis(800),
            gap_patience: Duration::from_millis(300),
            gap_retry: Duration::from_millis(500),
            uplink_assumed: Bitrate::from_mbps(10),
            starve_after: Duration::from_millis(500),
            repair_deadline: Duration::from_secs(1),
            gap_denied_max: Duration::from_secs(8),
            gap_give_up: Duration::from_secs(20),
        }
    }
}

/// Most bytes of chunks in one stream's ring, whatever sinks still wait for.
pub const RING_BYTES_MAX: usize = 64 * 1_024 * 1_024;
/// Most places in one stream's ring: [`RING_BYTES_MAX`] of the smallest full chunks.
pub const RING_CHUNKS_MAX: usize = 65_536;
/// A chunk further ahead of the newest than this is an offence.
pub const SEQ_AHEAD_MAX: u64 = 1 << 20;
/// Numbers from here on are an offence: they would take a thousand years.
pub const SEQ_MAX: u64 = 1 << 62;
/// Most streams that one relay carries.
pub const STREAMS_MAX: usize = 256;
/// Most feeds of one stream in each direction.
pub const FEEDS_MAX: usize = 1_024;
/// Most sinks of one stream.
pub const SINKS_MAX: usize = 256;
/// Most init versions kept in one stream: headers change rarely.
pub const INITS_MAX: usize = 16;
/// Most separate gaps in one stripe; the oldest is given up beyond.
pub const HOLES_MAX: usize = 64;
/// Most separate ranges remembered for one child or parent in one stripe.
pub const RANGES_MAX: usize = 64;
/// Most chunks that one child may have wanted in one stripe: twice the ring of a fast stripe.
pub const WANTED_MAX: u64 = 4_096;
/// While more bytes than this wait in the driver for one child, it gets no answers: it asks without
/// reading.
pub const QUEUED_MAX: u64 = 1_024 * 1_024;
/// What the transport adds to a write: frames and tags of the secured, multiplexed connection.
pub const BATCH_OVERHEAD: usize = 48;
/// A child that PROMOTEs a stripe again and again is passed on to the overlay so often at most.
pub const PROMOTE_ASKED_INTERVAL: Duration = Duration::from_millis(500);
/// Bytes that may be on their way to a child at least.
pub const WINDOW_MIN: usize = 64 * 1_024;
/// Bytes that arrived since the last ACK which cause one at once: half of [`WINDOW_MIN`].
pub const ACK_BYTES: u64 = 32 * 1_024;
/// Most neighbours of one stream that are asked for repair (design: 6 to 8).
pub const NEIGHBOURS_MAX: usize = 8;
/// Most chunks that one neighbour is asked for at a time: what it sends in one answer at the usual
/// sizes.
pub const ASK_CHUNKS_MAX: u64 = 8;
/// Most questions of neighbours that wait in one stream.
pub const QUESTIONS_MAX: usize = 64;
/// Most bytes of chunks in one answer, beside one chunk: it leaves in one go.
pub const ANSWER_BYTES: usize = 32 * 1_024;
/// Most bytes of chunks in one batch for a child.
pub const BATCH_BYTES_MAX: usize = 64 * 1_024;
/// Bytes that a child gets in its turn while the uplink is paced: one full chunk.
pub const QUANTUM_BYTES: usize = 16 * 1_024 + 512;
