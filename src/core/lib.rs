//! The pure heart of Astral: two sans-IO machines and the values they speak of.
//!
//! [`overlay`] decides who feeds whom; [`media`] moves what flows. Neither imports the other; both
//! stand on [`ids`], [`units`] and [`time`]. Nothing here reads a clock, draws unseeded
//! randomness, spawns, or knows libp2p: the node drives these machines over real sockets, the
//! simulator drives the very same code over modelled links.
//!
//! **Invariant of both machines: mutate once, drain `poll_output` to `None`, sleep until
//! `poll_timeout`.** Time never goes back between two calls.

#![forbid(unsafe_code)]

pub mod announcement;
pub mod fuzz;
pub mod ids;
pub mod media;
pub mod overlay;
pub mod time;
pub mod units;
