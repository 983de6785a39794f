//! Forged, foreign and replayed announcements, by gossip and by PUBLISH.

use std::{sync::Arc, time::Duration};

use astral_core::{
    announcement::{Announcement, Signature, SignedAnnouncement},
    ids::StreamId,
    media::cert::SourceSigner,
    overlay::{DirRefusal, DirRequest, DirResponse, Offence, StreamView},
};

use super::{Hostile, until};
use crate::node::{
    Event, StreamLink,
    testing::{Encoder, TestNode, Transport},
};

/// A supernode with a published stream and a member that lists it.
async fn network() -> (TestNode, TestNode, Encoder) {
    let mut source = TestNode::start(Transport::Tcp, &[], |_| {}).await;
    source.event(|event| matches!(event, Event::Promoted { .. }).then_some(())).await;
    let mut member = TestNode::start(Transport::Tcp, &[&source], |_| {}).await;
    let encoder = Encoder::start(&source, "garden", 1, 300).await;
    member.listed(encoder.stream).await;
    (source, member, encoder)
}

async fn genuine(peer: &Hostile, at: &TestNode, stream: StreamId) -> Arc<SignedAnnouncement> {
    match peer.dir(at, DirRequest::Find { stream }).await.unwrap() {
        DirResponse::Found { announcement: Some(announcement) } => announcement,
        other => panic!("{other:?}"),
    }
}

fn sign(announcement: Announcement, seed: u8) -> Arc<SignedAnnouncement> {
    let signer = SourceSigner::from_seed(&[seed; 32]);
    Arc::new(seal(announcement, |bytes| Signature(signer.sign(bytes))))
}

fn seal(announcement: Announcement, sign: impl FnOnce(&[u8]) -> Signature) -> SignedAnnouncement {
    SignedAnnouncement::seal(announcement, sign).unwrap()
}

/// What a forger makes of a genuine announcement: a newer one, a tombstone, one that was altered.
fn forgeries(genuine: &SignedAnnouncement) -> [Arc<SignedAnnouncement>; 3] {
    let base = genuine.announcement().clone();
    let newer = Announcement { revision: base.revision + 1, title: "mine".into(), ..base.clone() };
    let tombstone = Announcement { revision: base.revision + 2, ended: true, ..base.clone() };
    let altered = Announcement { epoch: base.epoch + 1, ..base };
    [sign(newer, 90), sign(tombstone, 91), Arc::new(seal(altered, |_| Signature([0; 64])))]
}

