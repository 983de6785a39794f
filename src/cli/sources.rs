//! What `POST /streams` can capture on this machine: a camera, the screen, a test picture.
//!
//! Owns the bridge from captures to published streams. Does not own capture (`astral_pipelines`)
//! nor the API's table of streams.

use std::{sync::Arc, time::Duration};

use astral_core::units::Bitrate;
use astral_pipelines::{Capture, CaptureEvent, CaptureSource, CaptureSpec, Mic};
use futures::future::BoxFuture;
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    devices,
    encoder_rate::EncoderRate,
    ladder::{self, Height},
};
use crate::{
    api::{Encoded, Filler, Local, Opened, Published, Source, Wanted},
    node::Adaptive,
};

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

    fn spec(self, wanted: Wanted) -> Result<CaptureSpec, String> {
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
        let width = wanted.width.map_or(standard.width, u32::from);
        let height = wanted.height.map_or(standard.height, u32::from);
        let kbps = wanted.bitrate_bps.map_or(standard.video_bitrate_kbps, |bps| bps / 1_000);
        let known = |pixels: &u16| {
            Height::of_pixels(*pixels).ok_or_else(|| {
                format!("renditions are of 720, 480, 360 or 240 lines, not {pixels}")
            })
        };
        let heights: Vec<Height> = wanted.renditions.iter().map(known).collect::<Result<_, _>>()?;
        Ok(CaptureSpec {
            source,
            width,
            height,
            fps: wanted.fps.map_or(standard.fps, u32::from),
            video_bitrate_kbps: kbps,
            renditions: ladder::smaller(&heights, (width, height), kbps)?,
            ..standard
        })
    }
}

/// What the capture of `spec` makes.
fn encoded(spec: &CaptureSpec, adaptive: bool) -> Encoded {
    let picture = Bitrate::from_kbps(spec.video_bitrate_kbps.into());
    let sound = Bitrate::from_kbps(spec.audio_bitrate_kbps.into());
    Encoded {
        rate: Some(Bitrate::from_bps(picture.as_bps() + sound.as_bps())),
        adaptive: adaptive.then_some(Adaptive { picture, sound }),
        lower: ladder::published(&spec.renditions, spec.audio_bitrate_kbps),
    }
}

impl Source for Kind {
    fn open(&self, wanted: Wanted) -> BoxFuture<'_, Result<Opened, String>> {
        let adaptive = wanted.adaptive;
        let spec = self.spec(wanted);
        Box::pin(async move {
            let spec = spec?;
            let encoded = encoded(&spec, adaptive);
            // Opening hardware blocks.
            let opened = tokio::task::spawn_blocking(move || Capture::start(&spec));
            let slow = || "the device does not open: is another program using it?".to_owned();
            let opened = timeout(OPEN_MAX, opened).await.map_err(|_| slow())?;
            let (capture, events) =
                opened.map_err(|_| slow())?.map_err(|error| error.to_string())?;
            if adaptive && !capture.can_change_bitrate() {
                return Err("the encoder here keeps its rate: not adaptive".to_owned());
            }
            let filler: Filler =
                Box::new(move |stream, stop| Box::pin(fill(capture, events, stream, stop)));
            Ok(Opened { filler, encoded })
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
        let mut feeding = std::pin::pin!(feed(&capture, &mut events, &mut *stream));
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

async fn feed(
    capture: &Capture,
    events: &mut mpsc::Receiver<CaptureEvent>,
    stream: &mut dyn Published,
) {
    let mut rate = EncoderRate::new(stream.picture_rate());
    while let Some(event) = events.recv().await {
        match event {
            CaptureEvent::Bytes(flv) => {
                if let Err(error) = stream.push_flv(flv).await {
                    tracing::warn!(%error, "the captured stream ends");
                    return;
                }
                rate.follow(stream.picture_rate(), capture);
            }
            CaptureEvent::Rendition { number, begins, bytes } => {
                if let Err(error) = stream.push_lower(number, begins, bytes).await {
                    tracing::warn!(%error, "the captured stream ends");
                    return;
                }
            }
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
        let spec = Kind::Test.spec(Wanted::default()).unwrap();
        assert_eq!(spec, CaptureSpec::default());
        let wanted =
            Wanted { bitrate_bps: Some(800_000), mic: Some("none".into()), ..Wanted::default() };
        let spec = Kind::Camera.spec(wanted).unwrap();
        assert_eq!(spec.video_bitrate_kbps, 800);
        assert_eq!(spec.source, CaptureSource::Camera { device: None, mic: Mic::None });
    }
    #[test]
    fn renditions_and_an_adaptive_encoder_are_told_to_the_publisher() {
        let wanted = Wanted { renditions: vec![240, 480], ..Wanted::default() };
        let spec = Kind::Test.spec(wanted).unwrap();
        let heights: Vec<u32> = spec.renditions.iter().map(|one| one.height).collect();
        assert_eq!(heights, [480, 240]);
        let made = encoded(&spec, true);
        assert_eq!(made.lower.len(), 2);
        assert_eq!(made.adaptive.unwrap().picture, Bitrate::from_kbps(2_500));
        for pixels in [0, 100, 720] {
            let wanted = Wanted { renditions: vec![pixels], ..Wanted::default() };
            assert!(Kind::Test.spec(wanted).is_err(), "{pixels}");
        }
    }
}
