//! The JSON of the API: what is sent and what is taken.
//!
//! Owns field names and units: they are a promise to scripts. Durations end in `_ms` or `_s`, rates
//! in `_bps`, sizes in `_bytes`. Does not own what the values mean inside the node.

use astral_core::{
    ids::{NodeId, StreamId, Stripe},
    overlay::{
        Counters, Interest, RegistrationView, Role, Snapshot, StreamView, TicketView, WatchView,
    },
    units::Bitrate,
};
use serde::{Deserialize, Deserializer, Serialize};

use super::port::{Flow, Limits, NodeState};

/// `GET /node`.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct NodeDto {
    /// libp2p's form of the id.
    pub peer_id: String,
    /// The id, 64 digits.
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
    pub role: Role,
    /// Where it stands with supernodes.
    pub registration: RegistrationView,
    /// Others can dial it.
    pub reachable: bool,
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
    pub counters: Counters,
    /// Streams published here.
    pub publishing: Vec<StreamId>,
    /// Streams watched here.
    pub watching: Vec<StreamId>,
    /// Streams seeded here.
    pub seeding: Vec<StreamId>,
}

/// Uplink and what is promised of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct UplinkDto {
    /// What may be used.
    pub usable_bps: u64,
    /// Neither told nor measured: a default.
    pub assumed: bool,
    /// Sum of the tickets given.
    pub promised_bps: u64,
}

/// Bytes on feeds since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct TrafficDto {
    /// Sent.
    pub sent_bytes: u64,
    /// Of which chunks.
    pub sent_media_bytes: u64,
    /// Received.
    pub received_bytes: u64,
}

/// `GET /peers`.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct PeersDto {
    /// Known nodes.
    pub peers: Vec<PeerDto>,
}

/// One known node.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct PeerDto {
    /// Its id.
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

/// `GET /streams`.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct StreamsDto {
    /// Known streams.
    pub streams: Vec<StreamDto>,
}

/// What this node has to do with a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamRole {
    /// It is in the directory, no more.
    Listed,
    /// Published here.
    Publishing,
    /// Watched here.
    Watching,
    /// Forwarded here without a player.
    Seeding,
}

/// One stream.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct StreamDto {
    /// Its id.
    pub id: StreamId,
    /// Its link; `None` for a watched stream whose announcement has not come.
    pub link: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// A line for people.
    pub title: String,
    /// A paragraph for people.
    pub description: String,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// Codec names.
    pub codecs: Vec<String>,
    /// Picture width in pixels.
    pub width: Option<u16>,
    /// Picture height in pixels.
    pub height: Option<u16>,
    /// Bit rate; 0 before the first media.
    pub bitrate_bps: u64,
    /// Number of stripes; 0 before the first media.
    pub stripes: u8,
    /// Epoch of the source.
    pub epoch: u64,
    /// Revision of the announcement.
    pub revision: u64,
    /// The publishing node.
    pub node: Option<NodeId>,
    /// Viewers and seeders that this node's directory knows of.
    pub viewers: u32,
    /// What this node has to do with it.
    pub role: StreamRole,
    /// It is announced, so others can find it.
    pub announced: bool,
    /// Where a player on this machine opens it.
    pub http_flv: String,
}

/// `GET /streams/{id}/stats`.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct StatsDto {
    /// Which stream.
    pub id: StreamId,
    /// What this node has to do with it.
    pub role: StreamRole,
    /// Number of stripes.
    pub stripes: u8,
    /// The stream's rate.
    pub bitrate_bps: u64,
    /// Payload bytes cut here, or received and verified.
    pub bytes: u64,
    /// How far this node is behind the source.
    pub delay_ms: Option<u64>,
    /// Every stripe comes in.
    pub playing: bool,
    /// From whom each stripe comes.
    pub parents: Vec<ParentDto>,
    /// To whom which stripes go.
    pub children: Vec<ChildDto>,
    /// Players on this machine.
    pub readers: usize,
}

/// From whom one stripe comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct ParentDto {
    /// Which stripe.
    pub stripe: Stripe,
    /// From whom; `None` while one is looked for.
    pub node: Option<NodeId>,
    /// Hops from the source.
    pub hops: Option<u8>,
}

/// One child.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ChildDto {
    /// Who.
    pub node: NodeId,
    /// Which stripes it gets.
    pub stripes: Vec<Stripe>,
}

