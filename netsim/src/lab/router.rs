//! A home's router: which outside port stands for whom, and whom it lets in.
//!
//! Owns the four kinds of mapping and filtering of a scenario. Does not own delays. Every home has
//! the same address inside, as homes do.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddrV4},
};

use astral_netsim::scenario::Nat;

use super::packet::{self, Transport};

/// The address of everybody behind a router.
pub const INSIDE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);
/// Ports that a router gives to a symmetric mapping, or where the wanted one is taken.
const PORTS: std::ops::Range<u16> = 20_000..60_000;
/// A mapping that nothing used for so long is forgotten, in microseconds: RFC 4787 asks for two
/// minutes at least.
const IDLE_US: u64 = 120_000_000;
/// Mappings of one router; the oldest makes way.
const MAPPINGS_MAX: usize = 4_096;
/// Hosts that one mapping remembers; the oldest of them make way.
const KNOWN_MAX: usize = 1_024;

/// Who has a mapping: a port inside, and with whom it speaks where that matters.
type Inside = (Transport, u16, Option<SocketAddrV4>);

/// One outside port.
#[derive(Debug)]
struct Mapping {
    inside: Inside,
    used_at: u64,
    known: BTreeSet<SocketAddrV4>,
}

/// One router.
#[derive(Debug)]
pub struct Router {
    kind: Nat,
    outside: Ipv4Addr,
    ports: BTreeMap<Inside, u16>,
    mappings: BTreeMap<(Transport, u16), Mapping>,
    next: u16,
}

impl Router {
    /// The router of a kind; `None` where there is none.
    #[must_use]
    pub fn new(kind: Nat, outside: Ipv4Addr) -> Option<Self> {
        let next = PORTS.start;
        (kind != Nat::Public).then(|| Self {
            kind,
            outside,
            ports: BTreeMap::new(),
            mappings: BTreeMap::new(),
            next,
        })
    }

    /// A packet leaves the home. False: it can't.
    pub fn leave(&mut self, packet: &mut [u8], now: u64) -> bool {
        let Some(flow) = packet::flow(packet) else { return false };
        if *flow.source.ip() != INSIDE {
            return false;
        }
        let towards = (self.kind == Nat::Symmetric).then_some(flow.target);
        let inside = (flow.transport, flow.source.port(), towards);
        let Some(port) = self.port(inside, now) else { return false };
        if let Some(mapping) = self.mappings.get_mut(&(flow.transport, port)) {
            mapping.used_at = now;
            if mapping.known.len() >= KNOWN_MAX {
                mapping.known.clear();
            }
            mapping.known.insert(flow.target);
        }
        packet::set_source(packet, flow.transport, SocketAddrV4::new(self.outside, port));
        true
    }

    /// A packet reaches the router from outside. False: it goes no further.
    pub fn enter(&mut self, packet: &mut [u8], now: u64) -> bool {
        let Some(flow) = packet::flow(packet) else { return false };
        let key = (flow.transport, flow.target.port());
        let Some(mapping) = self.mappings.get_mut(&key) else { return false };
        let is_known = match self.kind {
            Nat::Public | Nat::FullCone => true,
            Nat::Restricted => mapping.known.iter().any(|known| known.ip() == flow.source.ip()),
            Nat::Cone | Nat::Symmetric => mapping.known.contains(&flow.source),
        };
        if !is_known || now.saturating_sub(mapping.used_at) > IDLE_US {
            return false;
        }
        mapping.used_at = now;
        let inside = SocketAddrV4::new(INSIDE, mapping.inside.1);
        packet::set_target(packet, flow.transport, inside);
        true
    }

