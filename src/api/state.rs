//! What all handlers share.
//!
//! Owns the API's view of its node and the small tables behind it: what is seeded through it, which
//! sources it offers. Does not own published streams (see `publishing`).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use astral_core::ids::StreamId;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{
    changes::Changes,
    devices::Devices,
    doctor::Doctor,
    dto::{Play, StreamDto, StreamRole, UrlDto},
    error::Problem,
    events::EventCounters,
    history::History,
    logs::LogTail,
    observer::Pulse,
    port::{NodePort, NodeState},
    publishing::{Outside, Publishing},
    rate::Rates,
    recordings::Recordings,
    session::{Links, NoRandomness},
    token::Token,
};
use crate::{
    edge::{
        hls, http_flv,
        interest::{Interests, Pin},
        local::Gate,
    },
    node::StreamLink,
};

/// Readers of `GET /events` at the same time.
pub const EVENT_READERS_MAX: usize = 128;

/// Handed to every handler; clones share everything.
#[derive(Clone)]
pub(super) struct Api {
    pub(super) node: Arc<dyn NodePort>,
    pub(super) interests: Interests,
    pub(super) gate: Gate,
    pub(super) publishing: Publishing,
    pub(super) api_url: String,
    pub(super) shutdown: CancellationToken,
    pub(super) stopping: CancellationToken,
    pub(super) event_readers: Arc<Semaphore>,
    pub(super) event_counters: Arc<EventCounters>,
    pub(super) changes: Changes,
    pub(super) pulse: Pulse,
    pub(super) token: Token,
    pub(super) links: Links,
    pub(super) rates: Rates,
    pub(super) history: History,
    pub(super) devices: Devices,
    pub(super) doctor: Doctor,
    pub(super) recordings: Recordings,
    pub(super) log: LogTail,
    /// Counts changes of the settings; held while they are compared and changed.
    pub(super) settings_revision: Arc<tokio::sync::Mutex<u64>>,
    /// Held while a stream is compared and changed.
    pub(super) stream_changes: Arc<tokio::sync::Mutex<()>>,
    seeds: Arc<Mutex<BTreeMap<StreamId, Pin>>>,
}

/// What the API is made of.
pub(super) struct Parts {
    pub(super) node: Arc<dyn NodePort>,
    pub(super) interests: Interests,
    pub(super) gate: Gate,
    pub(super) publishing: Publishing,
    pub(super) api_url: String,
    pub(super) token: Token,
    pub(super) recordings: Recordings,
    pub(super) log: LogTail,
    /// Tells this run of the node from others.
    pub(super) instance: String,
    pub(super) stopping: CancellationToken,
}

