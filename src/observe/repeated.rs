//! Conditions that last or recur, such as a store that is away: the first occurrence is logged at
//! once, further ones are counted and told once a minute.
//!
//! A condition is a static of the code that meets it:
//!
//! ```text
//! static NO_ACCEPT: Repeated = Repeated::new("accepting a connection failed");
//! if let Some(times) = NO_ACCEPT.occur() {
//!     tracing::warn!(%error, times, "accepting a connection failed");
//! }
//! ```
//!
//! An event that names a record is no condition: it is logged each time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock;

/// Time between two lines about one condition.
pub(crate) const INTERVAL: Duration = Duration::from_secs(60);

/// The conditions that have occurred in this process.
static OCCURRED: Mutex<Vec<&'static Repeated>> = Mutex::new(Vec::new());

/// A condition, and the count of its occurrences since the last line.
#[derive(Debug)]
pub(crate) struct Repeated {
    /// The condition in words, for the line about the rest.
    what: &'static str,
    occurred: AtomicBool,
    /// The earliest uptime, in milliseconds, for the next line.
    next: AtomicU64,
    /// Occurrences without a line.
    count: AtomicU64,
}

impl Repeated {
    pub(crate) const fn new(what: &'static str) -> Self {
        Self {
            what,
            occurred: AtomicBool::new(false),
            next: AtomicU64::new(0),
            count: AtomicU64::new(0),
        }
    }

    /// Counts an occurrence. Returns the number of occurrences since the last line, this one
    /// included, when the caller is to write a line.
    pub(crate) fn occur(&'static self) -> Option<u64> {
        if !self.occurred.load(Ordering::Relaxed) && !self.occurred.swap(true, Ordering::Relaxed) {
            OCCURRED.lock().unwrap_or_else(PoisonError::into_inner).push(self);
        }
        self.occur_at(clock::uptime())
    }

    fn occur_at(&self, uptime: Duration) -> Option<u64> {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.due(uptime)
    }

    /// The occurrences without a line, at least one, when the time for a line has come.
    fn due(&self, uptime: Duration) -> Option<u64> {
        let (now, next) = (clock::millis(uptime), self.next.load(Ordering::Relaxed));
        let after = now.saturating_add(clock::millis(INTERVAL));
        // Of several threads a single one writes the line.
        let is_due = now >= next
            && self.count.load(Ordering::Relaxed) > 0
            && self
                .next
                .compare_exchange(next, after, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        is_due.then(|| self.count.swap(0, Ordering::Relaxed)).filter(|count| *count > 0)
    }
}

/// Logs the occurrences that have had no line for a minute. Called once in a while: a condition
/// that has ended would otherwise keep its last count to itself.
pub(crate) fn log_counts() {
    log_due(clock::uptime());
}

/// Logs all occurrences that have had no line, at the end of the process.
pub(crate) fn log_rest() {
    log_due(clock::uptime() + INTERVAL);
}

fn log_due(uptime: Duration) {
    let occurred = OCCURRED.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for condition in occurred {
        if let Some(times) = condition.due(uptime) {
            tracing::warn!(times, condition = condition.what, "a condition was repeated");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_occurrence_is_due_at_once_and_the_others_once_a_minute() {
        let condition = Repeated::new("a test");
        let at = |millis| condition.occur_at(Duration::from_millis(millis));
        assert_eq!(at(5), Some(1));
        for millis in 6..1006 {
            assert_eq!(at(millis), None);
        }
        assert_eq!(at(60_004), None);
        assert_eq!(at(60_005), Some(1002));
        assert_eq!(at(60_006), None);
        // After the end of the condition the rest is told once.
        assert_eq!(condition.due(Duration::from_secs(119)), None);
        assert_eq!(condition.due(Duration::from_secs(121)), Some(1));
        assert_eq!(condition.due(Duration::from_secs(999)), None);
        assert_eq!(at(2_000_000), Some(1));
    }

    #[test]
    fn of_many_threads_one_writes_the_line_and_none_is_lost() {
        static CONDITION: Repeated = Repeated::new("a test of threads");
        let lines: u64 = std::thread::scope(|scope| {
            let work = || (0..1000).filter_map(|_| CONDITION.occur()).sum::<u64>();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        let rest = CONDITION.due(clock::uptime() + INTERVAL).unwrap_or(0);
        assert_eq!(lines + rest, 4000);
    }
}
