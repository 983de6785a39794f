//! What the overlay wants, carried out.
//!
//! Owns the translation of every output into calls of the swarm, the keys or the media task. Does
//! not own any decision.

use std::sync::Arc;

use astral_core::{
    announcement::{Signature, SignedAnnouncement},
    ids::{FeedKey, StreamId},
    media::relay::{RelayInput, StreamRole},
    overlay::{
        Contact, Event, FeedDownReason, Input, LookupId, LookupKey, Output, Request,
        RequestFailure, RequestId, Response, Role,
    },
};
use libp2p::{PeerId, kad, swarm::dial_opts::DialOpts};
use tokio::time::Instant;

use super::{
    behaviour::announcements_topic,
    codec::Asked,
    dial::is_relayed,
    feed::handler::OpenId,
    identity,
    media::MediaCommand,
    playback::Item,
    requests::{Channel, Protocol},
    run::Driver,
    translate,
};

/// The key whose neighbourhood is looked up to find supernodes. Any key would do, since all servers
/// of our Kademlia are supernodes; one fixed key makes newcomers find the same ones.
const RENDEZVOUS: &[u8] = b"astral supernodes v1";

impl Driver {
    /// Carries out one wish.
    pub(super) fn carry_out(&mut self, output: Output) {
        match output {
            Output::Dial { contact } => self.reach(&contact),
            Output::Disconnect { node } => {
                if let Some(peer) = identity::peer_id(&node) {
                    // It may have gone by itself.
                    let _ = self.swarm.disconnect_peer_id(peer);
                }
            }
            Output::Request { id, to, body } => self.request(id, identity::peer_id(&to), body),
            Output::Respond { id, body } => self.respond(id, body),
            Output::Lookup { id, key } => self.look_up(id, key),
            Output::SetRole(role) => self.set_role(role),
            Output::Sign { draft } => {
                let source = &self.shared.inner.source;
                match SignedAnnouncement::seal(*draft, |bytes| Signature(source.sign(bytes))) {
                    Ok(signed) => {
                        let announcement = Arc::new(signed);
                        self.pending.push_back(Input::Signed { announcement });
                    }
                    Err(error) => tracing::error!(%error, "the stream can't be announced"),
                }
            }
            Output::SignContact { contact } => self.sign_contact(contact),
            Output::Gossip { announcement } => {
                let gossip = &mut self.swarm.behaviour_mut().gossip;
                let bytes = announcement.to_bytes();
                if let Err(error) = gossip.publish(announcements_topic(), bytes) {
                    // Alone, or said already: supernodes compare directories when they meet.
                    tracing::debug!(%error, "announcement not gossiped");
                }
            }
            Output::GossipVerdict { id, verdict } => {
                self.gossip.judge(&mut self.swarm.behaviour_mut().gossip, id, verdict);
            }
            Output::OpenFeed { feed } => self.open_feed(feed),
            Output::CloseFeed { feed, reason } => {
                if self.feeds.close(&feed) {
                    let reason = translate::end_on_wire(reason);
                    self.outbox.push_back(MediaCommand::FeedClose { feed, reason });
                }
            }
            Output::SetStripes { feed, live, warm } => {
                self.relay(RelayInput::SetStripes { feed, live, warm });
            }
            Output::SendPath { feed, stripe, path } => {
                self.outbox.push_back(MediaCommand::SendPath { feed, stripe, path });
            }
            Output::Promote { feed, stripe } => self.relay(RelayInput::Promote { feed, stripe }),
            Output::Want { feed, stripe } => self.relay(RelayInput::Want { feed, stripe }),
            Output::OpenStream { stream } => self.open_stream(stream),
            Output::CloseStream { stream } => self.streams.close(stream),
            Output::Event(event) => self.tell(event),
            Output::Left => self.left = true,
        }
    }

    /// For the relay, in order.
    pub(super) fn relay(&mut self, input: RelayInput<astral_core::media::chunk::WireChunk>) {
        self.outbox.push_back(MediaCommand::Relay(input));
    }

