//! A small network of relays in virtual time.
//!
//! Owns the link model and a source of made-up media. Does not own an overlay: a test says who feeds
//! whom, and names the standbys that are promoted when a parent closes or falls silent.
//!
//! A feed is reliable and ordered, as libp2p streams are: what is sent arrives after the link's
//! delay, no faster than the link's rate, or not at all once an end is dead. A frozen node neither
//! reads nor writes, and nobody is told.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use bytes::Bytes;

use crate::{
    ids::{Direction, FeedKey, NodeId, SourceKey, StreamId, StreamName, Stripe, StripeSet},
    media::{
        cert::{EpochCert, SignedCert},
        chunk::{ChunkFlags, ChunkHeader, Payload},
        frame::{DownFrame, UpFrame},
        init::{InitSegment, SignedInit},
        relay::{
            AnswerId, Delivery, DownFrameMeta, FeedProgress, Policy, Relay, RelayConfig,
            RelayInput, RelayOutput, RelayStats, SinkId, StreamRole,
        },
        repair::{RepairAnswer, RepairWant},
    },
    time::Timestamp,
    units::Bitrate,
};

/// A chunk without bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Sim {
    pub(super) header: ChunkHeader,
}

impl Payload for Sim {
    fn header(&self) -> &ChunkHeader {
        &self.header
    }

    fn wire_len(&self) -> usize {
        usize::from(self.header.payload_len) + 111
    }
}

pub(super) fn stream_id() -> StreamId {
    StreamId([7; 32])
}

pub(super) fn node(number: u8) -> NodeId {
    NodeId([number; 32])
}

pub(super) fn from_parent(parent: NodeId) -> FeedKey {
    FeedKey { stream: stream_id(), peer: parent, direction: Direction::FromParent }
}

pub(super) fn to_child(child: NodeId) -> FeedKey {
    FeedKey { stream: stream_id(), peer: child, direction: Direction::ToChild }
}

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(super) fn at(ms: u64) -> Timestamp {
    Timestamp::from_millis(ms)
}

pub(super) fn cert(epoch: u64, k: u8, rate: Bitrate) -> SignedCert {
    let cert = EpochCert {
        source: SourceKey([1; 32]),
        name: StreamName::new("test").unwrap(),
        epoch,
        k,
        rate,
        chunk_key: [2; 32],
        expires_unix: u64::MAX,
    };
    SignedCert { cert, signature: [0; 64] }
}

pub(super) fn init(epoch: u64, version: u16, valid_from_seq: u64) -> SignedInit {
    let payload = Bytes::from(format!("init {version}"));
    let init = InitSegment { epoch, version, valid_from_seq, payload };
    SignedInit { init, signature: [0; 64] }
}

/// splitmix64: enough to vary a schedule, and the same on every machine.
#[derive(Clone, Debug)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }
}

/// Made-up media: 25 frames a second, a keyframe eight times as large each `gop` frames.
#[derive(Clone, Debug)]
pub(super) struct Camera {
    pub(super) epoch: u64,
    pub(super) k: u8,
    pub(super) rate: Bitrate,
    pub(super) gop: u64,
    pub(super) init_version: u16,
    dice: Dice,
    frame: u64,
    seq: u64,
    stripe_seqs: Vec<u64>,
    stripe_bytes: Vec<u64>,
    /// Everything cut so far.
    pub(super) cut: Vec<Sim>,
}

impl Camera {
    pub(super) fn new(epoch: u64, k: u8, rate: Bitrate, gop: u64) -> Self {
        Self {
            epoch,
            k,
            rate,
            gop,
            init_version: 1,
            dice: Dice(epoch),
            frame: 0,
            seq: 0,
            stripe_seqs: vec![0; usize::from(k)],
            stripe_bytes: vec![0; usize::from(k)],
            cut: Vec::new(),
        }
    }

