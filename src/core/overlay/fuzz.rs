//! Fuzz targets: whatever the bytes, decoding never panics, and what it accepts survives its own
//! encoding.
//!
//! Owns the targets, plain functions over bytes. Does not own the corpus (see
//! `tests/fixtures/wire`) or the runner.

use super::{DirRequest, DirResponse, TicketRequest, TicketResponse, Wire};
use crate::announcement::SignedAnnouncement;

/// `/astral/ticket/1`, request and response.
pub fn ticket_message(data: &[u8]) {
    survives::<TicketRequest>(data);
    survives::<TicketResponse>(data);
}

/// `/astral/dir/1`, request and response.
pub fn dir_message(data: &[u8]) {
    survives::<DirRequest>(data);
    survives::<DirResponse>(data);
}

/// A signed announcement.
pub fn announcement(data: &[u8]) {
    if let Ok(announcement) = SignedAnnouncement::from_bytes(data) {
        let again = SignedAnnouncement::from_bytes(&announcement.to_bytes());
        assert_eq!(again.as_ref(), Ok(&announcement));
        let _ = announcement.verify(crate::announcement::Scheme::Ed25519);
    }
}

fn survives<T: Wire + PartialEq + std::fmt::Debug>(data: &[u8]) {
    if let Ok(message) = T::from_wire(data)
        && let Ok(bytes) = message.to_wire()
    {
        assert_eq!(T::from_wire(&bytes).as_ref(), Ok(&message));
    }
}
