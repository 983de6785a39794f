//! Announcements by gossip: validation, verdicts, and what forging costs.
//!
//! Owns the pairing of verdicts with messages and the application score of forgers. Does not own the
//! directory (the overlay's).

use std::{collections::BTreeMap, sync::Arc};

use astral_core::{
    announcement::{Scheme, SignedAnnouncement},
    ids::NodeId,
    overlay::{GossipVerdict, Input},
};
use libp2p::{
    PeerId,
    gossipsub::{Behaviour, Message, MessageAcceptance, MessageId},
};

use super::identity;

/// Messages that wait for a verdict; the overlay judges at once, so that this is never reached.
const WAITING_MAX: usize = 1_024;
/// Forgers remembered.
const FORGERS_MAX: usize = 1_024;
/// What one forged message takes from its sender's score. With the weight of 10 that gossipsub
/// gives it, the first stops gossip to the sender, the eighth makes it unheard.
const FORGED_SCORE: f64 = -1.0;

/// The desk between gossipsub and the overlay.
#[derive(Debug, Default)]
pub struct GossipDesk {
    next: u64,
    waiting: BTreeMap<u64, (MessageId, PeerId)>,
    forgers: BTreeMap<PeerId, u32>,
}

/// What is to be done about a message.
#[derive(Debug)]
pub enum Received {
    /// The overlay judges it.
    Sound(Box<Input>),
    /// It is forged or no announcement: reject it; the overlay hears who it was from.
    Forged(Option<NodeId>),
}

impl GossipDesk {
    /// A message came from `from`; its signature is checked here.
    pub fn receive(&mut self, id: &MessageId, from: PeerId, message: &Message) -> Received {
        let node = identity::node_id(&from);
        let announcement = SignedAnnouncement::from_bytes(&message.data).ok();
        let announcement = announcement.filter(|signed| signed.verify(Scheme::Ed25519));
        let (Some(node), Some(announcement)) = (node, announcement) else {
            return Received::Forged(node);
        };
        if self.waiting.len() >= WAITING_MAX {
            self.waiting.pop_first();
        }
        self.next += 1;
        self.waiting.insert(self.next, (id.clone(), from));
        let announcement = Arc::new(announcement);
        Received::Sound(Box::new(Input::Gossip { id: self.next, from: node, announcement }))
    }

    /// The overlay's verdict.
    pub fn judge(&mut self, gossip: &mut Behaviour, id: u64, verdict: GossipVerdict) {
        let Some((message, from)) = self.waiting.remove(&id) else { return };
        let acceptance = match verdict {
            GossipVerdict::Accept => MessageAcceptance::Accept,
            GossipVerdict::Ignore => MessageAcceptance::Ignore,
            GossipVerdict::Reject => MessageAcceptance::Reject,
        };
        gossip.report_message_validation_result(&message, &from, acceptance);
        if verdict == GossipVerdict::Reject {
            self.blame(gossip, from);
        }
    }

    /// A forged message: not passed on, and its sender loses score.
    pub fn reject(&mut self, gossip: &mut Behaviour, id: &MessageId, from: PeerId) {
        gossip.report_message_validation_result(id, &from, MessageAcceptance::Reject);
        self.blame(gossip, from);
    }

    fn blame(&mut self, gossip: &mut Behaviour, peer: PeerId) {
        if self.forgers.len() >= FORGERS_MAX && !self.forgers.contains_key(&peer) {
            self.forgers.pop_first();
        }
        let times = self.forgers.entry(peer).or_default();
        *times = times.saturating_add(1);
        gossip.set_application_score(&peer, FORGED_SCORE * f64::from(*times));
    }
}
