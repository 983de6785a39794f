//! Circuits over real sockets, and what is told apart.

use std::time::{Duration, Instant};

use libp2p::{
    Multiaddr, Stream, Swarm,
    futures::{AsyncReadExt, AsyncWriteExt, StreamExt},
    multiaddr::Protocol,
    swarm::SwarmEvent,
};
use tokio::{task::JoinHandle, time::timeout};

use super::*;
use crate::node::{
    NodeConfig,
    behaviour::{Behaviour, BehaviourEvent},
    drowsy::Drowsy,
    feed::{behaviour::Event, handler::OpenId},
    identity, swarm,
    testing::PATIENCE,
};

/// The limit of the node that relays.
const UPLINK: Bitrate = Bitrate::from_kbps(1_600);
/// What goes through the circuit.
const BYTES: usize = 120_000;

type Peer = Swarm<Drowsy<Behaviour>>;

/// A swarm that listens and decides nothing.
async fn peer(seed: u8, listen: &str) -> (Peer, Toll, Multiaddr) {
    let config = NodeConfig {
        // Relaying is for those who can be reached from outside.
        listen: vec![listen.parse().unwrap()],
        uplink: Some(UPLINK),
        mdns: false,
        upnp: false,
        autonat: false,
        hole_punching: false,
        ..NodeConfig::default()
    };
    let key = identity::keypair([seed; 32]).unwrap();
    let (mut swarm, toll) = swarm::build(key, &config, Clock::start()).unwrap();
    let listen = swarm::listen(&mut swarm, &config).await.unwrap();
    let here = listen.into_iter().find(identity::is_loopback).expect("on loopback too");
    (swarm, toll, here)
}

/// Drives a swarm until an event is the one that is waited for.
async fn until<T>(
    swarm: &mut Peer,
    mut pick: impl FnMut(SwarmEvent<BehaviourEvent>) -> Option<T>,
) -> T {
    let found = async {
        loop {
            if let Some(found) = pick(swarm.select_next_some().await) {
                return found;
            }
        }
    };
    timeout(PATIENCE, found).await.expect("in time")
}

fn driven(mut swarm: Peer) -> JoinHandle<()> {
    tokio::spawn(async move { while swarm.next().await.is_some() {} })
}

/// Sends [`BYTES`] from one peer to another through a third that may use a quarter of [`UPLINK`] for
/// it; how long that took.
async fn relayed(listen: &str) -> Duration {
    let (mut relay, tolls, relay_at) = peer(1, listen).await;
    tolls.set_uplink(Some(UPLINK));
    relay.behaviour_mut().relay.as_mut().expect("listens outward").set_serving(true);
    relay.add_external_address(relay_at.clone());
    let place = relay_at.with(Protocol::P2p(*relay.local_peer_id())).with(Protocol::P2pCircuit);
    let (mut one, toll_one, _) = peer(2, listen).await;
    let (mut two, toll_two, _) = peer(3, listen).await;
    let relay = driven(relay);

    two.listen_on(place.clone()).unwrap();
    until(&mut two, |event| {
        let SwarmEvent::NewListenAddr { address, .. } = event else { return None };
        address.iter().any(|part| part == Protocol::P2pCircuit).then_some(())
    })
    .await;
    let peer_two = *two.local_peer_id();
    let reader = tokio::spawn(async move {
        let mut stream = until(&mut two, |event| match event {
            SwarmEvent::Behaviour(BehaviourEvent::Feed(Event::Inbound { stream, .. })) => {
                Some(stream)
            }
            _ => None,
        })
        .await;
        let driven = driven(two);
        let mut received = vec![0; BYTES];
        let all = stream.stream.read_exact(&mut received);
        timeout(PATIENCE, all).await.expect("in time").unwrap();
        driven.abort();
    });
    one.dial(place.with(Protocol::P2p(peer_two))).unwrap();
    until(&mut one, |event| match event {
        SwarmEvent::ConnectionEstablished { peer_id, .. } => (peer_id == peer_two).then_some(()),
        _ => None,
    })
    .await;
    one.behaviour_mut().feed.open(peer_two, OpenId(1));
    let mut stream: Stream = until(&mut one, |event| match event {
        SwarmEvent::Behaviour(BehaviourEvent::Feed(Event::Opened { stream, .. })) => Some(stream),
        _ => None,
    })
    .await;
    let one = driven(one);
    let began = Instant::now();
    stream.write_all(&[7; BYTES]).await.unwrap();
    stream.flush().await.unwrap();
    reader.await.unwrap();
    let took = began.elapsed();
    assert!(tolls.bytes() >= BYTES as u64, "{} bytes counted", tolls.bytes());
    let of_the_ends = (toll_one.bytes(), toll_two.bytes());
    assert_eq!(of_the_ends, (0, 0), "who uses a circuit pays by its own pacer");
    for task in [relay, one] {
        task.abort();
    }
    took
}

/// However slow this machine is, no more passes than this.
fn assert_paced(took: Duration) {
    let share = share(UPLINK);
    let burst = share.bytes_in(Duration::from_millis(50)) + 2 * PIECE as u64;
    let most = share.bytes_in(took) + burst;
    assert!(BYTES as u64 <= most, "{BYTES} bytes in {took:?}, {most} may pass");
}

#[tokio::test]
async fn a_circuit_over_tcp_keeps_to_its_share_of_the_uplink() {
    assert_paced(Box::pin(relayed("/ip4/0.0.0.0/tcp/0")).await);
}

#[tokio::test]
async fn a_circuit_over_quic_keeps_to_its_share_of_the_uplink() {
    assert_paced(Box::pin(relayed("/ip4/0.0.0.0/udp/0/quic-v1")).await);
}

fn said(messages: &[&[u8]], piece: usize) -> Option<bool> {
    let mut said = Said { wanted: HOP_PROTOCOL_NAME, message: Vec::new() };
    let framed = messages.iter().flat_map(|text| {
        std::iter::once(u8::try_from(text.len()).unwrap()).chain(text.iter().copied())
    });
    let bytes: Vec<u8> = framed.collect();
    bytes.chunks(piece).find_map(|bytes| said.more(bytes))
}

#[test]
fn a_circuit_is_known_by_the_protocol_that_this_node_agreed_to() {
    let hop: &[u8] = b"/libp2p/circuit/relay/0.2.0/hop\n";
    for piece in [1, 7, 1_000] {
        let greeting: &[u8] = b"/multistream/1.0.0\n";
        assert_eq!(said(&[greeting, hop], piece), Some(true));
        assert_eq!(said(&[greeting, b"na\n", b"na\n", hop], piece), Some(true));
        assert_eq!(said(&[greeting, b"/astral/feed/1\n", hop], piece), Some(false));
        assert_eq!(said(&[greeting], piece), None);
        assert_eq!(said(&[greeting, b"na\n"], piece), None);
    }
    let mut long = Said { wanted: HOP_PROTOCOL_NAME, message: Vec::new() };
    assert_eq!(long.more(&[0xff; 3]), Some(false), "nothing is kept of names that are too long");
}
