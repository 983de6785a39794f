//! The media task: drives the relay.
//!
//! Owns the relay, the feeds' tasks and the queues of local readers. It never waits for any of
//! them: a feed whose writer is full is closed, a reader that does not take is left out. Does not
//! own decisions (the overlay task sends them here) nor verification (done by the feeds' readers).

mod feeds;
mod repair;
mod sinks;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use astral_core::{
    ids::{FeedKey, NodeId, StreamId, Stripe},
    media::{
        chunk::{ChunkFlags, Payload, WireChunk},
        frame::{EndReason, FrameReader},
        relay::{Policy, Relay, RelayConfig, RelayInput, RelayOutput, RelaySnapshot, SinkId},
        repair::RepairAnswer,
    },
    overlay::{Event, Input},
    time::Timestamp,
};
use libp2p::Stream;
use tokio::{
    sync::{OwnedSemaphorePermit, broadcast, mpsc, oneshot},
    time::{Instant, sleep_until},
};
use tokio_util::{compat::Compat, sync::CancellationToken};

use super::{
    clock::Clock,
    feed::{FeedEvent, ToWriter, buffers::Buffers, drained::Drained},
    marks::Marks,
    meters::{Pause, StreamMeters, StreamStats},
    moves::Moves,
    playback::{Item, SINK_CREDIT},
    repair::RepairNews,
    run::News,
    tasks::{self, Tasks},
    toll::Toll,
    traffic::Meter,
    translate,
};

/// Commands that wait for the media task.
pub const MEDIA_COMMANDS_MAX: usize = 4_096;
/// Events of all feeds that wait for the media task; a chunk has at most 16 KiB.
pub const FEED_EVENTS_MAX: usize = 1_024;
/// Events of feeds, or commands, taken at once.
const BATCH: usize = 256;
/// News for the overlay task that wait while it is busy. The relay batches them, so that this is
/// minutes of a loaded node; the oldest reports of progress are worth nothing then.
const NEWS_BACKLOG_MAX: usize = 65_536;
/// Rhythm of what has no deadline of its own.
const TICK: Duration = Duration::from_millis(250);

/// What the media task is told.
#[derive(Debug)]
pub enum MediaCommand {
    /// A feed was greeted: serve it.
    FeedUp(Box<FeedStart>),
    /// Close a feed, telling the other end why. Nothing more is heard of it.
    FeedClose {
        /// Which feed.
        feed: FeedKey,
        /// Why.
        reason: EndReason,
    },
    /// Tell a child a path.
    SendPath {
        /// Which feed.
        feed: FeedKey,
        /// Which stripe.
        stripe: Stripe,
        /// Source first.
        path: Vec<u64>,
    },
    /// A neighbour's answer; its chunks are verified here.
    Repair {
        /// Which stream.
        stream: StreamId,
        /// Who.
        from: NodeId,
        /// The answer.
        answer: RepairAnswer<WireChunk>,
    },
    /// For the relay as it is.
    Relay(RelayInput<WireChunk>),
    /// A local reader.
    Attach {
        /// Which stream.
        stream: StreamId,
        /// Its number.
        sink: SinkId,
        /// When to skip.
        policy: Policy,
        /// Where its items go.
        to: mpsc::Sender<Item>,
    },
    /// A local reader left.
    Detach {
        /// Its number.
        sink: SinkId,
    },
    /// Something that all readers of a stream should hear.
    Notice {
        /// Which stream.
        stream: StreamId,
        /// What.
        item: Item,
    },
    /// An event of the overlay that is told after what the readers got.
    Tell(Event),
    /// How is it going?
    Report {
        /// Gets the answer.
        reply: oneshot::Sender<MediaReport>,
    },
}

/// A greeted feed with all that its tasks need.
pub struct FeedStart {
    /// The feed.
    pub feed: FeedKey,
    /// Which life of it.
    pub generation: u64,
    /// The stream.
    pub stream: Compat<Stream>,
    /// The frames, perhaps with some bytes read already.
    pub frames: FrameReader,
    /// Keeps the place among inbound streams.
    pub permit: Option<OwnedSemaphorePermit>,
    /// Round-trip time of the connection, when known.
    pub rtt: Option<Duration>,
    /// Counts bytes.
    pub meter: Meter,
}

impl std::fmt::Debug for FeedStart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FeedStart").field("feed", &self.feed).finish_non_exhaustive()
    }
}

/// Answer to [`MediaCommand::Report`].
#[derive(Clone, Debug)]
pub struct MediaReport {
    /// The relay's own view.
    pub relay: RelaySnapshot,
    /// What was counted per stream.
    pub streams: BTreeMap<StreamId, StreamStats>,
}

