//! `astral play`: a node that plays one stream into one or more sinks.
//!
//! Owns the choice of sinks and the end of playing. Does not own the node's stream nor the sinks
//! themselves.

use std::time::{Duration, Instant};

use anyhow::Context;
use astral_core::ids::StreamId;
use astral_pipelines::{PlaySink, PlaySpec, Player, PlayerEvent};
use clap::Args;
use serde_json::json;
use tokio::{
    sync::{broadcast, mpsc},
    task::JoinSet,
    time::timeout,
};

use super::{
    figures::{self, Figures},
    folders::Home,
    host::{Host, HostArgs},
    output::{Output, Usage},
    record::RecordArgs,
};
use crate::{
    edge::{
        ports::{MediaItem, MediaSource},
        sink::Sink,
        splice::{Clock, Splicer},
        watch_fitting,
    },
    node::{Event, Handle, Policy, StreamRef, WatchSpec},
};

/// Flags of `astral play`.
#[derive(Args, Debug)]
#[command(after_help = figures::help())]
pub struct PlayArgs {
    /// The stream: a link (`astral:...`) or the 64 digits of its id
    stream: String,
    /// Where to play: auto (a window when there is a display), window, fake (decode, show nothing),
    /// file:PATH or fd:N (every byte, nothing skipped); may be given several times
    #[arg(long, value_name = "SINK", default_value = "auto", value_parser = parse_sink)]
    sink: Vec<SinkChoice>,
    /// How far behind live to play: low (0.5s), normal (1.5s), safe (3s), auto, or a duration
    #[arg(long, value_name = "LAG", default_value = "normal", value_parser = parse_lag)]
    lag: Duration,
    /// Which rendition: auto (a lower one while the lag can't be held; files and pipes get the source's
    /// own), source, or a height such as 480p
    #[arg(long, value_name = "auto|source|480p", default_value = "auto", value_parser = parse_rendition)]
    rendition: RenditionChoice,
    /// Recording.
    #[command(flatten)]
    record: RecordArgs,
    /// The node.
    #[command(flatten)]
    pub host: HostArgs,
}

/// A parsed `--rendition`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum RenditionChoice {
    Auto,
    Source,
    Height(u16),
}

/// A parsed `--sink`.
#[derive(Clone, Debug)]
enum SinkChoice {
    Player(PlayerChoice),
    Bytes(Sink),
}

#[derive(Clone, Copy, Debug)]
enum PlayerChoice {
    Auto,
    Window,
    Fake,
}

/// Plays until the stream ends or the user stops.
///
/// # Errors
/// When the node does not start, a sink can't be opened, or the player fails.
pub async fn run(args: PlayArgs) -> anyhow::Result<()> {
    let stream: StreamRef = args.stream.parse().map_err(|e| Usage(format!("{e}")))?;
    let settings = args.host.settle()?;
    let is_stdout_media = args.sink.iter().any(SinkChoice::is_stdout);
    if is_stdout_media && settings.json {
        return Err(Usage(
            "--json and --sink fd:1 both write to stdout: give the media another descriptor, such as \
             --sink fd:3 with 3>FILE"
                .into(),
        )
        .into());
    }
    args.record.check()?;
    let mut host = Host::start(settings, &args.host, Home::Command("play")).await?;
    host.out.is_stdout_media = is_stdout_media;
    let mut ready = host.stream_fields(stream.id());
    ready["stream"] = json!(args.stream);
    host.announce_ready(ready);
    host.out.note(&format!("playing {}, {:?} behind live", args.stream, args.lag));
    let recording = args.record.start(&host.handle, stream.id(), host.out).await?;
    let told = host.handle.events();
    let (out, handle) = (host.out, host.handle.clone());
    let played = async {
        let stream = chosen(&handle, &stream, args.rendition).await?;
        let mut sinks = JoinSet::new();
        for choice in args.sink {
            let (policy, lag) = (choice.policy(args.lag), args.lag);
            let (id, handle) = (stream.id(), handle.clone());
            let fits =
                matches!(choice, SinkChoice::Player(_)) && args.rendition == RenditionChoice::Auto;
            let media: Box<dyn MediaSource> = if fits {
                watch_fitting(&handle, id, lag).await?
            } else {
                Box::new(handle.watch(&stream, WatchSpec { policy, lag }).await?)
            };
            sinks.spawn(async move {
                handle.panic_point("sink");
                match choice {
                    SinkChoice::Bytes(sink) => sink.write(media).await.map_err(Into::into),
                    SinkChoice::Player(player) => show(player, media, id, lag, out, &handle).await,
                }
            });
        }
        first_failure_or_end(sinks, told, stream.id()).await
    };
    let outcome = host.run_until(played).await;
    host.leave().await;
    recording.finish().await;
    outcome
}

