//! The internet of a lab: which packet goes where, when, and which is lost.
//!
//! Owns lines, ways, routers, partitions and the queue of packets under way: the same model and the
//! same draws as the simulator's, for packets instead of messages. Does not own devices nor time
//! (see [`super::wire`]).

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    net::Ipv4Addr,
    time::Duration,
};

use astral_core::units::Bitrate;
use astral_netsim::{
    geography::Place,
    random::{Dice, Purpose},
    scenario::{Nat, Network},
    uplink::{BAD_LOSS, Downlink, Loss, Uplink, Urgency, Weather},
};

use super::{packet, router::Router};

/// Packets under way at most; what has no place is dropped and counted.
const PACKETS_MAX: usize = 200_000;

/// One node's line.
#[derive(Debug)]
pub struct Line {
    uplink: Uplink,
    rate: Bitrate,
    downlink: Downlink,
    place: Option<Place>,
    weather: Weather,
    router: Option<Router>,
    packets: u64,
}

impl Line {
    /// The line of a node at a place, with rates of both directions. Without a place it is 25 ms away
    /// from everybody, so that two such are 50 ms apart, and loses nothing.
    #[must_use]
    pub fn new(
        rate: Bitrate,
        down: Option<Bitrate>,
        place: Option<Place>,
        (nat, addr): (Nat, Ipv4Addr),
    ) -> Self {
        Self {
            uplink: Uplink::new(rate),
            rate,
            downlink: Downlink::new(down),
            place,
            weather: Weather::default(),
            router: Router::new(nat, addr),
            packets: 0,
        }
    }
}

/// What became of packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Given to their receiver.
    pub delivered: u64,
    /// Lost in bad moments.
    pub lost: u64,
    /// A line's buffer was full.
    pub full: u64,
    /// Somebody was cut off.
    pub cut: u64,
    /// A router let them through in neither direction, or nobody has that address.
    pub refused: u64,
    /// More were under way than the hub keeps.
    pub overflow: u64,
}

/// A packet under way.
#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Flight {
    due: u64,
    order: u64,
    from: usize,
    to: usize,
    /// It is through the receiver's line.
    is_there: bool,
    bytes: Vec<u8>,
}

/// All lines and what is between them. Times are microseconds since the lab began.
#[derive(Debug)]
pub struct Hub {
    lines: Vec<Line>,
    routes: BTreeMap<Ipv4Addr, usize>,
    flights: BinaryHeap<Reverse<Flight>>,
    order: u64,
    /// When the last packet of a pair is there: they keep their order.
    last: BTreeMap<(usize, usize), u64>,
    parts: BTreeMap<u64, (BTreeSet<usize>, bool)>,
    network: Network,
    dice: Dice,
    /// What became of packets.
    pub counts: Counts,
}

/// From everybody to a line without a place.
const NOWHERE: Duration = Duration::from_millis(25);

impl Hub {
    /// An internet without anybody.
    #[must_use]
    pub const fn new(network: Network, dice: Dice) -> Self {
        Self {
            lines: Vec::new(),
            routes: BTreeMap::new(),
            flights: BinaryHeap::new(),
            order: 0,
            last: BTreeMap::new(),
            parts: BTreeMap::new(),
            network,
            dice,
            counts: Counts { delivered: 0, lost: 0, full: 0, cut: 0, refused: 0, overflow: 0 },
        }
    }

    /// Adds a line; they are numbered from 0.
    pub fn add(&mut self, addr: Ipv4Addr, line: Line) {
        self.routes.insert(addr, self.lines.len());
        self.lines.push(line);
    }

