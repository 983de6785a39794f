//! `GET /metrics`: the node's figures for Prometheus, in the OpenMetrics text format.
//!
//! Owns names, units and labels: dashboards build on them (see `contrib/grafana`). Does not own the
//! figures. Labels are bounded by what the node itself bounds: its streams, parents and causes.

mod process;
mod sheet;

use std::sync::atomic::Ordering;

use astral_core::ids::StreamId;
use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use prometheus_client::{encoding::text::encode, registry::Registry};

use self::sheet::Sheet;
use super::{
    dto::{StatsDto, StreamRole},
    error::Problem,
    history::StreamHistory,
    port::NodeState,
    state::Api,
};

/// What Prometheus expects.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All figures of the node.
#[utoipa::path(get, path = "/metrics", tag = "node", responses(
    (status = 200, description = "OpenMetrics text", body = String,
        content_type = "application/openmetrics-text"),
))]
pub(super) async fn show(State(api): State<Api>) -> Result<Response, Problem> {
    let state = api.node.state().await?;
    let mut registry = Registry::default();
    registry.register_collector(Box::new(sheet(&api, &state)));
    let mut text = String::new();
    encode(&mut text, &registry).map_err(|error| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", error.to_string())
    })?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
}

fn sheet(api: &Api, state: &NodeState) -> Sheet {
    let mut sheet = Sheet::default();
    node(&mut sheet, state);
    traffic(&mut sheet, state);
    let (histories, offences, missed) = api.history.all();
    for (kind, count) in offences {
        sheet.counter("astral_offences", "Misdeeds of other nodes", &[("kind", &kind)], count);
    }
    sheet.counter("astral_events_missed", "Events lost to a slow reader", &[], missed);
    for id in state.flows.keys() {
        let history = histories.get(id);
        let readers = api.interests.readers(*id);
        if let Some(role) = StreamRole::of(*id, &state.overlay) {
            stream(&mut sheet, state, &StatsDto::new(*id, role, state, readers, history));
        }
    }
    for (id, history) in &histories {
        past(&mut sheet, &name(state, *id), history);
    }
    let counters = &api.event_counters;
    for (why, counter) in
        [("slow", &counters.slow), ("unruly", &counters.unruly), ("refused", &counters.refused)]
    {
        let count = counter.load(Ordering::Relaxed);
        sheet.counter("astral_api_readers_dropped", "Event readers let go", &[("why", why)], count);
    }
    let anew = counters.anew.load(Ordering::Relaxed);
    let help = "Event readers that were told everything anew because they had missed too much";
    sheet.counter("astral_api_readers_anew", help, &[], anew);
    sheet.gauge("astral_api_readers", "Event readers", &[], count(api.changes.followers()));
    let kept = count(api.changes.kept_bytes());
    sheet.gauge("astral_api_events_kept_bytes", "Events kept for all readers", &[], kept);
    process::add(&mut sheet);
    sheet
}

fn node(sheet: &mut Sheet, state: &NodeState) {
    let overlay = &state.overlay;
    let version = [("version", env!("LONG_VERSION"))];
    sheet.gauge("astral_build", "Always 1; the version is a label", &version, 1.0);
    sheet.gauge("astral_uptime_seconds", "Since the start", &[], state.uptime.as_secs_f64());
    let reachable = f64::from(u8::from(overlay.reachable));
    sheet.gauge("astral_reachable", "1: other nodes can dial this one", &[], reachable);
    sheet.gauge("astral_members", "Nodes registered here", &[], count(overlay.members.len()));
    let linked = overlay.nodes.iter().filter(|node| node.linked).count();
    for (state, number) in [("connected", linked), ("known", overlay.nodes.len())] {
        sheet.gauge("astral_nodes", "Other nodes", &[("state", state)], count(number));
    }
    sheet.gauge("astral_streams", "Streams in the directory", &[], count(overlay.streams.len()));
    let capacity = &overlay.capacity;
    for (kind, rate) in [("usable", capacity.usable), ("promised", capacity.promised)] {
        let help = "Uplink that may be used, and what of it tickets promise";
        sheet.gauge("astral_uplink_bits_per_second", help, &[("kind", kind)], exact(rate.as_bps()));
    }
    let usable = exact(capacity.usable.as_bps()).max(1.0);
    let used = exact(capacity.promised.as_bps()) / usable;
    sheet.gauge("astral_uplink_used_ratio", "Promised of the usable uplink", &[], used);
    let ends = [("given", overlay.given.len()), ("held", overlay.held.len())];
    for (end, number) in ends {
        sheet.gauge("astral_tickets", "Tickets", &[("end", end)], count(number));
    }
    let counters = &overlay.counters;
    for (what, number) in [
        ("requests_sent", counters.requests_sent),
        ("requests_answered", counters.requests_answered),
        ("requests_failed", counters.requests_failed),
        ("rate_limited", counters.rate_limited),
        ("granted", counters.granted),
        ("refused", counters.refused),
        ("failovers", counters.failovers),
        ("forged", counters.forged),
        ("stale", counters.stale),
        ("overflows", counters.overflows),
        ("offences", counters.offences),
    ] {
        sheet.counter("astral_overlay", "What the overlay counted", &[("what", what)], number);
    }
    for (what, number) in &state.driver {
        sheet.counter("astral_driver", "What the driver counted", &[("what", what)], *number);
    }
}