/// Ends when every sink has ended, at once when one failed. When the stream is over, this node's
/// children get the rest of it first.
async fn first_failure_or_end(
    mut sinks: JoinSet<anyhow::Result<bool>>,
    mut told: broadcast::Receiver<Event>,
    stream: StreamId,
) -> anyhow::Result<()> {
    let mut over = false;
    while let Some(ended) = sinks.join_next().await {
        over |= ended.context("a sink's task")??;
    }
    let served = async {
        loop {
            match told.recv().await {
                Ok(Event::Ended { stream: ended, .. }) if ended == stream => return,
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    };
    if over {
        // Elapsed: somebody below does not take it; it has had its time.
        let _ = timeout(REST_MAX, served).await;
    }
    Ok(())
}

/// The children of a stream that is over have this long for its rest; the node itself gives them
/// less.
const REST_MAX: Duration = Duration::from_secs(8);

/// The stream that plays for this choice; a height is waited for until the stream announces it.
async fn chosen(
    handle: &Handle,
    stream: &StreamRef,
    choice: RenditionChoice,
) -> anyhow::Result<StreamRef> {
    let RenditionChoice::Height(height) = choice else { return Ok(stream.clone()) };
    // Watched meanwhile: that is how its announcement comes.
    let watched = handle.watch(stream, WatchSpec::live(RENDITION_LOOK)).await?;
    let begun = Instant::now();
    loop {
        let there = handle.renditions(stream.id()).await?;
        if let Some(found) = there.iter().find(|there| there.height == height) {
            let found = found.stream.into();
            drop(watched);
            handle.stop_if_unused(stream.id()).await?;
            return Ok(found);
        }
        if begun.elapsed() > RENDITIONS_MAX_WAIT {
            let there: Vec<_> = there.iter().map(|there| format!("{}p", there.height)).collect();
            let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
            anyhow::bail!("the stream announces no rendition of {height}p; it has {there}");
        }
        tokio::time::sleep(RENDITION_LOOK).await;
    }
}

/// How often it is looked which renditions a stream has ...
const RENDITION_LOOK: Duration = Duration::from_millis(500);
/// ... and for how long.
const RENDITIONS_MAX_WAIT: Duration = Duration::from_secs(20);

/// Feeds a GStreamer player.
async fn show(
    choice: PlayerChoice,
    mut media: Box<dyn MediaSource>,
    stream: StreamId,
    lag: Duration,
    out: Output,
    handle: &Handle,
) -> anyhow::Result<bool> {
    let spec = PlaySpec { sink: choice.into(), lag, ..PlaySpec::default() };
    let started = tokio::task::spawn_blocking(move || Player::start(&spec)).await;
    let (player, mut input, events) = started.context("starting the player")??;
    let figures = Figures::new(stream, lag);
    let watch = tokio::spawn(report(player, events, stream, figures, out, handle.clone()));
    let mut splicer = Splicer::new(Clock::Zero);
    let mut over = false;
    while let Some(item) = media.next().await {
        let flv = splicer.take(&item);
        if !flv.is_empty() && input.push(flv).await.is_err() {
            // The window was closed or the pipeline failed: `report` says which.
            break;
        }
        if matches!(item, MediaItem::Ended { .. }) {
            over = true;
            break;
        }
    }
    input.end();
    watch.await.context("the player's reporter")??;
    Ok(over)
}

/// Turns what the player says into events; ends with the player.
async fn report(
    player: Player,
    mut events: mpsc::Receiver<PlayerEvent>,
    stream: StreamId,
    mut figures: Figures,
    out: Output,
    handle: Handle,
) -> anyhow::Result<()> {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(PlayerEvent::FirstFrame) => {
                    out.event("first_frame", json!({"stream": stream}));
                }
                Some(PlayerEvent::Warning(text)) => tracing::warn!("{text}"),
                Some(PlayerEvent::Resized { width, height }) => {
                    out.event("resized", json!({"stream": stream, "width": width, "height": height}));
                }
                Some(PlayerEvent::Failed(message)) => anyhow::bail!("the player failed: {message}"),
                Some(PlayerEvent::Closed | PlayerEvent::Ended) => return Ok(()),
                None => anyhow::bail!("the player ended without a word"),
            },
            _ = tick.tick() => {
                handle.panic_point("player");
                let stats = player.stats();
                handle.note_player(stream, stats.frames_rendered, stats.audio_buffers);
                // A node that is gone ends the player by itself.
                if let Ok(snapshot) = handle.snapshot().await {
                    player.set_figures(&figures.text(&snapshot, &stats, Instant::now()));
                }
            }
        }
    }
}

impl SinkChoice {
    const fn is_stdout(&self) -> bool {
        matches!(self, Self::Bytes(Sink::Fd(1)))
    }

    fn policy(&self, lag: Duration) -> Policy {
        match self {
            Self::Player(_) => Policy::Live { lag },
            Self::Bytes(_) => Policy::KeepAll,
        }
    }
}

impl From<PlayerChoice> for PlaySink {
    fn from(choice: PlayerChoice) -> Self {
        match choice {
            PlayerChoice::Auto => Self::Auto,
            PlayerChoice::Window => Self::Window,
            PlayerChoice::Fake => Self::Fake,
        }
    }
}

fn parse_sink(text: &str) -> Result<SinkChoice, String> {
    match text {
        "auto" => Ok(SinkChoice::Player(PlayerChoice::Auto)),
        "window" => Ok(SinkChoice::Player(PlayerChoice::Window)),
        "fake" => Ok(SinkChoice::Player(PlayerChoice::Fake)),
        bytes => bytes.parse().map(SinkChoice::Bytes).map_err(|e| format!("{e}")),
    }
}

fn parse_rendition(text: &str) -> Result<RenditionChoice, String> {
    let height = || text.strip_suffix('p')?.parse().ok().filter(|height| *height > 0);
    match text {
        "auto" => Ok(RenditionChoice::Auto),
        "source" => Ok(RenditionChoice::Source),
        _ => height()
            .map(RenditionChoice::Height)
            .ok_or_else(|| "auto, source, or a height such as 480p".to_owned()),
    }
}

/// Presets: what a failover may cost against how far behind live one is.
fn parse_lag(text: &str) -> Result<Duration, String> {
    match text {
        "low" => Ok(Duration::from_millis(500)),
        "normal" | "auto" => Ok(Duration::from_millis(1_500)),
        "safe" => Ok(Duration::from_secs(3)),
        other => super::duration::parse(other)
            .map_err(|_| "low, normal, safe, auto, or a duration such as 2s or 800ms".to_owned()),
    }
}