    /// The next frame's chunks.
    pub(super) fn shoot(&mut self) -> Vec<Sim> {
        let mean = self.rate.as_bps() / 8 / 25;
        let target = (self.rate.as_bps() / 80 / u64::from(self.k)).clamp(1_200, 16_384);
        let key = self.frame.is_multiple_of(self.gop);
        let jitter = mean / 2 + self.dice.roll(mean.max(1));
        let size = if key { jitter * 8 } else { jitter * self.gop / (self.gop + 7) };
        let fragments = size.div_ceil(target).max(1);
        let chunks = (0..fragments)
            .map(|fragment| {
                let len = (size - fragment * target).min(target);
                let mut flags = ChunkFlags::NONE;
                if key && fragment == 0 {
                    flags = flags | ChunkFlags::KEYFRAME;
                }
                if fragment + 1 == fragments {
                    flags = flags | ChunkFlags::END_OF_FRAME;
                }
                self.cut(flags, len, fragment, fragments)
            })
            .collect();
        self.frame += 1;
        chunks
    }

    /// A chunk that announces the next init version in band; the caller sends the segment.
    pub(super) fn change_headers(&mut self) -> Sim {
        self.init_version += 1;
        self.cut(ChunkFlags::INIT, 40, 0, 1)
    }

    pub(super) fn end(&mut self) -> Sim {
        self.cut(ChunkFlags::END, 0, 0, 1)
    }

    fn cut(&mut self, flags: ChunkFlags, len: u64, fragment: u64, fragments: u64) -> Sim {
        let least = self.stripe_bytes.iter().min().copied().unwrap();
        let stripe = self.stripe_bytes.iter().position(|bytes| *bytes == least).unwrap();
        let header = ChunkHeader {
            epoch: self.epoch,
            seq: self.seq,
            stripe: stripe as u8,
            stripe_seq: self.stripe_seqs[stripe],
            time_ms: self.frame * 40,
            flags,
            fragment: fragment as u16,
            fragments: fragments as u16,
            init_version: self.init_version,
            key_id: 0,
            payload_len: len as u16,
        };
        self.seq += 1;
        self.stripe_seqs[stripe] += 1;
        self.stripe_bytes[stripe] += len + 111;
        self.cut.push(Sim { header });
        Sim { header }
    }
}

#[derive(Clone, Debug)]
enum Wire {
    Down(Vec<DownFrame<Sim>>),
    Up(UpFrame),
    Want(RepairWant),
    Answer(RepairAnswer<Sim>),
}

#[derive(Clone, Debug)]
enum Event {
    /// A frame of the first arrives at the second.
    Arrive(NodeId, NodeId, u64, Wire),
    /// The second is told that the first is gone.
    Closed(NodeId, NodeId),
    Shoot,
    Script(u64),
}

/// One way of a link.
#[derive(Clone, Copy, Debug)]
struct Way {
    delay: Duration,
    rate: Option<Bitrate>,
    free_at: Timestamp,
    /// Frames of an older life of the link never arrive.
    life: u64,
}

type Deliveries = Vec<(Timestamp, Delivery<Sim>)>;

/// The network.
pub(super) struct Net {
    pub(super) now: Timestamp,
    pub(super) relays: BTreeMap<NodeId, Relay<Sim>>,
    config: RelayConfig,
    timers: BTreeMap<NodeId, Timestamp>,
    ways: BTreeMap<(NodeId, NodeId), Way>,
    frozen: BTreeSet<NodeId>,
    events: BTreeMap<(Timestamp, u64), Event>,
    next_event: u64,
    life: u64,
    pub(super) source: NodeId,
    pub(super) camera: Camera,
    pub(super) shooting: bool,
    /// For a child: where each stripe may come from, best first; the first is in use.
    pub(super) standbys: BTreeMap<(NodeId, Stripe), VecDeque<NodeId>>,
    pub(super) delivered: BTreeMap<(NodeId, u64), Deliveries>,
    /// What each node handed to its driver: (when, to whom, bytes, repair or other chunk bytes).
    pub(super) sent: BTreeMap<NodeId, Vec<(Timestamp, NodeId, usize)>>,
    pub(super) frames: Vec<(Timestamp, NodeId, NodeId, DownFrame<Sim>)>,
    pub(super) progress: Vec<(Timestamp, NodeId, FeedProgress)>,
    pub(super) other: Vec<(Timestamp, NodeId, RelayOutput<Sim>)>,
    pub(super) timeouts: u64,
    pub(super) log: Vec<(Timestamp, &'static str, NodeId)>,
    /// Silent parents, and those that shed a stripe, are replaced.
    pub(super) failover: bool,
    /// Every stripe that a child asks for is granted.
    pub(super) grant_all: bool,
}

impl Net {
    /// A source that shoots `camera`, and as many members as asked for, numbered from 1.
    pub(super) fn new(camera: Camera, members: u8) -> Self {
        Self::with_config(camera, members, RelayConfig::default())
    }