fn traffic(sheet: &mut Sheet, state: &NodeState) {
    let control = state.sent_bytes.saturating_sub(state.sent_media_bytes);
    let help = "Bytes on feeds and requests";
    for (direction, class, bytes) in [
        ("out", "media", state.sent_media_bytes),
        ("out", "control", control),
        ("in", "all", state.received_bytes),
    ] {
        let labels = [("direction", direction), ("class", class)];
        sheet.counter("astral_traffic_bytes", help, &labels, bytes);
    }
    let relay = &state.relay.stats;
    for (what, number) in [
        ("in", relay.chunks_in),
        ("local", relay.chunks_local),
        ("duplicate", relay.duplicates),
        ("live_out", relay.live_chunks_out),
        ("repair_out", relay.repair_chunks_out),
        ("given_up", relay.given_up),
        ("delivered", relay.delivered),
    ] {
        sheet.counter("astral_chunks", "Chunks by what became of them", &[("what", what)], number);
    }
    let help = "Bytes of chunks sent, live and as repair";
    for (kind, bytes) in [("live", relay.live_bytes_out), ("repair", relay.repair_bytes_out)] {
        sheet.counter("astral_chunk_bytes_out", help, &[("kind", kind)], bytes);
    }
    for (what, number) in [
        ("promotes_out", relay.promotes_out),
        ("wants_out", relay.wants_out),
        ("gaps_in", relay.gaps_in),
        ("gaps_out", relay.gaps_out),
        ("gaps_seen", relay.gaps_seen),
        ("sheds", relay.sheds),
        ("stalls", relay.stalls),
    ] {
        sheet.counter("astral_repair", "Repair and shedding", &[("what", what)], number);
    }
    for (cause, number) in [
        ("deadline", relay.skips.deadline),
        ("lost", relay.skips.lost),
        ("slow_reader", relay.skips.slow_reader),
        ("overwritten", relay.skips.overwritten),
        ("epoch_over", relay.skips.epoch_over),
    ] {
        let help = "Chunks that players were spared";
        sheet.counter("astral_skipped_chunks", help, &[("cause", cause)], number);
    }
    let help = "Chunks and frames that were unlawful, bad signatures among them";
    sheet.counter("astral_verification_failures", help, &[], relay.offences);
}

