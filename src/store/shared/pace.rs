//! When a commit leaves, and with how many of the changes that wait.
//!
//! What a commit costs the server hardly depends on how much is in it, so that few and large ones
//! leave it more time. But callers whose changes are answered together also ask together again: all
//! of them as one group leave the server idle while this process works for them, and this process
//! while the server does. As two groups, one is here while the other is there.

use std::time::Duration;

use tokio::time::Instant;

use super::queue::MAX_GROUPS;

/// While a commit is under way, no group waits for others longer than this: a commit that hangs must
/// hold up nothing but itself.
const GATHER: Duration = Duration::from_millis(5);
/// Where a commit takes long by waiting, for a network or a disk, this many groups wait for no other.
pub(super) const ENOUGH: usize = 32;
/// The least that is worth a commit of its own while others are here that could go with it.
const HALF: usize = 24;
/// What a server works for a row (measured with PostgreSQL; Redis needs less). What a commit takes
/// beyond that, it waits.
const WORK: Duration = Duration::from_micros(13);
/// A commit that waits longer than this takes long by waiting. On the gateway's own machine none of
/// [`COUNTED`] in a row does.
const LONG: Duration = Duration::from_micros(600);
/// Of how many commits the shortest wait counts: one that meets others, or a busy machine, takes
/// longer without any network or disk.
const COUNTED: usize = 16;

/// What a lane that is free does with the groups that wait.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Takes so many of them to the server.
    Go(usize),
    /// Looks again then, or when there is more.
    Wait(Instant),
}

/// What is known of the server's pace.
#[derive(Debug)]
pub(super) struct Pace {
    /// Whether this process can work while the server does, if both are on one machine.
    overlaps: bool,
    /// What the last commits waited beyond their work.
    waits: [Duration; COUNTED],
    next: usize,
}

impl Pace {
    /// For a process that may use so many cores.
    pub(super) fn new(cores: usize) -> Self {
        Self { overlaps: cores > 1, waits: [Duration::ZERO; COUNTED], next: 0 }
    }

    /// A commit of so many rows took this long.
    pub(super) fn took(&mut self, rows: usize, time: Duration) {
        let work = WORK * u32::try_from(rows).unwrap_or(u32::MAX);
        self.waits[self.next] = time.saturating_sub(work);
        self.next = (self.next + 1) % COUNTED;
    }

    /// Whether so many groups can go without a look at who is about to ask as well.
    pub(super) fn suffices(&self, waiting: usize) -> bool {
        waiting >= if self.overlaps { HALF } else { MAX_GROUPS }
    }

    /// What to do with so many groups, the first of which came at `first`, while `commits` are
    /// under way.
    pub(super) fn step(
        &self,
        waiting: usize,
        first: Instant,
        commits: usize,
        now: Instant,
    ) -> Step {
        let by_waiting = self.waits.iter().all(|wait| *wait > LONG);
        // Beside a server that works, this process would only take its turns away.
        let works = self.overlaps && !by_waiting;
        let enough = if works { MAX_GROUPS } else { ENOUGH };
        let gathered = first + GATHER;
        if commits > 0 && waiting < enough && now < gathered {
            return Step::Wait(gathered);
        }
        let apart = works && commits == 0 && waiting >= 2 * HALF;
        Step::Go(if apart { waiting.div_ceil(2) } else { waiting })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(commits: usize, cores: usize, rows: usize, micros: u64) -> Pace {
        let mut pace = Pace::new(cores);
        (0..commits).for_each(|_| pace.took(rows, Duration::from_micros(micros)));
        pace
    }

    fn step(pace: &Pace, waiting: usize, commits: usize) -> Option<usize> {
        let now = Instant::now();
        match pace.step(waiting, now, commits, now) {
            Step::Go(groups) => Some(groups),
            Step::Wait(until) => {
                assert_eq!(until, now + GATHER);
                let late = pace.step(waiting, now, commits, until);
                assert_eq!(late, Step::Go(waiting), "no longer than that");
                None
            }
        }
    }

    #[test]
    fn alone_a_group_waits_for_no_other() {
        for cores in [1, 2, 8] {
            for slow in [0, COUNTED] {
                assert_eq!(step(&after(slow, cores, 1, 9000), 1, 0), Some(1));
            }
        }
    }

    #[test]
    fn many_go_as_two_groups_where_both_sides_can_work() {
        let pace = after(COUNTED, 2, 32, 900);
        assert_eq!(step(&pace, 2 * HALF - 1, 0), Some(2 * HALF - 1));
        assert_eq!(step(&pace, 2 * HALF, 0), Some(HALF));
        assert_eq!(step(&pace, 65, 0), Some(33));
        assert!(pace.suffices(HALF) && !pace.suffices(HALF - 1));
        // The second waits for the first, unless there is more than one commit takes.
        assert_eq!(step(&pace, MAX_GROUPS - 1, 1), None);
        assert_eq!(step(&pace, MAX_GROUPS, 1), Some(MAX_GROUPS));
        // On one core they could only take turns.
        let pace = after(COUNTED, 1, 32, 900);
        assert_eq!(step(&pace, 64, 0), Some(64));
        assert!(!pace.suffices(64));
    }

    #[test]
    fn where_a_commit_takes_long_by_waiting_the_next_leaves_beside_it() {
        let pace = after(COUNTED, 2, 32, 3000);
        assert_eq!(step(&pace, 64, 0), Some(64));
        assert_eq!(step(&pace, ENOUGH - 1, 1), None);
        assert_eq!(step(&pace, ENOUGH, 1), Some(ENOUGH));
        // A long commit with much in it works, and so does one that was slow only now and then.
        assert_eq!(step(&after(COUNTED, 2, 200, 3000), ENOUGH, 1), None);
        let mut pace = after(COUNTED, 2, 32, 3000);
        pace.took(32, Duration::from_micros(900));
        assert_eq!(step(&pace, ENOUGH, 1), None);
        // It does not stay so.
        (1..COUNTED).for_each(|_| pace.took(32, Duration::from_micros(3000)));
        assert_eq!(step(&pace, ENOUGH, 1), None);
        pace.took(32, Duration::from_micros(3000));
        assert_eq!(step(&pace, ENOUGH, 1), Some(ENOUGH));
    }
}
