//! How a node is reached: opaque addresses under a sequenced, signed record.
//!
//! Owns the record's bounds, its signature and the rule which of two records is newer. Does not
//! own multiaddrs: an address is text that only the driver understands.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    announcement::{Scheme, Signature},
    ids::NodeId,
};

/// Longest address, in bytes: a relayed QUIC multiaddr with two peer ids has about 180.
pub const ADDR_BYTES_MAX: usize = 256;
/// Most addresses of one node.
pub const ADDRS_MAX: usize = 8;

const CONTACT_DOMAIN: &[u8] = b"astral contact v1";
const PATH_DOMAIN: &str = "astral 2026 path hash v1";

/// An address as text: a multiaddr to the driver, a label to the simulator. Contacts are copied into
/// every answer that names them, so the text is shared.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Addr(Arc<str>);

impl Addr {
    /// Wraps a text; `None` when it is empty or longer than [`ADDR_BYTES_MAX`].
    #[must_use]
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        (!text.is_empty() && text.len() <= ADDR_BYTES_MAX).then(|| Self(text.into()))
    }

    /// The address as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Addr {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Addr {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Self::new(text).ok_or_else(|| de::Error::custom("an address has 1 to 256 bytes"))
    }
}

/// A node and where it is found. Of two signed records the one with the greater `seq` counts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Contact {
    /// Who it is.
    pub node: NodeId,
    /// Where it listens, best first; empty for a node that only dials.
    pub addrs: Vec<Addr>,
    /// Grows with each change of `addrs`; by convention the unix second of the change. 0 in
    /// records that the node itself did not write.
    #[serde(default)]
    pub seq: u64,
    /// The node's own signature over all of the above; `None` in hearsay.
    #[serde(default)]
    pub proof: Option<Signature>,
}

impl Contact {
    /// An unsigned record, as the driver learns it from a connection.
    #[must_use]
    pub fn new(node: NodeId, mut addrs: Vec<Addr>) -> Self {
        addrs.truncate(ADDRS_MAX);
        Self { node, addrs, seq: 0, proof: None }
    }

    /// What the node's signature covers.
    #[must_use]
    pub fn signing_input(&self) -> Vec<u8> {
        let mut out = CONTACT_DOMAIN.to_vec();
        out.extend_from_slice(self.node.as_bytes());
        out.extend_from_slice(&self.seq.to_be_bytes());
        for addr in &self.addrs {
            out.extend_from_slice(&u32::try_from(addr.0.len()).unwrap_or(u32::MAX).to_be_bytes());
            out.extend_from_slice(addr.0.as_bytes());
        }
        out
    }

    /// Whether the node itself signed this record.
    #[must_use]
    pub fn verify(&self, scheme: Scheme) -> bool {
        self.proof
            .as_ref()
            .is_some_and(|proof| scheme.verify(self.node.as_bytes(), &self.signing_input(), proof))
    }

    /// Whether it keeps to [`ADDRS_MAX`]; each address keeps to its own bound by type.
    #[must_use]
    pub const fn is_bounded(&self) -> bool {
        self.addrs.len() <= ADDRS_MAX
    }
}

/// The eight bytes by which a node appears in path vectors.
#[must_use]
pub fn path_hash(node: &NodeId) -> u64 {
    let hash = blake3::derive_key(PATH_DOMAIN, node.as_bytes());
    let (first, _) = hash.split_first_chunk().expect("32 bytes have a first eight");
    u64::from_be_bytes(*first)
}
