//! Every tunable of the overlay, with unit, default and where the number comes from.
//!
//! Owns the values. Does not own settings files and flags.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Contact;
use crate::{announcement::Scheme, units::Bitrate};

/// Settings of one node's overlay. The user's choices first, then constants that only simulations
/// and tests change.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct OverlayConfig {
    /// Unix time, in seconds, of `Timestamp::ZERO`: the core never reads a clock.
    pub unix_at_start: u64,
    /// Whether this node may or must be a supernode.
    pub role: RoleChoice,
    /// Places for members when this node is a supernode. 100 as in the 2011 Astral.
    pub member_capacity: usize,
    /// Explicit uplink, taken as told. `None`: measured, or [`Self::uplink_unmeasured`].
    pub uplink: Option<Bitrate>,
    /// Most copies of one stream (times k stripes). `None`: as many as the uplink carries; 0:
    /// forward nothing.
    pub max_copies: Option<u32>,
    /// Most copies of all streams together. `None`: as many as the uplink carries.
    pub max_total_copies: Option<u32>,
    /// Nodes to begin with whose identity is known.
    pub bootstrap: Vec<Contact>,
    /// The driver dials bootstrap addresses: wait for them before founding a network.
    pub bootstrap_expected: bool,
    /// How signatures are checked; `Ed25519` but in simulations.
    pub scheme: Scheme,
    /// Everything else.
    pub tuning: Tuning,
}

impl Default for OverlayConfig {
    fn default() -> Self {
        Self {
            unix_at_start: 0,
            role: RoleChoice::Auto,
            member_capacity: 100,
            uplink: None,
            max_copies: None,
            max_total_copies: None,
            bootstrap: Vec::new(),
            bootstrap_expected: false,
            scheme: Scheme::Ed25519,
            tuning: Tuning::default(),
        }
    }
}

/// Whether a node may or must be a supernode.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoleChoice {
    /// Supernode when none has room and others can dial this node.
    #[default]
    Auto,
    /// Supernode from the start.
    Supernode,
    /// Never a supernode.
    Member,
}

