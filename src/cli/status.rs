//! What a node shows of itself once a second: the `status` event and the status line.
//!
//! Owns the shape of that event and the words of the others. Does not own the numbers.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use astral_core::{
    ids::{NodeId, StreamId},
    overlay::{EndReason, NoCapacityReason, RegistrationView, Role, WatchView},
    units::Bitrate,
};
use serde_json::{Value, json};

use crate::{
    api::summary::Look,
    node::{Event, NodeSnapshot, StreamRole, StreamStatus},
};

/// Remembers the last totals, so that rates can be shown.
#[derive(Debug, Default)]
pub struct Rates {
    last: Option<(Duration, u64, u64)>,
}

impl Rates {
    /// The `status` event of this moment.
    pub fn status(&mut self, snapshot: &NodeSnapshot) -> Value {
        let (sent, received) = (snapshot.sent_bytes, snapshot.received_bytes);
        let (since, sent_before, received_before) = self.last.unwrap_or_default();
        let elapsed = snapshot.uptime.saturating_sub(since);
        self.last = Some((snapshot.uptime, sent, received));
        let streams: Vec<Value> = snapshot
            .streams
            .iter()
            .map(|(id, status)| {
                let watch = snapshot.overlay.watches.iter().find(|watch| watch.stream == *id);
                stream(*id, status, watch)
            })
            .collect();
        let (registration, supernode) = registration(&snapshot.overlay.registration);
        json!({
            "uptime_ms": millis(snapshot.uptime),
            "role": match snapshot.overlay.role { Role::Supernode => "supernode", Role::Member => "member" },
            "registration": registration,
            "supernode": supernode,
            "reach": snapshot.reach.verdict,
            "nat": snapshot.reach.nat,
            "punched": snapshot.reach.punched,
            "circuits": snapshot.reach.circuits,
            "members": snapshot.overlay.members.len(),
            "peers": snapshot.links.len(),
            "listed": snapshot.overlay.streams.len(),
            "in_kbps": kbps(received.saturating_sub(received_before), elapsed),
            "out_kbps": kbps(sent.saturating_sub(sent_before), elapsed),
            "sent_bytes": sent,
            "sent_media_bytes": snapshot.sent_media_bytes,
            "relayed_bytes": snapshot.driver.circuit_bytes,
            "received_bytes": received,
            "usable_bps": snapshot.overlay.capacity.usable,
            "promised_bps": snapshot.overlay.capacity.promised,
            "streams": streams,
            "player": snapshot.streams.values().find_map(|stream| stream.player),
        })
    }
}

/// The streams published here, for their summaries.
pub fn looks(snapshot: &NodeSnapshot) -> BTreeMap<StreamId, Look> {
    let look = |id: &StreamId| {
        let status = snapshot.streams.get(id);
        let relay = snapshot.relay.streams.iter().find(|relay| relay.stream == *id);
        Look {
            audience: relay.map(|relay| relay.audience).unwrap_or_default(),
            bytes: status.map_or(0, |status| status.bytes),
            forwarded_bytes: status.map_or(0, |status| status.stats.forwarded_bytes),
        }
    };
    snapshot.overlay.publishing.iter().map(|id| (*id, look(id))).collect()
}

fn stream(id: StreamId, status: &StreamStatus, watch: Option<&WatchView>) -> Value {
    let stripes = watch.map_or(&[][..], |watch| &watch.stripes);
    let parents: Vec<Option<NodeId>> = stripes.iter().map(|stripe| stripe.parent).collect();
    let depths: Vec<Option<u8>> = stripes.iter().map(|stripe| stripe.depth).collect();
    let hops = match status.role {
        StreamRole::Source => Some(0),
        StreamRole::Viewer | StreamRole::Seeder => depths.iter().flatten().max().copied(),
    };
    let children: Vec<Value> = status
        .children
        .iter()
        .map(|(node, stripes)| json!({"node": node, "stripes": stripes.iter().collect::<Vec<_>>()}))
        .collect();
    json!({
        "id": id,
        "name": status.stats.name,
        "role": status.role,
        "k": status.stats.k,
        "rate_bps": status.stats.rate,
        "parents": parents,
        "depths": depths,
        "hops": hops,
        "children": children,
        "bytes": status.bytes,
        "delivered_bytes": status.stats.delivered_bytes,
        "delay_ms": status.stats.delay_ms,
        "encoder_bps": status.encoder_bps,
        "rendition_of": status.rendition_of,
        "paused": status.stats.paused,
        "reconnecting": status.stats.reconnecting,
    })
}

