//! A session against `rml_rtmp`'s client, and against clients that misbehave.

use rml_rtmp::{
    handshake::{Handshake, HandshakeProcessResult, PeerType},
    sessions::{
        ClientSession, ClientSessionConfig, ClientSessionEvent, ClientSessionResult,
        PublishRequestType, StreamMetadata,
    },
    time::RtmpTimestamp,
};

use super::*;
use crate::edge::rtmp::{
    amf0::Writer,
    fuzz::{client_handshake, rtmp_server},
};

/// A client and the server's session, wired without a socket.
struct Pair {
    client: ClientSession,
    server: Session,
    /// What the server asked the connection to do, besides sending.
    steps: Vec<Step>,
    /// What the client heard.
    heard: Vec<ClientSessionEvent>,
}

impl Pair {
    fn shaken() -> Self {
        let (client, _) = ClientSession::new(ClientSessionConfig::new()).unwrap();
        let mut server = Session::default();
        let mut shake = Handshake::new(PeerType::Client);
        server.receive(&shake.generate_outbound_p0_and_p1().unwrap());
        while let Some(step) = server.next().unwrap() {
            let Step::Send(bytes) = step else { panic!("{step:?}") };
            if let HandshakeProcessResult::Completed { response_bytes, .. } =
                shake.process_bytes(&bytes).unwrap()
            {
                server.receive(&response_bytes);
            }
        }
        Self { client, server, steps: Vec::new(), heard: Vec::new() }
    }

    fn connected(app: &str) -> Self {
        let mut pair = Self::shaken();
        let ask = pair.client.request_connection(app.into()).unwrap();
        pair.exchange(vec![ask]);
        pair
    }

    fn publishing() -> Self {
        let mut pair = Self::connected("astral");
        let ask = pair.client.request_publishing("k".into(), PublishRequestType::Live).unwrap();
        pair.exchange(vec![ask]);
        pair.server.accept();
        pair.exchange(Vec::new());
        pair.steps.clear();
        pair.heard.clear();
        pair
    }

    /// Carries bytes both ways until both are silent.
    fn exchange(&mut self, mut said: Vec<ClientSessionResult>) {
        loop {
            for result in said.drain(..) {
                match result {
                    ClientSessionResult::OutboundResponse(packet) => {
                        self.server.receive(&packet.bytes);
                    }
                    ClientSessionResult::RaisedEvent(event) => self.heard.push(event),
                    ClientSessionResult::UnhandleableMessageReceived(_) => {}
                }
            }
            let mut silent = true;
            while let Some(step) = self.server.next().unwrap() {
                silent = false;
                match step {
                    Step::Send(bytes) => said.extend(self.client.handle_input(&bytes).unwrap()),
                    step => self.steps.push(step),
                }
            }
            if silent && said.is_empty() {
                return;
            }
        }
    }
}

/// A message as one chunk of type 0, for short bodies.
fn message(kind: u8, stream: u8, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).unwrap();
    let mut bytes = vec![3, 0, 0, 0];
    bytes.extend(&len.to_be_bytes()[1..]);
    bytes.extend([kind, stream, 0, 0, 0]);
    for (n, piece) in body.chunks(128).enumerate() {
        if n > 0 {
            bytes.push(0xc3);
        }
        bytes.extend(piece);
    }
    bytes
}

#[test]
fn an_encoder_publishes_and_its_tags_come_out_in_order_and_untouched() {
    let mut pair = Pair::connected("astral");
    assert_eq!(pair.heard, [ClientSessionEvent::ConnectionRequestAccepted]);
    let ask = pair.client.request_publishing("garden".into(), PublishRequestType::Live).unwrap();
    pair.exchange(vec![ask]);
    let Some(Step::PublishAsked { key, .. }) = pair.steps.pop() else { panic!("{:?}", pair.steps) };
    assert_eq!(key, "garden");
    pair.server.accept();
    pair.exchange(Vec::new());
    assert_eq!(pair.heard.pop(), Some(ClientSessionEvent::PublishRequestAccepted));

    // Enhanced RTMP: a video tag whose first byte has the extended bit, then a FourCC.
    let mut video = b"\x91hvc1".to_vec();
    video.extend((0..60_000_u32).map(|n| n.to_be_bytes()[3]));
    let (video, audio) = (Bytes::from(video), Bytes::from_static(b"\xaf\x01sound"));
    let said = vec![
        pair.client.publish_video_data(video.clone(), RtmpTimestamp::new(0), false).unwrap(),
        pair.client.publish_audio_data(audio.clone(), RtmpTimestamp::new(7), false).unwrap(),
        pair.client.publish_video_data(video.clone(), RtmpTimestamp::new(40), false).unwrap(),
    ];
    pair.exchange(said);
    let tag = |kind, timestamp_ms, body| Step::Tag(Tag { kind, timestamp_ms, body });
    let tags = [
        tag(TagKind::Video, 0, video.clone()),
        tag(TagKind::Audio, 7, audio),
        tag(TagKind::Video, 40, video),
    ];
    assert_eq!(pair.steps, tags);
    let said = pair.client.stop_publishing().unwrap();
    pair.exchange(said);
    assert_eq!(pair.steps.last(), Some(&Step::Unpublished));
}

