//! The RTMP port over real sockets: keys, limits and deadlines.

use std::{collections::VecDeque, net::SocketAddr};

use astral_core::media::flv::{Tag, TagKind};
use bytes::Bytes;
use rml_rtmp::{
    handshake::{Handshake, HandshakeProcessResult, PeerType},
    sessions::{
        ClientSession, ClientSessionConfig, ClientSessionEvent, ClientSessionResult,
        PublishRequestType,
    },
    time::RtmpTimestamp,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::*;
use crate::edge::{
    fake::FakeStreams,
    ports::MediaItem,
    rtmp::{FinishCause, IngestFeed, RtmpEvent, fuzz::client_handshake},
};

/// What everything here takes much less than.
const SOON: Duration = Duration::from_secs(20);

struct Port {
    addr: SocketAddr,
    keys: IngestKeys,
    counters: Arc<RtmpCounters>,
    _server: JoinSet<()>,
}

async fn port(limits: RtmpLimits) -> Port {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let keys = IngestKeys::default();
    let server = RtmpServer::new(listener, keys.clone(), limits);
    let counters = server.counters();
    let mut tasks = JoinSet::new();
    tasks.spawn(server.run());
    Port { addr, keys, counters, _server: tasks }
}

struct Encoder {
    socket: TcpStream,
    session: ClientSession,
    heard: VecDeque<ClientSessionEvent>,
}

impl Encoder {
    async fn connect(addr: SocketAddr) -> Self {
        let mut socket = TcpStream::connect(addr).await.unwrap();
        let mut shake = Handshake::new(PeerType::Client);
        socket.write_all(&shake.generate_outbound_p0_and_p1().unwrap()).await.unwrap();
        loop {
            let mut bytes = [0; 4_096];
            let n = socket.read(&mut bytes).await.unwrap();
            if let HandshakeProcessResult::Completed { response_bytes, .. } =
                shake.process_bytes(&bytes[..n]).unwrap()
            {
                socket.write_all(&response_bytes).await.unwrap();
                break;
            }
        }
        let (session, _) = ClientSession::new(ClientSessionConfig::new()).unwrap();
        let mut encoder = Self { socket, session, heard: VecDeque::new() };
        let ask = encoder.session.request_connection("astral".into()).unwrap();
        encoder.say(ask).await;
        assert_eq!(encoder.hear().await, Some(ClientSessionEvent::ConnectionRequestAccepted));
        encoder
    }

    async fn publish(&mut self, key: &str) -> ClientSessionEvent {
        let ask = self.session.request_publishing(key.into(), PublishRequestType::Live).unwrap();
        self.say(ask).await;
        self.hear().await.unwrap()
    }

    async fn say(&mut self, result: ClientSessionResult) {
        if let ClientSessionResult::OutboundResponse(packet) = result {
            self.socket.write_all(&packet.bytes).await.unwrap();
        }
    }

    async fn video(&mut self, body: &'static [u8], time: u32) {
        let time = RtmpTimestamp::new(time);
        let said = self.session.publish_video_data(body.into(), time, false).unwrap();
        self.say(said).await;
    }

    /// The next event; `None` when the server closed.
    async fn hear(&mut self) -> Option<ClientSessionEvent> {
        while self.heard.is_empty() {
            let mut bytes = [0; 4_096];
            let read = timeout(SOON, self.socket.read(&mut bytes)).await.unwrap();
            let n = read.ok().filter(|n| *n > 0)?;
            for result in self.session.handle_input(&bytes[..n]).unwrap() {
                match result {
                    ClientSessionResult::RaisedEvent(event) => self.heard.push_back(event),
                    said => self.say(said).await,
                }
            }
        }
        self.heard.pop_front()
    }
}

async fn next(feed: &mut IngestFeed) -> RtmpEvent {
    timeout(SOON, feed.next()).await.unwrap()
}

fn code(code: &str) -> ClientSessionEvent {
    ClientSessionEvent::UnhandleableOnStatusCode { code: code.into() }
}

async fn closed(socket: &mut TcpStream) {
    let mut bytes = [0; 4_096];
    let drain = async { while matches!(socket.read(&mut bytes).await, Ok(1..)) {} };
    timeout(SOON, drain).await.unwrap();
}

#[tokio::test]
async fn an_encoder_comes_goes_and_comes_back() {
    let port = port(RtmpLimits::default()).await;
    let mut feed = port.keys.open_as("garden".into()).unwrap();
    for _ in 0..2 {
        let mut encoder = Encoder::connect(port.addr).await;
        assert_eq!(encoder.publish("garden").await, ClientSessionEvent::PublishRequestAccepted);
        assert!(matches!(next(&mut feed).await, RtmpEvent::Started { encoder: Some(_) }));
        encoder.video(b"\x17\x01key", 40).await;
        let tag =
            Tag { kind: TagKind::Video, timestamp_ms: 40, body: (&b"\x17\x01key"[..]).into() };
        assert_eq!(next(&mut feed).await, RtmpEvent::Tag(tag));
        drop(encoder);
        let finished = RtmpEvent::Finished { cause: FinishCause::Closed };
        assert_eq!(next(&mut feed).await, finished);
    }
    assert_eq!(port.counters.snapshot().published, 2);
}

#[tokio::test]
async fn wrong_keys_and_second_encoders_are_refused_and_the_first_goes_on() {
    let port = port(RtmpLimits::default()).await;
    let mut feed = port.keys.open_as("garden".into()).unwrap();
    let mut first = Encoder::connect(port.addr).await;
    first.publish("garden").await;
    assert!(matches!(next(&mut feed).await, RtmpEvent::Started { .. }));
    let mut second = Encoder::connect(port.addr).await;
    assert_eq!(second.publish("garden").await, code("NetStream.Publish.BadName"));
    assert_eq!(second.hear().await, None);
    let mut wrong = Encoder::connect(port.addr).await;
    assert_eq!(wrong.publish("gardens").await, code("NetStream.Publish.Denied"));
    assert_eq!(wrong.hear().await, None);
    first.video(b"\x27\x01", 80).await;
    assert!(matches!(next(&mut feed).await, RtmpEvent::Tag(_)));
    let counts = port.counters.snapshot();
    assert_eq!((counts.published, counts.busy_key, counts.wrong_key), (1, 1, 1));
}

#[tokio::test]
async fn a_stream_that_stops_sends_its_encoder_away() {
    let port = port(RtmpLimits::default()).await;
    let feed = port.keys.open_as("garden".into()).unwrap();
    let mut encoder = Encoder::connect(port.addr).await;
    encoder.publish("garden").await;
    drop(feed);
    assert_eq!(encoder.hear().await, Some(code("NetStream.Unpublish.Success")));
    assert_eq!(encoder.hear().await, None);
}

#[tokio::test]
async fn garbage_costs_only_its_own_connection() {
    // Long enough that none of them ends by its own deadline.
    let limits = RtmpLimits { setup_max: Duration::from_secs(600), ..RtmpLimits::default() };
    let port = port(limits).await;
    let mut feed = port.keys.open_as("garden".into()).unwrap();
    let mut good = Encoder::connect(port.addr).await;
    good.publish("garden").await;
    assert!(matches!(next(&mut feed).await, RtmpEvent::Started { .. }));
    let mut http = TcpStream::connect(port.addr).await.unwrap();
    http.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    closed(&mut http).await;
    let mut garbage = TcpStream::connect(port.addr).await.unwrap();
    garbage.write_all(&client_handshake()).await.unwrap();
    garbage.write_all(&[0xff; 5_000]).await.unwrap();
    closed(&mut garbage).await;
    let counts = port.counters.snapshot();
    assert_eq!((counts.malformed, counts.timed_out), (2, 0));
    good.video(b"\x27\x01", 80).await;
    assert!(matches!(next(&mut feed).await, RtmpEvent::Tag(_)));
}

#[tokio::test]
async fn a_connection_that_never_says_what_it_wants_is_closed() {
    // Nobody else is on this port: the limit is the very thing that is waited for.
    let limits = RtmpLimits { setup_max: Duration::from_millis(200), ..RtmpLimits::default() };
    let port = port(limits).await;
    let mut silent = TcpStream::connect(port.addr).await.unwrap();
    silent.write_all(&client_handshake()[..700]).await.unwrap();
    closed(&mut silent).await;
    let counts = port.counters.snapshot();
    assert_eq!((counts.malformed, counts.timed_out), (0, 1));
}

#[tokio::test]
async fn an_encoder_that_falls_silent_is_ended() {
    // Far more than it takes to publish on a machine that has other things to do.
    let limits = RtmpLimits { idle_max: Duration::from_secs(3), ..RtmpLimits::default() };
    let port = port(limits).await;
    let mut feed = port.keys.open_as("garden".into()).unwrap();
    let mut encoder = Encoder::connect(port.addr).await;
    encoder.publish("garden").await;
    assert!(matches!(next(&mut feed).await, RtmpEvent::Started { .. }));
    assert_eq!(next(&mut feed).await, RtmpEvent::Finished { cause: FinishCause::Idle });
    assert_eq!(encoder.hear().await, None);
}

#[tokio::test]
async fn encoders_beyond_the_limit_are_refused() {
    let limits = RtmpLimits { connections_max: 1, ..RtmpLimits::default() };
    let port = port(limits).await;
    let _feeds = ["one", "two"].map(|key| port.keys.open_as(key.into()).unwrap());
    let mut one = Encoder::connect(port.addr).await;
    assert_eq!(one.publish("one").await, ClientSessionEvent::PublishRequestAccepted);
    let mut two = Encoder::connect(port.addr).await;
    assert_eq!(two.publish("two").await, code("NetStream.Publish.Denied"));
    assert_eq!(port.counters.snapshot().over_limit, 1);
}

#[tokio::test]
async fn a_thousand_half_open_connections_neither_keep_an_encoder_out_nor_pile_up() {
    const CONNECTIONS: usize = 1_000;
    // Long enough that none of them ends by its own deadline.
    let limits = RtmpLimits { setup_max: Duration::from_secs(600), ..RtmpLimits::default() };
    let port = port(limits).await;
    let mut feed = port.keys.open_as("garden".into()).unwrap();
    let mut good = Encoder::connect(port.addr).await;
    good.publish("garden").await;
    assert!(matches!(next(&mut feed).await, RtmpEvent::Started { .. }));
    let mut lorises = VecDeque::new();
    for n in 0..CONNECTIONS {
        let mut loris = TcpStream::connect(port.addr).await.unwrap();
        // Some say nothing, some half a handshake, some all of it and then the largest message.
        let said = client_handshake();
        let said = match n % 3 {
            0 => &[][..],
            1 => &said[..700],
            _ => &said[..],
        };
        loris.write_all(said).await.unwrap();
        lorises.push_back(loris);
        if lorises.len() > 2 * limits.half_open_max {
            // The server has let this one go: its place is what the newer ones took.
            closed(&mut lorises.pop_front().unwrap()).await;
        }
    }
    let feed_two = port.keys.open_as("orchard".into()).unwrap();
    let mut second = Encoder::connect(port.addr).await;
    assert_eq!(second.publish("orchard").await, ClientSessionEvent::PublishRequestAccepted);
    drop(feed_two);
    good.video(b"\x27\x01", 80).await;
    assert!(matches!(next(&mut feed).await, RtmpEvent::Tag(_)), "the first goes on");
    let kept = CONNECTIONS - usize::try_from(port.counters.snapshot().displaced).unwrap();
    assert!(kept <= limits.half_open_max, "{kept} half-open connections were kept");
    assert!(kept * HALF_OPEN_BYTES_MAX <= 20 * 1024 * 1024);
}

/// An init segment and keyframes, as a reader of a stream hands them over.
fn item(time: u8) -> MediaItem {
    let mut flv = Vec::new();
    if time == 0 {
        flv.extend(b"FLV\x01\x05\0\0\0\x09\0\0\0\0");
        flv.extend([9, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0x17, 0, 0, 0, 0, 0, 0, 0, 16]);
    }
    flv.extend([9, 0, 0, 6, 0, 0, time, 0, 0, 0, 0, 0x17, 1, 0, 0, 0, time, 0, 0, 0, 17]);
    MediaItem::Flv(flv.into())
}

async fn player_port(streams: &Arc<FakeStreams>, limits: RtmpLimits) -> Port {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let keys = IngestKeys::default();
    let interests = Interests::new(streams.clone());
    let server = RtmpServer::new(listener, keys.clone(), limits).playing(interests);
    let counters = server.counters();
    let mut tasks = JoinSet::new();
    tasks.spawn(server.run());
    Port { addr, keys, counters, _server: tasks }
}

#[tokio::test]
async fn a_player_gets_the_stream_from_its_headers_to_its_end() {
    let streams = Arc::new(FakeStreams::greeting(item(0)));
    let port = player_port(&streams, RtmpLimits::default()).await;
    let mut player = Encoder::connect(port.addr).await;
    let ask = player.session.request_playback("07".repeat(32)).unwrap();
    player.say(ask).await;
    let mut videos = Vec::new();
    let mut stream = None;
    while let Some(event) = player.hear().await {
        match event {
            ClientSessionEvent::PlaybackRequestAccepted => stream = Some(streams.newest()),
            ClientSessionEvent::VideoDataReceived { data, timestamp } => {
                videos.push((timestamp.value, data));
                match videos.len() {
                    2 => stream.as_ref().unwrap().send(item(40)).await.unwrap(),
                    3 => drop(stream.take()),
                    _ => {}
                }
            }
            _ => {}
        }
    }
    let times: Vec<u32> = videos.iter().map(|(time, _)| *time).collect();
    assert_eq!(times, [0, 0, 40], "headers, keyframe, and what came later");
    assert_eq!(port.counters.snapshot().played, 1);
}

#[tokio::test]
async fn players_of_nothing_are_told_so() {
    let limits =
        RtmpLimits { first_media_max: Duration::from_millis(200), ..RtmpLimits::default() };
    let silent = Arc::new(FakeStreams::default());
    let unknown = Arc::new(FakeStreams::unknown());
    for (streams, name) in
        [(&silent, "07".repeat(32)), (&silent, "garden".into()), (&unknown, "07".repeat(32))]
    {
        let port = player_port(streams, limits).await;
        let mut player = Encoder::connect(port.addr).await;
        let ask = player.session.request_playback(name).unwrap();
        player.say(ask).await;
        assert_eq!(player.hear().await, Some(code("NetStream.Play.StreamNotFound")));
        assert_eq!(player.hear().await, None);
        assert_eq!(port.counters.snapshot().not_played, 1);
    }
}

#[tokio::test]
async fn a_player_that_stops_reading_is_closed() {
    let limits = RtmpLimits { write_max: Duration::from_millis(300), ..RtmpLimits::default() };
    let streams = Arc::new(FakeStreams::greeting(item(0)));
    let port = player_port(&streams, limits).await;
    let mut player = Encoder::connect(port.addr).await;
    let ask = player.session.request_playback("07".repeat(32)).unwrap();
    player.say(ask).await;
    while player.hear().await != Some(ClientSessionEvent::PlaybackRequestAccepted) {}
    let stream = streams.newest();
    let mut big = vec![9, 8, 0, 0, 0, 0, 80, 0, 0, 0, 0, 0x17, 1];
    big.resize(11 + 0x08_0000 + 4, 0);
    let big = Bytes::from(big);
    let flood = async {
        while port.counters.snapshot().timed_out == 0 {
            stream.send(MediaItem::Flv(big.clone())).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, flood).await.expect("the server closes its connection");
}

#[tokio::test]
async fn a_slow_stream_slows_its_encoder_and_not_the_memory() {
    let port = port(RtmpLimits::default()).await;
    let mut feed = port.keys.open_as("garden".into()).unwrap();
    let mut encoder = Encoder::connect(port.addr).await;
    encoder.publish("garden").await;
    let body: Bytes = vec![0x27; 1024 * 1024].into();
    let mut sent = 0_u32;
    // Far more than queue and socket buffers hold: at some point the encoder has to wait.
    while sent < 64 {
        let time = RtmpTimestamp::new(sent * 40);
        let said = encoder.session.publish_video_data(body.clone(), time, false).unwrap();
        let ClientSessionResult::OutboundResponse(packet) = said else { panic!("no packet") };
        let write = encoder.socket.write_all(&packet.bytes);
        match timeout(Duration::from_secs(2), write).await {
            Ok(written) => written.unwrap(),
            Err(_) => break,
        }
        sent += 1;
    }
    assert!(sent < 64, "nothing slowed the encoder down");
    assert!(matches!(next(&mut feed).await, RtmpEvent::Started { .. }));
    for n in 0..sent {
        let RtmpEvent::Tag(tag) = next(&mut feed).await else { panic!("no tag {n}") };
        assert_eq!((tag.timestamp_ms, tag.body.len()), (n * 40, body.len()));
    }
}