fn registration(view: &RegistrationView) -> (&'static str, Option<NodeId>) {
    match view {
        RegistrationView::Searching => ("searching", None),
        RegistrationView::Registered { supernode, .. } => ("registered", Some(*supernode)),
        RegistrationView::Guest { supernode } => ("guest", *supernode),
        RegistrationView::Supernode => ("supernode", None),
    }
}

/// The status line of a terminal.
pub fn line(status: &Value) -> String {
    let mut line = format!(
        "{}, {} peers, in {} kb/s, out {} kb/s",
        status["role"].as_str().unwrap_or("node"),
        status["peers"],
        status["in_kbps"],
        status["out_kbps"]
    );
    if status["reach"] == "private" {
        line.push_str(", behind a NAT");
    }
    for stream in status["streams"].as_array().into_iter().flatten().take(2) {
        let parents = stream["parents"].as_array().into_iter().flatten();
        let fed = parents.clone().filter(|parent| parent.is_string()).count();
        let name = stream["name"].as_str().unwrap_or("stream");
        let children = stream["children"].as_array().map_or(0, Vec::len);
        let facts = match stream["role"].as_str() {
            Some("source") => {
                let encoder = stream["encoder_bps"].as_u64().map(Bitrate::from_bps);
                let encoder =
                    encoder.map_or_else(String::new, |rate| format!(", encoder at {rate}"));
                format!("live to {children} nodes{encoder}")
            }
            _ => format!(
                "{fed}/{} stripes, {} hops, {} ms behind, {children} children",
                parents.count(),
                stream["hops"].as_u64().map_or_else(|| "?".into(), |hops| hops.to_string()),
                stream["delay_ms"].as_u64().map_or_else(|| "?".into(), |ms| ms.to_string()),
            ),
        };
        line.push_str(&format!(" | {name}: {facts}"));
    }
    line
}

/// First and longest silence between two equal lines about a stream that nobody can serve.
const SILENCE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Remembers what people were told of streams that nobody can serve: the search goes on each second
/// and for each stripe, and says so once, then ever less often.
#[derive(Debug, Default)]
pub struct Patience {
    told: BTreeMap<StreamId, Told>,
}

#[derive(Debug)]
struct Told {
    reason: NoCapacityReason,
    at: Instant,
    silence: Duration,
}

impl Patience {
    /// Whether people should hear of this event now.
    pub fn is_news(&mut self, event: &Event, now: Instant) -> bool {
        match event {
            Event::NoCapacity { stream, reason, .. } => {
                let known = self.told.get(stream).filter(|told| told.reason == *reason);
                let silence = match known {
                    Some(told) if now.saturating_duration_since(told.at) < told.silence => {
                        return false;
                    }
                    Some(told) => (told.silence * 2).min(SILENCE.1),
                    None => SILENCE.0,
                };
                self.told.insert(*stream, Told { reason: *reason, at: now, silence });
            }
            // Served, or not wanted any more: what comes then is new.
            Event::Playing { stream, .. } | Event::Ended { stream, .. } => {
                self.told.remove(stream);
            }
            _ => {}
        }
        true
    }
}

