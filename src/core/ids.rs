//! Names of things: nodes, source keys, streams, feeds.
//!
//! Owns the id newtypes, their text forms and the derivation of a stream's name. Does not own keys
//! or signatures (see `media::cert`), nor libp2p's `PeerId` (converted in the node, at one place).

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Domain separator of [`StreamId::derive`].
const STREAM_DOMAIN: &str = "astral 2026 stream id v1";

/// Longest stream name, in Unicode scalar values.
pub const NAME_CHARS_MAX: usize = 128;

macro_rules! id32 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// The raw bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// The first eight hexadecimal digits: enough for people, never for machines.
            #[must_use]
            pub fn short(&self) -> String {
                self.0[..4].iter().map(|b| format!("{b:02x}")).collect()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let bytes = text.as_bytes();
                if bytes.len() != 64 {
                    return Err(IdError::Length { digits: bytes.len() });
                }
                let mut out = [0; 32];
                for (byte, pair) in out.iter_mut().zip(bytes.chunks_exact(2)) {
                    *byte = hex(pair[0])? << 4 | hex(pair[1])?;
                }
                Ok(Self(out))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                if s.is_human_readable() { s.collect_str(self) } else { s.serialize_bytes(&self.0) }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                if d.is_human_readable() {
                    let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
                    text.parse().map_err(de::Error::custom)
                } else {
                    d.deserialize_bytes(Bytes32).map(Self)
                }
            }
        }
    };
}

id32! {
    /// A node: its 32-byte Ed25519 public key, as in its libp2p identity.
    NodeId
}
id32! {
    /// The long-lived Ed25519 public key of a source; a file of its own, not the node's key.
    SourceKey
}
id32! {
    /// A stream: blake3 of the source key and the stream's name, stable over restarts.
    StreamId
}

impl StreamId {
    /// The id of the stream that the owner of `source` publishes under `name`.
    #[must_use]
    pub fn derive(source: &SourceKey, name: &StreamName) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(STREAM_DOMAIN);
        hasher.update(&source.0);
        hasher.update(name.as_str().as_bytes());
        Self(*hasher.finalize().as_bytes())
    }
}

/// A stream's name: Unicode, 1 to [`NAME_CHARS_MAX`] characters, no control characters, not
/// unique. Never used to name a file unescaped.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct StreamName(String);

impl StreamName {
    /// Checks and wraps a name.
    ///
    /// # Errors
    /// [`NameError`] says which rule the text breaks.
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        let text = text.into();
        // The byte check comes first so that a hostile megabyte is never counted by characters.
        let chars = if text.len() > NAME_CHARS_MAX * 4 { usize::MAX } else { text.chars().count() };
        if text.trim().is_empty() {
            return Err(NameError::Empty);
        }
        if chars > NAME_CHARS_MAX {
            return Err(NameError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(NameError::ControlCharacter);
        }
        Ok(Self(text))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for StreamName {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(d)?).map_err(de::Error::custom)
    }
}

/// Why a text is not a stream name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Nothing but white space.
    #[error("a stream name needs at least one visible character")]
    Empty,
    /// More than [`NAME_CHARS_MAX`] characters.
    #[error("a stream name has at most {NAME_CHARS_MAX} characters")]
    TooLong,
    /// Line breaks, escapes and the like.
    #[error("a stream name has no control characters")]
    ControlCharacter,
}

/// Why a text is not an id.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// Not 64 digits.
    #[error("an id has 64 hexadecimal digits, this has {digits}")]
    Length {
        /// How many were given.
        digits: usize,
    },
    /// A character that is no digit.
    #[error("an id has hexadecimal digits only")]
    Digit,
}

/// Which end of a feed the other node is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// The other node is my parent: chunks come in.
    FromParent,
    /// The other node is my child: chunks go out.
    ToChild,
}

