//! `astral play`: a node that plays one stream into one or more sinks.
//!
//! Owns the choice of sinks and the end of playing. Does not own the node's stream nor the sinks
//! themselves.

use std::time::Duration;

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
    },
    node::{Event, Handle, Playback, Policy, StreamRef, WatchSpec},
};

/// Flags of `astral play`.
#[derive(Args, Debug)]
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
    /// Recording.
    #[command(flatten)]
    record: RecordArgs,
    /// The node.
    #[command(flatten)]
    pub host: HostArgs,
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
    let mut sinks = JoinSet::new();
    for choice in args.sink {
        let (policy, lag) = (choice.policy(args.lag), args.lag);
        let playback = host.handle.watch(&stream, WatchSpec { policy, lag }).await?;
        let (out, handle) = (host.out, host.handle.clone());
        sinks.spawn(async move {
            handle.panic_point("sink");
            match choice {
                SinkChoice::Bytes(sink) => sink.write(playback).await.map_err(Into::into),
                SinkChoice::Player(player) => show(player, playback, lag, out, &handle).await,
            }
        });
    }
    let told = host.handle.events();
    let outcome = host.run_until(first_failure_or_end(sinks, told, stream.id())).await;
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

/// Feeds a GStreamer player.
async fn show(
    choice: PlayerChoice,
    mut playback: Playback,
    lag: Duration,
    out: Output,
    handle: &Handle,
) -> anyhow::Result<bool> {
    let spec = PlaySpec { sink: choice.into(), lag, ..PlaySpec::default() };
    let started = tokio::task::spawn_blocking(move || Player::start(&spec)).await;
    let (player, mut input, events) = started.context("starting the player")??;
    let stream = playback.id;
    let watch = tokio::spawn(report(player, events, stream, out, handle.clone()));
    let mut splicer = Splicer::new(Clock::Zero);
    let mut over = false;
    while let Some(item) = MediaSource::next(&mut playback).await {
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
