//! The whole thing as a stranger runs it: real processes, real sockets, real encoders and players.
//!
//! Every test starts nodes as processes of the built binary on loopback, waits for what they say on
//! stdout with a deadline, and ends only processes it started.

#![expect(clippy::unwrap_used, reason = "a failing test panics")]

mod adaptive;
mod broadcast;
mod chain;
mod crowd;
mod ctl;
mod directory;
mod drill;
mod encoders;
mod enhanced;
mod failover;
mod glass;
mod harness;
mod homes;
mod lifecycle;
mod long;
mod namespaces;
mod players;
mod portal;
mod readme;
mod refusals;
mod renditions;
mod router;
