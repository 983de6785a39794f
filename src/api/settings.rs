//! `/api/v1/settings`: the limits that change while the node runs.

use axum::{Json, extract::State};

use super::{
    body::Body,
    dto::{SettingsDto, SettingsPatch},
    error::Problem,
    state::Api,
};

pub(super) async fn show(State(api): State<Api>) -> Result<Json<SettingsDto>, Problem> {
    Ok(Json(api.node.limits().await?.into()))
}

pub(super) async fn change(
    State(api): State<Api>,
    Body(patch): Body<SettingsPatch>,
) -> Result<Json<SettingsDto>, Problem> {
    let limits = patch.apply(api.node.limits().await?);
    api.node.set_limits(limits).await?;
    Ok(Json(limits.into()))
}
