//! What happened to each stream since the node started: failovers, by cause and by gap.
//!
//! Owns counting the node's events, for statistics and metrics. Does not own the events.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use astral_core::ids::{NodeId, StreamId, Stripe};
use serde_json::Value;

use super::dto::FailoverDto;

/// Streams with a history; the oldest one without news makes room.
pub const STREAMS_MAX: usize = 512;
/// Upper bounds of the gap histogram, in seconds: the promise is 0.5 s for a killed parent, and the
/// ring holds 8 s.
pub const GAP_BOUNDS_S: [f64; 9] = [0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 4.0, 8.0];
/// Causes that are told apart; the core has ten.
const CAUSES_MAX: usize = 32;

/// What is remembered of one stream.
#[derive(Clone, Debug, Default)]
pub struct StreamHistory {
    failovers: BTreeMap<String, u64>,
    latest: Option<Latest>,
    /// How many gaps were at most each bound of [`GAP_BOUNDS_S`], not cumulated; the last one is
    /// what was longer than all.
    gaps: [u64; GAP_BOUNDS_S.len() + 1],
    gap_sum: Duration,
    stalls: u64,
    no_capacity: u64,
    touched: u64,
}

#[derive(Clone, Debug)]
struct Latest {
    stripe: Stripe,
    cause: String,
    old: Option<NodeId>,
    gap_ms: Option<u64>,
    at: Instant,
}

impl StreamHistory {
    /// Parents lost and replaced.
    #[must_use]
    pub fn failovers(&self) -> u64 {
        self.failovers.values().sum()
    }

    /// The same by cause.
    #[must_use]
    pub const fn failovers_by_cause(&self) -> &BTreeMap<String, u64> {
        &self.failovers
    }

    /// Gaps by bound, not cumulated, and their sum.
    #[must_use]
    pub const fn gaps(&self) -> (&[u64; GAP_BOUNDS_S.len() + 1], Duration) {
        (&self.gaps, self.gap_sum)
    }

    /// Times that a player had nothing to show.
    #[must_use]
    pub const fn stalls(&self) -> u64 {
        self.stalls
    }

    /// Searches that found nobody with room.
    #[must_use]
    pub const fn no_capacity(&self) -> u64 {
        self.no_capacity
    }

    /// The latest failover.
    #[must_use]
    pub fn last_failover(&self) -> Option<FailoverDto> {
        self.latest.as_ref().map(|latest| FailoverDto {
            stripe: latest.stripe,
            cause: latest.cause.clone(),
            old: latest.old,
            gap_ms: latest.gap_ms,
            ago_s: latest.at.elapsed().as_secs(),
        })
    }

    fn moved(&mut self, event: &Value) {
        let text = |field: &str| event[field].as_str();
        let Some(cause) = text("cause").filter(|cause| *cause != "joined") else { return };
        let old = text("old").and_then(|old| old.parse().ok());
        if self.failovers.len() < CAUSES_MAX || self.failovers.contains_key(cause) {
            *self.failovers.entry(cause.to_owned()).or_default() += 1;
        }
        let gap_ms = event["gap_ms"].as_u64();
        if let Some(gap_ms) = gap_ms {
            let gap = Duration::from_millis(gap_ms);
            let bound = GAP_BOUNDS_S.iter().position(|bound| gap.as_secs_f64() <= *bound);
            self.gaps[bound.unwrap_or(GAP_BOUNDS_S.len())] += 1;
            self.gap_sum += gap;
        }
        let stripe = event["stripe"].as_u64().and_then(|stripe| stripe.try_into().ok());
        self.latest = Some(Latest {
            stripe: stripe.unwrap_or_default(),
            cause: cause.to_owned(),
            old,
            gap_ms,
            at: Instant::now(),
        });
    }
}

/// The histories of a node's streams. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct History {
    table: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    streams: BTreeMap<StreamId, StreamHistory>,
    offences: BTreeMap<String, u64>,
    missed: u64,
    heard: u64,
}

