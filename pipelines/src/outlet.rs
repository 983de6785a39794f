//! The sending half of an event channel that can be shut from outside.
//!
//! GStreamer's threads must wait when the receiver is behind (so that the wait reaches the leaky queue in
//! front of the encoder and raw frames are dropped, never encoded bytes), and yet must come back at once
//! when the pipeline is to stop: otherwise setting it to NULL would wait for ever.

use std::pin::pin;

use futures::future::{Either, select};
use tokio::sync::{mpsc, watch};

/// Sends events in order; waits while the channel is full, until it is shut.
#[derive(Debug)]
pub(crate) struct Outlet<T> {
    events: mpsc::Sender<T>,
    shut: watch::Receiver<bool>,
}

/// Shuts an [`Outlet`], for good.
#[derive(Debug)]
pub(crate) struct Shutter {
    shut: watch::Sender<bool>,
}

/// The receiver is gone, or the outlet was shut: nobody wants more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unwanted;

impl<T> Outlet<T> {
    /// A channel that holds at most `capacity` events.
    pub(crate) fn new(capacity: usize) -> (Self, Shutter, mpsc::Receiver<T>) {
        let (events, receiver) = mpsc::channel(capacity);
        let (shut, shut_seen) = watch::channel(false);
        (Self { events, shut: shut_seen }, Shutter { shut }, receiver)
    }

    /// Sends `event`, waiting for room. Blocks the calling thread: never call it from async code.
    ///
    /// # Errors
    /// [`Unwanted`] when the receiver is gone or the outlet is shut; the event is dropped.
    pub(crate) fn send(&self, event: T) -> Result<(), Unwanted> {
        let event = match self.events.try_send(event) {
            Ok(()) => return Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(Unwanted),
            Err(mpsc::error::TrySendError::Full(event)) => event,
        };
        let mut shut = self.shut.clone();
        let room = pin!(self.events.reserve());
        let shut = pin!(shut.wait_for(|shut| *shut));
        match futures::executor::block_on(select(room, shut)) {
            Either::Left((Ok(permit), _)) => {
                permit.send(event);
                Ok(())
            }
            Either::Left((Err(_), _)) | Either::Right(_) => Err(Unwanted),
        }
    }

    /// True when the receiver is gone or the outlet was shut.
    pub(crate) fn is_unwanted(&self) -> bool {
        self.events.is_closed() || *self.shut.borrow()
    }

    /// Sends `event` if there is room at once; false when it was dropped.
    pub(crate) fn offer(&self, event: T) -> bool {
        self.events.try_send(event).is_ok()
    }
}

impl Shutter {
    /// Frees every waiting sender and refuses what comes later once the channel is full.
    pub(crate) fn shut(&self) {
        self.shut.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_that_waits_for_room_comes_back_when_the_outlet_is_shut() {
        let (outlet, shutter, receiver) = Outlet::new(1);
        assert_eq!(outlet.send(1), Ok(()));
        let waiting = std::thread::spawn(move || outlet.send(2));
        shutter.shut();
        assert_eq!(waiting.join().unwrap(), Err(Unwanted));
        drop(receiver);
    }

    #[test]
    fn a_sender_that_waits_for_room_sends_as_soon_as_the_receiver_reads() {
        let (outlet, _shutter, mut receiver) = Outlet::new(1);
        outlet.send(1).unwrap();
        let waiting = std::thread::spawn(move || outlet.send(2));
        assert_eq!(receiver.blocking_recv(), Some(1));
        assert_eq!(receiver.blocking_recv(), Some(2));
        assert_eq!(waiting.join().unwrap(), Ok(()));
    }

    #[test]
    fn an_offer_is_dropped_when_there_is_no_room() {
        let (outlet, _shutter, _receiver) = Outlet::new(1);
        assert!(outlet.offer(1));
        assert!(!outlet.offer(2));
    }
}
