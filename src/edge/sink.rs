//! Writes a stream being watched into a file or an open file descriptor.
//!
//! Owns the two sinks and their thread. Does not own the stream: the caller pulls it, with
//! [`Keep::All`](super::ports::Keep::All) when every byte counts. Paths come from the local user
//! only; nothing that another node sent ever names a file.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::fd::AsFd,
    path::PathBuf,
    str::FromStr,
};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::{
    ports::{MediaItem, MediaSource},
    splice::{Clock, Splicer},
};

/// Pieces that wait for a slow disk or pipe; then the stream waits, and its ring keeps the rest.
const PIECES_QUEUED_MAX: usize = 64;

/// Where a stream is written. Nothing is opened before [`Sink::write`] or [`OpenSink::open`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Sink {
    /// A file, created or emptied.
    File(PathBuf),
    /// An open file descriptor, such as 1 for standard output.
    Fd(u32),
}

impl Sink {
    /// Opens this sink and writes `source` to it until the stream ends. A reader that has enough
    /// (`play --sink fd:1 | head`) ends it too, and that is no error. Says whether the stream is
    /// over, rather than the reader gone.
    ///
    /// # Errors
    /// [`SinkError`] when the sink can't be opened or takes no more.
    pub async fn write(self, mut source: Box<dyn MediaSource>) -> Result<bool, SinkError> {
        let mut sink = OpenSink::open(self)?;
        while let Some(item) = source.next().await {
            match sink.take(&item).await {
                Err(SinkError::ReaderGone { .. }) => return Ok(false),
                outcome => outcome?,
            }
            if matches!(item, MediaItem::Ended { .. }) {
                break;
            }
        }
        match sink.finish().await {
            Err(SinkError::ReaderGone { .. }) => Ok(false),
            outcome => outcome.map(|_| true),
        }
    }
}

impl FromStr for Sink {
    type Err = TargetError;

    /// Reads `file:PATH` and `fd:N`.
    fn from_str(text: &str) -> Result<Self, TargetError> {
        match text.split_once(':') {
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            Some(("fd", number)) => number.parse().map(Self::Fd).map_err(|_| TargetError),
            _ => Err(TargetError),
        }
    }
}

impl std::fmt::Display for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Fd(number) => write!(f, "fd:{number}"),
        }
    }
}

/// A text that names no sink.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a sink is file:PATH or fd:NUMBER")]
pub struct TargetError;

/// Why nothing more is written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SinkError {
    /// The sink can't be opened.
    #[error("can't write to {target}: {source}; check that it exists and may be written")]
    Open {
        /// What was to be opened.
        target: Sink,
        /// What the system said.
        source: io::Error,
    },
    /// Writing failed: disk full, device gone.
    #[error("writing to {target} failed: {source}")]
    Write {
        /// The sink.
        target: Sink,
        /// What the system said.
        source: io::Error,
    },
    /// The program reading the pipe has ended: a normal end of `play --sink fd:1 | head`.
    #[error("the program reading {target} has ended")]
    ReaderGone {
        /// The sink.
        target: Sink,
    },
}

/// An open sink. Ends by [`Self::finish`]; dropping it writes what is queued in the background.
#[derive(Debug)]
pub struct OpenSink {
    target: Sink,
    splicer: Splicer,
    pieces: Option<mpsc::Sender<Bytes>>,
    done: oneshot::Receiver<io::Result<()>>,
    bytes: u64,
}

impl OpenSink {
    /// Opens `target`.
    ///
    /// # Errors
    /// [`SinkError::Open`] says what and why.
    pub fn open(target: Sink) -> Result<Self, SinkError> {
        let file = match open(&target) {
            Ok(file) => file,
            Err(source) => return Err(SinkError::Open { target, source }),
        };
        let (pieces, queue) = mpsc::channel(PIECES_QUEUED_MAX);
        let (tell, done) = oneshot::channel();
        // A thread of its own, never joined: a pipe that nobody reads must not keep the process
        // from ending, as a task of the runtime would.
        let started = std::thread::Builder::new()
            .name("astral-sink".into())
            .spawn(move || drop(tell.send(write_all(file, queue))));
        match started {
            Ok(_) => {
                let splicer = Splicer::new(Clock::Source);
                Ok(Self { target, splicer, pieces: Some(pieces), done, bytes: 0 })
            }
            Err(source) => Err(SinkError::Open { target, source }),
        }
    }

    /// Writes what an item carries, waiting while the sink is slow. Not cancel safe.
    ///
    /// # Errors
    /// [`SinkError`] when the sink takes no more; an error of an earlier write shows here too.
    pub async fn take(&mut self, item: &MediaItem) -> Result<(), SinkError> {
        let bytes = self.splicer.take(item);
        if bytes.is_empty() {
            return Ok(());
        }
        let len = bytes.len() as u64;
        let sent = match &self.pieces {
            Some(pieces) => pieces.send(bytes).await.is_ok(),
            None => false,
        };
        if !sent {
            return self.close().await;
        }
        self.bytes += len;
        Ok(())
    }