impl History {
    /// Hears an event, as JSON.
    pub fn hear(&self, event: &Value) {
        let kind = event["event"].as_str().unwrap_or_default();
        let mut table = self.lock();
        table.heard += 1;
        match kind {
            "events_missed" => table.missed += event["count"].as_u64().unwrap_or(1),
            "offence" => {
                let kind = event["kind"].as_str().unwrap_or("unknown").to_owned();
                if table.offences.len() < CAUSES_MAX || table.offences.contains_key(&kind) {
                    *table.offences.entry(kind).or_default() += 1;
                }
            }
            "parent_changed" | "stalled" | "no_capacity" => {
                let stream = event["stream"].as_str().and_then(|id| id.parse().ok());
                let Some(history) = stream.map(|id| table.of(id)) else { return };
                match kind {
                    "parent_changed" => history.moved(event),
                    "stalled" => history.stalls += 1,
                    _ => history.no_capacity += 1,
                }
            }
            _ => {}
        }
    }

    /// What is remembered of `id`.
    #[must_use]
    pub fn of(&self, id: StreamId) -> Option<StreamHistory> {
        self.lock().streams.get(&id).cloned()
    }

    /// Everything: streams, offences by kind, events that were missed.
    #[must_use]
    pub fn all(&self) -> (BTreeMap<StreamId, StreamHistory>, BTreeMap<String, u64>, u64) {
        let table = self.lock();
        (table.streams.clone(), table.offences.clone(), table.missed)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing between lock and unlock can panic half-way through a change.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn of(&mut self, id: StreamId) -> &mut StreamHistory {
        if self.streams.len() >= STREAMS_MAX && !self.streams.contains_key(&id) {
            let oldest = self.streams.iter().min_by_key(|(_, history)| history.touched);
            if let Some(oldest) = oldest.map(|(id, _)| *id) {
                self.streams.remove(&oldest);
            }
        }
        let touched = self.heard;
        let history = self.streams.entry(id).or_default();
        history.touched = touched;
        history
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const STREAM: StreamId = StreamId([4; 32]);

    fn moved(stream: StreamId, cause: &str, gap_ms: Option<u64>) -> Value {
        json!({"event": "parent_changed", "stream": stream, "stripe": 1, "old": NodeId([7; 32]),
            "new": NodeId([8; 32]), "cause": cause, "gap_ms": gap_ms})
    }

    #[test]
    fn a_first_parent_is_no_failover_and_each_later_one_counts_by_cause_and_gap() {
        let history = History::default();
        history.hear(&moved(STREAM, "joined", None));
        history.hear(&moved(STREAM, "closed", Some(90)));
        history.hear(&moved(STREAM, "closed", Some(60_000)));
        history.hear(&moved(STREAM, "silent", None));
        let seen = history.of(STREAM).unwrap();
        assert_eq!(seen.failovers(), 3);
        assert_eq!(seen.failovers_by_cause()["closed"], 2);
        let (gaps, sum) = seen.gaps();
        assert_eq!((gaps[1], gaps[GAP_BOUNDS_S.len()]), (1, 1));
        assert_eq!(sum, Duration::from_millis(60_090));
        assert_eq!(seen.last_failover().unwrap().cause, "silent");
    }

    #[test]
    fn histories_are_bounded_and_the_one_without_news_goes() {
        let history = History::default();
        history.hear(&moved(STREAM, "closed", None));
        for n in 0..STREAMS_MAX {
            let mut id = [9; 32];
            id[..8].copy_from_slice(&n.to_be_bytes());
            history.hear(&moved(StreamId(id), "closed", None));
        }
        assert_eq!(history.all().0.len(), STREAMS_MAX);
        assert!(history.of(STREAM).is_none());
    }

    #[test]
    fn causes_that_a_remote_might_invent_are_bounded() {
        let history = History::default();
        for n in 0..1_000 {
            history.hear(&moved(STREAM, &format!("cause {n}"), None));
            history.hear(&json!({"event": "offence", "kind": format!("kind {n}")}));
        }
        assert_eq!(history.of(STREAM).unwrap().failovers_by_cause().len(), CAUSES_MAX);
        assert_eq!(history.all().1.len(), CAUSES_MAX);
    }
}
