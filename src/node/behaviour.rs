//! The libp2p behaviours of a node and their settings.
//!
//! Owns which protocols a node speaks, under which names and within which limits. Does not own what
//! is done with their events (`inbound`) nor when they are used (`outbound`).

use std::time::Duration;

use astral_core::overlay::{DirRequest, DirResponse, TicketRequest, TicketResponse, Wire};
use libp2p::{
    PeerId, StreamProtocol, autonat, connection_limits, dcutr,
    gossipsub::{self, IdentTopic, MessageAuthenticity, MessageId, TopicScoreParams},
    identify,
    identity::Keypair,
    kad::{self, store::MemoryStore},
    mdns, ping, relay,
    request_response::{self, ProtocolSupport},
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
    upnp,
};

use super::{
    candidates,
    codec::MessageCodec,
    config::{NodeConfig, RelayChoice},
    error::StartError,
    feed::behaviour as feed,
    identity::is_loopback,
    pictures::PictureCodec,
    relaying,
    repair::RepairCodec,
    serving,
};

/// Kademlia among supernodes, the only ones in server mode.
pub const KAD_PROTOCOL: StreamProtocol = StreamProtocol::new("/astral/kad/1");
/// Forward tickets.
pub const TICKET_PROTOCOL: StreamProtocol = StreamProtocol::new("/astral/ticket/1");
/// Registration and directory.
pub const DIR_PROTOCOL: StreamProtocol = StreamProtocol::new("/astral/dir/1");
/// Chunks from neighbours.
pub const REPAIR_PROTOCOL: StreamProtocol = StreamProtocol::new("/astral/repair/1");
/// Small pictures of streams.
pub const PICTURE_PROTOCOL: StreamProtocol = StreamProtocol::new("/astral/picture/1");
/// What identify says this network is.
const IDENTIFY_PROTOCOL: &str = "/astral/1";
/// The gossip topic of announcements, among supernodes.
const ANNOUNCEMENTS_TOPIC: &str = "/astral/announcements/1";

/// Largest gossip message: an announcement of 4 KiB with its envelope fits twice.
pub const GOSSIP_BYTES_MAX: usize = 8 * 1024;

/// A request that is not answered within this is a failure. The overlay's own deadlines are
/// shorter; this one only frees the stream.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// An answer of a neighbour that takes longer is worth nothing to a player.
const REPAIR_TIMEOUT: Duration = Duration::from_secs(3);
/// Questions of one neighbour at once: one for each stream that both carry, as a rule.
const REPAIRS_PER_CONNECTION_MAX: usize = 8;
/// Pictures asked for at once on one connection.
const PICTURES_PER_CONNECTION_MAX: usize = 8;
/// Requests served at once on one connection.
const REQUESTS_PER_CONNECTION_MAX: usize = 32;
/// Ping rhythm: round-trip times feed the choice of supernodes and parents.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// A ping without answer for so long is a failure.
const PING_TIMEOUT: Duration = Duration::from_secs(6);
/// A lookup that takes longer is worth nothing to a viewer who waits.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(8);
/// Records and providers that a supernode keeps.
const KAD_RECORDS_MAX: usize = 4_096;
/// Announcement messages that are remembered as seen: a minute.
const GOSSIP_SEEN: Duration = Duration::from_secs(60);

/// Connections that are being set up at once, each way.
const PENDING_MAX: u32 = 128;
/// Connections that are up at once, all together; idle ones go earlier (`connections`).
const ESTABLISHED_MAX: u32 = 700;
/// Of these, at most so many that others opened: the rest stays for our own choice of peers.
const ESTABLISHED_INCOMING_MAX: u32 = 500;
/// Connections with one peer: two when both dial at once, one through a relay until a hole is
/// punched, two while a test dials back and while a hole is punched on two transports.
const PER_PEER_MAX: u32 = 5;

/// How tickets travel.
pub type TicketCodec = MessageCodec<TicketRequest, TicketResponse>;
/// How directory messages travel.
pub type DirCodec = MessageCodec<DirRequest, DirResponse>;

