//! Media as intervals: a relay that says when a stripe flows instead of moving its chunks.
//!
//! Speaks the vocabulary of the production relay to the overlay, which is the production one and
//! cannot tell. Between two nodes travels what changes: that a stripe [`Flow::Runs`] from now on, how
//! old it is there and what is sent of the past, or that it stops. All that repeats itself (chunks,
//! acknowledgements, signs of life) is charged in bytes and never sent.
//!
//! Owns the flows of one node in one stream, the age of what flows, and the intervals in which its
//! player got it. Does not own the decisions (the overlay's), nor the way of a message (the world's).
//!
//! Not seen here: single chunks, and so loss, jitter, skips and duplicates; repair from neighbours;
//! the variation of the delay on one path. The queue at an uplink is the model of [`queueing`].

pub mod queueing;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use astral_core::{
    ids::{Direction, FeedKey, NodeId, StreamId, Stripe, StripeSet},
    media::{
        cert::SignedCert,
        frame::{DownFrame, Start, UpFrame},
        relay::{FeedProgress, RelayInput, RelayOutput, StreamRole, StripeProgress},
    },
    time::Timestamp,
    units::Bitrate,
};

use self::queueing::{Shape, Wait};
use crate::{
    payload::SimChunk,
    tally::{Bytes, CutLog},
};

/// The overlay hears of its feeds so often: within what it takes for silence (2.2 s) and for staleness
/// (3 s).
const BEAT: Duration = Duration::from_millis(1_500);
/// What a parent can give of the past, in microseconds: the relay's ring.
const RING_US: u64 = 20_000_000;
/// A parent is silent after this, as far as its round trip says; the relay's bounds.
const DEAD: (Duration, Duration) = (Duration::from_millis(300), Duration::from_millis(600));
/// A child is quiet after this; the relay's constant.
const QUIET: Duration = Duration::from_millis(800);
/// A changed age is told when it changed by more than this, in microseconds, and by a tenth.
const TOLD_US: u64 = 10_000;
/// Of a queue that keyframes make, so much is met on average: the first uplink on a way spreads them for
/// those behind it. Fitted to chunk-exact runs of `wide` and `kill`.
const QUEUE_SHARE: (u64, u64) = (3, 4);
/// Media time that stands for one chunk in reports, in microseconds.
const NUMBER_US: u64 = 100_000;
/// What acknowledging takes of an uplink: a frame and its batch ten times a second for each feed.
const ACK_BYTES_PER_S: u64 = 10 * 14;

/// What a parent tells a child of one stripe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flow {
    /// It flows from now on.
    Runs {
        /// Age of a chunk when it has left the sender, in microseconds.
        age: u64,
        /// When this was sent, in microseconds of simulated time.
        sent_at: u64,
        /// What is sent of the past.
        late: Option<Late>,
    },
    /// It does not.
    Stops,
}

/// Chunks cut in an interval that are sent one after the other; microseconds of simulated time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Late {
    /// Cut after this.
    pub from: u64,
    /// And until then.
    pub to: u64,
    /// When the first of them arrives.
    pub first_at: u64,
    /// When the last of them does.
    pub last_at: u64,
}

/// Something for the player.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum News {
    /// Chunks of a stripe cut in (from, to] arrived this long after their cut.
    Steady {
        /// Which stripe.
        stripe: Stripe,
        /// Cut after this.
        from: u64,
        /// And until then.
        to: u64,
        /// How old they were.
        age: u64,
    },
    /// Chunks of the past arrived.
    Late(Stripe, Late),
    /// The first chunk of a stripe came that was dry, or never came before.
    Fed(Stripe),
    /// No chunk of a stripe comes any more.
    Dry(Stripe),
    /// All stripes flow: a picture, of chunks cut after this.
    Picture(u64),
}

#[derive(Debug)]
struct Parent {
    feed: FeedKey,
    up: bool,
    rtt: Option<Duration>,
    promoted: StripeSet,
    unsent: StripeSet,
    /// Stripes of which something ever came, and the newest cut that did.
    heads: BTreeMap<Stripe, u64>,
    /// Nothing is heard since then; told when that is due.
    hushed: Option<(Timestamp, bool)>,
}

#[derive(Debug)]
struct Child {
    feed: FeedKey,
    live: StripeSet,
    warm: StripeSet,
    asks: BTreeMap<Stripe, Start>,
    /// Stripes that it is fed, and the age that it was told.
    fed: BTreeMap<Stripe, u64>,
    hushed: Option<(Timestamp, bool)>,
}

