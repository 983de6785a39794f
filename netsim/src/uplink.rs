//! A node's access link: what waits before it and how long a message takes to leave or arrive.
//!
//! Owns the rates, the drop-tail buffer and the loss of bad moments. Does not own who sends what
//! first: control overtakes here, live goes before repair in the relay's own scheduler.

use std::time::Duration;

use astral_core::{time::micros, units::Bitrate};

use crate::random::{Dice, Purpose};

/// Bytes of one packet on the wire.
const PACKET_BYTES: usize = 1_200;
/// Share of packets that is lost in a bad moment.
const BAD_LOSS: f64 = 0.5;
/// A sender notices a loss after a round trip and this.
const NOTICE: Duration = Duration::from_millis(10);

/// Sending side of an access link, in microseconds of simulated time.
#[derive(Clone, Copy, Debug)]
pub struct Uplink {
    rate: Bitrate,
    busy_until: u64,
}

impl Uplink {
    /// An idle link of this rate.
    #[must_use]
    pub const fn new(rate: Bitrate) -> Self {
        Self { rate, busy_until: 0 }
    }

    /// Changes the rate; what waits keeps its place.
    pub const fn set_rate(&mut self, rate: Bitrate) {
        self.rate = rate;
    }

    /// Whether a buffer of this depth has no room for more.
    #[must_use]
    pub fn is_full(&self, now: u64, buffer: Duration) -> bool {
        self.busy_until.saturating_sub(now) > micros(buffer)
    }

    /// Takes a message in; gives the time at which its last bit has left. A control message
    /// overtakes what waits.
    pub fn send(&mut self, bytes: usize, control: bool, now: u64) -> u64 {
        let takes = micros(self.rate.time_for(bytes as u64).min(Duration::from_secs(60)));
        let start = if control { now } else { self.busy_until.max(now) };
        self.busy_until = self.busy_until.max(now) + takes;
        start + takes
    }
}

/// Receiving side of an access link: messages that arrive together are taken one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Downlink {
    rate: Option<Bitrate>,
    busy_until: u64,
}

impl Downlink {
    /// An idle link; without a rate it is never the bottleneck.
    #[must_use]
    pub const fn new(rate: Option<Bitrate>) -> Self {
        Self { rate, busy_until: 0 }
    }

    /// When a message that reaches the link now is taken: now, or behind those before it.
    pub fn receive(&mut self, bytes: usize, now: u64) -> u64 {
        let Some(rate) = self.rate else { return now };
        let start = self.busy_until.max(now);
        self.busy_until = start + micros(rate.time_for(bytes as u64).min(Duration::from_secs(60)));
        start
    }
}

/// Bursty loss: a link is in a bad moment for whole slots of time.
#[derive(Clone, Copy, Debug)]
pub struct Loss {
    /// Mean share of packets lost.
    pub mean: f64,
    /// Length of a slot, in microseconds.
    pub slot_us: u64,
}

impl Loss {
    /// How much later a message arrives because packets of it had to be sent again.
    #[must_use]
    pub fn delay(self, message: &Message, dice: Dice) -> Duration {
        if self.mean <= 0.0 {
            return Duration::ZERO;
        }
        let slot = message.at / self.slot_us.max(1);
        let bad = self.mean / BAD_LOSS;
        if !dice.chance(bad, Purpose::LossState, message.link, slot) {
            return Duration::ZERO;
        }
        let packets = i32::try_from(message.bytes.div_ceil(PACKET_BYTES)).unwrap_or(i32::MAX);
        let survives = 1.0 - libm::pow(1.0 - BAD_LOSS, f64::from(packets.max(1)));
        if !dice.chance(survives, Purpose::Loss, message.link, message.number * 2) {
            return Duration::ZERO;
        }
        let again = dice.chance(BAD_LOSS, Purpose::Loss, message.link, message.number * 2 + 1);
        let once = message.rtt + NOTICE;
        if again { once * 3 } else { once }
    }
}

/// What loss depends on.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// Names the sender's link.
    pub link: u64,
    /// Names the message on it.
    pub number: u64,
    /// When it leaves, in microseconds.
    pub at: u64,
    /// Its length.
    pub bytes: usize,
    /// Round trip to the receiver.
    pub rtt: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_leave_one_after_the_other_at_the_links_rate() {
        let mut uplink = Uplink::new(Bitrate::from_mbps(8));
        assert_eq!(uplink.send(1_000, false, 0), 1_000);
        assert_eq!(uplink.send(1_000, false, 0), 2_000);
        assert_eq!(uplink.send(100, true, 0), 100, "control overtakes");
        assert_eq!(uplink.send(1_000, false, 0), 3_100, "but takes its time from the others");
        assert!(!uplink.is_full(0, Duration::from_millis(4)));
        assert!(uplink.is_full(0, Duration::from_millis(3)));
        assert_eq!(uplink.send(1_000, false, 1_000_000), 1_001_000);
    }

    #[test]
    fn a_downlink_spreads_what_comes_together() {
        let mut down = Downlink::new(Some(Bitrate::from_mbps(8)));
        assert_eq!(down.receive(1_000, 50), 50);
        assert_eq!(down.receive(1_000, 60), 1_050);
        assert_eq!(down.receive(1_000, 5_000), 5_000);
        assert_eq!(Downlink::new(None).receive(1_000_000, 7), 7);
    }

    #[test]
    fn loss_is_as_frequent_as_told_and_comes_in_bursts() {
        let loss = Loss { mean: 0.01, slot_us: 20_000 };
        let dice = Dice::new(5);
        let rtt = Duration::from_millis(50);
        let hit = |number: u64| {
            let at = number * 1_000;
            loss.delay(&Message { link: 1, number, at, bytes: 1_000, rtt }, dice) > Duration::ZERO
        };
        let hits: Vec<bool> = (0..400_000).map(hit).collect();
        let share = hits.iter().filter(|hit| **hit).count() as f64 / hits.len() as f64;
        assert!((share - 0.01).abs() < 0.002, "{share}");
        let pairs = hits.windows(2).filter(|pair| pair[0] && pair[1]).count() as f64;
        assert!(pairs / hits.len() as f64 > 0.001, "independent loss would make a tenth of this");
    }
}
