//! RTMP: encoders such as OBS, ffmpeg and GStreamer publish to `rtmp://HOST:PORT/astral/KEY`, players
//! open `rtmp://HOST:PORT/astral/ID`.
//!
//! Owns the port, its protocol and its keys; tags come out of [`IngestFeed`] in order, payloads
//! untouched. Does not own what becomes of them, nor the streams that players ask for.
//!
//! Everything that a stranger can send is read by our own bounded readers ([`chunk`], [`amf0`]);
//! the handshake and what we send are `rml_rtmp`'s, behind [`wire`].

pub mod amf0;
pub mod chunk;
mod connection;
pub mod fuzz;
pub mod ingest;
pub mod server;
pub mod session;
mod tls;
mod viewer;
pub mod wire;

pub use ingest::{FinishCause, IngestFeed, IngestKeys, KeyError, RECONNECT_WINDOW, RtmpEvent};
pub use server::{RtmpCounters, RtmpCounts, RtmpLimits, RtmpServer};
pub use tls::Certificate;