/// One stripe at this node.
#[derive(Clone, Copy, Debug, Default)]
struct Incoming {
    parent: Option<NodeId>,
    flow: Option<Running>,
    /// All that was cut until then has come, or was given up.
    have: u64,
    started: bool,
}

#[derive(Clone, Copy, Debug)]
struct Running {
    from: NodeId,
    age: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Intervals {
    me: NodeId,
    started_at: u64,
    shape: Shape,
    uplink: Bitrate,
    stream: Option<(StreamId, StreamRole)>,
    cert: Option<SignedCert>,
    parents: BTreeMap<NodeId, Parent>,
    children: BTreeMap<NodeId, Child>,
    stripes: Vec<Incoming>,
    out: VecDeque<RelayOutput<SimChunk>>,
    flows: VecDeque<(FeedKey, Stripe, Flow)>,
    news: VecDeque<News>,
    wait: Wait,
    waits_for: u32,
    beat_at: Timestamp,
    watches: bool,
    has_picture: bool,
    /// Until then what is sent of the past takes what live media leaves.
    late_until: u64,
    sent: Bytes,
    sent_until: u64,
    /// Media and acknowledgements not counted yet, in millionths of a byte.
    owed: (u64, u64),
}

impl Intervals {
    /// A node's media that starts now.
    #[must_use]
    pub fn new(me: NodeId, shape: Shape, uplink: Bitrate, started_at: u64) -> Self {
        Self {
            me,
            started_at,
            shape,
            uplink,
            stream: None,
            cert: None,
            parents: BTreeMap::new(),
            children: BTreeMap::new(),
            stripes: vec![Incoming::default(); usize::from(shape.stripes)],
            out: VecDeque::new(),
            flows: VecDeque::new(),
            news: VecDeque::new(),
            wait: Wait::default(),
            waits_for: 0,
            beat_at: Timestamp::NEVER,
            watches: false,
            has_picture: false,
            late_until: 0,
            sent: Bytes::default(),
            sent_until: started_at,
            owed: (0, 0),
        }
    }

    /// Takes one input in, as the relay does.
    pub fn handle_input(&mut self, input: RelayInput<SimChunk>, now: Timestamp, cuts: &CutLog) {
        self.charge(now);
        match input {
            RelayInput::Open { stream, role } => self.open(stream, role, now),
            RelayInput::Close { .. } => self.close(now),
            RelayInput::Epoch { cert, .. } => self.certified(cert, now),
            RelayInput::Attach { .. } => self.watches = true,
            RelayInput::Detach { .. } => self.watches = false,
            RelayInput::FeedUp { feed, rtt } => self.feed_up(feed, rtt, now),
            RelayInput::FeedDown { feed } => self.feed_down(feed, now),
            RelayInput::Rtt { feed, rtt } => {
                if let Some(parent) = self.parents.get_mut(&feed.peer) {
                    parent.rtt = Some(rtt);
                }
            }
            RelayInput::SetStripes { feed, live, warm } if feed.direction == Direction::ToChild => {
                self.set_stripes(feed, (live, warm), now, cuts);
            }
            RelayInput::Promote { feed, stripe } => self.promote(feed, stripe),
            RelayInput::Release { feed, stripe } => self.release(feed, stripe),
            RelayInput::UpFrame { feed, frame } => self.up_frame(feed, frame, now, cuts),
            RelayInput::Path { feed, stripe, path } => {
                if self.children.contains_key(&feed.peer) {
                    let frames = vec![DownFrame::Path { stripe, path }];
                    self.out.push_back(RelayOutput::Down { feed, frames });
                }
            }
            // What chunks, repair and pacing need does not happen here.
            RelayInput::SetStripes { .. }
            | RelayInput::Init { .. }
            | RelayInput::LocalChunk { .. }
            | RelayInput::Chunk { .. }
            | RelayInput::Discarded { .. }
            | RelayInput::Frame { .. }
            | RelayInput::Offence { .. }
            | RelayInput::Want { .. }
            | RelayInput::Credit { .. }
            | RelayInput::Drained { .. }
            | RelayInput::Spent { .. }
            | RelayInput::Uplink { .. }
            | RelayInput::Neighbours { .. }
            | RelayInput::RepairAsked { .. }
            | RelayInput::Repair { .. }
            | RelayInput::RepairFailed { .. }
            | RelayInput::Paused { .. } => {}
        }
    }

