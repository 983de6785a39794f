//! Relays wired to each other in virtual time.
//!
//! Owns the scenarios; the network that they run in is `harness`. No IO, no clock, no sleeping: a
//! failure replays by running the test again.

mod audience;
mod failover;
mod harness;
mod playback;
mod random;
mod repair;
mod rules;
mod sending;
