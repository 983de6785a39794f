//! Who is in a run: the same cast for those who run a scenario otherwise, with real processes.
//!
//! Owns what they are told of each node. Does not own the draws (see [`super::cast`]).

use std::net::Ipv4Addr;

use astral_core::units::Bitrate;

use super::{Kind, World, cast::address};
use crate::{geography::Place, scenario::Nat};

/// A node that takes part from the start or joins by plan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Planned {
    /// What it is for.
    pub kind: Kind,
    /// Its public address.
    pub addr: Ipv4Addr,
    /// Where it is.
    pub place: Place,
    /// Rate of its uplink.
    pub uplink: Bitrate,
    /// Rate of its downlink; `None`: never the bottleneck.
    pub downlink: Option<Bitrate>,
    /// Copies that it forwards at most, where that is limited.
    pub max_copies: Option<u32>,
    /// What it is behind.
    pub nat: Nat,
    /// When a viewer's user wants to watch, in microseconds since the start; `None`: never.
    pub watch_at: Option<u64>,
    /// Nodes that it knows at its start, by number.
    pub bootstrap: Vec<u32>,
}

impl World {
    /// All nodes by number, before the run: the source, the supernodes, the viewers.
    #[must_use]
    pub fn plan(&self) -> Vec<Planned> {
        let planned = |(index, slot): (u32, &super::cast::Slot)| Planned {
            kind: slot.kind,
            addr: address(slot.place, index),
            place: slot.place,
            uplink: slot.uplink,
            downlink: slot.down_rate,
            max_copies: slot.max_copies,
            nat: slot.nat,
            watch_at: slot.watch_at,
            bootstrap: self.known_at_start(index),
        };
        (0_u32..).zip(&self.nodes).map(planned).collect()
    }
}
