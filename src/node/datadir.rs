//! What a node keeps between two starts: its keys and the epochs of its streams.
//!
//! Owns the data directory: its lock, the key files `node.key` and `source.key` (32 bytes, mode
//! 0600) and `epochs.json`. Does not own settings nor the API's token, which live beside them.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use astral_core::ids::StreamId;
use zeroize::Zeroizing;

use super::error::StartError;

/// A 32-byte secret that is wiped when it is dropped.
pub type Seed = Zeroizing<[u8; 32]>;

/// Largest `epochs.json` that is read: about ten thousand streams.
const EPOCHS_BYTES_MAX: u64 = 1 << 20;

/// An opened data directory, or the memory of an ephemeral node.
#[derive(Debug)]
pub struct DataDir {
    /// Holds the lock as long as the node lives.
    _lock: Option<File>,
    /// The node's own key.
    pub node_seed: Seed,
    /// The key that owns this user's streams.
    pub source_seed: Seed,
    /// The streams' epochs.
    pub epochs: EpochStore,
}

impl DataDir {
    /// Opens or creates the directory; `None` keeps everything in memory.
    ///
    /// # Errors
    /// [`StartError`]: in use, unreadable, damaged, or no randomness for new keys.
    pub fn open(path: Option<&Path>) -> Result<Self, StartError> {
        let Some(path) = path else {
            return Ok(Self {
                _lock: None,
                node_seed: new_seed()?,
                source_seed: new_seed()?,
                epochs: EpochStore::default(),
            });
        };
        let fail = |source| StartError::DataDir { path: path.to_owned(), source };
        if path.exists() && !path.is_dir() {
            return Err(StartError::NoFolder { path: path.to_owned() });
        }
        fs::create_dir_all(path).map_err(fail)?;
        let lock = lock(path)?;
        Ok(Self {
            _lock: Some(lock),
            node_seed: load_seed(&path.join("node.key"))?,
            source_seed: load_seed(&path.join("source.key"))?,
            epochs: EpochStore::open(path.join("epochs.json"))?,
        })
    }
}

/// The highest epoch that each own stream ever had.
#[derive(Debug, Default)]
pub struct EpochStore {
    path: Option<PathBuf>,
    epochs: BTreeMap<StreamId, u64>,
}

impl EpochStore {
    fn open(path: PathBuf) -> Result<Self, StartError> {
        let fail = |source| StartError::DataDir { path: path.clone(), source };
        let mut text = String::new();
        match File::open(&path) {
            Ok(file) => file.take(EPOCHS_BYTES_MAX).read_to_string(&mut text).map_err(fail)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { path: Some(path), epochs: BTreeMap::new() });
            }
            Err(error) => return Err(fail(error)),
        };
        let epochs = serde_json::from_str(&text).map_err(|_| StartError::Damaged {
            path: path.clone(),
            what: "not a list of epochs",
        })?;
        Ok(Self { path: Some(path), epochs })
    }

    /// The epoch for a new start of `stream`: above every earlier one and not below unix time, and
    /// on disk before this returns.
    ///
    /// # Errors
    /// When it can't be stored; the stream must not be started then.
    pub fn next(&mut self, stream: StreamId, unix_now: u64) -> io::Result<u64> {
        let last = self.epochs.get(&stream).copied();
        let epoch = last.map_or(unix_now, |last| unix_now.max(last.saturating_add(1)));
        self.epochs.insert(stream, epoch);
        if let Some(path) = &self.path {
            let text = serde_json::to_string_pretty(&self.epochs).map_err(io::Error::other)?;
            replace(path, text.as_bytes())?;
        }
        Ok(epoch)
    }
}

fn lock(dir: &Path) -> Result<File, StartError> {
    let path = dir.join("lock");
    let fail = |source| StartError::DataDir { path: path.clone(), source };
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(fail)?;
    match fs4::FileExt::try_lock(&file) {
        Ok(()) => Ok(file),
        Err(fs4::TryLockError::WouldBlock) => {
            Err(StartError::DataDirInUse { path: dir.to_owned() })
        }
        Err(fs4::TryLockError::Error(error)) => Err(fail(error)),
    }
}

fn load_seed(path: &Path) -> Result<Seed, StartError> {
    let fail = |source| StartError::DataDir { path: path.to_owned(), source };
    match File::open(path) {
        Ok(file) => {
            let mut bytes = Zeroizing::new(Vec::with_capacity(33));
            file.take(33).read_to_end(&mut bytes).map_err(fail)?;
            let seed = <[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| StartError::Damaged {
                path: path.to_owned(),
                what: "a key has 32 bytes",
            })?;
            Ok(Zeroizing::new(seed))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let seed = new_seed()?;
            replace(path, seed.as_slice()).map_err(fail)?;
            Ok(seed)
        }
        Err(error) => Err(fail(error)),
    }
}

fn new_seed() -> Result<Seed, StartError> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut_slice())
        .map_err(|error| StartError::Random { reason: error.to_string() })?;
    Ok(seed)
}

/// Writes a file whole or not at all, readable by its owner alone.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut options = OpenOptions::new();
    options.create(true).truncate(true).write(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let mut file = options.open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_a_restart_and_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(Some(dir.path())).unwrap();
        let (node, source) = (first.node_seed.clone(), first.source_seed.clone());
        assert_ne!(node, source);
        drop(first);
        let again = DataDir::open(Some(dir.path())).unwrap();
        assert_eq!((again.node_seed.clone(), again.source_seed), (node, source));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(dir.path().join("node.key")).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_directory_in_use_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let _first = DataDir::open(Some(dir.path())).unwrap();
        let second = DataDir::open(Some(dir.path()));
        assert!(matches!(second, Err(StartError::DataDirInUse { .. })));
    }

    #[test]
    fn a_data_directory_that_is_no_folder_is_called_that() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let opened = DataDir::open(Some(&file));
        assert!(matches!(opened, Err(StartError::NoFolder { path }) if path == file));
    }

    #[test]
    fn an_epoch_rises_even_when_the_clock_stands_still() {
        let dir = tempfile::tempdir().unwrap();
        let stream = StreamId([5; 32]);
        let mut data = DataDir::open(Some(dir.path())).unwrap();
        assert_eq!(data.epochs.next(stream, 1_000).unwrap(), 1_000);
        assert_eq!(data.epochs.next(stream, 1_000).unwrap(), 1_001);
        drop(data);
        let mut data = DataDir::open(Some(dir.path())).unwrap();
        assert_eq!(data.epochs.next(stream, 900).unwrap(), 1_002);
        assert_eq!(data.epochs.next(stream, 5_000).unwrap(), 5_000);
    }

    #[test]
    fn a_damaged_file_is_named_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("node.key"), b"short").unwrap();
        let opened = DataDir::open(Some(dir.path()));
        assert!(matches!(opened, Err(StartError::Damaged { .. })));
        assert_eq!(fs::read(dir.path().join("node.key")).unwrap(), b"short");
    }
}
