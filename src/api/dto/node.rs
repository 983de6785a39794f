//! The node, the nodes it knows, its devices, and how a page gets its token.
//!
//! Owns these types' JSON. Does not own the values.

use std::collections::BTreeMap;

use astral_core::{
    ids::{NodeId, StreamId},
    overlay::{Counters, RegistrationView, Role, Snapshot},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Page, paginate};
use crate::node::ReachView;

/// A node's part in the network.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RoleDto {
    /// Keeps a directory for members.
    Supernode,
    /// Registers with a supernode.
    Member,
}

/// Where a node stands with supernodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum RegistrationDto {
    /// Looking for a supernode.
    Searching,
    /// Member of one.
    Registered {
        /// Which.
        #[schema(value_type = String)]
        supernode: NodeId,
        /// The one that would take over.
        #[schema(value_type = Option<String>)]
        backup: Option<NodeId>,
    },
    /// Served at a reduced rate.
    Guest {
        /// By whom.
        #[schema(value_type = Option<String>)]
        supernode: Option<NodeId>,
    },
    /// Is one itself.
    Supernode,
}

/// `GET /node`.
#[derive(Clone, PartialEq, Debug, Serialize, ToSchema)]
pub struct NodeDto {
    /// libp2p's form of the id.
    pub peer_id: String,
    /// The id, 64 digits.
    #[schema(value_type = String)]
    pub node_id: NodeId,
    /// The program's version.
    pub version: &'static str,
    /// Multiaddrs that others dial.
    pub listen: Vec<String>,
    /// This server.
    pub api: String,
    /// Where encoders connect.
    pub rtmp: String,
    /// Part in the network.
    pub role: RoleDto,
    /// Where it stands with supernodes.
    pub registration: RegistrationDto,
    /// Others can dial it.
    pub reachable: bool,
    /// What is known about that.
    pub reach: ReachDto,
    /// Nodes registered here.
    pub members: usize,
    /// Known nodes with a connection.
    pub connected: usize,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// Uplink.
    pub uplink: UplinkDto,
    /// Bytes on feeds.
    pub traffic: TrafficDto,
    /// What was counted since the start.
    pub counters: CountersDto,
    /// Streams published here.
    #[schema(value_type = Vec<String>)]
    pub publishing: Vec<StreamId>,
    /// Streams watched here.
    #[schema(value_type = Vec<String>)]
    pub watching: Vec<StreamId>,
    /// Streams seeded here.
    #[schema(value_type = Vec<String>)]
    pub seeding: Vec<StreamId>,
    /// What `POST /streams` takes as `source`.
    pub sources: Vec<String>,
    /// `POST /streams/{id}/record` has a folder to record into.
    pub records: bool,
}

/// How other nodes reach this one.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, ToSchema)]
pub struct ReachDto {
    /// `public`, `private` (a NAT or firewall is between) or `unknown`.
    pub verdict: String,
    /// The same for each transport: `tcp4`, `quic4`, `tcp6`, `quic6`.
    pub transports: BTreeMap<String, String>,
    /// `none`, `cone` (one mapping for all: holes can be punched), `symmetric` or `unknown`.
    pub nat: String,
    /// `off`, `searching`, `mapped`, `no_gateway` or `not_routable`.
    pub upnp: String,
    /// Addresses outside the local network.
    pub external: Vec<String>,
    /// Addresses at relays.
    pub relayed: Vec<String>,
    /// Relays for others.
    pub serves_relay: bool,
    /// Connections through punched holes since the start.
    pub punched: u64,
    /// Attempts at that which failed.
    pub punch_failures: u64,
    /// Nodes connected through a relay at the moment.
    pub circuits: usize,
}

impl From<&ReachView> for ReachDto {
    fn from(view: &ReachView) -> Self {
        let transports = view.transports.iter();
        Self {
            verdict: word(&view.verdict),
            transports: transports.map(|(of, verdict)| (word(of), word(verdict))).collect(),
            nat: word(&view.nat),
            upnp: word(&view.upnp),
            external: view.external.clone(),
            relayed: view.relayed.clone(),
            serves_relay: view.serves_relay,
            punched: view.punched,
            punch_failures: view.punch_failures,
            circuits: view.circuits,
        }
    }
}

/// An enum's value as it is written.
fn word(value: &impl Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

/// Uplink and what is promised of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct UplinkDto {
    /// What may be used.
    pub usable_bps: u64,
    /// Neither told nor measured: a default.
    pub assumed: bool,
    /// Sum of the tickets given.
    pub promised_bps: u64,
}

/// Bytes on feeds since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct TrafficDto {
    /// Sent.
    pub sent_bytes: u64,
    /// Of which chunks.
    pub sent_media_bytes: u64,
    /// Received.
    pub received_bytes: u64,
}

