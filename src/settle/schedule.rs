//! Times of the steps about one record: pauses grow from step to step, with jitter.

use std::time::Duration;

use crate::clock::{self, Timestamp};
use crate::idempotency::Record;
use crate::idempotency::settling::Schedule;

/// The occasion of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Occasion {
    /// The schedule of the record.
    Schedule,
    /// A client repeats the request.
    Retry,
}

/// The longest pause, unless `every` is longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// Growth of a pause and the least share of it that jitter leaves, in percent: together a pause is
/// at most twice the pause before.
const GROWTH: u32 = 180;
const LEAST_SHARE: u64 = 90;

/// The time of the next step: a client's retry does not wait for the schedule, but for the age of
/// the call and for `every` since the last step.
pub(super) fn earliest(
    schedule: &Schedule,
    first: Timestamp,
    every: Duration,
    occasion: Occasion,
) -> Timestamp {
    let spaced = schedule.last.map_or(first, |last| first.max(last.saturating_add(every)));
    match (occasion, schedule.next) {
        (Occasion::Schedule, Some(next)) if !schedule.running => spaced.max(next),
        (Occasion::Schedule | Occasion::Retry, _) => spaced,
    }
}

/// The schedule while a step runs.
pub(super) fn begun(schedule: Schedule, now: Timestamp, lease: Duration) -> Schedule {
    Schedule {
        running: true,
        last: Some(now),
        next: Some(now.saturating_add(lease)),
        tries: schedule.tries.saturating_add(1),
        ..schedule
    }
}

/// The schedule after a step without a decision.
pub(super) fn paused(
    schedule: Schedule,
    record: &Record,
    every: Duration,
    now: Timestamp,
) -> Schedule {
    let pause = pause(schedule.tries, &record.attempt, every);
    Schedule { running: false, next: Some(now.saturating_add(pause)), ..schedule }
}

/// The schedule after a step without a usable answer: an outage must not age the record.
pub(super) fn failed(
    schedule: Schedule,
    record: &Record,
    every: Duration,
    now: Timestamp,
) -> Schedule {
    let tries = schedule.tries.saturating_sub(1);
    let pause = pause(tries.max(1), &record.attempt, every);
    Schedule { running: false, tries, next: Some(now.saturating_add(pause)), ..schedule }
}

/// The pause after so many steps. Records differ, so that the records of an outage do not all ask
/// at once.
fn pause(tries: u32, attempt: &[u8; 16], every: Duration) -> Duration {
    let longest = LONGEST_PAUSE.max(every);
    let mut pause = every;
    for _ in 1..tries.min(64) {
        pause = (pause * GROWTH / 100).min(longest);
    }
    let seed = u64::from(attempt[tries as usize % attempt.len()]);
    let share = LEAST_SHARE + seed % (100 - LEAST_SHARE + 1);
    let jittered = clock::millis(pause).saturating_mul(share) / 100;
    Duration::from_millis(jittered).max(every)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_at_most_twofold_up_to_an_hour() {
        let every = Duration::from_secs(30);
        for attempt in
            [[0; 16], [255; 16], [7; 16], std::array::from_fn(|at| (at as u8).wrapping_mul(37))]
        {
            let mut last = every;
            for tries in 1..40 {
                let next = pause(tries, &attempt, every);
                assert!(next >= every && next <= LONGEST_PAUSE, "{tries}: {next:?}");
                assert!(next <= last * 2, "{tries}: {last:?}, then {next:?}");
                last = next;
            }
            assert!(last >= LONGEST_PAUSE * 9 / 10, "{last:?}");
        }
        let day = Duration::from_secs(86_400);
        assert_eq!(pause(9, &[9; 16], day), day, "a longer pause stays");
    }
}