    /// A node sends a packet.
    pub fn send(&mut self, from: usize, mut bytes: Vec<u8>, now: u64) {
        let buffer = Duration::from_millis(self.network.buffer_ms);
        let Some(line) = self.lines.get_mut(from) else { return };
        if line.router.as_mut().is_some_and(|router| !router.leave(&mut bytes, now)) {
            self.counts.refused += 1;
            return;
        }
        let target = packet::addresses(&bytes).and_then(|(_, target)| self.routes.get(&target));
        let Some(to) = target.copied().filter(|to| *to != from) else {
            self.counts.refused += 1;
            return;
        };
        if line.uplink.is_full(Urgency::Live, now, buffer) {
            self.counts.full += 1;
            return;
        }
        let left = line.uplink.send(bytes.len(), Urgency::Live, now);
        line.packets += 1;
        let (number, link) = (line.packets, from as u64);
        let loss = Loss { mean: self.network.loss, burst_us: self.network.loss_burst_ms * 1_000 };
        let has_weather = line.place.is_some() && loss.mean > 0.0;
        if has_weather
            && line.weather.advance(loss, link, left, self.dice)
            && self.dice.chance(BAD_LOSS, Purpose::Loss, link, number)
        {
            self.counts.lost += 1;
            return;
        }
        if self.flights.len() >= PACKETS_MAX {
            self.counts.overflow += 1;
            return;
        }
        let way = self.way(from, to, number);
        let last = self.last.entry((from, to)).or_default();
        let due = (left + way).max(*last);
        *last = due;
        self.fly(Flight { due, order: 0, from, to, is_there: false, bytes });
    }

    /// When something is to be done next.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        self.flights.peek().map(|Reverse(flight)| flight.due)
    }

    /// The next packet that its receiver gets by now: to whom, what, and when it was due.
    pub fn pop(&mut self, now: u64) -> Option<(usize, Vec<u8>, u64)> {
        let buffer = Duration::from_millis(self.network.buffer_ms);
        while self.next_due().is_some_and(|due| due <= now) {
            let Some(Reverse(mut flight)) = self.flights.pop() else { break };
            if self.is_cut(flight.from, flight.to) {
                self.counts.cut += 1;
                continue;
            }
            let Some(line) = self.lines.get_mut(flight.to) else { continue };
            if flight.is_there {
                self.counts.delivered += 1;
                return Some((flight.to, flight.bytes, flight.due));
            }
            let router = line.router.as_mut();
            if router.is_some_and(|router| !router.enter(&mut flight.bytes, flight.due)) {
                self.counts.refused += 1;
                continue;
            }
            match line.downlink.receive(flight.bytes.len(), flight.due, buffer) {
                None => self.counts.full += 1,
                Some(at) => {
                    flight.due = at;
                    flight.is_there = true;
                    self.fly(flight);
                }
            }
        }
        None
    }

    /// Some nodes and all others do not hear each other any more; with `one_way` only what those
    /// nodes send is lost. Named, so that it can be healed.
    pub fn part(&mut self, name: u64, members: BTreeSet<usize>, one_way: bool) {
        self.parts.insert(name, (members, one_way));
    }

    /// The end of that.
    pub fn heal(&mut self, name: u64) {
        self.parts.remove(&name);
    }

    /// An uplink falls to so many percent of its rate, or is whole again with 100.
    pub fn throttle(&mut self, node: usize, percent: u64) {
        if let Some(line) = self.lines.get_mut(node) {
            line.uplink.set_rate(line.rate.percent(percent));
        }
    }

    fn is_cut(&self, from: usize, to: usize) -> bool {
        self.parts.values().any(|(members, one_way)| {
            let (sends, hears) = (members.contains(&from), members.contains(&to));
            sends != hears && (sends || !one_way)
        })
    }

    fn way(&self, from: usize, to: usize, number: u64) -> u64 {
        let (Some(here), Some(there)) = (self.lines[from].place, self.lines[to].place) else {
            return (NOWHERE * 2).as_micros() as u64;
        };
        let jitter = self.network.jitter_ms * self.dice.unit(Purpose::Jitter, from as u64, number);
        here.delay(there).as_micros() as u64 + (jitter * 1e3) as u64
    }

    fn fly(&mut self, mut flight: Flight) {
        self.order += 1;
        flight.order = self.order;
        self.flights.push(Reverse(flight));
    }
}

