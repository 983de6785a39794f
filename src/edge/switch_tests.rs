//! Switching between fake renditions, in the runtime's paused time.

use std::sync::{Arc, Mutex};

use astral_core::media::switcher::PATIENCE_MIN;
use tokio::{sync::mpsc, time::timeout};

use super::*;

/// What a test sees of its ladder, and where it puts media.
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    lower: usize,
    /// The newest reading of each rendition.
    open: Vec<Option<mpsc::Sender<MediaItem>>>,
    told: Vec<String>,
}

impl Fake {
    fn new(lower: usize) -> Self {
        let fake = Self::default();
        let mut state = fake.0.lock().unwrap();
        state.lower = lower;
        state.open.resize_with(lower + 1, || None);
        drop(state);
        fake
    }

    fn source(&self, rendition: usize) -> Box<dyn MediaSource> {
        let (to, items) = mpsc::channel(64);
        self.0.lock().unwrap().open[rendition] = Some(to);
        Box::new(Items(items))
    }

    fn give(&self, rendition: usize, item: MediaItem) {
        if let Some(to) = &self.0.lock().unwrap().open[rendition] {
            // A reading that was left takes nothing.
            let _ = to.try_send(item);
        }
    }

    fn told(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().told)
    }

    fn is_open(&self, rendition: usize) -> bool {
        let state = self.0.lock().unwrap();
        state.open[rendition].as_ref().is_some_and(|to| !to.is_closed())
    }
}

struct Items(mpsc::Receiver<MediaItem>);

impl MediaSource for Items {
    fn next(&mut self) -> BoxFuture<'_, Option<MediaItem>> {
        Box::pin(self.0.recv())
    }
}

impl Ladder for Fake {
    fn lower(&mut self) -> BoxFuture<'_, usize> {
        let lower = self.0.lock().unwrap().lower;
        Box::pin(async move { lower })
    }

    fn open(&mut self, rendition: usize) -> BoxFuture<'_, Result<Box<dyn MediaSource>, OpenError>> {
        self.0.lock().unwrap().told.push(format!("open {rendition}"));
        let source = self.source(rendition);
        Box::pin(async move { Ok(source) })
    }

    fn leave(&mut self, rendition: usize) {
        self.0.lock().unwrap().told.push(format!("leave {rendition}"));
    }

    fn plays(&mut self, rendition: usize) {
        self.0.lock().unwrap().told.push(format!("plays {rendition}"));
    }
}

fn init(of: u8) -> MediaItem {
    let mut bytes = b"FLV\x01\x05\0\0\0\x09\0\0\0\0".to_vec();
    bytes.extend([9, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0x17, 0, 0, 0, 0, of, 0, 0, 0, 17]);
    MediaItem::Flv(bytes.into())
}

fn frame(of: u8, is_key: bool) -> MediaItem {
    let first = if is_key { 0x17 } else { 0x27 };
    let bytes = vec![9, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, first, 1, 0, 0, 0, of, 0, 0, 0, 17];
    MediaItem::Flv(bytes.into())
}

fn skip() -> MediaItem {
    MediaItem::Skipped { from_seq: 1, to_seq: 2, cause: "deadline".to_owned() }
}

/// Everything that comes within so many milliseconds of paused time.
async fn heard(switching: &mut Switching<Fake>, ms: u64) -> Vec<MediaItem> {
    let mut items = Vec::new();
    let until = Instant::now() + Duration::from_millis(ms);
    while let Ok(item) = timeout(until.duration_since(Instant::now()), switching.next()).await {
        items.extend(item);
        if switching.over {
            break;
        }
    }
    items
}

/// A viewer of a stream with one lower rendition that plays.
async fn playing() -> (Fake, Switching<Fake>) {
    let fake = Fake::new(1);
    let mut switching = Switching::new(fake.clone(), fake.source(0));
    for item in [init(0), frame(0, true)] {
        fake.give(0, item);
    }
    assert_eq!(heard(&mut switching, 500).await, [init(0), frame(0, true)]);
    (fake, switching)
}

/// The same, after it went down.
async fn low() -> (Fake, Switching<Fake>) {
    let (fake, mut switching) = playing().await;
    fake.give(0, skip());
    fake.give(0, skip());
    heard(&mut switching, 300).await;
    for item in [init(1), frame(1, true)] {
        fake.give(1, item);
    }
    heard(&mut switching, 300).await;
    assert_eq!(fake.told(), ["open 1", "leave 0", "plays 1"]);
    (fake, switching)
}

