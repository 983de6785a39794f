//! The JSON of the API: what is sent and what is taken.
//!
//! Owns field names and units: they are a promise to scripts, written down in `openapi.json`.
//! Durations end in `_ms` or `_s`, rates in `_bps`, sizes in `_bytes`. Does not own what the values
//! mean inside the node.

mod doctor;
mod graph;
mod node;
mod page;
mod problem;
mod record;
mod settings;
mod stats;
mod stream;
mod ticket;

pub use doctor::{Check, DoctorDto, LogsDto, LogsQuery, Verdict};
pub use graph::{EdgeDto, EdgeKind, GraphDto, GraphNodeDto, GraphNodeKind, GraphStreamDto};
pub use node::{
    CountersDto, DeviceDto, DevicesDto, LinkDto, NodeDto, PeerDto, PeersDto, ReachDto,
    RegistrationDto, RoleDto, SessionDto, SessionRequest, TrafficDto, UplinkDto,
};
pub use page::{LIMIT_MAX, Page, paginate};
pub use problem::ProblemDto;
pub use record::{NewRecording, RecordFormatDto, RecordedDto, RecordingDto, StartedDto};
pub use settings::{SettingsDto, SettingsPatch};
pub use stats::{
    AudienceDto, AudienceScope, BelowDto, ChildDto, FailoverDto, ParentDto, StandbyDto, StatsDto,
};
pub use stream::{NewStream, Play, StreamDto, StreamPatch, StreamRole, StreamsDto, UrlDto};
pub use ticket::{TicketDto, TicketEndDto, TicketsDto};