    /// A parent told how a stripe flows.
    pub fn flow(
        &mut self,
        from: NodeId,
        stripe: Stripe,
        flow: Flow,
        now: Timestamp,
        cuts: &CutLog,
    ) {
        self.charge(now);
        let at = self.at(now);
        let Some(incoming) = self.stripes.get(usize::from(stripe)).copied() else { return };
        let flowing = incoming.flow.filter(|running| running.from == from);
        match flow {
            Flow::Stops if flowing.is_some() => self.dry(stripe, at),
            Flow::Runs { .. } if incoming.parent != Some(from) && flowing.is_none() => {}
            Flow::Stops => {}
            Flow::Runs { age, sent_at, late } => {
                let way = at.saturating_sub(sent_at);
                self.settle(stripe, at);
                let known = usize::from(stripe);
                let arriving = late.and_then(|late| arriving(late, way, self.stripes[known].have));
                if let Some(late) = arriving {
                    self.news.push_back(News::Late(stripe, late));
                }
                let running = Running { from, age: age + way };
                let incoming = &mut self.stripes[known];
                incoming.flow = Some(running);
                incoming.started = true;
                // Whatever the parent did not have either is lost to both.
                incoming.have = incoming.have.max(at.saturating_sub(running.age));
                if incoming.flow.is_none() {
                    self.news.push_back(News::Fed(stripe));
                }
                self.first_picture(arriving, cuts);
                self.tell_children(stripe, arriving, at, cuts);
                self.note_head(from, stripe, at);
                if flowing.is_none() {
                    self.report(from, now);
                }
            }
        }
    }

    /// Nothing is heard of this node any more, and no connection says why.
    pub fn hush(&mut self, node: NodeId, now: Timestamp) {
        self.charge(now);
        let at = self.at(now);
        for stripe in 0..self.shape.stripes {
            let flow = self.stripes[usize::from(stripe)].flow;
            if flow.is_some_and(|running| running.from == node) {
                self.dry(stripe, at);
            }
        }
        if let Some(parent) = self.parents.get_mut(&node) {
            let dead = parent.rtt.unwrap_or_default() * 2 + Duration::from_millis(100);
            parent.hushed = Some((now + dead.clamp(DEAD.0, DEAD.1), false));
        }
        if let Some(child) = self.children.get_mut(&node) {
            child.hushed = Some((now + QUIET, false));
        }
    }

