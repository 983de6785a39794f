//! Protocols that rest until something concerns them.
//!
//! Owns a layer around all behaviours of a node. A connection polls every protocol, and asks each for
//! its names, whenever anything happens on it: with media hundreds of times a second, though none of the
//! seventeen has a part in that. This layer passes a poll on only when one of them was woken or told
//! something, and keeps their names until then. Does not own any protocol.

use std::{
    cell::{Cell, RefCell},
    ops::{Deref, DerefMut},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse, upgrade},
    futures::task::AtomicWaker,
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
        NetworkBehaviour, Stream, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent,
        ToSwarm,
        handler::{
            ConnectionEvent, FullyNegotiatedInbound, InboundUpgradeSend, ListenUpgradeError,
            UpgradeInfoSend,
        },
    },
};

/// Behaviours whose handlers are polled when there is something for them.
pub struct Drowsy<B>(pub B);

impl<B> Deref for Drowsy<B> {
    type Target = B;

    fn deref(&self) -> &B {
        &self.0
    }
}

impl<B> DerefMut for Drowsy<B> {
    fn deref_mut(&mut self) -> &mut B {
        &mut self.0
    }
}

impl<B: NetworkBehaviour> NetworkBehaviour for Drowsy<B> {
    type ConnectionHandler = Handler<THandler<B>>;
    type ToSwarm = B::ToSwarm;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.0.handle_pending_inbound_connection(id, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.0.handle_established_inbound_connection(id, peer, local, remote).map(Handler::new)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.0.handle_pending_outbound_connection(id, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.0
            .handle_established_outbound_connection(id, peer, address, role, port)
            .map(Handler::new)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.0.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        id: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.0.on_connection_handler_event(peer, id, event);
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.0.poll(cx)
    }
}

/// What wakes the protocols of one connection: remembers that it did, and wakes the connection.
#[derive(Default)]
struct Alarm {
    rang: AtomicBool,
    connection: AtomicWaker,
}

impl Alarm {
    fn ring(&self) {
        self.rang.store(true, Ordering::Release);
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
        self.connection.wake();
    }
}

/// All protocols of one connection.
pub struct Handler<H: ConnectionHandler> {
    protocols: H,
    alarm: Arc<Alarm>,
    waker: Waker,
    /// What was last offered to the other side.
    offer: RefCell<Offer<H>>,
    /// The protocols may offer something else by now.
    is_stale: Cell<bool>,
}

impl<H: ConnectionHandler> Handler<H> {
    fn new(protocols: H) -> Self {
        let alarm = Arc::new(Alarm::default());
        alarm.ring();
        let offer = RefCell::new(Offer::new(&protocols));
        let waker = Waker::from(Arc::clone(&alarm));
        Self { protocols, alarm, waker, offer, is_stale: Cell::new(false) }
    }

    /// Something was told to the protocols: they are to be polled.
    fn told(&self) {
        self.alarm.ring();
        self.is_stale.set(true);
    }
}

impl<H: ConnectionHandler> ConnectionHandler for Handler<H> {
    type FromBehaviour = H::FromBehaviour;
    type ToBehaviour = H::ToBehaviour;
    type InboundProtocol = Offered<H::InboundProtocol>;
    type OutboundProtocol = H::OutboundProtocol;
    type InboundOpenInfo = Kept<H::InboundOpenInfo>;
    type OutboundOpenInfo = H::OutboundOpenInfo;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol, Self::InboundOpenInfo> {
        let mut offer = self.offer.borrow_mut();
        if self.is_stale.take() || offer.is_taken() {
            *offer = Offer::new(&self.protocols);
        }
        SubstreamProtocol::new(offer.upgrade.clone(), offer.info.clone())
            .with_timeout(offer.timeout)
    }

