//! `GET /api/v1/doctor`: what is in order on this node, what is not, and what to do.
//!
//! Owns the route and its bound in time. Does not own the checks: the program that can, offers them.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use futures::future::BoxFuture;
use tokio::{sync::Mutex, time::timeout};

use super::{
    dto::{Check, DoctorDto},
    error::Problem,
    state::Api,
};

/// Looking for GStreamer's elements reads its registry, which may be made anew.
const EXAMINE_MAX: Duration = Duration::from_secs(20);

/// Examines the running node.
pub type Examine = Arc<dyn Fn() -> BoxFuture<'static, Vec<Check>> + Send + Sync>;

/// Who examines, once somebody does. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Doctor {
    examine: Arc<OnceLock<Examine>>,
    one: Arc<Mutex<()>>,
}

impl Doctor {
    /// Examines with `examine` from here on; the first one stays.
    pub(super) fn offer(&self, examine: Examine) {
        // A second offer is the same program's.
        let _ = self.examine.set(examine);
    }
}

/// Keys, clock, addresses, supernodes, GStreamer's elements and players.
///
/// Needs the token although it changes nothing: it names folders of the user's.
#[utoipa::path(get, path = "/doctor", tag = "node", security(("token" = [])), responses(
    (status = 200, description = "The report", body = DoctorDto),
    (status = 401, description = "The token is missing"),
    (status = 503, description = "This node can't be examined now"),
))]
pub(super) async fn show(
    State(api): State<Api>,
    headers: HeaderMap,
) -> Result<Json<DoctorDto>, Problem> {
    if !api.gate.authorised(&headers) {
        return Err(Problem::unauthorized());
    }
    let failed = |detail: &str| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no_doctor", detail);
    let Some(examine) = api.doctor.examine.get().cloned() else {
        return Err(failed("this node has no doctor; `astral doctor` examines the machine"));
    };
    let examined = timeout(EXAMINE_MAX, async {
        let _one_at_a_time = api.doctor.one.lock().await;
        examine().await
    });
    let checks = examined.await.map_err(|_| {
        failed("the examination takes longer than it should; `astral doctor` says more")
    })?;
    Ok(Json(DoctorDto::new(checks)))
}
