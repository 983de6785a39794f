//! Who is there: the source, the supernodes, the viewers; when they come and go.
//!
//! Owns the slots of nodes and what a node is made of. Node 0 is the source, then come the
//! supernodes, then the viewers in the order in which they join.

use std::{collections::BTreeSet, net::Ipv4Addr};

use astral_core::{
    ids::NodeId,
    media::cutter::target_bytes,
    overlay::{Addr, Contact, OverlayConfig, RoleChoice, path_hash},
    time::micros,
    units::Bitrate,
};

use super::{World, event::Event};
use crate::{
    geography::Place,
    intervals::queueing::Shape,
    node::{Setup, SimNode},
    random::Purpose,
    scenario::{Class, JoinLaw, Nat, Session, SessionLaw, seconds},
    tally::Bytes,
    uplink::{Downlink, Uplink, Weather},
};

/// Unix time of the start of every run; any fixed moment would do.
const UNIX_START: u64 = 1_800_000_000;
/// The source starts and publishes at these moments, in microseconds.
const SOURCE_START_US: u64 = 500_000;
const PUBLISH_US: u64 = 1_500_000;
/// Supernodes start so long after each other, in microseconds.
const SUPERNODE_GAP_US: u64 = 50_000;
/// Uplink of supernodes, and the least physical uplink of any node: acknowledgements and requests
/// must leave even where nothing is to be forwarded.
const SUPERNODE_UPLINK: Bitrate = Bitrate::from_mbps(100);
const UPLINK_MIN: Bitrate = Bitrate::from_kbps(256);
/// Supernodes that a newcomer knows by name.
const BOOTSTRAP: u64 = 3;
/// A departed viewer's successor comes after this, in microseconds.
const REPLACE_AFTER_US: u64 = 500_000;

/// What a node is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// Publishes.
    Source,
    /// Keeps a directory from the start.
    Supernode,
    /// Watches; its number among viewers, from 0.
    Viewer(u32),
}

/// Whether a node's process runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Not yet.
    Waiting,
    /// It runs.
    Up,
    /// It is stopped and may go on.
    Frozen,
    /// It is gone since then; `vanished`: with its host, so that nothing closes.
    Gone { at: u64, vanished: bool },
}

/// One node's place in the world.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) id: NodeId,
    pub(super) hash: u64,
    pub(super) kind: Kind,
    pub(super) place: Place,
    pub(super) contact: Contact,
    pub(super) nat: Nat,
    pub(super) uplink: Bitrate,
    pub(super) up: Uplink,
    pub(super) down: Downlink,
    /// Its rate, where it has one.
    pub(super) down_rate: Option<Bitrate>,
    /// When a viewer's user wants to watch, in microseconds.
    pub(super) watch_at: Option<u64>,
    pub(super) max_copies: Option<u32>,
    /// Stripes that it may promise to children at most.
    pub(super) slots_max: u32,
    pub(super) state: State,
    pub(super) node: Option<Box<SimNode>>,
    pub(super) armed_at: u64,
    /// Nodes that a connection is up with.
    pub(super) neighbours: BTreeSet<u32>,
    /// Events that happened to it while it was frozen.
    pub(super) held: Vec<Event>,
    /// Messages sent; names the next one's draws.
    pub(super) messages: u64,
    /// Bytes sent by the last check.
    pub(super) sent_before: Bytes,
    /// It sends media so much later than it could, in microseconds.
    pub(super) holds_back_us: u64,
    /// Good and bad moments of its uplink.
    pub(super) weather: Weather,
    /// It came with a crowd.
    pub(super) in_crowd: bool,
    pub(super) class: Class,
}

impl World {
    /// Everybody who is there from the start, and the plan of who joins when.
    pub(super) fn cast(&mut self) {
        let supernodes = self.scenario.supernode_count();
        let source = Class {
            copies: self.scenario.source.copies,
            max_copies: self.scenario.source.max_copies,
            ..Class::default()
        };
        self.add(Kind::Source, &source, false);
        for _ in 0..supernodes {
            let class = Class { max_copies: Some(0), ..Class::default() };
            self.add(Kind::Supernode, &class, false);
        }
        for n in 0..supernodes {
            self.queue.push(u64::from(n) * SUPERNODE_GAP_US, Event::Start(n + 1));
        }
        self.queue.push(SOURCE_START_US, Event::Start(0));
        self.queue.push(PUBLISH_US, Event::Publish);
        let mut joins: Vec<(u64, bool)> = Vec::new();
        let join = &self.scenario.join;
        joins.extend(
            self.join_times(self.scenario.viewers.count, join.law, 0)
                .map(|at| (seconds(join.from_s + at * join.over_s), false)),
        );
        for (stream, crowd) in (1_u64..).zip(&self.scenario.crowds) {
            joins.extend(
                self.join_times(crowd.count, crowd.law, stream)
                    .map(|at| (seconds(crowd.at_s + at * crowd.over_s), true)),
            );
        }
        joins.sort_unstable();
        for (at, in_crowd) in joins {
            self.add_viewer(at, in_crowd, None);
        }
        if let Some(end) = self.scenario.session.as_ref().and_then(|s| s.programme_end_s) {
            self.queue.push(seconds(end), Event::ProgrammeEnd);
        }
        for (number, fault) in self.scenario.faults.iter().enumerate() {
            self.queue.push(seconds(fault.at_s), Event::Fault(number));
        }
        self.queue.push(super::SECOND_US, Event::Second);
    }

