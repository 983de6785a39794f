//! Connections and the messages on them.
//!
//! Owns how a message gets from one node to another: the sender's uplink, the way, the receiver's
//! downlink, order, loss, and what becomes of connections whose end is gone. A feed's packets keep
//! their order, as on one stream; requests have streams of their own and overtake.

use std::{collections::VecDeque, time::Duration};

use astral_core::{
    overlay::{Contact, Input},
    time::micros,
};

use super::{
    World,
    cast::State,
    event::{Event, Message},
};
use crate::{
    packet::Packet,
    random::Purpose,
    scenario::{Nat, seconds},
    uplink::{self, Loss, Urgency},
};

/// A dial without any answer fails after this, in microseconds.
const DIAL_TIMEOUT_US: u64 = 10_000_000;
/// A connection without answers to pings is closed between these: the driver's ping interval,
/// timeout, and two failures.
const PING_NOTICE: (Duration, Duration) = (Duration::from_secs(11), Duration::from_secs(17));
/// Held-up packets come so long after a partition healed at most: a back-off of TCP.
const BACKOFF: Duration = Duration::from_secs(1);

/// Names one life of a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct LinkLife(u64);

/// One of the four queues of a connection: a direction and a kind.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Lane(usize);

impl Lane {
    const fn of(from: u32, to: u32, feed: bool) -> Self {
        Self((from > to) as usize * 2 + feed as usize)
    }
}

/// A connection between two nodes.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) life: LinkLife,
    pipes: [Pipe; 4],
    /// Who closed it, while the other does not know yet.
    closed_by: Option<u32>,
}

/// What is under way in one lane.
#[derive(Debug, Default)]
struct Pipe {
    waiting: VecDeque<(Packet, usize)>,
    armed: bool,
    last_arrival: u64,
}

impl World {
    /// A node sends a packet.
    pub(super) fn send(&mut self, from: u32, to: u32, packet: Packet) {
        let Some(bytes) = packet.wire_len() else {
            self.violated(Some(from), "a message is larger than the wire allows".to_owned());
            return;
        };
        self.count_message(&packet, bytes);
        let (now, buffer) = (self.now(), self.buffer());
        let lane = Lane::of(from, to, packet.is_feed());
        let full = self.nodes[from as usize].up.is_full(packet.urgency(), now, buffer);
        let Some(link) = self.links.get_mut(&pair(from, to)) else { return };
        if link.closed_by.is_some() {
            return;
        }
        let pipe = &mut link.pipes[lane.0];
        if !pipe.waiting.is_empty() || full {
            self.tally.drops += u64::from(pipe.waiting.is_empty());
            pipe.waiting.push_back((packet, bytes));
            if !std::mem::replace(&mut pipe.armed, true) {
                let at = now + micros(self.round_trip(from, to));
                self.queue.push(at, Event::Drain { from, to, lane });
            }
            return;
        }
        self.transmit(from, to, lane, packet, bytes);
    }

    /// What waited before a full uplink is sent, as far as it has room now.
    pub(super) fn drain_pipe(&mut self, from: u32, to: u32, lane: Lane) {
        let (now, buffer) = (self.now(), self.buffer());
        let again = now + micros(self.round_trip(from, to));
        loop {
            let up = self.nodes[from as usize].up;
            let Some(link) = self.links.get_mut(&pair(from, to)) else { return };
            let pipe = &mut link.pipes[lane.0];
            let next = pipe.waiting.front().map(|(packet, _)| packet.urgency());
            if next.is_some_and(|urgency| up.is_full(urgency, now, buffer)) {
                self.queue.push(again, Event::Drain { from, to, lane });
                return;
            }
            let Some((packet, bytes)) = pipe.waiting.pop_front() else {
                pipe.armed = false;
                return;
            };
            self.transmit(from, to, lane, packet, bytes);
        }
    }

    /// A message reaches the receiver's access link.
    pub(super) fn arrive(&mut self, message: Box<Message>) {
        let now = self.now();
        let (from, to) = (message.from, message.to);
        let Some(link) = self.links.get(&pair(from, to)) else { return };
        if link.life != message.life || link.closed_by == Some(to) {
            return;
        }
        if let Some(until) = self.blocked_until(from, to) {
            let entity = u64::from(from) << 32 | u64::from(to);
            let backoff = (Duration::ZERO, BACKOFF);
            let late = self.dice.between(backoff, (Purpose::Notice, entity, until));
            let lane = Lane::of(from, to, message.packet.is_feed());
            if let Some(link) = self.links.get_mut(&pair(from, to)) {
                let pipe = &mut link.pipes[lane.0];
                pipe.last_arrival = pipe.last_arrival.max(until + micros(late));
            }
            self.queue.push(until + micros(late), Event::Arrive(message));
            return;
        }
        let buffer = self.buffer();
        let Some(at) = self.nodes[to as usize].down.receive(message.bytes, now, buffer) else {
            self.tally.drops += 1;
            let again = now + micros(self.round_trip(from, to) + uplink::NOTICE);
            self.queue.push(again, Event::Arrive(message));
            return;
        };
        if at > now || self.nodes[to as usize].state == State::Frozen {
            self.queue.push(at, Event::Deliver(message));
        } else {
            self.deliver(*message);
        }
    }

