//! Golden bytes of every message between overlays, kept in `tests/fixtures/wire`.
//!
//! Owns the values behind the fixtures and the tests that compare; `ASTRAL_FIXTURES=write` writes
//! the files. A message whose bytes change breaks them and needs a new protocol name; a new field
//! with a default does not. The fuzz targets start from these files.

use std::{fs, path::PathBuf, sync::Arc};

use super::{
    AUDIENCES_MAX, Addr, Ask, AskAnswer, AskStripe, CANDIDATES_MAX, CONTACTS_MAX, Candidate,
    Complaint, ComplaintKind, Contact, DEPTH_NONE, DirRefusal, DirRequest, DirResponse, FETCH_MAX,
    HEADS_MAX, Head, Load, RefuseReason, Register, Revoke, RevokeReason, Role, SHARDS,
    SUMMARY_STREAMS_MAX, StreamStatus, StreamSummary, StripeAnswer, TicketId, TicketRequest,
    TicketResponse, Verdict, Wire, fuzz,
    testnet::{draft, node, source_key},
};
use crate::{
    announcement::{
        Announcement, AnnouncementError, RENDITIONS_MAX, Rendition, Resolution, Scheme,
        SignedAnnouncement,
    },
    ids::{StreamId, StreamName},
    units::Bitrate,
};

fn directory() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/wire"))
}

fn golden(name: &str, bytes: &[u8]) {
    let path = directory().join(format!("{name}.bin"));
    if std::env::var("ASTRAL_FIXTURES").as_deref() == Ok("write") {
        fs::create_dir_all(directory()).unwrap();
        fs::write(&path, bytes).unwrap();
    }
    let expected = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(bytes, expected, "{name}: the bytes on the wire changed");
}

fn message<T: Wire + PartialEq + std::fmt::Debug>(name: &str, message: &T) {
    let bytes = message.to_wire().unwrap();
    golden(name, &bytes);
    assert_eq!(T::from_wire(&bytes).as_ref(), Ok(message), "{name}");
}

fn contact(index: u16) -> Contact {
    let addr = Addr::new(format!("/ip4/192.0.2.{index}/udp/4001/quic-v1")).unwrap();
    let mut contact = Contact::new(node(index), vec![addr]);
    contact.seq = 1_800_000_000;
    contact.proof = Some(Scheme::tag(contact.node.as_bytes(), &contact.signing_input()));
    contact
}

fn candidates() -> Vec<Candidate> {
    let one = Candidate { contact: contact(2), depths: vec![0, 0], free: 7, source: true };
    let depths = vec![DEPTH_NONE, 3];
    let two = Candidate { contact: contact(3), depths, free: 0, source: false };
    vec![one, two]
}

fn announcement(ended: bool) -> Arc<SignedAnnouncement> {
    let mut draft = draft(node(1), "Zo\u{eb}s garden", Bitrate::from_mbps(3), 8, 1_800_000_000);
    draft.description = "A camera that looks at a pond.".into();
    draft.resolution = Some(Resolution { width: 1_920, height: 1_080 });
    draft.thumbnail = Some([7; 32]);
    let mut announcement = Announcement::new(draft, contact(1), 2, 1_800_000_180);
    announcement.ended = ended;
    let key = *source_key(node(1)).as_bytes();
    Arc::new(SignedAnnouncement::seal(announcement, |bytes| Scheme::tag(&key, bytes)).unwrap())
}

fn corpus(prefix: &str) -> Vec<Vec<u8>> {
    let mut paths: Vec<_> =
        fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix));
    paths.sort();
    assert!(!paths.is_empty(), "no fixture is called {prefix}*");
    paths.into_iter().map(|path| fs::read(path).unwrap()).collect()
}

#[test]
fn ticket_messages_have_their_golden_bytes() {
    let stream = announcement(false).stream();
    let stripes = vec![AskStripe::live(0), AskStripe { stripe: 5, head: Some(99), warm: true }];
    let ask =
        Ask { stream, stripes, contact: contact(4), free: 3, attempt: 1, slots: 20, displace: 1 };
    message("ticket-ask", &TicketRequest::Ask(ask));
    let tickets = vec![TicketId(1), TicketId(u64::MAX)];
    message("ticket-release", &TicketRequest::Release { tickets: tickets.clone() });
    let (reason, candidates) = (RevokeReason::Leaving, candidates());
    let grace_ms = 1_000;
    let revoke = Revoke { stream, tickets, reason, grace_ms, candidates: candidates.clone() };
    message("ticket-revoke", &TicketRequest::Revoke(revoke));
    let (ticket, path) = (TicketId(9), vec![1, 2]);
    let displaced = Some(node(7));
    let granted = Verdict::Grant { ticket, expires_in_ms: 3_000, path, displaced };
    let refused = Verdict::Refuse { reason: RefuseReason::NoCapacity };
    let stripes = vec![
        StripeAnswer { stripe: 0, verdict: granted },
        StripeAnswer { stripe: 5, verdict: refused },
    ];
    let rate = Bitrate::from_mbps(3);
    let answer = AskAnswer { rate, k: 8, stripes, redirect: candidates };
    message("ticket-answer", &TicketResponse::Answer(answer));
    message("ticket-done", &TicketResponse::Done);
    let refused = TicketResponse::Refused { reason: RefuseReason::RateLimited, retry_ms: 1_000 };
    message("ticket-refused", &refused);
}

