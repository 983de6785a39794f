//! Tests of the shared reading of a stream.

use std::time::Duration;

use tokio::{sync::mpsc, time::timeout};

use super::*;

struct Scripted(mpsc::Receiver<MediaItem>);

impl MediaSource for Scripted {
    fn next(&mut self) -> BoxFuture<'_, Option<MediaItem>> {
        Box::pin(self.0.recv())
    }
}

fn share() -> (mpsc::Sender<MediaItem>, Share) {
    let (sender, receiver) = mpsc::channel(4_096);
    (sender, Share::start(Box::new(Scripted(receiver))))
}

fn flv(bytes: Vec<u8>) -> MediaItem {
    MediaItem::Flv(bytes.into())
}

fn tag(kind: u8, body: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(body.len()).unwrap().to_be_bytes();
    let mut bytes = vec![kind, a, b, c, 0, 0, 0, 0, 0, 0, 0];
    bytes.extend(body);
    bytes.extend((u32::try_from(body.len()).unwrap() + 11).to_be_bytes());
    bytes
}

fn init(flags: u8) -> MediaItem {
    let mut bytes = b"FLV\x01".to_vec();
    bytes.extend([flags, 0, 0, 0, 9, 0, 0, 0, 0]);
    bytes.extend(tag(9, &[0x17, 0, 0, 0, 0, 1]));
    flv(bytes)
}

fn key(mark: u8) -> MediaItem {
    // With the sound before it, as a chunk has it.
    flv([tag(8, &[0xaf, 1, mark]), tag(9, &[0x17, 1, 0, 0, 0, mark])].concat())
}

fn inter(mark: u8) -> MediaItem {
    flv(tag(9, &[0x27, 1, 0, 0, 0, mark]))
}

async fn soon(place: &mut Place) -> Option<MediaItem> {
    timeout(Duration::from_secs(30), place.next()).await.expect("an item, or the end")
}

async fn put(sender: &mpsc::Sender<MediaItem>, items: impl IntoIterator<Item = MediaItem>) {
    for item in items {
        sender.send(item).await.unwrap();
    }
}

#[tokio::test]
async fn everybody_gets_everything_from_the_last_keyframe_on() {
    let (sender, share) = share();
    let mut early = share.join();
    for (at, item) in [init(5), key(1), inter(2), key(3), inter(4)].into_iter().enumerate() {
        put(&sender, [item.clone()]).await;
        assert_eq!(soon(&mut early).await, Some(item), "{at}");
    }
    let mut late = share.join();
    put(&sender, [inter(5)]).await;
    for expected in [init(5), key(3), inter(4), inter(5)] {
        assert_eq!(soon(&mut late).await, Some(expected));
    }
    drop(sender);
    assert_eq!(soon(&mut late).await, None);
    assert_eq!(soon(&mut early).await, Some(inter(5)));
    assert_eq!(soon(&mut early).await, None);
    assert!(share.is_over());
}

#[tokio::test]
async fn who_wants_the_past_begins_some_keyframes_back_and_never_before_the_newest_headers() {
    let (sender, share) = share();
    let mut first = share.join_past();
    put(&sender, [init(5), key(0)]).await;
    for expected in [init(5), key(0)] {
        assert_eq!(soon(&mut first).await, Some(expected), "without a past it is as for others");
    }
    put(&sender, (1..=9).map(key)).await;
    while soon(&mut first).await != Some(key(9)) {}
    let mut later = share.join_past();
    let oldest = 10 - u8::try_from(PAST_KEYFRAMES_MAX).unwrap();
    assert_eq!(soon(&mut later).await, Some(init(5)));
    for mark in oldest..=9 {
        assert_eq!(soon(&mut later).await, Some(key(mark)));
    }
    put(&sender, [MediaItem::NewEpoch, init(1), key(10), inter(11)]).await;
    drop(sender);
    while soon(&mut first).await.is_some() {}
    let mut last = share.join_past();
    for expected in [Some(init(1)), Some(key(10)), Some(inter(11)), None] {
        assert_eq!(soon(&mut last).await, expected);
    }
}

