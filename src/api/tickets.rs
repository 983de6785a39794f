//! `/api/v1/tickets`: the forward tickets this node gave and holds.

use astral_core::overlay::TicketId;
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};

use super::{
    body::Query,
    dto::{Page, TicketsDto},
    error::Problem,
    state::Api,
};

/// Tickets given to children and held from parents.
#[utoipa::path(get, path = "/tickets", tag = "network", params(Page), responses(
    (status = 200, description = "One page of them", body = TicketsDto),
))]
pub(super) async fn list(
    State(api): State<Api>,
    Query(page): Query<Page>,
) -> Result<Json<TicketsDto>, Problem> {
    Ok(Json(TicketsDto::new(&api.node.state().await?.overlay, &page)))
}

/// Revokes a ticket that this node gave: its bytes stop, and the child looks elsewhere.
#[utoipa::path(delete, path = "/tickets/{id}", tag = "network", security(("token" = [])),
    params(("id" = String, Path, description = "The ticket's `id`")), responses(
    (status = 204, description = "It is over"),
    (status = 404, description = "This node gave no such ticket"),
))]
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