    /// A node's process starts.
    pub(super) fn start(&mut self, index: u32) {
        let setup = self.setup(index);
        let now = self.now();
        let Self { nodes, trace, tally, cuts, effects, feed_lives, .. } = self;
        let mut cx = crate::node::Cx { now, cuts, trace, tally, effects, lives: feed_lives };
        let node = SimNode::start(setup, &mut cx);
        let slot = &mut nodes[index as usize];
        slot.node = Some(Box::new(node));
        slot.state = State::Up;
        self.with_node(index, |_, _| {});
    }

    /// Draws how long a viewer stays.
    pub(super) fn plan_departure(&mut self, index: u32) {
        let Some(session) = &self.scenario.session else { return };
        let length = self.session_length(session, u64::from(index));
        let at = self.now() + seconds(length);
        if at < self.quiet_from() {
            self.queue.push(at, Event::Depart(index));
        }
    }

    /// A viewer's session is over.
    pub(super) fn depart(&mut self, index: u32) {
        let Some(session) = self.scenario.session.clone() else { return };
        if self.nodes[index as usize].node.is_none() {
            return;
        }
        let entity = u64::from(index);
        if self.dice.chance(session.abrupt, Purpose::Departure, entity, 0) {
            let vanished = self.dice.chance(session.silent, Purpose::Departure, entity, 1);
            self.leave_for_good(index, vanished);
        } else if self.nodes[index as usize].state == State::Frozen {
            self.leave_for_good(index, false);
        } else {
            self.with_node(index, SimNode::leave);
        }
        if session.replace {
            self.replace(index);
        }
    }

    /// A newcomer takes the place of one that is gone.
    pub(super) fn replace(&mut self, gone: u32) {
        let warm = seconds(self.scenario.join.warm_s);
        let at = self.now() + REPLACE_AFTER_US + warm;
        let session = self.scenario.session.as_ref();
        let over = session.and_then(|session| session.programme_end_s).map_or(u64::MAX, seconds);
        if at < self.quiet_from().min(over) {
            let class = self.nodes[gone as usize].class.clone();
            self.add_viewer(at, false, Some(class).filter(|_| self.scenario.viewers.dealt));
        }
    }

    /// The process, or the whole host, is gone.
    pub(super) fn leave_for_good(&mut self, index: u32, vanished: bool) {
        let now = self.now();
        self.retire(index, now, false);
        if vanished && self.is_coarse() {
            // Its parents and children hear nothing from now on; of a killed process they hear that.
            for peer in self.peers(index) {
                let at = now + micros(self.one_way(index, peer));
                self.queue.push(at, Event::Hush { node: peer, peer: index });
            }
        }
        let slot = &mut self.nodes[index as usize];
        self.checks.forget(slot);
        slot.state = State::Gone { at: now, vanished };
        slot.node = None;
        slot.held = Vec::new();
        if let Some(server) = self.servers.get_mut(&index) {
            *server = Some(now);
        }
        self.drop_links(index, vanished);
    }

    /// When each of so many viewers wants to watch, as a share of the time in which they come.
    fn join_times(&self, count: u32, law: JoinLaw, stream: u64) -> impl Iterator<Item = f64> {
        let dice = self.dice;
        let mut sum = 0.0;
        (0..count).map(move |n| {
            let share = f64::from(n) / f64::from(count.max(1));
            let draw = dice.exponential(Purpose::Join, stream << 32 | u64::from(n), 0);
            match law {
                JoinLaw::Ramp => share,
                JoinLaw::Poisson => {
                    sum += draw / f64::from(count.max(1));
                    sum
                }
                JoinLaw::Flash => (draw / 5.0).min(2.0),
                JoinLaw::Diurnal => diurnal(share),
            }
        })
    }

