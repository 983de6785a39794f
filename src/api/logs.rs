//! `GET /api/v1/logs`: the end of the node's log.
//!
//! Owns the ring of recent lines. Does not own what is logged nor the log on stderr.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{Json, extract::State, http::HeaderMap};

use super::{
    body::Query,
    dto::{LogsDto, LogsQuery},
    error::Problem,
    state::Api,
};

/// Lines kept; the oldest goes.
pub const LINES_MAX: usize = 1_000;
/// Bytes kept of a line; the rest is cut off.
pub const LINE_BYTES_MAX: usize = 1_024;

/// The last lines of a log, which it takes as a writer. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct LogTail(Arc<Mutex<VecDeque<String>>>);

impl LogTail {
    /// The last `count` lines, oldest first.
    #[must_use]
    pub fn last(&self, count: usize) -> Vec<String> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().skip(lines.len().saturating_sub(count)).cloned().collect()
    }
}

impl io::Write for LogTail {
    /// Takes whole lines; a log's formatter writes each event at once.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for line in text.lines() {
            if lines.len() == LINES_MAX {
                lines.pop_front();
            }
            lines.push_back(line[..line.floor_char_boundary(LINE_BYTES_MAX)].to_owned());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The last lines of the node's log.
///
/// Needs the token although it changes nothing: a log names peers and streams.
#[utoipa::path(get, path = "/logs", tag = "node", security(("token" = [])), params(LogsQuery),
    responses(
    (status = 200, description = "The lines, oldest first", body = LogsDto),
    (status = 401, description = "The token is missing"),
    (status = 422, description = "Less than one line, or more than are kept"),
))]
pub(super) async fn show(
    State(api): State<Api>,
    headers: HeaderMap,
    Query(query): Query<LogsQuery>,
) -> Result<Json<LogsDto>, Problem> {
    if !api.gate.authorised(&headers) {
        return Err(Problem::unauthorized());
    }
    if !(1..=LINES_MAX).contains(&query.lines) {
        return Err(Problem::invalid(format!("lines: 1 to {LINES_MAX}")));
    }
    Ok(Json(LogsDto { lines: api.log.last(query.lines) }))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_log_without_end_keeps_its_last_lines_and_cuts_the_longest() {
        let mut tail = LogTail::default();
        for n in 0..3 * LINES_MAX {
            tail.write_all(format!("line {n}\n").as_bytes()).unwrap();
        }
        assert_eq!(tail.last(usize::MAX).len(), LINES_MAX);
        assert_eq!(tail.last(1), [format!("line {}", 3 * LINES_MAX - 1)]);
        tail.write_all("é".repeat(LINE_BYTES_MAX).as_bytes()).unwrap();
        assert!(tail.last(1)[0].len() <= LINE_BYTES_MAX);
    }
}