    fn tell(&mut self, event: Event) {
        match &event {
            Event::SourceLost { stream } => self.notice(*stream, Item::SourceLost),
            Event::SourceBack { stream } => self.notice(*stream, Item::SourceBack),
            Event::Ended { stream, reason } => {
                self.notice(*stream, Item::Over(translate::end_on_wire(*reason)));
                self.streams.ended(*stream);
            }
            Event::Offence { node, kind, banned } => {
                tracing::warn!(node = %node.short(), ?kind, banned, "offence");
            }
            _ => {}
        }
        self.outbox.push_back(MediaCommand::Tell(event));
    }

    fn notice(&mut self, stream: StreamId, item: Item) {
        self.outbox.push_back(MediaCommand::Notice { stream, item });
    }

    fn open_stream(&mut self, stream: StreamId) {
        if self.streams.open(stream) {
            self.close_stream(stream);
        }
        self.relay(RelayInput::Open { stream, role: StreamRole::Member });
    }

    /// The relay forgets a stream, unless it is published here.
    pub(super) fn close_stream(&mut self, stream: StreamId) {
        if !self.streams.is_published(stream) {
            self.relay(RelayInput::Close { stream });
        }
    }

    fn reach(&mut self, contact: &Contact) {
        let Some(peer) = identity::peer_id(&contact.node) else { return };
        if self.swarm.is_connected(&peer) || self.dialer.is_under_way(&peer) {
            return;
        }
        if let Some(only) = &self.only
            && identity::split_peer(only).1 != Some(peer)
        {
            self.unreachable(&peer);
            return;
        }
        let mut addrs = translate::multiaddrs(&contact.addrs);
        if !self.relay_choice.uses() {
            addrs.retain(|addr| !is_relayed(addr));
        }
        addrs.iter().for_each(|addr| self.strangers.contacted(addr));
        let dial = self
            .dialer
            .dial(peer, addrs, Instant::now())
            // Without addresses, Kademlia may know some.
            .unwrap_or_else(|| DialOpts::peer_id(peer).build());
        self.dial(dial);
    }

    /// Begins a dial; a failure that shows at once is told like any other.
    pub(super) fn dial(&mut self, dial: DialOpts) {
        let peer = dial.get_peer_id();
        match self.swarm.dial(dial) {
            Ok(()) => {
                if let Some(peer) = peer {
                    self.dialer.started(peer);
                }
            }
            Err(libp2p::swarm::DialError::DialPeerConditionFalse(_)) => {}
            Err(error) => {
                tracing::debug!(?peer, %error, "not dialled");
                if let Some(peer) = peer.filter(|peer| !self.dialer.is_under_way(peer)) {
                    self.unreachable(&peer);
                }
            }
        }
    }

    fn request(&mut self, id: RequestId, peer: Option<PeerId>, body: Request) {
        let Some(peer) = peer else {
            self.request_failed(id, RequestFailure::Unreachable);
            return;
        };
        let bridging = self.paths.is_bridging(&peer);
        if self.swarm.is_connected(&peer) && !bridging {
            self.send_request(&peer, id, body);
        } else if !bridging && !self.dialer.is_under_way(&peer) {
            self.request_failed(id, RequestFailure::Unreachable);
        } else if !self.requests.wait(peer, id, body) {
            self.counters.overflows += 1;
            self.request_failed(id, RequestFailure::Unreachable);
        }
    }

    /// Sends a request to a connected peer.
    pub(super) fn send_request(&mut self, peer: &PeerId, id: RequestId, body: Request) {
        self.links.touch(peer);
        let behaviour = self.swarm.behaviour_mut();
        let (protocol, wire) = match body {
            Request::Ticket(body) => {
                (Protocol::Ticket, behaviour.ticket.send_request(peer, Asked::Sound(body)))
            }
            Request::Dir(body) => {
                (Protocol::Dir, behaviour.dir.send_request(peer, Asked::Sound(body)))
            }
        };
        self.requests.sent(protocol, wire, id);
    }

    fn request_failed(&mut self, id: RequestId, failure: RequestFailure) {
        self.pending.push_back(Input::Response { id, result: Err(failure) });
    }

