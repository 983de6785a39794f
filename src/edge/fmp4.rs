//! Fragmented MP4 (CMAF) out of FLV tags: what HLS serves and what recordings may be.
//!
//! Owns the way from tags to an initialization segment and fragments ([`Fragmenter`]). Does not own
//! playlists, files, nor when anybody wants them. Sample data travel untouched: FLV and MP4 carry
//! H.264, HEVC, AV1, VP9, AAC and Opus in the same shape, so that nothing is coded anew.

mod boxes;
mod fragmenter;
mod packet;

pub use fragmenter::{FRAGMENT_BYTES_MAX, Fragment, Fragmenter, Output};
pub use packet::{AudioConfig, VideoConfig};

/// Reads configurations that a hostile source may have made up, and frames behind them: a fuzz
/// target.
///
/// # Panics
/// When a bound is broken: that is what it looks for.
pub fn fuzz(data: &[u8]) {
    use astral_core::media::flv::{Tag, TagKind};
    let mut fragmenter = Fragmenter::default();
    let mut time = 0_u32;
    let mut rest = data;
    while let Some(([kind, step, len], after)) = rest.split_first_chunk::<3>() {
        let (body, after) = after.split_at(usize::from(*len).min(after.len()));
        time = time.wrapping_add(u32::from(*step) * 7);
        let kind = match kind % 3 {
            0 => TagKind::Video,
            1 => TagKind::Audio,
            _ => TagKind::Script,
        };
        let tag = Tag { kind, timestamp_ms: time, body: bytes::Bytes::copy_from_slice(body) };
        let made = fragmenter.push(&tag).into_iter().map(|output| match output {
            Output::Init(bytes) => bytes.len(),
            Output::Fragment(fragment) => fragment.bytes.len(),
        });
        assert!(made.sum::<usize>() <= FRAGMENT_BYTES_MAX * 2);
        rest = after;
    }
}
