//! The same words in the language of the other machine.
//!
//! Owns the conversions between the relay's and the overlay's plain values, since the two never
//! import each other. Does not own any decision.

use astral_core::{
    media::{frame, relay},
    overlay::{self, Addr},
};
use libp2p::Multiaddr;

use super::dial::is_dialable;

/// The overlay's word for why a feed ends.
#[must_use]
pub const fn end_reason(reason: frame::EndReason) -> overlay::EndReason {
    match reason {
        frame::EndReason::Ended => overlay::EndReason::Ended,
        frame::EndReason::SourceLost => overlay::EndReason::SourceLost,
        frame::EndReason::Left => overlay::EndReason::Left,
        frame::EndReason::Revoked => overlay::EndReason::Revoked,
    }
}

/// The wire's word for why a feed ends.
#[must_use]
pub const fn end_on_wire(reason: overlay::EndReason) -> frame::EndReason {
    match reason {
        overlay::EndReason::Ended => frame::EndReason::Ended,
        overlay::EndReason::SourceLost => frame::EndReason::SourceLost,
        overlay::EndReason::Left => frame::EndReason::Left,
        overlay::EndReason::Revoked => frame::EndReason::Revoked,
    }
}

/// A report of the relay as the overlay reads it.
#[must_use]
pub fn progress(progress: relay::FeedProgress) -> overlay::FeedReport {
    let relay::FeedProgress { feed, silent_since, at, stripes, duplicates, offences, shed: _ } =
        progress;
    let stripes = stripes
        .into_iter()
        .map(|stripe| overlay::StripeProgress {
            stripe: stripe.stripe,
            head_stripe_seq: stripe.head_stripe_seq,
            claimed_stripe_seq: stripe.claimed_stripe_seq,
            bytes: stripe.bytes,
            age_ms: stripe.age_ms,
            gaps: stripe.gaps,
            depth: stripe.depth,
        })
        .collect();
    overlay::FeedReport { feed, silent_since, at, stripes, duplicates, offences }
}

/// An address as the core carries it.
#[must_use]
pub fn addr(addr: &Multiaddr) -> Option<Addr> {
    Addr::new(addr.to_string())
}

/// Addresses from the core that this node can dial; what it does not understand is left out.
#[must_use]
pub fn multiaddrs(addrs: &[Addr]) -> Vec<Multiaddr> {
    addrs
        .iter()
        .filter_map(|addr| addr.as_str().parse().ok())
        .map(|addr: Multiaddr| super::identity::split_peer(&addr).0)
        .filter(is_dialable)
        .collect()
}