#[tokio::test(start_paused = true)]
async fn what_plays_goes_on_until_the_lower_rendition_brings_a_keyframe_with_its_headers() {
    let (fake, mut switching) = playing().await;
    fake.give(0, skip());
    fake.give(0, skip());
    heard(&mut switching, 300).await;
    fake.give(1, init(1));
    fake.give(0, frame(0, false));
    assert_eq!(heard(&mut switching, 300).await, [frame(0, false)]);
    fake.give(1, frame(1, false));
    assert_eq!(heard(&mut switching, 300).await, []);
    fake.give(1, frame(1, true));
    let switched = heard(&mut switching, 300).await;
    assert_eq!(switched, [MediaItem::NewEpoch, init(1), frame(1, true)]);
    fake.give(1, frame(1, false));
    assert_eq!(heard(&mut switching, 300).await, [frame(1, false)]);
    assert_eq!(fake.told(), ["open 1", "leave 0", "plays 1"]);
    assert!(!fake.is_open(0));
}

#[tokio::test(start_paused = true)]
async fn what_plays_is_given_up_for_a_lower_rendition_that_does_not_come_beside_it() {
    let (fake, mut switching) = playing().await;
    heard(&mut switching, 4_000).await;
    assert!(fake.is_open(0) && fake.is_open(1), "it stalls, and both are read");
    heard(&mut switching, 2_500).await;
    assert!(!fake.is_open(0) && fake.is_open(1));
    assert_eq!(fake.told(), ["open 1", "leave 0"]);
    for item in [init(1), frame(1, true)] {
        fake.give(1, item);
    }
    let switched = heard(&mut switching, 300).await;
    assert_eq!(switched, [MediaItem::NewEpoch, init(1), frame(1, true)]);
}

#[tokio::test(start_paused = true)]
async fn the_higher_rendition_takes_over_at_its_keyframe_after_it_came_well_for_a_while() {
    let (fake, mut switching) = low().await;
    let mut told = Vec::new();
    for _ in 0..PATIENCE_MIN.as_secs() * 5 {
        fake.give(1, frame(1, false));
        heard(&mut switching, 200).await;
        told.extend(fake.told());
        if !told.is_empty() {
            break;
        }
    }
    assert_eq!(told, ["open 0"]);
    fake.give(0, init(0));
    for _ in 0..20 {
        fake.give(0, frame(0, true));
        fake.give(1, frame(1, false));
        let items = heard(&mut switching, 200).await;
        told.extend(fake.told());
        if told.len() > 1 {
            assert!(items.contains(&MediaItem::NewEpoch) && items.contains(&init(0)), "{items:?}");
            break;
        }
        assert_eq!(items, [frame(1, false)]);
    }
    assert_eq!(told, ["open 0", "leave 1", "plays 0"]);
}

#[tokio::test(start_paused = true)]
async fn a_higher_rendition_that_does_not_come_well_is_left_without_a_trace() {
    let (fake, mut switching) = low().await;
    for _ in 0..PATIENCE_MIN.as_secs() * 5 + 10 {
        fake.give(1, frame(1, false));
        assert_eq!(heard(&mut switching, 200).await, [frame(1, false)]);
    }
    assert_eq!(fake.told(), ["open 0"]);
    for item in [init(0), frame(0, true), skip()] {
        fake.give(0, item);
    }
    fake.give(1, frame(1, false));
    assert_eq!(heard(&mut switching, 200).await, [frame(1, false)]);
    assert_eq!(fake.told(), ["leave 0"]);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_stream_is_heard_whichever_rendition_plays() {
    let ended = || MediaItem::Ended { reason: "ended".to_owned() };
    let (fake, mut switching) = playing().await;
    fake.give(0, ended());
    assert_eq!(heard(&mut switching, 300).await, [ended()]);
    assert_eq!(switching.next().await, None);

    let (fake, mut switching) = low().await;
    fake.give(1, ended());
    assert_eq!(heard(&mut switching, 300).await, []);
    assert_eq!(fake.told(), ["leave 1", "open 0"], "the stream itself says whether it is over");
    fake.give(0, ended());
    assert_eq!(heard(&mut switching, 300).await, [ended()]);
    assert_eq!(switching.next().await, None);
}
