//! IPv4 packets as far as the hub and its routers look into them.
//!
//! Owns reading of addresses and ports and their replacement, checksums included. Does not own what
//! is done with a packet. Nothing of what a packet says about its own lengths is believed.

use std::net::{Ipv4Addr, SocketAddrV4};

/// Bytes of an IPv4 header without options.
const HEADER_MIN: usize = 20;
/// Flag and offset bits of a fragment.
const FRAGMENT: u16 = 0x3fff;

/// What carries ports.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP, and so QUIC.
    Udp,
}

impl Transport {
    /// Where its checksum is, from the start of its header.
    const fn checksum_at(self) -> usize {
        match self {
            Self::Tcp => 16,
            Self::Udp => 6,
        }
    }
}

/// From where to where a packet goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flow {
    /// Over what.
    pub transport: Transport,
    /// Its sender.
    pub source: SocketAddrV4,
    /// Its receiver.
    pub target: SocketAddrV4,
}

/// Source and target of any IPv4 packet.
#[must_use]
pub fn addresses(packet: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let header = packet.get(..HEADER_MIN)?;
    (header[0] >> 4 == 4).then(|| (address(header, 12), address(header, 16)))
}

/// The flow of a whole TCP or UDP packet; `None` for everything else, fragments included.
#[must_use]
pub fn flow(packet: &[u8]) -> Option<Flow> {
    let (source, target) = addresses(packet)?;
    let transport = match packet[9] {
        6 => Transport::Tcp,
        17 => Transport::Udp,
        _ => return None,
    };
    if word(packet, 6) & FRAGMENT != 0 {
        return None;
    }
    let at = body_at(packet);
    packet.get(at..at + transport.checksum_at() + 2)?;
    Some(Flow {
        transport,
        source: SocketAddrV4::new(source, word(packet, at)),
        target: SocketAddrV4::new(target, word(packet, at + 2)),
    })
}

/// Replaces the sender of a packet that has a [`flow`].
pub fn set_source(packet: &mut [u8], transport: Transport, source: SocketAddrV4) {
    replace(packet, transport, (12, 0), source);
}

/// Replaces the receiver of a packet that has a [`flow`].
pub fn set_target(packet: &mut [u8], transport: Transport, target: SocketAddrV4) {
    replace(packet, transport, (16, 2), target);
}

fn replace(packet: &mut [u8], transport: Transport, (ip, port): (usize, usize), to: SocketAddrV4) {
    let body = body_at(packet);
    let sum_at = body + transport.checksum_at();
    let has_sum = transport == Transport::Tcp || word(packet, sum_at) != 0;
    let [a, b, c, d] = to.ip().octets();
    let words = [
        (ip, u16::from_be_bytes([a, b]), true),
        (ip + 2, u16::from_be_bytes([c, d]), true),
        (body + port, to.port(), false),
    ];
    for (at, new, in_header) in words {
        let old = word(packet, at);
        set_word(packet, at, new);
        if in_header {
            let sum = adjusted(word(packet, 10), old, new);
            set_word(packet, 10, sum);
        }
        if has_sum {
            let sum = adjusted(word(packet, sum_at), old, new);
            set_word(packet, sum_at, sum);
        }
    }
}

/// A checksum after one of its words changed (RFC 1624).
const fn adjusted(sum: u16, old: u16, new: u16) -> u16 {
    let mut wide = !sum as u32 + !old as u32 + new as u32;
    while wide > 0xffff {
        wide = (wide & 0xffff) + (wide >> 16);
    }
    !(wide as u16)
}

fn body_at(packet: &[u8]) -> usize {
    (usize::from(packet[0] & 0x0f) * 4).max(HEADER_MIN)
}

fn address(packet: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3])
}

fn word(packet: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

fn set_word(packet: &mut [u8], at: usize, value: u16) {
    packet[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
pub mod tests {
    use super::*;

    fn sum(words: impl Iterator<Item = u16>) -> u16 {
        let mut wide: u32 = words.map(u32::from).sum();
        while wide > 0xffff {
            wide = (wide & 0xffff) + (wide >> 16);
        }
        wide as u16
    }

    fn words(bytes: &[u8]) -> impl Iterator<Item = u16> {
        bytes.chunks(2).map(|pair| u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]))
    }

    /// The sum that is 0xffff when both checksums of a packet are right.
    fn sums(packet: &[u8]) -> (u16, u16) {
        let body = &packet[20..];
        let pseudo = words(&packet[12..20]).chain([u16::from(packet[9]), body.len() as u16]);
        (sum(words(&packet[..20])), sum(pseudo.chain(words(body))))
    }

    /// A UDP packet with right checksums.
    pub fn udp(source: &str, target: &str, payload: &[u8]) -> Vec<u8> {
        let (source, target): (SocketAddrV4, SocketAddrV4) =
            (source.parse().unwrap(), target.parse().unwrap());
        let length = (28 + payload.len()) as u16;
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0];
        set_word(&mut packet, 2, length);
        packet.extend(source.ip().octets());
        packet.extend(target.ip().octets());
        packet.extend(source.port().to_be_bytes());
        packet.extend(target.port().to_be_bytes());
        packet.extend((length - 20).to_be_bytes());
        packet.extend([0, 0]);
        packet.extend(payload);
        let (header, body) = sums(&packet);
        set_word(&mut packet, 10, !header);
        set_word(&mut packet, 26, !body);
        packet
    }

    #[test]
    fn replaced_addresses_keep_both_checksums_right() {
        let mut packet = udp("192.168.1.2:4001", "11.0.0.7:99", b"some odd bytes!");
        assert_eq!(sums(&packet), (0xffff, 0xffff));
        set_source(&mut packet, Transport::Udp, "12.255.3.4:65535".parse().unwrap());
        set_target(&mut packet, Transport::Udp, "10.0.0.1:1".parse().unwrap());
        assert_eq!(sums(&packet), (0xffff, 0xffff));
        let flow = flow(&packet).unwrap();
        assert_eq!(flow.source.to_string(), "12.255.3.4:65535");
        assert_eq!(flow.target.to_string(), "10.0.0.1:1");
    }

    #[test]
    fn what_is_too_short_or_a_fragment_has_no_flow() {
        let whole = udp("1.2.3.4:5", "6.7.8.9:10", b"x");
        for length in 0..27 {
            assert_eq!(flow(&whole[..length]), None, "{length} bytes");
        }
        let mut fragment = whole;
        fragment[6] = 0x20;
        assert_eq!(flow(&fragment), None);
        fragment[0] = 0x65;
        assert_eq!(addresses(&fragment), None, "version 6");
    }
}
