//! `astral publish`: a node that publishes one stream.
//!
//! Owns where the media comes from and how it reaches the publisher. Does not own capture itself
//! (`astral_pipelines`) nor RTMP (`edge::rtmp`).

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use astral_core::{ids::StreamName, units::Bitrate};
use astral_pipelines::{
    AUDIO_KBPS, Capture, CaptureEvent, CaptureSource, CaptureSpec, Encoder, Mic, RenditionSpec,
};
use clap::{ArgGroup, Args, ValueEnum};
use serde_json::json;
use tokio::sync::mpsc;

use super::{
    encoder_rate::{EncoderRate, kbps},
    folders::Home,
    host::{Host, HostArgs},
    ladder::{self, Height},
    output::{Output, Usage},
    record::RecordArgs,
};
use crate::{
    config::Picture,
    node::{Adaptive, Handle, Ladder, PublishSpec, PushError},
};

/// Flags of `astral publish`.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("from").required(true).multiple(false)
    .args(["camera", "screen", "test", "file", "pipeline", "rtmp_in"]))]
pub struct PublishArgs {
    /// Name of the stream, 1 to 128 characters
    name: String,
    /// Capture a camera: the first one, or DEVICE as `astral devices` lists it
    #[arg(long, value_name = "DEVICE", num_args = 0..=1, default_missing_value = "", help_heading = "From")]
    camera: Option<String>,
    /// Capture the screen
    #[arg(long, help_heading = "From")]
    screen: bool,
    /// A moving test picture with a clock and a beep
    #[arg(long, help_heading = "From")]
    test: bool,
    /// Loop a media file as a live stream
    #[arg(long, value_name = "FILE", help_heading = "From")]
    file: Option<PathBuf>,
    /// A GStreamer description of your own, ending in `appsink name=out` with FLV
    #[arg(long, value_name = "FILE.launch", help_heading = "From")]
    pipeline: Option<PathBuf>,
    /// Wait for an encoder (OBS, ffmpeg) to push over RTMP
    #[arg(long, help_heading = "From")]
    rtmp_in: bool,
    /// How long an encoder that broke off or stopped is waited for before the broadcast ends
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration, help_heading = "From")]
    reconnect: Duration,
    /// Microphone with --camera and --screen: a device, `default`, or `none`
    #[arg(
        long,
        value_name = "DEVICE|default|none",
        default_value = "default",
        help_heading = "From"
    )]
    mic: String,
    /// The picture.
    #[command(flatten)]
    picture: Picture,
    /// Encoder; auto picks hardware that really works here
    #[arg(long, value_enum, default_value_t, help_heading = "Picture")]
    encoder: EncoderChoice,
    /// Also publish a smaller picture for viewers whose lag can't be held: 720p, 480p, 360p or 240p;
    /// may be given several times
    #[arg(
        long = "rendition",
        value_name = "HEIGHT",
        conflicts_with = "rtmp_in",
        help_heading = "Picture"
    )]
    renditions: Vec<Height>,
    /// Let the encoder follow the uplink: lower where one copy of --bitrate does not fit, up again
    /// when it does
    #[arg(long, conflicts_with = "rtmp_in", help_heading = "Picture")]
    adaptive: bool,
    /// Number of stripes: 1, 2, 4, 8 or 16 [default: so that one stripe is 250-400 kbit/s]
    #[arg(long, value_name = "K", value_parser = stripes)]
    stripes: Option<u8>,
    /// A line about the stream for lists [default: its name]
    #[arg(long)]
    title: Option<String>,
    /// A paragraph about the stream
    #[arg(long, default_value = "")]
    description: String,
    /// A word to find it by; may be given several times
    #[arg(long = "tag", value_name = "WORD")]
    tags: Vec<String>,
    /// Show it on this machine alone until `astral ctl` or the page goes live
    #[arg(long)]
    preview: bool,
    /// Also write exactly what is sent, as FLV
    #[arg(long, value_name = "FILE.flv")]
    tee: Option<PathBuf>,
    /// Recording.
    #[command(flatten)]
    record: RecordArgs,
    /// The node.
    #[command(flatten)]
    pub host: HostArgs,
}

/// As `--encoder` takes it.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum EncoderChoice {
    #[default]
    Auto,
    X264,
    #[value(name = "openh264")]
    OpenH264,
    Vaapi,
    Nvenc,
    V4l2,
    #[value(name = "videotoolbox")]
    VideoToolbox,
}

