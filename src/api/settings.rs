//! `/api/v1/settings`: the limits that change while the node runs.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};

use super::{
    body::{Body, matches},
    dto::{SettingsDto, SettingsPatch},
    error::Problem,
    port::Limits,
    state::Api,
};

fn answer(limits: Limits, revision: u64) -> Response {
    ([(header::ETAG, etag(revision))], Json(SettingsDto::new(limits, revision))).into_response()
}

fn etag(revision: u64) -> String {
    format!("\"{revision}\"")
}

/// The limits that hold.
#[utoipa::path(get, path = "/settings", tag = "node", responses(
    (status = 200, description = "The limits, with their revision as ETag", body = SettingsDto),
))]
pub(super) async fn show(State(api): State<Api>) -> Result<Response, Problem> {
    let revision = *api.settings_revision.lock().await;
    Ok(answer(api.node.limits().await?, revision))
}

/// Changes limits. With `If-Match`, only if nobody else changed them meanwhile.
#[utoipa::path(patch, path = "/settings", tag = "node", security(("token" = [])),
    request_body = SettingsPatch, responses(
    (status = 200, description = "The limits from here on", body = SettingsDto),
    (status = 412, description = "Somebody else changed them"),
    (status = 422, description = "A limit that can't be"),
))]
pub(super) async fn change(
    State(api): State<Api>,
    headers: HeaderMap,
    Body(patch): Body<SettingsPatch>,
) -> Result<Response, Problem> {
    let mut revision = api.settings_revision.lock().await;
    if !matches(&headers, &etag(*revision)) {
        return Err(Problem::changed());
    }
    let limits = patch.apply(api.node.limits().await?);
    api.node.set_limits(limits).await?;
    *revision += 1;
    Ok(answer(limits, *revision))
}