fn registrations_have_their_golden_bytes() {
    let others = vec![contact(5), contact(6)];
    let expires_in_ms = 15_000;
    let accepted = DirResponse::Accepted {
        expires_in_ms,
        others: others.clone(),
        in_sync: false,
        load: None,
        heirs: vec![],
        audiences: vec![],
    };
    message("dir-accepted", &accepted);
    let alone = DirResponse::Accepted {
        expires_in_ms,
        others: vec![],
        in_sync: true,
        load: None,
        heirs: others,
        audiences: vec![],
    };
    message("dir-accepted-heirs", &alone);
    let met = DirResponse::Accepted {
        expires_in_ms,
        others: vec![],
        in_sync: true,
        load: Some(Load { members: 100, places: 0 }),
        heirs: vec![],
        audiences: vec![],
    };
    message("dir-accepted-supernode", &met);
    let told = DirResponse::Accepted {
        expires_in_ms,
        others: vec![],
        in_sync: true,
        load: None,
        heirs: vec![],
        audiences: vec![(StreamId([1; 32]), 70_000), (StreamId([9; 32]), 1)],
    };
    message("dir-accepted-audiences", &told);
}

#[test]
fn directory_messages_have_their_golden_bytes() {
    let live = announcement(false);
    let stream = live.stream();
    let (contact_4, role) = (contact(4), Role::Member);
    let register = Register { contact: contact_4, role, digest: 42, standby: false, load: None };
    message("dir-register", &DirRequest::Register(register));
    let mut standby =
        Register { contact: contact(4), role: Role::Member, digest: 42, standby: true, load: None };
    message("dir-register-standby", &DirRequest::Register(standby.clone()));
    (standby.role, standby.standby) = (Role::Supernode, false);
    standby.load = Some(Load { members: 7, places: 93 });
    message("dir-register-supernode", &DirRequest::Register(standby));
    message("dir-unregister", &DirRequest::Unregister);
    let status = StreamStatus { stream, depths: vec![1, DEPTH_NONE], free: 2, seeding: true };
    message("dir-status", &DirRequest::Status { streams: vec![status] });
    message("dir-join", &DirRequest::Join { stream });
    message("dir-find", &DirRequest::Find { stream });
    message("dir-list", &DirRequest::List { after: Some(StreamId([8; 32])) });
    let shards = vec![0, u64::MAX, 7];
    message("dir-compare", &DirRequest::Compare { shards, after: Some(StreamId([8; 32])) });
    let streams = vec![StreamId([1; 32]), stream];
    message("dir-fetch", &DirRequest::Fetch { streams });
    let (accused, kind) = (node(3), ComplaintKind::Withheld);
    let complaint = Complaint { stream, stripe: 5, accused, kind };
    message("dir-complain", &DirRequest::Complain(complaint));
    message("dir-carriers", &DirRequest::Carriers { stream });
    let summary = StreamSummary { stream, viewers: 70, candidates: candidates(), relayed: true };
    message("dir-summary", &DirRequest::Summary { streams: vec![summary] });
    let announcement_of = Some(Arc::clone(&live));
    let offer =
        DirRequest::Offer { stream, announcement: announcement_of, candidates: candidates() };
    message("dir-offer", &offer);
    message("dir-publish", &DirRequest::Publish { announcement: announcement(true) });
    message("dir-push", &DirRequest::Push { announcements: vec![Arc::clone(&live)] });
    registrations_have_their_golden_bytes();
    let others = vec![contact(5), contact(6)];
    message("dir-full", &DirResponse::Full { others: others.clone() });
    message("dir-elsewhere", &DirResponse::Elsewhere { others });
    message("dir-done", &DirResponse::Done);
    let announcement = Some(Arc::clone(&live));
    let found = DirResponse::Candidates { announcement, candidates: candidates() };
    message("dir-candidates", &found);
    message("dir-found", &DirResponse::Found { announcement: None });
    let page = DirResponse::Page { announcements: vec![live], next: Some(stream) };
    message("dir-page", &page);
    let heads = vec![Head { stream, epoch: 1_800_000_000, revision: 3 }];
    message("dir-heads", &DirResponse::Heads { heads, next: Some(stream) });
    let refused = DirResponse::Refused { reason: DirRefusal::NotSupernode, retry_ms: 0 };
    message("dir-refused", &refused);
}

#[test]
fn announcements_have_their_golden_bytes() {
    golden("announcement", &announcement(false).to_bytes());
    golden("announcement-tombstone", &announcement(true).to_bytes());
    golden("announcement-renditions", &with_renditions(RENDITIONS_MAX).unwrap().to_bytes());
    golden("announcement-rendition", &rendition().to_bytes());
}