    pub(super) fn with_config(camera: Camera, members: u8, config: RelayConfig) -> Self {
        let mut net = Self {
            now: Timestamp::ZERO,
            relays: BTreeMap::new(),
            config,
            timers: BTreeMap::new(),
            ways: BTreeMap::new(),
            frozen: BTreeSet::new(),
            events: BTreeMap::new(),
            next_event: 0,
            life: 0,
            source: node(0),
            camera,
            shooting: true,
            standbys: BTreeMap::new(),
            delivered: BTreeMap::new(),
            sent: BTreeMap::new(),
            frames: Vec::new(),
            progress: Vec::new(),
            other: Vec::new(),
            timeouts: 0,
            log: Vec::new(),
            failover: true,
            grant_all: false,
        };
        for number in 0..=members {
            net.add(node(number));
        }
        net.announce();
        net.schedule(at(0), Event::Shoot);
        net
    }

    pub(super) fn add(&mut self, who: NodeId) {
        self.relays.insert(who, Relay::new(self.config, self.now));
        let role = if who == self.source { StreamRole::Source } else { StreamRole::Member };
        self.input(who, RelayInput::Open { stream: stream_id(), role });
    }

    /// The source's certificate and first init segment.
    pub(super) fn announce(&mut self) {
        let cert = cert(self.camera.epoch, self.camera.k, self.camera.rate);
        self.input(self.source, RelayInput::Epoch { stream: stream_id(), cert, feed: None });
        self.send_init();
    }

    pub(super) fn send_init(&mut self) {
        let init = init(self.camera.epoch, self.camera.init_version, self.camera.cut.len() as u64);
        self.input(self.source, RelayInput::Init { stream: stream_id(), init });
    }

    /// Opens a feed with the same delay both ways.
    pub(super) fn connect(&mut self, parent: NodeId, child: NodeId, delay: Duration) {
        self.life += 1;
        let way = Way { delay, rate: None, free_at: self.now, life: self.life };
        self.ways.insert((parent, child), way);
        self.ways.insert((child, parent), way);
        let rtt = Some(delay * 2);
        self.input(parent, RelayInput::FeedUp { feed: to_child(child), rtt });
        self.input(child, RelayInput::FeedUp { feed: from_parent(parent), rtt });
    }

    /// Connects a node with others that are no parents of it.
    pub(super) fn neighbours(&mut self, who: NodeId, others: &[NodeId], delay: Duration) {
        for &other in others {
            self.life += 1;
            let way = Way { delay, rate: None, free_at: self.now, life: self.life };
            self.ways.entry((who, other)).or_insert(way);
            self.ways.entry((other, who)).or_insert(way);
        }
        let (stream, nodes) = (stream_id(), others.to_vec());
        self.input(who, RelayInput::Neighbours { stream, nodes });
    }

    /// From now on what `parent` sends to `child` takes its time.
    pub(super) fn throttle(&mut self, parent: NodeId, child: NodeId, rate: Bitrate) {
        self.ways.get_mut(&(parent, child)).unwrap().rate = Some(rate);
    }

    pub(super) fn all(&self) -> StripeSet {
        StripeSet::first(self.camera.k)
    }

    pub(super) fn grant(
        &mut self,
        parent: NodeId,
        child: NodeId,
        live: StripeSet,
        warm: StripeSet,
    ) {
        self.input(parent, RelayInput::SetStripes { feed: to_child(child), live, warm });
    }

