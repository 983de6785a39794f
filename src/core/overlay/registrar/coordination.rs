//! What supernodes tell each other of a stream: who carries it beyond the own members.
//!
//! Owns what others told, the questions under way, and when to tell. Does not own members (see the
//! parent), nor the choice of candidates (see `mixing`).
//!
//! A supernode whose members carry a stream tells one of the stream's coordinators; the
//! coordinators tell each other what they were told, which is not told on. Who is asked for a
//! stream that it knows little of asks two coordinators, in whose answers nothing is asked further:
//! the number of messages is bounded by construction.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::super::{
    Candidate, Contact, DirRequest, LookupId, LookupKey, SUMMARY_STREAMS_MAX, StreamSummary,
    dht::coordinators,
    expiring_map::ExpiringMap,
    local::{Local, Purpose},
    membership::Learnt,
    mixing::{candidate_bytes, mix},
};
use crate::{
    ids::{NodeId, StreamId},
    time::Timestamp,
};

/// What is known of streams beyond the own members.
#[derive(Debug)]
pub(in super::super) struct Coordination {
    /// What supernodes told of streams.
    told: ExpiringMap<(StreamId, NodeId), Told>,
    /// What coordinators answered, by coordinator.
    heard: ExpiringMap<(StreamId, NodeId), Vec<Candidate>>,
    questions: BTreeMap<StreamId, Question>,
    /// What was told last, until it is to be repeated.
    sent: ExpiringMap<StreamId, u64>,
    /// Streams whose carriers changed since the coordinators last told each other.
    dirty: BTreeSet<StreamId>,
    lookups: BTreeMap<LookupId, StreamId>,
    looked_up: ExpiringMap<StreamId, ()>,
    tell_at: Timestamp,
    share_at: Timestamp,
}

#[derive(Debug)]
struct Told {
    candidates: Vec<Candidate>,
    viewers: u32,
    /// By another coordinator, who was told.
    relayed: bool,
}

/// A question to the coordinators of a stream.
#[derive(Debug)]
struct Question {
    /// Who wants to hear.
    waiting: BTreeSet<NodeId>,
    asked: BTreeSet<NodeId>,
    in_flight: usize,
    /// Some answer was of use: the others are waited for until then.
    offer_at: Option<Timestamp>,
    until: Timestamp,
}

/// What to do about an answer, or its absence.
pub(in super::super) type Waiting = BTreeSet<NodeId>;

