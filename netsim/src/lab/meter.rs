//! What came out of each viewer's sink and when, beside what the source cut and when.
//!
//! Owns the pipes that sources and sinks write to, and the comparison, tag by tag. It believes no
//! node's own figures. Does not own what they mean (see [`super::report`]).

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::Read,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Instant,
};

use anyhow::Context;
use rustix::{
    event::{Timespec, epoll},
    fs::{CWD, Mode, OFlags, mkfifoat},
    io::Errno,
};

/// Tags that one end of a stream may have in a lab; what is more is not looked at.
const TAGS_MAX: usize = 2_000_000;
/// Bytes before the first tag of a file.
const FILE_HEADER: usize = 13;
/// Bytes before a tag's body, and after it.
const TAG_HEADER: usize = 11;
const TAG_TRAILER: usize = 4;

/// The tags that came out of one end, in order.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Of each tag that carries media: a hash of its bytes, and when it was whole, in microseconds.
    pub tags: Vec<(u64, u64)>,
}

/// Cuts bytes of FLV into tags.
#[derive(Debug, Default)]
struct Reader {
    waiting: Vec<u8>,
    has_header: bool,
}

impl Reader {
    /// Takes bytes in; gives the hashes of the media tags that are whole now.
    fn read(&mut self, bytes: &[u8]) -> Vec<u64> {
        self.waiting.extend_from_slice(bytes);
        let mut at = 0;
        if !self.has_header {
            if self.waiting.len() < FILE_HEADER {
                return Vec::new();
            }
            (at, self.has_header) = (FILE_HEADER, true);
        }
        let mut hashes = Vec::new();
        while let Some(header) = self.waiting.get(at..at + TAG_HEADER) {
            let body = [0, header[1], header[2], header[3]];
            let whole = TAG_HEADER + u32::from_be_bytes(body) as usize + TAG_TRAILER;
            let Some(tag) = self.waiting.get(at..at + whole) else { break };
            if is_media(tag) {
                let hash = blake3::hash(tag);
                let first = hash.as_bytes().first_chunk().copied().unwrap_or_default();
                hashes.push(u64::from_be_bytes(first));
            }
            at += whole;
        }
        self.waiting.drain(..at);
        hashes
    }
}

/// Whether a tag is sound or picture: no metadata, no decoder's headers.
fn is_media(tag: &[u8]) -> bool {
    let (first, second) = (tag[TAG_HEADER], tag[TAG_HEADER + 1]);
    match tag[0] & 0x1f {
        8 => first >> 4 != 10 || second != 0,
        9 => second != 0,
        _ => false,
    }
}

/// A pipe and where it is.
#[derive(Debug)]
pub struct Pipe {
    /// For `--tee` and `--sink file:`.
    pub path: PathBuf,
    file: File,
}

impl Pipe {
    /// Makes a named pipe.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn new(path: PathBuf) -> anyhow::Result<Self> {
        mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR)
            .with_context(|| format!("cannot make {}", path.display()))?;
        // For both directions: so it has an end neither before nor after somebody writes.
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlags::NONBLOCK.bits() as i32)
            .open(&path)?;
        Ok(Self { path, file })
    }
}

/// Reads all pipes of a lab; the first one is the source's.
#[derive(Debug)]
pub struct Meter {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<Seen>>>,
    thread: JoinHandle<()>,
}

impl Meter {
    /// Starts to read.
    ///
    /// # Errors
    /// When the system refuses to watch the pipes.
    pub fn start(pipes: Vec<Pipe>, began: Instant) -> anyhow::Result<Self> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for (number, pipe) in (0..).zip(&pipes) {
            let data = epoll::EventData::new_u64(number);
            epoll::add(&poll, &pipe.file, data, epoll::EventFlags::IN)?;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(vec![Seen::default(); pipes.len()]));
        let (stopped, filled) = (stop.clone(), seen.clone());
        let thread = std::thread::Builder::new().name("meter".into()).spawn(move || {
            let mut ends: Vec<(Pipe, Reader)> =
                pipes.into_iter().map(|pipe| (pipe, Reader::default())).collect();
            let mut events = Vec::with_capacity(64);
            let timeout = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
            while !stopped.load(Ordering::Relaxed) {
                events.clear();
                let room = rustix::buffer::spare_capacity(&mut events);
                match epoll::wait(&poll, room, Some(&timeout)) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(_) => break,
                }
                for event in &events {
                    let number = event.data.u64() as usize;
                    let Some((pipe, reader)) = ends.get_mut(number) else { continue };
                    let hashes = read_all(pipe, reader);
                    let now = began.elapsed().as_micros() as u64;
                    let mut seen = filled.lock().unwrap_or_else(PoisonError::into_inner);
                    let tags = &mut seen[number].tags;
                    let room = TAGS_MAX.saturating_sub(tags.len());
                    tags.extend(hashes.into_iter().take(room).map(|hash| (hash, now)));
                }
            }
        })?;
        Ok(Self { stop, seen, thread })
    }

    /// Ends it; gives what came out of each pipe.
    #[must_use]
    pub fn stop(self) -> Vec<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        // It panics nowhere; what it saw until then counts anyway.
        let _ = self.thread.join();
        std::mem::take(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn read_all(pipe: &mut Pipe, reader: &mut Reader) -> Vec<u64> {
    let mut hashes = Vec::new();
    let mut buffer = [0; 65_536];
    while let Ok(length @ 1..) = pipe.file.read(&mut buffer) {
        hashes.extend(reader.read(&buffer[..length]));
    }
    hashes
}

/// When the source cut what.
#[derive(Debug)]
pub struct Cuts<'a> {
    tags: &'a [(u64, u64)],
    /// Where each is; a few are alike, such as two of silence at one time.
    places: BTreeMap<u64, Vec<usize>>,
}