/// One feed: the libp2p stream between one parent and one child for one stream, all stripes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct FeedKey {
    /// The stream it carries.
    pub stream: StreamId,
    /// The node at the other end.
    pub peer: NodeId,
    /// Which end that node is.
    pub direction: Direction,
}

/// Index of a stripe, below the stream's `k`.
pub type Stripe = u8;

/// Most stripes of a stream.
pub const STRIPES_MAX: u8 = 16;

/// A set of stripes, one bit each.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct StripeSet(pub u16);

impl StripeSet {
    /// No stripe.
    pub const EMPTY: Self = Self(0);

    /// The first `k` stripes.
    #[must_use]
    pub const fn first(k: u8) -> Self {
        Self(if k >= 16 { u16::MAX } else { (1 << k) - 1 })
    }

    /// Whether `stripe` is in the set.
    #[must_use]
    pub const fn contains(self, stripe: Stripe) -> bool {
        stripe < STRIPES_MAX && self.0 >> stripe & 1 == 1
    }

    /// Adds `stripe`; ignored when it is out of range.
    pub const fn insert(&mut self, stripe: Stripe) {
        if stripe < STRIPES_MAX {
            self.0 |= 1 << stripe;
        }
    }

    /// Removes `stripe`.
    pub const fn remove(&mut self, stripe: Stripe) {
        if stripe < STRIPES_MAX {
            self.0 &= !(1 << stripe);
        }
    }

    /// Whether no stripe is in the set.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many stripes are in the set.
    #[must_use]
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// The stripes, lowest first.
    pub fn iter(self) -> impl Iterator<Item = Stripe> {
        (0..STRIPES_MAX).filter(move |stripe| self.contains(*stripe))
    }
}

struct Bytes32;

impl<'de> de::Visitor<'de> for Bytes32 {
    type Value = [u8; 32];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("32 bytes")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<[u8; 32], E> {
        bytes.try_into().map_err(|_| E::invalid_length(bytes.len(), &self))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<[u8; 32], A::Error> {
        let mut out = [0; 32];
        for (at, byte) in out.iter_mut().enumerate() {
            *byte = seq.next_element()?.ok_or_else(|| de::Error::invalid_length(at, &self))?;
        }
        Ok(out)
    }
}

fn hex(digit: u8) -> Result<u8, IdError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(IdError::Digit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_text_and_its_cbor() {
        let id = NodeId([0xa5; 32]);
        assert_eq!(id.to_string().parse::<NodeId>(), Ok(id));
        let mut bytes = Vec::new();
        ciborium::into_writer(&id, &mut bytes).unwrap();
        assert_eq!(bytes.len(), 34);
        assert_eq!(ciborium::from_reader::<NodeId, _>(&bytes[..]).unwrap(), id);
    }

    #[test]
    fn names_are_unicode_and_bounded() {
        assert!(StreamName::new("Zo\u{eb}s \u{30ab}\u{30e1}\u{30e9}").is_ok());
        assert!(StreamName::new("\u{1f3a5}".repeat(NAME_CHARS_MAX)).is_ok());
        assert_eq!(StreamName::new("x".repeat(10_000)), Err(NameError::TooLong));
        assert_eq!(StreamName::new("  "), Err(NameError::Empty));
        assert_eq!(StreamName::new("a\nb"), Err(NameError::ControlCharacter));
    }

    #[test]
    fn one_name_under_two_keys_is_two_streams() {
        let name = StreamName::new("garden").unwrap();
        let one = StreamId::derive(&SourceKey([1; 32]), &name);
        assert_eq!(one, StreamId::derive(&SourceKey([1; 32]), &name));
        assert_ne!(one, StreamId::derive(&SourceKey([2; 32]), &name));
    }

    #[test]
    fn a_stripe_set_holds_sixteen() {
        let mut set = StripeSet::first(4);
        set.remove(1);
        set.insert(15);
        set.insert(16);
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 2, 3, 15]);
        assert_eq!(StripeSet::first(16).len(), 16);
    }
}
