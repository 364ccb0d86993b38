//! The queue of a route: records with the time of their next step.

use std::collections::{BTreeSet, HashMap};

use tokio::time::Instant;

use crate::idempotency::RecordId;
use crate::idempotency::id::BuildIdHasher;

/// Records in a queue, at most; a scan of the store finds the others.
const LONGEST: usize = 10_000;

/// Records in the order of their next steps, each once.
#[derive(Debug, Default)]
pub(super) struct StepQueue {
    order: BTreeSet<(Instant, RecordId)>,
    times: HashMap<RecordId, Instant, BuildIdHasher>,
}

impl StepQueue {
    /// Adds a record. The earlier of two times for the same record counts: a step that is asked for
    /// too early finds the later time in the record. Of more records than fit, the latest is left
    /// out and returned with its time.
    pub(super) fn add(&mut self, at: Instant, id: RecordId) -> Option<(Instant, RecordId)> {
        match self.times.get(&id) {
            Some(known) if *known <= at => return None,
            Some(known) => {
                self.order.remove(&(*known, id));
            }
            None => {}
        }
        self.order.insert((at, id));
        self.times.insert(id, at);
        if self.order.len() <= LONGEST {
            return None;
        }
        let latest = self.order.pop_last();
        if let Some((_, id)) = &latest {
            self.times.remove(id);
        }
        latest
    }

    /// Takes a record that is due.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<RecordId> {
        self.first().filter(|at| *at <= now)?;
        let (_, id) = self.order.pop_first()?;
        self.times.remove(&id);
        Some(id)
    }

    /// The time of the first record.
    pub(super) fn first(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Reports room for a record with a step before `until`: a free place, or that of a later
    /// record.
    pub(super) fn has_room(&self, until: Instant) -> bool {
        self.order.len() < LONGEST || self.order.last().is_some_and(|(at, _)| *at > until)
    }

    /// Reports room for many records with a step before `until`.
    pub(super) fn has_much_room(&self, until: Instant) -> bool {
        self.is_half_empty() || self.order.last().is_some_and(|(at, _)| *at > until)
    }

    /// Reports a queue that is at most half full.
    pub(super) fn is_half_empty(&self) -> bool {
        self.order.len() <= LONGEST / 2
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn id(number: usize) -> RecordId {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&(number as u64).to_be_bytes());
        RecordId::from_bytes(bytes)
    }

    #[tokio::test]
    async fn a_record_stands_once_at_its_earliest_time() {
        let (mut queue, now) = (StepQueue::default(), Instant::now());
        let at = |seconds: u64| now + Duration::from_secs(seconds);
        for seconds in [5, 9, 2, 4] {
            assert_eq!(queue.add(at(seconds), id(1)), None);
        }
        queue.add(at(3), id(2));
        assert_eq!(queue.first(), Some(at(2)));
        assert_eq!(queue.take_due(at(1)), None);
        assert_eq!(queue.take_due(at(2)), Some(id(1)));
        assert_eq!(queue.take_due(at(9)), Some(id(2)));
        assert_eq!(queue.take_due(at(9)), None, "each record stands once");
        assert_eq!(queue.times.len(), 0);
    }

    #[tokio::test]
    async fn a_full_queue_leaves_out_the_latest() {
        let (mut queue, now) = (StepQueue::default(), Instant::now());
        let at = |seconds: usize| now + Duration::from_secs(seconds as u64);
        for number in 0..LONGEST {
            assert_eq!(queue.add(at(100 + number), id(number)), None);
        }
        assert!(queue.has_room(at(99)) && !queue.has_room(at(200 + LONGEST)));
        assert!(queue.has_much_room(at(99)) && !queue.has_much_room(at(200 + LONGEST)));
        let last = LONGEST - 1;
        assert_eq!(queue.add(at(1), id(LONGEST)), Some((at(100 + last), id(last))));
        assert_eq!(queue.add(at(99_999), id(last)), Some((at(99_999), id(last))));
        assert_eq!((queue.order.len(), queue.times.len()), (LONGEST, LONGEST));
        assert_eq!(queue.first(), Some(at(1)));
    }
}
