//! `GET /api/v1/node`: what this node is and does.

use astral_core::{ids::StreamId, overlay::Interest};
use axum::{Json, extract::State};

use super::{
    dto::{NodeDto, TrafficDto, UplinkDto},
    error::Problem,
    port::NodeState,
    state::Api,
};

/// Role, reachability, uplink, counters, and what it publishes, watches and seeds.
#[utoipa::path(get, path = "/node", tag = "node", responses(
    (status = 200, description = "This node", body = NodeDto),
))]
pub(super) async fn show(State(api): State<Api>) -> Result<Json<NodeDto>, Problem> {
    Ok(Json(of(&api, &api.node.state().await?)))
}

/// The node of a state.
pub(super) fn of(api: &Api, state: &NodeState) -> NodeDto {
    let overlay = &state.overlay;
    let watches = |kind: Interest| -> Vec<StreamId> {
        let of_kind = overlay.watches.iter().filter(|watch| watch.kind == kind);
        of_kind.map(|watch| watch.stream).collect()
    };
    NodeDto {
        peer_id: api.node.peer_id(),
        node_id: overlay.me.node,
        version: env!("LONG_VERSION"),
        listen: api.node.listen_addrs(),
        api: api.api_url.clone(),
        rtmp: api.publishing.rtmp_url().to_owned(),
        role: overlay.role.into(),
        registration: overlay.registration.into(),
        reachable: overlay.reachable,
        reach: (&state.reach).into(),
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
        counters: overlay.counters.into(),
        watching: watches(Interest::Play),
        seeding: watches(Interest::Seed),
        publishing: overlay.publishing.clone(),
        sources: api.publishing.offered(),
        records: api.recordings.folder().is_some(),
    }
}
