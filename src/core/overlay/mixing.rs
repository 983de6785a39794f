//! Which candidates an answer names.
//!
//! Owns the choice: enough for every stripe, and never all from one who told of them. Does not own
//! who tells (see `registrar` and `coordination`).

use super::{CANDIDATES_MAX, Candidate, forwarder::bound};
use crate::ids::STRIPES_MAX;

/// Picks from several tellers' lists, each best first: in turns, so that a liar among them has
/// only its share. Those with free slots come first; full ones fill up what is missing. The source
/// always has its place.
pub(super) fn mix(
    source: Option<Candidate>,
    tellers: Vec<Vec<Candidate>>,
    per_stripe: usize,
) -> Vec<Candidate> {
    let (mut free, mut full) = (Vec::new(), Vec::new());
    for list in tellers {
        let (with, without): (Vec<_>, Vec<_>) =
            list.into_iter().partition(|candidate| candidate.free > 0);
        free.push(with);
        full.push(without);
    }
    let mut list: Vec<Candidate> = source.into_iter().collect();
    let mut of_stripe = [0_usize; STRIPES_MAX as usize];
    for candidate in in_turns(free).into_iter().chain(in_turns(full)) {
        if list.len() >= CANDIDATES_MAX {
            break;
        }
        if list.iter().any(|known| known.contact.node == candidate.contact.node) {
            continue;
        }
        let stripes = candidate.stripes();
        let is_wanted = stripes.iter().any(|stripe| of_stripe[usize::from(stripe)] < per_stripe);
        if is_wanted {
            stripes.iter().for_each(|stripe| of_stripe[usize::from(stripe)] += 1);
            list.push(candidate);
        }
    }
    bound(&mut list);
    list
}

/// About how many bytes a candidate takes of a message.
pub(super) fn candidate_bytes(candidate: &Candidate) -> usize {
    220 + candidate.contact.addrs.iter().map(|addr| addr.as_str().len() + 4).sum::<usize>()
}

/// The first of each list, then the second of each, and so on.
pub(super) fn in_turns(lists: Vec<Vec<Candidate>>) -> Vec<Candidate> {
    let mut lists: Vec<_> = lists.into_iter().map(Vec::into_iter).collect();
    let mut turns = Vec::new();
    loop {
        let before = turns.len();
        turns.extend(lists.iter_mut().filter_map(Iterator::next));
        if turns.len() == before {
            return turns;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overlay::{Contact, DEPTH_NONE, testnet::node};

    fn candidate(index: u16, depths: &[u8], free: u16) -> Candidate {
        let contact = Contact::new(node(index), vec![]);
        Candidate { contact, depths: depths.to_vec(), free, source: index == 0 }
    }

    fn names(list: &[Candidate]) -> Vec<crate::ids::NodeId> {
        list.iter().map(|candidate| candidate.contact.node).collect()
    }

    fn list(from: u16, count: u16, free: u16) -> Vec<Candidate> {
        (from..from + count).map(|index| candidate(index, &[1, 1], free)).collect()
    }

    #[test]
    fn tellers_take_turns_and_no_stripe_gets_more_than_its_number() {
        let source = candidate(0, &[0, 0], 1);
        let mixed = mix(Some(source), vec![list(10, 20, 3), list(40, 20, 3)], 6);
        let expected = [0, 10, 40, 11, 41, 12, 42].map(node);
        assert_eq!(names(&mixed), expected);
    }

    #[test]
    fn a_liar_with_many_names_has_no_more_than_its_share() {
        let mixed = mix(None, vec![list(10, 2, 1), list(100, 50, 9), list(40, 2, 1)], 6);
        assert_eq!(names(&mixed), [10, 100, 40, 11, 101, 41].map(node));
    }

    #[test]
    fn full_ones_fill_up_only_what_is_missing() {
        let mixed = mix(None, vec![list(10, 2, 0), list(20, 2, 1)], 3);
        assert_eq!(names(&mixed), [20, 21, 10].map(node));
        // The second stripe has fewer, so its full carrier is named.
        let second = candidate(30, &[DEPTH_NONE, 1], 0);
        let first = |index| candidate(index, &[1, DEPTH_NONE], 1);
        let mixed = mix(None, vec![(10..20).map(first).collect(), vec![second]], 3);
        assert_eq!(names(&mixed), [10, 11, 12, 30].map(node));
    }

    #[test]
    fn the_same_node_told_twice_is_named_once() {
        let mixed = mix(None, vec![list(10, 3, 1), list(10, 3, 1)], 6);
        assert_eq!(names(&mixed), [10, 11, 12].map(node));
    }
}