/// Everything a node speaks.
#[derive(NetworkBehaviour)]
pub struct Behaviour {
    limits: connection_limits::Behaviour,
    /// Who is who: addresses and protocols of the other side.
    pub identify: identify::Behaviour,
    /// Round-trip times and dead connections.
    pub ping: ping::Behaviour,
    /// Supernode discovery.
    pub kad: kad::Behaviour<MemoryStore>,
    /// Announcements among supernodes.
    pub gossip: gossipsub::Behaviour,
    /// `/astral/ticket/1`.
    pub ticket: request_response::Behaviour<TicketCodec>,
    /// `/astral/dir/1`.
    pub dir: request_response::Behaviour<DirCodec>,
    /// `/astral/repair/1`.
    pub repair: request_response::Behaviour<RepairCodec>,
    /// `/astral/picture/1`.
    pub picture: request_response::Behaviour<PictureCodec>,
    /// `/astral/feed/1`.
    pub feed: feed::Behaviour,
    /// Nodes on the local network.
    pub mdns: Toggle<mdns::tokio::Behaviour>,
    /// A forwarded port from the router.
    pub upnp: Toggle<upnp::tokio::Behaviour>,
    /// Has others test our addresses.
    pub autonat: Toggle<autonat::v2::client::Behaviour>,
    /// Tests others' addresses.
    pub tester: Toggle<autonat::v2::server::Behaviour>,
    /// Relays for others; says so only while this node can be dialled.
    pub relay: Toggle<serving::Behaviour>,
    /// Being reached through relays.
    pub circuits: relay::client::Behaviour,
    /// Punches holes.
    pub punch: Toggle<dcutr::Behaviour>,
    /// Where others see this node, for tests and holes.
    pub candidates: candidates::Behaviour,
}

impl Behaviour {
    /// All behaviours of the node with this key.
    ///
    /// # Errors
    /// [`StartError::Transport`] when a behaviour refuses its settings.
    pub fn new(
        key: &Keypair,
        circuits: relay::client::Behaviour,
        config: &NodeConfig,
    ) -> Result<Self, StartError> {
        let outward = listens_outward(config);
        let tests = config.autonat && outward;
        let relays = config.relay == RelayChoice::Auto && outward;
        let punches = config.hole_punching && config.relay.uses() && outward;
        let me = key.public().to_peer_id();
        let limits = connection_limits::ConnectionLimits::default()
            .with_max_pending_incoming(Some(PENDING_MAX))
            .with_max_pending_outgoing(Some(PENDING_MAX))
            .with_max_established(Some(ESTABLISHED_MAX))
            .with_max_established_incoming(Some(ESTABLISHED_INCOMING_MAX))
            .with_max_established_per_peer(Some(PER_PEER_MAX));
        let identify = identify::Config::new(IDENTIFY_PROTOCOL.to_owned(), key.public())
            .with_agent_version(concat!("astral/", env!("LONG_VERSION")).to_owned())
            .with_push_listen_addr_updates(true)
            .with_hide_listen_addrs(config.privacy);
        let ping = ping::Config::new().with_interval(PING_INTERVAL).with_timeout(PING_TIMEOUT);
        Ok(Self {
            limits: connection_limits::Behaviour::new(limits),
            identify: identify::Behaviour::new(identify),
            ping: ping::Behaviour::new(ping),
            kad: kademlia(me),
            gossip: gossip(key)?,
            ticket: requests(TICKET_PROTOCOL),
            dir: requests(DIR_PROTOCOL),
            repair: repairs(),
            picture: pictures(),
            feed: feed::Behaviour::default(),
            mdns: local_discovery(me, config.mdns),
            upnp: Toggle::from((config.upnp && outward).then(upnp::tokio::Behaviour::default)),
            autonat: Toggle::from(tests.then(autonat::v2::client::Behaviour::default)),
            tester: Toggle::from(tests.then(autonat::v2::server::Behaviour::default)),
            relay: Toggle::from(relays.then(|| relaying::server(me, config))),
            circuits,
            punch: Toggle::from(punches.then(|| dcutr::Behaviour::new(me))),
            candidates: candidates::Behaviour::default(),
        })
    }
}

/// Whether anybody on another machine could reach a listener: on loopback nothing needs a router,
/// tests or relays.
#[must_use]
pub fn listens_outward(config: &NodeConfig) -> bool {
    !config.privacy && config.listen.is_empty()
        || config.listen.iter().any(|addr| !is_loopback(addr))
}

/// The topic that announcements travel on.
#[must_use]
pub fn announcements_topic() -> IdentTopic {
    IdentTopic::new(ANNOUNCEMENTS_TOPIC)
}