/// `GET /streams/{id}/url` (with the token) and the answer to `POST /streams`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct UrlDto {
    /// Which stream.
    pub id: StreamId,
    /// Its link.
    pub link: Option<String>,
    /// Where a player on this machine opens it.
    pub http_flv: String,
    /// Where its encoder publishes, key included; only for streams that wait for one here.
    pub publish_url: Option<String>,
}

/// `GET /tickets`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct TicketsDto {
    /// Those given first, then those held.
    pub tickets: Vec<TicketDto>,
}

/// Which end of a ticket this node is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TicketEndDto {
    /// This node is the parent.
    Given,
    /// This node is the child.
    Held,
}

/// One ticket.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct TicketDto {
    /// Its name at the parent; text, since it has 64 bits.
    pub id: String,
    /// Which end this node is.
    pub end: TicketEndDto,
    /// Which stream.
    pub stream: StreamId,
    /// Which stripe.
    pub stripe: Stripe,
    /// The node at the other end.
    pub node: NodeId,
    /// Taken up by the child.
    pub confirmed: bool,
    /// Until it lapses unless renewed.
    pub expires_in_ms: u64,
}

/// `GET /settings`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct SettingsDto {
    /// Upload ceiling; null is measured.
    pub uplink_bps: Option<u64>,
    /// Copies of one stream forwarded at most; null is no limit but the uplink.
    pub max_copies: Option<u32>,
    /// Copies of all streams together.
    pub max_total_copies: Option<u32>,
}

/// `PATCH /settings`: what is absent stays, null lifts the limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SettingsPatch {
    /// Upload ceiling: a number of bits per second, or text such as `20Mbit`.
    #[serde(deserialize_with = "present")]
    pub uplink: Option<Option<Bitrate>>,
    /// Copies of one stream.
    #[serde(deserialize_with = "present")]
    pub max_copies: Option<Option<u32>>,
    /// Copies of all streams.
    #[serde(deserialize_with = "present")]
    pub max_total_copies: Option<Option<u32>>,
}

/// `POST /streams`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewStream {
    /// Its name, 1 to 128 characters.
    pub name: String,
    /// A line for people; its name when absent.
    #[serde(default)]
    pub title: Option<String>,
    /// A paragraph for people.
    #[serde(default)]
    pub description: String,
    /// Words to find it by.
    #[serde(default)]
    pub tags: Vec<String>,
    /// 1, 2, 4, 8 or 16; chosen by rate when absent.
    #[serde(default)]
    pub stripes: Option<u8>,
    /// Where its media comes from: `rtmp`, or another source that this node offers.
    pub source: String,
}

/// Tells an absent field from null.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl SettingsPatch {
    /// The limits after this change.
    #[must_use]
    pub fn apply(self, limits: Limits) -> Limits {
        Limits {
            uplink: self.uplink.unwrap_or(limits.uplink),
            max_copies: self.max_copies.unwrap_or(limits.max_copies),
            max_total_copies: self.max_total_copies.unwrap_or(limits.max_total_copies),
        }
    }
}

impl From<Limits> for SettingsDto {
    fn from(limits: Limits) -> Self {
        Self {
            uplink_bps: limits.uplink.map(Bitrate::as_bps),
            max_copies: limits.max_copies,
            max_total_copies: limits.max_total_copies,
        }
    }
}

impl PeersDto {
    /// The nodes of a snapshot.
    #[must_use]
    pub fn new(overlay: &Snapshot) -> Self {
        let peer = |view: &astral_core::overlay::NodeView| PeerDto {
            id: view.node,
            addrs: view.addrs.iter().map(|addr| addr.as_str().to_owned()).collect(),
            supernode: view.supernode,
            connected: view.linked,
            rtt_ms: view.rtt.map(|rtt| rtt.as_secs_f64() * 1_000.0),
            failures: view.failures,
            banned: view.banned,
        };
        Self { peers: overlay.nodes.iter().map(peer).collect() }
    }
}

impl TicketsDto {
    /// The tickets of a snapshot.
    #[must_use]
    pub fn new(overlay: &Snapshot) -> Self {
        let ticket = |end| {
            move |view: &TicketView| TicketDto {
                id: view.ticket.0.to_string(),
                end,
                stream: view.stream,
                stripe: view.stripe,
                node: view.node,
                confirmed: view.confirmed,
                expires_in_ms: view.expires_in_ms,
            }
        };
        let given = overlay.given.iter().map(ticket(TicketEndDto::Given));
        Self { tickets: given.chain(overlay.held.iter().map(ticket(TicketEndDto::Held))).collect() }
    }
}

