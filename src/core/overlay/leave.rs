//! Leaving politely: everybody is told in parallel, nobody is waited for long.
//!
//! Owns the order of leaving and its deadline. Does not own what is told.

use std::time::Duration;

use super::{DirRequest, Output, Overlay, local::Purpose};
use crate::time::Timestamp;

/// A leave under way.
#[derive(Debug)]
pub(super) struct Leaving {
    until: Timestamp,
    /// Children may move until then.
    children_until: Timestamp,
    stage: Stage,
}

/// Legal next states: each the following one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Children and viewers are told.
    Telling,
    /// Parents and the supernode are told; their answers are awaited.
    Parting,
    Left,
}

impl Leaving {
    pub(super) fn new(until: Timestamp) -> Self {
        let children_until = until - PARTING;
        Self { until, children_until, stage: Stage::Telling }
    }

    pub(super) fn next_deadline(&self) -> Timestamp {
        match self.stage {
            Stage::Telling => self.children_until,
            Stage::Parting => self.until,
            Stage::Left => Timestamp::NEVER,
        }
    }
}

impl Overlay {
    /// Streams end, children are handed over.
    pub(super) fn begin_leaving(&mut self) {
        self.publisher.unpublish_all(&mut self.local);
        for watch in self.watches.values_mut() {
            watch.unwatch(&mut self.local, &mut self.forwarder);
        }
        self.local.leaving = true;
    }

    /// Goes on with leaving, when it is time or nothing is left to wait for.
    pub(super) fn drive_leaving(&mut self) {
        let Some(leaving) = &mut self.leaving else { return };
        let now = self.local.now;
        let told = self.watches.is_empty() && self.publisher.is_told();
        if leaving.stage == Stage::Telling && (told || leaving.children_until <= now) {
            leaving.stage = Stage::Parting;
            self.abandon_all();
            self.tell_directory();
        }
        let Some(leaving) = &mut self.leaving else { return };
        let quiet = !self.local.is_parting();
        if leaving.stage == Stage::Parting && (quiet || leaving.until <= now) {
            leaving.stage = Stage::Left;
            self.local.emit(Output::Left);
        }
    }

    fn tell_directory(&mut self) {
        let mut nodes: Vec<_> = match &self.registrar {
            Some(registrar) => {
                let members = registrar.members().chain(registrar.backups());
                members.chain(registrar.neighbours()).collect()
            }
            None => Vec::new(),
        };
        nodes.extend(self.registrant.backup());
        nodes.extend(self.registrant.home().filter(|_| !self.registrant.is_supernode()));
        for node in nodes {
            self.local.ask_dir(node, DirRequest::Unregister, Purpose::Unregister);
        }
    }
}

/// Kept of the time to leave for parents and the supernode.
const PARTING: Duration = Duration::from_millis(600);
