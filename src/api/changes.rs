//! What changes in a node, numbered, so that a client that missed something knows it.
//!
//! Owns the objects that clients see, their comparison and the numbers. Does not own sockets (see
//! `events`) nor where objects come from (see `observer`). Every frame and every snapshot is written
//! once for all clients: a client is a number in one ring, costs nothing while it is slow, and gets a
//! snapshot where the ring has forgotten what it missed.

mod follower;
mod ring;
mod snapshot;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::extract::ws::Utf8Bytes;
use serde_json::{Value, json};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use ring::Ring;

pub use follower::{BATCH_BYTES, Follower, Told};
pub use ring::{RING_BYTES_MAX, RING_FRAMES_MAX};
pub use snapshot::{PART_BYTES, Snapshot};

/// Bytes of changes at one look from which on all objects are told anew.
const ANEW_FROM_BYTES: usize = RING_BYTES_MAX / 4;
/// Changes at one look from which on all objects are told anew.
const ANEW_FROM_FRAMES: usize = RING_FRAMES_MAX / 4;
/// A snapshot serves whoever asks for this long; the frames after it complete it.
const SNAPSHOT_FRESH: Duration = Duration::from_millis(250);
/// Plain events told in a second; what is beyond is counted in one `events_missed`.
pub const EVENTS_PER_S_MAX: u32 = 20_000;

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

/// The changes of one node. Clones share them.
#[derive(Clone, Debug)]
pub struct Changes {
    state: Arc<Mutex<State>>,
    /// The latest number.
    latest: watch::Sender<u64>,
    nudge: Arc<Notify>,
    /// Held while a snapshot is written, so that those who want one at the same time share it.
    writing: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug)]
struct State {
    instance: Arc<str>,
    objects: Arc<Objects>,
    ring: Ring,
    snapshot: Option<(Instant, Arc<Snapshot>)>,
    second: Instant,
    told_in_second: u32,
    withheld: u64,
}

impl Changes {
    /// No objects yet; `instance` tells this run of the node from others.
    #[must_use]
    pub fn new(instance: String) -> Self {
        let state = State {
            instance: instance.into(),
            objects: Arc::default(),
            ring: Ring::new(),
            snapshot: None,
            second: Instant::now(),
            told_in_second: 0,
            withheld: 0,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            latest: watch::Sender::new(0),
            nudge: Arc::default(),
            writing: Arc::default(),
        }
    }

    /// How many follow.
    #[must_use]
    pub fn followers(&self) -> usize {
        self.latest.receiver_count()
    }

    /// The latest number.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.lock().ring.seq()
    }

    /// Bytes of frames kept for those who follow or come back.
    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        self.lock().ring.bytes()
    }

    /// Begins to follow: after frame `after` of this `instance` when it is still known, else with
    /// a snapshot.
    #[must_use]
    pub fn follow(&self, instance: Option<&str>, after: Option<u64>) -> Follower {
        let state = self.lock();
        let told = self.latest.subscribe();
        let known = instance == Some(&*state.instance);
        let at = after.filter(|after| known && state.ring.reaches_back_to(*after));
        drop(state);
        self.nudge.notify_one();
        Follower::new(self.clone(), told, at)
    }

    /// Resolves when somebody wants the objects compared soon.
    pub async fn nudged(&self) {
        self.nudge.notified().await;
    }

    /// Compares the objects with those before and tells the differences; a new snapshot where that
    /// is shorter than so many frames that they would fill the ring. To be called by one task: what
    /// is compared does not hold up those who tell or follow.
    pub fn observe(&self, objects: Objects) {
        let before = self.lock().objects.clone();
        let frames = differences(&before, &objects);
        let bytes: usize = frames.iter().map(String::len).sum();
        let mut state = self.lock();
        state.objects = Arc::new(objects);
        if bytes > ANEW_FROM_BYTES || frames.len() > ANEW_FROM_FRAMES {
            state.ring.skip();
            state.snapshot = None;
            self.latest.send_replace(state.ring.seq());
        } else {
            for frame in frames {
                self.tell(&mut state, frame);
            }
        }
    }

    /// Tells a plain event, and that the objects may have changed.
    pub fn event(&self, event: &Value) {
        let frame = |event: &Value| json!({"type": "event", "event": event}).to_string();
        let told = frame(event);
        let mut state = self.lock();
        if state.second.elapsed() >= Duration::from_secs(1) {
            state.second = Instant::now();
            state.told_in_second = 0;
            let withheld = std::mem::take(&mut state.withheld);
            if withheld > 0 {
                let missed = json!({"event": "events_missed", "count": withheld});
                self.tell(&mut state, frame(&missed));
            }
        }
        if state.told_in_second < EVENTS_PER_S_MAX {
            state.told_in_second += 1;
            self.tell(&mut state, told);
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

    /// Everything as of number `from` or later, written once for all who ask at about the same time.
    pub(super) async fn snapshot(&self, from: u64) -> Arc<Snapshot> {
        let _turn = self.writing.lock().await;
        let (instance, seq, objects) = {
            let state = self.lock();
            if let Some((written, snapshot)) = &state.snapshot
                && written.elapsed() < SNAPSHOT_FRESH
                && snapshot.seq >= from
                && state.ring.reaches_back_to(snapshot.seq)
            {
                return snapshot.clone();
            }
            (state.instance.clone(), state.ring.seq(), state.objects.clone())
        };
        // Megabytes where thousands of streams are known: others go on in the meantime.
        let written = tokio::task::spawn_blocking(move || Snapshot::of(&instance, seq, &objects));
        let snapshot = Arc::new(written.await.expect("writing JSON does not panic"));
        self.lock().snapshot = Some((Instant::now(), snapshot.clone()));
        snapshot
    }

    /// Numbers a frame, which is a JSON object, and keeps it for all.
    fn tell(&self, state: &mut State, mut frame: String) {
        let seq = state.ring.seq() + 1;
        frame.truncate(frame.len() - 1);
        frame.push_str(&format!(r#","seq":{seq}}}"#));
        state.ring.push(frame.into());
        self.latest.send_replace(seq);
    }

    fn after(&self, seq: u64) -> Option<Vec<Utf8Bytes>> {
        self.lock().ring.after(seq, BATCH_BYTES)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing between lock and unlock can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What makes `before` into `after`, as frames without numbers.
fn differences(before: &Objects, after: &Objects) -> Vec<String> {
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
    changed.chain(gone).map(|frame| frame.to_string()).collect()
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
