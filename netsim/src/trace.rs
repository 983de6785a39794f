//! The trace: a rolling hash over everything that the machines put out, in order.
//!
//! Owns the hash that says whether two runs were the same run. Does not own what is traced.

use std::{collections::BTreeSet, fmt};

/// Bytes gathered before the hash sees them.
const BUFFER: usize = 64 * 1_024;

/// A rolling blake3.
#[derive(Debug)]
pub struct Trace {
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
    /// Outputs that were traced.
    entries: u64,
    log: Log,
}

/// Nodes whose inputs and outputs are also written to stderr, from a moment on.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Log {
    /// Their numbers.
    pub nodes: BTreeSet<u32>,
    /// In microseconds of simulated time.
    pub from: u64,
    /// In microseconds of simulated time.
    pub to: u64,
}

impl Trace {
    /// An empty trace.
    #[must_use]
    pub fn new() -> Self {
        let hasher = blake3::Hasher::new_derive_key("astral 2026 netsim trace v1");
        Self { hasher, buffer: Vec::with_capacity(BUFFER), entries: 0, log: Log::default() }
    }

    /// Also writes what some nodes do to stderr.
    pub fn set_log(&mut self, log: Log) {
        self.log = log;
    }

    /// Writes something that is no output, such as an input, for people alone.
    pub fn note(&self, at: u64, node: u32, what: &str, value: &impl fmt::Debug) {
        let Log { nodes, from, to } = &self.log;
        if (*from..*to).contains(&at) && nodes.contains(&node) {
            eprintln!("{:>11.6} {node} {what} {value:?}", at as f64 / 1e6);
        }
    }

    /// One output of numbers.
    pub fn numbers<const N: usize>(&mut self, numbers: [u64; N]) {
        self.entries += 1;
        for number in numbers {
            self.buffer.extend_from_slice(&number.to_le_bytes());
        }
        self.flush_full();
    }

    /// One output by its debug text.
    pub fn text(&mut self, at: u64, node: u32, output: &impl fmt::Debug) {
        self.note(at, node, "->", output);
        self.numbers([at, u64::from(node)]);
        // Writing into a vector cannot fail; a `Debug` that fails is traced up to there.
        let _ = fmt::write(self, format_args!("{output:?}"));
        self.flush_full();
    }

    /// The hash so far, in hexadecimal.
    #[must_use]
    pub fn finish(mut self) -> String {
        self.hasher.update(&self.buffer);
        self.hasher.update(&self.entries.to_le_bytes());
        self.hasher.finalize().to_hex()[..32].to_owned()
    }

    fn flush_full(&mut self) {
        if self.buffer.len() >= BUFFER {
            self.hasher.update(&self.buffer);
            self.buffer.clear();
        }
    }
}

impl Default for Trace {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Write for Trace {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.buffer.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_changed_number_changes_the_hash_and_order_matters() {
        let hash = |numbers: &[[u64; 2]]| {
            let mut trace = Trace::new();
            numbers.iter().for_each(|pair| trace.numbers(*pair));
            trace.finish()
        };
        assert_eq!(hash(&[[1, 2], [3, 4]]), hash(&[[1, 2], [3, 4]]));
        assert_ne!(hash(&[[1, 2], [3, 4]]), hash(&[[3, 4], [1, 2]]));
        assert_ne!(hash(&[[1, 2], [3, 4]]), hash(&[[1, 2], [3, 5]]));
    }
}
