//! The changes as their followers see them.

use super::*;

fn objects(streams: &[(&str, u32)]) -> Objects {
    let object = |(id, viewers): &(&str, u32)| {
        ((Kind::Stream, (*id).to_owned()), json!({"id": id, "viewers": viewers}))
    };
    streams.iter().map(object).collect()
}

fn parse(frame: &Utf8Bytes) -> Value {
    serde_json::from_str(frame).unwrap()
}

/// What a follower is told at once, if anything.
async fn told(follower: &mut Follower) -> Option<Told> {
    // A snapshot is written by another thread, and is worth waiting for.
    let mut next = std::pin::pin!(follower.next());
    tokio::select! {
        biased;
        told = &mut next => Some(told),
        () = tokio::time::sleep(Duration::from_millis(1)) => None,
    }
}

/// The frames that a follower is told at once.
async fn frames(follower: &mut Follower) -> Vec<Value> {
    let mut frames = Vec::new();
    while let Some(told) = told(follower).await {
        match told {
            Told::Frames(more) => frames.extend(more.iter().map(parse)),
            Told::Snapshot(snapshot) => frames.extend(snapshot.parts.iter().map(parse)),
            Told::TooSlow => panic!("it read all that there was"),
        }
    }
    frames
}

/// What a client knows after a snapshot and the frames that follow it.
#[derive(Default)]
struct Client {
    known: BTreeMap<String, Value>,
    seq: u64,
    snapshots: u32,
}

impl Client {
    fn take(&mut self, frame: &Value) {
        let seq = frame["seq"].as_u64().unwrap();
        let kind = frame["type"].as_str().unwrap();
        match kind {
            "snapshot" => {
                self.known.clear();
                self.snapshots += 1;
            }
            "part" => assert_eq!(seq, self.seq),
            _ => assert_eq!(seq, self.seq + 1, "no gap"),
        }
        self.seq = seq;
        let id = || frame["id"].as_str().unwrap().to_owned();
        match kind {
            "snapshot" | "part" => {
                for stream in frame["objects"]["stream"].as_array().into_iter().flatten() {
                    self.known.insert(stream["id"].as_str().unwrap().to_owned(), stream.clone());
                }
            }
            "add" => assert!(self.known.insert(id(), frame["object"].clone()).is_none()),
            "update" => assert!(self.known.insert(id(), frame["object"].clone()).is_some()),
            "remove" => assert!(self.known.remove(&id()).is_some()),
            other => assert_eq!(other, "event"),
        }
    }

