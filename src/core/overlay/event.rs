//! What users and scripts hear.
//!
//! Owns the events and their JSON form, on which scripts and tests build. Does not own delivery.

use serde::{Serialize, Serializer};

use super::{EndReason, Offence, TicketId};
use crate::{
    ids::{NodeId, StreamId, Stripe},
    units::Bitrate,
};

/// One event; as JSON an object whose `event` field names it in snake case.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A supernode accepted this node.
    Registered {
        /// Which.
        supernode: NodeId,
    },
    /// The supernode is gone; another is being looked for.
    RegistrationLost {
        /// Which.
        supernode: NodeId,
    },
    /// This node made itself a supernode.
    Promoted {
        /// Why.
        reason: PromotionReason,
    },
    /// This node is a supernode no longer.
    Demoted {
        /// Why.
        reason: DemotionReason,
    },
    /// No supernode has room and this node cannot be one: it is served at a reduced rate.
    Guest {
        /// Whose guest; `None` when no supernode is known at all.
        supernode: Option<NodeId>,
    },
    /// A stream is new in the directory.
    StreamListed {
        /// Which.
        stream: StreamId,
        /// Its name.
        name: String,
        /// Its title.
        title: String,
    },
    /// What is announced of a stream changed.
    StreamChanged {
        /// Which.
        stream: StreamId,
        /// Its name.
        name: String,
        /// Its title.
        title: String,
    },
    /// A stream left the directory.
    StreamRemoved {
        /// Which.
        stream: StreamId,
        /// Ended by its owner or expired.
        reason: RemovalReason,
    },
    /// The first media of a stream published here was cut (said by the publisher).
    Live {
        /// Which stream.
        stream: StreamId,
    },
    /// Every stripe has a living parent and brings bytes.
    Playing {
        /// Which stream.
        stream: StreamId,
        /// Number of stripes.
        k: u8,
        /// Deepest stripe, in hops from the source.
        hops: u8,
    },
    /// A stripe comes from somebody else.
    ParentChanged {
        /// Which stream.
        stream: StreamId,
        /// Which stripe.
        stripe: Stripe,
        /// From whom it came; `None` at the start.
        old: Option<NodeId>,
        /// From whom it comes.
        new: NodeId,
        /// Why.
        cause: MoveCause,
        /// Between the last chunk of the old and the first of the new parent, when known.
        gap_ms: Option<u64>,
    },
    /// Nobody can serve some stripe at the moment.
    NoCapacity {
        /// Which stream.
        stream: StreamId,
        /// What stood in the way of most.
        reason: NoCapacityReason,
        /// When the next search begins.
        retry_ms: u64,
    },
    /// Nothing new comes from the source.
    SourceLost {
        /// Which stream.
        stream: StreamId,
    },
    /// The source is back.
    SourceBack {
        /// Which stream.
        stream: StreamId,
    },
    /// The source paused (said by the player, who sees the chunks).
    Paused {
        /// Which stream.
        stream: StreamId,
        /// The encoder broke off and may be back in a moment.
        reconnecting: bool,
    },
    /// The source resumed (said by the player).
    Resumed {
        /// Which stream.
        stream: StreamId,
    },
    /// The encoder of a stream published here goes to another rate, as the uplink does (said by the
    /// publisher).
    EncoderRate {
        /// Which stream.
        stream: StreamId,
        /// Bits a second of the picture, from here on.
        bps: Bitrate,
        /// The highest that it may have.
        ceiling_bps: Bitrate,
        /// The lowest that it gets.
        floor_bps: Bitrate,
        /// At which rate one copy fits the uplink; `None` while nobody knows.
        fits_bps: Option<Bitrate>,
    },
    /// Players here get another rendition of a stream (said by the player).
    Rendition {
        /// Which stream they asked for.
        stream: StreamId,
        /// Pixels down of the lower one that plays; `None` = the source's own.
        height: Option<u16>,
    },
    /// Watching is over.
    Ended {
        /// Which stream.
        stream: StreamId,
        /// Why.
        reason: EndReason,
    },
    /// The player left something out (said by the player).
    Skipped {
        /// Which stream.
        stream: StreamId,
        /// First chunk left out.
        from: u64,
        /// Last chunk left out.
        to: u64,
        /// Why.
        cause: String,
    },
    /// The player has nothing to show (said by the player).
    Stalled {
        /// Which stream.
        stream: StreamId,
    },
    /// A remote node misbehaved.
    Offence {
        /// Who.
        node: NodeId,
        /// What.
        kind: Offence,
        /// It is refused from here on, for a while.
        banned: bool,
    },
    /// A child got a ticket.
    TicketGiven {
        /// Its name; in JSON a text, as in the API: half of the programs that read JSON round
        /// numbers of this size.
        #[serde(serialize_with = "as_text")]
        ticket: TicketId,
        /// Which stream.
        stream: StreamId,
        /// Which stripe.
        stripe: Stripe,
        /// To whom.
        child: NodeId,
    },
    /// A ticket that this node gave is over.
    TicketEnded {
        /// Its name; in JSON a text, as in the API: half of the programs that read JSON round
        /// numbers of this size.
        #[serde(serialize_with = "as_text")]
        ticket: TicketId,
        /// Which stream.
        stream: StreamId,
        /// Which stripe.
        stripe: Stripe,
        /// Whose it was.
        child: NodeId,
        /// Why.
        reason: TicketEnd,
    },
}

