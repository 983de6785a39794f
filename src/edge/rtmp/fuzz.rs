//! A fuzz target for everything that a connection can send to the RTMP port.
//!
//! Owns the target, plain and deterministic in what it checks. Does not own mutations or corpora.

use super::{
    chunk::{MESSAGE_BYTES_MAX, PARTIAL_BYTES_MAX},
    session::{Session, Step},
};

/// The client's whole part of the handshake: version, then two packets that the server takes as
/// they are.
#[must_use]
pub fn client_handshake() -> Vec<u8> {
    let mut bytes = vec![3];
    bytes.resize(1 + 2 * 1_536, 0);
    bytes
}

/// Feeds `data` to a session and checks that it stays within its limits. The first byte chooses:
/// bit 0 whether a handshake goes before, the others how the rest is cut into reads.
///
/// # Panics
/// When a limit is broken: that is what it looks for.
pub fn rtmp_server(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else { return };
    let mut session = Session::default();
    if choice & 1 == 0 {
        session.receive(&client_handshake());
    }
    let piece = match choice >> 1 {
        0 => data.len().max(1),
        size => usize::from(size) * 7,
    };
    for part in data.chunks(piece) {
        session.receive(part);
        loop {
            match session.next() {
                Ok(None) => break,
                Ok(Some(Step::PublishAsked { key, .. })) => {
                    if key.ends_with('x') {
                        session.refuse(super::session::Refusal::UnknownKey);
                    } else {
                        session.accept();
                    }
                }
                Ok(Some(Step::Tag(tag))) => assert!(tag.body.len() <= MESSAGE_BYTES_MAX),
                Ok(Some(Step::Close { .. })) | Err(_) => return,
                Ok(Some(Step::PlayAsked { name })) => {
                    if name.ends_with('x') {
                        session.refuse_player("fuzz");
                    } else {
                        session.accept_player();
                    }
                }
                Ok(Some(Step::Send(_) | Step::Unpublished | Step::PlayStopped)) => {}
            }
        }
        assert!(session.held_bytes() <= PARTIAL_BYTES_MAX + part.len() + 64);
    }
}