fn kademlia(me: PeerId) -> kad::Behaviour<MemoryStore> {
    let mut config = kad::Config::new(KAD_PROTOCOL);
    config
        .set_query_timeout(LOOKUP_TIMEOUT)
        .set_max_packet_size(16 * 1024)
        // Peers are added by hand, when identify shows that they serve our Kademlia: clients never
        // get into a table.
        .set_kbucket_inserts(kad::BucketInserts::Manual)
        .set_periodic_bootstrap_interval(Some(Duration::from_secs(60)));
    let store = kad::store::MemoryStoreConfig {
        max_records: KAD_RECORDS_MAX,
        max_provided_keys: KAD_RECORDS_MAX,
        max_providers_per_key: 100,
        max_value_bytes: 1_024,
    };
    let mut kad = kad::Behaviour::with_config(me, MemoryStore::with_config(me, store), config);
    // Never automatic: that would make nobody a server on loopback and in local networks.
    kad.set_mode(Some(kad::Mode::Client));
    kad
}

fn gossip(key: &Keypair) -> Result<gossipsub::Behaviour, StartError> {
    let wrong = |reason: String| StartError::Transport { reason };
    let config = gossipsub::ConfigBuilder::default()
        .validation_mode(gossipsub::ValidationMode::Strict)
        .validate_messages()
        .max_transmit_size(GOSSIP_BYTES_MAX)
        .heartbeat_initial_delay(Duration::from_millis(200))
        .duplicate_cache_time(GOSSIP_SEEN)
        .connection_handler_queue_len(512)
        // The same announcement from two publishers is one message.
        .message_id_fn(|message| MessageId::from(blake3::hash(&message.data).as_bytes().to_vec()))
        .build()
        .map_err(|error| wrong(error.to_string()))?;
    let mut behaviour = gossipsub::Behaviour::new(MessageAuthenticity::Signed(key.clone()), config)
        .map_err(|error| wrong(error.to_owned()))?;
    let mut params = gossipsub::PeerScoreParams {
        // Households, labs and one host's test network share an address.
        ip_colocation_factor_weight: 0.0,
        ..Default::default()
    };
    let topic = TopicScoreParams {
        // A quiet directory is no offence: nobody owes a rate of announcements.
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        time_in_mesh_quantum: Duration::from_secs(1),
        time_in_mesh_cap: 10.0,
        time_in_mesh_weight: 0.1,
        first_message_deliveries_cap: 20.0,
        invalid_message_deliveries_weight: -20.0,
        invalid_message_deliveries_decay: 0.9,
        ..Default::default()
    };
    params.topics.insert(announcements_topic().hash(), topic);
    behaviour.with_peer_score(params, gossipsub::PeerScoreThresholds::default()).map_err(wrong)?;
    Ok(behaviour)
}

fn requests<Q, A>(protocol: StreamProtocol) -> request_response::Behaviour<MessageCodec<Q, A>>
where
    Q: Wire + Send + Sync + 'static,
    A: Wire + Send + Sync + 'static,
{
    let config = request_response::Config::default()
        .with_request_timeout(REQUEST_TIMEOUT)
        .with_max_concurrent_streams(REQUESTS_PER_CONNECTION_MAX);
    let protocols = [(protocol, ProtocolSupport::Full)];
    request_response::Behaviour::with_codec(MessageCodec::default(), protocols, config)
}

fn repairs() -> request_response::Behaviour<RepairCodec> {
    let config = request_response::Config::default()
        .with_request_timeout(REPAIR_TIMEOUT)
        .with_max_concurrent_streams(REPAIRS_PER_CONNECTION_MAX);
    let protocols = [(REPAIR_PROTOCOL, ProtocolSupport::Full)];
    request_response::Behaviour::with_codec(RepairCodec, protocols, config)
}

fn pictures() -> request_response::Behaviour<PictureCodec> {
    let config = request_response::Config::default()
        .with_request_timeout(REQUEST_TIMEOUT)
        .with_max_concurrent_streams(PICTURES_PER_CONNECTION_MAX);
    let protocols = [(PICTURE_PROTOCOL, ProtocolSupport::Full)];
    request_response::Behaviour::with_codec(PictureCodec, protocols, config)
}

fn local_discovery(me: PeerId, wanted: bool) -> Toggle<mdns::tokio::Behaviour> {
    let behaviour = wanted.then(|| mdns::tokio::Behaviour::new(mdns::Config::default(), me));
    Toggle::from(behaviour.and_then(|made| match made {
        Ok(behaviour) => Some(behaviour),
        Err(error) => {
            tracing::warn!(%error, "no search on the local network");
            None
        }
    }))
}
