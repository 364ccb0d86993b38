//! Adding records to the table: sorted, as a run of the tree, in a single atomic step.
//!
//! Records, their changed index entries and the checkpoint marker become durable together or not at
//! all. The table therefore never holds a record with an index entry of a different state, whatever
//! the moment of a crash.

use std::io;

use super::disk::{Disk, RunEntry};
use super::layout::{ClockState, DirtyRecord, MARKER, Marker, TableKey, index_differences};
use super::table::Table;

/// Adds records to the table, durably and together with the checkpoint marker. Sorts the records.
pub(super) fn ingest(
    table: &Table,
    disk: &dyn Disk,
    records: &mut [DirtyRecord],
    (frame, clock): (u64, ClockState),
) -> io::Result<()> {
    records.sort_unstable_by_key(|record| record.id.rotated());
    let records = &*records;
    let mut indexes = Vec::with_capacity(2 * records.len());
    let mut marker = Marker { frame, clock, ..table.newest_marker()? };
    for record in records {
        let current = record.current.as_ref().map(|encoded| encoded.head);
        index_differences(&record.id, record.stored, current, |key, added| {
            indexes.push((key, added));
        });
        match (record.stored, current) {
            (None, Some(_)) => marker.records += 1,
            (Some(_), None) => marker.records = marker.records.saturating_sub(1),
            (Some(_), Some(_)) | (None, None) => {}
        }
    }
    indexes.sort_unstable();
    let keys: Vec<TableKey> = records.iter().map(|record| TableKey::record(&record.id)).collect();
    let marker = marker.encode();
    let indexes = indexes
        .iter()
        .map(|(key, added)| RunEntry { key: key.as_bytes(), value: added.then_some(&[][..]) });
    let records = keys.iter().zip(records).filter_map(|(key, record)| {
        let value = record.current.as_ref().map(|encoded| &*encoded.bytes);
        let known = record.stored.is_some() || value.is_some();
        known.then_some(RunEntry { key: key.as_bytes(), value })
    });
    let marker = RunEntry { key: MARKER, value: Some(&marker) };
    disk.ingest(table.tree(), &mut std::iter::once(marker).chain(indexes).chain(records))
}
