//! Calls that were in flight when the last process ended become unknown, durably, before a reader
//! sees them.

use super::disk::Disk;
use super::ingest::ingest;
use super::layout::{DirtyRecord, Keyspace, StoredRecord, TableKey};
use super::table::{Table, unreadable};
use crate::clock::Timestamp;
use crate::idempotency::RecordId;
use crate::idempotency::outcome::UnknownReason;
use crate::store::StoreError;
use crate::store::codec::Head;

/// Records made unknown by one write of the table.
const RECORDS_AT_ONCE: usize = 16 << 10;
/// Largest number of corrupt records that are named; further ones are only counted.
pub(super) const MAX_NAMED: usize = 100;

/// Findings about the open records of a store that was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// True if the store was created just now.
    pub created: bool,
    /// Calls that were in flight when the last process ended; unknown now.
    pub interrupted: u64,
    /// Records that are unknown, interrupted calls included.
    pub unknown: u64,
    /// Open records that cannot be read back, and the reason; they are left as they are, and their
    /// keys are refused. At most a hundred are named.
    pub corrupt: Vec<(RecordId, String)>,
    /// Number of corrupt open records.
    pub corrupt_count: u64,
}

/// Makes every record in flight unknown: the process that dispatched the call is gone, and nobody
/// can say any more whether the backend acted.
pub(super) fn lose_in_flight(
    table: &Table,
    disk: &dyn Disk,
    now: Timestamp,
) -> Result<Recovered, StoreError> {
    // The table has all frames of the log, before and after.
    let frame = table.marker().map_err(StoreError::Unavailable)?.frame;
    let commit = |lost: &mut Vec<DirtyRecord>| {
        // Entries of the index `open` are in the order of the ids.
        ingest(table, disk, lost, frame).map_err(StoreError::Unavailable)?;
        lost.clear();
        Ok::<(), StoreError>(())
    };
    let mut recovered = Recovered::default();
    let mut lost = Vec::new();
    for entry in table.entries(Keyspace::Open) {
        let (key, _) = entry.map_err(|error| unreadable(&error))?;
        let Some(id) = TableKey::parse(&key).map(|key| key.id()) else { continue };
        let reason = match table.get(&id) {
            Ok(Some(record)) => {
                let head = Head::of(&record);
                if head.in_flight {
                    let record = record.lost(UnknownReason::ProcessEnded, now);
                    let current = Some(StoredRecord::of(&table.codec, &id, &record));
                    lost.push(DirtyRecord { id, stored: Some(head), current });
                    recovered.interrupted += 1;
                    recovered.unknown += 1;
                    if lost.len() >= RECORDS_AT_ONCE {
                        commit(&mut lost)?;
                    }
                    continue;
                }
                if head.open {
                    recovered.unknown += 1;
                    continue;
                }
                "the index calls it open and it is not".to_owned()
            }
            Ok(None) => "the index names it and it is missing".to_owned(),
            Err(StoreError::Corrupt { reason, .. }) => reason,
            Err(error @ StoreError::Unavailable(_)) => return Err(error),
        };
        recovered.corrupt_count += 1;
        if recovered.corrupt.len() < MAX_NAMED {
            recovered.corrupt.push((id, reason));
        }
    }
    if !lost.is_empty() {
        commit(&mut lost)?;
    }
    Ok(recovered)
}
