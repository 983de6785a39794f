//! The task that reads one feed: cuts frames, verifies what is signed, hands everything to the media
//! task.
//!
//! Owns the rule that nothing unverified goes further: a certificate, init segment or chunk that the
//! source did not sign ends the feed within that very chunk. Does not own order, gaps or duplicates
//! (the relay's).

use astral_core::{
    ids::{FeedKey, StreamId},
    media::{
        cert::{SignedCert, VerifyingKey},
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
        loop {
            self.tasks.panic_point(tasks::FEED_READER);
            while let Some(frame) = self.frames.next() {
                let news = match frame
                    .map_err(Fault::from)
                    .and_then(|raw| self.check(&mut epochs, &raw))
                {
                    Ok(news) => news,
                    Err(fault) => return Some(fault),
                };
                if !self.tell(news).await {
                    return None;
                }
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

    async fn tell(&mut self, what: FeedNews) -> bool {
        let event = FeedEvent { feed: self.feed, generation: self.generation, what };
        tokio::select! {
            sent = self.events.send(event) => sent.is_ok(),
            () = self.stop.cancelled() => false,
        }
    }

    fn check(&self, epochs: &mut Epochs, raw: &RawFrame) -> Result<FeedNews, Fault> {
        let bytes = raw.frame().len();
        if side(self.feed.direction) == FrameSide::Up {
            self.meter.received(Class::Control, bytes);
            return Ok(FeedNews::Up(UpFrame::decode(raw)?));
        }
        let frame = DownFrame::decode(raw)?;
        let class =
            if matches!(frame, DownFrame::Chunk(_)) { Class::Media } else { Class::Control };
        self.meter.received(class, bytes);
        match frame {
            DownFrame::Cert(cert) => epochs.certify(cert, self.clock.unix()).map(FeedNews::Cert),
            DownFrame::Init(init) => epochs.check_init(init).map(FeedNews::Init),
            DownFrame::Chunk(chunk) => epochs.check_chunk(chunk),
            other => Ok(FeedNews::Down(other)),
        }
    }
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

    fn check_chunk(&self, chunk: WireChunk) -> Result<FeedNews, Fault> {
        let header = chunk.header();
        let epoch = self.find(header.epoch)?;
        if self.newest.is_some_and(|newest| newest.epoch != epoch.epoch) {
            return Ok(FeedNews::Discarded { bytes: chunk.wire_len() });
        }
        if header.stripe >= epoch.k {
            return Err(Fault::Stripe(header.stripe));
        }
        chunk.verify(&self.stream, &epoch.key).map_err(|_| Fault::Chunk)?;
        Ok(FeedNews::Chunk(chunk))
    }
}
