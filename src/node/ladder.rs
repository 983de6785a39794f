//! A stream and its lower renditions, each a stream of its own, published as one.
//!
//! Owns their names, their order and that they begin, pause and end together. Does not own the encoders
//! that fill them.

use astral_core::{announcement::Rendition, ids::StreamName, units::Bitrate};
use bytes::Bytes;
use futures::future::join_all;

use super::{Handle, PublishError, PublishSpec, Publisher, PushError};

/// Characters of a lower rendition's title that are kept.
const TITLE_CHARS_MAX: usize = 100;

/// A lower rendition to be published.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lower {
    /// Picture height in pixels.
    pub height: u16,
    /// Picture and sound together.
    pub rate: Bitrate,
}

/// A stream with its lower renditions.
#[derive(Debug)]
pub struct Ladder {
    /// The stream itself.
    pub whole: Publisher,
    /// Its lower renditions, the best first.
    pub lower: Vec<Publisher>,
}

impl Handle {
    /// Begins to publish a stream and its lower renditions, the best first.
    ///
    /// # Errors
    /// [`PublishError`]; nothing is published then.
    pub async fn publish_ladder(
        &self,
        mut spec: PublishSpec,
        lower: &[Lower],
    ) -> Result<Ladder, PublishError> {
        let of = self.own_stream(&spec.name);
        let mut siblings = Vec::new();
        for one in lower {
            // A sign that names rarely have, so that a stream of that name is not in the way.
            let name = StreamName::new(format!("{}#{}p", spec.name, one.height))?;
            let stream = self.own_stream(&name);
            spec.renditions.push(Rendition { stream, height: one.height, rate: one.rate });
            let title = format!("{} ({}p)", spec.title, one.height);
            siblings.push(PublishSpec {
                title: title.chars().take(TITLE_CHARS_MAX).collect(),
                rate: Some(one.rate),
                preview: spec.preview,
                rendition_of: Some(of),
                ..PublishSpec::named(name)
            });
        }
        let mut ladder = Ladder { whole: self.publish(spec).await?, lower: Vec::new() };
        for sibling in siblings {
            match self.publish(sibling).await {
                Ok(sibling) => ladder.lower.push(sibling),
                Err(error) => {
                    ladder.end().await;
                    return Err(error);
                }
            }
        }
        Ok(ladder)
    }
}

impl Ladder {
    /// Takes the next piece of the FLV byte stream of a lower rendition, which `begins` anew. What there
    /// is no rendition for is dropped.
    ///
    /// # Errors
    /// As [`Publisher::push`].
    pub async fn push_lower(
        &mut self,
        number: usize,
        begins: bool,
        flv: Bytes,
    ) -> Result<(), PushError> {
        let Some(sibling) = self.lower.get_mut(number) else { return Ok(()) };
        if begins {
            sibling.restart();
            sibling.pause(false).await?;
        }
        sibling.push(flv).await
    }

    /// The source is away, or back: for all of them when it goes; a lower one comes back with its first
    /// bytes.
    ///
    /// # Errors
    /// As [`Publisher::pause`].
    pub async fn pause(&mut self, paused: bool) -> Result<(), PushError> {
        self.whole.pause(paused).await?;
        if paused {
            for sibling in &mut self.lower {
                sibling.pause(true).await?;
            }
        }
        Ok(())
    }

    /// Ends all of them for everybody.
    pub async fn end(mut self) {
        self.lower.push(self.whole);
        join_all(self.lower.into_iter().map(Publisher::end)).await;
    }
}
