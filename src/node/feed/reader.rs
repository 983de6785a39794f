//! The task that reads one feed: cuts frames, verifies what is signed, hands everything to the media
//! task.
//!
//! Owns the rule that nothing unverified goes further: a certificate, init segment or chunk that the
//! source did not sign ends the feed within that very chunk. Chunks that came together are verified
//! together. Does not own order, gaps or duplicates (the relay's).

use astral_core::{
    ids::{FeedKey, StreamId},
    media::{
        cert::{Batch, SignedCert, VerifyingKey},
        chunk::{Payload, WireChunk},
        frame::{DownFrame, FrameReader, FrameSide, RawFrame, UpFrame},
        init::SignedInit,
    },
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

use super::{Fault, FeedEvent, FeedNews, side};
use crate::node::{
    clock::Clock,
    tasks::{self, Tasks},
    traffic::{Class, Meter},
};

/// Most chunks that are verified together: beyond that little is saved (`bench micro`), and what the
/// first ones wait for grows.
const BATCH_MAX: usize = 32;

/// Everything that the task needs.
#[derive(Debug)]
pub struct Reader<R> {
    /// The feed.
    pub feed: FeedKey,
    /// Which life of it.
    pub generation: u64,
    /// The readable half of the stream.
    pub stream: R,
    /// The frames, perhaps with some bytes read already.
    pub frames: FrameReader,
    /// Where news go.
    pub events: mpsc::Sender<FeedEvent>,
    /// Ends the task.
    pub stop: CancellationToken,
    /// Counts bytes.
    pub meter: Meter,
    /// Knows the time, for certificates.
    pub clock: Clock,
    /// For the test hook.
    pub tasks: Tasks,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// Reads until the stream or the feed ends; gives the fault that ended it, if any.
    pub async fn run(mut self) -> Option<Fault> {
        let mut epochs = Epochs::new(self.feed.stream);
        let mut chunks = Vec::new();
        loop {
            self.tasks.panic_point(tasks::FEED_READER);
            match self.hand_on(&mut epochs, &mut chunks).await {
                Ok(()) => {}
                Err(End::Stopped) => return None,
                Err(End::Fault(fault)) => return Some(fault),
            }
            let read = tokio::select! {
                read = self.stream.read_buf(self.frames.buffer_mut()) => read,
                () = self.stop.cancelled() => return None,
            };
            if !matches!(read, Ok(1..)) {
                return None;
            }
        }
    }

    /// Checks and tells all frames that are there, in their order. Nothing waits for a fuller batch.
    async fn hand_on(
        &mut self,
        epochs: &mut Epochs,
        chunks: &mut Vec<Unverified>,
    ) -> Result<(), End> {
        while let Some(frame) = self.frames.next() {
            match frame.map_err(Fault::from).and_then(|raw| self.check(epochs, &raw)) {
                Ok(Checked::Chunk(chunk)) => {
                    chunks.push(chunk);
                    if chunks.len() == BATCH_MAX {
                        self.hand_on_chunks(chunks).await?;
                    }
                }
                Ok(Checked::News(news)) => {
                    self.hand_on_chunks(chunks).await?;
                    self.tell(news).await?;
                }
                Err(fault) => {
                    self.hand_on_chunks(chunks).await?;
                    return Err(End::Fault(fault));
                }
            }
        }
        self.hand_on_chunks(chunks).await
    }

    /// Tells the chunks that the source signed, up to the first that it did not.
    async fn hand_on_chunks(&mut self, chunks: &mut Vec<Unverified>) -> Result<(), End> {
        let genuine = genuine(&self.feed.stream, chunks);
        let is_forged = genuine < chunks.len();
        for Unverified { chunk, .. } in chunks.drain(..).take(genuine) {
            self.tell(FeedNews::Chunk(chunk)).await?;
        }
        if is_forged { Err(End::Fault(Fault::Chunk)) } else { Ok(()) }
    }

    async fn tell(&mut self, what: FeedNews) -> Result<(), End> {
        let event = FeedEvent { feed: self.feed, generation: self.generation, what };
        tokio::select! {
            sent = self.events.send(event) => sent.map_err(|_| End::Stopped),
            () = self.stop.cancelled() => Err(End::Stopped),
        }
    }

    fn check(&self, epochs: &mut Epochs, raw: &RawFrame) -> Result<Checked, Fault> {
        let bytes = raw.frame().len();
        if side(self.feed.direction) == FrameSide::Up {
            self.meter.received(Class::Control, bytes);
            return Ok(Checked::News(FeedNews::Up(UpFrame::decode(raw)?)));
        }
        let frame = DownFrame::decode(raw)?;
        let class =
            if matches!(frame, DownFrame::Chunk(_)) { Class::Media } else { Class::Control };
        self.meter.received(class, bytes);
        let news = match frame {
            DownFrame::Cert(cert) => FeedNews::Cert(epochs.certify(cert, self.clock.unix())?),
            DownFrame::Init(init) => FeedNews::Init(epochs.check_init(init)?),
            DownFrame::Chunk(chunk) => return epochs.check_chunk(chunk),
            other => FeedNews::Down(other),
        };
        Ok(Checked::News(news))
    }
}

/// Why no more frames are handed on.
enum End {
    /// The node or the feed is over.
    Stopped,
    /// What the other side did.
    Fault(Fault),
}

/// A frame that may be handed on, or a chunk whose signature is still to be checked.
enum Checked {
    News(FeedNews),
    Chunk(Unverified),
}

/// A chunk and the key that its source claims to have signed it with.
struct Unverified {
    chunk: WireChunk,
    key: VerifyingKey,
}

/// How many chunks the source signed before the first that it did not: all, as a rule.
fn genuine(stream: &StreamId, chunks: &[Unverified]) -> usize {
    if let [_, _, ..] = chunks {
        let mut batch = Batch::default();
        let added = |it: &Unverified| it.chunk.verify_in(&mut batch, stream, &it.key).is_ok();
        if chunks.iter().all(added) && batch.verify() {
            return chunks.len();
        }
    }
    chunks.iter().take_while(|it| it.chunk.verify(stream, &it.key).is_ok()).count()
}

/// The keys of the stream's epochs as this feed certified them: the newest and the one before.
#[derive(Debug)]
struct Epochs {
    stream: StreamId,
    newest: Option<Epoch>,
    before: Option<Epoch>,
}

#[derive(Clone, Copy, Debug)]
struct Epoch {
    epoch: u64,
    k: u8,
    key: VerifyingKey,
}

impl Epochs {
    const fn new(stream: StreamId) -> Self {
        Self { stream, newest: None, before: None }
    }

    fn certify(&mut self, cert: SignedCert, unix_now: u64) -> Result<SignedCert, Fault> {
        let key = cert.verify(&self.stream).map_err(|_| Fault::Cert)?;
        if cert.cert.expires_unix <= unix_now {
            return Err(Fault::Expired);
        }
        let epoch = Epoch { epoch: cert.cert.epoch, k: cert.cert.k, key };
        if self.newest.is_none_or(|newest| newest.epoch < epoch.epoch) {
            self.before = self.newest.replace(epoch);
        }
        Ok(cert)
    }

    fn find(&self, epoch: u64) -> Result<Epoch, Fault> {
        [self.newest, self.before]
            .into_iter()
            .flatten()
            .find(|known| known.epoch == epoch)
            .ok_or(Fault::NoCert)
    }

    fn check_init(&self, init: SignedInit) -> Result<SignedInit, Fault> {
        let epoch = self.find(init.init.epoch)?;
        init.verify(&self.stream, &epoch.key).map_err(|_| Fault::Init)?;
        Ok(init)
    }

    fn check_chunk(&self, chunk: WireChunk) -> Result<Checked, Fault> {
        let header = chunk.header();
        let epoch = self.find(header.epoch)?;
        if self.newest.is_some_and(|newest| newest.epoch != epoch.epoch) {
            return Ok(Checked::News(FeedNews::Discarded { bytes: chunk.wire_len() }));
        }
        if header.stripe >= epoch.k {
            return Err(Fault::Stripe(header.stripe));
        }
        Ok(Checked::Chunk(Unverified { chunk, key: epoch.key }))
    }
}
