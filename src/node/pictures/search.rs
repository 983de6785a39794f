//! Who is asked for the picture of a stream.
//!
//! Owns the searches under way. Does not own what is kept nor how it travels (see the parent module).
//!
//! A member asks its supernode, which asks the publishing node and remembers, so that a source sends a
//! picture once a supernode. Only supernodes dial for pictures: a page full of cards makes nobody else
//! connect to a hundred sources, and in privacy mode nobody but the supernode learns of the question.

use std::collections::{BTreeMap, VecDeque};

use astral_core::{
    ids::{NodeId, StreamId},
    overlay::Role,
};
use bytes::Bytes;
use libp2p::{
    Multiaddr, PeerId,
    request_response::{self, Message, OutboundRequestId, ResponseChannel},
};
use tokio::sync::oneshot;

use super::{PictureHash, PictureWant, WANT_BYTES, is_announced};
use crate::node::{identity, run::Driver, traffic::Class, translate};

/// Searches under way at once; further ones find nothing.
const SEARCHES_MAX: usize = 64;
/// Who may wait for one picture: all members of a supernode, and some. Further ones find nothing.
const WAITING_MAX: usize = 128;

/// Who waits for a picture.
#[derive(Debug)]
enum Reply {
    Here(oneshot::Sender<Option<Bytes>>),
    There { from: NodeId, channel: ResponseChannel<Bytes> },
}

/// Somebody who may have the picture.
#[derive(Debug)]
struct Candidate {
    peer: PeerId,
    addrs: Vec<Multiaddr>,
    /// A supernode: it asks the source when it has none.
    may_ask: bool,
}

/// One search: who is asked next, and who waits for it.
#[derive(Debug)]
struct Search {
    stream: StreamId,
    hash: PictureHash,
    left: VecDeque<Candidate>,
    waiting: Vec<Reply>,
}

/// Searches under way.
#[derive(Debug, Default)]
pub struct PictureDesk(BTreeMap<OutboundRequestId, Search>);

impl PictureDesk {
    /// Waits for a search of the same picture, or gives the reply back.
    fn join(&mut self, hash: &PictureHash, reply: Reply) -> Option<Reply> {
        let same =
            |search: &&mut Search| search.hash == *hash && search.waiting.len() < WAITING_MAX;
        match self.0.values_mut().find(same) {
            Some(search) => {
                search.waiting.push(reply);
                None
            }
            None => Some(reply),
        }
    }
}

type Event = request_response::Event<PictureWant, Bytes>;

impl Driver {
    /// Somebody on this machine wants the picture of a stream.
    pub(in crate::node) fn want_picture(
        &mut self,
        stream: StreamId,
        reply: oneshot::Sender<Option<Bytes>>,
    ) {
        let hash = self.overlay.announced(stream).and_then(|announced| announced.thumbnail);
        match hash {
            Some(hash) => {
                let want = PictureWant { may_ask: false, stream, hash };
                self.search_picture(want, Reply::Here(reply));
            }
            None => self.hand_picture(Reply::Here(reply), Bytes::new()),
        }
    }

    fn search_picture(&mut self, want: PictureWant, reply: Reply) {
        if let Some(picture) = self.shared.inner.pictures.get(&want) {
            return self.hand_picture(reply, picture);
        }
        let Some(reply) = self.pictures.join(&want.hash, reply) else { return };
        let PictureWant { stream, hash, .. } = want;
        let left = self.picture_candidates(&want);
        self.ask_for_picture(Search { stream, hash, left, waiting: vec![reply] });
    }

    /// Who may have it. Nobody for what is not announced: a remote makes this node ask for nothing
    /// that its source did not sign.
    fn picture_candidates(&self, want: &PictureWant) -> VecDeque<Candidate> {
        let announced = self.overlay.announced(want.stream);
        let announced = announced.filter(|announced| announced.thumbnail == Some(want.hash));
        let Some(source) = announced.map(|announced| &announced.node) else {
            return VecDeque::new();
        };
        let peer_of =
            |node: &NodeId| identity::peer_id(node).filter(|peer| *peer != self.shared.inner.peer);
        let supernode = self.overlay.supernode().filter(|node| *node != source.node);
        let supernode = supernode.and_then(|node| peer_of(&node));
        let supernode = supernode.map(|peer| Candidate { peer, addrs: Vec::new(), may_ask: true });
        let dials = self.role == Role::Supernode;
        let source = peer_of(&source.node)
            .filter(|peer| dials || self.swarm.is_connected(peer))
            .map(|peer| Candidate {
                peer,
                addrs: if dials { translate::multiaddrs(&source.addrs) } else { Vec::new() },
                may_ask: false,
            });
        supernode.into_iter().chain(source).collect()
    }

    fn ask_for_picture(&mut self, mut search: Search) {
        let has_room = self.pictures.0.len() < SEARCHES_MAX;
        let Some(next) = search.left.pop_front().filter(|_| has_room) else {
            return self.hand_pictures(search, &Bytes::new());
        };
        let want = PictureWant { may_ask: next.may_ask, stream: search.stream, hash: search.hash };
        let behaviour = &mut self.swarm.behaviour_mut().picture;
        let id = behaviour.send_request_with_addresses(&next.peer, want, next.addrs);
        self.links.touch(&next.peer);
        self.pictures.0.insert(id, search);
    }

    fn hand_pictures(&mut self, search: Search, picture: &Bytes) {
        for reply in search.waiting {
            self.hand_picture(reply, picture.clone());
        }
    }

    /// An empty picture is none.
    fn hand_picture(&mut self, reply: Reply, picture: Bytes) {
        // Whoever asked may have gone, here and there.
        match reply {
            Reply::Here(reply) => {
                let _ = reply.send((!picture.is_empty()).then_some(picture));
            }
            Reply::There { from, channel } => {
                self.shared.inner.traffic.meter(from).sent(Class::Control, picture.len());
                let _ = self.swarm.behaviour_mut().picture.send_response(channel, picture);
            }
        }
    }

    /// What the swarm says.
    pub(in crate::node) fn on_picture(&mut self, event: Event) {
        use request_response::Event;
        match event {
            Event::Message { peer, message: Message::Request { request, channel, .. }, .. } => {
                // Dropping the channel refuses: who has no Ed25519 key is nobody here.
                let Some(from) = identity::node_id(&peer) else { return };
                self.shared.inner.traffic.meter(from).received(Class::Control, WANT_BYTES);
                let reply = Reply::There { from, channel };
                if request.may_ask && self.role == Role::Supernode {
                    return self.search_picture(request, reply);
                }
                let picture = self.shared.inner.pictures.get(&request).unwrap_or_default();
                self.hand_picture(reply, picture);
            }
            Event::Message {
                peer, message: Message::Response { request_id, response }, ..
            } => {
                if let Some(from) = identity::node_id(&peer) {
                    self.shared.inner.traffic.meter(from).received(Class::Control, response.len());
                }
                let Some(search) = self.pictures.0.remove(&request_id) else { return };
                if !is_announced(&response, &search.hash) {
                    return self.ask_for_picture(search);
                }
                self.shared.inner.pictures.put(search.hash, response.clone());
                self.hand_pictures(search, &response);
            }
            Event::OutboundFailure { request_id, error, .. } => {
                let Some(search) = self.pictures.0.remove(&request_id) else { return };
                tracing::debug!(stream = %search.stream.short(), %error, "no picture");
                self.ask_for_picture(search);
            }
            // An answer that did not get through is a lost answer to the asker.
            Event::InboundFailure { .. } | Event::ResponseSent { .. } => {}
        }
    }
}
