//! Local protocols: RTMP in, HTTP-FLV out, files and pipes.
//!
//! Owns everything between a player or encoder on this machine and the node. Does not own the node,
//! REST (see `api`) or GStreamer. All of it is written against [`ports`].

mod handle;
pub mod http_flv;
pub mod interest;
pub mod local;
pub mod ports;
pub mod rtmp;
pub mod share;
pub mod sink;
pub mod splice;

#[cfg(test)]
pub(crate) mod fake;