    /// Waits until everything is written; how many bytes the sink got.
    ///
    /// # Errors
    /// [`SinkError`] when some of it was not.
    pub async fn finish(mut self) -> Result<u64, SinkError> {
        self.close().await?;
        Ok(self.bytes)
    }

    async fn close(&mut self) -> Result<(), SinkError> {
        self.pieces = None;
        let target = || self.target.clone();
        match (&mut self.done).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                Err(SinkError::ReaderGone { target: target() })
            }
            Ok(Err(source)) => Err(SinkError::Write { target: target(), source }),
            Err(_) => {
                let source = io::Error::other("the writer stopped");
                Err(SinkError::Write { target: target(), source })
            }
        }
    }
}

fn open(target: &Sink) -> io::Result<File> {
    match target {
        Sink::File(path) => File::create(path),
        Sink::Fd(1) => io::stdout().as_fd().try_clone_to_owned().map(File::from),
        Sink::Fd(2) => io::stderr().as_fd().try_clone_to_owned().map(File::from),
        Sink::Fd(number) => OpenOptions::new().write(true).open(format!("/dev/fd/{number}")),
    }
}

fn write_all(mut file: File, mut queue: mpsc::Receiver<Bytes>) -> io::Result<()> {
    while let Some(bytes) = queue.blocking_recv() {
        file.write_all(&bytes)?;
    }
    file.flush()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn items() -> Vec<MediaItem> {
        let mut init = b"FLV\x01\x05\0\0\0\x09\0\0\0\0".to_vec();
        init.extend([9, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0x17, 0, 0, 0, 0, 0, 0, 0, 16]);
        let frame = [9, 0, 0, 5, 0, 0, 9, 0, 0, 0, 0, 0x17, 1, 0, 0, 0, 0, 0, 0, 16];
        let mut items = vec![MediaItem::Flv(init.into())];
        items.extend((0..200).map(|_| MediaItem::Flv(Bytes::copy_from_slice(&frame))));
        items.push(MediaItem::Paused);
        items
    }

    fn bytes(items: &[MediaItem]) -> Vec<u8> {
        let parts = items.iter().filter_map(|item| match item {
            MediaItem::Flv(bytes) => Some(bytes.to_vec()),
            _ => None,
        });
        parts.flatten().collect()
    }

    fn scratch(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("astral-sink-{}-{name}", std::process::id()))
    }

    #[tokio::test]
    async fn a_file_holds_exactly_what_came() {
        let path = scratch("whole.flv");
        let mut sink = OpenSink::open(Sink::File(path.clone())).unwrap();
        for item in items() {
            sink.take(&item).await.unwrap();
        }
        let written = sink.finish().await.unwrap();
        let file = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(written, file.len() as u64);
        assert_eq!(file, bytes(&items()));
    }

    #[tokio::test]
    async fn a_pipe_gets_everything_in_small_reads_and_says_when_its_reader_leaves() {
        use std::os::fd::AsRawFd;
        let (mut reader, writer) = io::pipe().unwrap();
        let fd = u32::try_from(writer.as_raw_fd()).unwrap();
        let mut sink = OpenSink::open(Sink::Fd(fd)).unwrap();
        drop(writer);
        let expected = bytes(&items());
        let len = expected.len();
        let reading = std::thread::spawn(move || {
            let mut got = Vec::new();
            let mut piece = [0; 7];
            while got.len() < len {
                let n = reader.read(&mut piece).unwrap();
                got.extend_from_slice(&piece[..n]);
            }
            got
        });
        for item in items() {
            sink.take(&item).await.unwrap();
        }
        assert_eq!(
            tokio::task::spawn_blocking(|| reading.join().unwrap()).await.unwrap(),
            expected
        );
        let frame = items().swap_remove(1);
        let error = loop {
            if let Err(error) = sink.take(&frame).await {
                break error;
            }
        };
        assert!(matches!(error, SinkError::ReaderGone { .. }), "{error}");
    }

    #[test]
    fn a_sink_that_cant_be_opened_says_which_and_why() {
        let error = OpenSink::open(Sink::File("/nowhere/at/all.flv".into())).unwrap_err();
        assert!(error.to_string().contains("file:/nowhere/at/all.flv"), "{error}");
        assert!(OpenSink::open(Sink::Fd(987_654)).is_err());
    }

    #[test]
    fn targets_are_read_as_users_write_them() {
        assert_eq!("file:a:b.flv".parse(), Ok(Sink::File("a:b.flv".into())));
        assert_eq!("fd:1".parse(), Ok(Sink::Fd(1)));
        for text in ["file:", "fd:x", "fd:-1", "window", ""] {
            assert_eq!(text.parse::<Sink>(), Err(TargetError), "{text}");
        }
    }
}
