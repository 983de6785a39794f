//! The errors of the node, one small enum per operation.
//!
//! Owns what can go wrong between a caller and its own node. Does not own remote misbehaviour:
//! that is an event, never an error.

use std::path::PathBuf;

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Another process holds the data directory.
    #[error("the data directory {} is in use by another node: give this one its own with --data-dir, or use --ephemeral", path.display())]
    DataDirInUse {
        /// The directory.
        path: PathBuf,
    },
    /// Something else is where the data directory should be.
    #[error("the data directory {} is no folder: name another one with --data-dir", path.display())]
    NoFolder {
        /// What was named.
        path: PathBuf,
    },
    /// A file of the data directory can't be read or written.
    #[error("{}: {source}", path.display())]
    DataDir {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A key or epoch file holds something else.
    #[error("{} is damaged ({what}): move it away to get a new one", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The journal can't be written.
    #[error("the journal {} can't be written: {source}; choose another path with --journal", path.display())]
    Journal {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// No address to listen on could be bound.
    #[error("can't listen on {addr}: {reason}")]
    Listen {
        /// The address asked for.
        addr: String,
        /// What the system said.
        reason: String,
    },
    /// A transport could not be built.
    #[error("can't set up the transports: {reason}")]
    Transport {
        /// What the library said.
        reason: String,
    },
    /// The system gave no randomness.
    #[error("the system gave no randomness: {reason}")]
    Random {
        /// What the system said.
        reason: String,
    },
}

/// Why a running node ended by itself.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// A task that the node can't live without panicked.
    #[error("task '{task}' panicked: {message}")]
    TaskPanicked {
        /// Its name.
        task: &'static str,
        /// The panic's message.
        message: String,
    },
    /// A task that the node can't live without ended without being told to.
    #[error("task '{task}' ended by itself")]
    TaskEnded {
        /// Its name.
        task: &'static str,
    },
}

/// The node is gone: it left, or one of its tasks died.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the node has stopped")]
pub struct NodeGone;

/// Why a stream could not be published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The name breaks a rule.
    #[error(transparent)]
    Name(#[from] astral_core::ids::NameError),
    /// This node publishes that name already.
    #[error("this node publishes '{name}' already")]
    AlreadyPublished {
        /// The name.
        name: String,
    },
    /// Not one of 1, 2, 4, 8, 16.
    #[error("a stream has 1, 2, 4, 8 or 16 stripes, not {stripes}")]
    Stripes {
        /// What was asked for.
        stripes: u8,
    },
    /// The new epoch could not be stored, so that the stream could not be told from its past.
    #[error("can't store the stream's epoch: {reason}")]
    Epoch {
        /// What the system said.
        reason: String,
    },
    /// The title, a tag or another text is too long.
    #[error("the announcement does not fit: {reason}")]
    Announcement {
        /// Which rule it breaks.
        reason: String,
    },
    /// The node is gone.
    #[error(transparent)]
    Gone(#[from] NodeGone),
}

/// Why media could not be pushed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// The bytes are no FLV. [`super::Publisher::restart`] begins a new byte stream.
    #[error("not a usable FLV stream: {reason}")]
    Flv {
        /// What is wrong.
        reason: String,
    },
    /// Somebody asked for the stream's end: end it.
    #[error("the stream was ended")]
    Ended,
    /// The tee file can't be written.
    #[error("can't write the tee file: {0}")]
    Tee(std::io::Error),
    /// The node is gone.
    #[error(transparent)]
    Gone(#[from] NodeGone),
}

/// Why a stream can't be watched.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// More playbacks than a node carries.
    #[error("this node plays {limit} streams at once already")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// The node is gone.
    #[error(transparent)]
    Gone(#[from] NodeGone),
}

/// Why a text names no stream.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// Neither `astral:` nor 64 hexadecimal digits.
    #[error("not a stream: give a link (astral:KEY/NAME) or an id of 64 hexadecimal digits")]
    Form,
    /// The key part is no base32 of 32 bytes.
    #[error("the key in the link is damaged: copy the whole link again")]
    Key,
    /// The name part breaks a rule.
    #[error("the name in the link is not usable: {0}")]
    Name(astral_core::ids::NameError),
    /// The name part is not percent-encoded UTF-8.
    #[error("the name in the link is not percent-encoded text")]
    Encoding,
}
