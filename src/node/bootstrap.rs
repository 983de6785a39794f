//! A list of supernodes that anybody may pass on: what a portal serves at `/bootstrap`.
//!
//! Owns the list's form, what goes in, and its verification. Does not own how it travels. Each record
//! is signed by the node that it is about, so that whoever passes the list on can leave nodes out but
//! can neither make one up nor send its visitors to other addresses.

use astral_core::{
    announcement::{Scheme, Signature},
    ids::NodeId,
    overlay::{ADDRS_MAX, Addr, Contact, Role, Snapshot},
};
use libp2p::{Multiaddr, multiaddr::Protocol};
use serde::{Deserialize, Serialize};

use super::identity;

/// Records in a list: a node that joins needs one that answers.
pub const RECORDS_MAX: usize = 32;
/// Bytes of a list: its records, each with all addresses at their longest.
pub const LIST_BYTES_MAX: usize = 128 * 1024;

/// A list as JSON. Unknown fields are skipped.
#[derive(Serialize, Deserialize)]
struct List {
    supernodes: Vec<Record>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    node: NodeId,
    addrs: Vec<Addr>,
    seq: u64,
    /// 128 hex digits.
    proof: String,
}

/// What a list came to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Listed {
    /// Addresses to join through, each complete with its node's id.
    pub addresses: Vec<Multiaddr>,
    /// Records whose signature is wrong, or that say nothing usable.
    pub refused: usize,
}

/// Why a list can't be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListError {
    /// It is longer than any list.
    #[error("it has more than {LIST_BYTES_MAX} bytes")]
    TooLong,
    /// It is no list.
    #[error("it is no list of supernodes: {0}")]
    Malformed(#[from] serde_json::Error),
}

/// The supernodes that `known` has a signed record of, this node first if it is one, then those that
/// are connected.
#[must_use]
pub fn write(known: &Snapshot) -> String {
    let own = (known.role == Role::Supernode).then(|| known.me.clone());
    let mut others: Vec<_> = known
        .nodes
        .iter()
        .filter(|node| node.supernode && !node.banned && (node.linked || node.failures == 0))
        .collect();
    others.sort_by_key(|node| !node.linked);
    let others = others.into_iter().map(|node| Contact {
        node: node.node,
        addrs: node.addrs.clone(),
        seq: node.seq,
        proof: node.proof,
    });
    let records = own.into_iter().chain(others).filter(|contact| !contact.addrs.is_empty());
    let records = records.filter_map(|Contact { node, addrs, seq, proof }| {
        let proof = data_encoding::HEXLOWER.encode(&proof?.0);
        Some(Record { node, addrs, seq, proof })
    });
    let list = List { supernodes: records.take(RECORDS_MAX).collect() };
    // Texts and numbers always serialise.
    serde_json::to_string(&list).unwrap_or_default()
}

/// Reads a list from whoever, and takes over the records that their own nodes signed.
///
/// # Errors
/// [`ListError`].
pub fn read(list: &[u8]) -> Result<Listed, ListError> {
    if list.len() > LIST_BYTES_MAX {
        return Err(ListError::TooLong);
    }
    let List { supernodes } = serde_json::from_slice(list)?;
    let mut listed = Listed::default();
    for record in supernodes.into_iter().take(RECORDS_MAX) {
        match dialable(record) {
            Some(addresses) if !addresses.is_empty() => listed.addresses.extend(addresses),
            Some(_) | None => listed.refused += 1,
        }
    }
    Ok(listed)
}

fn dialable(record: Record) -> Option<Vec<Multiaddr>> {
    let Record { node, addrs, seq, proof } = record;
    if addrs.len() > ADDRS_MAX {
        return None;
    }
    let proof = data_encoding::HEXLOWER.decode(proof.as_bytes()).ok()?;
    let proof = Some(Signature(proof.try_into().ok()?));
    let contact = Contact { node, addrs, seq, proof };
    if !contact.verify(Scheme::Ed25519) {
        return None;
    }
    let peer = identity::peer_id(&node)?;
    let whole = |addr: &Addr| {
        let (addr, other) = identity::split_peer(&addr.as_str().parse().ok()?);
        let direct =
            !addr.iter().any(|part| matches!(part, Protocol::P2p(_) | Protocol::P2pCircuit));
        (direct && other.is_none_or(|other| other == peer)).then(|| addr.with(Protocol::P2p(peer)))
    };
    Some(contact.addrs.iter().filter_map(whole).collect())
}

