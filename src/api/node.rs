//! `GET /api/v1/node`: what this node is and does.

use astral_core::{ids::StreamId, overlay::Interest};
use axum::{Json, extract::State};

use super::{
    dto::{NodeDto, TrafficDto, UplinkDto},
    error::Problem,
    state::Api,
};

pub(super) async fn show(State(api): State<Api>) -> Result<Json<NodeDto>, Problem> {
    let state = api.node.state().await?;
    let overlay = state.overlay;
    let watches = |kind: Interest| -> Vec<StreamId> {
        let of_kind = overlay.watches.iter().filter(|watch| watch.kind == kind);
        of_kind.map(|watch| watch.stream).collect()
    };
    Ok(Json(NodeDto {
        peer_id: api.node.peer_id(),
        node_id: overlay.me.node,
        version: env!("CARGO_PKG_VERSION"),
        listen: api.node.listen_addrs(),
        api: api.api_url.clone(),
        rtmp: api.publishing.rtmp_url().to_owned(),
        role: overlay.role,
        registration: overlay.registration,
        reachable: overlay.reachable,
        members: overlay.members.len(),
        connected: overlay.nodes.iter().filter(|node| node.linked).count(),
        uptime_s: state.uptime.as_secs(),
        uplink: UplinkDto {
            usable_bps: overlay.capacity.usable.as_bps(),
            assumed: overlay.capacity.assumed,
            promised_bps: overlay.capacity.promised.as_bps(),
        },
        traffic: TrafficDto {
            sent_bytes: state.sent_bytes,
            sent_media_bytes: state.sent_media_bytes,
            received_bytes: state.received_bytes,
        },
        counters: overlay.counters,
        watching: watches(Interest::Play),
        seeding: watches(Interest::Seed),
        publishing: overlay.publishing,
    }))
}
