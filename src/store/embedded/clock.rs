//! The store's clock: stamps that go on where the newest record ended, and a time of expiry that a
//! step of the machine's clock does not change.
//!
//! ```text
//! stamp   the machine's time, or later: never before the newest record of the last process
//! expiry  the stamps' time, less every step forward; a step ends to count when no record is left
//!         from before the step
//! ```
//!
//! A clock is wrong most often where nobody looks: a device without a battery starts in the year
//! 2000, and minutes later the time arrives from the network. Records from before such a step must
//! be kept as long as they would have been without the step, or their keys run again.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use super::layout::ClockState;
use crate::clock::{self, Timestamp, rfc3339};
use crate::idempotency::Record;
use crate::idempotency::retention::ExpiryTime;

const SECOND: i64 = 1000;
const HOUR: i64 = 3600 * SECOND;
const DAY: i64 = 24 * HOUR;

/// Difference up to which two times are equal: clocks are adjusted in small steps all the time.
const TOLERANCE: i64 = SECOND;
/// Distance from the newest record from which on a clock that is ahead may be wrong.
const FAR_AHEAD: i64 = DAY;
/// Time of a process in which nothing is deleted after a start far ahead: long enough for the
/// network to correct the clock.
const QUARANTINE: i64 = HOUR;

/// A look at the machine's clocks, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClockReading {
    /// Time since the epoch.
    wall: i64,
    /// Time since some point in the past, without steps.
    uptime: i64,
}

impl ClockReading {
    fn take() -> Self {
        Self { wall: signed(clock::now().as_millis()), uptime: signed(uptime()) }
    }
}

fn uptime() -> u64 {
    clock::millis(clock::uptime())
}

fn signed(millis: u64) -> i64 {
    // Half of the range each, so that no difference of two times overflows.
    i64::try_from(millis).unwrap_or(i64::MAX).min(i64::MAX / 4)
}

/// The clock of an open store. Times are kept as their difference from the uptime.
#[derive(Debug)]
pub(super) struct StoreClock {
    /// Newest time given.
    newest: AtomicU64,
    /// Least difference of stamps; `None` where the machine's clock is not behind.
    floor: Option<i64>,
    /// Difference of the time of expiry.
    expiry: AtomicI64,
    /// The stamps' difference at the last look.
    seen: AtomicI64,
    /// Uptime of the last step forward, or of the start.
    stepped: AtomicI64,
    /// The machine's clock was behind the newest record, and may be right all the same.
    doubtful: AtomicBool,
    /// Longest retention of a record, tombstone included, in milliseconds.
    longest: AtomicU64,
    /// Uptime until which nothing is deleted.
    quarantine: i64,
}

impl StoreClock {
    /// The clock of a store that was created at `created` and left this state behind.
    pub(super) fn start(state: ClockState, created: Timestamp) -> Self {
        let reading = ClockReading::take();
        let clock = Self::start_at(reading, state, created);
        let newest = rfc3339(state.newest.max(created));
        let now = rfc3339(Timestamp::from_millis(reading.wall.unsigned_abs()));
        if clock.floor.is_some() {
            tracing::warn!(
                clock = now,
                newest,
                "the clock is behind the newest record of the store; time is counted from that \
                 record on until the clock has passed it; set the clock"
            );
        } else if reading.uptime < clock.quarantine {
            tracing::info!(
                clock = now,
                newest,
                "the clock is more than a day after the newest record of the store; nothing is \
                 deleted for an hour, in case the clock is wrong"
            );
        }
        clock
    }

    fn start_at(reading: ClockReading, state: ClockState, created: Timestamp) -> Self {
        let ClockReading { wall, uptime } = reading;
        let newest = state.newest.max(created);
        let behind = wall + TOLERANCE < signed(newest.as_millis());
        let floor = behind.then(|| signed(newest.as_millis()) - uptime);
        let stamp = floor.unwrap_or(wall - uptime);
        // No right clock is before the creation of the store. Any other may be right where the
        // newest record is wrong, and then its time must not expire others.
        let doubtful = behind && wall >= signed(created.as_millis());
        let expiry = if doubtful { wall - uptime } else { stamp - signed(state.lag) };
        let held = signed(state.longest) - signed(state.lag_left);
        let stepped = if state.lag > 0 && !doubtful { uptime - held } else { uptime };
        let ahead = wall > signed(newest.as_millis()) + FAR_AHEAD;
        Self {
            newest: AtomicU64::new(newest.as_millis()),
            floor,
            expiry: AtomicI64::new(expiry),
            seen: AtomicI64::new(stamp),
            stepped: AtomicI64::new(stepped),
            doubtful: AtomicBool::new(doubtful),
            longest: AtomicU64::new(state.longest),
            quarantine: if ahead { uptime + QUARANTINE } else { i64::MIN },
        }
    }

