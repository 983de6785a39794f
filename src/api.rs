//! The local control of a node over HTTP, on loopback.
//!
//! Owns REST, its access rules and the start of all local servers ([`Local`]). Does not own media
//! (see `edge`) nor anything that other nodes can reach: no libp2p protocol leads here.
//!
//! Reading takes a request that names this server and comes from no foreign page; changing
//! anything, and reading keys, takes the token in the data directory. Errors are RFC 9457 problems.

mod body;
pub mod dto;
pub mod error;
mod events;
mod guard;
mod handle;
mod healthz;
pub mod listener;
pub mod local;
mod node;
mod peers;
pub mod port;
mod publishing;
mod router;
mod seed;
mod settings;
mod shutdown;
pub mod state;
mod stats;
mod stream;
mod streams;
mod tickets;
pub mod token;
mod url;
mod watch;

pub use local::{Local, LocalConfig, LocalError};
pub use publishing::Source;

#[cfg(test)]
mod tests;
