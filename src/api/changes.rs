//! What changes in a node, numbered, so that a client that missed something knows it.
//!
//! Owns the objects that clients see, their comparison, the numbers and the recent frames. Does not
//! own sockets (see `events`) nor where objects come from (see `observer`). Every client gets the
//! same frames, each written once.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::extract::ws::Utf8Bytes;
use serde_json::{Value, json};
use tokio::{
    sync::{Notify, broadcast},
    time::Instant,
};

/// Frames that a client may be behind before it is dropped.
pub const BEHIND_MAX: usize = 1_024;
/// Changes at one look from which on all objects are told anew.
const ANEW_FROM: usize = BEHIND_MAX / 4;
/// Bytes of recent frames kept for clients that reconnect.
pub const RECENT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Plain events told in a second; what is beyond is counted in one `events_missed`.
pub const EVENTS_PER_S_MAX: u32 = 200;

/// Kinds of objects, as frames name them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// The node itself; its id is `self`.
    Node,
    /// Its settings; their id is `self`.
    Settings,
    /// A known node.
    Peer,
    /// A known stream.
    Stream,
    /// What flows in a stream.
    Stats,
    /// A ticket.
    Ticket,
    /// An edge of the graph.
    Edge,
}

impl Kind {
    const ALL: [Self; 7] = [
        Self::Node,
        Self::Settings,
        Self::Peer,
        Self::Stream,
        Self::Stats,
        Self::Ticket,
        Self::Edge,
    ];

    const fn word(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Settings => "settings",
            Self::Peer => "peer",
            Self::Stream => "stream",
            Self::Stats => "stats",
            Self::Ticket => "ticket",
            Self::Edge => "edge",
        }
    }

    /// A field that changes all the time and is no news by itself.
    const fn restless(self) -> Option<&'static str> {
        match self {
            Self::Ticket => Some("expires_in_ms"),
            Self::Node | Self::Settings | Self::Peer | Self::Stream | Self::Stats | Self::Edge => {
                None
            }
        }
    }
}

/// Objects by kind and id.
pub type Objects = BTreeMap<(Kind, String), Value>;

/// One numbered frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// Its number.
    pub seq: u64,
    /// Its JSON.
    pub text: Utf8Bytes,
}

/// Where a client stands when it begins to follow.
#[derive(Debug)]
pub struct Following {
    /// What it is sent first: what it missed, or a snapshot.
    pub first: Vec<Frame>,
    /// What comes after.
    pub rest: broadcast::Receiver<Frame>,
}

/// The changes of one node. Clones share them.
#[derive(Clone, Debug)]
pub struct Changes {
    state: Arc<Mutex<State>>,
    told: broadcast::Sender<Frame>,
    nudge: Arc<Notify>,
}

#[derive(Debug)]
struct State {
    instance: String,
    seq: u64,
    objects: Objects,
    recent: VecDeque<Frame>,
    recent_bytes: usize,
    snapshot: Option<Frame>,
    second: Instant,
    told_in_second: u32,
    withheld: u64,
}

impl Changes {
    /// No objects yet; `instance` tells this run of the node from others.
    #[must_use]
    pub fn new(instance: String) -> Self {
        let state = State {
            instance,
            seq: 0,
            objects: Objects::new(),
            recent: VecDeque::new(),
            recent_bytes: 0,
            snapshot: None,
            second: Instant::now(),
            told_in_second: 0,
            withheld: 0,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            told: broadcast::Sender::new(BEHIND_MAX),
            nudge: Arc::default(),
        }
    }

    /// How many follow.
    #[must_use]
    pub fn followers(&self) -> usize {
        self.told.receiver_count()
    }