    /// The time for stamps.
    pub(super) fn now(&self) -> Timestamp {
        let now = match self.floor {
            // The usual case: one clock is read instead of two.
            None => clock::now(),
            Some(_) => self.stamp_at(ClockReading::take()),
        };
        self.note(now);
        now
    }

    fn stamp_at(&self, reading: ClockReading) -> Timestamp {
        let difference = self.difference(reading);
        Timestamp::from_millis(u64::try_from(reading.uptime + difference).unwrap_or(0))
    }

    fn difference(&self, reading: ClockReading) -> i64 {
        (reading.wall - reading.uptime).max(self.floor.unwrap_or(i64::MIN))
    }

    fn note(&self, now: Timestamp) {
        // Mostly another thread has noted the same millisecond.
        if self.newest.load(Ordering::Relaxed) < now.as_millis() {
            self.newest.fetch_max(now.as_millis(), Ordering::Relaxed);
        }
    }

    /// The time of expiry.
    pub(super) fn expiry_time(&self) -> ExpiryTime {
        self.expiry_at(ClockReading::take())
    }

    fn expiry_at(&self, reading: ClockReading) -> ExpiryTime {
        let stamp = self.difference(reading);
        let seen = self.seen.load(Ordering::Relaxed);
        if stamp != seen && self.seen.swap(stamp, Ordering::Relaxed) + TOLERANCE < stamp {
            self.stepped.store(reading.uptime, Ordering::Relaxed);
            tracing::warn!(
                seconds = (stamp - seen) / SECOND,
                "the clock was set forward; records from before are kept as long as without that"
            );
        }
        if self.doubtful.load(Ordering::Relaxed)
            && let Some(floor) = self.floor.filter(|floor| reading.wall - reading.uptime >= *floor)
        {
            // The newest record is not in the future, so its time was right.
            self.doubtful.store(false, Ordering::Relaxed);
            self.expiry.fetch_max(floor, Ordering::Relaxed);
        }
        let held = reading.uptime - self.stepped.load(Ordering::Relaxed);
        let longest = signed(self.longest.load(Ordering::Relaxed));
        let expiry = if held > longest {
            // No record is left from before the last step.
            self.expiry.store(stamp, Ordering::Relaxed);
            stamp
        } else {
            // Set back, it goes back: what is written now must not expire early either.
            self.expiry.fetch_min(stamp, Ordering::Relaxed).min(stamp)
        };
        let at = u64::try_from(reading.uptime + expiry).unwrap_or(0);
        let deletes = reading.uptime >= self.quarantine;
        ExpiryTime { at: Timestamp::from_millis(at), deletes }
    }

    /// Notes the retention of a record that is about to be written.
    pub(super) fn observe(&self, record: &Record) {
        let Some(end) = record.end() else { return };
        let period = clock::millis(record.updated.until(end));
        if self.longest.load(Ordering::Relaxed) < period {
            self.longest.fetch_max(period, Ordering::Relaxed);
        }
    }

    /// The state that the next process begins with.
    pub(super) fn state(&self) -> ClockState {
        self.state_at(ClockReading::take())
    }

