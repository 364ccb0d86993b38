//! Calls interrupted by the end of the last process: marked unknown, durably, before any read.

use super::clock::StoreClock;
use super::disk::Disk;
use super::ingest::ingest;
use super::layout::{DirtyRecord, IndexedRecord, Keyspace, TableKey};
use super::read::RecordReadError;
use super::table::Table;
use crate::idempotency::RecordId;
use crate::idempotency::outcome::UnknownReason;
use crate::store::StoreError;
use crate::store::codec::Head;

/// Number of records marked unknown per write of the table.
const RECORDS_AT_ONCE: usize = 16 << 10;
/// Limit of listed corrupt records; further corrupt records are only counted.
pub(super) const MAX_NAMED: usize = 100;

/// Findings about the open records of a newly opened store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// True if the store was created just now.
    pub created: bool,
    /// Calls in flight at the end of the last process; now unknown.
    pub interrupted: u64,
    /// Unknown records, interrupted calls included.
    pub unknown: u64,
    /// Corrupt open records, and the reasons; left unchanged, with their keys refused. At most a
    /// hundred are listed.
    pub corrupt: Vec<(RecordId, String)>,
    /// Number of corrupt open records.
    pub corrupt_count: u64,
}

/// Marks every record in flight as unknown: the process of the call is gone, so the backend may or
/// may not have acted.
pub(super) fn lose_in_flight(
    table: &Table,
    disk: &dyn Disk,
    clock: &StoreClock,
) -> Result<Recovered, StoreError> {
    // The table contains all frames of the log, before and after this step.
    let frame = table.marker().map_err(|error| StoreError::Unavailable(error.to_string()))?.frame;
    let now = clock.now();
    let commit = |lost: &mut Vec<DirtyRecord>| {
        ingest(table, disk, lost, (frame, clock.state()))
            .map_err(|error| StoreError::Unavailable(error.to_string()))?;
        lost.clear();
        Ok::<(), StoreError>(())
    };
    let mut recovered = Recovered::default();
    let mut lost = Vec::new();
    for entry in table.entries(Keyspace::Open) {
        let (key, _) = entry.map_err(RecordReadError::from)?;
        let Some(id) = TableKey::parse(&key).map(|key| key.id()) else { continue };
        let reason = match table.get(&id) {
            Ok(Some(record)) => {
                let head = Head::of(&record);
                if head.in_flight {
                    let record = record.lost(UnknownReason::ProcessEnded, now);
                    let current = Some(IndexedRecord::of(&table.codec, &id, &record));
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
            Err(RecordReadError::Failed(StoreError::Corrupt { reason, .. })) => reason,
            Err(error @ (RecordReadError::Failed(_) | RecordReadError::Descriptors(_))) => {
                return Err(error.into());
            }
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
