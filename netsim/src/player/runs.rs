//! A viewer's figures where media are intervals.
//!
//! Owns the algebra: which chunks that the source cut lie in which interval, and when they were
//! there. Does not own where the intervals come from (see [`crate::intervals`]).

use astral_core::ids::Stripe;

use super::{LAGS_US, Moment, Player};
use crate::{
    intervals::{Late, News},
    tally::Tally,
};

/// Chunks of a stripe, and when they came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Run {
    stripe: Stripe,
    how: How,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum How {
    /// Cut in (from, to], and so old.
    Steady { from: u64, to: u64, age: u64 },
    /// One after the other, out of the past.
    Late(Late),
    /// Cut in (from, to], they never came; without a parent, or with one.
    Missed { orphan: bool, from: u64, to: u64 },
}

impl Player {
    /// The intervals told something.
    pub fn hear(&mut self, news: News, at: Moment<'_>, tally: &mut Tally) {
        if self.ended_at.is_some() {
            return;
        }
        match news {
            News::Steady { stripe, from, to, age } => {
                self.missed_before(stripe, from);
                self.come_until(stripe, to);
                self.runs.push(Run { stripe, how: How::Steady { from, to, age } });
            }
            News::Late(stripe, late) => {
                self.missed_before(stripe, late.from);
                self.come_until(stripe, late.to);
                self.runs.push(Run { stripe, how: How::Late(late) });
            }
            News::Fed(stripe) => {
                let Some(watch) = self.stripes.get_mut(usize::from(stripe)) else { return };
                watch.dry_us = watch.last_at.map(|last| at.now.saturating_sub(last));
                watch.last_at = Some(at.now);
            }
            News::Dry(stripe) => {
                if let Some(watch) = self.stripes.get_mut(usize::from(stripe)) {
                    watch.last_at = Some(at.now);
                }
            }
            News::Picture(from) => {
                if self.playing_at.is_none() {
                    self.playing_at = Some(at.now);
                    self.start = at.cuts.end_before(from);
                    self.start_cut = from;
                    tally.first_picture.add(at.now - self.asked_at);
                }
            }
        }
    }

    /// A stripe flows: its last chunk came just now, or will.
    pub fn flows(&mut self, stripe: Stripe, now: u64) {
        if let Some(watch) = self.stripes.get_mut(usize::from(stripe)) {
            watch.last_at = Some(now);
        }
    }

    /// Works out the figures from all that was heard.
    pub fn sum_up(&mut self, at: Moment<'_>, tally: &mut Tally) {
        let until = self.ended_at.unwrap_or(at.now);
        let runs = std::mem::take(&mut self.runs);
        let Some(playing) = self.playing_at else { return };
        for Run { stripe, how } in runs {
            match how {
                How::Steady { from, to, age } => {
                    let cuts = at.cuts.between(stripe, from.max(self.start_cut), to);
                    tally.arrivals += cuts.len() as u64;
                    let later = cuts.len() - cuts.partition_point(|cut| *cut <= playing);
                    tally.delay.add_many(age, later as u64);
                    self.count_run(cuts, |_| age, until);
                }
                How::Late(late) => {
                    let cuts = at.cuts.between(stripe, late.from.max(self.start_cut), late.to);
                    let age = |cut: u64| arrival(late, cut).saturating_sub(cut);
                    let came = cuts.partition_point(|cut| arrival(late, *cut) <= until);
                    let cuts = &cuts[..came];
                    tally.arrivals += cuts.len() as u64;
                    for cut in cuts {
                        tally.missed.late += u64::from(age(*cut) > LAGS_US[1]);
                        if *cut > playing {
                            tally.delay.add(age(*cut));
                        }
                    }
                    self.count_run(cuts, age, until);
                }
                How::Missed { orphan, from, to } => {
                    let count = at.cuts.between(stripe, from.max(self.start_cut), to).len() as u64;
                    if orphan {
                        tally.missed.orphan += count;
                    } else {
                        tally.missed.upstream += count;
                    }
                }
            }
        }
    }

    fn count_run(&mut self, cuts: &[u64], age: impl Fn(u64) -> u64, until: u64) {
        for (index, lag) in LAGS_US.iter().enumerate() {
            // What was not due yet does not count either way.
            let due = cuts.partition_point(|cut| cut.saturating_add(*lag) <= until);
            let on_time = cuts[..due].iter().filter(|cut| age(**cut) <= *lag).count();
            self.on_time[index] += on_time as u64;
        }
        if let Some((from, to)) = self.window {
            let inside = cuts.iter().filter(|cut| from < **cut && **cut <= to);
            self.in_window += inside.filter(|cut| age(**cut) <= LAGS_US[1]).count() as u64;
        }
    }

    /// What lies between what came last and this never came.
    fn missed_before(&mut self, stripe: Stripe, from: u64) {
        let Some(watch) = self.stripes.get(usize::from(stripe)) else { return };
        if let Some(came) = watch.come_until
            && came < from
        {
            let orphan = !watch.fed || watch.orphan_until > came;
            let how = How::Missed { orphan, from: came, to: from };
            self.runs.push(Run { stripe, how });
        }
    }

    fn come_until(&mut self, stripe: Stripe, to: u64) {
        if let Some(watch) = self.stripes.get_mut(usize::from(stripe)) {
            watch.come_until = watch.come_until.max(Some(to));
        }
    }
}

/// When a chunk of the past arrives.
fn arrival(late: Late, cut: u64) -> u64 {
    let whole = (late.to - late.from).max(1);
    let takes = late.last_at.saturating_sub(late.first_at);
    late.first_at + takes * cut.saturating_sub(late.from) / whole
}
