//! Ranges of the index of open records in which no step is due for a while.
//!
//! Most of many open records wait for an hour, or for an operator. A scan that has looked at a part
//! of the index remembers the time at which the first of its records has to be looked at again, and
//! later scans pass over that part until then.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::store::ListPosition;

/// Ranges, at most: of full pages, those of four million records. The others are read in each scan.
const MOST: usize = 65_536;

/// Times after which a range is read again: another process may have changed its records and may
/// have ended. The times differ, so that the ranges of one scan are not all read in the same one
/// again.
const SHORTEST: Duration = Duration::from_secs(240);
pub(super) const LONGEST: Duration = Duration::from_secs(360);

/// A range behind a position, newest first.
#[derive(Debug, Clone, Copy)]
struct IdleRange {
    /// The last position of the range.
    last: ListPosition,
    /// Time of the next look.
    until: Instant,
}

/// The ranges that a scan passes over.
#[derive(Debug, Default)]
pub(super) struct IdleRanges {
    /// By the position before the range, from the newest on.
    ranges: BTreeMap<Reverse<ListPosition>, IdleRange>,
}

impl IdleRanges {
    /// The position behind all ranges that follow `from` without a gap.
    pub(super) fn pass(&self, mut from: ListPosition, now: Instant) -> ListPosition {
        while let Some(range) = self.ranges.get(&Reverse(from)).filter(|range| range.until > now) {
            from = range.last;
        }
        from
    }

    /// The position before the next range behind `from`, up to which a scan has to read. Ranges in
    /// between whose time has come are dropped.
    pub(super) fn next(&mut self, from: ListPosition, now: Instant) -> Option<ListPosition> {
        loop {
            let (start, range) = self.ranges.range(Reverse(from)..).next()?;
            if range.until > now {
                return Some(start.0);
            }
            let start = *start;
            self.ranges.remove(&start);
        }
    }

    /// Remembers the range behind `from` up to `last`: nothing in it is due before `due`.
    pub(super) fn add(
        &mut self,
        (from, last): (ListPosition, ListPosition),
        due: Option<Instant>,
        now: Instant,
    ) {
        let share = u32::from(last.id.as_bytes().last().copied().unwrap_or_default());
        let longest = now + SHORTEST + (LONGEST - SHORTEST) * share / u32::from(u8::MAX);
        let until = due.map_or(longest, |due| due.min(longest));
        if last < from && until > now && self.ranges.len() < MOST {
            self.ranges.insert(Reverse(from), IdleRange { last, until });
        }
    }

    /// Forgets the ranges behind `from`: there is no record.
    pub(super) fn end(&mut self, from: ListPosition) {
        self.ranges.split_off(&Reverse(from));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.ranges.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::idempotency::RecordId;

    fn at(millis: u64) -> ListPosition {
        let id = RecordId::from_bytes([0; 16]);
        ListPosition { first_seen: Timestamp::from_millis(millis), id }
    }

    #[tokio::test]
    async fn ranges_are_passed_over_until_their_first_step_is_due() {
        let (mut idle, now) = (IdleRanges::default(), Instant::now());
        let later = |seconds: u64| now + Duration::from_secs(seconds);
        idle.add((at(90), at(80)), Some(later(60)), now);
        idle.add((at(80), at(70)), None, now);
        idle.add((at(60), at(50)), Some(later(10)), now);
        assert_eq!(idle.pass(at(90), now), at(70), "to the gap");
        assert_eq!(idle.next(at(70), now), Some(at(60)));
        assert_eq!(idle.next(ListPosition::NEWEST, now), Some(at(90)));
        assert_eq!(idle.pass(at(60), later(10)), at(60), "due");
        assert_eq!(idle.next(at(70), later(10)), None, "dropped");
        assert_eq!(idle.pass(at(90), later(60)), at(90));
        assert_eq!(idle.pass(at(80), later(60)), at(70));
        assert_eq!(idle.pass(at(80), now + LONGEST), at(80), "each range is read again");
    }

    #[tokio::test]
    async fn empty_ranges_and_what_is_due_at_once_are_not_remembered() {
        let (mut idle, now) = (IdleRanges::default(), Instant::now());
        idle.add((at(90), at(90)), None, now);
        idle.add((at(80), at(70)), Some(now), now);
        assert_eq!(idle.next(ListPosition::NEWEST, now), None);
        idle.add((at(60), at(50)), None, now);
        idle.add((at(50), at(40)), None, now);
        idle.end(at(50));
        assert_eq!(idle.pass(at(60), now), at(50));
        idle.clear();
        assert_eq!(idle.pass(at(60), now), at(60));
    }
}
