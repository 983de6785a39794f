//! What flows: FLV in, signed chunks between nodes, FLV out.
//!
//! Owns the way from an encoder's bytes to signed chunks ([`flv`], [`normalize`], [`cutter`],
//! [`chunk`], [`init`], [`cert`]), the bytes of a feed ([`frame`])
//! and of [`repair`], and the machine that moves
//! chunks. Does not own who feeds whom (see [`crate::overlay`]), sockets, or decoding: a payload is
//! opaque from the moment it was cut.
//!
//! ```text
//! encoder -> flv::TagReader -> normalize::Normalizer -> cutter::Cutter -> chunk::WireChunk::seal
//!         -> feeds (frame) -> chunk::WireChunk::verify -> ring, reassembly -> player
//! ```

pub mod adapt;
pub mod amf;
pub mod audience;
mod byte_reader;
pub mod cert;
pub mod chunk;
pub mod cutter;
pub mod flv;
pub mod frame;
pub mod init;
pub mod normalize;
pub mod pacer;
mod ranges;
pub mod relay;
pub mod repair;
mod ring;
mod scheduler;
mod sink;
mod stripe;
pub mod switcher;
mod view;

#[cfg(test)]
pub(crate) mod fixtures;