/// What people see of a list.
async fn listed(node: &TestNode) -> Vec<StreamView> {
    let mut streams = node.handle.snapshot().await.unwrap().overlay.streams;
    streams.iter_mut().for_each(|view| view.viewers = 0);
    streams
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forgeries_that_are_published_are_refused_and_change_no_list() {
    let (mut source, member, encoder) = network().await;
    let peer = Hostile::start(71).await;
    peer.meet(&source).await;
    peer.register(&source).await;
    let genuine = genuine(&peer, &source, encoder.stream).await;
    let before = (listed(&source).await, listed(&member).await);
    for forged in &forgeries(&genuine)[..2] {
        let announcement = Arc::clone(forged);
        let answer = peer.dir(&source, DirRequest::Publish { announcement }).await.unwrap();
        let forged = DirResponse::Refused { reason: DirRefusal::Forged, retry_ms: 0 };
        assert_eq!(answer, forged);
        let kind = source
            .event(|event| match event {
                Event::Offence { kind, .. } => Some(*kind),
                _ => None,
            })
            .await;
        assert_eq!(kind, Offence::Forged);
    }
    // The third strike makes a ban: nothing more from this peer is even looked at.
    let announcement = Arc::clone(&forgeries(&genuine)[2]);
    let answer = peer.dir(&source, DirRequest::Publish { announcement }).await.unwrap();
    assert!(matches!(answer, DirResponse::Refused { reason: DirRefusal::Forged, .. }));
    let banned = DirResponse::Refused { reason: DirRefusal::Banned, retry_ms: 0 };
    let answer = peer.dir(&source, DirRequest::List { after: None }).await.unwrap();
    assert_eq!(answer, banned);
    let told = source.handle.snapshot().await.unwrap().overlay;
    assert_eq!((told.counters.forged, told.counters.offences), (3, 3));
    assert_eq!((listed(&source).await, listed(&member).await), before);
    drop(encoder.end().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forgeries_by_gossip_are_dropped_and_cost_their_sender_its_score() {
    let (mut source, member, encoder) = network().await;
    let peer = Hostile::start(72).await;
    peer.meet(&source).await;
    let genuine = genuine(&peer, &source, encoder.stream).await;
    let before = (listed(&source).await, listed(&member).await);
    for (at, forged) in (1..).zip(forgeries(&genuine)) {
        peer.gossip(forged.to_bytes().to_vec()).await;
        let bad = peer.node;
        let (kind, banned) = source
            .event(|event| match event {
                Event::Offence { node, kind, banned } if *node == bad => Some((*kind, *banned)),
                _ => None,
            })
            .await;
        assert_eq!((kind, banned), (Offence::Forged, at == 3));
    }
    let told = source.handle.snapshot().await.unwrap();
    assert_eq!((told.driver.forged_gossip, told.overlay.counters.forged), (3, 3));
    assert_eq!((listed(&source).await, listed(&member).await), before);
    drop(encoder.end().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_by_gossip_costs_its_sender_its_score() {
    let (source, member, encoder) = network().await;
    let peer = Hostile::start(73).await;
    peer.meet(&source).await;
    let before = (listed(&source).await, listed(&member).await);
    peer.gossip(vec![0xff; 4_000]).await;
    peer.gossip(b"no announcement".to_vec()).await;
    until("both are counted", async || {
        source.handle.snapshot().await.unwrap().driver.forged_gossip == 2
    })
    .await;
    assert_eq!((listed(&source).await, listed(&member).await), before);
    drop(encoder.end().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replayed_announcement_does_not_raise_an_ended_stream() {
    let (source, mut member, encoder) = network().await;
    let stream = encoder.stream;
    let peer = Hostile::start(74).await;
    peer.meet(&source).await;
    peer.register(&source).await;
    let older = genuine(&peer, &source, stream).await;
    drop(encoder.end().await);
    member
        .event_within(Duration::from_secs(15), |event| {
            matches!(event, Event::StreamRemoved { stream: gone, .. } if *gone == stream)
                .then_some(())
        })
        .await;
    let announcement = Arc::clone(&older);
    let answer = peer.dir(&source, DirRequest::Publish { announcement }).await.unwrap();
    assert_eq!(answer, DirResponse::Refused { reason: DirRefusal::Stale, retry_ms: 0 });
    let stale = source.handle.snapshot().await.unwrap().overlay.counters.stale;
    peer.gossip(older.to_bytes().to_vec()).await;
    until("the replay is counted", async || {
        source.handle.snapshot().await.unwrap().overlay.counters.stale > stale
    })
    .await;
    assert!(listed(&source).await.is_empty());
    assert!(listed(&member).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_the_same_name_under_another_key_is_another_stream() {
    let (source, member, encoder) = network().await;
    let peer = Hostile::start(75).await;
    peer.meet(&source).await;
    peer.register(&source).await;
    let genuine = genuine(&peer, &source, encoder.stream).await;
    let mut own = genuine.announcement().clone();
    own.source = SourceSigner::from_seed(&[92; 32]).key();
    own.title = "another garden".into();
    own.node = peer.contact.clone();
    let own = sign(own, 92);
    let other =
        StreamLink { source: own.announcement().source, name: own.announcement().name.clone() };
    assert_ne!(other.id(), encoder.stream);
    // A tombstone of the other stream with the first one's name ends the other alone.
    let answer = peer.dir(&source, DirRequest::Publish { announcement: own }).await.unwrap();
    assert_eq!(answer, DirResponse::Done);
    until("both are listed", async || listed(&member).await.len() == 2).await;
    let mut end = genuine.announcement().clone();
    end.source = other.source;
    end.revision += 1;
    end.ended = true;
    let announcement = sign(end, 92);
    let answer = peer.dir(&source, DirRequest::Publish { announcement }).await.unwrap();
    assert_eq!(answer, DirResponse::Done);
    until("the other is gone", async || listed(&member).await.len() == 1).await;
    assert_eq!(listed(&member).await[0].stream, encoder.stream);
    drop(encoder.end().await);
}
