//! Tickets and directory messages as bytes: CBOR, bounded before and after decoding.
//!
//! Owns encoding, decoding and the bounds of every list in a message. Does not own the fields (see
//! `message`). Unknown fields are skipped, so that a later version may add some.

use serde::{Serialize, de::DeserializeOwned};

use super::{
    AUDIENCES_MAX, CANDIDATES_MAX, CONTACTS_MAX, Candidate, Contact, DirRequest, DirResponse,
    FETCH_MAX, HEADS_MAX, PAGE_MAX, PATH_MAX, REVOKE_MAX, SHARDS, STATUS_STREAMS_MAX,
    SUMMARY_STREAMS_MAX, TicketRequest, TicketResponse, Verdict,
};
use crate::ids::STRIPES_MAX;

/// Largest message of either protocol, in bytes: request or response.
pub const MESSAGE_BYTES_MAX: usize = 16_384;

/// A message that travels.
pub trait Wire: Serialize + DeserializeOwned {
    /// Whether every list keeps to its bound and every stripe exists.
    fn is_bounded(&self) -> bool;

    /// The bytes on the wire.
    ///
    /// # Errors
    /// [`WireError::TooLarge`] when they are more than [`MESSAGE_BYTES_MAX`].
    fn to_wire(&self) -> Result<Vec<u8>, WireError> {
        let mut bytes = Vec::with_capacity(256);
        ciborium::into_writer(self, &mut bytes).map_err(|_| WireError::Malformed)?;
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(WireError::TooLarge);
        }
        Ok(bytes)
    }

    /// Reads a message. Bytes behind it are an error.
    ///
    /// # Errors
    /// [`WireError`] says what is wrong with the bytes.
    fn from_wire(bytes: &[u8]) -> Result<Self, WireError> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(WireError::TooLarge);
        }
        let mut rest = bytes;
        let message: Self = ciborium::from_reader(&mut rest).map_err(|_| WireError::Malformed)?;
        if !rest.is_empty() {
            return Err(WireError::Malformed);
        }
        if !message.is_bounded() {
            return Err(WireError::OutOfBounds);
        }
        Ok(message)
    }
}

/// Why bytes are no message, or a message fits no bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// More than [`MESSAGE_BYTES_MAX`].
    #[error("the message has more than {MESSAGE_BYTES_MAX} bytes")]
    TooLarge,
    /// Not this message.
    #[error("the bytes are no such message")]
    Malformed,
    /// A list is longer than its bound, or a stripe does not exist.
    #[error("a list of the message is longer than its bound")]
    OutOfBounds,
}

impl Wire for TicketRequest {
    fn is_bounded(&self) -> bool {
        match self {
            Self::Ask(ask) => {
                ask.stripes.len() <= usize::from(STRIPES_MAX)
                    && ask.stripes.iter().all(|asked| asked.stripe < STRIPES_MAX)
                    && ask.contact.is_bounded()
            }
            Self::Release { tickets } => tickets.len() <= REVOKE_MAX,
            Self::Revoke(revoke) => {
                revoke.tickets.len() <= REVOKE_MAX && candidates_fit(&revoke.candidates)
            }
        }
    }
}

impl Wire for TicketResponse {
    fn is_bounded(&self) -> bool {
        match self {
            Self::Answer(answer) => {
                answer.stripes.len() <= usize::from(STRIPES_MAX)
                    && (1..=STRIPES_MAX).contains(&answer.k)
                    && candidates_fit(&answer.redirect)
                    && answer.stripes.iter().all(|stripe| {
                        stripe.stripe < STRIPES_MAX
                            && match &stripe.verdict {
                                Verdict::Grant { path, .. } => path.len() <= PATH_MAX,
                                Verdict::Refuse { .. } => true,
                            }
                    })
            }
            Self::Done | Self::Refused { .. } => true,
        }
    }
}

impl Wire for DirRequest {
    fn is_bounded(&self) -> bool {
        match self {
            Self::Register(register) => register.contact.is_bounded(),
            Self::Status { streams } => {
                streams.len() <= STATUS_STREAMS_MAX
                    && streams.iter().all(|s| s.depths.len() <= usize::from(STRIPES_MAX))
            }
            Self::Push { announcements } => announcements.len() <= PAGE_MAX,
            Self::Compare { shards, .. } => shards.len() <= SHARDS,
            Self::Fetch { streams } => streams.len() <= FETCH_MAX,
            Self::Summary { streams } => {
                streams.len() <= SUMMARY_STREAMS_MAX
                    && streams.iter().all(|summary| candidates_fit(&summary.candidates))
            }
            Self::Offer { candidates, .. } => candidates_fit(candidates),
            Self::Unregister
            | Self::Join { .. }
            | Self::Find { .. }
            | Self::Carriers { .. }
            | Self::Complain(_)
            | Self::List { .. }
            | Self::Publish { .. } => true,
        }
    }
}

impl Wire for DirResponse {
    fn is_bounded(&self) -> bool {
        match self {
            Self::Accepted { others, heirs, audiences, .. } => {
                contacts_fit(others) && contacts_fit(heirs) && audiences.len() <= AUDIENCES_MAX
            }
            Self::Full { others } | Self::Elsewhere { others } => contacts_fit(others),
            Self::Candidates { candidates, .. } => candidates_fit(candidates),
            Self::Page { announcements, .. } => announcements.len() <= PAGE_MAX,
            Self::Heads { heads, .. } => heads.len() <= HEADS_MAX,
            Self::Done | Self::Found { .. } | Self::Refused { .. } => true,
        }
    }
}

fn contacts_fit(contacts: &[Contact]) -> bool {
    contacts.len() <= CONTACTS_MAX && contacts.iter().all(Contact::is_bounded)
}

fn candidates_fit(candidates: &[Candidate]) -> bool {
    candidates.len() <= CANDIDATES_MAX
        && candidates.iter().all(|candidate| {
            candidate.depths.len() <= usize::from(STRIPES_MAX) && candidate.contact.is_bounded()
        })
}
