//! What `POST /streams` can capture on this machine: a camera, the screen, a test picture.
//!
//! Owns the bridge from captures to published streams. Does not own capture (`astral_pipelines`)
//! nor the API's table of streams.

use std::{sync::Arc, time::Duration};

use astral_pipelines::{Capture, CaptureEvent, CaptureSource, CaptureSpec, Mic};
use futures::future::BoxFuture;
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use super::devices;
use crate::api::{Filler, Local, Published, Source, Wanted};

/// A device that does not open within this is not waited for.
const OPEN_MAX: Duration = Duration::from_secs(15);
/// From the request to stop to the capture's last bytes.
const LAST_BYTES_MAX: Duration = Duration::from_secs(3);

/// Lets the local API capture, and list devices.
pub fn offer(local: &Local) {
    local.offer_devices(Arc::new(devices::for_api));
    for kind in [Kind::Camera, Kind::Screen, Kind::Test] {
        local.offer_source(kind.name(), Arc::new(kind));
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Camera,
    Screen,
    Test,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Camera => "camera",
            Self::Screen => "screen",
            Self::Test => "test",
        }
    }

    fn spec(self, wanted: Wanted) -> CaptureSpec {
        let mic = match wanted.mic.as_deref() {
            None | Some("default") => Mic::Default,
            Some("none") => Mic::None,
            Some(device) => Mic::Device(device.to_owned()),
        };
        let source = match self {
            Self::Camera => CaptureSource::Camera { device: wanted.device, mic },
            Self::Screen => CaptureSource::Screen { mic },
            Self::Test => CaptureSource::Test,
        };
        let standard = CaptureSpec::default();
        CaptureSpec {
            source,
            width: wanted.width.map_or(standard.width, u32::from),
            height: wanted.height.map_or(standard.height, u32::from),
            fps: wanted.fps.map_or(standard.fps, u32::from),
            video_bitrate_kbps: wanted
                .bitrate_bps
                .map_or(standard.video_bitrate_kbps, |bps| bps / 1_000),
            ..standard
        }
    }
}

impl Source for Kind {
    fn open(&self, wanted: Wanted) -> BoxFuture<'_, Result<Filler, String>> {
        let spec = self.spec(wanted);
        Box::pin(async move {
            // Opening hardware blocks.
            let opened = tokio::task::spawn_blocking(move || Capture::start(&spec));
            let slow = || "the device does not open: is another program using it?".to_owned();
            let opened = timeout(OPEN_MAX, opened).await.map_err(|_| slow())?;
            let (capture, events) =
                opened.map_err(|_| slow())?.map_err(|error| error.to_string())?;
            let filler: Filler =
                Box::new(move |stream, stop| Box::pin(fill(capture, events, stream, stop)));
            Ok(filler)
        })
    }
}

async fn fill(
    capture: Capture,
    mut events: mpsc::Receiver<CaptureEvent>,
    mut stream: Box<dyn Published>,
    stop: CancellationToken,
) {
    {
        let mut feeding = std::pin::pin!(feed(&mut events, &mut *stream));
        tokio::select! {
            () = &mut feeding => {}
            () = stop.cancelled() => {
                capture.stop();
                // What was captured so far still goes out; a device that hangs is not waited for.
                let _ = timeout(LAST_BYTES_MAX, feeding).await;
            }
        }
    }
    stream.end().await;
}

async fn feed(events: &mut mpsc::Receiver<CaptureEvent>, stream: &mut dyn Published) {
    while let Some(event) = events.recv().await {
        match event {
            CaptureEvent::Bytes(flv) => {
                if let Err(error) = stream.push_flv(flv).await {
                    tracing::warn!(%error, "the captured stream ends");
                    return;
                }
            }
            // Asked for by the command line alone.
            CaptureEvent::Rendition { .. } => {}
            CaptureEvent::Restarted => {
                stream.restart();
                if stream.idle(false).await.is_err() {
                    return;
                }
            }
            CaptureEvent::Warning(text) => tracing::warn!("{text}"),
            CaptureEvent::DeviceLost { message } => {
                tracing::error!(
                    "the device is gone: {message}; the stream pauses until it is back"
                );
                if stream.idle(true).await.is_err() {
                    return;
                }
            }
            CaptureEvent::Failed(message) => {
                tracing::error!("the capture failed: {message}");
                return;
            }
            CaptureEvent::Ended => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_asked_for_is_as_publish_would_have_it() {
        let spec = Kind::Test.spec(Wanted::default());
        assert_eq!(spec, CaptureSpec::default());
        let wanted =
            Wanted { bitrate_bps: Some(800_000), mic: Some("none".into()), ..Wanted::default() };
        let spec = Kind::Camera.spec(wanted);
        assert_eq!(spec.video_bitrate_kbps, 800);
        assert_eq!(spec.source, CaptureSource::Camera { device: None, mic: Mic::None });
    }
}
