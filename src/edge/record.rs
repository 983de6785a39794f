//! Records a stream being watched into files that survive whatever ends the recording.
//!
//! Owns the files of one recording: their names, where one ends and the next begins, and how much
//! disk they may take. Does not own the stream: the caller pulls it, with
//! [`Keep::All`](super::ports::Keep::All) when every byte counts.
//!
//! Every file is playable from its first byte to its last whole tag or fragment, at any moment: it
//! begins with all headers and a keyframe and only ever grows. A source that pauses, drops and comes
//! back goes on in the same file, on one clock. Names are made of the stream's id and the time;
//! nothing that another node sent names a file, and no file is ever written over.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use astral_core::{
    ids::StreamId,
    media::flv::{FlvLimits, HeaderSlot, Tag, TagReader, write_header},
};
use bytes::{Bytes, BytesMut};
use tokio::{
    fs::{self, File, OpenOptions},
    io::AsyncWriteExt,
};

use super::{
    fmp4::{Fragmenter, Output},
    ports::{MediaItem, MediaSource},
    splice::{Clock, Splicer},
};

/// Headers repeated at the beginning of a file; a real stream has three.
const HEADERS_MAX: usize = 32;
/// Attempts at a name that is free.
const NAMES_MAX: u32 = 1_000;

/// What files a recording is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Format {
    /// FLV: the stream as it is, whatever its codecs.
    #[default]
    Flv,
    /// Fragmented MP4: H.264, HEVC, AV1, VP9, AAC and Opus; other tracks are left out.
    Mp4,
}

impl Format {
    const fn suffix(self) -> &'static str {
        match self {
            Self::Flv => "flv",
            Self::Mp4 => "mp4",
        }
    }
}

/// How to record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordSpec {
    /// The folder, made when it is missing.
    pub folder: PathBuf,
    /// What files.
    pub format: Format,
    /// A new file begins at the first keyframe after this long; `None` = one file.
    pub segment: Option<Duration>,
    /// Bytes of all files of this recording together; the oldest goes when there would be more.
    pub bytes_max: Option<u64>,
}

impl RecordSpec {
    /// One FLV file without limit in `folder`.
    #[must_use]
    pub const fn in_folder(folder: PathBuf) -> Self {
        Self { folder, format: Format::Flv, segment: None, bytes_max: None }
    }
}

/// What a recording came to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Recorded {
    /// The files that are left, oldest first.
    pub files: Vec<PathBuf>,
    /// Bytes written.
    pub bytes: u64,
}

/// Why nothing more is recorded. What was written stays.
#[derive(Debug, thiserror::Error)]
#[error("can't record to {}: {source}", path.display())]
pub struct RecordError {
    /// The file or folder.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// Records `source` until it ends.
///
/// # Errors
/// [`RecordError`] when a file can't be made or takes no more.
pub async fn record(
    mut source: impl MediaSource,
    stream: StreamId,
    spec: RecordSpec,
) -> Result<Recorded, RecordError> {
    let mut recording = Recording::open(stream, spec).await?;
    while let Some(item) = source.next().await {
        if matches!(item, MediaItem::Ended { .. }) {
            break;
        }
        recording.take(&item).await?;
    }
    recording.finish().await
}

/// One recording. Ends by [`Self::finish`]; dropping it leaves a whole file as well.
#[derive(Debug)]
pub struct Recording {
    spec: RecordSpec,
    prefix: String,
    splicer: Splicer,
    tags: TagReader,
    shape: Shape,
    file: Option<Open>,
    /// Finished files with their sizes, oldest first.
    done: VecDeque<(PathBuf, u64)>,
    number: u32,
    bytes: u64,
}

#[derive(Debug)]
enum Shape {
    Flv { headers: BTreeMap<HeaderSlot, Tag>, has_picture: bool },
    Mp4 { fragmenter: Box<Fragmenter>, init: Bytes },
}

#[derive(Debug)]
struct Open {
    file: File,
    path: PathBuf,
    bytes: u64,
    /// Media time of its beginning.
    since_ms: u64,
}

/// Something to write.
struct Piece {
    bytes: Bytes,
    at_ms: u64,
    /// A file may begin here.
    starts: bool,
    /// A file must begin here: what follows needs other headers.
    renews: bool,
}

impl Recording {
    /// A recording of `stream`. The first file is made with the first media.
    ///
    /// # Errors
    /// [`RecordError`] when the folder can't be made.
    pub async fn open(stream: StreamId, spec: RecordSpec) -> Result<Self, RecordError> {
        let made = fs::create_dir_all(&spec.folder).await;
        made.map_err(|source| RecordError { path: spec.folder.clone(), source })?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let shape = match spec.format {
            Format::Flv => Shape::Flv { headers: BTreeMap::new(), has_picture: false },
            Format::Mp4 => Shape::Mp4 { fragmenter: Box::default(), init: Bytes::new() },
        };
        Ok(Self {
            prefix: format!("{}-{}", stream.short(), now.as_secs()),
            spec,
            splicer: Splicer::new(Clock::Source),
            tags: TagReader::new(FlvLimits::default()),
            shape,
            file: None,
            done: VecDeque::new(),
            number: 0,
            bytes: 0,
        })
    }

    /// Writes what an item carries.
    ///
    /// # Errors
    /// [`RecordError`] when the disk takes no more.
    pub async fn take(&mut self, item: &MediaItem) -> Result<(), RecordError> {
        self.tags.push(&self.splicer.take(item));
        // The splicer lets whole FLV through and nothing else.
        while let Some(Ok(tag)) = self.tags.next() {
            for piece in self.shape.pieces(&tag) {
                self.write(piece).await?;
            }
        }
        Ok(())
    }