fn stream(sheet: &mut Sheet, state: &NodeState, stats: &StatsDto) {
    let name = name(state, stats.id);
    let role = match stats.role {
        StreamRole::Listed => "listed",
        StreamRole::Publishing => "publishing",
        StreamRole::Watching => "watching",
        StreamRole::Seeding => "seeding",
    };
    let labels = [("stream", name.as_str()), ("role", role)];
    let seconds = |ms: u64| exact(ms) / 1_000.0;
    let below = stats.audience.below;
    let times = [
        ("astral_stream_join_seconds", "From joining to the first chunk", stats.join_ms),
        ("astral_stream_first_frame_seconds", "From joining to a player's", stats.first_frame_ms),
        ("astral_stream_delay_seconds", "Behind the source", stats.delay_ms),
        ("astral_stream_idle_seconds", "Since the last chunk", stats.idle_ms),
    ];
    for (metric, help, ms) in times {
        if let Some(ms) = ms {
            sheet.gauge(metric, help, &labels, seconds(ms));
        }
    }
    for (metric, help, number) in [
        ("astral_stream_bytes", "Payload cut here, or received", stats.bytes),
        ("astral_stream_forwarded_bytes", "Payload sent to children", stats.forwarded_bytes),
        ("astral_stream_delivered_bytes", "Payload for players here", stats.delivered_bytes),
        ("astral_stream_verified_chunks", "Chunks with a good signature", stats.verified_chunks),
    ] {
        sheet.counter(metric, help, &labels, number);
    }
    for (metric, help, number) in [
        ("astral_stream_bits_per_second", "The certified rate", exact(stats.bitrate_bps)),
        ("astral_stream_playing", "1: every stripe comes", f64::from(u8::from(stats.playing))),
        ("astral_stream_paused", "1: the source pauses", f64::from(u8::from(stats.paused))),
        ("astral_stream_missing_chunks", "Missing, now", exact(stats.missing_chunks)),
        ("astral_stream_children", "Nodes fed", count(stats.children.len())),
        ("astral_stream_readers", "Players on this machine", count(stats.readers)),
        ("astral_stream_audience", "Viewers known of", f64::from(stats.audience.viewers)),
        ("astral_stream_below", "Nodes here and below", f64::from(below.nodes)),
        ("astral_stream_below_watching", "Of these, with players", f64::from(below.watching)),
        ("astral_stream_below_stalled", "Of these, skipping", f64::from(below.stalled)),
    ] {
        sheet.gauge(metric, help, &labels, number);
    }
    if let Some(bps) = stats.encoder_bps {
        let help = "The picture's rate, as its encoder follows the uplink";
        sheet.gauge("astral_stream_encoder_bits_per_second", help, &labels, exact(bps));
    }
    let relay = state.relay.streams.iter().find(|relay| relay.stream == stats.id);
    for parent in relay.into_iter().flat_map(|relay| &relay.parents) {
        let node = parent.feed.peer.short();
        let labels = [("stream", name.as_str()), ("parent", node.as_str())];
        let help = "Bytes of chunks from a parent";
        sheet.counter("astral_parent_bytes", help, &labels, parent.bytes);
        let help = "Chunks from a parent that were here already";
        sheet.counter("astral_parent_duplicates", help, &labels, parent.duplicates.into());
        let help = "Unlawful frames of a parent";
        sheet.counter("astral_parent_offences", help, &labels, parent.offences.into());
        let stripes = count(parent.promoted.iter().count());
        sheet.gauge("astral_parent_stripes", "Stripes from a parent", &labels, stripes);
        if let Some(rtt) = parent.rtt_ms {
            sheet.gauge("astral_parent_rtt_seconds", "Round trip", &labels, seconds(rtt));
        }
    }
}

/// What is counted from events, and stays when the stream is left.
fn past(sheet: &mut Sheet, name: &str, history: &StreamHistory) {
    for (cause, number) in history.failovers_by_cause() {
        let labels = [("stream", name), ("cause", cause.as_str())];
        sheet.counter("astral_failovers", "Parents lost and replaced", &labels, *number);
    }
    let labels = [("stream", name)];
    let (gaps, sum) = history.gaps();
    let help = "Between the last chunk of a lost parent and the first of the new one";
    sheet.histogram("astral_failover_gap_seconds", help, &labels, gaps, sum.as_secs_f64());
    sheet.counter("astral_stalls", "Times a player had nothing", &labels, history.stalls());
    let help = "Searches that found nobody with room";
    sheet.counter("astral_no_capacity", help, &labels, history.no_capacity());
}

/// A stream's label: its name where it is known, and its id's beginning, since names repeat.
fn name(state: &NodeState, id: StreamId) -> String {
    let known = state.overlay.streams.iter().find(|view| view.stream == id);
    match known {
        Some(view) => format!("{} ({})", view.name, id.short()),
        None => id.short(),
    }
}

fn count(number: usize) -> f64 {
    exact(u64::try_from(number).unwrap_or(u64::MAX))
}

/// As a float: exact up to 2^53, which no figure here comes near.
#[expect(clippy::cast_precision_loss, reason = "no figure comes near 2^53")]
const fn exact(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    /// The figure names in a text, without what the text format adds to them.
    fn names(text: &str) -> BTreeSet<String> {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let ours = words.filter(|w| w.starts_with("astral_") || w.starts_with("process_"));
        let plain = |word: &str| {
            let word = word.strip_suffix("_bucket").unwrap_or(word);
            word.strip_suffix("_total").unwrap_or(word).to_owned()
        };
        ours.map(plain).collect()
    }

    #[test]
    fn the_dashboard_shows_figures_that_there_are() {
        let code = concat!(include_str!("metrics.rs"), include_str!("metrics/process.rs"));
        let there = names(code.split("#[cfg(test)]").next().unwrap());
        let process = names(include_str!("metrics/process.rs"));
        let shown = names(include_str!("../../contrib/grafana/astral.json"));
        let missing: Vec<_> =
            shown.iter().filter(|n| !there.contains(*n) && !process.contains(*n)).collect();
        assert!(shown.len() > 20 && missing.is_empty(), "{missing:?}");
    }
}
