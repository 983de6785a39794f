//! Local protocols: RTMP in and out, HTTP-FLV, WebSocket-FLV and HLS out, files and pipes.
//!
//! Owns everything between a player or encoder on this machine and the node. Does not own the node,
//! REST (see `api`) or GStreamer. All of it is written against [`ports`].

pub mod certificate;
pub mod fmp4;
mod handle;
pub mod hls;
pub mod http_flv;
pub mod interest;
mod live;
pub mod local;
pub mod page_in;
pub mod ports;
pub mod record;
pub mod rtmp;
pub mod share;
pub mod sink;
pub mod splice;
mod switch;
mod ws_flv;

#[cfg(test)]
pub(crate) mod fake;

pub use handle::watch_fitting;