    fn respond(&mut self, id: astral_core::overlay::InboundId, body: Response) {
        let behaviour = self.swarm.behaviour_mut();
        // An asker that has gone needs no answer.
        let _gone = match (self.requests.channel(id), body) {
            (Some(Channel::Ticket(channel)), Response::Ticket(body)) => {
                behaviour.ticket.send_response(channel, body).is_err()
            }
            (Some(Channel::Dir(channel)), Response::Dir(body)) => {
                behaviour.dir.send_response(channel, body).is_err()
            }
            (Some(Channel::Ticket(_) | Channel::Dir(_)) | None, _) => true,
        };
    }

    fn look_up(&mut self, id: LookupId, key: LookupKey) {
        if let Some(only) = &self.only {
            let (addr, peer) = identity::split_peer(only);
            let node = peer.and_then(|peer| identity::node_id(&peer));
            let contact = |node| Contact::new(node, translate::addr(&addr).into_iter().collect());
            let found = node.map(contact).into_iter().collect();
            self.pending.push_back(Input::LookupDone { id, found });
            return;
        }
        let key = match key {
            LookupKey::Supernodes => RENDEZVOUS.to_vec(),
            LookupKey::Stream(stream) => stream.as_bytes().to_vec(),
        };
        let query = self.swarm.behaviour_mut().kad.get_closest_peers(key);
        self.lookups.insert(query, id);
    }

    fn set_role(&mut self, role: Role) {
        self.role = role;
        let is_supernode = self.is_supernode();
        let behaviour = self.swarm.behaviour_mut();
        if is_supernode {
            behaviour.kad.set_mode(Some(kad::Mode::Server));
            if let Err(error) = behaviour.gossip.subscribe(&announcements_topic()) {
                tracing::error!(%error, "no gossip");
            }
            // Without neighbours yet, the first one that identifies begins it.
            let _ = behaviour.kad.bootstrap();
        } else {
            behaviour.kad.set_mode(Some(kad::Mode::Client));
            behaviour.gossip.unsubscribe(&announcements_topic());
        }
    }

    fn sign_contact(&mut self, mut contact: Contact) {
        contact.proof = self
            .key
            .sign(&contact.signing_input())
            .ok()
            .and_then(|bytes| <[u8; 64]>::try_from(bytes).ok())
            .map(Signature);
        self.pending.push_back(Input::SignedContact { contact });
    }

    fn open_feed(&mut self, feed: FeedKey) {
        let peer = identity::peer_id(&feed.peer).filter(|peer| self.swarm.is_connected(peer));
        let generation = peer.and_then(|_| self.feeds.begin(feed));
        match (peer, generation) {
            (Some(peer), Some(generation)) => {
                self.swarm.behaviour_mut().feed.open(peer, OpenId(generation));
            }
            _ => {
                let reason = FeedDownReason::OpenFailed;
                self.pending.push_back(Input::FeedDown { feed, reason });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use astral_core::{
        ids::{NodeId, StreamId},
        overlay::distance,
    };
    use libp2p::kad::KBucketKey;

    use super::identity;

    /// Otherwise nodes would not agree on who coordinates a stream.
    #[test]
    fn the_core_counts_distances_as_kademlia_does() {
        let stream = StreamId([9; 32]);
        let target = KBucketKey::new(stream.as_bytes().to_vec());
        let mut nodes: Vec<_> = (0..60_u8)
            .filter_map(|seed| {
                let peer = identity::keypair([seed; 32])?.public().to_peer_id();
                Some((identity::node_id(&peer)?, peer))
            })
            .collect();
        assert_eq!(nodes.len(), 60);
        nodes.sort_by_key(|(_, peer)| target.distance(&KBucketKey::from(*peer)));
        let by_kademlia: Vec<NodeId> = nodes.iter().map(|(node, _)| *node).collect();
        nodes.sort_by_key(|(node, _)| distance(&stream, node));
        let by_core: Vec<NodeId> = nodes.iter().map(|(node, _)| *node).collect();
        assert_eq!(by_core, by_kademlia);
    }
}
