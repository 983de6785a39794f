//! The media task's feeds: their tasks, what they say, and their end.
//!
//! Owns what each frame leads to. Does not own verification (done before it comes here).

use std::time::Duration;

use astral_core::{
    ids::{Direction, FeedKey},
    media::{
        chunk::{Payload, WireChunk},
        frame::{DownFrame, EndReason},
        relay::{DownFrameMeta, FeedOffence, RelayInput},
    },
    overlay::{FeedDownReason, Input, Offence},
};
use tokio::{
    sync::{
        mpsc::{self, error::TrySendError},
        oneshot,
    },
    time::timeout,
};

use super::{Feed, FeedStart, Media};
use crate::node::{
    feed::{
        Fault, FeedEvent, FeedNews, ToWriter,
        drained::Drained,
        reader::Reader,
        writer::{WRITER_QUEUE_MAX, Writer},
    },
    run::News,
    tasks, translate,
};

/// Bytes of an END frame with what the transport adds.
const LAST_WORDS_BYTES: usize = 5 + 48;
/// A feed that is closed from here is gone after this, said or unsaid.
const LAST_WORDS_MAX: Duration = Duration::from_secs(1);

impl Media {
    /// One thing that happened on a feed.
    pub(super) fn event(&mut self, event: FeedEvent) {
        let FeedEvent { feed, generation, what } = event;
        if self.feeds.get(&feed).is_none_or(|known| known.generation != generation) {
            // Nobody reads on, but what its peer did is not forgiven by opening the feed again.
            if let FeedNews::Closed { fault: Some(fault) } = what {
                self.report(Input::Misbehaved { node: feed.peer, kind: offence(fault) });
            }
            return;
        }
        match what {
            FeedNews::Cert(cert) => {
                let (rate, k) = (cert.cert.rate, cert.cert.k);
                let stream = feed.stream;
                self.meters.certified(stream, &cert.cert);
                self.keys.learn(stream, &cert);
                self.input(RelayInput::Epoch { stream, cert, feed: Some(feed) });
                self.report(Input::Rate { stream, rate, k });
            }
            FeedNews::Init(init) => self.input(RelayInput::Init { stream: feed.stream, init }),
            FeedNews::Chunk(chunk) => {
                let now = self.clock.now();
                self.meters.received(feed.stream, &chunk, now);
                let stripe = chunk.header().stripe;
                for event in self.moves.arrived(feed.stream, stripe, feed.peer, now) {
                    self.tell(event);
                }
                if let Some(paused) = self.marks.chunk(feed.stream, chunk.header(), now) {
                    self.report(Input::Paused { stream: feed.stream, paused });
                }
                self.input(RelayInput::Chunk { feed, chunk });
            }
            FeedNews::Discarded { bytes } => self.input(RelayInput::Discarded { feed, bytes }),
            FeedNews::Down(frame) => self.down(feed, frame),
            FeedNews::Up(frame) => {
                // A child can't have read what was not written yet.
                self.take_drained(feed);
                self.input(RelayInput::UpFrame { feed, frame });
            }
            FeedNews::Closed { fault } => self.closed(feed, fault),
        }
    }

    /// Tells the relay what the writer of a feed to a child handed on.
    fn take_drained(&mut self, feed: FeedKey) {
        let taken = self.feeds.get(&feed).and_then(|known| known.drained.take());
        if let Some((bytes, chunk_bytes)) = taken {
            self.input(RelayInput::Drained { feed, bytes, chunk_bytes });
        }
    }

    /// Does the same for all children, before time alone is judged.
    pub(super) fn take_all_drained(&mut self) {
        let children: Vec<FeedKey> = self
            .feeds
            .keys()
            .filter(|feed| feed.direction == Direction::ToChild)
            .copied()
            .collect();
        for feed in children {
            self.take_drained(feed);
        }
    }

    fn down(&mut self, feed: FeedKey, frame: DownFrame<WireChunk>) {
        match DownFrameMeta::from_frame(frame) {
            Ok(frame) => {
                match &frame {
                    DownFrameMeta::Shed { stripes } => {
                        self.report(Input::Shed { feed, stripes: *stripes });
                    }
                    DownFrameMeta::Keep { paused: true, .. }
                        if self.marks.keep(feed.stream, self.clock.now()) =>
                    {
                        self.report(Input::Paused { stream: feed.stream, paused: true });
                    }
                    _ => {}
                }
                self.input(RelayInput::Frame { feed, frame });
            }
            Err(DownFrame::Path { stripe, path, .. }) => {
                self.report(Input::Path { feed, stripe, path });
            }
            Err(DownFrame::End { reason }) => {
                self.report(Input::Ended { feed, reason: translate::end_reason(reason) });
            }
            // The reader hands these over on their own.
            Err(_) => {}
        }
    }