/// Constants of the protocol.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Tuning {
    /// Taken for the uplink until something is known. 10 Mbit/s: the slowest tenth of European
    /// fixed lines of 2024 is above it (guess, deliberately low).
    pub uplink_unmeasured: Bitrate,
    /// Share of a measured uplink that is used, in percent: 85, so that the household's other
    /// traffic lives.
    pub measured_share_percent: u64,
    /// Share of the usable uplink that becomes slots, in percent: 90, the rest is for repair,
    /// framing and control.
    pub slot_share_percent: u64,

    /// What framing and signing add to a chunk, in bytes: a feed carries that as well (measured:
    /// 111 in the first version of the chunk).
    pub chunk_overhead_bytes: u64,
    /// What keepalives and paths add to a feed, in percent (measured in simulation: about 2).
    pub feed_overhead_percent: u64,

    /// A registration lapses unless renewed. Three renewals.
    pub member_lease: Duration,
    /// Between renewals: a loss is noticed and mended within 15 s.
    pub renew_every: Duration,
    /// Between meetings of two supernodes; their directories are whole within 5 s by it.
    pub meet_every: Duration,
    /// A backup's registration lapses unless renewed. Three renewals.
    pub backup_lease: Duration,
    /// Between renewals with the backup: it is not the one that is needed now.
    pub backup_renew_every: Duration,
    /// Between looks for a nearer supernode; a move needs two in a row.
    pub move_look: Duration,
    /// After a nearer supernode refused, it is not looked for during this time.
    pub move_pause: Duration,
    /// A move saves at least this of the round trip. 30 ms: what a person would not notice is not
    /// worth a registration (guess).
    pub move_gain: Duration,
    /// A move saves at least this share of the round trip, in percent.
    pub move_gain_percent: u32,
    /// Uplink that a supernode beside others needs. 2 Mbit/s: 100 members' lists and answers,
    /// twice over (estimate).
    pub supernode_uplink: Bitrate,
    /// A supernode without need, or no longer fit, steps down when that has lasted this long.
    pub demote_after: Duration,
    /// It is not needed with fewer members than this share of its places, in percent.
    pub demote_members_percent: u32,
    /// Members have this long to be elsewhere before it steps down.
    pub demote_grace: Duration,
    /// It does not step up again during this time, unless nobody else is there.
    pub promote_again_after: Duration,
    /// A directory request without an answer has failed.
    pub dir_timeout: Duration,
    /// Alone and without bootstrap: found a network after this (mdns answers within 1 s).
    pub found_after: Duration,
    /// With bootstrap addresses: found a network of one's own after this.
    pub bootstrap_patience: Duration,
    /// How long round trips of newly found supernodes are waited for.
    pub measure_wait: Duration,
    /// Between attempts of a guest, or of a node without any supernode.
    pub search_every: Duration,
    /// Between lookups of other supernodes by a supernode.
    pub lookup_every: Duration,
    /// Most supernodes that a supernode meets.
    pub neighbours_max: usize,

    /// An announcement is void after this unless repeated: a crashed source leaves every list
    /// within it.
    pub announcement_lifetime: Duration,
    /// Between repetitions of an announcement.
    pub announce_every: Duration,
    /// An older announcement is a replay when the newer one is known for this long; before that
    /// they may have crossed on their way.
    pub replay_after: Duration,
    /// Clocks of nodes may differ by this.
    pub clock_skew: Duration,
    /// Furthest expiry that is believed.
    pub announcement_lifetime_max: Duration,
    /// Most streams of a directory.
    pub streams_max: usize,
    /// Between STATUS messages without a change.
    pub status_every: Duration,
    /// Between STATUS messages at most.
    pub status_pause: Duration,
    /// A STATUS counts for this long.
    pub status_lifetime: Duration,
    /// Between STATUS messages to the backup.
    pub backup_status_every: Duration,
    /// Slots of a node to which somebody was sent count as taken for this long, unless it says
    /// otherwise: a dial, an ASK, and the STATUS that tells of it. Measured on a ramp of 200 viewers
    /// (`mix`, 26 s, seeds 1 and 2): with 0 and 1.5 s the median first picture is after 5.1 and 4.0 s,
    /// 4.7 and 2.5 s, continuity at 3 s 0.933 and 0.974, 0.987 and 0.998.
    pub spoken_for: Duration,
    /// A STATUS counts for this long at the backup.
    pub backup_status_lifetime: Duration,

    /// A ticket lapses unless renewed.
    pub lease: Duration,
    /// A fresh grant lapses unless taken up.
    pub reservation: Duration,
    /// Between renewals by a repeated ASK.
    pub reask_every: Duration,
    /// An ASK without an answer has failed.
    pub ask_timeout: Duration,
    /// A granted feed that is not up has failed.
    pub open_timeout: Duration,
    /// The next candidate is asked when the first has not answered: joining.
    pub hedge: Duration,
    /// The same, when a stripe runs dry.
    pub hedge_failover: Duration,
    /// Most candidates asked at the same time for one stripe.
    pub asks_parallel_max: usize,
    /// Most candidates asked in one round for one stripe: the hop limit of a search.
    pub asks_per_round_max: usize,
    /// A round of asking ends after this.
    pub round_deadline: Duration,
    /// Shortest pause between rounds; doubled with jitter up to `retry_max`.
    pub retry_min: Duration,
    /// Longest pause between rounds.
    pub retry_max: Duration,
    /// Between JOINs while playing.
    pub refresh_every: Duration,
    /// A candidate not confirmed for this long is forgotten.
    pub candidate_lifetime: Duration,
    /// Most candidates kept for one stream.
    pub candidates_max: usize,
    /// The old parent's ticket is kept this long after its successor was promoted: longer than
    /// `deliver_timeout`, so that there is a way back.
    pub soft_keep: Duration,
    /// A promoted parent that has brought nothing for this long has broken its promise: a request,
    /// its answer and some stripe intervals (guess).
    pub deliver_timeout: Duration,
    /// A parent that claims ever more of a stripe and sends none of it for this long is replaced
    /// (rule R4). Four intervals of a stripe are 400 ms; half as much again for a loaded sender.
    pub withheld_after: Duration,
    /// A parent without anything new of a stripe for this long, while others have it, is replaced
    /// (rule R3): what it takes itself to find a parent, several times over.
    pub starved_after: Duration,
    /// A stripe must have come from its parent for this long before a standby is looked for.
    pub standby_after: Duration,
    /// Between two candidates asked to stand by; doubled with jitter up to `standby_pause_max`.
    pub standby_pause: Duration,
    /// Longest such pause.
    pub standby_pause_max: Duration,
    /// A parent with no news for this long is not carrying.
    pub stale_after: Duration,
    /// Children have this long to move when this node stops watching.
    pub handover_grace: Duration,
    /// Children have this long to move when a ticket is revoked or shed.
    pub revoke_grace: Duration,
    /// A child whose place somebody takes who contributes more keeps its bytes for so long, or
    /// until it has a new parent: a search, an answer that nothing is there yet, and a retry (swept:
    /// 1 s leaves one in ten without, 3 s is no better than 2 s).
    pub displace_grace: Duration,
    /// A child is not displaced before it had its place for this long: it still gets what was cut
    /// before it came, which the newcomer does not have; rings of 20 s keep that for it. Swept on a
    /// ramp of 200 viewers (`mix`, 26 s, seed 1): with 5, 1, 0.5 and 0 s the median first picture is
    /// after 9.7, 5.0, 5.1 and 5.3 s, continuity at 3 s 0.850, 0.929, 0.933 and 0.933. In a flash crowd
    /// of 60 who keep everything 0.5 s by itself loses 531 chunks where 5 s loses 13,197; with what
    /// joiners are told of free slots it is 2,086.
    pub settle_time: Duration,
    /// The one displaced asks the newcomer after this: by then the newcomer mostly has something.
    pub displace_patience: Duration,
    /// A slot is kept this long for the child that it was freed for: a move and a retry.
    pub room_kept: Duration,
    /// A child without a sign of life for this long loses its slots to whoever asks for them: two
    /// idle ACKs. It takes QUIC many seconds longer to notice a host that is gone.
    pub child_silence: Duration,
    /// Standbys promised for each free slot; beside them one for each slot in use (design).
    pub promises_per_free_slot: u32,
    /// No new chunk on any stripe for this long: the source is lost.
    pub source_lost_after: Duration,
    /// A lost source is waited for this long.
    pub source_wait: Duration,
    /// Leaving takes at most this.
    pub leave_max: Duration,

    /// Between summaries of a supernode to the coordinators of streams, when something changed.
    pub summary_every: Duration,
    /// A summary counts for this long. It is repeated in a third of it, and at once when it changes.
    pub summary_lifetime: Duration,
    /// A coordinator's answer counts for this long: nobody tells when it changes, and whom it names
    /// may be dead by then.
    pub heard_lifetime: Duration,
    /// Between exchanges of coordinators, when something changed.
    pub share_every: Duration,
    /// Coordinators are asked again after this when little is known of a stream.
    pub ask_coordinators_every: Duration,
    /// A question to the coordinators ends after this.
    pub find_deadline: Duration,
    /// A complaint about a parent weighs half after this, and is forgotten after five times.
    pub complaint_half_life: Duration,
    /// Full complaints after which a node is left out of answers.
    pub complaints_enough: u32,
    /// The first time it is left out for this long, then twice, and so on.
    pub delist: Duration,
    /// Candidates named for each stripe, beside the source.
    pub candidates_per_stripe: usize,

    /// Ticket requests a second that one node may make.
    pub ticket_rate: u32,
    /// Directory requests a second that one node may make.
    pub dir_rate: u32,
    /// Pages and comparisons of directories a second that one node may ask for: 5,000 streams
    /// within 5 s.
    pub list_rate: u32,
    /// Directory requests a second that a guest may make, and as many pages.
    pub guest_rate: u32,
    /// Most nodes remembered.
    pub nodes_max: usize,
    /// Most tickets given.
    pub tickets_max: usize,
    /// First pause before an unreachable node is tried again; doubled up to `suspect_max`.
    pub suspect_min: Duration,
    /// Longest such pause.
    pub suspect_max: Duration,
    /// A banned node is refused for this long.
    pub ban: Duration,
    /// One strike decays in this time.
    pub strike_decay: Duration,
    /// Strikes that make a ban.
    pub strikes_max: u32,
}