/// What one viewer got of it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Got {
    /// When it got its first tag.
    pub first_at: Option<u64>,
    /// Tags due to it, and of these there after 1.5 s and 3 s.
    pub due: u64,
    /// See `due`.
    pub on_time: [u64; 2],
    /// Delay of each, in microseconds.
    pub delays: Vec<u64>,
    /// Tags left out between two others.
    pub skipped: u64,
    /// Tags that the source never cut, or that came twice or out of order.
    pub foreign: u64,
}

/// Lags at which continuity is counted, in microseconds; as the simulator's.
const LAGS_US: [u64; 2] = [1_500_000, 3_000_000];

impl<'a> Cuts<'a> {
    /// Of what the source wrote.
    #[must_use]
    pub fn new(source: &'a Seen) -> Self {
        let mut places: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (at, (hash, _)) in source.tags.iter().enumerate() {
            places.entry(*hash).or_default().push(at);
        }
        Self { tags: &source.tags, places }
    }

    /// Compares what a viewer wrote, from its first picture until `until`, when it was killed or the
    /// lab ended. What was cut in the last three seconds before is not due.
    #[must_use]
    pub fn compare(&self, viewer: &Seen, until: u64) -> Got {
        let mut got = Got { first_at: viewer.tags.first().map(|(_, at)| *at), ..Got::default() };
        let Some(first_at) = got.first_at else { return got };
        let last_due = until.saturating_sub(LAGS_US[1]);
        let is_due = |cut_at: u64| (first_at..=last_due).contains(&cut_at);
        got.due = self.tags.iter().filter(|(_, cut_at)| is_due(*cut_at)).count() as u64;
        let mut next = None;
        for (hash, at) in &viewer.tags {
            let mut places = self.places.get(hash).into_iter().flatten().copied();
            let Some(place) = places.find(|place| next.is_none_or(|next| *place >= next)) else {
                got.foreign += 1;
                continue;
            };
            got.skipped += next.map_or(0, |next| (place - next) as u64);
            next = Some(place + 1);
            let cut_at = self.tags[place].1;
            if is_due(cut_at) {
                let delay = at.saturating_sub(cut_at);
                got.delays.push(delay);
                for (count, lag) in got.on_time.iter_mut().zip(LAGS_US) {
                    *count += u64::from(delay <= lag);
                }
            }
        }
        got
    }
}

/// A folder of one lab's pipes; those of labs that are gone are removed.
///
/// # Errors
/// When the system's folder for such things can't be used.
pub fn folder() -> anyhow::Result<PathBuf> {
    const PREFIX: &str = "astral-lab-";
    let all = std::env::temp_dir();
    for entry in std::fs::read_dir(&all)?.flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            // Somebody else may be at it.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    let folder = all.join(format!("{PREFIX}{}", std::process::id()));
    std::fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut tag = vec![kind, 0, 0, body.len() as u8, 0, 0, 0, 0, 0, 0, 0];
        tag.extend(body);
        tag.extend([0; 4]);
        tag
    }

    #[test]
    fn media_tags_are_found_however_the_bytes_come() {
        let mut file = vec![0; FILE_HEADER];
        for (kind, body) in [(18, &[2, 0][..]), (9, &[0x17, 0]), (8, &[0xaf, 0]), (9, &[0x17, 1])] {
            file.extend(tag(kind, body));
        }
        file.extend(tag(8, &[0xaf, 1, 5]));
        let whole = Reader::default().read(&file);
        assert_eq!(whole.len(), 2, "no metadata, no headers");
        let mut reader = Reader::default();
        let pieces: Vec<u64> = file.chunks(3).flat_map(|piece| reader.read(piece)).collect();
        assert_eq!(pieces, whole);
        assert!(reader.waiting.is_empty());
    }

    #[test]
    fn tags_that_are_alike_are_told_apart_by_their_order() {
        let tags: Vec<(u64, u64)> = [1, 2, 2, 2, 3].map(|hash| (hash, 0)).into();
        let source = Seen { tags };
        let got = Cuts::new(&source).compare(&source, 9_000_000);
        assert_eq!((got.skipped, got.foreign, got.due), (0, 0, 5));
    }

    #[test]
    fn continuity_counts_what_is_late_skipped_and_foreign() {
        let source = Seen { tags: (0..100).map(|n| (n, n * 100_000)).collect() };
        let cuts = Cuts::new(&source);
        // From tag 10 on: number 50 two seconds late, 60 never, then one that nobody cut.
        let there = |n: u64| (n, n * 100_000 + if n == 50 { 2_000_000 } else { 80_000 });
        let mut tags: Vec<(u64, u64)> = (10..90).filter(|n| *n != 60).map(there).collect();
        tags.push((777, 9_000_000));
        let got = cuts.compare(&Seen { tags }, 11_000_000);
        assert_eq!((got.due, got.on_time), (70, [68, 69]), "{got:?}");
        assert_eq!((got.skipped, got.foreign), (1, 1));
        assert_eq!(cuts.compare(&Seen::default(), 11_000_000), Got::default());
    }
}