#[derive(Debug)]
struct Feed {
    generation: u64,
    writer: mpsc::Sender<ToWriter>,
    drained: Drained,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Sink {
    stream: StreamId,
    to: mpsc::Sender<Item>,
}

/// The task's state.
pub struct Media {
    relay: Relay<WireChunk>,
    clock: Clock,
    tasks: Tasks,
    toll: Toll,
    /// Of what circuits were written, how much the relay knows of.
    tolled: u64,
    feeds: BTreeMap<FeedKey, Feed>,
    buffers: Buffers,
    sinks: BTreeMap<SinkId, Sink>,
    meters: StreamMeters,
    moves: Moves,
    marks: Marks,
    keys: repair::Keys,
    /// Why streams that are about to close are over.
    over: BTreeMap<StreamId, EndReason>,
    commands: mpsc::Receiver<MediaCommand>,
    events: mpsc::Receiver<FeedEvent>,
    events_in: mpsc::Sender<FeedEvent>,
    news: mpsc::Sender<News>,
    backlog: VecDeque<News>,
    told: broadcast::Sender<Event>,
}

impl Media {
    /// The task's state before it runs.
    #[must_use]
    pub fn new(
        clock: Clock,
        tasks: Tasks,
        toll: Toll,
        commands: mpsc::Receiver<MediaCommand>,
        news: mpsc::Sender<News>,
        told: broadcast::Sender<Event>,
    ) -> Self {
        let (events_in, events) = mpsc::channel(FEED_EVENTS_MAX);
        Self {
            relay: Relay::new(RelayConfig::default(), clock.now()),
            clock,
            tasks,
            tolled: toll.bytes(),
            toll,
            feeds: BTreeMap::new(),
            buffers: Buffers::default(),
            sinks: BTreeMap::new(),
            meters: StreamMeters::default(),
            moves: Moves::default(),
            marks: Marks::default(),
            keys: repair::Keys::default(),
            over: BTreeMap::new(),
            commands,
            events,
            events_in,
            news,
            backlog: VecDeque::new(),
            told,
        }
    }

