//! The memtable's index by expiry, and a floor: the time before which no record is due.
//!
//! The expiry loop lists pages of due records and changes every record, so until the next
//! checkpoint the table is full of outdated entries. The floor lets every page start behind the
//! outdated entries.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock::Timestamp;
use crate::idempotency::RecordId;

/// Records of the memtable in order of expiry.
#[derive(Default)]
pub(super) struct ExpiryIndex(Mutex<ExpiryState>);

struct ExpiryState {
    due: BTreeSet<(Timestamp, RecordId)>,
    /// Every entry of the table before this time is outdated.
    floor: Timestamp,
    /// Earliest expiry added since the start of the newest listing.
    added: Timestamp,
    /// Number of listings so far.
    listings: u64,
}

impl Default for ExpiryState {
    fn default() -> Self {
        let (floor, added) = (Timestamp::from_millis(0), Timestamp::from_millis(u64::MAX));
        Self { due: BTreeSet::new(), floor, added, listings: 0 }
    }
}

/// A listing of due records.
pub(super) struct DueRecords {
    /// Due records of the memtable, in order.
    pub(super) records: Vec<(Timestamp, RecordId)>,
    /// Start time for the listing of the table.
    pub(super) floor: Timestamp,
    /// Time up to which `records` is complete.
    pub(super) complete_until: Timestamp,
    listing: u64,
}

impl ExpiryIndex {
    /// Replaces a record's entry; `None`: no entry.
    pub(super) fn replace(&self, id: RecordId, old: Option<Timestamp>, new: Option<Timestamp>) {
        if old == new {
            return;
        }
        let mut state = self.lock();
        if let Some(old) = old {
            state.due.remove(&(old, id));
        }
        if let Some(new) = new {
            state.due.insert((new, id));
            state.floor = state.floor.min(new);
            state.added = state.added.min(new);
        }
    }

    /// Begins a listing of at most `limit` records due at `until`.
    pub(super) fn begin(&self, until: Timestamp, limit: usize) -> DueRecords {
        let mut state = self.lock();
        let due = state.due.iter().take_while(|(at, _)| *at <= until).take(limit);
        let records: Vec<_> = due.copied().collect();
        let last = records.last().filter(|_| records.len() == limit);
        let complete_until = last.map_or(until, |(at, _)| *at);
        state.added = Timestamp::from_millis(u64::MAX);
        state.listings += 1;
        DueRecords { records, floor: state.floor, complete_until, listing: state.listings }
    }

    /// Ends a listing without a valid entry before `floor`. Of several concurrent listings only the
    /// newest counts, because `added` covers the time since the start of the newest.
    pub(super) fn end(&self, listing: &DueRecords, floor: Timestamp) {
        let mut state = self.lock();
        if state.listings == listing.listing {
            state.floor = state.floor.max(floor.min(state.added));
        }
    }

    fn lock(&self) -> MutexGuard<'_, ExpiryState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
