//! A journal of one overlay: every input with its time, and a digest of every output.
//!
//! Owns the format, recording and replay: the same inputs at the same times must bring the same
//! outputs, byte for byte, on another machine and another day. Does not own files: a [`Recorder`]
//! makes bytes and [`replay`] reads them.
//!
//! **Format.** [`MAGIC`], then entries, each a big-endian `u32` length and that many bytes of CBOR.
//! The first is a start; every later one names the digest of all outputs before it, so that a
//! journal that breaks off (a killed process) is good up to its last whole entry. It holds the
//! overlay's seed and whatever others said to this node: keep it as you keep a log.

use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};

use super::{Input, Output, Overlay, OverlayConfig};
use crate::{ids::NodeId, time::Timestamp};

/// The first bytes of every journal.
pub const MAGIC: &[u8] = b"astral journal 1\n";
/// Longest entry, in bytes: a page of the directory has about 100 KiB.
pub const ENTRY_BYTES_MAX: usize = 1 << 20;

const DIGEST_DOMAIN: &str = "astral 2026 journal outputs v1";

#[derive(Serialize, Deserialize)]
enum Entry {
    Start { me: NodeId, config: Box<OverlayConfig>, seed: [u8; 32], at: Timestamp },
    Input { at: Timestamp, before: [u8; 16], input: Box<Input> },
    Timeout { at: Timestamp, before: [u8; 16] },
    End { before: [u8; 16] },
}

/// Makes the entries of a running overlay's journal.
#[derive(Debug)]
pub struct Recorder {
    outputs: Outputs,
}

/// A rolling digest of outputs, by their debug text.
#[derive(Debug)]
struct Outputs {
    hasher: blake3::Hasher,
    count: u64,
}

/// What a replay found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Replayed {
    /// Inputs and timeouts handed over.
    pub steps: u64,
    /// Outputs compared.
    pub outputs: u64,
    /// The journal has its last entry: the node stopped, it was not killed.
    pub whole: bool,
}

/// Why a journal does not replay.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// It does not begin as journals do.
    #[error("this is no journal of this version")]
    NoJournal,
    /// An entry is damaged.
    #[error("entry {entry} is damaged")]
    Damaged {
        /// Counted from 0.
        entry: u64,
    },
    /// The outputs differ from those that the node put out.
    #[error("the outputs before entry {entry}, at {at_us} us, differ from the recorded ones")]
    Diverged {
        /// Counted from 0.
        entry: u64,
        /// Time of the overlay, in microseconds.
        at_us: u64,
    },
}

impl Recorder {
    /// The journal of an overlay that starts now, and its first bytes.
    #[must_use]
    pub fn start(
        me: NodeId,
        config: &OverlayConfig,
        seed: [u8; 32],
        at: Timestamp,
    ) -> (Self, Vec<u8>) {
        let mut bytes = MAGIC.to_vec();
        encode(&Entry::Start { me, config: Box::new(config.clone()), seed, at }, &mut bytes);
        (Self { outputs: Outputs::new() }, bytes)
    }

    /// The bytes of an input that is about to be handed over.
    #[must_use]
    pub fn input(&self, input: &Input, at: Timestamp) -> Vec<u8> {
        let before = self.outputs.digest();
        self.entry(&Entry::Input { at, before, input: Box::new(input.clone()) })
    }

    /// The bytes of a timeout that is about to be handled.
    #[must_use]
    pub fn timeout(&self, at: Timestamp) -> Vec<u8> {
        self.entry(&Entry::Timeout { at, before: self.outputs.digest() })
    }

    /// An output came.
    pub fn output(&mut self, output: &Output) {
        self.outputs.add(output);
    }

    /// The last bytes.
    #[must_use]
    pub fn end(&self) -> Vec<u8> {
        self.entry(&Entry::End { before: self.outputs.digest() })
    }

    fn entry(&self, entry: &Entry) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(128);
        encode(entry, &mut bytes);
        bytes
    }
}

/// Runs a journal through a fresh overlay and compares every output. An entry that breaks off at the
/// end is passed over.
///
/// # Errors
/// [`JournalError`] names the first entry that is damaged or differs.
pub fn replay(journal: &[u8]) -> Result<Replayed, JournalError> {
    let mut rest = journal.strip_prefix(MAGIC).ok_or(JournalError::NoJournal)?;
    let mut count = 0;
    let Some(Entry::Start { me, config, seed, at }) = decode(&mut rest, &mut count)? else {
        return Err(JournalError::NoJournal);
    };
    let mut overlay = Overlay::new(me, *config, seed, at);
    let mut outputs = Outputs::new();
    let (mut steps, mut now, mut whole) = (0, at, false);
    while let Some(entry) = decode(&mut rest, &mut count)? {
        while let Some(output) = overlay.poll_output() {
            outputs.add(&output);
        }
        let (Entry::Input { before, .. } | Entry::Timeout { before, .. } | Entry::End { before }) =
            &entry
        else {
            return Err(JournalError::Damaged { entry: count - 1 });
        };
        if *before != outputs.digest() {
            return Err(JournalError::Diverged { entry: count - 1, at_us: now.as_micros() });
        }
        match entry {
            Entry::Input { at, .. } | Entry::Timeout { at, .. } if at < now => {
                return Err(JournalError::Damaged { entry: count - 1 });
            }
            Entry::Input { at, input, .. } => {
                now = at;
                overlay.handle_input(*input, at);
            }
            Entry::Timeout { at, .. } => {
                now = at;
                overlay.handle_timeout(at);
            }
            Entry::Start { .. } | Entry::End { .. } => {
                whole = true;
                break;
            }
        }
        steps += 1;
    }
    Ok(Replayed { steps, outputs: outputs.count, whole })
}

