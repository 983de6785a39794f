//! What a chunk waits for at a node's uplink, without any chunk.
//!
//! Owns the model of the frames' sizes and of the queue that they make. Does not own who is fed.

use astral_core::{
    media::{chunk::CHUNK_OVERHEAD, cutter::target_bytes},
    units::Bitrate,
};

use crate::scenario::Stream;

/// Groups of pictures after which the queue repeats itself.
const WARM_UP: u32 = 3;

/// The bytes that a stream's frames have.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Shape {
    /// Number of stripes.
    pub stripes: u8,
    /// Media of one stripe, in bytes a second.
    pub stripe_bytes: u64,
    /// Framed bytes over media.
    pub framed: f64,
    chunk_us_bytes: f64,
    frame_us: f64,
    frames: u32,
    key: f64,
    other: f64,
}

/// What sending costs at one node, in microseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Wait {
    /// One chunk takes this to leave.
    pub chunk: u64,
    /// It waits so long behind others, in the mean: over several hops the sum of means is what most see.
    pub queue: u64,
}

impl Shape {
    /// The shape of a scenario's stream.
    #[must_use]
    pub fn of(stream: &Stream) -> Self {
        let whole = stream.rate.as_bps() as f64 / 8.0;
        let frames = (stream.keyframe_s * f64::from(stream.fps)).max(1.0);
        let frame_us = 1e6 / f64::from(stream.fps.max(1));
        let ratio = stream.keyframe_ratio.max(1.0);
        let group = whole * frames * frame_us / 1e6;
        let other = group / (frames - 1.0 + ratio);
        let most = target_bytes(stream.rate, stream.stripes) as f64;
        // A frame that is smaller than a chunk is a chunk of its own; others are cut evenly.
        let chunk = other / (other / most).ceil().max(1.0);
        Self {
            stripes: stream.stripes,
            stripe_bytes: stream.rate.as_bps() / 8 / u64::from(stream.stripes.max(1)),
            framed: (chunk + CHUNK_OVERHEAD as f64) / chunk,
            chunk_us_bytes: chunk + CHUNK_OVERHEAD as f64,
            frame_us,
            frames: frames as u32,
            key: other * ratio,
            other,
        }
    }

    /// The cost of a chunk at an uplink that feeds so many stripes: frames come one after the other,
    /// keyframes among them, and each waits for what is left of those before it.
    #[must_use]
    pub fn wait(&self, uplink: Bitrate, slots: u32) -> Wait {
        let rate = uplink.as_bps() as f64 / 8e6;
        if rate <= 0.0 {
            return Wait::default();
        }
        let copies = f64::from(slots) / f64::from(self.stripes.max(1));
        let work = |bytes: f64| bytes * self.framed * copies / rate;
        let (mut left, mut waited, mut bytes_sent) = (0.0_f64, 0.0, 0.0);
        for group in 0..=WARM_UP {
            for frame in 0..self.frames {
                let bytes = if frame == 0 { self.key } else { self.other };
                let work = work(bytes);
                if group == WARM_UP {
                    waited += (left + work / 2.0) * bytes;
                    bytes_sent += bytes;
                }
                left = (left + work - self.frame_us).max(0.0);
            }
        }
        // A queue of seconds would be cut off by the relay; times are far below 2^53.
        let queue = (waited / bytes_sent.max(1.0)).min(2e6);
        Wait { chunk: (self.chunk_us_bytes / rate).min(2e6) as u64, queue: queue as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fuller_uplink_makes_chunks_wait_longer() {
        let shape = Shape::of(&Stream::default());
        let uplink = Bitrate::from_mbps(6);
        let waits: Vec<u64> = [1, 8, 14].map(|slots| shape.wait(uplink, slots).queue).into();
        assert!(waits[0] < waits[1] && waits[1] < waits[2], "{waits:?}");
        assert!(waits[0] < 5_000, "{waits:?}");
        let chunk = shape.wait(uplink, 1).chunk;
        assert!((3_000..9_000).contains(&chunk), "{chunk}");
        assert_eq!(shape.wait(Bitrate::ZERO, 3), Wait::default());
    }
}