/// What people hear of an event; `None` for those that only scripts want.
pub fn in_words(event: &Event) -> Option<String> {
    Some(match event {
        Event::Registered { supernode } => format!("member of supernode {}", supernode.short()),
        Event::RegistrationLost { supernode } => {
            format!("supernode {} is gone; looking for another", supernode.short())
        }
        Event::Promoted { .. } => {
            "this node is now a supernode: others may join through the addresses above".into()
        }
        Event::Demoted { reason } => {
            format!("this node is a supernode no longer ({})", word(reason).replace('_', " "))
        }
        Event::Guest { .. } => {
            "no supernode has room and this node can't be one: served as a guest, at a lower rate"
                .into()
        }
        Event::Live { .. } => "live".into(),
        Event::Playing { hops: 1, .. } => "playing, straight from the source".into(),
        Event::Playing { hops, .. } => format!("playing, {hops} hops from the source"),
        Event::ParentChanged { stripe, old: Some(old), new, cause, .. } => {
            format!("stripe {stripe}: parent {} -> {} ({})", old.short(), new.short(), word(cause))
        }
        Event::NoCapacity { reason, retry_ms, .. } => format!(
            "no capacity: {}; it is tried again and again, next in {:.1} s",
            word(reason).replace('_', " "),
            Duration::from_millis(*retry_ms).as_secs_f32()
        ),
        Event::SourceLost { .. } => "source lost; waiting for it to come back".into(),
        Event::SourceBack { .. } => "the source is back".into(),
        Event::Paused { reconnecting: true, .. } => "the source's encoder is reconnecting".into(),
        Event::Paused { .. } => "paused by the source".into(),
        Event::Resumed { .. } => "resumed".into(),
        Event::EncoderRate { bps, ceiling_bps, .. } if bps == ceiling_bps => {
            format!("the encoder is back at {bps}")
        }
        Event::EncoderRate { bps, .. } => {
            format!("the encoder goes to {bps}, as far as the uplink lets one copy pass")
        }
        Event::Rendition { height: Some(height), .. } => {
            format!("playing {height}p: the full stream does not come in time")
        }
        Event::Rendition { height: None, .. } => "playing the full stream".into(),
        // This node left it: whoever asked for that knows.
        Event::Ended { reason: EndReason::Left, .. } => return None,
        Event::Ended { reason, .. } => format!("the stream is over ({})", word(reason)),
        Event::Skipped { from, to, cause, .. } => {
            format!("skipped chunks {from} to {to} ({cause})")
        }
        Event::Stalled { .. } => "nothing to play at the moment".into(),
        Event::Offence { node, kind, .. } => {
            format!("node {} misbehaved: {}", node.short(), word(kind).replace('_', " "))
        }
        Event::ParentChanged { old: None, .. }
        | Event::StreamListed { .. }
        | Event::StreamChanged { .. }
        | Event::StreamRemoved { .. }
        | Event::TicketGiven { .. }
        | Event::TicketEnded { .. } => return None,
    })
}

/// An enum as its events write it.
fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => word,
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn kbps(bytes: u64, elapsed: Duration) -> u64 {
    let ms = millis(elapsed).max(1);
    bytes.saturating_mul(8) / ms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_that_goes_on_is_told_ever_less_often_and_a_new_reason_at_once() {
        let mut patience = Patience::default();
        let start = Instant::now();
        let failed =
            |reason| Event::NoCapacity { stream: StreamId([1; 32]), reason, retry_ms: 1_000 };
        let unknown = failed(NoCapacityReason::UnknownStream);
        let told: Vec<u64> = (0..120)
            .flat_map(|second| [second; 4])
            .filter(|second| patience.is_news(&unknown, start + Duration::from_secs(*second)))
            .collect();
        assert_eq!(told, [0, 1, 3, 7, 15, 31, 61, 91]);
        assert!(patience.is_news(&failed(NoCapacityReason::AllFull), start));
        let other = Event::NoCapacity {
            stream: StreamId([2; 32]),
            reason: NoCapacityReason::UnknownStream,
            retry_ms: 1,
        };
        assert!(patience.is_news(&other, start));
        assert!(
            patience.is_news(&Event::Playing { stream: StreamId([2; 32]), k: 4, hops: 1 }, start)
        );
        assert!(patience.is_news(&other, start));
    }
}