/// Fuzz target: whatever the bytes, a replay ends without a panic.
pub fn fuzz(data: &[u8]) {
    let _ = replay(data);
    let _ = replay(&[MAGIC, data].concat());
}

impl Outputs {
    fn new() -> Self {
        Self { hasher: blake3::Hasher::new_derive_key(DIGEST_DOMAIN), count: 0 }
    }

    fn add(&mut self, output: &Output) {
        self.count += 1;
        // Writing into a hasher cannot fail; a `Debug` that fails is digested up to there.
        let _ = writeln!(self, "{output:?}");
    }

    fn digest(&self) -> [u8; 16] {
        let digest = self.hasher.finalize();
        let (first, _) = digest.as_bytes().split_first_chunk().expect("32 bytes have 16");
        *first
    }
}

impl fmt::Write for Outputs {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.hasher.update(text.as_bytes());
        Ok(())
    }
}

fn encode(entry: &Entry, bytes: &mut Vec<u8>) {
    let mut body = Vec::with_capacity(128);
    // Inputs are plain data, and a vector takes every write.
    if ciborium::into_writer(entry, &mut body).is_ok() {
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&body);
    }
}

/// The next entry; `None` at the end, or where the journal breaks off.
fn decode(rest: &mut &[u8], count: &mut u64) -> Result<Option<Entry>, JournalError> {
    let Some((length, behind)) = rest.split_first_chunk::<4>() else { return Ok(None) };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    let damaged = JournalError::Damaged { entry: *count };
    if length > ENTRY_BYTES_MAX {
        return Err(damaged);
    }
    let Some((mut body, behind)) = behind.split_at_checked(length) else { return Ok(None) };
    let entry: Entry = ciborium::from_reader(&mut body).map_err(|_| damaged)?;
    *rest = behind;
    *count += 1;
    Ok(Some(entry))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overlay::{Command, Contact, RoleChoice};

    /// The journal of a node that founds a network, meets another and leaves.
    fn recorded() -> Vec<u8> {
        let me = NodeId([1; 32]);
        let config = OverlayConfig { role: RoleChoice::Supernode, ..OverlayConfig::default() };
        let mut now = Timestamp::ZERO;
        let mut overlay = Overlay::new(me, config.clone(), [9; 32], now);
        let (mut recorder, mut journal) = Recorder::start(me, &config, [9; 32], now);
        let other = Contact::new(NodeId([2; 32]), Vec::new());
        let inputs = [
            Input::LinkUp { contact: other.clone(), private: true },
            Input::Rtt { node: other.node, rtt: std::time::Duration::from_millis(3) },
            Input::Command(Command::Leave),
        ];
        let mut inputs = inputs.into_iter();
        for step in 0..12 {
            now += std::time::Duration::from_millis(200);
            while let Some(output) = overlay.poll_output() {
                recorder.output(&output);
            }
            if overlay.poll_timeout().is_some_and(|(at, _)| at <= now) {
                journal.extend(recorder.timeout(now));
                overlay.handle_timeout(now);
            } else if step % 3 == 2
                && let Some(input) = inputs.next()
            {
                journal.extend(recorder.input(&input, now));
                overlay.handle_input(input, now);
            }
        }
        while let Some(output) = overlay.poll_output() {
            recorder.output(&output);
        }
        journal.extend(recorder.end());
        journal
    }

    #[test]
    fn a_journal_replays_to_the_same_outputs() {
        let replayed = replay(&recorded()).unwrap();
        assert!(replayed.whole && replayed.steps >= 3 && replayed.outputs > 0, "{replayed:?}");
    }

    #[test]
    fn a_journal_that_breaks_off_is_good_up_to_there() {
        let journal = recorded();
        let replayed = replay(&journal[..journal.len() - 5]).unwrap();
        assert!(!replayed.whole);
        assert_eq!(replayed.steps, replay(&journal).unwrap().steps);
    }

    #[test]
    fn what_is_no_journal_is_refused() {
        let journal = recorded();
        assert_eq!(replay(b"no journal"), Err(JournalError::NoJournal));
        let mut damaged = journal;
        damaged[MAGIC.len()] = 0xff;
        assert_eq!(replay(&damaged), Err(JournalError::Damaged { entry: 0 }));
    }

    #[test]
    fn an_output_that_differs_is_found_out() {
        let me = NodeId([1; 32]);
        let config = OverlayConfig::default();
        let (mut recorder, mut journal) = Recorder::start(me, &config, [9; 32], Timestamp::ZERO);
        recorder.output(&Output::Left);
        journal.extend(recorder.timeout(Timestamp::from_micros(5)));
        assert_eq!(replay(&journal), Err(JournalError::Diverged { entry: 1, at_us: 0 }));
    }

    #[test]
    fn no_bytes_make_a_replay_panic() {
        let journal = recorded();
        for seed in 0..300_usize {
            let mut bytes = journal.clone();
            let at = seed * 7 % bytes.len();
            bytes[at] = bytes[at].wrapping_add(1 + (seed % 200) as u8);
            bytes.truncate(bytes.len() - seed % 64);
            fuzz(&bytes);
            fuzz(&bytes[MAGIC.len()..]);
        }
    }
}