fn with_renditions(number: usize) -> Result<SignedAnnouncement, AnnouncementError> {
    let mut announcement = announcement(false).announcement().clone();
    let one = Rendition { stream: rendition().stream(), height: 480, rate: Bitrate::from_mbps(1) };
    announcement.renditions = vec![one; number];
    let key = *announcement.source.as_bytes();
    SignedAnnouncement::seal(announcement, |bytes| Scheme::tag(&key, bytes))
}

fn rendition() -> SignedAnnouncement {
    let mut rendition = announcement(false).announcement().clone();
    rendition.rendition_of = Some(rendition.stream());
    rendition.name = StreamName::new("garden 480p").unwrap();
    let key = *rendition.source.as_bytes();
    SignedAnnouncement::seal(rendition, |bytes| Scheme::tag(&key, bytes)).unwrap()
}

#[test]
fn an_announcement_without_renditions_is_as_it_always_was_and_more_than_there_may_be_are_refused() {
    let old = SignedAnnouncement::from_bytes(&corpus("announcement.bin")[0]).unwrap();
    assert_eq!((old.announcement().renditions.len(), old.announcement().rendition_of), (0, None));
    assert_eq!(old.to_bytes(), corpus("announcement.bin")[0]);
    let new = with_renditions(RENDITIONS_MAX).unwrap();
    assert_eq!(SignedAnnouncement::from_bytes(&new.to_bytes()), Ok(new));
    assert_eq!(with_renditions(RENDITIONS_MAX + 1), Err(AnnouncementError::TooLarge));
}

#[test]
fn hostile_bytes_never_panic_and_what_decodes_survives_its_encoding() {
    type Target = fn(&[u8]);
    let targets: [(&str, Target); 3] = [
        ("ticket-", fuzz::ticket_message),
        ("dir-", fuzz::dir_message),
        ("announcement", fuzz::announcement),
    ];
    for (prefix, target) in targets {
        for data in crate::fuzz::mutate(&corpus(prefix), 4_000, 1) {
            target(&data);
        }
    }
}

#[test]
fn messages_beyond_their_bounds_are_refused() {
    let mut ask = match TicketRequest::from_wire(&corpus("ticket-ask")[0]).unwrap() {
        TicketRequest::Ask(ask) => ask,
        other => panic!("{other:?}"),
    };
    ask.stripes = vec![AskStripe::live(0); 17];
    let bytes = TicketRequest::Ask(ask).to_wire().unwrap();
    assert_eq!(TicketRequest::from_wire(&bytes), Err(super::WireError::OutOfBounds));
    let huge = vec![0; super::MESSAGE_BYTES_MAX + 1];
    assert_eq!(TicketRequest::from_wire(&huge), Err(super::WireError::TooLarge));
    let summary = |count| StreamSummary {
        stream: StreamId([1; 32]),
        viewers: 1,
        candidates: vec![candidates()[1].clone(); count],
        relayed: false,
    };
    let beyond: [DirRequest; 4] = [
        DirRequest::Compare { shards: vec![1; SHARDS + 1], after: None },
        DirRequest::Fetch { streams: vec![StreamId([1; 32]); FETCH_MAX + 1] },
        DirRequest::Summary { streams: vec![summary(0); SUMMARY_STREAMS_MAX + 1] },
        DirRequest::Summary { streams: vec![summary(CANDIDATES_MAX + 1)] },
    ];
    for request in beyond {
        let bytes = request.to_wire().unwrap();
        assert_eq!(DirRequest::from_wire(&bytes), Err(super::WireError::OutOfBounds));
    }
    let head = Head { stream: StreamId([1; 32]), epoch: u64::MAX, revision: u64::MAX };
    let full = DirResponse::Heads { heads: vec![head; HEADS_MAX], next: Some(head.stream) };
    assert!(full.to_wire().is_ok(), "a full answer fits a message");
    let told = |count| DirResponse::Accepted {
        expires_in_ms: u32::MAX,
        others: vec![contact(5); CONTACTS_MAX],
        in_sync: false,
        load: None,
        heirs: vec![contact(6); CONTACTS_MAX],
        audiences: vec![(head.stream, u32::MAX); count],
    };
    assert!(told(AUDIENCES_MAX).to_wire().is_ok(), "a full answer fits a message");
    let bytes = told(AUDIENCES_MAX + 1).to_wire().unwrap();
    assert_eq!(DirResponse::from_wire(&bytes), Err(super::WireError::OutOfBounds));
    let mut trailing = corpus("ticket-done")[0].clone();
    trailing.push(0);
    assert_eq!(TicketResponse::from_wire(&trailing), Err(super::WireError::Malformed));
}

#[test]
fn fields_of_a_later_version_are_skipped() {
    #[derive(serde::Serialize)]
    struct Later {
        join: Body,
    }
    #[derive(serde::Serialize)]
    struct Body {
        stream: StreamId,
        wishes: &'static str,
    }
    let stream = StreamId([3; 32]);
    let mut bytes = Vec::new();
    let later = Later { join: Body { stream, wishes: "a coordinator" } };
    ciborium::into_writer(&later, &mut bytes).unwrap();
    assert_eq!(DirRequest::from_wire(&bytes), Ok(DirRequest::Join { stream }));
}