    /// Runs until the node stops.
    pub async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut tick = tokio::time::interval(TICK);
        let (tasks, news) = (self.tasks.clone(), self.news.clone());
        loop {
            tasks.panic_point(tasks::MEDIA);
            let deadline = self.deadline();
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.commands(command),
                    None => break,
                },
                _ = self.events.recv_many(&mut batch, BATCH) => {
                    // What the overlay wanted before these came has to be in force first.
                    while let Ok(command) = self.commands.try_recv() {
                        self.command(command);
                    }
                    for event in batch.drain(..) {
                        self.event(event);
                    }
                }
                room = news.reserve(), if !self.backlog.is_empty() => match room {
                    Ok(room) => if let Some(first) = self.backlog.pop_front() { room.send(first) },
                    Err(_) => break,
                },
                () = sleep_until(deadline) => {
                    self.take_all_drained();
                    self.relay.handle_timeout(self.clock.now());
                }
                _ = tick.tick() => self.tick(),
                () = tasks.stopping() => break,
            }
            self.drain();
        }
        for feed in self.feeds.values() {
            // A queue that is full has no room for last words either.
            let _ = feed.writer.try_send(ToWriter::Close(EndReason::Left));
        }
    }

    fn deadline(&self) -> Instant {
        let at = self.relay.poll_timeout().map_or(Timestamp::NEVER, |(at, _)| at);
        self.clock.instant(at)
    }

    fn tick(&mut self) {
        for event in self.moves.late(self.clock.now()) {
            self.tell(event);
        }
        self.tell_ends();
    }

    /// Tells the relay one thing. What it wants then is carried out at the end of the round, so
    /// that all that is due for one child goes out in one batch.
    fn input(&mut self, input: RelayInput<WireChunk>) {
        self.relay.handle_input(input, self.clock.now());
    }

    /// Feeds leave what circuits through this node used of the uplink.
    fn make_room(&mut self) {
        let paid = self.toll.bytes();
        if paid != self.tolled {
            let bytes = usize::try_from(paid - self.tolled).unwrap_or(usize::MAX);
            self.tolled = paid;
            self.input(RelayInput::Spent { bytes });
        }
    }

    /// Counts what a command says.
    fn note(&mut self, input: &RelayInput<WireChunk>) {
        match input {
            RelayInput::LocalChunk { stream, chunk } => {
                self.meters.cut(*stream, chunk, self.clock.now());
                let flags = chunk.header().flags;
                if flags.contains(ChunkFlags::PAUSE) {
                    let reconnecting = flags.contains(ChunkFlags::RECONNECTING);
                    self.source_paused(*stream, Some(Pause { reconnecting }));
                }
            }
            RelayInput::Paused { stream, paused: false } => self.source_paused(*stream, None),
            // Where nothing was cut yet, no chunk says it.
            RelayInput::Paused { stream, paused: true } if !self.meters.is_paused(*stream) => {
                self.source_paused(*stream, Some(Pause { reconnecting: false }));
            }
            RelayInput::Epoch { stream, cert, .. } => {
                self.meters.certified(*stream, &cert.cert);
                self.keys.learn(*stream, cert);
            }
            RelayInput::Uplink { ceiling } => self.toll.set_uplink(*ceiling),
            // Whatever ended it before does not count for those who read it now.
            RelayInput::Open { stream, .. } => {
                self.meters.joined(*stream, self.clock.now());
                self.over.remove(stream);
            }
            RelayInput::Close { stream } => {
                self.meters.forget(*stream);
                self.moves.forget(*stream);
                self.marks.forget(*stream);
                self.keys.forget(*stream);
            }
            _ => {}
        }
    }

    /// A command and what waits behind it. The chunks of one frame are cut one after another and go
    /// out together; whatever else is told finds earlier outputs carried out.
    fn commands(&mut self, first: MediaCommand) {
        self.command(first);
        for _ in 1..BATCH {
            let Ok(command) = self.commands.try_recv() else { return };
            if !matches!(command, MediaCommand::Relay(RelayInput::LocalChunk { .. })) {
                self.drain();
            }
            self.command(command);
        }
    }

    fn command(&mut self, command: MediaCommand) {
        match command {
            MediaCommand::FeedUp(start) => self.feed_up(*start),
            MediaCommand::FeedClose { feed, reason } => self.close(feed, reason),
            MediaCommand::SendPath { feed, stripe, path } => {
                self.input(RelayInput::Path { feed, stripe, path });
            }
            MediaCommand::Repair { stream, from, answer } => self.repaired(stream, from, answer),
            MediaCommand::Relay(input) => {
                self.note(&input);
                self.input(input);
            }
            MediaCommand::Attach { stream, sink, policy, to } => {
                self.sinks.insert(sink, Sink { stream, to });
                self.input(RelayInput::Attach { stream, sink, policy, credit: SINK_CREDIT });
            }
            MediaCommand::Detach { sink } => {
                if self.sinks.remove(&sink).is_some() {
                    self.input(RelayInput::Detach { sink });
                }
            }
            MediaCommand::Notice { stream, item } => self.notice(stream, &item),
            MediaCommand::Tell(event) => {
                if let Some(event) = self.moves.moved(event, self.clock.now()) {
                    self.tell(event);
                }
            }
            MediaCommand::Report { reply } => {
                let relay = self.relay.snapshot();
                let streams = self.meters.view(self.clock.now(), &relay);
                let report = MediaReport { relay, streams };
                // Whoever asked may have gone.
                let _ = reply.send(report);
            }
        }
    }

    fn drain(&mut self) {
        self.make_room();
        while let Some(output) = self.relay.poll_output() {
            match output {
                RelayOutput::Down { feed, frames } => {
                    self.meters.sent(feed.stream, &frames);
                    self.write(feed, ToWriter::Down(frames));
                }
                RelayOutput::Up { feed, frame } => self.write(feed, ToWriter::Up(frame)),
                RelayOutput::Progress(progress) => {
                    self.report(Input::Progress(translate::progress(progress)));
                }
                RelayOutput::Deliver { sink, item } => self.deliver(sink, item),
                RelayOutput::PromoteAsked { feed, stripe } => {
                    self.report(Input::PromoteAsked { feed, stripe });
                }
                RelayOutput::ChildAlive { feed, stripes } => {
                    self.report(Input::ChildAlive { feed, stripes });
                }
                RelayOutput::Uplink { rate } => self.report(Input::UplinkEstimate(rate)),
                RelayOutput::RepairWant { to, want } => {
                    self.send(News::Repair(RepairNews::Ask { to, want }));
                }
                RelayOutput::RepairAnswer { to, id, answer } => {
                    self.send(News::Repair(RepairNews::Answer { id, to, answer }));
                }
                RelayOutput::ChildQuiet { feed } => self.report(Input::ChildQuiet { feed }),
                RelayOutput::Stalled { feed } => self.report(Input::ChildStalled { feed }),
                RelayOutput::Shed { feed, stripes } => {
                    self.report(Input::ChildShed { feed, stripes });
                }
                RelayOutput::Released { feed, stripe } => {
                    self.report(Input::Released { feed, stripe });
                }
            }
        }
    }

    fn report(&mut self, input: Input) {
        self.send(News::Input(input));
    }

    fn send(&mut self, news: News) {
        if self.backlog.is_empty() {
            match self.news.try_send(news) {
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => return,
                Err(mpsc::error::TrySendError::Full(news)) => self.backlog.push_back(news),
            }
        } else {
            self.backlog.push_back(news);
        }
        if self.backlog.len() > NEWS_BACKLOG_MAX {
            self.backlog.retain(|waiting| !matches!(waiting, News::Input(Input::Progress(_))));
        }
    }

    fn tell(&self, event: Event) {
        // Nobody may be listening.
        let _ = self.told.send(event);
    }
}