    /// The latest number.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.lock().seq
    }

    /// Begins to follow: after frame `after` of this `instance` when it is still known, else with
    /// a snapshot.
    #[must_use]
    pub fn follow(&self, instance: Option<&str>, after: Option<u64>) -> Following {
        let mut state = self.lock();
        let rest = self.told.subscribe();
        let known = instance == Some(state.instance.as_str());
        let missed = after.filter(|_| known).and_then(|after| state.since(after));
        let first = missed.unwrap_or_else(|| vec![state.snapshot()]);
        drop(state);
        self.nudge.notify_one();
        Following { first, rest }
    }

    /// Resolves when somebody wants the objects compared soon.
    pub async fn nudged(&self) {
        self.nudge.notified().await;
    }

    /// Compares the objects with those before and tells the differences; a new snapshot where that
    /// is shorter than so many frames that clients might fall behind.
    pub fn observe(&self, objects: Objects) {
        let mut state = self.lock();
        let before = std::mem::replace(&mut state.objects, objects);
        let frames = differences(&before, &state.objects);
        if frames.len() > ANEW_FROM {
            state.seq += 1;
            state.snapshot = None;
            let snapshot = state.snapshot();
            self.send(&mut state, snapshot);
        } else {
            for frame in frames {
                self.tell(&mut state, frame);
            }
        }
    }

    /// Tells a plain event, and that the objects may have changed.
    pub fn event(&self, event: &Value) {
        let mut state = self.lock();
        if state.second.elapsed() >= Duration::from_secs(1) {
            state.second = Instant::now();
            state.told_in_second = 0;
            let withheld = std::mem::take(&mut state.withheld);
            if withheld > 0 {
                let missed = json!({"event": "events_missed", "count": withheld});
                self.tell(&mut state, json!({"type": "event", "event": missed}));
            }
        }
        if state.told_in_second < EVENTS_PER_S_MAX {
            state.told_in_second += 1;
            self.tell(&mut state, json!({"type": "event", "event": event}));
        } else {
            state.withheld += 1;
        }
        drop(state);
        self.nudge();
    }

    /// Says that the objects may have changed.
    pub fn nudge(&self) {
        if self.followers() > 0 {
            self.nudge.notify_one();
        }
    }

    fn tell(&self, state: &mut State, mut frame: Value) {
        state.seq += 1;
        frame["seq"] = state.seq.into();
        state.snapshot = None;
        let frame = Frame { seq: state.seq, text: frame.to_string().into() };
        self.send(state, frame);
    }

    fn send(&self, state: &mut State, frame: Frame) {
        state.recent_bytes += frame.text.len();
        state.recent.push_back(frame.clone());
        while state.recent.len() > BEHIND_MAX || state.recent_bytes > RECENT_BYTES_MAX {
            let Some(oldest) = state.recent.pop_front() else { break };
            state.recent_bytes -= oldest.text.len();
        }
        // Nobody may be following.
        let _ = self.told.send(frame);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing between lock and unlock can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The frames after `after`; `None` when some of them are forgotten, or were never told.
    fn since(&self, after: u64) -> Option<Vec<Frame>> {
        let oldest = self.recent.front().map_or(self.seq + 1, |frame| frame.seq);
        let complete = after <= self.seq && after + 1 >= oldest;
        let missed = self.recent.iter().filter(|frame| frame.seq > after);
        complete.then(|| missed.cloned().collect())
    }

    /// Everything, as of the latest number; written once for all who ask before the next change.
    fn snapshot(&mut self) -> Frame {
        if let Some(snapshot) = &self.snapshot {
            return snapshot.clone();
        }
        let mut objects: BTreeMap<&str, Vec<&Value>> =
            Kind::ALL.iter().map(|kind| (kind.word(), Vec::new())).collect();
        for ((kind, _), object) in &self.objects {
            objects.entry(kind.word()).or_default().push(object);
        }
        let (instance, seq) = (&self.instance, self.seq);
        let text =
            json!({"type": "snapshot", "instance": instance, "seq": seq, "objects": objects});
        let snapshot = Frame { seq, text: text.to_string().into() };
        self.snapshot = Some(snapshot.clone());
        snapshot
    }
}

/// What makes `before` into `after`, as frames without numbers.
fn differences(before: &Objects, after: &Objects) -> Vec<Value> {
    let changed = after.iter().filter_map(|(key, object)| {
        let change = match before.get(key) {
            None => "add",
            Some(old) if same(key.0, old, object) => return None,
            Some(_) => "update",
        };
        Some(json!({"type": change, "kind": key.0.word(), "id": key.1, "object": object}))
    });
    let gone = before.keys().filter(|key| !after.contains_key(key));
    let gone = gone.map(|(kind, id)| json!({"type": "remove", "kind": kind.word(), "id": id}));
    changed.chain(gone).collect()
}

