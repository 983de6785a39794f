//! Compares the bytes a viewer was given with the bytes a source cut.
//!
//! Owns finding the viewer's first frame in the source's file and the byte comparison. Does not own
//! FLV parsing.

use anyhow::{Context, bail, ensure};
use astral_core::media::flv::TagReader;

/// Bytes that identify a frame in the source's file: a tag header and the beginning of the picture.
const PROBE_BYTES: usize = 512;

/// How many bytes of media both have, all of them equal.
///
/// # Errors
/// When the viewer's media is not a run of the source's: with the place of the first difference.
pub fn identical_media(cut: &[u8], played: &[u8]) -> anyhow::Result<usize> {
    let media = &played[media_start(played)?..];
    ensure!(!media.is_empty(), "no media was played");
    let probe = &media[..media.len().min(PROBE_BYTES)];
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

/// Offset of the first media tag: after the file header, metadata and sequence headers.
fn media_start(flv: &[u8]) -> anyhow::Result<usize> {
    let mut reader = TagReader::default();
    reader.push(flv);
    let mut at = FILE_HEADER_BYTES;
    while let Some(tag) = reader.next() {
        let tag = tag.context("what was played")?;
        if !tag.is_metadata() && !tag.is_sequence_header() {
            return Ok(at);
        }
        at += tag.wire_len();
    }
    bail!("no media was played")
}

/// FLV header with its first PreviousTagSize.
const FILE_HEADER_BYTES: usize = 13;

#[cfg(test)]
mod tests {
    use astral_core::media::flv::{Tag, TagKind};
    use bytes::{Bytes, BytesMut};

    use super::*;

    fn file(frames: std::ops::Range<u8>) -> Vec<u8> {
        let mut out = BytesMut::from(&b"FLV\x01\x05\0\0\0\x09\0\0\0\0"[..]);
        let tag = |kind, body: Vec<u8>, ms| Tag { kind, timestamp_ms: ms, body: Bytes::from(body) };
        tag(TagKind::Video, vec![0x17, 0, 0, 0, 0, 1, 2, 3], 0).write(&mut out);
        for frame in frames {
            let mut body = vec![0x17, 1, 0, 0, 0];
            body.extend([frame; 700]);
            tag(TagKind::Video, body, u32::from(frame) * 40).write(&mut out);
        }
        out.to_vec()
    }

    #[test]
    fn a_viewer_who_came_later_has_the_same_bytes() {
        let cut = file(0..20);
        let played = file(7..18);
        assert_eq!(identical_media(&cut, &played).unwrap(), 11 * (700 + 5 + 15));
    }

    #[test]
    fn one_flipped_byte_is_found() {
        let cut = file(0..20);
        let mut played = file(7..18);
        let at = played.len() - 100;
        played[at] ^= 1;
        let error = identical_media(&cut, &played).unwrap_err().to_string();
        assert!(error.contains("differs"), "{error}");
    }

    #[test]
    fn nothing_played_is_no_success() {
        assert!(identical_media(&file(0..3), &file(0..0)).is_err());
        assert!(identical_media(&file(0..3), b"not flv").is_err());
    }
}