/// What the overlay counted since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct CountersDto {
    /// Requests sent.
    pub requests_sent: u64,
    /// Requests answered.
    pub requests_answered: u64,
    /// Requests of this node that failed.
    pub requests_failed: u64,
    /// Requests refused because the asker asks too often.
    pub rate_limited: u64,
    /// Tickets given.
    pub granted: u64,
    /// Stripes refused.
    pub refused: u64,
    /// Parents lost and replaced.
    pub failovers: u64,
    /// Announcements dropped: forged.
    pub forged: u64,
    /// Announcements ignored: old.
    pub stale: u64,
    /// Entries dropped because a table was full.
    pub overflows: u64,
    /// Offences seen.
    pub offences: u64,
    /// Complaints about parents that were noted here, and those that were not worth it.
    pub complaints: u64,
    /// Nodes left out of answers because of complaints.
    pub delisted: u64,
}

/// `GET /peers`.
#[derive(Clone, PartialEq, Debug, Serialize, ToSchema)]
pub struct PeersDto {
    /// Known nodes, in the order of their ids.
    pub peers: Vec<PeerDto>,
    /// The next page's `after`; null on the last page.
    pub next: Option<String>,
}

/// One known node.
#[derive(Clone, PartialEq, Debug, Serialize, ToSchema)]
pub struct PeerDto {
    /// Its id.
    #[schema(value_type = String)]
    pub id: NodeId,
    /// Where it is found.
    pub addrs: Vec<String>,
    /// Known to be a supernode.
    pub supernode: bool,
    /// A connection is up.
    pub connected: bool,
    /// Last round trip.
    pub rtt_ms: Option<f64>,
    /// Failed attempts in a row.
    pub failures: u32,
    /// Refused for misbehaving.
    pub banned: bool,
}

/// `GET /devices`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct DevicesDto {
    /// Cameras, microphones and screens of the node's machine.
    pub devices: Vec<DeviceDto>,
}

/// Something that can be captured.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct DeviceDto {
    /// `camera`, `microphone` or `screen`.
    pub kind: String,
    /// What `POST /streams` takes as `device` or `mic`.
    pub id: String,
    /// Its name, for people.
    pub name: String,
    /// What it can deliver, for people.
    pub modes: Vec<String>,
}

/// `POST /session`: a one-time code for the token.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionRequest {
    /// The code behind `#code=` in the link.
    pub code: String,
}

/// The answer to `POST /session`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct SessionDto {
    /// What every later request sends as `Authorization: Bearer`.
    pub token: String,
}

/// `POST /links`: a link that opens the web app once.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct LinkDto {
    /// The link, code included.
    pub url: String,
    /// Until it is of no use.
    pub expires_in_s: u64,
}

impl From<Role> for RoleDto {
    fn from(role: Role) -> Self {
        match role {
            Role::Supernode => Self::Supernode,
            Role::Member => Self::Member,
        }
    }
}

impl From<RegistrationView> for RegistrationDto {
    fn from(view: RegistrationView) -> Self {
        match view {
            RegistrationView::Searching => Self::Searching,
            RegistrationView::Registered { supernode, backup } => {
                Self::Registered { supernode, backup }
            }
            RegistrationView::Guest { supernode } => Self::Guest { supernode },
            RegistrationView::Supernode => Self::Supernode,
        }
    }
}

impl From<Counters> for CountersDto {
    fn from(counters: Counters) -> Self {
        let Counters {
            requests_sent,
            requests_answered,
            requests_failed,
            rate_limited,
            granted,
            refused,
            failovers,
            forged,
            stale,
            overflows,
            offences,
            complaints,
            delisted,
        } = counters;
        Self {
            requests_sent,
            requests_answered,
            requests_failed,
            rate_limited,
            granted,
            refused,
            failovers,
            forged,
            stale,
            overflows,
            offences,
            complaints,
            delisted,
        }
    }
}

impl PeerDto {
    /// The nodes of a snapshot, in its order.
    pub fn all(overlay: &Snapshot) -> impl Iterator<Item = Self> {
        overlay.nodes.iter().map(|view| Self {
            id: view.node,
            addrs: view.addrs.iter().map(|addr| addr.as_str().to_owned()).collect(),
            supernode: view.supernode,
            connected: view.linked,
            rtt_ms: view.rtt.map(|rtt| rtt.as_secs_f64() * 1_000.0),
            failures: view.failures,
            banned: view.banned,
        })
    }
}

impl PeersDto {
    /// One page of a snapshot's nodes.
    #[must_use]
    pub fn new(overlay: &Snapshot, page: &Page) -> Self {
        let mut peers: Vec<PeerDto> = PeerDto::all(overlay).collect();
        peers.sort_by_key(|peer| peer.id);
        let (peers, next) = paginate(peers, page, |peer| peer.id.to_string());
        Self { peers, next }
    }
}
