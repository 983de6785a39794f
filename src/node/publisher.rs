//! A stream being published: from an encoder's FLV bytes to signed chunks in the relay.
//!
//! Owns the pipeline (tags, one clock, cutting, sealing), the choice of k when the rate is not told,
//! the tee file, and when the stream is announced, paused, resumed and ended. Does not own forwarding, the
//! announcement's repetition (the overlay's), nor what its users want (see `wishes`).

mod adapting;
mod ending;
mod pausing;
mod portrait;
mod spec;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use astral_core::{
    announcement::{AnnouncementDraft, Resolution, TAGS_MAX},
    ids::StreamId,
    media::{
        amf,
        cert::{ChunkSigner, EpochCert, RATE_MAX},
        chunk::WireChunk,
        cutter::{Cut, Cutter, stripes_for},
        flv::{FlvLimits, HeaderSlot, Tag, TagReader, Tracks},
        init::SignedInit,
        normalize::{MediaTag, Normalizer},
        relay::RelayInput,
    },
    overlay::{Command, Event},
    units::Bitrate,
};
use bytes::Bytes;
use tokio::{fs::File, io::AsyncWriteExt, sync::watch};

pub(super) use self::spec::check_texts;
use self::{adapting::Adapting, pausing::Pausing, portrait::Portrait};
pub use self::{adapting::Adaptive, spec::PublishSpec};
use super::{
    error::{NodeGone, PushError},
    handle::{NodeCommand, Shared},
    link::StreamLink,
    media::MediaCommand,
    wishes::Wishes,
};

/// Media time over which an unknown rate is measured before the stream begins.
const MEASURE: u64 = 2_000;
/// Bytes after which measuring ends early: a rate is known well enough then.
const MEASURE_BYTES_MAX: usize = 16 * 1_024 * 1_024;
/// A rate that was measured may have been a quiet scene: never below this.
const RATE_MIN: Bitrate = Bitrate::from_kbps(64);
/// A certificate outlives any one broadcast; a longer one needs a restart of the source.
const CERT_LIFETIME: Duration = Duration::from_secs(60 * 24 * 3_600);
/// A stream being published by this node.
#[derive(Debug)]
pub struct Publisher {
    link: StreamLink,
    stream: StreamId,
    epoch: u64,
    shared: Shared,
    spec: PublishSpec,
    reader: TagReader,
    normalizer: Normalizer,
    codecs: BTreeSet<String>,
    /// As the encoder's metadata say it.
    resolution: Option<Resolution>,
    stage: Stage,
    tee: Option<File>,
    announced: bool,
    /// Ended; the next media begins another broadcast.
    over: bool,
    wishes: watch::Receiver<Wishes>,
    pausing: Pausing,
    portrait: Portrait,
    adapting: Option<Adapting>,
    /// The newest of each kind, for a cutter that begins later.
    headers: BTreeMap<HeaderSlot, MediaTag>,
}

#[derive(Debug)]
enum Stage {
    /// The rate, and with it k, is not known yet.
    Measuring { held: Vec<MediaTag>, bytes: usize, first_ms: Option<u64> },
    /// Chunks are cut.
    Live(Box<Live>),
}

#[derive(Debug)]
struct Live {
    cutter: Cutter,
    signer: ChunkSigner,
    rate: Bitrate,
    k: u8,
}

impl Publisher {
    pub(super) fn new(shared: Shared, spec: PublishSpec, stream: StreamId, epoch: u64) -> Self {
        let name = spec.name.to_string();
        let encoder = spec.adaptive.map(|adaptive| adaptive.picture);
        let (on_air, rendition_of) = (!spec.preview, spec.rendition_of);
        let first = Wishes { name, on_air, encoder, rendition_of, ..Wishes::default() };
        let wishes = shared.inner.wishes.enter(stream, first);
        let link = StreamLink { source: shared.inner.source.key(), name: spec.name.clone() };
        Self {
            link,
            stream,
            epoch,
            shared,
            adapting: spec.adaptive.map(Adapting::new),
            spec,
            reader: TagReader::new(FlvLimits::default()),
            normalizer: Normalizer::new(),
            codecs: BTreeSet::new(),
            resolution: None,
            stage: Stage::Measuring { held: Vec::new(), bytes: 0, first_ms: None },
            tee: None,
            announced: false,
            over: false,
            wishes,
            pausing: Pausing::default(),
            portrait: Portrait::default(),
            headers: BTreeMap::new(),
        }
    }

    /// The link under which it is watched.
    #[must_use]
    pub const fn link(&self) -> &StreamLink {
        &self.link
    }

