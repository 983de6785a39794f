//! Who a node is: the one place where libp2p's `PeerId` and the core's `NodeId` meet.
//!
//! Owns the conversion. Does not own key files (`datadir`), nor the source key, which has nothing to
//! do with libp2p.

use astral_core::ids::NodeId;
use libp2p::{
    Multiaddr, PeerId,
    identity::{Keypair, PublicKey, ed25519},
    multiaddr::Protocol,
};

/// The node behind a peer id; `None` when its key is not Ed25519, which keeps it out of the core.
#[must_use]
pub fn node_id(peer: &PeerId) -> Option<NodeId> {
    let multihash: &libp2p::multihash::Multihash<64> = peer.as_ref();
    // Code 0 is the identity hash: small keys are inlined, so that the key can be read back.
    if multihash.code() != 0 {
        return None;
    }
    let key = PublicKey::try_decode_protobuf(multihash.digest()).ok()?;
    Some(NodeId(key.try_into_ed25519().ok()?.to_bytes()))
}

/// The peer id of a node; `None` when the 32 bytes are no Ed25519 key.
#[must_use]
pub fn peer_id(node: &NodeId) -> Option<PeerId> {
    let key = ed25519::PublicKey::try_from_bytes(node.as_bytes()).ok()?;
    Some(PublicKey::from(key).to_peer_id())
}

/// The keypair of a 32-byte seed.
#[must_use]
pub fn keypair(mut seed: [u8; 32]) -> Option<Keypair> {
    Keypair::ed25519_from_bytes(&mut seed).ok()
}

/// Splits a trailing `/p2p/<peer>` off an address.
#[must_use]
pub fn split_peer(addr: &Multiaddr) -> (Multiaddr, Option<PeerId>) {
    let mut addr = addr.clone();
    match addr.iter().last() {
        Some(Protocol::P2p(peer)) => {
            addr.pop();
            (addr, Some(peer))
        }
        _ => (addr, None),
    }
}

/// Whether an address is of this machine, a private network or a link: no diversity rule applies.
#[must_use]
pub fn is_private(addr: &Multiaddr) -> bool {
    addr.iter().next().is_some_and(|first| match first {
        Protocol::Ip4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        Protocol::Ip6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
        _ => false,
    })
}

/// Whether an address is of this machine only.
#[must_use]
pub fn is_loopback(addr: &Multiaddr) -> bool {
    addr.iter().next().is_some_and(|first| match first {
        Protocol::Ip4(ip) => ip.is_loopback(),
        Protocol::Ip6(ip) => ip.is_loopback(),
        _ => false,
    })
}

/// Whether an address is QUIC.
#[must_use]
pub fn is_quic(addr: &Multiaddr) -> bool {
    addr.iter().any(|part| matches!(part, Protocol::QuicV1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_id_and_a_peer_id_are_the_same_key() {
        let keypair = keypair([9; 32]).unwrap();
        let peer = keypair.public().to_peer_id();
        let node = node_id(&peer).unwrap();
        assert_eq!(peer_id(&node), Some(peer));
    }

    #[test]
    fn a_peer_without_an_ed25519_key_is_no_node() {
        // A hashed key, as RSA peers have: sha2-256, 32 bytes.
        let peer: PeerId = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N".parse().unwrap();
        assert_eq!(node_id(&peer), None);
    }

    #[test]
    fn the_peer_is_split_off_an_address() {
        let peer = keypair([3; 32]).unwrap().public().to_peer_id();
        let plain: Multiaddr = "/ip4/10.0.0.1/tcp/4001".parse().unwrap();
        let whole = plain.clone().with(Protocol::P2p(peer));
        assert_eq!(split_peer(&whole), (plain.clone(), Some(peer)));
        assert_eq!(split_peer(&plain), (plain, None));
    }
}
