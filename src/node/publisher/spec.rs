//! What is to be published, and what an announcement has room for.

use astral_core::{
    announcement::{
        DESCRIPTION_BYTES_MAX, RENDITIONS_MAX, Rendition, TAG_BYTES_MAX, TAGS_MAX, TITLE_BYTES_MAX,
    },
    ids::{StreamId, StreamName},
    media::cert::is_stripe_count,
    units::Bitrate,
};

use super::Adaptive;
use crate::node::error::PublishError;

/// What is to be published.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PublishSpec {
    /// The stream's name, with the source key its identity.
    pub name: StreamName,
    /// A line for people; may be empty.
    pub title: String,
    /// A paragraph for people; may be empty.
    pub description: String,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// Number of stripes: 1, 2, 4, 8 or 16; `None` = by the rate.
    pub k: Option<u8>,
    /// The rate, when it is known beforehand; `None` = measured over the first two seconds.
    pub rate: Option<Bitrate>,
    /// Its encoder follows the uplink, by [`Publisher::picture_rate`](super::Publisher::picture_rate);
    /// `rate` is told then.
    pub adaptive: Option<Adaptive>,
    /// Its lower renditions, the best first, which are published beside it.
    pub renditions: Vec<Rendition>,
    /// It is a rendition of this stream: paused, shown and ended with it, and not listed by itself.
    pub rendition_of: Option<StreamId>,
    /// Not announced before [`Handle::go_live`](crate::node::Handle::go_live): only this node sees it.
    pub preview: bool,
}

impl PublishSpec {
    /// A stream with nothing but a name.
    #[must_use]
    pub const fn named(name: StreamName) -> Self {
        Self {
            name,
            title: String::new(),
            description: String::new(),
            tags: Vec::new(),
            k: None,
            rate: None,
            adaptive: None,
            renditions: Vec::new(),
            rendition_of: None,
            preview: false,
        }
    }

    /// Whether it can be published.
    ///
    /// # Errors
    /// [`PublishError`] names what breaks a bound, and the bound.
    pub fn check(&self) -> Result<(), PublishError> {
        if let Some(stripes) = self.k.filter(|k| !is_stripe_count(*k)) {
            return Err(PublishError::Stripes { stripes });
        }
        if self.renditions.len() > RENDITIONS_MAX {
            let number = self.renditions.len();
            let reason = format!("{number} renditions, and there is room for {RENDITIONS_MAX}");
            return Err(PublishError::Announcement { reason });
        }
        check_texts(&self.title, &self.description, &self.tags)
    }
}

/// Whether an announcement holds these texts.
pub(in crate::node) fn check_texts(
    title: &str,
    description: &str,
    tags: &[String],
) -> Result<(), PublishError> {
    let wrong = |reason: String| Err(PublishError::Announcement { reason });
    let long = |what: &str, bytes: usize, most: usize| {
        wrong(format!("{what} is too long: {bytes} bytes, and there is room for {most}"))
    };
    if title.len() > TITLE_BYTES_MAX {
        return long("the title", title.len(), TITLE_BYTES_MAX);
    }
    if description.len() > DESCRIPTION_BYTES_MAX {
        return long("the description", description.len(), DESCRIPTION_BYTES_MAX);
    }
    if tags.len() > TAGS_MAX {
        return wrong(format!("{} tags, and there is room for {TAGS_MAX}", tags.len()));
    }
    if let Some(tag) = tags.iter().find(|tag| tag.len() > TAG_BYTES_MAX) {
        return long(&format!("the tag '{tag}'"), tag.len(), TAG_BYTES_MAX);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use astral_core::ids::NAME_CHARS_MAX;

    use super::*;

    #[test]
    fn every_legal_name_can_be_the_title() {
        for character in ["\u{6f22}", "\u{1f3a5}"] {
            let name = StreamName::new(character.repeat(NAME_CHARS_MAX)).unwrap();
            let title = name.to_string();
            let spec = PublishSpec { title, ..PublishSpec::named(name) };
            assert!(spec.check().is_ok(), "{character}");
        }
    }

    #[test]
    fn a_text_that_is_too_long_is_named_with_its_bound() {
        let named = || PublishSpec::named(StreamName::new("garden").unwrap());
        let long = || "x".repeat(2_000);
        for (spec, says) in [
            (PublishSpec { title: long(), ..named() }, "512"),
            (PublishSpec { description: long(), ..named() }, "1024"),
            (PublishSpec { tags: vec![long()], ..named() }, "48"),
            (PublishSpec { tags: vec![String::new(); 9], ..named() }, "8"),
        ] {
            let said = spec.check().unwrap_err().to_string();
            assert!(said.contains(says), "{said}");
        }
    }
}
