//! Errors, as RFC 9457 writes them.
//!
//! Owns their JSON. Does not own which error is which (see `error`).

use serde::Serialize;
use utoipa::ToSchema;

/// Why a request failed; its type is `application/problem+json`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct ProblemDto {
    /// Always `about:blank`: the title says what the status says.
    pub r#type: &'static str,
    /// The status in words.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What went wrong, for programs.
    pub code: &'static str,
    /// What went wrong and what to do, for people.
    pub detail: String,
    /// When another try makes sense.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_ms: Option<u64>,
}
