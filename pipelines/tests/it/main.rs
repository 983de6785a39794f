//! The crate from outside: real pipelines, files, windows and descriptions.
//!
//! One binary, so that the parts share their FLV reader. Doesn't own a real camera: `tests/camera` of the
//! repository boots one.
#![expect(clippy::unwrap_used, reason = "a test that can't go on stops with the value that it got")]

mod capture;
mod common;
mod convert;
mod descriptions;
mod keys;
mod play;
mod window;