    fn connection_keep_alive(&self) -> bool {
        self.protocols.connection_keep_alive()
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<
        ConnectionHandlerEvent<Self::OutboundProtocol, Self::OutboundOpenInfo, Self::ToBehaviour>,
    > {
        self.alarm.connection.register(cx.waker());
        if !self.alarm.rang.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        self.is_stale.set(true);
        let polled = self.protocols.poll(&mut Context::from_waker(&self.waker));
        if polled.is_ready() {
            // There may be more.
            self.alarm.ring();
        }
        polled
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Option<Self::ToBehaviour>> {
        self.protocols.poll_close(cx)
    }

    fn on_behaviour_event(&mut self, event: Self::FromBehaviour) {
        self.told();
        self.protocols.on_behaviour_event(event);
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<
            '_,
            Self::InboundProtocol,
            Self::OutboundProtocol,
            Self::InboundOpenInfo,
            Self::OutboundOpenInfo,
        >,
    ) {
        self.told();
        let event = match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, info }) => {
                let info = info.take();
                ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, info })
            }
            ConnectionEvent::ListenUpgradeError(ListenUpgradeError { info, error }) => {
                let info = info.take();
                ConnectionEvent::ListenUpgradeError(ListenUpgradeError { info, error })
            }
            ConnectionEvent::FullyNegotiatedOutbound(event) => {
                ConnectionEvent::FullyNegotiatedOutbound(event)
            }
            ConnectionEvent::DialUpgradeError(event) => ConnectionEvent::DialUpgradeError(event),
            ConnectionEvent::AddressChange(event) => ConnectionEvent::AddressChange(event),
            ConnectionEvent::LocalProtocolsChange(event) => {
                ConnectionEvent::LocalProtocolsChange(event)
            }
            ConnectionEvent::RemoteProtocolsChange(event) => {
                ConnectionEvent::RemoteProtocolsChange(event)
            }
            // Kinds of events that later versions of the library may add.
            _ => return,
        };
        self.protocols.on_connection_event(event);
    }
}

/// What the protocols accept at the moment: made once, and handed out until a stream has taken it.
struct Offer<H: ConnectionHandler> {
    upgrade: Offered<H::InboundProtocol>,
    info: Kept<H::InboundOpenInfo>,
    timeout: Duration,
}

impl<H: ConnectionHandler> Offer<H> {
    fn new(protocols: &H) -> Self {
        let made = protocols.listen_protocol();
        let timeout = *made.timeout();
        let (upgrade, info) = made.into_upgrade();
        Self { upgrade: Offered::new(upgrade), info: Kept::new(info), timeout }
    }

    /// Whether a stream has it: the next one needs another.
    fn is_taken(&mut self) -> bool {
        self.upgrade.rest.is_taken()
    }
}

/// A value with several holders, of whom one takes it.
pub struct Kept<T>(Arc<Mutex<Option<T>>>);

impl<T> Kept<T> {
    fn new(value: T) -> Self {
        Self(Arc::new(Mutex::new(Some(value))))
    }

    fn take(self) -> T {
        let mut value = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        value.take().expect("an offer that a stream holds is not handed out again")
    }

    fn is_taken(&mut self) -> bool {
        let alone = Arc::get_mut(&mut self.0);
        alone.is_none_or(|v| v.get_mut().unwrap_or_else(PoisonError::into_inner).is_none())
    }
}

impl<T> Clone for Kept<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// The upgrade of an inbound stream, whose names cost nothing to tell.
pub struct Offered<U: UpgradeInfoSend> {
    names: Arc<[Arc<str>]>,
    rest: Kept<(U, Vec<U::Info>)>,
}

impl<U: UpgradeInfoSend> Offered<U> {
    fn new(upgrade: U) -> Self {
        let infos: Vec<_> = upgrade.protocol_info().collect();
        let names = infos.iter().map(|info| Arc::from(info.as_ref())).collect();
        Self { names, rest: Kept::new((upgrade, infos)) }
    }
}

impl<U: UpgradeInfoSend> Clone for Offered<U> {
    fn clone(&self) -> Self {
        Self { names: Arc::clone(&self.names), rest: self.rest.clone() }
    }
}

impl<U: UpgradeInfoSend> upgrade::UpgradeInfo for Offered<U> {
    type Info = Name;
    type InfoIter = Names;

    fn protocol_info(&self) -> Names {
        Names { names: Arc::clone(&self.names), next: 0 }
    }
}

impl<U: InboundUpgradeSend> upgrade::InboundUpgrade<Stream> for Offered<U> {
    type Output = U::Output;
    type Error = U::Error;
    type Future = U::Future;

    fn upgrade_inbound(self, stream: Stream, name: Name) -> U::Future {
        let (upgrade, mut infos) = self.rest.take();
        upgrade.upgrade_inbound(stream, infos.swap_remove(name.place))
    }
}

/// A protocol's name, and its place in the offer that it is from.
#[derive(Clone)]
pub struct Name {
    text: Arc<str>,
    place: usize,
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

/// The names of an offer.
pub struct Names {
    names: Arc<[Arc<str>]>,
    next: usize,
}

impl Iterator for Names {
    type Item = Name;