    /// Its id.
    #[must_use]
    pub const fn id(&self) -> StreamId {
        self.stream
    }

    /// Writes exactly what is cut to a file as well; to be called before the first media.
    ///
    /// # Errors
    /// When the file can't be created.
    pub async fn tee(&mut self, path: &Path) -> std::io::Result<()> {
        self.tee = Some(File::create(path).await?);
        Ok(())
    }

    /// Takes the next piece of an FLV byte stream, cut anywhere. Waits while the node is busy.
    ///
    /// # Errors
    /// [`PushError`]; after [`PushError::Flv`] only [`Self::restart`] helps.
    pub async fn push(&mut self, flv: Bytes) -> Result<(), PushError> {
        self.reader.push(&flv);
        while let Some(tag) = self.reader.next() {
            let tag = tag.map_err(|error| PushError::Flv { reason: error.to_string() })?;
            self.push_tag(tag).await?;
        }
        Ok(())
    }

    /// Takes the next tag, for protocols that bring tags.
    ///
    /// # Errors
    /// [`PushError`].
    pub async fn push_tag(&mut self, tag: Tag) -> Result<(), PushError> {
        for codec in [tag.video_codec(), tag.audio_codec()].into_iter().flatten() {
            if self.codecs.len() < TAGS_MAX {
                self.codecs.insert(codec.to_string());
            }
        }
        if tag.is_metadata() {
            self.resolution = picture_size(&tag.body).or(self.resolution);
        }
        self.follow_wishes().await?;
        if self.over {
            self.wake().await?;
        }
        self.adapt().await?;
        let Some(media) = self.normalizer.push(tag) else { return Ok(()) };
        if let Some(slot) = media.tag.header_slot() {
            // The normalizer bounds how many slots there are.
            self.headers.insert(slot, media.clone());
        } else if !self.admit(&media.tag).await? {
            return Ok(());
        } else {
            self.portray(&media).await?;
        }
        match &mut self.stage {
            Stage::Live(live) => live.cutter.push(media),
            Stage::Measuring { held, bytes, first_ms } => {
                *bytes += media.tag.wire_len();
                // Headers come at any time stamp; the clock runs from the first media on.
                let is_media = media.tag.header_slot().is_none();
                let first =
                    if is_media { *first_ms.get_or_insert(media.time_ms) } else { media.time_ms };
                let span = media.time_ms.saturating_sub(first);
                held.push(media);
                let rate = match self.spec.rate {
                    Some(rate) => rate,
                    None if span < MEASURE && *bytes < MEASURE_BYTES_MAX => return Ok(()),
                    None => measured(*bytes, span),
                };
                self.go_live(rate).await?;
            }
        }
        self.flush().await
    }

    /// A new FLV byte stream begins, as when an encoder reconnects; media time goes on, with the
    /// next keyframe.
    pub fn restart(&mut self) {
        self.reader = TagReader::new(FlvLimits::default());
        self.normalizer.restart();
        self.pausing.await_keyframe();
    }