#[test]
fn metadata_keeps_every_key_and_loses_only_the_request_to_keep_it() {
    let mut pair = Pair::publishing();
    let metadata = StreamMetadata { video_width: Some(640), ..StreamMetadata::new() };
    let said = pair.client.publish_metadata(&metadata).unwrap();
    pair.exchange(vec![said]);
    let Some(Step::Tag(tag)) = pair.steps.pop() else { panic!("{:?}", pair.steps) };
    assert_eq!((tag.kind, tag.is_metadata()), (TagKind::Script, true));

    let mut rest = Writer::default().text("onMetaData").finish();
    // An ECMA array with a wrong count, a date and a key nobody knows: kept to the last byte.
    rest.extend(b"\x08\0\0\0\x63\0\x04when\x0b\0\0\0\0\0\0\0\0\0\0\0\x07unknown\x01\x01\0\0\x09");
    let body = [Writer::default().text("@setDataFrame").finish(), rest.clone()].concat();
    pair.server.receive(&message(18, 1, &body));
    let amf3 = [&[0][..], &body].concat();
    pair.server.receive(&message(15, 1, &amf3));
    pair.exchange(Vec::new());
    let wanted = Tag { kind: TagKind::Script, timestamp_ms: 0, body: rest.into() };
    assert_eq!(pair.steps, [Step::Tag(wanted.clone()), Step::Tag(wanted)]);
}

#[test]
fn another_application_is_refused_with_a_reason() {
    let pair = Pair::connected("live");
    let [ClientSessionEvent::ConnectionRequestRejected { description }] = &pair.heard[..] else {
        panic!("{:?}", pair.heard)
    };
    assert!(description.contains("/astral/KEY"), "{description}");
    assert!(matches!(pair.steps[..], [Step::Close { .. }]));
}

#[test]
fn a_long_refusal_before_any_chunk_size_is_well_formed() {
    let mut session = Pair::shaken().server;
    let connect = Writer::default().text("connect").number(1.0);
    let connect = connect.object(&[("app", Value::Text("other".into()))]).finish();
    session.receive(&message(20, 0, &connect));
    let Some(Step::Send(bytes)) = session.next().unwrap() else { panic!("no answer") };
    let mut reader = ChunkReader::default();
    reader.push(&bytes);
    let answer = reader.next().unwrap().unwrap();
    assert!(answer.body.len() > 128);
    assert_eq!(amf0::read(&answer.body).unwrap()[0].text(), Some("_error"));
    assert_eq!(reader.held_bytes(), 0);
}

#[test]
fn refused_publishers_hear_which_way_they_were_wrong() {
    for (refusal, code) in [
        (Refusal::UnknownKey, "NetStream.Publish.Denied"),
        (Refusal::Busy, "NetStream.Publish.BadName"),
    ] {
        let mut pair = Pair::connected("astral");
        let ask = pair.client.request_publishing("x".into(), PublishRequestType::Live).unwrap();
        pair.exchange(vec![ask]);
        pair.server.refuse(refusal);
        pair.exchange(Vec::new());
        let said = ClientSessionEvent::UnhandleableOnStatusCode { code: code.into() };
        assert_eq!(pair.heard.last(), Some(&said));
        assert!(matches!(pair.steps.last(), Some(Step::Close { .. })));
    }
}

#[test]
fn media_before_publishing_is_ignored() {
    let mut pair = Pair::connected("astral");
    pair.server.receive(&message(9, 1, b"\x17\x01"));
    pair.exchange(Vec::new());
    assert_eq!((pair.server.ignored(), pair.steps.len()), (1, 0));
}

