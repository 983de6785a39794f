//! `GET /api/v1/devices`: what this node's machine can capture.
//!
//! Owns the route and its bound in time. Does not own looking for devices: the program that can,
//! offers it.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{Json, extract::State, http::StatusCode};
use tokio::{sync::Semaphore, time::timeout};

use super::{
    dto::{DeviceDto, DevicesDto},
    error::Problem,
    state::Api,
};

/// Looking for devices may have to wake hardware; a driver that hangs is not waited for.
const LOOK_MAX: Duration = Duration::from_secs(10);

/// Looks for devices; may block.
pub type LookForDevices = Arc<dyn Fn() -> Result<Vec<DeviceDto>, String> + Send + Sync>;

/// Who looks for devices, once somebody does. Clones share it.
#[derive(Clone)]
pub(super) struct Devices {
    look: Arc<OnceLock<LookForDevices>>,
    /// One at a time: a hanging driver costs one thread, not one a request.
    one: Arc<Semaphore>,
}

impl Default for Devices {
    fn default() -> Self {
        Self { look: Arc::default(), one: Arc::new(Semaphore::new(1)) }
    }
}

impl Devices {
    /// Looks with `look` from here on; the first one stays.
    pub(super) fn offer(&self, look: LookForDevices) {
        // A second offer is the same program's.
        let _ = self.look.set(look);
    }

    async fn look(&self) -> Result<Vec<DeviceDto>, Problem> {
        let failed =
            |detail: String| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no_devices", detail);
        let Some(look) = self.look.get().cloned() else {
            return Err(failed("this node captures nothing".into()));
        };
        let slow =
            "looking for devices takes longer than a driver should; `astral devices` says more";
        let found = timeout(LOOK_MAX, async {
            let permit = self.one.clone().acquire_owned().await;
            tokio::task::spawn_blocking(move || {
                let _held = permit;
                look()
            })
            .await
        });
        let found = found.await.map_err(|_| failed(slow.into()))?;
        found.map_err(|_| failed("looking for devices failed".into()))?.map_err(failed)
    }
}

/// Cameras, microphones and screens of the node's machine.
#[utoipa::path(get, path = "/devices", tag = "node", responses(
    (status = 200, description = "What can be captured", body = DevicesDto),
    (status = 503, description = "They can't be listed"),
))]
pub(super) async fn list(State(api): State<Api>) -> Result<Json<DevicesDto>, Problem> {
    Ok(Json(DevicesDto { devices: api.devices.look().await? }))
}
