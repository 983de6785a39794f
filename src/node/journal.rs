//! The file of `--journal`: every input of the overlay, as it comes.
//!
//! Owns the file and its bound. Does not own the format, which is the core's, nor replay
//! (`netsim replay --journal`).

use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use astral_core::{
    ids::NodeId,
    overlay::{Input, Output, OverlayConfig, journal::Recorder},
    time::Timestamp,
};

use super::error::StartError;

/// A journal ends at this many bytes: two days of a busy node.
const JOURNAL_BYTES_MAX: u64 = 4 << 30;

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    recorder: Recorder,
    file: BufWriter<File>,
    written: u64,
    /// The disk is full, or the journal: nothing more is written.
    is_over: bool,
}

impl Journal {
    /// Begins a journal for an overlay that is made of the same parts at the same time. A file that
    /// is there already is overwritten; only its owner may read it.
    ///
    /// # Errors
    /// [`StartError::Journal`] when the file can't be written.
    pub fn create(
        path: &Path,
        me: NodeId,
        config: &OverlayConfig,
        seed: [u8; 32],
        at: Timestamp,
    ) -> Result<Self, StartError> {
        let fail = |source| StartError::Journal { path: path.to_owned(), source };
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600);
        let file = file.open(path).map_err(fail)?;
        let (recorder, first) = Recorder::start(me, config, seed, at);
        let mut file = BufWriter::new(file);
        file.write_all(&first).and_then(|()| file.flush()).map_err(fail)?;
        let written = first.len() as u64;
        Ok(Self { path: path.to_owned(), recorder, file, written, is_over: false })
    }

    /// An input is about to be handed over.
    pub fn input(&mut self, input: &Input, at: Timestamp) {
        if !self.is_over {
            let bytes = self.recorder.input(input, at);
            self.write(&bytes);
        }
    }

    /// A timeout is about to be handled.
    pub fn timeout(&mut self, at: Timestamp) {
        if !self.is_over {
            let bytes = self.recorder.timeout(at);
            self.write(&bytes);
        }
    }

    /// An output came.
    pub fn output(&mut self, output: &Output) {
        if !self.is_over {
            self.recorder.output(output);
        }
    }

    /// Hands to the system what is in memory, so that a killed process leaves it behind.
    pub fn flush(&mut self) {
        if !self.is_over {
            let flushed = self.file.flush();
            self.settle(flushed);
        }
    }

    /// The last entry: the node stops.
    pub fn end(&mut self) {
        if !self.is_over {
            let bytes = self.recorder.end();
            self.write(&bytes);
            self.flush();
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.written += bytes.len() as u64;
        let written = self.file.write_all(bytes);
        self.settle(written);
        if self.written > JOURNAL_BYTES_MAX && !self.is_over {
            self.is_over = true;
            tracing::warn!(path = %self.path.display(), "the journal is full: it ends here");
        }
    }

    fn settle(&mut self, outcome: io::Result<()>) {
        if let Err(error) = outcome {
            self.is_over = true;
            tracing::warn!(%error, path = %self.path.display(), "the journal ends here");
        }
    }
}
