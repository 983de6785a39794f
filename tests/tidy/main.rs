//! The tree, tested like code: imports go one way, the core stays pure, every file says what it
//! owns, dependencies come from where they should under licences we can take.
//!
//! Reads files and `cargo metadata`; builds and runs nothing of Astral.

#![expect(clippy::unwrap_used, reason = "a failing test panics")]

mod commands;
mod dependencies;
mod layers;
mod sources;
mod web;
