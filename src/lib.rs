//! Astral: live video without a CDN.
//!
//! The library behind the one binary `astral`. Imports go one way:
//! `astral_core` <- [`node`] <- [`edge`], [`api`] <- [`cli`]; a test reads the tree and fails when
//! one goes the other way.

#![forbid(unsafe_code)]

pub mod api;
pub mod cli;
pub mod config;
pub mod edge;
pub mod node;
