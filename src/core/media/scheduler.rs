//! The node's send scheduler: whose turn it is.
//!
//! Owns [`Turns`] (round robin, live strictly before repair). Does not own the ceiling (`pacer`), nor
//! what a child is sent in its turn (see the relay).

use std::collections::VecDeque;

use crate::ids::{NodeId, StreamId};

/// A child in the turns: its stream and its place there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Turn {
    pub(crate) stream: StreamId,
    pub(crate) child: NodeId,
}

/// Which of a child's queues.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Class {
    /// START, GAP, SHED, KEEP, CERT, INIT: never held back.
    Control,
    /// Chunks of live stripes.
    Live,
    /// Chunks that were asked for; **only when nothing live can be sent**.
    Repair,
}

/// Children that have something to send, in turn. A child is in each class at most once; the flag
/// for that is the child's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Turns {
    control: VecDeque<Turn>,
    live: VecDeque<Turn>,
    repair: VecDeque<Turn>,
}

impl Turns {
    pub(crate) fn push(&mut self, turn: Turn, class: Class) {
        self.class(class).push_back(turn);
    }

    /// Back to the front: its turn was cut short by the pacer.
    pub(crate) fn push_front(&mut self, turn: Turn, class: Class) {
        self.class(class).push_front(turn);
    }

    pub(crate) fn pop(&mut self, class: Class) -> Option<Turn> {
        self.class(class).pop_front()
    }

    fn class(&mut self, class: Class) -> &mut VecDeque<Turn> {
        match class {
            Class::Control => &mut self.control,
            Class::Live => &mut self.live,
            Class::Repair => &mut self.repair,
        }
    }
}
