//! Repair from neighbours at one node.
//!
//! Owns the way of questions and answers between the relay and the network, and the check of what
//! comes, as the node's driver does it. Does not own who is asked for what.

use std::collections::BTreeMap;

use astral_core::{
    ids::{NodeId, StreamId},
    media::{
        chunk::Payload,
        frame::DownFrame,
        relay::{AnswerId, NEIGHBOURS_MAX, RelayInput},
        repair::{RepairAnswer, RepairWant},
    },
    overlay::{Input, Offence},
};

use super::{Cx, Effect, SimNode, Todo};
use crate::{packet::Packet, payload::SimChunk};

/// How often it is looked who the neighbours are, in microseconds; as in the driver.
const LOOK_EVERY: u64 = 600_000;

/// Questions of others, and who may be asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Desk {
    next: u64,
    asked: BTreeMap<AnswerId, StreamId>,
    told: BTreeMap<StreamId, Vec<NodeId>>,
    look_at: u64,
}

impl SimNode {
    /// Tells the relay who the neighbours are, now and then.
    pub(super) fn look_around(&mut self, now: u64) {
        if now < self.repair.look_at || self.relay.relay().is_none() {
            return;
        }
        self.repair.look_at = now + LOOK_EVERY;
        let streams = self.wanted.iter().filter(|(_, published)| !**published);
        for stream in streams.map(|(stream, _)| *stream).collect::<Vec<_>>() {
            let nodes = self.overlay.neighbours(stream, NEIGHBOURS_MAX);
            if self.repair.told.get(&stream) != Some(&nodes) {
                self.repair.told.insert(stream, nodes.clone());
                self.todo.push_back(Todo::Relay(RelayInput::Neighbours { stream, nodes }));
            }
        }
    }

    pub(super) fn ask_neighbour(&mut self, to: NodeId, want: RepairWant, cx: &mut Cx<'_>) {
        cx.trace.text(cx.now, self.index, &want);
        if self.linked.contains_key(&to) {
            let packet = Packet::RepairWant { want };
            self.count_sent(&packet, cx);
            cx.effects.push(Effect::Send { to, packet });
        } else {
            let failed = RelayInput::RepairFailed { stream: want.stream, from: to };
            self.todo.push_back(Todo::Relay(failed));
        }
    }

    pub(super) fn answer_neighbour(
        &mut self,
        to: NodeId,
        id: AnswerId,
        mut answer: RepairAnswer<SimChunk>,
        cx: &mut Cx<'_>,
    ) {
        let Some(stream) = self.repair.asked.remove(&id) else { return };
        cx.trace.numbers([cx.now, u64::from(self.index), id.0, answer.chunks.len() as u64]);
        let sent = answer.chunks.into_iter().filter_map(|chunk| {
            match self.misdeed.frame(DownFrame::Chunk(chunk)) {
                Some(DownFrame::Chunk(chunk)) => Some(chunk),
                _ => None,
            }
        });
        answer.chunks = sent.collect();
        let packet = Packet::RepairAnswer { stream, answer };
        self.count_sent(&packet, cx);
        cx.effects.push(Effect::Send { to, packet });
    }

    pub(super) fn repair_asked(&mut self, from: NodeId, want: RepairWant) {
        self.repair.next += 1;
        let id = AnswerId(self.repair.next);
        self.repair.asked.insert(id, want.stream);
        self.todo.push_back(Todo::Relay(RelayInput::RepairAsked { from, id, want }));
    }

    /// An answer came: checked before it goes any further.
    pub(super) fn repaired(
        &mut self,
        from: NodeId,
        stream: StreamId,
        answer: RepairAnswer<SimChunk>,
        cx: &mut Cx<'_>,
    ) {
        let RepairAnswer { have, chunks } = answer;
        if !chunks.iter().all(|chunk| chunk.header().epoch == have.epoch && chunk.verify(&stream)) {
            cx.tally.offences += 1;
            let kind = Offence::BadSignature;
            self.todo.push_back(Todo::Overlay(Input::Misbehaved { node: from, kind }));
            self.todo.push_back(Todo::Relay(RelayInput::RepairFailed { stream, from }));
            return;
        }
        if let Some(player) = &mut self.player {
            for chunk in &chunks {
                player.arrived(chunk, Self::moment(cx), cx.tally);
            }
        }
        self.todo.push_back(Todo::Relay(RelayInput::Repair { stream, from, have, chunks }));
    }
}
