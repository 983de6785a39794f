//! An RTMP client for load: publishes and plays through `rml_rtmp`.

use std::collections::VecDeque;

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
};

/// A connection to `rtmp://HOST/APP/KEY`.
pub struct Client {
    socket: TcpStream,
    session: ClientSession,
    heard: VecDeque<ClientSessionEvent>,
    key: String,
}

/// What is left of a client that plays: it only reads.
pub struct Session(ClientSession);

impl Client {
    /// Connects up to the application.
    pub async fn connect(url: &str) -> Self {
        let rest = url.strip_prefix("rtmp://").expect("rtmp");
        let (host, path) = rest.split_once('/').expect("an application");
        let (app, key) = path.rsplit_once('/').expect("a key");
        let mut socket = TcpStream::connect(host).await.expect("the server listens");
        socket.set_nodelay(true).expect("nodelay");
        let mut shake = Handshake::new(PeerType::Client);
        let hello = shake.generate_outbound_p0_and_p1().expect("a greeting");
        socket.write_all(&hello).await.expect("the server reads");
        let rest = loop {
            let mut bytes = [0; 4_096];
            let read = socket.read(&mut bytes).await.expect("the server greets");
            assert!(read > 0, "the server closed");
            match shake.process_bytes(&bytes[..read]).expect("a greeting") {
                HandshakeProcessResult::InProgress { response_bytes } => {
                    socket.write_all(&response_bytes).await.expect("the server reads");
                }
                HandshakeProcessResult::Completed { response_bytes, remaining_bytes } => {
                    socket.write_all(&response_bytes).await.expect("the server reads");
                    break remaining_bytes;
                }
            }
        };
        let mut config = ClientSessionConfig::new();
        config.chunk_size = 60_000;
        config.tc_url = Some(format!("rtmp://{host}/{app}"));
        let (session, first) = ClientSession::new(config).expect("a session");
        let mut client = Self { socket, session, heard: VecDeque::new(), key: key.to_owned() };
        for result in first {
            client.say(result).await;
        }
        client.take(&rest).await;
        let ask = client.session.request_connection(app.to_owned()).expect("a request");
        client.say(ask).await;
        client.hear(|event| matches!(event, ClientSessionEvent::ConnectionRequestAccepted)).await;
        client
    }

    /// Asks to publish under the URL's key.
    pub async fn publish(&mut self) {
        let ask = self.session.request_publishing(self.key.clone(), PublishRequestType::Live);
        self.say(ask.expect("a request")).await;
        self.hear(|event| matches!(event, ClientSessionEvent::PublishRequestAccepted)).await;
    }

    /// Sends one video tag.
    pub async fn send(&mut self, tag: &Tag) {
        assert_eq!(tag.kind, TagKind::Video, "the synthetic stream has a picture alone");
        let time = RtmpTimestamp::new(tag.timestamp_ms);
        let said = self.session.publish_video_data(tag.body.clone(), time, false);
        self.say(said.expect("a message")).await;
    }

    /// Asks to play; what follows comes on the socket.
    pub async fn play(mut self) -> (TcpStream, Session) {
        let ask = self.session.request_playback(self.key.clone()).expect("a request");
        self.say(ask).await;
        self.hear(|event| matches!(event, ClientSessionEvent::PlaybackRequestAccepted)).await;
        (self.socket, Session(self.session))
    }

    async fn hear(&mut self, wanted: impl Fn(&ClientSessionEvent) -> bool) {
        loop {
            while let Some(event) = self.heard.pop_front() {
                if wanted(&event) {
                    return;
                }
            }
            let mut bytes = [0; 4_096];
            let read = self.socket.read(&mut bytes).await.expect("the server answers");
            assert!(read > 0, "the server closed");
            self.take(&bytes[..read]).await;
        }
    }

    async fn take(&mut self, bytes: &[u8]) {
        for result in self.session.handle_input(bytes).expect("sound RTMP") {
            match result {
                ClientSessionResult::RaisedEvent(event) => self.heard.push_back(event),
                said => self.say(said).await,
            }
        }
    }

    async fn say(&mut self, result: ClientSessionResult) {
        if let ClientSessionResult::OutboundResponse(packet) = result {
            self.socket.write_all(&packet.bytes).await.expect("the server reads");
        }
    }
}

impl Session {
    /// Bodies of the video messages that these bytes complete.
    pub fn videos(&mut self, bytes: &[u8]) -> Vec<Bytes> {
        let results = self.0.handle_input(bytes).expect("sound RTMP");
        results
            .into_iter()
            .filter_map(|result| match result {
                ClientSessionResult::RaisedEvent(ClientSessionEvent::VideoDataReceived {
                    data,
                    ..
                }) => Some(data),
                _ => None,
            })
            .collect()
    }
}
