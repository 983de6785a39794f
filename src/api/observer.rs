//! Looks at the node once a second and tells the changes.
//!
//! Owns the rhythm, what of a state becomes which object, and when the node was last heard. Does
//! not own comparing (see `changes`).

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use astral_core::ids::StreamId;
use serde::Serialize;
use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior, timeout};

use super::{
    changes::{Kind, Objects},
    dto::{EdgeDto, PeerDto, SettingsDto, StatsDto, StreamRole, TicketDto},
    node,
    port::NodeState,
    state::Api,
    summary::{Look, Summaries},
};

/// How often the node is looked at.
const RHYTHM: Duration = Duration::from_secs(1);
/// After an event the node is looked at once more, this much later: events come in bunches.
const SETTLE: Duration = Duration::from_millis(150);
/// The node answers within milliseconds; without an answer for this long it is not well.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// When the node last answered. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Pulse {
    started: Instant,
    heard_ms: Arc<AtomicU64>,
}

impl Default for Pulse {
    fn default() -> Self {
        Self { started: Instant::now(), heard_ms: Arc::default() }
    }
}

impl Pulse {
    fn beat(&self) {
        let ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard_ms.store(ms, Ordering::Relaxed);
    }

    /// Since the node last answered.
    pub(super) fn silence(&self) -> Duration {
        let heard = Duration::from_millis(self.heard_ms.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(heard)
    }

    /// Whether it answered lately.
    pub(super) fn is_well(&self) -> bool {
        self.silence() < ANSWER_MAX + 2 * RHYTHM
    }
}

/// Looks at the node for as long as it lives.
pub(super) async fn run(api: Api) {
    let mut summaries = Summaries::default();
    let mut tick = tokio::time::interval(RHYTHM);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = api.changes.nudged() => tokio::time::sleep(SETTLE).await,
        }
        if let Ok(Ok(state)) = timeout(ANSWER_MAX, api.node.state()).await {
            api.pulse.beat();
            for summary in summaries.observe(Instant::now().into_std(), &looks(&state)) {
                tracing::info!("{}", summary.in_words());
                let mut event = json(summary);
                event["event"] = "summary".into();
                api.changes.event(&event);
            }
            if api.changes.followers() > 0 {
                let revision = *api.settings_revision.lock().await;
                api.changes.observe(objects(&api, &state, revision));
            }
        }
    }
}

/// The streams published here.
fn looks(state: &NodeState) -> BTreeMap<StreamId, Look> {
    let look = |id: &StreamId| {
        let flow = state.flows.get(id);
        let relay = state.relay.streams.iter().find(|relay| relay.stream == *id);
        Look {
            audience: relay.map(|relay| relay.audience).unwrap_or_default(),
            bytes: flow.map_or(0, |flow| flow.bytes),
            forwarded_bytes: flow.map_or(0, |flow| flow.forwarded_bytes),
        }
    };
    state.overlay.publishing.iter().map(|id| (*id, look(id))).collect()
}

fn json(object: impl Serialize) -> Value {
    // The API's objects are structs of texts and numbers, which always serialise.
    serde_json::to_value(object).unwrap_or_default()
}

fn objects(api: &Api, state: &NodeState, revision: u64) -> Objects {
    let mut objects = Objects::new();
    let mut add = |kind: Kind, id: String, object: Value| {
        objects.insert((kind, id), object);
    };
    add(Kind::Node, "self".into(), json(node::of(api, state)));
    add(Kind::Settings, "self".into(), json(SettingsDto::new(state.limits, revision)));
    for peer in PeerDto::all(&state.overlay) {
        add(Kind::Peer, peer.id.to_string(), json(&peer));
    }
    for stream in api.streams(state) {
        add(Kind::Stream, stream.id.to_string(), json(&stream));
    }
    for id in state.flows.keys() {
        let history = api.history.of(*id);
        if let Some(role) = StreamRole::of(*id, &state.overlay) {
            let readers = api.interests.readers(*id);
            let stats = StatsDto::new(*id, role, state, readers, history.as_ref());
            add(Kind::Stats, id.to_string(), json(&stats));
        }
    }
    for ticket in TicketDto::all(&state.overlay) {
        add(Kind::Ticket, ticket.key.clone(), json(&ticket));
    }
    for edge in EdgeDto::all(state) {
        add(Kind::Edge, edge.id.clone(), json(&edge));
    }
    objects
}