    pub(super) fn promote(&mut self, child: NodeId, parent: NodeId, stripe: Stripe) {
        self.input(child, RelayInput::Promote { feed: from_parent(parent), stripe });
    }

    /// Feeds all stripes of `child` from the first of `parents`, with the others as standbys.
    pub(super) fn feed(&mut self, child: NodeId, parents: &[NodeId], delay: Duration) {
        for &parent in parents {
            self.connect(parent, child, delay);
            self.grant(parent, child, self.all(), StripeSet::EMPTY);
        }
        for stripe in self.all().iter() {
            self.standbys.insert((child, stripe), parents.iter().copied().collect());
            self.promote(child, parents[0], stripe);
        }
    }

    /// Feeds each stripe from another parent, in turn.
    pub(super) fn feed_striped(&mut self, child: NodeId, parents: &[NodeId], delay: Duration) {
        for &parent in parents {
            self.connect(parent, child, delay);
            self.grant(parent, child, self.all(), StripeSet::EMPTY);
        }
        for stripe in self.all().iter() {
            let mut turn: VecDeque<NodeId> = parents.iter().copied().collect();
            turn.rotate_left(usize::from(stripe) % parents.len());
            self.promote(child, turn[0], stripe);
            self.standbys.insert((child, stripe), turn);
        }
    }

    pub(super) fn attach(&mut self, who: NodeId, sink: u64, policy: Policy) {
        self.attach_with(who, sink, policy, usize::MAX / 4);
    }

    pub(super) fn attach_with(&mut self, who: NodeId, sink: u64, policy: Policy, credit: usize) {
        let stream = stream_id();
        self.input(who, RelayInput::Attach { stream, sink: SinkId(sink), policy, credit });
    }

    /// The node is gone; its peers hear of it after `told` at the far end.
    pub(super) fn kill(&mut self, who: NodeId, told: Duration) {
        self.log.push((self.now, "kill", who));
        self.relays.remove(&who);
        self.timers.remove(&who);
        let ends: Vec<(NodeId, NodeId)> = self.ways.keys().copied().collect();
        for (from, to) in ends.into_iter().filter(|(from, _)| *from == who) {
            self.ways.remove(&(from, to));
            self.ways.remove(&(to, from));
            self.schedule(self.now + told, Event::Closed(who, to));
        }
        // What is on its way is lost with the connection.
        self.events.retain(|_, event| !matches!(event, Event::Arrive(from, ..) if *from == who));
    }

    /// The node stops running and says nothing.
    pub(super) fn freeze(&mut self, who: NodeId) {
        self.log.push((self.now, "freeze", who));
        self.frozen.insert(who);
    }

    pub(super) fn thaw(&mut self, who: NodeId) {
        self.log.push((self.now, "thaw", who));
        self.frozen.remove(&who);
        let now = self.now;
        self.timers.insert(who, now);
    }

    /// Calls `script` with its number when the time comes.
    pub(super) fn script_at(&mut self, when: Timestamp, number: u64) {
        self.schedule(when, Event::Script(number));
    }

    pub(super) fn run_until(&mut self, end: Timestamp) {
        self.run_script(end, |_, _| {});
    }

    pub(super) fn run_script(&mut self, end: Timestamp, mut script: impl FnMut(&mut Self, u64)) {
        let mut stuck = 0;
        loop {
            let event = self.events.keys().next().copied();
            let timer = self.timers.iter().map(|(who, at)| (*at, *who)).min();
            let event_at = event.map_or(Timestamp::NEVER, |(at, _)| at);
            let timer_at = timer.map_or(Timestamp::NEVER, |(at, _)| at);
            let next = event_at.min(timer_at);
            if next > end {
                self.now = end;
                return;
            }
            stuck = if next <= self.now { stuck + 1 } else { 0 };
            assert!(stuck < 100_000, "time stands still at {:?}", self.now);
            self.now = self.now.max(next);
            if timer_at < event_at {
                let who = timer.unwrap().1;
                self.timers.remove(&who);
                if let Some(relay) = self.relays.get_mut(&who)
                    && !self.frozen.contains(&who)
                {
                    self.timeouts += 1;
                    relay.handle_timeout(self.now);
                    self.drain(who);
                }
                continue;
            }
            match self.events.remove(&event.unwrap()).unwrap() {
                Event::Arrive(from, to, life, wire) => self.arrive(from, to, life, wire),
                Event::Closed(gone, to) => self.closed(gone, to),
                Event::Script(number) => script(self, number),
                Event::Shoot => self.shoot(),
            }
        }
    }

