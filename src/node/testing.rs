//! Helpers of the tests that run whole nodes in one process.
//!
//! Owns a synthetic encoder and the start of ephemeral nodes on loopback. Does not own any check.

use std::{sync::Arc, time::Duration};

use astral_core::{
    ids::{StreamId, StreamName},
    media::flv::{Tag, TagKind, write_header},
};
use bytes::{Bytes, BytesMut};
use tokio::{
    sync::{Mutex, broadcast},
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, timeout, timeout_at},
};

use super::{
    Event, Handle, Multiaddr, Node, NodeConfig, Playback, PlaybackItem, PublishSpec, Publisher,
    Running, StreamRef, WatchSpec,
};

/// Nothing in these tests takes longer than this, even on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How a node listens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    Tcp,
    Quic,
}

impl Transport {
    fn listen(self) -> Multiaddr {
        let text = match self {
            Self::Tcp => "/ip4/127.0.0.1/tcp/0",
            Self::Quic => "/ip4/127.0.0.1/udp/0/quic-v1",
        };
        text.parse().unwrap()
    }
}

/// An ephemeral node on loopback.
pub struct TestNode {
    pub handle: Handle,
    pub running: Running,
    pub events: broadcast::Receiver<Event>,
}

impl TestNode {
    pub async fn start(
        transport: Transport,
        bootstrap: &[&Self],
        tweak: impl FnOnce(&mut NodeConfig),
    ) -> Self {
        let mut config = NodeConfig {
            listen: vec![transport.listen()],
            bootstrap: bootstrap.iter().flat_map(|node| node.handle.listen_addrs()).collect(),
            mdns: false,
            panic_in: None,
            ..NodeConfig::default()
        };
        tweak(&mut config);
        let (handle, running) = Node::start(config).await.unwrap();
        let events = handle.events();
        Self { handle, running, events }
    }

    /// The first event for which `pick` answers.
    pub async fn event<T>(&mut self, pick: impl FnMut(&Event) -> Option<T>) -> T {
        self.event_within(PATIENCE, pick).await
    }

    pub async fn event_within<T>(
        &mut self,
        patience: Duration,
        mut pick: impl FnMut(&Event) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + patience;
        let mut seen = Vec::new();
        loop {
            let event = timeout_at(deadline, self.events.recv()).await;
            let Ok(event) = event else { panic!("not in time; seen: {seen:#?}") };
            let event = event.unwrap();
            if let Some(found) = pick(&event) {
                return found;
            }
            seen.push(event);
        }
    }

    pub async fn listed(&mut self, stream: StreamId) {
        let known = self.handle.snapshot().await.unwrap().overlay.streams;
        if known.iter().any(|known| known.stream == stream) {
            return;
        }
        self.event(|event| {
            matches!(event, Event::StreamListed { stream: listed, .. } if *listed == stream)
                .then_some(())
        })
        .await;
    }

    pub async fn watch(&self, stream: StreamId) -> Playback {
        let spec = WatchSpec::keep_all(Duration::from_millis(1_500));
        self.handle.watch(&StreamRef::Id(stream), spec).await.unwrap()
    }

    /// Dies without a word to anybody, as by `kill -9`.
    pub async fn kill(self) {
        self.handle.shared.inner.tasks.kill();
        self.handle.shared.inner.tasks.wait().await;
    }
}

/// A source that pushes 25 frames a second, with sound, in real time.
pub struct Encoder {
    pub stream: StreamId,
    task: JoinHandle<Publisher>,
    stop: Arc<Mutex<bool>>,
    tee: tempfile::NamedTempFile,
}

impl Encoder {
    pub async fn start(node: &TestNode, name: &str, k: u8, kbps: usize) -> Self {
        let spec = PublishSpec { k: Some(k), ..PublishSpec::named(StreamName::new(name).unwrap()) };
        let mut publisher = node.handle.publish(spec).await.unwrap();
        let tee = tempfile::NamedTempFile::new().unwrap();
        publisher.tee(tee.path()).await.unwrap();
        let stream = publisher.id();
        let stop = Arc::new(Mutex::new(false));
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut pace = interval(Duration::from_millis(40));
            pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
            publisher.push(flv_start()).await.unwrap();
            for frame in 0_u32.. {
                pace.tick().await;
                if *stopped.lock().await {
                    break;
                }
                publisher.push(flv_frame(frame, kbps * 1_000 / 8 / 25)).await.unwrap();
            }
            publisher
        });
        Self { stream, task, stop, tee }
    }

    /// Ends the stream; gives what was cut.
    pub async fn end(self) -> Vec<u8> {
        *self.stop.lock().await = true;
        self.task.await.unwrap().end().await;
        std::fs::read(self.tee.path()).unwrap()
    }
}