    /// A message is there.
    pub(super) fn deliver(&mut self, message: Message) {
        let Message { from, to, life, packet, .. } = message;
        let Some(link) = self.links.get(&pair(from, to)) else { return };
        if link.life != life || link.closed_by == Some(to) {
            return;
        }
        let from = self.nodes[from as usize].id;
        self.with_node(to, |node, cx| node.receive(from, packet, cx));
    }

    /// A node dials.
    pub(super) fn dial(&mut self, from: u32, contact: &Contact) {
        let now = self.now();
        let known = self.index_of(&contact.node).filter(|to| {
            // Without addresses, Kademlia may know some.
            !contact.addrs.is_empty() || self.servers.contains_key(to)
        });
        let Some(to) = known else {
            self.queue.push(now, Event::DialFailed { node: from, peer: contact.node });
            return;
        };
        let takes = self.round_trip(from, to).as_secs_f64() * self.scenario.network.setup_rtts;
        self.queue.push(now + seconds(takes), Event::DialDone { from, to });
    }

    /// A dial has taken the time that it takes when the other side answers.
    pub(super) fn dial_done(&mut self, from: u32, to: u32) {
        let now = self.now();
        if self.nodes[from as usize].state != State::Up {
            return;
        }
        let peer = self.nodes[to as usize].id;
        let blocked = self.is_blocked(from, to) || self.is_blocked(to, from);
        let fails_at = match self.nodes[to as usize].state {
            State::Up if !blocked && self.gets_through(from, to) => None,
            State::Gone { vanished: false, .. } | State::Waiting if !blocked => Some(now),
            State::Up | State::Frozen | State::Gone { .. } | State::Waiting => {
                Some(now + DIAL_TIMEOUT_US)
            }
        };
        if let Some(at) = fails_at {
            self.queue.push(at, Event::DialFailed { node: from, peer });
            return;
        }
        match self.links.get(&pair(from, to)) {
            // Both dialled: they have one connection already.
            Some(link) if link.closed_by.is_none() => return,
            Some(link) => {
                let life = link.life;
                self.link_down(from, to, life, true);
                self.link_down(to, from, life, true);
            }
            None => {}
        }
        self.link_lives += 1;
        let life = LinkLife(self.link_lives);
        let link = Link { life, pipes: Default::default(), closed_by: None };
        self.links.insert(pair(from, to), link);
        self.nodes[from as usize].neighbours.insert(to);
        self.nodes[to as usize].neighbours.insert(from);
        let (dialler, dialled) = (self.nodes[from as usize].id, self.contact(to));
        self.with_node(to, |node, cx| node.link_up(Contact::new(dialler, Vec::new()), cx));
        self.with_node(from, |node, cx| node.link_up(dialled, cx));
        let at = now + micros(self.round_trip(from, to));
        self.queue.push(at, Event::Identified { node: from, peer: to, life });
        self.queue.push(at, Event::Identified { node: to, peer: from, life });
    }

    /// Whether a dial passes the NATs between two nodes: always to a public node, and by luck, which
    /// each pair has once and for all, from cone to cone.
    fn gets_through(&self, from: u32, to: u32) -> bool {
        match (self.nodes[from as usize].nat, self.nodes[to as usize].nat) {
            (_, Nat::Public) => true,
            (here, there) if here.is_cone() && there.is_cone() => {
                let (a, b) = pair(from, to);
                let entity = u64::from(a) << 32 | u64::from(b);
                self.dice.chance(self.scenario.network.hole_punch, Purpose::Dial, entity, 0)
            }
            _ => false,
        }
    }

    /// Identify and the first ping are through.
    pub(super) fn identified(&mut self, node: u32, peer: u32, life: LinkLife) {
        if self.links.get(&pair(node, peer)).is_none_or(|link| link.life != life) {
            return;
        }
        let contact = self.contact(peer);
        let rtt = self.round_trip(node, peer);
        self.with_node(node, |node, cx| {
            let id = contact.node;
            node.overlay_input(Input::Discovered { contact }, cx);
            node.rtt(id, rtt, cx);
        });
    }

    /// A node closes a connection.
    pub(super) fn close_link(&mut self, by: u32, other: u32) {
        let now = self.now();
        let delay = self.one_way(by, other);
        let Some(link) = self.links.get_mut(&pair(by, other)) else { return };
        let life = link.life;
        if self.nodes[by as usize].node.is_some() {
            self.queue.push(now, Event::LinkDown { node: by, peer: other, life, last: false });
        }
        if link.closed_by.is_none() {
            link.closed_by = Some(by);
            // What was sent before arrives before.
            let sent = [Lane::of(by, other, false), Lane::of(by, other, true)];
            let last = sent.into_iter().map(|lane| link.pipes[lane.0].last_arrival).max();
            let at = last.unwrap_or(0).max(now + micros(delay));
            self.queue.push(at, Event::LinkDown { node: other, peer: by, life, last: true });
        }
    }

