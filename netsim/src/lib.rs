//! The simulator: the production machines of `astral-core`, unchanged, in virtual time.
//!
//! Owns the engine ([`queue`], [`random`], [`trace`]), the model of links and services, the driver
//! that wires the two machines of a node ([`node`]), workloads, faults, checkers and figures. Does
//! not own a single rule of the protocol: those are the core's, and what holds here holds for them.
//!
//! **The same scenario and seed give the same run: event for event, in debug and release.** So
//! there are no clocks, no hash iteration and no generator with a state; one thread per run.

pub mod bars;
pub mod export;
pub mod gallery;
pub mod geography;
pub mod intervals;
pub mod node;
pub mod packet;
pub mod payload;
pub mod player;
pub mod plot;
pub mod queue;
pub mod queue_bench;
pub mod random;
pub mod run;
pub mod scenario;
pub mod shrink;
pub mod source;
pub mod summary;
pub mod sweep;
pub mod tally;
pub mod trace;
pub mod uplink;
pub mod world;