fn as_text<S: Serializer>(ticket: &TicketId, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(&ticket.0)
}

/// Why a node made itself a supernode.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PromotionReason {
    /// Its settings say so.
    Configured,
    /// There is no other: it founds a network.
    Founder,
    /// None has room.
    AllFull,
}

/// Why a node stops being a supernode.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DemotionReason {
    /// It has few members and others have room for them.
    NotNeeded,
    /// Others can no longer dial it.
    Unreachable,
    /// Its uplink is too small by now.
    Uplink,
}

/// Why a stream left the directory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RemovalReason {
    /// Its owner ended it.
    Ended,
    /// Its owner fell silent.
    Expired,
}

/// Why a stripe moves.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MoveCause {
    /// First parent.
    Joined,
    /// The old parent's connection closed (rule R1).
    Closed,
    /// The old parent fell silent (rule R2).
    Silent,
    /// The old parent ended the ticket.
    Revoked,
    /// Somebody who contributes more took the place.
    Displaced,
    /// The old parent leaves.
    Leaving,
    /// The old parent shed this child.
    Shed,
    /// The path ran through this node.
    Loop,
    /// The old parent misbehaved.
    Offence,
    /// The lease ran out.
    Expired,
    /// The old parent never opened the feed.
    Unopened,
    /// Nothing new came for long, by a fault further up (rule R3).
    Starved,
    /// The old parent had it and did not send it (rule R4).
    Withheld,
    /// The old parent brought it late (rule R5).
    Slow,
    /// Another parent is nearer to the source.
    Improved,
}

/// What stood in the way of a search.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NoCapacityReason {
    /// The stream is in no directory asked.
    UnknownStream,
    /// Nobody is known who might carry it.
    NoCandidates,
    /// Everybody asked is full.
    AllFull,
    /// Nobody asked answered.
    Unreachable,
    /// Everybody asked had another reason.
    Refused,
}

/// Why a given ticket ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TicketEnd {
    /// The child gave it back.
    Released,
    /// The lease ran out.
    Expired,
    /// The child's feed or connection closed.
    Closed,
    /// This node revoked it.
    Revoked,
    /// The child could not keep up.
    Shed,
    /// The child never took it up.
    Unconfirmed,
    /// This node stops carrying the stream.
    Leaving,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_a_text_in_events_as_programs_round_numbers_of_its_size() {
        let event = Event::TicketGiven {
            ticket: TicketId(u64::MAX),
            stream: StreamId([1; 32]),
            stripe: 0,
            child: NodeId([2; 32]),
        };
        let mut bytes = Vec::new();
        ciborium::into_writer(&event, &mut bytes).unwrap();
        let value: ciborium::Value = ciborium::from_reader(&bytes[..]).unwrap();
        let fields = value.into_map().unwrap();
        let ticket = fields.iter().find(|(name, _)| name.as_text() == Some("ticket")).unwrap();
        assert_eq!(ticket.1.as_text(), Some("18446744073709551615"));
    }
}
