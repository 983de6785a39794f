//! What users want of the streams published here: paused, on air, another title, over.
//!
//! Owns the wishes and the way to whoever fills each stream. Does not own what comes of them: the
//! [`Publisher`](super::Publisher) carries them out with its next media, and says so to the viewers.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use astral_core::{ids::StreamId, overlay::CopyRates, units::Bitrate};
use tokio::sync::watch;

use super::error::PublishError;

/// What an announcement says for people; see the bounds in `astral_core::announcement`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Metadata {
    /// A line; may be empty.
    pub title: String,
    /// A paragraph; may be empty.
    pub description: String,
    /// Words to find the stream by.
    pub tags: Vec<String>,
}

/// What is wanted of one stream.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Wishes {
    /// The stream's name, which nobody changes.
    pub(super) name: String,
    pub(super) paused: bool,
    /// How often a pause was wished for: one may begin and end between two pieces of media.
    pub(super) pauses: u32,
    /// Announced, as soon as there is media; false = a preview that this node alone sees.
    pub(super) on_air: bool,
    pub(super) over: bool,
    /// No wish, but beside them what asks for it sees: nothing comes from the encoder or device.
    pub(super) away: bool,
    /// No wish either: the rates at which copies fit the uplink, when they are known.
    pub(super) fits: Option<CopyRates>,
    /// ... and the rate that an encoder that follows the uplink has by now.
    pub(super) encoder: Option<Bitrate>,
    /// Nor is this: the stream is a rendition of that one, and follows what is wished of it.
    pub(super) rendition_of: Option<StreamId>,
    /// Another text than the stream began with.
    pub(super) metadata: Option<Metadata>,
}

/// The wishes of all streams published here.
#[derive(Debug, Default)]
pub(super) struct WishTable(Mutex<BTreeMap<StreamId, watch::Sender<Wishes>>>);

impl WishTable {
    /// A stream begins.
    pub(super) fn enter(&self, stream: StreamId, wishes: Wishes) -> watch::Receiver<Wishes> {
        let (sender, receiver) = watch::channel(wishes);
        self.table().insert(stream, sender);
        receiver
    }

    /// A stream is over.
    pub(super) fn leave(&self, stream: StreamId) {
        self.table().remove(&stream);
    }

    /// Changes what is wanted.
    ///
    /// # Errors
    /// [`ControlError::NotOurs`].
    pub(super) fn change(
        &self,
        stream: StreamId,
        change: impl FnOnce(&mut Wishes),
    ) -> Result<(), ControlError> {
        let table = self.table();
        let wishes = table.get(&stream).ok_or(ControlError::NotOurs { stream })?;
        wishes.send_modify(change);
        Ok(())
    }

    /// Changes what is wanted of a stream and of its renditions; which of them there are.
    ///
    /// # Errors
    /// [`ControlError::NotOurs`].
    pub(super) fn change_all(
        &self,
        stream: StreamId,
        change: impl Fn(&mut Wishes),
    ) -> Result<Vec<StreamId>, ControlError> {
        self.change(stream, &change)?;
        let table = self.table();
        let of_it = |wishes: &watch::Sender<Wishes>| wishes.borrow().rendition_of == Some(stream);
        let renditions: Vec<_> =
            table.iter().filter(|(_, wishes)| of_it(wishes)).map(|(id, _)| *id).collect();
        for rendition in &renditions {
            if let Some(wishes) = table.get(rendition) {
                wishes.send_modify(&change);
            }
        }
        Ok(renditions)
    }

    /// Says what the uplink has room for by now.
    pub(super) fn tell_room(&self, room: impl Fn(StreamId) -> Option<CopyRates>) {
        for (stream, wishes) in self.table().iter() {
            let fits = room(*stream);
            wishes.send_if_modified(|wishes| {
                std::mem::replace(&mut wishes.fits, fits) != wishes.fits
            });
        }
    }

    pub(super) fn get(&self, stream: StreamId) -> Option<Wishes> {
        self.table().get(&stream).map(|wishes| wishes.borrow().clone())
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<StreamId, watch::Sender<Wishes>>> {
        // Nothing between lock and unlock can panic half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a stream published here is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PublishState {
    /// Its name.
    pub name: String,
    /// Paused by its user, or because its encoder or device is away.
    pub paused: bool,
    /// Not announced yet: [`Handle::go_live`](super::Handle::go_live) does.
    pub preview: bool,
    /// The rate of its picture by now, where the encoder follows the uplink.
    pub encoder: Option<Bitrate>,
}

/// Why a stream can't be controlled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// This node does not publish it.
    #[error("this node does not publish {stream}: only the source of a stream changes it")]
    NotOurs {
        /// What was named.
        stream: StreamId,
    },
    /// A text does not fit.
    #[error(transparent)]
    Metadata(#[from] PublishError),
    /// The node is gone.
    #[error(transparent)]
    Gone(#[from] super::NodeGone),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wished_of_a_stream_is_wished_of_its_renditions_and_of_no_other() {
        let table = WishTable::default();
        let [whole, small, other] = [1, 2, 3].map(|n| StreamId([n; 32]));
        let _kept = [
            table.enter(whole, Wishes::default()),
            table.enter(small, Wishes { rendition_of: Some(whole), ..Wishes::default() }),
            table.enter(other, Wishes::default()),
        ];
        assert_eq!(table.change_all(whole, |wishes| wishes.paused = true).unwrap(), [small]);
        let paused = |stream| table.get(stream).unwrap().paused;
        assert!(paused(whole) && paused(small) && !paused(other));
        assert!(table.change_all(StreamId([4; 32]), |_| {}).is_err());
    }
}
