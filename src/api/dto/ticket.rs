//! Forward tickets.
//!
//! Owns their JSON. Does not own tickets.

use astral_core::{
    ids::{NodeId, StreamId, Stripe},
    overlay::{Snapshot, TicketView},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Page, paginate};

/// `GET /tickets`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct TicketsDto {
    /// Those given first, then those held.
    pub tickets: Vec<TicketDto>,
    /// The next page's `after`; null on the last page.
    pub next: Option<String>,
}

/// Which end of a ticket this node is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TicketEndDto {
    /// This node is the parent.
    Given,
    /// This node is the child.
    Held,
}

/// One ticket.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct TicketDto {
    /// Its name among all tickets of this list: the end, the id, and the parent of a held one.
    pub key: String,
    /// Its name at the parent; text, since it has 64 bits.
    pub id: String,
    /// Which end this node is.
    pub end: TicketEndDto,
    /// Which stream.
    #[schema(value_type = String)]
    pub stream: StreamId,
    /// Which stripe.
    pub stripe: Stripe,
    /// The node at the other end.
    #[schema(value_type = String)]
    pub node: NodeId,
    /// Taken up by the child.
    pub confirmed: bool,
    /// Until it lapses unless renewed.
    pub expires_in_ms: u64,
}

impl TicketDto {
    fn new(end: TicketEndDto, view: &TicketView) -> Self {
        let id = view.ticket.0.to_string();
        let key = match end {
            TicketEndDto::Given => format!("given:{id}"),
            TicketEndDto::Held => format!("held:{id}@{}", view.node),
        };
        Self {
            key,
            id,
            end,
            stream: view.stream,
            stripe: view.stripe,
            node: view.node,
            confirmed: view.confirmed,
            expires_in_ms: view.expires_in_ms,
        }
    }

    /// The tickets of a snapshot.
    pub fn all(overlay: &Snapshot) -> impl Iterator<Item = Self> {
        let given = overlay.given.iter().map(|view| Self::new(TicketEndDto::Given, view));
        given.chain(overlay.held.iter().map(|view| Self::new(TicketEndDto::Held, view)))
    }
}

impl TicketsDto {
    /// One page of a snapshot's tickets.
    #[must_use]
    pub fn new(overlay: &Snapshot, page: &Page) -> Self {
        let mut tickets: Vec<TicketDto> = TicketDto::all(overlay).collect();
        tickets.sort_by(|a, b| a.key.cmp(&b.key));
        let (tickets, next) = paginate(tickets, page, |ticket| ticket.key.clone());
        Self { tickets, next }
    }
}