/// Publishes until the source ends or the user stops.
///
/// # Errors
/// When the node does not start, the device or file is not there, or the pipeline fails.
pub async fn run(mut args: PublishArgs) -> anyhow::Result<()> {
    let name = StreamName::new(args.name.as_str()).map_err(|e| Usage(e.to_string()))?;
    let settings = args.host.settle()?;
    args.picture = args.picture.or(settings.picture);
    let spec = args.publish_spec(name.clone());
    spec.check().map_err(|e| Usage(e.to_string()))?;
    let renditions = args.renditions()?;
    args.record.check()?;
    // The source comes first: a missing camera is said before the network hears of anything.
    let capture = match args.capture_spec(&renditions) {
        Some(capture) => Some(
            tokio::task::spawn_blocking(move || Capture::start(&capture))
                .await
                .context("starting the capture")??,
        ),
        None => None,
    };
    let can_adapt = capture.as_ref().is_some_and(|(capture, _)| capture.can_change_bitrate());
    if args.adaptive && !can_adapt {
        return Err(Usage(
            "--adaptive: nothing is encoded here whose rate could change: the file's own H.264 is sent \
             as it is, or the description brings an encoder of its own instead of {encoder}"
                .into(),
        )
        .into());
    }
    let mut host = Host::start(settings, &args.host, Home::Stream(&name)).await?;
    let mut published =
        host.handle.publish_ladder(spec, &ladder::published(&renditions, AUDIO_KBPS)).await?;
    if let Some(path) = &args.tee {
        published
            .whole
            .tee(path)
            .await
            .with_context(|| format!("can't write what is sent to {} (--tee)", path.display()))?;
    }
    let (id, link) = (published.whole.id(), published.whole.link().to_string());
    let recording = args.record.start_each(&host.handle, id, host.out).await?;
    let mut ready = host.stream_fields(id);
    ready["stream"] = json!(link);
    let outcome = match capture {
        Some((capture, events)) => {
            ready["encoder"] = json!(capture.encoder_name());
            host.announce_ready(ready);
            host.out.note(&format!("publishing {link}"));
            let end_wanted = published.whole.end_wanted();
            let (out, handle) = (host.out, host.handle.clone());
            let fed = async {
                tokio::select! {
                    outcome = feed(&mut published, &capture, events, out, &handle) => outcome,
                    // By the API: an end like any other.
                    () = end_wanted => Ok(()),
                }
            };
            let outcome = host.run_until(fed).await;
            capture.stop();
            published.end().await;
            outcome
        }
        None => {
            let ingest = host
                .local
                .ingest(published.whole, args.reconnect)
                .context("preparing the RTMP key")?;
            let url = ingest.url.clone();
            ready["publish_url"] = json!(url);
            host.announce_ready(ready);
            let (server, key) = url.rsplit_once('/').unwrap_or((&url, ""));
            host.out.say(&format!("In OBS:  Server {server}   Stream key {key}"));
            if let Some(server) = host.local.rtmps_url() {
                host.out.say(&format!("By TLS:  Server {server}   the same key"));
            }
            host.out
                .say(&format!("ffmpeg:  ffmpeg -re -i FILE -c:v libx264 -c:a aac -f flv {url}"));
            host.run_until(async { ingest.ended().await.map_err(Into::into) }).await
        }
    };
    host.leave().await;
    recording.finish().await;
    outcome
}

/// Moves captured bytes into the stream until the capture ends.
async fn feed(
    published: &mut Ladder,
    capture: &Capture,
    mut events: mpsc::Receiver<CaptureEvent>,
    out: Output,
    handle: &Handle,
) -> anyhow::Result<()> {
    let mut is_lost = false;
    let mut rate = EncoderRate::new(published.whole.picture_rate());
    loop {
        let event = events.recv().await.context("the capture ended without a word")?;
        handle.panic_point("source");
        match event {
            CaptureEvent::Bytes(flv) => match published.whole.push(flv).await {
                Err(PushError::Ended) => return Ok(()),
                outcome => {
                    outcome?;
                    rate.follow(published.whole.picture_rate(), capture);
                }
            },
            CaptureEvent::Rendition { number, begins, bytes } => {
                match published.push_lower(number, begins, bytes).await {
                    Err(PushError::Ended) => return Ok(()),
                    outcome => outcome?,
                }
            }
            CaptureEvent::Restarted => {
                published.whole.restart();
                published.pause(false).await?;
                if std::mem::take(&mut is_lost) {
                    out.event("device_back", json!({"stream": published.whole.id()}));
                    out.note("the device is back: the stream goes on");
                }
            }
            CaptureEvent::Warning(text) => tracing::warn!("{text}"),
            CaptureEvent::DeviceLost { message } => {
                is_lost = true;
                tracing::error!(
                    "the device is gone: {message}; the stream pauses until it is back"
                );
                let lost = json!({"stream": published.whole.id(), "message": message});
                out.event("device_lost", lost);
                published.pause(true).await?;
            }
            CaptureEvent::Failed(message) => anyhow::bail!("the capture failed: {message}"),
            CaptureEvent::Ended => return Ok(()),
        }
    }
}