impl Coordination {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            told: ExpiringMap::new(),
            heard: ExpiringMap::new(),
            questions: BTreeMap::new(),
            sent: ExpiringMap::new(),
            dirty: BTreeSet::new(),
            lookups: BTreeMap::new(),
            looked_up: ExpiringMap::new(),
            tell_at: now,
            share_at: now,
        }
    }

    /// Lists of carriers, one for each supernode that told; with what coordinators answered when
    /// `all`.
    pub(in super::super) fn tellers(&self, stream: StreamId, all: bool) -> Vec<Vec<Candidate>> {
        let told = of_stream(&self.told, stream).map(|(_, told)| told.candidates.clone());
        let heard = of_stream(&self.heard, stream).filter(|_| all).map(|(_, heard)| heard.clone());
        told.chain(heard).collect()
    }

    /// Viewers and seeders of a stream at other supernodes: each tells one coordinator, or is one,
    /// and coordinators tell each other only of their own and of who told them.
    pub(in super::super) fn viewers(&self, stream: StreamId) -> u32 {
        of_stream(&self.told, stream).map(|(_, told)| told.viewers).fold(0, u32::saturating_add)
    }

    /// Streams that other supernodes' members carry.
    pub(super) fn told_of(&self) -> impl Iterator<Item = StreamId> {
        self.told.iter().map(|((stream, _), _)| *stream)
    }

    /// A supernode tells what its members carry, or, as a coordinator, what it was told.
    pub(in super::super) fn on_summary(
        &mut self,
        local: &mut Local,
        from: NodeId,
        streams: Vec<StreamSummary>,
    ) {
        let until = local.now + local.config.tuning.summary_lifetime;
        for summary in streams {
            let StreamSummary { stream, viewers, candidates, relayed } = summary;
            let key = (stream, from);
            let tellers = of_stream(&self.told, stream).count();
            let has_room = tellers < TELLERS_MAX && self.told.len() < TOLD_MAX;
            if !has_room && !self.told.contains(&key) {
                local.counters.overflows += 1;
                continue;
            }
            let news = fingerprint(&candidates, viewers);
            let old = self.told.insert(key, Told { candidates, viewers, relayed }, until);
            let changed = old.is_none_or(|old| fingerprint(&old.candidates, old.viewers) != news);
            if changed && !relayed {
                self.dirty.insert(stream);
            }
        }
    }

    /// Somebody wants to know more of a stream than is known here: two coordinators are asked,
    /// unless they were lately. `few` when little is known.
    pub(in super::super) fn ask(
        &mut self,
        local: &mut Local,
        stream: StreamId,
        asker: NodeId,
        few: bool,
    ) {
        let tuning = &local.config.tuning;
        let lifetime = tuning.heard_lifetime;
        let pause = if few { tuning.ask_coordinators_every } else { lifetime };
        let (now, until) = (local.now, local.now + tuning.find_deadline);
        let is_fresh = of_stream_deadlines(&self.heard, stream)
            .any(|deadline| deadline.since(now) + pause > lifetime);
        if is_fresh {
            return;
        }
        if let Some(question) = self.questions.get_mut(&stream) {
            if question.waiting.len() < WAITING_MAX {
                question.waiting.insert(asker);
            }
            return;
        }
        if self.questions.len() >= QUESTIONS_MAX {
            local.counters.overflows += 1;
            return;
        }
        let (waiting, asked) = (BTreeSet::from([asker]), BTreeSet::new());
        let fresh = Question { waiting, asked, in_flight: 0, offer_at: None, until };
        self.questions.insert(stream, fresh);
        self.ask_more(local, stream, ASKED_AT_ONCE);
    }

    /// A coordinator answered, or (`None`) did not. Returns who waits for the news, when it is time.
    pub(in super::super) fn answered(
        &mut self,
        local: &mut Local,
        stream: StreamId,
        from: NodeId,
        answer: Option<(bool, Vec<Candidate>)>,
    ) -> Waiting {
        let useful = answer.as_ref().is_some_and(|(known, list)| *known || !list.is_empty());
        if let Some((_, candidates)) = answer
            && self.heard.len() < TOLD_MAX
        {
            // An empty answer counts as well: it is not asked for again at once.
            let until = local.now + local.config.tuning.heard_lifetime;
            self.heard.insert((stream, from), candidates, until);
        }
        let Some(question) = self.questions.get_mut(&stream) else { return Waiting::new() };
        question.in_flight = question.in_flight.saturating_sub(1);
        if useful && question.offer_at.is_none() {
            question.offer_at = Some(local.now + OTHERS_WAIT);
        }
        if question.in_flight > 0 {
            return Waiting::new();
        }
        if question.offer_at.is_some() {
            return self.questions.remove(&stream).map(|q| q.waiting).unwrap_or_default();
        }
        if !self.ask_more(local, stream, 1) {
            self.questions.remove(&stream);
        }
        Waiting::new()
    }

    /// Questions that have waited long enough; with whom to tell what is known by now.
    pub(in super::super) fn due(&mut self, local: &mut Local) -> Vec<(StreamId, Waiting)> {
        let now = local.now;
        let is_due = |question: &Question| {
            question.until <= now || question.offer_at.is_some_and(|at| at <= now)
        };
        let due: Vec<_> = self.questions.extract_if(.., |_, question| is_due(question)).collect();
        let told = due.into_iter().filter(|(_, question)| question.offer_at.is_some());
        told.map(|(stream, question)| (stream, question.waiting)).collect()
    }

    /// A lookup is done: supernodes near a stream are known now.
    pub(in super::super) fn lookup_done(
        &mut self,
        local: &mut Local,
        id: LookupId,
        found: &[Contact],
    ) {
        let Some(stream) = self.lookups.remove(&id) else { return };
        for contact in found {
            local.nodes.learn(contact, Learnt::Hearsay, local.now);
            local.nodes.set_supernode(contact.node, true);
        }
        let idle = |question: &Question| question.in_flight == 0;
        if self.questions.get(&stream).is_some_and(idle) {
            self.ask_more(local, stream, ASKED_AT_ONCE);
        }
    }

    /// How many questions are under way.
    #[cfg(test)]
    pub(in super::super) fn questions(&self) -> usize {
        self.questions.len()
    }

    /// Whether [`Self::drive`] has something to tell.
    pub(in super::super) fn is_due(&self, now: Timestamp) -> bool {
        self.tell_at <= now || self.share_at <= now && !self.dirty.is_empty()
    }

    /// Tells coordinators what the own members carry, and other coordinators what was told.
    pub(in super::super) fn drive(&mut self, local: &mut Local, own: &Own) {
        let now = local.now;
        while self.told.pop_due(now).is_some() {}
        while self.heard.pop_due(now).is_some() {}
        while self.sent.pop_due(now).is_some() {}
        while self.looked_up.pop_due(now).is_some() {}
        let mut post = Post::default();
        if self.tell_at <= now {
            self.tell_at = now + local.config.tuning.summary_every;
            self.tell(local, own, &mut post);
        }
        if self.share_at <= now && !self.dirty.is_empty() {
            self.share_at = now + local.config.tuning.share_every;
            self.share(local, own, &mut post);
        }
        post.send(local);
    }

    pub(in super::super) fn next_deadline(&self) -> Timestamp {
        let share = if self.dirty.is_empty() { Timestamp::NEVER } else { self.share_at };
        let questions = self
            .questions
            .values()
            .map(|question| question.offer_at.map_or(question.until, |at| at.min(question.until)));
        questions.fold(self.tell_at.min(share), Timestamp::min)
    }

    /// A stream is carried here that was not before: it is told soon.
    pub(in super::super) fn hurry(&mut self, now: Timestamp) {
        self.tell_at = self.tell_at.min(now + HURRY);
    }

    /// Asks up to `count` coordinators that were not asked yet; false when there is none.
    fn ask_more(&mut self, local: &mut Local, stream: StreamId, count: usize) -> bool {
        let Some(question) = self.questions.get_mut(&stream) else { return false };
        let room = ASKED_MAX.saturating_sub(question.asked.len());
        let mut near = coordinators(local, &stream);
        near.retain(|node| *node != local.me.node && !question.asked.contains(node));
        let few = near.len() < ASKED_AT_ONCE;
        let first = turn(local, near.len());
        near.rotate_left(first);
        near.truncate(count.min(room));
        question.in_flight += near.len();
        question.asked.extend(&near);
        for node in &near {
            local.ask_dir(*node, DirRequest::Carriers { stream }, Purpose::Carriers { stream });
        }
        // Whoever knows few supernodes looks for those near the stream.
        few && self.look_up(local, stream) || !near.is_empty()
    }

    /// What the own members carry goes to one coordinator of each stream.
    fn tell(&mut self, local: &mut Local, own: &Own, post: &mut Post) {
        let until = local.now + local.config.tuning.summary_lifetime / 3;
        let mut lookups = 0;
        for summary in own.values().take(TOLD_AT_ONCE) {
            let news = fingerprint(&summary.candidates, summary.viewers);
            if self.sent.get(&summary.stream) == Some(&news) {
                continue;
            }
            if lookups < LOOKUPS_AT_ONCE && self.look_up(local, summary.stream) {
                lookups += 1;
            }
            self.sent.insert(summary.stream, news, until);
            let near = coordinators(local, &summary.stream);
            if near.contains(&local.me.node) {
                self.dirty.insert(summary.stream);
            } else if let Some(to) = near.get(turn(local, near.len())) {
                post.add(*to, summary.clone());
            }
        }
        let refresh = self.told.iter().filter(|(_, told)| !told.relayed);
        let refresh: Vec<_> = refresh.map(|((stream, _), _)| *stream).collect();
        // What others told is told on before it lapses there.
        for stream in refresh {
            if !self.sent.contains(&stream) && self.sent.len() < TOLD_MAX {
                self.sent.insert(stream, 0, until);
                self.dirty.insert(stream);
            }
        }
    }

    /// What this coordinator knows at first hand goes to the others.
    fn share(&mut self, local: &mut Local, own: &Own, post: &mut Post) {
        for stream in std::mem::take(&mut self.dirty) {
            let near = coordinators(local, &stream);
            if !near.contains(&local.me.node) {
                continue;
            }
            let mine = own.get(&stream);
            let told = of_stream(&self.told, stream).filter(|(_, told)| !told.relayed);
            let mut viewers = mine.map_or(0, |mine| mine.viewers);
            let lists = told.map(|(_, told)| {
                viewers = viewers.saturating_add(told.viewers);
                told.candidates.clone()
            });
            let lists = lists.chain(mine.map(|mine| mine.candidates.clone())).collect();
            let mut candidates = mix(None, lists, SHARED_PER_STRIPE);
            candidates.truncate(SHARED_MAX);
            let summary = StreamSummary { stream, viewers, candidates, relayed: true };
            for to in near.into_iter().filter(|node| *node != local.me.node) {
                post.add(to, summary.clone());
            }
        }
    }

    /// Looks for supernodes near a stream, once in a while; returns whether it does.
    fn look_up(&mut self, local: &mut Local, stream: StreamId) -> bool {
        if self.looked_up.contains(&stream) || self.looked_up.len() >= TOLD_MAX {
            return false;
        }
        self.looked_up.insert(stream, (), local.now + LOOK_AGAIN);
        self.lookups.insert(local.lookup(LookupKey::Stream(stream)), stream);
        while self.lookups.len() > QUESTIONS_MAX {
            self.lookups.pop_first();
        }
        true
    }
}