impl StreamRole {
    /// What the node of a snapshot has to do with `id`; `None` when nothing at all.
    #[must_use]
    pub fn of(id: StreamId, overlay: &Snapshot) -> Option<Self> {
        if overlay.publishing.contains(&id) {
            return Some(Self::Publishing);
        }
        if let Some(watch) = watch_of(id, overlay) {
            return Some(match watch.kind {
                Interest::Play => Self::Watching,
                Interest::Seed => Self::Seeding,
            });
        }
        overlay.streams.iter().any(|view| view.stream == id).then_some(Self::Listed)
    }
}

impl StreamDto {
    /// A stream that is announced.
    #[must_use]
    pub fn announced(view: &StreamView, role: StreamRole, link: String, http_flv: String) -> Self {
        Self {
            id: view.stream,
            link: Some(link),
            name: Some(view.name.clone()),
            title: view.title.clone(),
            description: view.description.clone(),
            tags: view.tags.clone(),
            codecs: view.codecs.clone(),
            width: view.resolution.map(|size| size.width),
            height: view.resolution.map(|size| size.height),
            bitrate_bps: view.rate.as_bps(),
            stripes: view.k,
            epoch: view.epoch,
            revision: view.revision,
            node: Some(view.node),
            viewers: view.viewers,
            role,
            announced: true,
            http_flv,
        }
    }

    /// A stream that is not announced: one that waits for its encoder, or one watched by its id
    /// whose announcement has not come.
    #[must_use]
    pub const fn unannounced(id: StreamId, role: StreamRole, http_flv: String) -> Self {
        Self {
            id,
            link: None,
            name: None,
            title: String::new(),
            description: String::new(),
            tags: Vec::new(),
            codecs: Vec::new(),
            width: None,
            height: None,
            bitrate_bps: 0,
            stripes: 0,
            epoch: 0,
            revision: 0,
            node: None,
            viewers: 0,
            role,
            announced: false,
            http_flv,
        }
    }
}

impl StatsDto {
    /// What flows in `id`; `None` when this node has nothing to do with it.
    #[must_use]
    pub fn new(id: StreamId, state: &NodeState, readers: usize) -> Option<Self> {
        let role = StreamRole::of(id, &state.overlay)?;
        let empty = Flow::default();
        let flow = state.flows.get(&id).unwrap_or(&empty);
        let watch = watch_of(id, &state.overlay);
        let parents = watch.into_iter().flat_map(|watch| &watch.stripes).map(|view| ParentDto {
            stripe: view.stripe,
            node: view.parent,
            hops: view.depth,
        });
        let children = flow
            .children
            .iter()
            .map(|(node, stripes)| ChildDto { node: *node, stripes: stripes.iter().collect() });
        Some(Self {
            id,
            role,
            stripes: flow.k,
            bitrate_bps: flow.rate.as_bps(),
            bytes: flow.bytes,
            delay_ms: flow.delay.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            playing: watch.is_some_and(|watch| watch.playing),
            parents: parents.collect(),
            children: children.collect(),
            readers,
        })
    }
}

fn watch_of(id: StreamId, overlay: &Snapshot) -> Option<&WatchView> {
    overlay.watches.iter().find(|watch| watch.stream == id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_tells_absent_from_null() {
        let limits = Limits {
            uplink: Some(Bitrate::from_mbps(5)),
            max_copies: Some(3),
            max_total_copies: Some(9),
        };
        let patch = |json: &str| serde_json::from_str::<SettingsPatch>(json);
        assert_eq!(patch("{}").unwrap().apply(limits), limits);
        let lifted = patch(r#"{"uplink": null, "max_copies": 0}"#).unwrap().apply(limits);
        let wanted = Limits { uplink: None, max_copies: Some(0), max_total_copies: Some(9) };
        assert_eq!(lifted, wanted);
        let text = patch(r#"{"uplink": "750kbit"}"#).unwrap().apply(limits);
        assert_eq!(text.uplink, Some(Bitrate::from_kbps(750)));
        assert!(patch(r#"{"upload": 1}"#).is_err());
        assert!(patch(r#"{"max_copies": -1}"#).is_err());
    }
}