#[tokio::test]
async fn a_keyframe_in_pieces_is_begun_at_its_first_piece() {
    let (sender, share) = share();
    let MediaItem::Flv(whole) = key(9) else { unreachable!() };
    let pieces = [whole.slice(..32), whole.slice(32..34), whole.slice(34..)];
    put(&sender, [init(5), inter(1)]).await;
    put(&sender, pieces.clone().map(MediaItem::Flv)).await;
    drop(sender);
    let mut place = share.join();
    assert_eq!(soon(&mut place).await, Some(init(5)));
    for piece in pieces {
        assert_eq!(soon(&mut place).await, Some(MediaItem::Flv(piece)));
    }
    assert_eq!(soon(&mut place).await, None);
}

#[tokio::test]
async fn a_stream_of_sound_alone_is_begun_anywhere() {
    let (sender, share) = share();
    put(&sender, [init(4), flv(tag(8, &[0xaf, 1, 1])), flv(tag(8, &[0xaf, 1, 2]))]).await;
    drop(sender);
    let mut place = share.join();
    assert_eq!(soon(&mut place).await, Some(init(4)));
    assert!(matches!(soon(&mut place).await, Some(MediaItem::Flv(_))));
}

#[tokio::test]
async fn a_player_that_falls_behind_goes_on_at_the_newest_keyframe() {
    let (sender, share) = share();
    put(&sender, [init(5), key(0)]).await;
    let (mut slow, mut quick) = (share.join(), share.join());
    for expected in [init(5), key(0)] {
        assert_eq!(soon(&mut slow).await, Some(expected));
    }
    let rounds = KEPT_ITEMS_MAX / 2 + 100;
    for round in 0..rounds {
        let mark = (round % 251) as u8;
        put(&sender, [key(mark), inter(mark)]).await;
        while let Some(Some(item)) = soon(&mut quick).now_or_never() {
            assert!(!matches!(item, MediaItem::Behind { .. }), "the quick one loses nothing");
        }
    }
    // Everything has been pulled once the quick one saw the last.
    drop(sender);
    while soon(&mut quick).await.is_some() {}
    let newest = ((rounds - 1) % 251) as u8;
    assert!(matches!(soon(&mut slow).await, Some(MediaItem::Behind { items: 1.. })));
    assert_eq!(soon(&mut slow).await, Some(key(newest)));
    assert_eq!(soon(&mut slow).await, Some(inter(newest)));
    assert_eq!(soon(&mut slow).await, None);
}

#[tokio::test]
async fn what_is_kept_is_bounded_in_bytes() {
    let (sender, share) = share();
    let large = || flv(tag(9, &[&[0x27, 1, 0, 0, 0][..], &[7; 1_000_000]].concat()));
    put(&sender, [init(5), key(0)]).await;
    for _ in 0..40 {
        put(&sender, [large()]).await;
    }
    drop(sender);
    let mut place = share.join();
    // The keyframe has gone: nobody may begin in the middle of a picture.
    assert_eq!(soon(&mut place).await, Some(init(5)));
    assert_eq!(soon(&mut place).await, None);
    assert!(share.shelf.lock().bytes <= KEPT_BYTES_MAX);
}

#[tokio::test]
async fn a_new_epoch_is_begun_at_its_own_keyframe() {
    let (sender, share) = share();
    put(&sender, [init(5), key(1), MediaItem::NewEpoch, init(1), key(2)]).await;
    drop(sender);
    let mut place = share.join();
    while !share.is_over() {
        tokio::task::yield_now().await;
    }
    for expected in [init(1), key(2)] {
        assert_eq!(soon(&mut place).await, Some(expected));
    }
}

#[tokio::test]
async fn a_source_that_panics_ends_the_stream_for_its_readers() {
    struct Broken;
    impl MediaSource for Broken {
        fn next(&mut self) -> BoxFuture<'_, Option<MediaItem>> {
            Box::pin(async { panic!("on purpose") })
        }
    }
    let share = Share::start(Box::new(Broken));
    assert_eq!(soon(&mut share.join()).await, None);
    assert!(share.is_over());
}

#[tokio::test]
async fn the_last_to_go_ends_the_reading() {
    let (sender, share) = share();
    let place = share.join();
    drop(share);
    put(&sender, [init(5)]).await;
    drop(place);
    timeout(Duration::from_secs(30), sender.closed()).await.expect("the source is dropped");
}