impl Api {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts {
            node,
            interests,
            gate,
            publishing,
            api_url,
            token,
            recordings,
            log,
            instance,
            stopping,
        } = parts;
        Self {
            node,
            interests,
            gate,
            publishing,
            api_url,
            stopping,
            token,
            shutdown: CancellationToken::new(),
            event_readers: Arc::new(Semaphore::new(EVENT_READERS_MAX)),
            event_counters: Arc::default(),
            changes: Changes::new(instance),
            pulse: Pulse::default(),
            links: Links::default(),
            rates: Rates::default(),
            history: History::default(),
            devices: Devices::default(),
            doctor: Doctor::default(),
            recordings,
            log,
            settings_revision: Arc::default(),
            stream_changes: Arc::default(),
            seeds: Arc::default(),
        }
    }

    /// A new link that opens the web app once.
    pub(super) fn web_link(&self) -> Result<String, NoRandomness> {
        Ok(format!("{}/#code={}", self.api_url, self.links.create()?))
    }

    /// Remembers that `id` is seeded, so that players who leave never stop it.
    pub(super) fn seeding(&self, id: StreamId) {
        let pin = self.interests.pin(id);
        let earlier = self.seeds().insert(id, pin);
        drop(earlier); // Outside the table's lock: it takes the ledger's.
    }

    /// Forgets it again; false when it was not seeded through the API.
    pub(super) fn unseeded(&self, id: StreamId) -> bool {
        let pin = self.seeds().remove(&id);
        pin.is_some()
    }

    fn seeds(&self) -> std::sync::MutexGuard<'_, BTreeMap<StreamId, Pin>> {
        // Nothing between lock and unlock can panic half-way through a change.
        self.seeds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where players on this machine open `id`.
    pub(super) fn play(&self, id: StreamId) -> Play {
        Play { http_flv: http_flv::url(&self.api_url, id), hls: hls::url(&self.api_url, id) }
    }

    /// Every stream that the node knows of, in the order of their ids.
    pub(super) fn streams(&self, state: &NodeState) -> Vec<StreamDto> {
        let overlay = &state.overlay;
        let announced = overlay.streams.iter().map(|view| {
            let role = StreamRole::of(view.stream, overlay).unwrap_or(StreamRole::Listed);
            // A name that came by the directory was checked there.
            let link = astral_core::ids::StreamName::new(view.name.clone())
                .map(|name| StreamLink { source: view.source, name }.to_string());
            let link = link.unwrap_or_default();
            StreamDto::announced(view, role, link, self.play(view.stream))
        });
        let mut streams: BTreeMap<StreamId, StreamDto> =
            announced.map(|stream| (stream.id, stream)).collect();
        let watched = overlay.watches.iter().map(|watch| watch.stream);
        for id in overlay.publishing.iter().copied().chain(watched) {
            let role = StreamRole::of(id, overlay).unwrap_or(StreamRole::Listed);
            streams.entry(id).or_insert_with(|| StreamDto::unannounced(id, role, self.play(id)));
        }
        for own in self.publishing.list() {
            let stream = streams.entry(own.id).or_insert_with(|| {
                StreamDto::unannounced(own.id, StreamRole::Publishing, self.play(own.id))
            });
            stream.link = Some(own.link);
            stream.own = true;
            if !stream.announced {
                stream.name = Some(own.name.clone());
                stream.title = own.name;
            }
        }
        let own = state.flows.iter().filter_map(|(id, flow)| Some((*id, flow.own.as_ref()?)));
        for (id, own) in own {
            let stream = streams.entry(id).or_insert_with(|| {
                StreamDto::unannounced(id, StreamRole::Publishing, self.play(id))
            });
            stream.role = StreamRole::Publishing;
            stream.preview = own.preview;
            stream.name.get_or_insert_with(|| own.name.clone());
        }
        // Renditions are shown with their stream.
        streams.retain(|id, _| !overlay.rendition_of.contains_key(id));
        for (id, stream) in &mut streams {
            if let Some(lower) = state.lower.get(id) {
                stream.rendition = Some(lower.height);
                stream.role = StreamRole::Watching;
            }
            stream.own |= stream.role == StreamRole::Publishing;
            stream.paused = state.flows.get(id).is_some_and(|flow| flow.paused);
            stream.recording = self.recordings.of(*id);
        }
        streams.into_values().collect()
    }

    /// One stream.
    pub(super) async fn stream(&self, id: StreamId) -> Result<StreamDto, Problem> {
        let state = self.node.state().await?;
        let found = self.streams(&state).into_iter().find(|stream| stream.id == id);
        found.ok_or_else(|| Problem::not_found(format!("no stream {id} is known to this node")))
    }

    /// The URLs of a stream, whether the node knows it or not.
    pub(super) fn urls(&self, id: StreamId) -> UrlDto {
        let own = self.publishing.list().into_iter().find(|own| own.id == id);
        let (link, publish_url, outside) = match own {
            Some(own) => (Some(own.link), own.publish_url, own.outside),
            None => (None, None, None),
        };
        let Play { http_flv, hls } = self.play(id);
        let ws = self.api_url.replacen("http", "ws", 1);
        UrlDto {
            id,
            link,
            http_flv,
            hls,
            rtmp: format!("{}/{id}", self.publishing.rtmp_url()),
            ws_flv: format!("{ws}/live/{id}"),
            ws_publish: (outside == Some(Outside::Page)).then(|| format!("{ws}/publish/{id}")),
            publish_url,
        }
    }
}

/// Reads the id in a path: 64 digits, or a link with its slash written as `%2F`.
pub(super) fn stream_id(text: &str) -> Result<StreamId, Problem> {
    if text.starts_with("astral:") {
        let link = text.parse::<StreamLink>();
        return link.map(|link| link.id()).map_err(|error| Problem::invalid(error.to_string()));
    }
    text.parse().map_err(|error: astral_core::ids::IdError| Problem::not_found(error.to_string()))
}