#[test]
fn a_player_gets_whole_tags_at_any_time_and_hears_of_the_end() {
    let mut pair = Pair::connected("astral");
    let ask = pair.client.request_playback("garden?x=1".into()).unwrap();
    pair.exchange(vec![ask]);
    assert_eq!(pair.steps.pop(), Some(Step::PlayAsked { name: "garden".into() }));
    assert!(
        pair.server
            .media(&Tag { kind: TagKind::Audio, timestamp_ms: 0, body: Bytes::new() })
            .is_empty()
    );
    pair.server.accept_player();
    pair.exchange(Vec::new());
    assert!(pair.heard.contains(&ClientSessionEvent::PlaybackRequestAccepted));
    let body: Bytes = (0..30_000_u32).map(|n| n.to_be_bytes()[3]).collect();
    // The client reads every time below the extended field; our own reader reads all.
    let mut reader = ChunkReader::default();
    reader.expect_media();
    reader.set_chunk_bytes(4_096).unwrap();
    for (kind, timestamp_ms) in [
        (TagKind::Video, 0),
        (TagKind::Audio, 0xff_fffe),
        (TagKind::Video, 0xff_ffff),
        (TagKind::Video, u32::MAX),
    ] {
        let tag = Tag { kind, timestamp_ms, body: body.clone() };
        let bytes = pair.server.media(&tag);
        if timestamp_ms < 0xff_ffff {
            let heard = pair.client.handle_input(&bytes).unwrap();
            let [ClientSessionResult::RaisedEvent(event)] = &heard[..] else { panic!("{heard:?}") };
            let (ClientSessionEvent::VideoDataReceived { data, timestamp }
            | ClientSessionEvent::AudioDataReceived { data, timestamp }) = event
            else {
                panic!("{event:?}")
            };
            assert_eq!((data, timestamp.value), (&body, timestamp_ms));
        }
        reader.push(&bytes);
        let message = reader.next().unwrap().unwrap();
        assert_eq!((message.timestamp, &message.body), (timestamp_ms, &body));
    }
    pair.server.end_play();
    pair.exchange(Vec::new());
    assert!(matches!(pair.steps.last(), Some(Step::Close { .. })));
}

#[test]
fn a_player_may_stop_and_ask_again_but_not_play_two_streams() {
    let mut pair = Pair::connected("astral");
    let ask = pair.client.request_playback("one".into()).unwrap();
    pair.exchange(vec![ask]);
    pair.server.accept_player();
    pair.exchange(Vec::new());
    let said = pair.client.stop_playback().unwrap();
    pair.exchange(said);
    assert_eq!(pair.steps.last(), Some(&Step::PlayStopped));
    let play = Writer::default().text("play").number(0.0).null().text("two").finish();
    pair.server.receive(&message(20, 1, &play));
    pair.exchange(Vec::new());
    assert_eq!(pair.steps.last(), Some(&Step::PlayAsked { name: "two".into() }));
    pair.server.receive(&message(20, 1, &play));
    pair.exchange(Vec::new());
    assert!(matches!(pair.steps.last(), Some(Step::Close { .. })));
}

#[test]
fn the_answer_to_connect_says_which_codecs_travel_untouched() {
    let mut session = Pair::shaken().server;
    let connect = Writer::default().text("connect").number(1.0);
    let connect = connect.object(&[("app", Value::Text("astral".into()))]).finish();
    session.receive(&message(20, 0, &connect));
    let Some(Step::Send(bytes)) = session.next().unwrap() else { panic!("no answer") };
    let mut reader = ChunkReader::default();
    reader.push(&bytes);
    let answer = loop {
        let message = reader.next().unwrap().expect("an answer");
        match message.kind {
            kind::SET_CHUNK_SIZE => reader.set_chunk_bytes(4_096).unwrap(),
            kind::COMMAND => break amf0::read(&message.body).unwrap(),
            _ => {}
        }
    };
    let Some(Value::List(codes)) = answer[2].field("fourCcList") else { panic!("{answer:?}") };
    for code in ["hvc1", "av01", "vp09", "Opus"] {
        assert!(codes.contains(&Value::Text(code.into())), "{code}");
    }
    let video = answer[2].field("videoFourCcInfoMap").and_then(|map| map.field("*"));
    assert_eq!(video, Some(&Value::Number(4.0)));
}

