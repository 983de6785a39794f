//! `/api/v1/tickets`: the forward tickets this node gave and holds.

use astral_core::overlay::TicketId;
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};

use super::{dto::TicketsDto, error::Problem, state::Api};

pub(super) async fn list(State(api): State<Api>) -> Result<Json<TicketsDto>, Problem> {
    Ok(Json(TicketsDto::new(&api.node.state().await?.overlay)))
}

/// Revokes a ticket that this node gave: its bytes stop, and the child looks elsewhere.
pub(super) async fn revoke(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let ticket = id.parse().map(TicketId);
    let ticket = ticket.map_err(|_| Problem::not_found("a ticket's id is a number"))?;
    if !api.node.state().await?.overlay.given.iter().any(|view| view.ticket == ticket) {
        let detail = format!("this node gave no ticket {id}; only its parent or child ends it");
        return Err(Problem::not_found(detail));
    }
    api.node.revoke(ticket).await?;
    Ok(StatusCode::NO_CONTENT)
}
