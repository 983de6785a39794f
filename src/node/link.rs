//! How people name a stream: a link, or the id's 64 digits.
//!
//! Owns the text form `astral:<source key in base32>/<percent-encoded name>`. Does not own the
//! stream's id itself (`astral_core::ids`) nor anything that resolves it.

use std::{fmt, str::FromStr};

use astral_core::ids::{SourceKey, StreamId, StreamName};
use data_encoding::BASE32_NOPAD;

use super::error::LinkError;

const SCHEME: &str = "astral:";

/// Longest text that is read as a link: key, slash, and a name of 128 four-byte characters.
const LINK_BYTES_MAX: usize = SCHEME.len() + 52 + 1 + 128 * 12;

/// A link to a stream: whose it is and what it is called. Holds for ever.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StreamLink {
    /// The key that signs it.
    pub source: SourceKey,
    /// Its name under that key.
    pub name: StreamName,
}

impl StreamLink {
    /// The id that the link stands for.
    #[must_use]
    pub fn id(&self) -> StreamId {
        StreamId::derive(&self.source, &self.name)
    }
}

impl fmt::Display for StreamLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = BASE32_NOPAD.encode(self.source.as_bytes()).to_ascii_lowercase();
        write!(f, "{SCHEME}{key}/")?;
        for byte in self.name.as_str().bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                write!(f, "{}", char::from(byte))?;
            } else {
                write!(f, "%{byte:02X}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for StreamLink {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        let text = text.trim();
        if text.len() > LINK_BYTES_MAX {
            return Err(LinkError::Form);
        }
        let (key, name) = text
            .strip_prefix(SCHEME)
            .and_then(|rest| rest.split_once('/'))
            .ok_or(LinkError::Form)?;
        let key = BASE32_NOPAD
            .decode(key.to_ascii_uppercase().as_bytes())
            .ok()
            .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
            .ok_or(LinkError::Key)?;
        let name = StreamName::new(percent_decode(name)?).map_err(LinkError::Name)?;
        Ok(Self { source: SourceKey(key), name })
    }
}

/// Whatever names a stream in a command or a URL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StreamRef {
    /// A whole link.
    Link(StreamLink),
    /// The id alone; the directory has to know it.
    Id(StreamId),
}

impl StreamRef {
    /// The stream's id.
    #[must_use]
    pub fn id(&self) -> StreamId {
        match self {
            Self::Link(link) => link.id(),
            Self::Id(id) => *id,
        }
    }
}

impl From<StreamId> for StreamRef {
    fn from(id: StreamId) -> Self {
        Self::Id(id)
    }
}

impl From<StreamLink> for StreamRef {
    fn from(link: StreamLink) -> Self {
        Self::Link(link)
    }
}

impl FromStr for StreamRef {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        let text = text.trim();
        if text.starts_with(SCHEME) {
            return text.parse().map(Self::Link);
        }
        text.parse().map(Self::Id).map_err(|_| LinkError::Form)
    }
}

fn percent_decode(text: &str) -> Result<String, LinkError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || {
            let digit = rest.next().and_then(|b| char::from(b).to_digit(16));
            digit.and_then(|d| u8::try_from(d).ok()).ok_or(LinkError::Encoding)
        };
        bytes.push(digit()? << 4 | digit()?);
    }
    String::from_utf8(bytes).map_err(|_| LinkError::Encoding)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_survives_its_text_whatever_the_name() {
        for name in ["garden", "a/b c%?#", "\u{30ab}\u{30e1}\u{30e9} \u{1f3a5}", "..", "x%2F"] {
            let name = StreamName::new(name).unwrap();
            let link = StreamLink { source: SourceKey([7; 32]), name };
            let text = link.to_string();
            assert!(text.is_ascii() && !text.contains(' '), "{text}");
            assert_eq!(text.parse(), Ok(link.clone()));
            assert_eq!(text.parse::<StreamRef>().map(|r| r.id()), Ok(link.id()));
        }
    }

    #[test]
    fn the_longest_name_still_has_a_link() {
        let name = StreamName::new("\u{1f3a5}".repeat(128)).unwrap();
        let link = StreamLink { source: SourceKey([1; 32]), name };
        assert_eq!(link.to_string().parse(), Ok(link));
    }

    #[test]
    fn what_is_no_link_is_refused_with_its_reason() {
        assert_eq!("garden".parse::<StreamRef>(), Err(LinkError::Form));
        assert_eq!("astral:abc/x".parse::<StreamRef>(), Err(LinkError::Key));
        let key = "a".repeat(52);
        assert_eq!(format!("astral:{key}/%2").parse::<StreamRef>(), Err(LinkError::Encoding));
        assert_eq!(format!("astral:{key}/%ff").parse::<StreamRef>(), Err(LinkError::Encoding));
        assert!(matches!(format!("astral:{key}/").parse::<StreamRef>(), Err(LinkError::Name(_))));
        assert_eq!("x".repeat(1 << 20).parse::<StreamRef>(), Err(LinkError::Form));
    }
}