    pub(super) fn input(&mut self, who: NodeId, input: RelayInput<Sim>) {
        if let Some(relay) = self.relays.get_mut(&who) {
            relay.handle_input(input, self.now);
            self.drain(who);
        }
    }

    pub(super) fn stats(&self, who: NodeId) -> RelayStats {
        *self.relays[&who].stats()
    }

    /// The chunks that a sink got, in order.
    pub(super) fn got(&self, who: NodeId, sink: u64) -> Vec<Sim> {
        let items = self.delivered.get(&(who, sink)).map_or(&[][..], Vec::as_slice);
        items
            .iter()
            .filter_map(|(_, item)| match item {
                Delivery::Chunk(chunk) => Some(chunk.clone()),
                _ => None,
            })
            .collect()
    }

    /// Fails unless a sink got everything that was cut, from its first chunk to the last, in order,
    /// behind one init segment, from a keyframe on.
    pub(super) fn assert_identical(&self, who: NodeId, sink: u64) -> usize {
        let items = &self.delivered[&(who, sink)];
        assert!(
            matches!(items.first(), Some((_, Delivery::Init(_)))),
            "starts with {:?}",
            items.first()
        );
        let rest: Vec<&Delivery<Sim>> = items[1..].iter().map(|(_, item)| item).collect();
        for item in &rest {
            assert!(
                matches!(item, Delivery::Chunk(_) | Delivery::Ended(_)),
                "{who:?} got {item:?}"
            );
        }
        let got = self.got(who, sink);
        let first = got.first().expect("something was delivered");
        assert!(first.header.flags.contains(ChunkFlags::KEYFRAME));
        let expected = &self.camera.cut[first.header.seq as usize..];
        for (got, expected) in got.iter().zip(expected) {
            assert_eq!(got, expected);
        }
        assert_eq!(got.len(), expected.len(), "everything arrived");
        got.len()
    }

    fn shoot(&mut self) {
        if !self.shooting {
            return;
        }
        for chunk in self.camera.shoot() {
            self.local(chunk);
        }
        self.schedule(self.now + ms(40), Event::Shoot);
    }

    pub(super) fn local(&mut self, chunk: Sim) {
        let stream = stream_id();
        self.input(self.source, RelayInput::LocalChunk { stream, chunk });
    }

    /// Starts the camera again after it was stopped.
    pub(super) fn resume_shooting(&mut self) {
        self.shooting = true;
        self.schedule(self.now, Event::Shoot);
    }

    fn arrive(&mut self, from: NodeId, to: NodeId, life: u64, wire: Wire) {
        if self.ways.get(&(from, to)).is_none_or(|way| way.life != life) {
            return;
        }
        if self.frozen.contains(&to) {
            self.schedule(self.now + ms(20), Event::Arrive(from, to, life, wire));
            return;
        }
        match wire {
            Wire::Want(want) => {
                self.input(to, RelayInput::RepairAsked { from, id: AnswerId(0), want });
            }
            Wire::Answer(RepairAnswer { have, chunks }) => {
                let stream = stream_id();
                self.input(to, RelayInput::Repair { stream, from, have, chunks });
            }
            Wire::Up(frame) => {
                self.input(to, RelayInput::UpFrame { feed: to_child(from), frame });
            }
            Wire::Down(frames) => {
                for frame in frames {
                    self.read(from, to, frame);
                }
            }
        }
    }

