//! A synthetic stream whose frames carry their time of birth, so that whoever receives them knows
//! their delay.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use astral_core::{
    media::flv::{Tag, TagKind},
    units::Bitrate,
};
use bytes::Bytes;

/// Bits per second of the stream, as in the measurements of other servers.
pub const RATE: Bitrate = Bitrate::from_kbps(4_150);
/// Frames a second.
pub const FPS: u64 = 30;
/// Marks a body that carries its time of birth.
pub const MARK: [u8; 8] = *b"bornedat";
const FRAME_BYTES: usize = (RATE.as_bps() / 8 / FPS) as usize;

/// Video frames of equal size, a keyframe every two seconds, born now.
pub struct Picture {
    number: u64,
    begun: Instant,
}

impl Picture {
    pub fn new() -> Self {
        Self { number: 0, begun: Instant::now() }
    }

    pub async fn next(&mut self) -> Tag {
        let at = Duration::from_millis(self.number * 1_000 / FPS);
        tokio::time::sleep_until((self.begun + at).into()).await;
        let keyframe = self.number.is_multiple_of(2 * FPS);
        let mut body = Vec::with_capacity(FRAME_BYTES);
        body.extend([if keyframe { 0x17 } else { 0x27 }, 1, 0, 0, 0]);
        body.extend(MARK);
        body.extend(unix_nanos().to_be_bytes());
        body.resize(FRAME_BYTES, self.number as u8);
        let timestamp_ms = (self.number * 1_000 / FPS) as u32;
        self.number += 1;
        Tag { kind: TagKind::Video, timestamp_ms, body: Bytes::from(body) }
    }
}

pub fn sequence_header() -> Tag {
    let body = Bytes::from_static(&[0x17, 0, 0, 0, 0, 1, 0x42, 0xc0, 0x1f, 0xff, 0xe0, 0]);
    Tag { kind: TagKind::Video, timestamp_ms: 0, body }
}

pub fn unix_nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    since.as_nanos() as u64
}

pub fn born(body: &[u8]) -> Option<u64> {
    (body.get(5..13)? == MARK).then(|| body.get(13..21)?.try_into().ok().map(u64::from_be_bytes))?
}