#[test]
fn commands_that_need_no_answer_are_read_over() {
    let mut pair = Pair::publishing();
    for name in ["releaseStream", "FCPublish", "_checkbw", "getStreamLength", "anything"] {
        let body = Writer::default().text(name).number(4.0).null().text("k").finish();
        pair.server.receive(&message(20, 0, &body));
    }
    // Only a name, and nothing at all.
    pair.server.receive(&message(20, 0, &Writer::default().text("connect").finish()));
    pair.server.receive(&message(20, 0, &[]));
    pair.server.receive(&message(99, 0, b"?"));
    pair.exchange(Vec::new());
    assert_eq!((pair.server.ignored(), pair.steps.len()), (8, 0));
    assert!(pair.server.is_publishing());
}

#[test]
fn a_ping_is_answered_and_bytes_are_acknowledged() {
    let mut session = Pair::publishing().server;
    session.receive(&message(4, 0, &[0, 6, 1, 2, 3, 4]));
    let Some(Step::Send(pong)) = session.next().unwrap() else { panic!("no pong") };
    assert!(pong.ends_with(&[0, 7, 1, 2, 3, 4]));
    session.receive(&message(5, 0, &[0, 0, 0, 1]));
    for _ in 0..200 {
        session.receive(&message(9, 1, &[0; 100]));
    }
    let mut acknowledged = false;
    while let Some(step) = session.next().unwrap() {
        acknowledged |= matches!(step, Step::Send(_));
    }
    assert!(acknowledged, "a window below the least one is raised to it, not ignored");
}

#[test]
fn garbage_ends_a_session_with_an_error_and_no_memory() {
    let error = |bytes: &[u8]| {
        let mut session = Session::default();
        session.receive(bytes);
        loop {
            match session.next() {
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(error) => return Some(error),
            }
        }
    };
    let after = |bytes: &[u8]| [client_handshake(), bytes.to_vec()].concat();
    assert_eq!(error(b"GET / HTTP/1.1\r\n\r\n"), Some(SessionError::Handshake));
    assert_eq!(error(&client_handshake()[..2_000]), None, "truncated: waits for its deadline");
    let nested = [3, 0, 1, b'a'].repeat(200);
    assert!(matches!(error(&after(&message(20, 0, &nested))), Some(SessionError::Command(_))));
    let large = vec![5; COMMAND_BYTES_MAX + 1];
    let too_long = error(&after(&message(20, 0, &large)));
    assert!(matches!(too_long, Some(SessionError::Chunk(ChunkError::MessageTooLong { .. }))));
    assert!(matches!(error(&after(&message(1, 0, &[0; 4]))), Some(SessionError::Chunk(_))));
    assert!(matches!(error(&after(&message(1, 0, &[255; 4]))), Some(SessionError::Chunk(_))));
}

/// Twenty thousand mutations of whole sessions, by a seeded generator: the same on every machine.
#[test]
fn no_mutated_session_panics_or_outgrows_its_limits() {
    const MUTATIONS: u32 = 20_000;
    let connect = Writer::default().text("connect").number(1.0);
    let connect = connect.object(&[("app", Value::Text("astral".into()))]).finish();
    let create = Writer::default().text("createStream").number(2.0).null().finish();
    let publish =
        Writer::default().text("publish").number(3.0).null().text("k").text("live").finish();
    let metadata = Writer::default().text("@setDataFrame").text("onMetaData").object(&[]).finish();
    let session = [
        message(1, 0, &[0, 0, 16, 0])[..16].to_vec(),
        message(20, 0, &connect),
        message(20, 0, &create),
        message(20, 1, &publish),
        message(18, 1, &metadata),
        message(9, 1, &[0x17; 300]),
        message(8, 1, &[0xaf; 20]),
    ]
    .concat();
    let plain = [vec![0], session.clone()].concat();
    let whole = [vec![0x11], client_handshake(), session].concat();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = |below: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    rtmp_server(&plain);
    rtmp_server(&whole);
    for n in 0..MUTATIONS {
        let mut data = if n % 8 == 0 { whole.clone() } else { plain.clone() };
        for _ in 0..=draw(6) {
            let at = draw(data.len());
            match draw(5) {
                0 => data[at] = u8::try_from(draw(256)).unwrap(),
                1 => data[at] ^= 1 << draw(8),
                2 => data.truncate(at.max(1)),
                3 => drop(data.splice(at..at, [0xff; 4])),
                _ => {
                    let end = (at + draw(64)).min(data.len());
                    let copy = data[at..end].to_vec();
                    data.extend(copy);
                }
            }
        }
        rtmp_server(&data);
    }
}
