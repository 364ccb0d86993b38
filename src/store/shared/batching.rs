//! When a commit leaves, and with how many of the changes that wait.
//!
//! What a commit costs the server hardly depends on how much is in it, so that few and large ones
//! leave it more time. But callers whose changes are answered together also ask together again: all
//! of them as one group leave the server idle while this process works for them, and this process
//! while the server does. As two groups, one is here while the other is there.

use std::time::Duration;

use tokio::time::Instant;

/// Groups of one commit.
const MOST: usize = 256;
/// While a commit is under way, no group waits for others longer than this: a commit that hangs must
/// hold up nothing but itself.
const GATHER: Duration = Duration::from_millis(5);
/// Where groups do not take turns, another commit leaves beside those under way with this many.
const ENOUGH: usize = 32;
/// The least that is worth a commit of its own while others are here that could go with it.
const HALF: usize = 24;
/// What a server works for a row: 9 to 12 µs measured with PostgreSQL, and what belongs to the
/// commit. What a commit takes beyond that, it waits. A server that is cheaper, and not near, hides
/// some of its wait while commits are large: then they go one at a time and carry more than one core
/// of the gateway can bring.
const WORK: Duration = Duration::from_micros(13);
/// A commit that waits longer than this takes long by waiting. On the gateway's own machine it is
/// seldom that [`COUNTED`] in a row do. Commits beside each other can share a wait for the disk, and
/// the one that came later then looks short.
const LONG: Duration = Duration::from_micros(600);
/// Of how many commits the shortest wait counts: one that meets others, or a busy machine, takes
/// longer without any network or disk.
const COUNTED: usize = 16;

/// What a lane that is free does with the groups that wait.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Takes so many of them to the server.
    Go(usize),
    /// Looks again then, or when there is more.
    Wait(Instant),
}

/// What is known of the server's pace.
#[derive(Debug)]
pub(super) struct Pace {
    /// Whether this process can work while a server on its machine does. With one core it never
    /// takes turns, wherever the server is.
    overlaps: bool,
    /// What the last commits waited beyond their work.
    waits: [Duration; COUNTED],
    /// Where the next one is put down.
    at: usize,
}

impl Pace {
    /// For a process that may use so many cores.
    pub(super) fn new(cores: usize) -> Self {
        Self { overlaps: cores > 1, waits: [Duration::ZERO; COUNTED], at: 0 }
    }

    /// A commit of so many rows took this long.
    pub(super) fn took(&mut self, rows: usize, time: Duration) {
        let work = WORK * u32::try_from(rows).unwrap_or(u32::MAX);
        self.waits[self.at] = time.saturating_sub(work);
        self.at = (self.at + 1) % COUNTED;
    }

    /// Whether so many groups can go without a look at who is about to ask as well. Across a network
    /// too: there the rest follows beside them.
    pub(super) fn suffices(&self, waiting: usize) -> bool {
        waiting >= if self.overlaps { HALF } else { MOST }
    }

    /// How many groups wait for no other while a commit is under way.
    pub(super) fn enough(&self) -> usize {
        if self.takes_turns() { MOST } else { ENOUGH }
    }

    /// What to do with so many groups, the first of which came at `first`, while `commits` are
    /// under way. The commit that left last had `last` groups.
    pub(super) fn next(
        &self,
        (waiting, first): (usize, Instant),
        commits: usize,
        last: usize,
        now: Instant,
    ) -> Next {
        let gathered = first + GATHER;
        if commits > 0 && waiting < self.enough() && now < gathered {
            return Next::Wait(gathered);
        }
        // What is about as large as the group that has just come back is the other half already.
        let both = waiting >= 2 * HALF && 2 * waiting > 3 * last;
        let apart = both && commits == 0 && self.takes_turns();
        Next::Go(if apart { waiting.div_ceil(2) } else { waiting }.min(MOST))
    }

    /// Whether one group waits until the other is back: where commits take long by working, and a
    /// second one beside them would only divide the server's cores.
    fn takes_turns(&self) -> bool {
        self.overlaps && self.waits.iter().any(|wait| *wait <= LONG)
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

    /// How many go; `None`: they wait.
    fn next(pace: &Pace, waiting: usize, commits: usize, last: usize) -> Option<usize> {
        let now = Instant::now();
        match pace.next((waiting, now), commits, last, now) {
            Next::Go(groups) => Some(groups),
            Next::Wait(until) => {
                assert_eq!(until, now + GATHER);
                let late = pace.next((waiting, now), commits, last, until);
                assert_eq!(late, Next::Go(waiting), "no longer than that");
                None
            }
        }
    }

    #[test]
    fn alone_a_group_waits_for_no_other() {
        for cores in [1, 2, 8] {
            for slow in [0, COUNTED] {
                assert_eq!(next(&after(slow, cores, 1, 9000), 1, 0, 1), Some(1));
            }
        }
    }

    #[test]
    fn many_go_as_two_groups_where_both_sides_can_work() {
        let pace = after(COUNTED, 2, 32, 900);
        assert_eq!(next(&pace, 2 * HALF - 1, 0, 1), Some(2 * HALF - 1));
        assert_eq!(next(&pace, 2 * HALF, 0, 1), Some(HALF));
        assert_eq!(next(&pace, 65, 0, 1), Some(33));
        assert!(pace.suffices(HALF) && !pace.suffices(HALF - 1));
        // The second waits for the first, unless there is more than one commit takes.
        assert_eq!(next(&pace, MOST - 1, 1, 64), None);
        assert_eq!(next(&pace, MOST, 1, 64), Some(MOST));
        assert_eq!(next(&pace, 3 * MOST, 0, 1), Some(MOST));
        // On one core they could only share it.
        let pace = after(COUNTED, 1, 32, 900);
        assert_eq!(next(&pace, 64, 0, 1), Some(64));
        assert!(!pace.suffices(64));
    }

    #[test]
    fn two_groups_stay_two() {
        let pace = after(COUNTED, 2, 64, 1200);
        for callers in [48, 64, 72, 128, 200, 256, 400] {
            let mut last = 1;
            let mut under_way = next(&pace, callers, 0, last).unwrap();
            for _ in 0..40 {
                // One is back, and its callers have not asked again; then they have.
                last = under_way;
                under_way = next(&pace, callers - last, 0, last).unwrap();
                assert_eq!(next(&pace, callers - under_way, 1, last), None);
            }
            assert!(under_way.abs_diff(callers / 2) <= callers / 8, "{callers}: {under_way}");
        }
    }

    #[test]
    fn where_a_commit_takes_long_by_waiting_the_next_leaves_beside_it() {
        let pace = after(COUNTED, 2, 32, 3000);
        assert_eq!(next(&pace, 64, 0, 1), Some(64));
        assert_eq!(next(&pace, ENOUGH - 1, 1, 64), None);
        assert_eq!(next(&pace, ENOUGH, 1, 64), Some(ENOUGH));
        // A long commit with much in it works, and so does one that was slow only now and then.
        assert_eq!(next(&after(COUNTED, 2, 200, 3000), ENOUGH, 1, 64), None);
        let mut pace = after(COUNTED, 2, 32, 3000);
        pace.took(32, Duration::from_micros(900));
        assert_eq!(next(&pace, ENOUGH, 1, 64), None);
        // It does not stay so.
        (1..COUNTED).for_each(|_| pace.took(32, Duration::from_micros(3000)));
        assert_eq!(next(&pace, ENOUGH, 1, 64), None);
        pace.took(32, Duration::from_micros(3000));
        assert_eq!(next(&pace, ENOUGH, 1, 64), Some(ENOUGH));
    }
}