/// What the own members carry, by stream.
pub(in super::super) type Own = BTreeMap<StreamId, StreamSummary>;

/// Summaries by receiver, in as few messages as they fit.
#[derive(Default)]
struct Post {
    letters: BTreeMap<NodeId, Vec<StreamSummary>>,
}

impl Post {
    fn add(&mut self, to: NodeId, summary: StreamSummary) {
        self.letters.entry(to).or_default().push(summary);
    }

    fn send(self, local: &mut Local) {
        for (to, summaries) in self.letters {
            let mut streams: Vec<StreamSummary> = Vec::new();
            let mut bytes = 0;
            for summary in summaries {
                let more: usize = summary.candidates.iter().map(candidate_bytes).sum();
                if streams.len() >= SUMMARY_STREAMS_MAX || bytes + more > SUMMARY_BYTES_MAX {
                    let streams = std::mem::take(&mut streams);
                    local.ask_dir(to, DirRequest::Summary { streams }, Purpose::Summary);
                    bytes = 0;
                }
                bytes += more;
                streams.push(summary);
            }
            local.ask_dir(to, DirRequest::Summary { streams }, Purpose::Summary);
        }
    }
}

fn of_stream<V>(
    map: &ExpiringMap<(StreamId, NodeId), V>,
    stream: StreamId,
) -> impl Iterator<Item = (NodeId, &V)> {
    map.iter_after(Some((stream, NodeId([0; 32]))))
        .take_while(move |((of, _), _)| *of == stream)
        .map(|((_, node), value)| (*node, value))
}

