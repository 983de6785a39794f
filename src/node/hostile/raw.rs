//! A peer that writes any bytes into the request protocols.

use std::io;

use libp2p::{
    PeerId, StreamProtocol, Swarm, SwarmBuilder,
    futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt},
    identity::Keypair,
    noise, ping,
    request_response::{self, Codec, Event, ProtocolSupport},
    swarm::{NetworkBehaviour, SwarmEvent},
    tcp, yamux,
};
use tokio::time::timeout;

use super::peer_of;
use crate::node::{
    identity,
    testing::{PATIENCE, TestNode},
};

/// Bytes as they are, without bound.
#[derive(Clone, Default)]
pub struct Bytes;

impl Codec for Bytes {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        let mut bytes = Vec::new();
        io.read_to_end(&mut bytes).await?;
        Ok(bytes)
    }

    async fn read_response<T>(&mut self, p: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        self.read_request(p, io).await
    }

    async fn write_request<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        bytes: Vec<u8>,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&bytes).await
    }

    async fn write_response<T>(
        &mut self,
        p: &StreamProtocol,
        io: &mut T,
        bytes: Vec<u8>,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        self.write_request(p, io, bytes).await
    }
}

/// A peer with one protocol and no manners.
#[derive(NetworkBehaviour)]
pub struct Raw {
    exchange: request_response::Behaviour<Bytes>,
    ping: ping::Behaviour,
}

pub struct RawPeer {
    swarm: Swarm<Raw>,
}

impl RawPeer {
    /// Connected to `to`, about to speak `protocol`.
    pub async fn meet(seed: u8, protocol: &'static str, to: &TestNode) -> Self {
        Self::meet_as(identity::keypair([seed; 32]).unwrap(), protocol, to).await
    }

    /// The same with a key of any kind.
    pub async fn meet_as(key: Keypair, protocol: &'static str, to: &TestNode) -> Self {
        let protocols = [(StreamProtocol::new(protocol), ProtocolSupport::Full)];
        let exchange = request_response::Behaviour::with_codec(
            Bytes,
            protocols,
            request_response::Config::default(),
        );
        let mut swarm = SwarmBuilder::with_existing_identity(key)
            .with_tokio()
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_behaviour(|_| Raw { exchange, ping: ping::Behaviour::default() })
            .unwrap()
            .build();
        swarm.dial(to.handle.listen_addrs().remove(0)).unwrap();
        let mut peer = Self { swarm };
        let up =
            |event: &_| matches!(event, SwarmEvent::ConnectionEstablished { .. }).then_some(());
        peer.event(up).await;
        peer
    }

    /// Until the node has answered a ping.
    pub async fn is_answered(&mut self) {
        self.event(|event| match event {
            SwarmEvent::Behaviour(RawEvent::Ping(ping::Event { result: Ok(_), .. })) => Some(()),
            _ => None,
        })
        .await;
    }

    /// Says bytes; gives the answer, or that the node closed the connection for it. An empty
    /// answer is a stream that was closed.
    pub async fn say(&mut self, to: &TestNode, bytes: Vec<u8>) -> Result<Vec<u8>, Dropped> {
        let to: PeerId = peer_of(to);
        self.swarm.behaviour_mut().exchange.send_request(&to, bytes);
        self.event(|event| match event {
            SwarmEvent::Behaviour(RawEvent::Exchange(Event::Message { message, .. })) => {
                match message {
                    request_response::Message::Response { response, .. }
                        if !response.is_empty() =>
                    {
                        Some(Ok(response.clone()))
                    }
                    request_response::Message::Response { .. }
                    | request_response::Message::Request { .. } => None,
                }
            }
            SwarmEvent::ConnectionClosed { .. } => Some(Err(Dropped)),
            _ => None,
        })
        .await
    }

    async fn event<T>(&mut self, pick: impl Fn(&SwarmEvent<RawEvent>) -> Option<T>) -> T {
        let found = async {
            loop {
                if let Some(found) = pick(&self.swarm.select_next_some().await) {
                    return found;
                }
            }
        };
        timeout(PATIENCE, found).await.expect("the node reacts")
    }
}

/// The node closed the connection.
#[derive(PartialEq, Eq, Debug)]
pub struct Dropped;
