//! Machine 1, the overlay: who feeds whom.
//!
//! Owns membership, registration, the directory, forward tickets and failover. Does not own bytes
//! (see `media`), sockets, keys or clocks: the driver does.

mod config;
mod contact;
mod event;
mod input;
mod message;
mod output;
mod snapshot;
mod wire;

pub use config::{OverlayConfig, RoleChoice, Tuning};
pub use contact::{ADDR_BYTES_MAX, ADDRS_MAX, Addr, Contact, path_hash};
pub use event::{
    Event, MoveCause, NoCapacityReason, PromotionReason, RemovalReason, TicketEnd,
};
pub use input::{
    Command, EndReason, FeedDownReason, FeedReport, InboundId, Input, Interest, LookupId, Offence,
    RequestFailure, RequestId, StripeProgress,
};
pub use message::{
    Ask, AskAnswer, AskStripe, CANDIDATES_MAX, CONTACTS_MAX, Candidate, DEPTH_NONE, DirRefusal,
    DirRequest, DirResponse, PAGE_MAX, PATH_MAX, REVOKE_MAX, RefuseReason, Register, Request,
    Response, Revoke, RevokeReason, Role, STATUS_STREAMS_MAX, StreamStatus, StripeAnswer,
    TicketId, TicketRequest, TicketResponse, Verdict,
};
pub use output::{GossipVerdict, LookupKey, Output};
pub use snapshot::{
    CapacityView, Counters, NodeView, RegistrationView, Snapshot, StreamView, StripeView,
    TicketView, WatchView,
};
pub use wire::{MESSAGE_BYTES_MAX, Wire, WireError};