    /// A node notices that a connection is closed; with the last of the two it is gone.
    pub(super) fn link_down(&mut self, node: u32, peer: u32, life: LinkLife, last: bool) {
        match self.links.get(&pair(node, peer)) {
            Some(link) if link.life != life => return,
            Some(_) if last => self.remove_link(node, peer),
            Some(_) | None => {}
        }
        let peer = self.nodes[peer as usize].id;
        self.with_node(node, |node, cx| node.link_down(peer, cx));
    }

    /// All connections of a node that is gone: closed by its kernel, or by nobody.
    pub(super) fn drop_links(&mut self, index: u32, vanished: bool) {
        for peer in self.peers(index) {
            if vanished {
                self.watch_link(index, peer);
            } else {
                self.close_link(index, peer);
            }
        }
    }

    /// Pings on this connection fail from now on: it will be closed if they still do then.
    pub(super) fn watch_link(&mut self, a: u32, b: u32) {
        let Some(life) = self.links.get(&pair(a, b)).map(|link| link.life) else { return };
        let after = self.dice.between(PING_NOTICE, (Purpose::Notice, life.0, self.now()));
        self.queue.push(self.now() + micros(after), Event::LinkTimeout { a, b, life });
    }

    /// Pings have failed for long enough, if they still do.
    pub(super) fn link_timeout(&mut self, a: u32, b: u32, life: LinkLife) {
        if self.links.get(&pair(a, b)).is_none_or(|link| link.life != life) {
            return;
        }
        let deaf = |node: u32| match self.nodes[node as usize].state {
            State::Frozen | State::Gone { .. } | State::Waiting => true,
            State::Up => false,
        };
        if !(deaf(a) || deaf(b) || self.is_blocked(a, b) || self.is_blocked(b, a)) {
            return;
        }
        self.remove_link(a, b);
        let now = self.now();
        for (node, peer) in [(a, b), (b, a)] {
            self.queue.push(now, Event::LinkDown { node, peer, life, last: false });
        }
    }

    /// Nodes that a node has a connection with.
    pub(super) fn peers(&self, index: u32) -> Vec<u32> {
        self.nodes[index as usize].neighbours.iter().copied().collect()
    }

    fn remove_link(&mut self, a: u32, b: u32) {
        self.links.remove(&pair(a, b));
        self.nodes[a as usize].neighbours.remove(&b);
        self.nodes[b as usize].neighbours.remove(&a);
    }

    pub(super) fn one_way(&self, from: u32, to: u32) -> Duration {
        self.nodes[from as usize].place.delay(self.nodes[to as usize].place)
    }

    fn round_trip(&self, from: u32, to: u32) -> Duration {
        self.one_way(from, to) * 2
    }

    fn transmit(&mut self, from: u32, to: u32, lane: Lane, packet: Packet, bytes: usize) {
        let now = self.now();
        let way = self.one_way(from, to);
        let slot = &mut self.nodes[from as usize];
        slot.messages += 1;
        let (number, entity) = (slot.messages, u64::from(from));
        let urgency = packet.urgency();
        let held_back = if urgency == Urgency::Control { 0 } else { slot.holds_back_us };
        let leaves_at = slot.up.send(bytes, urgency, now) + held_back;
        let jitter = duration_ms(self.scenario.network.jitter_ms);
        let jitter = self.dice.between((Duration::ZERO, jitter), (Purpose::Jitter, entity, number));
        let network = &self.scenario.network;
        let loss = Loss { mean: network.loss, burst_us: network.loss_burst_ms * 1_000 };
        let message = uplink::Message { link: entity, number, at: leaves_at, bytes, rtt: way * 2 };
        let resent = loss.delay(&mut slot.weather, &message, self.dice);
        self.tally.lost += u64::from(resent > Duration::ZERO);
        let Some(link) = self.links.get_mut(&pair(from, to)) else { return };
        let pipe = &mut link.pipes[lane.0];
        let mut at = leaves_at + micros(way + jitter + resent);
        if packet.is_feed() {
            at = at.max(pipe.last_arrival);
        }
        pipe.last_arrival = pipe.last_arrival.max(at);
        let message = Message { from, to, life: link.life, bytes, packet };
        self.queue.push(at, Event::Arrive(Box::new(message)));
    }
}

/// A connection's key: the lower number first.
pub(super) const fn pair(a: u32, b: u32) -> (u32, u32) {
    if a < b { (a, b) } else { (b, a) }
}

fn duration_ms(ms: f64) -> Duration {
    Duration::from_micros((ms * 1e3) as u64)
}