    fn read(&mut self, from: NodeId, to: NodeId, frame: DownFrame<Sim>) {
        let (stream, feed) = (stream_id(), from_parent(from));
        let input = match frame {
            DownFrame::Cert(cert) => RelayInput::Epoch { stream, cert, feed: Some(feed) },
            DownFrame::Init(init) => RelayInput::Init { stream, init },
            DownFrame::Chunk(chunk) => RelayInput::Chunk { feed, chunk },
            other => match DownFrameMeta::from_frame(other) {
                Ok(frame) => RelayInput::Frame { feed, frame },
                Err(_) => return,
            },
        };
        self.input(to, input);
    }

    fn closed(&mut self, gone: NodeId, to: NodeId) {
        self.input(to, RelayInput::FeedDown { feed: from_parent(gone) });
        self.input(to, RelayInput::FeedDown { feed: to_child(gone) });
        self.replace(to, gone, StripeSet::first(16));
        for ((_, _), parents) in self.standbys.iter_mut().filter(|((who, _), _)| *who == to) {
            parents.retain(|parent| *parent != gone);
        }
    }

    /// Promotes the next standby of those stripes that `child` has from `parent`, which becomes the
    /// last resort.
    fn replace(&mut self, child: NodeId, parent: NodeId, stripes: StripeSet) {
        for stripe in stripes.iter() {
            let Some(parents) = self.standbys.get_mut(&(child, stripe)) else { continue };
            if parents.front() == Some(&parent) {
                parents.rotate_left(1);
                let next = parents[0];
                self.promote(child, next, stripe);
            }
        }
    }

    fn schedule(&mut self, when: Timestamp, event: Event) {
        self.next_event += 1;
        self.events.insert((when, self.next_event), event);
    }

    fn transmit(&mut self, from: NodeId, to: NodeId, bytes: usize, wire: Wire) {
        let Some(way) = self.ways.get_mut(&(from, to)) else { return };
        let start = way.free_at.max(self.now);
        let took = way.rate.map_or(Duration::ZERO, |rate| rate.time_for(bytes as u64));
        way.free_at = start + took;
        let (when, life) = (start + took + way.delay, way.life);
        self.schedule(when, Event::Arrive(from, to, life, wire));
    }

    fn drain(&mut self, who: NodeId) {
        while let Some(output) = self.relays.get_mut(&who).and_then(Relay::poll_output) {
            match output {
                RelayOutput::Down { feed, frames } => {
                    assert!(!frames.is_empty());
                    let bytes = frames.iter().map(DownFrame::wire_len).sum();
                    self.sent.entry(who).or_default().push((self.now, feed.peer, bytes));
                    for frame in &frames {
                        self.frames.push((self.now, who, feed.peer, frame.clone()));
                    }
                    self.transmit(who, feed.peer, bytes, Wire::Down(frames));
                }
                RelayOutput::Up { feed, frame } => {
                    let bytes = frame.wire_len();
                    self.transmit(who, feed.peer, bytes, Wire::Up(frame));
                }
                RelayOutput::RepairWant { to, want } => {
                    self.transmit(who, to, want.wire_len(), Wire::Want(want));
                }
                RelayOutput::RepairAnswer { to, answer, .. } => {
                    let bytes = answer.wire_len();
                    self.sent.entry(who).or_default().push((self.now, to, bytes));
                    self.transmit(who, to, bytes, Wire::Answer(answer));
                }
                RelayOutput::Deliver { sink, item } => {
                    let items = self.delivered.entry((who, sink.0)).or_default();
                    items.push((self.now, item));
                }
                RelayOutput::Progress(progress) => {
                    let parent = progress.feed.peer;
                    let lost = if progress.silent_since.is_some() {
                        StripeSet::first(16)
                    } else {
                        progress.shed
                    };
                    self.progress.push((self.now, who, progress));
                    if self.failover {
                        self.replace(who, parent, lost);
                    }
                }
                RelayOutput::PromoteAsked { feed, stripe: _ } if self.grant_all => {
                    let all = self.all();
                    self.grant(who, feed.peer, all, StripeSet::EMPTY);
                }
                other => self.other.push((self.now, who, other)),
            }
        }
        let timer = self.relays.get(&who).and_then(Relay::poll_timeout);
        match timer {
            Some((at, _)) => self.timers.insert(who, at),
            None => self.timers.remove(&who),
        };
    }
}