    /// Ends the last file.
    ///
    /// # Errors
    /// [`RecordError`] when some of it could not be written.
    pub async fn finish(mut self) -> Result<Recorded, RecordError> {
        for piece in self.shape.rest() {
            self.write(piece).await?;
        }
        self.close().await?;
        let files = self.done.into_iter().map(|(path, _)| path).collect();
        Ok(Recorded { files, bytes: self.bytes })
    }

    async fn write(&mut self, piece: Piece) -> Result<(), RecordError> {
        let over = self.file.as_ref().is_some_and(|open| {
            let long = self.spec.segment.is_some_and(|segment| {
                u128::from(piece.at_ms.saturating_sub(open.since_ms)) >= segment.as_millis()
            });
            // Half of what is allowed, so that there is always a finished file to let go.
            let large = self.spec.bytes_max.is_some_and(|max| open.bytes > max / 2);
            piece.renews || (piece.starts && (long || large))
        });
        if over {
            self.close().await?;
        }
        if self.file.is_none() {
            if !piece.starts {
                return Ok(()); // What comes before the first keyframe nobody can play.
            }
            let open = self.begin(piece.at_ms).await?;
            self.file = Some(open);
            let head = self.shape.head();
            self.append(&head).await?;
        }
        self.append(&piece.bytes).await?;
        self.make_room().await;
        Ok(())
    }

    async fn append(&mut self, bytes: &[u8]) -> Result<(), RecordError> {
        let Some(open) = &mut self.file else { return Ok(()) };
        let written = async {
            open.file.write_all(bytes).await?;
            // Hands it to the system, where it survives this process.
            open.file.flush().await
        };
        written.await.map_err(|source| RecordError { path: open.path.clone(), source })?;
        open.bytes += bytes.len() as u64;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Makes the next file, under a name that nothing has.
    async fn begin(&mut self, since_ms: u64) -> Result<Open, RecordError> {
        loop {
            self.number += 1;
            let suffix = self.spec.format.suffix();
            let name = format!("{}-{:04}.{suffix}", self.prefix, self.number);
            let path = self.spec.folder.join(name);
            match OpenOptions::new().write(true).create_new(true).open(&path).await {
                Ok(file) => return Ok(Open { file, path, bytes: 0, since_ms }),
                Err(error)
                    if error.kind() == io::ErrorKind::AlreadyExists && self.number < NAMES_MAX => {}
                Err(source) => return Err(RecordError { path, source }),
            }
        }
    }

    async fn close(&mut self) -> Result<(), RecordError> {
        let Some(open) = self.file.take() else { return Ok(()) };
        let synced = open.file.sync_data().await;
        synced.map_err(|source| RecordError { path: open.path.clone(), source })?;
        self.done.push_back((open.path, open.bytes));
        Ok(())
    }

    async fn make_room(&mut self) {
        let Some(max) = self.spec.bytes_max else { return };
        let mut all: u64 = self.done.iter().map(|(_, bytes)| bytes).sum();
        all += self.file.as_ref().map_or(0, |open| open.bytes);
        while all > max
            && let Some((path, bytes)) = self.done.pop_front()
        {
            // A file that the user has taken away meanwhile takes no room.
            let _ = fs::remove_file(Path::new(&path)).await;
            all -= bytes;
        }
    }
}

impl Shape {
    fn pieces(&mut self, tag: &Tag) -> Vec<Piece> {
        match self {
            Self::Flv { headers, has_picture } => {
                let mut bytes = BytesMut::new();
                tag.write(&mut bytes);
                let at_ms = tag.timestamp_ms.into();
                let mut starts = tag.is_keyframe();
                if let Some(slot) = tag.header_slot() {
                    if headers.len() < HEADERS_MAX || headers.contains_key(&slot) {
                        let mut header = tag.clone();
                        header.timestamp_ms = 0;
                        headers.insert(slot, header);
                    }
                    *has_picture |= tag.video_codec().is_some();
                } else if !*has_picture {
                    starts = tag.audio_codec().is_some();
                }
                vec![Piece { bytes: bytes.freeze(), at_ms, starts, renews: false }]
            }
            Self::Mp4 { fragmenter, init } => {
                let made = fragmenter.push(tag);
                fragments(made, init)
            }
        }
    }

    fn rest(&mut self) -> Vec<Piece> {
        match self {
            Self::Flv { .. } => Vec::new(),
            Self::Mp4 { fragmenter, init } => {
                let made = fragmenter.finish();
                fragments(made, init)
            }
        }
    }

    /// What every file begins with.
    fn head(&self) -> Bytes {
        match self {
            Self::Flv { headers, has_picture } => {
                let has_sound = headers.values().any(|tag| tag.audio_codec().is_some());
                let mut bytes = BytesMut::from(&write_header(has_sound, *has_picture)[..]);
                headers.values().for_each(|tag| tag.write(&mut bytes));
                bytes.freeze()
            }
            Self::Mp4 { init, .. } => init.clone(),
        }
    }
}

fn fragments(made: Vec<Output>, init: &mut Bytes) -> Vec<Piece> {
    let mut renews = false;
    let mut pieces = Vec::new();
    for output in made {
        match output {
            Output::Init(bytes) => {
                *init = bytes;
                renews = true;
            }
            Output::Fragment(fragment) => pieces.push(Piece {
                bytes: fragment.bytes,
                at_ms: fragment.start_ms,
                starts: fragment.independent,
                renews: std::mem::take(&mut renews),
            }),
        }
    }
    pieces
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