    /// Does what is due by time alone.
    pub fn handle_timeout(&mut self, now: Timestamp, cuts: &CutLog) {
        self.charge(now);
        let due = |hushed: &mut Option<(Timestamp, bool)>| match hushed {
            Some((at, told)) if !*told && *at <= now => {
                *told = true;
                true
            }
            Some(_) | None => false,
        };
        let silent = self
            .parents
            .values_mut()
            .filter_map(|parent| due(&mut parent.hushed).then_some(parent.feed.peer));
        for parent in silent.collect::<Vec<_>>() {
            self.report(parent, now);
        }
        for child in self.children.values_mut() {
            if due(&mut child.hushed) {
                self.out.push_back(RelayOutput::ChildQuiet { feed: child.feed });
            }
        }
        if self.beat_at <= now {
            self.beat(now, cuts);
        }
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<RelayOutput<SimChunk>> {
        self.out.pop_front()
    }

    /// The next thing to tell a child.
    pub fn poll_flow(&mut self) -> Option<(FeedKey, Stripe, Flow)> {
        self.flows.pop_front()
    }

    /// The next thing for the player.
    pub fn poll_news(&mut self) -> Option<News> {
        self.news.pop_front()
    }

    /// When time alone changes something.
    #[must_use]
    pub fn poll_timeout(&self) -> Timestamp {
        let waits = |hushed: Option<(Timestamp, bool)>| match hushed {
            Some((at, false)) => at,
            Some((_, true)) | None => Timestamp::NEVER,
        };
        let parents = self.parents.values().map(|parent| waits(parent.hushed));
        let children = self.children.values().map(|child| waits(child.hushed));
        parents.chain(children).fold(self.beat_at, Timestamp::min)
    }

    /// Bytes that were sent since the last call.
    pub fn take_sent(&mut self, now: Timestamp) -> Bytes {
        self.charge(now);
        self.pay();
        std::mem::take(&mut self.sent)
    }

    /// Whether a stripe flows.
    #[must_use]
    pub fn is_flowing(&self, stripe: Stripe) -> bool {
        self.stripes.get(usize::from(stripe)).is_some_and(|incoming| incoming.flow.is_some())
    }

    /// Hands the player all that came until now.
    pub fn settle_all(&mut self, now: Timestamp) {
        let at = self.at(now);
        (0..self.shape.stripes).for_each(|stripe| self.settle(stripe, at));
    }

    const fn at(&self, now: Timestamp) -> u64 {
        self.started_at.saturating_add(now.as_micros())
    }

    fn open(&mut self, stream: StreamId, role: StreamRole, now: Timestamp) {
        if self.stream.is_some() {
            return;
        }
        self.stream = Some((stream, role));
        self.beat_at = now + BEAT;
        if role == StreamRole::Source {
            let running = Running { from: self.me, age: 0 };
            let have = self.at(now);
            self.stripes.fill(Incoming { parent: None, flow: Some(running), have, started: true });
        }
    }

    fn close(&mut self, now: Timestamp) {
        let at = self.at(now);
        for stripe in 0..self.shape.stripes {
            if self.stripes[usize::from(stripe)].flow.is_some() {
                self.dry(stripe, at);
            }
        }
        let fresh = Self::new(self.me, self.shape, self.uplink, self.started_at);
        let old = std::mem::replace(self, fresh);
        (self.out, self.flows, self.news) = (old.out, old.flows, old.news);
        (self.sent, self.sent_until, self.owed) = (old.sent, old.sent_until, old.owed);
    }

    fn certified(&mut self, cert: SignedCert, now: Timestamp) {
        if self.cert.is_none() {
            self.cert = Some(cert);
            let feeds: Vec<FeedKey> = self.children.values().map(|child| child.feed).collect();
            for feed in feeds {
                self.send_cert(feed);
            }
            self.beat_at = self.beat_at.min(now + BEAT);
        }
    }

    fn send_cert(&mut self, feed: FeedKey) {
        if let Some(cert) = self.cert.clone() {
            let frames = vec![DownFrame::Cert(cert)];
            self.out.push_back(RelayOutput::Down { feed, frames });
        }
    }

    fn parent(&mut self, feed: FeedKey) -> &mut Parent {
        self.parents.entry(feed.peer).or_insert_with(|| Parent {
            feed,
            up: false,
            rtt: None,
            promoted: StripeSet::EMPTY,
            unsent: StripeSet::EMPTY,
            heads: BTreeMap::new(),
            hushed: None,
        })
    }

    fn feed_up(&mut self, feed: FeedKey, rtt: Option<Duration>, now: Timestamp) {
        self.beat_at = self.beat_at.min(now + BEAT);
        match feed.direction {
            Direction::FromParent => {
                let parent = self.parent(feed);
                (parent.up, parent.rtt) = (true, rtt);
                self.send_promotes(feed);
            }
            Direction::ToChild => {
                let child = Child {
                    feed,
                    live: StripeSet::EMPTY,
                    warm: StripeSet::EMPTY,
                    asks: BTreeMap::new(),
                    fed: BTreeMap::new(),
                    hushed: None,
                };
                self.children.insert(feed.peer, child);
                self.send_cert(feed);
            }
        }
    }

    fn feed_down(&mut self, feed: FeedKey, now: Timestamp) {
        match feed.direction {
            Direction::FromParent => {
                self.parents.remove(&feed.peer);
                let at = self.at(now);
                for stripe in 0..self.shape.stripes {
                    let incoming = &mut self.stripes[usize::from(stripe)];
                    incoming.parent.take_if(|parent| *parent == feed.peer);
                    if incoming.flow.is_some_and(|running| running.from == feed.peer) {
                        self.dry(stripe, at);
                    }
                }
            }
            Direction::ToChild => {
                self.children.remove(&feed.peer);
            }
        }
    }

    fn promote(&mut self, feed: FeedKey, stripe: Stripe) {
        let Some(incoming) = self.stripes.get_mut(usize::from(stripe)) else { return };
        let former = incoming.parent.replace(feed.peer);
        if let Some(former) = former.and_then(|node| self.parents.get_mut(&node)) {
            former.promoted.remove(stripe);
            former.unsent.remove(stripe);
        }
        let parent = self.parent(feed);
        parent.promoted.insert(stripe);
        parent.unsent.insert(stripe);
        self.send_promotes(feed);
    }

    fn send_promotes(&mut self, feed: FeedKey) {
        let Some(parent) = self.parents.get_mut(&feed.peer).filter(|parent| parent.up) else {
            return;
        };
        for stripe in std::mem::replace(&mut parent.unsent, StripeSet::EMPTY).iter() {
            let incoming = self.stripes[usize::from(stripe)];
            // Media time stands for the number of the next chunk.
            let start = if incoming.started { Start::From(incoming.have) } else { Start::Live };
            let frame = UpFrame::Promote { stripe, start, missing: Vec::new() };
            self.out.push_back(RelayOutput::Up { feed, frame });
        }
    }

    fn release(&mut self, feed: FeedKey, stripe: Stripe) {
        if let Some(incoming) = self.stripes.get_mut(usize::from(stripe)) {
            incoming.parent.take_if(|parent| *parent == feed.peer);
        }
        let Some(parent) = self.parents.get_mut(&feed.peer) else { return };
        parent.promoted.remove(stripe);
        if parent.up {
            let frame = UpFrame::Release { stripe, reason: 0 };
            self.out.push_back(RelayOutput::Up { feed, frame });
        }
    }

    fn up_frame(&mut self, feed: FeedKey, frame: UpFrame, now: Timestamp, cuts: &CutLog) {
        let Some(child) = self.children.get_mut(&feed.peer) else { return };
        match frame {
            UpFrame::Promote { stripe, start, missing: _ } => {
                child.asks.insert(stripe, start);
                if child.live.contains(stripe) {
                    self.start(feed.peer, stripe, now, cuts);
                } else {
                    self.out.push_back(RelayOutput::PromoteAsked { feed, stripe });
                }
            }
            UpFrame::Release { stripe, reason: _ } => {
                child.live.remove(stripe);
                child.warm.remove(stripe);
                child.asks.remove(&stripe);
                child.fed.remove(&stripe);
                self.out.push_back(RelayOutput::Released { feed, stripe });
            }
            UpFrame::Want { .. }
            | UpFrame::Cancel { .. }
            | UpFrame::Ack { .. }
            | UpFrame::Audience(_) => {}
        }
    }

    fn set_stripes(
        &mut self,
        feed: FeedKey,
        (live, warm): (StripeSet, StripeSet),
        now: Timestamp,
        cuts: &CutLog,
    ) {
        let Some(child) = self.children.get_mut(&feed.peer) else { return };
        (child.live, child.warm) = (live, StripeSet(warm.0 & !live.0));
        let stopped: Vec<Stripe> =
            child.fed.keys().copied().filter(|stripe| !live.contains(*stripe)).collect();
        let asked: Vec<Stripe> =
            child.asks.keys().copied().filter(|stripe| live.contains(*stripe)).collect();
        for stripe in stopped {
            child.fed.remove(&stripe);
            self.flows.push_back((feed, stripe, Flow::Stops));
        }
        for stripe in asked {
            self.start(feed.peer, stripe, now, cuts);
        }
    }

    /// A child that asked for a stripe gets it as soon as it flows here.
    fn start(&mut self, node: NodeId, stripe: Stripe, now: Timestamp, cuts: &CutLog) {
        let at = self.at(now);
        let Some(running) = self.stripes.get(usize::from(stripe)).and_then(|s| s.flow) else {
            return;
        };
        let Some(child) = self.children.get_mut(&node) else { return };
        let Some(start) = child.asks.remove(&stripe) else { return };
        let to = at.saturating_sub(running.age);
        let from = match start {
            Start::Live => cuts.keyframe_before(to).saturating_sub(1),
            Start::From(have) => have.max(at.saturating_sub(RING_US)),
        };
        child.fed.insert(stripe, 0);
        let late = (from < to).then(|| self.send_late(from, to, at));
        self.tell(node, stripe, late, at);
    }

    /// What is sent of the past takes what live media leaves of the uplink, one after the other.
    fn send_late(&mut self, from: u64, to: u64, at: u64) -> Late {
        let media = self.shape.stripe_bytes * (to - from) / 1_000_000;
        let bytes = (media as f64 * self.shape.framed) as u64;
        let live = self.shape.stripe_bytes * 8 * u64::from(self.slots());
        let least = self.uplink.as_bps() / 20;
        let rate = self.uplink.as_bps().saturating_sub(live).max(least).max(1);
        let first_at = self.late_until.max(at);
        let last_at = first_at + bytes * 8_000_000 / rate;
        self.late_until = last_at;
        self.sent.payload += media;
        self.sent.chunk_overhead += bytes - media;
        self.sent.repair += bytes;
        Late { from, to, first_at, last_at }
    }

    /// Stripes that are being sent.
    fn slots(&self) -> u32 {
        self.children.values().map(|child| child.fed.len() as u32).sum()
    }

    /// Tells a child how a stripe flows.
    fn tell(&mut self, node: NodeId, stripe: Stripe, late: Option<Late>, at: u64) {
        let Some(running) = self.stripes[usize::from(stripe)].flow else { return };
        let age = self.sent_age(stripe, running);
        let Some(child) = self.children.get_mut(&node) else { return };
        child.fed.insert(stripe, age);
        let flow = Flow::Runs { age, sent_at: at, late };
        self.flows.push_back((child.feed, stripe, flow));
    }

    /// How old a chunk is when it has left here.
    fn sent_age(&mut self, stripe: Stripe, running: Running) -> u64 {
        let slots = self.slots();
        if slots != self.waits_for {
            self.waits_for = slots;
            self.wait = self.shape.wait(self.uplink, slots);
        }
        let twins = self.children.values().filter(|child| child.fed.contains_key(&stripe)).count();
        let turn = self.wait.chunk * (twins as u64 + 1) / 2;
        let queue = self.wait.queue * QUEUE_SHARE.0 / QUEUE_SHARE.1;
        running.age + turn + queue
    }

    /// A stripe flows here, perhaps otherwise than before: those who hang on it are told.
    fn tell_children(&mut self, stripe: Stripe, late: Option<Late>, at: u64, cuts: &CutLog) {
        let Some(running) = self.stripes[usize::from(stripe)].flow else { return };
        let age = self.sent_age(stripe, running);
        let told: Vec<NodeId> =
            self.children
                .iter()
                .filter(|(_, child)| {
                    child.fed.get(&stripe).is_some_and(|told| {
                        late.is_some() || *told == u64::MAX || is_other(*told, age)
                    })
                })
                .map(|(node, _)| *node)
                .collect();
        for node in told {
            self.tell(node, stripe, late, at);
        }
        let waiting: Vec<NodeId> = self
            .children
            .iter()
            .filter(|(_, child)| child.asks.contains_key(&stripe) && child.live.contains(stripe))
            .map(|(node, _)| *node)
            .collect();
        let now = Timestamp::from_micros(at.saturating_sub(self.started_at));
        for node in waiting {
            self.start(node, stripe, now, cuts);
        }
    }

    /// The player gets what came until now.
    fn settle(&mut self, stripe: Stripe, at: u64) {
        let incoming = &mut self.stripes[usize::from(stripe)];
        let Some(running) = incoming.flow else { return };
        let to = at.saturating_sub(running.age);
        if to > incoming.have {
            let (from, age) = (incoming.have, running.age);
            incoming.have = to;
            if self.watches {
                self.news.push_back(News::Steady { stripe, from, to, age });
            }
        }
    }

    /// Nothing of a stripe comes any more.
    fn dry(&mut self, stripe: Stripe, at: u64) {
        self.settle(stripe, at);
        let flow = self.stripes[usize::from(stripe)].flow.take();
        if let Some(running) = flow
            && let Some(parent) = self.parents.get_mut(&running.from)
        {
            parent.heads.insert(stripe, self.stripes[usize::from(stripe)].have);
        }
        self.news.push_back(News::Dry(stripe));
        for child in self.children.values_mut() {
            if let Some(told) = child.fed.get_mut(&stripe) {
                *told = u64::MAX;
                self.flows.push_back((child.feed, stripe, Flow::Stops));
            }
        }
    }

    fn first_picture(&mut self, late: Option<Late>, cuts: &CutLog) {
        let all = self.stripes.iter().all(|incoming| incoming.flow.is_some());
        if self.has_picture || !self.watches || !all {
            return;
        }
        self.has_picture = true;
        let newest = self.stripes.iter().map(|incoming| incoming.have).min().unwrap_or(0);
        let keyframe = cuts.keyframe_before(newest).saturating_sub(1);
        self.news.push_back(News::Picture(late.map_or(keyframe, |late| late.from.max(keyframe))));
    }

    fn note_head(&mut self, from: NodeId, stripe: Stripe, at: u64) {
        let running = self.stripes[usize::from(stripe)].flow;
        let Some(running) = running.filter(|running| running.from == from) else { return };
        if let Some(parent) = self.parents.get_mut(&from) {
            parent.hushed = None;
            parent.heads.insert(stripe, at.saturating_sub(running.age));
        }
    }

    /// What the relay would have told since the last time.
    fn beat(&mut self, now: Timestamp, cuts: &CutLog) {
        self.beat_at = now + BEAT;
        let at = self.at(now);
        let parents: Vec<NodeId> = self.parents.keys().copied().collect();
        for node in parents {
            self.report(node, now);
        }
        for child in self.children.values().filter(|child| child.hushed.is_none()) {
            let stripes = StripeSet(child.live.0 | child.warm.0);
            self.out.push_back(RelayOutput::ChildAlive { feed: child.feed, stripes });
        }
        if self.slots() != self.waits_for {
            (0..self.shape.stripes).for_each(|stripe| self.tell_children(stripe, None, at, cuts));
        }
    }

    /// Tells the overlay how a parent fares.
    fn report(&mut self, node: NodeId, now: Timestamp) {
        let at = self.at(now);
        for stripe in 0..self.shape.stripes {
            self.note_head(node, stripe, at);
        }
        let Some(parent) = self.parents.get(&node).filter(|parent| parent.up) else { return };
        let silent_since = parent.hushed.filter(|(_, told)| *told).map(|(at, _)| at);
        let named = |stripe: &Stripe| {
            parent.promoted.contains(*stripe) || parent.heads.contains_key(stripe)
        };
        let stripes = (0..self.shape.stripes)
            .filter(named)
            .map(|stripe| {
                let head = parent.heads.get(&stripe).copied().unwrap_or(0);
                let newest = self.stripes[usize::from(stripe)];
                let newest = newest.flow.map_or(newest.have, |running| at - running.age.min(at));
                StripeProgress {
                    stripe,
                    head_stripe_seq: head / NUMBER_US,
                    claimed_stripe_seq: head / NUMBER_US,
                    bytes: head / 1_000 * self.shape.stripe_bytes / 1_000,
                    age_ms: u32::try_from(at.saturating_sub(newest) / 1_000).unwrap_or(u32::MAX),
                    gaps: 0,
                    depth: 0,
                }
            })
            .collect();
        self.out.push_back(RelayOutput::Progress(FeedProgress {
            feed: parent.feed,
            silent_since,
            at: now,
            stripes,
            duplicates: 0,
            offences: 0,
            shed: StripeSet::EMPTY,
        }));
    }

    /// Charges what was sent since the last time.
    fn charge(&mut self, now: Timestamp) {
        let at = self.at(now);
        let passed = at.saturating_sub(std::mem::replace(&mut self.sent_until, at));
        if passed == 0 {
            return;
        }
        // In millionths of a byte, so that nothing is lost however often this is asked.
        let flows = |stripe: &&Stripe| self.is_flowing(**stripe);
        let slots = self.children.values().map(|child| child.fed.keys().filter(flows).count());
        self.owed.0 += slots.sum::<usize>() as u64 * self.shape.stripe_bytes * passed;
        let feeds = self.parents.values().filter(|parent| parent.promoted != StripeSet::EMPTY);
        self.owed.1 += feeds.count() as u64 * ACK_BYTES_PER_S * passed;
    }

    fn pay(&mut self) {
        let media = self.owed.0 / 1_000_000;
        self.sent.payload += media;
        self.sent.chunk_overhead += (media as f64 * (self.shape.framed - 1.0)) as u64;
        self.sent.feed_control += self.owed.1 / 1_000_000;
        self.owed = (self.owed.0 % 1_000_000, self.owed.1 % 1_000_000);
    }
}

/// What of the past is news to a child that has all until `have`, as it arrives there.
fn arriving(late: Late, way: u64, have: u64) -> Option<Late> {
    let from = late.from.max(have);
    if from >= late.to {
        return None;
    }
    let whole = (late.to - late.from).max(1);
    let takes = late.last_at.saturating_sub(late.first_at);
    let first_at = late.first_at + takes * (from - late.from) / whole;
    Some(Late { from, to: late.to, first_at: first_at + way, last_at: late.last_at + way })
}

/// Whether an age is worth telling.
const fn is_other(told: u64, age: u64) -> bool {
    let apart = told.abs_diff(age);
    apart > TOLD_US && apart > age / 10
}
