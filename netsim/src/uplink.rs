//! A node's access link: what waits before it and how long a message takes to leave or arrive.
//!
//! Owns the rates, the drop-tail buffer and the loss of bad moments. Does not own who sends what
//! first within a feed: that is the relay's own scheduler.

use std::time::Duration;

use astral_core::{time::micros, units::Bitrate};

use crate::random::{Dice, Purpose};

/// Bytes of one packet on the wire.
const PACKET_BYTES: usize = 1_200;
/// Share of packets that is lost in a bad moment.
pub const BAD_LOSS: f64 = 0.5;
/// Steps of the chain of good and bad moments, in microseconds.
const SLOT_US: u64 = 5_000;
/// A sender notices a loss after a round trip and this.
pub const NOTICE: Duration = Duration::from_millis(10);

/// Which of what waits at an uplink leaves first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Urgency {
    /// Requests, answers, acknowledgements.
    Control,
    /// Media on time.
    Live,
    /// Media again.
    Repair,
}

/// Sending side of an access link, in microseconds of simulated time. What left its queue is never
/// called back, so that a more urgent message waits for at most one of each class below.
#[derive(Clone, Copy, Debug)]
pub struct Uplink {
    rate: Bitrate,
    /// Until then live media of before leaves.
    live_until: u64,
    /// Until then anything of before leaves.
    busy_until: u64,
}

impl Uplink {
    /// An idle link of this rate.
    #[must_use]
    pub const fn new(rate: Bitrate) -> Self {
        Self { rate, live_until: 0, busy_until: 0 }
    }

    /// Changes the rate; what waits keeps its place.
    pub const fn set_rate(&mut self, rate: Bitrate) {
        self.rate = rate;
    }

    /// Whether a buffer of this depth has no room for more of this kind.
    #[must_use]
    pub fn is_full(&self, urgency: Urgency, now: u64, buffer: Duration) -> bool {
        let until = match urgency {
            Urgency::Control => return false,
            Urgency::Live => self.live_until,
            Urgency::Repair => self.busy_until,
        };
        until.saturating_sub(now) > micros(buffer)
    }

    /// Takes a message in; gives the time at which its last bit has left. It overtakes what is less
    /// urgent.
    pub fn send(&mut self, bytes: usize, urgency: Urgency, now: u64) -> u64 {
        let takes = micros(self.rate.time_for(bytes as u64).min(Duration::from_secs(60)));
        let start = match urgency {
            Urgency::Control => now,
            Urgency::Live => self.live_until.max(now),
            Urgency::Repair => self.busy_until.max(now),
        };
        if urgency != Urgency::Repair {
            self.live_until = self.live_until.max(now) + takes;
        }
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

    /// When a message that reaches the link now is taken: now, or behind those before it. `None`: a
    /// buffer of this depth is full and the message is lost.
    pub fn receive(&mut self, bytes: usize, now: u64, buffer: Duration) -> Option<u64> {
        let Some(rate) = self.rate else { return Some(now) };
        let start = self.busy_until.max(now);
        if start - now > micros(buffer) {
            return None;
        }
        self.busy_until = start + micros(rate.time_for(bytes as u64).min(Duration::from_secs(60)));
        Some(start)
    }
}

/// Bursty loss after Gilbert and Elliott: a link changes between good moments, which lose nothing,
/// and bad ones, which lose every other packet.
#[derive(Clone, Copy, Debug)]
pub struct Loss {
    /// Mean share of packets lost.
    pub mean: f64,
    /// Mean length of a bad moment, in microseconds.
    pub burst_us: u64,
}

/// The state of one link's chain. A pure function of link and time: nothing that is sent changes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Weather {
    slot: u64,
    is_bad: bool,
}

impl Weather {
    /// Goes on to this moment and says whether it is a bad one; a moment before the last one is as
    /// that.
    pub fn advance(&mut self, loss: Loss, link: u64, at: u64, dice: Dice) -> bool {
        let bad = (loss.mean / BAD_LOSS).min(0.9);
        let leave = (SLOT_US as f64 / loss.burst_us.max(1) as f64).min(1.0);
        let enter = leave * bad / (1.0 - bad);
        while self.slot < at / SLOT_US {
            self.slot += 1;
            let turn = if self.is_bad { leave } else { enter };
            self.is_bad ^= dice.chance(turn, Purpose::LossState, link, self.slot);
        }
        self.is_bad
    }
}

impl Loss {
    /// How much later a message arrives because packets of it had to be sent again.
    #[must_use]
    pub fn delay(self, weather: &mut Weather, message: &Message, dice: Dice) -> Duration {
        if self.mean <= 0.0 || !weather.advance(self, message.link, message.at, dice) {
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
        assert_eq!(uplink.send(1_000, Urgency::Live, 0), 1_000);
        assert_eq!(uplink.send(1_000, Urgency::Live, 0), 2_000);
        assert_eq!(uplink.send(100, Urgency::Control, 0), 100, "control overtakes");
        assert_eq!(uplink.send(1_000, Urgency::Live, 0), 3_100, "but takes its time from others");
        assert!(!uplink.is_full(Urgency::Live, 0, Duration::from_millis(4)));
        assert!(uplink.is_full(Urgency::Live, 0, Duration::from_millis(3)));
        assert_eq!(uplink.send(1_000, Urgency::Live, 1_000_000), 1_001_000);
    }

    #[test]
    fn live_media_overtakes_repair_and_repair_waits_for_everything() {
        let mut uplink = Uplink::new(Bitrate::from_mbps(8));
        assert_eq!(uplink.send(4_000, Urgency::Repair, 0), 4_000);
        assert_eq!(uplink.send(1_000, Urgency::Live, 0), 1_000);
        assert_eq!(uplink.send(1_000, Urgency::Repair, 0), 6_000);
        assert!(uplink.is_full(Urgency::Repair, 0, Duration::from_millis(5)));
        assert!(!uplink.is_full(Urgency::Live, 0, Duration::from_millis(5)));
    }

    #[test]
    fn a_downlink_spreads_what_comes_together() {
        let mut down = Downlink::new(Some(Bitrate::from_mbps(8)));
        let buffer = Duration::from_millis(2);
        assert_eq!(down.receive(1_000, 50, buffer), Some(50));
        assert_eq!(down.receive(1_000, 60, buffer), Some(1_050));
        assert_eq!(down.receive(9_000, 5_000, buffer), Some(5_000));
        assert_eq!(down.receive(1_000, 5_010, buffer), None, "what has no room is lost");
        assert_eq!(Downlink::new(None).receive(1_000_000, 7, buffer), Some(7));
    }

    #[test]
    fn loss_is_as_frequent_as_told_and_comes_in_bursts() {
        let loss = Loss { mean: 0.01, burst_us: 20_000 };
        let dice = Dice::new(5);
        let rtt = Duration::from_millis(50);
        let mut weather = Weather::default();
        let hit = |number: u64| {
            let message = Message { link: 1, number, at: number * 1_000, bytes: 1_000, rtt };
            loss.delay(&mut weather, &message, dice) > Duration::ZERO
        };
        let hits: Vec<bool> = (0..400_000).map(hit).collect();
        let share = hits.iter().filter(|hit| **hit).count() as f64 / hits.len() as f64;
        assert!((share - 0.01).abs() < 0.002, "{share}");
        let pairs = hits.windows(2).filter(|pair| pair[0] && pair[1]).count() as f64;
        assert!(pairs / hits.len() as f64 > 0.001, "independent loss would make a tenth of this");
    }
}