/// Whether two states of an object are the same but for what changes all the time.
fn same(kind: Kind, old: &Value, new: &Value) -> bool {
    let (Some(restless), Value::Object(old), Value::Object(new)) = (kind.restless(), old, new)
    else {
        return old == new;
    };
    old.len() == new.len()
        && old.iter().all(|(field, value)| field == restless || new.get(field) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(streams: &[(&str, u32)]) -> Objects {
        let object = |(id, viewers): &(&str, u32)| {
            ((Kind::Stream, (*id).to_owned()), json!({"id": id, "viewers": viewers}))
        };
        streams.iter().map(object).collect()
    }

    fn parse(frame: &Frame) -> Value {
        let value: Value = serde_json::from_str(&frame.text).unwrap();
        assert_eq!(value["seq"], frame.seq);
        value
    }

    /// What a client knows after a snapshot and the frames that follow it.
    #[derive(Default)]
    struct Client(BTreeMap<String, Value>, u64);

    impl Client {
        fn take(&mut self, frame: &Frame) {
            let value = parse(frame);
            if value["type"] != "snapshot" {
                assert_eq!(frame.seq, self.1 + 1, "no gap");
            }
            self.1 = frame.seq;
            let id = || value["id"].as_str().unwrap().to_owned();
            match value["type"].as_str().unwrap() {
                "snapshot" => {
                    let streams = value["objects"]["stream"].as_array().unwrap();
                    let known = streams.iter().map(|s| (s["id"].as_str().unwrap().to_owned(), s));
                    self.0 = known.map(|(id, object)| (id, object.clone())).collect();
                }
                "add" => assert!(self.0.insert(id(), value["object"].clone()).is_none()),
                "update" => assert!(self.0.insert(id(), value["object"].clone()).is_some()),
                "remove" => assert!(self.0.remove(&id()).is_some()),
                other => assert_eq!(other, "event"),
            }
        }
    }

    #[tokio::test]
    async fn whoever_applies_the_frames_knows_what_the_node_knows() {
        let changes = Changes::new("one".into());
        changes.observe(objects(&[("a", 1), ("b", 1)]));
        let mut following = changes.follow(None, None);
        let mut client = Client::default();
        following.first.iter().for_each(|frame| client.take(frame));
        for step in [&[("a", 1), ("b", 2)][..], &[("b", 2), ("c", 1)], &[], &[("a", 7)]] {
            changes.observe(objects(step));
            changes.event(&json!({"event": "playing"}));
            while let Ok(frame) = following.rest.try_recv() {
                client.take(&frame);
            }
            let wanted = objects(step).into_iter().map(|((_, id), object)| (id, object));
            assert_eq!(client.0, wanted.collect());
        }
    }

    #[tokio::test]
    async fn a_client_that_comes_back_gets_what_it_missed_or_a_snapshot() {
        let changes = Changes::new("one".into());
        changes.observe(objects(&[("a", 1)]));
        let seen = changes.seq();
        changes.observe(objects(&[("a", 2)]));
        let missed = changes.follow(Some("one"), Some(seen)).first;
        assert_eq!((missed.len(), parse(&missed[0])["type"].clone()), (1, json!("update")));
        assert_eq!(changes.follow(Some("one"), Some(changes.seq())).first, []);
        for (instance, after) in [(Some("two"), seen), (None, seen), (Some("one"), seen + 99)] {
            let first = changes.follow(instance, Some(after)).first;
            assert_eq!(parse(&first[0])["type"], "snapshot", "{instance:?} {after}");
        }
        for round in 0..2_000 {
            changes.observe(objects(&[("a", round + 10)]));
        }
        assert_eq!(parse(&changes.follow(Some("one"), Some(seen)).first[0])["type"], "snapshot");
    }

    #[tokio::test]
    async fn more_changes_than_a_client_can_queue_come_as_a_snapshot() {
        let changes = Changes::new("one".into());
        let mut following = changes.follow(None, None);
        let mut client = Client::default();
        following.first.iter().for_each(|frame| client.take(frame));
        let many: Vec<String> = (0..5_000).map(|n| n.to_string()).collect();
        let many: Vec<(&str, u32)> = many.iter().map(|id| (id.as_str(), 1)).collect();
        changes.observe(objects(&many));
        client.take(&following.rest.try_recv().unwrap());
        assert_eq!(client.0.len(), 5_000);
        changes.observe(objects(&many[1..]));
        client.take(&following.rest.try_recv().unwrap());
        assert_eq!(client.0.len(), 4_999);
    }

    #[tokio::test(start_paused = true)]
    async fn a_storm_of_events_is_told_in_part_and_counted() {
        let changes = Changes::new("one".into());
        let mut following = changes.follow(None, None);
        for _ in 0..10_000 {
            changes.event(&json!({"event": "offence"}));
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        changes.event(&json!({"event": "playing"}));
        let mut frames = Vec::new();
        while let Ok(frame) = following.rest.try_recv() {
            frames.push(parse(&frame));
        }
        assert_eq!(frames.len(), EVENTS_PER_S_MAX as usize + 2);
        let missed = &frames[EVENTS_PER_S_MAX as usize]["event"];
        assert_eq!(missed, &json!({"event": "events_missed", "count": 9_800}));
    }

    #[tokio::test]
    async fn what_is_kept_for_those_who_return_is_bounded_in_bytes() {
        let changes = Changes::new("one".into());
        let long = "x".repeat(100_000);
        for round in 0..100 {
            changes.observe([((Kind::Stream, "a".into()), json!({"t": long, "r": round}))].into());
        }
        let state = changes.lock();
        assert!(state.recent_bytes <= RECENT_BYTES_MAX);
        assert_eq!(state.recent_bytes, state.recent.iter().map(|f| f.text.len()).sum::<usize>());
    }

    #[test]
    fn a_lease_that_runs_is_no_news() {
        let ticket = |left, ok| json!({"id": "1", "expires_in_ms": left, "confirmed": ok});
        assert!(same(Kind::Ticket, &ticket(9, true), &ticket(8, true)));
        assert!(!same(Kind::Ticket, &ticket(9, true), &ticket(9, false)));
    }
}
