//! What the commands print: JSON lines or words on stdout, log and progress on stderr.
//!
//! Owns the two forms and the log's set-up. Does not own the events themselves.

use std::{
    io::{IsTerminal, Write},
    sync::LazyLock,
};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::{EnvFilter, Layer, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use super::terminal;
use crate::{api::LogTail, config::LogFormat};

/// What of the log stderr shows unless `ASTRAL_LOG` says otherwise.
const FILTER: &str = "warn,libp2p=error,libp2p_mdns=off,netlink=off";
/// What of the log the node keeps for `GET /logs`, whatever stderr shows.
const TAIL_FILTER: &str = "info,libp2p=error,libp2p_mdns=off,netlink=off,hickory=off";

/// A mistake in how the command was called: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// The end of this process's log, as the log itself is the process's.
static LOG_TAIL: LazyLock<LogTail> = LazyLock::new(LogTail::default);

/// The end of the log, which [`start_log`] fills.
pub fn log_tail() -> LogTail {
    LOG_TAIL.clone()
}

/// Sends the log to stderr, where `ASTRAL_LOG` filters it (default: warnings), and to [`log_tail`].
pub fn start_log(format: LogFormat) {
    let wished = std::env::var("ASTRAL_LOG").ok().filter(|wish| !wish.is_empty());
    let wished = wished.map(|wish| EnvFilter::try_new(&wish).map_err(|error| (wish, error)));
    let (filter, misread) = match wished {
        Some(Ok(filter)) => (filter, None),
        Some(Err(misread)) => (EnvFilter::new(FILTER), Some(misread)),
        None => (EnvFilter::new(FILTER), None),
    };
    let stderr = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let stderr = match format {
        LogFormat::Text => stderr.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => stderr.json().boxed(),
    };
    let ring = fmt::layer().with_writer(log_tail).with_ansi(false).with_target(false);
    tracing_subscriber::registry()
        .with(stderr.with_filter(filter))
        .with(ring.with_filter(EnvFilter::new(TAIL_FILTER)))
        .init();
    if let Some((wish, error)) = misread {
        tracing::warn!(%error, "ASTRAL_LOG={wish} is no filter, such as info or astral=debug");
    }
}

/// Says on stderr what went wrong, each cause once, and as an `error` event on stdout with `json`.
pub fn failure(error: &anyhow::Error, json: bool) {
    let mut message = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !message.contains(&cause) {
            message.push_str(": ");
            message.push_str(&cause);
        }
    }
    if json {
        Output { json, is_stdout_media: false }.event("error", json!({"message": message}));
    }
    // A closed stderr (its terminal is gone) must not hide the exit code.
    let _ = writeln!(std::io::stderr().lock(), "astral: {message}");
}

/// Nobody reads the events any more: see [`reader_gone`].
static READER_GONE: LazyLock<CancellationToken> = LazyLock::new(CancellationToken::new);

/// Ends once the program that reads the events (`--json`) has ended.
pub fn reader_gone() -> &'static CancellationToken {
    &READER_GONE
}

/// Where a command's results go.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// One JSON object a line instead of words.
    pub json: bool,
    /// Media goes to stdout (`--sink fd:1`): words go to stderr then.
    pub is_stdout_media: bool,
}

impl Output {
    /// Prints an event: `{"event": kind, ...fields}`. In words mode nothing.
    pub fn event(self, kind: &str, fields: Value) {
        if !self.json {
            return;
        }
        let mut event = json!({"event": kind});
        if let (Some(event), Value::Object(fields)) = (event.as_object_mut(), fields) {
            event.extend(fields);
        }
        let mut out = std::io::stdout().lock();
        if let Err(error) = writeln!(out, "{event}").and_then(|()| out.flush())
            && error.kind() == std::io::ErrorKind::BrokenPipe
        {
            READER_GONE.cancel();
        }
    }

    /// Prints a line for people. In JSON mode nothing.
    pub fn say(self, line: &str) {
        if self.is_stdout_media {
            self.note(line);
        } else if !self.json {
            // A closed stdout means that nobody reads any more.
            let _ = writeln!(std::io::stdout().lock(), "{line}");
        }
    }

    /// Shows progress on stderr: in place on a terminal, nothing elsewhere.
    pub fn progress(self, line: &str) {
        let mut err = std::io::stderr().lock();
        if !self.json && err.is_terminal() {
            // Progress is a convenience; a closed stderr stops nothing.
            let line = terminal::fit(line, terminal::stderr_columns());
            let _ = write!(err, "\r\x1b[2K{line}").and_then(|()| err.flush());
        }
    }

    /// Writes a lasting line on stderr, above the progress line.
    pub fn note(self, line: &str) {
        if self.json {
            return;
        }
        let mut err = std::io::stderr().lock();
        let clear = if err.is_terminal() { "\r\x1b[2K" } else { "" };
        // As above.
        let _ = writeln!(err, "{clear}{line}");
    }
}
