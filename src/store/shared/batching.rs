//! Size and timing of group commits.
//!
//! A commit costs the server about the same whatever its size, so few large commits leave the
//! server more time. But callers answered together also send their next requests together: with
//! every caller in one group, the server is idle while this process works for the callers, and the
//! reverse. So many callers are split into two groups: the server commits a group while this
//! process works for the callers of the second.
//!
//! # Measured constants
//!
//! [`REFERENCE_HALF`], [`REFERENCE_CONCURRENT`], [`REFERENCE_ROW_COST`] and [`REFERENCE_LONG_WAIT`]
//! come from a single machine: 2 shared AMD EPYC cores, with PostgreSQL 15 on the same machine
//! (`docs/development/performance-notebook.md`, "Why two groups alternate"). To measure again
//! elsewhere:
//!
//! 1. Row cost: the backend's CPU time (`/proc/PID/schedstat`) for statements of 1, 32 and 128
//!    changes, some hundred of each in turn, with `fsync` off. The slope is the cost of a row.
//! 2. Long wait: the time of a commit less the cost of its rows, with the server near and idle.
//!    The constant belongs well above, and below the wait for a slower disk or a network.
//! 3. Group sizes: rates of builds with values around the present ones, in interleaved rounds of
//!    `bench/run --stores-only`, over 64 and 256 connections; then with a delay of 0.3 to 1 ms
//!    after each `fdatasync`, and before each reply.

use std::time::Duration;

use tokio::time::Instant;

/// Limit of groups in one commit.
const MAX_GROUPS: usize = 256;
/// Longest time that a group waits for company while a commit is in flight: a commit that hangs
/// must not delay the groups behind it any longer.
const MAX_GATHER: Duration = Duration::from_millis(5);
/// Number of groups that justify a concurrent commit, where commits run concurrently.
const REFERENCE_CONCURRENT: usize = 32;
/// Smallest commit while more groups are queued.
const REFERENCE_HALF: usize = 24;
/// Server time per changed row: 9 to 12 µs measured with PostgreSQL, plus the row's share of the
/// commit. Time of a commit beyond its rows' cost counts as waiting. A cheaper server across a
/// network hides part of its wait in large commits: commits then alternate, and carry more than one
/// core of the gateway can supply.
const REFERENCE_ROW_COST: Duration = Duration::from_micros(13);
/// Wait beyond which a commit counts as waiting rather than working. On the gateway's own machine
/// [`WINDOW`] such commits in a row are rare. Concurrent commits can share one wait for the disk,
/// and the later commit then looks short.
const REFERENCE_LONG_WAIT: Duration = Duration::from_micros(600);
/// Number of recent commits whose shortest wait counts: a commit that meets a lock or a busy
/// machine takes longer without a network or a slow disk.
const WINDOW: usize = 16;

/// Decision about the queued groups.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CommitDecision {
    /// Commit this number of groups now.
    Commit(usize),
    /// Decide again at this time, or when further groups arrive.
    WaitUntil(Instant),
}

/// Chooses the size of commits from the measured speed of the server.
#[derive(Debug)]
pub(super) struct BatchSizer {
    /// True if this process can work while a server on its machine does. With one core commits
    /// never alternate, wherever the server is.
    overlaps: bool,
    /// Waits of recent commits beyond their rows' cost.
    waits: [Duration; WINDOW],
    /// Index of the next wait to overwrite.
    next_wait: usize,
}

impl BatchSizer {
    /// A sizer for a process on `cores` cores.
    pub(super) fn new(cores: usize) -> Self {
        Self { overlaps: cores > 1, waits: [Duration::ZERO; WINDOW], next_wait: 0 }
    }

    /// Records the duration of a commit with `rows` changes.
    pub(super) fn record(&mut self, rows: usize, duration: Duration) {
        let cost = REFERENCE_ROW_COST * u32::try_from(rows).unwrap_or(u32::MAX);
        self.waits[self.next_wait] = duration.saturating_sub(cost);
        self.next_wait = (self.next_wait + 1) % WINDOW;
    }

    /// True if `queued` groups can leave without first letting ready tasks queue theirs. Also
    /// across a network, where the later groups follow in a concurrent commit.
    pub(super) fn suffices(&self, queued: usize) -> bool {
        queued >= if self.overlaps { REFERENCE_HALF } else { MAX_GROUPS }
    }

    /// Number of queued groups that leave even while a commit is in flight.
    pub(super) fn concurrent_size(&self) -> usize {
        if self.alternates() { MAX_GROUPS } else { REFERENCE_CONCURRENT }
    }

