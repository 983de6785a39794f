//! What the node's own tasks and its users ask of the overlay task.
//!
//! Owns the meaning of commands and of feeds' beginnings and ends. Does not own what the swarm says
//! (`inbound`) nor what the overlay wants (`outbound`).

use astral_core::{
    ids::{Direction, FeedKey, NodeId},
    media::{
        frame::{EndReason, FrameReader, Hello, HelloAck, RefuseReason},
        relay::{RelayInput, StreamRole},
    },
    overlay::{Command, FeedDownReason, Input},
};
use libp2p::{PeerId, Stream};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};

use super::{
    error::WatchError,
    feed::{
        handler::{InboundStream, OpenError, OpenId},
        handshake::{GreetingError, answer, be_greeted, greet},
        side,
    },
    handle::NodeCommand,
    identity,
    media::{FeedStart, MediaCommand},
    run::{Driver, GreetedFeed, News},
    streams::{Change, READERS_MAX},
    tasks,
};

impl Driver {
    /// One command of a user.
    pub(super) fn on_command(&mut self, command: NodeCommand) {
        match command {
            NodeCommand::Overlay(command) => {
                if let Command::Publish { announcement } = &command {
                    self.streams.announced(announcement.stream());
                }
                self.input(Input::Command(command));
            }
            NodeCommand::Reserve { stream, reply } => {
                // Whoever asked may have gone; then it is not published either.
                if let Err(true) = reply.send(self.streams.publish(stream)) {
                    self.streams.unpublish(stream);
                }
            }
            NodeCommand::PublishOver { stream } => {
                if self.streams.unpublish(stream) {
                    self.input(Input::Command(Command::Unpublish { stream }));
                }
                self.relay(RelayInput::Close { stream });
            }
            NodeCommand::Renditions { stream, reply } => {
                // Whoever asked may have gone.
                let _ = reply.send(self.overlay.renditions(stream));
            }
            NodeCommand::Picture { stream, reply } => self.want_picture(stream, reply),
            NodeCommand::Watch { stream, spec, sink, to, reply } => {
                let change = self.streams.read(stream, sink, spec.lag);
                let outcome = change.is_some();
                if let Some(change) = change {
                    self.change(stream, change);
                    if !self.streams.is_published(stream) {
                        let open = RelayInput::Open { stream, role: StreamRole::Member };
                        self.relay(open);
                    }
                    let policy = spec.policy;
                    self.outbox.push_back(MediaCommand::Attach { stream, sink, policy, to });
                }
                let outcome =
                    if outcome { Ok(()) } else { Err(WatchError::TooMany { limit: READERS_MAX }) };
                // Whoever asked may have gone; its queue is closed then, which the media task sees.
                let _ = reply.send(outcome);
            }
            NodeCommand::ReaderGone { stream, sink } => {
                let change = self.streams.reader_gone(stream, sink);
                self.change(stream, change);
                self.outbox.push_back(MediaCommand::Detach { sink });
            }
            NodeCommand::Seed { stream } => {
                let change = self.streams.seed(stream);
                self.change(stream, change);
            }
            NodeCommand::Unseed { stream } => {
                let change = self.streams.unseed(stream);
                self.change(stream, change);
            }
            NodeCommand::Stop { stream } => {
                let change = self.streams.stop(stream);
                self.change(stream, change);
            }
            NodeCommand::StopIfUnused { stream } => {
                let change = self.streams.stop_if_unused(stream);
                self.change(stream, change);
            }
            NodeCommand::Snapshot { reply } => {
                // Whoever asked may have gone.
                let _ = reply.send(self.report());
            }
            NodeCommand::Leave { reply } => {
                self.leaving.push(reply);
                if self.leaving.len() == 1 {
                    self.input(Input::Command(Command::Leave));
                }
            }
        }
    }

    pub(super) fn change(&mut self, stream: astral_core::ids::StreamId, change: Change) {
        match change {
            Change::None => {}
            Change::Watch { lag, kind } => {
                self.input(Input::Command(Command::Watch { stream, lag, kind }));
            }
            Change::Unwatch => self.input(Input::Command(Command::Unwatch { stream })),
        }
    }

    /// News of another task of this node.
    pub(super) fn on_news(&mut self, news: News) {
        match news {
            News::Input(input) => self.input(input),
            News::FeedDown { feed, generation, reason } => {
                if matches!(reason, FeedDownReason::Offence(_)) {
                    self.counters.feeds_dropped += 1;
                }
                if self.feeds.down(&feed, generation) {
                    self.input(Input::FeedDown { feed, reason });
                } else if let FeedDownReason::Offence(kind) = reason {
                    // Its peer opened the feed again meanwhile, or it was being closed.
                    self.input(Input::Misbehaved { node: feed.peer, kind });
                }
            }
            News::Repair(news) => self.on_repair_news(news),
            News::Greeted { node, hello, stream, permit } => {
                self.greeted(node, hello, stream, permit);
            }
            News::GreetedInVain { node } => self.feeds.greeting_ends(node),
            News::Greeting { feed, generation, outcome } => self.agreed(feed, generation, outcome),
        }
    }

