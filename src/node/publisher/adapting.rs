//! An encoder that follows the uplink: what its publisher tells it, its viewers and the network.
//!
//! Owns what happens when the rate changes. Does not own when it does (`media::adapt`), what the uplink has
//! room for (the overlay's), nor the encoder, which is asked by whoever fills the stream.

use astral_core::{
    media::adapt::{RateAdapter, Room},
    overlay::{CopyRates, Event},
    units::Bitrate,
};

use super::{Publisher, Stage};
use crate::node::error::PushError;

/// What an encoder that can change its rate while it runs is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Adaptive {
    /// The highest rate of the picture.
    pub picture: Bitrate,
    /// The rate of the sound beside it, which stays.
    pub sound: Bitrate,
}

/// How far the encoder follows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Adapting {
    adapter: RateAdapter,
    made_of: Adaptive,
}

impl Adapting {
    pub(super) fn new(made_of: Adaptive) -> Self {
        Self { adapter: RateAdapter::new(made_of.picture), made_of }
    }

    /// Picture and sound, as they are to be announced.
    pub(super) const fn rate(&self) -> Bitrate {
        self.with_sound(self.adapter.target())
    }

    /// The same at its lowest.
    pub(super) const fn floor(&self) -> Bitrate {
        self.with_sound(self.adapter.floor())
    }

    const fn with_sound(&self, picture: Bitrate) -> Bitrate {
        Bitrate::from_bps(picture.as_bps().saturating_add(self.made_of.sound.as_bps()))
    }

    const fn room(&self, rates: CopyRates) -> Room {
        let sound = self.made_of.sound.as_bps();
        Room {
            one: Bitrate::from_bps(rates.one.as_bps().saturating_sub(sound)),
            all: Bitrate::from_bps(rates.all.as_bps().saturating_sub(sound)),
        }
    }
}

impl Publisher {
    /// The rate at which the picture should be encoded by now; `None` for a stream whose encoder
    /// keeps its rate. It changes with [`Self::push`].
    #[must_use]
    pub fn picture_rate(&self) -> Option<Bitrate> {
        self.adapting.map(|adapting| adapting.adapter.target())
    }

    /// Looks what the uplink has room for; a change is announced and told.
    pub(super) async fn adapt(&mut self) -> Result<(), PushError> {
        let Some(adapting) = &mut self.adapting else { return Ok(()) };
        let fits = self.wishes.borrow().fits;
        let room = fits.map(|rates| adapting.room(rates));
        let now = self.shared.inner.clock.now();
        let Some(target) = adapting.adapter.observe(room, now) else { return Ok(()) };
        let (rate, made_of, floor) = (adapting.rate(), adapting.made_of, adapting.adapter.floor());
        // A stream that is over is shown no more.
        let _ =
            self.shared.inner.wishes.change(self.stream, |wishes| wishes.encoder = Some(target));
        // Nobody may be listening.
        let _ = self.shared.told.send(Event::EncoderRate {
            stream: self.stream,
            bps: target,
            ceiling_bps: made_of.picture,
            floor_bps: floor,
            fits_bps: room.map(|room| room.one),
        });
        if let (true, Stage::Live(live)) = (self.announced && !self.over, &mut self.stage) {
            live.rate = rate;
            let k = live.k;
            self.announce(rate, k).await?;
        }
        Ok(())
    }
}
