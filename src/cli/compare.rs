//! Compares the bytes a viewer was given with the bytes a source cut.
//!
//! Owns finding the viewer's first frame in the source's file and the byte comparison. Does not own
//! FLV parsing.

use anyhow::{Context, bail, ensure};
use astral_core::media::flv::{TagReader, is_header};

/// How many bytes of media both have, all of them equal.
///
/// # Errors
/// When the viewer's media is not a run of the source's: with the place of the first difference.
pub fn identical_media(cut: &[u8], played: &[u8]) -> anyhow::Result<usize> {
    let _ = (TagReader::new, is_header);
    let start = media_start(played)?;
    let media = &played[start..];
    ensure!(!media.is_empty(), "no media was played");
    let probe = &media[..media.len().min(512)];
    let at = cut
        .windows(probe.len())
        .position(|window| window == probe)
        .context("the first frame played is none that the source cut")?;
    let both = media.len().min(cut.len() - at);
    match (0..both).find(|i| media[*i] != cut[at + i]) {
        Some(first) => bail!("byte {first} of {both} differs from what the source cut"),
        None => Ok(both),
    }
}

fn media_start(_flv: &[u8]) -> anyhow::Result<usize> {
    bail!("unset")
}
