//! What a node needs to know to start.
//!
//! Owns [`NodeConfig`] and the driver's named limits that more than one file uses. Does not own
//! settings files, environment or flags: those are merged above and end up here.

use std::path::PathBuf;

pub use astral_core::overlay::RoleChoice;
use astral_core::units::Bitrate;
use libp2p::Multiaddr;

use super::pictures::PictureMaker;

/// The port that a node listens on when nothing else is said; taken ones move to a free one.
pub const DEFAULT_PORT: u16 = 4001;

/// Members that a supernode admits unless told otherwise.
pub const MEMBER_CAPACITY_DEFAULT: u32 = 100;

/// Mean rate of a relayed connection unless told otherwise: a stream of usual quality, whole.
pub const RELAY_RATE_DEFAULT: Bitrate = Bitrate::from_kbps(4_000);

/// Connections relayed at once unless told otherwise.
pub const RELAY_CIRCUITS_DEFAULT: u32 = 16;

/// Streams that a supernode carries for members that name no address, unless told otherwise.
pub const PRIVATE_STREAMS_DEFAULT: u32 = 4;

/// What a node has to do with relays.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RelayChoice {
    /// Uses them when it can't be dialled, serves others when it can be.
    #[default]
    Auto,
    /// Uses them and never serves.
    Use,
    /// Neither.
    Off,
}

impl RelayChoice {
    /// Whether this node may reach others, and be reached, through relays.
    #[must_use]
    pub const fn uses(self) -> bool {
        matches!(self, Self::Auto | Self::Use)
    }
}

/// Everything that [`super::Node::start`] wants to know.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Where keys, epochs and tokens live; `None` keeps everything in memory (ephemeral).
    pub data_dir: Option<PathBuf>,
    /// Addresses to listen on, port 0 = any free one. Empty = TCP and QUIC on [`DEFAULT_PORT`],
    /// moved to free ports when taken.
    pub listen: Vec<Multiaddr>,
    /// Nodes to join through; with or without `/p2p/..` at the end.
    pub bootstrap: Vec<Multiaddr>,
    /// Hard ceiling of everything sent on feeds; `None` = measured, not paced.
    pub uplink: Option<Bitrate>,
    /// At most so many copies of one stream are forwarded; 0 = forward nothing.
    pub max_copies: Option<u32>,
    /// At most so many copies of all streams together are forwarded.
    pub max_total_copies: Option<u32>,
    /// Whether this node may become a supernode.
    pub role: RoleChoice,
    /// Whether to look for nodes on the local network by multicast DNS.
    pub mdns: bool,
    /// Whether to ask the router to forward the port.
    pub upnp: bool,
    /// Whether to have other nodes test the own addresses, and to test theirs.
    pub autonat: bool,
    /// Whether to punch holes through NATs, with a relay's help.
    pub hole_punching: bool,
    /// Whether relays are used and served.
    pub relay: RelayChoice,
    /// Mean rate that each circuit gets while this node relays.
    pub relay_rate: Bitrate,
    /// Circuits that this node relays at once.
    pub relay_circuits: u32,
    /// Addresses outside the local network that a router forwards to this node.
    pub external: Vec<Multiaddr>,
    /// Speaks with one supernode alone, the first of `bootstrap`: no other node learns this one's
    /// address.
    pub privacy: bool,
    /// Streams carried, while a supernode, for members that name no address.
    pub private_streams: u32,
    /// Members admitted while this node is a supernode.
    pub member_capacity: u32,
    /// Where every input of the overlay is written down; `None` = nowhere.
    pub journal: Option<PathBuf>,
    /// Makes small pictures of the streams published here; `None` = they have none.
    pub picture_maker: Option<PictureMaker>,
    /// Test hook: the task of this name panics once. Names are those in `node/tasks.rs`.
    pub panic_in: Option<String>,
}

impl NodeConfig {
    /// With everything that privacy forbids left out: listeners, searches, tests, forwarding.
    #[must_use]
    pub fn settled(mut self) -> Self {
        if self.privacy {
            self.bootstrap.truncate(1);
            self.listen.clear();
            self.external.clear();
            self.max_copies = Some(0);
            self.role = RoleChoice::Member;
            self.relay = RelayChoice::Off;
            (self.mdns, self.upnp, self.autonat, self.hole_punching) = (false, false, false, false);
        }
        self
    }

    /// The only node that this one may speak with, if there is such a rule.
    #[must_use]
    pub fn only(&self) -> Option<Multiaddr> {
        self.bootstrap.first().filter(|_| self.privacy).cloned()
    }
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            data_dir: None,
            listen: Vec::new(),
            bootstrap: Vec::new(),
            uplink: None,
            max_copies: None,
            max_total_copies: None,
            role: RoleChoice::Auto,
            mdns: true,
            upnp: false,
            autonat: true,
            hole_punching: true,
            relay: RelayChoice::Auto,
            relay_rate: RELAY_RATE_DEFAULT,
            relay_circuits: RELAY_CIRCUITS_DEFAULT,
            external: Vec::new(),
            privacy: false,
            private_streams: PRIVATE_STREAMS_DEFAULT,
            member_capacity: MEMBER_CAPACITY_DEFAULT,
            journal: None,
            picture_maker: None,
            panic_in: std::env::var("ASTRAL_TEST_PANIC").ok().filter(|name| !name.is_empty()),
        }
    }
}
