//! The first hour of a process whose server's clock seems to be far ahead.
//!
//! A step forward of the server's clock in a running process expires nothing, but a process that
//! starts after the step has only seen the new time. Two other clocks contradict a wrong one: the
//! newest record, and the clock of this machine. Neither proves anything, since a store may have
//! been unused and this machine's clock be wrong itself. So nothing is refused: for an hour nothing
//! is deleted, and a key past its tombstone reads as a tombstone.

use std::time::Duration;

use crate::clock::{self, Timestamp, rfc3339};

/// Distance of two clocks from which on a clock that is ahead may be wrong.
const FAR: Duration = Duration::from_secs(86_400);
/// Time of a process in which nothing is deleted: long enough for the network to correct a clock.
const QUARANTINE: Duration = Duration::from_secs(3600);
/// Distance up to which clocks count as equal.
const TOLERANCE: Duration = Duration::from_secs(10);

/// Newest time of the stored records.
pub(super) enum NewestRecord {
    /// There is no record, so nothing to protect.
    Absent,
    At(Timestamp),
    /// The newest record could not be read.
    Unknown,
}

/// End of the quarantine, in the time of [`clock::uptime`]; `None`: nothing contradicts the clock.
pub(super) fn end(server: Timestamp, newest: NewestRecord) -> Option<Duration> {
    let here = clock::now();
    judge(server, &newest, here).then(|| clock::uptime() + QUARANTINE)
}

fn judge(server: Timestamp, newest: &NewestRecord, here: Timestamp) -> bool {
    let times = (rfc3339(server), rfc3339(here));
    let (server_clock, machine_clock) = (&times.0, &times.1);
    let record = match newest {
        NewestRecord::Absent => return false,
        NewestRecord::At(at) => Some(*at),
        NewestRecord::Unknown => None,
    };
    if record.is_some_and(|at| server.until(at) > TOLERANCE) {
        tracing::warn!(
            server_clock,
            newest = record.map(rfc3339),
            "the clock of the store's server is behind the newest record; records are kept longer \
             until it has passed that record; set the clock"
        );
    }
    let far_from_record = record.is_none_or(|at| at.until(server) > FAR);
    let far_from_here = here.until(server) > FAR;
    if far_from_here {
        tracing::warn!(
            server_clock,
            machine_clock,
            "the clock of the store's server is more than a day ahead of this machine's; nothing \
             is deleted for an hour; set the clock that is wrong"
        );
    } else if far_from_record {
        tracing::info!(
            server_clock,
            newest = record.map(rfc3339),
            "the clock of the store's server is more than a day after the newest record, or that \
             could not be read; nothing is deleted for an hour, in case the clock is wrong"
        );
    }
    far_from_record || far_from_here
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_far_ahead_of_records_or_of_this_machine_is_doubted() {
        let now = Timestamp::from_millis(1_795_824_000_000);
        let later = |hours: u64| now.saturating_add(Duration::from_secs(3600 * hours));
        for (server, newest, here, doubted) in [
            (later(23), NewestRecord::At(now), now, false),
            (later(25), NewestRecord::At(now), later(25), true),
            (later(25), NewestRecord::At(later(25)), now, true),
            (now, NewestRecord::At(later(25)), later(25), false),
            (later(900), NewestRecord::Absent, now, false),
            (now, NewestRecord::Unknown, now, true),
        ] {
            assert_eq!(judge(server, &newest, here), doubted, "{}", rfc3339(server));
        }
    }
}