    async fn read(&mut self, follower: &mut Follower) {
        frames(follower).await.iter().for_each(|frame| self.take(frame));
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_applies_the_frames_knows_what_the_node_knows() {
    let changes = Changes::new("one".into());
    changes.observe(objects(&[("a", 1), ("b", 1)]));
    let mut follower = changes.follow(None, None);
    let mut client = Client::default();
    client.read(&mut follower).await;
    for step in [&[("a", 1), ("b", 2)][..], &[("b", 2), ("c", 1)], &[], &[("a", 7)]] {
        changes.observe(objects(step));
        changes.event(&json!({"event": "playing"}));
        client.read(&mut follower).await;
        let wanted = objects(step).into_iter().map(|((_, id), object)| (id, object));
        assert_eq!(client.known, wanted.collect());
    }
    assert_eq!((client.snapshots, client.seq), (1, changes.seq()));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_comes_back_gets_what_it_missed_or_a_snapshot() {
    let changes = Changes::new("one".into());
    changes.observe(objects(&[("a", 1)]));
    let seen = changes.seq();
    changes.observe(objects(&[("a", 2)]));
    let missed = frames(&mut changes.follow(Some("one"), Some(seen))).await;
    assert_eq!((missed.len(), &missed[0]["type"]), (1, &json!("update")));
    assert!(frames(&mut changes.follow(Some("one"), Some(changes.seq()))).await.is_empty());
    for (instance, after) in [(Some("two"), seen), (None, seen), (Some("one"), seen + 99)] {
        let first = frames(&mut changes.follow(instance, Some(after))).await;
        assert_eq!(first[0]["type"], "snapshot", "{instance:?} {after}");
    }
    for _ in 0..RING_FRAMES_MAX {
        changes.event(&json!({"event": "playing"}));
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    let first = frames(&mut changes.follow(Some("one"), Some(seen))).await;
    assert_eq!(first[0]["type"], "snapshot");
}

#[tokio::test(start_paused = true)]
async fn more_changes_than_the_ring_should_hold_come_as_a_snapshot() {
    let changes = Changes::new("one".into());
    let mut follower = changes.follow(None, None);
    let mut client = Client::default();
    client.read(&mut follower).await;
    let many: Vec<String> = (0..2 * ANEW_FROM_FRAMES).map(|n| n.to_string()).collect();
    let many: Vec<(&str, u32)> = many.iter().map(|id| (id.as_str(), 1)).collect();
    changes.observe(objects(&many));
    client.read(&mut follower).await;
    assert_eq!((client.known.len(), client.snapshots), (many.len(), 2));
    changes.observe(objects(&many[1..]));
    client.read(&mut follower).await;
    assert_eq!((client.known.len(), client.snapshots), (many.len() - 1, 2));
    assert_eq!(client.seq, changes.seq());
}

#[tokio::test(start_paused = true)]
async fn whoever_misses_more_than_is_kept_gets_one_snapshot_and_is_let_go_the_next_time() {
    let changes = Changes::new("one".into());
    changes.observe(objects(&[("a", 1)]));
    let mut slow = changes.follow(None, None);
    let mut client = Client::default();
    client.read(&mut slow).await;
    let storm = async || {
        for _ in 0..=RING_FRAMES_MAX {
            changes.event(&json!({"event": "playing"}));
            tokio::time::advance(Duration::from_millis(1)).await;
        }
    };
    storm().await;
    assert!(matches!(told(&mut slow).await, Some(Told::Snapshot(_))));
    storm().await;
    assert_eq!(told(&mut slow).await, Some(Told::TooSlow));
    // One that catches up in between may miss as much again.
    let mut quick = changes.follow(None, None);
    for _ in 0..3 {
        client.read(&mut quick).await;
        storm().await;
    }
    assert!(matches!(told(&mut quick).await, Some(Told::Snapshot(_))));
}

#[tokio::test(start_paused = true)]
async fn those_who_ask_at_the_same_time_share_one_snapshot_and_miss_nothing_after_it() {
    let changes = Changes::new("one".into());
    changes.observe(objects(&[("a", 1)]));
    let first = changes.snapshot(0).await;
    changes.observe(objects(&[("a", 2)]));
    assert!(Arc::ptr_eq(&first, &changes.snapshot(0).await), "written once");
    let (mut follower, mut client) = (changes.follow(None, None), Client::default());
    client.read(&mut follower).await;
    assert_eq!(client.known["a"]["viewers"], 2, "the ring completes it");
    // Who has seen more than it tells is not sent back.
    follower.resync();
    assert_eq!(frames(&mut follower).await[0]["seq"], changes.seq());
    tokio::time::advance(2 * SNAPSHOT_FRESH).await;
    assert!(!Arc::ptr_eq(&first, &changes.snapshot(0).await));
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_events_is_told_in_part_and_counted() {
    let changes = Changes::new("one".into());
    let mut follower = changes.follow(Some("one"), Some(0));
    for _ in 0..EVENTS_PER_S_MAX + 9_800 {
        changes.event(&json!({"event": "offence"}));
    }
    tokio::time::advance(Duration::from_secs(1)).await;
    changes.event(&json!({"event": "playing"}));
    let frames = frames(&mut follower).await;
    assert_eq!(frames.len(), EVENTS_PER_S_MAX as usize + 2);
    let missed = &frames[EVENTS_PER_S_MAX as usize]["event"];
    assert_eq!(missed, &json!({"event": "events_missed", "count": 9_800}));
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_is_bounded_in_bytes() {
    let changes = Changes::new("one".into());
    let long = "x".repeat(100_000);
    for round in 0..200 {
        changes.observe([((Kind::Stream, "a".into()), json!({"t": long, "r": round}))].into());
    }
    assert!(changes.kept_bytes() <= RING_BYTES_MAX);
    assert!(changes.kept_bytes() > RING_BYTES_MAX / 2);
}

#[test]
fn a_lease_that_runs_is_no_news() {
    let ticket = |left, ok| json!({"id": "1", "expires_in_ms": left, "confirmed": ok});
    assert!(same(Kind::Ticket, &ticket(9, true), &ticket(8, true)));
    assert!(!same(Kind::Ticket, &ticket(9, true), &ticket(9, false)));
}