impl PublishArgs {
    /// What to capture; `None` when an encoder brings the media.
    fn capture_spec(&self, renditions: &[RenditionSpec]) -> Option<CaptureSpec> {
        let mic = || match self.mic.as_str() {
            "default" => Mic::Default,
            "none" => Mic::None,
            device => Mic::Device(device.to_owned()),
        };
        let source = if let Some(device) = &self.camera {
            let device = Some(device.clone()).filter(|device| !device.is_empty());
            CaptureSource::Camera { device, mic: mic() }
        } else if self.screen {
            CaptureSource::Screen { mic: mic() }
        } else if let Some(file) = &self.file {
            CaptureSource::File(file.clone())
        } else if let Some(description) = &self.pipeline {
            CaptureSource::Launch(description.clone())
        } else if self.test {
            CaptureSource::Test
        } else {
            return None;
        };
        let (width, height) = self.picture.size();
        Some(CaptureSpec {
            source,
            width,
            height,
            fps: self.picture.fps(),
            video_bitrate_kbps: kbps(self.picture.bitrate()),
            encoder: self.encoder.into(),
            renditions: renditions.to_vec(),
            ..CaptureSpec::default()
        })
    }

    /// The smaller pictures, the best first.
    fn renditions(&self) -> anyhow::Result<Vec<RenditionSpec>> {
        let kbps = kbps(self.picture.bitrate());
        Ok(ladder::smaller(&self.renditions, self.picture.size(), kbps).map_err(Usage)?)
    }

    fn publish_spec(&self, name: StreamName) -> PublishSpec {
        // A file and an encoder keep their own rate, which is measured.
        let has_own_rate = !self.adaptive && self.renditions.is_empty();
        let encoded_here = self.camera.is_some() || self.screen || self.test || !has_own_rate;
        let audio = Bitrate::from_kbps(AUDIO_KBPS.into());
        let adaptive = Adaptive { picture: self.picture.bitrate(), sound: audio };
        PublishSpec {
            title: self.title.clone().unwrap_or_else(|| name.to_string()),
            name,
            description: self.description.clone(),
            tags: self.tags.clone(),
            k: self.stripes,
            preview: self.preview,
            adaptive: self.adaptive.then_some(adaptive),
            rate: encoded_here
                .then(|| Bitrate::from_bps(self.picture.bitrate().as_bps() + audio.as_bps())),
            renditions: Vec::new(),
            rendition_of: None,
        }
    }
}

impl From<EncoderChoice> for Encoder {
    fn from(choice: EncoderChoice) -> Self {
        match choice {
            EncoderChoice::Auto => Self::Auto,
            EncoderChoice::X264 => Self::X264,
            EncoderChoice::OpenH264 => Self::OpenH264,
            EncoderChoice::Vaapi => Self::Vaapi,
            EncoderChoice::Nvenc => Self::Nvenc,
            EncoderChoice::V4l2 => Self::V4l2,
            EncoderChoice::VideoToolbox => Self::VideoToolbox,
        }
    }
}

fn stripes(text: &str) -> Result<u8, String> {
    match text {
        "1" => Ok(1),
        "2" => Ok(2),
        "4" => Ok(4),
        "8" => Ok(8),
        "16" => Ok(16),
        _ => Err("1, 2, 4, 8 or 16".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stripes_are_powers_of_two_up_to_sixteen() {
        assert_eq!(stripes("8"), Ok(8));
        assert!(stripes("3").is_err() && stripes("32").is_err());
    }
}