    /// The outside port of somebody inside: the one it has, its own where that is free, any other.
    fn port(&mut self, inside: Inside, now: u64) -> Option<u16> {
        if let Some(port) = self.ports.get(&inside) {
            return Some(*port);
        }
        self.make_room(now);
        let (transport, own, towards) = inside;
        let is_free = |port: &u16| !self.mappings.contains_key(&(transport, *port));
        let kept = towards.is_none().then_some(own).filter(is_free);
        let later = (self.next..PORTS.end).chain(PORTS.start..self.next);
        let port = kept.or_else(|| later.into_iter().find(is_free))?;
        if kept.is_none() {
            // Not the next one, so that nobody can guess it.
            self.next = PORTS.start + (port - PORTS.start + 7_919) % PORTS.len() as u16;
        }
        self.ports.insert(inside, port);
        let mapping = Mapping { inside, used_at: now, known: BTreeSet::new() };
        self.mappings.insert((transport, port), mapping);
        Some(port)
    }

    fn make_room(&mut self, now: u64) {
        let ports = &mut self.ports;
        self.mappings.retain(|_, mapping| {
            let stays = now.saturating_sub(mapping.used_at) <= IDLE_US;
            if !stays {
                ports.remove(&mapping.inside);
            }
            stays
        });
        if self.mappings.len() >= MAPPINGS_MAX
            && let Some(oldest) =
                self.mappings.iter().min_by_key(|(_, m)| m.used_at).map(|(key, _)| *key)
            && let Some(mapping) = self.mappings.remove(&oldest)
        {
            self.ports.remove(&mapping.inside);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::packet::tests::udp, *};

    const OUTSIDE: Ipv4Addr = Ipv4Addr::new(11, 0, 0, 7);
    const FRIEND: &str = "12.0.0.1:4001";

    /// The outside address that a packet to `to` left with.
    fn left(router: &mut Router, to: &str, now: u64) -> SocketAddrV4 {
        let mut packet = udp("192.168.1.2:4001", to, b"x");
        assert!(router.leave(&mut packet, now));
        packet::flow(&packet).unwrap().source
    }

    fn lets_in(router: &mut Router, from: &str, to: SocketAddrV4, now: u64) -> bool {
        let mut packet = udp(from, &to.to_string(), b"x");
        let entered = router.enter(&mut packet, now);
        if entered {
            let target = packet::flow(&packet).unwrap().target;
            assert_eq!(target.to_string(), "192.168.1.2:4001");
        }
        entered
    }

    #[test]
    fn each_kind_maps_and_filters_as_its_name_says() {
        let kinds = [Nat::FullCone, Nat::Restricted, Nat::Cone, Nat::Symmetric];
        // Strangers, other ports of the friend, the friend.
        let expected =
            [[true, true, true], [false, true, true], [false, false, true], [false, false, true]];
        for (kind, expected) in kinds.into_iter().zip(expected) {
            let mut router = Router::new(kind, OUTSIDE).unwrap();
            let outside = left(&mut router, FRIEND, 1);
            let from = ["13.0.0.1:4001", "12.0.0.1:9", FRIEND];
            assert_eq!(
                from.map(|from| lets_in(&mut router, from, outside, 2)),
                expected,
                "{kind:?}"
            );
            let same = left(&mut router, "14.0.0.1:1", 3) == outside;
            assert_eq!(same, kind != Nat::Symmetric, "{kind:?}");
            assert_eq!(outside.port() == 4001, kind != Nat::Symmetric, "{kind:?}");
        }
        assert!(Router::new(Nat::Public, OUTSIDE).is_none());
    }

    #[test]
    fn a_mapping_that_nobody_uses_is_forgotten_and_many_are_bounded() {
        let mut router = Router::new(Nat::Cone, OUTSIDE).unwrap();
        let outside = left(&mut router, FRIEND, 1);
        assert!(!lets_in(&mut router, FRIEND, outside, IDLE_US + 2));
        for port in 1..=u16::try_from(MAPPINGS_MAX + 50).unwrap() {
            let mut packet = udp(&format!("192.168.1.2:{port}"), FRIEND, b"x");
            assert!(router.leave(&mut packet, IDLE_US + 3 + u64::from(port)));
        }
        assert!(router.mappings.len() <= MAPPINGS_MAX);
        assert_eq!(router.mappings.len(), router.ports.len());
    }
}