    fn closed(&mut self, feed: FeedKey, fault: Option<Fault>) {
        let Some(known) = self.feeds.remove(&feed) else { return };
        known.stop.cancel();
        if let Some(fault) = fault {
            tracing::warn!(peer = %feed.peer.short(), stream = %feed.stream.short(), %fault, "feed dropped");
            self.input(RelayInput::Offence { feed, kind: offence_on_feed(fault) });
        }
        self.input(RelayInput::FeedDown { feed });
        // What the relay says of the feed's last chunks comes before its end.
        self.drain();
        let reason = fault.map_or(FeedDownReason::Closed, |f| FeedDownReason::Offence(offence(f)));
        self.send(News::FeedDown { feed, generation: known.generation, reason });
    }

    pub(super) fn feed_up(&mut self, start: FeedStart) {
        let FeedStart { feed, generation, stream, frames, permit, rtt, meter } = start;
        if self.feeds.contains_key(&feed) {
            // The same two nodes again: the older stream is the dead one.
            self.close(feed, EndReason::Left);
        }
        let (writer, queue) = mpsc::channel(WRITER_QUEUE_MAX);
        let stop = self.tasks.child_token();
        let (readable, writable) = tokio::io::split(stream);
        let reader = Reader {
            feed,
            generation,
            stream: readable,
            frames,
            events: self.events_in.clone(),
            stop: stop.clone(),
            meter: meter.clone(),
            clock: self.clock,
            tasks: self.tasks.clone(),
        };
        let events = self.events_in.clone();
        let drained = Drained::default();
        let (tell, fault) = oneshot::channel();
        let reading = async move {
            let fault = reader.run().await;
            drop(permit);
            // The other end of this channel is just below.
            let _ = tell.send(fault);
        };
        let end = stop.clone();
        self.tasks.spawn(tasks::FEED_READER, reading, move |_| async move {
            // A panic dropped the sender: no fault of the peer.
            let fault = fault.await.unwrap_or(None);
            let closed = FeedEvent { feed, generation, what: FeedNews::Closed { fault } };
            // The media task ends before its feeds when the node stops.
            let _ = events.send(closed).await;
            end.cancel();
        });
        let writer_task = Writer {
            feed,
            stream: writable,
            queue,
            buffers: self.buffers.clone(),
            drained: drained.clone(),
            stop: stop.clone(),
            meter,
            tasks: self.tasks.clone(),
        };
        let end = stop.clone();
        self.tasks.spawn(tasks::FEED_WRITER, writer_task.run(), move |_| async move {
            end.cancel();
        });
        self.feeds.insert(feed, Feed { generation, writer, drained, stop });
        self.input(RelayInput::FeedUp { feed, rtt });
        self.report(Input::FeedUp { feed });
    }

    pub(super) fn close(&mut self, feed: FeedKey, reason: EndReason) {
        let Some(known) = self.feeds.remove(&feed) else { return };
        // The feed's last words count against the ceiling like everything else.
        self.input(RelayInput::Spent { bytes: LAST_WORDS_BYTES });
        if known.writer.try_send(ToWriter::Close(reason)).is_err() {
            known.stop.cancel();
        } else {
            // A peer that never reads would keep the writer in an earlier write, and the feed's
            // tasks with it, for as long as the connection lives.
            let stop = known.stop;
            let end = async move {
                // Elapsed: the last words did not get through.
                let _ = timeout(LAST_WORDS_MAX, stop.cancelled()).await;
                stop.cancel();
            };
            self.tasks.spawn(tasks::FEED_WRITER, end, |_| async {});
        }
        self.input(RelayInput::FeedDown { feed });
    }

    pub(super) fn write(&mut self, feed: FeedKey, what: ToWriter) {
        let Some(known) = self.feeds.get(&feed) else { return };
        match known.writer.try_send(what) {
            Ok(()) => {}
            // Something would be missing on the feed from here on: better none at all.
            Err(TrySendError::Full(_)) => {
                tracing::warn!(peer = %feed.peer.short(), "feed closed: its writer does not drain");
                self.closed(feed, None);
            }
            // It ends with its reader, whose last word is on its way here and says why.
            Err(TrySendError::Closed(_)) => {}
        }
    }
}

const fn offence(fault: Fault) -> Offence {
    match fault {
        // A chunk of an epoch without certificate is one that nobody can have verified.
        Fault::Cert | Fault::Expired | Fault::Init | Fault::Chunk | Fault::NoCert => {
            Offence::BadSignature
        }
        Fault::Frame(_) | Fault::Stripe(_) => Offence::Malformed,
    }
}

const fn offence_on_feed(fault: Fault) -> FeedOffence {
    match fault {
        Fault::Cert | Fault::Expired | Fault::Init | Fault::Chunk => FeedOffence::Signature,
        Fault::Frame(_) | Fault::NoCert => FeedOffence::Frame,
        Fault::Stripe(_) => FeedOffence::Stripe,
    }
}