    fn next(&mut self) -> Option<Name> {
        let place = self.next;
        let text = Arc::clone(self.names.get(place)?);
        self.next += 1;
        Some(Name { text, place })
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use libp2p::{StreamProtocol, core::upgrade::ReadyUpgrade, futures::task::noop_waker};

    use super::*;

    /// Counts its polls, keeps its waker, and accepts one protocol, another after it was told so.
    #[derive(Default)]
    struct Counting {
        polls: usize,
        events: usize,
        waker: Option<Waker>,
        offers: Cell<usize>,
        is_other: bool,
    }

    impl ConnectionHandler for Counting {
        type FromBehaviour = ();
        type ToBehaviour = usize;
        type InboundProtocol = ReadyUpgrade<StreamProtocol>;
        type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
        type InboundOpenInfo = &'static str;
        type OutboundOpenInfo = Infallible;

        fn listen_protocol(
            &self,
        ) -> SubstreamProtocol<ReadyUpgrade<StreamProtocol>, Self::InboundOpenInfo> {
            self.offers.set(self.offers.get() + 1);
            let name = if self.is_other { "/other" } else { "/one" };
            SubstreamProtocol::new(ReadyUpgrade::new(StreamProtocol::new(name)), "kept")
        }

        fn poll(
            &mut self,
            cx: &mut Context<'_>,
        ) -> Poll<ConnectionHandlerEvent<ReadyUpgrade<StreamProtocol>, Infallible, usize>> {
            self.polls += 1;
            self.waker = Some(cx.waker().clone());
            if self.events == 0 {
                return Poll::Pending;
            }
            self.events -= 1;
            Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(self.events))
        }

        fn on_behaviour_event(&mut self, (): ()) {
            self.events += 2;
            self.is_other = true;
        }

        fn on_connection_event(
            &mut self,
            _: ConnectionEvent<
                '_,
                Self::InboundProtocol,
                Self::OutboundProtocol,
                Self::InboundOpenInfo,
                Self::OutboundOpenInfo,
            >,
        ) {
        }
    }

    fn poll(handler: &mut Handler<Counting>) -> Option<usize> {
        match handler.poll(&mut Context::from_waker(&noop_waker())) {
            Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(left)) => Some(left),
            _ => None,
        }
    }

    fn names(handler: &Handler<Counting>) -> Vec<String> {
        let offer = handler.listen_protocol();
        offer.upgrade().protocol_info().map(|name| name.as_ref().to_owned()).collect()
    }

    #[test]
    fn protocols_are_polled_when_they_are_woken_and_not_when_others_are() {
        let mut handler = Handler::new(Counting::default());
        for _ in 0..10 {
            assert_eq!(poll(&mut handler), None);
        }
        assert_eq!(handler.protocols.polls, 1, "once, to begin with");
        handler.protocols.waker.clone().unwrap().wake();
        for _ in 0..10 {
            assert_eq!(poll(&mut handler), None);
        }
        assert_eq!(handler.protocols.polls, 2);
    }

    #[test]
    fn waking_protocols_wakes_their_connection() {
        struct Connection(AtomicBool);
        impl Wake for Connection {
            fn wake(self: Arc<Self>) {
                self.0.store(true, Ordering::Release);
            }
        }
        let connection = Arc::new(Connection(AtomicBool::new(false)));
        let mut handler = Handler::new(Counting::default());
        let waker = Waker::from(Arc::clone(&connection));
        assert!(handler.poll(&mut Context::from_waker(&waker)).is_pending());
        handler.protocols.waker.clone().unwrap().wake();
        assert!(connection.0.load(Ordering::Acquire));
    }

    #[test]
    fn whatever_they_are_told_they_have_time_to_answer_in_full() {
        let mut handler = Handler::new(Counting::default());
        assert_eq!(poll(&mut handler), None);
        handler.on_behaviour_event(());
        let answers: Vec<_> = std::iter::from_fn(|| poll(&mut handler)).collect();
        assert_eq!(answers, [1, 0]);
    }

    #[test]
    fn names_are_asked_for_again_when_they_may_have_changed() {
        let mut handler = Handler::new(Counting::default());
        assert_eq!(poll(&mut handler), None);
        let asked = |handler: &Handler<Counting>| handler.protocols.offers.get();
        assert_eq!(names(&handler), ["/one"]);
        let before = asked(&handler);
        for _ in 0..10 {
            assert_eq!(names(&handler), ["/one"]);
        }
        assert_eq!(asked(&handler), before);
        handler.on_behaviour_event(());
        assert_eq!(names(&handler), ["/other"]);
    }

    #[test]
    fn each_stream_has_an_offer_of_its_own() {
        let handler = Handler::new(Counting::default());
        let (first, info) = handler.listen_protocol().into_upgrade();
        let (second, other) = handler.listen_protocol().into_upgrade();
        assert_eq!(first.rest.take().1.len(), 1);
        assert_eq!(second.rest.take().1.len(), 1);
        assert_eq!((info.take(), other.take()), ("kept", "kept"));
        let (third, _) = handler.listen_protocol().into_upgrade();
        assert_eq!(third.rest.take().1.len(), 1, "also after the last one was used up");
    }
}
