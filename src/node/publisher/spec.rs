//! What is to be published, and what an announcement has room for.

use astral_core::{
    announcement::{DESCRIPTION_BYTES_MAX, TAG_BYTES_MAX, TAGS_MAX, TITLE_BYTES_MAX},
    ids::StreamName,
    media::cert::is_stripe_count,
    units::Bitrate,
};

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
            preview: false,
        }
    }

    pub(in crate::node) fn check(&self) -> Result<(), PublishError> {
        if let Some(stripes) = self.k.filter(|k| !is_stripe_count(*k)) {
            return Err(PublishError::Stripes { stripes });
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
    let wrong = |reason: &str| Err(PublishError::Announcement { reason: reason.to_owned() });
    if title.len() > TITLE_BYTES_MAX {
        return wrong("the title is too long");
    }
    if description.len() > DESCRIPTION_BYTES_MAX {
        return wrong("the description is too long");
    }
    if tags.len() > TAGS_MAX || tags.iter().any(|tag| tag.len() > TAG_BYTES_MAX) {
        return wrong("too many tags, or one is too long");
    }
    Ok(())
}