    /// How long a viewer stays, in seconds.
    fn session_length(&self, session: &Session, entity: u64) -> f64 {
        let draw = (Purpose::Session, entity, 0);
        match session.law {
            SessionLaw::Exponential => {
                session.mean_s * self.dice.exponential(Purpose::Session, entity, 0)
            }
            SessionLaw::Lognormal => self.dice.lognormal(session.mean_s, session.sigma, draw),
            SessionLaw::Weibull => self.dice.weibull(session.mean_s, session.shape, draw),
            SessionLaw::Trace => {
                let lengths = &session.lengths;
                let at = self.dice.below(lengths.len() as u64, Purpose::Session, entity, 0);
                let length = usize::try_from(at).ok().and_then(|at| lengths.get(at));
                let mean = lengths.iter().sum::<f64>() / lengths.len().max(1) as f64;
                let scale = if session.mean_s > 0.0 { session.mean_s / mean } else { 1.0 };
                length.copied().unwrap_or(f64::MAX) * scale
            }
        }
    }

    /// The programme is over: most viewers leave within some seconds, nobody comes after.
    pub(super) fn programme_end(&mut self) {
        let Some(session) = self.scenario.session.clone() else { return };
        let now = self.now();
        for index in (0_u32..).take(self.nodes.len()) {
            let entity = u64::from(index);
            let is_viewer = matches!(self.nodes[index as usize].kind, Kind::Viewer(_));
            if is_viewer && self.dice.chance(session.exodus, Purpose::Departure, entity, 2) {
                let after = session.exodus_over_s * self.dice.unit(Purpose::Departure, entity, 3);
                self.queue.push(now + seconds(after), Event::Depart(index));
            }
        }
    }

    fn add_viewer(&mut self, watch_at: u64, in_crowd: bool, class: Option<Class>) {
        let number = self.viewers;
        self.viewers += 1;
        let class = class.unwrap_or_else(|| self.class_of(number));
        let index = self.add(Kind::Viewer(number), &class, in_crowd);
        if self.scenario.absent.contains(&number) {
            return;
        }
        self.nodes[index as usize].watch_at = Some(watch_at);
        let start_at = watch_at.saturating_sub(seconds(self.scenario.join.warm_s));
        self.queue.push(start_at, Event::Start(index));
        self.queue.push(watch_at, Event::Watch(index));
    }

    fn class_of(&self, number: u32) -> Class {
        let classes = &self.scenario.viewers.classes;
        let total: f64 = classes.iter().map(|class| class.share).sum();
        let count = self.scenario.viewers.count.max(1);
        let mut draw = total
            * match self.scenario.viewers.dealt {
                // From the middle of its place, so that no rounding puts it into the next class.
                true => (f64::from(number % count) + 0.5) / f64::from(count),
                false => self.dice.unit(Purpose::Class, u64::from(number), 0),
            };
        for class in classes {
            draw -= class.share;
            if draw < 0.0 {
                return class.clone();
            }
        }
        classes.last().cloned().unwrap_or_default()
    }

    fn add(&mut self, kind: Kind, class: &Class, in_crowd: bool) -> u32 {
        let index = u32::try_from(self.nodes.len()).expect("checked with the scenario");
        let mut id = self.dice.bytes(Purpose::Identity, u64::from(index), 0);
        // The number hides in the id, so that finding a node by its id needs no search.
        id[28..].copy_from_slice(&index.to_be_bytes());
        let id = NodeId(id);
        let uplink = match kind {
            Kind::Supernode => SUPERNODE_UPLINK,
            Kind::Source | Kind::Viewer(_) => self.scenario.copies(class.copies).max(UPLINK_MIN),
        };
        let forwards = class.copies > 0.0 && kind != Kind::Supernode;
        let max_copies = if forwards { class.max_copies } else { Some(0) };
        let access_ms = class.access_ms.unwrap_or(self.scenario.network.access_ms);
        let place = Place::of(index, access_ms, &self.scenario.network, self.dice);
        let addr = Addr::new(format!("/ip4/{}/tcp/4001", address(place, index))).expect("short");
        let down_rate = class.down_copies.map(|copies| self.scenario.copies(copies));
        self.nodes.push(Slot {
            id,
            hash: path_hash(&id),
            kind,
            place,
            contact: Contact::new(id, vec![addr]),
            nat: class.nat,
            uplink,
            up: Uplink::new(uplink),
            down: Downlink::new(down_rate),
            down_rate,
            watch_at: None,
            max_copies,
            slots_max: self.slots_max(uplink, max_copies),
            state: State::Waiting,
            node: None,
            armed_at: u64::MAX,
            neighbours: BTreeSet::new(),
            held: Vec::new(),
            messages: 0,
            sent_before: Bytes::default(),
            holds_back_us: 0,
            weather: Weather::default(),
            in_crowd,
            class: class.clone(),
        });
        index
    }