    async fn go_live(&mut self, rate: Bitrate) -> Result<(), PushError> {
        let rate = rate.clamp(RATE_MIN, RATE_MAX);
        let k = self.spec.k.unwrap_or_else(|| stripes_for(rate));
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|_| PushError::Gone(NodeGone))?;
        let signer = ChunkSigner::from_seed(&seed);
        let inner = &self.shared.inner;
        let cert = inner.source.certify(EpochCert {
            source: inner.source.key(),
            name: self.spec.name.clone(),
            epoch: self.epoch,
            k,
            rate,
            chunk_key: signer.public(),
            expires_unix: inner.clock.unix() + CERT_LIFETIME.as_secs(),
        });
        let epoch = RelayInput::Epoch { stream: self.stream, cert, feed: None };
        self.shared.media(MediaCommand::Relay(epoch)).await?;
        let tracks = self.reader.tracks().unwrap_or(Tracks { audio: false, video: false });
        let cutter = Cutter::new(self.epoch, k, rate, tracks);
        // Certified is the highest, announced what the encoder does now.
        let rate = self.adapting.map_or(rate, |adapting| adapting.rate());
        let live = Stage::Live(Box::new(Live { cutter, signer, rate, k }));
        let Stage::Measuring { held, .. } = std::mem::replace(&mut self.stage, live) else {
            return Ok(());
        };
        for media in held {
            if let Stage::Live(live) = &mut self.stage {
                live.cutter.push(media);
            }
            self.flush().await?;
        }
        Ok(())
    }

    /// Seals and sends what was cut, and announces the stream with its first chunk.
    async fn flush(&mut self) -> Result<(), PushError> {
        let Stage::Live(live) = &mut self.stage else { return Ok(()) };
        let (rate, k) = (live.rate, live.k);
        let mut cut_media = false;
        while let Some(cut) = live.cutter.poll_output() {
            if let (Some(tee), Some(bytes)) = (&mut self.tee, cut.tee_bytes()) {
                tee.write_all(bytes).await.map_err(PushError::Tee)?;
            }
            let stream = self.stream;
            let input = match cut {
                Cut::Init(init) => {
                    let Ok(init) = SignedInit::seal(&stream, init, &live.signer) else { continue };
                    RelayInput::Init { stream, init }
                }
                Cut::Chunk(cut) => {
                    let sealed = WireChunk::seal(&stream, cut.header, &cut.payload, &live.signer);
                    // The cutter keeps to every bound of a chunk.
                    let Ok(chunk) = sealed else { continue };
                    cut_media = true;
                    RelayInput::LocalChunk { stream, chunk }
                }
            };
            self.shared.media(MediaCommand::Relay(input)).await?;
        }
        if let (true, Some(tee)) = (cut_media, &mut self.tee) {
            tee.flush().await.map_err(PushError::Tee)?;
        }
        if cut_media && !self.announced && !self.over && !self.spec.preview {
            self.announced = true;
            // Nobody may be listening.
            let _ = self.shared.told.send(Event::Live { stream: self.stream });
            self.announce(rate, k).await?;
        }
        Ok(())
    }

    async fn announce(&self, rate: Bitrate, k: u8) -> Result<(), NodeGone> {
        let PublishSpec { name, title, description, tags, renditions, rendition_of, .. } =
            self.spec.clone();
        let announcement = Box::new(AnnouncementDraft {
            source: self.link.source,
            name,
            title,
            description,
            tags,
            codecs: self.codecs.iter().cloned().collect(),
            resolution: self.resolution,
            rate,
            k,
            epoch: self.epoch,
            thumbnail: self.portrait.hash,
            renditions,
            rendition_of,
            floor: self.adapting.map(|adapting| adapting.floor()),
        });
        self.shared.command(NodeCommand::Overlay(Command::Publish { announcement })).await
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.shared.inner.wishes.leave(self.stream);
        self.shared.inner.pictures.forget(self.stream);
        if !self.over {
            // A publisher that was dropped has no time for last words; the tombstone still goes out.
            let over = NodeCommand::PublishOver { stream: self.stream };
            if self.shared.commands.try_send(over).is_err() {
                tracing::debug!("the stream's end was not told: the node is busy or gone");
            }
        }
    }
}

/// The size of the picture that metadata speak of. What is no size at all is left out: the
/// announcement says what is known.
fn picture_size(metadata: &[u8]) -> Option<Resolution> {
    let pixels = |name| {
        let value = amf::number(metadata, name)?;
        let is_size = (1.0..=f64::from(u16::MAX)).contains(&value);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "within 1 and u16::MAX, as compared"
        )]
        is_size.then(|| value.round() as u16)
    };
    Some(Resolution { width: pixels("width")?, height: pixels("height")? })
}

fn measured(bytes: usize, span_ms: u64) -> Bitrate {
    let bits = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_mul(8);
    Bitrate::from_bps(bits.saturating_mul(1_000) / span_ms.max(500))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(properties: &[(&str, f64)]) -> Vec<u8> {
        let mut body = b"\x02\x00\x0aonMetaData\x08\x00\x00\x00\x02".to_vec();
        for (name, value) in properties {
            body.extend(u16::try_from(name.len()).unwrap().to_be_bytes());
            body.extend(name.as_bytes());
            body.push(0);
            body.extend(value.to_be_bytes());
        }
        body.extend([0, 0, 9]);
        body
    }

    #[test]
    fn the_size_of_the_picture_is_what_the_metadata_say_when_it_is_a_size() {
        let size = |width, height| picture_size(&metadata(&[("width", width), ("height", height)]));
        assert_eq!(size(1_280.0, 720.0), Some(Resolution { width: 1_280, height: 720 }));
        for nonsense in [0.0, -1.0, 65_536.0, f64::NAN, f64::INFINITY] {
            assert_eq!(size(nonsense, 720.0), None, "{nonsense}");
            assert_eq!(size(1_280.0, nonsense), None, "{nonsense}");
        }
        assert_eq!(picture_size(&metadata(&[("width", 1_280.0)])), None, "half a size is none");
        assert_eq!(picture_size(b"\x02\x00\x0aonMetaData"), None);
    }
}