    /// Decides about `queued` groups, the first queued at `first`, with `in_flight` commits; the
    /// previous commit had `previous` groups.
    pub(super) fn decide(
        &self,
        (queued, first): (usize, Instant),
        in_flight: usize,
        previous: usize,
        now: Instant,
    ) -> CommitDecision {
        let gathered = first + MAX_GATHER;
        if in_flight > 0 && queued < self.concurrent_size() && now < gathered {
            return CommitDecision::WaitUntil(gathered);
        }
        // A queue about as long as the previous commit is one of two halves already.
        let both_halves = queued >= 2 * REFERENCE_HALF && 2 * queued > 3 * previous;
        let split = both_halves && in_flight == 0 && self.alternates();
        CommitDecision::Commit(if split { queued.div_ceil(2) } else { queued }.min(MAX_GROUPS))
    }

    /// True if commits alternate, without concurrency: where a commit takes long by working, a
    /// concurrent commit would only divide the server's cores.
    fn alternates(&self) -> bool {
        self.overlaps && self.waits.iter().any(|wait| *wait <= REFERENCE_LONG_WAIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(commits: usize, cores: usize, rows: usize, micros: u64) -> BatchSizer {
        let mut sizer = BatchSizer::new(cores);
        (0..commits).for_each(|_| sizer.record(rows, Duration::from_micros(micros)));
        sizer
    }

    /// Size of the next commit; `None` if the groups wait.
    fn next(sizer: &BatchSizer, queued: usize, in_flight: usize, previous: usize) -> Option<usize> {
        let now = Instant::now();
        match sizer.decide((queued, now), in_flight, previous, now) {
            CommitDecision::Commit(groups) => Some(groups),
            CommitDecision::WaitUntil(until) => {
                assert_eq!(until, now + MAX_GATHER);
                let late = sizer.decide((queued, now), in_flight, previous, until);
                assert_eq!(late, CommitDecision::Commit(queued), "the wait is bounded");
                None
            }
        }
    }

    #[test]
    fn a_single_group_never_waits() {
        for cores in [1, 2, 8] {
            for slow in [0, WINDOW] {
                assert_eq!(next(&after(slow, cores, 1, 9000), 1, 0, 1), Some(1));
            }
        }
    }

    #[test]
    fn many_groups_leave_as_two_commits_where_both_sides_can_work() {
        const HALF: usize = REFERENCE_HALF;
        let sizer = after(WINDOW, 2, 32, 900);
        assert_eq!(next(&sizer, 2 * HALF - 1, 0, 1), Some(2 * HALF - 1));
        assert_eq!(next(&sizer, 2 * HALF, 0, 1), Some(HALF));
        assert_eq!(next(&sizer, 65, 0, 1), Some(33));
        assert!(sizer.suffices(HALF) && !sizer.suffices(HALF - 1));
        // The second commit waits for the first, unless the queue exceeds the limit.
        assert_eq!(next(&sizer, MAX_GROUPS - 1, 1, 64), None);
        assert_eq!(next(&sizer, MAX_GROUPS, 1, 64), Some(MAX_GROUPS));
        assert_eq!(next(&sizer, 3 * MAX_GROUPS, 0, 1), Some(MAX_GROUPS));
        // On one core two commits could only share the core.
        let sizer = after(WINDOW, 1, 32, 900);
        assert_eq!(next(&sizer, 64, 0, 1), Some(64));
        assert!(!sizer.suffices(64));
    }

    #[test]
    fn two_commits_stay_two() {
        let sizer = after(WINDOW, 2, 64, 1200);
        for callers in [48, 64, 72, 128, 200, 256, 400] {
            let mut previous = 1;
            let mut in_flight = next(&sizer, callers, 0, previous).unwrap();
            for _ in 0..40 {
                // One commit is back, and its callers have not queued yet; then they have.
                previous = in_flight;
                in_flight = next(&sizer, callers - previous, 0, previous).unwrap();
                assert_eq!(next(&sizer, callers - in_flight, 1, previous), None);
            }
            assert!(in_flight.abs_diff(callers / 2) <= callers / 8, "{callers}: {in_flight}");
        }
    }

    #[test]
    fn commits_that_wait_long_run_concurrently() {
        const CONCURRENT: usize = REFERENCE_CONCURRENT;
        let sizer = after(WINDOW, 2, 32, 3000);
        assert_eq!(next(&sizer, 64, 0, 1), Some(64));
        assert_eq!(next(&sizer, CONCURRENT - 1, 1, 64), None);
        assert_eq!(next(&sizer, CONCURRENT, 1, 64), Some(CONCURRENT));
        // A long commit with many rows works, and so does a server that was slow a few times.
        assert_eq!(next(&after(WINDOW, 2, 200, 3000), CONCURRENT, 1, 64), None);
        let mut sizer = after(WINDOW, 2, 32, 3000);
        sizer.record(32, Duration::from_micros(900));
        assert_eq!(next(&sizer, CONCURRENT, 1, 64), None);
        // One short commit counts for a window.
        (1..WINDOW).for_each(|_| sizer.record(32, Duration::from_micros(3000)));
        assert_eq!(next(&sizer, CONCURRENT, 1, 64), None);
        sizer.record(32, Duration::from_micros(3000));
        assert_eq!(next(&sizer, CONCURRENT, 1, 64), Some(CONCURRENT));
    }
}