impl Default for Tuning {
    #[expect(clippy::too_many_lines, reason = "a line for each constant")]
    fn default() -> Self {
        Self {
            uplink_unmeasured: Bitrate::from_mbps(10),
            measured_share_percent: 85,
            slot_share_percent: 90,
            chunk_overhead_bytes: 111,
            feed_overhead_percent: 2,
            member_lease: Duration::from_secs(15),
            renew_every: Duration::from_secs(5),
            meet_every: Duration::from_secs(3),
            backup_lease: Duration::from_secs(45),
            backup_renew_every: Duration::from_secs(15),
            move_look: Duration::from_secs(30),
            move_pause: Duration::from_secs(300),
            move_gain: Duration::from_millis(30),
            move_gain_percent: 33,
            supernode_uplink: Bitrate::from_mbps(2),
            demote_after: Duration::from_secs(120),
            demote_members_percent: 10,
            demote_grace: Duration::from_secs(5),
            promote_again_after: Duration::from_secs(300),
            dir_timeout: Duration::from_secs(2),
            found_after: Duration::from_millis(1_500),
            bootstrap_patience: Duration::from_secs(6),
            measure_wait: Duration::from_millis(700),
            search_every: Duration::from_secs(5),
            lookup_every: Duration::from_secs(30),
            neighbours_max: 8,
            announcement_lifetime: Duration::from_secs(180),
            announce_every: Duration::from_secs(60),
            replay_after: Duration::from_secs(30),
            clock_skew: Duration::from_secs(30),
            announcement_lifetime_max: Duration::from_secs(3_600),
            streams_max: 5_000,
            status_every: Duration::from_secs(5),
            status_pause: Duration::from_millis(500),
            status_lifetime: Duration::from_secs(15),
            backup_status_every: Duration::from_secs(30),
            spoken_for: Duration::from_millis(1_500),
            backup_status_lifetime: Duration::from_secs(90),
            lease: Duration::from_secs(10),
            reservation: Duration::from_secs(3),
            reask_every: Duration::from_secs(3),
            ask_timeout: Duration::from_millis(1_500),
            open_timeout: Duration::from_millis(2_000),
            hedge: Duration::from_millis(150),
            hedge_failover: Duration::from_millis(100),
            asks_parallel_max: 3,
            asks_per_round_max: 24,
            round_deadline: Duration::from_secs(3),
            retry_min: Duration::from_millis(250),
            retry_max: Duration::from_secs(1),
            refresh_every: Duration::from_secs(5),
            candidate_lifetime: Duration::from_secs(30),
            candidates_max: 64,
            soft_keep: Duration::from_millis(1_200),
            deliver_timeout: Duration::from_millis(900),
            withheld_after: Duration::from_millis(600),
            starved_after: Duration::from_secs(3),
            standby_after: Duration::from_secs(1),
            standby_pause: Duration::from_millis(500),
            standby_pause_max: Duration::from_secs(6),
            stale_after: Duration::from_secs(3),
            handover_grace: Duration::from_secs(1),
            revoke_grace: Duration::from_millis(700),
            displace_grace: Duration::from_secs(2),
            settle_time: Duration::from_millis(500),
            displace_patience: Duration::from_millis(250),
            room_kept: Duration::from_secs(3),
            child_silence: Duration::from_millis(2_200),
            promises_per_free_slot: 4,
            source_lost_after: Duration::from_secs(5),
            source_wait: Duration::from_secs(30),
            leave_max: Duration::from_secs(2),
            summary_every: Duration::from_secs(5),
            summary_lifetime: Duration::from_secs(45),
            heard_lifetime: Duration::from_secs(10),
            share_every: Duration::from_secs(1),
            ask_coordinators_every: Duration::from_secs(5),
            find_deadline: Duration::from_secs(3),
            complaint_half_life: Duration::from_secs(60),
            complaints_enough: 3,
            delist: Duration::from_secs(120),
            candidates_per_stripe: 6,
            ticket_rate: 20,
            dir_rate: 20,
            list_rate: 64,
            guest_rate: 2,
            nodes_max: 2_000,
            tickets_max: 4_096,
            suspect_min: Duration::from_secs(1),
            suspect_max: Duration::from_secs(60),
            ban: Duration::from_secs(600),
            strike_decay: Duration::from_secs(300),
            strikes_max: 3,
        }
    }
}