fn flv_start() -> Bytes {
    let mut out = BytesMut::new();
    out.extend_from_slice(&write_header(true, true));
    let header = |kind, body: &'static [u8]| Tag { kind, timestamp_ms: 0, body: body.into() };
    header(TagKind::Video, &[0x17, 0, 0, 0, 0, 1, 0x64, 0, 0x1f, 0xff, 0xe1, 0, 0]).write(&mut out);
    header(TagKind::Audio, &[0xaf, 0, 0x12, 0x10]).write(&mut out);
    out.freeze()
}

fn flv_frame(frame: u32, bytes: usize) -> Bytes {
    let mut out = BytesMut::new();
    let timestamp_ms = frame * 40;
    let is_key = frame.is_multiple_of(25);
    let size = if is_key { bytes * 4 } else { bytes };
    let mut body = vec![if is_key { 0x17 } else { 0x27 }, 1, 0, 0, 0];
    let mut noise = frame.wrapping_mul(2_654_435_761) | 1;
    body.extend((0..size).map(|_| {
        noise ^= noise << 13;
        noise ^= noise >> 17;
        noise ^= noise << 5;
        noise.to_be_bytes()[0]
    }));
    let sound = [&[0xaf, 1][..], &frame.to_be_bytes(), &[0x55; 60]].concat();
    Tag { kind: TagKind::Audio, timestamp_ms, body: sound.into() }.write(&mut out);
    Tag { kind: TagKind::Video, timestamp_ms, body: body.into() }.write(&mut out);
    out.freeze()
}

/// Reads a playback to its end, in the background.
pub struct Recorder {
    task: JoinHandle<Recording>,
    size: Arc<std::sync::atomic::AtomicUsize>,
}

/// What a playback gave.
#[derive(Debug, Default)]
pub struct Recording {
    pub bytes: Vec<u8>,
    pub skips: usize,
    pub ended: bool,
}

impl Recorder {
    pub fn start(mut playback: Playback) -> Self {
        let size = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = Arc::clone(&size);
        let task = tokio::spawn(async move {
            let mut recording = Recording::default();
            while let Some(item) = playback.next().await {
                match item {
                    PlaybackItem::Flv(bytes) => {
                        recording.bytes.extend_from_slice(&bytes);
                        counted.store(recording.bytes.len(), std::sync::atomic::Ordering::Relaxed);
                    }
                    PlaybackItem::Skipped { .. } => recording.skips += 1,
                    PlaybackItem::Ended(_) => recording.ended = true,
                    PlaybackItem::NewEpoch
                    | PlaybackItem::Paused
                    | PlaybackItem::Resumed
                    | PlaybackItem::SourceLost
                    | PlaybackItem::SourceBack => {}
                }
            }
            recording
        });
        Self { task, size }
    }

    /// Until this many bytes have come.
    pub async fn has(&self, bytes: usize) {
        let enough = async {
            let mut look = interval(Duration::from_millis(20));
            while self.size.load(std::sync::atomic::Ordering::Relaxed) < bytes {
                look.tick().await;
            }
        };
        assert!(timeout(PATIENCE, enough).await.is_ok(), "{bytes} bytes in vain");
    }

    /// Bytes that have come so far.
    pub fn size(&self) -> usize {
        self.size.load(std::sync::atomic::Ordering::Relaxed)
    }

    pub async fn finish(self) -> Recording {
        timeout(PATIENCE, self.task).await.unwrap().unwrap()
    }
}

/// The viewer's bytes are the init segment and then exactly the source's, from one keyframe on.
pub fn assert_identical(recording: &Recording, tee: &[u8]) {
    let init = flv_start();
    let mine = recording.bytes.strip_prefix(&init[..]).expect("begins with the init segment");
    let theirs = tee.strip_prefix(&init[..]).expect("the tee begins with the init segment");
    assert!(!mine.is_empty());
    assert!(theirs.ends_with(mine), "{} bytes are no tail of {}", mine.len(), theirs.len());
    assert_eq!(recording.skips, 0);
}