#[cfg(test)]
mod tests {
    use super::{super::packet::tests::udp, *};

    fn two_lines(network: Network, nat: Nat) -> Hub {
        let dice = Dice::new(1);
        let mut hub = Hub::new(network.clone(), dice);
        for node in 0..2_u8 {
            let addr = Ipv4Addr::new(11, 0, 0, node);
            let place = Place::of(u32::from(node), 8.0, &network, dice);
            let kind = if node == 0 { nat } else { Nat::Public };
            let rate = Bitrate::from_mbps(8);
            hub.add(addr, Line::new(rate, None, Some(place), (kind, addr)));
        }
        hub
    }

    fn run(hub: &mut Hub) -> Vec<(usize, u64)> {
        std::iter::from_fn(|| hub.pop(u64::MAX)).map(|(to, _, due)| (to, due)).collect()
    }

    #[test]
    fn packets_take_their_line_and_their_way_and_keep_their_order() {
        let network = Network { jitter_ms: 5.0, ..Network::default() };
        let mut hub = two_lines(network, Nat::Public);
        for _ in 0..100 {
            hub.send(0, udp("11.0.0.0:1", "11.0.0.1:2", &[0; 972]), 0);
        }
        let there = run(&mut hub);
        assert_eq!(there.len(), 100);
        assert!(there.is_sorted_by_key(|(_, due)| *due));
        // A thousand bytes take a millisecond; a way takes at least ten.
        assert!(there[99].1 >= 110_000, "{there:?}");
    }

    #[test]
    fn a_full_buffer_and_a_partition_drop_and_are_counted() {
        let mut hub = two_lines(Network::default(), Nat::Public);
        for _ in 0..300 {
            hub.send(0, udp("11.0.0.0:1", "11.0.0.1:2", &[0; 972]), 0);
        }
        let there = run(&mut hub).len() as u64;
        assert_eq!((there, hub.counts.full), (201, 99), "200 ms at 8 Mbit/s");
        hub.part(1, BTreeSet::from([0]), true);
        hub.send(0, udp("11.0.0.0:1", "11.0.0.1:2", b""), 1_000_000);
        hub.send(1, udp("11.0.0.1:2", "11.0.0.0:1", b""), 1_000_000);
        assert_eq!(run(&mut hub).len(), 1, "one way alone");
        hub.heal(1);
        hub.send(0, udp("11.0.0.0:1", "11.0.0.1:2", b""), 2_000_000);
        assert_eq!((run(&mut hub).len(), hub.counts.cut), (1, 1));
    }

    #[test]
    fn loss_is_as_frequent_as_the_scenario_says() {
        let mut hub = two_lines(Network { loss: 0.01, ..Network::default() }, Nat::Public);
        for n in 0..100_000 {
            hub.send(0, udp("11.0.0.0:1", "11.0.0.1:2", b"probe"), n * 1_000);
            while hub.pop(n * 1_000).is_some() {}
        }
        let share = hub.counts.lost as f64 / 100_000.0;
        assert!((0.007..0.013).contains(&share), "{share}");
    }

    #[test]
    fn nobody_reaches_a_home_that_did_not_speak_first() {
        let mut hub = two_lines(Network::default(), Nat::Cone);
        hub.send(1, udp("11.0.0.1:2", "11.0.0.0:4001", b""), 0);
        assert_eq!((run(&mut hub).len(), hub.counts.refused), (0, 1));
        hub.send(0, udp("192.168.1.2:4001", "11.0.0.1:2", b""), 0);
        assert_eq!(run(&mut hub)[0].0, 1);
        hub.send(1, udp("11.0.0.1:2", "11.0.0.0:4001", b""), 200_000);
        assert_eq!(run(&mut hub)[0].0, 0);
    }
}