    /// Stripes that a node may promise: what its uplink carries, and what its user allows.
    pub(super) fn slots_max(&self, uplink: Bitrate, max_copies: Option<u32>) -> u32 {
        let k = u64::from(self.scenario.stream.stripes);
        let told = self.scenario.network.uplink_told;
        let tuning = &self.tuning;
        let usable = if told { uplink } else { uplink.percent(tuning.measured_share_percent) };
        // A slot costs its media and what its frames add, as the overlay reckons.
        let (rate, stripes) = (self.scenario.stream.rate, self.scenario.stream.stripes);
        let stripe = rate.as_bps() / k;
        let chunk = target_bytes(rate, stripes) as u64;
        let framed = Bitrate::from_bps(stripe + stripe * tuning.chunk_overhead_bytes / chunk);
        let cost = framed.percent(100 + tuning.feed_overhead_percent).as_bps().max(1);
        let carried = usable.percent(tuning.slot_share_percent).as_bps() / cost;
        let allowed = max_copies.map_or(u64::MAX, |copies| u64::from(copies) * k);
        u32::try_from(carried.min(allowed)).unwrap_or(u32::MAX)
    }

    fn setup(&self, index: u32) -> Setup {
        let slot = &self.nodes[index as usize];
        let supernodes = self.scenario.supernode_count();
        let role = match slot.kind {
            Kind::Supernode => RoleChoice::Supernode,
            Kind::Source if supernodes == 0 => RoleChoice::Supernode,
            Kind::Source | Kind::Viewer(_) => RoleChoice::Auto,
        };
        let told = self.scenario.network.uplink_told;
        let config = OverlayConfig {
            unix_at_start: UNIX_START + self.now() / super::SECOND_US,
            role,
            member_capacity: self.scenario.supernodes.capacity,
            uplink: told.then_some(slot.uplink),
            max_copies: slot.max_copies,
            bootstrap: self.bootstrap(index),
            scheme: SimNode::scheme(),
            tuning: self.tuning.clone(),
            ..OverlayConfig::default()
        };
        Setup {
            index,
            id: slot.id,
            config,
            relay: self.relay_config,
            intervals: self.is_coarse().then(|| Shape::of(&self.scenario.stream)),
            seed: self.dice.bytes(Purpose::Identity, u64::from(index), 1),
            ceiling: told.then_some(slot.uplink),
            measured: (!told).then_some(slot.uplink),
            contact: slot.contact.clone(),
            reachable: slot.nat == Nat::Public,
            is_recorded: self.recorded == Some(index),
        }
    }

    /// The nodes that a newcomer knows by name: the first supernode for its fellows, a few drawn
    /// ones for all others, dead or alive.
    fn bootstrap(&self, index: u32) -> Vec<Contact> {
        self.known_at_start(index).into_iter().map(|known| self.contact(known)).collect()
    }

    /// The same by number.
    pub(super) fn known_at_start(&self, index: u32) -> Vec<u32> {
        let supernodes = u64::from(self.scenario.supernode_count());
        let founder = u32::from(supernodes > 0);
        match self.nodes[index as usize].kind {
            _ if index == founder => Vec::new(),
            Kind::Supernode => vec![founder],
            Kind::Source | Kind::Viewer(_) if supernodes == 0 => vec![founder],
            Kind::Source | Kind::Viewer(_) => {
                let draw = |n| self.dice.below(supernodes, Purpose::Bootstrap, u64::from(index), n);
                let mut known: Vec<u64> = (0..BOOTSTRAP.min(supernodes)).map(draw).collect();
                known.sort_unstable();
                known.dedup();
                let index = |n: u64| u32::try_from(n).unwrap_or(0) + 1;
                known.into_iter().map(index).collect()
            }
        }
    }
}

/// An address of a region's own blocks, so that rules about neighbours in the address space see what
/// they would see: each node a subnet of its own.
pub(super) fn address(place: Place, index: u32) -> Ipv4Addr {
    let [_, b, c, d] = (index << 4 | 7).to_be_bytes();
    // At most ten regions.
    Ipv4Addr::new(11 + place.region() as u8, b, c, d)
}

/// Where in its day the share `x` of all arrivals has come, when their rate is that of a raised
/// cosine.
fn diurnal(x: f64) -> f64 {
    let (mut low, mut high) = (0.0_f64, 1.0_f64);
    for _ in 0..40 {
        let middle = f64::midpoint(low, high);
        let turn = 2.0 * std::f64::consts::PI;
        if middle - libm::sin(turn * middle) / turn < x {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}
