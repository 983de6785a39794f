//! The doctor's report and the end of the log.
//!
//! Owns their JSON. Does not own the checks.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// How a check went.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// In order.
    Ok,
    /// Something does not work that not everybody needs.
    Warn,
    /// Astral does not work like this.
    Bad,
}

/// One line of the report.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// How it went.
    pub verdict: Verdict,
    /// What was found.
    pub message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// `GET /doctor`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct DoctorDto {
    /// No check is bad.
    pub ok: bool,
    /// Each thing that was looked at.
    pub checks: Vec<Check>,
}

impl DoctorDto {
    /// The report of these checks.
    #[must_use]
    pub fn new(checks: Vec<Check>) -> Self {
        Self { ok: checks.iter().all(|check| check.verdict != Verdict::Bad), checks }
    }
}

/// The query of `GET /logs`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LogsQuery {
    /// Lines at most.
    #[serde(default = "lines")]
    #[param(minimum = 1, maximum = 1_000, default = 200)]
    pub lines: usize,
}

const fn lines() -> usize {
    200
}

/// `GET /logs`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct LogsDto {
    /// The last lines, oldest first.
    pub lines: Vec<String>,
}