    fn state_at(&self, reading: ClockReading) -> ClockState {
        let ExpiryTime { at, .. } = self.expiry_at(reading);
        let (stamp, longest) = (self.stamp_at(reading), self.longest.load(Ordering::Relaxed));
        let held = reading.uptime - self.stepped.load(Ordering::Relaxed);
        let left = signed(longest).saturating_sub(held).max(0).unsigned_abs();
        let newest = Timestamp::from_millis(self.newest.load(Ordering::Relaxed));
        let lag = clock::millis(at.until(stamp));
        ClockState { newest, longest, lag, lag_left: if lag > 0 { left } else { 0 } }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::idempotency::retention::Keep;
    use crate::store::samples;

    /// 2026-11-28, and the wrong time at which a clock without a battery starts.
    const RIGHT: i64 = 1_795_824_000_000;
    const RESET: i64 = 946_684_800_000;

    /// A machine: its clocks, and the store's clock of the process that runs on it.
    struct Machine {
        reading: ClockReading,
        created: Timestamp,
        clock: StoreClock,
    }

    impl Machine {
        /// A new store at this time, whose records are kept for an hour in all.
        fn new(wall: i64) -> Self {
            let reading = ClockReading { wall, uptime: 5 * DAY };
            let created = Timestamp::from_millis(wall.unsigned_abs());
            let longest = HOUR.unsigned_abs();
            let state = ClockState { newest: created, longest, lag: 0, lag_left: 0 };
            Self { reading, created, clock: StoreClock::start_at(reading, state, created) }
        }

        fn passes(&mut self, millis: i64) {
            self.reading.wall += millis;
            self.reading.uptime += millis;
        }

        fn set(&mut self, wall: i64) {
            self.reading.wall = wall;
        }

        fn restart(&mut self) {
            let state = self.clock.state_at(self.reading);
            self.clock = StoreClock::start_at(self.reading, state, self.created);
        }

        fn stamp(&self) -> i64 {
            let stamp = self.clock.stamp_at(self.reading);
            self.clock.note(stamp);
            signed(stamp.as_millis())
        }

        fn expires(&self) -> i64 {
            signed(self.clock.expiry_at(self.reading).at.as_millis())
        }
    }

    #[test]
    fn a_step_forward_expires_nothing_early_and_nothing_is_kept_for_ever() {
        let mut machine = Machine::new(RESET);
        let first = machine.stamp();
        machine.passes(SECOND);
        machine.set(RIGHT);
        assert_eq!(machine.stamp(), RIGHT, "new records have the right time");
        assert_eq!(machine.expires(), first + SECOND, "old ones go on as before");
        machine.passes(HOUR - 2 * SECOND);
        assert_eq!(machine.expires(), first + HOUR - SECOND);
        machine.restart();
        assert_eq!(machine.expires(), first + HOUR - SECOND, "also in the next process");
        machine.passes(3 * SECOND);
        assert_eq!(machine.expires(), machine.stamp(), "no record is left from before the step");
        assert_eq!(machine.stamp(), RIGHT + HOUR + SECOND);
    }

    #[test]
    fn a_step_back_expires_nothing_early() {
        let mut machine = Machine::new(RIGHT + 20 * DAY);
        assert_eq!(machine.expires(), RIGHT + 20 * DAY);
        machine.set(RIGHT);
        assert_eq!((machine.stamp(), machine.expires()), (RIGHT, RIGHT));
        machine.passes(SECOND);
        machine.set(RIGHT + 20 * DAY);
        assert_eq!(machine.expires(), RIGHT + SECOND);
    }

    #[test]
    fn a_clock_behind_the_newest_record_counts_on_from_there() {
        let mut machine = Machine::new(RIGHT);
        machine.passes(3 * DAY);
        let last = machine.stamp();
        machine.set(RESET);
        machine.restart();
        // Before the creation of the store: certainly wrong.
        assert_eq!((machine.stamp(), machine.expires()), (last, last));
        machine.passes(SECOND);
        assert_eq!((machine.stamp(), machine.expires()), (last + SECOND, last + SECOND));
        machine.set(last + DAY);
        assert_eq!((machine.stamp(), machine.expires()), (last + DAY, last + SECOND));
    }

    #[test]
    fn a_record_from_the_future_does_not_expire_others() {
        let mut machine = Machine::new(RIGHT);
        machine.passes(SECOND);
        machine.set(RIGHT + 60 * DAY);
        let wrong = machine.stamp();
        machine.set(RIGHT + 2 * SECOND);
        machine.restart();
        assert_eq!(machine.stamp(), wrong, "stamps do not go back");
        assert_eq!(machine.expires(), RIGHT + 2 * SECOND, "the clock may be right");
    }

    #[test]
    fn far_ahead_of_the_newest_record_nothing_is_deleted_for_an_hour() {
        for (away, deletes) in [(DAY - SECOND, true), (DAY + SECOND, false), (40 * DAY, false)] {
            let mut machine = Machine::new(RIGHT);
            machine.passes(away);
            let state = ClockState {
                newest: Timestamp::from_millis(RIGHT.unsigned_abs()),
                ..machine.clock.state_at(machine.reading)
            };
            machine.clock = StoreClock::start_at(machine.reading, state, machine.created);
            let time = machine.clock.expiry_at(machine.reading);
            assert_eq!((time.deletes, signed(time.at.as_millis())), (deletes, RIGHT + away));
            machine.passes(HOUR);
            assert!(machine.clock.expiry_at(machine.reading).deletes);
        }
    }

    #[test]
    fn the_longest_retention_is_that_of_answer_and_tombstone() {
        let machine = Machine::new(RIGHT);
        let keep = |hours: u64| Keep::For(Duration::from_secs(3600 * hours));
        for (answer, tombstone, hours) in [
            (keep(1), keep(0), 1),
            (keep(2), keep(3), 5),
            (keep(6), Keep::Forever, 6),
            (Keep::Forever, keep(9), 6),
        ] {
            let retention = samples::kept_for(answer, tombstone);
            machine.clock.observe(&samples::claim(1).completed(
                samples::answer(1),
                retention,
                samples::T0,
            ));
            let longest = machine.clock.state_at(machine.reading).longest;
            assert_eq!(longest, hours * 3_600_000);
        }
    }
}