    /// A node opened a stream to us.
    pub(super) fn feed_came(&mut self, peer: &PeerId, inbound: InboundStream) {
        let Some(node) = identity::node_id(peer) else { return };
        if !self.feeds.greeting_begins(node) {
            self.counters.feeds_refused += 1;
            return;
        }
        self.links.touch(peer);
        let InboundStream { stream, permit } = inbound;
        let tasks = self.shared.inner.tasks.clone();
        let (news, in_vain) = (self.news_in.clone(), self.news_in.clone());
        let (stop, name) = (tasks.clone(), tasks::FEED_HANDSHAKE);
        let (said, heard) = tokio::sync::oneshot::channel();
        let task = async move {
            stop.panic_point(name);
            let mut stream = stream.compat();
            let greeting = tokio::select! {
                greeting = be_greeted(&mut stream) => greeting,
                () = stop.stopping() => return,
            };
            match greeting {
                Ok(hello) => {
                    // The overlay task ends last; without it nobody waits.
                    let _ = news.send(News::Greeted { node, hello, stream, permit }).await;
                    let _ = said.send(());
                }
                Err(error) => tracing::debug!(node = %node.short(), %error, "no greeting"),
            }
        };
        tasks.spawn(name, task, move |_| async move {
            if heard.await.is_err() {
                // As above.
                let _ = in_vain.send(News::GreetedInVain { node }).await;
            }
        });
    }

    fn greeted(
        &mut self,
        node: NodeId,
        hello: Hello,
        mut stream: Compat<Stream>,
        permit: OwnedSemaphorePermit,
    ) {
        self.feeds.greeting_ends(node);
        // The opener says what we are to it; we say what it is to us.
        let direction = match hello.opener {
            Direction::FromParent => Direction::ToChild,
            Direction::ToChild => Direction::FromParent,
        };
        let feed = FeedKey { stream: hello.stream, peer: node, direction };
        let refusal = if !self.leaving.is_empty() {
            Some(RefuseReason::Leaving)
        } else if !self.streams.is_carried(hello.stream) {
            Some(RefuseReason::UnknownStream)
        } else {
            None
        };
        let generation = if refusal.is_none() { self.feeds.begin(feed) } else { None };
        let news = self.news_in.clone();
        let tasks = self.shared.inner.tasks.clone();
        let Some(generation) = generation else {
            self.counters.feeds_refused += 1;
            let refused = HelloAck::Refused(refusal.unwrap_or(RefuseReason::Busy));
            let task = async move {
                // A refusal that does not arrive is a closed stream: the same.
                let _ = answer(&mut stream, refused).await;
            };
            tasks.spawn(tasks::FEED_HANDSHAKE, task, |_| async {});
            return;
        };
        let task = async move {
            let outcome = answer(&mut stream, HelloAck::Accepted).await.map(|()| GreetedFeed {
                stream,
                frames: FrameReader::new(side(direction)),
                permit: Some(permit),
            });
            // The overlay task ends last; without it nobody waits.
            let _ = news.send(News::Greeting { feed, generation, outcome }).await;
        };
        tasks.spawn(tasks::FEED_HANDSHAKE, task, |_| async {});
    }

    /// The stream that we asked for is open: greet.
    pub(super) fn feed_opened(&mut self, id: OpenId, stream: Stream) {
        let Some(feed) = self.feeds.of(id) else { return };
        let generation = id.0;
        let hello = Hello { stream: feed.stream, opener: feed.direction };
        let tasks = self.shared.inner.tasks.clone();
        let (news, after) = (self.news_in.clone(), self.news_in.clone());
        let stop = tasks.clone();
        let (said, heard) = tokio::sync::oneshot::channel();
        let task = async move {
            stop.panic_point(tasks::FEED_HANDSHAKE);
            let mut stream = stream.compat();
            let greeting = tokio::select! {
                greeting = greet(&mut stream, hello) => greeting,
                () = stop.stopping() => return,
            };
            let outcome = greeting.map(|frames| GreetedFeed { stream, frames, permit: None });
            // The overlay task ends last; without it nobody waits.
            let _ = news.send(News::Greeting { feed, generation, outcome }).await;
            let _ = said.send(());
        };
        tasks.spawn(tasks::FEED_HANDSHAKE, task, move |_| async move {
            if heard.await.is_err() {
                let outcome = Err(GreetingError::Timeout);
                // As above.
                let _ = after.send(News::Greeting { feed, generation, outcome }).await;
            }
        });
    }

    /// The stream that we asked for could not be opened.
    pub(super) fn feed_failed(&mut self, id: OpenId, error: OpenError) {
        let Some(feed) = self.feeds.of(id) else { return };
        tracing::debug!(node = %feed.peer.short(), %error, "feed not opened");
        if self.feeds.down(&feed, id.0) {
            self.input(Input::FeedDown { feed, reason: FeedDownReason::OpenFailed });
        }
    }

    fn agreed(
        &mut self,
        feed: FeedKey,
        generation: u64,
        outcome: Result<GreetedFeed, GreetingError>,
    ) {
        match outcome {
            Ok(GreetedFeed { stream, frames, permit }) => {
                if !self.feeds.up(&feed, generation) {
                    return;
                }
                let rtt = identity::peer_id(&feed.peer)
                    .and_then(|peer| self.links.get(&peer))
                    .and_then(|link| link.rtt);
                let meter = self.shared.inner.traffic.meter(feed.peer);
                let start = FeedStart { feed, generation, stream, frames, permit, rtt, meter };
                self.outbox.push_back(MediaCommand::FeedUp(Box::new(start)));
            }
            Err(error) => {
                tracing::debug!(node = %feed.peer.short(), %error, "feed not agreed");
                if self.feeds.down(&feed, generation) {
                    // An older life of this feed may still run: it must not outlive its tickets.
                    let reason = EndReason::Left;
                    self.outbox.push_back(MediaCommand::FeedClose { feed, reason });
                    let reason = match error {
                        GreetingError::Refused(_) => FeedDownReason::Refused,
                        GreetingError::Timeout | GreetingError::Io(_) | GreetingError::Frame(_) => {
                            FeedDownReason::OpenFailed
                        }
                    };
                    self.input(Input::FeedDown { feed, reason });
                }
            }
        }
    }
}