fn of_stream_deadlines<V>(
    map: &ExpiringMap<(StreamId, NodeId), V>,
    stream: StreamId,
) -> impl Iterator<Item = Timestamp> {
    of_stream(map, stream).filter_map(move |(node, _)| map.deadline(&(stream, node)))
}

/// Whose turn it is among `count`: different supernodes begin at different ones.
fn turn(local: &Local, count: usize) -> usize {
    usize::try_from(local.hash % u64::try_from(count.max(1)).unwrap_or(1)).unwrap_or(0)
}

/// Differs when other nodes carry, when one has or has no free slot any more, and when there are
/// clearly more or fewer viewers.
fn fingerprint(candidates: &[Candidate], viewers: u32) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&viewers.checked_ilog2().unwrap_or(0).to_be_bytes());
    for candidate in candidates {
        hasher.update(candidate.contact.node.as_bytes());
        hasher.update(&[u8::from(candidate.free > 0)]);
    }
    let hash = hasher.finalize();
    let (first, _) = hash.as_bytes().split_first_chunk().expect("32 bytes have a first eight");
    u64::from_be_bytes(*first)
}

/// Coordinators asked at the same time, and in all for one question.
const ASKED_AT_ONCE: usize = 2;
const ASKED_MAX: usize = 4;
/// After the first useful answer the other is waited for this long.
const OTHERS_WAIT: Duration = Duration::from_millis(250);
/// A new stream is told after this, so that several go together.
const HURRY: Duration = Duration::from_millis(300);
/// Between two lookups of one stream.
const LOOK_AGAIN: Duration = Duration::from_secs(120);
/// Lookups begun at once.
const LOOKUPS_AT_ONCE: usize = 4;
/// Streams told of at once.
const TOLD_AT_ONCE: usize = 256;
/// Most supernodes heard of one stream, and most entries of all.
const TELLERS_MAX: usize = 32;
const TOLD_MAX: usize = 8_192;
/// Most bytes of candidates in one message; one stream's are bounded by themselves.
const SUMMARY_BYTES_MAX: usize = 12 * 1_024;
/// Most questions under way, and most that wait for one.
const QUESTIONS_MAX: usize = 256;
const WAITING_MAX: usize = 32;
/// Candidates that coordinators tell each other.
const SHARED_MAX: usize = 8;
const SHARED_PER_STRIPE: usize = 6;