#[cfg(test)]
mod tests {
    use astral_core::fuzz::mutate;
    use serde_json::{Value, json};

    use super::*;

    const SEED: [u8; 32] = [5; 32];

    /// A record that its node signed.
    fn record(seed: [u8; 32], addrs: &[&str]) -> Value {
        let key = ed25519_zebra::SigningKey::from(seed);
        let node = NodeId(ed25519_zebra::VerificationKey::from(&key).into());
        let addrs: Vec<Addr> = addrs.iter().map(|addr| Addr::new(*addr).unwrap()).collect();
        let contact = Contact { seq: 7, ..Contact::new(node, addrs) };
        let proof: [u8; 64] = key.sign(&contact.signing_input()).into();
        let proof = data_encoding::HEXLOWER.encode(&proof);
        json!({"node": node, "addrs": contact.addrs, "seq": 7, "proof": proof, "later": "field"})
    }

    fn read_all(records: &[Value]) -> Listed {
        read(json!({"supernodes": records, "another": 1}).to_string().as_bytes()).unwrap()
    }

    #[test]
    fn signed_records_become_addresses_with_the_nodes_id() {
        let listed =
            read_all(&[record(SEED, &["/ip4/192.0.2.7/tcp/4001", "/dns/a.example/udp/1/quic-v1"])]);
        let texts: Vec<String> = listed.addresses.iter().map(ToString::to_string).collect();
        assert_eq!((texts.len(), listed.refused), (2, 0));
        assert!(texts[0].starts_with("/ip4/192.0.2.7/tcp/4001/p2p/12D3Koo"), "{texts:?}");
    }

    #[test]
    fn a_liar_can_make_up_no_node_and_no_address() {
        let good = record(SEED, &["/ip4/192.0.2.7/tcp/4001"]);
        let other = record([6; 32], &["/ip4/192.0.2.8/tcp/4001"]);
        let changed = |field: &str, value: Value| {
            let mut lie = good.clone();
            lie[field] = value;
            lie
        };
        let lies = [
            changed("addrs", json!(["/ip4/198.51.100.66/tcp/4001"])),
            changed("addrs", json!(["/ip4/192.0.2.7/tcp/4001", "/ip4/198.51.100.66/tcp/1"])),
            changed("node", other["node"].clone()),
            changed("seq", json!(8)),
            changed("proof", other["proof"].clone()),
            changed("proof", json!("00")),
            changed("proof", json!("")),
            record(SEED, &[]),
            record(SEED, &["not an address"]),
            record(
                SEED,
                &[
                    "/ip4/192.0.2.7/tcp/4001/p2p/12D3KooWRBhwfeP2Y4TCx1SM6s9rUoHhR5STiGwxBhgFRcw3UERE",
                ],
            ),
        ];
        for lie in &lies {
            let listed = read_all(&[lie.clone(), good.clone()]);
            assert_eq!((listed.addresses.len(), listed.refused), (1, 1), "{lie}");
        }
    }

    #[test]
    fn a_list_is_bounded() {
        let many: Vec<Value> =
            (0..100).map(|n| record([n; 32], &["/ip4/192.0.2.7/tcp/4001"])).collect();
        assert_eq!(read_all(&many).addresses.len(), RECORDS_MAX);
        assert!(matches!(read(&[b' '; LIST_BYTES_MAX + 1]), Err(ListError::TooLong)));
        assert!(matches!(read(b"<html>"), Err(ListError::Malformed(_))));
    }

    #[test]
    fn mutated_lists_give_nothing_but_what_was_signed() {
        let good = json!({"supernodes": [record(SEED, &["/ip4/192.0.2.7/tcp/4001"])]}).to_string();
        let signed = read(good.as_bytes()).unwrap().addresses;
        for mutant in mutate(&[good.into_bytes()], 5_000, 1) {
            if let Ok(listed) = read(&mutant) {
                assert!(listed.addresses.iter().all(|addr| signed.contains(addr)));
            }
        }
    }
}
