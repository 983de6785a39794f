//! The local control of a node over HTTP, on loopback.
//!
//! Owns REST, its access rules and the start of all local servers ([`Local`]). Does not own media
//! (see `edge`) nor anything that other nodes can reach: no libp2p protocol leads here.
//!
//! Reading takes a request that names this server and comes from no foreign page; changing
//! anything, and reading keys, takes the token in the data directory. Errors are RFC 9457 problems.

mod app;
mod body;
pub mod changes;
mod devices;
mod doctor;
pub mod dto;
pub mod error;
mod events;
mod graph;
mod guard;
mod handle;
mod healthz;
pub mod history;
mod ladder;
mod listener;
pub mod local;
mod logs;
mod metrics;
mod node;
mod observer;
mod openapi;
mod peers;
pub mod port;
pub mod portal;
mod publishing;
pub mod rate;
mod record;
mod recordings;
mod router;
mod seed;
pub mod session;
mod settings;
mod shutdown;
pub mod state;
mod stats;
mod stream;
mod streams;
pub mod summary;
mod thumbnail;
mod tickets;
pub mod token;
mod url;
pub mod url_file;
mod watch;

pub use devices::LookForDevices;
pub use doctor::Examine;
pub use local::{Local, LocalConfig, LocalError, RtmpsConfig};
pub use logs::LogTail;
pub use port::{Encoded, Published};
pub use publishing::{Filler, Ingest, Opened, Source, Wanted};

#[cfg(test)]
mod tests;
